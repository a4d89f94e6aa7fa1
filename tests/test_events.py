"""Events survive their log line, and a record tells where a run stands."""

from __future__ import annotations

import pytest

from sft_core.events import (
    Answered,
    CheckpointSaved,
    EvalLogged,
    Event,
    Perplexity,
    PerplexityMeasured,
    PhaseEntered,
    RunFinished,
    RunQueued,
    RunStarted,
    Score,
    Scored,
    ScoreLogged,
    Side,
    StepLogged,
    Tally,
    from_json,
    to_json,
)
from sft_core.types import DataError

QUEUED = RunQueued(run="r1", position=2)
STARTED = RunStarted(
    run="r1",
    model="bytes-gpt",
    device="cpu",
    precision="fp32",
    parameters=10,
    trainable=10,
    train_rows=4,
    eval_rows=1,
    test_rows=1,
    bad_rows=0,
    truncated_rows=0,
    tokens=40,
    trained_tokens=9,
    total_steps=3,
    added_tokens=("<|im_end|>",),
)
STEP = StepLogged(
    step=2,
    epoch=0.5,
    loss=1.25,
    learning_rate=1e-3,
    grad_norm=0.7,
    tokens=40,
    trained_tokens=9,
    tokens_per_second=100.0,
    seconds_left=1.0,
    memory_mb=200.0,
)
SCORE = Score(
    overall=Tally("all", 4, 3, 4),
    by_category=(Tally("capital", 2, 1, 2),),
    seen=Tally("seen", 3, 3, 3),
)
EVENTS: list[Event] = [
    QUEUED,
    PhaseEntered(phase="Reading rows"),
    STARTED,
    STEP,
    EvalLogged(step=2, loss=1.5, trained_tokens=9, best=True),
    ScoreLogged(step=2, score=SCORE),
    CheckpointSaved(step=2, path="checkpoints/last", eval_loss=None),
    RunFinished(step=3, restored_step=2, seconds=4.5, run_dir="runs/r1"),
    Scored(side=Side.TUNED, score=SCORE),
    PerplexityMeasured(side=Side.BASE, perplexity=Perplexity(12.5, 5, 20, 2)),
    Answered(
        side=Side.BASE,
        prompt=0,
        text="Ä\u2028 {{x}}",
        stopped=False,
        reason="length",
        ids=(1, 2),
        prompt_ids=(3,),
        seconds=0.1,
    ),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_an_event_comes_back_from_its_line(event: Event) -> None:
    line = to_json(event)
    assert "\n" not in line
    assert from_json(line) == event


@pytest.mark.parametrize("line", ["", "{}", '{"event": "Nothing"}', '{"event": "RunQueued"}', "[]"])
def test_a_line_that_is_no_event_is_refused(line: str) -> None:
    with pytest.raises(DataError):
        from_json(line)
