"""The data half of the first tab: where rows come from, how they are read, and the rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gradio as gr

from sft_core import catalogue, data
from sft_core.config import DataConfig
from sft_core.settings import HOST
from sft_core.types import LabError
from sft_core.ui.data_view import (
    builder_value,
    reading_value,
    rows_value,
    unread_value,
)
from sft_core.ui.fields import Fields
from sft_core.ui.parts import LIGHT, heading
from sft_core.ui.session import (
    Choices,
    model_config,
    optional_whole,
    parse,
    sentence,
    whole,
)
from sft_core.ui.sources import PARTS, Pick, check_source, pack, rows_of, unpack
from sft_core.ui.view import dumps, view

BUILT_IN, UPLOAD, HUB = "built-in", "upload", "hub"


@dataclass(frozen=True, slots=True)
class Source:
    """The controls that say where rows come from."""

    kind: str = BUILT_IN
    built_in: str = DataConfig().source
    file: str | None = None
    address: str = ""
    subset: str = ""
    split: str = ""
    rows: str = ""
    eval_rows: float | None = 16
    test_rows: float | None = 0
    seed: float | None = 42
    reading: str = ""

    def config(self, previous: DataConfig) -> DataConfig | None:
        """None while there is nothing to load yet. Raises ConfigError."""
        place = self.place(previous)
        if not place:
            return None
        hub = self.kind == HUB
        return DataConfig(
            source=place,
            subset=(self.subset.strip() or None) if hub else None,
            split=(self.split.strip() or None) if hub else None,
            rows=optional_whole(self.rows, "Rows at most"),
            columns=self._columns(place),
            eval_rows=whole(self.eval_rows, "Eval rows"),
            test_rows=whole(self.test_rows, "Held-out rows"),
            seed=whole(self.seed, "Seed"),
        )

    def place(self, previous: DataConfig) -> str:
        """Where the rows come from; a file that a link brought along needs no new upload."""
        match self.kind:
            case "upload":
                kept = previous.source if Path(previous.source).is_absolute() else ""
                return self.file or kept
            case "hub":
                return self.address.strip()
        return self.built_in

    def _columns(self, place: str) -> Mapping[str, str]:
        """The corrected mapping, as long as it belongs to this source."""
        shown = parse(self.reading)
        columns = shown.get("columns") if shown.get("source") == place else None
        return {str(k): str(v) for k, v in columns.items()} if isinstance(columns, dict) else {}


@dataclass(frozen=True, slots=True)
class Panel:
    """The components that other rooms need."""

    source: Fields[Source]
    config: gr.State
    pick: gr.State
    reading: gr.HTML
    rows: gr.HTML
    load: gr.Button
    boxes: tuple[gr.Column, gr.Column, gr.Column]


# -- handlers --------------------------------------------------------------------------------


def load(source: Source, held: str) -> tuple[Any, ...]:
    """-> (data configuration, chosen row, reading, rows, builder). A source that cannot be read
    leaves what was loaded as it is and says why."""
    previous = unpack(held)
    try:
        config = source.config(previous)
    except LabError as error:
        return _unread(unread_value(source.place(previous), {}, (), sentence(error)))
    if config is None and source.kind == HUB:
        return _unread(unread_value("", {}, (), "Name a data set on the hub, as owner/name."))
    if config is None or config == previous:
        return (gr.skip(),) * 5
    try:
        return loaded(config)
    except LabError as error:
        why = f"{sentence(error)} Until then the rows of {Path(previous.source).name} are used."
        return _unread(unread_value(config.source, config.columns, _columns(config), why))


def change_kind(source: Source, held: str) -> tuple[Any, ...]:
    """What ``load`` gives when another kind of source is chosen, so that the page never names one
    source and holds another's rows. The hub is asked only when its button is pressed."""
    previous = unpack(held)
    if source.kind == HUB:
        return (gr.skip(),) * 5
    if source.place(previous) == previous.source:
        return _unread(reading_value(previous, rows_of(previous)))
    return load(source, held)


def follow_model(source: Source, choices: Choices) -> tuple[Any, ...]:
    """-> (built-in set, and what ``load`` gives): where the page holds the rows that were made for
    another model, those for the chosen one take their place. Rows that somebody brought stay, and
    so does a conversation of one's own."""
    nothing = (gr.skip(),) * 6
    try:
        wanted = catalogue.find(model_config(choices).name).data
        held = choices.data
        others = {card.data for card in catalogue.CATALOGUE} - {wanted}
        if wanted is None or source.kind != BUILT_IN or held.source not in others:
            return nothing
        *shown, builder = loaded(replace(held, source=wanted))
    except LabError:
        return nothing  # what is wrong with the model is said beside it
    own = parse(choices.conversation).get("own")
    return wanted, *shown, gr.skip() if own else builder


def loaded(config: DataConfig) -> tuple[Any, ...]:
    """What ``load`` gives for rows that can be read. Raises LabError."""
    rows = rows_of(config)
    first = Pick()
    example = rows.at(first)
    assert example is not None
    return (
        pack(config),
        first,
        dumps(reading_value(config, rows)),
        dumps(rows_value(rows, first.part, 0, first)),
        dumps(builder_value(example)),
    )


def _unread(value: dict[str, Any]) -> tuple[Any, ...]:
    return gr.skip(), gr.skip(), dumps(value), gr.skip(), gr.skip()


def _columns(config: DataConfig) -> tuple[str, ...]:
    """The source's columns, where it can be read at all."""
    try:
        check_source(config.source)
        return data.columns(config)
    except LabError:
        return ()


def turn_page(held: str, pick: Pick, asked: dict[str, Any]) -> str:
    """The page of rows that was asked for."""
    part = asked.get("part")
    part = part if part in {"all", *PARTS} else "all"
    return dumps(rows_value(rows_of(unpack(held)), part, int(asked.get("page") or 0), pick))


def choose(held: str, shown: str, asked: dict[str, Any]) -> tuple[Any, ...]:
    """-> (chosen row, rows, builder) for the row that was clicked; nothing changes where there is
    no such row."""
    pick = Pick(str(asked.get("part")), int(asked.get("place") or 0))
    rows = rows_of(unpack(held))
    example = rows.at(pick) if pick.part in PARTS else None
    if example is None:
        return (gr.skip(),) * 3
    page = parse(shown)
    value = rows_value(rows, str(page.get("part") or "all"), int(page.get("page") or 0), pick)
    return pick, dumps(value), dumps(builder_value(example))


def show_kind(kind: str) -> tuple[dict[str, Any], ...]:
    """Shows the controls of one kind of source."""
    return tuple(gr.update(visible=kind == name) for name in (BUILT_IN, UPLOAD, HUB))


# -- layout ----------------------------------------------------------------------------------


def build(config: DataConfig) -> Panel:
    """Lays the panel out with ``config``'s rows on it."""
    rows = rows_of(config)
    with gr.Row(elem_classes="columns", elem_id="sec-data"):
        with gr.Column(scale=5):
            heading("Data")
            parts, button, boxes = _source_controls(config)
            reading = view(
                "reading", reading_value(config, rows), events=["edit"], elem_id="reading"
            )
            with (
                gr.Accordion("Split sizes and seed", open=False, elem_classes="fold"),
                gr.Row(elem_classes="pairwise"),
            ):
                parts |= {
                    "rows": gr.Textbox(
                        "" if config.rows is None else str(config.rows),
                        label="Rows at most",
                        placeholder="all",
                        min_width=110,
                    ),
                    "eval_rows": gr.Number(
                        config.eval_rows, label="Eval rows", precision=0, minimum=0, min_width=110
                    ),
                    "test_rows": gr.Number(
                        config.test_rows,
                        label="Held-out rows",
                        precision=0,
                        minimum=0,
                        min_width=110,
                    ),
                    "seed": gr.Number(
                        config.seed, label="Seed", precision=0, minimum=0, min_width=110
                    ),
                }
        with gr.Column(scale=7):
            shown = view(
                "rows",
                rows_value(rows, "train", 0, Pick()),
                events=["pick", "leaf"],
                elem_id="rows",
            )
    return Panel(
        source=Fields(Source, **parts, reading=reading),
        config=gr.State(pack(config)),
        pick=gr.State(Pick()),
        reading=reading,
        rows=shown,
        load=button,
        boxes=boxes,
    )


def _source_controls(config: DataConfig) -> tuple[dict[str, Any], gr.Button, Any]:
    kind = gr.Radio(
        [("Built in", BUILT_IN), ("Upload", UPLOAD), ("Hub", HUB)],
        value=BUILT_IN,
        label="Where the rows come from",
        elem_id="source-kind",
    )
    with gr.Column(visible=True) as built_in_box:
        built_in = gr.Dropdown(
            list(data.BUILT_IN),
            value=config.source,
            label="Data set",
            elem_id="built-in",
        )
    with gr.Column(visible=False) as upload_box:
        file = gr.File(
            label="JSON, JSONL, CSV or Parquet",
            file_types=[".json", ".jsonl", ".csv", ".parquet"],
            type="filepath",
            height=120,
            elem_id="upload",
        )
    with gr.Column(visible=False) as hub_box:
        address = gr.Textbox(
            label="Hub id or file" if HOST.local_paths else "Hub id",
            placeholder="owner/name",
            elem_id="hub-id",
        )
        with gr.Row():
            subset = gr.Textbox(label="Subset", placeholder="default", min_width=110)
            split = gr.Textbox(label="Split", placeholder="train", min_width=110)
        button = gr.Button("Load these rows", size="md", scale=0, elem_id="load-hub")
    kind.input(show_kind, kind, [built_in_box, upload_box, hub_box], **LIGHT)
    controls = {
        "kind": kind,
        "built_in": built_in,
        "file": file,
        "address": address,
        "subset": subset,
        "split": split,
    }
    return controls, button, (built_in_box, upload_box, hub_box)
