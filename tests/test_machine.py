"""What the machine leaves, and what a container allows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil

from sft_core.machine import SMALL, cgroup_free, cpu_has_bf16, free, held, room, settled


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


def test_a_container_of_version_2_allows_what_its_bound_leaves(tmp_path: Path) -> None:
    write(tmp_path, memory__max="1000\n", memory__current="700\n")
    assert cgroup_free(tmp_path) == 300
    write(tmp_path, memory__stat="anon 400\ninactive_file 250\nactive_file 50\n")
    assert cgroup_free(tmp_path) == 550  # what files hold is given back when asked for


def test_a_container_of_version_1_too(tmp_path: Path) -> None:
    write(
        tmp_path / "memory",
        memory__limit_in_bytes="1000",
        memory__usage_in_bytes="1200",
        memory__stat="cache 9\ntotal_inactive_file 100\n",
    )
    assert cgroup_free(tmp_path) == 0


def test_no_bound_is_no_number(tmp_path: Path) -> None:
    assert cgroup_free(tmp_path) is None
    write(tmp_path, memory__max="max\n", memory__current="700\n")
    assert cgroup_free(tmp_path) is None
    write(
        tmp_path / "memory",
        memory__limit_in_bytes="9223372036854771712",
        memory__usage_in_bytes="5",
    )
    assert cgroup_free(tmp_path) is None


def test_the_smaller_bound_counts(tmp_path: Path) -> None:
    assert free(tmp_path / "nothing") > 10**6
    write(tmp_path, memory__max="1000", memory__current="400")
    assert free(tmp_path) == 600
    mine = psutil.Process()
    assert room([], tmp_path) == 600
    assert room([mine], tmp_path) > 600 + 10**6
    assert held(mine) > 10**6


def test_a_process_that_is_gone_holds_nothing() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    process = psutil.Process(child.pid)
    child.communicate()
    assert held(process) == 0


def test_bf16_is_read_off_the_flags(tmp_path: Path) -> None:
    write(tmp_path, new="flags\t\t: fpu avx512_bf16 sse\n", old="flags : fpu avx2 sse\n")
    assert cpu_has_bf16(tmp_path / "new")
    assert not cpu_has_bf16(tmp_path / "old")
    assert not cpu_has_bf16(tmp_path / "none")


def test_auto_takes_bf16_where_it_pays() -> None:
    assert settled("auto", SMALL, "cpu", True) == "bf16"
    assert settled("auto", SMALL - 1, "cpu", True) == "fp32"
    assert settled("auto", 1, "cuda", True) == "bf16"
    assert settled("auto", SMALL, "cuda", False) == "fp32"
    assert settled("bf16", 1, "cpu", False) == "bf16"
