"""A data set in the page's words: how it is read, its rows as conversations. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final

from sft_core import data
from sft_core.config import DataConfig
from sft_core.types import Example
from sft_core.ui.session import row_of, turns_of
from sft_core.ui.sources import PARTS, Pick, Rows

PAGE: Final = 4
"""Conversations on a page."""
BAD_SHOWN: Final = 100
TURNS_SHOWN: Final = 6
TURN_SHOWN: Final = 1200


def reading_value(config: DataConfig, rows: Rows) -> dict[str, Any]:
    """How the source is read, as a sentence with editable words."""
    loaded, splits = rows.loaded, rows.splits
    return {
        "source": config.source,
        "columns": dict(config.columns),
        "format": "Built in" if config.source in data.BUILT_IN else loaded.format,
        "sentence": data.BUILT_IN.get(config.source, ""),
        **mapping(config, loaded),
        "split": _split_sentence(rows),
        "note": _facts_sentence(rows),
        "bad": [{"row": bad.row, "message": bad.message} for bad in loaded.bad[:BAD_SHOWN]],
        "badCount": len(loaded.bad),
        "counts": [len(splits.train), len(splits.eval), len(splits.test)],
    }


def mapping(config: DataConfig, loaded: data.Loaded) -> dict[str, Any]:
    """The formats to choose from, and which column each field is read from."""
    if config.source in data.BUILT_IN:
        return {"formats": [], "available": [], "mapped": {}}
    return {
        "formats": formats(),
        "available": list(loaded.available),
        "mapped": dict(loaded.columns),
    }


def formats() -> list[dict[str, Any]]:
    return [
        {
            "name": format.name,
            "sentence": format.sentence,
            "needs": list(format.needs),
            "takes": list(format.takes),
        }
        for format in data.FORMATS.values()
    ]


def unread_value(
    source: str, columns: Mapping[str, str], available: Sequence[str], why: str
) -> Any:
    """A source that could not be read: why, and where its columns are known, how to say what
    they hold."""
    return {
        "source": source,
        "columns": dict(columns),
        "error": why,
        "format": "",
        "formats": formats() if available else [],
        "available": list(available),
        "mapped": {},
    }


def _split_sentence(rows: Rows) -> str:
    splits = rows.splits
    return (
        f"{len(splits.train):,} rows to train on, {len(splits.eval):,} to watch the loss on, "
        f"{len(splits.test):,} held out."
    )


def _facts_sentence(rows: Rows) -> str:
    """How many held-out facts do not stand in training, where the data names its facts."""
    told = [rows.fact_seen(example) for example in rows.splits.test]
    facts = sum(seen is not None for seen in told)
    unseen = sum(seen is False for seen in told)
    if not facts:
        return ""
    if unseen < facts:
        return (
            f"{unseen} of the {facts} held-out facts do not stand in these training rows. Only a "
            "model that met them before can know those, so they are counted apart."
        )
    source = "an answer must come from what the model met before."
    if facts < len(told):
        return (
            f"{facts} of the {len(told)} held-out rows ask for a fact, and none of those stands in "
            f"a training row: {source}"
        )
    return f"None of their facts stands in a training row: {source}"


def rows_value(rows: Rows, part: str, page: int, pick: Pick) -> dict[str, Any]:
    """One page of conversations."""
    names = tuple(PARTS) if part == "all" else (part,)
    total = sum(len(rows.part(name)) for name in names)
    pages = max(1, -(-total // PAGE))
    page = min(max(page, 0), pages - 1)
    shown = islice(_picks(rows, names, page * PAGE), PAGE)
    counts = {name: len(rows.part(name)) for name in PARTS}
    return {
        "rows": [_row(rows, at) for at in shown],
        "part": part,
        "counts": {"all": sum(counts.values()), **counts},
        "page": page,
        "pages": pages,
        "chosen": _key(pick),
    }


def _picks(rows: Rows, names: Sequence[str], start: int) -> Iterator[Pick]:
    """Rows of the parts in ``names``, one part after the other, from number ``start`` on."""
    for name in names:
        count = len(rows.part(name))
        yield from (Pick(name, place) for place in range(min(start, count), count))
        start = max(0, start - count)


def _key(pick: Pick) -> str:
    return f"{pick.part}/{pick.place}"


def _row(rows: Rows, at: Pick) -> dict[str, Any]:
    example = rows.at(at)
    assert example is not None
    turns = turns_of(example)
    return {
        "id": example.id,
        "key": _key(at),
        "part": at.part,
        "place": at.place,
        "partName": PARTS[at.part],
        "category": example.category,
        "note": rows.fact_note(example) if at.part == "test" else None,
        "turns": [
            {
                "role": turn["role"],
                "text": _short(turn["content"]),
                "calls": ", ".join(call.name for call in message.tool_calls),
            }
            for turn, message in zip(turns[:TURNS_SHOWN], example.messages, strict=False)
        ],
        "more": max(0, len(turns) - TURNS_SHOWN),
    }


def _short(text: str) -> str:
    return text if len(text) <= TURN_SHOWN else f"{text[:TURN_SHOWN]} …"


def builder_value(example: Example) -> dict[str, Any]:
    return {
        "turns": turns_of(example),
        "row": row_of(example),
        "own": False,
        "note": f"Row {example.id.removeprefix('row-')}",
    }
