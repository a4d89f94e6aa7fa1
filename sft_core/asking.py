"""What the model in training answers: test rows, and the prompts whose answers are shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from sft_core.config import LabConfig
from sft_core.encode import stop_sequences
from sft_core.evaluate import grade
from sft_core.events import (
    PhaseEntered,
    RunEvent,
    SampleGenerated,
    Score,
    Scored,
    ScoreLogged,
    Side,
)
from sft_core.generate import Voice, answer_batch, prompt_ids
from sft_core.learner import Learner
from sft_core.models import Opened
from sft_core.pace import Clock, Halted
from sft_core.prepare import Prepared


class Asker:
    """Asks the model that ``learner`` trains. ``halt`` is asked whether to stop; where it says so,
    Halted is raised. What asking takes is timed by ``clock`` as "score" and "sample"."""

    def __init__(
        self,
        config: LabConfig,
        prepared: Prepared,
        opened: Opened,
        learner: Learner,
        clock: Clock,
        halt: Callable[[], bool],
    ) -> None:
        self.config, self.prepared, self.learner = config, prepared, learner
        self.clock, self.halt = clock, halt
        self._voice = Voice(Side.TUNED, learner.bare, opened.tokenizer, opened.context)
        self._stops = stop_sequences(
            prepared.template, opened.tokenizer, config.generate.stop_tokens
        )
        # One process asks for all, or all of them do where each holds a part of the weights.
        self._asks = learner.leads or learner.sharded

    def score(self, step: int) -> Iterator[RunEvent]:
        """Exact match on the test rows, after ``step`` steps."""
        if not self.prepared.test or not self._asks:
            return
        yield PhaseEntered(phase=f"Asking {len(self.prepared.test):,} test rows")
        with self.clock.timing("score"), self.learner.processes.in_step(self.learner.bare):
            score = self._graded()
        if score is None:
            raise Halted
        yield ScoreLogged(step=step, score=score)

    def _graded(self) -> Score | None:
        seen = self.prepared.facts or None
        rows, template = self.prepared.test, self.prepared.template
        for event in grade(self._voice, rows, seen, template, self.config.generate, self.halt):
            if isinstance(event, Scored):
                return event.score
        return None

    def sample(self, step: int) -> Iterator[RunEvent]:
        """Greedy answers to the fixed prompts, so that only the weights make a difference."""
        examples = self.prepared.samples
        if not examples or not self._asks:
            return
        template, limit = self.prepared.template, self.config.generate.max_new_tokens
        with self.clock.timing("sample"), self.learner.processes.in_step(self.learner.bare):
            prompts = [prompt_ids(example, template, self._voice.tokenizer) for example in examples]
            answers = answer_batch(self._voice, prompts, self._stops, limit, self.halt)
        if self.halt():
            raise Halted
        for example, answer in zip(examples, answers, strict=True):
            yield SampleGenerated(
                step=step,
                prompt=example.prompt[-1].text,
                text=answer.text,
                stopped=answer.stopped,
                tokens=len(answer.ids),
            )
