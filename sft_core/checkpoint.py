"""Weights on disk while a run goes on: whole folders, never half of one.

    <run>/checkpoints/last   the newest weights
    <run>/checkpoints/best   those with the lowest eval loss
    <run>/model              what the run ended with
    <run>/adapter            of a LoRA run: what it learnt, without the base model

Each is a plain transformers folder. It is written beside its place and then moved in, so that a
process that is killed at any moment leaves either the old weights or the new ones. (State for
resuming, of the optimiser and the like, belongs into a folder of its own beside ``last``.)
"""

from __future__ import annotations

import errno
import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from sft_core.types import StorageError

LAST: Final = "checkpoints/last"
BEST: Final = "checkpoints/best"
MODEL: Final = "model"
ADAPTER: Final = "adapter"
"""What a LoRA run learnt, alone, as peft reads it: in each folder of its weights, which are merged,
and beside ``model``."""
SHARE: Final = 0.05
"""Of a run's time, saving ``last`` takes at most about so much."""
AT_MOST_EVERY: Final = 5.0
"""Seconds between two savings of ``last``, however fast they are."""


def store(folder: Path, write: Callable[[Path], None]) -> None:
    """Has ``write`` fill a new folder, and puts it at ``folder``. Raises StorageError, leaving
    what stood there before, where the disk refuses."""
    with refusals(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            fresh.chmod(0o755)
            write(fresh)
            _move_in(fresh, folder)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)


def _move_in(fresh: Path, folder: Path) -> None:
    """A new folder is renamed into place. In an old one each file is replaced by a rename; since
    only the weights change during a run, and they are one file, that is a single moment too."""
    if not folder.exists():
        fresh.rename(folder)
        return
    for file in sorted(fresh.rglob("*"), key=lambda path: path.suffix == ".safetensors"):
        if file.is_file():
            place = folder / file.relative_to(fresh)
            place.parent.mkdir(parents=True, exist_ok=True)
            file.replace(place)


def share(source: Path, folder: Path) -> None:
    """Puts the files of ``source`` at ``folder`` too, as links where the file system has them,
    so that a second name for the same weights costs no space. Raises StorageError."""

    def write(fresh: Path) -> None:
        shutil.copytree(source, fresh, copy_function=_link, dirs_exist_ok=True)

    store(folder, write)


def _link(source: str, place: str) -> None:
    try:
        os.link(source, place)
    except OSError:
        shutil.copy2(source, place)


@contextmanager
def refusals(place: Path) -> Iterator[None]:
    """Turns what the disk refuses inside into StorageError with a sentence about ``place``."""
    try:
        yield
    except Exception as error:
        # safetensors reports a full disk in an error class of its own.
        if not isinstance(error, OSError) and type(error).__name__ != "SafetensorError":
            raise
        raise StorageError(_refused(place, error)) from error


def _refused(folder: Path, error: Exception) -> str:
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    if full or "No space left" in str(error):
        return (
            f"The disk is full, so the weights could not be saved to {folder}. What was saved "
            "before is kept. Free some space or delete old runs, then start again."
        )
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return (
        f"The weights could not be saved to {folder} ({reason}). What was saved before is kept. "
        "Check the disk, or choose another folder for runs."
    )


class Rhythm:
    """Decides when ``last`` is due again, from how long it took to save: at once, and then so
    that saving costs at most ``SHARE`` of the time."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._next = -math.inf

    def due(self) -> bool:
        return self._now() >= self._next

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Times what is done inside, whether it succeeds or not."""
        began = self._now()
        try:
            yield
        finally:
            ended = self._now()
            self._next = ended + max((ended - began) / SHARE, AT_MOST_EVERY)
