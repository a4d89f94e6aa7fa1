"""Reasons by runs, as most rows get them, are those that each token would get by itself."""

from __future__ import annotations

import random
from contextlib import suppress

import pytest
import tokenizers
from tokenizers import AddedToken

from sft_core import encode as encode_module
from sft_core import templates
from sft_core.config import MaskPolicy
from sft_core.encode import encode_many
from sft_core.reasons import stretches
from sft_core.tokenizer import Tokenizer
from sft_core.tokenizer.pieces import Pieces
from sft_core.types import (
    IGNORE_INDEX,
    Encoded,
    Example,
    Message,
    Reason,
    Rendered,
    Template,
    TemplateError,
)
from tests.test_encode import (
    ASSISTANT,
    EVERYTHING,
    LAST,
    NO_END,
    conversation,
    merging,
    preset,
    render,
)
from tests.trained_tokenizers import FAMILIES, byte_level


def slowly(rendered: Rendered, encoded: Encoded, policy: MaskPolicy, tokenizer: Tokenizer) -> None:
    """Checks every token of a row by itself, from where it stands in the text."""
    plan = stretches(rendered, policy)
    first = (
        Reason.ANSWER,
        Reason.END_OF_TURN,
        Reason.EXCLUDED,
        Reason.END_NOT_TRAINED,
        Reason.WHOLE_TEXT,
    )
    for index, token in enumerate((*encoded.tokens, *encoded.dropped)):
        start, end = token.start, token.end
        if token.id in tokenizer.added_ids:
            text = rendered.text[start:end]
            start += len(text) - len(text.lstrip())
            end = start + 1
        under = [it for it in plan if it.start < max(end, start + 1) and it.end > start]
        under = under or plan[-1:]
        ranked = [it for reason in first for it in under if it.reason is reason]
        chosen = (ranked or under)[0]
        expected = chosen.reason
        if index == 0 and expected.trained:
            expected = Reason.FIRST_TOKEN
        assert (token.reason, token.owner) == (expected, chosen.owner), (index, token, plan)
    pairs = zip(encoded.ids, encoded.reasons, strict=True)
    assert encoded.labels == tuple(id if why.trained else IGNORE_INDEX for id, why in pairs)


def eating() -> Tokenizer:
    """Byte-level BPE with added tokens that take the whitespace around them."""
    backend = tokenizers.Tokenizer.from_str(byte_level().to_json())
    backend.add_special_tokens(
        [AddedToken(text, lstrip=True, rstrip=True, normalized=False) for text in ("<a>", "<b>")]
    )
    return Tokenizer("eating", backend, byte_level().special_tokens)


PIECES = ("Hi", " there", "\n", "  ", "Rome.", "<|im_end|>", "<|im_start|>", "</s>", " <a> ", "<b>")
ODD = ("e\u0301", "\u4f60\u597d", "\U0001f600", "\u00a0", "\u1e9e", "\x04")
LAYOUTS = [
    preset("chatml"),
    preset("plain"),
    preset("llama3"),
    Template("eaten", "{% for m in messages %}{{ m.role }} <a>\n{{ m.content }} <b> {% endfor %}"),
    Template("bare", "{% for m in messages %}{{ m.content }}{% endfor %}"),
]


def random_rows(seed: int, count: int) -> list[Rendered]:
    chance = random.Random(seed)
    made: list[Rendered] = []
    while len(made) < count:
        pieces = PIECES + ODD if chance.random() < 0.4 else PIECES
        turns = chance.choice((2, 2, 3, 4, 6))
        roles = ("user", "assistant") if turns % 2 == 0 else ("system", "user", "assistant")
        row = Example(
            "row",
            tuple(
                Message(
                    roles[at % len(roles)],
                    "".join(chance.choices(pieces, k=chance.randint(0, 7))),
                    weight=chance.choice((None, None, 0)) if at else None,
                )
                for at in range(turns)
            ),
        )
        with suppress(TemplateError):  # where a random row says nothing at all
            made.append(templates.render(chance.choice(LAYOUTS), row, byte_level().special_tokens))
    return made


@pytest.mark.parametrize("family", [*FAMILIES, "eating", "merging"])
def test_the_fast_way_gives_every_token_what_the_slow_way_gives(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = {
        "eating": eating,
        "merging": lambda: merging("Hi", ".<", "o<", ">\u0120", "<|", "\u010aa"),
    }
    tokenizer = others[family]() if family in others else FAMILIES[family]()
    monkeypatch.setattr(encode_module, "ROWS_AT_ONCE", 7)
    rows = random_rows(len(family), 60)
    for policy in (ASSISTANT, LAST, EVERYTHING, NO_END):
        for length in (None, 9):
            fast = list(encode_many(rows, tokenizer, policy, length))
            with monkeypatch.context() as patched:
                patched.setattr(Pieces, "before", lambda *_: None)
                slow = list(encode_many(rows, tokenizer, policy, length))
            for row, one, other in zip(rows, fast, slow, strict=True):
                if isinstance(one, Encoded):
                    assert one == other
                    slowly(row, one, policy, tokenizer)
                else:
                    assert str(one) == str(other)


def test_most_rows_go_the_fast_way(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[object] = []
    before = Pieces.before

    def watched(pieces: Pieces, places: list[int]) -> list[int] | None:
        found.append(before(pieces, places))
        return found[-1]

    monkeypatch.setattr(Pieces, "before", watched)
    for family in ("byte-level", "byte-level-nfc", "byte-fallback"):
        rows = [
            render("chatml", conversation(f"Q {n}", f"A {n}"), FAMILIES[family]()) for n in range(9)
        ]
        list(encode_many(rows, FAMILIES[family](), ASSISTANT))
    assert len(found) == 27
    assert None not in found
