"""Following a run from a page: cheap while nothing happens, right when something does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import gradio as gr
import pytest

from sft_core.catalogue import BYTES_GPT
from sft_core.checkpoint import NUMBERS, STATE
from sft_core.config import LabConfig, LoraConfig, ModelConfig, TemplateConfig, TrainConfig
from sft_core.data import write_jsonl
from sft_core.events import (
    ON_REQUEST,
    RunFinished,
    RunQueued,
    RunStopped,
    Score,
    ScoreLogged,
    Tally,
)
from sft_core.lessons import FROM_SCRATCH
from sft_core.rundir import FACTS, TEST_ROWS, RunDirectory
from sft_core.runs import Runs, new_id
from sft_core.settings import HOST
from sft_core.types import RunNotFoundError
from sft_core.ui import adopt, run_handlers
from sft_core.ui.settings_form import Settings
from sft_core.ui.sources import pack, rows_of
from sft_core.worker import ProcessCompute
from tests.test_plots import started, step
from tests.ui.controls import from_scratch

SKIP = gr.skip()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    made = Runs(tmp_path_factory.mktemp("runs"), ProcessCompute(), HOST)
    yield made
    made.close()


def a_run(runs: Runs, config: LabConfig | None = None) -> RunDirectory:
    """A run that this process carries out, by hand."""
    directory = RunDirectory.create(runs.root / new_id(), config or FROM_SCRATCH)
    directory.append(RunQueued(run=directory.id, position=0))
    return directory


def end(directory: RunDirectory) -> None:
    directory.append(RunFinished(step=2, restored_step=2, seconds=3, run_dir=str(directory.path)))
    directory.release()


def test_nothing_is_sent_while_the_log_gains_nothing(runs: Runs) -> None:
    directory = a_run(runs)
    first = run_handlers.follow(runs, directory.id, -1)
    assert first[0] == 1
    assert json.loads(first[2])["state"] == "queued"
    assert len(first) == run_handlers.FOLLOWED
    again = run_handlers.follow(runs, directory.id, first[0])
    assert again == (SKIP,) * run_handlers.FOLLOWED
    directory.append(started(2))
    directory.append(step(1, 2.5))
    grown = run_handlers.follow(runs, directory.id, first[0])
    assert grown[0] == 3
    assert json.loads(grown[3])["figure"]["data"][0]["y"] == [2.5]
    end(directory)


def test_start_and_pause_share_a_place_and_the_timer_ends_with_the_run(runs: Runs) -> None:
    directory = a_run(runs)
    *_, start, stop, resume, timer = run_handlers.follow(runs, directory.id, -1)
    shown = [button["visible"] for button in (start, stop, resume)]
    assert (shown, timer.active) == ([False, True, False], True)
    end(directory)
    *_, start, stop, resume, timer = run_handlers.follow(runs, directory.id, -1)
    shown = [button["visible"] for button in (start, stop, resume)]
    assert (shown, timer.active) == ([True, False, False], False)


def test_pause_answers_at_once_and_every_tab_sees_it(runs: Runs) -> None:
    directory = a_run(runs)
    directory.append(started(2))
    line, status = run_handlers.stop(runs, directory.id)
    assert json.loads(line)["text"] == "", "what is said of the run goes when the run has changed"
    assert json.loads(status)["state"] == "ending"
    assert json.loads(status)["text"] == "Stopping before the first step."
    directory.append(step(1, 2.0))
    told = json.loads(run_handlers.follow(runs, directory.id, -1)[2])
    assert (told["state"], told["text"][:24]) == ("stopping", "Pausing. What was learnt")
    end(directory)


def saved(directory: RunDirectory, step: int, seconds: float = 1.0) -> None:
    """What a page reads of the state that a run can go on from."""
    place = directory.path / STATE / "1"
    place.mkdir(parents=True)
    (place / NUMBERS).write_text(json.dumps({"step": step, "seconds": seconds}))


def test_a_paused_run_offers_to_resume_before_all_else(runs: Runs) -> None:
    directory = a_run(runs)
    directory.append(started(4))
    directory.append(step(1, 2.0))
    saved(directory, 1)
    *_, resume, _ = run_handlers.follow(runs, directory.id, -1)
    assert not resume["visible"], "it is going on"
    directory.append(RunStopped(step=1, reason=ON_REQUEST, run_dir="r"))
    directory.release()
    _, _, status, *_, start, _, resume, _ = run_handlers.follow(runs, directory.id, -1)
    assert json.loads(status)["state"] == "paused"
    told = "Paused after step 1. Resume goes on from there."
    assert json.loads(status)["text"] == told
    assert (start["variant"], resume["visible"]) == ("secondary", True)


def test_an_interrupted_run_offers_to_resume(runs: Runs) -> None:
    directory = a_run(runs)
    directory.append(started(4))
    saved(directory, 1)
    directory.release()
    _, _, status, *_, resume, _ = run_handlers.follow(runs, directory.id, -1)
    assert json.loads(status)["state"] == "interrupted"
    assert json.loads(status)["text"].endswith("Resume goes on after step 1.")
    assert resume["visible"]


def test_what_cannot_be_resumed_says_why(runs: Runs) -> None:
    directory = a_run(runs)
    end(directory)
    line, drawn = run_handlers.resume(runs, directory.id)
    assert "finished, so there is nothing to resume" in json.loads(line)["text"]
    assert drawn == SKIP


def test_a_run_that_is_not_kept_says_so_and_leaves_the_one_on_the_page(runs: Runs) -> None:
    run, line, drawn = run_handlers.opened(runs, "mine", {"id": "../../etc"})
    assert (run, drawn) == ("mine", SKIP)
    assert json.loads(line)["level"] == "error"
    run, line, _, _ = run_handlers.arrived(runs, "222222222222", [])
    assert run is None
    assert "There is no run" in json.loads(line)["text"]
    with pytest.raises(RunNotFoundError):
        run_handlers.adopt_run(runs, None)


def test_a_shared_host_lists_only_the_visitors_own_runs(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, other = a_run(runs), a_run(runs)
    assert {id for id, _ in run_handlers.kept(runs, [])} >= {mine.id, other.id}
    monkeypatch.setattr(run_handlers, "HOST", replace(HOST, on_space=True))
    assert [id for id, _ in run_handlers.kept(runs, [mine.id, "222222222222"])] == [mine.id]
    for directory in (mine, other):
        end(directory)


def test_held_out_rows_are_those_of_the_run(runs: Runs) -> None:
    rows = rows_of(FROM_SCRATCH.data).splits.test[:3]
    directory = a_run(runs)
    write_jsonl(rows, directory.path / TEST_ROWS)
    (directory.path / FACTS).write_text(json.dumps([rows[0].fact]))
    _, listed, pairs, mine = run_handlers.around(runs, directory.id, ["x"], pack(FROM_SCRATCH.data))
    value = json.loads(pairs)["pairs"]
    assert [pair["expected"] for pair in value] == [row.answer for row in rows]
    assert [pair["seen"] for pair in value] == [True, False, False]
    assert mine == [directory.id, "x"]
    assert json.loads(listed)["chosen"] == directory.id
    end(directory)


def test_a_run_cannot_start_from_settings_that_cannot_work(runs: Runs) -> None:
    before = runs.recent()
    shown = dict(
        zip(Settings.__dataclass_fields__, adopt.settings(FROM_SCRATCH.train), strict=True)
    )
    for wrong, told in (
        ({"max_steps": "soon"}, "Steps must be a number"),
        ({"learning_rate": None}, "Learning rate is empty"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"method": "lora", "lora_rank": 0}, "rank must be at least 1"),
    ):
        settings = Settings(**{**shown, **wrong})  # type: ignore[arg-type]
        run, line, _ = run_handlers.start(runs, settings, from_scratch(), "before")
        assert run == "before"
        assert told in json.loads(line)["text"]
    broken = replace(from_scratch(), source="{% for")
    run, line, _ = run_handlers.start(runs, Settings(**shown), broken, None)
    assert run is None
    assert json.loads(line)["level"] == "error"
    assert runs.recent() == before


def test_a_link_puts_the_runs_own_settings_on_the_page(runs: Runs) -> None:
    config = FROM_SCRATCH.but(
        template=TemplateConfig("inst-resp (edited)", "{{ messages }}"),
        model=ModelConfig(BYTES_GPT, width=64, heads=2),
        train=TrainConfig(max_steps=7, sample_prompts=("Hi", "Ho"), method="lora"),
        lora=LoraConfig(rank=2, alpha=3, targets=("q_proj", "o_proj")),
    )
    directory = a_run(runs, config)
    values = run_handlers.adopt_linked(runs, directory.id)
    assert len(values) == adopt.OUTPUTS
    assert values[0] == pack(config.data)
    assert "{{ messages }}" in values
    assert 64 in values
    settings = Settings(*values[-len(Settings.__dataclass_fields__) :])
    assert settings.config() == config.train
    assert settings.lora() == config.lora
    assert run_handlers.adopt_linked(runs, None) == (SKIP,) * adopt.OUTPUTS
    end(directory)


def test_settings_follow_the_model_unless_they_were_changed(runs: Runs) -> None:
    names = Settings.__dataclass_fields__
    untouched: Any = Settings(*adopt.settings(FROM_SCRATCH.train))
    smol = replace(from_scratch(), model="smollm2-135m-instruct")
    preset, *values = run_handlers.follow_model(untouched, smol)
    assert preset == "talking"
    assert len(values) == len(names)
    adapted = replace(untouched, method="lora", lora_rank=4)
    for changed in (replace(untouched, learning_rate=0.5), adapted):
        assert run_handlers.follow_model(changed, smol)[0] == SKIP


def test_exact_match_makes_a_curve_once_it_was_measured_often_enough(runs: Runs) -> None:
    directory = a_run(runs)
    directory.append(started(9))
    for number in (0, 3, 6):
        score = Score(overall=Tally("all", 4, number // 3, 4))
        directory.append(ScoreLogged(step=number, score=score))
        curve = json.loads(run_handlers.follow(runs, directory.id, -1)[4])
        assert (curve["figure"] is None) == (number < 6)
    assert curve["figure"]["data"][0]["y"] == [0, 25, 50]
    end(directory)
