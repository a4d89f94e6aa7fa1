"""What settings come to, in a sentence: steps, how often each row is seen, and what stands against
them. Settings are called by what stands on their controls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sft_core.config import TrainConfig
from sft_core.dealing import expected_steps, expected_steps_an_epoch
from sft_core.recipe import lora_advice
from sft_core.types import LabError
from sft_core.ui.lengths import mean_length
from sft_core.ui.session import Choices, contract, sentence
from sft_core.ui.settings_form import Settings
from sft_core.ui.sources import rows_of
from sft_core.ui.view import dumps

SPOKEN: Final[Mapping[str, str]] = {
    "auto_micro_batch": "“Split steps to fit memory” (More)",
    "gradient_checkpointing": "“Gradient checkpointing” (More)",
    "batch_size": "“Batch”",
    "accumulation": "“Batches a step”",
    "max_length": "“Length limit”",
    "learning_rate": "“Learning rate”",
    "method": "“Method”",
}
"""Settings by what stands on their controls."""


def spoken(text: str) -> str:
    """Advice that names settings, as the page calls them."""
    for name, label in SPOKEN.items():
        text = text.replace(name, label)
    return text


def consequence_value(
    settings: TrainConfig, rows: int, mean_length: float | None = None
) -> dict[str, Any]:
    """What the settings come to, in a sentence. ``mean_length`` is the tokens of a row, where they
    are known: with packing, the number of steps follows from them."""
    if not rows:
        return {"text": "There are no rows to train on yet.", "level": "warning"}
    text = (_packed if settings.packing else _in_rows)(settings, rows, mean_length)
    if advice := lora_advice(settings):
        return {"text": f"{text} {spoken(advice)}", "level": "warning"}
    return {"text": text}


def _in_rows(settings: TrainConfig, rows: int, mean_length: float | None) -> str:
    each = settings.batch_size * settings.accumulation
    steps = expected_steps(settings, rows, mean_length)
    epochs = steps / expected_steps_an_epoch(settings, rows, mean_length)
    return (
        f"{rows:,} rows, {steps:,} step{'s'[: steps != 1]} of {each} "
        f"row{'s'[: each != 1]}: every row is seen {_times(epochs)}."
    )


def _packed(settings: TrainConfig, rows: int, mean_length: float | None) -> str:
    each = settings.batch_size * settings.accumulation
    window = f"window{'s'[: each != 1]} of {settings.max_length:,} tokens"
    if mean_length is None:
        return (
            f"{rows:,} rows, packed into steps of {each} {window}. How many steps that makes "
            "follows from the rows' lengths."
        )
    steps = expected_steps(settings, rows, mean_length)
    an_epoch = expected_steps_an_epoch(settings, rows, mean_length)
    # Windows are never quite full, so epochs say it more exactly than steps.
    epochs = settings.epochs if settings.max_steps is None else steps / an_epoch
    fill = max(1, min(rows, round(rows / an_epoch)))
    return (
        f"{rows:,} rows of {mean_length:,.0f} tokens on average, about {steps:,} "
        f"step{'s'[: steps != 1]} of {each} {window}, about {fill:,} row{'s'[: fill != 1]} a step: "
        f"every row is seen {_times(epochs)}."
    )


def _times(epochs: float) -> str:
    if abs(epochs - round(epochs)) < 0.05:
        number = round(epochs)
        return {1: "once", 2: "twice"}.get(number, f"{number} times")
    return f"about {epochs:.1f} times"


def consequence(settings: Settings, choices: Choices) -> str:
    try:
        train = settings.config()
        settings.lora()
        rows = len(rows_of(choices.data).splits.train)
        mean = mean_length(contract(choices)) if train.packing and rows else None
        return dumps(consequence_value(train, rows, mean))
    except LabError as error:
        return dumps({"text": sentence(error), "level": "error"})
