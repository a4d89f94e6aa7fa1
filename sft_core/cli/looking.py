"""``inspect`` and ``doctor``: what would be trained, and what is wrong with it."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sft_core import console, reports
from sft_core.cli.common import FAILED, OK, USAGE, AddCommand, complain, print_json, why
from sft_core.config import (
    DataConfig,
    GenerateConfig,
    MaskPolicy,
    TemplateConfig,
    TrainConfig,
    TrainOn,
)
from sft_core.data import Loaded, load
from sft_core.encode import missing_tokens
from sft_core.readers import read_file
from sft_core.rivals import RIVALS
from sft_core.templates import resolve
from sft_core.tokenizer import load_tokenizer
from sft_core.types import ConfigError, DataError, LabError, RowError, Severity


def add_commands(command: AddCommand) -> None:
    """The commands of this module, with their options."""
    inspected = command(inspect, "Show rows as text, tokens, labels and reasons.")
    _setting(inspected)
    inspected.add_argument(
        "--input", required=True, metavar="ROWS", help='a JSONL file; "-" reads stdin'
    )
    inspected.add_argument(
        "--rival", choices=list(RIVALS), help="also say what another masker would train, and why"
    )
    examined = command(doctor, "Say what is wrong before a minute is spent on training.")
    _setting(examined)
    examined.add_argument(
        "--data",
        required=True,
        metavar="FILE",
        help='rows: a file, a built-in set, or a hub id; "-" reads JSON lines from stdin',
    )
    examined.add_argument("--rows", type=int, metavar="N", help="look at the first N rows only")
    examined.add_argument(
        "--stop",
        action="append",
        default=[],
        metavar="TEXT",
        help="a token that generation will stop on; default: what training teaches",
    )
    examined.add_argument(
        "--add-tokens", action="store_true", help="add markers that the tokenizer lacks, as tokens"
    )
    examined.add_argument(
        "--batch-size",
        type=int,
        default=TrainConfig().batch_size,
        metavar="ROWS",
        help="count padding in batches of so many rows, or packed windows",
    )
    examined.add_argument("--json", action="store_true", help="print JSON")
    examined.add_argument(
        "--strict", action="store_true", help="leave with 1 where there are warnings, too"
    )


def _setting(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tokenizer", required=True, help="an id, a folder, or a built-in name")
    parser.add_argument("--template", required=True, help='a preset, a Jinja file, or "tokenizer"')
    parser.add_argument("--policy", choices=[each.value for each in TrainOn], default="assistant")
    parser.add_argument(
        "--no-end-of-turn", action="store_true", help="leave ends of turn untrained"
    )
    parser.add_argument("--max-length", type=int, metavar="TOKENS")


def _policy(arguments: argparse.Namespace) -> MaskPolicy:
    return MaskPolicy(TrainOn(arguments.policy), end_of_turn=not arguments.no_end_of_turn)


# -- inspect ----------------------------------------------------------------------------------


def inspect(arguments: argparse.Namespace) -> int:
    """Prints a JSON object a row. Everything that is wrong before the first is wrong usage."""
    policy = _policy(arguments)
    try:
        tokenizer = load_tokenizer(arguments.tokenizer)
        template = resolve(_template(arguments.template), tokenizer)
        rows = _rows(arguments.input)
    except LabError as error:
        return complain(error, USAGE)
    failed = False
    for example in reports.examples(rows):
        try:
            if isinstance(example, RowError):
                raise example
            print_json(
                reports.row(
                    example, template, tokenizer, policy, arguments.max_length, arguments.rival
                )
            )
        except LabError as error:
            failed = True
            id = example.row if isinstance(example, RowError) else example.id
            print_json({"id": id, "error": str(error)})
    return FAILED if failed else OK


def _template(name: str) -> TemplateConfig:
    """A preset's name, "tokenizer", or a file with Jinja source."""
    file = Path(name)
    if not file.is_file():
        if file.suffix or len(file.parts) > 1:
            raise ConfigError(f"There is no template file {name}. Check its name and its folder.")
        return TemplateConfig(name)
    try:
        return TemplateConfig(file.name, file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The template {name} cannot be read: {why(error)}.") from None


def _rows(name: str) -> list[Any]:
    """The rows of a file, or of standard input for "-", unread. Raises DataError."""
    if name != "-":
        return list(read_file(Path(name)))
    with _stdin() as file:
        return list(read_file(file))


@contextmanager
def _stdin() -> Iterator[Path]:
    """What comes on standard input, as a file."""
    with tempfile.TemporaryDirectory(prefix="sft-rows-") as folder:
        file = Path(folder) / "stdin.jsonl"
        file.write_bytes(sys.stdin.buffer.read())
        yield file


def _loaded(source: str, rows: int | None) -> Loaded:
    """A data set by its name or its file; "-" is standard input. Raises LabError."""
    if source != "-":
        return load(DataConfig(source=source, rows=rows, eval_rows=0))
    with _stdin() as file:
        return load(DataConfig(source=str(file), rows=rows, eval_rows=0))


# -- doctor -----------------------------------------------------------------------------------


def doctor(arguments: argparse.Namespace) -> int:
    """Prints findings; fails if one is an error. What cannot be opened is wrong usage; a file
    that is there and holds no usable row has failed."""
    try:
        tokenizer = load_tokenizer(arguments.tokenizer)
        template = resolve(_template(arguments.template), tokenizer)
        train = TrainConfig(batch_size=arguments.batch_size)
        stop = GenerateConfig(stop_tokens=tuple(arguments.stop))
        data = _loaded(arguments.data, arguments.rows)
    except DataError as error:
        there = arguments.data == "-" or Path(arguments.data).is_file()
        return complain(error, FAILED if there else USAGE)
    except LabError as error:
        return complain(error, USAGE)
    try:
        if arguments.add_tokens:
            tokenizer = tokenizer.with_tokens(missing_tokens(template, tokenizer))
    except LabError:
        pass  # a source that cannot be read is a finding
    report = reports.diagnosis(
        data, template, tokenizer, _policy(arguments), stop, arguments.max_length, train
    )
    if arguments.json:
        print_json(report.to_dict())
    else:
        print(console.diagnosis(report))
    bad = (Severity.ERROR, Severity.WARNING) if arguments.strict else (Severity.ERROR,)
    return FAILED if report.findings.worst in bad else OK
