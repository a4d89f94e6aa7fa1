"""Which rows make a batch, how many steps that comes to, and what padding wastes."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sft_core.config import TrainConfig
from sft_core.dealing import (
    batch_windows,
    by_length,
    expected_steps,
    layouts,
    percent,
    plan,
    steps,
    steps_an_epoch,
    total_steps,
    waste,
    waste_at,
)

LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=90)

# -- the order of rows ------------------------------------------------------------------------


@given(LENGTHS, st.integers(1, 9), st.booleans())
@settings(deadline=None)
def test_a_plan_deals_every_row_exactly_once(lengths: list[int], size: int, group: bool) -> None:
    dealt = plan(lengths, size, seed=1, group_by_length=group)
    assert sorted(row for rows in dealt for row in rows) == list(range(len(lengths)))
    assert all(len(rows) == size for rows in dealt[:-1])


@given(LENGTHS, st.integers(1, 9))
@settings(deadline=None)
def test_evaluation_deals_every_row_longest_first(lengths: list[int], size: int) -> None:
    dealt = by_length(lengths, size)
    order = [row for rows in dealt for row in rows]
    assert sorted(order) == list(range(len(lengths)))
    assert [lengths[row] for row in order] == sorted(lengths, reverse=True)


def test_seed_and_epoch_decide_the_plan() -> None:
    lengths = [length % 17 + 1 for length in range(64)]
    assert plan(lengths, 4, seed=1) == plan(lengths, 4, seed=1)
    assert plan(lengths, 4, seed=1) != plan(lengths, 4, seed=2)
    assert plan(lengths, 4, seed=1, epoch=1) != plan(lengths, 4, seed=1, epoch=2)


def test_a_plan_is_the_same_on_every_machine() -> None:
    assert plan([3, 1, 2, 5, 4], 2, seed=42) == ((4, 1), (0, 3), (2,))


def test_grouping_saves_padding_and_still_changes_companions() -> None:
    lengths = [(37 * at) % 101 + 1 for at in range(400)]
    grouped = plan(lengths, 8, seed=0, group_by_length=True)
    loose = plan(lengths, 8, seed=0)
    assert waste(lengths, grouped).share < 0.5 * waste(lengths, loose).share
    companions = [
        {
            row
            for rows in plan(lengths, 8, seed=0, epoch=epoch, group_by_length=True)
            for row in rows
            if 5 in rows
        }
        for epoch in range(4)
    ]
    assert len(set(map(frozenset, companions))) == 4


def test_long_and_short_batches_come_in_any_order() -> None:
    lengths = list(range(1, 401))
    dealt = plan(lengths, 8, seed=0, group_by_length=True)
    means = [sum(lengths[row] for row in rows) for rows in dealt]
    assert means != sorted(means)
    assert means != sorted(means, reverse=True)


# -- waste ------------------------------------------------------------------------------------


def test_waste_counts_the_padding_of_each_batch() -> None:
    figure = waste([4, 2, 1], ((0, 1), (2,)))
    assert (figure.tokens, figure.slots) == (7, 9)
    assert figure.share == pytest.approx(2 / 9)


def test_rows_of_250_at_a_length_of_2048_waste_88_percent() -> None:
    assert waste_at([250] * 1000, 2048).share == pytest.approx(0.878, abs=1e-3)


def test_rows_longer_than_the_length_fill_it() -> None:
    assert waste_at([300, 100], 200).tokens == 300
    assert waste([], ()).share == 0.0


# -- steps ------------------------------------------------------------------------------------

PACKED = TrainConfig(packing=True, max_length=60, batch_size=2, accumulation=2)


@given(LENGTHS, st.integers(1, 4), st.booleans(), st.sampled_from([0.4, 1, 2, 2.5]))
@settings(deadline=None)
def test_a_run_takes_the_steps_that_it_is_told_and_whole_epochs_see_every_row(
    lengths: list[int], size: int, packing: bool, epochs: float
) -> None:
    train = TrainConfig(packing=packing, max_length=60, batch_size=size, epochs=epochs)
    dealt = list(steps(lengths, train, total_steps(lengths, train)))
    assert len(dealt) == total_steps(lengths, train)
    seen = sorted(row for step in dealt for batch in step for row in batch)
    if epochs == int(epochs):
        assert seen == sorted(list(range(len(lengths))) * int(epochs))
    elif epochs < 1:
        assert 0 < len(seen) == len(set(seen))


@given(LENGTHS, st.integers(1, 4), st.integers(1, 3))
@settings(deadline=None)
def test_packed_steps_keep_to_their_windows(
    lengths: list[int], size: int, accumulation: int
) -> None:
    train = TrainConfig(packing=True, max_length=60, batch_size=size, accumulation=accumulation)
    for step in steps(lengths, train, steps_an_epoch(lengths, train)):
        assert len(step) <= accumulation
        assert all(sum(lengths[row] for row in batch) <= 60 * size for batch in step)


def test_the_windows_of_a_batch_can_be_told_apart() -> None:
    lengths = [30, 40, 20, 10, 50, 5]
    dealt = plan(lengths, 2, seed=1, packing_window=60)
    windows = batch_windows(lengths, 2, 60, seed=1)
    assert dealt == tuple(tuple(row for window in batch for row in window) for batch in windows)
    assert all(len(batch) <= 2 for batch in windows)
    assert all(sum(lengths[row] for row in window) <= 60 for batch in windows for window in batch)


def test_packing_takes_fewer_steps_and_is_forecast_from_the_mean() -> None:
    lengths = [15] * 160
    loose = TrainConfig(max_length=60, batch_size=2, epochs=3)
    packed = TrainConfig(max_length=60, batch_size=2, epochs=3, packing=True)
    assert total_steps(lengths, loose) == expected_steps(loose, 160) == 240
    assert total_steps(lengths, packed) == expected_steps(packed, 160, 15) == 60
    assert expected_steps(packed, 160) == 240
    assert expected_steps(TrainConfig(max_steps=7, packing=True), 160) == 7
    assert total_steps(lengths, TrainConfig(max_steps=7, packing=True)) == 7


def test_an_epoch_counts_the_steps_that_its_own_windows_make() -> None:
    lengths = [at % 37 + 12 for at in range(300)]
    each = [steps_an_epoch(lengths, PACKED, epoch) for epoch in range(3)]
    assert total_steps(lengths, PACKED) == sum(each)
    dealt = list(steps(lengths, PACKED, sum(each)))
    firsts = {row for batch in dealt[each[0]] for row in batch}
    assert firsts == {
        row for b in batch_windows(lengths, 2, 60, seed=42, epoch=1)[:2] for w in b for row in w
    }


# -- layouts ----------------------------------------------------------------------------------


def lognormal(mean: float, rows: int, limit: int, seed: int = 0) -> list[int]:
    """Lengths as real rows have them: many short, a few long; their mean is near ``mean``."""
    rng = random.Random(seed)
    middle = math.log(mean) - 0.8**2 / 2
    return [min(limit, max(8, round(rng.lognormvariate(middle, 0.8)))) for _ in range(rows)]


def test_the_second_seeds_example_padding_wastes_88_percent_and_packing_less_than_2() -> None:
    lengths = lognormal(250, 4000, 2048)
    assert sum(lengths) / len(lengths) == pytest.approx(250, rel=0.02)
    found = layouts(lengths, 8, 2048, seed=0)
    assert found is not None
    assert found.empty(found.to_window) == pytest.approx(1 - 250 / 2048, abs=0.005)
    assert found.empty(found.packed) < 0.02
    assert found.packed <= found.grouped <= found.to_longest <= found.to_window
    empty = [part for _, _, part in found.table()]
    assert empty[-1] == 0.0
    assert "padded to the limit 88 % of the places are empty" in found.sentence()


def test_layouts_count_the_places_of_a_small_set_by_hand() -> None:
    found = layouts([4, 4, 2, 2, 9], 2, 6, seed=0)
    assert found is not None
    assert (found.rows, found.tokens, found.shortest, found.longest) == (5, 18, 2, 6)
    assert found.to_window == 30
    assert (found.windows, found.packed) == (3, 18)
    assert layouts([], 2, 6, seed=0) is None


def test_shares_are_said_with_a_decimal_where_it_matters() -> None:
    shares = (0, 0.0004, 0.004, 0.0994, 0.0999, 0.878)
    words = ["0 %", "under 0.1 %", "0.4 %", "9.9 %", "10 %", "88 %"]
    assert [percent(part) for part in shares] == words
