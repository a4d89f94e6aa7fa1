"""Checks of the generation prompt: whether it is what stood before the answer in training."""

from __future__ import annotations

from collections.abc import Sequence

from sft_core.doctor.case import Case, Found
from sft_core.encode import encode_prompt
from sft_core.tokenizer import Tokenizer
from sft_core.tokenizer.pieces import Cut, Pieces, tokenize
from sft_core.types import Finding, Region, Severity, TemplateError


def prompt_differs(case: Case) -> Found:
    for message, start in case.trained_turns:
        if message == 0:
            continue
        try:
            prompt = encode_prompt(case.prompt(message), case.tokenizer)
        except TemplateError as error:
            yield Finding(
                "prompt-fails",
                Severity.ERROR,
                f"The template cannot ask for the answer of message {message + 1}: {error}",
                "Let it render a conversation that ends before an answer.",
            )
            return
        trained = case.encoded.ids[: case.before(start)]
        if prompt != trained:
            yield _difference(case, prompt, trained)
            return


def _difference(case: Case, prompt: Sequence[int], trained: Sequence[int]) -> Finding:
    pairs = zip(prompt, trained, strict=False)
    shorter = min(len(prompt), len(trained))
    at = next((i for i, (a, b) in enumerate(pairs) if a != b), shorter)

    def shown(ids: Sequence[int], nothing: str) -> str:
        return repr(case.tokenizer.id_to_text(ids[at])) if at < len(ids) else nothing

    return Finding(
        "prompt-not-prefix",
        Severity.ERROR,
        f"What generation sends is not what stood before the answer in training: token {at + 1} "
        f"is {shown(prompt, 'missing')} at generation and {shown(trained, 'the answer')} in "
        "training.",
        "Make the generation prompt print exactly what the template prints before an answer.",
        tokens=(at,) if at < len(case.encoded) else (),
    )


def no_generation_prompt(case: Case) -> Found:
    if case.asked is None or case.asked_without is None:
        return
    message, start = case.trained_turns[-1]
    said = case.said(message)
    if case.asked.text != case.asked_without.text or said.tool_calls or said.reasoning:
        return  # it prints something, or the answer itself begins with markup
    end = own_words_start(case, message, start)
    if case.rendered.text[start:end].strip():
        named = "add_generation_prompt" in case.template.source
        yield Finding(
            "unused-generation-prompt" if named else "missing-generation-prompt",
            Severity.ERROR,
            (
                "The template mentions add_generation_prompt, but prints nothing for it here"
                if named
                else "The template ignores add_generation_prompt"
            )
            + f": at generation the model must print {case.rendered.text[start:end]!r} itself "
            "before it answers.",
            "Print what opens an assistant turn at the end, if add_generation_prompt is set.",
            tokens=case.positions(start, end),
        )


def own_words_start(case: Case, message: int, start: int) -> int:
    """Where the words of an answer begin in the text, at or behind ``start``: its own content as
    the template prints it, or the end of an answer that says nothing."""
    own = (place for place, _ in case.own_words(message) if place >= start)
    ends = (
        span.start
        for span in case.rendered.spans
        if span.message == message and span.region is Region.END_OF_TURN
    )
    return next(own, next(ends, start))


def trailing_space(case: Case) -> Found:
    if case.asked is None or not case.asked.text.endswith((" ", "\t", "\u00a0")):
        return
    ids = encode_prompt(case.asked, case.tokenizer)
    lone = bool(ids) and case.tokenizer.id_to_text(ids[-1]) in (" ", "\t", "\u00a0")
    if lone and _spaces_lead(case.tokenizer):
        place = case.before(case.trained_turns[-1][1]) - 1
        yield Finding(
            "trailing-space",
            Severity.WARNING,
            "The generation prompt ends with a space. In this vocabulary words bring their own "
            "space, so a lone one before a word is something the model has hardly seen.",
            "End the prompt without it, or with a line break.",
            tokens=(place,),
        )


def _spaces_lead(tokenizer: Tokenizer) -> bool:
    """Whether words have tokens that begin with the space before them."""
    text = "a the of is"
    (result,) = tokenize(tokenizer, [Cut(text)])
    places = result.offsets if isinstance(result, Pieces) else []
    return any(text[start:end].startswith(" ") and end > start + 1 for start, end in places)


def glued_answer(case: Case) -> Found:
    ends = {span.end: span for span in case.rendered.spans if span.start < span.end}
    for message, start in case.trained_turns:
        before = ends.get(start)
        glued = before and before.region is Region.CONTENT and before.message != message
        # Without a generation prompt what opens the turn counts as answer; it parts them as well.
        opening = case.rendered.text[start : own_words_start(case, message, start)]
        if glued and not opening.strip():
            border = case.rendered.text[max(0, start - 12) : start + 12]
            yield Finding(
                "glued-answer",
                Severity.WARNING,
                f"Nothing stands between question and answer ({border!r}): the model cannot see "
                "where the one ends and the other begins.",
                "Print a line break or a marker before the answer.",
                tokens=case.positions(start - 1, start + 1),
            )
            return
