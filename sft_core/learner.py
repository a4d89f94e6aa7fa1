"""The part of training that touches tensors: one optimiser step, and the loss on rows kept back.

A step's loss is the sum over its trained tokens divided by their number, whatever the number of
micro-batches and processes that they are spread over (law 5). Every process knows the whole plan,
so that number is known beforehand and nothing has to be rescaled afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Final

import torch
from accelerate import Accelerator
from torch import Tensor

from sft_core.batch import Batch, Labelled, Plan, by_length, collate, pieces, plan
from sft_core.config import TrainConfig
from sft_core.loss import count_targets, head_on_targets, summed, targets
from sft_core.microbatch import Cutter
from sft_core.models import SMALL, Opened, arguments, pad_id, precision
from sft_core.pace import never
from sft_core.schedule import optimizer, scheduler
from sft_core.types import IGNORE_INDEX, ConfigError, NonFiniteLossError

EVAL_BATCHES: Final = 2
"""An evaluation batch has so many times the rows of a training batch: it keeps no gradients."""


@dataclass(frozen=True, slots=True)
class Learnt:
    """One optimiser step. ``grad_norm`` is the norm before clipping."""

    loss: float
    learning_rate: float
    grad_norm: float
    tokens: int
    trained: int


@dataclass(frozen=True, slots=True)
class _Masked:
    """A row of which nothing is trained: it keeps a process busy that has no row of its own."""

    row: Labelled

    @property
    def ids(self) -> Sequence[int]:
        return self.row.ids

    @property
    def labels(self) -> Sequence[int]:
        return (IGNORE_INDEX,) * len(self.row.ids)


def _worth_of_a_piece(device: torch.device, parameters: int) -> int:
    """What one more forward and backward pass costs beyond its tokens, in tokens. A GPU is only
    filled by many; on a CPU a large model is slow enough for the pass itself not to count."""
    if device.type != "cpu":
        return 4096
    return 128 if parameters < SMALL else 32


class Learner:
    """A model in training, its optimiser, and the rows that it learns from."""

    def __init__(self, opened: Opened, config: TrainConfig, rows: Sequence[Labelled]) -> None:
        self.config = config
        # Autocast is our own: accelerate fixes a precision for the life of the process, and the
        # compute process trains many runs.
        self.accelerator = Accelerator(mixed_precision="no")
        self.device = self.accelerator.device
        self.precision = precision(config, opened.parameters, self.device)
        self.bare: Any = opened.model
        if config.gradient_checkpointing:
            self._save_activations()
        self._model: Any = self.accelerator.prepare(opened.model)
        self._rows = rows
        self._lengths = [len(row.ids) for row in rows]
        self._pad = pad_id(opened.tokenizer)
        self._cutter = Cutter.fitting(config, self.bare, self._lengths, self.device)
        self._worth = _worth_of_a_piece(self.device, opened.parameters)
        self.steps_per_epoch = math.ceil(len(self._plan(0)) / config.accumulation)
        self.total = config.max_steps or math.ceil(config.epochs * self.steps_per_epoch)
        self.done = 0  # optimiser steps
        self._optimizer = optimizer(self._model, config)
        self._scheduler = scheduler(self._optimizer, config, self.total)
        if config.batch_size < self.accelerator.num_processes:
            raise ConfigError(
                f"batch_size {config.batch_size} cannot be shared by "
                f"{self.accelerator.num_processes} processes. Raise it to at least that."
            )

    def _save_activations(self) -> None:
        """Has each layer compute its activations twice instead of keeping them."""
        if not self.bare.supports_gradient_checkpointing:
            raise ConfigError(
                f"A {self.bare.config.model_type} model cannot do gradient checkpointing. Turn "
                "gradient_checkpointing off, and lower batch_size where memory is short."
            )
        self.bare.activation_checkpointing_enable({"use_reentrant": False})

    # -- which rows ---------------------------------------------------------------------------

    def steps(self) -> Iterator[Plan]:
        """The micro-batches of every optimiser step of the run, as positions of rows."""
        done, epoch = 0, 0
        while True:
            dealt = self._plan(epoch)
            for at in range(0, len(dealt), self.config.accumulation):
                if done == self.total:
                    return
                yield dealt[at : at + self.config.accumulation]
                done += 1
            epoch += 1

    def _plan(self, epoch: int) -> Plan:
        return plan(self._lengths, self.config.batch_size, seed=self.config.seed, epoch=epoch)

    def _work(self, micro_batches: Plan) -> list[Batch]:
        """What this process computes for a step, cut so that little padding is computed with it.
        All processes take part in a step, so one that gets no row takes a masked one."""
        rank, count = self.accelerator.process_index, self.accelerator.num_processes
        work = [
            collate([self._rows[at] for at in piece], self._pad)
            for positions in self._cutter.join(micro_batches)
            for whole in pieces(self._lengths, positions[rank::count], self._worth)
            for piece in self._cutter.cut(whole)
        ]
        return work or [collate([_Masked(self._rows[micro_batches[0][0]])], self._pad)]

    # -- learning -----------------------------------------------------------------------------

    def optimise(
        self, micro_batches: Plan, should_stop: Callable[[], bool] = never
    ) -> Learnt | None:
        """One optimiser step, or None where it was stopped before it changed the weights.

        Raises NonFiniteLossError before a loss or gradient that is not finite reaches them.
        """
        rows = [self._rows[at] for positions in micro_batches for at in positions]
        trained = sum(label != IGNORE_INDEX for row in rows for label in row.labels)
        if self._any(should_stop()):
            return None
        self._model.train()

        def learn() -> Tensor | None:
            return self._gradients(micro_batches, trained, should_stop)

        if self.accelerator.num_processes == 1:
            loss = self._cutter.within_memory(learn, self._optimizer.zero_grad)
        else:  # one process that begins anew would leave the others waiting
            loss = learn()
        if loss is None:
            return None
        return self._apply(float(self._all(loss)), sum(len(row.ids) for row in rows), trained)

    def _gradients(
        self, micro_batches: Plan, trained: int, should_stop: Callable[[], bool]
    ) -> Tensor | None:
        """Adds up a step's gradients, and gives this process's part of its loss; None where it
        was stopped."""
        loss = torch.zeros((), device=self.device)
        work = self._work(micro_batches)
        for number, batch in enumerate(work, 1):
            # Where several processes must stay in step, only the check above counts.
            if number > 1 and self.accelerator.num_processes == 1 and should_stop():
                self._optimizer.zero_grad()
                return None
            loss += self._backward(batch.to(self.device), trained, number == len(work))
        return loss

    def _backward(self, batch: Batch, trained: int, is_last: bool) -> Tensor:
        """Adds a micro-batch's gradients, and gives its part of the step's loss."""
        waiting = nullcontext() if is_last else self.accelerator.no_sync(self._model)
        with waiting:
            loss = self._summed(self._model, batch) / trained
            # Processes' gradients are averaged, so each counts as many times as there are.
            self.accelerator.backward(loss * self.accelerator.num_processes)
        return loss.detach()

    def _summed(self, model: Any, batch: Batch) -> Tensor:
        """The loss of a batch's trained tokens, summed."""
        ids = targets(batch.labels)
        with (
            torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"),
            head_on_targets(self.bare.get_output_embeddings(), batch.labels),
        ):
            out = model(
                **arguments(
                    self.bare,
                    input_ids=batch.input_ids,
                    attention_mask=batch.attention_mask,
                    position_ids=batch.position_ids,
                    use_cache=False,
                )
            )
        return summed(out.logits[0], ids)

    def _apply(self, loss: float, tokens: int, trained: int) -> Learnt:
        rate = float(self._scheduler.get_last_lr()[0])
        limit = self.config.max_grad_norm or math.inf
        norm = float(self.accelerator.clip_grad_norm_(self._model.parameters(), limit))
        if not (math.isfinite(loss) and math.isfinite(norm)):
            self._optimizer.zero_grad()
            what, value = ("gradient", norm) if math.isfinite(loss) else ("loss", loss)
            raise NonFiniteLossError(
                f"The {what} of step {self.done + 1} became {value}, so training ended before it "
                f"could change the weights. {self._remedy()}"
            )
        self._optimizer.step()
        self._scheduler.step()
        self._optimizer.zero_grad()
        self.done += 1
        return Learnt(loss, rate, norm, tokens, trained)

    # -- measuring ----------------------------------------------------------------------------

    def mean_loss(
        self, rows: Sequence[Labelled], should_stop: Callable[[], bool] = never
    ) -> tuple[float, int] | None:
        """The mean loss of all trained tokens of ``rows``, and their number; None where it was
        stopped. Raises NonFiniteLossError."""
        self.bare.eval()
        dealt = by_length([len(row.ids) for row in rows], EVAL_BATCHES * self.config.batch_size)
        found = torch.zeros(2, dtype=torch.float64)
        for positions in dealt[self.accelerator.process_index :: self.accelerator.num_processes]:
            if should_stop():
                return None
            batch = collate([rows[at] for at in positions], self._pad).to(self.device)
            with torch.inference_mode():
                total = float(self._summed(self.bare, batch))
            found += torch.tensor([total, count_targets(batch.labels)], dtype=torch.float64)
        total, count = self._all(found.to(self.device)).tolist()
        loss = total / count
        if not math.isfinite(loss):
            raise NonFiniteLossError(
                f"The loss on the evaluation rows became {loss} after step {self.done}. "
                f"{self._remedy()}"
            )
        return loss, int(count)

    def finite(self) -> bool:
        """Whether every weight is a finite number."""
        return all(bool(torch.isfinite(weights).all()) for weights in self.bare.parameters())

    def require_finite(self) -> None:
        """Raises NonFiniteLossError where a step has spoilt the weights."""
        if not self.finite():
            raise NonFiniteLossError(
                f"Step {self.done} left weights that are no finite numbers. {self._remedy()}"
            )

    def _remedy(self) -> str:
        return (
            f"Lower learning_rate (now {self.config.learning_rate:g}), or warm up for more steps."
        )

    # -- processes ----------------------------------------------------------------------------

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes, asks and scores."""
        return bool(self.accelerator.is_main_process)

    def wait(self) -> None:
        """Until all processes are here."""
        self.accelerator.wait_for_everyone()

    def _all(self, numbers: Tensor) -> Tensor:
        """The sum over all processes."""
        if self.accelerator.num_processes == 1:
            return numbers
        added: Tensor = self.accelerator.reduce(numbers, reduction="sum")
        return added

    def _any(self, here: bool) -> bool:
        """Whether it holds in any process."""
        return bool(self._all(torch.tensor(float(here), device=self.device)) > 0)
