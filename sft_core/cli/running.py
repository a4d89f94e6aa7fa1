"""``train``, ``compare``, ``evaluate``, ``export`` and ``demo``: runs and what they learnt."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

from sft_core import fitting, reports
from sft_core.cli.common import FAILED, OK, AddCommand, complain, print_json, why
from sft_core.config import DataConfig, LabConfig, TemplateConfig
from sft_core.console import Progress, beside, ctrl_c, curve, perplexities, scores
from sft_core.data import load
from sft_core.events import (
    Answered,
    Perplexity,
    PerplexityMeasured,
    RunEvent,
    RunFailed,
    RunInterrupted,
    RunStopped,
    Score,
    Scored,
    Side,
    to_json,
)
from sft_core.execution import execute
from sft_core.export import export as export_run
from sft_core.jobs import CompareJob, EvaluateJob, PerplexityJob
from sft_core.readers import read_texts
from sft_core.record import RunRecord
from sft_core.rundir import RunDirectory
from sft_core.runs import GONE, new_id
from sft_core.settings import HOST, launched, leads
from sft_core.together import execute_together
from sft_core.types import ConfigError, DataError, Example, LabError, Message, ResumeError
from sft_core.worker import use_cores

DEMO_PROMPTS: Final = 3


def add_commands(command: AddCommand) -> None:
    """The commands of this module, with their options."""
    trained = command(train, "Train a model; events as JSON lines.")
    trained.add_argument(
        "--estimate", action="store_true", help="print what it needs of memory, and train nothing"
    )
    compared = command(compare, "Answers of base and tuned, side by side.")
    compared.add_argument("--prompt", action="append", required=True, metavar="TEXT")
    evaluated = command(evaluate, "Exact match, and perplexity of raw text, before and after.")
    evaluated.add_argument("--data", metavar="FILE", help="rows; else the run's own test rows")
    evaluated.add_argument(
        "--text", metavar="FILE", help='raw text: one document (.txt), or a "text" in every row'
    )
    exported = command(export, "A zip with weights, settings, rows and a script.")
    exported.add_argument("--out", type=Path, metavar="FILE", help="default: RUN.zip")
    for made in (compared, evaluated, exported):
        made.add_argument("--run", required=True, metavar="DIR", help="a run's folder, or its id")
    for made in (compared, evaluated):
        made.add_argument("--json", action="store_true", help="print JSON")
    trained.add_argument(
        "--resume", metavar="RUN", help="go on with a paused or broken-off run, by folder or id"
    )
    shown = command(demo, "Train, score and compare.")
    for made in (trained, shown):
        made.add_argument("--config", metavar="RUN.json", help="default: the parrot's run")
        made.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    for made, also in ((compared, ""), (evaluated, "; answers stay greedy")):
        told = f"of template or generate, such as template.name=alpaca{also}"
        made.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help=told)
    for made in (trained, compared, evaluated, exported, shown):
        made.add_argument("--runs", type=Path, default=HOST.runs_dir, metavar="DIR")


# -- train ------------------------------------------------------------------------------------


def train(arguments: argparse.Namespace) -> int:
    if arguments.resume is not None and arguments.estimate:
        return _estimate(RunDirectory.find(arguments.resume, arguments.runs).config())
    if arguments.resume is not None:
        config, directory = _reopened(arguments)
        events = _followed(config, directory, resume=True)
    else:
        config = _config(arguments.config).with_settings(arguments.set)
        if arguments.estimate:
            return _estimate(config)
        events = _trained(config, arguments.runs)
    last = None
    for last in events:
        print(to_json(last), flush=True)
    if isinstance(last, RunFailed | RunInterrupted):
        complain(last.message, FAILED)
    if isinstance(last, RunFailed | RunInterrupted | RunStopped):
        _tell_how_to_go_on(RunDirectory(Path(last.run_dir)))
    return FAILED if isinstance(last, RunFailed | RunInterrupted) else OK


def _tell_how_to_go_on(directory: RunDirectory) -> None:
    with suppress(ResumeError):
        step = directory.resumable_from(directory.read().status)
        go_on = f"python -m sft_core train --resume {directory.path}"
        print(f"Saved after step {step:,}. Go on with: {go_on}", file=sys.stderr)


def _reopened(arguments: argparse.Namespace) -> tuple[LabConfig, RunDirectory]:
    """A run that can go on, with its own configuration. Raises ResumeError where it cannot."""
    if arguments.config is not None or arguments.set:
        raise ConfigError(
            "A run is resumed with the configuration that it began with. Leave --config and --set "
            "out, or start a new run."
        )
    if launched() > 1:
        raise ConfigError(
            "A run is resumed by one process. Leave accelerate launch out, or start a new run."
        )
    directory = RunDirectory.find(arguments.resume, arguments.runs)
    if not directory.alive():
        directory.interrupt(GONE)
    directory.resumable_from(directory.read().status)
    directory.reopen()
    return directory.config(), directory


def _trained(config: LabConfig, runs: Path) -> Iterator[RunEvent]:
    """The events of a new run, of this process or of all that were launched with it; none where
    another one of those leads."""
    if launched() == 1:
        yield from _followed(config, RunDirectory.create(runs / new_id(), config))
        return
    use_cores()
    progress = Progress(sys.stderr)
    try:
        with ctrl_c(sys.stderr if leads() else None) as should_stop:
            for event in execute_together(config, runs, should_stop):
                progress.show(event)
                yield event
    except LabError:
        if leads():
            raise
        raise SystemExit(FAILED) from None  # the process that leads says why
    finally:
        progress.close()


def _estimate(config: LabConfig) -> int:
    """Prints what the run would need of memory, every row taken to be as long as it may be."""
    from sft_core.shapes import foresee

    found = foresee(config)
    if found is None:
        return complain(f"The shape of {config.model.name} is not known here.", FAILED)
    print(fitting.table(found))
    return OK


def _config(name: str | None) -> LabConfig:
    if name is None:
        return LabConfig()
    try:
        return LabConfig.from_json(Path(name).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The configuration {name} cannot be read: {why(error)}.") from None


def _followed(
    config: LabConfig, directory: RunDirectory, resume: bool = False
) -> Iterator[RunEvent]:
    """Trains here, with a progress bar and Ctrl-C as the Pause button."""
    use_cores()
    progress = Progress(sys.stderr)
    try:
        with ctrl_c(sys.stderr) as should_stop:
            for event in execute(config, directory, should_stop, resume=resume):
                progress.show(event)
                yield event
    finally:
        progress.close()


# -- compare, evaluate ------------------------------------------------------------------------


def compare(arguments: argparse.Namespace) -> int:
    directory = RunDirectory.find(arguments.run, arguments.runs)
    config = _asked(directory.config(), arguments.set)
    for prompt, answers in _answers(directory, config, arguments.prompt):
        if arguments.json:
            print_json(reports.answers(prompt, answers))
        else:
            print(beside(prompt, answers), end="\n\n")
    return OK


def _asked(trained: LabConfig, settings: Sequence[str]) -> LabConfig:
    """A finished run's configuration with other settings for asking it: its template and how
    answers are drawn. Raises ConfigError for any other change, which would do nothing."""
    config = trained.with_settings(settings)
    if trained.but(template=config.template, generate=config.generate) != config:
        raise ConfigError(
            "A finished run can be asked with other settings of template and generate only; data, "
            "model, policy and train are what it was trained with. Train another run to change "
            "those."
        )
    template = config.template
    if template.name != trained.template.name and template.source == trained.template.source:
        # Another name means another template, and not the run's own source under that name.
        config = config.but(template=replace(template, source=None))
    return config


def _other_template(directory: RunDirectory, config: LabConfig) -> TemplateConfig | None:
    """What prompts are written in where it is not what the run was trained with."""
    return None if config.template == directory.config().template else config.template


def _answers(
    directory: RunDirectory, config: LabConfig, prompts: Sequence[str]
) -> Iterator[tuple[str, dict[Side, Answered]]]:
    """Each prompt with the answer of base and tuned."""
    use_cores()
    asked = tuple((Message("user", prompt),) for prompt in prompts)
    template = _other_template(directory, config)
    job = CompareJob(directory.path, config, asked, config.generate, template)
    found: dict[int, dict[Side, Answered]] = {}
    with ctrl_c(sys.stderr) as should_stop:
        for event in job.perform(should_stop):
            if isinstance(event, Answered):
                found.setdefault(event.prompt, {})[event.side] = event
    for at, prompt in enumerate(prompts):
        yield prompt, found.get(at, {})


def evaluate(arguments: argparse.Namespace) -> int:
    directory = RunDirectory.find(arguments.run, arguments.runs)
    config = _asked(directory.config(), arguments.set)
    texts = read_texts(Path(arguments.text)) if arguments.text else ()
    rows = _rows(directory, arguments.data, may_be_none=bool(arguments.text))
    with ctrl_c(sys.stderr) as should_stop:
        found = _scores(directory, config, rows, should_stop) if rows is not None else {}
        read = {}
        if arguments.text and not (found and should_stop()):  # a stop keeps the scores
            read = _perplexities(directory, config, texts, should_stop)
    if arguments.json:
        print_json(reports.evaluation(directory.id, config.template.name, found, read))
    else:
        tables = [scores(found)] if found else []
        print("\n\n".join([*tables, *([perplexities(read)] if read else [])]))
    return OK


def _rows(
    directory: RunDirectory, data: str | None, may_be_none: bool
) -> tuple[Example, ...] | None:
    """The rows to ask: those of ``data``, else those that the run kept for testing; None where
    it kept none and that ``may_be_none``."""
    if not data:
        try:
            return directory.test_rows()
        except DataError:
            if may_be_none:
                return None
            raise
    loaded = load(DataConfig(source=data))
    for bad in loaded.bad:
        complain(f"row {bad.row}: {bad.message}", FAILED)
    return loaded.held_out or loaded.examples


def _scores(
    directory: RunDirectory,
    config: LabConfig,
    rows: tuple[Example, ...],
    should_stop: Callable[[], bool],
) -> dict[Side, Score]:
    """Exact match of base and tuned on ``rows``, asked as ``config`` says."""
    use_cores()
    found: dict[Side, Score] = {}
    template = _other_template(directory, config)
    job = EvaluateJob(directory.path, config, rows, template=template)
    for event in job.perform(should_stop):
        if isinstance(event, Scored):
            found[event.side] = event.score
    if not found:
        raise LabError("Stopped before every row was asked, so there is no score.")
    return found


def _perplexities(
    directory: RunDirectory,
    config: LabConfig,
    texts: tuple[str, ...],
    should_stop: Callable[[], bool],
) -> dict[Side, Perplexity]:
    """How well base and tuned predict raw ``texts``."""
    use_cores()
    found: dict[Side, Perplexity] = {}
    for event in PerplexityJob(directory.path, config, texts).perform(should_stop):
        if isinstance(event, PerplexityMeasured):
            found[event.side] = event.perplexity
    if not found:
        raise LabError("Stopped before every text was read, so there is no perplexity.")
    return found


# -- export, demo -----------------------------------------------------------------------------


def export(arguments: argparse.Namespace) -> int:
    directory = RunDirectory.find(arguments.run, arguments.runs)
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
    with ctrl_c(sys.stderr) as should_stop:
        print(f"{scores(_scores(directory, config, rows, should_stop))}\n")
    for prompt, answers in _answers(directory, config, _demo_prompts(rows)):
        print(beside(prompt, answers), end="\n\n")
    print(f"Ask it more: python -m sft_core compare --run {directory.path} --prompt TEXT")
    return OK


def _demo_prompts(rows: Sequence[Example]) -> list[str]:
    """The first row's prompt of each of a few categories."""
    first = {row.category: row.prompt[-1].text for row in reversed(rows) if row.prompt}
    return list(first.values())[-DEMO_PROMPTS:]
