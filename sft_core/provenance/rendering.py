"""One conversation through one template: plain renders, a trace, and the check that they agree.

The order is: the plain render; a skeleton that fits it, if one was learnt; else a trace whose text
must be the plain render's; else checked prefixes; else a refusal. Nothing is ever guessed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

from sft_core.provenance import dialect, enclosed, prefixes, regions, skeleton
from sft_core.provenance.keys import keys_read
from sft_core.provenance.regions import Painted
from sft_core.provenance.shapes import Plain, joined, shapes, typed
from sft_core.provenance.sources import ASSISTANT, content_tag
from sft_core.provenance.tagged import ENCLOSED, GIVEN, Tagged, UntraceableError
from sft_core.provenance.trace import trace
from sft_core.provenance.turns import Known, common_length
from sft_core.types import Span, TemplateError, TemplateLimitError

Ranges = tuple[tuple[int, int], ...]

_SKELETONS: Final = skeleton.Memory()
_PROMPT_TAIL: Final = 100


@dataclass(frozen=True, slots=True)
class Conversation:
    """Messages, tools and further variables as plain values: as a template gets them, and as
    JSON can carry them."""

    messages: Sequence[Plain]
    tools: Sequence[Plain] | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> Plain:
        """What ``Conversation(**values)`` is made of."""
        return {"messages": self.messages, "tools": self.tools, "extra": self.extra}


@dataclass(frozen=True, slots=True)
class Outcome:
    """A rendered text and its regions; the fields are those of ``types.Rendered``. ``skeleton``
    is the one that fits the messages as they were given, where they were recognised by one."""

    text: str
    spans: tuple[Span, ...]
    method: str
    literals: tuple[tuple[int, int], ...] = ()
    tagged: tuple[tuple[int, int], ...] | None = None
    given: tuple[tuple[int, int], ...] = ()
    skeleton: skeleton.Skeleton | None = field(default=None, compare=False)


def render_conversation(
    source: str,
    given: Conversation,
    special_tokens: Mapping[str, str],
    add_generation_prompt: bool = False,
    *,
    skeleton_suffices: bool = False,
) -> Outcome:
    """The text that a template prints for a conversation, with its regions, or without them where
    a ``skeleton`` says them and that is all that is asked for. Raises TemplateError
    where the template fails, or where its output cannot be taken apart."""
    second_best: Outcome | None = None
    failure: TemplateError | None = None
    for number, messages in enumerate(shapes(given.messages)):
        job = _Job(source, messages, given, special_tokens, add_generation_prompt)
        job.skeleton_suffices = skeleton_suffices and number == 0
        try:
            outcome, complete = job.outcome()
        except TemplateLimitError:
            raise
        except TemplateError as error:
            failure = failure or error
            continue
        if complete:
            return outcome
        # Another shape is worth having only if all of it is known to be right.
        second_best = outcome if number == 0 else second_best
    if second_best is None:
        raise failure or TemplateError("The template prints nothing for this conversation.")
    return second_best


# -- one shape ------------------------------------------------------------------------------------


class _Job:
    """A conversation in one shape, and the plain renders that it takes to understand it."""

    def __init__(
        self,
        source: str,
        messages: Sequence[Plain],
        given: Conversation,
        special_tokens: Mapping[str, str],
        generation_prompt: bool,
    ) -> None:
        self.messages = messages
        self.skeleton_suffices = False
        self.generation_prompt = generation_prompt
        self._source = source
        self._given = given.messages
        self._extra = tuple(given.extra)
        self._tokens = special_tokens
        self._prompts: dict[int, str | None] = {}
        self._variables: Plain = {
            # The clock stands still for the length of a row: its renders must be comparable.
            "strftime_now": datetime.now().strftime,
            "documents": None,
            **special_tokens,
            **given.extra,
            "tools": given.tools,
        }

    def outcome(self) -> tuple[Outcome, bool]:
        """The result, and whether every answer that says something is known to be in it."""
        text = dialect.render(self._source, self._all(self.messages, self.generation_prompt))
        kind = self._kind()
        for known in _SKELETONS.recall(kind) if not self._calls_only() else ():
            short = self.skeleton_suffices and not self._has_tags
            fitting = known.fit(text, self.messages, self._prompt, short)
            if fitting is not None:
                if short:
                    return Outcome(text, (), "provenance", skeleton=known), True
                tagged = self._written_tags(text)
                if self._has_tags and tagged is None:
                    break
                fitted = _outcome(text, fitting._replace(tagged=tagged), "provenance")
                # What tags enclose is this row's own, so that the skeleton does not say it all.
                told = self.messages is self._given and tagged is None
                return replace(fitted, skeleton=known if told else None), True
        traced, tagged = self._traced(text)
        if traced is None:
            return _outcome(text, prefixes.painted(text, self), "prefix"), False
        given = enclosed.ranges(traced, GIVEN)
        traced = enclosed.without(traced, GIVEN) if given else traced
        known_of_it = self._known(text)
        found = regions.painted(traced, known_of_it)._replace(tagged=tagged)
        complete = self._complete(traced)
        if complete and not given:
            learnt = skeleton.learn(traced, found.spans, self.messages, known_of_it.prompt_ends)
            if learnt is not None:
                _SKELETONS.keep(kind, learnt)
        return replace(_outcome(text, found, "provenance"), given=given), complete

    def tried(self, messages: Sequence[Plain], generation_prompt: bool = False) -> str | None:
        """The plain render of other messages; None where the template refuses them."""
        try:
            return dialect.render(self._source, self._all(messages, generation_prompt))
        except TemplateLimitError:
            raise
        except TemplateError:
            return None

    def _all(self, messages: Sequence[Plain], generation_prompt: bool) -> Plain:
        return {
            **self._variables,
            "messages": messages,
            "add_generation_prompt": generation_prompt,
        }

    def _kind(self) -> tuple[object, ...]:
        """What rows have in common that one skeleton may fit."""
        shapes = tuple(
            (message["role"], type(message["content"]), *message) for message in self.messages
        )
        return self._source, tuple(self._tokens.items()), self.generation_prompt, shapes

    def _prompt(self, index: int) -> str | None:
        """What generation sends for message ``index``; None where the template refuses."""
        if index not in self._prompts:
            self._prompts[index] = self.tried(self.messages[:index], True)
        return self._prompts[index]

    def _traced(self, text: str) -> tuple[Tagged | None, Ranges | None]:
        """The text with tags, None where the template cannot be followed; and what the author's
        generation tags enclose, None where there are none or they cannot be followed."""
        if self._has_tags and (traced := self._trace(text, True)) is not None:
            return enclosed.without(traced, ENCLOSED), enclosed.ranges(traced, ENCLOSED)
        return self._trace(text, False), None

    def _trace(self, text: str, follow_generation_tags: bool) -> Tagged | None:
        """What the row gave beside its messages is followed too, unless the template does with it
        what cannot be followed."""
        names = ("tools", *self._extra)
        given = {name for name in names if self._variables.get(name) is not None}
        found = self._trace_with(text, follow_generation_tags, given)
        if found is None and given:
            found = self._trace_with(text, follow_generation_tags, ())
        return found

    def _trace_with(
        self, text: str, follow_generation_tags: bool, given: Collection[str]
    ) -> Tagged | None:
        variables = self._all(self.messages, self.generation_prompt)
        try:
            traced = trace(
                self._source,
                variables,
                follow_generation_tags=follow_generation_tags,
                given=given,
            )
        except TemplateLimitError:
            raise
        except MemoryError as error:
            raise dialect.explained(error, None) from None
        except UntraceableError:
            return None
        except Exception:  # noqa: BLE001  (the plain render passed, so the tracing is at fault)
            return None
        return traced if traced == text else None

    @property
    def _has_tags(self) -> bool:
        return dialect.has_generation_tags(self._source)

    def _written_tags(self, text: str) -> Ranges | None:
        """What the author's generation tags enclose, told by a render that prints them."""
        if not self._has_tags or enclosed.OPENING in text or enclosed.CLOSING in text:
            return None
        variables = self._all(self.messages, self.generation_prompt)
        try:
            found = enclosed.written(dialect.render(self._source, variables, enclosed.WrittenTag))
        except TemplateLimitError:
            raise
        except TemplateError:
            return None
        return found[1] if found is not None and found[0] == text else None

    def _complete(self, traced: Tagged) -> bool:
        shown = set(traced._tags)
        says = [index for index, message in enumerate(self.messages) if self._says(message)]
        missing = [index for index in says if content_tag(index) not in shown]
        return (missing != says or not says) and all(
            self.messages[index]["role"] != ASSISTANT for index in missing
        )

    def _says(self, message: Plain) -> bool:
        """Whether there is something in a message that the template could print as its content."""
        if joined(message["content"] or ""):
            return True
        return bool(message.get("tool_calls")) and self._may_read("tool_calls")

    def _calls_only(self) -> bool:
        """Whether some message says nothing but a call, which no skeleton has a hole for."""
        return any(
            "tool_calls" in message and not message["content"] and self._says(message)
            for message in self.messages
        )

    def _may_read(self, key: str) -> bool:
        keys = keys_read(self._source)
        return keys is None or key in keys

    # -- what it takes to find the answers --------------------------------------------------------

    def _known(self, text: str) -> Known:
        ends: dict[int, int] = {}
        openings: dict[int, str] = {}
        bare: dict[int, str] = {}
        for index, message in enumerate(self.messages):
            prompt = self._prompt(index) if message["role"] == ASSISTANT else None
            if prompt is None:
                continue
            if text.startswith(prompt):
                ends[index] = len(prompt)
                continue
            before = self.tried(self.messages[:index])
            if before == prompt:
                bare[index] = prompt[-_PROMPT_TAIL:]
            elif before is not None and prompt.startswith(before):
                openings[index] = prompt.removeprefix(before)
        return Known(
            roles=[message["role"] for message in self.messages],
            bos=self._tokens.get("bos_token") or "",
            eos=self._tokens.get("eos_token") or "",
            prompt_ends=ends,
            openings=openings,
            bare_prompts=bare,
            turn_end=lambda index: self._turn_end(text, index),
            would_begin=lambda index: self._would_begin(text, index),
            generation_prompt=self.generation_prompt,
        )

    def _turn_end(self, text: str, index: int) -> int | None:
        until = self.tried(self.messages[: index + 1])
        return len(until) if until is not None and text.startswith(until) else None

    def _would_begin(self, text: str, index: int) -> int | None:
        parts = isinstance(self.messages[index]["content"], list)
        texts = [text]
        for probe in prefixes.PROBES:
            said = self.messages[index] | {"content": typed(probe) if parts else probe}
            messages = [*self.messages[:index], said, *self.messages[index + 1 :]]
            other = self.tried(messages, self.generation_prompt)
            if other is None:
                return None
            texts.append(other)
        return common_length(*texts)


def _outcome(text: str, found: Painted, method: str) -> Outcome:
    return Outcome(text, found.spans, method, found.literals, found.tagged)
