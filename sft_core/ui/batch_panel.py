"""The first batch of a run under the Tokens tab: padded as most trainers do it, and packed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import gradio as gr

from sft_core.config import TrainConfig
from sft_core.dealing import Layouts, batch_windows, layouts, percent, plan
from sft_core.packing import Line, line
from sft_core.types import LabError
from sft_core.ui import data_panel
from sft_core.ui.fields import Fields, bind
from sft_core.ui.lengths import Sampled, sampled
from sft_core.ui.parts import LIGHT
from sft_core.ui.session import Choices, contract, sentence
from sft_core.ui.settings_form import Settings
from sft_core.ui.view import dumps, view

LINES: Final = 16
"""So many lines of a batch are drawn."""
HOW: Final = (
    "Over one epoch of these rows: places that hold no token, divided by all places. The lab "
    "computes none of them for nearly every model: it lays the rows of a batch end to end, packed "
    "or not. Packing decides "
    "how many rows a step has, so that every step has about the same number of tokens."
)


@dataclass(frozen=True, slots=True)
class Panel:
    outer: gr.Tab
    tab: gr.Tab
    batch: gr.HTML


# -- values ----------------------------------------------------------------------------------


def batch_value(train: TrainConfig, found: Sampled) -> dict[str, Any]:
    """What the view "batch" shows: the figures of all rows that were looked at, and the first
    batch in both layouts."""
    lengths = found.lengths
    figures = layouts(lengths, train.batch_size, train.max_length, seed=train.seed)
    if figures is None:
        return {"error": "There are no rows to train on, so there is no batch to show."}
    padded = plan(lengths, train.batch_size, seed=train.seed)[0]
    packed = batch_windows(lengths, train.batch_size, train.max_length, seed=train.seed)[0]
    longest = max(lengths[row] for row in padded)
    return {
        "text": figures.sentence(),
        "note": "" if found.whole else _part(found),
        "how": HOW,
        "table": _table(figures),
        "window": train.max_length,
        "packing": train.packing,
        "padded": _layout(
            [line((row,), lengths, longest) for row in padded],
            found,
            f"{_count(len(padded), 'row')}, padded to the longest of them, {longest:,} tokens.",
        ),
        "packed": _layout(
            [line(rows, lengths, train.max_length) for rows in packed],
            found,
            f"{_count(sum(map(len, packed)), 'row')} in "
            f"{_count(len(packed), 'window')} of {train.max_length:,} tokens. Positions restart "
            "with each row, and no row sees another.",
        ),
    }


def _part(found: Sampled) -> str:
    return f"These are the first {found.looked:,} of {found.total:,} training rows."


def _count(number: int, name: str) -> str:
    return f"{number:,} {name}{'s'[: number != 1]}"


def _table(figures: Layouts) -> list[list[str]]:
    """Name, places, share of them that is empty."""
    return [[name, f"{slots:,}", percent(empty)] for name, slots, empty in figures.table()]


def _layout(lines: list[Line], found: Sampled, text: str) -> dict[str, Any]:
    empty = 1 - sum(each.tokens for each in lines) / sum(each.width for each in lines)
    return {
        "text": f"{text} {percent(empty)} of this batch is padding.",
        "lines": [_line(each, found) for each in lines[:LINES]],
        "more": max(0, len(lines) - LINES),
    }


def _line(each: Line, found: Sampled) -> dict[str, Any]:
    return {
        "width": each.width,
        "segments": [
            {
                "id": found.ids[segment.row],
                "place": found.places[segment.row],
                "start": segment.start,
                "length": segment.length,
                "trained": found.rows[segment.row].trained,
                "stretches": _stretches(found, segment.row, segment.length),
            }
            for segment in each.segments
        ],
    }


def _stretches(found: Sampled, row: int, length: int) -> list[list[int]]:
    """[start, end) of each trained stretch among the row's kept tokens."""
    stretches: list[list[int]] = []
    at = 0
    for run in found.rows[row].runs:
        start, at = at, min(length, at + run.length)
        if not run.reason.trained or start >= at:
            continue
        if stretches and stretches[-1][1] == start:
            stretches[-1][1] = at
        else:
            stretches.append([start, at])
    return stretches


# -- handlers --------------------------------------------------------------------------------


def show(choices: Choices, settings: Settings) -> str:
    """What the view shows for the rows and settings that the page has now."""
    try:
        return dumps(batch_value(settings.config(), sampled(contract(choices))))
    except LabError as error:
        return dumps({"error": sentence(error)})


def revisit(choices: Choices, settings: Settings, shown: str) -> Any:
    """The same for somebody who comes back to the Tokens tab; nothing where no batch was shown."""
    return show(choices, settings) if shown not in ("", "{}", None) else gr.skip()


# -- layout and wiring -----------------------------------------------------------------------


def build(outer: gr.Tab) -> Panel:
    """A tab of its own, inside ``outer``."""
    with gr.Tab("A batch", id="batch", elem_id="tab-batch") as tab:
        batch = view("batch", {}, events=["open"], elem_id="batch")
    return Panel(outer, tab, batch)


def wire(
    panel: Panel,
    choices: Fields[Choices],
    settings: Fields[Settings],
    held: Any,
    rows: gr.HTML,
    opening: list[Any],
) -> None:
    """``held`` is the data configuration in force, ``rows`` the list of rows as shown, and
    ``opening`` what ``data_panel.choose`` repaints."""
    look, inputs = bind(show, choices, settings)
    panel.tab.select(look, inputs, panel.batch, trigger_mode="once", **LIGHT)
    again, inputs = bind(revisit, choices, settings, panel.batch)
    panel.outer.select(again, inputs, panel.batch, trigger_mode="once", **LIGHT)
    choose, inputs = bind(data_panel.choose, held, rows, event=True)
    panel.batch.open(choose, inputs, opening, **LIGHT).success(
        None, None, None, js="() => SFT.openInspector()", **LIGHT
    )
