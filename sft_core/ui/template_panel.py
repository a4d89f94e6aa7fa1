"""The template half of the first tab: model, template, mask, and one conversation through them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

from sft_core import catalogue, templates
from sft_core.catalogue import Origin
from sft_core.config import LabConfig, MissingTokens, TrainOn
from sft_core.runs import Runs
from sft_core.settings import HOST
from sft_core.types import Finding, LabError, Severity
from sft_core.ui import findings, sizes
from sft_core.ui.data_view import builder_value
from sft_core.ui.findings import Shown, findings_value
from sft_core.ui.header import chips_value
from sft_core.ui.look import STUCK, Look, look
from sft_core.ui.parts import heading
from sft_core.ui.session import (
    OWN,
    Choices,
    contract,
    conversation,
    is_own,
    model_config,
    named_templates,
    preset_choices,
    preset_source,
    same_template,
    sentence,
    suitable_preset,
)
from sft_core.ui.sources import rows_of
from sft_core.ui.token_view import text_value, tokens_value
from sft_core.ui.tokens import stepper_value
from sft_core.ui.view import dumps, view


@dataclass(frozen=True, slots=True)
class Panel:
    """The components that other rooms need, by role."""

    controls: dict[str, Any]
    own_box: gr.Column
    shape_box: gr.Accordion
    model_note: gr.HTML
    size: gr.HTML
    count: gr.Button
    preset_note: gr.HTML
    missing_box: gr.Column
    builder: gr.HTML
    found: Shown
    undone: gr.State
    tokens: gr.HTML
    text: gr.HTML


# -- values ----------------------------------------------------------------------------------


def model_choices() -> list[tuple[str, str]]:
    return [(card.title, card.name) for card in catalogue.CATALOGUE] + [
        ("Another: hub id or folder" if HOST.local_paths else "Another: hub id", OWN)
    ]


def preset_sentence(name: str) -> str:
    if is_own(name):
        return "The chat template that the model's tokenizer brings with it."
    return templates.PRESETS[name].sentence


# -- handlers --------------------------------------------------------------------------------


def repaint(choices: Choices) -> tuple[Any, ...]:
    """-> (tokens, text, findings, chips, whether markers are missing, stepper). What cannot be
    rendered leaves the last good tokens on the page, dimmed, and says why."""
    try:
        config = contract(choices)
        seen = look(config, conversation(choices))
        rows = rows_of(choices.data)
    except LabError as error:
        finding = Finding(STUCK, Severity.ERROR, sentence(error))
        failed = dumps({"error": sentence(error)})
        return failed, failed, dumps(findings_value((finding,))), *(gr.skip(),) * 3
    return (
        dumps(tokens_value(seen)),
        dumps(text_value(seen)),
        dumps(findings_value(seen.findings, seen.config)),
        dumps(chips_value(seen, rows)),
        gr.update(visible=bool(seen.missing)),
        dumps(stepper_value(rows, choices.pick, seen)),
    )


def choose_preset(choices: Choices) -> tuple[Any, Any]:
    """-> (editor, sentence) for the preset that was chosen."""
    try:
        model = model_config(choices).name
        source = preset_source(choices.preset, model)
    except LabError as error:
        return gr.skip(), dumps({"text": sentence(error), "level": "error"})
    return source, dumps({"text": preset_sentence(choices.preset)})


def choose_model(choices: Choices) -> tuple[Any, ...]:
    """-> (own box, shape box, sentence, preset, editor, preset's sentence). The template follows
    the model, unless it was edited by hand."""
    own = choices.model == OWN
    try:
        model = model_config(choices)
    except LabError as error:
        level = "info" if own and not choices.own_model.strip() else "error"
        line = dumps({"text": sentence(error), "level": level})
        return gr.update(visible=own), gr.update(visible=False), line, *(gr.skip(),) * 3
    card = catalogue.find(model.name)
    boxes = (gr.update(visible=own), gr.update(visible=card.origin is Origin.RANDOM))
    line = dumps({"text": card.sentence})
    if _edited(choices):
        return *boxes, line, *(gr.skip(),) * 3
    try:
        preset = suitable_preset(model.name)
        source = preset_source(preset, model.name)
        named = named_templates(model.name)
    except LabError as error:
        line = dumps({"text": sentence(error), "level": "error"})
        return *boxes, line, *(gr.skip(),) * 3
    listed = gr.update(choices=preset_choices(named), value=preset)
    return *boxes, line, listed, source, dumps({"text": preset_sentence(preset)})


def _edited(choices: Choices) -> bool:
    """Whether the editor holds anything but a preset's own text."""
    if is_own(choices.preset):
        return False
    presets = templates.PRESETS.values()
    return not any(same_template(choices.source, preset.source) for preset in presets)


def measure(runs: Runs, choices: Choices) -> Iterator[str]:
    """The model's size as a line, while and after it is counted."""
    try:
        model = model_config(choices)
    except LabError as error:
        yield dumps({"text": sentence(error), "level": "error"})
        return
    for value in sizes.measure(runs, model):
        yield dumps(value)


def back_to_row(choices: Choices) -> Any:
    """The builder with the chosen row's own turns."""
    example = rows_of(choices.data).at(choices.pick)
    return dumps(builder_value(example)) if example else gr.skip()


# -- layout ----------------------------------------------------------------------------------


def build(config: LabConfig, seen: Look) -> Panel:
    """Lays the panel out, with ``seen`` on it."""
    with gr.Row(elem_classes="columns section", elem_id="sec-model"):
        with gr.Column(scale=5):
            heading("Model")
            controls, own_box, shape_box = _model_controls(config)
            model_note = view("line", {"text": catalogue.find(config.model.name).sentence})
            with gr.Row(elem_classes="inline"):
                size = view("line", {"text": ""}, elem_id="size")
                count = gr.Button("Count its parameters", size="sm", scale=0, elem_id="count")
        with gr.Column(scale=7):
            heading("Conversation")
            builder = view(
                "builder", builder_value(seen.example), events=["edit", "reset"], elem_id="builder"
            )
    with gr.Row(elem_classes="columns section", elem_id="sec-template"):
        with gr.Column(scale=5):
            heading("Template")
            controls["preset"] = gr.Dropdown(
                preset_choices(), value=config.template.name, label="Start from", elem_id="preset"
            )
            preset_note = view("line", {"text": preset_sentence(config.template.name)})
            controls["source"] = gr.Code(
                seen.template.source if seen.template else "",
                language="jinja2",
                label="Template, Jinja",
                lines=12,
                max_lines=26,
                wrap_lines=True,
                elem_id="template",
            )
            found = findings.build(seen)
        with gr.Column(scale=7):
            heading("What the model sees, and what is trained")
            with gr.Row(elem_classes="inline"):
                controls |= _mask_controls(config)
            with gr.Column(visible=bool(seen.missing)) as missing_box:
                controls["missing"] = gr.Radio(
                    [
                        ("Add as new tokens", MissingTokens.ADD.value),
                        ("Leave as text", MissingTokens.TEXT.value),
                    ],
                    value=config.model.missing_tokens.value,
                    label="Markers that the tokenizer does not know",
                    elem_id="missing",
                )
            tokens = view("strip", tokens_value(seen), elem_id="strip")
            text = view("text", text_value(seen), elem_id="text")
    return Panel(
        controls=controls,
        own_box=own_box,
        shape_box=shape_box,
        model_note=model_note,
        size=size,
        count=count,
        preset_note=preset_note,
        missing_box=missing_box,
        builder=builder,
        found=found,
        undone=gr.State(None),
        tokens=tokens,
        text=text,
    )


def _model_controls(config: LabConfig) -> tuple[dict[str, Any], gr.Column, gr.Accordion]:
    model = config.model
    controls: dict[str, Any] = {
        "model": gr.Dropdown(
            model_choices(), value=model.name, label="Tune this model", elem_id="model"
        )
    }
    with gr.Column(visible=False) as own_box:
        controls["own_model"] = gr.Textbox(
            label="Hub id or folder" if HOST.local_paths else "Hub id",
            placeholder="owner/name",
            info="A causal language model with safetensors weights. Press Enter to use it.",
            elem_id="own-model",
        )
    random = catalogue.find(model.name).origin is Origin.RANDOM
    with (
        gr.Accordion(
            "Its shape", open=False, visible=random, elem_classes="fold", elem_id="shape"
        ) as shape_box,
        gr.Row(elem_classes="pairwise"),
    ):
        for name, label in (
            ("width", "Width"),
            ("depth", "Blocks"),
            ("heads", "Heads"),
            ("context", "Context"),
        ):
            controls[name] = gr.Number(
                getattr(model, name), label=label, precision=0, minimum=1, min_width=90
            )
    return controls, own_box, shape_box


def _mask_controls(config: LabConfig) -> dict[str, Any]:
    return {
        "train_on": gr.Radio(
            [
                ("Every answer", TrainOn.ASSISTANT.value),
                ("Last answer", TrainOn.LAST_ASSISTANT.value),
                ("Everything", TrainOn.ALL.value),
                ("Generation tags", TrainOn.GENERATION_TAGS.value),
            ],
            value=config.policy.train_on.value,
            label="Train on",
            elem_id="train-on",
        ),
        "end_of_turn": gr.Checkbox(
            config.policy.end_of_turn,
            label="Train the end of turn",
            elem_id="end-of-turn",
        ),
    }
