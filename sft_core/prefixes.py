"""Finding answers without provenance: by rendering the conversation's beginnings.

What a render of the first messages prints must be how the render of all of them begins. Every
such boundary is checked; where one does not hold, the template is refused with a sentence.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any, Final, Protocol

from sft_core.regions import ASSISTANT, Known, closing
from sft_core.types import Region, Span, TemplateError

PROBES: Final = ("Aq1", "Zk2")
_REFUSAL: Final = (
    "The lab cannot tell which characters of this template's output are the answer of message "
    "{number}: {why}. Use a template that prints the messages one after the other."
)


class Job(Protocol):
    """What is needed of a conversation: its messages, and plain renders of parts of it."""

    messages: Sequence[dict[str, Any]]
    roles: Sequence[str]
    generation_prompt: bool

    def tried(
        self, messages: Sequence[dict[str, Any]], generation_prompt: bool = False
    ) -> str | None:
        """The plain render, or None where the template refuses."""


def spans(text: str, job: Job) -> tuple[Span, ...]:
    """Regions of ``text``, the plain render of all messages. Raises TemplateError where the
    beginnings do not agree with it."""
    made: list[Span] = []
    at = 0
    for index, role in enumerate(job.roles):
        if role == ASSISTANT:
            start, end = _turn(text, job, index, at)
            made += [*_gap(at, start), *_answer(text, job, index, start, end)]
            at = end
            continue
        until = job.tried(job.messages[: index + 1])
        if until is not None and text.startswith(until) and len(until) >= at:
            made += _said(text, job, index, at, len(until))
            at = len(until)
    rest = Region.HEADER if job.generation_prompt else Region.SEPARATOR
    made += [Span(at, len(text), rest, None)] if at < len(text) else []
    return tuple(made)


def _turn(text: str, job: Job, index: int, at: int) -> tuple[int, int]:
    """Where the answer of message ``index`` starts and its turn ends."""
    prompt = job.tried(job.messages[:index], True)
    until = job.tried(job.messages[: index + 1])
    why = None
    if prompt is None or until is None:
        why = "it refuses the messages up to there"
    elif not text.startswith(until):
        why = "later messages change how it is printed"
    elif not until.startswith(prompt) or len(prompt) < at:
        why = "the generation prompt is not how its turn begins"
    if why or prompt is None or until is None:
        raise TemplateError(_REFUSAL.format(number=index + 1, why=why))
    return len(prompt), len(until)


def _answer(text: str, job: Job, index: int, start: int, end: int) -> Iterable[Span]:
    tail = end - _tail(text[start:end], job, index, start)
    find = Known(roles=()).specials()
    begin, after = closing(text, (tail, end), "", text[start:tail], frozenset(), find)
    yield from _span(start, begin, Region.CONTENT, index)
    yield from _span(begin, after, Region.END_OF_TURN, index)
    yield from _span(after, end, Region.SEPARATOR, index)


def _tail(turn: str, job: Job, index: int, start: int) -> int:
    """How many characters at the end of a turn stay when it says something else."""
    kept = len(turn)
    for probe in PROBES:
        other = job.tried([*job.messages[:index], {"role": job.roles[index], "content": probe}])
        if other is None or probe not in other[start:]:
            raise TemplateError(
                _REFUSAL.format(number=index + 1, why="its content cannot be found in the text")
            )
        after = other[other.rindex(probe) + len(probe) :]
        kept = min(kept, len(os.path.commonprefix([turn[::-1], after[::-1]])))
    return kept


def _said(text: str, job: Job, index: int, start: int, end: int) -> Iterable[Span]:
    """A turn that is not trained: its content where it stands as it is."""
    content = job.messages[index]["content"]
    said = content.strip() if isinstance(content, str) else ""
    found = text.find(said, start, end) if said else -1
    if found < 0:
        yield from _span(start, end, Region.HEADER, index)
        return
    yield from _span(start, found, Region.HEADER, index)
    yield from _span(found, found + len(said), Region.CONTENT, index)
    yield from _span(found + len(said), end, Region.END_OF_TURN, index)


def _gap(start: int, end: int) -> Iterable[Span]:
    return _span(start, end, Region.HEADER, None)


def _span(start: int, end: int, region: Region, message: int | None) -> Iterable[Span]:
    if end > start:
        yield Span(start, end, region, message)
