"""Whole runs that the lab comes with, besides the default of ``LabConfig``."""

from __future__ import annotations

from typing import Final

from sft_core.config import (
    DataConfig,
    GenerateConfig,
    LabConfig,
    ModelConfig,
    TemplateConfig,
    TrainConfig,
)

FROM_SCRATCH: Final = LabConfig(
    data=DataConfig("six-tasks"),
    template=TemplateConfig("inst-resp"),
    model=ModelConfig("bytes-gpt"),
    train=TrainConfig(
        epochs=30,
        learning_rate=1e-3,
        weight_decay=1.0,
        eval_every=50,
        sample_every=100,
        score_every=100,
    ),
    generate=GenerateConfig(),
)
"""A byte-level model learns six tasks from random weights, with a rate that would wreck a model
that can talk already (``examples/six_tasks/run.json``)."""
