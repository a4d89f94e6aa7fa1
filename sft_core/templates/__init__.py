"""Chat templates: which one, what it sees of an Example, and the text that it makes of it.

``render`` prints a conversation the way ``apply_chat_template`` does and says which characters
are header, content and end of turn of which message. ``provenance`` finds them out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from sft_core import provenance
from sft_core.provenance import ASSISTANT, Conversation, Outcome, has_generation_tags
from sft_core.templates.presets import (
    PRESETS,
    PRESETS_SOURCES,
    TOKENIZER,
    Preset,
    find_preset,
)
from sft_core.types import (
    ContentPart,
    Example,
    Message,
    Rendered,
    Template,
    TemplateError,
    ToolCall,
)

if TYPE_CHECKING:
    # The sandbox's child imports this room and must stay light.
    from sft_core.config import TemplateConfig
    from sft_core.tokenizer import Tokenizer

__all__ = [
    "PRESETS",
    "PRESETS_SOURCES",
    "TOKENIZER",
    "Preset",
    "conversation",
    "find_preset",
    "has_generation_tags",
    "markers",
    "render",
    "rendered",
    "resolve",
]

_ROLES: Final = ("system", "user", ASSISTANT)
_XML: Final = re.compile(r"</?[a-z][\w.:-]*>")

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
    if kind.strip().lower() != TOKENIZER:
        preset = find_preset(config.name)
        return Template(preset.name, preset.source)
    own = tokenizer.chat_templates
    if not own:
        raise TemplateError(
            f"The tokenizer {tokenizer.name!r} brings no chat template. "
            f"Choose one of {', '.join(PRESETS)}, or write your own."
        )
    name = wanted.strip() or ("tool_use" if tools and "tool_use" in own else "default")
    if wanted and name not in own:
        raise TemplateError(
            f"The tokenizer {tokenizer.name!r} has no template {name!r}. "
            f"It has {', '.join(sorted(own))}."
        )
    return Template(config.name, own.get(name) or next(iter(own.values())))


@lru_cache(maxsize=64)
def markers(template_source: str) -> tuple[str, ...]:
    """The special-looking literals that a template prints, such as <|im_start|>, in order.

    Markers that it puts together around the role are listed for each usual role. Tags inside
    prose, such as <tools> in an instruction, are left out. Raises TemplateError where the
    source cannot be read.
    """
    special = provenance.special_pattern()
    found: dict[str, None] = {}
    pending = False
    for literal in provenance.literals(template_source):
        if pending and literal.startswith("|>"):
            found.update(dict.fromkeys(f"<|{role}|>" for role in _ROLES))
        pending = literal.endswith("<|")
        prose = " " in special.sub("", literal).strip()
        for match in special.finditer(literal):
            if not (prose and _XML.fullmatch(match[0])):
                found[match[0]] = None
    return tuple(found)


# -- what a template sees -------------------------------------------------------------------------


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
    made["role"] = message.role
    made["content"] = _content(message)
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


# -- what it makes of it --------------------------------------------------------------------------


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
    outcome = provenance.render_conversation(
        template.source, conversation(example), special_tokens, add_generation_prompt
    )
    return rendered(outcome, example)


def rendered(outcome: Outcome, example: Example) -> Rendered:
    """An outcome with what encoding has to know of the messages."""
    return Rendered(
        outcome.text,
        outcome.spans,
        tuple(message.role for message in example.messages),
        tuple(message.weight for message in example.messages),
        outcome.method,
        outcome.literals,
        outcome.tagged,
        outcome.given,
    )
