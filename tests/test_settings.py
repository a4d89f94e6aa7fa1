"""A host's bounds come from the environment and are held against a configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from sft_core.config import DataConfig, LabConfig, TrainConfig
from sft_core.settings import TABLE, Host
from sft_core.types import ConfigError, LimitError

README = Path(__file__).resolve().parents[1] / "README.md"


def test_a_space_is_bounded_more_tightly_than_home() -> None:
    home, space = Host.from_environment({}), Host.from_environment({"SPACE_ID": "a/b"})
    assert space.on_space
    assert not home.on_space
    assert space.max_steps < home.max_steps
    assert home.local_paths
    assert not space.local_paths


def test_every_bound_can_be_set_from_the_environment() -> None:
    values = {setting.variable: "3" for setting in TABLE.values()}
    host = Host.from_environment(values)
    assert (host.max_rows, host.max_minutes, host.keep_runs) == (3, 3.0, 3)
    assert host.runs_dir == Path("3")


def test_a_bound_that_is_no_number_is_refused() -> None:
    with pytest.raises(ConfigError, match="SFT_MAX_ROWS"):
        Host.from_environment({"SFT_MAX_ROWS": "many"})


@pytest.mark.parametrize(
    ("config", "variable"),
    [
        (LabConfig(train=TrainConfig(max_steps=10**9)), "SFT_MAX_STEPS"),
        (LabConfig(train=TrainConfig(max_length=10**6)), "SFT_MAX_LENGTH"),
        (LabConfig(data=DataConfig(rows=10**9)), "SFT_MAX_ROWS"),
        (LabConfig(train=TrainConfig(sample_prompts=("?",) * 99)), "SFT_MAX_PROMPTS"),
    ],
)
def test_a_configuration_beyond_the_bounds_is_refused(config: LabConfig, variable: str) -> None:
    with pytest.raises(LimitError, match=variable):
        Host.from_environment({}).check(config)


def test_the_default_is_allowed_everywhere() -> None:
    for environment in ({}, {"SPACE_ID": "a/b"}):
        Host.from_environment(environment).check(LabConfig())


def test_the_readme_lists_every_bound_with_its_defaults() -> None:
    text = README.read_text(encoding="utf-8")
    for setting in TABLE.values():
        row = f"| `{setting.variable}` | {setting.home} | {setting.space} | {setting.meaning} |"
        assert row in text
