"""Weights on disk while a run goes on: whole folders, never half of one.

    <run>/checkpoints/last   the newest weights
    <run>/checkpoints/best   those with the lowest eval loss
    <run>/checkpoints/state  what going on needs, until the run is finished: see ``resume``
    <run>/model              what the run ended with
    <run>/adapter            of a LoRA run: what it learnt, without the base model

Each but ``state`` is a plain transformers folder. It is written beside its place and then moved
in, so that a process that is killed at any moment leaves either the old weights or the new ones.
"""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from sft_core.types import StorageError

LAST: Final = "checkpoints/last"
BEST: Final = "checkpoints/best"
STATE: Final = "checkpoints/state"
NUMBERS: Final = "state.json"
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
    """A new folder is renamed into place. In an old one each file is replaced by a rename, the
    weights last: only they change during a run, and are one file, so that is a single moment too.
    Adapters stand there twice, alone and merged; a run goes on from the copy of ``resume``."""
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


def store_next(folder: Path, write: Callable[[Path], None]) -> None:
    """Has ``write`` fill a new folder and puts it into ``folder`` under the next number; those
    before it go once it stands there. Several files that belong together change in one moment
    that way, which is the renaming of their folder. Raises StorageError as ``store`` does."""
    old = _numbered(folder)
    store(folder / str(int(old[-1].name) + 1 if old else 1), write)
    for place in old:
        shutil.rmtree(place, ignore_errors=True)


def newest(folder: Path) -> Path | None:
    """The last folder that ``store_next`` put into ``folder``."""
    return next(reversed(_numbered(folder)), None)


def _numbered(folder: Path) -> list[Path]:
    with suppress(OSError):
        numbered = [place for place in folder.iterdir() if place.name.isdecimal()]
        return sorted(numbered, key=lambda place: int(place.name))
    return []


def saved_numbers(run_dir: Path) -> dict[str, Any] | None:
    """The plain numbers of the state that a run can go on from, ``step`` and ``seconds`` among
    them; None where none is kept. Read without torch, so that a page may ask."""
    place = newest(run_dir / STATE)
    try:
        numbers = json.loads((place / NUMBERS).read_text(encoding="utf-8")) if place else None
    except (OSError, ValueError):
        return None
    return numbers if isinstance(numbers, dict) and isinstance(numbers.get("step"), int) else None


def clear_leftovers(run_dir: Path) -> None:
    """Removes what killed processes were writing when they died."""
    for folder in (run_dir, (run_dir / LAST).parent, run_dir / STATE):
        for place in folder.glob(".*.*"):
            if place.is_dir():
                shutil.rmtree(place, ignore_errors=True)


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
