"""How a model is trained, as values that check themselves."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sft_core.config import LabConfig
from sft_core.recipe import LoraConfig, TrainConfig, lora_advice
from sft_core.types import ConfigError


@pytest.mark.parametrize(
    ("setting", "word"),
    [
        ("lora.rank=0", "rank"),
        ("lora.alpha=0", "alpha"),
        ("lora.dropout=1", "dropout"),
        ('lora.targets=["q_proj",""]', "target"),
        ("train.method=qlora", "train.method"),
        ("train.compile=perhaps", "train.compile"),
    ],
)
def test_a_setting_that_cannot_work_is_named(setting: str, word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        LabConfig().with_settings([setting])


def test_adapters_are_chosen_by_dotted_settings() -> None:
    config = LabConfig().with_settings(
        ["method=lora", "lora.rank=4", "alpha=8", 'targets=["q_proj","v_proj"]']
    )
    assert config.train.method == "lora"
    assert config.lora == LoraConfig(rank=4, alpha=8, targets=("q_proj", "v_proj"))
    assert LabConfig.from_json(config.to_json()) == config


def test_adapters_want_a_higher_rate_than_whole_models() -> None:
    low = TrainConfig(method="lora", learning_rate=5e-5)
    assert "5e-05 is low" in lora_advice(low)
    assert lora_advice(replace(low, learning_rate=1e-4)) == ""
    assert lora_advice(replace(low, method="full")) == ""


def test_a_configuration_of_before_trains_all_weights() -> None:
    known = LabConfig().to_dict()
    del known["lora"], known["train"]["method"], known["train"]["packing"]
    config = LabConfig.from_dict(known)
    assert config.lora == LoraConfig()
    assert (config.train.method, config.train.packing) == (TrainConfig().method, False)
