"""The share of the hardware's peak: arithmetic that a step needs, by what the machine can do.

This is the model FLOPs utilisation (MFU) of PaLM (Chowdhery et al. 2022, appendix B), which counts
as Kaplan et al. 2020 (section 2.1): a multiply-add is two floating point operations (FLOPs), and a
backward pass costs twice its forward pass. Only what the result needs is counted. Padding, what a
kernel computes beyond the causal triangle, and activations that are computed again raise no share.

A linear layer of i inputs and o outputs costs 2 i o FLOPs a token forward, as many for the gradient
of its inputs, and as many for that of its weights where they are trained (those that LoRA freezes
have none). Attention costs 4 d forward and 8 d backward for each pair of a token and one that it
sees, d being the width of all heads together: one product for the score, one for the value. The
vocabulary projection is a linear layer that only predictions of trained tokens go through. Left
out, like in PaLM, are norms, activation functions, softmax and the optimiser. Where embeddings are
frozen, the first block's inputs need no gradient; it is counted all the same, which is less than
one part in a hundred of any model with ten blocks.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from transformers.pytorch_utils import Conv1D

SIDE: Final = 1024
"""Rows and columns of the matrices that the peak of a CPU is measured with."""
SECONDS: Final = 0.15
"""For so long it is measured, and at least ``TRIES`` times."""
TRIES: Final = 3
ELSEWHERE: Final = 0.01
"""The largest share of a model's parameters in layers that are not counted here."""

_EXPERTS: Final = ("num_experts", "num_local_experts", "n_routed_experts")


# -- what a step needs ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """FLOPs of training one model, forward and backward: for each token, for each trained token
    (the vocabulary projection), and for each pair of tokens of which one attends to the other.
    ``pairs`` has an entry for each width of a sliding window, None where a token sees all before
    it: the FLOPs of all layers of that kind for one pair."""

    token: int
    target: int
    pairs: tuple[tuple[int | None, int], ...]

    def step(self, lengths: Iterable[int], targets: int) -> int:
        """FLOPs of a step over documents of so many tokens each, ``targets`` of them trained.
        Documents do not see each other, however they lie in the batch."""
        total = self.target * targets
        for length, times in Counter(lengths).items():
            seen = sum(cost * _pairs(length, window) for window, cost in self.pairs)
            total += times * (length * self.token + seen)
        return total


def _pairs(length: int, window: int | None) -> int:
    """How many pairs of a token and one that it attends to, itself included."""
    within = length if window is None else min(length, window)
    return within * (within + 1) // 2 + (length - within) * within


def arithmetic(model: Any) -> Arithmetic | None:
    """Counted from the modules of a transformers decoder, adapters among them. None where a part
    of the model is of a kind that is not known here, since a share of a part says nothing: experts
    of which a token meets a few, layers that are neither linear nor attention."""
    config = model.config.get_text_config()
    pairs = _attention(config)
    experts = any(getattr(config, name, None) for name in _EXPERTS)
    if pairs is None or experts or _uncounted(model) > ELSEWHERE:
        return None
    head = set(model.get_output_embeddings().modules())
    token = target = 0
    for module in model.modules():
        if isinstance(module, (nn.Linear, Conv1D)):
            passes = 3 if module.weight.requires_grad else 2
            cost = passes * 2 * module.weight.numel()
            if module in head:
                target += cost
            else:
                token += cost
    return Arithmetic(token, target, pairs)


def _attention(config: Any) -> tuple[tuple[int | None, int], ...] | None:
    """FLOPs a pair of tokens, all layers of one window together."""
    heads = getattr(config, "num_attention_heads", None)
    layers = getattr(config, "num_hidden_layers", None)
    if not heads or not layers:
        return None
    width = (getattr(config, "head_dim", None) or config.hidden_size // heads) * heads
    window = getattr(config, "sliding_window", None)
    usual = "full_attention" if window is None else "sliding_attention"
    kinds = Counter(getattr(config, "layer_types", None) or [usual] * layers)
    if not set(kinds) <= {"full_attention", "sliding_attention"}:
        return None
    seen = {"full_attention": None, "sliding_attention": window}
    return tuple((seen[kind], count * 3 * 4 * width) for kind, count in kinds.items())


def _uncounted(model: nn.Module) -> float:
    """The share of parameters in matrices that belong to no embedding and no linear layer."""
    known = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, (nn.Embedding, nn.Linear, Conv1D))
        for parameter in module.parameters(recurse=False)
    }
    sizes = {id(parameter): parameter.numel() for parameter in model.parameters()}
    strange = {id(p) for p in model.parameters() if p.dim() > 1 and id(p) not in known}
    return sum(sizes[it] for it in strange) / max(1, sum(sizes.values()))


# -- what the machine can do ------------------------------------------------------------------


class _Card(NamedTuple):
    """Dense FLOP/s in units of 10^12: bf16 with sums in fp32, tf32, and fp32 without tensor
    cores. None where the card has no such unit."""

    bf16: float | None
    tf32: float | None
    fp32: float


# NVIDIA's datasheets of each card, and for the GeForce cards its architecture whitepapers (GA102,
# Ada). Figures that they give with sparsity alone are halved. The first whose words stand in the
# device's name counts, so longer ones come first.
_CARDS: Final = {
    "H200 NVL": _Card(835.5, 417.5, 60),
    "H200": _Card(989.4, 494.7, 67),
    "H100 NVL": _Card(835.5, 417.5, 60),
    "H100 PCIe": _Card(756.5, 378, 51),
    "H100": _Card(989.4, 494.7, 67),
    "A100": _Card(312, 156, 19.5),
    "L40S": _Card(362, 183, 91.6),
    "A10G": _Card(70, 35, 31.5),
    "A10": _Card(125, 62.5, 31.2),
    "L4": _Card(121, 60, 30.3),
    "T4": _Card(None, None, 8.1),
    "RTX 4090": _Card(165.2, 82.6, 82.6),
    "RTX 3090": _Card(71, 35.6, 35.6),
}
_OTHERS: Final = ("MIG", "Laptop", "RTX 4090 D", "RTX 3090 Ti")
"""Cards and parts of cards whose names hold one of the above and whose peak is another."""


def peak(device: torch.device, precision: str) -> float | None:
    """FLOP/s that ``device`` can do at most in "bf16" or "fp32"; None where that is not known.

    A GPU's comes from its vendor. A CPU's is what the fastest of a few products of square matrices
    reached, on as many threads as torch uses now; it is measured once and kept.
    """
    if device.type == "cuda":
        tf32 = torch.get_float32_matmul_precision() != "highest"
        return of_card(torch.cuda.get_device_name(device), precision, tf32=tf32)
    if device.type == "cpu":
        return _measured(precision, torch.get_num_threads())
    return None


def of_card(name: str, precision: str, *, tf32: bool = False) -> float | None:
    """FLOP/s of the GPU that calls itself ``name``; with ``tf32``, fp32 products are rounded."""
    words = f" {name.replace('-', ' ')} "
    card = next((card for known, card in _CARDS.items() if f" {known} " in words), None)
    if card is None or any(f" {other} " in words for other in _OTHERS):
        return None
    found = card.bf16 if precision == "bf16" else (card.tf32 if tf32 else None) or card.fp32
    return None if found is None else found * 1e12


@lru_cache(maxsize=16)
def _measured(precision: str, threads: int) -> float:
    """``threads`` is what torch uses already, and only keeps results apart."""
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    # No random numbers: training is about to draw its own from the same source.
    rows = torch.linspace(-1, 1, SIDE * SIDE).reshape(SIDE, SIDE).to(kind)
    weights = rows.T.contiguous()
    fastest, tries, until = float("inf"), 0, time.perf_counter() + SECONDS
    with torch.inference_mode():
        while tries < TRIES or time.perf_counter() < until:
            began = time.perf_counter()
            F.linear(rows, weights)
            fastest = min(fastest, time.perf_counter() - began)
            tries += 1
    return 2 * SIDE**3 / fastest


class Utilisation:
    """How much of what the hardware can do a model's training uses, on ``processes`` devices that
    are alike."""

    def __init__(
        self, model: Any, device: torch.device, precision: str, processes: int = 1
    ) -> None:
        self._arithmetic = arithmetic(model)
        self._device, self._precision, self._processes = device, precision, processes

    def needed(self, lengths: Iterable[int], targets: int) -> int:
        """What ``Arithmetic.step`` gives; 0 where the model cannot be counted."""
        return self._arithmetic.step(lengths, targets) if self._arithmetic else 0

    def share(self, rate: float) -> float | None:
        """Needed FLOPs a second, of all processes, by their peak together. None where either is
        not known. A CPU is measured at the first call, so nothing else should compute then."""
        most = peak(self._device, self._precision) if self._arithmetic else None
        return rate / (most * self._processes) if most else None
