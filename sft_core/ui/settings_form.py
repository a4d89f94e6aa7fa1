"""How to train: controls in three groups, what they come to, and the configuration they spell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

import gradio as gr

from sft_core.catalogue import Origin, find
from sft_core.config import PARROT_RUN, LoraConfig, TrainConfig
from sft_core.lessons import FROM_SCRATCH
from sft_core.types import ConfigError
from sft_core.ui.parts import LIGHT, heading
from sft_core.ui.session import given, optional, optional_whole, whole

LENGTHS: Final = ("max_steps", "epochs", "batch_size", "accumulation", "packing", "max_length")
"""The settings that say how long a run takes."""
TOLD: Final = (*LENGTHS, "method", "learning_rate", "lora_rank", "lora_alpha", "lora_dropout")
"""The settings that the sentence of what they come to depends on."""

MEMORY: Final = (
    "batch_size",
    "accumulation",
    "max_length",
    "packing",
    "method",
    "precision",
    "gradient_checkpointing",
    "auto_micro_batch",
    "lora_rank",
    "lora_targets",
)
"""The settings that say how much memory a run takes."""

OPTIONAL: Final = ("max_steps", "max_minutes")
"""The settings that may be left empty."""
LORA: Final = "lora_"
"""What the names of controls begin with that spell the adapters and not the training itself."""
USUAL_LORA: Final = LoraConfig()
"""The adapters of every preset."""
PARROT, SCRATCH, TALKING, TUTORIAL = "parrot", "scratch", "talking", "tutorial"
TALKING_LORA: Final = "talking-lora"
PRESETS: Final[Mapping[str, tuple[str, TrainConfig]]] = {
    PARROT: ("The parrot, a small base model", PARROT_RUN),
    SCRATCH: ("A model from random weights", FROM_SCRATCH.train),
    TALKING: (
        "A model that can talk already",
        TrainConfig(
            epochs=2,
            batch_size=4,
            accumulation=2,
            max_length=512,
            learning_rate=2e-5,
            weight_decay=0.0,
        ),
    ),
    TALKING_LORA: (
        "A model that can talk already, with LoRA",
        TrainConfig(
            epochs=2,
            batch_size=4,
            accumulation=2,
            max_length=512,
            learning_rate=2e-4,
            weight_decay=0.0,
            method="lora",
        ),
    ),
    TUTORIAL: (
        "As the second tutorial does",
        TrainConfig(
            epochs=1,
            batch_size=4,
            accumulation=8,
            max_length=512,
            learning_rate=2e-4,
            warmup_steps=12,
            eval_every=10,
        ),
    ),
}
"""Settings to begin with: a title, and what they are."""


def suitable(model: str) -> str:
    """The preset to begin with for a model."""
    return {Origin.EMBEDDED: PARROT, Origin.RANDOM: SCRATCH}.get(find(model).origin, TALKING)


@dataclass(frozen=True, slots=True)
class Settings:
    """The controls that say how to train, as the page holds them."""

    epochs: float | None
    max_steps: str
    batch_size: float | None
    accumulation: float | None
    max_length: float | None
    learning_rate: float | None
    schedule: str
    warmup_steps: float | None
    weight_decay: float | None
    max_grad_norm: float | None
    precision: str
    gradient_checkpointing: bool
    method: str
    packing: bool
    auto_micro_batch: bool
    compile: str
    lora_rank: float | None
    lora_alpha: float | None
    lora_dropout: float | None
    lora_targets: str
    seed: float | None
    eval_every: float | None
    sample_every: float | None
    score_every: float | None
    max_minutes: str
    sample_prompts: str
    keep_best: bool

    def config(self) -> TrainConfig:
        """Raises ConfigError that names the field which is empty or cannot work."""
        steps = optional_whole(self.max_steps, "Steps")
        if steps is None and self.epochs is None:
            raise ConfigError("Say how long to train: a number of epochs or of steps.")
        known = TrainConfig()
        return TrainConfig(
            epochs=known.epochs if self.epochs is None else float(self.epochs),
            max_steps=steps,
            batch_size=whole(self.batch_size, "Batch"),
            accumulation=whole(self.accumulation, "Batches a step"),
            max_length=whole(self.max_length, "Length limit"),
            learning_rate=given(self.learning_rate, "Learning rate"),
            schedule=self.schedule,  # type: ignore[arg-type]
            warmup_steps=whole(self.warmup_steps, "Warm-up"),
            weight_decay=given(self.weight_decay, "Weight decay"),
            max_grad_norm=given(self.max_grad_norm, "Clip gradients at"),
            precision=self.precision,  # type: ignore[arg-type]
            gradient_checkpointing=self.gradient_checkpointing,
            method=self.method,  # type: ignore[arg-type]
            packing=self.packing,
            auto_micro_batch=self.auto_micro_batch,
            compile=self.compile,  # type: ignore[arg-type]
            seed=whole(self.seed, "Seed"),
            eval_every=whole(self.eval_every, "Eval loss every"),
            sample_every=whole(self.sample_every, "Samples every"),
            score_every=whole(self.score_every, "Exact match every"),
            max_minutes=optional(self.max_minutes, "Pause after"),
            sample_prompts=tuple(filter(None, map(str.strip, self.sample_prompts.splitlines()))),
            keep_best=self.keep_best,
        )

    def lora(self) -> LoraConfig:
        """The usual ones where no adapter learns. Raises ConfigError that names the field which is
        empty or cannot work."""
        if not with_lora(self.method):
            return USUAL_LORA
        return LoraConfig(
            rank=whole(self.lora_rank, "Rank"),
            alpha=given(self.lora_alpha, "Alpha"),
            dropout=given(self.lora_dropout, "Dropout"),
            targets=tuple(self.lora_targets.replace(",", " ").split()),
        )


# -- layout ----------------------------------------------------------------------------------


def build(train: TrainConfig, lora: LoraConfig) -> dict[str, Any]:
    """The controls in three groups: what, how, watch."""
    made: dict[str, Any] = {}

    # No minimum: out of bounds, Gradio says so in a corner and names no field; ``Settings`` says
    # which one it is, beside the button.
    def number(name: str, label: str, *, fraction: bool = False) -> None:
        made[name] = gr.Number(
            getattr(train, name),
            label=label,
            precision=None if fraction else 0,
            min_width=120,
            elem_id=f"set-{name.replace('_', '-')}",
        )

    def maybe(name: str, label: str, empty: str) -> None:
        value = getattr(train, name)
        made[name] = gr.Textbox(
            "" if value is None else f"{value:g}",
            label=label,
            placeholder=empty,
            min_width=120,
            elem_id=f"set-{name.replace('_', '-')}",
        )

    heading("What")
    with gr.Row(elem_classes="pairwise"):
        number("epochs", "Epochs", fraction=True)
        maybe("max_steps", "or steps", "as epochs say")
        number("batch_size", "Batch, rows")
        number("accumulation", "Batches a step")
        number("max_length", "Length limit, tokens")
        made["packing"] = gr.Checkbox(
            train.packing,
            label="Pack rows",
            info="Several rows share a window; none sees another.",
            min_width=120,
            elem_id="set-packing",
        )
        made["packing"].change(_rows_or_windows, made["packing"], made["batch_size"], **LIGHT)
    heading("How")
    with gr.Row(elem_classes="pairwise"):
        made["method"] = gr.Dropdown(
            [("All weights", "full"), ("LoRA adapters", "lora")],
            value=train.method,
            label="Method",
            min_width=120,
            elem_id="set-method",
        )
        number("learning_rate", "Learning rate", fraction=True)
        made["schedule"] = gr.Dropdown(
            [("Cosine", "cosine"), ("Linear", "linear"), ("Constant", "constant")],
            value=train.schedule,
            label="Schedule",
            min_width=120,
        )
        number("warmup_steps", "Warm-up, steps")
        number("weight_decay", "Weight decay", fraction=True)
    made |= _adapters(lora, made["method"])
    with gr.Accordion("More", open=False, elem_classes="fold"), gr.Row(elem_classes="pairwise"):
        number("max_grad_norm", "Clip gradients at", fraction=True)
        made["precision"] = gr.Dropdown(
            [("Automatic", "auto"), ("Full, fp32", "fp32"), ("Mixed, bf16", "bf16")],
            value=train.precision,
            label="Precision",
            min_width=120,
        )
        number("seed", "Seed")
        made["gradient_checkpointing"] = gr.Checkbox(
            train.gradient_checkpointing,
            label="Gradient checkpointing",
            info="Less memory, for more time.",
            min_width=120,
        )
        made["auto_micro_batch"] = gr.Checkbox(
            train.auto_micro_batch,
            label="Split steps to fit memory",
            info="What is learnt stays the same.",
            min_width=120,
        )
        made["compile"] = gr.Dropdown(
            [("Where it pays", "auto"), ("Always", "on"), ("Never", "off")],
            value=train.compile,
            label="Compile the model",
            min_width=120,
        )
    heading("Watch")
    with gr.Row(elem_classes="pairwise"):
        number("eval_every", "Eval loss every, steps")
        number("sample_every", "Samples every, steps")
        number("score_every", "Exact match every")
        maybe("max_minutes", "Pause after, minutes", "no limit")
    made["sample_prompts"] = gr.Textbox(
        "\n".join(train.sample_prompts),
        label="Sample these prompts, one a line",
        placeholder="a few held-out rows",
        lines=2,
        elem_id="set-sample-prompts",
    )
    made["keep_best"] = gr.Checkbox(train.keep_best, label="Keep the best weights by eval loss")
    assert set(made) == {field.name for field in fields(Settings)}
    return made


def _rows_or_windows(packed: bool) -> Any:
    """What a batch is counted in."""
    return gr.update(label="Batch, windows" if packed else "Batch, rows")


def _adapters(lora: LoraConfig, method: gr.Dropdown) -> dict[str, Any]:
    """The controls of LoRA, which are there while it is the ``method``."""
    made: dict[str, Any] = {}
    with gr.Row(elem_classes="pairwise", visible=with_lora(method.value)) as box:
        for name, label in (("rank", "Rank"), ("alpha", "Alpha"), ("dropout", "Dropout")):
            made[LORA + name] = gr.Number(
                getattr(lora, name),
                label=label,
                precision=0 if name == "rank" else None,
                min_width=120,
                elem_id=f"set-lora-{name}",
            )
        made[LORA + "targets"] = gr.Textbox(
            " ".join(lora.targets),
            label="Layers with adapters",
            placeholder="all but the head",
            min_width=120,
            elem_id="set-lora-targets",
        )
    method.change(lambda chosen: gr.update(visible=with_lora(chosen)), method, box, **LIGHT)
    return made


def with_lora(method: str) -> bool:
    """Whether the controls of LoRA mean anything."""
    return method == "lora"
