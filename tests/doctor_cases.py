"""What the tests of the doctor share: conversations, and what they ask of findings."""

from __future__ import annotations

import tokenizers

from sft_core.config import MaskPolicy
from sft_core.encode import encode
from sft_core.sandbox import render
from sft_core.templates import PRESETS
from sft_core.tokenizer import Tokenizer
from sft_core.types import Encoded, Example, Finding, Message, Severity, Template
from tests.trained_tokenizers import byte_level

POLICY = MaskPolicy()


def preset(name: str) -> Template:
    return Template(name, PRESETS[name].source)


def chat(*turns: tuple[str, str] | Message) -> Example:
    messages = (turn if isinstance(turn, Message) else Message(*turn) for turn in turns)
    return Example("row-1", tuple(messages))


PAIR = chat(("user", "What is 2+2?"), ("assistant", "It is 4."))

CONVERSATIONS = {
    "pair": PAIR,
    "turns": chat(
        ("user", "Hi"),
        ("assistant", "Hello."),
        ("user", "And you?"),
        ("assistant", "Fine.\n\nYou?"),
    ),
    "system": chat(("system", "Be brief."), ("user", "Hi"), ("assistant", "Hello.")),
    "unicode": chat(("user", "cafe\u0301 \U0001f600"), ("assistant", "nai\u0308ve \U0001f99c")),
    "code": chat(("user", "code?"), ("assistant", "```python\nprint('x')\n```")),
}


def grave(found: tuple[Finding, ...]) -> list[str]:
    """The codes that are more than an explanation."""
    return [finding.code for finding in found if finding.severity is not Severity.INFO]


def codes(found: tuple[Finding, ...]) -> list[str]:
    return [finding.code for finding in found]


def only(found: tuple[Finding, ...], code: str) -> Finding:
    """The one finding of a code; each must have what a person needs."""
    (finding,) = (finding for finding in found if finding.code == code)
    assert finding.message.endswith((".", "]", ")")), finding.message
    assert finding.remedy.endswith(".")
    assert finding.rows == ("row-1",)
    return finding


def encoded(template: Template, tokenizer: Tokenizer, example: Example) -> Encoded:
    return encode(render(template, example, tokenizer.special_tokens), tokenizer, POLICY)


def texts(
    finding: Finding, template: Template, tokenizer: Tokenizer, example: Example
) -> list[str]:
    """The tokens that a finding points at."""
    ids = encoded(template, tokenizer, example).ids
    return [tokenizer.id_to_text(ids[at]) for at in finding.tokens]


TURNS = chat(("user", "Hi"), ("assistant", "Hello."), ("user", "And?"), ("assistant", "Fine."))


def looped(body: str, prompt: str = "<|im_start|>assistant\n", name: str = "mine") -> Template:
    """A template that prints ``body`` for each message ``m``."""
    return Template(
        name,
        "{% for m in messages %}" + body + "{% endfor %}"
        "{% if add_generation_prompt %}" + prompt + "{% endif %}",
    )


def with_template(source: str) -> Tokenizer:
    base = byte_level()
    backend = tokenizers.Tokenizer.from_str(base.to_json())
    return Tokenizer("own", backend, base.special_tokens, {"default": source})
