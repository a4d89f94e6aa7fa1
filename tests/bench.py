"""``make bench``: what the lab does a second, beside peers that run interleaved with it.

Seven tables: tokens a second in training against transformers' Trainer on the same rows and
weights; rows a second from messages to labels (``bench_pipeline``) against the tokenizer alone
and against TRL; how long the lesson from scratch takes from a configuration to its exact match; the
parrot before and after the runs that its card tells of; the time from a cold start to the first
right answer beside the base's babble (``bench_aha``, in a browser); runs that are killed and
resumed (``bench_resume``); and how many masks are right
over all templates of three packages (``bench_templates``, which fetches them). Figures are medians
with the spread of the runs.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

from examples.parrot import measure
from sft_core.config import DataConfig, LabConfig, TrainConfig
from sft_core.events import RunFinished, ScoreLogged
from sft_core.learner import Learner
from sft_core.lessons import FROM_SCRATCH
from sft_core.models import Opened, open_model
from sft_core.prepare import prepare
from sft_core.tokenizer import Tokenizer
from sft_core.train import train
from sft_core.types import IGNORE_INDEX
from tests import bench_aha, bench_resume, bench_templates, bench_tokenizers
from tests.bench_pipeline import bench_pipeline
from tests.bench_race import Contender, race

TABLES = ("pipeline", "training", "lesson", "parrot", "aha", "resume", "templates", "tokenizers")
ROOT = Path(__file__).resolve().parents[1]


def never() -> bool:
    return False


# -- training ---------------------------------------------------------------------------------


class PeerRows(torch.utils.data.Dataset[dict[str, list[int]]]):
    """The lab's encoded rows in the form that a Trainer takes."""

    def __init__(self, rows: Sequence[Any]) -> None:
        self.rows = [(list(row.ids), list(row.labels)) for row in rows]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, at: int) -> dict[str, list[int]]:
        ids, labels = self.rows[at]
        return {"input_ids": ids, "labels": labels, "attention_mask": [1] * len(ids)}


def padded(rows: Sequence[dict[str, list[int]]], pad: int) -> dict[str, torch.Tensor]:
    longest = max(len(row["input_ids"]) for row in rows)
    fill = {"input_ids": pad, "labels": IGNORE_INDEX, "attention_mask": 0}
    return {
        key: torch.tensor([row[key] + [value] * (longest - len(row[key])) for row in rows])
        for key, value in fill.items()
    }


def lab_steps(opened: Opened, rows: Sequence[Any], config: TrainConfig) -> float:
    """Trains a copy of the model; gives the number of tokens, padding not counted."""
    fresh = replace(opened, model=copy.deepcopy(opened.model))
    learner = Learner(fresh, config, rows)
    return sum(step.tokens for it in learner.steps() if (step := learner.optimise(it, never)))


def trainer_steps(
    opened: Opened, rows: Sequence[Any], config: TrainConfig, batch: int, accumulation: int
) -> float:
    """The same with transformers' Trainer, as the tutorials use it."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            max_steps=config.max_steps or -1,
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=accumulation,
            learning_rate=config.learning_rate,
            lr_scheduler_type=config.schedule,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
            use_cpu=not torch.cuda.is_available(),
        )
        peer = Trainer(
            model=copy.deepcopy(opened.model),
            args=arguments,
            train_dataset=PeerRows(rows),
            data_collator=lambda chosen: padded(chosen, 0),
        )
        peer.train()
    mean = sum(len(row.ids) for row in rows) / len(rows)
    return (config.max_steps or 0) * batch * accumulation * mean


def distilgpt2_shape(tokenizer: Tokenizer) -> Opened:
    """DistilGPT-2's shape with random weights: what it computes does not depend on their values."""
    shape = GPT2Config(n_layer=6, n_embd=768, n_head=12, vocab_size=50257)
    model = GPT2LMHeadModel(shape)
    count = sum(parameter.numel() for parameter in model.parameters())
    return Opened(model, tokenizer, (), count, count, 1024)


def real_rows(source: str | None) -> DataConfig:
    """The rows to measure on: those of a file that the caller brings, else the example's own."""
    return DataConfig(
        source or str(ROOT / "examples/short_answers/rows.jsonl"), rows=48, eval_rows=0
    )


def encoded(config: LabConfig) -> Any:
    """What ``prepare`` gives, its events passed over."""
    steps = prepare(config, never)
    while True:
        try:
            next(steps)
        except StopIteration as done:
            return done.value


def bench_training(source: str | None, steps: int, rounds: int) -> None:
    smol = LabConfig.from_json((ROOT / "examples/short_answers/run.json").read_text())
    base = TrainConfig(max_steps=steps, batch_size=8, max_length=256, warmup_steps=0)
    cases = {
        "bytes-gpt on the six tasks": FROM_SCRATCH.but(train=base),
        "DistilGPT-2's shape": smol.but(data=real_rows(source), train=base),
        "SmolLM2-135M": smol.but(data=real_rows(source), train=base),
    }
    for title, config in cases.items():
        prepared = encoded(config)
        if title.startswith("Distil"):
            opened = distilgpt2_shape(prepared.tokenizer)
        else:
            opened = open_model(config.model, prepared.template, config.train.seed)
        rows = prepared.train
        exact = replace(config.train, precision="fp32")
        contenders = [
            Contender(
                "transformers Trainer, batch 8, fp32",
                lambda: trainer_steps(opened, rows, exact, 8, 1),  # noqa: B023
            ),
            Contender(
                "transformers Trainer, batch 1 x 8, fp32",
                lambda: trainer_steps(opened, rows, exact, 1, 8),  # noqa: B023
            ),
            Contender("the lab, batch 8, fp32", lambda: lab_steps(opened, rows, exact)),  # noqa: B023
            Contender(
                "the lab, batch 8, precision auto",
                lambda: lab_steps(opened, rows, config.train),  # noqa: B023
            ),
        ]
        race(f"Training {title}", "tokens/s", contenders, rounds)


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
    parser.add_argument("--steps", type=int, default=6, help="optimiser steps a training run")
    parser.add_argument("--rounds", type=int, default=3, help="interleaved runs")
    parser.add_argument(
        "--only", choices=TABLES, help="one table; tokenizers are fetched, so only on request"
    )
    chosen = parser.parse_args()
    transformers.logging.set_verbosity_error()
    cores = torch.get_num_threads()
    print(f"torch {torch.__version__}, {cores} threads, CUDA {torch.cuda.is_available()}")
    if chosen.only in (None, "pipeline"):
        files = chosen.rows or [str(ROOT / "examples/short_answers/rows.jsonl")]
        bench_pipeline(files, chosen.rounds, chosen.count)
    if chosen.only in (None, "training"):
        bench_training(chosen.rows and chosen.rows[0], chosen.steps, chosen.rounds)
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
