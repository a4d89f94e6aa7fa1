"""What the doctor looks at: one conversation in its setting, rendered and encoded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from sft_core import sandbox
from sft_core.config import GenerateConfig, MaskPolicy
from sft_core.encode import encode
from sft_core.tokenizer import Tokenizer
from sft_core.types import (
    Encoded,
    Example,
    Finding,
    Message,
    Reason,
    Region,
    Rendered,
    Template,
    TemplateError,
    TemplateLimitError,
)

Found = Iterator[Finding]

ENDS = (Reason.END_OF_TURN, Reason.END_NOT_TRAINED)
"""The reasons of tokens that close an answer."""


@dataclass(frozen=True, slots=True)
class Setting:
    """All that a conversation is looked at with."""

    template: Template
    tokenizer: Tokenizer
    policy: MaskPolicy
    generate: GenerateConfig = field(default_factory=GenerateConfig)
    max_length: int | None = None

    def render(self, messages: Sequence[Message], like: Example, prompt: bool = False) -> Rendered:
        """``messages`` with the tools and variables of ``like``. Raises TemplateError."""
        example = replace(like, messages=tuple(messages))
        special = self.tokenizer.special_tokens
        return sandbox.render(self.template, example, special, add_generation_prompt=prompt)


@dataclass(frozen=True)
class Case:
    """One conversation in its setting, rendered, and what the checks ask of it."""

    setting: Setting
    example: Example
    rendered: Rendered
    _seen: dict[tuple[tuple[Message, ...], bool], Rendered | TemplateError] = field(
        default_factory=dict
    )

    @classmethod
    def of(cls, setting: Setting, example: Example) -> Case:
        """Raises TemplateError where the template fails on the conversation."""
        return cls(setting, example, setting.render(example.messages, example))

    @property
    def template(self) -> Template:
        return self.setting.template

    @property
    def tokenizer(self) -> Tokenizer:
        return self.setting.tokenizer

    @property
    def policy(self) -> MaskPolicy:
        return self.setting.policy

    # -- as tokens ----------------------------------------------------------------------------

    @cached_property
    def encoded(self) -> Encoded:
        """Without a length limit."""
        return encode(self.rendered, self.tokenizer, self.policy)

    @cached_property
    def trained_turns(self) -> tuple[tuple[int, int], ...]:
        """(message, where its answer starts) for the answers of which something is trained."""
        reasons = (Reason.ANSWER, *ENDS)
        pairs = zip(self.encoded.owners, self.encoded.reasons, strict=True)
        trained = {owner for owner, reason in pairs if reason in reasons}
        return tuple(it for it in self.rendered.answer_starts() if it[0] in trained)

    @cached_property
    def end_ids(self) -> frozenset[int]:
        """The ids that close this conversation's answers, trained or not."""
        pairs = zip(self.encoded.ids, self.encoded.reasons, strict=True)
        return frozenset(id for id, reason in pairs if reason in ENDS)

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

    # -- other renders ------------------------------------------------------------------------

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
        return self.tried(self.example.messages[: self.trained_turns[-1][0]], generation)

    def prompt(self, message: int) -> Rendered:
        """The conversation before ``message``, with a generation prompt. Raises TemplateError."""
        found = self._render(self.example.messages[:message], prompt=True)
        if isinstance(found, TemplateError):
            raise found
        return found

    def tried(self, messages: Sequence[Message], prompt: bool = False) -> Rendered | None:
        """Other messages in the same setting; None where the template refuses them."""
        found = self._render(tuple(messages), prompt)
        return None if isinstance(found, TemplateError) else found

    def _render(self, messages: tuple[Message, ...], prompt: bool) -> Rendered | TemplateError:
        key = messages, prompt
        if key not in self._seen:
            try:
                self._seen[key] = self.setting.render(messages, self.example, prompt)
            except TemplateLimitError:
                raise
            except TemplateError as error:
                self._seen[key] = error
        return self._seen[key]

    # -- what messages say --------------------------------------------------------------------

    def said(self, message: int) -> Message:
        return self.example.messages[message]

    def printed(self, message: int) -> str:
        """What of a message's own content stands in the text."""
        return "".join(self.rendered.text[a:b] for a, b in self.own_words(message))

    def own_words(self, message: int) -> Iterator[tuple[int, int]]:
        """Where a message's own content stands: its content without what the template printed
        in the middle of it."""
        for span in self.rendered.spans:
            if span.region is not Region.CONTENT or span.message != message:
                continue
            at = span.start
            for start, end in self.rendered.literals:
                if at < end and start < span.end:
                    if start > at:
                        yield at, start
                    at = min(end, span.end)
            if at < span.end:
                yield at, span.end

    def end_of(self, message: int) -> int:
        """Where the answer of a message, its end of turn included, ends in the text."""
        kinds = (Region.CONTENT, Region.END_OF_TURN)
        ends = (
            it.end for it in self.rendered.spans if it.message == message and it.region in kinds
        )
        return max(ends, default=0)

    def closed(self, message: int, rendered: Rendered | None = None) -> bool:
        """Whether an end of turn stands behind what a message says."""
        spans = (rendered or self.rendered).spans
        return any(it.message == message and it.region is Region.END_OF_TURN for it in spans)
