"""The whole set under the Tokens tab: an audit that one can start, watch, stop and come back to.

An audit belongs to the server (``audits``). The page holds its id, also in the browser's own
storage, and asks every half second what is new; closing the page changes nothing about it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Final

import gradio as gr

from sft_core.config import LabConfig
from sft_core.settings import HOST
from sft_core.types import ConfigError, LabError
from sft_core.ui import data_panel, findings
from sft_core.ui.audit_view import (
    STALE,
    lists_value,
    plot_values,
    summary_value,
    survey_value,
)
from sft_core.ui.audits import Audits, Plan, Progress
from sft_core.ui.fields import Fields, bind
from sft_core.ui.findings import Shown
from sft_core.ui.header import mask_text, template_title
from sft_core.ui.look import limit, look
from sft_core.ui.parts import LIGHT
from sft_core.ui.session import Choices, contract, sentence
from sft_core.ui.sources import PARTS, rows_of, unpack
from sft_core.ui.view import dumps, view

POLL_SECONDS: Final = 0.5
AT_ONCE_ROWS: Final = 1000
"""A set of so many rows is audited as soon as somebody looks; a larger one when asked to."""
FOLLOWED: Final = 14
"""How many outputs ``follow`` has."""


@dataclass(frozen=True, slots=True)
class Panel:
    """The components that take part in the wiring. ``audit`` is the id of the audit that is looked
    at, ``drawn`` the version of it that stands on the page."""

    outer: gr.Tab
    tab: gr.Tab
    start: gr.Button
    stop: gr.Button
    line: gr.HTML
    summary: gr.HTML
    plots: tuple[gr.HTML, gr.HTML, gr.HTML]
    found: Shown
    lists: gr.HTML
    files: tuple[gr.DownloadButton, gr.DownloadButton, gr.DownloadButton]
    saved: gr.Row
    drawn: gr.State
    audit: gr.BrowserState
    timer: gr.Timer

    def followed(self) -> list[Any]:
        """What ``follow`` gives values for, in its order."""
        shown = [self.summary, *self.plots, self.found.findings, self.lists]
        return [self.drawn, *shown, self.start, self.stop, self.timer, self.saved, *self.files]


# -- handlers --------------------------------------------------------------------------------


def enter(audits: Audits, choices: Choices, id: str | None) -> tuple[Any, ...]:
    """-> (audit, version drawn, line) when somebody comes to look. A small set is audited at once,
    and again where something was changed; a large one waits for its button, and is not given up
    for a small one."""
    try:
        config = contract(choices)
        known = audits.get(id)
        if known is not None and known.key == key_of(config):
            return gr.skip(), gr.skip(), dumps({"text": ""})
        long = known is not None and known.total > AT_ONCE_ROWS
        if not long and len(rows_of(config.data).splits.train) <= AT_ONCE_ROWS:
            return start(audits, choices, id)
    except LabError as error:
        return gr.skip(), gr.skip(), dumps({"text": sentence(error), "level": "error"})
    line = {"text": STALE, "level": "warning"} if known else {"text": ""}
    return gr.skip(), gr.skip(), dumps(line)


def revisit(audits: Audits, choices: Choices, id: str | None) -> tuple[Any, ...]:
    """-> what ``enter`` gives, for somebody who comes back to the Tokens tab and may have had the
    whole set open there."""
    return (gr.skip(),) * 3 if audits.get(id) is None else enter(audits, choices, id)


def start(audits: Audits, choices: Choices, id: str | None) -> tuple[Any, ...]:
    """-> (audit, version drawn, line) for an audit that was queued; the line says why where it was
    not. The one that was looked at until then is stopped."""
    try:
        plan = plan_of(choices)
        audits.stop(id)
        begun = audits.start(plan)
    except LabError as error:
        return gr.skip(), gr.skip(), dumps({"text": sentence(error), "level": "error"})
    return begun, None, dumps({"text": ""})


def stop(audits: Audits, id: str | None) -> Any:
    """-> Stop, which has been pressed."""
    audits.stop(id)
    return gr.update(interactive=False)


def follow(audits: Audits, id: str | None, drawn: int | None) -> tuple[Any, ...]:
    """-> (version drawn, summary, three plots, findings, lists, Start, Stop, timer, downloads,
    three files). Nothing is sent while nothing is new."""
    progress = audits.get(id)
    if progress is not None and progress.version == drawn:
        return (gr.skip(),) * FOLLOWED
    over = progress is None or progress.state.over
    files = progress.files if progress else ()
    return (
        progress.version if progress else None,
        dumps(summary_value(progress)),
        *(dumps(value) for value in plot_values(progress)),
        dumps(survey_value(progress)),
        dumps(lists_value(progress)),
        *_buttons(progress, over, drawn),
        gr.update(visible=bool(files)),
        *((gr.update(value=str(file)) for file in files) if files else (gr.skip(),) * 3),
    )


def _buttons(progress: Progress | None, over: bool, drawn: int | None) -> tuple[Any, Any, Any]:
    """-> (Start, Stop, timer): they share one place, and change when an audit begins or ends. A
    button that is sent anew while somebody presses it would not notice."""
    if drawn is not None and not over:
        return (gr.skip(),) * 3
    return (
        gr.update(visible=over, **_start_looks(progress)),
        gr.update(visible=not over, interactive=True),
        gr.Timer(active=not over),
    )


def open_row(audits: Audits, id: str | None, choices: Choices, shown: str, sent: Any) -> Any:
    """-> (chosen row, rows, builder) for a row of the audit that was clicked. Raises ConfigError
    where it is no row of the data that is loaded now."""
    row, progress = str(sent.get("row")), audits.get(id)
    if progress is None or progress.held != choices.held:
        raise ConfigError("Other data was loaded since this audit: audit again to open its rows.")
    rows = rows_of(unpack(choices.held))
    for part in PARTS:
        for place, example in enumerate(rows.part(part)):
            if example.id == row:
                return data_panel.choose(choices.held, shown, {"part": part, "place": place})
    raise ConfigError(f"There is no row {row} in this data any more: audit again.")


def mend(audits: Audits, id: str | None, choices: Choices, sent: dict[str, Any]) -> Any:
    """-> what ``findings.mend`` gives, for a finding of the audit: ``sent`` holds its place."""
    progress, number = audits.get(id), sent.get("number")
    try:
        config = contract(choices)
        if progress is None or progress.key != key_of(config):
            raise ConfigError(STALE)
        if not isinstance(number, int) or not 0 <= number < len(progress.findings):
            raise ConfigError("That was mended already.")
        return findings.applied(findings.remedy(choices, config, progress.findings[number]))
    except LabError as error:
        return findings.refused(sentence(error))


def plan_of(choices: Choices) -> Plan:
    """What an audit of these choices is to do. Raises LabError where it cannot begin."""
    config = contract(choices)
    HOST.check(config)
    rows = rows_of(config.data)
    if not rows.splits.train:
        raise ConfigError("There are no training rows to audit. Lower the eval and held-out rows.")
    seen = look(config, rows.splits.train[0])
    if seen.template is None or seen.tokenizer is None:
        assert seen.error is not None
        raise seen.error
    return Plan(
        examples=rows.splits.train,
        held_out=(*rows.splits.eval, *rows.splits.test),
        template=seen.template,
        tokenizer=seen.tokenizer,
        config=config,
        max_length=limit(config),
        key=key_of(config),
        held=choices.held,
        title=f"{template_title(config)}; {mask_text(config.policy)}; at most "
        f"{limit(config):,} tokens",
    )


def key_of(config: LabConfig) -> str:
    """The same text for all choices that give the same audit."""
    model = (config.model.name, config.model.revision, config.model.missing_tokens)
    parts = [asdict(config.data), asdict(config.template), asdict(config.policy)]
    return json.dumps([*parts, model, limit(config)], sort_keys=True)


def _start_looks(progress: Progress | None) -> dict[str, str]:
    """The button is what comes next only as long as there is no audit."""
    if progress is None:
        return {"value": "Audit the whole set", "variant": "primary"}
    return {"value": "Audit again", "variant": "secondary"}


# -- layout and wiring -----------------------------------------------------------------------


def build(outer: gr.Tab) -> Panel:
    """A tab of its own, inside ``outer``. Its timer and its memory of the audit are left for
    the page to render outside of all tabs, where they live from the start."""
    with gr.Tab("The whole set", id="set", elem_id="tab-set") as tab:
        with gr.Row(elem_classes="inline", elem_id="audit-top"):
            start = gr.Button(**_start_looks(None), size="md", scale=0, elem_id="audit-start")
            stop = gr.Button(
                "Stop", variant="stop", size="md", scale=0, visible=False, elem_id="audit-stop"
            )
            with gr.Row(elem_classes="inline", visible=False) as saved:
                files = (
                    _download("Figures, JSON", "audit-json"),
                    _download("Figures, CSV", "audit-figures"),
                    _download("All rows, CSV", "audit-rows"),
                )
        line = view("line", {"text": ""}, elem_id="audit-line")
        summary = view("audit", summary_value(None), elem_id="audit")
        with gr.Row(elem_classes="trio"):
            nothing = {"figure": None, "empty": ""}
            lengths = view("plot", nothing, elem_id="audit-lengths")
            shares = view("plot", nothing, elem_id="audit-shares")
            limits = view("plot", nothing, elem_id="audit-limits")
        found = findings.build_survey(survey_value(None))
        lists = view("lists", lists_value(None), events=["open"], elem_id="audit-lists")
    return Panel(
        outer=outer,
        tab=tab,
        start=start,
        stop=stop,
        line=line,
        summary=summary,
        plots=(lengths, shares, limits),
        found=found,
        lists=lists,
        files=files,
        saved=saved,
        drawn=gr.State(None),
        audit=gr.BrowserState("", storage_key="sft-lab-audit", secret="sft-lab", render=False),
        timer=gr.Timer(POLL_SECONDS, active=False, render=False),
    )


def _download(label: str, elem_id: str) -> gr.DownloadButton:
    return gr.DownloadButton(label, size="sm", scale=0, elem_id=elem_id)


def wire(
    panel: Panel,
    audits: Audits,
    choices: Fields[Choices],
    opening: list[Any],
    mended: list[Any],
    undone: gr.State,
    rows: gr.HTML,
    comes: Any,
) -> None:
    """``opening`` is what ``data_panel.choose`` repaints, ``mended`` what a remedy sets and
    ``undone`` what it changed last, ``rows`` the list of rows as shown, and ``comes`` the event of
    the page being opened."""
    begun = [panel.audit, panel.drawn, panel.line]
    ask, looking = bind(follow, panel.audit, panel.drawn, fixed=(audits,))
    look_in, inputs = bind(enter, choices, panel.audit, fixed=(audits,))
    look_again, _ = bind(revisit, choices, panel.audit, fixed=(audits,))
    for tab, handler in ((panel.tab, look_in), (panel.outer, look_again)):
        tab.select(handler, inputs, begun, trigger_mode="once", **LIGHT).then(
            ask, looking, panel.followed(), **LIGHT
        )
    fix, sending = bind(mend, panel.audit, choices, fixed=(audits,), event=True)
    back, with_last = bind(findings.undo, choices, undone)
    for changed in (
        panel.found.findings.fix(fix, sending, mended, trigger_mode="once", **LIGHT),
        panel.found.mended.undo(back, with_last, mended, trigger_mode="once", **LIGHT),
    ):
        # Here the change is to be seen in the figures.
        changed.then(look_in, inputs, begun, **LIGHT).then(ask, looking, panel.followed(), **LIGHT)
    begin, inputs = bind(start, choices, panel.audit, fixed=(audits,))
    panel.start.click(begin, inputs, begun, trigger_mode="once", **LIGHT).then(
        ask, looking, panel.followed(), **LIGHT
    )
    end, inputs = bind(stop, panel.audit, fixed=(audits,))
    panel.stop.click(end, inputs, panel.stop, **LIGHT)
    panel.timer.tick(ask, looking, panel.followed(), trigger_mode="once", **LIGHT)
    comes(ask, looking, panel.followed(), **LIGHT)
    open_it, inputs = bind(open_row, panel.audit, choices, rows, fixed=(audits,), event=True)
    for place in (panel.lists, panel.found.findings):
        place.open(open_it, inputs, opening, **LIGHT).success(
            None, None, None, js="() => SFT.openInspector()", **LIGHT
        )
