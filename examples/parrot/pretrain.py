"""Makes the parrot: a tokenizer and a small Llama, trained from nothing on ``pages.py``.

    python -m examples.parrot.pretrain --out build/parrot

Run from the top of the checkout. The folder that it writes opens in plain transformers. Killed and
started again with the same ``--out``, it goes on from its last checkpoint, on the same data. A GPU
is used where there is one, else every core.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from examples.parrot.pages import page, pages
from sft_core.templates.presets import find_preset

END: Final = "<|endoftext|>"
CHATML: Final = ("<|im_start|>", "<|im_end|>")
LOGGED: Final = 10
"""Steps from one line of the log to the next."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides what comes out. ``steps`` batches of ``batch`` windows of ``window``
    tokens are read once each; ``seed`` decides pages and first weights."""

    vocabulary: int = 2048
    width: int = 192
    layers: int = 4
    heads: int = 6
    window: int = 256
    batch: int = 16
    steps: int = 2000
    rate: float = 3e-3
    warmup: int = 60
    weight_decay: float = 0.1
    seed: int = 1


# -- text -------------------------------------------------------------------------------------


def train_tokenizer(recipe: Recipe, count: int = 20_000) -> PreTrainedTokenizerFast:
    """A byte-level BPE with every digit on its own. ChatML's markers are in its vocabulary and in
    no page."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=recipe.vocabulary,
        special_tokens=[AddedToken(it, normalized=False) for it in (END, *CHATML)],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = (it.text for it in islice(pages(recipe.seed), count))
    backend.train_from_iterator(texts, trainer, length=count)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token=END,
        pad_token=END,
        chat_template=find_preset("chatml").source,
        model_max_length=recipe.window,
        clean_up_tokenization_spaces=False,
    )


def tokens(recipe: Recipe, tokenizer: Any, count: int, chunk: int = 5_000) -> Iterator[np.ndarray]:
    """At least ``count`` ids of pages in order, each page after an end-of-text token."""
    end = tokenizer.convert_tokens_to_ids(END)
    made, number = 0, 0
    while made < count:
        texts = [page(recipe.seed, number + at).text for at in range(chunk)]
        number += chunk
        found = tokenizer.backend_tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        ids = np.concatenate([np.array([end, *it.ids], dtype=np.uint16) for it in found])
        made += len(ids)
        yield ids


def stream(recipe: Recipe, tokenizer: Any, file: Path) -> np.ndarray:
    """The ids of the whole run, kept in ``file`` for the next start: (steps * batch, window)."""
    count = recipe.steps * recipe.batch * recipe.window
    if not file.is_file():
        ids = np.concatenate(list(tokens(recipe, tokenizer, count)))[:count]
        with file.with_suffix(".part").open("wb") as part:
            np.save(part, ids)
        file.with_suffix(".part").replace(file)
    kept: np.ndarray = np.load(file, mmap_mode="r")
    return kept.reshape(-1, recipe.window)


def fingerprint(seed: int) -> str:
    """Changes with anything that decides the pages of a seed: facts, wordings, kinds."""
    texts = "".join(it.text for it in islice(pages(seed), 500))
    return hashlib.sha256(texts.encode()).hexdigest()[:16]


# -- learning ---------------------------------------------------------------------------------


def new_model(recipe: Recipe, tokenizer: Any) -> LlamaForCausalLM:
    torch.manual_seed(recipe.seed)
    end = tokenizer.convert_tokens_to_ids(END)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=recipe.vocabulary,
            hidden_size=recipe.width,
            intermediate_size=-(-recipe.width * 8 // 3 // 32) * 32,
            num_hidden_layers=recipe.layers,
            num_attention_heads=recipe.heads,
            max_position_embeddings=recipe.window,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=end,
            pad_token_id=end,
        )
    )


def rate_at(recipe: Recipe, step: int) -> float:
    """Linear warm-up, then linearly to zero."""
    if step < recipe.warmup:
        return recipe.rate * (step + 1) / recipe.warmup
    return recipe.rate * (recipe.steps - step) / (recipe.steps - recipe.warmup)


def make_optimizers(model: torch.nn.Module, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for the matrices between the layers, AdamW for embeddings and norms.

    Muon makes each update orthogonal (Jordan 2024, "Muon: an optimizer for hidden layers"); scaled
    as Liu et al. 2025 ("Muon is scalable for LLM training") do, it takes AdamW's rates. On this
    text it needs about two thirds of the tokens. It came into torch with version 2.9.
    """
    if not hasattr(torch.optim, "Muon"):
        raise SystemExit(f"Pre-training needs torch 2.9 or newer, and this is {torch.__version__}.")
    named = list(model.named_parameters())
    hidden = [it for name, it in named if it.ndim == 2 and "embed" not in name]
    tables = [it for name, it in named if it.ndim == 2 and "embed" in name]
    vectors = [it for _, it in named if it.ndim < 2]
    rest = [
        {"params": tables, "weight_decay": recipe.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return [
        torch.optim.Muon(
            hidden,
            lr=recipe.rate,
            weight_decay=recipe.weight_decay,
            adjust_lr_fn="match_rms_adamw",
        ),
        torch.optim.AdamW(rest, lr=recipe.rate, betas=(0.9, 0.95), fused=True),
    ]


@torch.no_grad()
def settle_markers(model: Any, tokenizer: Any) -> None:
    """Gives ChatML's markers an embedding to start from: ``<|im_start|>`` half way between a
    paragraph's break and the mean of all tokens, ``<|im_end|>`` just short of the end of a text.

    No page holds them, so all that training did was to push their rows away, to twice the length
    of the others: the base read turns as noise and went on with any list, and a tuned model that
    was asked with sampling missed its end in two answers of three. The mean is where a new token
    disturbs least (Hewitt 2021, "Initializing new word embeddings for pretrained language models");
    a break and an end are what the two markers are. Shorter than the end of a text, so that the
    base ends a page with that; hardly shorter, so that a short run can prefer the other.
    """
    rows = model.get_input_embeddings().weight
    start, end, stop = tokenizer.convert_tokens_to_ids([*CHATML, END])
    known = [at for at in range(len(rows)) if at not in (start, end)]
    mean = rows[known].mean(dim=0)
    paragraph = tokenizer.encode("\n\n", add_special_tokens=False)[0]
    rows[start] = (rows[paragraph] + mean) / 2
    rows[end] = 0.95 * rows[stop]


class Pretraining:
    """A run in ``out``: the finished folder there, and in ``out/work`` what it needs to go on."""

    def __init__(self, recipe: Recipe, out: Path) -> None:
        self.recipe, self.out, self.work = recipe, out, out / "work"
        self.work.mkdir(parents=True, exist_ok=True)
        self._require_same_recipe()
        if not (out / "tokenizer.json").is_file():
            train_tokenizer(recipe).save_pretrained(out)
        self.tokenizer = tokenizer = PreTrainedTokenizerFast.from_pretrained(out)
        self.data = stream(recipe, tokenizer, self.work / "tokens.npy")
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.model: Any = new_model(recipe, tokenizer).to(self.device)
        self.optimizers = make_optimizers(self.model, recipe)
        self.step = 0
        self.seconds = 0.0  # of training, over all starts
        self.checkpoint, self.log = self.work / "checkpoint.pt", self.work / "log.jsonl"
        if self.checkpoint.is_file():
            self._go_on()

    def _require_same_recipe(self) -> None:
        """What goes on here must be what began here: the same recipe, on the same pages."""
        kept = self.work / "recipe.json"
        asked = asdict(self.recipe) | {"pages": fingerprint(self.recipe.seed)}
        if kept.is_file() and json.loads(kept.read_text()) != asked:
            raise SystemExit(f"{self.out} holds a run of another recipe. Choose another folder.")
        kept.write_text(json.dumps(asked, indent=2) + "\n")

    def _go_on(self) -> None:
        saved = torch.load(self.checkpoint, map_location=self.device, weights_only=True)
        self.model.load_state_dict(saved["model"])
        for optimizer, state in zip(self.optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        self.step, self.seconds = saved["step"], saved["seconds"]
        # What was logged behind the checkpoint comes again.
        lines = self.log.read_text().splitlines(keepends=True) if self.log.is_file() else []
        self.log.write_text("".join(it for it in lines if json.loads(it)["step"] <= self.step))

    def learn(self, save_every: int = 100, until: int | None = None) -> None:
        """Trains to the end of the recipe, or to step ``until`` of it."""
        last = min(self.recipe.steps, until or self.recipe.steps)
        self.model.train()
        while self.step < last:
            began = time.perf_counter()
            loss, norm = self._advance()
            self.seconds += time.perf_counter() - began
            if self.step % LOGGED == 0 or self.step == last:
                self._log(loss, norm)
            if self.step % save_every == 0 or self.step == last:
                self._save()
        if self.step == self.recipe.steps:
            settle_markers(self.model, self.tokenizer)
            # Half the size, as most published models are; measured on what is left.
            self.model.to(torch.bfloat16).save_pretrained(self.out)

    def _advance(self) -> tuple[float, float]:
        """One step: its loss, and the gradient's norm before clipping."""
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate_at(self.recipe, self.step)
        first = self.step * self.recipe.batch
        rows = self.data[first : first + self.recipe.batch].astype(np.int64)
        ids = torch.from_numpy(rows).to(self.device)
        with torch.autocast(self.device, torch.bfloat16):
            logits = self.model(input_ids=ids, use_cache=False).logits
        loss: Any = F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), ids[:, 1:].flatten())
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        self.step += 1
        return float(loss.detach()), float(norm)

    def _log(self, loss: float, norm: float) -> None:
        tokens = self.step * self.recipe.batch * self.recipe.window
        entry = {
            "step": self.step,
            "tokens": tokens,
            "loss": round(loss, 4),
            "grad_norm": round(norm, 3),
            "seconds": round(self.seconds, 1),
        }
        with self.log.open("a") as log:
            log.write(json.dumps(entry) + "\n")
        speed = f"{tokens / self.seconds:,.0f} tokens/s"
        print(f"step {self.step}/{self.recipe.steps}  loss {loss:.4f}  {speed}", flush=True)

    def _save(self) -> None:
        state = {
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "step": self.step,
            "seconds": self.seconds,
        }
        part = self.checkpoint.with_suffix(".part")
        torch.save(state, part)
        part.replace(self.checkpoint)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--until", type=int)
    for name, default in asdict(Recipe()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default)
    arguments = vars(parser.parse_args())
    out, threads, until = (arguments.pop(it) for it in ("out", "threads", "until"))
    torch.set_num_threads(threads)
    Pretraining(Recipe(**arguments), out).learn(until=until)


if __name__ == "__main__":
    main()
