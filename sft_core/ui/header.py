"""The line on top: what is loaded, as five chips that each lead to their tab."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import gradio as gr

from sft_core import templates
from sft_core.config import LabConfig, MaskPolicy, ModelConfig, TrainOn
from sft_core.events import RunStopped
from sft_core.record import RunRecord, RunStatus
from sft_core.types import Finding, LabError, Severity, worst
from sft_core.ui.look import OUT_OF_REACH, Look
from sft_core.ui.sizes import known
from sft_core.ui.sources import Rows
from sft_core.ui.view import view
from sft_core.ui.words import short_count, short_run

_TRAINED: Final = {
    TrainOn.ASSISTANT: "answers",
    TrainOn.LAST_ASSISTANT: "last answer",
    TrainOn.ALL: "everything",
    TrainOn.GENERATION_TAGS: "generation tags",
}
_CHIP_OF: Final = {
    "nothing-trained": "mask",
    "end-of-turn-untrained": "mask",
    "no-generation-tags": "mask",
    "generation-tags-differ": "mask",
    "nothing-trained-after-truncation": "data",
    "empty-answer": "data",
    "ends-on-user-turn": "data",
    "forged-special-token": "data",
    OUT_OF_REACH: "model",
    "marker-split": "model",
    "unknown-token": "model",
    "lost-text": "model",
    "cannot-encode": "model",
}
"""The chip that a finding colours; those that are not here are the template's."""
_LEVELS: Final = {
    RunStatus.FAILED: Severity.ERROR,
    RunStatus.INTERRUPTED: Severity.WARNING,
}


def chip_of(finding: Finding) -> str:
    return _CHIP_OF.get(finding.code, "template")


def chips_value(seen: Look, rows: Rows | None) -> dict[str, Any]:
    """The four chips of the contract, each with the worst finding that belongs to it."""
    config = seen.config
    chips = [
        _chip("model", model_text(config.model), "data", "sec-model", seen.findings),
        _chip("data", data_text(config, rows), "data", "sec-data", seen.findings),
        _chip("template", template_title(config), "data", "sec-template", seen.findings),
        _chip("mask", mask_text(config.policy), "data", "sec-template", seen.findings),
    ]
    return {"chips": chips}


def _chip(
    key: str, text: str, tab: str, anchor: str | None, findings: Sequence[Finding]
) -> dict[str, Any]:
    mine = [finding for finding in findings if chip_of(finding) == key]
    level = worst(mine)
    if level is Severity.INFO:
        level = None
    first = next((finding.message for finding in mine if finding.severity is level), None)
    return {
        "key": key,
        "text": text,
        "tab": tab,
        "anchor": anchor,
        "level": level.value if level else None,
        "note": first,
    }


def model_text(model: ModelConfig) -> str:
    """The model's short name, with its size where that is known."""
    name = model.name.rstrip("/").rpartition("/")[2] or model.name
    size = known(model)
    return f"{name} {short_count(size.parameters)}" if size else name


def data_text(config: LabConfig, rows: Rows | None) -> str:
    name = config.data.source.rstrip("/").rpartition("/")[2]
    if rows is None:
        return name
    parts = rows.splits
    return f"{name} {len(parts.train):,}/{len(parts.eval):,}/{len(parts.test):,}"


def template_title(config: LabConfig) -> str:
    """The preset's title, or the name that an edited template goes by."""
    name, _, edited = config.template.name.partition(" (")
    if name == "tokenizer":
        title = "the tokenizer's own"
    else:
        try:
            title = templates.find_preset(name).title
        except LabError:
            title = name
    return f"{title} ({edited}" if edited else title


def mask_text(policy: MaskPolicy) -> str:
    end = "with" if policy.end_of_turn else "no"
    if policy.train_on is TrainOn.ALL:
        return _TRAINED[policy.train_on]
    return f"{_TRAINED[policy.train_on]}, {end} end of turn"


def run_chip(run: str | None, record: RunRecord | None) -> dict[str, Any]:
    """The fifth chip."""
    text, level, live = "none yet", None, False
    if run and record:
        status = record.status
        text = f"{short_run(run)} {_progress(record)}"
        level = _LEVELS.get(status)
        live = not status.over
    chip = {
        "key": "run",
        "text": text,
        "tab": "train",
        "level": level.value if level else None,
        "live": live,
    }
    return {"chips": [chip]}


def _progress(record: RunRecord) -> str:
    status = record.status
    if status is RunStatus.RUNNING:
        return f"step {record.step:,}/{record.total_steps:,}"
    return run_word(record)


def run_word(record: RunRecord) -> str:
    """Where a run stands, in one word: one that was stopped after a step is paused."""
    end = record.last(RunStopped)
    paused = record.status is RunStatus.STOPPED and end is not None and end.step > 0
    return "paused" if paused else record.status.value


def build(seen: Look, rows: Rows) -> tuple[gr.HTML, gr.HTML]:
    """-> (the chips of the contract, the chip of the run)."""
    with gr.Row(elem_id="top"):
        gr.HTML(
            '<h1 class="wordmark">SFT Lab</h1>',
            apply_default_css=False,
            elem_id="name",
        )
        chips = view("chips", chips_value(seen, rows), elem_id="chips")
        run = view("chips", run_chip(None, None), elem_id="run-chip")
    return chips, run
