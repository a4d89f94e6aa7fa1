"""Whether a run fits, and which setting is proposed first."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sft_core.config import LabConfig, TrainConfig
from sft_core.events import from_json, to_json
from sft_core.fitting import SAFE_SHARE, event, fit, size, table, warning
from sft_core.machine import Machine
from sft_core.memory import Shape, random_llama

SHAPE = Shape.of_llama(random_llama(512, 8, 8, context=1024, vocabulary=8000))
WIDE = Shape.of_llama(random_llama(1024, 12, 16, context=1024, vocabulary=8000))
TRAIN = TrainConfig(batch_size=16, max_length=256, precision="fp32")


def config(**changes: Any) -> LabConfig:
    return LabConfig(train=replace(TRAIN, **changes))


def machine(room: int) -> Machine:
    return Machine("cpu", bf16=False, room=room)


def need(shape: Shape = SHAPE, **changes: Any) -> int:
    return fit(shape, config(**changes), machine(2**50)).footprint.total


def settings(room: int, shape: Shape = SHAPE, **changes: Any) -> tuple[str, ...]:
    advice = fit(shape, config(**changes), machine(room)).advice
    assert advice is not None
    return advice.settings


def test_what_fits_needs_no_advice() -> None:
    found = fit(SHAPE, config(), machine(need()))
    assert found.fits
    assert (found.advice, warning(found)) == (None, "")
    assert (found.rows, found.load.tokens, found.load.longest) == (16, 4096, 256)


def test_a_smaller_batch_with_the_same_step_comes_first() -> None:
    assert settings(need() - 1) == ("batch_size=8", "accumulation=2")
    assert settings(need(batch_size=2, accumulation=24), accumulation=3) == (
        "batch_size=2",
        "accumulation=24",
    )


def test_then_checkpointing_then_both() -> None:
    one = need(batch_size=1)
    saving = need(batch_size=1, gradient_checkpointing=True)
    assert saving < one
    # A batch of one row is left no smaller batch.
    assert settings(one - 1, batch_size=1) == ("gradient_checkpointing=true",)
    both = settings(one - 1)
    assert both == ("batch_size=1", "accumulation=16", "gradient_checkpointing=true")


def test_then_adapters_then_shorter_rows_then_another_model() -> None:
    least = need(WIDE, batch_size=1, gradient_checkpointing=True)
    assert settings(least - 1, WIDE)[-1] == 'method="lora"'
    tight = need(WIDE, batch_size=1, gradient_checkpointing=True, method="lora")
    shorter = settings(tight - 1, WIDE)
    assert shorter[-1] == "max_length=128"
    assert len(shorter) == 5
    found = fit(WIDE, config(), machine(10**6))
    assert found.advice is not None
    assert found.advice.settings == ()
    assert found.advice.sentence.endswith("Choose a smaller model.")


def test_what_is_proposed_fits_and_says_its_figure() -> None:
    for share in (0.9, 0.7, 0.5, 0.35):
        room = int(share * need(WIDE))
        advice = fit(WIDE, config(), machine(room)).advice
        assert advice is not None
        if advice.settings:
            better = config().with_settings(f"train.{one}" for one in advice.settings)
            assert fit(WIDE, better, machine(room)).footprint.total == advice.total <= room
        assert size(advice.total) in advice.sentence


def test_a_model_that_cannot_checkpoint_is_not_told_to() -> None:
    stiff = replace(SHAPE, saves=False)
    room = need(batch_size=1) - 1
    assert "gradient_checkpointing=true" not in settings(room, stiff)


def test_known_lengths_count_instead_of_the_limit() -> None:
    lengths = [9, 300, 40, 8] + [7] * 40
    found = fit(SHAPE, config(batch_size=4), machine(2**50), lengths)
    assert (found.load.tokens, found.load.longest) == (256 + 40 + 9 + 8, 256)
    packed = fit(SHAPE, config(batch_size=4, packing=True), machine(2**50), lengths)
    assert packed.load.tokens == sum(min(256, length) for length in lengths)
    crowd = fit(SHAPE, config(batch_size=4, packing=True), machine(2**50), lengths * 9)
    assert crowd.load.tokens == 4 * 256
    few = fit(SHAPE, config(batch_size=64), machine(2**50), [5, 6])
    assert (few.rows, few.load.tokens) == (2, 11)


def test_cutting_as_memory_asks_takes_the_safe_share() -> None:
    room = need() * 9 // 10
    found = fit(SHAPE, config(auto_micro_batch=True, accumulation=4), machine(room))
    assert found.fits
    total = found.footprint.total
    assert SAFE_SHARE * room - found.footprint.a_token <= total <= SAFE_SHARE * room
    roomy = fit(SHAPE, config(auto_micro_batch=True, accumulation=4), machine(2**50))
    assert roomy.load.tokens == 4 * 4096


@pytest.mark.parametrize("room", [10**9, 2**50])
def test_the_event_and_the_table_tell_the_same(room: int) -> None:
    found = fit(SHAPE, config(), machine(room))
    told = event(found)
    assert from_json(to_json(told)) == told
    assert told.total == found.footprint.total
    assert bool(told.advice) == (not found.fits)
    assert size(told.total) in table(found)
    assert warning(found) in table(found)


def test_a_warning_names_need_room_and_knob() -> None:
    found = fit(SHAPE, config(), machine(need() - 1))
    assert warning(found).startswith(f"This run needs about {size(need())} of memory, and ")
    assert "batch_size to 8 and raise accumulation to 2" in warning(found)


def test_sizes_in_words() -> None:
    assert [size(count) for count in (0, 400_000, 9_400_000, 999_600_000, 21_400_000_000)] == [
        "0 MB",
        "1 MB",
        "9 MB",
        "1.0 GB",
        "21 GB",
    ]
