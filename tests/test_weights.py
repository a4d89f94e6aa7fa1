"""Folders that hold no model that the lab opens, each with its sentence; counting; the hub."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BertLMHeadModel,
    BloomConfig,
    GPT2Config,
    T5Config,
)

from sft_core.catalogue import find
from sft_core.types import HubError, ModelError
from sft_core.weights import (
    UNBOUNDED,
    context_of,
    count_from_config,
    count_from_headers,
    quiet,
    read_config,
    read_model,
    whole_folder,
)
from tests.tensors import tiny_model

IDS = torch.tensor([[3, 1, 4, 1, 5]])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A whole model."""
    tiny_model().save_pretrained(tmp_path)
    return tmp_path


def settings(folder: Path, **changes: Any) -> None:
    """Changes config.json."""
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_a_whole_folder_opens_with_the_same_logits(folder: Path) -> None:
    with torch.inference_mode():
        assert torch.equal(read_model(folder)(IDS).logits, tiny_model()(IDS).logits)


def test_weights_come_in_single_precision_whatever_they_were_saved_in(tmp_path: Path) -> None:
    tiny_model().bfloat16().save_pretrained(tmp_path)
    assert {p.dtype for p in read_model(tmp_path).parameters()} == {torch.float32}


def test_reading_is_silent(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    read_model(folder)
    assert capfd.readouterr() == ("", "")


def test_quiet_puts_transformers_settings_back() -> None:
    from transformers.utils import logging

    before = (logging.get_verbosity(), logging.is_progress_bar_enabled())
    with pytest.raises(ZeroDivisionError), quiet():
        raise ZeroDivisionError
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before


# -- what is refused --------------------------------------------------------------------------


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no config\.json"):
        read_model(tmp_path)


def test_an_adapter_is_no_model_even_beside_one(folder: Path) -> None:
    named = {"base_model_name_or_path": "elsewhere/model", "peft_type": "LORA"}
    (folder / "adapter_config.json").write_text(json.dumps(named))
    with pytest.raises(ModelError, match=r"holds an adapter.*merge_and_unload"):
        read_model(folder)


def test_a_folder_without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="no weights"):
        read_model(folder)


def test_pickled_weights_are_never_opened(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch pwned'\ntR.")
    with pytest.raises(ModelError, match=r"pickle only \(pytorch_model\.bin\).*save_pretrained"):
        read_model(folder)


@pytest.mark.parametrize("keep", [0, 4, 900])
def test_damaged_weights(folder: Path, keep: int) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(ModelError, match="damaged"):
        read_model(folder)


def test_missing_tensors_are_not_filled_with_chance(folder: Path) -> None:
    file = folder / "model.safetensors"
    tensors = load_file(file)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lack 1 tensors.*layers\.1\.mlp\.up_proj"):
        read_model(folder)


def test_tensors_of_another_shape(folder: Path) -> None:
    settings(folder, intermediate_size=96)
    with pytest.raises(ModelError, match="cannot be opened"):
        read_model(folder)


def test_an_encoder_with_a_decoder(tmp_path: Path) -> None:
    T5Config(vocab_size=9, d_model=8, num_layers=1, num_heads=1).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="t5 model, an encoder with a decoder"):
        read_model(tmp_path)


def test_an_encoder_that_sees_what_it_should_predict(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=64,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        initializer_range=0.5,
    )
    with quiet():
        BertLMHeadModel(config).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="sees the tokens that it should predict"):
        read_model(tmp_path)


def test_an_unknown_architecture(folder: Path) -> None:
    settings(folder, model_type="something-new")
    with pytest.raises(ModelError, match="does not know the kind of model"):
        read_model(folder)


def test_code_of_the_models_own(folder: Path) -> None:
    settings(
        folder,
        model_type="own",
        auto_map={"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"},
    )
    (folder / "own.py").write_text("raise SystemExit('this must never run')")
    with pytest.raises(ModelError, match="code of its own"):
        read_model(folder)


def test_a_configuration_that_is_no_json(folder: Path) -> None:
    (folder / "config.json").write_text("{")
    with pytest.raises(ModelError, match="cannot be opened"):
        read_config(folder)


# -- counting ---------------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [True, False])
def test_configuration_headers_and_weights_agree(tmp_path: Path, tied: bool) -> None:
    model = tiny_model(tie_word_embeddings=tied)
    model.save_pretrained(tmp_path)
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count_from_config(model.config) == count
    assert count_from_headers(tmp_path) == count


def test_a_large_model_is_counted_without_its_memory() -> None:
    import psutil

    before = psutil.Process().memory_info().rss
    # The shape of GPT-2 XL, whose parameters are published as 1.5 billion.
    config = GPT2Config(n_embd=1600, n_layer=48, n_head=25, bos_token_id=None, eos_token_id=None)
    assert count_from_config(config) == 1_557_611_200
    assert psutil.Process().memory_info().rss - before < 200e6


def test_contexts() -> None:
    assert context_of(GPT2Config(n_positions=77)) == 77
    assert context_of(tiny_model().config) == 64
    assert context_of(BloomConfig()) == UNBOUNDED


# -- the hub ----------------------------------------------------------------------------------


def test_a_model_that_the_hub_does_not_have_is_told_at_once() -> None:
    """With a network the hub says no; without one it cannot be asked. Either way the answer is a
    sentence, and soon."""
    began = time.monotonic()
    with pytest.raises(HubError, match="sft-lab-tests/no-such-model"):
        whole_folder(find("sft-lab-tests/no-such-model"), None)
    assert time.monotonic() - began < 20


def test_a_name_that_cannot_be_a_hub_id() -> None:
    with pytest.raises(ModelError, match="no folder on this machine and no hub id"):
        whole_folder(find("no such/folder/here"), None)


def test_a_cached_model_opens_without_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cache's own layout, filled by hand, and a hub that is off."""
    import huggingface_hub.constants as constants

    repository = tmp_path / "models--sft-lab-tests--cached"
    commit = "0" * 40
    tiny_model().save_pretrained(repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    card = find("sft-lab-tests/cached")
    folder = whole_folder(card, None)
    assert isinstance(read_model(folder), type(AutoModelForCausalLM.from_pretrained(folder)))
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(HubError, match="has no safetensors weights"):
        whole_folder(card, None)
