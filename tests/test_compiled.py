"""Compiled layers compute the same, where they are wanted and can be had."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
import torch

from sft_core import compiled
from sft_core.compiled import WORTH_STEPS, compile_layers, decide
from sft_core.config import TrainConfig
from tests.tensors import tiny_model

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
AUTO = TrainConfig()


def test_by_itself_only_a_long_run_on_a_gpu_of_one_s_own_is_compiled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(compiled, "find_spec", lambda name: object())
    assert decide(AUTO, CUDA, WORTH_STEPS, on_lease=False) == (True, "")
    assert decide(AUTO, CUDA, WORTH_STEPS - 1, on_lease=False) == (False, "")
    assert decide(AUTO, CUDA, WORTH_STEPS, on_lease=True) == (False, "")
    assert decide(AUTO, CPU, 10**6, on_lease=False) == (False, "")
    assert decide(replace(AUTO, compile="off"), CUDA, 10**6, on_lease=False) == (False, "")


def test_a_wish_that_cannot_be_met_is_answered_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wish = replace(AUTO, compile="on")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(compiled, "find_spec", lambda name: None)
    for device, word in ((CPU, "C\\+\\+"), (CUDA, "triton"), (torch.device("mps"), "mps")):
        wanted, why = decide(wish, device, 10, on_lease=False)
        assert not wanted
        with pytest.raises(AssertionError, match=word):
            raise AssertionError(why)
    saving = replace(wish, gradient_checkpointing=True)
    assert "checkpointing" in decide(saving, CPU, 10, on_lease=False)[1]


# torch's compiler uses what torch itself has deprecated.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_layers_and_nothing_else_are_handed_over() -> None:
    model = tiny_model()
    assert compile_layers(model) == 2
    assert [m._compiled_call_impl is not None for m in model.model.layers] == [True, True]
    assert model._compiled_call_impl is None
    ids = torch.arange(6).unsqueeze(0)
    try:
        with compiled.compiling(False):
            assert torch.equal(model(ids).logits, tiny_model()(ids).logits)
    finally:
        torch.compiler.set_stance("default")
