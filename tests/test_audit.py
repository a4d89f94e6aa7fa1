"""Figures over a data set: counted once more by hand, and unmoved by bad rows."""

from __future__ import annotations

import csv
import io
import json
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sft_core.audit import (
    NAMED_ROWS,
    SHARES,
    Bar,
    FigureTable,
    Repeats,
    Row,
    RowTable,
    audit,
    progress,
)
from sft_core.config import MaskPolicy, TrainConfig
from sft_core.dealing import layouts
from sft_core.encode import encode
from sft_core.sandbox import render
from sft_core.tasks import six_tasks
from sft_core.templates import PRESETS
from sft_core.tokenizer import load_tokenizer
from sft_core.types import Example, Message, Template, ToolCall

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
    assert [it.row for it in found.untrained] == ["cut", "excluded"]
    assert found.untrained_rows == 2
    assert [(it.row, it.forged) for it in found.forged] == [("forged", 5)]
    assert found.forged_rows == 1
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


def test_layouts_are_those_of_the_rows_that_training_would_use() -> None:
    train = TrainConfig(batch_size=2)
    found = audit(ROWS, INST, load_tokenizer("bytes"), POLICY, max_length=40, train=train)
    used = [8, 40, 10]  # "short", "long" cut to the limit, "forged"; the others train nothing
    assert found.layouts == layouts(used, 2, 40, seed=train.seed)
    *growing, last = progress([ROWS[0]] * 5, INST, load_tokenizer("bytes"), POLICY, every=2)
    assert [it.layouts for it in growing] == [None, None]
    assert last.layouts is not None
    assert (last.layouts.window, last.layouts.windows) == (8, 5)


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
    long = values["truncated"][0]
    assert [long[name] for name in ("row", "tokens", "kept", "trained", "lost")] == [
        "long",
        43,
        40,
        8,
        3,
    ]
    assert values["lengths"][0]["rows"] == found.lengths[0].rows
    assert values["failures"][0]["row"] == "broken"


# -- what a length limit keeps ----------------------------------------------------------------


def test_what_other_limits_would_keep_is_what_they_keep() -> None:
    tokenizer = load_tokenizer("bytes")
    good = [it for it in ROWS if it.id != "broken"]
    limits = audit(good, INST, tokenizer, POLICY, max_length=40).limits
    assert 40 in {it.tokens for it in limits}
    assert limits[-1].tokens > 55
    for it in limits:
        with_it = audit(good, INST, tokenizer, POLICY, max_length=it.tokens)
        assert it.rows == with_it.rows - with_it.truncated_rows, it
        assert it.trained == with_it.trained_tokens, it


def test_a_limit_that_cuts_nothing_is_no_work_whatever_its_size() -> None:
    found = audit(ROWS[:1], INST, load_tokenizer("bytes"), POLICY, max_length=10**15)
    assert found.limits[-1].tokens == 9
    assert found.truncated_rows == 0


def test_bars_say_how_many_rows_are_longer_than_the_limit() -> None:
    rows = [row(str(n), "H" * n, "Y") for n in range(60)]  # n + 4 tokens
    found = audit(rows, INST, load_tokenizer("bytes"), POLICY, max_length=31)
    assert sum(bar.over for bar in found.lengths) == found.truncated_rows == 32
    assert all(bar.over == 0 for bar in found.lengths if bar.stop <= 32)
    assert all(bar.over == bar.rows for bar in found.lengths if bar.start > 31)


# -- repeats ----------------------------------------------------------------------------------


def repeats(*rows: Example, held_out: tuple[Example, ...] = ()) -> dict[str, list[tuple[str, str]]]:
    found = audit(rows, INST, load_tokenizer("bytes"), POLICY, held_out=held_out)
    named = {
        "same": [(it.row, it.other) for it in found.duplicates],
        "conflict": [(it.row, it.other) for it in found.conflicts],
        "leaked": [(it.row, it.other) for it in found.leaked],
    }
    counts = (found.duplicate_rows, found.conflict_rows, found.leaked_rows)
    assert counts == tuple(len(it) for it in named.values())
    return {name: pairs for name, pairs in named.items() if pairs}


def test_repeats_are_told_from_other_answers_to_the_same_prompt() -> None:
    found = repeats(
        row("a", "Hi", "Yes"),
        row("b", "Hi", "No"),
        row("c", "Hi", "Yes", weight=0),
        row("d", "Ho", "Yes"),
        row("e", "Hi", "No"),
        row("f", "Hi", "yes"),
    )
    assert found == {"same": [("c", "a"), ("e", "b")], "conflict": [("b", "a"), ("f", "a")]}


def test_the_border_of_turns_counts() -> None:
    one = Example("one", (Message("user", "ab"), Message("user", "c"), Message("assistant", "d")))
    two = Example("two", (Message("user", "a"), Message("user", "bc"), Message("assistant", "d")))
    quoted = "a'), ('user', 'b"
    assert repeats(one, two, row("x", quoted, "d"), row("y", "a", "d")) == {}


def test_what_a_model_does_not_read_makes_no_difference_and_what_it_reads_does() -> None:
    def call(id: str, arguments: str) -> Example:
        asks = Message("assistant", tool_calls=(ToolCall("f", arguments, id=f"call-{id}"),))
        return Example(id, (Message("user", "Hi"), asks), category=id)

    assert repeats(call("a", "{}"), call("b", "{}"), call("c", '{"x": 1}')) == {
        "same": [("b", "a")],
        "conflict": [("c", "a")],
    }
    plain = row("a", "Hi", "Yes")
    with_tool = replace(plain, id="b", tools=({"name": "f"},))
    with_date = replace(plain, id="c", extra={"date": "today"})
    assert repeats(plain, with_tool, with_date) == {}


def test_rows_that_ask_nothing_share_no_prompt() -> None:
    alone = [Example(str(n), (Message("assistant", f"Story {n}"),)) for n in range(3)]
    unanswered = [Example(f"u{n}", (Message("user", f"Q{n}"),)) for n in range(3)]
    again = replace(alone[0], id="again")
    assert repeats(*alone, *unanswered, again) == {"same": [("again", "0")]}


def test_an_object_that_comes_twice_is_a_repeat() -> None:
    one = row("a", "Hi", "Yes")
    assert repeats(one, one) == {"same": [("a", "a")]}


def test_prompts_of_held_out_rows_are_found_also_on_the_way() -> None:
    held_out = (row("h", "Hi", "Yes"), Example("talks", (Message("assistant", "Hello"),)))
    turns = (Message("user", "Hi"), Message("assistant", "No"))
    longer = Example("longer", (*turns, Message("user", "Why?"), Message("assistant", "So.")))
    later = Example("later", (Message("system", "Be kind."), *turns))
    found = repeats(
        row("other", "Ho", "Yes"), row("a", "Hi", "No"), longer, later, held_out=held_out
    )
    assert found == {"leaked": [("a", "h"), ("longer", "h")]}


def test_repeats_beyond_the_named_ones_are_counted() -> None:
    rows = [row(str(n), "Hi", "Yes") for n in range(50)]
    found = audit(rows, INST, load_tokenizer("bytes"), POLICY)
    assert found.duplicate_rows == 49
    assert len(found.duplicates) == NAMED_ROWS


def test_the_built_in_rows_hold_no_repeat_and_leak_nothing() -> None:
    train, held_out = six_tasks()
    found = audit(train, INST, load_tokenizer("bytes"), POLICY, held_out=held_out)
    assert (found.duplicate_rows, found.leaked_rows, found.held_out_rows) == (0, 0, 40)


def test_rows_that_fail_are_still_looked_at_for_repeats() -> None:
    found = audit([ROWS[-1], ROWS[-1]], INST, load_tokenizer("bytes"), POLICY)
    assert (found.rows, found.failed, found.done, found.duplicate_rows) == (2, 2, 0, 1)
    assert found.lengths == found.limits == found.worst == ()


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xyz")), max_size=12))
def test_repeats_agree_with_comparing_every_pair(said: list[tuple[str, str]]) -> None:
    seen = Repeats()
    for n, (question, answer) in enumerate(said):
        found = seen.add(row(str(n), question, answer))
        earlier = said[:n]
        same = earlier.index((question, answer)) if (question, answer) in earlier else None
        assert found.duplicate_of == (None if same is None else str(same))
        shared = [at for at, it in enumerate(earlier) if it[0] == question]
        wanted = str(shared[0]) if shared and same is None else None
        assert found.same_prompt_as == wanted


# -- as CSV -----------------------------------------------------------------------------------


def test_a_line_for_each_row_sums_up_to_the_figures() -> None:
    file = io.StringIO(newline="")
    table = RowTable(file)
    rows = (*ROWS, row("again", "Hi", "Yes"), row("other", "Hi", "No"))
    tokenizer = load_tokenizer("bytes")
    *_, found = progress(
        rows, INST, tokenizer, POLICY, 40, held_out=[row("h", "H" * 45, "")], each=table.add
    )
    lines = list(csv.DictReader(io.StringIO(file.getvalue())))
    assert [line["id"] for line in lines] == [it.id for it in rows]
    by_id = {line["id"]: line for line in lines}
    good = [line for line in lines if not line["error"]]
    assert sum(int(line["kept"]) for line in good) == found.tokens
    assert sum(int(line["trained"]) for line in good) == found.trained_tokens
    assert sum(int(line["lost"]) for line in good) == found.dropped_trained_tokens
    assert by_id["long"]["share"] == "0.2000"
    assert by_id["again"]["duplicate_of"] == "short"
    assert by_id["other"]["same_prompt_as"] == "short"
    assert by_id["cut"]["held_out_as"] == "h"
    assert by_id["broken"]["tokens"] == ""
    assert "half a character" in by_id["broken"]["error"]


def test_every_figure_stands_in_the_table_of_figures() -> None:
    file = io.StringIO(newline="")
    found = audit(ROWS, INST, load_tokenizer("bytes"), POLICY, max_length=40)
    FigureTable(file).add(found)
    lines = list(csv.DictReader(io.StringIO(file.getvalue())))
    values = {line["figure"]: line["value"] for line in lines if not line["stop"]}
    counts = json.loads(found.to_json())
    laid_out = {f"layout_{name}": it for name, it in counts.pop("layouts").items()}
    scalars = laid_out | {name: it for name, it in counts.items() if not isinstance(it, list)}
    assert set(values) == set(scalars)
    assert all(float(values[name]) == pytest.approx(it, rel=1e-5) for name, it in scalars.items())
    bars = [line for line in lines if line["figure"] == "length_rows"]
    assert [int(line["value"]) for line in bars] == [bar.rows for bar in found.lengths]
    limits = [line for line in lines if line["figure"] == "trained_tokens_at_limit"]
    assert [int(line["value"]) for line in limits] == [it.trained for it in found.limits]


@pytest.mark.parametrize(
    ("id", "written"),
    [
        ("=1+1", "'=1+1"),
        ("-2+3", "'-2+3"),
        ("@x", "'@x"),
        ("-5", "-5"),
        ("+1.5", "+1.5"),
        ('a,"b"\nc', 'a,"b"\nc'),
        ("\ud83d", "\\ud83d"),
    ],
)
def test_an_id_is_data_and_never_a_formula(id: str, written: str) -> None:
    file = io.StringIO(newline="")
    RowTable(file).add(Row(id))
    (line,) = csv.DictReader(io.StringIO(file.getvalue(), newline=""))
    assert line["id"] == written
    file.getvalue().encode()


def test_memory_grows_by_digests_and_not_by_texts() -> None:
    seen = Repeats()
    tracemalloc.start()
    for n in range(2000):
        seen.add(row(str(n), f"{n}" + "x" * 3000, "y" * 3000))
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert used < 2000 * 600
