"""What the model in training answers, and that asking can be stopped."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sft_core.asking import Asker
from sft_core.config import LabConfig
from sft_core.events import PhaseEntered, SampleGenerated, ScoreLogged
from sft_core.learner import Learner
from sft_core.models import open_model
from sft_core.pace import Clock, Halted, never
from sft_core.prepare import Prepared, prepare
from tests.tensors import SMALL

CONFIG = LabConfig(model=SMALL).with_settings(
    ["data.source=six-tasks", "data.rows=40", "template.name=inst-resp", "eval_rows=2",
     "test_rows=3", "max_new_tokens=4"]
)  # fmt: skip


@pytest.fixture(scope="module")
def prepared() -> Prepared:
    work: Iterator[object] = prepare(CONFIG, never)
    while True:
        try:
            next(work)
        except StopIteration as end:
            found: Prepared = end.value
            return found


def asker(prepared: Prepared, stop: bool = False) -> Asker:
    opened = open_model(SMALL, prepared.template, 0)
    learner = Learner(opened, CONFIG.train, prepared.train)
    return Asker(CONFIG, prepared, opened, learner, Clock(), lambda: stop)


def test_every_test_row_is_asked_and_the_time_is_taken(prepared: Prepared) -> None:
    one = asker(prepared)
    phase, score = one.score(7)
    assert isinstance(phase, PhaseEntered)
    assert isinstance(score, ScoreLogged)
    assert (score.step, score.score.overall.count) == (7, len(prepared.test))
    assert one.clock.last("score") > 0


def test_the_same_prompts_are_answered_each_time(prepared: Prepared) -> None:
    one = asker(prepared)
    first, again = list(one.sample(0)), list(one.sample(9))
    assert all(isinstance(event, SampleGenerated) for event in first)
    texts = [
        [(e.prompt, e.text) for e in found if isinstance(e, SampleGenerated)]
        for found in (first, again)
    ]
    assert texts[0] == texts[1]
    assert len(texts[0]) == len(prepared.samples) > 0
    assert {event.step for event in again if isinstance(event, SampleGenerated)} == {9}


def test_a_stop_leads_out_of_both(prepared: Prepared) -> None:
    one = asker(prepared, stop=True)
    with pytest.raises(Halted):
        list(one.score(0))
    with pytest.raises(Halted):
        list(one.sample(0))
