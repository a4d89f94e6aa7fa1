"""From a configuration to rows of tokens: read, render, encode. What cannot be used is counted and
named, and the rest goes on."""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Final

from sft_core import data, templates
from sft_core.checkpoint import refusals
from sft_core.config import LabConfig
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
    Template,
)

NAMED_ROWS: Final = 3
"""So many unusable rows are quoted in a warning; the others are counted."""
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
    trained: int
    dropped: int

    @classmethod
    def of(cls, id: str, encoded: Encoded) -> Row:
        ids, labels = array("i", encoded.ids), array("i", encoded.labels)
        return cls(id, ids, labels, encoded.trained, len(encoded.dropped))


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
    tokenizer, template, length = yield from _tools(config)
    yield PhaseEntered(phase=f"Encoding {len(splits.train) + len(splits.eval):,} rows")

    def encoded(examples: Sequence[Example]) -> tuple[Row, ...]:
        rows = _encoded(config, examples, tokenizer, template, length, rejects)
        return tuple(takewhile(lambda _: not should_stop(), rows))

    train, evaluated = encoded(splits.train), encoded(splits.eval)
    test = tuple(_askable(splits.test, template, tokenizer, rejects))
    if should_stop():
        return None
    if not train:
        raise _nothing_left(rejects)
    if rejects.errors:
        yield Warned(code="bad-rows", message=rejects.sentence())
    truncated = sum(row.dropped > 0 for row in (*train, *evaluated))
    if truncated:
        yield _cut_off((*train, *evaluated), truncated, length)
    facts = data.seen_facts(splits.train)
    # What training holds in other words shows its progress; the rest no model can know.
    known = sorted(test, key=lambda example: example.fact not in facts)
    return Prepared(
        tokenizer,
        template,
        train,
        evaluated,
        test,
        _samples(config, (*known, *splits.eval, *splits.train), template, tokenizer),
        facts,
        len(rejects.errors),
        truncated,
        length,
    )


def _tools(config: LabConfig) -> Generator[RunEvent, None, tuple[Tokenizer, Template, int]]:
    """Tokenizer, template, and the length that rows are cut to."""
    bare, _ = open_tokenizer(config.model)
    template = templates.resolve(config.template, bare)
    tokenizer, _ = open_tokenizer(config.model, template)
    room = context(config.model)
    if room < config.train.max_length:
        yield Warned(
            code="context",
            message=f"max_length is {config.train.max_length:,}, but the model reads at most "
            f"{room:,} tokens, so rows are cut there.",
        )
    return tokenizer, template, min(room, config.train.max_length)


def _encoded(
    config: LabConfig,
    examples: Sequence[Example],
    tokenizer: Tokenizer,
    template: Template,
    length: int,
    rejects: _Rejects,
) -> Iterator[Row]:
    rendered = render_many(template, examples, tokenizer.special_tokens)
    results = encode_many(rendered, tokenizer, config.policy, length)
    for example, result in zip(examples, results, strict=True):
        try:
            if isinstance(result, LabError):
                raise result
            yield Row.of(example.id, require_trained(result, example.id))
        except LabError as error:
            rejects.add(example.id, error)


def _askable(
    examples: Sequence[Example], template: Template, tokenizer: Tokenizer, rejects: _Rejects
) -> Iterator[Example]:
    """Test rows whose prompt can be rendered."""
    prompts = prompts_of(examples, template, tokenizer)
    for example, prompt in zip(examples, prompts, strict=True):
        if isinstance(prompt, LabError):
            rejects.add(example.id, prompt)
        else:
            yield example


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


def _samples(
    config: LabConfig, examples: Sequence[Example], template: Template, tokenizer: Tokenizer
) -> tuple[Example, ...]:
    """What the model is asked during training: the prompts of the configuration, else one row of
    each of the first few categories of ``examples``."""
    if config.train.sample_prompts:
        return tuple(
            Example(f"sample {number}", (Message("user", text),))
            for number, text in enumerate(config.train.sample_prompts, 1)
        )
    chosen: dict[str, Example] = {}
    for example in examples:
        if len(chosen) == SAMPLES:
            break
        chosen.setdefault(example.category or example.id, example)
    return tuple(_askable(tuple(chosen.values()), template, tokenizer, _Rejects()))


def keep(prepared: Prepared, run_dir: Path) -> None:
    """Writes what a reader of the run needs later: the template in force, the test rows, and the
    facts that were trained. Raises StorageError."""
    with refusals(run_dir):
        facts = json.dumps(sorted(prepared.facts), ensure_ascii=False)
        (run_dir / TEMPLATE).write_text(prepared.template.source, encoding="utf-8")
        (run_dir / FACTS).write_text(facts, encoding="utf-8")
        data.write_jsonl(prepared.test, run_dir / TEST_ROWS)
