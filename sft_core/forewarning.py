"""What a run says before it begins, so that nobody spends a minute on what cannot be well; and what
it says where memory ran out all the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from sft_core import fitting
from sft_core.adapters import lora_notes
from sft_core.config import LabConfig, TrainOn
from sft_core.events import RunEvent, Warned
from sft_core.learner import Learner
from sft_core.microbatch import is_out_of_memory
from sft_core.prepare import Prepared
from sft_core.schedule import warmup_steps
from sft_core.shapes import foresee
from sft_core.types import TrainingError


def foreseen(config: LabConfig, prepared: Prepared) -> Iterator[RunEvent]:
    """What the run will need of memory, and a warning where that is not there. Never a refusal:
    an estimate errs, and a process that dies costs its own run alone."""
    found = foresee(config, [len(row.ids) for row in prepared.train])
    if found is None:
        return
    yield fitting.event(found)
    if message := fitting.warning(found):
        yield Warned(code="memory", message=message)


def notes(config: LabConfig, learner: Learner, end: Sequence[int]) -> Iterator[RunEvent]:
    """What a person should know of these settings. ``end`` are the ids of the end of a turn."""
    if learner.note:
        yield Warned(code="compile", message=learner.note)
    wanted, total = config.train.warmup_steps, learner.total
    warmup = warmup_steps(config.train, total)
    if warmup < wanted:
        yield Warned(
            code="warm-up",
            message=f"The warm-up of {wanted} steps is cut to {warmup}, half of this run's "
            f"{total}.",
        )
    yield from lora_notes(config)
    policy = config.policy
    if not end:
        yield Warned(
            code="no-end",
            message="The template prints nothing after an answer, so the model will not learn "
            "to stop. Choose one that ends each answer with a token of its own.",
        )
    elif not policy.end_of_turn and policy.train_on is not TrainOn.ALL:
        yield Warned(
            code="no-end",
            message="The mask policy leaves ends of turn out, so the model will not learn to "
            "stop. Turn policy.end_of_turn on.",
        )


@contextmanager
def memory_explained(config: LabConfig) -> Iterator[None]:
    """Turns a lack of memory into a sentence that names the knobs."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        train = config.train
        raise TrainingError(
            f"Memory ran out. Lower batch_size (now {train.batch_size}; raise accumulation to "
            f"keep the size of a step) or max_length (now {train.max_length})"
            + ("" if train.gradient_checkpointing else ", turn gradient_checkpointing on")
            + ", or choose a smaller model. What was saved until then is kept."
        ) from error
