"""How large models are, counted by the compute process and remembered here."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Final

from sft_core.config import ModelConfig
from sft_core.events import ModelMeasured, RunQueued
from sft_core.jobs import SizeJob
from sft_core.machine import Machine
from sft_core.runs import Runs
from sft_core.types import LabError
from sft_core.ui.words import waiting

_SOURCES: Final = {
    "config": "counted from its configuration",
    "safetensors": "counted from the headers of its weight files",
    "weights": "counted from its weights",
}
_known: dict[str, ModelMeasured] = {}
_MOST: Final = 500


def known(model: ModelConfig) -> ModelMeasured | None:
    """The size of a model that was measured since the server started."""
    return _known.get(_key(model))


def machine() -> Machine | None:
    """What the compute process last said of the machine; None before it measured anything."""
    told = [size.machine for size in _known.values() if size.machine]
    return told[-1] if told else None


def _key(model: ModelConfig) -> str:
    return json.dumps(asdict(model), sort_keys=True)


def sentence(size: ModelMeasured) -> str:
    how = _SOURCES.get(size.source, size.source)
    trained = (
        "all of them trainable"
        if size.trainable == size.parameters
        else f"{size.trainable:,} trainable"
    )
    return f"{size.parameters:,} parameters, {trained}; {how}."


def measure(runs: Runs, model: ModelConfig) -> Iterator[dict[str, object]]:
    """Values for the view "line" while a model is measured; the last one says its size."""
    size = known(model)
    if size is None:
        yield {"text": "Counting parameters", "busy": True}
        try:
            for event in runs.ask(SizeJob(model)):
                match event:
                    case RunQueued(position=position) if position:
                        yield {"text": f"Counting parameters: {waiting(position)}", "busy": True}
                    case ModelMeasured():
                        size = event
        except LabError as error:
            yield {"text": str(error), "level": "error"}
            return
    if size is None:
        yield {"text": "The parameters could not be counted.", "level": "warning"}
        return
    while len(_known) >= _MOST:
        _known.pop(next(iter(_known)))
    _known[_key(model)] = size
    yield {"text": sentence(size)}
