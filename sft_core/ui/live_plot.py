"""Curves that change in place: values for the views "plot" and "curves", and their library.

The browser gets plotly.min.js from the plotly package on this machine, once, when the first plot
needs it; then each value goes through ``Plotly.react``, which changes the plot that is there.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

import gradio as gr

from sft_core import curves, plots
from sft_core.events import ScoreLogged, StepLogged
from sft_core.record import RunRecord
from sft_core.ui.view import view


def library() -> Path | None:
    """The folder with plotly.min.js, found without importing plotly."""
    spec = importlib.util.find_spec("plotly")
    places = list(spec.submodule_search_locations or ()) if spec else []
    folders = (Path(place) / "package_data" for place in places)
    return next((folder for folder in folders if (folder / "plotly.min.js").is_file()), None)


def head() -> str:
    """What goes into the page's head so that its script finds plotly."""
    folder = library()
    if folder is None:
        return ""
    gr.set_static_paths([folder])
    address = f"gradio_api/file={(folder / 'plotly.min.js').as_posix()}"
    return f"<script>SFT.PLOTLY = {json.dumps(address)};</script>"


class _Below(NamedTuple):
    """A curve that can be chosen below the loss."""

    title: str
    draw: Callable[[RunRecord], Any]
    label: str
    how: str


_BELOW: Final = (
    _Below(
        "Answer and template",
        curves.kinds_curve,
        "Loss by kind of trained token and step.",
        "Nats per token of each kind: of each step, faint, and the running mean. Answer tokens are "
        "what the assistant says. Template tokens are what the template prints to end it. Prompt "
        "tokens are all others, where the policy trains them.",
    ),
    _Below(
        "Token accuracy",
        curves.accuracy_curve,
        "Share of trained tokens that were predicted, by step.",
        "How many trained tokens of a step the model held for the likeliest, before it learnt from "
        "them, given the true tokens in front of each.",
    ),
    _Below(
        "Learning rate",
        curves.rate_curve,
        "Learning rate by step.",
        "What the schedule makes of the learning rate at this step, warm-up included.",
    ),
    _Below(
        "Gradient norm",
        curves.norm_curve,
        "Norm of the gradient by step.",
        "The length of the gradient of all trained weights together, before it is clipped.",
    ),
)


def losses_value(record: RunRecord | None) -> dict[str, Any]:
    """The loss, and below it those of the other curves that the run's log holds, of which the page
    draws one at a time."""
    last = record.last(StepLogged) if record else None
    if record is None or last is None:
        return {"figure": None, "empty": "The loss curves start with the first step.", "below": []}
    below = [(it, it.draw(record)) for it in _BELOW]
    return {
        "figure": curves.loss_curve(record).to_plotly_json(),
        "label": f"Loss by step. At step {last.step} the train loss is {last.loss:.3f}.",
        "below": [
            {
                "title": it.title,
                "label": it.label,
                "how": it.how,
                "figure": figure.to_plotly_json(),
            }
            for it, figure in below
            if figure is not None
        ],
    }


def scores_curve_value(record: RunRecord | None) -> dict[str, Any]:
    """Exact match by step, where it was measured often enough to make a curve."""
    if record is None or len(record.of(ScoreLogged)) < 3:
        return {"figure": None, "empty": ""}
    return {
        "figure": plots.score_curve(record).to_plotly_json(),
        "label": "Exact match on held-out rows by step.",
    }


def build(name: str) -> gr.HTML:
    return view("curves", losses_value(None), elem_id=name)
