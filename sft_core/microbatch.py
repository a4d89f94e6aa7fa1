"""A step in as many parts as memory asks for: how many tokens are computed at once.

A step's loss is a sum over its trained tokens, divided by their number, so how its rows are cut
changes gradients by rounding alone (law 5).
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import torch

from sft_core.config import LabConfig, LoraConfig, TrainConfig
from sft_core.fitting import load_of, most_tokens
from sft_core.shapes import found_shape, machine

T = TypeVar("T")
ALLOCATOR: Final = "can't allocate memory"
"""What torch's CPU allocator says in a plain RuntimeError."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a GPU or on a CPU."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or (
        isinstance(error, RuntimeError) and ALLOCATOR in str(error)
    )


class Cutter:
    """Cuts rows into micro-batches of at most ``limit`` tokens; None cuts nothing, ever.

    ``lengths`` are the rows' numbers of tokens.
    """

    def __init__(self, lengths: Sequence[int], limit: int | None = None) -> None:
        self._lengths = lengths
        self.limit = limit
        self._most = 0  # tokens in the largest part that more than one row shares

    @classmethod
    def fitting(
        cls,
        config: TrainConfig,
        lora: LoraConfig,
        model: Any,
        lengths: Sequence[int],
        place: torch.device,
    ) -> Cutter:
        """One whose parts fit what ``place`` has left, where ``config`` asks for it. A model of
        unknown shape is cut where memory runs out, and not before."""
        if not config.auto_micro_batch:
            return cls(lengths)
        shape, found = found_shape(model.config), machine(place)
        if shape is None:
            return cls(lengths, max(1, sum(lengths)))
        load, _ = load_of(shape, LabConfig(train=config, lora=lora), found, lengths)
        return cls(lengths, max(1, most_tokens(shape, load, found.room)))

    def join(self, micro_batches: Sequence[Sequence[int]]) -> Sequence[Sequence[int]]:
        """A step's batches as one where they are cut here, else as they are."""
        if self.limit is None:
            return micro_batches
        return [[at for positions in micro_batches for at in positions]]

    def cut(self, positions: Sequence[int]) -> list[list[int]]:
        """Rows in parts of at most ``limit`` tokens, in their order; a longer row stands alone."""
        if self.limit is None:
            return [list(positions)]
        parts: list[list[int]] = []
        held = 0
        for at in positions:
            length = self._lengths[at]
            if not parts or held + length > self.limit:
                parts.append([])
                held = 0
            parts[-1].append(at)
            held += length
        for part in parts:
            if len(part) > 1:
                self._most = max(self._most, sum(self._lengths[at] for at in part))
        return parts

    def smaller(self) -> bool:
        """Halves the limit for good. False where every part is a single row already, or where
        nothing is cut."""
        if self.limit is None or not self._most:
            return False
        self.limit = max(1, min(self.limit, self._most) // 2)
        self._most = 0
        return True

    def within_memory(self, work: Callable[[], T], forget: Callable[[], None]) -> T:
        """What ``work`` gives. Where memory runs out it is done again in smaller parts, after
        ``forget`` has dropped what it left; where no part can be smaller, the error stays."""
        while True:
            try:
                return work()
            except (MemoryError, RuntimeError) as error:
                if not (is_out_of_memory(error) and self.smaller()):
                    raise
            # Out here nothing refers to the error's frames, and to the tensors in them.
            forget()
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
