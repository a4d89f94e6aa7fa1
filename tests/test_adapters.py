"""LoRA: what learns and what stays, merged weights, files that peft opens, and the settings."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from peft import PeftModel
from torch import Tensor
from transformers import AutoModelForCausalLM, GPT2Config, PhiConfig, PreTrainedModel

from sft_core.adapters import (
    attach,
    load_adapter,
    merged,
    new_rows,
    save_adapter,
    trainable_count,
    trained,
)
from sft_core.config import LoraConfig, ModelConfig, TrainConfig
from sft_core.learner import Learner
from sft_core.loss import head_on_targets, target_mask
from sft_core.models import Opened, open_folder, open_model, save
from sft_core.quicker import quicken
from sft_core.schedule import groups
from sft_core.tokenizer import load_tokenizer
from sft_core.types import ConfigError, ModelError
from tests.tensors import SMALL, VOCABULARY, preset, rows_of, tiny_model

LORA = LoraConfig(rank=4, alpha=8.0)
ROWS = rows_of((5, 4), (3, 19), (7, 2), (1, 1))
NEW = (3, 60)
"""Ids that play new tokens: one among the trained ones, one that no row has."""
PLAIN = TrainConfig(
    learning_rate=0.02, schedule="constant", warmup_steps=0, weight_decay=0.1, precision="fp32"
)
IDS = torch.tensor([[1, 2, 3, 60, 7]])


class Words:
    """A tokenizer that knows two tokens by the names "new 0" and "new 1"."""

    pad_id = eos_id = bos_id = 0

    def token_to_id(self, text: str) -> int:
        return NEW[int(text[-1])]


def gpt2() -> PreTrainedModel:
    torch.manual_seed(0)
    shape = GPT2Config(
        vocab_size=VOCABULARY,
        n_embd=32,
        n_layer=2,
        n_head=2,
        n_positions=64,
        initializer_range=0.2,
        bos_token_id=0,
        eos_token_id=0,
        attn_pdrop=0.0,
        embd_pdrop=0.0,
        resid_pdrop=0.0,
    )
    return AutoModelForCausalLM.from_config(shape).eval()


def untied() -> PreTrainedModel:
    return tiny_model(tie_word_embeddings=False)


MODELS = {"tied": tiny_model, "untied": untied, "gpt2": gpt2}


def adapted(
    model: PreTrainedModel | None = None, lora: LoraConfig = LORA, new: int = 0, seed: int = 7
) -> Opened:
    added = tuple(f"new {number}" for number in range(new))
    model = model or tiny_model()
    opened = Opened(model, Words(), added, 1, 1, 64)  # type: ignore[arg-type]
    return attach(opened, lora, seed)


def learnt(opened: Opened, **settings: Any) -> Learner:
    """After three steps over all rows."""
    learner = Learner(opened, replace(PLAIN, max_steps=3, **settings), ROWS)
    for plan in learner.steps():
        assert learner.optimise(plan) is not None
    learner.bare.eval()
    return learner


def logits(model: torch.nn.Module, ids: Tensor = IDS) -> Tensor:
    with torch.no_grad():
        return model(ids).logits  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("new", [0, 2])
def test_nothing_but_adapters_and_new_rows_changes(kind: str, new: int) -> None:
    model = MODELS[kind]()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    learner = learnt(adapted(model, new=new))
    frozen = {n: w for n, w in learner.bare.named_parameters() if not w.requires_grad}
    assert frozen
    assert all(weights.grad is None for weights in frozen.values())
    kept = {id(w) for group in learner._optimizer.param_groups for w in group["params"]}
    assert kept == set(map(id, trained(learner.bare).values()))
    after = {
        name.replace(".token_adapter", "").replace(".base_layer", ""): tensor
        for name, tensor in learner.bare.state_dict().items()
        if "lora_" not in name and "trainable_" not in name
    }
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    changed = merged(learner.bare)
    tables = [name for name in before if "embed" in name or "wte" in name or "lm_head" in name]
    assert len(tables) == 2
    for name in tables:
        moved = (changed[name] != before[name]).any(dim=1).nonzero().flatten().tolist()
        # A row that no text has still learns where the table is the head too: never to be said.
        heard = kind != "untied" or "head" in name
        assert moved == (list(NEW if heard else NEW[:1]) if new else [])


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("new", [0, 2])
def test_a_model_begins_as_it_was_and_learns(kind: str, new: int) -> None:
    model = MODELS[kind]()
    before = logits(model)
    opened = adapted(model, new=new)
    assert torch.equal(logits(opened.model), before)
    learner = Learner(opened, replace(PLAIN, max_steps=30), ROWS)
    first = learner.mean_loss(ROWS)
    for plan in learner.steps():
        learner.optimise(plan)
    last = learner.mean_loss(ROWS)
    assert first is not None
    assert last is not None
    assert last[0] < 0.8 * first[0]


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("new", [0, 2])
def test_a_merged_model_says_what_the_adapted_one_does(kind: str, new: int, tmp_path: Path) -> None:
    learner = learnt(adapted(MODELS[kind](), new=new))
    said = logits(learner.bare)
    before = copy.deepcopy(learner.bare.state_dict())
    state = merged(learner.bare)
    save(
        learner.bare, load_tokenizer("words"), preset("chatml"), tmp_path / "model", (), state=state
    )
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    assert type(plain) is type(learner.bare)
    assert not torch.allclose(logits(MODELS[kind]()), said, atol=1e-2)
    torch.testing.assert_close(logits(plain), said, atol=1e-5, rtol=1e-5)
    after = learner.bare.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert torch.equal(logits(learner.bare), said)


# peft asks transformers for something by a name that goes away.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("new", [0, 2])
def test_peft_puts_a_saved_adapter_back_onto_the_base(kind: str, new: int, tmp_path: Path) -> None:
    learner = learnt(adapted(MODELS[kind](), new=new))
    save_adapter(learner.bare, tmp_path, ModelConfig("some/model", revision="abc"))
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    settings = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (settings["base_model_name_or_path"], settings["revision"]) == ("some/model", "abc")
    assert (settings["r"], settings["lora_alpha"], settings["inference_mode"]) == (4, 8.0, True)
    again = PeftModel.from_pretrained(MODELS[kind](), tmp_path).eval()
    quicken(again)  # as training does
    assert torch.equal(logits(again), logits(learner.bare))


@pytest.mark.parametrize("new", [0, 2])
def test_a_saved_adapter_comes_back_bit_for_bit(new: int, tmp_path: Path) -> None:
    learner = learnt(adapted(new=new))
    wanted = {name: weights.clone() for name, weights in trained(learner.bare).items()}
    save_adapter(learner.bare, tmp_path, ModelConfig())
    learner.optimise(((0, 1),))
    assert not all(torch.equal(w, wanted[name]) for name, w in trained(learner.bare).items())
    load_adapter(learner.bare, tmp_path)
    assert all(torch.equal(w, wanted[name]) for name, w in trained(learner.bare).items())
    with pytest.raises(ModelError, match="belongs to other layers"):
        load_adapter(adapted(lora=replace(LORA, rank=2)).model, tmp_path)


def test_the_local_folder_of_a_base_stays_out_of_the_adapter(tmp_path: Path) -> None:
    save_adapter(adapted().model, tmp_path, ModelConfig("parrot"))
    settings = json.loads((tmp_path / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] is None


# -- new tokens, the head, the optimiser ------------------------------------------------------


@pytest.mark.parametrize("kind", MODELS)
def test_the_head_sees_target_positions_alone(kind: str) -> None:
    model = learnt(adapted(MODELS[kind](), new=2)).bare
    labels = torch.full((1, 5), -100)
    labels[0, 3:] = IDS[0, 3:]
    whole = logits(model)[target_mask(labels)]
    with head_on_targets(model.get_output_embeddings(), labels):
        narrow = logits(model)[0]
    assert narrow.shape == (2, VOCABULARY)
    torch.testing.assert_close(narrow, whole, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(
    ("kind", "targets", "new"),
    [*((kind, (), 2) for kind in MODELS), ("untied", ("lm_head",), 0)],
)
def test_the_loss_in_training_is_that_of_the_whole_model(
    kind: str, targets: tuple[str, ...], new: int
) -> None:
    """Whatever stands at the head: whoever reads its weight alone would leave its adapter out."""
    learner = learnt(adapted(MODELS[kind](), replace(LORA, targets=targets), new=new))
    summed = count = 0.0
    for row in ROWS:
        said = logits(learner.bare, torch.tensor([row.ids]))[0, :-1]
        wanted = torch.tensor(row.labels[1:])
        summed += float(F.cross_entropy(said, wanted, ignore_index=-100, reduction="sum"))
        count += int((wanted != -100).sum())
    found = learner.mean_loss(ROWS)
    assert found is not None
    assert found[0] == pytest.approx(summed / count, rel=1e-5)
    moved = [w for n, w in trained(learner.bare).items() if "lora_B" in n or "trainable" in n]
    assert moved
    assert all(weights.abs().sum() > 0 for weights in moved)


def test_rows_of_new_tokens_do_not_decay() -> None:
    model = adapted(untied(), new=2).model
    decayed, kept = (group["params"] for group in groups(model, 0.1))
    assert {id(weights) for weights in kept} == set(map(id, new_rows(model)))
    assert len(kept) == 2
    assert len(decayed) == 2 * 2 * 7


def test_a_head_with_a_bias_takes_no_new_tokens() -> None:
    shape = PhiConfig(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2, bos_token_id=0, eos_token_id=0, pad_token_id=0,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(shape)
    with pytest.raises(ConfigError, match=r"head has a bias.*missing_tokens to text"):
        adapted(model, new=1)
    assert adapted(model).trainable > 0


def test_a_head_takes_an_adapter_or_new_rows() -> None:
    with pytest.raises(ConfigError, match=r"head can take no adapter.*lora\.targets"):
        adapted(untied(), replace(LORA, targets=("lm_head", "q_proj")), new=1)


def test_tokens_that_a_template_adds_learn_in_a_real_model() -> None:
    opened = open_model(SMALL, preset("chatml"), seed=1)
    assert opened.added == ("<|im_start|>", "<|im_end|>")
    done = attach(opened, LORA, seed=1)
    (rows,) = new_rows(done.model)
    assert rows.shape == (2, SMALL.width)
    assert done.parameters == opened.parameters
    assert done.trainable == trainable_count(SMALL, LORA, added=2)
    assert done.trainable == sum(weights.numel() for weights in trained(done.model).values())


# -- precision, memory, randomness ------------------------------------------------------------


def test_half_precision_and_checkpointing_train_the_same_adapters() -> None:
    plain = learnt(adapted(new=2))
    saving = learnt(adapted(new=2), gradient_checkpointing=True)
    half = learnt(adapted(new=2), precision="bf16")
    for name, weights in trained(plain.bare).items():
        torch.testing.assert_close(trained(saving.bare)[name], weights, atol=1e-4, rtol=0)
        assert trained(half.bare)[name].dtype == torch.float32
    one, other = plain.mean_loss(ROWS), half.mean_loss(ROWS)
    assert one is not None
    assert other is not None
    assert other[0] == pytest.approx(one[0], rel=0.05)


def test_dropout_falls_on_adapters_in_training_alone() -> None:
    model = learnt(adapted(lora=replace(LORA, dropout=0.5))).bare
    assert torch.equal(logits(model), logits(model))
    model.train()
    assert not torch.equal(logits(model), logits(model))


def test_the_seed_alone_decides_the_adapters() -> None:
    model = tiny_model()
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    first = trained(adapted(model).model)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.rand(3)
    second, other = trained(adapted().model), trained(adapted(seed=8).model)
    assert all(torch.equal(weights, second[name]) for name, weights in first.items())
    drawn = [name for name in first if "lora_A" in name]
    assert drawn
    assert not any(torch.equal(first[name], other[name]) for name in drawn)


def test_what_is_added_is_alpha_by_rank_times_b_a() -> None:
    model = learnt(adapted(lora=LoraConfig(rank=4, alpha=12.0))).bare
    name = "model.layers.0.self_attn.q_proj"
    layer = model.get_submodule(name)
    product = layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    before = tiny_model().state_dict()[f"{name}.weight"]
    torch.testing.assert_close(merged(model)[f"{name}.weight"] - before, 3 * product)


# -- targets ----------------------------------------------------------------------------------


def targeted(opened: Opened) -> set[str]:
    return {name.partition(".lora_")[0] for name in trained(opened.model) if ".lora_" in name}


def test_every_linear_layer_but_the_head_or_those_that_are_named() -> None:
    assert len(targeted(adapted(untied()))) == 2 * 7
    named = adapted(lora=replace(LORA, targets=("q_proj", "layers.1.mlp.up_proj")))
    assert targeted(named) == {
        "model.layers.0.self_attn.q_proj",
        "model.layers.1.self_attn.q_proj",
        "model.layers.1.mlp.up_proj",
    }
    head = adapted(untied(), replace(LORA, targets=("lm_head",)))
    assert targeted(head) == {"lm_head"}
    assert len(targeted(adapted(gpt2()))) == 2 * 4


@pytest.mark.parametrize(
    ("lora", "sentence"),
    [
        (replace(LORA, targets=("c_attn",)), r"'c_attn'.*Choose among q_proj, k_proj, v_proj"),
        (replace(LORA, targets=("q_proj", "proj")), r"'proj', which is no linear layer"),
        (replace(LORA, targets=("embed_tokens",)), r"'embed_tokens', which is no linear layer"),
        (replace(LORA, targets=("mlp",)), r"'mlp', which is no linear layer"),
        (replace(LORA, targets=("lm_head",)), r"lm_head: this model's head is its embeddings"),
        (replace(LORA, rank=33), r"rank is 33, but no matrix .* above 32"),
    ],
)
def test_settings_that_fit_no_layer_are_one_sentence(lora: LoraConfig, sentence: str) -> None:
    model = tiny_model()
    with pytest.raises(ConfigError, match=sentence):
        adapted(model, lora)
    # What was refused has changed nothing.
    assert all(weights.requires_grad for weights in model.parameters())


def test_the_count_needs_no_weights() -> None:
    for lora in (LORA, replace(LORA, rank=2, targets=("q_proj", "down_proj"))):
        opened = attach(open_model(SMALL, None, seed=0), lora, 0)
        assert trainable_count(SMALL, lora) == opened.trainable
    with pytest.raises(ConfigError, match="no linear layer"):
        trainable_count(SMALL, replace(LORA, targets=("c_fc",)))


def test_open_folder_opens_a_merged_model(tmp_path: Path) -> None:
    learner = learnt(attach(open_model(SMALL, preset(), seed=0), LORA, 0))
    tokenizer = load_tokenizer("bytes")
    save(learner.bare, tokenizer, preset(), tmp_path, (258,), state=merged(learner.bare))
    save_adapter(learner.bare, tmp_path / "adapter", SMALL)
    opened = open_folder(tmp_path)
    assert opened.trainable == opened.parameters
    torch.testing.assert_close(logits(opened.model), logits(learner.bare), atol=1e-5, rtol=1e-5)
