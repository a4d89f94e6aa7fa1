"""From a source to Examples: built-in sets, files, hub data sets; split, and kept on disk.

Readers are in ``readers.py``, formats in ``formats.py``. A row that cannot be used becomes a
``BadRow`` with a sentence, and the good rows go on.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, Final

from sft_core import embedded, tasks
from sft_core.config import DataConfig
from sft_core.formats import FORMATS, recognise, to_example
from sft_core.readers import SUFFIXES, read_file, read_hub
from sft_core.types import DataError, Example, LabError, Message, RowError

__all__ = [
    "BUILT_IN",
    "FORMATS",
    "SUFFIXES",
    "BadRow",
    "Loaded",
    "Splits",
    "columns",
    "load",
    "read_rows",
    "seen_facts",
    "split",
    "to_example",
    "write_jsonl",
]

BUILT_IN: Final[Mapping[str, str]] = {
    "parrot": "Questions and answers about one part of the world that the parrot read about. Held "
    "out are questions about the rest, whose facts it met in pre-training alone.",
    "parrot-style": "Questions about the parrot's world, answered in a house style: rows for tone "
    "and format.",
    "parrot-refusals": "Questions from outside the parrot's world, declined, among others from "
    "within it, answered: rows that teach a model what not to answer.",
    "six-tasks": "Six kinds of short task with one right answer each: 160 rows to train on, 40 "
    "held out.",
}
_PEEK: Final = 50
"""Rows that are looked at to recognise a format: a column may be missing in the first."""


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that was left out, and why."""

    row: str
    message: str


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a source gave. ``columns`` maps the lab's fields to the columns in use, ``available``
    are all columns seen. ``held_out`` are rows that the source itself keeps for testing, and
    ``validation`` rows that it keeps for watching the loss."""

    name: str
    examples: tuple[Example, ...]
    bad: tuple[BadRow, ...] = ()
    format: str = "messages"
    columns: Mapping[str, str] = field(default_factory=dict)
    available: tuple[str, ...] = ()
    held_out: tuple[Example, ...] = ()
    validation: tuple[Example, ...] = ()


@dataclass(frozen=True, slots=True)
class Splits:
    """Rows to train on, to watch the loss on, and to be measured by."""

    train: tuple[Example, ...]
    eval: tuple[Example, ...]
    test: tuple[Example, ...]


# -- reading ----------------------------------------------------------------------------------


def load(config: DataConfig, max_rows: int | None = None) -> Loaded:
    """Reads at most ``config.rows`` rows, and never more than ``max_rows``. Raises DataError
    where no row can be used, HubError where the hub does not deliver."""
    if config.source in embedded.ROWS:
        return _embedded(config, max_rows)
    if config.source in BUILT_IN:
        train, held_out = tasks.six_tasks()
        return Loaded(
            name=config.source,
            examples=train[: config.rows],
            columns={"messages": "messages", "category": "category", "fact": "fact"},
            available=("messages", "category", "fact"),
            held_out=held_out,
            validation=_about(train[: config.rows], tasks.validation_rows()),
        )
    limits = [limit for limit in (config.rows, max_rows) if limit is not None]
    rows = list(islice(_rows(config), min(limits, default=None)))
    return read_rows(rows, config.columns, name=_title(config.source))


def _embedded(config: DataConfig, max_rows: int | None) -> Loaded:
    """A set that lies in the lab's checkout. Its validation rows stay whole, unlike those of the
    six tasks: they too ask for facts that training does not hold, since the parrot knows them and
    is to be watched on answering. Raises DataError where a file is missing."""
    files = embedded.ROWS[config.source]

    def rows(file: str | None, most: int | None = None) -> Loaded:
        if file is None:
            return Loaded(config.source, ())
        return read_rows(list(islice(read_file(embedded.rows_file(file)), most)), name=file)

    limits = [limit for limit in (config.rows, max_rows) if limit is not None]
    train, held_out, watched = (
        rows(files.train, min(limits, default=None)),
        rows(files.held_out),
        rows(files.validation),
    )
    return replace(
        train,
        name=config.source,
        bad=(*train.bad, *held_out.bad, *watched.bad),
        held_out=held_out.examples,
        validation=watched.examples,
    )


def _about(train: Sequence[Example], rows: Iterable[Example]) -> tuple[Example, ...]:
    """The rows whose facts training holds: on others the loss would only tell of guessing."""
    seen = seen_facts(train)
    return tuple(row for row in rows if row.fact in seen)


def _rows(config: DataConfig) -> Iterator[Any]:
    path = _path(config.source)
    if path is None:
        return read_hub(config)
    if path.is_file() or path.suffix.lower() in (*SUFFIXES, ".gz"):
        return read_file(path)
    if path.is_dir():
        raise DataError(f"{path.name} is a folder. Choose a file in it.")
    return read_hub(config)


def columns(config: DataConfig) -> tuple[str, ...]:
    """The columns of a source's first rows, for a person to map where no format was recognised.
    Raises DataError or HubError where the source cannot be read."""
    if config.source in BUILT_IN:
        return load(config).available
    return _columns(list(islice(_rows(config), _PEEK)))


def _title(source: str) -> str:
    path = _path(source)
    return path.name if path and path.is_file() else source


def _path(source: str) -> Path | None:
    """The path that a source may be, or None where no system would take it for one."""
    try:
        path = Path(source).expanduser()
        path.exists()
    except (OSError, RuntimeError):  # far too long; or the home of nobody, as in ~nobody/rows
        return None
    return path


def read_rows(
    rows: Sequence[Any], columns: Mapping[str, str] | None = None, *, name: str = "rows"
) -> Loaded:
    """Rows as they came from a source -> Examples and bad rows. ``columns`` corrects what
    recognition would choose. Raises DataError where not one row can be used."""
    if not rows:
        raise DataError(f"{name} has no rows.")
    available = _columns(rows)
    if not available:
        raise DataError(f"{name} holds no rows with named fields.")
    format, mapping = recognise(available, columns or {})
    examples: list[Example] = []
    bad: list[BadRow] = []
    taken: set[str] = set()
    for number, row in enumerate(rows, 1):
        id = f"row-{number}"
        try:
            if isinstance(row, LabError):
                raise RowError(id, str(row))
            example = to_example(row, format, mapping, id)
        except RowError as error:
            bad.append(BadRow(error.row, str(error)))
            continue
        while example.id in taken:  # rows are told apart by their ids, which may occur twice
            example = replace(example, id=f"{example.id} ({id})")
        taken.add(example.id)
        examples.append(example)
    if not examples:
        raise DataError(
            f"No row of {name} can be used. The first: {bad[0].message} Check the column mapping."
        )
    return Loaded(name, tuple(examples), tuple(bad), format, mapping, available)


def _columns(rows: Sequence[Any]) -> tuple[str, ...]:
    """Every column that the first rows have, in the order of their first appearance."""
    found: dict[str, None] = {}
    for row in rows[:_PEEK]:
        if isinstance(row, Mapping):
            found.update(dict.fromkeys(str(key) for key in row))
    return tuple(found)


# -- splitting --------------------------------------------------------------------------------


def split(loaded: Loaded, config: DataConfig) -> Splits:
    """Deals rows out with ``config.seed``, alike on every machine: test rows first, then
    evaluation rows, the rest is for training.

    Rows that the source holds out are the test rows; rows that it keeps for validation are the
    evaluation rows (``eval_rows`` of them), and then no training row is taken away. Evaluation
    rows are never test rows: the checkpoint that they choose must not have been chosen by the
    test. Where ``eval_rows`` would take more than half of a small set, a fifth of it is taken.
    Raises DataError where no row is left to train on.
    """
    # Python promises random() alone to be the same in every version, and shuffle() not.
    draw = random.Random(config.seed).random
    rest = sorted(loaded.examples, key=lambda _: draw())
    test: tuple[Example, ...] = loaded.held_out
    if not loaded.held_out:
        test, rest = tuple(rest[: config.test_rows]), rest[config.test_rows :]
    if loaded.validation:
        evaluation = loaded.validation[: config.eval_rows]
    else:
        count = config.eval_rows if config.eval_rows <= len(rest) // 2 else len(rest) // 5
        evaluation, rest = tuple(rest[:count]), rest[count:]
    if not rest:
        raise DataError(
            f"{loaded.name} has {len(loaded.examples)} usable rows, and all of them are held out "
            f"for testing (test_rows is {config.test_rows}). Hold out fewer, or read more rows."
        )
    order = {id(example): at for at, example in enumerate(loaded.examples)}
    return Splits(tuple(sorted(rest, key=lambda it: order[id(it)])), evaluation, test)


def seen_facts(train: Iterable[Example]) -> frozenset[str]:
    """The facts that training rows hold; empty where the data names none."""
    return frozenset(example.fact for example in train if example.fact is not None)


# -- keeping ----------------------------------------------------------------------------------


def write_jsonl(examples: Iterable[Example], path: Path) -> None:
    """Writes Examples one a line in the ``messages`` format, from which ``load`` reads them back
    as they are."""
    with path.open("w", encoding="utf-8") as file:
        for example in examples:
            file.write(json.dumps(_plain(example), ensure_ascii=False, default=str) + "\n")


def _plain(example: Example) -> dict[str, Any]:
    row: dict[str, Any] = {"id": example.id}
    row["messages"] = [plain_turn(message) for message in example.messages]
    optional = {"category": example.category, "fact": example.fact}
    row |= {key: value for key, value in optional.items() if value is not None}
    if example.tools:
        row["tools"] = list(example.tools)
    if example.extra:
        row["chat_template_kwargs"] = dict(example.extra)
    return row


def plain_turn(message: Message) -> dict[str, Any]:
    """A turn in the ``messages`` format, as JSON can carry it and ``load`` reads it back."""
    turn: dict[str, Any] = {"role": message.role, "content": message.content}
    if not isinstance(message.content, str):
        turn["content"] = [{"type": it.type, "text": it.text} for it in message.content]
    if message.tool_calls:
        turn["tool_calls"] = [
            {"id": call.id, "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    optional = {
        "context": message.context,
        "weight": message.weight,
        "name": message.name,
        "reasoning_content": message.reasoning,
        "tool_call_id": message.tool_call_id,
    }
    return turn | {key: value for key, value in optional.items() if value is not None}
