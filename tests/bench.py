"""``make bench``: what the lab does a second, beside peers that run interleaved with it.

Tables: how full rows pack and how fast (``bench_packing``); training beside TRL and
transformers' Trainer on the same rows and weights, and the same speed at 100, 1,000 and 10,000
rows (``bench_training``); rows a second from messages to labels
(``bench_pipeline``) against the tokenizer alone and against TRL; how long the lesson from scratch
takes from a configuration to its exact match; the parrot before and after the runs that its card
tells of; the time from a cold start to the first right answer beside the base's babble
(``bench_aha``, in a browser); runs that are killed and resumed (``bench_resume``); and how many
masks are right over all templates of three packages
(``bench_templates``, which fetches them). Figures are medians with the spread of the runs.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
import transformers

from examples.parrot import measure
from sft_core.disk import cores
from sft_core.events import RunFinished, ScoreLogged
from sft_core.lessons import FROM_SCRATCH
from sft_core.train import train
from tests import bench_aha, bench_resume, bench_templates, bench_tokenizers
from tests.bench_packing import bench_packing
from tests.bench_pipeline import bench_pipeline
from tests.bench_training import bench_linear, bench_training
from tests.peers.cases import CASES

TABLES = (
    "packing",
    "pipeline",
    "training",
    "linear",
    "lesson",
    "parrot",
    "aha",
    "resume",
    "templates",
    "tokenizers",
)
ROOT = Path(__file__).resolve().parents[1]


# -- the lesson -------------------------------------------------------------------------------


def bench_lesson() -> None:
    config = FROM_SCRATCH
    print("\nThe lesson from scratch, from configuration to exact match")
    print(f"{'seed':>6s}{'before':>10s}{'seen':>10s}{'unseen':>10s}{'seconds':>10s}")
    for seed in (42, 43, 44):
        chosen = config.but(train=replace(config.train, seed=seed))
        with tempfile.TemporaryDirectory() as folder:
            events = list(train(chosen, Path(folder), run="bench"))
        scores = [event.score for event in events if isinstance(event, ScoreLogged)]
        (end,) = (event for event in events if isinstance(event, RunFinished))
        seen, unseen = scores[-1].seen, scores[-1].unseen
        shares = [scores[0].overall.share, seen.share if seen else 0, unseen.share if unseen else 0]
        print(f"{seed:6d}" + "".join(f"{it:10.2f}" for it in shares) + f"{end.seconds:10.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--rows",
        action="append",
        help="a data file instead of the example's rows; may be given several times for the "
        "pipeline, training takes the first",
    )
    parser.add_argument("--count", type=int, default=4000, help="rows to tile a file to")
    parser.add_argument("--steps", type=int, default=21, help="optimiser steps a training run")
    parser.add_argument("--batch", type=int, default=8, help="rows an optimiser step")
    parser.add_argument("--case", choices=CASES, action="append", help="a model to train")
    parser.add_argument("--quick", action="store_true", help="training: 3 steps, one round")
    parser.add_argument("--rounds", type=int, default=3, help="interleaved runs")
    parser.add_argument(
        "--only", choices=TABLES, help="one table; tokenizers are fetched, so only on request"
    )
    chosen = parser.parse_args()
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(cores())  # some tests that are imported here want one
    print(f"torch {torch.__version__}, {cores()} threads, CUDA {torch.cuda.is_available()}")
    first = chosen.rows[0] if chosen.rows else None
    if chosen.only in (None, "packing"):
        bench_packing()
    if chosen.only in (None, "pipeline"):
        files = chosen.rows or [str(ROOT / "examples/short_answers/rows.jsonl")]
        bench_pipeline(files, chosen.rounds, chosen.count)
    if chosen.only in (None, "training"):
        steps, rounds = (3, 1) if chosen.quick else (chosen.steps, chosen.rounds)
        bench_training(first, steps, rounds, chosen.case or CASES, chosen.batch)
    if chosen.only in (None, "linear"):
        for case in chosen.case or CASES[-1:]:  # the fastest: rows cost most there
            bench_linear(first, 1 if chosen.quick else chosen.rounds, case)
    if chosen.only in (None, "lesson"):
        bench_lesson()
    if chosen.only in (None, "parrot"):
        print("\nThe parrot\n")
        measure.main(["base"])
        measure.main(["runs"])
    if chosen.only in (None, "aha"):
        print("\nThe first aha")
        bench_aha.main(["--rounds", str(chosen.rounds)])
    if chosen.only in (None, "resume") and not bench_resume.main([]):
        raise SystemExit(1)
    if chosen.only == "tokenizers" and not bench_tokenizers.bench():
        raise SystemExit(1)
    if chosen.only in (None, "templates"):
        bench_templates.main([])


if __name__ == "__main__":
    main()
