"""How much memory this machine leaves to a process, and whether its CPU multiplies in bf16.

A container is told of the whole machine's memory and killed at its own bound, so what its
control group allows counts as well. Bytes everywhere. Nothing here knows of tensors; what a GPU has
is asked in ``shapes``, where torch is.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar, Final, Literal

import psutil  # type: ignore[import-untyped]
from pydantic import ConfigDict

from sft_core.recipe import Precision

SMALL: Final = 2_500_000
"""Parameters below which a model on a CPU computes in fp32 and on one thread: see
``models.precision`` and ``models.threads_for``."""

CGROUPS: Final = Path("/sys/fs/cgroup")
_VERSIONS: Final = (
    ("", "memory.max", "memory.current", "inactive_file"),
    ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)
"""Below the root: the folder, the bound, what is used, and the part of it that files hold and that
is given back when asked for. First as in version 2 of control groups, then as in version 1."""
UNBOUNDED: Final = 2**60
"""A bound beyond this is none: version 1 writes the largest multiple of a page."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What a run finds: "cpu" or "cuda", whether that computes in bf16, and how many bytes a
    process could hold there."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    device: str
    bf16: bool
    room: int


def settled(asked: Precision, parameters: int, device: str, bf16: bool) -> Literal["fp32", "bf16"]:
    """The precision of a run that asks for ``asked``: see ``models.precision``."""
    if asked != "auto":
        return asked
    worth = device == "cuda" or (device == "cpu" and parameters >= SMALL)
    return "bf16" if bf16 and worth else "fp32"


def free(root: Path = CGROUPS) -> int:
    """Bytes that processes here can still take: the machine's, or the container's where less."""
    available = int(psutil.virtual_memory().available)
    within = cgroup_free(root)
    return available if within is None else min(available, within)


def room(processes: Iterable[psutil.Process] | None = None, root: Path = CGROUPS) -> int:
    """Bytes that ``processes`` (this one, where none are given) could hold altogether: what they
    hold already, and what is free."""
    return free(root) + sum(map(held, [psutil.Process()] if processes is None else processes))


def held(process: psutil.Process | None = None) -> int:
    """Bytes that a process keeps in memory, 0 where it is gone."""
    try:
        return int((process or psutil.Process()).memory_info().rss)
    except psutil.Error:
        return 0


def cgroup_free(root: Path = CGROUPS) -> int | None:
    """Bytes that the control group allows beyond what is used; None where it sets no bound.

    ``root`` is where the groups are mounted. A container sees its own group there.
    """
    for folder, bound, used, files in _VERSIONS:
        limit = _number(root / folder / bound)
        current = _number(root / folder / used)
        if limit is not None and current is not None and limit < UNBOUNDED:
            return max(0, limit - current + _line(root / folder / "memory.stat", files))
    return None


def _number(file: Path) -> int | None:
    """None where there is no such file, or where it says "max"."""
    try:
        return int(file.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _line(file: Path, name: str) -> int:
    try:
        lines = file.read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return 0
    return next((int(line.split()[1]) for line in lines if line.split()[:1] == [name]), 0)


@lru_cache(maxsize=1)
def cpu_has_bf16(file: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the CPU multiplies in bf16, as far as its own description tells (Linux). The compute
    process asks torch instead."""
    try:
        flags = file.read_text(encoding="utf-8", errors="replace").split()
    except OSError:
        return False
    return not {"avx512_bf16", "amx_bf16"}.isdisjoint(flags)
