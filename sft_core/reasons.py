"""Which characters of a rendered conversation are trained, and why: a policy on paper, before any
tokenizer is asked."""

from __future__ import annotations

from typing import NamedTuple

from sft_core.config import MaskPolicy, TrainOn
from sft_core.types import NO_MESSAGE, Reason, Region, Rendered


class Stretch(NamedTuple):
    """``text[start:end]`` has one reason and one owner."""

    start: int
    end: int
    reason: Reason
    owner: int


def stretches(rendered: Rendered, policy: MaskPolicy) -> list[Stretch]:
    """The reason for every character, before any tokenizer is asked; equal neighbours joined."""
    starts = dict(rendered.answer_starts())
    last_turn = max(starts, key=lambda message: starts[message], default=None)
    ends = _answer_ends(rendered)
    joined: list[Stretch] = []
    for span in rendered.spans:
        start, end, region, message = span
        if start == end:
            continue
        if message is not None and starts.get(message, end) <= start < ends.get(message, 0):
            # What a template prints inside an answer, the model must print at generation.
            region = region if region is Region.END_OF_TURN else Region.CONTENT
        reason = _reason(rendered, policy, region, message, last_turn)
        owner = NO_MESSAGE if message is None else message
        if joined and joined[-1][2:] == (reason, owner):
            joined[-1] = joined[-1]._replace(end=end)
        else:
            joined.append(Stretch(start, end, reason, owner))
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
    excluded = message is not None and rendered.weights[message] == 0
    answers = message is not None and rendered.roles[message] == "assistant"
    if not answers or region not in (Region.CONTENT, Region.END_OF_TURN):
        if everything:
            return Reason.EXCLUDED if excluded else Reason.WHOLE_TEXT
        return Reason.PROMPT if region is Region.CONTENT else Reason.MARKUP
    if excluded:
        return Reason.EXCLUDED
    if policy.train_on is TrainOn.LAST_ASSISTANT and message != last_turn:
        return Reason.EARLIER_TURN
    if region is Region.CONTENT:
        return Reason.ANSWER
    return Reason.END_OF_TURN if policy.end_of_turn else Reason.END_NOT_TRAINED
