"""Sources are loaded with their bad rows named, split alike everywhere, and kept whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sft_core import data, embedded
from sft_core.config import DataConfig
from sft_core.types import DataError, RowError

ROWS = [{"prompt": f"question {at}", "response": f"answer {at}"} for at in range(20)]


def write(path: Path, rows: list[object]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_good_rows_go_on_and_bad_ones_are_named(tmp_path: Path) -> None:
    rows = [ROWS[0], {"prompt": "alone"}, 4, ROWS[1]]
    loaded = data.load(DataConfig(write(tmp_path / "a.jsonl", rows)))
    assert [example.answer for example in loaded.examples] == ["answer 0", "answer 1"]
    assert [bad.row for bad in loaded.bad] == ["row-2", "row-3"]
    assert "row-2 has no response" in loaded.bad[0].message
    assert loaded.columns == {"prompt": "prompt", "response": "response"}


def test_a_set_without_one_good_row_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"No row of a\.jsonl can be used"):
        data.load(DataConfig(write(tmp_path / "a.jsonl", [{"prompt": "x", "response": None}])))


@pytest.mark.parametrize("rows", [[], [1, 2], [{}]])
def test_rows_without_fields_are_refused(rows: list[object]) -> None:
    with pytest.raises(DataError):
        data.read_rows(rows)


def test_the_row_limit_holds(tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", [*ROWS])
    assert len(data.load(DataConfig(source, rows=3)).examples) == 3
    assert len(data.load(DataConfig(source), max_rows=4).examples) == 4
    assert len(data.load(DataConfig(source, rows=9), max_rows=4).examples) == 4


def test_rows_with_the_same_id_are_told_apart() -> None:
    rows = [{"id": "x", "prompt": "a", "response": "b"}] * 2
    assert [example.id for example in data.read_rows(rows).examples] == ["x", "x (row-2)"]


def test_an_id_made_for_a_repeated_one_is_not_taken_either() -> None:
    rows = [{"id": id, "prompt": "a", "response": "b"} for id in ("x", "x (row-3)", "x")]
    assert len({example.id for example in data.read_rows(rows).examples}) == 3


@pytest.mark.parametrize("source", ["x" * 300, "a/" * 3000, "~nobody/rows", "what\nis this?"])
def test_what_can_be_no_source_is_said(source: str) -> None:
    with pytest.raises(DataError, match="neither a built-in set, nor a file"):
        data.load(DataConfig(source))


def test_fewer_rows_of_the_six_tasks_are_watched_on_their_own_facts() -> None:
    loaded = data.load(DataConfig("six-tasks", rows=24))
    assert len(loaded.examples) == 24
    watched = data.seen_facts(loaded.validation)
    assert watched
    assert watched <= data.seen_facts(loaded.examples)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is a folder"):
        data.load(DataConfig(str(tmp_path)))


def test_a_split_is_the_same_everywhere() -> None:
    loaded = data.read_rows(ROWS)
    parts = data.split(loaded, DataConfig("x", eval_rows=3, test_rows=4, seed=7))
    assert [len(part) for part in (parts.train, parts.eval, parts.test)] == [13, 3, 4]
    assert [example.id for example in parts.test] == EXPECTED_TEST
    ids = {example.id for part in (parts.train, parts.eval, parts.test) for example in part}
    assert len(ids) == 20
    other = data.split(loaded, DataConfig("x", eval_rows=3, test_rows=4, seed=8))
    assert other.test != parts.test


EXPECTED_TEST = ["row-9", "row-7", "row-11", "row-4"]


def test_too_few_rows_to_train_on_are_refused() -> None:
    with pytest.raises(DataError, match="all of them are held out"):
        data.split(data.read_rows(ROWS), DataConfig("x", test_rows=20))


@pytest.mark.parametrize(("rows", "wanted", "taken"), [(4, 16, 0), (12, 16, 2), (20, 10, 10)])
def test_a_small_set_keeps_most_of_its_rows_to_train_on(rows: int, wanted: int, taken: int) -> None:
    parts = data.split(data.read_rows(ROWS[:rows]), DataConfig("x", eval_rows=wanted))
    assert (len(parts.train), len(parts.eval)) == (rows - taken, taken)


def test_the_six_tasks_keep_their_160_and_40() -> None:
    config = DataConfig("six-tasks")
    loaded = data.load(config)
    parts = data.split(loaded, config)
    assert (len(parts.train), len(parts.eval), len(parts.test)) == (160, 16, 40)
    tested = {example.id for example in parts.test}
    assert not tested & {example.id for example in (*parts.train, *parts.eval)}


def test_the_parrots_rows_come_from_its_files_and_keep_apart() -> None:
    loaded = data.load(DataConfig("parrot"))
    assert (len(loaded.examples), loaded.bad, loaded.format) == (160, (), "messages")
    assert len(loaded.held_out) >= 60
    parts = data.split(loaded, DataConfig("parrot", eval_rows=len(loaded.validation)))
    assert parts.train == loaded.examples
    assert parts.eval == loaded.validation != ()
    assert parts.test == loaded.held_out
    every = [*parts.train, *parts.eval, *parts.test]
    assert len({example.id for example in every}) == len(every)
    assert all(example.category and example.fact for example in every)


def test_what_the_parrot_is_watched_and_tested_on_was_not_trained() -> None:
    loaded = data.load(DataConfig("parrot"))
    trained = data.seen_facts(loaded.examples)
    assert not trained & data.seen_facts((*loaded.validation, *loaded.held_out))


def test_fewer_rows_of_the_parrot_keep_all_that_it_is_measured_by() -> None:
    whole, some = (data.load(DataConfig("parrot", rows=rows)) for rows in (None, 24))
    assert some.examples == whole.examples[:24]
    assert (some.held_out, some.validation) == (whole.held_out, whole.validation)


@pytest.mark.parametrize("name", ["parrot-style", "parrot-refusals"])
def test_the_parrots_other_rows_are_split_as_rows_of_any_file(name: str) -> None:
    loaded = data.load(DataConfig(name))
    parts = data.split(loaded, DataConfig(name, eval_rows=4))
    assert len(parts.train) == len(loaded.examples) - 4
    assert parts.test == loaded.held_out != ()
    assert not loaded.bad


@pytest.mark.parametrize("name", list(embedded.ROWS))
def test_rows_that_this_checkout_lacks_are_named(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "FOLDER", tmp_path)
    with pytest.raises(DataError, match=rf"lacks examples/parrot/{embedded.ROWS[name].train}"):
        data.load(DataConfig(name))
    assert data.load(DataConfig("six-tasks")).examples


def test_every_built_in_set_has_a_sentence_and_loads() -> None:
    for name, sentence in data.BUILT_IN.items():
        assert sentence.endswith(".")
        assert data.load(DataConfig(name)).examples


def test_examples_are_kept_whole(tmp_path: Path) -> None:
    call = {"id": "c", "function": {"name": "f", "arguments": "{}"}}
    turns = [
        {"role": "user", "content": [{"type": "text", "text": "a"}], "name": "Ann"},
        {"role": "assistant", "content": "", "tool_calls": [call], "weight": 0},
        {"role": "tool", "content": "{{x}}\u2028", "tool_call_id": "c"},
        {"role": "assistant", "content": "b", "reasoning_content": "why"},
    ]
    rows = [
        {
            "id": "m",
            "messages": turns,
            "category": "c",
            "fact": "f",
            "tools": [{"name": "f"}],
            "documents": [{"text": "d"}],
            "chat_template_kwargs": {"enable_thinking": False},
        },
    ]
    alpaca = [{"instruction": "i", "input": "n", "output": "o"}]
    for given in (rows, alpaca):
        examples = data.read_rows(given).examples
        data.write_jsonl(examples, tmp_path / "kept.jsonl")
        assert data.load(DataConfig(str(tmp_path / "kept.jsonl"))).examples == examples


def test_columns_are_listed_where_no_format_fits(tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", [{"a": "x", "b": "y"}])
    assert data.columns(DataConfig(source)) == ("a", "b")
    with pytest.raises(DataError, match="a, b"):
        data.load(DataConfig(source))
    mapped = data.load(DataConfig(source, columns={"prompt": "a", "response": "b"}))
    assert mapped.examples[0].answer == "y"


def test_facts_are_those_that_training_names() -> None:
    rows = [{"prompt": "p", "response": "r", "fact": fact} for fact in ("x", "y", None)]
    assert data.seen_facts(data.read_rows(rows).examples) == {"x", "y"}


def test_a_row_error_names_its_row() -> None:
    with pytest.raises(RowError) as caught:
        data.to_example({"prompt": "x"}, "prompt-response", {"prompt": "prompt"}, "row-9")
    assert caught.value.row == "row-9"
