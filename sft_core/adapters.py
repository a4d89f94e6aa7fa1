"""LoRA: low-rank adapters beside frozen weights, put in by peft, and taken out again.

The transformers model keeps its class and its place; peft's layers stand inside it, so whatever
trains, measures or generates needs not know of them. Beside a matrix W (out, in) stand A (rank,
in), drawn at random, and B (out, rank), which starts at zero, so that training begins at exactly
the base model (Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models"). Where the
template added tokens, their own rows of the embeddings learn too, and no others.

Only this room imports peft, and only when it is asked for adapters.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from sft_core.catalogue import Origin, find
from sft_core.config import LabConfig, ModelConfig
from sft_core.events import Warned
from sft_core.models import Opened, skeleton
from sft_core.recipe import LoraConfig, lora_advice
from sft_core.types import ConfigError, ModelError

NAME: Final = "default"
"""What peft calls the one adapter of a model."""
WEIGHTS: Final = "adapter_model.safetensors"
PREFIX: Final = "base_model.model."
"""What peft puts before the names of a model's own modules in an adapter's file."""


# -- putting in -------------------------------------------------------------------------------


def attach(opened: Opened, lora: LoraConfig, seed: int) -> Opened:
    """Freezes the model and gives it adapters that learn, drawn from ``seed`` alone: the
    process's own random state stays as it is. Changes ``opened.model`` in place.

    Raises ConfigError where ``lora`` names no linear layer of this model, or where new tokens
    cannot be trained in it.
    """
    from peft import inject_adapter_in_model

    model, targets = opened.model, _targets(opened.model, lora)
    settings = _peft_config(model, lora, targets, _new_rows(opened, targets))
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # A model may mix Linear and Conv1D; peft sets each right and tells about each.
        warnings.filterwarnings("ignore", message=".*fan_in_fan_out")
        torch.manual_seed(seed % 2**63)
        inject_adapter_in_model(settings, model, adapter_name=NAME)
    for layer in _lora_layers(model).values():
        # Weights are float32, and autocast narrows what goes into a product by itself; peft
        # would widen it first.
        layer.cast_input_dtype_enabled = False
    return replace(opened, trainable=sum(weights.numel() for weights in trained(model).values()))


def _peft_config(
    model: PreTrainedModel, lora: LoraConfig, targets: list[str], rows: list[int]
) -> Any:
    import peft

    return peft.LoraConfig(
        task_type=peft.TaskType.CAUSAL_LM,
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=list(lora.targets) or targets,
        # GPT-2's Conv1D holds its matrix as (in, out).
        fan_in_fan_out=any(isinstance(model.get_submodule(name), Conv1D) for name in targets),
        trainable_token_indices=dict.fromkeys(_tables(model), rows) if rows else None,
    )


def _targets(model: PreTrainedModel, lora: LoraConfig) -> list[str]:
    """The full names of the layers that get an adapter. Raises ConfigError."""
    layers = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, (nn.Linear, Conv1D))
    }
    head, tied = model.get_output_embeddings(), _is_tied(model)
    chosen = [name for name, layer in layers.items() if layer is not head]
    if lora.targets:
        for target in lora.targets:
            found = [name for name, _ in model.named_modules() if _names(target, name)]
            if not found or not layers.keys() >= set(found):
                raise ConfigError(_no_such(target, layers))
            if tied and any(layers[name] is head for name in found):
                raise ConfigError(
                    f"lora.targets cannot name {target}: this model's head is its embeddings. "
                    f"Choose among {_listed(chosen)}, or leave the list empty for all of them."
                )
        chosen = [name for name in layers if any(_names(target, name) for target in lora.targets)]
    if not chosen:
        raise ConfigError("This model has no linear layer for an adapter. Set method to full.")
    most = max(min(layers[name].weight.shape) for name in chosen)
    if lora.rank > most:
        raise ConfigError(
            f"lora.rank is {lora.rank:,}, but no matrix that gets an adapter has a rank above "
            f"{most:,}. Lower it: 8 to 64 are usual."
        )
    return chosen


def _names(target: str, module: str) -> bool:
    """Whether peft takes ``target`` for this module: its name, or the end of it."""
    return module == target or module.endswith(f".{target}")


def _no_such(target: str, layers: Mapping[str, nn.Module]) -> str:
    return (
        f"lora.targets names {target!r}, which is no linear layer of this model. Choose among "
        f"{_listed(layers)}, or leave the list empty for all but the head."
    )


def _listed(names: Any) -> str:
    """Names of layers without where they stand: "q_proj, k_proj, ..."."""
    return ", ".join(dict.fromkeys(name.rpartition(".")[2] for name in names))


# -- new tokens -------------------------------------------------------------------------------


def _new_rows(opened: Opened, targets: list[str]) -> list[int]:
    """The ids that the template added. Raises ConfigError where peft could not train them."""
    rows = sorted(
        id for text in opened.added if (id := opened.tokenizer.token_to_id(text)) is not None
    )
    head = opened.model.get_output_embeddings()
    if rows and getattr(head, "bias", None) is not None:
        # peft's layer for single rows leaves a head's bias out of its sum.
        raise ConfigError(
            "The template adds tokens, and this model's head has a bias, which LoRA cannot train "
            "beside new tokens. Set method to full, or missing_tokens to text."
        )
    if rows and any(opened.model.get_submodule(name) is head for name in targets):
        raise ConfigError(
            "The template adds tokens, whose rows of the head are trained by themselves, so the "
            "head can take no adapter. Leave it out of lora.targets, or set missing_tokens to text."
        )
    return rows


def _tables(model: PreTrainedModel) -> list[str]:
    """The names of the modules with one row a token; peft finds a tied head by itself."""
    wanted = [model.get_input_embeddings()]
    if not _is_tied(model):
        wanted.append(model.get_output_embeddings())
    return [name for name, module in model.named_modules() if any(module is one for one in wanted)]


def _is_tied(model: PreTrainedModel) -> bool:
    head = model.get_output_embeddings()
    return head is not None and head.weight is model.get_input_embeddings().weight


# -- what to tell -----------------------------------------------------------------------------


def lora_notes(config: LabConfig) -> Iterator[Warned]:
    """What to tell before the first step about settings that will disappoint."""
    if config.train.method != "lora":
        return
    if advice := lora_advice(config.train):
        yield Warned(code="lora-rate", message=advice)
    if find(config.model.name).origin is Origin.RANDOM:
        yield Warned(
            code="lora-random",
            message="LoRA freezes the model, and this one starts from random weights, so there is "
            "little to build on. Set method to full, or choose a model that was trained before.",
        )


# -- what learns ------------------------------------------------------------------------------


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that learn, by name: of a model with adapters these alone. Copying them
    copies all that training has changed."""
    return {name: weights for name, weights in model.named_parameters() if weights.requires_grad}


def new_rows(model: nn.Module) -> list[nn.Parameter]:
    """The embeddings of new tokens among what learns; they are no matrices that multiply."""
    return [weights for name, weights in trained(model).items() if "trainable_tokens_" in name]


def trainable_count(config: ModelConfig, lora: LoraConfig, added: int = 0) -> int:
    """How many parameters would learn with ``added`` new tokens, without any weight being loaded.
    Raises ModelError, HubError, or ConfigError as ``attach`` does."""
    model = skeleton(config)
    layers = (model.get_submodule(name) for name in _targets(model, lora))
    count: int = sum(lora.rank * sum(layer.weight.shape) for layer in layers)
    width: int = model.get_input_embeddings().weight.shape[1]
    return count + added * len(_tables(model)) * width


def _lora_layers(model: nn.Module) -> dict[str, Any]:
    from peft.tuners.lora import LoraLayer

    return {name: layer for name, layer in model.named_modules() if isinstance(layer, LoraLayer)}


def _token_layers(model: nn.Module) -> dict[str, Any]:
    from peft.utils import TrainableTokensWrapper

    return {
        name: layer.token_adapter
        for name, layer in model.named_modules()
        if isinstance(layer, TrainableTokensWrapper)
    }


# -- taking out -------------------------------------------------------------------------------


@torch.no_grad()
def merged(model: nn.Module) -> dict[str, Tensor]:
    """The weights of a plain model that says the same: W + alpha / rank * B A by W's own name,
    and the rows of new tokens in their places. The model in training stays as it is: adding and
    subtracting again would not give its weights back bit for bit."""
    state = {
        name.replace(".token_adapter", "").replace(".base_layer", ""): tensor
        for name, tensor in model.state_dict().items()
        if ".lora_" not in name and "trainable_tokens_" not in name
    }
    for name, layer in _lora_layers(model).items():
        state[f"{name}.weight"] = layer.get_base_layer().weight + layer.get_delta_weight(NAME)
    tables: dict[int, Tensor] = {}
    for name, layer in _token_layers(model).items():
        table = id(layer.get_base_layer().weight)
        if table not in tables:  # a tied head stays tied
            tables[table] = layer.get_merged_weights([NAME])
        state[f"{name}.weight"] = tables[table]
    return state


def save_adapter(model: PreTrainedModel, folder: Path, base: ModelConfig) -> None:
    """Writes what was learnt alone, as peft does: ``PeftModel.from_pretrained`` puts it back onto
    the model called ``base``, grown to the tokenizer's size. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = copy.copy(model.peft_config[NAME])
    settings.inference_mode = True
    settings.target_modules = sorted(settings.target_modules)  # a set, in an order of chance
    if find(base.name).origin is Origin.HUB:
        # The folder that it was read from is nobody else's.
        settings.base_model_name_or_path, settings.revision = base.name, base.revision
    settings.save_pretrained(str(folder))
    state = {
        _stored(name): weights.detach().cpu().contiguous()
        for name, weights in trained(model).items()
    }
    save_file(state, folder / WEIGHTS, metadata={"format": "pt"})


@torch.no_grad()
def load_adapter(model: nn.Module, folder: Path) -> None:
    """Takes the weights that ``save_adapter`` wrote back into a model with the same adapters, bit
    for bit. Raises ModelError where they are not those of this model."""
    state = load_file(folder / WEIGHTS)
    learning = {_stored(name): weights for name, weights in trained(model).items()}
    if {name: tensor.shape for name, tensor in state.items()} != {
        name: weights.shape for name, weights in learning.items()
    }:
        raise ModelError(
            f"The adapter in {folder} belongs to other layers than this model has. Check which "
            "model and which lora settings it was trained with."
        )
    for name, weights in learning.items():
        weights.copy_(state[name])


def _stored(name: str) -> str:
    """A parameter's name in an adapter's file, which leaves out what the adapter is called."""
    return PREFIX + name.replace(f".{NAME}", "")
