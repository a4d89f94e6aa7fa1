"""Checks of the end of a turn: whether it is there, is trained, and is what generation stops on."""

from __future__ import annotations

from sft_core.doctor.case import ENDS, Case, Found
from sft_core.encode import stop_sequences
from sft_core.types import (
    Finding,
    Message,
    Reason,
    Region,
    Rendered,
    Severity,
)


def end_missing(case: Case) -> Found:
    open_turns = [message for message, _ in case.trained_turns if not case.closed(message)]
    if not open_turns:
        return
    last = open_turns[-1]
    if _closed_by_next(case, last):
        yield Finding(
            "end-of-turn-printed-by-next",
            Severity.WARNING,
            "What ends an answer is printed with the next message only, so the last answer of "
            "each row is trained without an end: after tuning the model may not stop.",
            "Print the end of turn with the answer itself, behind its content.",
            tokens=case.positions(case.end_of(last) - 1, case.end_of(last)),
        )
        return
    yield Finding(
        "end-of-turn-missing",
        Severity.WARNING,
        "The template prints nothing that ends an answer: after tuning the model will not "
        "know when to stop.",
        "Print an end after each answer, such as {{ eos_token }}.",
        tokens=case.positions(case.end_of(last) - 1, case.end_of(last)),
    )


def _closed_by_next(case: Case, message: int) -> bool:
    """Whether an end appears once somebody speaks after ``message``: as the end of that turn, or
    as more than usually opens the turn of whoever speaks next."""
    following = Message("user", "Go on.")
    longer = case.tried([*case.example.messages[: message + 1], following])
    first = case.tried([following])
    if longer is None:
        return False
    if case.closed(message, longer):
        return True
    opening = _header(longer, message + 1)
    usual = _header(first, 0) if first else ""
    return opening.endswith(usual) and bool(opening.removesuffix(usual).strip())


def _header(rendered: Rendered, message: int) -> str:
    spans = (it for it in rendered.spans if it[2:] == (Region.HEADER, message))
    return "".join(rendered.text[span.start : span.end] for span in spans)


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
            fixed_settings=("policy.end_of_turn=true",),
        )


def stop_differs(case: Case) -> Found:
    """Generation must stop on what training taught, here and where the model goes next."""
    ends = tuple(i for i, reason in enumerate(case.encoded.reasons) if reason in ENDS)
    if not ends:
        return
    wanted = case.setting.generate.stop_tokens
    taught = [case.encoded.ids[i] for i in ends]
    # Without a wish of somebody's own, generation stops on what is taught, and there is no doubt.
    chosen = stop_sequences(case.template, case.tokenizer, wanted) if wanted else ()
    if wanted and not any(_contains(taught, stop) for stop in chosen):
        yield Finding(
            "stop-differs",
            Severity.WARNING,
            f"Training teaches {_shown(case, ends)} as the end of an answer, but generation is set "
            f"to stop on {', '.join(map(repr, wanted))}: it would run on to its limit.",
            "Stop on what training teaches.",
            tokens=ends,
            fixed_settings=("generate.stop_tokens=[]",),
        )
    eos = case.tokenizer.eos_id
    if not wanted and eos is not None and eos not in taught:
        yield Finding(
            "stop-differs",
            Severity.INFO,
            f"Training teaches {_shown(case, ends)} as the end of an answer, which is not the "
            f"tokenizer's end of text {case.tokenizer.id_to_text(eos)!r}. The lab stops on both "
            "and saves both with the model; a program that knows only the second would not stop.",
            "Use the exported model's own generation_config.json elsewhere.",
            tokens=ends,
        )


def _contains(ids: list[int], stop: tuple[int, ...]) -> bool:
    return any(tuple(ids[at : at + len(stop)]) == stop for at in range(len(ids)))


def _shown(case: Case, ends: tuple[int, ...]) -> str:
    first = next(i for i in ends if case.encoded.owners[i] == case.encoded.owners[ends[-1]])
    return repr("".join(case.text_of(i) for i in ends if i >= first))


def pad_is_trained(case: Case) -> Found:
    pad = case.tokenizer.pad_id
    tokens = tuple(
        i
        for i, (id, reason) in enumerate(zip(case.encoded.ids, case.encoded.reasons, strict=True))
        if id == pad and reason.trained
    )
    if tokens:
        yield Finding(
            "pad-is-trained",
            Severity.INFO,
            f"The padding token {case.text_of(tokens[0])!r} is also a trained token. The lab masks "
            "padding by length, so it is learnt here; a trainer that masks by id would drop it, "
            "and its model would not stop.",
            "Give the tokenizer a padding token of its own before you train with other tools.",
            tokens=tokens,
        )


def end_of_text_in_prompt(case: Case) -> Found:
    eos, starts = case.tokenizer.eos_id, case.trained_turns
    if eos is None or not starts or eos in case.end_ids:
        return
    forged = set(case.encoded.forged)
    # Many tokenizers begin every text with the token that also ends it.
    tokens = tuple(
        i
        for i in range(1, case.before(starts[0][1]))
        if case.encoded.ids[i] == eos and i not in forged
    )
    if tokens:
        yield Finding(
            "end-of-text-in-prompt",
            Severity.WARNING,
            f"The end of text {case.text_of(tokens[0])!r} stands inside the prompt: the model has "
            "learnt that nothing before it matters any more.",
            "Print it behind the answer only, or close the other turns with a marker of their own.",
            tokens=tokens,
        )
