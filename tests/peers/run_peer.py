"""Trains with TRL or transformers' Trainer in the peers' own environment, as a job file says:

    build/peers/bin/python -m tests.peers.run_peer JOB.json

Nothing of the lab is imported. See ``bench_training`` for what is held equal and what stays at the
peer's default.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from tests.peers.meter import IGNORE, Meter

REPORTED = ("bf16", "gradient_checkpointing", "optim", "packing", "padding_free", "loss_type")


class Watch(TrainerCallback):
    """Notes the time at which each optimiser step ends, and the loss that is logged for it."""

    def __init__(self, meter: Meter) -> None:
        self.meter = meter
        self.losses: list[float] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.meter.tick()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if "loss" in logs:
            self.losses.append(float(logs["loss"]))


class Counted:
    """A collator that counts what it hands over."""

    def __init__(self, collate: Any) -> None:
        self.collate = collate
        self.tokens = self.trained = self.slots = 0

    def __call__(self, rows: Any) -> Any:
        batch = self.collate(rows)
        self.tokens += int(batch["attention_mask"].sum())
        self.trained += int((batch["labels"][:, 1:] != IGNORE).sum())
        self.slots += batch["input_ids"].numel()
        return batch


def arguments(job: dict[str, Any], folder: Path) -> dict[str, Any]:
    """What is the same for all contenders; everything else stays at the peer's default."""
    train = job["train"]
    return {
        "output_dir": str(folder),
        "max_steps": train["max_steps"],
        "per_device_train_batch_size": job["batch"],
        "gradient_accumulation_steps": job["accumulation"],
        "learning_rate": train["learning_rate"],
        "lr_scheduler_type": train["schedule"],
        "warmup_steps": 0,
        "weight_decay": train["weight_decay"],
        "adam_beta1": train["adam_beta1"],
        "adam_beta2": train["adam_beta2"],
        "adam_epsilon": train["adam_epsilon"],
        "max_grad_norm": train["max_grad_norm"],
        "seed": train["seed"],
        "train_sampling_strategy": "sequential",  # the rows come in the order of the lab
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
        "use_cpu": not torch.cuda.is_available(),
    }


def trainer(job: dict[str, Any], model: Any, tokenizer: Any, folder: Path) -> Any:
    rows = [job["rows"][at] for step in job["order"] for at in step]
    given = arguments(job, folder)
    if job["precision"] != "default":
        given["bf16"] = job["precision"] == "bf16"
    if job["trainer"] == "trl":
        from datasets import Dataset
        from trl import SFTConfig, SFTTrainer

        return SFTTrainer(
            model=model,
            args=SFTConfig(**given, max_length=job["train"]["max_length"]),
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
        )
    return Trainer(
        model=model,
        args=TrainingArguments(**given),
        train_dataset=[row | {"attention_mask": [1] * len(row["input_ids"])} for row in rows],
        data_collator=DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=IGNORE),
    )


def main(path: str) -> None:
    job = json.loads(Path(path).read_text())
    transformers.logging.set_verbosity_error()
    if job["trainer"] == "trl":
        import_module("trl.trainer.sft_trainer")  # what a library weighs is not training's memory
    torch.manual_seed(job["train"]["seed"])
    tokenizer = AutoTokenizer.from_pretrained(job["model"])
    tokenizer.padding_side = "right"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    model = AutoModelForCausalLM.from_pretrained(job["model"], dtype=torch.float32)
    meter = Meter(model)
    peer = trainer(job, model, tokenizer, Path(path).parent / "trainer")
    counted = Counted(peer.data_collator)
    peer.data_collator = counted
    watch = Watch(meter)
    peer.add_callback(watch)
    peer.train()
    result = watch.meter.result() | {
        "losses": watch.losses,
        "tokens": counted.tokens,
        "trained": counted.trained,
        "slots": counted.slots,
        "settings": {key: str(getattr(peer.args, key, None)) for key in REPORTED},
    }
    if job["save"]:
        # The forward that TRL puts in front stays behind: only weights and shape are written.
        peer.model.save_pretrained(job["save"])
    Path(job["result"]).write_text(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1])
