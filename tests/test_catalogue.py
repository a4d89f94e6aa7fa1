"""Names of models lead to cards."""

from __future__ import annotations

from pathlib import Path

import pytest

from sft_core.catalogue import CATALOGUE, Origin, find, installed


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
    assert installed(CATALOGUE[0])
    assert CATALOGUE[0].origin is Origin.RANDOM
