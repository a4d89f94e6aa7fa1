"""The Train tab: settings in three groups, and a run that one can watch, leave and come back to.

A run belongs to the server. The page holds its id, asks every second what its log has gained, and
draws that; closing the page, reloading it or opening it twice changes nothing about the run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import gradio as gr

from sft_core.config import LabConfig
from sft_core.ui import live_plot, settings_form
from sft_core.ui.consequence import consequence_value
from sft_core.ui.fields import Fields
from sft_core.ui.memory_line import foreseen, memory_value
from sft_core.ui.parts import heading
from sft_core.ui.run_view import (
    pairs_value,
    runs_value,
    samples_value,
    scores_value,
    status_value,
)
from sft_core.ui.settings_form import Settings
from sft_core.ui.sources import Rows
from sft_core.ui.view import view

POLL_SECONDS: Final = 0.8


@dataclass(frozen=True, slots=True)
class Tab:
    """The components that the page wires together."""

    preset: gr.Dropdown
    settings: Fields[Settings]
    consequence: gr.HTML
    memory: gr.HTML
    start: gr.Button
    stop: gr.Button
    resume: gr.Button
    line: gr.HTML
    status: gr.HTML
    losses: gr.HTML
    scores: gr.HTML
    score_curve: gr.HTML
    samples: gr.HTML
    pairs: gr.HTML
    grade: gr.Button
    grade_line: gr.HTML
    runs: gr.HTML
    run: gr.State
    drawn: gr.State
    phase: gr.State
    timer: gr.Timer
    address: gr.HTML

    def followed(self, run_chip: gr.HTML) -> list[Any]:
        """What ``run_handlers.follow`` gives values for, in its order."""
        shown = [self.status, self.losses, self.score_curve, self.scores, self.samples, run_chip]
        buttons = [self.start, self.stop, self.resume]
        return [self.drawn, self.phase, *shown, *buttons, self.timer]


# -- layout ----------------------------------------------------------------------------------


def build(config: LabConfig, rows: Rows) -> Tab:
    """Lays the tab out. Its timer is left for the page to render outside of all tabs: inside one it
    would stand still until that tab is opened, and with it the run in the line on top."""
    with gr.Row(elem_classes="columns"):
        with gr.Column(scale=4, elem_id="settings"):
            preset = gr.Dropdown(
                [(title, name) for name, (title, _) in settings_form.PRESETS.items()],
                value=settings_form.suitable(config.model.name),
                label="Begin with settings for",
                elem_id="train-preset",
            )
            settings = Fields(Settings, **settings_form.build(config.train, config.lora))
        with gr.Column(scale=8):
            consequence_line = view(
                "line",
                consequence_value(config.train, len(rows.splits.train)),
                elem_id="consequence",
            )
            memory_line = view("line", memory_value(foreseen(config)), elem_id="memory")
            with gr.Row(elem_classes="inline"):
                resume_button = gr.Button(
                    "Resume", variant="primary", size="lg", scale=0, visible=False, elem_id="resume"
                )
                start_button = gr.Button(
                    "Start training", variant="primary", size="lg", scale=0, elem_id="start"
                )
                stop_button = gr.Button(
                    "Pause", variant="stop", size="lg", scale=0, visible=False, elem_id="stop"
                )
            line = view("line", {"text": ""}, elem_id="train-line")
            status = view("status", status_value(None, None), events=["adopt"], elem_id="status")
            losses = live_plot.build("losses")
            heading("Exact match on held-out rows")
            scores = view("scores", scores_value(None), elem_id="scores")
            score_curve = view("plot", live_plot.scores_curve_value(None), elem_id="score-curve")
            heading("Samples as they change")
            samples = view("samples", samples_value(None), elem_id="samples")
    with gr.Column(elem_classes="section"):
        heading("Held-out rows")
        with gr.Row(elem_classes="inline"):
            grade_button = gr.Button(
                "Answer them, before and after", size="sm", scale=0, elem_id="grade"
            )
            grade_line = view("line", {"text": ""}, elem_id="grade-line")
        held = pairs_value(rows.splits.test, rows.seen or None)
        pairs = view("pairs", held, elem_id="pairs")
    with gr.Column(elem_classes="section"):
        heading("Runs")
        listed = view("runs", runs_value((), None), events=["open"], elem_id="runs")
    return Tab(
        preset=preset,
        settings=settings,
        consequence=consequence_line,
        memory=memory_line,
        start=start_button,
        stop=stop_button,
        resume=resume_button,
        line=line,
        status=status,
        losses=losses,
        scores=scores,
        score_curve=score_curve,
        samples=samples,
        pairs=pairs,
        grade=grade_button,
        grade_line=grade_line,
        runs=listed,
        run=gr.State(None),
        drawn=gr.State(-1),
        phase=gr.State(""),
        timer=gr.Timer(POLL_SECONDS, active=False, render=False),
        address=view("address", None, elem_id="address"),
    )
