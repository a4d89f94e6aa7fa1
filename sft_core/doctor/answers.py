"""Checks of the answers: whether anything is trained, and whether answers end."""

from __future__ import annotations

from sft_core.doctor.case import Case, Found
from sft_core.types import Finding, Reason, Region, Severity


def nothing_trained(case: Case) -> Found:
    if case.encoded.trained:
        return
    roles = {message.role for message in case.example.messages}
    if "assistant" not in roles:
        why, remedy = "it has no assistant turn", "Give it an answer, or drop the row."
    elif Reason.EXCLUDED in case.encoded.reasons:
        why, remedy = "its answers have weight 0", "Give an answer weight 1, or drop the row."
    else:
        why = "the template prints neither an answer nor an end of turn for it"
        remedy = "Check that the template prints assistant turns."
    yield Finding(
        "nothing-trained", Severity.ERROR, f"Nothing is trained in this row: {why}.", remedy
    )


def cut_off(case: Case) -> Found:
    limit, encoded = case.max_length, case.encoded
    if limit is None or len(encoded) <= limit or not encoded.trained:
        return
    lost = [i for i in range(limit, len(encoded)) if encoded.reasons[i].trained]
    if len(lost) == encoded.trained:
        first = encoded.reasons.index(next(r for r in encoded.reasons if r.trained))
        yield Finding(
            "nothing-trained-after-truncation",
            Severity.ERROR,
            f"Nothing is left to train on: the answer begins at token {first + 1}, and only the "
            f"first {limit} tokens are kept.",
            f"Raise max_length to at least {len(encoded)}, or drop the row.",
            tokens=tuple(lost),
        )
    elif lost:
        yield Finding(
            "truncated",
            Severity.WARNING,
            f"{len(lost)} of {encoded.trained} trained tokens fall away behind the limit of "
            f"{limit}, the end of the answer among them.",
            f"Raise max_length to {len(encoded)} to keep all of this row.",
            tokens=tuple(lost),
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


def ends_on_user_turn(case: Case) -> Found:
    if case.example.messages and case.example.messages[-1].role != "assistant":
        yield Finding(
            "ends-on-user-turn",
            Severity.WARNING,
            f"The conversation ends on a {case.example.messages[-1].role} turn. Nobody answers "
            "it, so its last part is read and never trained.",
            "End the row with an answer, or drop its last turn.",
        )


def end_missing(case: Case) -> Found:
    closed = {span.message for span in case.rendered.spans if span.region is Region.END_OF_TURN}
    if any(message not in closed for message, _ in case.trained_turns):
        yield Finding(
            "end-of-turn-missing",
            Severity.WARNING,
            "The template prints nothing that ends an answer: after tuning the model will not "
            "know when to stop.",
            "Print an end after each answer, such as {{ eos_token }}.",
        )


def end_untrained(case: Case) -> Found:
    reasons = case.encoded.reasons
    tokens = tuple(i for i, reason in enumerate(reasons) if reason is Reason.END_NOT_TRAINED)
    if tokens:
        yield Finding(
            "end-of-turn-untrained",
            Severity.WARNING,
            f"The end of turn {case.text_of(tokens[-1])!r} is printed but not trained: after "
            "tuning the model may not stop.",
            "Train the end of turn.",
            tokens=tokens,
        )
