"""What a run needs of memory, worked out before it begins: arithmetic on a model's shape.

Weights, gradients and AdamW's two moments are counted exactly. Activations are what autograd keeps
for the backward pass. Korthikanti et al. 2022 ("Reducing Activation Recomputation in Large
Transformer Models", table 2) give s b h (34 + 5 a s / h) bytes a layer for a GPT block in 16 bits
with dropout. This trainer keeps other things, so ``layer_bytes`` counts anew, tensor by tensor:

- attention is fused, so the 5 a s / h of its scores is not there, unless dropout falls on them on a
  CPU, where torch has no fused kernel for that;
- no dropout in most models, hence no masks; SwiGLU keeps four tensors of the intermediate size;
- weights are fp32 and autocast casts what enters a product, so norms and residuals are fp32, and
  under bf16 each projection keeps a cast of its own of the same input;
- the head works on trained positions only, some at a time, so logits never exist whole.

``tests/test_shapes.py`` holds the count against what autograd really saves, and
``tests/bench_memory.py`` the whole against what a process really needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Final, Literal, Self

from pydantic import ConfigDict

from sft_core.recipe import LoraConfig, Method

FP32: Final = 4
BF16: Final = 2
MOMENTS: Final = 2
"""AdamW keeps two moments a trained parameter, in fp32."""
LOGITS_AT_ONCE: Final = 1 << 27
"""Bytes of logits that the head computes at a time, in the precision of the products."""
LOGITS_IN_HAND: Final = 1 << 23
"""Bytes of logits that are worked on in fp32 at a time, on a CPU; a GPU takes all of them."""
HEAP_SHARE: Final = 0.4
"""On a CPU, blocks that were freed and lie between others in use stay with the process: measured
as so much of what all layers keep (``tests/bench_memory.py``; with blocks given back at once, by
MALLOC_MMAP_THRESHOLD_=65536, the estimate without this share is 1.02 to 1.16 of the truth)."""
BATCH_BYTES: Final = 5 * 8
"""Ids, labels, mask, positions and segments of a token, 64 bits each."""
BASE: Final[Mapping[str, int]] = {"cpu": 400_000_000, "cuda": 64_000_000}
"""A process with every library loaded that training needs, and no model: on a CPU measured by
``tests/bench_memory.py``; on a GPU the workspace of its products (the context itself is gone
from what the GPU calls free)."""


@dataclass(frozen=True, slots=True)
class Linear:
    """``count`` projections called ``name``, from ``inputs`` to ``outputs`` numbers."""

    name: str
    inputs: int
    outputs: int
    count: int


@dataclass(frozen=True, slots=True)
class Shape:
    """What of a model decides its memory.

    ``attention_inputs`` and ``mlp_inputs`` are how many projections of a layer read the normed
    hidden state on either side (3 and 2 in Llama, 1 and 1 in GPT-2). ``mlp_kept`` is how many
    tensors of the intermediate size the backward pass of an MLP needs. ``norms`` counts a layer's
    norms of the hidden state. ``dropout`` is whether attention drops scores. ``linears`` are all
    projections but the head. ``saves`` is whether it can do gradient checkpointing.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    parameters: int
    hidden: int
    layers: int
    heads: int
    key_value_heads: int
    head_size: int
    intermediate: int
    vocabulary: int
    context: int
    tied: bool
    linears: tuple[Linear, ...]
    attention_inputs: int = 3
    mlp_inputs: int = 2
    mlp_kept: int = 4
    norms: int = 2
    rms: bool = True
    head_norms: bool = False
    dropout: bool = False
    saves: bool = True

    @classmethod
    def of_llama(cls, config: Mapping[str, Any]) -> Self:
        """The shape of a Llama from its configuration's own names, without torch. Raises KeyError
        or TypeError where one is missing or no number."""
        h, layers, heads = (
            int(config[name])
            for name in ("hidden_size", "num_hidden_layers", "num_attention_heads")
        )
        kv = int(config.get("num_key_value_heads") or heads)
        size = int(config.get("head_dim") or h // heads)
        f, v = int(config["intermediate_size"]), int(config["vocab_size"])
        tied = bool(config.get("tie_word_embeddings"))
        linears = tuple(
            Linear(name, into, out, layers)
            for name, into, out in (
                ("q_proj", h, heads * size),
                ("k_proj", h, kv * size),
                ("v_proj", h, kv * size),
                ("o_proj", heads * size, h),
                ("gate_proj", h, f),
                ("up_proj", h, f),
                ("down_proj", f, h),
            )
        )
        norms = (2 * layers + 1) * h
        parameters = matrices(linears) + norms + (1 if tied else 2) * v * h
        context = int(config["max_position_embeddings"])
        return cls(parameters, h, layers, heads, kv, size, f, v, context, tied, linears)


def random_llama(
    width: int, depth: int, heads: int, context: int, vocabulary: int
) -> dict[str, Any]:
    """The shape that a model from random weights is given, in Llama's own names."""
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": -(-(width * 8 // 3) // 32) * 32,  # SwiGLU (Shazeer 2020)
        "num_hidden_layers": depth,
        "num_attention_heads": heads,
        "max_position_embeddings": context,
        "tie_word_embeddings": True,
    }


def matrices(linears: tuple[Linear, ...]) -> int:
    """How many weights the projections have."""
    return sum(linear.inputs * linear.outputs * linear.count for linear in linears)


def adapter_parameters(shape: Shape, lora: LoraConfig) -> int:
    """Weights of the low-rank adapters: rank x (inputs + outputs) for each of
    their projections."""
    return sum(
        lora.rank * (linear.inputs + linear.outputs) * linear.count
        for linear in shape.linears
        if not lora.targets or linear.name in lora.targets
    )


# -- the estimate -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Load:
    """What a run asks of a model: as TrainConfig says, with ``precision`` settled. ``tokens`` is
    how many are computed at once, ``longest`` the longest stretch that attends to itself,
    ``trained`` how many of the tokens have a loss; ``parted`` whether a step has several parts."""

    tokens: int
    longest: int
    trained: int
    precision: Literal["fp32", "bf16"] = "fp32"
    method: Method = "full"
    checkpointing: bool = False
    lora: LoraConfig = field(default_factory=LoraConfig)
    device: str = "cpu"
    parted: bool = False


@dataclass(frozen=True, slots=True)
class Footprint:
    """A run's memory in bytes. ``casts`` are the bf16 copies of fp32 weights that autocast makes;
    ``a_token`` is how much of ``activations`` one more token adds."""

    base: int
    weights: int
    gradients: int
    optimizer: int
    casts: int
    activations: int
    a_token: int

    @property
    def fixed(self) -> int:
        """What is there whatever is computed at once."""
        return self.base + self.weights + self.gradients + self.optimizer + self.casts

    @property
    def total(self) -> int:
        """All of it at its highest: gradients of earlier micro-batches are held while the last
        one's activations are."""
        return self.fixed + self.activations


def estimate(shape: Shape, load: Load) -> Footprint:
    """What training a model of this shape needs under this load."""
    lora = load.method == "lora"
    adapters = adapter_parameters(shape, load.lora) if lora else 0
    trained = adapters if lora else shape.parameters
    head = shape.vocabulary * shape.hidden
    casts = matrices(shape.linears) + head + adapters if load.precision == "bf16" else 0
    each = _token_bytes(shape, load)
    logits = logit_bytes(shape.vocabulary, load)
    # From the second part of a step on, the head's new gradient stands beside the old one.
    logits += head * FP32 if load.parted and not lora else 0
    return Footprint(
        base=BASE.get(load.device, BASE["cuda"]),
        weights=(shape.parameters + adapters) * FP32,
        gradients=trained * FP32,
        optimizer=trained * MOMENTS * FP32,
        casts=casts * BF16,
        activations=load.tokens * each + logits,
        a_token=each,
    )


def logit_bytes(vocabulary: int, load: Load) -> int:
    """What ``head`` needs for the logits of trained positions, which never exist whole."""
    number = BF16 if load.precision == "bf16" else FP32
    most = max(1, LOGITS_AT_ONCE // (vocabulary * number))
    positions = min(most, load.trained)
    in_hand = positions * vocabulary * FP32
    # A GPU takes them all in hand at once, and those that may be right a second time.
    return positions * vocabulary * number + (
        min(in_hand, LOGITS_IN_HAND) if load.device == "cpu" else 2 * in_hand
    )


def _token_bytes(shape: Shape, load: Load) -> int:
    """Activations of one token through the whole model."""
    layer = layer_bytes(shape, load)
    kept = (
        shape.layers * shape.hidden * FP32 + layer if load.checkpointing else shape.layers * layer
    )
    if load.device == "cpu":
        kept += int(HEAP_SHARE * shape.layers * layer)
    ends = 2 * shape.hidden * FP32 + 2 * shape.head_size * FP32  # the last norm; rotary angles
    return kept + ends + _flowing(shape, load) + BATCH_BYTES


def layer_bytes(shape: Shape, load: Load) -> int:
    """What one layer keeps of one token for its backward pass."""
    half, lora = load.precision == "bf16", load.method == "lora"
    number = BF16 if half else FP32
    h, queries = shape.hidden, shape.heads * shape.head_size
    keys = shape.key_value_heads * shape.head_size
    if half:
        # Each projection casts for itself; an adapter also what attention gave, kept uncast there.
        inputs = (shape.attention_inputs + shape.mlp_inputs) * h + (queries if lora else 0)
    else:
        inputs = 2 * h
    attention = 2 * (queries + keys) * number + shape.heads * FP32  # q, k, v, the answer; log-sums
    dropped = _dropout_bytes(shape, load, number) if shape.dropout else 0
    adapters = _adapted(shape, load.lora) * load.lora.rank if lora else 0
    mlp = shape.mlp_kept * shape.intermediate
    return (
        _norm_bytes(shape, lora, number) + (inputs + adapters + mlp) * number + attention + dropped
    )


def _norm_bytes(shape: Shape, lora: bool, number: int) -> int:
    """What norms read, and their statistics. An RMS norm is written out in Python and keeps the
    normed numbers too, for the gradient of its weight."""
    trained_rms = shape.rms and not lora
    each = shape.hidden * FP32 * (2 if trained_rms else 1) + (1 if shape.rms else 2) * FP32
    if not shape.head_norms:
        return shape.norms * each
    heads = shape.heads + shape.key_value_heads
    read = heads * shape.head_size * (FP32 + (number if trained_rms else 0))
    return shape.norms * each + read + heads * FP32


def _adapted(shape: Shape, lora: LoraConfig) -> int:
    """How many projections of a layer have an adapter."""
    chosen = [one for one in shape.linears if not lora.targets or one.name in lora.targets]
    return round(sum(one.count for one in chosen) / max(1, shape.layers))


def _dropout_bytes(shape: Shape, load: Load, number: int) -> int:
    """Masks on both residuals. On a CPU scores as well (probabilities, what is left of them, the
    mask), and queries, keys and values in fp32, or all three where one projection gave them."""
    if load.device != "cpu":
        return 2 * shape.hidden
    keys = shape.key_value_heads * shape.head_size
    scores = 3 * shape.heads * load.longest * FP32
    if number == BF16:
        copies = (shape.heads * shape.head_size + 2 * keys) * BF16
    else:
        copies = 2 * keys * FP32 if shape.attention_inputs == 1 else 0
    return 2 * shape.hidden * number + scores + copies


def _flowing(shape: Shape, load: Load) -> int:
    """Gradients of one token on their way back through a layer, at its widest: of the product in
    an MLP, of its factors, and of the residual."""
    number = BF16 if load.precision == "bf16" else FP32
    return 2 * shape.intermediate * number + 2 * shape.hidden * FP32


def tokens_within(shape: Shape, load: Load, room: int) -> int:
    """How many tokens can be computed at once in ``room`` bytes, at most those of ``load``; 0 where
    not even one. More tokens never need less, so it is found by halving."""

    def fits(tokens: int) -> bool:
        part = replace(load, tokens=tokens, trained=min(load.trained, tokens))
        return estimate(shape, part).total <= room

    least, most = 0, load.tokens
    while least < most:
        middle = (least + most + 1) // 2
        least, most = (middle, most) if fits(middle) else (least, middle - 1)
    return least
