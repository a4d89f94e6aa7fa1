"""Checks of what the template makes of the messages: dropped, altered, and what only tools need."""

from __future__ import annotations

from datetime import datetime

from sft_core.doctor.answers import SHOWN
from sft_core.doctor.case import Case, Found
from sft_core.types import Finding, Message, Severity

_AS_DATA = ("tool", "function", "ipython", "observation")
"""Roles whose content templates usually print as JSON."""


def content_kept(case: Case) -> Found:
    """One finding a kind, about the first message that it happens to."""
    seen: set[str] = set()
    for index, message in enumerate(case.example.messages):
        for finding in _content(case, index, message):
            if finding.code not in seen:
                seen.add(finding.code)
                yield finding


def _content(case: Case, index: int, message: Message) -> Found:
    said, shown = message.text, case.printed(index)
    who = f"what the {message.role} says in message {index + 1}"
    places = tuple(sorted({at for place in case.own_words(index) for at in case.positions(*place)}))
    if not said.strip() or said in shown or _squeezed(said) in _squeezed(shown):
        if shown != said and shown == said.strip() and said.strip():
            yield Finding(
                "content-trimmed",
                Severity.INFO,
                f"The template trims {who}: {len(said) - len(shown)} spaces or line breaks at its "
                "ends are not in the text.",
                "Nothing has to be done, unless they matter.",
                tokens=places,
            )
    elif not shown.strip():
        if message.role != "assistant" and said.strip() not in case.rendered.text:
            yield Finding(
                "content-dropped",
                Severity.WARNING,
                f"The template does not print {who} ({said.strip()[:SHOWN]!r}).",
                f"Print turns of the role {message.role!r}, or take the turn out of the row.",
            )
    elif _squeezed(said).casefold() == _squeezed(shown).casefold():
        yield Finding(
            "content-altered",
            Severity.WARNING,
            f"The template changes upper and lower case in {who}: the text has {shown[:SHOWN]!r}.",
            "Print the content as it is, without a filter such as upper or lower.",
            tokens=places,
        )
    elif message.reasoning is None or case.rendered.method == "provenance":
        known = message.role in _AS_DATA or "</think>" in said
        yield Finding(
            "content-altered",
            Severity.INFO if known else Severity.WARNING,
            f"The template prints {who} otherwise than it is written, or only a part of it: the "
            f"text has {shown[:SHOWN]!r}.",
            "Compare the row with its rendered text; print message.content as it is if that "
            "was not meant.",
            tokens=places,
        )


def _squeezed(text: str) -> str:
    return "".join(text.split())


def tools_dropped(case: Case) -> Found:
    text = case.rendered.text
    calls = [call for message in case.example.messages for call in message.tool_calls]
    lost = [call.name for call in calls if call.name not in text]
    if lost:
        yield Finding(
            "tool-calls-dropped",
            Severity.WARNING,
            f"The template does not print the call of {lost[0]!r}: the model cannot learn to make "
            "it.",
            "Choose a template that prints tool_calls, such as the tokenizer's own.",
        )
    names = [_name(dict(tool)) for tool in case.example.tools]
    if names and not any(name in text for name in names):
        yield Finding(
            "tools-dropped",
            Severity.WARNING,
            f"The row offers tools ({', '.join(names)[:SHOWN]}), and the template prints none of "
            "them: the model would call what it has never been told of.",
            "Choose a template that prints tools, such as the tokenizer's own.",
        )


def _name(tool: dict[str, object]) -> str:
    function = tool.get("function", tool)
    return str(function.get("name", "")) if isinstance(function, dict) else ""


def reasoning_dropped(case: Case) -> Found:
    printed = _squeezed(case.rendered.text)
    turns = [i for i, it in enumerate(case.example.messages) if it.role == "assistant"]
    for index in reversed(turns):  # the last answer is the gravest case, and must not be hidden
        reasoning = case.said(index).reasoning
        if reasoning and _squeezed(reasoning) not in printed:
            last = index == turns[-1]
            yield Finding(
                "reasoning-dropped",
                Severity.WARNING if last else Severity.INFO,
                f"The template does not print the reasoning of message {index + 1}: "
                + ("the model learns to answer without it." if last else "it is an earlier turn."),
                "Choose a template that prints reasoning_content, if the model shall reason."
                if last
                else "Nothing has to be done: reasoning models are asked that way, too.",
            )
            return


def date_printed(case: Case) -> Found:
    if "strftime_now" not in case.template.source:
        return
    prompt = case.trained_turns[0][1] if case.trained_turns else len(case.rendered.text)
    yield Finding(
        "date-in-prompt",
        Severity.INFO,
        "The template may print today's date: a row that is encoded on another day has other "
        "tokens, and the model is asked with the day on which it is asked.",
        "Nothing has to be done; set date_string in the rows if runs must repeat exactly.",
        tokens=_dates(case, prompt),
    )


def _dates(case: Case, until: int) -> tuple[int, ...]:
    found: list[int] = []
    for pattern in ("%d %b %Y", "%Y-%m-%d", "%B %d, %Y", "%d %B %Y"):
        date = datetime.now().strftime(pattern)
        at = case.rendered.text.find(date, 0, until)
        if at >= 0:
            found += case.positions(at, at + len(date))
    return tuple(dict.fromkeys(found))
