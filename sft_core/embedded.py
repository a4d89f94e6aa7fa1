"""The base model that lies in the lab's own checkout, and the rows that go with it.

The parrot is found beside the package, in ``examples/parrot``, wherever the lab is started from.
A checkout may lack it (a partial copy, a model file that was not fetched): then each function
says so in one sentence, and everything else in the lab goes on without it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sft_core.types import DataError, ModelError

FOLDER: Final = Path(__file__).resolve().parents[1] / "examples" / "parrot"
MODEL_FILES: Final = ("config.json", "model.safetensors", "tokenizer.json")
"""What the model cannot be opened without."""
FURTHER_FILES: Final = ("generation_config.json", "tokenizer_config.json", "chat_template.jinja")


@dataclass(frozen=True, slots=True)
class RowFiles:
    """The files of one set: rows to train on, rows kept for testing, and rows, if any, to watch
    the loss on."""

    train: str
    held_out: str
    validation: str | None = None


ROWS: Final[Mapping[str, RowFiles]] = {
    "parrot": RowFiles("train.jsonl", "heldout.jsonl", "validation.jsonl"),
    "parrot-style": RowFiles("style.jsonl", "style_heldout.jsonl"),
    "parrot-refusals": RowFiles("refusals.jsonl", "refusals_heldout.jsonl"),
}
"""The sets by their names."""


def here() -> bool:
    """Whether the model and the rows that it is tuned on by default lie in this checkout."""
    rows = ROWS["parrot"]
    wanted = (*MODEL_FILES, rows.train, rows.held_out, *filter(None, [rows.validation]))
    return all((FOLDER / name).is_file() for name in wanted)


def model_folder() -> Path:
    """The folder with the model's configuration, weights and tokenizer. Raises ModelError where
    one of them is missing."""
    for name in MODEL_FILES:
        if not (FOLDER / name).is_file():
            raise ModelError(_missing(name))
    return FOLDER


def context() -> int | None:
    """How many tokens the model can attend to, as its configuration says; None where that cannot
    be read, which is said where the model is opened."""
    try:
        known = json.loads((FOLDER / "config.json").read_text(encoding="utf-8"))
        return int(known["max_position_embeddings"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def rows_file(name: str) -> Path:
    """A file of rows by its name. Raises DataError where it is missing."""
    if not (FOLDER / name).is_file():
        raise DataError(_missing(name))
    return FOLDER / name


def _missing(name: str) -> str:
    return (
        f"This copy of the lab lacks examples/parrot/{name}. Fetch it again with "
        "`git checkout -- examples/parrot`, or start from scratch: model bytes-gpt, data six-tasks."
    )
