"""Rows into windows: which whole rows share a window of a fixed number of tokens.

A window is filled by best fit (Ding et al. 2024, "Fewer Truncations Improve Language Modeling",
arXiv 2404.10830): a row goes where it leaves the least room, and opens a new window only where it
fits nowhere. No row is cut, and none lies in two windows. Rows longer than half a window come
first, the longest in front, since no two of them fit together; the others follow in an order drawn
anew for every epoch, and so do the windows.

Best fit *decreasing* would sort all rows. That fills windows a little better (for 2,000 lengths of
mean 250 in 2048: 0.3 % empty against 0.7 %), but a window then holds rows of one length: steps
differ three times as much in how many rows they see, and like lengths are like tasks. It also puts
the same rows together in every epoch (61 % of the pairs against 0.4 %). Since a row's tokens are
all that is computed, room that stays empty costs no time here, and mixed steps are worth more.
(``python -m tests.bench_packing`` prints these figures.)
"""

from __future__ import annotations

import random
from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sft_core.types import DataError

Windows = tuple[tuple[int, ...], ...]
"""Windows as the positions of their rows, in the order in which they stand there."""


@dataclass(frozen=True, slots=True)
class Packed:
    """``windows`` hold ``tokens`` tokens in ``slots`` places."""

    windows: Windows
    tokens: int
    slots: int

    @property
    def efficiency(self) -> float:
        """The share of places that hold a token, in [0, 1]; 1 where there are none."""
        return self.tokens / self.slots if self.slots else 1.0


def pack(lengths: Sequence[int], window: int, *, seed: int, epoch: int = 0) -> Packed:
    """Puts every row into exactly one window of ``window`` tokens.

    The same ``seed`` and ``epoch`` give the same windows on every machine. Raises DataError for a
    row that is longer than a window; rows are cut to the length limit before they come here.
    """
    rng = random.Random(f"{seed}/{epoch}")
    order = list(range(len(lengths)))
    rng.shuffle(order)
    # Sorting is stable, so rows of half a window and less, and equals, stay as they were drawn.
    order.sort(key=lambda row: -lengths[row] if 2 * lengths[row] > window else 0)
    windows = list(best_fit(lengths, window, order))
    rng.shuffle(windows)
    return Packed(tuple(windows), sum(lengths), len(windows) * window)


def best_fit(lengths: Sequence[int], window: int, order: Iterable[int]) -> Windows:
    """Puts the rows of ``order``, one after the other, each into the fullest window that still has
    room for it. Raises DataError for a row that is longer than a window.

    Windows are kept by the room that they have left, and those rooms in order, so that the least
    that suffices is found by halving. There are no more rooms than windows, nor than ``window``.
    """
    windows: list[list[int]] = []
    by_room: dict[int, list[int]] = {}
    rooms: list[int] = []
    for row in order:
        length = lengths[row]
        if length > window:
            raise DataError(
                f"A row of {length:,} tokens does not fit into a window of {window:,}. Cut rows to "
                "the length limit before they are packed."
            )
        at = bisect_left(rooms, length)
        if at < len(rooms):
            room = rooms[at]
            into = by_room[room].pop()
            if not by_room[room]:
                del by_room[room], rooms[at]
            windows[into].append(row)
        else:
            room, into = window, len(windows)
            windows.append([row])
        left = room - length
        if left in by_room:
            by_room[left].append(into)
        elif left:
            by_room[left] = [into]
            insort(rooms, left)
    return tuple(map(tuple, windows))


# -- what a window looks like -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Segment:
    """A row in its place: ``row`` is its position among the rows, ``start`` the place of its first
    token, ``length`` its tokens. Its positions count from 0, and it sees no other segment."""

    row: int
    start: int
    length: int


@dataclass(frozen=True, slots=True)
class Line:
    """``width`` places with segments end to end from the first one on; the rest is padding."""

    segments: tuple[Segment, ...]
    width: int

    @property
    def tokens(self) -> int:
        return sum(segment.length for segment in self.segments)

    def position_ids(self) -> tuple[int, ...]:
        """The position that each place has in its row; 0 in padding."""
        counted = (at for segment in self.segments for at in range(segment.length))
        return (*counted, *(0,) * (self.width - self.tokens))

    def segment_ids(self) -> tuple[int, ...]:
        """Which segment each place belongs to, from 1; 0 is padding."""
        numbered = (
            number for number, segment in enumerate(self.segments, 1) for _ in range(segment.length)
        )
        return (*numbered, *(0,) * (self.width - self.tokens))


def line(rows: Iterable[int], lengths: Sequence[int], width: int) -> Line:
    """Rows end to end in one line: a window, or one row that is padded to ``width``."""
    segments, start = [], 0
    for row in rows:
        segments.append(Segment(row, start, lengths[row]))
        start += lengths[row]
    return Line(tuple(segments), width)
