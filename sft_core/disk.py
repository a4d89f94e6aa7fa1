"""The machine: whole files or none, which process is alive, how many cores there are, and what
the system's errors mean in a sentence."""

from __future__ import annotations

import errno
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from sft_core.types import LabError, StorageError

_FULL: Final = "The disk is full. Free some space or delete old runs, then start again."
_CLOSED: Final = (
    "The folder for runs cannot be written to. Give another one: SFT_RUNS_DIR, or --runs."
)
_STORAGE: Final = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EACCES: _CLOSED,
    errno.EPERM: _CLOSED,
    errno.EROFS: _CLOSED,
    errno.ENOTDIR: _CLOSED,
}


def explain(error: Exception) -> str:
    """A sentence for an exception that is no LabError: what a person can do about it, or, where
    nobody foresaw it, that it is the lab's fault and where the whole of it can be read."""
    text = str(error).strip()
    memory = "out of memory" in text.lower() or "can't allocate memory" in text
    if isinstance(error, MemoryError) or memory:
        return (
            "Memory ran out. Lower batch_size or max_length, turn gradient_checkpointing on, or "
            "choose a smaller model."
        )
    if isinstance(error, OSError) and error.errno in _STORAGE:
        return _STORAGE[error.errno]
    first = text.splitlines()[0][:200] if text else "no message"
    return (
        f"Something went wrong that the lab did not foresee ({type(error).__name__}: {first}). "
        "The whole error is in the log. What was saved until then is kept."
    )


@contextmanager
def storing(path: Path) -> Iterator[None]:
    """Turns the errors of writing below ``path`` into StorageError with a sentence."""
    try:
        yield
    except LabError:
        raise
    except OSError as error:
        sentence = _STORAGE.get(error.errno or 0) or f"{error.strerror or error}: {path.name}."
        raise StorageError(f"{sentence} ({path})") from error


def write_whole(path: Path, text: str) -> None:
    """Writes a file so that a reader finds the old text or the new one, never half of it."""
    with tempfile.NamedTemporaryFile(
        "w", dir=path.parent, prefix=f".{path.name}.", encoding="utf-8", delete=False
    ) as file:
        temporary = Path(file.name)
        try:
            file.write(text)
            file.close()
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def started(pid: int) -> str | None:
    """A mark that tells a living process from a later one with the same number: when it started,
    in the words of the system. None where there is no such process, or only its remains."""
    table = Path("/proc/self/stat")
    if table.exists():
        try:
            # proc(5): the name may hold spaces and brackets; after it come state (field 3) and,
            # in clock ticks since boot, the start (field 22).
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        return None if fields[0] in "ZX" else fields[19]
    command = ["ps", "-o", "lstart=", "-p", str(pid)]
    listing = subprocess.run(command, capture_output=True, text=True, check=False)
    return listing.stdout.strip() or None


def cores() -> int:
    """How many cores this process may use: those that it may run on, or fewer where a container
    has a quota (cgroup 2: "max" or microseconds of work in a period, and the period)."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(allowed or 1, round(int(quota) / int(period))))
    return allowed or 1
