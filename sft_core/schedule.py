"""When the learning rate is how high, and which parameters decay."""

from __future__ import annotations

import math
from typing import Any

from torch import nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from sft_core.adapters import new_rows
from sft_core.config import Schedule, TrainConfig


def factor(schedule: Schedule, step: int, warmup: int, total: int) -> float:
    """What the learning rate of optimiser step ``step`` (from 0, of ``total``) is multiplied by.

    The first ``warmup`` steps climb in equal parts, beginning above 0 so that no step is wasted;
    then the rate stays, or falls to 0 along a line or half a cosine (Loshchilov & Hutter 2017).
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(1, total - warmup)
    match schedule:
        case "constant":
            return 1.0
        case "linear":
            return max(0.0, 1 - progress)
        case "cosine":
            return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def warmup_steps(config: TrainConfig, total: int) -> int:
    """The warm-up that a run of ``total`` steps has room for: at most its first half."""
    return min(config.warmup_steps, total // 2)


def scheduler(optimizer: Optimizer, config: TrainConfig, total: int) -> LambdaLR:
    """Sets the rate of step 0 at once, and of the next step at each ``step()``."""
    warmup = warmup_steps(config, total)
    return LambdaLR(optimizer, lambda step: factor(config.schedule, step, warmup, total))


def optimizer(model: nn.Module, config: TrainConfig) -> AdamW:
    """AdamW (Loshchilov & Hutter 2019), fused into one kernel."""
    return AdamW(
        groups(model, config.weight_decay),
        lr=config.learning_rate,
        betas=(config.adam_beta1, config.adam_beta2),
        eps=config.adam_epsilon,
        fused=True,
    )


def groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Parameters for AdamW: matrices that multiply decay; biases, norms and embeddings do not.

    Decay reaches every row of an embedding at every step, also those of tokens that fine-tuning
    never shows, which would only be forgotten by it. A head tied to the embeddings counts as them.
    """
    embeddings = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, nn.Embedding)
        for parameter in module.parameters(recurse=False)
    } | set(map(id, new_rows(model)))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    decayed = [p for p in trained if p.dim() > 1 and id(p) not in embeddings]
    chosen = set(map(id, decayed))
    kept = [p for p in trained if id(p) not in chosen]
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": kept, "weight_decay": 0.0},
    ]
