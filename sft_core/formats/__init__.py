"""Rows of the formats that people bring -> Examples, and a sentence for each row that is not one.

A format is recognised by the columns that rows have. ``columns`` maps the lab's names of fields
(instruction, output, messages, ...) to columns; ``recognise`` proposes it and a person may correct
it. Everything that can be wrong with a row is a RowError that names the row.

turns    one turn of a conversation, in the layouts that data sets have
values   fields of a row as plain values
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sft_core.formats.turns import either_turn, is_whole, turns
from sft_core.formats.values import decoded, json_value, kind, optional_text, text
from sft_core.types import DataError, Example, Message, RowError

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Format:
    """How one kind of row is laid out. ``needs`` and ``takes`` are the lab's field names, each
    with the columns that usually hold it, likeliest first."""

    name: str
    sentence: str
    needs: Mapping[str, tuple[str, ...]]
    takes: Mapping[str, tuple[str, ...]]


_COMMON: Final[Mapping[str, tuple[str, ...]]] = {
    "system": ("system", "system_prompt"),
    "category": ("category", "task", "topic"),
    "id": ("id", "prompt_id", "uuid"),
    "fact": ("fact",),
    "tools": ("tools", "functions"),
    "documents": ("documents",),
    "variables": ("chat_template_kwargs",),
}

RESERVED: Final = frozenset({"messages", "tools", "add_generation_prompt"})
"""Variables of a template that a row cannot give as it likes: the lab sets them."""

FORMATS: Final[Mapping[str, Format]] = {
    it.name: it
    for it in (
        Format(
            "messages",
            "A list of turns with role and content; weights, tool calls and typed parts are kept.",
            {"messages": ("messages", "conversation", "chat")},
            _COMMON,
        ),
        Format(
            "sharegpt",
            "A list of turns with from and value, as ShareGPT has them; function calls included.",
            {"conversations": ("conversations",)},
            _COMMON,
        ),
        Format(
            "alpaca",
            "An instruction, an input that it may be about, and the output.",
            {"instruction": ("instruction",), "output": ("output", "response")},
            {"input": ("input", "context"), **_COMMON},
        ),
        Format(
            "prompt-response",
            "A prompt and the response to it, each as text or as a list of turns.",
            {
                "prompt": ("prompt", "question", "query", "input"),
                "response": ("response", "completion", "answer", "output", "target"),
            },
            _COMMON,
        ),
    )
}


def recognise(available: Sequence[str], wanted: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """The format of rows that have the columns ``available``, and field -> column. ``wanted``
    corrects: a field given there takes that column. Raises DataError where nothing fits."""
    known = {field for it in FORMATS.values() for field in (*it.needs, *it.takes)}
    for field, column in wanted.items():
        if field not in known:
            raise DataError(
                f"{field!r} is no field that a column can be mapped to. The fields are "
                f"{_listed(sorted(known))}."
            )
        if column not in available:
            raise DataError(
                f"There is no column {column!r} for {field}. The columns are "
                f"{_listed(available)}. Correct the mapping."
            )
    fits = [it for it in FORMATS.values() if _mapping(it, available, wanted) is not None]
    # A person who maps a field means the format that has it.
    meant = [it for it in fits if set(wanted) & set(it.needs)] or fits
    if not meant:
        raise DataError(
            f"No known format has the columns {_listed(available)}. Say which column holds the "
            "prompt and which the response, or the messages."
        )
    columns = _mapping(meant[0], available, wanted)
    return meant[0].name, columns or {}


def _mapping(
    format: Format, available: Sequence[str], wanted: Mapping[str, str]
) -> dict[str, str] | None:
    """field -> column, or None where a needed field has none. No column serves two fields."""
    spelled = {column.strip().lower(): column for column in reversed(available)}
    found: dict[str, str] = {
        field: column
        for field, column in wanted.items()
        if field in format.needs or field in format.takes
    }
    for field, usual in (*format.needs.items(), *format.takes.items()):
        if field in found:
            continue
        for name in usual:
            if name in spelled and spelled[name] not in found.values():
                found[field] = spelled[name]
                break
    return found if set(format.needs) <= set(found) else None


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) if names else "(none)"


# -- one row ----------------------------------------------------------------------------------


def to_example(row: Row, format: str, columns: Mapping[str, str], id: str) -> Example:
    """One row as an Example; ``id`` names it where it has no id of its own. Raises RowError with
    what is wrong with it."""
    if not isinstance(row, Mapping):
        raise RowError(id, f"{id} is {kind(row)}, not an object with named fields.")
    fields = {field: row.get(column) for field, column in columns.items()}
    own = fields.get("id")
    name = optional_text(own if not isinstance(own, str) else own.strip()) or id
    messages = _READERS[format](fields, name)
    system = fields.get("system")
    if isinstance(system, str) and system.strip() and messages[0].role != "system":
        messages = (Message("system", system), *messages)
    if not any(message.role == "assistant" for message in messages):
        raise RowError(name, f"{name} has no assistant turn, so there is nothing to learn from it.")
    if not all(is_whole(message) for message in messages):
        raise RowError(
            name,
            f"{name} holds half of a character (a lone surrogate, as when an emoji was cut in "
            "two), which no tokenizer can read. Write the whole character, or leave it out.",
        )
    return Example(
        id=name,
        messages=messages,
        category=optional_text(fields.get("category")),
        fact=optional_text(fields.get("fact")),
        tools=_tools(fields.get("tools"), name),
        extra=_extra(fields, name),
    )


def conversation(row: Row, id: str) -> Example:
    """A row of the ``messages`` format as somebody is still writing it: an answer may be missing.
    Raises RowError."""
    fields = {"variables": row.get("chat_template_kwargs")}
    messages = turns(decoded(row.get("messages"), "messages", id), id)
    return Example(id, messages, tools=_tools(row.get("tools"), id), extra=_extra(fields, id))


def _alpaca(fields: Row, name: str) -> tuple[Message, ...]:
    context = fields.get("input")
    if context is not None and not isinstance(context, str):
        raise RowError(name, f"The input of {name} is {kind(context)}, not text.")
    instruction = text(fields, "instruction", name)
    if not instruction.strip():
        raise RowError(name, f"The instruction of {name} is empty.")
    return (
        Message("user", instruction, context=context if context and context.strip() else None),
        Message("assistant", text(fields, "output", name)),
    )


def _prompt_response(fields: Row, name: str) -> tuple[Message, ...]:
    prompt, response = fields.get("prompt"), fields.get("response")
    asked = (
        turns(prompt, name)
        if isinstance(prompt, list)
        else (Message("user", text(fields, "prompt", name)),)
    )
    answered = (
        turns(response, name)
        if isinstance(response, list)
        else (Message("assistant", text(fields, "response", name)),)
    )
    return (*asked, *answered)


def _messages(fields: Row, name: str) -> tuple[Message, ...]:
    return turns(decoded(fields.get("messages"), "messages", name), name)


def _sharegpt(fields: Row, name: str) -> tuple[Message, ...]:
    turns = decoded(fields.get("conversations"), "conversations", name)
    return tuple(either_turn(turn, name, at) for at, turn in enumerate(turns, 1))


_READERS: Final = {
    "alpaca": _alpaca,
    "prompt-response": _prompt_response,
    "messages": _messages,
    "sharegpt": _sharegpt,
}


def _tools(value: Any, name: str) -> tuple[Mapping[str, Any], ...]:
    value = json_value(value, "tools", name)
    if not value:
        return ()
    if isinstance(value, Mapping):
        value = [value]
    if not isinstance(value, (list, tuple)) or not all(isinstance(it, Mapping) for it in value):
        raise RowError(name, f"The tools of {name} are {kind(value)}, not a list of objects.")
    return tuple(value)


def _extra(fields: Row, name: str) -> dict[str, Any]:
    """What a row gives its template besides messages and tools: documents to answer from, and
    variables such as enable_thinking or date_string."""
    variables = json_value(fields.get("variables"), "chat_template_kwargs", name) or {}
    if not isinstance(variables, Mapping):
        raise RowError(
            name, f"The chat_template_kwargs of {name} are {kind(variables)}, not an object."
        )
    taken = sorted(RESERVED & set(variables))
    if taken:
        raise RowError(
            name,
            f"The chat_template_kwargs of {name} set {taken[0]}, which the lab sets itself. Take "
            "it out.",
        )
    documents = json_value(fields.get("documents"), "documents", name)
    if documents and not isinstance(documents, (list, tuple)):
        raise RowError(name, f"The documents of {name} are {kind(documents)}, not a list.")
    return dict(variables) | ({"documents": list(documents)} if documents else {})
