"""Fields of a row as plain values, each with a sentence where it is something else."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sft_core.types import RowError


def text(fields: Mapping[str, Any], field: str, name: str) -> str:
    """A field that must be there, numbers as text. Raises RowError."""
    value = fields.get(field)
    if isinstance(value, str):
        return value
    if value is None:
        raise RowError(name, f"{name} has no {field}.")
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value == value:
        return str(value)
    raise RowError(name, f"The {field} of {name} is {kind(value)}, not text.")


def optional_text(value: Any) -> str | None:
    """A value as text, None where it is nothing of the kind."""
    usable = isinstance(value, (str, int)) and not isinstance(value, bool)
    return str(value) if usable and str(value) != "" else None


def kind(value: Any) -> str:
    """What a value is, in words of JSON."""
    match value:
        case None:
            return "missing"
        case bool():
            return "a truth value"
        case int() | float():
            return "a number"
        case str():
            return "text"
        case list() | tuple():
            return "a list"
        case Mapping():
            return "an object"
        case _:
            return f"a {type(value).__name__}"


def json_value(value: Any, field: str, name: str) -> Any:
    """A value, or what its JSON text means, as CSV files have it. Raises RowError."""
    if not isinstance(value, str):
        return value
    if not value.strip():
        return None
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        raise RowError(name, f"The {field} of {name} are text that is no JSON.") from None


def decoded(value: Any, field: str, name: str) -> Sequence[Any]:
    """A list of turns, or the JSON text of one. Raises RowError."""
    value = json_value(value, field, name) if value != "" else value
    if not isinstance(value, (list, tuple)):
        raise RowError(name, f"The {field} of {name} are {kind(value)}, not a list of turns.")
    if not value:
        raise RowError(name, f"The {field} of {name} are an empty list.")
    return value
