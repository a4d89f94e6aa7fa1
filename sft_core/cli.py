"""The lab without a page: ``python -m sft_core inspect``, ``train``, ``compare``, ``evaluate``,
``export`` and ``demo``.

Results go to standard output, as JSON where a program may want them; progress and errors go to
standard error, an error as one sentence. Exit code 0 means done (a stopped run is done), 1 that
the work or a part of it failed, 2 that the command was wrong.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from sft_core import reports
from sft_core.config import DataConfig, LabConfig, MaskPolicy, TemplateConfig, TrainOn
from sft_core.console import Progress, beside, ctrl_c, curve, scores
from sft_core.data import load
from sft_core.events import (
    Answered,
    RunEvent,
    RunFailed,
    RunInterrupted,
    RunRecord,
    Score,
    Scored,
    Side,
    to_json,
)
from sft_core.export import export
from sft_core.jobs import CompareJob, EvaluateJob
from sft_core.readers import read_file
from sft_core.rivals import RIVALS
from sft_core.rundir import CONFIG, RunDirectory, execute
from sft_core.runs import new_id
from sft_core.settings import HOST
from sft_core.templates import resolve
from sft_core.tokenizer import load_tokenizer
from sft_core.types import ConfigError, Example, LabError, Message, RowError, RunNotFoundError
from sft_core.worker import use_cores

OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2

DEMO_PROMPTS: Final = 3


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code. argparse itself leaves with 2."""
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s")
    arguments = _parser().parse_args(argv)
    command: Callable[[argparse.Namespace], int] = arguments.command
    try:
        return command(arguments)
    except (ConfigError, RunNotFoundError) as error:
        return _complain(error, USAGE)
    except LabError as error:
        return _complain(error, FAILED)
    except BrokenPipeError:
        # Whoever read our output has gone; Python would complain once more when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED


def _complain(error: object, code: int) -> int:
    print(f"sft_core: {error}", file=sys.stderr)
    return code


def _print_json(value: object) -> None:
    print(json.dumps(value, ensure_ascii=False), flush=True)


# -- inspect ----------------------------------------------------------------------------------


def _inspect(arguments: argparse.Namespace) -> int:
    """Everything that is wrong before the first row is wrong usage."""
    policy = MaskPolicy(TrainOn(arguments.policy), end_of_turn=not arguments.no_end_of_turn)
    try:
        tokenizer = load_tokenizer(arguments.tokenizer)
        template = resolve(_template(arguments.template), tokenizer)
        rows = _rows(arguments.input)
    except LabError as error:
        return _complain(error, USAGE)
    failed = False
    for example in reports.examples(rows):
        try:
            if isinstance(example, RowError):
                raise example
            _print_json(
                reports.row(
                    example, template, tokenizer, policy, arguments.max_length, arguments.rival
                )
            )
        except LabError as error:
            failed = True
            id = example.row if isinstance(example, RowError) else example.id
            _print_json({"id": id, "error": str(error)})
    return FAILED if failed else OK


def _template(name: str) -> TemplateConfig:
    """A preset's name, "tokenizer", or a file with Jinja source."""
    file = Path(name)
    if not file.is_file():
        return TemplateConfig(name)
    try:
        return TemplateConfig(file.name, file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The template {name} cannot be read: {_why(error)}.") from None


def _rows(name: str) -> list[Any]:
    """The rows of a file, or of standard input for "-", unread. Raises DataError."""
    if name != "-":
        return list(read_file(Path(name)))
    with tempfile.TemporaryDirectory(prefix="sft-rows-") as folder:
        file = Path(folder) / "standard input.jsonl"
        file.write_bytes(sys.stdin.buffer.read())
        return list(read_file(file))


# -- train ------------------------------------------------------------------------------------


def _train(arguments: argparse.Namespace) -> int:
    config = _config(arguments.config).with_settings(arguments.set)
    directory = RunDirectory.create(arguments.runs / new_id(), config)
    last = None
    for last in _followed(config, directory):
        print(to_json(last), flush=True)
    if isinstance(last, RunFailed | RunInterrupted):
        return _complain(last.message, FAILED)
    return OK


def _config(name: str | None) -> LabConfig:
    if name is None:
        return LabConfig()
    try:
        return LabConfig.from_json(Path(name).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The configuration {name} cannot be read: {_why(error)}.") from None


def _why(error: OSError | UnicodeDecodeError) -> str:
    text = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
    return (text or str(error)).lower()


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


def _compare(arguments: argparse.Namespace) -> int:
    directory = _find_run(arguments.run, arguments.runs)
    config = directory.config().with_settings(arguments.set)
    for prompt, answers in _answers(directory, config, arguments.prompt):
        if arguments.json:
            _print_json(reports.answers(prompt, answers))
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


def _evaluate(arguments: argparse.Namespace) -> int:
    directory = _find_run(arguments.run, arguments.runs)
    rows = None
    if arguments.data:
        loaded = load(DataConfig(source=arguments.data))
        rows = loaded.held_out or loaded.examples
        for bad in loaded.bad:
            _complain(f"row {bad.row}: {bad.message}", FAILED)
    found = _scores(directory, rows)
    if arguments.json:
        _print_json(reports.evaluation(directory.id, found))
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


def _export(arguments: argparse.Namespace) -> int:
    directory = _find_run(arguments.run, arguments.runs)
    target = arguments.out or Path(f"{directory.id}.zip")
    export(directory, target)
    print(target)
    return OK


def _demo(arguments: argparse.Namespace) -> int:
    """The main job without a browser: train the built-in default, look at it, compare."""
    config = LabConfig().with_settings(arguments.set)
    directory = RunDirectory.create(arguments.runs / new_id(), config)
    print(f"Training {config.model.name} on {config.data.source} in {directory.path}")
    record = RunRecord(config)
    for event in _followed(config, directory):
        record.add(event)
    last = record.events[-1]
    if isinstance(last, RunFailed | RunInterrupted):
        return _complain(last.message, FAILED)
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


# -- the command line -------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m sft_core", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(run: Callable[[argparse.Namespace], int], help: str) -> argparse.ArgumentParser:
        name = run.__name__.strip("_")
        made = commands.add_parser(name, help=help, description=help, allow_abbrev=False)
        made.set_defaults(command=run)
        return made

    _inspect_options(command(_inspect, "Show rows as text, tokens, labels and reasons."))
    _train_options(command(_train, "Train a model; events as JSON lines."))
    compare = command(_compare, "Answers of base and tuned, side by side.")
    compare.add_argument("--prompt", action="append", required=True, metavar="TEXT")
    evaluate = command(_evaluate, "Exact match before and after.")
    evaluate.add_argument("--data", metavar="FILE", help="rows; else the run's own test rows")
    exported = command(_export, "A zip with weights, settings, rows and a script.")
    exported.add_argument("--out", type=Path, metavar="FILE", help="default: RUN.zip")
    for made in (compare, evaluate, exported):
        made.add_argument("--run", required=True, metavar="DIR", help="a run's folder, or its id")
    for made in (compare, evaluate):
        made.add_argument("--json", action="store_true", help="print JSON")
    demo = command(_demo, "Train, score and compare the built-in default.")
    for made in (compare, demo):
        _settings(made)
    for made in (compare, evaluate, exported, demo):
        _runs(made)
    return parser


def _inspect_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tokenizer", required=True, help="an id, a folder, or a built-in name")
    parser.add_argument("--template", required=True, help='a preset, a Jinja file, or "tokenizer"')
    parser.add_argument(
        "--input", required=True, metavar="ROWS", help='a JSONL file; "-" reads stdin'
    )
    parser.add_argument("--policy", choices=[each.value for each in TrainOn], default="assistant")
    parser.add_argument(
        "--no-end-of-turn", action="store_true", help="leave ends of turn untrained"
    )
    parser.add_argument("--max-length", type=int, metavar="TOKENS")
    parser.add_argument(
        "--rival", choices=list(RIVALS), help="also say what another masker would train, and why"
    )


def _train_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", metavar="RUN.json", help="default: the built-in lesson")
    _settings(parser)
    _runs(parser)


def _settings(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")


def _runs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--runs", type=Path, default=HOST.runs_dir, metavar="DIR")
