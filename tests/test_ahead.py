"""Work done ahead: in order, no further than told, and nothing left behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from sft_core.ahead import map_ahead


def counted(number: int, drawn: list[int]) -> Iterator[int]:
    for item in range(number):
        drawn.append(item)
        yield item


def test_results_come_in_order() -> None:
    assert list(map_ahead(lambda it: it * it, range(50), 3)) == [it * it for it in range(50)]
    assert list(map_ahead(lambda it: it, [], 2)) == []


def test_one_item_needs_no_thread() -> None:
    assert list(map_ahead(lambda _: threading.get_ident(), [1], 2)) == [threading.get_ident()]
    others = list(map_ahead(lambda _: threading.get_ident(), [1, 2, 3], 2))
    assert threading.get_ident() not in others


def test_it_works_ahead_and_no_further_than_told() -> None:
    drawn: list[int] = []
    done: set[int] = set()
    third = threading.Event()

    def work(item: int) -> int:
        done.add(item)
        if item == 2:
            third.set()
        return item

    results = map_ahead(work, counted(100, drawn), 2)
    assert next(results) == 0
    assert third.wait(10)  # nobody has asked for it yet
    assert len(drawn) == 3
    assert next(results) == 1
    assert len(drawn) == 4
    results.close()  # type: ignore[attr-defined]
    assert max(done) < 4


def test_an_error_is_raised_where_its_result_was_due() -> None:
    def work(item: int) -> int:
        return 10 // (3 - item)

    results = map_ahead(work, range(9), 2)
    assert [next(results) for _ in range(3)] == [3, 5, 10]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_an_error_among_the_items_is_passed_on() -> None:
    def items() -> Iterator[int]:
        yield from range(5)
        raise KeyError("five")

    with pytest.raises(KeyError, match="five"):
        list(map_ahead(lambda it: it, items(), 2))
