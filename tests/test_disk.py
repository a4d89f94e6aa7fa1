"""Files are whole or not there, the dead are told from the living, errors become sentences."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sft_core.disk import cores, explain, started, storing, write_whole
from sft_core.types import StorageError, TemplateError


def test_no_process_has_no_start() -> None:
    assert started(os.getpid())
    assert started(2**22 + 1) is None


def test_a_mark_stays_while_a_process_lives_and_goes_when_it_dies() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with child:
        mark = started(child.pid)
        assert mark
        assert mark == started(child.pid) != started(os.getpid())
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert started(child.pid) is None, "nobody has buried it yet, and it is dead all the same"
    assert started(child.pid) is None


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "file"
    write_whole(file, "old")
    with pytest.raises(UnicodeEncodeError):
        write_whole(file, "new \ud800")
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("number", "words"), [(28, "disk is full"), (13, "cannot be written"), (5, "error")]
)
def test_errors_of_the_disk_get_a_sentence(tmp_path: Path, number: int, words: str) -> None:
    with pytest.raises(StorageError, match=words), storing(tmp_path):
        raise OSError(number, os.strerror(number))


def test_errors_of_the_lab_pass_unchanged(tmp_path: Path) -> None:
    with pytest.raises(TemplateError, match="as it is"), storing(tmp_path):
        raise TemplateError("as it is")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "batch_size"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "batch_size"),
        (OSError(28, "No space left on device"), "disk is full"),
        (ZeroDivisionError("by nothing\nand more"), r"ZeroDivisionError: by nothing\)"),
        (KeyError(), "no message"),
    ],
)
def test_every_exception_has_a_sentence(error: Exception, words: str) -> None:
    assert re.search(words, explain(error))


def test_there_is_a_core_to_work_on() -> None:
    assert 1 <= cores() <= (os.cpu_count() or 1)
