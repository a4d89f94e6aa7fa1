"""What the Train tab does: start, follow, pause, resume, open another run, grade held-out rows.

A run belongs to the server. The page holds its id, asks now and then what its log has gained, and
draws that; closing the page, reloading it or opening it twice changes nothing about the run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import fields
from typing import Any, Final

import gradio as gr

from sft_core.config import DataConfig
from sft_core.events import Graded, RunQueued
from sft_core.jobs import EvaluateJob
from sft_core.record import RunRecord
from sft_core.runs import Runs
from sft_core.settings import HOST
from sft_core.types import ConfigError, LabError, RunNotFoundError
from sft_core.ui import adopt, live_plot, settings_form
from sft_core.ui.header import run_chip
from sft_core.ui.look import look
from sft_core.ui.run_view import pairs_value, runs_value, samples_value, scores_value, status_value
from sft_core.ui.session import Choices, contract, conversation, model_config, sentence
from sft_core.ui.settings_form import Settings
from sft_core.ui.sources import rows_of, unpack
from sft_core.ui.view import dumps
from sft_core.ui.words import waiting

RECENT: Final = 12
REMEMBERED: Final = 50
FOLLOWED: Final = 12
"""How many outputs ``follow`` has."""


def start(runs: Runs, settings: Settings, choices: Choices, run: str | None) -> tuple[Any, ...]:
    """-> (run id, line, events drawn so far) for a run that was queued; the line says why where
    it was not, and then the run that was followed stays."""
    try:
        config = contract(choices).but(train=settings.config(), lora=settings.lora())
        if not rows_of(config.data).splits.train:
            raise ConfigError("There are no rows to train on. Lower the held-out and eval rows.")
        seen = look(config, conversation(choices))
        if seen.template is None and seen.error:
            raise seen.error
        started = runs.start(config)
    except LabError as error:
        return run, dumps({"text": sentence(error), "level": "error"}), gr.skip()
    return started, dumps({"text": ""}), -1


def resume(runs: Runs, run: str | None) -> tuple[str, int]:
    """-> (line, events drawn so far) for a run that was queued to go on, or why it cannot."""
    try:
        if run:
            runs.resume(run)
    except LabError as error:
        return dumps({"text": sentence(error), "level": "error"}), gr.skip()
    return dumps({"text": ""}), -1


def stop(runs: Runs, run: str | None) -> tuple[str, str]:
    """-> (line, status), at once: what was learnt is saved by whoever trains."""
    if not run:
        return dumps({"text": ""}), gr.skip()
    try:
        runs.stop(run)
        record = runs.record(run)
    except LabError as error:
        return dumps({"text": sentence(error), "level": "error"}), gr.skip()
    value = status_value(run, record, stopping=True, resume=resumable(runs, run))
    return dumps({"text": ""}), dumps(value)


def follow(runs: Runs, run: str | None, drawn: int) -> tuple[Any, ...]:
    """-> (events drawn, phase, status, losses, exact match by step, scores, samples, run chip,
    Start, Pause, Resume, timer). Nothing is sent where the log has gained nothing."""
    record = known_record(runs, run)
    if record is None:
        return (gr.skip(),) * (FOLLOWED - 4) + _buttons(None, None)
    heard = record.heard
    if heard == drawn:
        return (gr.skip(),) * FOLLOWED
    going_on = resumable(runs, run)
    status = status_value(run, record, stopping=_stopping(runs, run), resume=going_on)
    return (
        heard,
        f"{run} {record.status}",
        dumps(status),
        dumps(live_plot.losses_value(record)),
        dumps(live_plot.scores_curve_value(record)),
        dumps(scores_value(record)),
        dumps(samples_value(record)),
        dumps(run_chip(run, record)),
        *_buttons(record, going_on),
    )


def _stopping(runs: Runs, run: str | None) -> bool:
    """Whether somebody asked the run to stop, in this tab or in another."""
    return run is not None and runs.directory(run).stop_requested()


def resumable(runs: Runs, run: str | None) -> int | None:
    """The step that the run can go on after, or None where it cannot."""
    try:
        return runs.resumable_from(run) if run else None
    except LabError:
        return None


def _buttons(record: RunRecord | None, going_on: int | None) -> tuple[Any, Any, Any, Any]:
    """Start and Pause share one place; Resume stands beside Start and goes before it. The timer
    runs as long as there is something to follow."""
    going = record is not None and not record.status.over
    first = "primary" if going_on is None else "secondary"
    return (
        gr.update(visible=not going, variant=first),
        gr.update(visible=going, value="Pause" if record is None or record.step else "Stop"),
        gr.update(visible=going_on is not None),
        gr.Timer(active=going),
    )


def known_record(runs: Runs, run: str | None) -> RunRecord | None:
    """The record of a run, or None where it is not kept here."""
    if not run:
        return None
    try:
        return runs.record(run)
    except LabError:
        return None


def around(runs: Runs, run: str | None, own: list[str] | None, held: str) -> tuple[Any, ...]:
    """-> (address, list of runs, held-out rows, this visitor's runs): what changes when another
    run is looked at, or when it ends."""
    mine = remembered(own, run)
    return (
        dumps({"run": run}) if run else gr.skip(),
        dumps(runs_value(kept(runs, mine), run)),
        dumps(held_out(runs, run, unpack(held))),
        mine,
    )


def remembered(own: list[str] | None, run: str | None) -> list[str]:
    """The ids that a visitor's browser remembers, the newest first."""
    known = [id for id in own or [] if isinstance(id, str)]
    return list(dict.fromkeys([*([run] if run else []), *known]))[:REMEMBERED]


def kept(runs: Runs, own: Sequence[str]) -> list[tuple[str, RunRecord]]:
    """The newest runs that this visitor may see: on a shared host, those that they opened."""
    ids = own if HOST.on_space else runs.recent(RECENT)
    found = ((id, known_record(runs, id)) for id in ids[:RECENT])
    return [(id, record) for id, record in found if record is not None]


def held_out(runs: Runs, run: str | None, config: DataConfig) -> dict[str, Any]:
    """The held-out rows of a run, or of the data that it will read where it has not come so far,
    or of the loaded data where there is no run."""
    record = known_record(runs, run)
    if run and record:
        config = record.config.data
        with suppress(LabError):
            directory = runs.directory(run)
            return pairs_value(directory.test_rows(), directory.facts() or None)
    try:
        loaded = rows_of(config)
    except LabError as error:
        return {"pairs": [], "more": 0, "empty": sentence(error)}
    return pairs_value(loaded.splits.test, loaded.seen or None)


def grade(runs: Runs, run: str | None) -> Iterator[tuple[Any, Any]]:
    """Yields (line, held-out rows) while base and tuned model answer every held-out row."""
    if not run:
        yield dumps({"text": "Train a run first: its held-out rows are answered then."}), gr.skip()
        return
    graded: list[Graded] = []
    try:
        directory = runs.directory(run)
        rows, facts = directory.test_rows(), directory.facts() or None
        yield dumps({"text": "Loading the models", "busy": True}), gr.skip()
        for event in runs.ask(EvaluateJob(directory.path, directory.config())):
            match event:
                case RunQueued(position=position):
                    yield dumps({"text": f"Waiting: {waiting(position)}", "busy": True}), gr.skip()
                case Graded():
                    graded.append(event)
                    text = f"{len(graded)} of {2 * len(rows)} answers"
                    if len(graded) % 8 == 0:
                        value = dumps(pairs_value(rows, facts, graded))
                        yield dumps({"text": text, "busy": True}), value
        yield dumps({"text": ""}), dumps(pairs_value(rows, facts, graded))
    except LabError as error:
        yield dumps({"text": sentence(error), "level": "error"}), gr.skip()


def begin_with(preset: str) -> tuple[Any, ...]:
    """The settings of a preset, for every control of the form."""
    return adopt.settings(settings_form.PRESETS[preset][1])


def follow_model(settings: Settings, choices: Choices) -> tuple[Any, ...]:
    """-> (preset, settings) that suit the chosen model, unless the settings were changed by
    hand."""
    try:
        wanted = settings_form.suitable(model_config(choices).name)
        known = [train for _, train in settings_form.PRESETS.values()]
        untouched = settings.config() in known and settings.lora() == settings_form.USUAL_LORA
    except LabError:
        untouched = False
    if not untouched:
        return (gr.skip(),) * (1 + len(fields(Settings)))
    return wanted, *begin_with(wanted)


def adopt_run(runs: Runs, run: str | None) -> tuple[Any, ...]:
    """The run's own configuration on every control; nothing changes where there is no run."""
    record = known_record(runs, run)
    if record is None:
        raise RunNotFoundError("There is no run to take settings from.")
    return adopt.adopted(record.config)


def adopt_linked(runs: Runs, run: str | None) -> tuple[Any, ...]:
    """As ``adopt_run`` for somebody who came by a link; without one the page stays as it is."""
    record = known_record(runs, run)
    return adopt.adopted(record.config) if record else (gr.skip(),) * adopt.OUTPUTS


def opened(runs: Runs, run: str | None, sent: dict[str, Any]) -> tuple[Any, ...]:
    """-> (run id, line, events drawn) for the run that was chosen in the list."""
    wanted = str(sent.get("id"))
    try:
        runs.record(wanted)
    except LabError as error:
        return run, dumps({"text": sentence(error), "level": "error"}), gr.skip()
    return wanted, dumps({"text": ""}), -1


def arrived(runs: Runs, run: str | None, own: list[str]) -> tuple[Any, ...]:
    """-> (run id, line, events drawn, list of runs) for somebody who opens the page."""
    line: dict[str, Any] = {"text": ""}
    if run:
        try:
            runs.record(run)
        except LabError as error:
            run, line = None, {"text": sentence(error), "level": "warning"}
    return run, dumps(line), -1, dumps(runs_value(kept(runs, remembered(own, run)), run))
