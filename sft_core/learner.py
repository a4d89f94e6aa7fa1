"""The part of training that touches tensors: one optimiser step, and the loss on rows kept back.

A step's loss is the sum over its trained tokens divided by their number, whatever the number of
micro-batches and processes that they are spread over (law 5). Every process knows the whole plan,
so that number is known beforehand and nothing has to be rescaled afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import torch
from torch import Tensor

from sft_core.ahead import map_ahead
from sft_core.batch import Batch, Labelled
from sft_core.compiled import decide
from sft_core.config import LoraConfig, TrainConfig
from sft_core.dealing import Plan, by_length, steps, steps_an_epoch, total_steps
from sft_core.events import KindLoss
from sft_core.forward import Forward
from sft_core.microbatch import Cutter
from sft_core.models import Opened, pad_id, precision, reading
from sft_core.pace import never
from sft_core.processes import Processes, local
from sft_core.resume import State, learnt, put_back
from sft_core.schedule import optimizer, scheduler
from sft_core.settings import on_zero_gpu
from sft_core.types import IGNORE_INDEX, KINDS, ConfigError, NonFiniteLossError

NO_LORA: Final = LoraConfig()
EVAL_BATCHES: Final = 2
"""An evaluation batch has so many times the rows of a training batch: it keeps no gradients."""


@dataclass(frozen=True, slots=True)
class Learnt:
    """One optimiser step. ``grad_norm`` is the norm before clipping, ``accuracy`` the share of
    trained tokens that the model held for the likeliest, ``kinds`` the loss by kind of token."""

    loss: float
    learning_rate: float
    grad_norm: float
    tokens: int
    trained: int
    accuracy: float
    kinds: tuple[KindLoss, ...]


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

    @property
    def kinds(self) -> Sequence[int]:
        return self.row.kinds


class Learner:
    """A model in training, its optimiser, and the rows that it learns from."""

    def __init__(
        self,
        opened: Opened,
        config: TrainConfig,
        rows: Sequence[Labelled],
        lora: LoraConfig = NO_LORA,
    ) -> None:
        self.config = config
        self.processes = Processes()
        self.accelerator = self.processes.accelerator
        self.device = self.processes.device
        self.precision = precision(config, opened.parameters, self.device)
        self.bare: Any = opened.model
        if config.gradient_checkpointing:
            self._save_activations()
        self._model: Any = self.processes.share(opened.model)
        self._rows = rows
        self._lengths = [len(row.ids) for row in rows]
        self.forward = Forward(
            self.bare, self.precision, pad_id(opened.tokenizer), sharded=self.sharded
        )
        self._cutter = Cutter.fitting(config, lora, self.bare, self._lengths, self.device)
        if self._cutter.limit is not None:  # as the process that leads can, so that all keep step
            self._cutter.limit = self.processes.told(self._cutter.limit)
        self.steps_per_epoch = steps_an_epoch(self._lengths, config)
        self.total = total_steps(self._lengths, config)
        self.done = 0  # optimiser steps
        self._ready: dict[Plan, tuple[int | None, list[Batch]]] = {}  # of steps to come
        self._optimizer = optimizer(self._model, config)
        self._scheduler = scheduler(self._optimizer, config, self.total)
        compiled, self.note = decide(config, self.device, self.total, on_lease=on_zero_gpu())
        if compiled and not self.sharded:
            self.forward.compile()
        elif compiled:
            self.note = (
                "The model is not compiled: its weights are sharded. The run goes on without."
            )
        if config.batch_size < self.processes.count:
            raise ConfigError(
                f"batch_size {config.batch_size} cannot be shared by "
                f"{self.processes.count} processes. Raise it to at least that."
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
        """The micro-batches of every optimiser step that is left, as positions of rows. What the
        next one computes with is laid out while the last one is computed."""
        left = islice(steps(self._lengths, self.config, self.total), self.done, None)
        return map_ahead(self._lay_out, left, ahead=1)

    def _lay_out(self, micro_batches: Plan) -> Plan:
        self._ready[micro_batches] = (self._cutter.limit, self._work(micro_batches))
        return micro_batches

    def _laid_out(self, micro_batches: Plan) -> list[Batch]:
        """A step's batches, as they were laid out ahead unless they are cut finer by now."""
        limit, work = self._ready.pop(micro_batches, (None, None))
        if work is None or limit != self._cutter.limit:
            return self._work(micro_batches)
        return work

    def _work(self, micro_batches: Plan) -> list[Batch]:
        """What this process computes for a step. All processes take part in a step, so one that
        gets no row takes a masked one; and where weights are sharded all compute equally many
        batches, since each needs the others' parts."""
        mine = self._share(micro_batches, self.processes.rank)
        work = [self.forward.lay([self._rows[at] for at in part]) for part in mine]
        due = 1
        if self.sharded:
            others = range(self.processes.count)
            due = max(len(self._share(micro_batches, rank)) for rank in others)
        if len(work) >= due:
            return work
        shortest = min(
            (at for dealt in micro_batches for at in dealt), key=self._lengths.__getitem__
        )
        masked = self.forward.lay([_Masked(self._rows[shortest])])
        return work + [masked] * (due - len(work))

    def _share(self, micro_batches: Plan, rank: int) -> list[list[int]]:
        """The rows of a step that process number ``rank`` computes, one batch after the other."""
        return [
            part
            for positions in self._cutter.join(micro_batches)
            for whole in self.forward.cut(self._lengths, positions[rank :: self.processes.count])
            for part in self._cutter.cut(whole)
        ]

    # -- learning -----------------------------------------------------------------------------

    def optimise(
        self, micro_batches: Plan, should_stop: Callable[[], bool] = never
    ) -> Learnt | None:
        """One optimiser step, or None where it was stopped before it changed the weights.

        Raises NonFiniteLossError before a loss or gradient that is not finite reaches them.
        """
        rows = [self._rows[at] for positions in micro_batches for at in positions]
        trained = sum(label != IGNORE_INDEX for row in rows for label in row.labels)
        if self.processes.any(should_stop()):
            return None
        self._model.train()

        def learn() -> Tensor | None:
            return self._gradients(micro_batches, trained, should_stop)

        if self.processes.alone:
            tally = self._cutter.within_memory(learn, self._optimizer.zero_grad)
        else:  # one process that begins anew would leave the others waiting
            tally = learn()
        if tally is None:
            return None
        tokens = sum(len(row.ids) for row in rows)
        return self._apply(self.processes.sum(tally).cpu(), tokens, trained)

    def _gradients(
        self, micro_batches: Plan, trained: int, should_stop: Callable[[], bool]
    ) -> Tensor | None:
        """Adds up a step's gradients, and gives this process's part of its tally; None where it
        was stopped."""
        tally = torch.zeros(len(KINDS), 3, device=self.device)
        work = self._laid_out(micro_batches)
        for number, batch in enumerate(work, 1):
            # Where several processes must stay in step, only the check above counts.
            if number > 1 and self.processes.count == 1 and should_stop():
                self._optimizer.zero_grad()
                return None
            tally += self._backward(batch, trained, number == len(work))
        return tally

    def _backward(self, batch: Batch, trained: int, is_last: bool) -> Tensor:
        """Adds a micro-batch's gradients, and gives its part of the step's tally: summed loss,
        right predictions and number of trained tokens of each kind, (kinds, 3)."""
        # Sharded gradients are reduced at once: whole ones may not fit.
        now = is_last or self.sharded
        waiting = nullcontext() if now else self.accelerator.no_sync(self._model)
        # Processes' gradients are averaged, so each counts as many times as there are.
        scale = self.processes.count / trained
        with waiting, self.forward.attending(batch):
            found = self.forward(self._model, batch, scale)
            self.accelerator.backward(found.total)
        kinds = batch.kinds[:, 1:][batch.labels[:, 1:] != IGNORE_INDEX].long().to(self.device)
        right = found.right.float()
        facts = torch.stack([found.each, right, torch.ones_like(right)], dim=1)
        return torch.zeros(len(KINDS), 3, device=self.device).index_add_(0, kinds, facts)

    def _apply(self, tally: Tensor, tokens: int, trained: int) -> Learnt:
        loss, accuracy, _ = (tally.sum(0) / trained).tolist()
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
        kinds = tuple(
            KindLoss(kind=kind, loss=total / count, tokens=int(count))
            for kind, (total, _, count) in zip(KINDS, tally.tolist(), strict=True)
            if count
        )
        return Learnt(loss, rate, norm, tokens, trained, accuracy, kinds)

    # -- going on another time ----------------------------------------------------------------

    def state(self) -> State:
        """What ``restore`` needs to go on after the steps that are done: between two steps."""
        kept = learnt(self.bare, self._optimizer, self._scheduler)
        return kept | State(numbers={"step": self.done})

    def restore(self, state: State) -> None:
        """Goes on from another learner's ``state``. Raises ResumeError."""
        put_back(state, self.bare, self._optimizer, self._scheduler)
        self.done = state.numbers["step"]

    # -- measuring ----------------------------------------------------------------------------

    def mean_loss(
        self, rows: Sequence[Labelled], should_stop: Callable[[], bool] = never
    ) -> tuple[float, int] | None:
        """The mean loss of all trained tokens of ``rows``, and their number; None where it was
        stopped. Raises NonFiniteLossError."""
        self.bare.eval()
        lengths = [len(row.ids) for row in rows]
        most = EVAL_BATCHES * self.config.batch_size
        if self._cutter.limit is not None:
            most = max(1, min(most, self._cutter.limit // max(lengths)))
        dealt = by_length(lengths, most)
        found = torch.zeros(2, dtype=torch.float64)
        rank, many = self.processes.rank, self.processes.count
        # Where weights are sharded, a process that has no batch left computes for the others.
        rounds = range(0, len(dealt), many) if self.sharded else range(0, len(dealt) - rank, many)
        for at in rounds:
            if should_stop():
                return None
            chosen = [rows[row] for row in dealt[at + rank]] if at + rank < len(dealt) else []
            batch = self.forward.lay(chosen or [_Masked(rows[0])])
            with reading(self.bare), self.forward.attending(batch):
                each = self.forward(self.bare, batch).each
            found += torch.tensor([each.sum(dtype=torch.float64), len(each)])
        total, count = self.processes.sum(found.to(self.device)).tolist()
        loss = total / count
        if not math.isfinite(loss):
            raise NonFiniteLossError(
                f"The loss on the evaluation rows became {loss} after step {self.done}. "
                f"{self._remedy()}"
            )
        return loss, int(count)

    def finite(self) -> bool:
        """Whether every weight is a finite number. Where weights are sharded all must ask."""
        here = all(bool(torch.isfinite(local(w)).all()) for w in self.bare.parameters())
        return not self.processes.any(not here) if self.sharded else here

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
        return self.processes.leads

    @property
    def sharded(self) -> bool:
        """Whether this process holds a part of the weights only (FSDP)."""
        return self.processes.sharded

    def gathered(self) -> Mapping[str, Tensor] | None:
        """The weights to save where the model does not hold them whole; all must ask."""
        return self.processes.state(self.bare)

    def take(self, read: Callable[[], Mapping[str, Tensor]]) -> None:
        """Takes weights back that the process that leads reads; all must call it."""
        self.processes.restore(self.bare, read)
