"""The built-in set is dealt alike everywhere, and what it says of its facts is true."""

from __future__ import annotations

import hashlib
from collections import Counter

import pytest

from sft_core.tasks import KNOWN_FACTS, NEW_FACTS, TASKS, six_tasks, validation_rows
from sft_core.types import Example

SEEDS = (42, 0, 1, 2, 3)
CATEGORIES = {"capital", "arithmetic", "list", "summary", "code", "definition"}


def asked(row: Example) -> str:
    return row.prompt[0].text


def facts(rows: tuple[Example, ...]) -> Counter[str]:
    return Counter(str(row.fact) for row in rows)


@pytest.fixture(params=SEEDS)
def seed(request: pytest.FixtureRequest) -> int:
    return int(request.param)


def test_there_are_160_rows_to_train_on_and_40_to_be_tested_by(seed: int) -> None:
    train, test = six_tasks(seed)
    assert (len(train), len(test), len(validation_rows(seed))) == (160, 40, 24)
    for rows in (train, test, validation_rows(seed)):
        assert {row.category for row in rows} == CATEGORIES


def test_no_row_stands_twice(seed: int) -> None:
    train, test = six_tasks(seed)
    rows = (*train, *test, *validation_rows(seed))
    assert len({row.id for row in rows}) == len({asked(row) for row in rows}) == 224


def test_28_test_rows_ask_in_new_words_for_facts_of_training_and_12_for_new_ones(seed: int) -> None:
    train, test = six_tasks(seed)
    trained = facts(train)
    seen = [row for row in test if trained[str(row.fact)]]
    unseen = [row for row in test if not trained[str(row.fact)]]
    assert (len(seen), len(unseen)) == (28, 12)
    assert {row.category for row in seen} == {row.category for row in unseen} == CATEGORIES
    assert all(trained[str(row.fact)] >= 2 for row in seen)
    # What is unseen shows in no other way either: its subject stands in no training prompt.
    fact_of = {f"{task.category}: {it.key}": it for task in TASKS for it in task.facts}
    prompts = [asked(row) for row in train]
    for row in unseen:
        assert not any(fact_of[str(row.fact)].subject in prompt for prompt in prompts)


def test_the_validation_asks_for_trained_facts_that_the_test_leaves_alone(seed: int) -> None:
    train, test = six_tasks(seed)
    watched = facts(validation_rows(seed))
    assert watched.keys() <= facts(train).keys()
    assert not watched.keys() & facts(test).keys()


def test_a_fact_has_one_answer(seed: int) -> None:
    train, test = six_tasks(seed)
    answers: dict[str, str] = {}
    for row in (*train, *test, *validation_rows(seed)):
        assert answers.setdefault(str(row.fact), row.answer) == row.answer


def test_an_id_tells_fact_and_wording_apart(seed: int) -> None:
    train, test = six_tasks(seed)
    names: dict[str, str] = {}
    for row in (*train, *test, *validation_rows(seed)):
        assert names.setdefault(row.id[:-1], str(row.fact)) == row.fact
        wordings = next(task.wordings for task in TASKS if task.category == row.category)
        before, after = wordings["abcd".index(row.id[-1])].split("{}")
        assert asked(row).startswith(before)
        assert asked(row).endswith(after)


def test_the_first_rows_of_each_part_cover_all_six_tasks(seed: int) -> None:
    for rows in (*six_tasks(seed), validation_rows(seed)):
        assert {row.category for row in rows[:6]} == CATEGORIES


def test_the_same_seed_gives_the_same_rows_on_every_machine() -> None:
    train, test = six_tasks()
    said = "\n".join(f"{row.id}|{asked(row)}|{row.answer}" for row in (*train, *test))
    assert hashlib.sha256(said.encode()).hexdigest()[:16] == PINNED
    assert six_tasks() == six_tasks(42)
    assert six_tasks(43) != six_tasks(42)


PINNED = "d0d778d324bb4222"


def test_rows_are_short_enough_for_a_tiny_context() -> None:
    for task in TASKS:
        for number, fact in enumerate(task.facts):
            for wording in range(4):
                row = task.ask(number, fact, wording)
                assert len(asked(row).encode()) + len(row.answer.encode()) <= 110


def test_tasks_have_facts_to_choose_from_and_none_twice() -> None:
    for task in TASKS:
        assert len(task.facts) > KNOWN_FACTS + NEW_FACTS
        assert len({fact.key for fact in task.facts}) == len(task.facts)
        assert len({fact.subject for fact in task.facts}) == len(task.facts)


def answers(category: str) -> dict[str, str]:
    return {
        fact.subject: fact.answer
        for task in TASKS
        if task.category == category
        for fact in task.facts
    }


def test_sums_are_right() -> None:
    for subject, answer in answers("arithmetic").items():
        left, sign, right = subject.split()
        assert int(answer) == int(left) + int(right) * (1 if sign == "+" else -1)


def test_lists_name_what_stands_in_the_sentence_in_its_order() -> None:
    for sentence, answer in answers("list").items():
        places = [sentence.index(item) for item in answer.split(", ")]
        assert len(places) == 3
        assert places == sorted(places)


DONE = {
    "print hello": "hello",
    "print good night": "good night",
    "print the year": "1999",
    "print every name": "bo Al cy",
    "print a blank line": "",
    "print twice nine": "18",
    "print the last word": "ox",
    "print a row of stars": "*" * 10,
    "print the sum of prices": "6",
    "sort the ages": [5, 7, 9],
    "sort words by length": ["ox", "hen", "goat"],
    "sort the letters of text": ["a", "b", "c"],
    "sort a copy of scores": [1, 2],
    "sort dates backwards": ["2002", "2001"],
    "sort and drop doubles": [1, 3],
    "sort the keys of a table": ["p", "q"],
}


def test_code_does_what_was_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert answers("code").keys() == DONE.keys()
    for wish, line in answers("code").items():
        room = {
            "year": 1999,
            "names": ["bo", "Al", "cy"],
            "words": ["goat", "hen", "ox"],
            "prices": [1, 2, 3],
            "ages": [9, 5, 7],
            "text": "cab",
            "scores": [2, 1],
            "dates": ["2001", "2002"],
            "items": [3, 1, 3],
            "table": {"q": 1, "p": 2},
        }
        value = eval(line, {}, room)
        if wish.startswith("print"):
            assert capsys.readouterr().out == f"{DONE[wish]}\n"
        else:
            assert (room[line.split(".")[0]] if value is None else value) == DONE[wish]


def test_summaries_are_one_sentence_and_shorter_than_their_story() -> None:
    for story, answer in answers("summary").items():
        assert answer.count(".") == 1
        assert len(answer) < len(story)
