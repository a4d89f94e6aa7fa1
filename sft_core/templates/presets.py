"""The chat templates that the lab ships, each with what it is and what it teaches.

Every one of them gives the same text for the first messages of a conversation however it goes
on, so that what was trained is what generation sends.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from sft_core.types import TemplateError

TOKENIZER: Final = "tokenizer"
"""Stands for the chat template that a tokenizer brings itself."""


@dataclass(frozen=True, slots=True)
class Preset:
    """A template under a name, with a title and one sentence for the person who chooses."""

    name: str
    title: str
    sentence: str
    source: str
    aliases: tuple[str, ...] = ()


_PLAIN: Final = """\
{%- for message in messages -%}
    {%- if message.input -%}
        {{ message.instruction + ': ' + message.input }}
    {%- else -%}
        {{ message.content }}
    {%- endif -%}
{%- endfor -%}
"""

_PLAIN_ENDED: Final = """\
{%- for message in messages -%}
    {%- if message.role == 'assistant' -%}
        {{ message.content ~ eos_token }}
    {%- elif message.input -%}
        {{ message.instruction + ': ' + message.input + '\\n' }}
    {%- else -%}
        {{ message.content + '\\n' }}
    {%- endif -%}
{%- endfor -%}
"""

_CHATML: Final = """\
{%- for message in messages -%}
    {{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{ '<|im_start|>assistant\\n' }}
{%- endif -%}
"""

_ALPACA: Final = """\
{%- set task = 'Below is an instruction that describes a task' -%}
{%- set paired = ', paired with an input that provides further context' -%}
{%- set write = '. Write a response that appropriately completes the request.\\n\\n' -%}
{%- for message in messages -%}
    {%- if message.role == 'assistant' -%}
        {{ '### Response:\\n' + message.content ~ eos_token }}
    {%- else -%}
        {%- if loop.first and message.role != 'system' -%}
            {{ task + (paired if message.input else '') + write }}
        {%- elif not loop.first and loop.previtem.role == 'assistant' -%}
            {{ '\\n\\n' }}
        {%- endif -%}
        {%- if message.role == 'system' -%}
            {{ message.content + '\\n\\n' }}
        {%- elif message.input -%}
            {{ '### Instruction:\\n' + message.instruction + '\\n\\n' }}
            {{- '### Input:\\n' + message.input + '\\n\\n' }}
        {%- else -%}
            {{ '### Instruction:\\n' + message.content + '\\n\\n' }}
        {%- endif -%}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{ '### Response:\\n' }}
{%- endif -%}
"""

_INST_RESP: Final = """\
{%- for message in messages -%}
    {%- if message.role == 'assistant' -%}
        {{ '<RESP>' + message.content + '<END>' }}
    {%- else -%}
        {%- if loop.first or loop.previtem.role == 'assistant' -%}
            {{ '<INST>' }}
        {%- else -%}
            {{ '\\n\\n' }}
        {%- endif -%}
        {{ message.content }}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{ '<RESP>' }}
{%- endif -%}
"""

_USER_END: Final = """\
{%- for message in messages -%}
    {{ '<|' + message.role + '|>\\n' + message.content + '<|end|>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{ '<|assistant|>\\n' }}
{%- endif -%}
"""

_LLAMA3: Final = """\
{{- bos_token -}}
{%- for message in messages -%}
    {{ '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' }}
    {{- message.content | trim }}
    {{- '<|eot_id|>' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif -%}
"""

_GEMMA: Final = """\
{{- bos_token -}}
{%- for message in messages -%}
    {%- if message.role == 'assistant' -%}
        {{ '<start_of_turn>model\\n' + message.content | trim + '<end_of_turn>\\n' }}
    {%- else -%}
        {%- if loop.first or loop.previtem.role != 'system' -%}
            {{ '<start_of_turn>user\\n' }}
        {%- endif -%}
        {%- if message.role == 'system' -%}
            {{ message.content + '\\n\\n' }}
        {%- else -%}
            {{ message.content | trim + '<end_of_turn>\\n' }}
        {%- endif -%}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{ '<start_of_turn>model\\n' }}
{%- endif -%}
"""

_MISTRAL: Final = """\
{{- bos_token -}}
{%- for message in messages -%}
    {%- if message.role == 'assistant' -%}
        {{ message.content ~ eos_token }}
    {%- else -%}
        {%- if loop.first or loop.previtem.role != 'system' -%}
            {{ '[INST]' }}
        {%- endif -%}
        {{ message.content + ('\\n\\n' if message.role == 'system' else '[/INST]') }}
    {%- endif -%}
{%- endfor -%}
"""

_ZEPHYR: Final = """\
{%- for message in messages -%}
    {{ '<|' + message.role + '|>\\n' + message.content ~ eos_token ~ '\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{ '<|assistant|>\\n' }}
{%- endif -%}
"""

_ALL: Final = (
    Preset(
        name="plain",
        title="Plain text, glued together",
        sentence="Question and answer without anything between or after them, as in the first "
        "tutorial; the model cannot learn where an answer begins or ends.",
        source=_PLAIN,
        aliases=("seed000", "concatenation"),
    ),
    Preset(
        name="plain-ended",
        title="Plain text with an end",
        sentence="A line break before the answer and the end-of-text token after it: the smallest "
        "format from which a model learns to stop.",
        source=_PLAIN_ENDED,
    ),
    Preset(
        name="chatml",
        title="ChatML",
        sentence="Each turn between <|im_start|> and <|im_end|>, as SmolLM2 and Qwen are tuned.",
        source=_CHATML,
        aliases=("seed001", "qwen", "smollm2"),
    ),
    Preset(
        name="alpaca",
        title="Alpaca",
        sentence="Headings in words, ### Instruction and ### Response, with an end-of-text token "
        "after the answer; needs no special markers.",
        source=_ALPACA,
        aliases=("stanford-alpaca",),
    ),
    Preset(
        name="inst-resp",
        title="INST / RESP",
        sentence="One marker before the instruction, one before the answer, and one that ends it; "
        "the built-in byte tokenizer knows all three.",
        source=_INST_RESP,
        aliases=("seed003", "capstone"),
    ),
    Preset(
        name="user-end",
        title="<|user|> … <|end|>",
        sentence="The role as a marker and <|end|> after every turn, as Phi-3 and the "
        "thirty-minute tutorial write it.",
        source=_USER_END,
        aliases=("seed004", "phi3"),
    ),
    Preset(
        name="llama3",
        title="Llama 3",
        sentence="Role names between header markers and <|eot_id|> after every turn; contents are "
        "trimmed.",
        source=_LLAMA3,
    ),
    Preset(
        name="gemma",
        title="Gemma",
        sentence="Turns of user and model; there is no system role, so a system message opens the "
        "first user turn.",
        source=_GEMMA,
        aliases=("gemma2", "gemma3"),
    ),
    Preset(
        name="mistral",
        title="Mistral",
        sentence="[INST] around what the user says, and the end-of-text token after the answer; a "
        "system message opens the first instruction.",
        source=_MISTRAL,
        aliases=("inst", "mistral-nemo"),
    ),
    Preset(
        name="zephyr",
        title="Zephyr",
        sentence="The role as a marker and the tokenizer's own end-of-text token after every turn.",
        source=_ZEPHYR,
    ),
)

PRESETS: Final[Mapping[str, Preset]] = MappingProxyType({preset.name: preset for preset in _ALL})
PRESETS_SOURCES: Final = frozenset(preset.source for preset in _ALL)
"""Sources that the lab vouches for: they may render outside the sandbox."""


def _key(name: str) -> str:
    return "".join(character for character in name.lower() if character.isalnum())


_BY_KEY: Final = {_key(name): preset for preset in _ALL for name in (preset.name, *preset.aliases)}


def find_preset(name: str) -> Preset:
    """The preset of a name or an alias, in any case and with any separators. Raises
    TemplateError with what is nearest."""
    preset = _BY_KEY.get(_key(name))
    if preset is not None:
        return preset
    near = difflib.get_close_matches(_key(name), _BY_KEY, n=1)
    guess = f" Did you mean {_BY_KEY[near[0]].name!r}?" if near else ""
    raise TemplateError(
        f"There is no template {name!r}.{guess} "
        f"Choose one of {', '.join(PRESETS)}, or {TOKENIZER} for the tokenizer's own."
    )
