"""Small models and rows that several tests of the tensor and verb rooms share."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel

from sft_core import sandbox
from sft_core.catalogue import BYTES_GPT
from sft_core.config import MaskPolicy, ModelConfig, TemplateConfig, TrainConfig
from sft_core.encode import encode
from sft_core.learner import Learner
from sft_core.models import Opened, open_model
from sft_core.templates import resolve
from sft_core.tokenizer import load_tokenizer
from sft_core.types import IGNORE_INDEX, Example, Message, Template

torch.set_num_threads(1)  # these models are too small to share, and other tests want the cores

VOCABULARY = 64
SMALL = ModelConfig(BYTES_GPT, width=64, depth=2, heads=4, context=128)


@dataclass(frozen=True)
class Row:
    """An encoded example by hand."""

    ids: tuple[int, ...]
    labels: tuple[int, ...]
    kinds_given: tuple[int, ...] = ()

    @property
    def kinds(self) -> tuple[int, ...]:
        """All of an answer, where none were given."""
        return self.kinds_given or (0,) * len(self.ids)


def rows_of(*shapes: tuple[int, int]) -> list[Row]:
    """Rows of (prompt tokens, answer tokens), every id its own so that a swap would show."""
    rows, fresh = [], 1
    for prompt, answer in shapes:
        ids = tuple(range(fresh, fresh + prompt + answer))
        assert ids[-1] < VOCABULARY
        rows.append(Row(ids, (IGNORE_INDEX,) * prompt + ids[prompt:]))
        fresh += prompt + answer
    return rows


def tiny_model(seed: int = 0, **changes: Any) -> PreTrainedModel:
    """A Llama of some thousand parameters with weights large enough to have opinions."""
    config = LlamaConfig(
        **{
            "vocab_size": VOCABULARY,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": 64,
            "tie_word_embeddings": True,
            "initializer_range": 0.2,
            "bos_token_id": None,
            "eos_token_id": 1,
            "pad_token_id": 0,
            **changes,
        }
    )
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(config).eval()


def preset(name: str = "inst-resp") -> Template:
    return resolve(TemplateConfig(name=name), load_tokenizer("bytes"))


def pair(question: str, answer: str, id: str = "row", **facts: str) -> Example:
    return Example(id, (Message("user", question), Message("assistant", answer)), **facts)


MEMORISED = (
    pair("Which bird?", "A heron.", "1", category="short", fact="bird"),
    pair("Say it in Greek.", "Καλημέρα", "2", category="letters", fact="greeting"),
    pair("And with a picture, please?", "wave 👋🏽 ok", "3", category="letters", fact="wave"),
    pair("Count.", "one two three four five six", "4", category="short", fact="numbers"),
)


@lru_cache(maxsize=1)
def memorised() -> tuple[Opened, Template]:
    """A small model that was trained, here and now, until it knows ``MEMORISED`` by heart."""
    template = preset()
    opened = open_model(SMALL, template, seed=0)
    tokenizer = opened.tokenizer
    rows = [
        encode(sandbox.render(template, example, tokenizer.special_tokens), tokenizer, MaskPolicy())
        for example in MEMORISED
    ]
    config = TrainConfig(
        max_steps=80, batch_size=4, learning_rate=5e-3, warmup_steps=5, weight_decay=0.0
    )
    learner = Learner(opened, config, rows)
    for micro_batches in learner.steps():
        learner.optimise(micro_batches)
    return opened, template
