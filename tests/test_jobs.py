"""The lab's own jobs, done for real on a run of a few steps."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from pathlib import Path

import pytest

from sft_core import jobs
from sft_core.catalogue import BYTES_GPT
from sft_core.config import GenerateConfig, LabConfig, ModelConfig, TemplateConfig, TrainConfig
from sft_core.encode import encode
from sft_core.events import (
    Answered,
    Event,
    Graded,
    ModelMeasured,
    RunFinished,
    Scored,
    ScoreLogged,
    Side,
    TextGenerated,
    TokenLosses,
)
from sft_core.jobs import CompareJob, EvaluateJob, SizeJob, TokenLossJob, TrainJob
from sft_core.record import RunStatus
from sft_core.rundir import RunDirectory
from sft_core.sandbox import render
from sft_core.settings import Host
from sft_core.tokenizer import load_tokenizer
from sft_core.types import (
    DataError,
    Example,
    LimitError,
    Message,
    ModelError,
    RunNotFoundError,
    TemplateError,
)
from tests.small_jobs import tiny, trained

PROMPTS = ((Message("user", "What is the capital of Peru?"),), (Message("user", "Hi"),))
SHORT = GenerateConfig(max_new_tokens=5)
EXAMPLE = Example("e", (Message("user", "Hi"), Message("assistant", "Hello.")))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    return trained(tmp_path_factory.mktemp("runs") / "run")


def perform(job: jobs.Job) -> list[Event]:
    return list(job.perform(lambda: False))


# -- compare ----------------------------------------------------------------------------------


def test_both_answer_every_prompt_together(run: RunDirectory) -> None:
    events = perform(CompareJob(run.path, LabConfig(), PROMPTS, SHORT))
    answered = {(event.prompt, event.side) for event in events if isinstance(event, Answered)}
    assert answered == {(prompt, side) for prompt in (0, 1) for side in Side}
    sides = [
        event.side for event in events if isinstance(event, TextGenerated) and not event.prompt
    ]
    assert sides[:4] == [Side.BASE, Side.TUNED] * 2


def test_the_run_s_own_model_and_template_count(run: RunDirectory) -> None:
    other = LabConfig(template=TemplateConfig("chatml"), model=ModelConfig("no/such-model"))
    (prompt, *_) = [
        event.prompt_ids
        for event in perform(CompareJob(run.path, other, PROMPTS, SHORT))
        if isinstance(event, Answered)
    ]
    assert bytes(id for id in prompt if id < 256) == PROMPTS[0][0].text.encode()
    assert (prompt[0], prompt[-1]) == (256, 257)


def test_without_a_run_the_base_model_answers_alone() -> None:
    events = perform(CompareJob(None, tiny(), PROMPTS, SHORT))
    assert {event.side for event in events if isinstance(event, Answered)} == {Side.BASE}


def test_the_base_answers_what_it_would_have_before_training(run: RunDirectory) -> None:
    alone = perform(CompareJob(None, tiny(), PROMPTS, SHORT))
    beside = perform(CompareJob(run.path, LabConfig(), PROMPTS, SHORT))
    ids = [
        [event.ids for event in events if isinstance(event, Answered) and event.side is Side.BASE]
        for events in (alone, beside)
    ]
    assert ids[0] == ids[1]


def test_a_second_comparison_finds_the_models_open(run: RunDirectory) -> None:
    jobs._SHELF.clear()
    perform(CompareJob(run.path, LabConfig(), PROMPTS, SHORT))
    first = [id(voice.model) for voice in jobs._SHELF.values()]
    perform(CompareJob(run.path, LabConfig(), PROMPTS, SHORT))
    assert [id(voice.model) for voice in jobs._SHELF.values()] == first
    perform(
        CompareJob(None, replace(tiny(), model=ModelConfig(BYTES_GPT, width=8)), PROMPTS, SHORT)
    )
    assert len(jobs._SHELF) == jobs.SHELF_SIZE


def test_weights_that_were_replaced_are_opened_again(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", max_steps=1)
    perform(CompareJob(run.path, LabConfig(), PROMPTS, SHORT))
    before = list(jobs._SHELF)
    again = run.path / "model" / "model.safetensors"
    again.write_bytes(again.read_bytes())
    perform(CompareJob(run.path, LabConfig(), PROMPTS, SHORT))
    assert list(jobs._SHELF) != before


def test_a_run_without_weights_says_what_to_do(tmp_path: Path) -> None:
    directory = RunDirectory.create(tmp_path / "run", tiny())
    with pytest.raises(ModelError, match="before its first checkpoint"):
        perform(CompareJob(directory.path, LabConfig(), PROMPTS, SHORT))
    with pytest.raises(RunNotFoundError):
        perform(CompareJob(tmp_path / "gone", LabConfig(), PROMPTS, SHORT))


def test_a_template_that_the_tokenizer_lacks_is_one_sentence() -> None:
    config = replace(tiny(), template=TemplateConfig("tokenizer"))
    with pytest.raises(TemplateError, match="chat template"):
        perform(CompareJob(None, config, PROMPTS, SHORT))


# -- evaluate ---------------------------------------------------------------------------------


def test_both_are_graded_on_the_rows_that_the_run_kept(run: RunDirectory) -> None:
    events = perform(EvaluateJob(run.path, run.config()))
    scored = {event.side: event.score for event in events if isinstance(event, Scored)}
    assert set(scored) == set(Side)
    score = scored[Side.TUNED]
    assert score.overall.count == 40
    assert score.seen
    assert score.unseen
    assert score.seen.count + score.unseen.count == 40
    assert len(score.by_category) == 6


def test_the_grade_is_the_one_that_training_logged(run: RunDirectory) -> None:
    logged = run.read().last(ScoreLogged)
    assert logged
    (scored,) = [
        event
        for event in perform(EvaluateJob(run.path, run.config(), None, (Side.TUNED,)))
        if isinstance(event, Scored)
    ]
    assert scored.score == logged.score


def test_other_rows_are_graded_as_they_are(run: RunDirectory) -> None:
    rows = (EXAMPLE, replace(EXAMPLE, id="f", fact="unheard of"))
    graded = [
        event
        for event in perform(EvaluateJob(run.path, run.config(), rows))
        if isinstance(event, Graded)
    ]
    assert [(event.side, event.row, event.seen) for event in graded] == [
        (side, row, seen) for side in Side for row, seen in (("e", None), ("f", False))
    ]


def test_a_run_that_never_read_its_rows_says_so(tmp_path: Path) -> None:
    directory = RunDirectory.create(tmp_path / "run", tiny())
    with pytest.raises(DataError, match="has not read its rows"):
        perform(EvaluateJob(directory.path, tiny()))


@pytest.mark.parametrize("make", [CompareJob, EvaluateJob])
def test_a_stop_ends_it(run: RunDirectory, make: type[jobs.Job]) -> None:
    long = replace(run.config(), generate=GenerateConfig(max_new_tokens=200))
    job = (
        CompareJob(run.path, long, PROMPTS * 20, long.generate)
        if make is CompareJob
        else EvaluateJob(run.path, long)
    )
    begun = time.monotonic()
    list(job.perform(lambda: time.monotonic() - begun > 0.5))
    assert time.monotonic() - begun < 2.0


# -- losses, sizes ----------------------------------------------------------------------------


def test_every_token_but_the_first_has_a_loss(run: RunDirectory) -> None:
    events = perform(TokenLossJob(run.path, LabConfig(), EXAMPLE))
    losses = {event.side: event.losses for event in events if isinstance(event, TokenLosses)}
    template = run.template()
    assert template
    tokenizer = load_tokenizer("bytes")
    rendered = render(template, EXAMPLE, tokenizer.special_tokens)
    ids = encode(rendered, tokenizer, run.config().policy).ids
    assert len(losses[Side.BASE]) == len(losses[Side.TUNED]) == len(ids)
    for found in losses.values():
        assert found[0] is None
        assert all(loss is not None and loss > 0 for loss in found[1:])
    uniform = math.log(tokenizer.vocab_size)
    untrained = [loss for loss in losses[Side.BASE] if loss is not None]
    assert sum(untrained) / len(untrained) == pytest.approx(uniform, abs=0.5)
    assert losses[Side.BASE] != losses[Side.TUNED]


def test_a_size_is_known_before_the_weights() -> None:
    (size,) = perform(SizeJob(tiny().model))
    assert isinstance(size, ModelMeasured)
    assert size.parameters > 260 * 16


# -- train ------------------------------------------------------------------------------------


def test_training_as_a_job_writes_the_run(tmp_path: Path) -> None:
    directory = RunDirectory.create(tmp_path / "run", tiny(max_steps=2))
    job = TrainJob(directory.path, tiny(max_steps=2))
    assert job.nothing_to_lose()
    events = perform(job)
    assert isinstance(events[-1], RunFinished)
    assert directory.read().events == tuple(events)
    assert not job.nothing_to_lose()
    assert not directory.alive(), "nobody owns a run that is over"


def test_a_run_that_was_stopped_before_it_began_says_so(tmp_path: Path) -> None:
    directory = RunDirectory.create(tmp_path / "run", tiny())
    job = TrainJob(directory.path, tiny())
    job.stopped_early()
    job.stopped_early()
    job.died("too late to matter")
    assert len(directory.read()) == 1
    assert directory.read().status is RunStatus.STOPPED


def test_jobs_keep_within_what_the_host_allows(run: RunDirectory) -> None:
    space = Host.from_environment({"SPACE_ID": "a/b"})
    many = PROMPTS * space.max_prompts
    for job in (
        CompareJob(None, tiny(), many, SHORT),
        CompareJob(None, tiny(), PROMPTS, GenerateConfig(max_new_tokens=space.max_new_tokens + 1)),
        EvaluateJob(run.path, tiny(), (EXAMPLE,) * (space.max_rows + 1)),
        EvaluateJob(None, replace(tiny(), train=TrainConfig(max_length=10**6)), ()),
        TokenLossJob(None, replace(tiny(), train=TrainConfig(max_length=10**6)), EXAMPLE),
    ):
        with pytest.raises(LimitError, match="this host allows"):
            job.check(space)
    CompareJob(None, tiny(), PROMPTS, SHORT).check(space)


def test_jobs_know_whose_run_they_read(run: RunDirectory, tmp_path: Path) -> None:
    for job in (
        TrainJob(run.path, tiny()),
        CompareJob(run.path, tiny(), PROMPTS, SHORT),
        EvaluateJob(run.path, tiny()),
        TokenLossJob(run.path, tiny(), EXAMPLE),
    ):
        assert job.uses(run.path)
        assert not job.uses(tmp_path)
        assert job.gpu_seconds() > 0
