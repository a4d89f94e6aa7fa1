"""The processes that train one model together: who leads, what all of them know, how they end.

``accelerate launch`` starts them and says in the environment how many they are. Each holds all
weights and computes a part of every step (DDP), or holds a part of the weights too (FSDP 2). All
of them must come to the same collective operations in the same order; what they decide here
(``any``, ``told``) is how they stay in step. A process on its own has nothing to wait for.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Final, TypeVar

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import (
    DistributedType,
    FullyShardedDataParallelPlugin,
    InitProcessGroupKwargs,
    broadcast_object_list,
    fsdp2_prepare_model,
)
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    set_model_state_dict,
)
from torch.distributed.fsdp import FSDPModule
from torch.distributed.rendezvous import rendezvous
from torch.distributed.tensor import DTensor

from sft_core.settings import launched
from sft_core.types import ConfigError, LabError, StorageError, TrainingError

PATIENCE: Final = timedelta(hours=6)
"""How long processes wait for the one that asks test rows or writes weights. One that failed is
noticed by ``one_fate``, so nobody waits so long for nothing."""
POLL_SECONDS: Final = 0.5
GRACE_SECONDS: Final = 5.0
"""A process whose companion has failed gets so long to end by itself."""
_FATE: Final = "sft-lab-fate"

T = TypeVar("T")


class Processes:
    """This process among those that train one model. Made as often as needed: all of one process
    share its group."""

    def __init__(self) -> None:
        several = launched() > 1
        # Without a GPU accelerate takes processes for strangers unless it is told that they
        # compute on CPUs. Autocast is our own: accelerate fixes a precision for the life of the
        # process, and the compute process trains many runs.
        on_cpu = several and not torch.accelerator.is_available()
        handlers = [InitProcessGroupKwargs(timeout=PATIENCE)] if several else []
        self.accelerator = Accelerator(
            mixed_precision="no", cpu=on_cpu or None, kwargs_handlers=handlers
        )
        self.device: torch.device = self.accelerator.device
        self.rank = int(self.accelerator.process_index)
        self.count = int(self.accelerator.num_processes)
        self._shard_on_cpu()

    def _shard_on_cpu(self) -> None:
        """Honours the wish for FSDP on CPUs too, where torch can do it and accelerate drops it."""
        state: Any = self.accelerator.state
        wanted = os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
        if wanted and state.distributed_type == DistributedType.MULTI_CPU:
            state.distributed_type = DistributedType.FSDP
            state.fsdp_plugin = FullyShardedDataParallelPlugin()

    @property
    def alone(self) -> bool:
        return self.count == 1

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes, asks and tells."""
        return self.rank == 0

    @property
    def sharded(self) -> bool:
        """Whether each process holds a part of the weights only."""
        return bool(self.accelerator.distributed_type == DistributedType.FSDP)

    # -- the model ----------------------------------------------------------------------------

    def share(self, model: nn.Module) -> Any:
        """Places a model for training: on the device, in DDP, or sharded, which happens in place.
        Raises ConfigError where the first version of FSDP is asked for."""
        if not self.sharded:
            return self.accelerator.prepare(model)
        if not self.accelerator.is_fsdp2:
            raise ConfigError(
                "The lab shards weights with FSDP 2. Write fsdp_version: 2 into accelerate's "
                "configuration, or launch with --fsdp_version 2."
            )
        # ``prepare`` wants an optimiser too, whose parameters it would replace; ours is made of
        # the sharded parameters afterwards.
        self.accelerator.state.fsdp_plugin.set_auto_wrap_policy(model)
        return fsdp2_prepare_model(self.accelerator, model)

    def state(self, model: nn.Module) -> Mapping[str, Tensor] | None:
        """The weights to be saved where ``model`` does not hold them whole, else None. All
        processes must ask; only the one that leads gets them."""
        if not self.sharded:
            return None
        _part_again(model)
        once = {name for name, _ in (*model.named_parameters(), *model.named_buffers())}
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        whole: dict[str, Any] = get_model_state_dict(model, options=options)
        # Tied weights were gathered once for each of their names.
        return {name: weights for name, weights in whole.items() if name in once}

    def restore(self, model: nn.Module, read: Callable[[], Mapping[str, Tensor]]) -> None:
        """Has every process take the weights that the one that leads reads, tied ones under one
        name or all. All must call it. Raises StorageError where some are missing."""
        _part_again(model)
        state: dict[str, Any] = dict(read()) if self.leads else {}
        if self.leads and (missing := dict(model.named_parameters()).keys() - state.keys()):
            raise StorageError(f"The saved weights lack {sorted(missing)[0]}, so they are damaged.")
        if self.sharded:
            options = StateDictOptions(
                full_state_dict=True, broadcast_from_rank0=True, strict=False
            )
            set_model_state_dict(model, state, options=options)
            return
        if state:
            model.load_state_dict(state, strict=False)
        if not self.alone:
            for tensor in model.state_dict().values():
                dist.broadcast(tensor, src=0)

    @contextmanager
    def in_step(self, model: nn.Module) -> Iterator[None]:
        """Inside, every process sees the logits of the one that leads, so that all draw the same
        tokens. Sharded weights need it: whoever computes with them needs all the others."""
        if not self.sharded:
            yield
            return

        def agree(_: nn.Module, __: object, out: Any) -> Any:
            out.logits = out.logits.contiguous()
            dist.broadcast(out.logits, src=0)
            return out

        hook = model.register_forward_hook(agree)
        try:
            yield
        finally:
            hook.remove()

    # -- what all of them know ----------------------------------------------------------------

    def sum(self, numbers: Tensor) -> Tensor:
        """The sum over all processes."""
        if self.alone:
            return numbers
        added: Tensor = self.accelerator.reduce(numbers, reduction="sum")
        return added

    def any(self, here: bool) -> bool:
        """Whether it holds in any process."""
        return bool(self.sum(torch.tensor(float(here), device=self.device)) > 0)

    def told(self, value: T) -> T:
        """What the process that leads gave."""
        if self.alone:
            return value
        values: list[T] = broadcast_object_list([value], from_process=0)
        return values[0]

    def wait(self) -> None:
        """Until all processes are here."""
        self.accelerator.wait_for_everyone()

    # -- how they end -------------------------------------------------------------------------

    @contextmanager
    def one_fate(self, last_words: Callable[[LabError], None]) -> Iterator[None]:
        """Inside, an error of one process ends all of them, and at the end the group is closed.

        A process may be deep in an operation that waits for the one that failed. Each therefore
        looks out for the others: an error that came of losing one is raised as TrainingError with
        the sentence of the process that was first, and a process that cannot be reached says
        ``last_words`` and exits.
        """
        if self.alone:
            yield
            return
        store, _, _ = next(iter(rendezvous("env://")))
        board = _Board(self.rank, store)
        ended = threading.Event()
        lookout = threading.Thread(target=board.look_out, args=(ended, last_words), daemon=True)
        lookout.start()
        try:
            yield
            self.wait()
        except BaseException as error:
            if isinstance(error, LabError) or not isinstance(error, Exception):
                board.tell(error)
                raise
            first = board.heard(POLL_SECONDS * 4)
            if first is None and _alone_again(error):
                first = TrainingError(
                    "Another of the processes that train together was lost without a word: most "
                    "likely it was killed because memory ran out. Lower batch_size or max_length."
                )
            if first is None:
                board.tell(error)
                raise
            raise first from error
        finally:
            ended.set()
            lookout.join()
        # Gloo's threads abort a process now and then while the interpreter takes itself apart,
        # unless they are gone by then.
        self.accelerator.end_training()


def _alone_again(error: Exception) -> bool:
    """Whether an error came of a companion that is gone."""
    signs = ("Connection closed by peer", "Connection reset by peer", "remote process exited")
    return isinstance(error, dist.DistError) or any(sign in str(error) for sign in signs)


class _Board:
    """A place that all processes see, also while they wait for each other."""

    def __init__(self, rank: int, store: Any) -> None:
        self._rank, self._store = rank, store

    def tell(self, error: BaseException) -> None:
        """Lets the others know why this process ends. What the first one says counts."""
        text = str(error).strip().partition("\n")[0][:500]
        name = type(error).__name__
        words = text if isinstance(error, LabError) else f"{name}: {text}" if text else name
        try:
            self._store.compare_set(_FATE, "", json.dumps({"rank": self._rank, "words": words}))
        except RuntimeError:
            return  # the store went with its process, and so will the others

    def heard(self, seconds: float = 0.0) -> TrainingError | None:
        """Why another process ended, waiting so long for it to say."""
        until = time.monotonic() + seconds
        while True:
            try:
                if self._store.check([_FATE]):
                    said = json.loads(self._store.get(_FATE))
                    return None if said["rank"] == self._rank else _lost(said)
            except RuntimeError:
                return None
            if time.monotonic() >= until:
                return None
            time.sleep(POLL_SECONDS / 5)

    def look_out(self, ended: threading.Event, last_words: Callable[[LabError], None]) -> None:
        while not ended.wait(POLL_SECONDS):
            error = self.heard()
            if error is not None and not ended.wait(GRACE_SECONDS):
                last_words(error)
                os._exit(1)


def _lost(said: Mapping[str, Any]) -> TrainingError:
    return TrainingError(
        f"Process {said['rank']} of those that train together failed, and the others ended with "
        f"it: {said['words']}"
    )


def _part_again(model: nn.Module) -> None:
    """Leaves each process its part of the weights alone. A forward pass may leave them whole, where
    no backward pass followed it."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def local(weights: Tensor) -> Tensor:
    """The part of ``weights`` that this process holds."""
    return weights.to_local() if isinstance(weights, DTensor) else weights
