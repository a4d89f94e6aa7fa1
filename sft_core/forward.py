"""One pass of a batch through a model: the cheapest way that is right for that model.

Whatever model a person brings, the loss is the same; how much work it takes is decided here, once,
by trying the model out: whether rows can lie end to end (``documents``) or need padding, and
whether head and loss can be one (``head``) or the head merely skips what is not trained
(``loss.head_on_targets``).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch

from sft_core import documents
from sft_core.batch import Batch, Labelled, collate, flat, pieces
from sft_core.compiled import compile_layers, compiling
from sft_core.dealing import Plan
from sft_core.head import Losses, can_fuse, losses_from_head
from sft_core.loss import graded, head_on_targets, targets
from sft_core.models import SMALL, arguments
from sft_core.quicker import quicken


class Forward:
    """How ``bare``, a transformers model, computes the losses of a batch.

    ``precision`` is "fp32" or "bf16". ``sharded`` says that no process holds whole weights.
    """

    def __init__(self, bare: Any, precision: str, pad: int, *, sharded: bool = False) -> None:
        self.bare, self.precision, self._pad = bare, precision, pad
        self.device: torch.device = bare.device
        self.compiled = False
        quicken(bare)
        self.flat = not sharded and documents.teach(bare, self._tried_in)
        self.fused = not sharded and can_fuse(bare)
        self._worth = _worth_of_a_piece(self.device, sum(p.numel() for p in bare.parameters()))

    def compile(self) -> None:
        """Has the layers compiled from now on, in training alone."""
        self.compiled = compile_layers(self.bare) > 0

    def cut(self, lengths: Sequence[int], rows: Sequence[int]) -> Plan:
        """Cuts a micro-batch, as positions of rows, into what is computed at a time: all of it
        where rows lie end to end, else pieces of like length, which need little padding."""
        if self.flat:
            return (tuple(rows),) if rows else ()
        return pieces(lengths, rows, self._worth)

    def lay(self, rows: Sequence[Labelled]) -> Batch:
        """Rows as one batch: end to end, or padded to the longest."""
        return flat(rows) if self.flat else collate(rows, self._pad)

    def __call__(self, model: Any, batch: Batch, scale: float = 1.0) -> Losses:
        """The losses of a batch's target positions under ``model``, which is ``bare`` or what
        wraps it. The batch may still lie on the CPU. Call ``backward`` inside ``attending`` too.
        """
        there = batch.to(self.device)
        with self._autocast(), compiling(self.compiled and torch.is_grad_enabled()):
            if self.fused:
                with losses_from_head(self.bare, there.labels, scale) as found:
                    self._run(model, there)
                return found[0]
            with head_on_targets(self.bare.get_output_embeddings(), there.labels):
                logits = self._run(model, there).logits[0]
        each, right = graded(logits, targets(there.labels))
        return Losses(each.sum() * scale, each.detach(), right)

    def attending(self, batch: Batch) -> Any:
        """The context in which a batch goes forwards and backwards."""
        return documents.within(batch.lengths()) if self.flat else nullcontext()

    def _run(self, model: Any, batch: Batch) -> Any:
        return model(
            **arguments(
                self.bare,
                input_ids=batch.input_ids,
                attention_mask=None if self.flat else batch.attention_mask,
                position_ids=batch.position_ids,
                use_cache=False,
            )
        )

    def _autocast(self) -> Any:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    def _tried_in(self) -> Any:
        """Rounding hides least in float32, but a GPU's kernel takes 16-bit numbers alone."""
        return self._autocast() if self.device.type == "cuda" else nullcontext()


def _worth_of_a_piece(device: torch.device, parameters: int) -> int:
    """What one more forward and backward pass costs beyond its tokens, in tokens. A GPU is only
    filled by many; on a CPU a large model is slow enough for the pass itself not to count."""
    if device.type != "cpu":
        return 4096
    return 128 if parameters < SMALL else 32
