"""Figures over a data set: counted once more by hand, and unmoved by bad rows."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from sft_core.audit import NAMED_ROWS, SHARES, Bar, audit, progress
from sft_core.config import MaskPolicy
from sft_core.encode import encode
from sft_core.sandbox import render
from sft_core.tasks import six_tasks
from sft_core.templates import PRESETS
from sft_core.tokenizer import load_tokenizer
from sft_core.types import Example, Message, Template

INST = Template("inst-resp", PRESETS["inst-resp"].source)
POLICY = MaskPolicy()


def row(id: str, question: str, answer: str, weight: int | None = None) -> Example:
    return Example(id, (Message("user", question), Message("assistant", answer, weight=weight)))


# With the byte tokenizer: 1 + question + 1 + answer + 1 tokens, answer + 1 of them trained.
ROWS = (
    row("short", "Hi", "Yes"),
    row("long", "H" * 30, "Y" * 10),
    row("cut", "H" * 45, "no room"),
    row("excluded", "Hi", "Yes", weight=0),
    row("forged", "<END>", "ok"),
    row("broken", "half \ud83d", "ok"),
)


def test_figures_are_those_of_the_rows() -> None:
    found = audit(ROWS, INST, load_tokenizer("bytes"), POLICY, max_length=40)
    assert (found.rows, found.failed) == (6, 1)
    assert found.failures[0].row == "broken"
    assert "half a character" in found.failures[0].message
    lengths = {"short": 8, "long": 43, "cut": 55, "excluded": 8, "forged": 10}
    assert found.tokens == 8 + 40 + 40 + 8 + 10
    assert found.trained_tokens == 4 + 8 + 0 + 0 + 3
    assert found.trained_share == pytest.approx(15 / 106)
    assert found.mean_length == pytest.approx(106 / 5)
    assert (found.longest, found.max_length) == (55, 40)
    assert (found.truncated_rows, found.dropped_tokens) == (2, 3 + 15)
    assert found.dropped_trained_tokens == 3 + 8
    assert [(it.row, it.tokens, it.trained, it.lost) for it in found.truncated] == [
        ("long", 43, 8, 3),
        ("cut", 55, 0, 8),
    ]
    assert found.untrained == ("cut", "excluded")
    assert found.untrained_rows == 2
    assert (found.forged, found.forged_rows) == (("forged",), 1)
    assert [it.row for it in found.worst] == ["cut", "excluded", "long", "forged", "short"]
    assert sum(bar.rows for bar in found.lengths) == len(lengths)
    for bar in found.lengths:
        assert bar.rows == sum(bar.start <= length < bar.stop for length in lengths.values())
    assert [bar.rows for bar in found.shares] == [2, 0, 1, 1, 0, 1, 0, 0, 0, 0]


def test_bars_are_few_and_round() -> None:
    rows = [row(str(n), "H" * n, "Y") for n in range(0, 4000, 37)]
    found = audit(rows, INST, load_tokenizer("bytes"), POLICY)
    assert found.lengths[0].start == 0
    assert {bar.stop - bar.start for bar in found.lengths} == {200}
    assert found.lengths[-1].start <= found.longest < found.lengths[-1].stop
    assert found.truncated_rows == 0
    assert len(found.shares) == SHARES
    assert found.shares[-1].stop == 1.0


def test_a_row_that_is_trained_almost_whole_stands_in_the_last_bar() -> None:
    empty = Template("only", "{% for m in messages %}{{ m.content }}{% endfor %}")
    alone = Example("x", (Message("user", ""), Message("assistant", "Yes" * 50)))
    found = audit([alone], empty, load_tokenizer("bytes"), POLICY)
    assert found.shares[-1] == Bar(0.9, 1.0, 1)


def test_the_built_in_rows_agree_with_encoding_them_one_by_one() -> None:
    train, _ = six_tasks()
    tokenizer = load_tokenizer("bytes")
    found = audit(train, INST, tokenizer, POLICY)
    encoded = [
        encode(render(INST, example, tokenizer.special_tokens), tokenizer, POLICY)
        for example in train
    ]
    assert found.rows == len(train)
    assert found.tokens == sum(map(len, encoded))
    assert found.trained_tokens == sum(one.trained for one in encoded)
    assert found.failed == found.untrained_rows == found.truncated_rows == 0
    shares = [one.trained / len(one) for one in encoded]
    assert found.worst[0].row == train[shares.index(min(shares))].id
    assert len(found.worst) == NAMED_ROWS


def test_figures_grow_while_rows_stream_in() -> None:
    taken = 0

    def rows() -> Iterator[Example]:
        nonlocal taken
        for n in range(1000):
            taken += 1
            yield row(str(n), "Hi", "Yes")

    stream = progress(rows(), INST, load_tokenizer("bytes"), POLICY, every=200)
    first = next(stream)
    assert first.rows == 200
    assert taken < 400
    rest = list(stream)
    assert [it.rows for it in rest] == [400, 600, 800, 1000]
    assert rest[-1].tokens == 8000


def test_no_rows_are_figures_too() -> None:
    found = audit([], INST, load_tokenizer("bytes"), POLICY)
    assert (found.rows, found.trained_share, found.mean_length) == (0, 0.0, 0.0)
    assert found.lengths == found.shares == ()


def test_a_template_that_fails_on_some_rows_fails_for_those() -> None:
    picky = Template(
        "picky",
        "{% if messages|length > 2 %}{{ raise_exception('too many turns') }}{% endif %}"
        "{% for m in messages %}{{ m.role }}: {{ m.content }}<END>\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}",
    )
    long = Example("long", (*ROWS[0].messages, Message("user", "more")))
    found = audit([ROWS[0], long, ROWS[1]], picky, load_tokenizer("bytes"), POLICY)
    assert (found.rows, found.failed) == (3, 1)
    assert found.failures[0].row == "long"
    assert "too many turns" in found.failures[0].message


def test_json_holds_every_figure() -> None:
    found = audit(ROWS, INST, load_tokenizer("bytes"), POLICY, max_length=40)
    values = json.loads(found.to_json())
    assert values["trained_share"] == found.trained_share
    assert values["truncated"][0] == {"row": "long", "tokens": 43, "trained": 8, "lost": 3}
    assert values["lengths"][0]["rows"] == found.lengths[0].rows
    assert values["failures"][0]["row"] == "broken"
