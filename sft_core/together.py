"""One run carried out by several processes: ``accelerate launch -m sft_core train``.

One of them leads: it makes the run's folder, writes the log, and yields the events. The others
train along in silence, and all end together. torch is only imported once there is a run to do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from sft_core.config import LabConfig
from sft_core.events import RunEvent, RunFailed
from sft_core.execution import execute
from sft_core.rundir import RunDirectory, never
from sft_core.runs import new_id
from sft_core.types import LabError, StorageError


def execute_together(
    config: LabConfig, runs: Path, should_stop: Callable[[], bool] = never
) -> Iterator[RunEvent]:
    """Trains in this process and its companions, in a new folder below ``runs`` that the leading
    one makes, and yields the events there.

    Raises StorageError where the folder cannot be made. Where training fails, the leading process
    yields RunFailed with the sentence, and a companion raises its own error.
    """
    from sft_core.processes import Processes

    processes = Processes()
    path, problem = processes.told(_folder(config, runs) if processes.leads else ("", ""))
    if problem:
        raise StorageError(problem)
    directory = RunDirectory(Path(path))
    if processes.leads:

        def last_words(error: LabError) -> None:
            directory.append(RunFailed(kind=type(error).__name__, message=str(error), run_dir=path))

        within = processes.one_fate(last_words)
        yield from execute(config, directory, should_stop, within=within)
        return
    with processes.one_fate(lambda _: None):
        _train_along(config, directory, should_stop)


def _folder(config: LabConfig, runs: Path) -> tuple[str, str]:
    """A new run's folder, or the sentence why it could not be made."""
    try:
        return str(RunDirectory.create(runs / new_id(), config).path), ""
    except StorageError as error:
        return "", str(error)


def _train_along(
    config: LabConfig, directory: RunDirectory, should_stop: Callable[[], bool]
) -> None:
    from sft_core.train import train

    for _ in train(config, directory.path, run=directory.id, should_stop=should_stop):
        pass
