"""From an Example and a chat template to text whose every character is accounted for.

``render`` prints a conversation the way ``apply_chat_template`` does and says which characters
are header, content and end of turn of which message. It finds them by provenance, checks the
text against the plain render every time, falls back to prefixes where a template defeats
provenance, and refuses where those do not agree either: no mask is ever guessed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from sft_core import dialect, prefixes, provenance, regions, skeleton
from sft_core.presets import PRESETS, PRESETS_SOURCES, TOKENIZER, Preset, find_preset
from sft_core.regions import ASSISTANT, Known
from sft_core.tagged import Tagged, UntraceableError
from sft_core.types import (
    ContentPart,
    Example,
    Message,
    Rendered,
    Span,
    Template,
    TemplateError,
    TemplateLimitError,
    ToolCall,
)

if TYPE_CHECKING:
    from sft_core.config import TemplateConfig
    from sft_core.tokenizer import Tokenizer

__all__ = [
    "PRESETS",
    "PRESETS_SOURCES",
    "Conversation",
    "Outcome",
    "Preset",
    "conversation",
    "find_preset",
    "markers",
    "render",
    "render_conversation",
    "resolve",
]

Plain = dict[str, Any]


# -- which template -------------------------------------------------------------------------------


def resolve(config: TemplateConfig, tokenizer: Tokenizer, *, tools: bool = False) -> Template:
    """The template that a configuration means: its own source, a preset, or the tokenizer's.

    Where a tokenizer brings several, "tool_use" is taken if the rows have ``tools``, else
    "default". "tokenizer:NAME" asks for one of them by name. Raises TemplateError if there is
    no such template.
    """
    if config.source is not None:
        return Template(config.name, config.source)
    kind, _, wanted = config.name.partition(":")
    if kind.lower() != TOKENIZER:
        preset = find_preset(config.name)
        return Template(preset.name, preset.source)
    own = tokenizer.chat_templates
    if not own:
        raise TemplateError(
            f"The tokenizer {tokenizer.name!r} brings no chat template. "
            f"Choose one of {', '.join(PRESETS)}, or write your own."
        )
    if wanted and wanted not in own:
        raise TemplateError(
            f"The tokenizer {tokenizer.name!r} has no template {wanted!r}. "
            f"It has {', '.join(sorted(own))}."
        )
    name = wanted or ("tool_use" if tools and "tool_use" in own else "default")
    return Template(config.name, own[name] if name in own else next(iter(own.values())))


_ROLES: Final = ("system", "user", ASSISTANT)


@lru_cache(maxsize=64)
def markers(template_source: str) -> tuple[str, ...]:
    """The special-looking literals that a template prints, such as <|im_start|>, in order.

    Markers that it puts together around the role are listed for each usual role. Tags inside
    prose, such as <tools> in an instruction, are left out. Raises TemplateError where the
    source cannot be read.
    """
    find = Known(roles=()).specials()
    found: dict[str, None] = {}
    pending = ""
    for literal in provenance.literals(template_source):
        if pending and literal.startswith("|>"):
            found.update(dict.fromkeys(f"<|{role}|>" for role in _ROLES))
        pending = "<|" if literal.endswith("<|") else ""
        prose = " " in find.sub("", literal).strip()
        for match in find.finditer(literal):
            if not (prose and match[0].strip("</>").islower()):
                found[match[0]] = None
    return tuple(found)


# -- what a template sees -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Conversation:
    """An Example as plain values, as a template gets them (and as JSON can carry them)."""

    messages: Sequence[Plain]
    tools: Sequence[Plain] | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> Plain:
        """What ``Conversation(**values)`` is made of."""
        return {"messages": self.messages, "tools": self.tools, "extra": self.extra}


@dataclass(frozen=True, slots=True)
class Outcome:
    """Text with its regions, before roles and weights are put beside it."""

    text: str
    spans: tuple[Span, ...]
    method: str


def conversation(example: Example) -> Conversation:
    """The variables that ``apply_chat_template`` would get for an Example."""
    return Conversation(
        [_message(message) for message in example.messages],
        [_plain(tool) for tool in example.tools] or None,
        _plain(example.extra),
    )


def _message(message: Message) -> Plain:
    # The order of keys is that of apply_chat_template, for templates that print whole messages.
    made: Plain = {} if message.reasoning is None else {"thinking": message.reasoning}
    made |= {"role": message.role, "content": _content(message)}
    if message.context and isinstance(message.content, str):
        made |= {"instruction": message.content, "input": message.context}
    if message.name is not None:
        made["name"] = message.name
    if message.tool_calls:
        made["tool_calls"] = [_tool_call(call) for call in message.tool_calls]
    if message.tool_call_id is not None:
        made["tool_call_id"] = message.tool_call_id
    if message.reasoning is not None:
        made["reasoning_content"] = message.reasoning
    return made


def _content(message: Message) -> str | list[Plain]:
    if isinstance(message.content, str):
        return message.text
    parts = list(message.content)
    if message.context:
        parts.append(ContentPart("text", f"\n{message.context}"))
    return [{"type": part.type, "text": part.text} for part in parts]


def _tool_call(call: ToolCall) -> Plain:
    try:
        arguments = json.loads(call.arguments)
    except json.JSONDecodeError:
        arguments = call.arguments
    function = {"name": call.name, "arguments": arguments}
    return {"type": "function"} | ({"id": call.id} if call.id else {}) | {"function": function}


def _plain(value: Any) -> Any:
    """Plain JSON values; anything else becomes its type's name, which can do no harm."""
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return f"<{type(value).__name__}>"


# -- rendering ------------------------------------------------------------------------------------


def render(
    template: Template,
    example: Example,
    special_tokens: Mapping[str, str],
    *,
    add_generation_prompt: bool = False,
) -> Rendered:
    """A conversation as text with regions, in this process: for templates that are trusted.

    ``special_tokens`` are the tokenizer's (bos_token, eos_token, ...). Raises TemplateError
    where the template fails on this conversation, or where its output cannot be taken apart.
    """
    outcome = render_conversation(
        template.source, conversation(example), special_tokens, add_generation_prompt
    )
    return dress(outcome, example)


def dress(outcome: Outcome, example: Example) -> Rendered:
    """An outcome with what encoding has to know of the messages."""
    return Rendered(
        outcome.text,
        outcome.spans,
        tuple(message.role for message in example.messages),
        tuple(message.weight for message in example.messages),
        outcome.method,
    )


def render_conversation(
    source: str,
    given: Conversation,
    special_tokens: Mapping[str, str],
    add_generation_prompt: bool = False,
) -> Outcome:
    """As ``render``, on plain values."""
    second_best: Outcome | None = None
    failure: TemplateError | None = None
    for messages in _shapes(given.messages):
        job = _Job(source, messages, given, special_tokens, add_generation_prompt)
        try:
            outcome, complete = job.outcome()
        except TemplateLimitError:
            raise
        except TemplateError as error:
            failure = failure or error
            continue
        if complete:
            return outcome
        second_best = second_best or outcome
    if second_best is None:
        raise failure or TemplateError("The template prints nothing for this conversation.")
    return second_best


def _shapes(messages: Sequence[Plain]) -> Iterator[Sequence[Plain]]:
    """The same messages as templates variously expect them. The first is the standard form;
    the others are tried only where that one fails or leaves an answer out."""
    yield messages
    calling = any("tool_calls" in message for message in messages)
    typed = any(isinstance(message["content"], list) for message in messages)
    if typed and all(_is_text(message["content"]) for message in messages):
        yield [message | {"content": _joined(message["content"])} for message in messages]
    if calling:
        empty = [_without_empty_content(message) for message in messages]
        yield empty
        yield [_with_written_arguments(message) for message in messages]
        yield [_with_written_arguments(message) for message in empty]
    if not typed:
        yield [
            message | {"content": [{"type": "text", "text": message["content"]}]}
            for message in messages
        ]


def _is_text(content: Any) -> bool:
    return isinstance(content, str) or all(part["type"] == "text" for part in content)


def _joined(content: Any) -> str:
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


def _without_empty_content(message: Plain) -> Plain:
    calling = "tool_calls" in message and not message["content"]
    return message | {"content": None} if calling else message


def _with_written_arguments(message: Plain) -> Plain:
    if "tool_calls" not in message:
        return message
    calls = [
        call
        | {"function": call["function"] | {"arguments": _written(call["function"]["arguments"])}}
        for call in message["tool_calls"]
    ]
    return message | {"tool_calls": calls}


def _written(arguments: Any) -> str:
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)


_SKELETONS: Final = skeleton.Memory()


class _Job:
    """One conversation in one shape, and the plain renders that it takes to understand it."""

    def __init__(
        self,
        source: str,
        messages: Sequence[Plain],
        given: Conversation,
        special_tokens: Mapping[str, str],
        generation_prompt: bool,
    ) -> None:
        self.source, self.messages = source, messages
        self.roles = [message["role"] for message in messages]
        self.generation_prompt = generation_prompt
        self.special_tokens = special_tokens
        self._prompts: dict[int, str | None] = {}
        shapes = tuple((*message, type(message["content"])) for message in messages)
        tokens = tuple(special_tokens.items())
        self.kind = (source, tokens, generation_prompt, tuple(self.roles), shapes)
        self.variables: Plain = {
            # The clock stands still for the length of a row: its renders must be comparable.
            "strftime_now": datetime.now().strftime,
            "documents": None,
            **special_tokens,
            **given.extra,
            "tools": given.tools,
        }

    def text(self, messages: Sequence[Plain], generation_prompt: bool = False) -> str:
        return dialect.render(self.source, self._all(messages, generation_prompt))

    def tried(self, messages: Sequence[Plain], generation_prompt: bool = False) -> str | None:
        """As ``text``; None where the template refuses such a conversation."""
        try:
            return self.text(messages, generation_prompt)
        except TemplateLimitError:
            raise
        except TemplateError:
            return None

    def _all(self, messages: Sequence[Plain], generation_prompt: bool) -> Plain:
        return {
            **self.variables,
            "messages": messages,
            "add_generation_prompt": generation_prompt,
        }

    def outcome(self) -> tuple[Outcome, bool]:
        """The result, and whether every answer that says something is known to be in it."""
        text = self.text(self.messages, self.generation_prompt)
        for known in _SKELETONS.recall(self.kind):
            fitting = known.fit(text, self.messages, self.prompt)
            if fitting is not None:
                return Outcome(text, fitting, "provenance"), True
        tagged = self._traced(text)
        if tagged is None:
            return Outcome(text, prefixes.spans(text, self), "prefix"), False
        known_ends = self._known(text)
        found = regions.spans(tagged, known_ends)
        complete = self._complete(tagged)
        if complete:
            learnt = skeleton.learn(tagged, found, self.messages, known_ends.prompt_ends)
            if learnt is not None:
                _SKELETONS.keep(self.kind, learnt)
        return Outcome(text, found, "provenance"), complete

    def _complete(self, tagged: Tagged) -> bool:
        shown = set(tagged._tags)
        return all(
            provenance.content_tag(index) in shown
            for index, message in enumerate(self.messages)
            if message["role"] == ASSISTANT and _says_something(message)
        )

    def prompt(self, index: int) -> str | None:
        """What generation sends for message ``index``; None where the template refuses."""
        if index not in self._prompts:
            self._prompts[index] = self.tried(self.messages[:index], True)
        return self._prompts[index]

    def _traced(self, text: str) -> Tagged | None:
        """The text with tags; None where the template cannot be followed."""
        try:
            tagged = provenance.trace(self.source, self._all(self.messages, self.generation_prompt))
        except TemplateLimitError:
            raise
        except MemoryError as error:
            raise dialect.explained(error, None) from None
        except UntraceableError:
            return None
        except Exception:  # noqa: BLE001  (the plain render passed, so the tracing is at fault)
            return None
        return tagged if tagged == text else None

    def _said(self, index: int, content: str) -> str | None:
        """The render in which message ``index`` says something else."""
        typed = isinstance(self.messages[index]["content"], list)
        said = [{"type": "text", "text": content}] if typed else content
        changed = self.messages[index] | {"content": said}
        messages = [*self.messages[:index], changed, *self.messages[index + 1 :]]
        return self.tried(messages, self.generation_prompt)

    def _known(self, text: str) -> Known:
        ends: dict[int, int] = {}
        openings: dict[int, str] = {}
        for index, role in enumerate(self.roles):
            if role != ASSISTANT:
                continue
            prompt = self.prompt(index)
            if prompt is not None and text.startswith(prompt):
                ends[index] = len(prompt)
            elif prompt is not None:
                before = self.tried(self.messages[:index])
                if before is not None and prompt.startswith(before):
                    openings[index] = prompt[len(before) :]

        def turn_end(index: int) -> int | None:
            until = self.tried(self.messages[: index + 1])
            return len(until) if until is not None and text.startswith(until) else None

        def would_begin(index: int) -> int | None:
            probed = [self._said(index, probe) for probe in prefixes.PROBES]
            if any(other is None for other in probed):
                return None
            return len(os.path.commonprefix([text, *filter(None, probed)]))

        return Known(
            self.roles,
            self.special_tokens.get("bos_token") or "",
            self.special_tokens.get("eos_token") or "",
            ends,
            openings,
            turn_end,
            would_begin,
            self.generation_prompt,
        )


def _says_something(message: Plain) -> bool:
    content = message["content"]
    text = content if isinstance(content, str) or content is None else _joined(content)
    return bool((text or "").strip() or message.get("tool_calls"))
