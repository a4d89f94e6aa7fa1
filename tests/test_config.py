"""A configuration is checked where it is made, and comes back from JSON as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sft_core.config import (
    PARROT_RUN,
    GenerateConfig,
    LabConfig,
    MaskPolicy,
    MissingTokens,
    ModelConfig,
    TrainConfig,
    TrainOn,
)
from sft_core.types import ConfigError


def test_json_gives_back_the_same_value() -> None:
    config = LabConfig(
        policy=MaskPolicy(TrainOn.LAST_ASSISTANT, end_of_turn=False),
        model=ModelConfig(missing_tokens=MissingTokens.TEXT),
        train=TrainConfig(sample_prompts=("Wer bist du?", "名前は"), max_steps=7),
    )
    assert LabConfig.from_json(config.to_json()) == config


@given(
    st.builds(
        TrainConfig,
        epochs=st.floats(0.1, 100),
        batch_size=st.integers(1, 64),
        learning_rate=st.floats(1e-6, 1),
        sample_prompts=st.lists(st.text(), max_size=3).map(tuple),
    )
)
def test_any_training_configuration_survives_json(train: TrainConfig) -> None:
    assert LabConfig.from_json(LabConfig(train=train).to_json()).train == train


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"train": {"epochs": 0}}, "epochs must be more than 0"),
        ({"train": {"learning_rat": 1}}, "Did you mean"),
        ({"trian": {}}, "Did you mean 'train'"),
        ({"train": {"epochs": "many"}}, "train.epochs"),
        ({"train": {"schedule": "square"}}, "train.schedule"),
        ({"policy": {"train_on": "nobody"}}, "policy.train_on"),
        ({"model": {"width": 100, "heads": 3}}, "multiple of heads"),
        ({"generate": {"top_p": 0}}, "top_p"),
        ({"version": 99}, "version 99"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        LabConfig.from_dict(values)


def test_the_default_is_the_parrots_run() -> None:
    config = LabConfig()
    assert (config.data.source, config.model.name, config.template.name) == (
        "parrot",
        "parrot",
        "chatml",
    )
    assert config.train == PARROT_RUN


def test_the_default_is_the_run_that_is_written_down() -> None:
    written = Path(__file__).resolve().parents[1] / "examples" / "parrot" / "run.json"
    assert LabConfig.from_json(written.read_text(encoding="utf-8")) == LabConfig()


@pytest.mark.parametrize("text", ["", "[1]", "{", "null"])
def test_text_that_is_no_configuration_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        LabConfig.from_json(text)


def test_settings_take_dotted_and_bare_names() -> None:
    config = LabConfig().with_settings(
        ["train.epochs=2", "max_steps=5", "train_on=all", "template.name=chatml", "rows=null"]
    )
    assert (config.train.epochs, config.train.max_steps) == (2.0, 5)
    assert config.policy.train_on is TrainOn.ALL
    assert config.template.name == "chatml"


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("seed=1", "ambiguous"),
        ("epoch=1", "Did you mean 'epochs'"),
        ("train.epoch=1", "Did you mean 'train.epochs'"),
        ("epochs", "key=value"),
    ],
)
def test_settings_that_fit_nowhere_are_refused(setting: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        LabConfig().with_settings([setting])


@pytest.mark.parametrize("bad", [{"temperature": -1}, {"top_k": -1}, {"max_new_tokens": 0}])
def test_generation_settings_are_checked(bad: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        GenerateConfig(**bad)
