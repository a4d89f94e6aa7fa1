"""Padding and pieces."""

from __future__ import annotations

from itertools import pairwise, product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sft_core.batch import collate, pieces
from sft_core.dealing import plan, waste
from sft_core.types import IGNORE_INDEX, Encoded, EncodeError, Reason
from tests.tensors import Row, rows_of

LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=90)


def test_collate_fills_up_on_the_right() -> None:
    batch = collate([Row((5, 6, 7), (-100, 6, 7)), Row((8, 9), (-100, 9))], pad_id=3)
    assert batch.input_ids.tolist() == [[5, 6, 7], [8, 9, 3]]
    assert batch.labels.tolist() == [[-100, 6, 7], [-100, 9, -100]]
    assert batch.attention_mask.tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch.position_ids.tolist() == [[0, 1, 2], [0, 1, 0]]
    assert batch.segment_ids.tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch.tokens == 5


def test_every_tensor_is_of_64_bit_integers() -> None:
    batch = collate(rows_of((1, 2)), pad_id=0)
    tensors = (batch.input_ids, batch.labels, batch.attention_mask, batch.position_ids)
    assert {tensor.dtype for tensor in (*tensors, batch.segment_ids)} == {torch.int64}


def test_each_token_keeps_its_kind() -> None:
    rows = [
        Row((5, 6, 7), (-100, 6, 7), (0, 2, 1)),
        Row((8, 9), (-100, 9), (0, 1)),
    ]
    kinds = collate(rows, pad_id=3, length=4).kinds
    assert kinds.tolist() == [[0, 2, 1, 0], [0, 1, 0, 0]]
    assert kinds.dtype == torch.uint8


def test_an_end_of_text_that_is_also_the_padding_stays_seen_and_trained() -> None:
    end = 9
    batch = collate([Row((4, 5, end), (-100, 5, end)), Row((4, 5, 6, end), (-100, 5, 6, end))], end)
    assert batch.attention_mask.tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]
    assert batch.labels[0].tolist() == [-100, 5, end, -100]


def test_a_length_pads_further_and_never_cuts() -> None:
    rows = rows_of((2, 3))
    assert collate(rows, 0, length=9).input_ids.shape == (1, 9)
    assert collate(rows, 0, length=2).input_ids.shape == (1, 5)


def test_a_trained_first_token_is_refused() -> None:
    with pytest.raises(EncodeError, match="first token"):
        collate([Row((4, 5), (4, 5))], pad_id=0)


def test_encoded_examples_are_rows() -> None:
    encoded = Encoded(
        ids=(7, 8, 9),
        offsets=((0, 1), (1, 2), (2, 3)),
        reasons=(Reason.FIRST_TOKEN, Reason.PROMPT, Reason.ANSWER),
        owners=(0, 0, 1),
    )
    batch = collate([encoded], pad_id=0)
    assert batch.labels.tolist() == [[-100, -100, 9]]
    assert batch.kinds.tolist() == [[0, 0, 0]]


def test_moving_a_batch_moves_all_of_it() -> None:
    moved = collate(rows_of((1, 2)), pad_id=0).to("meta")
    places = {moved.input_ids.device.type, moved.labels.device.type, moved.segment_ids.device.type}
    assert places == {"meta"}


# -- pieces -----------------------------------------------------------------------------------


def cheapest(lengths: list[int], worth: int) -> int:
    """The least cost of all cuts, by trying every one."""
    ordered = sorted(lengths)
    costs = []
    for choice in product((False, True), repeat=len(ordered) - 1):
        places = [0, *(at + 1 for at, cut in enumerate(choice) if cut), len(ordered)]
        costs.append(
            sum((end - start) * ordered[end - 1] + worth for start, end in pairwise(places))
        )
    return min(costs)


@given(st.lists(st.integers(1, 300), min_size=1, max_size=9), st.integers(0, 200))
@settings(deadline=None)
def test_pieces_are_the_cheapest_way_to_compute_a_batch(lengths: list[int], worth: int) -> None:
    rows = list(range(len(lengths)))
    cut = pieces(lengths, rows, worth)
    assert sorted(row for piece in cut for row in piece) == rows
    assert waste(lengths, cut).slots + worth * len(cut) == cheapest(lengths, worth)


def test_pieces_save_padding_where_it_is_worth_it() -> None:
    lengths = [10, 200, 12, 190]
    assert pieces(lengths, (0, 1, 2, 3), 50) == ((0, 2), (3, 1))
    assert pieces(lengths, (0, 1, 2, 3), 10_000) == ((0, 2, 3, 1),)
    assert pieces(lengths, (0, 1, 2, 3), 0) == ((0,), (2,), (3,), (1,))
    assert pieces(lengths, (), 5) == ()


@given(LENGTHS, st.integers(1, 9))
@settings(deadline=None)
def test_waste_is_what_collate_pads(lengths: list[int], size: int) -> None:
    rows = [Row((1,) * length, (IGNORE_INDEX,) * length) for length in lengths]
    dealt = plan(lengths, size, seed=0)
    made = [collate([rows[at] for at in chosen], 0) for chosen in dealt]
    figure = waste(lengths, dealt)
    assert figure.slots == sum(batch.input_ids.numel() for batch in made)
    assert figure.tokens == sum(batch.tokens for batch in made)
