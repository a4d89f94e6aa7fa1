"""Attention within documents: rows lie end to end in one, and none sees another (law 6).

A batch that is padded computes what nobody needs, in every layer. Laid end to end, rows fill it
to the last slot; positions restart with each (``batch.flat``), and only attention has to know
where one ends. It is computed document by document, so nothing is spent on pairs of tokens that
may not see each other, and what comes out is what each row alone would have given.

Transformers calls attention by name; ``teach`` gives a model ours, and answers whether it does
what it should there: recurrent models, those with biases for distances, or with code of their own
around attention are better off with padding. Outside of ``within`` ours is plain "sdpa".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate, pairwise
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME: Final = "sft_documents"
PROBES: Final = (5, 3, 4)
"""Lengths of the documents that a model is tried on."""
SHARE: Final = 0.1
"""Kept apart, tokens may be off by so much of what seeing the documents before would do."""
DENSE: Final = 256
"""Up to so many tokens in all, one masked product costs less than one for each document."""

SHORT: Final = 512
"""Up to so many tokens a document's scores are small enough to be computed at once."""

_bounds: tuple[int, ...] = ()  # where the documents of the batch at hand begin, and the last ends


@contextmanager
def within(lengths: Sequence[int]) -> Iterator[None]:
    """Inside, attention in a batch of one row keeps to documents of ``lengths``, forwards and
    backwards: gradient checkpointing computes a layer again while gradients are computed."""
    global _bounds
    before = _bounds
    _bounds = tuple(accumulate(lengths, initial=0))
    try:
        yield
    finally:
        _bounds = before


def teach(model: PreTrainedModel, autocast: Callable[[], Any]) -> bool:
    """Has ``model`` attend within documents, and says whether that works; else it stays as it
    was. ``autocast`` gives the context that it is tried in.

    The model reads a few short documents, alone and end to end: hidden states must be equal up to
    rounding, which is told from a leak by letting them see each other on purpose.
    """
    before = model.config._attn_implementation
    if before != "sdpa":
        return False
    training = model.training
    model.eval()
    try:
        with torch.no_grad(), autocast():
            alone = _alone(model)
            model.set_attn_implementation(NAME)
            apart, leaking = _off(model, PROBES, alone), _off(model, (sum(PROBES),), alone)
        works = apart <= max(SHARE * leaking, 1e-5)
    except (RuntimeError, ValueError, TypeError, NotImplementedError, AttributeError):
        # This is how a model says that it takes no position ids, or attention by name.
        works = False
    model.train(training)
    if not works:
        model.set_attn_implementation(before)
    return works


def _alone(model: PreTrainedModel) -> Tensor:
    """(T, H) hidden states of documents that are read one at a time."""
    parts = torch.split(_probes(model), list(PROBES))
    read = [model.base_model(input_ids=ids.unsqueeze(0)) for ids in parts]
    return torch.cat([out.last_hidden_state[0] for out in read])


def _off(model: PreTrainedModel, lengths: tuple[int, ...], alone: Tensor) -> float:
    """How far the hidden states of the same tokens, laid end to end as documents of ``lengths``,
    are from those, as a share of their size. Infinite where they are no numbers."""
    positions = torch.cat([torch.arange(length) for length in PROBES]).to(model.device)
    with within(lengths):
        read = model.base_model(
            input_ids=_probes(model).unsqueeze(0),
            position_ids=positions.unsqueeze(0),
            use_cache=False,
        )
    off = (read.last_hidden_state[0] - alone).float().norm(dim=-1).max()
    share = float(off / alone.float().norm(dim=-1).mean())
    return share if math.isfinite(share) else math.inf


def _probes(model: PreTrainedModel) -> Tensor:
    known = int(model.get_input_embeddings().weight.shape[0])
    return torch.arange(1, sum(PROBES) + 1, device=model.device) % known


# -- attention --------------------------------------------------------------------------------


def stay_uncompiled() -> None:
    """Has a compiler leave attention alone: its shapes are others in every batch."""
    alone: Any = torch.compiler.disable(_attention)  # type: ignore[no-untyped-call]
    AttentionInterface.register(NAME, alone)


def _attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **more: Any,
) -> tuple[Tensor, None]:
    """What transformers calls for every layer: ``query`` (B, H, T, D), ``key`` and ``value``
    (B, K, T, D), where each of K heads serves H / K queries. Gives (B, T, H, D)."""
    if not _bounds or query.shape[0] != 1 or query.shape[2] != _bounds[-1]:
        plain: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **more
        )
        return plain
    place = query.device.type
    if torch.is_autocast_enabled(place):  # rotary angles are fp32 and widen what they turn
        kind = torch.get_autocast_dtype(place)
        query, key, value = query.to(kind), key.to(kind), value.to(kind)
    window = more.get("sliding_window")
    options: dict[str, Any] = {"dropout_p": dropout, "scale": scaling}
    if place == "cuda" and not dropout:
        return _flash(query, key, value, scaling, window), None
    grouped = key.shape[1] != query.shape[1]
    if query.shape[2] <= DENSE:
        mask = _mask(_bounds, window, query.device)
        out = F.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, enable_gqa=grouped, **options
        )
        return out.transpose(1, 2), None
    parts = []
    for a, b in pairwise(_bounds):
        own = query[:, :, a:b], key[:, :, a:b], value[:, :, a:b]
        if b - a <= SHORT and query.dtype == torch.bfloat16 and not dropout:
            parts.append(_short(*own, scaling, window))
        else:
            parts.append(_one(*own, window, grouped, options))
    return torch.cat(parts, dim=2).transpose(1, 2), None


def _short(
    query: Tensor, key: Tensor, value: Tensor, scaling: float | None, window: int | None
) -> Tensor:
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    mask = _mask((0, query.shape[2]), window, query.device)
    out: Tensor = _Short.apply(query, key, value, scale, mask)  # type: ignore[no-untyped-call]
    return out


class _Short(torch.autograd.Function):
    """Attention of a short document as plain products, which a CPU computes in bf16 about twice
    as fast as torch's own kernel (200 tokens, 9 heads: 1.7 ms against 3.8, both ways together).
    Scores are computed again on the way back, so nothing of T x T is kept.
    """

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, scale: float, mask: Tensor
    ) -> Tensor:
        ctx.save_for_backward(query, key, value, mask)
        ctx.scale = scale
        groups = query.shape[1] // key.shape[1]
        return _weights(query, key, scale, mask) @ value.repeat_interleave(groups, 1)

    @staticmethod
    def backward(ctx: Any, *outer: Any) -> Any:
        query, key, value, mask = ctx.saved_tensors
        heads, groups = key.shape[1], query.shape[1] // key.shape[1]
        given = outer[0]
        weights = _weights(query, key, ctx.scale, mask)
        to_value = weights.transpose(-1, -2) @ given
        slopes = given @ value.repeat_interleave(groups, 1).transpose(-1, -2)
        # Softmax's own derivative: p (g - sum of p g).
        slopes = torch._softmax_backward_data(slopes, weights, -1, weights.dtype).mul_(ctx.scale)
        to_query = slopes @ key.repeat_interleave(groups, 1)
        to_key = slopes.transpose(-1, -2) @ query
        if groups > 1:
            to_key = to_key.unflatten(1, (heads, groups)).sum(2)
            to_value = to_value.unflatten(1, (heads, groups)).sum(2)
        return to_query, to_key, to_value, None, None


def _weights(query: Tensor, key: Tensor, scale: float, mask: Tensor) -> Tensor:
    """(1, H, T, T) attention, each row summing to 1."""
    groups = query.shape[1] // key.shape[1]
    scores = query @ key.repeat_interleave(groups, 1).transpose(-1, -2)
    return torch.softmax(scores.mul_(scale).masked_fill_(~mask, -torch.inf), -1)


def _one(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    window: int | None,
    grouped: bool,
    options: dict[str, Any],
) -> Tensor:
    """One document's own attention."""
    length = query.shape[2]
    far = window is not None and length > window
    mask = _mask((0, length), window, query.device) if far else None
    return F.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, is_causal=not far, enable_gqa=grouped, **options
    )


_masks: dict[Any, Tensor] = {}
MASK_PLACES: Final = 1 << 24
"""Booleans in all masks that are kept."""


def _mask(bounds: tuple[int, ...], window: int | None, place: torch.device) -> Tensor:
    """(T, T) booleans: who sees whom. The latest ones are kept, since every layer asks."""
    known = (bounds, window, place)
    if known not in _masks:
        if sum(mask.numel() for mask in _masks.values()) + bounds[-1] ** 2 > MASK_PLACES:
            _masks.clear()
        with torch.inference_mode(False):  # evaluation may ask first, and training saves it
            at = torch.arange(bounds[-1], device=place)
            of = torch.bucketize(at, torch.tensor(bounds[1:], device=place), right=True)
            sees = (at[:, None] >= at[None, :]) & (of[:, None] == of[None, :])
            if window is not None:
                sees &= at[:, None] - at[None, :] < window
        _masks[known] = sees
    return _masks[known]


def _flash(
    query: Tensor, key: Tensor, value: Tensor, scaling: float | None, window: int | None
) -> Tensor:
    """All documents in one kernel of the GPU, which takes 16-bit numbers alone (FlashAttention,
    Dao 2023). Raises where torch has no such kernel for this card, which ``teach`` finds out."""
    from torch.nn.attention.varlen import varlen_attn

    if query.dtype not in (torch.bfloat16, torch.float16):
        raise NotImplementedError("the kernel takes 16-bit numbers alone")
    groups = query.shape[1] // key.shape[1]
    ends = torch.tensor(_bounds, dtype=torch.int32, device=query.device)
    longest = max(b - a for a, b in pairwise(_bounds))
    out = varlen_attn(
        query[0].transpose(0, 1),
        key[0].repeat_interleave(groups, 0).transpose(0, 1),
        value[0].repeat_interleave(groups, 0).transpose(0, 1),
        ends,
        ends,
        longest,
        longest,
        scale=scaling,
        window_size=(-1 if window is None else window - 1, 0),
    )
    return out.unsqueeze(0)  # type: ignore[union-attr]


def _mask_for(*arguments: Any, **named: Any) -> Tensor | None:
    """No mask at all where documents say who sees whom, else the usual one."""
    if _bounds:
        return None
    usual: Tensor | None = sdpa_mask(*arguments, **named)
    return usual


AttentionInterface.register(NAME, _attention)
AttentionMaskInterface.register(NAME, _mask_for)
