"""From a configuration to rows of tokens: read, render, encode. What cannot be used is counted and
named, and the rest goes on."""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Final, NamedTuple

from sft_core import data, templates
from sft_core.checkpoint import refusals
from sft_core.config import LabConfig
from sft_core.doctor import doctor
from sft_core.encode import encode_many, require_trained
from sft_core.events import PhaseEntered, RunEvent, Warned
from sft_core.generate import prompts_of
from sft_core.models import context, open_tokenizer
from sft_core.sandbox import render_many
from sft_core.settings import HOST
from sft_core.tokenizer import Tokenizer
from sft_core.types import (
    DataError,
    Encoded,
    Example,
    LabError,
    Message,
    NothingTrainedError,
    Severity,
    Template,
)

NAMED_ROWS: Final = 3
"""So many unusable rows are quoted in a warning; the others are counted."""
EXAMINED: Final = 8
"""Training rows that the doctor looks at: a fault of the template shows in the first few."""
TOLD: Final = frozenset(
    {
        "end-of-turn-missing",
        "end-of-turn-untrained",
        "truncated",
        "nothing-trained",
        "nothing-trained-after-truncation",
        "template-fails",
        "template-syntax",
        "cannot-encode",
    }
)
"""Findings that a run tells in its own words, or of every row that is left out or cut."""
SAMPLES: Final = 3
"""Prompts that samples are drawn for where the configuration names none."""
TEMPLATE: Final = "template.jinja"
TEST_ROWS: Final = "test.jsonl"
FACTS: Final = "facts.json"


@dataclass(frozen=True, slots=True)
class Row:
    """An encoded example as it waits for its batch: some bytes a token, no more."""

    id: str
    ids: array[int]
    labels: array[int]
    kinds: array[int]
    trained: int
    dropped: int

    @classmethod
    def of(cls, id: str, encoded: Encoded) -> Row:
        return cls(id, *encoded.arrays(), encoded.kinds, encoded.trained, encoded.beyond[0])


@dataclass(frozen=True, slots=True)
class Prepared:
    """All that training needs besides the model. ``facts`` are those of the training rows;
    ``bad_rows`` were left out, ``truncated`` lost tokens to the length limit."""

    tokenizer: Tokenizer
    template: Template
    train: tuple[Row, ...]
    eval: tuple[Row, ...]
    test: tuple[Example, ...]
    samples: tuple[Example, ...]
    facts: frozenset[str]
    bad_rows: int
    truncated: int
    max_length: int


@dataclass(slots=True)
class _Rejects:
    """Rows that cannot be used, and why."""

    errors: list[tuple[str, str]] = field(default_factory=list)

    def add(self, row: str, error: Exception) -> None:
        self.errors.append((row, str(error)))

    def sentence(self) -> str:
        count = len(self.errors)
        head = "One row is left out" if count == 1 else f"{count:,} rows are left out"
        told = " ".join(_named(row, why) for row, why in self.errors[:NAMED_ROWS])
        rest = f" And {count - NAMED_ROWS:,} more." if count > NAMED_ROWS else ""
        return f"{head}. {told}{rest}"


def _named(row: str, why: str) -> str:
    return why if row in why else f"Row {row}: {why}"


def prepare(
    config: LabConfig, should_stop: Callable[[], bool]
) -> Generator[RunEvent, None, Prepared | None]:
    """Reads, renders and encodes; yields what happens and returns the rows, or None where it was
    stopped. Raises DataError where no row is left, and whatever names the first thing that is
    wrong with the source, the template or the tokenizer."""
    yield PhaseEntered(phase="Reading rows")
    loaded = data.load(config.data, HOST.max_rows)
    splits = data.split(loaded, config.data)
    rejects = _Rejects([(bad.row, bad.message) for bad in loaded.bad])
    if should_stop():
        return None
    tools = yield from _tools(config)
    yield from _diagnosed(config, splits.train[:EXAMINED], tools)
    yield PhaseEntered(phase=f"Encoding {len(splits.train) + len(splits.eval):,} rows")

    def encoded(examples: Sequence[Example]) -> tuple[Row, ...]:
        rows = _encoded(config, examples, tools, rejects)
        return tuple(takewhile(lambda _: not should_stop(), rows))

    train, evaluated = encoded(splits.train), encoded(splits.eval)
    test, long = _askable(splits.test, tools, rejects)
    if should_stop():
        return None
    if not train:
        raise _nothing_left(rejects)
    if rejects.errors:
        yield Warned(code="bad-rows", message=rejects.sentence())
    truncated = sum(row.dropped > 0 for row in (*train, *evaluated))
    if truncated:
        yield _cut_off((*train, *evaluated), truncated, tools.length)
    if long:
        yield _unreadable(len(long), len(test) + len(long), tools.room)
    facts = data.seen_facts(splits.train)
    # What training holds in other words shows its progress; the rest only a model can know that
    # met it before.
    known = sorted(test, key=lambda example: example.fact not in facts)
    samples = yield from _samples(config, (*known, *splits.eval, *splits.train), tools)
    return Prepared(
        tools.tokenizer,
        tools.template,
        train,
        evaluated,
        (*test, *long),
        samples,
        facts,
        len(rejects.errors),
        truncated,
        tools.length,
    )


class _Tools(NamedTuple):
    """What rows are made with: ``length`` is what they are cut to, ``room`` the context."""

    tokenizer: Tokenizer
    template: Template
    length: int
    room: int


def _tools(config: LabConfig) -> Generator[RunEvent, None, _Tools]:
    bare, _ = open_tokenizer(config.model)
    template = templates.resolve(config.template, bare)
    tokenizer, _ = open_tokenizer(config.model, template)
    room, length = context(config.model), config.train.max_length
    if room < length:
        yield Warned(
            code="context",
            message=f"max_length is {length:,}, but the model reads at most {room:,} tokens, so "
            "rows are cut there.",
        )
    return _Tools(tokenizer, template, min(room, length), room)


def _diagnosed(config: LabConfig, examples: Sequence[Example], tools: _Tools) -> Iterator[RunEvent]:
    """What the doctor says of the first rows, except what the run tells anyway."""
    found = doctor(
        tools.template,
        tools.tokenizer,
        examples,
        config.policy,
        config.generate,
        max_length=tools.length,
    )
    for finding in found.items:
        if finding.severity is not Severity.INFO and finding.code not in TOLD:
            yield Warned(code=finding.code, message=f"{finding.message} {finding.remedy}")


def _encoded(
    config: LabConfig, examples: Sequence[Example], tools: _Tools, rejects: _Rejects
) -> Iterator[Row]:
    rendered = render_many(tools.template, examples, tools.tokenizer.special_tokens)
    results = encode_many(rendered, tools.tokenizer, config.policy, tools.length)
    for example, result in zip(examples, results, strict=True):
        try:
            if isinstance(result, LabError):
                raise result
            yield Row.of(example.id, require_trained(result, example.id))
        except LabError as error:
            rejects.add(example.id, error)


def _askable(
    examples: Sequence[Example], tools: _Tools, rejects: _Rejects
) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """The examples that a model can be asked, and those whose prompt leaves no room in its
    context. Those whose prompt cannot be rendered are rejected."""
    fitting: list[Example] = []
    long: list[Example] = []
    prompts = prompts_of(examples, tools.template, tools.tokenizer)
    for example, prompt in zip(examples, prompts, strict=True):
        if isinstance(prompt, LabError):
            rejects.add(example.id, prompt)
        else:
            (fitting if len(prompt) < tools.room else long).append(example)
    return tuple(fitting), tuple(long)


def _nothing_left(rejects: _Rejects) -> DataError | NothingTrainedError:
    if not rejects.errors:
        return DataError(
            "No row is left to train on. Read more rows, or keep fewer of them for evaluation."
        )
    return NothingTrainedError(f"No row can be trained on. {rejects.sentence()}")


def _cut_off(rows: Sequence[Row], truncated: int, length: int) -> Warned:
    dropped = sum(row.dropped for row in rows)
    share = dropped / (dropped + sum(len(row.ids) for row in rows))
    return Warned(
        code="truncated",
        message=f"{truncated:,} of {len(rows):,} rows are longer than {length:,} tokens and are "
        f"cut off there, which loses {share:.1%} of all tokens. Raise max_length to keep them.",
    )


def _unreadable(long: int, tests: int, room: int) -> Warned:
    return Warned(
        code="long-prompts",
        message=f"The prompts of {long:,} of {tests:,} test rows fill the model's {room:,} tokens "
        "of context, so there is no room for an answer and they count as wrong.",
    )


def _samples(
    config: LabConfig, examples: Sequence[Example], tools: _Tools
) -> Generator[RunEvent, None, tuple[Example, ...]]:
    """What the model is asked during training: the prompts of the configuration, else one row of
    each of the first few categories of ``examples``."""
    wanted = config.train.sample_prompts
    if wanted:
        asked = [Example(text, (Message("user", text),)) for text in wanted]
    else:
        by_category: dict[str, Example] = {}
        for example in examples:
            if len(by_category) == SAMPLES:
                break
            by_category.setdefault(example.category or example.id, example)
        asked = list(by_category.values())
    rejects = _Rejects()
    fitting, long = _askable(asked, tools, rejects)
    if wanted and len(fitting) < len(wanted):
        why = rejects.errors[0][1] if rejects.errors else f"it fills {tools.room:,} tokens."
        first = rejects.errors[0][0] if rejects.errors else long[0].id
        yield Warned(
            code="samples",
            message=f"{len(wanted) - len(fitting)} of {len(wanted)} sample prompts cannot be "
            f"asked. The first, {first[:60]!r}: {why}",
        )
    return fitting


def keep(prepared: Prepared, run_dir: Path) -> None:
    """Writes what a reader of the run needs later: the template in force, the test rows, and the
    facts that were trained. Raises StorageError."""
    with refusals(run_dir):
        facts = json.dumps(sorted(prepared.facts), ensure_ascii=False)
        (run_dir / TEMPLATE).write_text(prepared.template.source, encoding="utf-8")
        (run_dir / FACTS).write_text(facts, encoding="utf-8")
        data.write_jsonl(prepared.test, run_dir / TEST_ROWS)
