"""Checks of the answers: whether anything is trained, and nothing but answers."""

from __future__ import annotations

from sft_core.config import TrainOn
from sft_core.doctor.case import Case, Found
from sft_core.types import Finding, Reason, Region, Severity

SHOWN = 40
"""Characters of a text that a sentence quotes."""


def nothing_trained(case: Case) -> Found:
    if case.encoded.trained:
        return
    roles = {message.role for message in case.example.messages}
    if "assistant" not in roles:
        why, remedy = "it has no assistant turn", "Give it an answer, or drop the row."
    elif Reason.EXCLUDED in case.encoded.reasons:
        why, remedy = "its answers have weight 0", "Give an answer weight 1, or drop the row."
    elif case.policy.train_on is TrainOn.GENERATION_TAGS and case.rendered.tagged is None:
        return  # no_generation_tags says so, and what to do
    elif case.policy.train_on is TrainOn.GENERATION_TAGS:
        why = "the template's generation tags enclose no token of it"
        remedy = "Put the tags around what the template prints for an answer and its end of turn."
    else:
        why = "the template prints neither an answer nor an end of turn for it"
        remedy = "Check that the template prints assistant turns."
    yield Finding(
        "nothing-trained", Severity.ERROR, f"Nothing is trained in this row: {why}.", remedy
    )


def cut_off(case: Case) -> Found:
    limit, encoded = case.setting.max_length, case.encoded
    if limit is None or len(encoded) <= limit or not encoded.trained:
        return
    lost = [i for i in range(limit, len(encoded)) if encoded.reasons[i].trained]
    longer = (f"train.max_length={len(encoded)}",)
    if len(lost) == encoded.trained:
        first = encoded.reasons.index(next(r for r in encoded.reasons if r.trained))
        yield Finding(
            "nothing-trained-after-truncation",
            Severity.ERROR,
            f"Nothing is left to train on: the answer begins at token {first + 1}, and only the "
            f"first {limit} tokens are kept.",
            f"Raise max_length to at least {len(encoded)}, or drop the row.",
            tokens=tuple(lost),
            fixed_settings=longer,
        )
    elif lost:
        yield Finding(
            "truncated",
            Severity.WARNING,
            f"{len(lost)} of {encoded.trained} trained tokens fall away behind the limit of "
            f"{limit}, the end of the answer among them.",
            f"Raise max_length to {len(encoded)} to keep all of this row.",
            tokens=tuple(lost),
            fixed_settings=longer,
        )


def dropped_answer(case: Case) -> Found:
    printed = {span.message for span in case.rendered.spans if span.region is Region.CONTENT}
    for index, message in enumerate(case.example.messages):
        if message.role == "assistant" and message.text.strip() and index not in printed:
            yield Finding(
                "answer-dropped",
                Severity.WARNING,
                f"The template does not print the answer of message {index + 1}, so it cannot be "
                "learnt.",
                "Check which turns the template prints.",
            )


def empty_answer(case: Case) -> Found:
    for index, _ in case.trained_turns:
        message = case.said(index)
        if not message.text.strip() and not message.tool_calls and not message.reasoning:
            yield Finding(
                "empty-answer",
                Severity.WARNING,
                f"The answer of message {index + 1} is empty: the model learns to say nothing.",
                "Drop the row, or write an answer.",
            )


def others_trained(case: Case) -> Found:
    """What users, the system and tools say, where it is trained as if the model said it."""
    roles = case.rendered.roles
    asked = [
        span
        for span in case.rendered.spans
        if span.region is Region.CONTENT
        and span.message is not None
        and roles[span.message] != "assistant"
    ]
    tokens = _trained_under(case, [(span.start, span.end) for span in asked])
    if not tokens:
        return
    share = len(tokens) / case.encoded.trained
    everything = case.policy.train_on is TrainOn.ALL
    yield Finding(
        "prompt-trained",
        Severity.WARNING,
        f"{len(tokens)} of {case.encoded.trained} trained tokens ({share:.0%}) are what the user "
        "or the system says: the model learns to ask as well as to answer.",
        "Train the answers only."
        if everything
        else "Put something between the answer and what follows it, such as a line break.",
        tokens=tokens,
        fixed_settings=("policy.train_on=assistant",) if everything else (),
    )


def header_trained(case: Case) -> Found:
    """Markup that opens a turn, trained as if it belonged to the answer."""
    spans = [span for span in case.rendered.spans if span.region is Region.HEADER]
    tokens = _trained_under(case, [(span.start, span.end) for span in spans])
    if tokens:
        yield Finding(
            "header-trained",
            Severity.INFO if case.policy.train_on is TrainOn.ALL else Severity.WARNING,
            f"{len(tokens)} trained tokens are markup that opens a turn, such as "
            f"{case.text_of(tokens[0])!r}: generation sends that, so nothing is learnt from it.",
            "Train the answers only.",
            tokens=tokens,
            fixed_settings=("policy.train_on=assistant",),
        )
        return
    prompts = case.asked, case.asked_without
    if None in prompts or len({prompt.text for prompt in prompts if prompt}) == 1:
        return  # without any generation prompt this is another fault, and has its own check
    for message, start in case.trained_turns:
        own, said = next(case.own_words(message), None), case.said(message)
        opening = case.rendered.text[start : own[0]] if own else ""
        if message and opening.strip() and not said.reasoning and not said.tool_calls:
            header = "assistant" in opening or "model" in opening
            yield Finding(
                "header-trained",
                Severity.WARNING if header else Severity.INFO,
                f"The template prints {opening[:SHOWN]!r} in front of the answer, and generation "
                "does not send it: the model is trained to print it itself.",
                "Let the generation prompt end where the answer begins."
                if header
                else "Nothing has to be done if the model printed that before, too.",
                tokens=case.positions(start, start + len(opening)),
            )
            return


def _trained_under(case: Case, places: list[tuple[int, int]]) -> tuple[int, ...]:
    """Trained tokens inside one of ``places``, or of which a visible character lies in one: a
    space that an answer's last token took along is no matter."""
    text, offsets = case.rendered.text, case.encoded.offsets
    return tuple(
        i
        for i, reason in enumerate(case.encoded.reasons)
        if reason.trained
        and any(
            (start <= offsets[i][0] and offsets[i][1] <= end)
            or text[max(offsets[i][0], start) : min(offsets[i][1], end)].strip()
            for start, end in places
        )
    )
