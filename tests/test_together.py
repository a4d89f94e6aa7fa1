"""A whole run by two processes that ``accelerate launch`` starts, beside the same by one."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from sft_core.config import DataConfig, GenerateConfig, LabConfig, ModelConfig, TemplateConfig
from sft_core.events import (
    CheckpointSaved,
    EvalLogged,
    RunFailed,
    RunFinished,
    SampleGenerated,
    ScoreLogged,
    StepLogged,
)
from sft_core.execution import execute
from sft_core.recipe import TrainConfig
from sft_core.record import RunRecord
from sft_core.rundir import RunDirectory

ROOT = Path(__file__).resolve().parents[1]
CONFIG = LabConfig(
    data=DataConfig("six-tasks", rows=11, eval_rows=5),
    template=TemplateConfig("inst-resp"),
    model=ModelConfig("bytes-gpt", width=16, depth=1, heads=2, context=96),
    train=TrainConfig(
        max_steps=5,
        batch_size=3,
        accumulation=2,
        max_length=96,
        learning_rate=0.05,  # so much that the last weights are not the best
        schedule="constant",
        warmup_steps=0,
        precision="fp32",
        eval_every=1,
        sample_every=4,
        score_every=0,
    ),
    generate=GenerateConfig(max_new_tokens=3),
)
FAILS = """
import sys, os
from sft_core.learner import Learner
from sft_core.types import TrainingError
plain = Learner.optimise
def optimise(self, *rest):
    if self.done == 2 and not self.leads:
        raise TrainingError("Memory ran out over here.")
    return plain(self, *rest)
Learner.optimise = optimise
from sft_core.cli import main
sys.exit(main())
"""


def environment(**more: str) -> dict[str, str]:
    plain = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return {**os.environ, **plain, "ACCELERATE_USE_CPU": "true", **more}


def command_of(tmp: Path) -> list[str]:
    """What follows the name of the program: train CONFIG below ``tmp``/runs."""
    (tmp / "run.json").write_text(CONFIG.to_json())
    return ["train", "--config", str(tmp / "run.json"), "--runs", str(tmp / "runs")]


def launch(tmp: Path, *options: str) -> int:
    """Trains CONFIG in two processes, and gives the launcher's exit code."""
    command = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", *options]
    command += ["--num_processes", "2", "--num_machines", "1", "--main_process_port", "0"]
    command += ["--mixed_precision", "no", "--dynamo_backend", "no", "-m", "sft_core"]
    command += command_of(tmp)
    with (tmp / "out").open("wb") as out:
        done = subprocess.run(
            command, env=environment(), cwd=ROOT, timeout=180, stdout=out, stderr=out, check=False
        )
    return done.returncode


def start(tmp: Path, script: str, rank: int, port: int) -> subprocess.Popen[str]:
    """One of two processes, as a launcher would start it."""
    own = {"RANK": str(rank), "LOCAL_RANK": str(rank), "MASTER_PORT": str(port)}
    both = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    return subprocess.Popen(
        [sys.executable, "-c", script, *command_of(tmp)],
        env=environment(**own, **both),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def only_run(runs: Path) -> RunDirectory:
    (folder,) = runs.iterdir()
    return RunDirectory.open(folder)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    directory = RunDirectory.create(tmp_path_factory.mktemp("alone") / "run", CONFIG)
    for _ in execute(CONFIG, directory):
        pass
    return directory


def losses(record: RunRecord) -> list[float]:
    steps = [event.loss for event in record.of(StepLogged)]
    return steps + [event.loss for event in record.of(EvalLogged)]


@pytest.mark.parametrize(
    "way", [("--multi_gpu",), ("--use_fsdp", "--fsdp_version", "2")], ids=["ddp", "fsdp"]
)
def test_two_processes_make_the_run_that_one_makes(
    alone: RunDirectory, tmp_path: Path, way: tuple[str, ...]
) -> None:
    assert launch(tmp_path, *way) == 0, (tmp_path / "out").read_text()
    shared = only_run(tmp_path / "runs")
    one, two = alone.read(), shared.read()
    assert [type(event) for event in two.events] == [type(event) for event in one.events]
    assert losses(two) == pytest.approx(losses(one), abs=1e-5)
    for kind in (SampleGenerated, ScoreLogged, CheckpointSaved):
        assert len(two.of(kind)) == len(one.of(kind)) > 0
    assert [event.text for event in two.of(SampleGenerated)] == [
        event.text for event in one.of(SampleGenerated)
    ]
    first, second = one.last(RunFinished), two.last(RunFinished)
    assert first is not None
    assert second is not None
    assert second.restored_step == first.restored_step < first.step == 5
    for name in ("model", "checkpoints/best"):
        mine, theirs = (load_file(run.path / name / "model.safetensors") for run in (alone, shared))
        assert mine.keys() == theirs.keys()
        assert all(mine[key].allclose(theirs[key], atol=1e-4) for key in mine)
    assert not shared.alive()
    lines = (tmp_path / "out").read_text().count('"event": "RunFinished"')
    assert lines == 1


def test_one_that_fails_ends_all_with_its_sentence(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    both = [start(tmp_path, FAILS, rank, port) for rank in range(2)]
    leading, other = (process.communicate(timeout=180)[1] for process in both)
    assert [process.returncode for process in both] == [1, 1]
    failed = only_run(tmp_path / "runs").read().events[-1]
    assert isinstance(failed, RunFailed)
    assert failed.kind == "TrainingError"
    assert failed.message.startswith("Process 1 of those that train together failed")
    assert failed.message.endswith("Memory ran out over here.")
    assert leading.count(f"sft_core: {failed.message}") == 1
    assert "sft_core:" not in other
