"""What contenders are given: a model in a folder, encoded rows, and the order of those."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.pytorch_utils import Conv1D

from sft_core import data
from sft_core.config import DataConfig, LabConfig, TrainConfig
from sft_core.dealing import plan
from sft_core.lessons import FROM_SCRATCH
from sft_core.models import open_model, precision, save
from tests.peers.environment import ROOT
from tests.peers.figures import Work, work
from tests.peers.run_lab import prepared

CASES: Final = ("distilgpt2", "smollm2", "bytes-gpt")
BUILD: Final = ROOT / "build" / "bench"
EXAMPLE: Final = ROOT / "examples" / "short_answers"
EVAL_ROWS: Final = 48

Bits = Literal["fp32", "bf16"]
Order = list[list[int]]


@dataclass(frozen=True, slots=True)
class Case:
    """A model in a folder, with rows and the order in which they are dealt out."""

    name: str
    folder: Path
    train: TrainConfig
    rows: list[dict[str, list[int]]]
    held_out: list[dict[str, list[int]]]
    order: Order
    weights: tuple[int, int]
    shapes: tuple[tuple[int, int], ...]
    auto: Bits

    @property
    def work(self) -> Work:
        return work(self.rows, self.order)


def base_config(name: str, source: str | None) -> LabConfig:
    """The run that gives rows, tokenizer, template and, but for DistilGPT-2, the model."""
    if name == "bytes-gpt":
        given = DataConfig(source) if source else FROM_SCRATCH.data
        return FROM_SCRATCH.but(data=replace(given, eval_rows=EVAL_ROWS))
    smol = LabConfig.from_json((EXAMPLE / "run.json").read_text(encoding="utf-8"))
    rows = DataConfig(source or str(EXAMPLE / "rows.jsonl"), eval_rows=EVAL_ROWS)
    return smol.but(data=rows)


def recipe(steps: int, batch: int, max_length: int) -> TrainConfig:
    return TrainConfig(
        max_steps=steps,
        batch_size=batch,
        max_length=max_length,
        schedule="constant",
        warmup_steps=0,
        weight_decay=0.0,
        max_grad_norm=1.0,
    )


def dealt(rows: int, train: TrainConfig) -> Order:
    """The rows of each step, as the lab deals them; what it really did is compared with this."""
    order: Order = []
    epoch = 0
    while len(order) < (train.max_steps or 0):
        epochs = plan([1] * rows, train.batch_size, seed=train.seed, epoch=epoch)
        order += [list(step) for step in epochs]
        epoch += 1
    return order[: train.max_steps]


def make_case(name: str, source: str | None, train: TrainConfig) -> Case:
    """Writes the model's folder, and takes as many rows as the steps use, in whole batches."""
    config = base_config(name, source).but(train=train)
    found = prepared(config)
    opened = open_model(config.model, found.template, train.seed)
    if name == "distilgpt2":
        opened = replace(opened, model=distilgpt2_shape(train.seed))
    parameters = sum(it.numel() for it in opened.model.parameters())
    folder = BUILD / name / "model"
    shutil.rmtree(folder, ignore_errors=True)
    save(opened.model, opened.tokenizer, found.template, folder, ())
    count = min(len(found.train), (train.max_steps or 0) * train.batch_size)
    count -= count % train.batch_size
    shapes = linear_shapes(opened.model)
    head = opened.model.get_output_embeddings().weight
    return Case(
        name,
        folder,
        train,
        [plain(row) for row in found.train[:count]],
        [plain(row) for row in found.eval],
        dealt(count, train),
        (sum(inside * outside for inside, outside in shapes), head.numel()),
        (*dict.fromkeys(shapes), (head.shape[1], head.shape[0])),
        precision(train, parameters),
    )


def distilgpt2_shape(seed: int) -> GPT2LMHeadModel:
    """DistilGPT-2's shape with random weights: what it computes does not depend on their values."""
    torch.manual_seed(seed)
    still = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    return GPT2LMHeadModel(GPT2Config(n_layer=6, n_embd=768, n_head=12, vocab_size=50257, **still))


def plain(row: Any) -> dict[str, list[int]]:
    return {"input_ids": list(row.ids), "labels": list(row.labels)}


def linear_shapes(model: Any) -> list[tuple[int, int]]:
    """(in, out) of every linear layer but the head."""
    head = model.get_output_embeddings()
    found = []
    for module in model.modules():
        if isinstance(module, nn.Linear) and module is not head:
            found.append((module.in_features, module.out_features))
        elif isinstance(module, Conv1D):
            found.append((module.nx, module.nf))
    return found


def tiled(count: int, base: Sequence[Any], train: TrainConfig) -> list[Any]:
    """``count`` rows made of those of ``base``, laid out so that the first steps of a run deal out
    the very rows that a run on ``base`` alone does: what differs is their number, and no shape."""
    rows = [base[at % len(base)] for at in range(count)]
    for mine, first in zip(dealt(count, train), dealt(len(base), train), strict=True):
        for at, chosen in zip(mine, first, strict=True):
            rows[at] = base[chosen]
    return rows


def usable(name: str, source: str | None, count: int, train: TrainConfig) -> list[data.Example]:
    """``count`` conversations that can be trained on, repeated where there are fewer."""
    config = base_config(name, source).but(train=train)
    config = config.but(data=replace(config.data, eval_rows=0))
    fine = {row.id for row in prepared(config).train}
    examples = [it for it in data.load(config.data).examples if it.id in fine]
    return [examples[at % len(examples)] for at in range(count)]
