"""What other programs read: a row, an answer, an evaluation as plain JSON."""

from __future__ import annotations

import json
import math

import pytest

from sft_core.config import MaskPolicy, TemplateConfig
from sft_core.events import Answered, Perplexity, Score, Side, Tally
from sft_core.reports import answers, evaluation, examples, perplexities, row
from sft_core.templates import resolve
from sft_core.tokenizer import load_tokenizer
from sft_core.types import IGNORE_INDEX, DataError, Example, Message, RowError

TALKS = (Message("user", "Hi"), Message("assistant", "Hé."))


def test_a_row_is_told_whole() -> None:
    tokenizer = load_tokenizer("bytes")
    template = resolve(TemplateConfig("inst-resp"), tokenizer)
    found = json.loads(json.dumps(row(Example("e", TALKS), template, tokenizer, MaskPolicy())))
    assert list(found) == [
        "id",
        "text",
        "ids",
        "labels",
        "reasons",
        "offsets",
        "generation_prompt",
        "generation_prompt_ids",
        "findings",
    ]
    answer = list("Hé.".encode())
    assert found["ids"] == [256, *b"Hi", 257, *answer, 259]
    assert found["labels"] == [IGNORE_INDEX] * 4 + [*answer, 259]
    assert found["reasons"] == ["markup", *["prompt"] * 2, "markup", *["answer"] * 4, "end_of_turn"]
    assert found["generation_prompt_ids"] == found["ids"][:4]
    assert found["text"].startswith(found["generation_prompt"])
    starts = [start for start, _ in found["offsets"]]
    assert starts == sorted(starts)
    assert found["offsets"][-1][1] == len(found["text"])


def test_what_is_cut_off_is_not_among_the_ids() -> None:
    tokenizer = load_tokenizer("bytes")
    template = resolve(TemplateConfig("inst-resp"), tokenizer)
    found = row(Example("e", TALKS), template, tokenizer, MaskPolicy(), max_length=5)
    assert len(found["ids"]) == len(found["labels"]) == 5
    assert found["findings"], "a truncated answer is worth a finding"
    for finding in found["findings"]:
        assert finding["code"]
        assert finding["message"]


def test_every_row_is_read_by_its_own_format() -> None:
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hé."}]
    found = list(
        examples(
            [
                {"messages": turns},
                {"instruction": "Hi", "input": "", "output": "Hé."},
                {"prompt": "Hi", "completion": "Hé."},
                {
                    "conversations": [
                        {"from": "human", "value": "Hi"},
                        {"from": "gpt", "value": "Hé."},
                    ]
                },
            ]
        )
    )
    assert [example.messages for example in found if isinstance(example, Example)] == [TALKS] * 4


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"colour": "red"}, "colour"),
        ({"instruction": " ", "output": "Hé."}, "empty"),
        ([1, 2], "not an object"),
        (None, "not an object"),
        (DataError("Line 1 of rows.jsonl is not JSON: Expecting value."), "Line 1"),
    ],
)
def test_a_bad_row_keeps_its_place_and_says_why(values: object, words: str) -> None:
    bad, good = examples([values, {"prompt": "Hi", "completion": "Hé."}])
    assert isinstance(bad, RowError)
    assert bad.row == "row-1"
    assert words in str(bad)
    assert isinstance(good, Example)


def test_answers_stand_under_their_side() -> None:
    answer = Answered(
        side=Side.TUNED,
        prompt=0,
        text="Hé.",
        stopped=True,
        reason="Ended its turn.",
        ids=(1, 2),
        prompt_ids=(3,),
        seconds=0.12345,
    )
    found = json.loads(json.dumps(answers("Hi", {Side.TUNED: answer})))
    assert found == {
        "prompt": "Hi",
        "tuned": {
            "text": "Hé.",
            "stopped": True,
            "reason": "Ended its turn.",
            "ids": [1, 2],
            "prompt_ids": [3],
            "seconds": 0.123,
        },
    }


def test_the_tuned_figures_stand_on_top_and_the_base_beside() -> None:
    after = Score(
        Tally("overall", 4, 3, 2),
        (Tally("capital", 3, 3, 2), Tally("code", 1, 0, 0)),
        Tally("seen", 3, 3, 2),
        Tally("unseen", 1, 0, 0),
    )
    before = Score(Tally("overall", 4, 0, 0))
    found = evaluation("run", "chatml", {Side.BASE: before, Side.TUNED: after})
    assert (found["run"], found["template"]) == ("run", "chatml")
    assert "perplexity" not in found
    assert found["exact_match"] == 0.75
    assert found["stopped"] == 0.5
    assert found["by_category"] == {"capital": 1.0, "code": 0.0}
    assert (found["seen"], found["unseen"]) == (1.0, 0.0)
    assert found["counts"] == {"seen": 3, "unseen": 1, "capital": 3, "code": 1}
    assert found["base"]["exact_match"] == 0.0
    assert found["base"]["seen"] is None


READ = {Side.BASE: Perplexity(8.0, 4, 16, 2), Side.TUNED: Perplexity(12.0, 4, 16, 2)}


def test_perplexities_stand_under_their_side_with_their_ratio() -> None:
    found = json.loads(json.dumps(evaluation("run", "chatml", {}, READ)))
    assert list(found) == ["run", "template", "perplexity"], "nothing was asked"
    read = found["perplexity"]
    assert read["base"] == {
        "perplexity": pytest.approx(math.exp(2)),
        "loss": 2.0,
        "bits_per_byte": pytest.approx(0.5 / math.log(2)),
        "tokens": 4,
        "bytes": 16,
        "documents": 2,
    }
    assert read["tuned"]["loss"] == 3.0
    assert read["ratio"] == pytest.approx(read["tuned"]["perplexity"] / read["base"]["perplexity"])


def test_what_is_no_number_in_json_is_null() -> None:
    wrecked = {**READ, Side.TUNED: Perplexity(9000.0, 4, 0, 2)}
    read = perplexities(wrecked)
    assert read["tuned"]["perplexity"] is None
    assert read["tuned"]["bits_per_byte"] is None
    assert read["tuned"]["loss"] == 2250.0
    assert read["ratio"] is None
    assert perplexities({Side.BASE: READ[Side.BASE]})["ratio"] is None
