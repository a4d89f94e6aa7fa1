"""Grades: what a model answers to rows whose answers are known, and how often it is right."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from sft_core.config import GenerateConfig
from sft_core.encode import stop_sequences
from sft_core.events import AnswerEvent, Graded, Score, Scored, Tally
from sft_core.generate import Answer, Ids, Voice, answer_batch, prompts_of
from sft_core.models import threads_for
from sft_core.pace import never
from sft_core.types import Example, LabError, Template

BATCH_ROWS: Final = 32
UNSORTED: Final = "no category"


def normalise(text: str) -> str:
    """Lower case, no space at either end, single spaces between words. Every kind of white space
    counts as a space."""
    return " ".join(text.lower().split())


def exact_match(answer: str, expected: str) -> bool:
    """Whether an answer is the expected one, letter for letter after ``normalise``."""
    return normalise(answer) == normalise(expected)


def grade(
    voice: Voice,
    examples: Sequence[Example],
    seen: frozenset[str] | None,
    template: Template,
    config: GenerateConfig,
    should_stop: Callable[[], bool] = never,
) -> Iterator[AnswerEvent]:
    """Asks for the last answer of every example, greedily, whatever ``config`` says about
    sampling, so that the same model always gets the same score. Yields a Graded for each row, in
    order, and then their Scored; a stop ends it early and without a score, since a share of some
    of the rows is no figure for the set. ``seen`` are the facts that training held.

    A prompt that leaves no room for an answer counts as answered wrongly, with nothing. Raises
    TemplateError where a prompt cannot be rendered.
    """
    stops = stop_sequences(template, voice.tokenizer, config.stop_tokens)
    graded: list[Graded] = []
    with threads_for(voice.model):
        for start in range(0, len(examples), BATCH_ROWS):
            rows = examples[start : start + BATCH_ROWS]
            for row, answer in _answers(voice, rows, stops, template, config, should_stop):
                graded.append(_graded(voice, row, answer, seen))
                yield graded[-1]
            if should_stop():
                return
    yield Scored(side=voice.side, score=score(graded))


def _answers(
    voice: Voice,
    rows: Sequence[Example],
    stops: Sequence[Ids],
    template: Template,
    config: GenerateConfig,
    should_stop: Callable[[], bool],
) -> Iterator[tuple[Example, Answer]]:
    prompts = [_sound(prompt) for prompt in prompts_of(rows, template, voice.tokenizer)]
    fitting = [prompt for prompt in prompts if len(prompt) < voice.context]
    given = iter(answer_batch(voice, fitting, stops, config.max_new_tokens, should_stop))
    if should_stop():
        return
    nothing = Answer((), "", False, f"The prompt does not fit into {voice.context} tokens.")
    for row, prompt in zip(rows, prompts, strict=True):
        yield row, next(given) if len(prompt) < voice.context else nothing


def _sound(prompt: Ids | LabError) -> Ids:
    if isinstance(prompt, LabError):
        raise prompt
    return prompt


def _graded(voice: Voice, row: Example, answer: Answer, seen: frozenset[str] | None) -> Graded:
    known = None if seen is None or row.fact is None else row.fact in seen
    return Graded(
        side=voice.side,
        row=row.id,
        category=row.category,
        seen=known,
        prompt=row.prompt[-1].text if row.prompt else "",
        expected=row.answer,
        answer=answer.text,
        exact=exact_match(answer.text, row.answer),
        stopped=answer.stopped,
    )


# -- counting ---------------------------------------------------------------------------------


def score(graded: Sequence[Graded]) -> Score:
    """The tallies of graded rows: all, by category where the data has any, and seen and unseen
    facts where the data names them."""
    categories = dict.fromkeys(row.category for row in graded)
    named = any(category is not None for category in categories)
    return Score(
        overall=_tally("overall", graded),
        by_category=tuple(
            _tally(category or UNSORTED, [row for row in graded if row.category == category])
            for category in sorted(categories, key=lambda name: (name is None, name))
            if named
        ),
        seen=_part("seen", [row for row in graded if row.seen is True]),
        unseen=_part("unseen", [row for row in graded if row.seen is False]),
    )


def _part(name: str, graded: Sequence[Graded]) -> Tally | None:
    return _tally(name, graded) if graded else None


def _tally(name: str, graded: Sequence[Graded]) -> Tally:
    return Tally(
        name,
        len(graded),
        sum(row.exact for row in graded),
        sum(row.stopped for row in graded),
    )
