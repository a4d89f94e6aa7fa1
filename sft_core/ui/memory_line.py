"""The line under a run's settings that says what it would need of memory, here and now.

Arithmetic alone, so that it follows every keystroke: the shape of a model of the lab's own is
known, any other's is what the compute process found when it counted the model (``sizes``).
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any, Final

import gradio as gr
import psutil  # type: ignore[import-untyped]

from sft_core import embedded
from sft_core.catalogue import Origin, find
from sft_core.config import LabConfig, ModelConfig
from sft_core.fitting import Fit, fit, size
from sft_core.machine import Machine, cpu_has_bf16, room
from sft_core.memory import Shape, random_llama
from sft_core.settings import on_zero_gpu
from sft_core.tokenizer import load_tokenizer
from sft_core.types import LabError
from sft_core.ui import sizes
from sft_core.ui.consequence import spoken
from sft_core.ui.fields import Fields, bind
from sft_core.ui.parts import LIGHT
from sft_core.ui.session import Choices, contract
from sft_core.ui.settings_form import MEMORY, Settings
from sft_core.ui.view import dumps

FOLLOWED: Final = ("model", "width", "depth", "heads", "context")
"""The choices that say which model it is; one typed by hand counts once it was measured."""
UNKNOWN: Final = (
    "What it needs of memory shows here after “Count its parameters” under Data & Template."
)
HOW: Final = (
    "An upper estimate, with every row as long as it may be: weights, gradients and AdamW's two "
    "moments in fp32; bf16 copies of weights; what each layer keeps of a token for the backward "
    "pass, counted tensor by tensor. Beside it, what is free."
)


def builtin_shape(model: ModelConfig) -> Shape | None:
    """The shape of a model of the lab's own, without the compute process; None for any other."""
    card = find(model.name)
    try:
        if card.origin is Origin.RANDOM:
            words = load_tokenizer(card.tokenizer).vocab_size
            own = (model.width, model.depth, model.heads, model.context)
            return Shape.of_llama(random_llama(*own, vocabulary=words))
        if card.origin is Origin.EMBEDDED:
            return _embedded()
    except (LabError, OSError, ValueError, KeyError, TypeError):
        return None
    return None


@lru_cache(maxsize=1)
def _embedded() -> Shape | None:
    found = json.loads((embedded.FOLDER / "config.json").read_text(encoding="utf-8"))
    return Shape.of_llama(found) if found.get("model_type") == "llama" else None


def _machine() -> Machine:
    """What the compute process found, with what is free now where that is a CPU's memory."""
    told = sizes.machine()
    if told is not None and told.device != "cpu":
        return told
    there = room(psutil.Process().children(recursive=True))
    return Machine("cpu", told.bf16 if told else cpu_has_bf16(), there)


def foreseen(config: LabConfig) -> Fit | None:
    """What the run would need, as far as the page can tell; None for a model not counted yet."""
    if on_zero_gpu() and sizes.machine() is None:
        return None  # this container's memory is not what the run will have
    shape = builtin_shape(config.model)
    if shape is None:
        measured = sizes.known(config.model)
        shape = measured.shape if measured else None
    return fit(shape, config, _machine()) if shape else None


def memory_value(found: Fit | None) -> dict[str, Any]:
    """The line: what is needed of what is there, and the knob where that is too little."""
    if found is None:
        return {"text": UNKNOWN}
    footprint = found.footprint
    parts = {
        "the process": footprint.base,
        "weights": footprint.weights,
        "gradients": footprint.gradients,
        "optimiser": footprint.optimizer,
        "bf16 copies": footprint.casts,
    }
    said = ", ".join(f"{name} {size(count)}" for name, count in parts.items() if count)
    how = (
        f"{said[0].upper()}{said[1:]}, activations {size(footprint.activations)} at "
        f"{found.load.tokens:,} tokens at once. {HOW}"
    )
    text = f"Needs about {size(footprint.total)} of {size(found.room)} of memory."
    if found.advice is None:
        return {"text": text, "how": how}
    return {"text": f"{text} {spoken(found.advice.sentence)}", "level": "warning", "how": how}


def wire(
    line: gr.HTML,
    settings: Fields[Settings],
    choices: Fields[Choices],
    counted: gr.HTML,
    tab: gr.Tab,
) -> None:
    """Has the line follow the settings, the model, and ``counted``, the line of its size; and what
    is free, whenever the ``tab`` is opened."""
    say, inputs = bind(memory, settings, choices)
    gr.on(
        [
            tab.select,
            counted.change,
            *(choices[name].change for name in FOLLOWED),
            *(settings[name].change for name in MEMORY),
        ],
        say,
        inputs,
        line,
        trigger_mode="always_last",
        **LIGHT,
    )


def memory(settings: Settings, choices: Choices) -> str:
    """The line for the settings as they stand; empty where they cannot be read, which the line
    above says already."""
    try:
        config = contract(choices).but(train=settings.config(), lora=settings.lora())
    except LabError:
        return dumps({"text": ""})
    return dumps(memory_value(foreseen(config)))
