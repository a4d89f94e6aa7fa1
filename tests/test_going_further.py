"""The document for larger machines cannot rot: its commands parse, its files load."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import DistributedType

from sft_core.cli import parser
from sft_core.config import LabConfig

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "examples/going_further"
TEXT = (FOLDER / "README.md").read_text(encoding="utf-8")
COMMANDS = [
    line
    for block in re.findall(r"```sh\n(.*?)```", TEXT, flags=re.DOTALL)
    for line in block.splitlines()
]


def commands(start: str) -> list[str]:
    found = [command for command in COMMANDS if command.startswith(start)]
    assert found
    return found


@pytest.fixture(autouse=True)
def beside_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder that the document is read in, with the run that it speaks of."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    (tmp_path / "RUN.json").write_text(LabConfig().to_json())
    monkeypatch.chdir(tmp_path)


def accepted(words: list[str]) -> None:
    """Whether a command of the lab is one, and its run can be read."""
    arguments = parser().parse_args(words)
    if "train" in words:
        config = LabConfig.from_json(Path(arguments.config).read_text(encoding="utf-8"))
        config.with_settings(arguments.set)


@pytest.mark.parametrize("command", commands("python -m sft_core "))
def test_commands_of_the_lab(command: str) -> None:
    accepted(shlex.split(command)[3:])


@pytest.mark.parametrize("command", commands("accelerate launch "))
def test_commands_of_the_launcher(command: str) -> None:
    given = launch_command_parser().parse_args(shlex.split(command)[2:])
    assert (given.training_script, given.module, given.num_processes) == ("sft_core", True, 4)
    accepted(given.training_script_args)
    launched, _, _ = _validate_launch_command(given)
    assert launched.use_fsdp or launched.multi_gpu
    if launched.use_fsdp:
        assert launched.fsdp_version == 2
    assert launched.mixed_precision == "no"


@pytest.mark.parametrize(
    ("name", "kind"), [("ddp", DistributedType.MULTI_GPU), ("fsdp", DistributedType.FSDP)]
)
def test_files_of_the_launcher(name: str, kind: DistributedType) -> None:
    config = load_config_from_file(str(FOLDER / f"{name}.yaml"))
    assert config.distributed_type == kind
    options = {action.dest for action in launch_command_parser()._actions}
    assert set(config.fsdp_config) <= options


def test_commands_of_the_hub() -> None:
    from huggingface_hub.cli.hf import app

    for command in commands("hf "):
        words = shlex.split(command)[1:]
        node = app
        context = node.make_context("hf", [], resilient_parsing=True)
        while hasattr(node, "get_command"):
            found = node.get_command(context, words[0])
            assert found is not None, command
            node, words = found, words[1:]
        node.make_context(node.name, words, parent=context)


def test_the_job_is_a_script_that_the_document_starts() -> None:
    job = FOLDER / "job.sh"
    assert subprocess.run(["bash", "-n", str(job)], check=False).returncode == 0
    assert "bash /lab/examples/going_further/job.sh RUN.json" in TEXT
    launched = job.read_text().replace("\\\n", " ")
    (line,) = [line for line in launched.splitlines() if line.startswith("accelerate launch")]
    line = line.replace('"$gpus"', "4").replace('"$1"', "RUN.json")
    given = launch_command_parser().parse_args(shlex.split(line)[2:])
    assert (given.training_script, given.num_processes) == ("sft_core", 4)
    accepted(given.training_script_args)
