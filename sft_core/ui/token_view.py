"""Tokens and texts as the page shows them: values for the views "tokens" and "text"."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any, Final

from sft_core.tokenizer import Tokenizer
from sft_core.types import Encoded, Reason, Token
from sft_core.ui.look import Look

NAMES: Final[Mapping[Reason, str]] = {
    Reason.ANSWER: "answer",
    Reason.END_OF_TURN: "end of turn",
    Reason.WHOLE_TEXT: "trained with all",
    Reason.PROMPT: "prompt",
    Reason.MARKUP: "markup",
    Reason.EARLIER_TURN: "earlier answer",
    Reason.EXCLUDED: "excluded by weight",
    Reason.END_NOT_TRAINED: "end, not trained",
    Reason.UNTAGGED: "outside the tags",
    Reason.PADDING: "padding",
    Reason.FIRST_TOKEN: "first token",
}
_ORDER: Final = tuple(Reason)


def tokens_value(seen: Look) -> dict[str, Any]:
    """What the view "tokens" shows; the error's sentence where there are no tokens to show."""
    if seen.encoded is None or seen.tokenizer is None or seen.rendered is None:
        return {"error": str(seen.error)}
    encoded, tokenizer = seen.encoded, seen.tokenizer
    added = [tokenizer.token_to_id(text) for text in seen.added]
    return {
        "tokens": [_row(token, tokenizer) for token in encoded.tokens],
        "dropped": [_row(token, tokenizer) for token in encoded.dropped],
        "reasons": [
            {
                "key": reason.value,
                "name": NAMES[reason],
                "sentence": reason.sentence,
                "trained": reason.trained,
            }
            for reason in _ORDER
        ],
        "roles": list(seen.rendered.roles),
        "added": [id for id in added if id is not None],
        "forged": list(encoded.forged),
        "cut": seen.cut,
        "key": fingerprint(encoded),
        "title": seen.example.id,
        **_note(seen),
    }


def fingerprint(encoded: Encoded) -> int:
    """Tells whether something that speaks of tokens by position speaks of these."""
    return zlib.crc32(repr((encoded.ids, encoded.offsets, encoded.dropped)).encode())


def _row(token: Token, tokenizer: Tokenizer) -> list[Any]:
    spelled = tokenizer.id_to_bytes(token.id)
    return [
        tokenizer.id_to_text(token.id),
        token.id,
        _ORDER.index(token.reason),
        token.start,
        token.end,
        token.owner,
        spelled.hex(" ") if spelled else "",
    ]


def _note(seen: Look) -> dict[str, str]:
    """A line above the strip: what a person should know before reading it."""
    if seen.error is not None:
        return {"note": str(seen.error), "noteLevel": "error"}
    if seen.added:
        return {
            "note": f"{_list(seen.added)}: not in this tokenizer's vocabulary, added as "
            f"{'one new token' if len(seen.added) == 1 else 'new tokens'} and shown in italics."
        }
    if seen.missing:
        return {
            "note": f"{_list(seen.missing)}: plain text to this tokenizer, several tokens each."
        }
    return {}


def _list(names: tuple[str, ...]) -> str:
    return ", ".join(names)


def text_value(seen: Look) -> dict[str, Any]:
    """What the view "text" shows: the training text by region, the generation prompt, the cut."""
    if seen.rendered is None or seen.encoded is None:
        return {"error": str(seen.error)}
    text = seen.rendered.text
    return {
        "segments": [
            [text[span.start : span.end], span.region.value, span.start]
            for span in seen.rendered.spans
            if span.end > span.start
        ],
        "cut": seen.answer_start,
        "prompt": seen.prompt,
        **_agreement(seen),
    }


def _agreement(seen: Look) -> dict[str, str]:
    """Whether generation sends what training showed before the answer, in words (law 2)."""
    cut, at = seen.cut, seen.differs_at
    if cut is None or not seen.prompt_ids:
        return {"sentence": "There is no answer here, so there is nothing to cut.", "level": "info"}
    unopened = {"missing-generation-prompt", "unused-generation-prompt"}
    if at is None and any(finding.code in unopened for finding in seen.findings):
        return {
            "sentence": f"Generation sends the {cut} tokens before the answer and nothing that "
            "opens the assistant's turn.",
            "level": "error",
        }
    if at is None:
        return {"sentence": f"Generation sends exactly the {cut} tokens before the answer."}
    return {
        "sentence": "Generation does not send what training showed before the answer: they "
        f"differ from token {at} on.",
        "level": "error",
    }
