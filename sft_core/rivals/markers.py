"""The role markers of a template, as a person reads them off a printed conversation: what stands
before what the user says, and before what the assistant says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sft_core import sandbox
from sft_core.types import Example, Message, Rendered, Template, TemplateError

# Unlike anything that a template prints, and unlike each other in any case.
_WORDS: Final = ("Oqxo", "Ubzu", "Iwki", "Ejpe")
_ROLES: Final = ("user", "assistant") * 2


class CannotWorkError(Exception):
    """A method has nothing to go by; ``str(error)`` is the sentence that says why."""


def markers(template: Template, special_tokens: Mapping[str, str]) -> tuple[str, str]:
    """-> (what opens a user turn, what opens an answer). Raises CannotWorkError where the template
    prints nothing of the kind."""
    headers = _headers(template, special_tokens)
    user = _visible(_common_end(headers[0::2]))
    answer = _visible(_common_end(headers[1::2]))
    if not user:
        raise CannotWorkError(
            "The template prints nothing of its own before a user turn, so there is no marker to "
            "search for."
        )
    if not answer:
        raise CannotWorkError(
            "The template prints nothing of its own before an answer, so there is no marker to "
            "search for."
        )
    return user, answer


def _headers(template: Template, special_tokens: Mapping[str, str]) -> list[str]:
    """What stands before each turn of a probe: two exchanges, or one where the template takes no
    more."""
    turns = tuple(Message(role, word) for role, word in zip(_ROLES, _WORDS, strict=True))
    for messages in (turns, (Message("system", "-"), *turns), turns[:2]):
        try:
            rendered = sandbox.render(template, Example("probe", messages), special_tokens)
        except TemplateError:
            continue
        found = _before_words(rendered, len(messages) % 2)
        if len(found) >= 2:
            return found
    raise CannotWorkError(
        "The template does not print a plain conversation word for word, so no marker can be read "
        "off it."
    )


def _before_words(rendered: Rendered, first: int) -> list[str]:
    """For each word that is found in turn: what its own turn prints before it, else everything
    between it and the word before. ``first`` is the message of the first word."""
    text = rendered.text.casefold()
    if len(text) != len(rendered.text):
        text = rendered.text
    found: list[str] = []
    behind = 0
    for number, word in enumerate(_WORDS):
        at = text.find(word.casefold(), behind)
        if at < 0:
            break
        own = [span.start for span in rendered.spans if span.message == number + first]
        # All that is printed before the first word counts: its marker may double as BOS.
        start = max(behind, min(own, default=at)) if number else 0
        header = _behind_any_word(rendered.text[start:at])
        # What closes a question, such as [/INST], is all that some print before an answer.
        between = rendered.text[behind:at] if number else header
        found.append(header or _behind_any_word(between))
        behind = at + len(word)
    return found


def _behind_any_word(text: str) -> str:
    """The rest of ``text`` behind the last word of the probe in it."""
    ends = [
        at + len(word) for word in _WORDS if (at := text.casefold().rfind(word.casefold())) >= 0
    ]
    return text[max(ends, default=0) :]


def _common_end(texts: list[str]) -> str:
    shortest = min(texts, key=len, default="")
    length = 0
    while length < len(shortest) and all(it[-length - 1] == shortest[-length - 1] for it in texts):
        length += 1
    return shortest[len(shortest) - length :]


def _visible(marker: str) -> str:
    """Without the line breaks before it, which belong to what stands there."""
    return marker.lstrip() or marker
