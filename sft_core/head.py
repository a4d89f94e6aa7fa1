"""From hidden states to losses: vocabulary projection and cross-entropy in one.

A small model spends much of its work and most of its memory here: a vocabulary of 50,000 makes
200 KB of every predicted token. So only target positions are projected, a chunk at a time, and a
chunk's logits become its gradients in place, while they are at hand: nothing of the size of the
vocabulary is kept for the way back (as in Liger's fused linear cross-entropy, Hsu et al. 2024, and
cut-cross-entropy, Wijmans et al. 2024). N is the number of target positions, H the width of the
model, V the size of its vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sft_core.loss import target_mask, targets
from sft_core.memory import LOGITS_AT_ONCE, LOGITS_IN_HAND

CHUNK: Final = LOGITS_AT_ONCE
"""Bytes of logits that exist at a time, in the precision of the products."""
BLOCK: Final = LOGITS_IN_HAND // 4
"""Logits that are worked on at a time in float32: on a CPU they stay in its cache."""

STRIPE: Final = 4096
"""Words of the vocabulary whose gradients are computed at a time."""


@dataclass(slots=True)
class Losses:
    """What a batch's target positions say. ``total`` is a scalar to call ``backward`` on: the
    summed loss times the scale that was asked for. ``each`` (N,) are the losses in nats, and
    ``right`` (N,) where the model held the token for the likeliest; neither has gradients."""

    total: Tensor
    each: Tensor
    right: Tensor


@dataclass(slots=True)
class _Tie:
    """Holds the head's gradient until the embedding, which has the same weights, adds its own:
    that spares an array of the size of the vocabulary, and adding it."""

    gradient: Tensor | None = None


def can_fuse(model: Any) -> bool:
    """Whether the model's logits are a linear layer's output and nothing else. Some are scaled
    or bent afterwards; a short text shows it."""
    head, body = model.get_output_embeddings(), getattr(model, "base_model", None)
    if type(head) is not nn.Linear or body is None or body is model or "forward" in vars(head):
        return False
    known = head.weight.shape[0]
    ids = torch.arange(1, 8, device=head.weight.device).unsqueeze(0) % known
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            plain = head(body(input_ids=ids).last_hidden_state)
            whole = model(input_ids=ids).logits
    except (RuntimeError, ValueError, TypeError, NotImplementedError, AttributeError):
        return False  # a body that is asked in another way
    finally:
        model.train(training)
    return bool(plain.shape == whole.shape and torch.allclose(plain, whole, atol=1e-5, rtol=1e-4))


@contextmanager
def losses_from_head(model: Any, labels: Tensor, scale: float) -> Iterator[list[Losses]]:
    """Inside, calling ``model`` gives no logits; the list that this yields gets the losses of
    ``labels`` (B, T) instead. Precision is that of autocast where it is on."""
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    mask, ids = target_mask(labels), targets(labels)
    found: list[Losses] = []
    tie = _tied(head, embedding)

    def project(hidden: Tensor) -> Tensor:
        narrowed = hidden[mask] if hidden.shape[:2] == mask.shape else hidden.flatten(0, -2)
        found.append(_project(narrowed, head, ids, scale, tie))
        return found[-1].each.detach().view(1, -1, 1)

    head.forward = project
    if tie is not None:
        embedding.forward = lambda ids: _Rows.apply(  # type: ignore[no-untyped-call]
            ids, embedding.weight, embedding, tie
        )
    try:
        yield found
    finally:
        del head.forward
        if tie is not None:
            del embedding.forward


def _tied(head: Any, embedding: Any) -> _Tie | None:
    """Where head and embedding are one tensor that learns, and nothing scales what is read."""
    plain = type(embedding) is nn.Embedding and embedding.max_norm is None
    same = plain and embedding.weight is head.weight and embedding.weight.requires_grad
    alone = same and not embedding.scale_grad_by_freq and not embedding.sparse
    return _Tie() if alone and torch.is_grad_enabled() else None


def _project(hidden: Tensor, head: Any, ids: Tensor, scale: float, tie: _Tie | None) -> Losses:
    place = hidden.device.type
    kind = torch.get_autocast_dtype(place) if torch.is_autocast_enabled(place) else hidden.dtype
    learning = torch.is_grad_enabled()
    total, each, right = _HeadLoss.apply(  # type: ignore[no-untyped-call]
        hidden, head.weight, head.bias, ids, scale, kind, learning, tie
    )
    return Losses(total, each, right)


class _HeadLoss(torch.autograd.Function):
    """Loss and gradients of a linear layer under cross-entropy, chunk by chunk."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        ids: Tensor,
        scale: float,
        kind: torch.dtype,
        learning: bool,
        tie: _Tie | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        wanted = [learning and need for need in ctx.needs_input_grad[:3]]
        states, matrix = hidden.to(kind), weight.to(kind)
        each = torch.empty(len(ids), dtype=torch.float32, device=hidden.device)
        right = torch.empty(len(ids), dtype=torch.bool, device=hidden.device)
        to_hidden = torch.empty_like(hidden) if wanted[0] else None
        to_weight = None
        if wanted[1]:
            to_weight = torch.empty_like(weight) if len(ids) else torch.zeros_like(weight)
        to_bias = torch.zeros_like(bias) if bias is not None and wanted[2] else None
        size = max(1, CHUNK // (len(weight) * kind.itemsize))
        for at in range(0, len(ids), size):
            part = slice(at, at + size)
            logits = F.linear(states[part], matrix, None if bias is None else bias.to(kind))
            _grade(logits, ids[part], each[part], right[part], scale if any(wanted) else None)
            if to_hidden is not None:
                to_hidden[part] = logits @ matrix
            if to_weight is not None:
                _add_products(to_weight, logits, states[part], first=at == 0)
            if to_bias is not None:
                to_bias += logits.sum(0, dtype=to_bias.dtype)
        ctx.gradients = (to_hidden, to_weight, to_bias)
        ctx.tie = tie
        ctx.mark_non_differentiable(each, right)
        return each.sum() * scale, each, right

    @staticmethod
    def backward(ctx: Any, *outer: Any) -> Any:
        factor = outer[0]
        gradients = ctx.gradients
        ctx.gradients = None
        if float(factor) != 1.0:
            gradients = tuple(g if g is None else g.mul_(factor) for g in gradients)
        if ctx.tie is not None:
            ctx.tie.gradient = gradients[1]
        return (*gradients, None, None, None, None, None)


def _add_products(to_weight: Tensor, slopes: Tensor, states: Tensor, first: bool) -> None:
    """``to_weight`` (V, H) gains ``slopes`` (N, V) transposed times ``states`` (N, H), or becomes
    it where it is empty yet. In stripes of the vocabulary, whose sums stay in a CPU's cache: the
    whole product at once reached 330 GFLOP/s of 430 where V is odd, stripes 400."""
    for at in range(0, len(to_weight), STRIPE):
        part = slice(at, at + STRIPE)
        gained = slopes[:, part].t() @ states
        if first:
            to_weight[part] = gained
        else:
            to_weight[part] += gained


def _grade(logits: Tensor, ids: Tensor, each: Tensor, right: Tensor, scale: float | None) -> None:
    """Fills in losses and hits of ``logits`` (N, V), and turns them, where ``scale`` is given,
    into the gradients of the summed loss times ``scale``: softmax minus one at the target."""
    count, known = logits.shape
    rows = count if logits.device.type != "cpu" else max(1, BLOCK // known)
    room = torch.empty((min(rows, count), known), dtype=torch.float32, device=logits.device)
    for at in range(0, count, rows):
        part = slice(at, at + rows)
        block, wanted = room[: len(ids[part])], ids[part].unsqueeze(1)
        block.copy_(logits[part])
        said = block.gather(1, wanted)
        top = block.amax(1, keepdim=True)
        right[part] = _likeliest(block, wanted, said == top)
        block.sub_(top).exp_()
        mass = block.sum(1, keepdim=True)
        each[part] = (mass.log() + top - said).squeeze(1)
        if scale is not None:
            block.mul_(scale / mass)
            block.scatter_add_(1, wanted, block.new_full(wanted.shape, -scale))
            logits[part] = block


def _likeliest(logits: Tensor, ids: Tensor, candidates: Tensor) -> Tensor:
    """(N,) whether ``ids`` (N, 1) are the largest of ``logits`` (N, V), the first of equal ones.
    Only ``candidates`` (N, 1), which reach the largest, are looked at: it takes a while."""
    found = candidates.squeeze(1).clone()
    found[found.clone()] = logits[found].argmax(1) == ids[found].squeeze(1)
    return found


class _Rows(torch.autograd.Function):
    """The embedding's rows, whose gradient goes straight into that of the head."""

    @staticmethod
    def forward(ctx: Any, ids: Tensor, weight: Tensor, embedding: Any, tie: _Tie) -> Tensor:
        ctx.save_for_backward(ids)
        ctx.padding, ctx.tie, ctx.shape = embedding.padding_idx, tie, weight.shape
        return F.embedding(ids, weight)

    @staticmethod
    def backward(ctx: Any, *outer: Any) -> Any:
        (ids,) = ctx.saved_tensors
        at, gained = ids.flatten(), outer[0].flatten(0, -2)
        if ctx.padding is not None:
            gained = gained.masked_fill((at == ctx.padding).unsqueeze(1), 0)
        shared, ctx.tie.gradient = ctx.tie.gradient, None
        if shared is None:  # the head was not computed, or gave no gradient
            shared = gained.new_zeros(ctx.shape)
            return None, shared.index_add_(0, at, gained), None, None
        shared.index_add_(0, at, gained.to(shared.dtype))
        return None, None, None, None
