"""Finding answers without provenance: by rendering the conversation's beginnings.

What a render of the first messages prints must be how the render of all of them begins. Every
such boundary is checked; where one does not hold, the template is refused with a sentence.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, Protocol

from sft_core.provenance.regions import Painted, merged
from sft_core.provenance.sources import ASSISTANT
from sft_core.provenance.turns import closing, common_length, special_pattern
from sft_core.types import Region, Span, TemplateError

PROBES: Final = ("Aq1", "Zk2")
"""Contents that no template has a reason to treat otherwise; they share no character."""

_REFUSAL: Final = (
    "The lab cannot tell which characters of this template's output are the answer of message "
    "{number}: {why}. Use a template that prints the messages one after the other."
)


class Renders(Protocol):
    """A conversation's messages, and plain renders of parts of it."""

    @property
    def messages(self) -> Sequence[dict[str, Any]]: ...

    @property
    def generation_prompt(self) -> bool: ...

    def tried(
        self, messages: Sequence[dict[str, Any]], generation_prompt: bool = False
    ) -> str | None:
        """The plain render, or None where the template refuses."""


def painted(text: str, renders: Renders) -> Painted:
    """The regions of ``text``, the plain render of all messages. Raises TemplateError where the
    beginnings do not agree with it."""
    made: list[Span] = []
    at = 0
    for index, message in enumerate(renders.messages):
        if message["role"] == ASSISTANT:
            start, end = _turn(text, renders, index, at)
            made += [*_span(at, start, Region.HEADER, None)]
            made += _answer(text, renders, index, start, end)
            at = end
            continue
        until = renders.tried(renders.messages[: index + 1])
        if until is not None and text.startswith(until) and len(until) >= at:
            made += _said(text, message["content"], index, at, len(until))
            at = len(until)
    rest = Region.HEADER if renders.generation_prompt else Region.SEPARATOR
    made += _span(at, len(text), rest, None)
    return Painted(merged(made), tuple(_literals(text, made, renders)))


def _turn(text: str, renders: Renders, index: int, at: int) -> tuple[int, int]:
    """Where the answer of message ``index`` starts and its turn ends."""
    prompt = renders.tried(renders.messages[:index], True)
    until = renders.tried(renders.messages[: index + 1])
    if prompt is None or until is None:
        why = "it refuses the messages up to there"
    elif not text.startswith(until):
        why = "later messages change how it is printed"
    elif not until.startswith(prompt) or len(prompt) < at:
        why = "the generation prompt is not how its turn begins"
    else:
        return len(prompt), len(until)
    raise TemplateError(_REFUSAL.format(number=index + 1, why=why))


def _answer(text: str, renders: Renders, index: int, start: int, end: int) -> Iterable[Span]:
    tail = end - _tail(text[start:end], renders, index, start)
    closers = list(special_pattern().finditer(text, tail, end))
    begin, after = closing(text, (tail, end), closers, "", text[start:tail])
    yield from _span(start, begin, Region.CONTENT, index)
    yield from _span(begin, after, Region.END_OF_TURN, index)
    yield from _span(after, end, Region.SEPARATOR, index)


def _tail(turn: str, renders: Renders, index: int, start: int) -> int:
    """How many characters at the end of a turn stay when it says something else."""
    kept = len(turn)
    for probe in PROBES:
        said = [*renders.messages[:index], {"role": ASSISTANT, "content": probe}]
        other = renders.tried(said)
        if other is None or probe not in other[start:]:
            why = "its content cannot be found in the text"
            raise TemplateError(_REFUSAL.format(number=index + 1, why=why))
        after = other[other.rindex(probe) + len(probe) :]
        kept = min(kept, common_length(turn[::-1], after[::-1]))
    return kept


def _said(text: str, content: Any, index: int, start: int, end: int) -> Iterable[Span]:
    """A turn that is not trained: its content where it stands as it is."""
    said = content.strip() if isinstance(content, str) else ""
    found = text.find(said, start, end) if said else -1
    if found < 0:
        return _span(start, end, Region.HEADER, index)
    return (
        *_span(start, found, Region.HEADER, index),
        *_span(found, found + len(said), Region.CONTENT, index),
        *_span(found + len(said), end, Region.END_OF_TURN, index),
    )


def _literals(text: str, spans: Sequence[Span], renders: Renders) -> Iterable[tuple[int, int]]:
    """What stands in an answer's region beside the content of the message."""
    for span in spans:
        if span.region is not Region.CONTENT or span.message is None:
            continue
        content = renders.messages[span.message]["content"]
        said = content.strip() if isinstance(content, str) else ""
        found = text.find(said, span.start, span.end) if said else span.end
        if found < 0:
            continue
        for start, end in ((span.start, found), (found + len(said), span.end)):
            if end > start:
                yield start, end


def _span(start: int, end: int, region: Region, message: int | None) -> Iterable[Span]:
    return (Span(start, end, region, message),) if end > start else ()
