"""Which characters of a rendered conversation are trained, and why: a policy on paper, before any
tokenizer is asked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from sft_core.config import MaskPolicy, TrainOn
from sft_core.types import NO_MESSAGE, Reason, Region, Rendered, Span

ASSISTANT: Final = "assistant"


class Stretch(NamedTuple):
    """``text[start:end]`` has one reason and one owner."""

    start: int
    end: int
    reason: Reason
    owner: int


def stretches(rendered: Rendered, policy: MaskPolicy) -> list[Stretch]:
    """The reason for every character, before any tokenizer is asked; equal neighbours joined."""
    starts = dict(rendered.answer_starts())
    # Also where the template prints nothing for it: another answer must not take its place.
    last_turn = max(
        (at for at, role in enumerate(rendered.roles) if role == ASSISTANT), default=None
    )
    ends = _answer_ends(rendered)
    joined: list[Stretch] = []
    for span in rendered.spans:
        start, end, region, message = span
        if start == end:
            continue
        if message is not None and starts.get(message, end) <= start < ends.get(message, 0):
            # What a template prints inside an answer, the model must print at generation.
            region = region if region is Region.END_OF_TURN else Region.CONTENT
        owner = NO_MESSAGE if message is None else message
        pieces: Iterable[tuple[int, Reason]] = ()
        if policy.train_on is TrainOn.GENERATION_TAGS:
            pieces = _by_tags(rendered, policy, span._replace(region=region))
        else:
            pieces = [(end, _reason(rendered, policy, region, message, last_turn))]
        for stop, reason in pieces:
            if joined and joined[-1][2:] == (reason, owner):
                joined[-1] = joined[-1]._replace(end=stop)
            else:
                joined.append(Stretch(start, stop, reason, owner))
            start = stop
    return joined


def _answer_ends(rendered: Rendered) -> dict[int, int]:
    """Message -> where the last thing that it says, or that closes it, ends."""
    return {
        span.message: span.end
        for span in rendered.spans
        if span.message is not None and span.region in (Region.CONTENT, Region.END_OF_TURN)
    }


def _reason(
    rendered: Rendered,
    policy: MaskPolicy,
    region: Region,
    message: int | None,
    last_turn: int | None,
) -> Reason:
    everything = policy.train_on is TrainOn.ALL
    if not _answers(rendered, region, message):
        if everything:
            return Reason.EXCLUDED if _excluded(rendered, message) else Reason.WHOLE_TEXT
        return Reason.PROMPT if region is Region.CONTENT else Reason.MARKUP
    if _excluded(rendered, message):
        return Reason.EXCLUDED
    if policy.train_on is TrainOn.LAST_ASSISTANT and message != last_turn:
        return Reason.EARLIER_TURN
    if region is Region.CONTENT:
        return Reason.ANSWER
    return Reason.END_OF_TURN if policy.end_of_turn else Reason.END_NOT_TRAINED


def _answers(rendered: Rendered, region: Region, message: int | None) -> bool:
    """Whether this is what an assistant turn says, or what ends it."""
    answers = message is not None and rendered.roles[message] == ASSISTANT
    return answers and region in (Region.CONTENT, Region.END_OF_TURN)


def _excluded(rendered: Rendered, message: int | None) -> bool:
    return message is not None and rendered.weights[message] == 0


# -- what the author's generation tags say ---------------------------------------------------------


def _by_tags(rendered: Rendered, policy: MaskPolicy, span: Span) -> Iterator[tuple[int, Reason]]:
    """One span cut where tags open and close: where each piece ends, and its reason."""
    at = span.start
    for start, end in rendered.tagged or ():
        if end <= at or start >= span.end:
            continue
        if start > at:
            yield start, _outside(rendered, span)
        at = min(end, span.end)
        yield at, _inside(rendered, policy, span)
    if at < span.end:
        yield span.end, _outside(rendered, span)


def _inside(rendered: Rendered, policy: MaskPolicy, span: Span) -> Reason:
    if _excluded(rendered, span.message):
        return Reason.EXCLUDED
    if span.region is Region.END_OF_TURN and _answers(rendered, span.region, span.message):
        return Reason.END_OF_TURN if policy.end_of_turn else Reason.END_NOT_TRAINED
    return Reason.ANSWER


def _outside(rendered: Rendered, span: Span) -> Reason:
    if not _answers(rendered, span.region, span.message):
        return Reason.PROMPT if span.region is Region.CONTENT else Reason.MARKUP
    return Reason.EXCLUDED if _excluded(rendered, span.message) else Reason.UNTAGGED
