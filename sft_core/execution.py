"""A run carried out in this process: training, with everything that happens in its log.

Nothing here imports torch until a run is executed.
"""

from __future__ import annotations

import logging
import math
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any

from sft_core.config import LabConfig
from sft_core.disk import explain
from sft_core.events import RunEvent, RunFailed, is_end
from sft_core.rundir import ERROR_LOG, RunDirectory, never
from sft_core.types import LabError, StorageError

log = logging.getLogger(__name__)


def execute(
    config: LabConfig,
    directory: RunDirectory,
    should_stop: Callable[[], bool] = never,
    *,
    resume: bool = False,
    minutes: float = math.inf,
    within: AbstractContextManager[None] | None = None,
) -> Iterator[RunEvent]:
    """Trains in this process and writes the log: each event is on disk before it is yielded. With
    ``resume`` the run goes on from its state; ``minutes`` bound this process's part of it. Training
    happens ``within`` a context where one is given, whose errors count as its own.

    Whatever happens, the log gets an end: an error becomes RunFailed with a sentence, a closed
    iterator RunInterrupted. Raises StorageError where the log itself cannot be written.
    """
    directory.claim()
    ended = False
    try:
        part = {"resume": resume, "minutes": minutes}
        for event in _explained(config, directory, should_stop, within or nullcontext(), part):
            directory.append(event)
            ended = is_end(event)
            yield event
    finally:
        # A full disk may refuse this line too; whoever reads the run next writes it then.
        with suppress(StorageError):
            if not ended:
                directory.interrupt("Training was broken off. What was saved until then is kept.")
        directory.release()


def _explained(
    config: LabConfig,
    directory: RunDirectory,
    should_stop: Callable[[], bool],
    within: AbstractContextManager[None],
    part: Mapping[str, Any],
) -> Iterator[RunEvent]:
    """The events of training; an exception becomes the last of them."""

    def stop() -> bool:
        return should_stop() or directory.stop_requested()

    try:
        from sft_core.train import train

        with within:
            yield from train(config, directory.path, run=directory.id, should_stop=stop, **part)
    except LabError as error:
        message = str(error)
        kind = type(error).__name__
    except Exception as error:
        log.exception("Run %s failed", directory.id)
        with suppress(OSError):
            (directory.path / ERROR_LOG).write_text(traceback.format_exc(), encoding="utf-8")
        message = explain(error)
        kind = type(error).__name__
    else:
        return
    yield RunFailed(kind=kind, message=message, run_dir=str(directory.path))
