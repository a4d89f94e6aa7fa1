"""An encoded row is a value, whether it was made of columns or of runs."""

from __future__ import annotations

import pickle
from array import array
from dataclasses import FrozenInstanceError

import pytest

from sft_core.tokens import IGNORE_INDEX, KINDS, Encoded, Kind, Reason, Run, Token

PROMPT, ANSWER, END = Reason.PROMPT, Reason.ANSWER, Reason.END_OF_TURN
IDS = [11, 12, 13, 14, 15, 16]
PLACES = [(at, at + 1) for at in range(6)]
RUNS = [Run(2, PROMPT, 0), Run(3, ANSWER, 1), Run(1, END, 1)]


def by_runs(max_length: int | None = None) -> Encoded:
    return Encoded.of_runs(IDS, RUNS, lambda: PLACES, max_length, (1,))


def by_columns(kept: int = 6) -> Encoded:
    reasons = [PROMPT] * 2 + [ANSWER] * 3 + [END]
    owners = [0] * 2 + [1] * 4
    dropped = [
        Token(IDS[at], *PLACES[at], reasons[at], owners[at]) for at in range(min(kept, 6), 6)
    ]
    return Encoded(IDS[:kept], PLACES[:kept], reasons[:kept], owners[:kept], dropped, (1,))


@pytest.mark.parametrize("length", [None, 9, 6, 5, 4, 2, 1, 0])
def test_runs_and_columns_say_the_same(length: int | None) -> None:
    runs, columns = by_runs(length), by_columns(6 if length is None else length)
    assert runs == columns
    assert hash(runs) == hash(columns)
    assert repr(runs) == repr(columns)
    kept = len(columns)
    assert len(runs) == kept == len(runs.ids)
    for name in (
        "ids",
        "offsets",
        "reasons",
        "owners",
        "dropped",
        "forged",
        "labels",
        "kinds",
        "tokens",
    ):
        assert getattr(runs, name) == getattr(columns, name), name
    expected = [id if at >= 2 else IGNORE_INDEX for at, id in enumerate(IDS)][:kept]
    assert runs.labels == tuple(expected)
    assert runs.arrays() == (array("i", IDS[:kept]), array("i", expected))
    assert runs.trained == columns.trained == sum(token.reason.trained for token in runs.tokens)
    assert runs.beyond == (len(runs.dropped), sum(it.reason.trained for it in runs.dropped))


@pytest.mark.parametrize("length", [None, 5, 4, 0])
def test_a_trained_token_is_of_a_kind(length: int | None) -> None:
    everything = [Run(1, Reason.FIRST_TOKEN, 0), Run(1, Reason.WHOLE_TEXT, 0), *RUNS[1:]]
    encoded = Encoded.of_runs(IDS, everything, lambda: PLACES, length)
    assert encoded.kinds == array("B", [0, 2, 0, 0, 0, 1][:length])
    assert encoded.kinds.itemsize == 1
    assert [KINDS[number] for number in (0, 1, 2)] == [Kind.ANSWER, Kind.TEMPLATE, Kind.PROMPT]


def test_every_trained_reason_has_a_kind_of_its_own() -> None:
    kinds = [reason.kind for reason in Reason if reason.trained]
    assert sorted(kinds) == sorted(KINDS)


def test_it_differs_where_a_column_differs() -> None:
    assert by_runs() != by_runs(5)
    assert by_runs() != Encoded.of_runs(IDS, RUNS, lambda: PLACES)
    assert by_runs() != Encoded.of_runs(IDS, [Run(6, PROMPT, 0)], lambda: PLACES, None, (1,))
    assert by_runs() != Encoded.of_runs(IDS, RUNS, lambda: PLACES[::-1], None, (1,))
    assert by_runs() != "something else"


def test_it_cannot_be_changed_and_travels_between_processes() -> None:
    encoded = by_runs(4)
    with pytest.raises(FrozenInstanceError):
        encoded.forged = ()
    with pytest.raises(FrozenInstanceError):
        del encoded.forged
    assert pickle.loads(pickle.dumps(encoded)) == encoded


def test_places_are_asked_for_only_when_somebody_wants_them() -> None:
    def never() -> list[tuple[int, int]]:
        raise AssertionError("nobody asked")

    encoded = Encoded.of_runs(IDS, RUNS, never, 5)
    assert encoded.labels == (IGNORE_INDEX,) * 2 + (13, 14, 15)
    assert (encoded.trained, encoded.beyond) == (3, (1, 1))
    assert encoded.reasons[-1] is ANSWER
    with pytest.raises(AssertionError, match="nobody asked"):
        encoded.offsets  # noqa: B018
