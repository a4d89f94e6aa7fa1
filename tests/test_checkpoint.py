"""Weights reach the disk whole or not at all."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from sft_core.checkpoint import AT_MOST_EVERY, SHARE, Rhythm, share, store
from sft_core.models import open_folder, open_model, save
from sft_core.types import StorageError
from tests.tensors import SMALL, preset


def write(text: str):
    def fill(folder: Path) -> None:
        (folder / "model.safetensors").write_text(text)
        (folder / "config.json").write_text(f"config of {text}")

    return fill


def contents(folder: Path) -> dict[str, str]:
    return {str(file.relative_to(folder)): file.read_text() for file in folder.rglob("*.*")}


@contextmanager
def files_no_longer_than(size: int) -> Iterator[None]:
    """A disk that refuses, for real: the system fails each write beyond ``size`` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_folder_is_made_and_then_renewed(tmp_path: Path) -> None:
    place = tmp_path / "checkpoints" / "last"
    store(place, write("one"))
    assert contents(place) == {"model.safetensors": "one", "config.json": "config of one"}
    store(place, write("two"))
    assert contents(place) == {"model.safetensors": "two", "config.json": "config of two"}
    assert [file.name for file in place.parent.iterdir()] == ["last"]


def test_a_reader_finds_the_folder_complete_at_every_moment(tmp_path: Path) -> None:
    place = tmp_path / "last"
    store(place, write("one"))

    def look(folder: Path) -> None:
        write("two")(folder)
        assert contents(place) == {"model.safetensors": "one", "config.json": "config of one"}

    store(place, look)


def test_a_failure_leaves_what_stood_there_and_nothing_else(tmp_path: Path) -> None:
    place = tmp_path / "last"
    store(place, write("one"))

    def fail(folder: Path) -> None:
        write("half")(folder)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(StorageError, match=r"The disk is full,.*What was saved before is kept"):
        store(place, fail)
    assert contents(tmp_path) == {
        "last/model.safetensors": "one",
        "last/config.json": "config of one",
    }


def test_other_errors_pass_through(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        store(tmp_path / "last", fail)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_refuses_a_models_weights_costs_nothing_that_was_saved(tmp_path: Path) -> None:
    opened = open_model(SMALL, None, seed=0)
    place = tmp_path / "last"

    def write_model(folder: Path) -> None:
        save(opened.model, opened.tokenizer, preset(), folder, (259,))

    store(place, write_model)
    with files_no_longer_than(50_000), pytest.raises(StorageError, match="could not be saved"):
        store(place, write_model)
    ids = torch.tensor([[256, 65, 257]])
    with torch.inference_mode():
        assert torch.equal(open_folder(place).model(ids).logits, opened.model(ids).logits)
    assert [file.name for file in tmp_path.iterdir()] == ["last"]


def test_a_place_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="could not be saved to"):
        store(tmp_path / "file" / "last", write("one"))


def test_shared_weights_take_no_further_space(tmp_path: Path) -> None:
    store(tmp_path / "best", write("one"))
    share(tmp_path / "best", tmp_path / "model")
    files = [tmp_path / name / "model.safetensors" for name in ("best", "model")]
    assert files[0].stat().st_ino == files[1].stat().st_ino
    store(tmp_path / "best", write("two"))
    assert [file.read_text() for file in files] == ["two", "one"]


ENDLESS = """
import sys
from pathlib import Path
from sft_core.checkpoint import store

def write(folder):
    (folder / "model.safetensors").write_bytes(bytes([number % 256]) * 200_000)
    (folder / "config.json").write_text("{}")

for number in range(10**9):
    store(Path(sys.argv[1]), write)
    if number == 2:
        print("going", flush=True)
"""


def test_a_process_killed_while_saving_leaves_whole_weights(tmp_path: Path) -> None:
    for attempt in range(5):
        place = tmp_path / str(attempt) / "last"
        process = subprocess.Popen(
            [sys.executable, "-c", ENDLESS, str(place)], stdout=subprocess.PIPE, text=True
        )
        with process:
            assert process.stdout is not None
            assert process.stdout.readline() == "going\n"
            time.sleep(0.007 * attempt)
            process.kill()
        data = (place / "model.safetensors").read_bytes()
        assert len(data) == 200_000
        assert len(set(data)) == 1
        assert (place / "config.json").read_text() == "{}"


def test_saving_takes_its_share_of_the_time_and_no_more() -> None:
    now = 0.0
    rhythm = Rhythm(lambda: now)
    assert rhythm.due()
    with rhythm.saving():
        now += 3
    now += 3 / SHARE - 0.1
    assert not rhythm.due()
    now += 0.2
    assert rhythm.due()


def test_fast_saving_is_not_done_all_the_time() -> None:
    now = 0.0
    rhythm = Rhythm(lambda: now)
    with rhythm.saving():
        now += 0.001
    now += AT_MOST_EVERY - 0.1
    assert not rhythm.due()


def test_a_failed_saving_is_not_tried_again_at_once() -> None:
    now = 0.0
    rhythm = Rhythm(lambda: now)
    with pytest.raises(ZeroDivisionError), rhythm.saving():
        raise ZeroDivisionError
    assert not rhythm.due()
