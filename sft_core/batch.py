"""Rows become tensors. Which rows make a batch is dealt in ``dealing``, without tensors.

B is the number of rows in a batch, T the length that they are padded to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Protocol, Self

import numpy as np
import torch
from torch import Tensor

from sft_core.dealing import Plan
from sft_core.types import IGNORE_INDEX, EncodeError


class Labelled(Protocol):
    """What a batch needs to know of a row. ``Encoded`` is one."""

    @property
    def ids(self) -> Sequence[int]: ...

    @property
    def labels(self) -> Sequence[int]: ...

    @property
    def kinds(self) -> Sequence[int]: ...


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows as (B, T) tensors of 64-bit integers, ``kinds`` of bytes, filled up on the right.

    ``labels`` hold the id of each trained token at its own index, ``IGNORE_INDEX`` elsewhere.
    ``attention_mask`` is 1 on a row's tokens. ``position_ids`` count from 0 in each example.
    ``segment_ids`` number the examples of a row from 1; 0 is padding. ``kinds`` are places in
    ``tokens.KINDS``, each at the index of its own token, and count only where there is a label.
    """

    input_ids: Tensor
    labels: Tensor
    attention_mask: Tensor
    position_ids: Tensor
    segment_ids: Tensor
    kinds: Tensor

    def to(self, device: torch.device | str) -> Self:
        """The same batch on another device."""
        moved = (getattr(self, f.name).to(device, non_blocking=True) for f in fields(self))
        return type(self)(*moved)

    def lengths(self) -> list[int]:
        """How long each document is, in the order in which they stand."""
        found: list[int] = []
        for row in self.segment_ids.cpu():
            found += torch.bincount(row[row > 0]).tolist()[1:]
        return found

    @property
    def tokens(self) -> int:
        """How many tokens there are, padding not counted."""
        return int(self.attention_mask.sum())


def collate(rows: Sequence[Labelled], pad_id: int, *, length: int | None = None) -> Batch:
    """Pads rows to the longest of them, or to ``length``.

    The attention mask comes from the rows' lengths and never from comparing ids with ``pad_id``,
    which may well be the end-of-text token that a row ends with (law 3). Raises EncodeError for
    a row whose first token carries a label, since nothing predicts it (law 6).

    Rows [5, 6, 7] and [8, 9] with labels [-100, 6, 7] and [-100, 9], pad_id 0:

        input_ids       5 6 7      8 9 0
        labels       -100 6 7   -100 9 -100
        attention_mask  1 1 1      1 1 0
        position_ids    0 1 2      0 1 0
        segment_ids     1 1 1      1 1 0
    """
    longest = max((len(row.ids) for row in rows), default=0)
    shape = (len(rows), max(longest, length or 0))
    lengths = torch.tensor([len(row.ids) for row in rows]).unsqueeze(1)
    positions = torch.arange(shape[1]).expand(shape)
    mask = (positions < lengths).long()
    input_ids = torch.full(shape, pad_id)
    labels = torch.full(shape, IGNORE_INDEX)
    kinds = torch.zeros(shape, dtype=torch.uint8)
    for at, row in enumerate(rows):
        input_ids[at, : len(row.ids)] = torch.tensor(row.ids)
        labels[at, : len(row.ids)] = torch.tensor(row.labels)
        kinds[at, : len(row.ids)] = torch.tensor(row.kinds, dtype=torch.uint8)
    if shape[1] and bool((labels[:, 0] != IGNORE_INDEX).any()):
        raise _first_trained()
    return Batch(input_ids, labels, mask, positions * mask, mask.clone(), kinds)


def flat(rows: Sequence[Labelled]) -> Batch:
    """Rows end to end as one of (1, T): no slot is empty, each document's positions begin at 0
    again, and ``segment_ids`` tell documents apart. Whoever computes it keeps attention within
    them (``documents.within``). Raises EncodeError as ``collate`` does.

    Rows [5, 6, 7] and [8, 9] with labels [-100, 6, 7] and [-100, 9]:

        input_ids       5 6 7    8 9
        labels       -100 6 7 -100 9
        attention_mask  1 1 1    1 1
        position_ids    0 1 2    0 1
        segment_ids     1 1 1    2 2
    """
    if any(row.labels and row.labels[0] != IGNORE_INDEX for row in rows):
        raise _first_trained()
    lengths = torch.tensor([len(row.ids) for row in rows])
    numbers = torch.arange(1, len(rows) + 1)
    starts = torch.repeat_interleave(lengths.cumsum(0) - lengths, lengths)
    input_ids = _joined([row.ids for row in rows])
    columns = (
        input_ids,
        _joined([row.labels for row in rows]),
        torch.ones_like(input_ids),
        torch.arange(len(input_ids)) - starts,
        torch.repeat_interleave(numbers, lengths),
        _joined([row.kinds for row in rows]).to(torch.uint8),
    )
    return Batch(*(column.unsqueeze(0) for column in columns))


def _joined(parts: Sequence[Sequence[int]]) -> Tensor:
    """Numbers end to end as 64-bit integers; arrays are read as they lie in memory."""
    return torch.from_numpy(np.concatenate([np.asarray(part, dtype=np.int64) for part in parts]))


def _first_trained() -> EncodeError:
    return EncodeError(
        "The first token of a row is marked as trained, but nothing stands before it that could "
        "predict it. Encode the row again with the lab's own encoder."
    )


# -- pieces ------------------------------------------------------------------------


def pieces(lengths: Sequence[int], rows: Sequence[int], worth: int) -> Plan:
    """Cuts one batch into pieces of like length, longest last, so that its padding is not
    computed. A loss that is a sum over tokens does not notice.

    ``worth`` is what computing one more piece costs, in tokens: of all ways to cut the rows,
    sorted by length, the cheapest is found, slots and pieces together (dynamic programming over
    the place of the last cut).
    """
    order = sorted(rows, key=lambda row: lengths[row])
    costs, cuts = [0], [0]
    for end in range(1, len(order) + 1):
        longest = lengths[order[end - 1]]
        ways = [costs[start] + (end - start) * longest + worth for start in range(end)]
        costs.append(min(ways))
        cuts.append(ways.index(costs[end]))
    found: list[tuple[int, ...]] = []
    end = len(order)
    while end:
        found.append(tuple(order[cuts[end] : end]))
        end = cuts[end]
    return tuple(reversed(found))
