"""Drawing a token: what repetition penalty, temperature, top-k and top-p make of the logits.

V is the size of the vocabulary; logits and scores are float32 on the CPU.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sft_core.config import GenerateConfig


class Sampler:
    """Chooses the tokens of one answer."""

    def __init__(self, config: GenerateConfig, prompt: Sequence[int]) -> None:
        self._config = config
        self._read = list(prompt)
        self._random = torch.Generator().manual_seed(config.seed % 2**63)

    def draw(self, logits: Tensor) -> tuple[int, float]:
        """The next token for ``logits`` (V,), and the model's own probability of it."""
        scores = filtered(logits, self._read, self._config)
        if self._config.temperature == 0:
            token = int(scores.argmax())
        else:
            shares = scores.softmax(dim=-1)
            token = int(torch.multinomial(shares, 1, generator=self._random))
        self._read.append(token)
        return token, float(logits.softmax(dim=-1)[token])


def filtered(logits: Tensor, read: Sequence[int], config: GenerateConfig) -> Tensor:
    """``logits`` (V,) after penalty, temperature, top-k and top-p, in this order; what is ruled
    out is -inf. ``read`` are all tokens so far, those of the prompt included."""
    scores = penalised(logits, read, config.repetition_penalty)
    if config.temperature == 0:
        return scores
    scores = scores / config.temperature
    return nucleus(top(scores, config.top_k), config.top_p)


def penalised(scores: Tensor, read: Sequence[int], penalty: float) -> Tensor:
    """Makes tokens that stand in ``read`` less likely: a positive score is divided by
    ``penalty``, a negative one multiplied (Keskar et al. 2019, CTRL)."""
    if penalty == 1 or not read:
        return scores
    ids = torch.tensor(sorted(set(read)))
    chosen = scores[ids]
    return scores.index_copy(0, ids, torch.where(chosen < 0, chosen * penalty, chosen / penalty))


def top(scores: Tensor, count: int) -> Tensor:
    """Keeps the ``count`` best scores, and whatever ties with the last of them; 0 keeps all."""
    if count == 0 or count >= len(scores):
        return scores
    return scores.masked_fill(scores < scores.topk(count).values[-1], -torch.inf)


def nucleus(scores: Tensor, share: float) -> Tensor:
    """Keeps the smallest set of most likely tokens whose probabilities reach ``share``
    (Holtzman et al. 2020), at least one."""
    if share >= 1:
        return scores
    # Ascending, so that the sum below a token is what would be lost by keeping it and all above.
    ordered, ids = scores.sort()
    lost = ordered.softmax(dim=-1).cumsum(dim=-1) <= 1 - share
    lost[-1] = False
    return scores.masked_fill(torch.zeros_like(lost).index_copy(0, ids, lost), -torch.inf)
