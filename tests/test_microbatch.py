"""A step cut as memory asks gives the same gradients, and shrinks when memory runs out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from sft_core.learner import Learner
from sft_core.microbatch import Cutter, is_out_of_memory
from tests.test_learner import ROWS, gradients, learner, weights

PLAN = ((0, 1), (2, 3))  # rows of 9, 22, 9 and 2 tokens


class Narrow(torch.nn.Module):
    """Memory for so many tokens at once, and no more."""

    def __init__(self, of: Learner, most: int) -> None:
        super().__init__()
        self.model, self.most, self.seen = of._model, most, list[int]()

    def forward(self, **values: Any) -> Any:
        tokens = values["input_ids"].numel()
        self.seen.append(tokens)
        if tokens > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate a lot.")
        return self.model(**values)


def same(ours: list[Tensor], theirs: list[Tensor]) -> bool:
    return all(torch.allclose(a, b, atol=1e-6, rtol=0) for a, b in zip(ours, theirs, strict=True))


def test_rows_fill_parts_up_to_the_limit() -> None:
    lengths = [5, 3, 2, 9, 1]
    assert Cutter(lengths, 10).cut([0, 1, 2, 3, 4]) == [[0, 1, 2], [3, 4]]
    assert Cutter(lengths, 4).cut([0, 1, 4, 3]) == [[0], [1, 4], [3]]
    assert Cutter(lengths).cut([3, 0]) == [[3, 0]]
    assert Cutter(lengths, 10).cut([]) == []


def test_the_limit_halves_until_every_row_stands_alone() -> None:
    cutter = Cutter([4, 4, 4, 4], 100)
    assert cutter.cut([0, 1, 2, 3]) == [[0, 1, 2, 3]]
    assert cutter.smaller()
    assert cutter.cut([0, 1, 2, 3]) == [[0, 1], [2, 3]]
    assert cutter.smaller()
    assert cutter.cut([0, 1, 2, 3]) == [[0], [1], [2], [3]]
    assert not cutter.smaller()
    assert not Cutter([4]).smaller()


@pytest.mark.parametrize("limit", [1, 10, 20, 31, 1000])
def test_any_cut_gives_the_same_gradients(limit: int) -> None:
    whole, cut = learner(), learner(auto_micro_batch=True)
    cut._cutter.limit = limit
    assert same(gradients(cut, PLAN), gradients(whole, PLAN))


def test_without_being_asked_nothing_is_cut() -> None:
    assert learner()._cutter.limit is None


def test_a_roomy_machine_computes_a_whole_step_at_once() -> None:
    of = learner(auto_micro_batch=True)
    of.forward._worth = 10**6  # one more pass is dear, so that padding alone cuts nothing
    assert len(of._work(PLAN)) == 1
    assert len(learner()._work(PLAN)) >= len(PLAN)


def test_out_of_memory_shrinks_the_parts_and_changes_no_gradient() -> None:
    expected, of = gradients(learner(), PLAN), learner(auto_micro_batch=True)
    of.forward._worth = 10**6
    narrow = Narrow(of, most=30)
    of._model = narrow
    found = gradients(of, PLAN)
    assert same(found, expected)
    assert narrow.seen[0] > narrow.most
    assert max(narrow.seen[-2:]) <= narrow.most
    tried = len(narrow.seen)
    assert of.optimise(PLAN) is not None
    assert max(narrow.seen[tried:]) <= narrow.most  # it remembers


def test_a_row_that_does_not_fit_alone_ends_the_run_with_its_weights_as_they_were() -> None:
    of = learner(auto_micro_batch=True)
    before = weights(of)
    of._model = Narrow(of, most=21)  # the longest row has 22
    with pytest.raises(torch.OutOfMemoryError):
        of.optimise(PLAN)
    assert all(map(torch.equal, weights(of), before))


def test_who_did_not_ask_gets_the_error() -> None:
    of = learner()
    of._model = Narrow(of, most=21)
    with pytest.raises(torch.OutOfMemoryError):
        of.optimise(PLAN)
    assert len(of._model.seen) <= len(ROWS)


def test_other_errors_are_no_lack_of_memory() -> None:
    assert is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes"))
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
