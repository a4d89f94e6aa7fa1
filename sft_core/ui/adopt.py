"""A whole configuration onto the page's controls: what a link to a run brings along."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, Final

import gradio as gr

from sft_core import catalogue, data, templates
from sft_core.catalogue import Origin
from sft_core.config import DataConfig, LabConfig, LoraConfig, TrainConfig
from sft_core.types import LabError, TemplateError
from sft_core.ui import data_panel
from sft_core.ui.session import (
    FALLBACK,
    OWN,
    is_own,
    named_templates,
    preset_choices,
    preset_source,
)
from sft_core.ui.settings_form import LORA, OPTIONAL, USUAL_LORA, Settings

LOADED: Final = 5
"""How many outputs the rows themselves take."""
OUTPUTS: Final = LOADED + 12 + 13 + len(fields(Settings))
"""How many ``adopted`` has."""


def adopted(config: LabConfig) -> tuple[Any, ...]:
    """Updates for: data configuration, chosen row, reading, rows, builder; the source's controls;
    the contract's controls; the boxes for an own model and for a shape; the settings."""
    return (
        *_rows(config.data),
        *_source(config.data),
        *_contract(config),
        *settings(config.train, config.lora),
    )


def _rows(config: DataConfig) -> tuple[Any, ...]:
    try:
        return data_panel.loaded(config)
    except LabError:
        # An upload may be gone by now; then the page keeps the rows that it has.
        return (gr.skip(),) * LOADED


def _source(config: DataConfig) -> tuple[Any, ...]:
    """-> kind, boxes of the three kinds, built-in, address, subset, split, rows, eval rows,
    held-out rows, seed."""
    kind = data_panel.HUB
    if config.source in data.BUILT_IN:
        kind = data_panel.BUILT_IN
    elif config.source.startswith("/"):
        kind = data_panel.UPLOAD
    return (
        kind,
        *data_panel.show_kind(kind),
        config.source if kind == data_panel.BUILT_IN else gr.skip(),
        config.source if kind == data_panel.HUB else "",
        config.subset or "",
        config.split or "",
        "" if config.rows is None else str(config.rows),
        config.eval_rows,
        config.test_rows,
        config.seed,
    )


def _contract(config: LabConfig) -> tuple[Any, ...]:
    """-> model, own model, its box, the shape's box, width, depth, heads, context, missing tokens,
    preset, editor, trained turns, end of turn."""
    model = config.model
    listed = model.name in {card.name for card in catalogue.CATALOGUE}
    source: Any = config.template.source
    if source is None:
        try:
            source = preset_source(config.template.name, model.name)
        except LabError:
            source = gr.skip()
    return (
        model.name if listed else OWN,
        "" if listed else model.name,
        gr.update(visible=not listed),
        gr.update(visible=catalogue.find(model.name).origin is Origin.RANDOM),
        model.width,
        model.depth,
        model.heads,
        model.context,
        model.missing_tokens.value,
        _preset(config.template.name.partition(" (")[0], model.name),
        source,
        config.policy.train_on.value,
        config.policy.end_of_turn,
    )


def _preset(name: str, model: str) -> Any:
    """The list of presets with the one of ``name``, also for a template that came from a file."""
    try:
        listed = preset_choices(named_templates(model))
    except LabError:
        listed = preset_choices()
    if not is_own(name):
        try:
            name = templates.find_preset(name).name
        except TemplateError:
            name = FALLBACK
    return gr.update(choices=listed, value=name if name in dict(listed).values() else FALLBACK)


def settings(train: TrainConfig, lora: LoraConfig = USUAL_LORA) -> tuple[Any, ...]:
    """Updates for every control of the Train tab's form, in the order of ``Settings``."""
    values = {field.name: getattr(train, field.name) for field in fields(train)}
    values |= {LORA + field.name: getattr(lora, field.name) for field in fields(lora)}
    return tuple(_shown(field.name, values[field.name]) for field in fields(Settings))


def _shown(name: str, value: Any) -> Any:
    if name in OPTIONAL:
        return "" if value is None else f"{value:g}"
    if name == LORA + "targets":
        return " ".join(value)
    return "\n".join(value) if isinstance(value, tuple) else value
