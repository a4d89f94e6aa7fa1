"""Whole runs on small models: what is told, what is kept, and what may interrupt them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from sft_core import keeping, shapes
from sft_core import train as train_module
from sft_core.adapters import load_adapter
from sft_core.checkpoint import ADAPTER, BEST, LAST, MODEL
from sft_core.config import LabConfig
from sft_core.data import write_jsonl
from sft_core.events import (
    CheckpointSaved,
    EvalLogged,
    MemoryEstimated,
    PhaseEntered,
    RunEvent,
    RunFinished,
    RunStarted,
    RunStopped,
    SampleGenerated,
    ScoreLogged,
    StepLogged,
    Warned,
    from_json,
    is_end,
    to_json,
)
from sft_core.learner import Learner
from sft_core.lessons import FROM_SCRATCH
from sft_core.machine import Machine
from sft_core.models import open_folder, save
from sft_core.pace import never
from sft_core.prepare import Row
from sft_core.record import RunRecord, RunStatus
from sft_core.rundir import is_model
from sft_core.settings import Host
from sft_core.smoothing import Smoothed
from sft_core.train import train
from sft_core.types import (
    Example,
    LimitError,
    NonFiniteLossError,
    StorageError,
)
from tests.tensors import pair, preset
from tests.test_checkpoint import files_no_longer_than
from tests.test_prepare import prepared

ROOT = Path(__file__).resolve().parents[1]
COLOURS = "red green blue amber teal plum rust jade gold grey lime pink"
ROWS = tuple(
    pair(f"Colour {number}?", f"{colour}.", f"c{number}", category=colour[0])
    for number, colour in enumerate(COLOURS.split())
)


def configured(tmp_path: Path, *settings: str, rows: tuple[Example, ...] = ROWS) -> LabConfig:
    file = tmp_path / "rows.jsonl"
    write_jsonl(rows, file)
    return FROM_SCRATCH.with_settings(
        [
            f"data.source={file}",
            "eval_rows=2",
            "test_rows=2",
            "width=32",
            "depth=1",
            "heads=2",
            "model.context=64",
            "max_length=64",
            "max_new_tokens=12",
            "max_steps=4",
            "warmup_steps=0",
            "learning_rate=0.003",
            "precision=fp32",
            *settings,
        ]
    )


def run(
    config: LabConfig, folder: Path, should_stop: Callable[[], bool] = never
) -> Iterator[RunEvent]:
    folder.mkdir(exist_ok=True)
    return train(config, folder, run="r", should_stop=should_stop)


def gather(source: Iterator[RunEvent], into: list[RunEvent]) -> None:
    """Collects events as they come, so that those before an error are there too."""
    while (event := next(source, None)) is not None:
        into.append(event)


def finished(config: LabConfig, folder: Path) -> RunRecord:
    return RunRecord(config, run(config, folder))


def losses(record: RunRecord) -> list[float]:
    return [event.loss for event in record.of(StepLogged)]


def eval_loss(folder: Path, config: LabConfig) -> float:
    """The eval loss of saved weights, computed anew."""
    ready = prepared(config)[0]
    assert ready is not None
    result = Learner(open_folder(folder), config.train, ready.train).mean_loss(ready.eval)
    assert result is not None
    return result[0]


# -- memory -----------------------------------------------------------------------------------


def test_a_run_foresees_its_memory_from_its_rows(whole: tuple[LabConfig, Path, RunRecord]) -> None:
    config, folder, record = whole
    told = record.last(MemoryEstimated)
    assert told is not None
    ready = prepared(config)[0]
    assert ready is not None
    lengths = sorted((len(row.ids) for row in ready.train), reverse=True)
    assert (told.rows, told.longest) == (min(8, config.train.batch_size), lengths[0])
    assert told.tokens == sum(lengths[: config.train.batch_size])
    assert told.weights == 4 * open_folder(folder / MODEL).parameters
    assert told.room > told.total
    assert not any(event.code == "memory" for event in record.of(Warned))


def test_a_run_that_may_not_fit_is_warned_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = Machine("cpu", bf16=False, room=10**6)
    monkeypatch.setattr(shapes, "machine", lambda: small)
    record = finished(configured(tmp_path, "max_steps=1"), tmp_path / "run")
    (told,) = (event for event in record.of(Warned) if event.code == "memory")
    assert told.message.startswith("This run needs about ")
    assert told.message.endswith("Choose a smaller model.")
    assert record.status is RunStatus.FINISHED


# -- what is told -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[LabConfig, Path, RunRecord]:
    """One run with everything in it."""
    folder = tmp_path_factory.mktemp("whole")
    config = configured(
        folder, "max_steps=12", "eval_every=5", "sample_every=6", "score_every=8", "epochs=9"
    )
    return config, folder, finished(config, folder)


def test_a_run_tells_its_story_in_order(whole: tuple[LabConfig, Path, RunRecord]) -> None:
    _, folder, record = whole
    kinds = [type(event).__name__ for event in record.events]
    assert kinds[:4] == [*["PhaseEntered"] * 2, "MemoryEstimated", "PhaseEntered"]
    assert kinds.index("RunStarted") == 4
    assert kinds[-1] == "RunFinished"
    assert record.status is RunStatus.FINISHED
    assert sum(map(is_end, record.events)) == 1
    assert [event.phase for event in record.of(PhaseEntered)][2] == "Loading the model"
    started = record.last(RunStarted)
    assert started is not None
    assert (started.train_rows, started.eval_rows, started.test_rows) == (8, 2, 2)
    assert (started.run, started.model, started.total_steps) == ("r", "bytes-gpt", 12)
    assert started.trained_tokens < started.tokens
    end = record.last(RunFinished)
    assert end is not None
    assert (end.step, end.run_dir) == (12, str(folder))


def test_every_step_is_logged_with_its_figures(
    whole: tuple[LabConfig, Path, RunRecord],
) -> None:
    steps = whole[2].of(StepLogged)
    assert [event.step for event in steps] == list(range(1, 13))
    assert steps[-1].loss < steps[0].loss
    assert steps[7].epoch == 8
    for event in steps:
        assert 0 < event.trained_tokens < event.tokens
        assert min(event.tokens_per_second, event.memory_mb, event.grad_norm) > 0
    assert steps[0].learning_rate == 0.003
    assert steps[-1].learning_rate < steps[-2].learning_rate
    assert steps[-1].seconds_left < steps[1].seconds_left + 5


def test_what_is_streamed_fits_together(whole: tuple[LabConfig, Path, RunRecord]) -> None:
    steps = whole[2].of(StepLogged)
    smoothed = Smoothed()
    assert [event.smoothed_loss for event in steps] == [smoothed.add(e.loss) for e in steps]
    for event in steps:
        assert {part.kind for part in event.kinds} == {"answer", "template"}
        assert sum(part.tokens for part in event.kinds) == event.trained_tokens
        total = sum(part.loss * part.tokens for part in event.kinds)
        assert total / event.trained_tokens == pytest.approx(event.loss, rel=1e-5)
        assert event.accuracy is not None
        assert 0 <= event.accuracy * event.trained_tokens <= event.trained_tokens
        ratio = event.trained_tokens_per_second / event.tokens_per_second
        assert ratio == pytest.approx(event.trained_tokens / event.tokens)
        assert event.peak_share is not None
        assert event.peak_share > 0
    assert steps[-1].accuracy > steps[0].accuracy  # type: ignore[operator]


def test_what_is_due_happens_and_all_of_it_before_and_after(
    whole: tuple[LabConfig, Path, RunRecord],
) -> None:
    record = whole[2]
    kept = record.of(RunFinished)[0].restored_step
    assert [event.step for event in record.of(EvalLogged)] == [0, 5, 10, 12]
    assert [event.step for event in record.of(ScoreLogged)] == [0, 8, kept]
    assert sorted({event.step for event in record.of(SampleGenerated)}) == sorted({0, 6, kept})
    assert record.of(ScoreLogged)[0].score.overall.count == 2
    prompts = {event.prompt for event in record.of(SampleGenerated)}
    assert len(prompts) == 3  # two test rows, and an evaluation row to make up the number
    assert all(prompt.startswith("Colour") for prompt in prompts)


def test_every_event_survives_the_log(whole: tuple[LabConfig, Path, RunRecord]) -> None:
    for event in whole[2].events:
        assert from_json(to_json(event)) == event


def test_the_result_opens_in_plain_transformers_with_the_same_logits(
    whole: tuple[LabConfig, Path, RunRecord],
) -> None:
    folder = whole[1] / MODEL
    ids = torch.tensor([[256, 67, 257, 114]])
    with torch.inference_mode():
        theirs = AutoModelForCausalLM.from_pretrained(folder)(ids).logits
        assert torch.equal(theirs, open_folder(folder).model(ids).logits)
    assert (folder / "chat_template.jinja").read_text() == preset().source


def test_the_run_keeps_template_and_test_rows(whole: tuple[LabConfig, Path, RunRecord]) -> None:
    folder = whole[1]
    assert (folder / "template.jinja").read_text() == preset().source
    assert len((folder / "test.jsonl").read_text().splitlines()) == 2
    assert (folder / "facts.json").exists()


def test_two_runs_of_one_configuration_are_equal(
    whole: tuple[LabConfig, Path, RunRecord], tmp_path: Path
) -> None:
    config, folder, record = whole
    again = finished(config, tmp_path / "again")
    assert losses(again) == losses(record)
    assert [e.loss for e in again.of(EvalLogged)] == [e.loss for e in record.of(EvalLogged)]
    assert [e.text for e in again.of(SampleGenerated)] == [
        e.text for e in record.of(SampleGenerated)
    ]
    first, second = (
        load_file(f / MODEL / "model.safetensors") for f in (folder, tmp_path / "again")
    )
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_another_seed_is_another_run(
    whole: tuple[LabConfig, Path, RunRecord], tmp_path: Path
) -> None:
    other = finished(whole[0].with_settings(["train.seed=7"]), tmp_path / "other")
    assert losses(other) != losses(whole[2])


def test_logging_may_be_rarer(tmp_path: Path) -> None:
    record = finished(configured(tmp_path, "log_every=3", "max_steps=7"), tmp_path / "run")
    assert [event.step for event in record.of(StepLogged)] == [3, 6, 7]


def test_without_eval_and_test_rows_there_is_nothing_to_measure(tmp_path: Path) -> None:
    record = finished(configured(tmp_path, "eval_rows=0", "test_rows=0"), tmp_path / "run")
    assert not record.of(EvalLogged)
    assert not record.of(ScoreLogged)
    assert len(record.of(SampleGenerated)) == 6  # training rows stand in, before and after
    assert record.of(RunFinished)[0].restored_step == 4
    assert open_folder(tmp_path / "run" / MODEL).parameters > 0


def test_notes_before_the_first_step(tmp_path: Path) -> None:
    config = configured(tmp_path, "warmup_steps=10", "template.name=plain")
    notes = {event.code: event.message for event in finished(config, tmp_path / "run").of(Warned)}
    assert notes["warm-up"] == "The warm-up of 10 steps is cut to 2, half of this run's 4."
    assert "prints nothing after an answer" in notes["no-end"]
    silent = configured(tmp_path, "policy.end_of_turn=false")
    [note] = finished(silent, tmp_path / "silent").of(Warned)
    assert "leaves ends of turn out" in note.message


# -- which weights are kept -------------------------------------------------------------------


def overfitting(tmp_path: Path, *settings: str) -> LabConfig:
    """Answers that only memory can give: once the form is learnt, those of other rows get ever
    less likely."""
    return configured(
        tmp_path,
        "max_steps=40",
        "eval_every=4",
        "schedule=constant",
        "learning_rate=0.02",
        "weight_decay=0",
        "test_rows=0",
        *settings,
    )


def test_the_best_weights_are_really_restored(tmp_path: Path) -> None:
    config = overfitting(tmp_path)
    record = finished(config, tmp_path / "run")
    trained = [event for event in record.of(EvalLogged) if event.step > 0]
    best = min(trained, key=lambda event: event.loss)
    assert 0 < best.step < 40
    assert trained[-1].loss > best.loss + 0.05
    assert record.of(RunFinished)[0].restored_step == best.step
    for folder in (MODEL, BEST):
        assert eval_loss(tmp_path / "run" / folder, config) == pytest.approx(best.loss, abs=1e-5)
    marked = [event.loss for event in trained if event.best]
    assert marked == sorted(marked, reverse=True)
    saved = [event for event in record.of(CheckpointSaved) if event.path == BEST]
    assert saved[-1].eval_loss == best.loss
    # What the run shows at its end is what the restored weights say.
    assert max(event.step for event in record.of(SampleGenerated)) <= 40
    assert record.of(SampleGenerated)[-1].step == best.step


def test_a_small_model_s_one_thread_is_no_other_surroundings(tmp_path: Path) -> None:
    """It computes on one thread whatever the process may use, also when it is paused."""
    config = configured(tmp_path, "max_steps=4", "sample_every=0")
    folder = tmp_path / "run"
    steps: list[int] = []
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for event in run(config, folder, should_stop=lambda: len(steps) == 2):
            steps.extend([event.step] if isinstance(event, StepLogged) else [])
        rest = list(train(config, folder, run="r", resume=True))
    finally:
        torch.set_num_threads(threads)
    assert [event.resumed_from for event in rest if isinstance(event, RunStarted)] == [2]
    assert "resumed-elsewhere" not in [e.code for e in rest if isinstance(e, Warned)]


def test_the_last_weights_are_kept_where_the_best_are_not_wanted(tmp_path: Path) -> None:
    config = overfitting(tmp_path, "keep_best=false")
    record = finished(config, tmp_path / "run")
    last = record.of(EvalLogged)[-1]
    assert record.of(RunFinished)[0].restored_step == 40
    assert eval_loss(tmp_path / "run" / MODEL, config) == pytest.approx(last.loss, abs=1e-5)
    assert not (tmp_path / "run" / BEST).exists()


def test_the_best_adapters_are_restored_and_merged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a base that learnt before, with a template whose markers are new to it."""
    base = tmp_path / "base"
    finished(configured(tmp_path, "max_steps=20", "learning_rate=0.01"), base)
    lora = ("method=lora", "rank=8", "template.name=chatml", "learning_rate=0.03")
    config = overfitting(tmp_path, f"model.name={base / MODEL}", *lora)
    folder = tmp_path / "run"
    models: list[torch.nn.Module] = []

    def load(model: torch.nn.Module, place: Path) -> None:
        models.append(model)
        load_adapter(model, place)

    monkeypatch.setattr(keeping, "load_adapter", load)
    record = finished(config, folder)
    started, finish = record.of(RunStarted)[0], record.of(RunFinished)[0]
    assert started.added_tokens
    assert 0 < started.trainable < started.parameters
    assert 0 < finish.restored_step < 40
    best = min(event.loss for event in record.of(EvalLogged) if event.step)
    assert best < record.of(EvalLogged)[0].loss
    for name in (MODEL, BEST):
        assert eval_loss(folder / name, config) == pytest.approx(best, abs=1e-5)
    kept = load_file(folder / ADAPTER / "adapter_model.safetensors")
    in_force = [weights for weights in models[0].parameters() if weights.requires_grad]
    assert len(in_force) == len(kept)
    for weights in in_force:
        assert any(torch.equal(weights, tensor) for tensor in kept.values())
    plain = AutoModelForCausalLM.from_pretrained(folder / MODEL)
    assert plain.num_parameters() == started.parameters


def test_a_stopped_lora_run_leaves_a_plain_model_and_its_adapter(tmp_path: Path) -> None:
    config = configured(tmp_path, "method=lora", "keep_best=false", "learning_rate=0.00005")
    on_event, should_stop = stop_after(2)
    events: list[RunEvent] = []
    for event in run(config, tmp_path / "run", should_stop):
        events.append(event)
        on_event(event)
    assert isinstance(events[-1], RunStopped)
    assert [e.code for e in events if isinstance(e, Warned)][:2] == ["lora-rate", "lora-random"]
    for name in (MODEL, LAST):
        assert is_model(tmp_path / "run" / name)
        assert open_folder(tmp_path / "run" / name).parameters == (
            next(e for e in events if isinstance(e, RunStarted)).parameters
        )
    assert (tmp_path / "run" / ADAPTER / "adapter_model.safetensors").is_file()


def test_a_run_that_makes_everything_worse_says_so(tmp_path: Path) -> None:
    base = tmp_path / "base"
    finished(configured(tmp_path, "max_steps=40", "learning_rate=0.01"), base)
    config = configured(tmp_path, f"model.name={base / MODEL}", "max_steps=3", "learning_rate=5")
    record = finished(config, tmp_path / "run")
    first, *later = record.of(EvalLogged)
    assert min(event.loss for event in later) > first.loss
    assert [event.code for event in record.of(Warned)] == ["no-better"]


def test_weights_are_saved_after_the_first_step(tmp_path: Path) -> None:
    config = configured(tmp_path)
    for event in run(config, tmp_path / "run"):
        if isinstance(event, CheckpointSaved):
            assert (event.step, event.path) == (1, LAST)
            break
        assert not isinstance(event, StepLogged) or event.step == 1
    assert open_folder(tmp_path / "run" / LAST).parameters > 0


def test_added_tokens_are_trained_and_saved(tmp_path: Path) -> None:
    record = finished(configured(tmp_path, "template.name=chatml"), tmp_path / "run")
    assert record.of(RunStarted)[0].added_tokens == ("<|im_start|>", "<|im_end|>")
    opened = open_folder(tmp_path / "run" / MODEL)
    assert opened.tokenizer.token_to_id("<|im_end|>") == 261
    assert opened.model.config.vocab_size == 262


# -- what may interrupt it --------------------------------------------------------------------


def stop_after(step: int) -> tuple[Callable[[RunEvent], None], Callable[[], bool]]:
    """(to be told of each event, should_stop)."""
    seen = 0

    def tell(event: RunEvent) -> None:
        nonlocal seen
        seen = event.step if isinstance(event, StepLogged) else seen

    return tell, lambda: seen >= step


def test_a_stop_keeps_what_was_learnt_until_that_step(tmp_path: Path) -> None:
    config = configured(tmp_path, "max_steps=50", "sample_every=0", "eval_every=0")
    tell, stop = stop_after(5)
    events = []
    for event in run(config, tmp_path / "run", stop):
        tell(event)
        events.append(event)
    end = events[-1]
    assert isinstance(end, RunStopped)
    assert (end.step, end.reason) == (5, "Stopped on request.")
    # The weights are those of an undisturbed run of five steps (the schedule is flat).
    flat = ("schedule=constant", "sample_every=0", "eval_every=0", "keep_best=false")
    tell, stop = stop_after(5)
    for event in run(configured(tmp_path, "max_steps=50", *flat), tmp_path / "stopped", stop):
        tell(event)
    finished(configured(tmp_path, "max_steps=5", *flat), tmp_path / "five")
    one, two = (load_file(tmp_path / f / MODEL / "model.safetensors") for f in ("stopped", "five"))
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("kind", [EvalLogged, SampleGenerated, PhaseEntered])
def test_a_stop_is_heard_wherever_it_comes(tmp_path: Path, kind: type[RunEvent]) -> None:
    config = configured(tmp_path, "max_steps=50", "eval_every=2", "sample_every=3", "score_every=3")
    events: list[RunEvent] = []

    def stop() -> bool:
        steps = [at for at, event in enumerate(events) if isinstance(event, StepLogged)]
        return bool(steps) and any(isinstance(event, kind) for event in events[steps[0] :])

    gather(run(config, tmp_path / "run", stop), events)
    assert isinstance(events[-1], RunStopped)
    assert sum(isinstance(event, StepLogged) for event in events) <= 4
    assert open_folder(tmp_path / "run" / MODEL).parameters > 0


def test_a_stop_before_the_first_step_leaves_no_weights(tmp_path: Path) -> None:
    *_, end = run(configured(tmp_path), tmp_path / "run", lambda: True)
    assert isinstance(end, RunStopped)
    assert end.step == 0
    assert not (tmp_path / "run" / MODEL).exists()


def test_the_time_limit_stops_as_the_button_would(tmp_path: Path) -> None:
    config = configured(tmp_path, "max_steps=50000", "max_minutes=0.05", "sample_every=0")
    events = list(run(config, tmp_path / "run"))
    end = events[-1]
    assert isinstance(end, RunStopped)
    assert end.reason == "The time limit of 0.05 minutes was reached."
    assert end.step > 0
    assert all(event.seconds_left <= 3 for event in events if isinstance(event, StepLogged))
    assert open_folder(tmp_path / "run" / MODEL).parameters > 0


KILLED = """
import sys
from pathlib import Path
from sft_core.config import LabConfig
from sft_core.events import StepLogged
from sft_core.rundir import is_model
from sft_core.settings import Host
from sft_core.train import train

config = LabConfig.from_json(Path(sys.argv[1]).read_text())
for event in train(config, Path(sys.argv[2]), run="r"):
    if isinstance(event, StepLogged):
        print(event.step, flush=True)
"""


def test_a_killed_run_leaves_weights_that_open(tmp_path: Path) -> None:
    config = configured(tmp_path, "max_steps=100000", "eval_every=7")
    file, folder = tmp_path / "config.json", tmp_path / "run"
    file.write_text(config.to_json())
    folder.mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(file), str(folder)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) == 9:
                process.kill()
    for name in (LAST, BEST):
        opened = open_folder(folder / name)
        assert all(bool(torch.isfinite(p).all()) for p in opened.model.parameters())


def poisoned(tmp_path: Path) -> Path:
    """A model in which the embedding of "Q" is broken: the row that has one makes the loss NaN."""
    folder = tmp_path / "poisoned"
    record = finished(configured(tmp_path, "max_steps=1"), tmp_path / "whole")
    assert record.status is RunStatus.FINISHED
    opened = open_folder(tmp_path / "whole" / MODEL)
    opened.model.config.tie_word_embeddings = False
    head = torch.nn.Linear(32, 260, bias=False)
    opened.model.set_output_embeddings(head)
    with torch.no_grad():
        opened.model.get_input_embeddings().weight[ord("Q")] = torch.nan
    save(opened.model, opened.tokenizer, preset(), folder, (259,))
    return folder


def test_a_loss_that_is_not_a_number_ends_the_run_with_a_sentence(tmp_path: Path) -> None:
    folder = poisoned(tmp_path)
    rows = (*ROWS, pair("Q?", "queue.", "q"))
    config = configured(
        tmp_path,
        f"model.name={folder}",
        "eval_rows=0",
        "test_rows=0",
        "batch_size=1",
        "max_steps=200",
        'sample_prompts=["Colour 1?"]',
        rows=rows,
    )
    events: list[RunEvent] = []
    with pytest.raises(NonFiniteLossError) as caught:
        gather(run(config, tmp_path / "run"), events)
    logged = [event.step for event in events if isinstance(event, StepLogged)]
    message = str(caught.value)
    assert f"The loss of step {len(logged) + 1} became nan" in message
    assert "Lower learning_rate (now 0.003)" in message


def test_a_full_disk_in_between_is_told_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configured(tmp_path, "max_steps=6", "eval_every=2", "sample_every=0")
    events = []
    work = run(config, tmp_path / "run")
    for event in work:
        events.append(event)
        if isinstance(event, StepLogged) and event.step == 1:
            with files_no_longer_than(20_000):
                events.append(next(work))
    [warning] = [event for event in events if isinstance(event, Warned)]
    assert warning.code == "not-saved"
    assert "could not be saved" in warning.message
    assert isinstance(events[-1], RunFinished)
    assert open_folder(tmp_path / "run" / MODEL).parameters > 0


def test_a_disk_that_stays_full_ends_the_run_and_keeps_what_was_saved(tmp_path: Path) -> None:
    config = configured(tmp_path, "max_steps=5", "keep_best=false", "sample_every=0")
    work = run(config, tmp_path / "run")
    for event in work:
        if isinstance(event, CheckpointSaved):
            break
    with files_no_longer_than(20_000), pytest.raises(StorageError, match="could not be saved"):
        list(work)
    assert open_folder(tmp_path / "run" / LAST).parameters > 0
    assert not (tmp_path / "run" / MODEL).exists()


def test_more_steps_than_the_host_allows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_module, "HOST", replace(train_module.HOST, max_steps=3))
    with pytest.raises(LimitError, match=r"train\.max_steps is 4"):
        list(run(configured(tmp_path), tmp_path / "run"))
    config = configured(tmp_path, "max_steps=null", "epochs=10")
    with pytest.raises(LimitError, match="would take 10 steps, but this host allows 3"):
        list(run(config, tmp_path / "run"))


def test_the_hosts_minutes_bound_a_run_that_names_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_module, "HOST", replace(train_module.HOST, max_minutes=1e-6))
    *_, end = run(configured(tmp_path), tmp_path / "run")
    assert isinstance(end, RunStopped)
    assert "The time limit" in end.reason


def test_rows_in_memory_are_small() -> None:
    """Some bytes a token, so that 100,000 rows of 256 tokens take some 250 MB and not 10 GB."""
    from array import array

    row = Row("r", array("i", range(256)), array("i", range(256)), array("B", bytes(256)), 256, 0)
    assert sum(map(sys.getsizeof, (row.ids, row.labels, row.kinds))) < 256 * 12


def test_the_lesson_of_six_tasks_may_run_anywhere() -> None:
    Host.from_environment({"SPACE_ID": "somebody/lab"}).check(FROM_SCRATCH)
    ready = prepared(FROM_SCRATCH)[0]
    assert ready is not None
    assert (len(ready.train), len(ready.test), ready.bad_rows, ready.truncated) == (160, 40, 0, 0)


def test_the_default_run_may_run_anywhere_and_uses_every_row_whole() -> None:
    config = LabConfig()
    Host.from_environment({"SPACE_ID": "somebody/lab"}).check(config)
    ready = prepared(config)[0]
    assert ready is not None
    assert (len(ready.train), ready.bad_rows, ready.truncated) == (160, 0, 0)
    assert len(ready.test) >= 60
