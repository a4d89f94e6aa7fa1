"""A run in the page's words: values for its status, scores, held-out rows, samples, and the list
of runs. Pure: a record in, what to show out."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any, Final, Literal

from sft_core.catalogue import Origin, find
from sft_core.config import LabConfig
from sft_core.events import (
    ON_REQUEST,
    Graded,
    PhaseEntered,
    RunFailed,
    RunFinished,
    RunInterrupted,
    RunQueued,
    RunStarted,
    RunStopped,
    SampleGenerated,
    Score,
    ScoreLogged,
    StepLogged,
    Tally,
    Warned,
)
from sft_core.record import RunRecord, RunStatus
from sft_core.types import Example
from sft_core.ui.header import run_word, template_title
from sft_core.ui.run_facts import facts
from sft_core.ui.words import ago, duration, waiting

NO_RUN: Final = "No run yet. Start one: it goes on here even if you close the page."
PAIRS_SHOWN: Final = 256
HOW_SCORED: Final = (
    "Exact match: the greedy answer equals the expected one after lower-casing and joining runs "
    "of spaces. Before is the model as it was at step 0."
)


# -- status ----------------------------------------------------------------------------------


def status_value(
    run: str | None, record: RunRecord | None, stopping: bool = False, resume: int | None = None
) -> dict[str, Any]:
    """``resume`` is the step that the run can go on after, where it can."""
    if run is None or record is None:
        return {"run": None, "text": NO_RUN}
    status = record.status
    stopping = stopping and not status.over
    word = run_word(record)
    if word == "paused" and resume is None:
        word = "stopped"  # its time is used up, or several processes carried it out
    if stopping:
        word = "stopping" if record.last(StepLogged) else "ending"
    total = record.total_steps
    return {
        "run": run,
        "state": word,
        "over": status.over,
        "learnt": status.over and record.last(StepLogged) is not None,
        "text": _stopping_sentence(record) if stopping else _sentence(record, resume),
        "share": record.step / total if total else (1.0 if status.over else 0.0),
        "facts": facts(record),
        "notes": _notes(record),
    }


def _stopping_sentence(record: RunRecord) -> str:
    if record.last(StepLogged) is None:
        return "Stopping before the first step."
    return "Pausing. What was learnt is kept."


def _sentence(record: RunRecord, resume: int | None) -> str:
    """What the run does now, or how it ended."""
    for event in reversed(record.events):
        match event:
            case RunFinished(step=step, restored_step=kept, seconds=seconds):
                back = "" if kept == step else f" Its best weights, of step {kept:,}, were kept."
                return f"Done: {step:,} steps in {duration(seconds)}.{back}"
            case RunStopped(reason=reason) if resume is None:
                return reason
            case RunStopped(reason=reason):
                why = "" if reason == ON_REQUEST else f"{reason} "
                return f"{why}Paused after step {resume:,}. Resume goes on from there."
            case RunFailed(message=message) if resume:
                return f"{message} Resume goes on after step {resume:,} with the same settings."
            case RunFailed(message=message) | RunInterrupted(message=message):
                return message + (f" Resume goes on after step {resume:,}." if resume else "")
            case PhaseEntered(phase=phase):
                return phase
            case StepLogged():
                return _training(record)
            case RunQueued(position=position):
                return f"Waiting: {waiting(position)}"
    return "Getting ready"


def _training(record: RunRecord) -> str:
    started = record.last(RunStarted)
    assert started is not None
    return f"Training on {started.train_rows:,} rows"


def _notes(record: RunRecord) -> list[dict[str, str]]:
    # Each process that carries a run on says once more what it finds.
    messages = dict.fromkeys(event.message for event in record.of(Warned))
    return [{"level": "warning", "text": message} for message in messages][-6:]


ASKED_BEFORE: Final = (
    "This is the model before training: the run ended before it was asked again. To ask both now, "
    "answer the held-out rows below."
)
_WITHOUT_TRAINING: Final = {
    Origin.RANDOM: "a model from random weights can only guess",
    Origin.EMBEDDED: "what the model gets right, it knew before; training taught it to say so",
}
_ELSEWHERE: Final = "what the model gets right, it did not learn from these rows"
"""Where an answer comes from whose fact no training row holds."""


# -- scores ----------------------------------------------------------------------------------


def scores_value(record: RunRecord | None) -> dict[str, Any]:
    scores = record.of(ScoreLogged) if record else ()
    if record is None or not scores:
        text = "Exact match on held-out rows appears here, before training and after."
        return {"text": text, "before": None, "after": None}
    first, last = scores[0], scores[-1]
    before = first.score if first.step == 0 else None
    after = last.score if last is not first or before is None else None
    early = after is None and record.status.over
    return {
        "text": ASKED_BEFORE if early else _score_sentence(after or before, record.config),
        "before": _tally(before.overall) if before else None,
        "after": _tally(after.overall) if after else None,
        "seen": _part(after, "seen"),
        "unseen": _part(after, "unseen"),
        "seenBefore": _part(before, "seen"),
        "unseenBefore": _part(before, "unseen"),
        "categories": _categories(before, after),
        "how": HOW_SCORED,
    }


def _score_sentence(score: Score | None, config: LabConfig) -> str:
    """How many of the asked facts stood in training, and what that means for their answers."""
    if score is None or score.unseen is None or not score.unseen.count:
        return ""
    rows, unseen = score.overall.count, score.unseen.count
    facts = unseen + (score.seen.count if score.seen else 0)
    source = _WITHOUT_TRAINING.get(find(config.model.name).origin, _ELSEWHERE)
    if unseen < facts:
        return (
            f"{unseen} of these {facts} facts stood in no training row: there {source}. The others "
            "it met in other words."
        )
    if facts < rows:
        return (
            f"{facts} of these {rows} rows ask for a fact, and none of those stood in a training "
            f"row: there {source}."
        )
    return f"None of these {facts} facts stood in a training row: {source}."


def _part(score: Score | None, name: Literal["seen", "unseen"]) -> dict[str, int] | None:
    """One kind of fact, where the rows are of both kinds; else it says no more than all rows."""
    if score is None or not (score.seen and score.unseen):
        return None
    return _tally(getattr(score, name))


def _tally(tally: Tally | None) -> dict[str, int] | None:
    if tally is None or not tally.count:
        return None
    return {"count": tally.count, "exact": tally.exact, "stopped": tally.stopped}


def _categories(before: Score | None, after: Score | None) -> list[dict[str, Any]]:
    olds = {tally.name: tally for tally in (before.by_category if before else ())}
    news = {tally.name: tally for tally in (after.by_category if after else ())}
    return [
        {"name": name, "before": _tally(olds.get(name)), "after": _tally(news.get(name))}
        for name in (news or olds)
    ]


def pairs_value(
    rows: Sequence[Example], facts: frozenset[str] | None, graded: Iterable[Graded] = ()
) -> dict[str, Any]:
    """Held-out rows, whether their fact stood in training (where that differs between them), and
    answers where they were graded."""
    answers: dict[tuple[str, str], Graded] = {(item.side.value, item.row): item for item in graded}
    pairs = []
    stood = [None if row.fact is None or facts is None else row.fact in facts for row in rows]
    told_apart = {True, False} <= set(stood)  # a column of nothing but "never" tells nothing
    for row, seen in zip(rows[:PAIRS_SHOWN], stood, strict=False):
        pairs.append(
            {
                "prompt": row.prompt[-1].text if row.prompt else "",
                "expected": row.answer,
                "seen": seen if told_apart else None,
                "before": _graded(answers.get(("base", row.id))),
                "after": _graded(answers.get(("tuned", row.id))),
            }
        )
    return {
        "pairs": pairs,
        "more": max(0, len(rows) - PAIRS_SHOWN),
        "empty": "This data set keeps no rows back. Set held-out rows under Data.",
    }


def _graded(item: Graded | None) -> dict[str, Any] | None:
    return {"answer": item.answer, "exact": item.exact} if item else None


# -- samples ---------------------------------------------------------------------------------


def samples_value(record: RunRecord | None) -> dict[str, Any]:
    """Fixed prompts in the order in which they came, the newest answer first."""
    stories: dict[str, list[dict[str, Any]]] = {}
    for event in record.of(SampleGenerated) if record else ():
        stories.setdefault(event.prompt, []).insert(
            0,
            {
                "step": event.step,
                "text": event.text,
                "stopped": event.stopped,
                "tokens": event.tokens,
            },
        )
    finished = record.last(RunFinished) if record else None
    if finished:
        # The last answers of a finished run come from the weights that were kept.
        for story in stories.values():
            story[0]["kept"] = story[0]["step"] == finished.restored_step
    return {
        "prompts": [{"prompt": prompt, "story": story} for prompt, story in stories.items()],
        "empty": "Answers to a few held-out prompts appear here while the model learns.",
    }


# -- the list of runs ------------------------------------------------------------------------


def runs_value(
    records: Sequence[tuple[str, RunRecord]], chosen: str | None, now: float | None = None
) -> dict[str, Any]:
    moment = time.time() if now is None else now
    return {
        "runs": [
            {
                "id": run,
                "state": run_word(record),
                "text": summary(record),
                "when": _when(record, moment),
            }
            for run, record in records
        ],
        "chosen": chosen,
        "empty": "No runs are kept yet.",
    }


def summary(record: RunRecord) -> str:
    """A run in one line: what was trained on what, and how far it came."""
    status = record.status
    if not status.over:
        return f"{described(record.config)}, {run_word(record)}"
    parts = [described(record.config), f"{record.step:,} steps"]
    if scored := [event for event in record.of(ScoreLogged) if event.step]:
        parts.append(f"{scored[-1].score.overall.share:.0%} exact")
    elif (best := record.best_eval) is not None:
        parts.append(f"eval loss {best.loss:.2f}")
    if status is not RunStatus.FINISHED:
        parts.append(run_word(record))
    return ", ".join(parts)


def described(config: LabConfig) -> str:
    model = config.model.name.rpartition("/")[2]
    source = config.data.source.rpartition("/")[2]
    method = f", LoRA of rank {config.lora.rank}" if config.train.method == "lora" else ""
    return f"{model} on {source}, {template_title(config)}{method}"


def _when(record: RunRecord, now: float) -> str:
    events = record.events
    if not events:
        return ""
    return ago(now - events[0].time)
