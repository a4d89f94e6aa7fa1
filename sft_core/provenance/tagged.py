"""A string in which every character remembers where it came from.

``Tagged`` is a ``str`` that carries a second string of the same length, one tag a character.
Whatever a template does to it (cut, trim, join, replace, upper-case, format) is done to the tags
as well, so that the rendered text still knows its sources. Where an operation cannot be followed
character by character, ``UntraceableError`` is raised rather than a tag guessed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, SupportsIndex

NOBODY: Final = "\0"
"""The tag of a character that no message has a claim on."""

ENCLOSED: Final = 0x80000
"""Added to the code of a tag, it says that the author's generation tags enclose the character."""

GIVEN: Final = 0x40000
"""Added to the code of a tag, it says that a row gave the character outside its messages: in a
tool, a document, or a variable for the template."""

_UNCLAIMED: Final = NOBODY + chr(ENCLOSED)
NOBODIES: Final = NOBODY + chr(ENCLOSED) + chr(GIVEN) + chr(ENCLOSED | GIVEN)

SAME: Final = re.compile(r"(.)\1*", re.DOTALL)
"""Finds the runs of equal tags in a string of tags."""


class UntraceableError(Exception):
    """The template does something after which characters cannot be told apart."""


class Tagged(str):
    """``text`` with one tag for each character. Equal to, and hashed as, the plain text."""

    # A leading underscore keeps templates away from it: Jinja's sandbox refuses such names.
    __slots__ = ("_tags",)
    _tags: str

    def __new__(cls, text: str = "", tags: str | None = None) -> Tagged:
        self = str.__new__(cls, text)
        self._tags = NOBODY * len(self) if tags is None else tags
        return self

    def __str__(self) -> str:
        return self

    def __add__(self, other: str) -> Tagged:
        if type(other) is Tagged:
            return Tagged(str.__add__(self, other), self._tags + other._tags)
        if type(other) is str:
            return Tagged(str.__add__(self, other), self._tags + NOBODY * len(other))
        return NotImplemented

    def __radd__(self, other: str) -> Tagged:
        if type(other) is not str:
            return NotImplemented
        return Tagged(other + plain(self), NOBODY * len(other) + self._tags)

    def __mul__(self, times: SupportsIndex) -> Tagged:
        text = str.__mul__(self, times)
        return text if text is NotImplemented else Tagged(text, self._tags * times)

    __rmul__ = __mul__

    def __mod__(self, values: Any) -> Tagged:
        return printf(self, values)

    def __rmod__(self, pattern: str) -> Tagged:
        return printf(Tagged(pattern), self)

    def __getitem__(self, key: SupportsIndex | slice) -> Tagged:
        return Tagged(str.__getitem__(self, key), self._tags[key])

    def __iter__(self) -> Iterator[Tagged]:
        for character, tag in zip(str.__iter__(self), self._tags, strict=True):
            yield Tagged(character, tag)

    def join(self, parts: Iterable[str]) -> Tagged:
        parts = list(parts)
        return Tagged(str.join(self, parts), self._tags.join(map(tags_of, parts)))

    # -- cutting ------------------------------------------------------------------------------

    def strip(self, chars: str | None = None) -> Tagged:
        start = len(self) - len(str.lstrip(self, chars))
        return self[start : start + len(str.strip(self, chars))]

    def lstrip(self, chars: str | None = None) -> Tagged:
        return self[len(self) - len(str.lstrip(self, chars)) :]

    def rstrip(self, chars: str | None = None) -> Tagged:
        return self[: len(str.rstrip(self, chars))]

    def removeprefix(self, prefix: str) -> Tagged:
        return self[len(self) - len(str.removeprefix(self, prefix)) :]

    def removesuffix(self, suffix: str) -> Tagged:
        return self[: len(str.removesuffix(self, suffix))]

    def split(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> list[Any]:
        return self._located(str.split(self, sep, maxsplit), sep)

    def rsplit(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> list[Any]:
        return self._located(str.rsplit(self, sep, maxsplit), sep)

    def splitlines(self, keepends: bool = False) -> list[Any]:
        lines = self._located(str.splitlines(self, True))
        if keepends:
            return lines
        return [line[: len(bare)] for line, bare in zip(lines, str.splitlines(self), strict=True)]

    def partition(self, sep: str) -> tuple[Any, Any, Any]:
        head, found, _ = str.partition(self, sep)
        at = len(head)
        return self[:at], self[at : at + len(found)], self[at + len(found) :]

    def rpartition(self, sep: str) -> tuple[Any, Any, Any]:
        head, found, _ = str.rpartition(self, sep)
        at = len(head)
        return self[:at], self[at : at + len(found)], self[at + len(found) :]

    def _located(self, parts: list[str], sep: str | None = None) -> list[Tagged]:
        """``parts`` of this text, in order, as pieces of it."""
        located, at = [], 0
        for part in parts:
            at = str.find(self, part, at) if sep is None else at
            located.append(self[at : at + len(part)])
            at += len(part) + len(sep or "")
        return located

    # -- changing -----------------------------------------------------------------------------

    def replace(self, old: str, new: str, count: SupportsIndex = -1) -> Tagged:
        text = str.replace(self, old, new, count)
        limit = count.__index__()
        if not old:
            return self._inserted(text, new, limit)
        pieces, at = [], 0
        while limit != 0 and (found := str.find(self, old, at)) >= 0:
            pieces += [self._tags[at:found], tags_of(new)]
            at, limit = found + len(old), limit - 1
        return Tagged(text, "".join(pieces) + self._tags[at:])

    def _inserted(self, text: str, new: str, limit: int) -> Tagged:
        """What replacing "" does: ``new`` before each character and at the end."""
        times = len(self) + 1 if limit < 0 else min(limit, len(self) + 1)
        before = "".join(tags_of(new) + tag for tag in self._tags[:times])
        return Tagged(text, before + (tags_of(new) if times > len(self) else self._tags[times:]))

    def upper(self) -> Tagged:
        return self._mapped(str.upper)

    def lower(self) -> Tagged:
        return self._mapped(str.lower)

    def casefold(self) -> Tagged:
        return self._mapped(str.casefold)

    def swapcase(self) -> Tagged:
        return self._mapped(str.swapcase)

    def title(self) -> Tagged:
        return self._mapped(str.title)

    def capitalize(self) -> Tagged:
        return self._mapped(str.capitalize)

    def translate(self, table: Any) -> Tagged:
        return self._mapped(lambda text: str.translate(text, table), same_length=False)

    def expandtabs(self, tabsize: SupportsIndex = 8) -> Tagged:
        return self.like(str.expandtabs(self, tabsize))

    def _mapped(self, change: Callable[[str], str], same_length: bool = True) -> Tagged:
        """The text after a change that works character by character."""
        text = change(plain(self))
        if same_length and len(text) == len(self):
            return Tagged(text, self._tags)
        pieces = [change(character) for character in str.__iter__(self)]
        if "".join(pieces) != text:
            return self.like(text)
        tags = (tag * len(piece) for tag, piece in zip(self._tags, pieces, strict=True))
        return Tagged(text, "".join(tags))

    def like(self, text: str) -> Tagged:
        """A text made from this one in a way that hides which character became which."""
        return Tagged(text, uniform(self._tags) * len(text))

    # -- filling up ---------------------------------------------------------------------------

    def ljust(self, width: SupportsIndex, fillchar: str = " ") -> Tagged:
        return self._padded(str.ljust(self, width, fillchar), 0)

    def rjust(self, width: SupportsIndex, fillchar: str = " ") -> Tagged:
        text = str.rjust(self, width, fillchar)
        return self._padded(text, len(text) - len(self))

    def center(self, width: SupportsIndex, fillchar: str = " ") -> Tagged:
        text = str.center(self, width, fillchar)
        # A text that is longer than one fill character shows where CPython put it.
        probe = str.center("\1" * len(self), width, "\2")
        return self._padded(text, max(probe.find("\1"), 0))

    def zfill(self, width: SupportsIndex) -> Tagged:
        text = str.zfill(self, width)
        signed = 1 if len(text) > len(self) and self[:1] in ("+", "-") else 0
        zeros = NOBODY * (len(text) - len(self))
        return Tagged(text, self._tags[:signed] + zeros + self._tags[signed:])

    def _padded(self, text: str, before: int) -> Tagged:
        after = len(text) - len(self) - before
        return Tagged(text, NOBODY * before + self._tags + NOBODY * after)

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        raise UntraceableError("encode")


def plain(text: str) -> str:
    """The same text without its tags."""
    return str.__str__(text)


def tagged(text: str) -> Tagged:
    """``text`` with the tags that it has, or with nobody's."""
    return text if type(text) is Tagged else Tagged(text)


def tags_of(text: str) -> str:
    """One tag a character; nobody's where the text carries none."""
    return text._tags if type(text) is Tagged else NOBODY * len(text)


def uniform(tags: str) -> str:
    """The one tag that all of ``tags`` are ("" gives nobody's). Raises UntraceableError."""
    if not tags:
        return NOBODY
    if tags.count(tags[0]) != len(tags):
        raise UntraceableError("characters of several sources")
    return tags[0]


EMPTY: Final = Tagged()
"""``EMPTY.join(parts)`` is the parts as one tagged text."""


class Whole(int):
    """A whole number inside a message: it prints as that message's."""

    _tag: str

    @classmethod
    def of(cls, value: int, tag: str) -> Whole:
        made = cls(value)
        made._tag = tag
        return made

    def __str__(self) -> str:
        text = int.__repr__(self)
        return Tagged(text, self._tag * len(text))


class Decimal(float):
    """As ``Whole``, for numbers with a fraction."""

    _tag: str

    @classmethod
    def of(cls, value: float, tag: str) -> Decimal:
        made = cls(value)
        made._tag = tag
        return made

    def __str__(self) -> str:
        text = float.__repr__(self)
        return Tagged(text, self._tag * len(text))


# -- formatting -----------------------------------------------------------------------------------

_DIRECTIVE = re.compile(r"%(?:\((?P<key>[^()]*)\))?[#0\- +]*(?:\*|\d+)?(?:\.(?:\*|\d+)?)?[hlL]?(.)")


def printf(pattern: Tagged, values: Any) -> Tagged:
    """``pattern % values``: each value keeps its tags, the rest those of the pattern."""
    text = str.__mod__(pattern, values)
    queue = iter(values if isinstance(values, tuple) else (values,))
    pieces, at = [], 0
    for match in _DIRECTIVE.finditer(plain(pattern)):
        pieces.append(pattern[at : match.start()])
        at, own = match.end(), pattern._tags[match.start()]
        if match[2] == "%":
            pieces.append(Tagged("%", own))
            continue
        if "*" in match[0]:
            raise UntraceableError("a width taken from the values")
        value = values[match["key"]] if match["key"] is not None else next(queue)
        pieces.append(_filled(match[0].replace(f"({match['key']})", "", 1), value, own))
    result = EMPTY.join([*pieces, pattern[at:]])
    if result != text:
        raise UntraceableError("a format that could not be followed")
    return result


def _filled(directive: str, value: Any, own: str) -> Tagged:
    text = directive % (value,)
    if isinstance(value, Tagged):
        before = len(text) - len(value) if text.endswith(value) else 0
        if text[before : before + len(value)] != value:
            return value.like(text)
        after = len(text) - len(value) - before
        return Tagged(text, own * before + value._tags + own * after)
    if isinstance(value, (Whole, Decimal)):
        return Tagged(text, value._tag * len(text))
    if carries_tags(value):
        raise UntraceableError("a container printed through a format")
    return Tagged(text, own * len(text))


def carries_tags(value: Any) -> bool:
    """Whether a tagged character that somebody owns hides anywhere in ``value``."""
    if isinstance(value, Tagged):
        return bool(value._tags.strip(_UNCLAIMED))
    if isinstance(value, (Whole, Decimal)):
        return True
    if isinstance(value, Mapping):
        return any(carries_tags(key) or carries_tags(item) for key, item in value.items())
    if isinstance(value, (list, tuple, set, frozenset)):
        return any(map(carries_tags, value))
    return False
