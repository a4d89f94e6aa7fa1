"""How a model is trained, as values that check themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final, Literal

from pydantic import ConfigDict

from sft_core.types import ConfigError


def require(ok: bool, sentence: str) -> None:
    """Raises ConfigError with ``sentence`` where a setting is not ``ok``."""
    if not ok:
        raise ConfigError(sentence)


Schedule = Literal["constant", "linear", "cosine"]
Precision = Literal["auto", "fp32", "bf16"]
Method = Literal["full", "lora"]
Compile = Literal["auto", "on", "off"]


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """How to train. ``max_steps`` wins over ``epochs`` where given. ``warmup_steps`` counts
    optimiser steps. ``accumulation`` micro-batches of ``batch_size`` rows make one step.
    ``eval_every``, ``sample_every`` and ``score_every`` count steps; 0 means only at the end.
    ``max_minutes`` stops the run as the Pause button would; it counts all parts of a resumed run.

    ``method`` says which weights learn: all of them, or low-rank adapters beside them. With
    ``packing`` a batch is ``batch_size`` windows of ``max_length`` tokens, each filled with whole
    rows that do not see each other, instead of ``batch_size`` rows. ``auto_micro_batch`` cuts a
    step into as many parts as memory asks for; what is learnt stays the same. ``compile`` hands
    the model to torch.compile: "auto" where that pays.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    epochs: float = 3.0
    max_steps: int | None = None
    batch_size: int = 8
    accumulation: int = 1
    max_length: int = 256
    learning_rate: float = 5e-5
    schedule: Schedule = "cosine"
    warmup_steps: int = 10
    weight_decay: float = 0.1
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    adam_epsilon: float = 1e-8
    max_grad_norm: float = 1.0
    precision: Precision = "auto"
    gradient_checkpointing: bool = False
    method: Method = "full"
    packing: bool = False
    auto_micro_batch: bool = False
    compile: Compile = "auto"
    seed: int = 42
    log_every: int = 1
    eval_every: int = 20
    sample_every: int = 20
    sample_prompts: tuple[str, ...] = ()
    score_every: int = 0
    keep_best: bool = True
    max_minutes: float | None = None

    def __post_init__(self) -> None:
        require(self.epochs > 0, "epochs must be more than 0.")
        require(self.max_steps is None or self.max_steps > 0, "max_steps must be at least 1.")
        for name in ("batch_size", "accumulation", "log_every"):
            require(getattr(self, name) > 0, f"{name} must be at least 1.")
        require(self.max_length >= 2, "max_length must be at least 2 tokens.")
        require(0 < self.learning_rate < 10, "learning_rate must lie between 0 and 10.")
        for name in ("warmup_steps", "eval_every", "sample_every", "score_every"):
            require(getattr(self, name) >= 0, f"{name} cannot be negative.")
        require(self.weight_decay >= 0, "weight_decay cannot be negative.")
        require(0 <= self.adam_beta1 < 1, "adam_beta1 must be at least 0 and less than 1.")
        require(0 <= self.adam_beta2 < 1, "adam_beta2 must be at least 0 and less than 1.")
        require(self.adam_epsilon > 0, "adam_epsilon must be more than 0.")
        require(self.max_grad_norm >= 0, "max_grad_norm cannot be negative; 0 turns clipping off.")
        require(
            self.max_minutes is None or self.max_minutes > 0, "max_minutes must be more than 0."
        )
        require(self.seed >= 0, "seed cannot be negative.")


@dataclass(frozen=True, slots=True)
class LoraConfig:
    """Low-rank adapters (Hu et al. 2021): beside a matrix W stands B A, B being (out, rank) and A
    (rank, in), and what is added is alpha / rank times that. ``targets`` are the names of the
    modules that get one, as peft takes them; empty means every linear layer but the head.
    ``dropout`` falls on what goes into an adapter.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    targets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require(self.rank > 0, "rank must be at least 1.")
        require(self.alpha > 0, "alpha must be more than 0.")
        require(0 <= self.dropout < 1, "dropout must be at least 0 and less than 1.")
        require(all(self.targets), "A target cannot be empty; leave the list empty instead.")


LORA_RATE: Final = 1e-4
"""Below this learning rate adapters learn little in as many steps as full fine-tuning takes."""


def lora_advice(train: TrainConfig) -> str:
    """What to tell somebody whose adapters would learn too slowly; empty where there is nothing.

    The best rate for LoRA is about ten times that of full fine-tuning, whatever the rank, and more
    in runs of less than a hundred steps (Schulman and Thinking Machines Lab 2025, "LoRA Without
    Regret").
    """
    if train.method != "lora" or train.learning_rate >= LORA_RATE:
        return ""
    return (
        f"LoRA wants about ten times the learning rate of full fine-tuning, and "
        f"{train.learning_rate:g} is low for it. Raise learning_rate to {LORA_RATE:g} or more."
    )


PARROT_RUN: Final = TrainConfig(epochs=6, learning_rate=1e-4, eval_every=20, sample_every=40)
"""How the parrot is tuned. What it lacks is learnt in a few passes at a careful rate; at ten times
the rate it forgets what it knows (measured in ``examples/parrot/README.md``)."""
