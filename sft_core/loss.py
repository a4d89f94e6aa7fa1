"""The loss: the one place where predictions and labels are shifted against each other (law 1).

Labels stand at the index of their own token. What a model says at position t is about token
t + 1, so position t is a *target position* where the label of t + 1 is a token and not
``IGNORE_INDEX``. B is the number of rows, T their padded length, V the size of the vocabulary,
N the number of target positions. Losses are in nats, computed in float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sft_core.types import IGNORE_INDEX, NothingTrainedError


def shift(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Lines every prediction up with what it predicts.

    ``logits`` (B, T, V) and ``labels`` (B, T) become (B, T-1, V) and (B, T-1): the last
    prediction has nothing after it, and the first token has nothing before it.
    """
    return logits[:, :-1], labels[:, 1:]


def target_mask(labels: Tensor) -> Tensor:
    """(B, T) booleans: where a model's prediction is graded. The last column is False."""
    return F.pad(labels[:, 1:] != IGNORE_INDEX, (0, 1), value=False)


def targets(labels: Tensor) -> Tensor:
    """(N,) ids that are predicted, row by row, in the order of ``logits[target_mask(labels)]``."""
    following = labels[:, 1:]
    return following[following != IGNORE_INDEX]


def count_targets(labels: Tensor) -> int:
    """N, the number of trained tokens."""
    return int(target_mask(labels).sum())


def cross_entropy_sum(logits: Tensor, labels: Tensor) -> tuple[Tensor, int]:
    """The loss of all trained tokens of ``logits`` (B, T, V), summed, and how many they are.

    Sum and count rather than a mean, so that whoever adds micro-batches or processes up can
    divide once at the end (law 5). The sum is 0 where nothing is trained.
    """
    ids = targets(labels)
    return summed(logits[target_mask(labels)], ids), len(ids)


def summed(logits: Tensor, ids: Tensor) -> Tensor:
    """Cross-entropy of ``logits`` (N, V) against ``ids`` (N,), summed to a scalar."""
    return F.cross_entropy(logits.float(), ids, reduction="sum")


def graded(logits: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Of ``logits`` (N, V) against ``ids`` (N,): the loss of each target, float32, and whether
    the model holds it for the likeliest token, boolean; both (N,)."""
    losses = F.cross_entropy(logits.float(), ids, reduction="none")
    return losses, logits.detach().argmax(-1) == ids


def token_mean_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """The mean loss of the trained tokens of ``logits`` (B, T, V), a scalar. Raises
    NothingTrainedError where there is none, since a mean over nothing would read 0 or NaN."""
    total, count = cross_entropy_sum(logits, labels)
    if count == 0:
        raise NothingTrainedError(
            "No token of this batch is trained, so it has no loss. Check the template and the "
            "mask policy, or raise max_length."
        )
    return total / count


def per_token_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """(B, T) losses, each at the index of its own token; NaN where there is no label and at the
    first token, which nothing predicts. Give the ids as labels to grade every token."""
    losses = torch.full(labels.shape, torch.nan, dtype=torch.float32, device=logits.device)
    predicted, following = shift(logits, labels)
    graded = following != IGNORE_INDEX
    losses[:, 1:][graded] = F.cross_entropy(
        predicted[graded].float(), following[graded], reduction="none"
    )
    return losses


@contextmanager
def head_on_targets(head: nn.Module, labels: Tensor) -> Iterator[None]:
    """Inside, ``head`` (a model's output projection) sees target positions alone.

    Prompts and padding need no logits, and the vocabulary is where a small model spends much of
    its work: hidden states (B, T, H) are narrowed to (1, N, H) just before the projection, so
    whatever the model does to logits afterwards (scaling, capping) still happens, and its
    logits come out as (1, N, V) in the order of ``targets(labels)``.
    """
    mask = target_mask(labels)

    def narrow(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return inputs[0][mask].unsqueeze(0), *inputs[1:]

    hook = head.register_forward_pre_hook(narrow)
    try:
        yield
    finally:
        hook.remove()
