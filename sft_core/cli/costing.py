"""``cost``: what a longer run would take, from one that was measured."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from sft_core.cli.common import OK, AddCommand, print_json
from sft_core.console import costs
from sft_core.cost import estimate
from sft_core.rundir import RunDirectory
from sft_core.settings import HOST


def add_commands(command: AddCommand) -> None:
    made = command(cost, "Hours and price of a longer run, from a measured one.")
    made.add_argument("--run", required=True, metavar="DIR", help="a run's folder, or its id")
    made.add_argument("--runs", type=Path, default=HOST.runs_dir, metavar="DIR")
    made.add_argument(
        "--price-per-hour", type=float, required=True, metavar="X", help="of the whole machine"
    )
    made.add_argument("--rows", type=int, metavar="N", help="default: as many as the run had")
    made.add_argument("--epochs", type=float, metavar="N", help="default: as many as the run had")
    made.add_argument("--gpus", type=int, default=1, metavar="N")
    made.add_argument(
        "--speedup",
        type=float,
        default=1.0,
        metavar="S",
        help="how many times as fast one of them is as the device that was measured",
    )
    made.add_argument("--json", action="store_true", help="print JSON")


def cost(arguments: argparse.Namespace) -> int:
    found = estimate(
        RunDirectory.find(arguments.run, arguments.runs).read(),
        arguments.price_per_hour,
        rows=arguments.rows,
        epochs=arguments.epochs,
        gpus=arguments.gpus,
        speedup=arguments.speedup,
    )
    if arguments.json:
        print_json(asdict(found))
    else:
        print(costs(found))
    return OK
