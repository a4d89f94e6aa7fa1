"""Trains with the lab as a job file says, measured as ``run_peer`` measures a peer:

    python -m tests.peers.run_lab JOB.json

Rows come with the job as ids and labels, or, where it holds a ``config``, from the lab's own
``prepare``.
"""

from __future__ import annotations

import json
import sys
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import transformers
from pydantic import TypeAdapter

from sft_core import heap
from sft_core.config import LabConfig, TrainConfig
from sft_core.learner import Learner
from sft_core.models import open_folder, threads_for
from sft_core.prepare import Row, prepare
from sft_core.types import IGNORE_INDEX
from tests.peers.meter import Meter


def prepared(config: LabConfig) -> Any:
    """What ``prepare`` gives, its events passed over."""
    steps = prepare(config, lambda: False)
    while True:
        try:
            next(steps)
        except StopIteration as done:
            return done.value


def rows_of(job: dict[str, Any]) -> tuple[TrainConfig, Sequence[Row]]:
    if "config" in job:
        config = LabConfig.from_json(json.dumps(job["config"]))
        return config.train, prepared(config).train
    train = TypeAdapter(TrainConfig).validate_python(job["train"])
    return train, [_row(at, it["input_ids"], it["labels"]) for at, it in enumerate(job["rows"])]


def _row(at: int, ids: list[int], labels: list[int]) -> Row:
    trained = sum(label != IGNORE_INDEX for label in labels)
    kinds = array("B", bytes(len(ids)))
    return Row(str(at), array("i", ids), array("i", labels), kinds, trained, 0)


def main(path: str) -> None:
    job = json.loads(Path(path).read_text())
    transformers.logging.set_verbosity_error()
    config, rows = rows_of(job)
    opened = open_folder(Path(job["model"]))
    meter = Meter(opened.model)
    learner = Learner(opened, config, rows)
    learnt, order = [], []
    with threads_for(learner.bare), heap.kept():  # as a run does
        for micro_batches in learner.steps():
            step = learner.optimise(micro_batches)
            assert step is not None
            meter.tick()
            learnt.append(step)
            order.append([at for positions in micro_batches for at in positions])
    result = meter.result() | {
        "losses": [step.loss for step in learnt],
        "step_tokens": [step.tokens for step in learnt],
        "tokens": sum(step.tokens for step in learnt),
        "trained": sum(step.trained for step in learnt),
        "order": order,
        "settings": {"precision": learner.precision},
    }
    if job["save"]:
        learner.bare.save_pretrained(job["save"])
    Path(job["result"]).write_text(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1])
