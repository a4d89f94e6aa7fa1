"""Where templates that somebody wrote are compiled and rendered: in a process that can be killed.

Jinja's own sandbox keeps a template from reaching Python, but not from taking all memory or all
time, and constant folding makes even compiling it dangerous. So a few child processes, kept warm,
do it under a limit of memory, with a clock that kills (``pool``, ``line``, ``child``). What travels
is plain values (``wire``). Templates that the lab ships itself render in this process.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Final

from sft_core import templates
from sft_core.ahead import map_ahead
from sft_core.provenance import Conversation, Outcome, Skeleton
from sft_core.sandbox import pool
from sft_core.sandbox.pool import close, warm_up
from sft_core.templates import PRESETS_SOURCES
from sft_core.types import (
    Example,
    Region,
    Rendered,
    Span,
    Template,
    TemplateError,
    TemplateLimitError,
)

__all__ = ["SECONDS", "close", "render", "render_many", "warm_up"]

SECONDS: Final = 1.0
"""How long one conversation may take. A visitor hears within two seconds, also where a process has
to be ended and another started on a busy machine."""
_SECONDS_A_ROW: Final = 0.02  # more for each further row of a chunk
_CHUNK: Final = 64
_PATIENCE: Final = 3  # rows in a row that may exceed the limits before the rest is given up


def render(
    template: Template,
    example: Example,
    special_tokens: Mapping[str, str],
    *,
    add_generation_prompt: bool = False,
) -> Rendered:
    """A conversation as text with regions. Raises TemplateError where the template fails on it,
    TemplateLimitError where it takes too much time, memory or output, BusyError where others
    keep the sandbox occupied."""
    if template.source in PRESETS_SOURCES:
        return templates.render(
            template, example, special_tokens, add_generation_prompt=add_generation_prompt
        )
    [result] = _Rows(template, special_tokens, add_generation_prompt).ask([example])
    if isinstance(result, TemplateError):
        raise result
    return result


def render_many(
    template: Template,
    examples: Iterable[Example],
    special_tokens: Mapping[str, str],
    *,
    add_generation_prompt: bool = False,
) -> Iterator[Rendered | TemplateError]:
    """As ``render``, for each example in order; what fails is yielded as its error.

    While the caller works on one chunk of rows, the next is rendered.
    """
    rows = iter(examples)
    todo = _Rows(template, special_tokens, add_generation_prompt)
    if template.source in PRESETS_SOURCES:
        yield from map(todo.here, rows)
        return
    chunks = iter(lambda: list(itertools.islice(rows, _CHUNK)), [])
    yield from itertools.chain.from_iterable(map_ahead(todo.there, chunks, 1))


class _Rows:
    """Rows of one data set through one template."""

    def __init__(
        self, template: Template, special_tokens: Mapping[str, str], generation_prompt: bool
    ) -> None:
        self._template = template
        self._tokens = dict(special_tokens)
        self._generation_prompt = generation_prompt
        self._exceeded = 0
        self._verdict: TemplateLimitError | None = None

    def here(self, row: Example) -> Rendered | TemplateError:
        """One row in this process."""
        try:
            return templates.render(
                self._template,
                row,
                self._tokens,
                add_generation_prompt=self._generation_prompt,
            )
        except TemplateError as error:
            return error

    def there(self, rows: Sequence[Example]) -> list[Rendered | TemplateError]:
        """A chunk in a child. Rows that exceed the limits are looked for one by one; a template
        that exceeds them again and again is given up."""
        if self._verdict is None:
            with suppress(TemplateLimitError):
                return self.ask(rows)
        return [self._alone(row) for row in rows]

    def _alone(self, row: Example) -> Rendered | TemplateError:
        if self._verdict is not None:
            return self._verdict
        try:
            [result] = self.ask([row])
        except TemplateLimitError as error:
            self._exceeded += 1
            self._verdict = error if self._exceeded >= _PATIENCE else None
            return error
        self._exceeded = 0
        return result

    def ask(self, rows: Sequence[Example]) -> list[Rendered | TemplateError]:
        """One request. Raises TemplateLimitError where the child had to be killed."""
        conversations = [templates.conversation(row) for row in rows]
        request = {
            "source": self._template.source,
            "special_tokens": self._tokens,
            "generation_prompt": self._generation_prompt,
            "conversations": [conversation.to_dict() for conversation in conversations],
        }
        answers = pool.ask(request, SECONDS + _SECONDS_A_ROW * (len(rows) - 1))
        return list(map(_result, answers, conversations, rows))


def _result(
    answer: pool.Answer, conversation: Conversation, row: Example
) -> Rendered | TemplateError:
    if isinstance(answer, Skeleton):
        text, found = answer.filled(conversation.messages)
        return templates.rendered(Outcome(text, found.spans, "provenance", found.literals), row)
    if "error" in answer:
        kind = TemplateLimitError if answer["limit"] else TemplateError
        return kind(answer["error"], answer["line"], answer["column"])
    spans = tuple(
        Span(start, end, Region(region), message) for start, end, region, message in answer["spans"]
    )
    literals, tagged = _ranges(answer["literals"]), answer["tagged"]
    outcome = Outcome(
        answer["text"],
        spans,
        answer["method"],
        literals,
        None if tagged is None else _ranges(tagged),
        _ranges(answer["given"]),
    )
    return templates.rendered(outcome, row)


def _ranges(pairs: Iterable[Sequence[int]]) -> tuple[tuple[int, int], ...]:
    return tuple((start, end) for start, end in pairs)
