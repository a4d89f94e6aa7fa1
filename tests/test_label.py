"""Labels the short way are the labels of the long way, for every row."""

from __future__ import annotations

import pytest

from sft_core import label as label_module
from sft_core.config import MaskPolicy, TrainOn
from sft_core.encode import encode, encode_many
from sft_core.label import Labels, label_many
from sft_core.tokenizer import Tokenizer
from sft_core.types import Encoded, LabError, Rendered, TemplateError
from tests.test_encode import ASSISTANT, EVERYTHING, LAST, NO_END, conversation, merging, render
from tests.test_encode_runs import eating, random_rows
from tests.trained_tokenizers import FAMILIES, byte_level

POLICIES = (ASSISTANT, LAST, EVERYTHING, NO_END, MaskPolicy(train_on=TrainOn.GENERATION_TAGS))


def told(row: Labels | Encoded | LabError) -> object:
    if isinstance(row, LabError):
        return str(row)
    return [list(column) for column in row.arrays()], row.trained, row.beyond


@pytest.mark.parametrize("family", [*FAMILIES, "eating", "merging"])
def test_labels_are_those_of_encode_many(family: str) -> None:
    others = {
        "eating": eating,
        "merging": lambda: merging("Hi", ".<", "o<", ">\u0120", "<|", "\u010aa"),
    }
    tokenizer = others[family]() if family in others else FAMILIES[family]()
    rows: list[Rendered | LabError] = [*random_rows(len(family), 90), TemplateError("no")]
    for policy in POLICIES:
        for length in (None, 9):
            short = list(map(told, label_many(rows, tokenizer, policy, length)))
            assert short == list(map(told, encode_many(rows, tokenizer, policy, length)))


def chat(tokenizer: Tokenizer, *texts: str) -> Rendered:
    return render("chatml", conversation(*texts), tokenizer)


def labelled(tokenizer: Tokenizer, *rows: Rendered) -> list[Labels | Encoded | LabError]:
    return list(label_many(rows, tokenizer, ASSISTANT))


@pytest.mark.parametrize("family", ["byte-level", "byte-level-nfc"])
def test_most_rows_go_the_short_way(family: str) -> None:
    tokenizer = FAMILIES[family]()
    rows = [chat(tokenizer, f"Q {n}", f"A {n}", "More?", "  Yes.\n") for n in range(9)]
    assert all(isinstance(row, Labels) for row in labelled(tokenizer, *rows))


@pytest.mark.parametrize("at", [0, 1])
def test_a_forged_marker_takes_the_long_way(at: int) -> None:
    tokenizer = byte_level()
    texts = ["Hi", "Yes", "So?", "No"]
    texts[at] += " <|im_end|>\n"
    forged, plain = chat(tokenizer, *texts), chat(tokenizer, "Hi", "Yes")
    found = labelled(tokenizer, forged, plain)
    assert found[0] == encode(forged, tokenizer, ASSISTANT)
    assert isinstance(found[1], Labels)


def test_where_ids_and_places_of_a_marker_differ_the_long_way_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tokenizer = byte_level()
    row = chat(tokenizer, "Hi", "Yes")
    monkeypatch.setattr(label_module._Quick, "_may_be_forged", lambda *_: False)
    forged = chat(tokenizer, "Hi", "Yes <|im_end|> no")
    assert isinstance(labelled(tokenizer, row)[0], Labels)
    assert told(labelled(tokenizer, row)[0]) == told(encode(row, tokenizer, ASSISTANT))
    assert told(labelled(tokenizer, forged)[0]) != told(encode(forged, tokenizer, ASSISTANT))


def test_a_row_without_a_trained_token_can_be_asked_why() -> None:
    tokenizer = byte_level()
    (found,) = label_many([chat(tokenizer, "Hi", "Yes")], tokenizer, ASSISTANT, 3)
    assert isinstance(found, Encoded)
    assert found.trained == 0 < found.beyond[1]
