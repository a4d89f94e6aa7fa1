"""Whole rows in windows: none lost, none cut, little room left."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sft_core.batch import collate
from sft_core.packing import Line, Packed, Segment, best_fit, line, pack
from sft_core.types import DataError
from tests.tensors import rows_of

WINDOW = 64
LENGTHS = st.lists(st.integers(0, WINDOW), max_size=120)


def next_fit(lengths: list[int], window: int, order: list[int]) -> int:
    """How many windows it takes where a row only looks at the window before it."""
    windows, left = 0, -1
    for row in order:
        if lengths[row] > left:
            windows, left = windows + 1, window
        left -= lengths[row]
    return windows


def slow_best_fit(lengths: list[int], window: int, order: list[int]) -> list[int]:
    """The room left in each window, by looking at all of them for every row."""
    rooms: list[int] = []
    for row in order:
        fitting = [room for room in rooms if room >= max(lengths[row], 1)]
        if fitting:
            rooms[rooms.index(min(fitting))] -= lengths[row]
        else:
            rooms.append(window - lengths[row])
    return rooms


@given(LENGTHS, st.integers(0, 3), st.integers(0, 3))
@settings(deadline=None)
def test_every_row_lies_in_one_window_and_no_window_overflows(
    lengths: list[int], seed: int, epoch: int
) -> None:
    packed = pack(lengths, WINDOW, seed=seed, epoch=epoch)
    assert sorted(row for window in packed.windows for row in window) == list(range(len(lengths)))
    assert all(window for window in packed.windows)
    assert all(sum(lengths[row] for row in window) <= WINDOW for window in packed.windows)
    assert (packed.tokens, packed.slots) == (sum(lengths), WINDOW * len(packed.windows))
    assert packed == pack(lengths, WINDOW, seed=seed, epoch=epoch)


@given(st.lists(st.integers(1, WINDOW), max_size=60), st.randoms(use_true_random=False))
@settings(deadline=None)
def test_each_row_goes_where_it_leaves_the_least_room(
    lengths: list[int], rng: random.Random
) -> None:
    order = list(range(len(lengths)))
    rng.shuffle(order)
    windows = best_fit(lengths, WINDOW, order)
    rooms = [WINDOW - sum(lengths[row] for row in window) for window in windows]
    assert sorted(rooms) == sorted(slow_best_fit(lengths, WINDOW, order))


@given(st.lists(st.integers(1, WINDOW), max_size=120))
@settings(deadline=None)
def test_no_two_windows_would_fit_into_one(lengths: list[int]) -> None:
    """So that more than half of all places are filled."""
    packed = pack(lengths, WINDOW, seed=0)
    rooms = sorted(WINDOW - sum(lengths[row] for row in window) for window in packed.windows)
    assert len(rooms) < 2 or rooms[-1] + rooms[-2] < WINDOW


SHAPES = {
    "talk": lambda rng: rng.lognormvariate(5.2, 0.8),
    "short": lambda rng: rng.lognormvariate(3.4, 0.6),
    "even": lambda rng: rng.uniform(1, 2048),
    "long": lambda rng: rng.lognormvariate(6.6, 0.5),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rows", [50, 3000])
def test_it_stays_near_the_least_number_of_windows_and_below_next_fit(
    shape: str, rows: int
) -> None:
    rng = random.Random(rows)
    lengths = [min(2048, max(1, round(SHAPES[shape](rng)))) for _ in range(rows)]
    windows = len(pack(lengths, 2048, seed=1).windows)
    least = math.ceil(sum(lengths) / 2048)
    order = list(range(rows))
    random.Random(1).shuffle(order)
    assert least <= windows <= 11 / 9 * least + 1
    assert windows <= next_fit(lengths, 2048, order)


def test_rows_longer_than_half_a_window_come_first() -> None:
    """Were the halves to come first, the long ones would be left alone."""
    lengths = [30, 34, 30, 34, 30, 34]
    packed = pack(lengths, 64, seed=3)
    assert (
        sorted(sorted(lengths[row] for row in window) for window in packed.windows)
        == [[30, 34]] * 3
    )
    assert packed.efficiency == 1.0


def test_companions_differ_between_epochs_and_seeds() -> None:
    rng = random.Random(0)
    lengths = [rng.randint(10, 300) for _ in range(800)]

    def pairs(seed: int, epoch: int) -> set[tuple[int, ...]]:
        windows = pack(lengths, 2048, seed=seed, epoch=epoch).windows
        return {
            (min(a, b), max(a, b)) for window in windows for a in window for b in window if a != b
        }

    first = pairs(0, 0)
    for other in (pairs(0, 1), pairs(1, 0)):
        assert len(first & other) < 0.05 * len(first)


def test_long_and_short_rows_come_mixed() -> None:
    """A window holds what it would by chance: the number of its rows varies little."""
    rng = random.Random(0)
    lengths = [min(2048, round(rng.lognormvariate(5.2, 0.8)) + 1) for _ in range(2000)]
    counts = [len(window) for window in pack(lengths, 2048, seed=0).windows]
    decreasing = sorted(range(2000), key=lambda row: -lengths[row])
    sorted_counts = [len(window) for window in best_fit(lengths, 2048, decreasing)]
    assert spread(counts) < 0.6 * spread(sorted_counts)


def spread(values: list[int]) -> float:
    mean = sum(values) / len(values)
    return math.sqrt(sum((value - mean) ** 2 for value in values) / len(values))


def test_the_same_on_every_machine() -> None:
    assert pack([30, 40, 20, 10, 50], 60, seed=42).windows == ((0,), (4, 3), (1, 2))


def test_a_row_that_fits_into_no_window_is_refused() -> None:
    with pytest.raises(DataError, match="65 tokens does not fit into a window of 64"):
        pack([3, 65], 64, seed=0)


def test_a_window_of_any_size_is_no_work_of_its_own() -> None:
    assert len(pack([5, 9, 2], 10**15, seed=0).windows) == 1


def test_nothing_packs_into_nothing() -> None:
    assert pack([], 64, seed=0) == Packed((), 0, 0)
    assert Packed((), 0, 0).efficiency == 1.0


# -- lines ------------------------------------------------------------------------------------


def test_positions_restart_with_every_row_and_segments_are_numbered() -> None:
    made = line((2, 0), [3, 9, 2], 7)
    assert made == Line((Segment(2, 0, 2), Segment(0, 2, 3)), 7)
    assert made.position_ids() == (0, 1, 0, 1, 2, 0, 0)
    assert made.segment_ids() == (1, 1, 2, 2, 2, 0, 0)
    assert made.tokens == 5


def test_a_line_is_what_the_trainer_pads() -> None:
    batch = collate(rows_of((1, 2), (1, 1)), pad_id=0)
    made = [line((row,), [3, 2], 3) for row in range(2)]
    assert [list(each.position_ids()) for each in made] == batch.position_ids.tolist()
    assert [list(each.segment_ids()) for each in made] == batch.segment_ids.tolist()
