"""What measuring a model found: how many of its answers are right, how well it predicts a text."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tally:
    """``exact`` of ``count`` answers were right, ``stopped`` of them ended by themselves."""

    name: str
    count: int
    exact: int
    stopped: int

    @property
    def share(self) -> float:
        """Exact match in [0, 1]; 0 where nothing was asked."""
        return self.exact / self.count if self.count else 0.0


@dataclass(frozen=True, slots=True)
class Score:
    """Exact match over a set, overall, by category, and by whether the fact that the answer
    needs stood in training in other words (``seen``), or did not (``unseen``)."""

    overall: Tally
    by_category: tuple[Tally, ...] = ()
    seen: Tally | None = None
    unseen: Tally | None = None


@dataclass(frozen=True, slots=True)
class Perplexity:
    """How well raw texts were predicted: ``nats`` is the cross-entropy of all ``tokens`` that were
    predicted, summed; ``bytes`` is how many bytes of UTF-8 they stand for, in ``documents``
    texts. At least one token was predicted.

    Perplexity is per token, so it compares models of one tokenizer; bits per byte compares any.
    """

    nats: float
    tokens: int
    bytes: int
    documents: int

    @property
    def loss(self) -> float:
        """Nats a token: the sum over all texts divided once, never a mean of means."""
        return self.nats / self.tokens

    @property
    def perplexity(self) -> float:
        """exp(loss); infinite where that is no float any more."""
        try:
            return math.exp(self.loss)
        except OverflowError:
            return math.inf

    @property
    def bits_per_byte(self) -> float:
        return self.nats / math.log(2) / self.bytes if self.bytes else math.inf
