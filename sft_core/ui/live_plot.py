"""Curves that change in place: values for the view "plot", and the library that draws them.

The browser gets plotly.min.js from the plotly package on this machine, once, when the first plot
needs it; then each value goes through ``Plotly.react``, which changes the plot that is there.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import gradio as gr

from sft_core import plots
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


def losses_value(record: RunRecord | None) -> dict[str, Any]:
    if record is None or record.last(StepLogged) is None:
        return {"figure": None, "empty": "The loss curves start with the first step."}
    last = record.last(StepLogged)
    assert last is not None
    return {
        "figure": plots.loss_curve(record).to_plotly_json(),
        "label": f"Loss by step. At step {last.step} the train loss is {last.loss:.3f}.",
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
    return view("plot", losses_value(None), elem_id=name)
