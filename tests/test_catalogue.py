"""Names of models lead to cards."""

from __future__ import annotations

from pathlib import Path

import pytest

from sft_core.catalogue import BYTES_GPT, CATALOGUE, PARROT, Origin, find, installed
from sft_core.config import LabConfig
from sft_core.data import BUILT_IN


def test_names_are_unique_and_found() -> None:
    assert len({card.name for card in CATALOGUE}) == len(CATALOGUE)
    assert all(find(card.name) is card for card in CATALOGUE)


def test_a_folder_is_told_from_a_hub_id(tmp_path: Path) -> None:
    assert find(str(tmp_path)).origin is Origin.FOLDER
    assert find("owner/name").origin is Origin.HUB
    assert installed(find(str(tmp_path)))
    assert not installed(find("owner/name"))


@pytest.mark.parametrize("name", ["x" * 5000, "~nobody-of-this-name/model", "a\0b"])
def test_a_name_that_can_be_no_folder_is_none(name: str) -> None:
    assert find(name).origin is Origin.HUB


def test_the_default_model_needs_nothing() -> None:
    assert CATALOGUE[0].name == PARROT == LabConfig().model.name
    assert installed(CATALOGUE[0])
    assert CATALOGUE[0].origin is Origin.EMBEDDED


def test_the_model_from_scratch_needs_nothing_either() -> None:
    assert installed(find(BYTES_GPT))
    assert find(BYTES_GPT).origin is Origin.RANDOM


def test_a_model_s_own_rows_are_a_built_in_set() -> None:
    assert {card.data for card in CATALOGUE if card.data} <= set(BUILT_IN)
    assert find(PARROT).data == LabConfig().data.source


def test_a_folder_of_a_catalogue_name_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / PARROT).mkdir()
    monkeypatch.chdir(tmp_path)
    assert find(PARROT).origin is Origin.EMBEDDED
