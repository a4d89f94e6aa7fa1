"""Work done ahead of whoever waits for it: the next chunk while the last one is being read."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice
from typing import TypeVar

T = TypeVar("T")
S = TypeVar("S")


def map_ahead(work: Callable[[T], S], items: Iterable[T], ahead: int) -> Iterator[S]:
    """``map(work, items)`` in order, with up to ``ahead`` items being worked on in threads of
    their own before they are asked for. What ``work`` raises is raised where its result was due.

    It pays where ``work`` waits, or computes outside the interpreter. ``items`` are drawn in the
    caller's thread, and no thread is started for one item alone.
    """
    source = iter(items)
    first = list(islice(source, 2))
    if len(first) < 2:
        yield from map(work, first)
        return
    coming: deque[Future[S]] = deque()
    with ThreadPoolExecutor(max_workers=ahead) as threads:
        try:
            for item in chain(first, source):
                coming.append(threads.submit(work, item))
                if len(coming) > ahead:
                    yield coming.popleft().result()
            while coming:
                yield coming.popleft().result()
        finally:
            for future in coming:
                future.cancel()
