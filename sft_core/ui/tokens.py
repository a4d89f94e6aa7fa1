"""The Tokens tab: the whole inspector of one conversation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from sft_core.ui import findings, rival_view
from sft_core.ui.findings import Shown
from sft_core.ui.look import Look
from sft_core.ui.sources import PARTS, Pick, Rows
from sft_core.ui.view import view


@dataclass(frozen=True, slots=True)
class Tab:
    stepper: gr.HTML
    found: Shown
    inspector: gr.HTML
    rival: gr.Dropdown
    differences: gr.HTML


def stepper_value(rows: Rows, pick: Pick, seen: Look) -> dict[str, Any]:
    """Which conversation is looked at, and how many there are beside it."""
    example = seen.example
    return {
        "id": example.id,
        "own": rows.at(pick) != example,
        "category": example.category,
        "part": pick.part,
        "place": pick.place,
        "parts": [
            {"key": key, "name": name, "count": len(rows.part(key))} for key, name in PARTS.items()
        ],
        "mask": _limits(seen),
    }


def _limits(seen: Look) -> str:
    return f"Length limit {seen.config.train.max_length:,} tokens, set under Train."


def build(rows: Rows, seen: Look) -> Tab:
    stepper = view("stepper", stepper_value(rows, Pick(), seen), events=["pick"], elem_id="stepper")
    found = findings.build_mirror()
    with gr.Row(elem_classes="inline", elem_id="rival-row"):
        rival = gr.Dropdown(
            rival_view.CHOICES,
            value=rival_view.NONE,
            label="Compare with another masker",
            elem_id="rival",
            scale=0,
            min_width=220,
        )
    differences = view("rival", {}, elem_id="differences")
    inspector = view("inspector", {}, elem_id="inspector")
    return Tab(stepper, found, inspector, rival, differences)
