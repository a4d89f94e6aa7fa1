"""A run's folder tells the whole run, whatever became of the process that wrote it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sft_core.config import LabConfig, TrainConfig
from sft_core.events import PhaseEntered, RunFinished, RunInterrupted, RunQueued, Warned, to_json
from sft_core.record import RunStatus
from sft_core.rundir import EVENTS, LAST_BYTES, RunDirectory, is_model
from sft_core.types import RunNotFoundError, StorageError

CONFIG = LabConfig(train=TrainConfig(max_steps=3))
QUEUED = RunQueued(run="r", position=1)
PHASE = PhaseEntered(phase="Reading rows")
END = RunFinished(step=3, restored_step=3, seconds=1.0, run_dir="r")


@pytest.fixture
def directory(tmp_path: Path) -> RunDirectory:
    return RunDirectory.create(tmp_path / "runs" / "r", CONFIG)


def weights(folder: Path, *, cut: int = 0, data: bytes = b"\0" * 8) -> None:
    """A model's folder in the safetensors layout, the last ``cut`` bytes not yet written."""
    folder.mkdir(parents=True)
    header = json.dumps(
        {
            "__metadata__": {"format": "pt"},
            "w": {"dtype": "F32", "shape": [2], "data_offsets": [0, len(data)]},
        }
    ).encode()
    whole = len(header).to_bytes(8, "little") + header + data
    (folder / "model.safetensors").write_bytes(whole[: len(whole) - cut])
    (folder / "config.json").write_text("{}")


def test_what_is_appended_is_read(directory: RunDirectory) -> None:
    for event in (QUEUED, PHASE, END):
        directory.append(event)
    record = RunDirectory.open(directory.path).read()
    assert record.events == (QUEUED, PHASE, END)
    assert record.config == CONFIG
    assert record.status is RunStatus.FINISHED


def test_every_event_is_on_disk_at_once(directory: RunDirectory) -> None:
    directory.append(PHASE)
    assert (directory.path / EVENTS).read_text() == to_json(PHASE) + "\n"


def test_half_a_line_is_left_alone_until_it_is_whole(directory: RunDirectory) -> None:
    directory.append(QUEUED)
    line = to_json(PHASE).encode() + b"\n"
    with (directory.path / EVENTS).open("ab") as file:
        file.write(line[:20])
        file.flush()
        events, offset = directory.tail(0)
        assert events == [QUEUED]
        assert directory.read().events == (QUEUED,)
        assert directory.tail(offset) == ([], offset)
        file.write(line[20:])
    assert directory.tail(offset) == ([PHASE], offset + len(line))


def test_a_killed_writer_s_half_line_does_not_spoil_the_next(directory: RunDirectory) -> None:
    directory.append(QUEUED)
    with (directory.path / EVENTS).open("ab") as file:
        file.write(b'{"event": "PhaseEnt')
    end = directory.interrupt("gone")
    assert directory.read().events == (QUEUED, end)


def test_a_damaged_line_costs_itself_alone(
    directory: RunDirectory, caplog: pytest.LogCaptureFixture
) -> None:
    directory.append(QUEUED)
    with (directory.path / EVENTS).open("ab") as file:
        file.write(b"\xff\x00 no event\n")
    directory.append(END)
    assert directory.read().events == (QUEUED, END)
    assert "damaged" in caplog.text


def test_an_end_is_found_by_the_last_line_alone(directory: RunDirectory) -> None:
    assert not directory.over()
    directory.append(Warned(code="long", message="x" * 2 * LAST_BYTES))
    assert not directory.over()
    directory.append(END)
    assert directory.over()
    with (directory.path / EVENTS).open("ab") as file:
        file.write(b"half")
    assert directory.over()


def test_a_run_is_interrupted_once(directory: RunDirectory) -> None:
    assert isinstance(directory.interrupt("gone"), RunInterrupted)
    assert directory.interrupt("gone") is None
    assert directory.read().status is RunStatus.INTERRUPTED


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunNotFoundError, match="no run"):
        RunDirectory.open(tmp_path)
    with pytest.raises(RunNotFoundError, match="not kept"):
        RunDirectory(tmp_path).config()


# -- weights ----------------------------------------------------------------------------------


def test_the_best_weights_that_there_are_count(directory: RunDirectory) -> None:
    assert directory.weights() is None
    for name in ("checkpoints/last", "checkpoints/best", "model"):
        weights(directory.path / name)
        assert directory.weights() == directory.path / name


@pytest.mark.parametrize("cut", [1, 8, 40, 110])
def test_weights_that_were_being_written_do_not_count(directory: RunDirectory, cut: int) -> None:
    weights(directory.path / "checkpoints" / "last")
    weights(directory.path / "model", cut=cut)
    assert directory.weights() == directory.path / "checkpoints" / "last"


def test_weights_without_a_configuration_do_not_count(tmp_path: Path) -> None:
    weights(tmp_path / "model")
    assert is_model(tmp_path / "model")
    (tmp_path / "model" / "config.json").unlink()
    assert not is_model(tmp_path / "model")


# -- who writes -------------------------------------------------------------------------------


def test_its_owner_is_alive(directory: RunDirectory) -> None:
    assert directory.alive()
    directory.release()
    assert not directory.alive()


def test_a_dead_owner_is_known_from_a_living_one(directory: RunDirectory) -> None:
    code = "import sys; from pathlib import Path; from sft_core.rundir import RunDirectory as R; "
    code += "R(Path(sys.argv[1])).claim(); print('mine', flush=True); sys.stdin.read()"
    owner = subprocess.Popen(
        [sys.executable, "-c", code, str(directory.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with owner:
        assert owner.stdout
        assert owner.stdout.readline() == b"mine\n"
        assert directory.alive()
        owner.kill()
        os.waitid(os.P_PID, owner.pid, os.WEXITED | os.WNOWAIT)
        assert not directory.alive(), "a process that nobody has buried yet is dead all the same"
    assert not directory.alive()


def test_a_number_that_was_given_out_again_is_another_process(directory: RunDirectory) -> None:
    owner = {"pid": os.getpid(), "started": "1"}
    (directory.path / "owner.json").write_text(json.dumps(owner))
    assert not directory.alive()


def test_a_stop_is_seen_by_everybody(directory: RunDirectory) -> None:
    assert not directory.stop_requested()
    RunDirectory(directory.path).request_stop()
    assert directory.stop_requested()


# -- what can go wrong with a disk ------------------------------------------------------------


def test_a_folder_that_cannot_be_made_is_explained(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file stands where the folder should be")
    with pytest.raises(StorageError, match="cannot be written to"):
        RunDirectory.create(tmp_path / "runs" / "r", CONFIG)


def test_a_full_disk_is_explained(directory: RunDirectory) -> None:
    (directory.path / EVENTS).unlink()
    (directory.path / EVENTS).symlink_to("/dev/full")
    with pytest.raises(StorageError, match="disk is full"):
        directory.append(PHASE)
