"""Opening, measuring, growing, placing and saving models; SmolLM2 from its package."""

from __future__ import annotations

import json
import os
import random
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from sft_core import models
from sft_core.catalogue import BYTES_GPT, SMOLLM2
from sft_core.config import MissingTokens, ModelConfig, TrainConfig
from sft_core.models import (
    SMALL as SMALL_PARAMETERS,
)
from sft_core.models import (
    Opened,
    arguments,
    context,
    device,
    open_folder,
    open_model,
    open_tokenizer,
    pad_id,
    precision,
    require_context,
    save,
    size,
    threads_for,
)
from sft_core.settings import HOST
from sft_core.tokenizer import load_tokenizer
from sft_core.types import ConfigError, HubError, LimitError, ModelError, TokenizerError
from tests.tensors import SMALL, pair, preset, tiny_model

IDS = torch.tensor([[256, 72, 105, 257, 33]])


def logits(model: PreTrainedModel, ids: Tensor = IDS) -> Tensor:
    with torch.inference_mode():
        found: Tensor = model.eval()(input_ids=ids).logits
    return found


# -- random weights ---------------------------------------------------------------------------


def test_a_model_from_random_weights_has_the_shape_that_was_asked_for() -> None:
    opened = open_model(SMALL, None, seed=0)
    config = opened.model.config
    assert (config.hidden_size, config.num_hidden_layers, config.num_attention_heads) == (64, 2, 4)
    assert (opened.context, opened.tokenizer.vocab_size, config.vocab_size) == (128, 260, 260)
    assert (
        opened.parameters == opened.trainable == sum(p.numel() for p in opened.model.parameters())
    )
    assert (config.eos_token_id, config.pad_token_id) == (259, 258)


def test_the_seed_decides_the_weights_and_disturbs_nobody() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = logits(open_model(SMALL, None, seed=1).model)
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(logits(open_model(SMALL, None, seed=1).model), first)
    assert not torch.equal(logits(open_model(SMALL, None, seed=2).model), first)


@pytest.mark.parametrize(
    ("width", "depth", "heads"), [(8, 1, 1), (30, 3, 5), (96, 2, 6), (256, 1, 8)]
)
def test_any_small_width_and_depth(width: int, depth: int, heads: int) -> None:
    config = ModelConfig(BYTES_GPT, width=width, depth=depth, heads=heads, context=32)
    opened = open_model(config, None, seed=0)
    assert size(config).parameters == opened.parameters
    assert bool(torch.isfinite(logits(opened.model)).all())


def test_a_head_of_an_odd_size_is_refused() -> None:
    with pytest.raises(ConfigError, match="it must be an even number"):
        open_model(ModelConfig(BYTES_GPT, width=27, heads=3), None, seed=0)


# -- measuring --------------------------------------------------------------------------------


def test_size_and_context_are_known_before_loading(tmp_path: Path) -> None:
    tiny_model().save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    shapeless = ModelConfig(name=str(tmp_path))
    count = sum(parameter.numel() for parameter in tiny_model().parameters())
    assert (size(shapeless).parameters, size(shapeless).source) == (count, "config")
    assert context(shapeless) == 64
    assert context(SMALL) == 128


def test_a_model_beyond_the_hosts_bound_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_model().save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    monkeypatch.setattr(models, "HOST", replace(HOST, max_parameters=1000))
    with pytest.raises(LimitError, match=r"this host allows 1,000 \(SFT_MAX_PARAMETERS\)"):
        open_model(ModelConfig(name=str(tmp_path)), None, seed=0)


def test_a_model_that_is_nowhere() -> None:
    with pytest.raises(HubError):
        size(ModelConfig(name="sft-lab-tests/no-such-model"))
    with pytest.raises((ModelError, TokenizerError)):
        open_model(ModelConfig(name="./no/such/folder"), None, seed=0)


# -- tokens that a template needs -------------------------------------------------------------


def test_missing_tokens_are_added_to_a_new_model() -> None:
    opened = open_model(SMALL, preset("chatml"), seed=0)
    assert opened.added == ("<|im_start|>", "<|im_end|>")
    assert opened.tokenizer.vocab_size == opened.model.config.vocab_size == 262


def test_missing_tokens_may_stay_text() -> None:
    config = replace(SMALL, missing_tokens=MissingTokens.TEXT)
    opened = open_model(config, preset("chatml"), seed=0)
    assert (opened.added, opened.tokenizer.vocab_size) == ((), 260)


def test_a_template_whose_tokens_are_there_adds_none() -> None:
    assert open_tokenizer(SMALL, preset("inst-resp"))[1] == ()
    assert open_tokenizer(SMALL)[1] == ()


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, Opened]:
    opened = open_model(SMALL, None, seed=3)
    save(opened.model, opened.tokenizer, preset(), tmp_path, (259,))
    return tmp_path, opened


def untied(folder: Path) -> Path:
    """The saved model with a head of its own."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.config.tie_word_embeddings = False
    head = torch.nn.Linear(64, 260, bias=False)
    torch.nn.init.normal_(head.weight, generator=torch.Generator().manual_seed(1))
    model.set_output_embeddings(head)
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("tied", [True, False])
def test_added_tokens_start_as_the_mean_and_leave_the_others_alone(
    saved: tuple[Path, Opened], tied: bool
) -> None:
    folder = saved[0] if tied else untied(saved[0])
    before = open_model(ModelConfig(name=str(folder)), None, seed=0).model
    opened = open_model(ModelConfig(name=str(folder)), preset("chatml"), seed=0)
    assert opened.added == ("<|im_start|>", "<|im_end|>")
    inputs = opened.model.get_input_embeddings().weight
    outputs = opened.model.get_output_embeddings().weight
    assert inputs.shape == outputs.shape == (262, 64)
    assert (inputs is outputs) is tied
    for weights in (inputs, outputs):
        assert torch.allclose(weights[260], weights[:260].mean(dim=0), atol=1e-7)
        assert torch.equal(weights[260], weights[261])
    assert torch.allclose(logits(opened.model)[..., :260], logits(before), atol=1e-5)


def test_growing_is_silent(saved: tuple[Path, Opened], capfd: pytest.CaptureFixture[str]) -> None:
    open_model(ModelConfig(name=str(saved[0])), preset("chatml"), seed=0)
    assert capfd.readouterr() == ("", "")


def test_spare_rows_are_used_before_the_embeddings_grow(saved: tuple[Path, Opened]) -> None:
    """As Qwen has them: more rows than ids. The new tokens must not start as what lay there."""
    folder, _ = saved
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.resize_token_embeddings(300, mean_resizing=False)
    model.save_pretrained(folder)
    opened = open_model(ModelConfig(name=str(folder)), preset("chatml"), seed=0)
    weights = opened.model.get_input_embeddings().weight
    assert weights.shape[0] == 300
    assert torch.allclose(weights[261], weights[:260].mean(dim=0), atol=1e-7)


# -- placing ----------------------------------------------------------------------------------


def test_precision_follows_the_choice_or_else_device_and_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cpu = torch.device("cpu")
    assert precision(TrainConfig(precision="bf16"), 1, cpu) == "bf16"
    assert precision(TrainConfig(precision="fp32"), 10**9, cpu) == "fp32"
    for able, expected in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr(models, "_cpu_has_bf16", lambda able=able: able)
        assert precision(TrainConfig(), SMALL_PARAMETERS, cpu) == expected
        assert precision(TrainConfig(), SMALL_PARAMETERS - 1, cpu) == "fp32"


def test_small_models_compute_on_one_thread_and_the_others_are_given_back() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with threads_for(tiny_model()):
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
        with threads_for(torch.nn.Linear(2000, 1500)):
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_the_device_is_one_that_computes() -> None:
    assert torch.ones(2, device=device()).sum().item() == 2


def test_arguments_are_those_that_a_model_takes() -> None:
    values = {"input_ids": 1, "position_ids": 2, "no_such_thing": 3}
    assert arguments(tiny_model(), **values) == {"input_ids": 1, "position_ids": 2}


def test_padding_has_an_id_for_every_tokenizer() -> None:
    assert pad_id(load_tokenizer("bytes")) == 258
    assert pad_id(load_tokenizer("words")) == 0


def test_a_prompt_must_leave_room() -> None:
    require_context(10, 9)
    with pytest.raises(ModelError, match="at most 10"):
        require_context(10, 10)


# -- saving -----------------------------------------------------------------------------------


def test_a_saved_folder_opens_in_plain_transformers_with_the_same_logits(
    saved: tuple[Path, Opened],
) -> None:
    folder, opened = saved
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = "<INST>Grüße 👋<RESP>"
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids
    assert ids.tolist()[0] == [256, *"Grüße 👋".encode(), 257]
    assert torch.equal(logits(model, ids), logits(opened.model, ids))
    assert tokenizer.chat_template == preset().source
    chat = [{"role": "user", "content": "Hi"}]
    prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    assert prompt == "<INST>Hi<RESP>"


def test_a_saved_folder_opens_again_here(saved: tuple[Path, Opened]) -> None:
    folder, opened = saved
    again = open_folder(folder)
    assert torch.equal(logits(again.model), logits(opened.model))
    assert again.tokenizer.vocab_size == opened.tokenizer.vocab_size
    assert (again.parameters, again.context) == (opened.parameters, opened.context)


def test_generation_stops_where_training_taught_it(tmp_path: Path) -> None:
    opened = open_model(SMALL, preset("chatml"), seed=0)
    end = opened.tokenizer.token_to_id("<|im_end|>")
    assert end is not None
    save(opened.model, opened.tokenizer, preset("chatml"), tmp_path, (end,))
    written = json.loads((tmp_path / "generation_config.json").read_text())
    assert written["eos_token_id"] == [end, 259]
    assert written["pad_token_id"] == 258
    assert (tmp_path / "chat_template.jinja").read_text() == preset("chatml").source


def test_an_end_of_several_ids_leaves_the_end_of_text(tmp_path: Path) -> None:
    opened = open_model(SMALL, None, seed=0)
    save(opened.model, opened.tokenizer, preset("chatml"), tmp_path, tuple(b"<|im_end|>"))
    written = json.loads((tmp_path / "generation_config.json").read_text())
    assert written["eos_token_id"] == 259


def test_a_recommended_temperature_does_not_stop_saving(tmp_path: Path) -> None:
    opened = open_model(SMALL, None, seed=0)
    opened.model.generation_config.do_sample = False
    opened.model.generation_config.temperature = 0.6
    save(opened.model, opened.tokenizer, preset(), tmp_path, (259,))
    written = json.loads((tmp_path / "generation_config.json").read_text())
    assert (written["temperature"], written["do_sample"]) == (0.6, True)


def test_saving_is_silent(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    opened = open_model(SMALL, None, seed=0)
    save(opened.model, opened.tokenizer, preset(), tmp_path, (259,))
    assert capfd.readouterr() == ("", "")


# -- SmolLM2 ----------------------------------------------------------------------------------


@pytest.mark.model
def test_smollm2_is_unpacked_once_opens_answers_and_learns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from sft_core.config import GenerateConfig, MaskPolicy
    from sft_core.encode import encode, stop_sequences
    from sft_core.events import Side
    from sft_core.generate import Answer, Voice, generate, prompt_ids
    from sft_core.learner import Learner
    from sft_core.sandbox import render

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    torch.set_num_threads(os.cpu_count() or 1)
    config = ModelConfig(name=SMOLLM2)
    began = time.process_time()
    opened = open_model(config, preset("chatml"), seed=0)
    first = time.process_time() - began
    began = time.process_time()
    again = open_model(config, preset("chatml"), seed=0)
    assert time.process_time() - began < first / 2
    assert capfd.readouterr().err == ""
    assert size(config).parameters == opened.parameters == 134_515_008
    assert (opened.added, opened.context) == ((), 8192)
    ids = torch.tensor([opened.tokenizer.backend.encode("The capital of France is").ids])
    assert torch.equal(logits(opened.model, ids), logits(again.model, ids))
    best = int(logits(opened.model, ids)[0, -1].argmax())
    assert opened.tokenizer.decode([best]) == " Paris"

    example = pair("What do gulls eat?", "Chips, mostly.")
    rendered = render(preset("chatml"), example, opened.tokenizer.special_tokens)
    row = encode(rendered, opened.tokenizer, MaskPolicy())
    learner = Learner(opened, TrainConfig(max_steps=2, learning_rate=1e-4, warmup_steps=0), [row])
    before = learner.mean_loss([row])
    for micro_batches in learner.steps():
        learner.optimise(micro_batches)
    after = learner.mean_loss([row])
    assert before is not None
    assert after is not None
    assert after[0] < before[0]

    voice = Voice.of(Side.TUNED, again)
    prompt = prompt_ids(example, preset("chatml"), again.tokenizer)
    stops = stop_sequences(preset("chatml"), again.tokenizer)
    *_, answer = generate(voice, prompt, stops, GenerateConfig(max_new_tokens=4))
    assert isinstance(answer, Answer)
    assert len(answer.ids) == 4
    torch.set_num_threads(1)


def test_random_state_of_python_is_left_alone() -> None:
    random.seed(3)
    expected = random.random()
    random.seed(3)
    open_model(SMALL, None, seed=9)
    assert random.random() == expected
