"""What the doctor looks at: one conversation in its setting, rendered and encoded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

from sft_core import sandbox
from sft_core.config import MaskPolicy
from sft_core.encode import encode
from sft_core.tokenizer import Tokenizer
from sft_core.types import (
    Encoded,
    Example,
    Finding,
    Message,
    Reason,
    Rendered,
    Template,
    TemplateError,
)

Found = Iterator[Finding]


@dataclass(frozen=True)
class Case:
    """One conversation in its setting, rendered, and what the checks ask of it."""

    template: Template
    tokenizer: Tokenizer
    example: Example
    policy: MaskPolicy
    max_length: int | None
    rendered: Rendered

    @cached_property
    def encoded(self) -> Encoded:
        """Without a length limit."""
        return encode(self.rendered, self.tokenizer, self.policy)

    @cached_property
    def trained_turns(self) -> tuple[tuple[int, int], ...]:
        """(message, where its answer starts) for the answers of which something is trained."""
        reasons = (Reason.ANSWER, Reason.END_OF_TURN, Reason.END_NOT_TRAINED)
        pairs = zip(self.encoded.owners, self.encoded.reasons, strict=True)
        trained = {owner for owner, reason in pairs if reason in reasons}
        return tuple(it for it in self.rendered.answer_starts() if it[0] in trained)

    @cached_property
    def asked(self) -> Rendered | None:
        """What generation sends for the last trained answer; None where nothing stands before
        it, or where the template refuses to ask."""
        return self._before_last_answer(generation=True)

    @cached_property
    def asked_without(self) -> Rendered | None:
        """The same without a generation prompt."""
        return self._before_last_answer(generation=False)

    def _before_last_answer(self, generation: bool) -> Rendered | None:
        if not self.trained_turns or self.trained_turns[-1][0] == 0:
            return None
        try:
            return self.prompt(self.trained_turns[-1][0], generation)
        except TemplateError:
            return None

    def prompt(self, message: int, generation: bool = True) -> Rendered:
        """The conversation before ``message``, with a generation prompt. Raises TemplateError."""
        before = replace(self.example, messages=self.example.messages[:message])
        special = self.tokenizer.special_tokens
        return sandbox.render(self.template, before, special, add_generation_prompt=generation)

    def said(self, message: int) -> Message:
        return self.example.messages[message]

    def text_of(self, position: int) -> str:
        """A token of the example as a person sees it."""
        return self.tokenizer.id_to_text(self.encoded.ids[position])

    def positions(self, start: int, end: int) -> tuple[int, ...]:
        """The tokens that overlap ``text[start:end]``."""
        offsets = self.encoded.offsets
        return tuple(i for i, (a, b) in enumerate(offsets) if a < end and b > start)

    def before(self, place: int) -> int:
        """How many tokens stand before a place in the text."""
        return sum(start < place for start, _ in self.encoded.offsets)
