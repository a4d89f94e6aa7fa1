"""``train``, ``compare``, ``evaluate``, ``export`` and ``demo``: runs and what they learnt."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from sft_core import reports
from sft_core.cli.common import FAILED, OK, AddCommand, complain, print_json, why
from sft_core.config import DataConfig, LabConfig
from sft_core.console import Progress, beside, ctrl_c, curve, scores
from sft_core.data import load
from sft_core.events import (
    Answered,
    RunEvent,
    RunFailed,
    RunInterrupted,
    Score,
    Scored,
    Side,
    to_json,
)
from sft_core.export import export as export_run
from sft_core.jobs import CompareJob, EvaluateJob
from sft_core.record import RunRecord
from sft_core.rundir import CONFIG, RunDirectory, execute
from sft_core.runs import new_id
from sft_core.settings import HOST
from sft_core.types import ConfigError, Example, LabError, Message
from sft_core.worker import use_cores

DEMO_PROMPTS: Final = 3


def add_commands(command: AddCommand) -> None:
    """The commands of this module, with their options."""
    trained = command(train, "Train a model; events as JSON lines.")
    compared = command(compare, "Answers of base and tuned, side by side.")
    compared.add_argument("--prompt", action="append", required=True, metavar="TEXT")
    evaluated = command(evaluate, "Exact match before and after.")
    evaluated.add_argument("--data", metavar="FILE", help="rows; else the run's own test rows")
    exported = command(export, "A zip with weights, settings, rows and a script.")
    exported.add_argument("--out", type=Path, metavar="FILE", help="default: RUN.zip")
    for made in (compared, evaluated, exported):
        made.add_argument("--run", required=True, metavar="DIR", help="a run's folder, or its id")
    for made in (compared, evaluated):
        made.add_argument("--json", action="store_true", help="print JSON")
    shown = command(demo, "Train, score and compare.")
    for made in (trained, shown):
        made.add_argument("--config", metavar="RUN.json", help="default: the parrot's run")
    for made in (trained, compared, shown):
        made.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    for made in (trained, compared, evaluated, exported, shown):
        made.add_argument("--runs", type=Path, default=HOST.runs_dir, metavar="DIR")


# -- train ------------------------------------------------------------------------------------


def train(arguments: argparse.Namespace) -> int:
    config = _config(arguments.config).with_settings(arguments.set)
    directory = RunDirectory.create(arguments.runs / new_id(), config)
    last = None
    for last in _followed(config, directory):
        print(to_json(last), flush=True)
    if isinstance(last, RunFailed | RunInterrupted):
        return complain(last.message, FAILED)
    return OK


def _config(name: str | None) -> LabConfig:
    if name is None:
        return LabConfig()
    try:
        return LabConfig.from_json(Path(name).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The configuration {name} cannot be read: {why(error)}.") from None


def _followed(config: LabConfig, directory: RunDirectory) -> Iterator[RunEvent]:
    """Trains here, with a progress bar and Ctrl-C as the Stop button."""
    use_cores()
    progress = Progress(sys.stderr)
    try:
        with ctrl_c(sys.stderr) as should_stop:
            for event in execute(config, directory, should_stop):
                progress.show(event)
                yield event
    finally:
        progress.close()


# -- compare, evaluate ------------------------------------------------------------------------


def compare(arguments: argparse.Namespace) -> int:
    directory = _find_run(arguments.run, arguments.runs)
    config = directory.config().with_settings(arguments.set)
    for prompt, answers in _answers(directory, config, arguments.prompt):
        if arguments.json:
            print_json(reports.answers(prompt, answers))
        else:
            print(beside(prompt, answers), end="\n\n")
    return OK


def _answers(
    directory: RunDirectory, config: LabConfig, prompts: Sequence[str]
) -> Iterator[tuple[str, dict[Side, Answered]]]:
    """Each prompt with the answer of base and tuned."""
    use_cores()
    asked = tuple((Message("user", prompt),) for prompt in prompts)
    job = CompareJob(directory.path, config, asked, config.generate)
    found: dict[int, dict[Side, Answered]] = {}
    with ctrl_c(sys.stderr) as should_stop:
        for event in job.perform(should_stop):
            if isinstance(event, Answered):
                found.setdefault(event.prompt, {})[event.side] = event
    for at, prompt in enumerate(prompts):
        yield prompt, found.get(at, {})


def evaluate(arguments: argparse.Namespace) -> int:
    directory = _find_run(arguments.run, arguments.runs)
    rows = None
    if arguments.data:
        loaded = load(DataConfig(source=arguments.data))
        rows = loaded.held_out or loaded.examples
        for bad in loaded.bad:
            complain(f"row {bad.row}: {bad.message}", FAILED)
    found = _scores(directory, rows)
    if arguments.json:
        print_json(reports.evaluation(directory.id, found))
    else:
        print(scores(found))
    return OK


def _scores(directory: RunDirectory, rows: tuple[Example, ...] | None) -> dict[Side, Score]:
    """Exact match of base and tuned on ``rows``, or on the rows that the run kept for testing."""
    use_cores()
    found: dict[Side, Score] = {}
    with ctrl_c(sys.stderr) as should_stop:
        for event in EvaluateJob(directory.path, directory.config(), rows).perform(should_stop):
            if isinstance(event, Scored):
                found[event.side] = event.score
    if not found:
        raise LabError("Stopped before every row was asked, so there is no score.")
    return found


def _find_run(name: str, runs: Path) -> RunDirectory:
    """A run by its folder, or by its id below the folder for runs."""
    inside = runs / name
    return RunDirectory.open(inside if (inside / CONFIG).is_file() else Path(name))


# -- export, demo -----------------------------------------------------------------------------


def export(arguments: argparse.Namespace) -> int:
    directory = _find_run(arguments.run, arguments.runs)
    target = arguments.out or Path(f"{directory.id}.zip")
    export_run(directory, target)
    print(target)
    return OK


def demo(arguments: argparse.Namespace) -> int:
    """The main job without a browser: train the default or a run that is written down, look at
    it, compare."""
    config = _config(arguments.config).with_settings(arguments.set)
    directory = RunDirectory.create(arguments.runs / new_id(), config)
    print(f"Training {config.model.name} on {config.data.source} in {directory.path}")
    record = RunRecord(config)
    for event in _followed(config, directory):
        record.add(event)
    last = record.events[-1]
    if isinstance(last, RunFailed | RunInterrupted):
        return complain(last.message, FAILED)
    print(f"\n{curve(record)}\n")
    rows = directory.test_rows()
    print(f"{scores(_scores(directory, rows))}\n")
    for prompt, answers in _answers(directory, config, _demo_prompts(rows)):
        print(beside(prompt, answers), end="\n\n")
    print(f"Ask it more: python -m sft_core compare --run {directory.path} --prompt TEXT")
    return OK


def _demo_prompts(rows: Sequence[Example]) -> list[str]:
    """The first row's prompt of each of a few categories."""
    first = {row.category: row.prompt[-1].text for row in reversed(rows) if row.prompt}
    return list(first.values())[-DEMO_PROMPTS:]
