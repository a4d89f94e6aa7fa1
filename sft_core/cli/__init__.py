"""The lab without a page: ``python -m sft_core inspect``, ``doctor``, ``train``, ``compare``,
``evaluate``, ``export``, ``demo`` and ``cost``.

Results go to standard output, as JSON where a program may want them; progress and errors go to
standard error, an error as one sentence. Exit code 0 means done (a stopped run is done), 1 that
the work or a part of it failed, 2 that the command was wrong.

looking   inspect, doctor: what would be trained, and what is wrong with it
running   train, compare, evaluate, export, demo
costing   cost: what a longer run would take
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence

from sft_core.cli import costing, looking, running
from sft_core.cli.common import FAILED, USAGE, complain
from sft_core.types import ConfigError, LabError, RunNotFoundError

__all__ = ["main", "parser"]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code. argparse itself leaves with 2."""
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s")
    arguments = parser().parse_args(argv)
    command: Callable[[argparse.Namespace], int] = arguments.command
    try:
        return command(arguments)
    except (ConfigError, RunNotFoundError) as error:
        return complain(error, USAGE)
    except LabError as error:
        return complain(error, FAILED)
    except BrokenPipeError:
        # Whoever read our output has gone; Python would complain once more when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    top = argparse.ArgumentParser(prog="python -m sft_core", description=__doc__)
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    def command(run: Callable[[argparse.Namespace], int], help: str) -> argparse.ArgumentParser:
        made = commands.add_parser(run.__name__, help=help, description=help, allow_abbrev=False)
        made.set_defaults(command=run)
        return made

    looking.add_commands(command)
    running.add_commands(command)
    costing.add_commands(command)
    return top
