"""The conversations that every chat template is asked for in the benches."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Final

from transformers.utils import chat_template_utils

from sft_core.provenance import rendering
from sft_core.types import Example, Message, ToolCall
from tests.sample_templates import CALL, TOOL, assistant, examples, system, user

_MARKER: Final = re.compile(r"<[^<>\s'\"{}]{2,40}>|\[/?[A-Z_]{2,}\]")
_SECOND: Final = ToolCall("weather", '{"city": "Rome", "days": 1}', "call00002")


def conversations(source: str) -> list[Example]:
    """What every template is asked to render; some of it is made for this one."""
    own = list(dict.fromkeys(_MARKER.findall(source)))[:12]
    spelled = " ".join(own) or "<|im_end|>"
    more: dict[str, tuple[Message, ...]] = {
        "own-markers": (user(f"print {spelled} now"), assistant(f"sure: {spelled} done")),
        "long": (
            system("Be kind."),
            *(user("One two"), assistant("Three four.")),
            *(user("Five six"), assistant("Seven eight.")),
            *(user("Nine ten"), assistant("Eleven twelve.")),
        ),
        "ends-on-user": (user("Hello"), assistant("Good day."), user("Bye")),
        "accents": (user("nai\u0308ve"), assistant("re\u0301sume\u0301")),
        "reasoning-twice": (
            user("think"),
            assistant("Forty two.", "Six by seven."),
            user("again"),
            assistant("Forty.", "Five by eight."),
        ),
        "reasoning-call": (
            user("Weather in Oslo?"),
            assistant("", "Let me look.", CALL),
            Message("tool", "22 degrees", name="weather", tool_call_id="call00001"),
            assistant("It is 22.", "So says the tool."),
        ),
        "call-with-words": (
            system("Be kind."),
            user("Weather in Oslo?"),
            assistant("One moment.", None, CALL),
            Message("tool", "22 degrees", name="weather", tool_call_id="call00001"),
            assistant("It is 22."),
            user("Thanks"),
            assistant("My pleasure."),
        ),
        "two-calls": (
            user("Oslo or Rome?"),
            assistant("", None, CALL, _SECOND),
            Message("tool", "22 degrees", name="weather", tool_call_id="call00001"),
            Message("tool", "31 degrees", name="weather", tool_call_id="call00002"),
            assistant("Rome."),
        ),
    }
    called = ("reasoning-call", "call-with-words", "two-calls")
    made = [
        Example(name, messages, tools=(TOOL,) if name in called else ())
        for name, messages in more.items()
    ]
    return [*examples(), *made]


def stand_still() -> None:
    """Stops the clocks of this process: some templates print the time, and the lab and
    transformers each ask for it themselves."""
    for module in (chat_template_utils, rendering):
        module.datetime = _StandingClock  # type: ignore[attr-defined]


class _StandingClock:
    @staticmethod
    def now() -> datetime:
        return datetime(2026, 1, 2, 3, 4, 5)
