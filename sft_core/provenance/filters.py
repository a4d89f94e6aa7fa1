"""The environment in which templates are traced: as the plain one, but nothing drops the tags.

What Jinja's own filters do through methods of ``str`` needs no care, since ``Tagged`` has them
all. The rest is written again here; its text is compared with the plain render's in the end.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import wraps
from types import BuiltinMethodType
from typing import Any, Final, NamedTuple

import jinja2
from jinja2 import pass_environment
from jinja2.filters import do_title, make_attrgetter
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment, SandboxedFormatter

from sft_core.provenance import dialect
from sft_core.provenance.dialect import GenerationTag
from sft_core.provenance.sources import Part
from sft_core.provenance.tagged import (
    EMPTY,
    NOBODY,
    Decimal,
    Tagged,
    UntraceableError,
    Whole,
    carries_tags,
    plain,
    tagged,
    tags_of,
)


def environment(tag: type[GenerationTag] = GenerationTag) -> ImmutableSandboxedEnvironment:
    """A fresh environment of the chat templates' dialect that follows characters."""
    made = dialect.environment(_FollowingEnvironment, tag)
    made.filters.update(_FOLLOWING)
    for name in ("striptags", "urlize", "wordwrap", "xmlattr", "pprint", "urlencode"):
        made.filters[name] = _guarded(made.filters[name])
    return made


class _FollowingEnvironment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset({"%"})

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if type(left) is str and carries_tags(right):
            left = Tagged(left)
        return super().call_binop(context, operator, left, right)

    def call(self, context: Context, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        if isinstance(function, BuiltinMethodType) and type(function.__self__) is str:
            function = getattr(Tagged(function.__self__), function.__name__)
        return super().call(context, function, *args, **kwargs)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        if super().wrap_str_format(value) is None:
            return None
        pattern, by_mapping = tagged(value.__self__), value.__name__ == "format_map"

        def formatted(*args: Any, **kwargs: Any) -> Tagged:
            named = args[0] if by_mapping else kwargs
            return _format(SandboxedFormatter(self), pattern, () if by_mapping else args, named)

        return formatted


def _format(
    formatter: SandboxedFormatter, pattern: Tagged, args: Any, kwargs: Mapping[str, Any]
) -> Tagged:
    """``pattern.format(...)``: each field keeps its tags, the rest is the pattern's."""
    own = tags_of(pattern)[:1]
    pieces: list[str] = []
    number = 0
    for literal, field, spec, conversion in formatter.parse(plain(pattern)):
        pieces.append(Tagged(literal, own * len(literal)))
        if field is None:
            continue
        value, _ = formatter.get_field(field or str(number), args, kwargs)
        number += not field
        shown = str(formatter.convert_field(value, conversion or "s"))
        if carries_tags(value) and (spec or type(shown) is not Tagged):
            raise UntraceableError("a format that could not be followed")
        if type(shown) is not Tagged:
            shown = formatter.format_field(value, spec or "") if spec else shown
            shown = Tagged(shown, own * len(shown))
        pieces.append(shown)
    return EMPTY.join(pieces)


# -- filters --------------------------------------------------------------------------------------


@pass_environment
def _join(
    environment: jinja2.Environment,
    value: Iterable[Any],
    d: str = "",
    attribute: str | int | None = None,
) -> Tagged:
    if attribute is not None:
        value = map(make_attrgetter(environment, attribute), value)
    return tagged(str(d)).join(map(str, value))


def _replace(s: Any, old: Any, new: Any, count: int | None = None) -> Tagged:
    return tagged(str(s)).replace(str(old), str(new), -1 if count is None else count)


def _percent(value: Any, *args: Any, **kwargs: Any) -> Tagged:
    return tagged(str(value)) % (kwargs or args)


def _indent(s: Any, width: int | str = 4, first: bool = False, blank: bool = False) -> Tagged:
    before = width if isinstance(width, str) else " " * width
    lines = (tagged(str(s)) + "\n").splitlines()
    for number, line in enumerate(lines):
        if first if number == 0 else (blank or line):
            lines[number] = before + line
    return tagged("\n").join(lines)


def _title(s: Any) -> Tagged:
    text = tagged(str(s))
    titled = do_title(plain(text))
    return Tagged(titled, text._tags) if len(titled) == len(text) else text.like(titled)


_ESCAPES: Final = str.maketrans(
    {"&": "&amp;", ">": "&gt;", "<": "&lt;", "'": "&#39;", '"': "&#34;"}
)


def _escape(value: Any) -> Tagged:
    return tagged(str(value)).translate(_ESCAPES)


def _safe(value: Any) -> str:
    """Text, not markup: where that makes a difference, the text will differ from the plain
    render's, and the template is not followed."""
    return str(value)


def _guarded(function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter in which it cannot be seen which character became which."""

    @wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        made = function(*args, **kwargs)
        sources = [arg for arg in (*args, *kwargs.values()) if carries_tags(arg)]
        if not sources:
            return made
        if len(sources) > 1 or not isinstance(sources[0], Tagged):
            raise UntraceableError(function.__name__)
        return sources[0].like(str(made))

    return guarded


# -- tojson ---------------------------------------------------------------------------------------


class _Style(NamedTuple):
    ensure_ascii: bool = False
    indent: int | str | None = None
    separators: tuple[str, str] | None = None
    sort_keys: bool = False

    def line(self, level: int) -> str:
        if self.indent is None:
            return ""
        return "\n" + (self.indent if isinstance(self.indent, str) else " " * self.indent) * level

    def marks(self) -> tuple[str, str]:
        return self.separators or (", " if self.indent is None else ",", ": ")


def _tojson(value: Any, *args: Any, **kwargs: Any) -> str:
    text = dialect.tojson(value, *args, **kwargs)
    if not carries_tags(value):
        return text
    made = EMPTY.join(_json(value, NOBODY, 0, _Style(*args, **kwargs)))
    if made != text:
        raise UntraceableError("tojson")
    return made


def _json(value: Any, tag: str, level: int, style: _Style) -> Iterator[str]:
    """The pieces of ``json.dumps``; what is not text of its own prints as ``tag``."""
    tag = value._tag if isinstance(value, (Part, Whole, Decimal)) else tag
    if isinstance(value, str):
        yield _json_text(value, style.ensure_ascii)
    elif isinstance(value, Mapping) and value:
        items = sorted(value.items()) if style.sort_keys else list(value.items())
        opened = [(_json_key(key, tag, style), item) for key, item in items]
        yield from _json_items("{}", opened, tag, level, style)
    elif isinstance(value, (list, tuple)) and value:
        yield from _json_items("[]", [("", item) for item in value], tag, level, style)
    else:
        text = json.dumps(value)
        yield Tagged(text, tag * len(text))


def _json_items(
    brackets: str, items: list[tuple[str, Any]], tag: str, level: int, style: _Style
) -> Iterator[str]:
    between = brackets[0]
    for key, item in items:
        mark = between + style.line(level + 1)
        yield Tagged(mark, tag * len(mark))
        yield key
        yield from _json(item, tag, level + 1, style)
        between = style.marks()[0]
    mark = style.line(level) + brackets[1]
    yield Tagged(mark, tag * len(mark))


def _json_key(key: Any, tag: str, style: _Style) -> str:
    colon = style.marks()[1]
    text = _json_text(key if isinstance(key, str) else json.dumps(key), style.ensure_ascii)
    return text + Tagged(colon, tag * len(colon))


def _json_text(text: str, ensure_ascii: bool) -> Tagged:
    encoded, tags = json.dumps(text, ensure_ascii=ensure_ascii), tags_of(text)
    if len(encoded) - 2 != len(text):
        pieces = (json.dumps(c, ensure_ascii=ensure_ascii)[1:-1] for c in plain(text))
        tags = "".join(tag * len(piece) for tag, piece in zip(tags, pieces, strict=True))
    return Tagged(encoded, NOBODY + tags + NOBODY)


_FOLLOWING: Final[Mapping[str, Callable[..., Any]]] = {
    "join": _join,
    "replace": _replace,
    "format": _percent,
    "indent": _indent,
    "title": _title,
    "tojson": _tojson,
    "e": _escape,
    "escape": _escape,
    "forceescape": _escape,
    "safe": _safe,
}
