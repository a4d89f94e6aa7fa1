"""What the page opens on, and what follows a visitor who chooses another model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from sft_core import catalogue, data, embedded
from sft_core.config import GenerateConfig, LabConfig
from sft_core.lessons import FROM_SCRATCH
from sft_core.types import Example, Message
from sft_core.ui import (
    adopt,
    answers,
    data_panel,
    data_view,
    opening,
    run_handlers,
    session,
    settings_form,
    template_panel,
)
from sft_core.ui.data_panel import Source
from sft_core.ui.header import chips_value
from sft_core.ui.look import limit, look
from sft_core.ui.session import OWN, Choices
from sft_core.ui.settings_form import PRESETS, Settings
from sft_core.ui.sources import Pick, check_model, pack, rows_of, unpack
from tests.ui.controls import from_scratch, on_arrival

SKIP = gr.skip()
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy of the lab that lacks the parrot, and has not read its rows yet."""
    from sft_core.ui import sources

    monkeypatch.setattr(embedded, "FOLDER", tmp_path)
    monkeypatch.setattr(sources, "_sets", type(sources._sets)())


# -- opening ---------------------------------------------------------------------------------


def test_the_page_opens_on_the_parrot_with_nothing_wrong() -> None:
    config, said = opening()
    assert (config, said) == (LabConfig(), "")
    rows = rows_of(config.data)
    first = rows.at(Pick())
    assert first is not None
    seen = look(config, first)
    assert seen.error is None
    assert not seen.missing
    assert [finding for finding in seen.findings if finding.severity != "info"] == []
    chips = {chip["key"]: chip["text"] for chip in chips_value(seen, rows)["chips"]}
    assert chips["model"].startswith("parrot")
    assert chips["data"].startswith("parrot 160/16/")
    assert (chips["template"], chips["mask"]) == ("ChatML", "answers, with end of turn")


def test_a_copy_without_the_parrot_opens_on_the_lesson_and_says_why(without: None) -> None:
    config, said = opening()
    assert config == FROM_SCRATCH
    assert "lacks examples/parrot" in said
    asked = data_panel.load(Source(built_in="parrot"), pack(config.data))
    told = json.loads(asked[2])["error"]
    assert "lacks examples/parrot/train.jsonl" in told
    assert "Until then the rows of six-tasks are used" in told
    line = json.loads(template_panel.choose_model(from_scratch(model=catalogue.PARROT))[2])
    assert (line["level"], "lacks examples/parrot" in line["text"]) == ("error", True)
    follow = data_panel.follow_model(
        Source(built_in="six-tasks"), from_scratch(model=catalogue.PARROT)
    )
    assert follow == (SKIP,) * 6


BUILT = """
import json, sys
from pathlib import Path
from sft_core import embedded
embedded.FOLDER = Path(sys.argv[1])
from sft_core.ui import build_app
blocks, _ = build_app()
told = [it.value for it in blocks.blocks.values() if it.elem_id == "missing-default"]
model = [it.value for it in blocks.blocks.values() if it.elem_id == "model"]
print(json.dumps([told, model]))
"""


def test_the_page_is_built_without_the_parrot(tmp_path: Path) -> None:
    built = subprocess.run(
        [sys.executable, "-c", BUILT, str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "SFT_RUNS_DIR": str(tmp_path / "runs")},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    [told], model = json.loads(built.stdout.splitlines()[-1])
    assert "lacks examples/parrot" in str(told)
    assert model == ["bytes-gpt"]


# -- another model ---------------------------------------------------------------------------


def follow(choices: Choices, kind: str = data_panel.BUILT_IN) -> tuple[Any, ...]:
    source = Source(kind=kind, built_in=choices.data.source)
    return data_panel.follow_model(source, choices)


@pytest.mark.parametrize(
    ("choices", "rows"),
    [
        (on_arrival(model=catalogue.BYTES_GPT), "six-tasks"),
        (from_scratch(model=catalogue.PARROT), "parrot"),
    ],
)
def test_rows_made_for_a_model_follow_it(choices: Choices, rows: str) -> None:
    built_in, held, pick, reading, shown, builder = follow(choices)
    assert built_in == unpack(held).source == rows
    assert pick == Pick()
    assert json.loads(reading)["sentence"] == data.BUILT_IN[rows]
    first = rows_of(unpack(held)).part("train")[0]
    assert json.loads(builder)["turns"][0]["content"] == first.messages[0].text
    assert json.loads(shown)["rows"]


def test_split_sizes_stay_when_the_rows_follow() -> None:
    held = data_panel.DataConfig("parrot", rows=50, eval_rows=4)
    choices = on_arrival(model=catalogue.BYTES_GPT, held=pack(held))
    followed = unpack(follow(choices)[1])
    assert (followed.source, followed.rows, followed.eval_rows) == ("six-tasks", 50, 4)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ({"model": catalogue.PARROT}, data_panel.BUILT_IN),
        ({"model": catalogue.SMOLLM2}, data_panel.BUILT_IN),
        ({"model": catalogue.BYTES_GPT}, data_panel.HUB),
        ({"model": OWN, "own_model": ""}, data_panel.BUILT_IN),
        ({"model": catalogue.BYTES_GPT, "held": pack(LabConfig().data)}, data_panel.UPLOAD),
    ],
)
def test_rows_stay_where_no_others_were_made_or_somebody_brought_them(
    values: dict[str, Any], kind: str
) -> None:
    assert follow(on_arrival(**values), kind) == (SKIP,) * 6


def test_rows_chosen_for_another_purpose_stay() -> None:
    held = pack(data_panel.DataConfig("parrot-style"))
    assert follow(on_arrival(model=catalogue.BYTES_GPT, held=held)) == (SKIP,) * 6


def test_a_conversation_of_ones_own_stays_when_the_rows_follow() -> None:
    own = json.dumps({"own": True, "turns": [{"role": "user", "content": "Hi"}]})
    followed = follow(on_arrival(model=catalogue.BYTES_GPT, conversation=own))
    assert followed[0] == "six-tasks"
    assert followed[-1] == SKIP


def test_template_and_settings_follow_the_model_both_ways() -> None:
    arrival: Any = Settings(*adopt.settings(LabConfig().train))
    _, shape, line, preset, source, _ = template_panel.choose_model(
        on_arrival(model=catalogue.BYTES_GPT)
    )
    assert (shape["visible"], preset["value"]) == (True, "inst-resp")
    assert "<INST>" in source
    assert json.loads(line)["text"] == catalogue.find(catalogue.BYTES_GPT).sentence
    name, *values = run_handlers.follow_model(arrival, on_arrival(model=catalogue.BYTES_GPT))
    assert name == settings_form.SCRATCH
    scratch: Any = Settings(*values)
    assert scratch.config() == FROM_SCRATCH.train
    back = from_scratch(model=catalogue.PARROT)
    _, shape, _, preset, source, _ = template_panel.choose_model(back)
    assert (shape["visible"], preset["value"]) == (False, "chatml")
    name, *values = run_handlers.follow_model(scratch, back)
    assert name == settings_form.PARROT
    again: Any = Settings(*values)
    assert again.config() == LabConfig().train


def test_every_kind_of_model_has_settings_to_begin_with() -> None:
    wanted = {
        catalogue.PARROT: settings_form.PARROT,
        catalogue.BYTES_GPT: settings_form.SCRATCH,
        catalogue.SMOLLM2: settings_form.TALKING,
        "owner/name": settings_form.TALKING,
    }
    assert {name: settings_form.suitable(name) for name in wanted} == wanted
    assert len({train for _, train in PRESETS.values()}) == len(PRESETS)


def test_answers_are_as_long_as_the_model_may_need() -> None:
    assert session.contract(on_arrival()).generate == LabConfig().generate
    for choices in (from_scratch(), on_arrival(model=catalogue.SMOLLM2)):
        assert session.contract(choices).generate == GenerateConfig()


def test_a_shared_host_opens_the_embedded_model_whatever_stands_in_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sft_core.settings import Host

    (tmp_path / catalogue.PARROT).mkdir()
    monkeypatch.chdir(tmp_path)
    check_model(catalogue.PARROT, Host.from_environment({"SPACE_ID": "somebody/lab"}))


# -- words -----------------------------------------------------------------------------------


def test_facts_that_only_pre_training_told_are_not_called_unknown() -> None:
    rows = rows_of(LabConfig().data)
    note = data_view.reading_value(LabConfig().data, rows)["note"]
    assert note.startswith("None of their facts stands in a training row")
    assert "the model met before" in note
    chips = answers.prompts_value(rows)["examples"]
    assert {chip["note"] for chip in chips} == {""}, "what holds for all is said once"
    mixed = answers.prompts_value(rows_of(FROM_SCRATCH.data))["examples"]
    assert {chip["note"] for chip in mixed} == {"fact in training", "fact not in training"}


def test_an_embedded_model_s_column_is_not_called_random() -> None:
    parrot = answers.Board(["p"], [""], LabConfig(), None)
    assert parrot.titles["base"] == "Base: parrot"
    scratch = answers.Board(["p"], [""], FROM_SCRATCH, None)
    assert scratch.titles["base"] == "Base: bytes-gpt, random weights"


def test_rows_are_shown_cut_where_the_model_can_read_no_further() -> None:
    config = LabConfig().with_settings(["max_length=4000"])
    long = Example("x", (Message("user", "why " * 1500), Message("assistant", "So.")))
    seen = look(config, long)
    assert seen.encoded is not None
    assert len(seen.encoded.ids) == embedded.context() == limit(config)
    assert seen.encoded.dropped
    assert limit(LabConfig()) == LabConfig().train.max_length
