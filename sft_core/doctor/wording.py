"""Checks of the text itself: what the tokenizer cannot write, drops, or would merge."""

from __future__ import annotations

from sft_core.doctor.case import Case, Found
from sft_core.tokenizer.pieces import Cut, tokenize
from sft_core.types import EncodeError, Finding, Severity


def unknown_text(case: Case) -> Found:
    unknown = case.tokenizer.unk_id
    tokens = tuple(i for i, id in enumerate(case.encoded.ids) if id == unknown)
    if tokens:
        start, end = case.encoded.offsets[tokens[0]]
        yield Finding(
            "unknown-token",
            Severity.WARNING,
            f"The tokenizer has no token for {case.rendered.text[start:end]!r}: the model reads "
            f"{case.text_of(tokens[0])!r} instead.",
            "Choose a tokenizer that knows this text, or change the text.",
            tokens=tokens,
        )


def lost_text(case: Case) -> Found:
    reached = 0
    for start, end in [*case.encoded.offsets, (len(case.rendered.text), 0)]:
        lost = case.rendered.text[reached:start].strip()
        if lost:
            yield Finding(
                "lost-text",
                Severity.WARNING,
                f"The tokenizer drops {lost[:40]!r}: no token stands for it.",
                "Choose a tokenizer that keeps this text, or take it out.",
            )
            return
        reached = max(reached, end)


def merged_border(case: Case) -> Found:
    if case.encoded.forged or not case.trained_turns:
        return
    (whole,) = tokenize(case.tokenizer, [Cut(case.rendered.text)])
    if isinstance(whole, EncodeError):
        return
    for _, start in case.trained_turns:
        crossing = [i for i, (a, b) in enumerate(whole.offsets) if a < start < b]
        if crossing:
            a, b = whole.offsets[crossing[0]]
            yield Finding(
                "merged-border",
                Severity.INFO,
                f"Tokenised in one go, {case.rendered.text[a:b]!r} would be one token that holds "
                "the end of the prompt and the start of the answer. The lab cuts there, as "
                "generation does, so other tools may show other ids.",
                "Nothing has to be done.",
                tokens=case.positions(start - 1, start + 1),
            )
            return
