"""The line of memory follows the settings, without the compute process."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from sft_core.config import LabConfig, ModelConfig
from sft_core.events import ModelMeasured
from sft_core.machine import Machine
from sft_core.memory import Shape, random_llama
from sft_core.ui import memory_line, sizes
from sft_core.ui.memory_line import UNKNOWN, builtin_shape, foreseen, memory_value

HUB = ModelConfig("someone/some-model")
MEASURED = ModelMeasured(
    parameters=1,
    trainable=1,
    source="config",
    shape=Shape.of_llama(random_llama(512, 8, 8, context=1024, vocabulary=8000)),
    machine=Machine("cuda", bf16=True, room=24_000_000_000),
)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizes, "_known", {sizes._key(HUB): MEASURED})


def config(**changes: Any) -> LabConfig:
    default = LabConfig()
    return default.but(train=replace(default.train, **changes))


def test_the_default_run_is_told_at_once() -> None:
    value = memory_value(foreseen(LabConfig()))
    assert value["text"].startswith("Needs about ")
    parts = "The process 400 MB, weights 9 MB, gradients 9 MB, optimiser 17 MB, activations "
    assert value["how"].startswith(parts)
    assert " at 2,048 tokens at once. " in value["how"]
    assert "level" not in value
    assert "counted tensor by tensor" in value["how"]


def test_every_setting_that_counts_moves_it() -> None:
    before = foreseen(LabConfig())
    assert before is not None
    for changes in (
        {"batch_size": 9},
        {"max_length": 128},
        {"method": "lora"},
        {"precision": "bf16"},
        {"gradient_checkpointing": True},
        {"accumulation": 2, "auto_micro_batch": True},
    ):
        after = foreseen(config(**changes))
        assert after is not None
        assert after.footprint.total != before.footprint.total, changes


def test_what_does_not_fit_names_the_knob(monkeypatch: pytest.MonkeyPatch) -> None:
    small = Machine("cpu", bf16=False, room=560_000_000)
    monkeypatch.setattr(memory_line, "_machine", lambda: small)
    value = memory_value(foreseen(LabConfig()))
    assert value["level"] == "warning"
    assert re.search(r"Lower “Batch” to \d and raise “Batches a step” to \d", value["text"])


def test_a_model_not_counted_yet_is_not_guessed() -> None:
    assert builtin_shape(HUB) is None
    assert memory_value(foreseen(LabConfig(model=HUB))) == {"text": UNKNOWN}


@pytest.mark.usefixtures("measured")
def test_a_counted_model_is_told_for_the_machine_that_counted() -> None:
    found = foreseen(LabConfig(model=HUB))
    assert found is not None
    assert (found.load.device, found.load.precision) == ("cuda", "bf16")
    assert memory_value(found)["text"].endswith(" of 24 GB of memory.")
