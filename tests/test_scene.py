"""Which models and templates a job works with, and that models stay open between jobs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sft_core import scene
from sft_core.catalogue import BYTES_GPT
from sft_core.config import GenerateConfig, LabConfig, ModelConfig, TemplateConfig
from sft_core.events import Side
from sft_core.jobs import CompareJob
from sft_core.rundir import RunDirectory
from sft_core.scene import Scene
from sft_core.templates import find_preset
from sft_core.types import Message, TemplateError
from tests.small_jobs import perform, tiny, trained

PROMPTS = ((Message("user", "What is the capital of Peru?"),), (Message("user", "Hi"),))
SHORT = GenerateConfig(max_new_tokens=5)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    return trained(tmp_path_factory.mktemp("runs") / "run", max_steps=1)


def test_prompts_are_written_in_what_training_wrote_them_in(run: RunDirectory) -> None:
    found = Scene.of(run.path, LabConfig(template=TemplateConfig("chatml")))
    assert found.asked == found.template == run.template()


def test_another_template_is_for_prompts_alone(run: RunDirectory) -> None:
    found = Scene.of(run.path, LabConfig(), TemplateConfig("alpaca"))
    assert found.template == run.template()
    assert found.asked.source == find_preset("alpaca").source
    own = Scene.of(run.path, LabConfig(), TemplateConfig("mine", "{{ messages[0].content }}"))
    assert own.asked.source == "{{ messages[0].content }}"


def test_another_template_gives_the_base_model_no_new_tokens(run: RunDirectory) -> None:
    sizes = []
    for template in (None, TemplateConfig("chatml")):
        opening = Scene.of(run.path, LabConfig(), template).voice(Side.BASE)
        try:
            while True:
                next(opening)
        except StopIteration as opened:
            sizes.append(opened.value.tokenizer.vocab_size)
    assert sizes == [260, 260]


def test_a_template_that_there_is_not_is_one_sentence(run: RunDirectory) -> None:
    with pytest.raises(TemplateError, match="chat template"):
        Scene.of(run.path, LabConfig(), TemplateConfig("tokenizer"))


def test_a_second_comparison_finds_the_models_open(run: RunDirectory) -> None:
    scene.clear_shelf()
    perform(CompareJob(run.path, LabConfig(), PROMPTS, SHORT))
    first = [id(voice.model) for voice in scene._SHELF.values()]
    perform(CompareJob(run.path, LabConfig(), PROMPTS, SHORT))
    assert [id(voice.model) for voice in scene._SHELF.values()] == first
    narrow = replace(tiny(), model=ModelConfig(BYTES_GPT, width=8))
    perform(CompareJob(None, narrow, PROMPTS, SHORT))
    assert len(scene._SHELF) == scene.SHELF_SIZE


def test_weights_that_were_replaced_are_opened_again(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", max_steps=1)
    perform(CompareJob(run.path, LabConfig(), PROMPTS, SHORT))
    before = list(scene._SHELF)
    again = run.path / "model" / "model.safetensors"
    again.write_bytes(again.read_bytes())
    perform(CompareJob(run.path, LabConfig(), PROMPTS, SHORT))
    assert list(scene._SHELF) != before
