"""What a run says before it begins, and where memory ran out."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sft_core.config import LabConfig
from sft_core.events import Warned
from sft_core.forewarning import memory_explained, notes
from sft_core.types import TrainingError


def told(
    *settings: str, total: int = 100, note: str = "", end: tuple[int, ...] = (1,)
) -> dict[str, str]:
    learner: Any = SimpleNamespace(total=total, note=note)
    found = notes(LabConfig().with_settings(settings), learner, end)
    return {event.code: event.message for event in found if isinstance(event, Warned)}


def test_there_is_nothing_to_say_of_the_default_run() -> None:
    assert told() == {}


def test_what_is_cut_missing_or_left_out_is_said_in_a_sentence() -> None:
    assert told("warmup_steps=10", total=4) == {
        "warm-up": "The warm-up of 10 steps is cut to 2, half of this run's 4."
    }
    assert "prints nothing after an answer" in told(end=())["no-end"]
    assert "leaves ends of turn out" in told("policy.end_of_turn=false")["no-end"]
    assert told("policy.end_of_turn=false", "policy.train_on=all") == {}
    assert told(note="The model is not compiled.") == {"compile": "The model is not compiled."}
    assert "lora-rate" in told("method=lora", "train.learning_rate=5e-5")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 TB"),
    ],
)
def test_a_lack_of_memory_names_the_knobs(error: Exception) -> None:
    config = LabConfig().with_settings(["batch_size=3", "max_length=64"])
    words = r"Lower batch_size \(now 3; .*max_length \(now 64\), turn gradient_checkpointing on"
    with pytest.raises(TrainingError, match=words), memory_explained(config):
        raise error
    saving = config.with_settings(["gradient_checkpointing=true"])
    with pytest.raises(TrainingError) as caught, memory_explained(saving):
        raise error
    assert "turn gradient_checkpointing on" not in str(caught.value)


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="shapes"), memory_explained(LabConfig()):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")
