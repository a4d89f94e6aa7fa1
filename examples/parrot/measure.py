"""Measures what the parrot knows and does, before and after fine-tuning.

    python -m examples.parrot.measure base --model examples/parrot
    python -m examples.parrot.measure runs --model examples/parrot

``base`` takes seconds. ``runs`` trains the lab's default run, those that go wrong on purpose, and
those on the other sets (``VARIANTS``) with several seeds, which takes some minutes. Both print a
table, or JSON with ``--json``; every figure comes from the lab's own train, grade and perplexity.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

from examples.parrot.pages import UNREAD, faq_prompt, pages
from examples.parrot.pretrain import END
from examples.parrot.world import BY_NAME, FACTS, fill
from sft_core.config import LabConfig, TemplateConfig
from sft_core.data import load
from sft_core.evaluate import grade, normalise
from sft_core.events import Perplexity, RunFailed, Score, Scored, Side
from sft_core.execution import execute
from sft_core.generate import Ids, Voice, answer_batch, prompts_of
from sft_core.models import open_folder
from sft_core.perplexity import measure
from sft_core.rundir import RunDirectory
from sft_core.templates import resolve
from sft_core.types import Example, LabError

ASKED: Final = 48
"""Tokens that the base may go on for when it is asked something."""
HELD_OUT_PAGES: Final = 500
AT_ONCE: Final = 64
_MARKS: Final = "\"'\u201c*_#>-=/( "


# -- what the base goes on with ---------------------------------------------------------------


_OPTION: Final = re.compile(r"\(?[a-d][.)] ")
_SPEAKER: Final = re.compile(r"(\[[\w ]+\]|[\w ]{1,20}[:>]) ")


def answers(continuation: str, expected: str, statements: Iterable[str] = ()) -> bool:
    """The rule for whether a continuation of a question answers it: its first line that holds a
    letter or digit begins with the expected answer as a whole word, or holds one of ``statements``,
    in any case. Marks of speech and markup before it do not count, nor does a speaker's name. A
    line that ends with a question mark asks, and one as "A) Paris" lists an option: both go on
    with something that is no answer."""
    lines = (normalise(line) for line in continuation.splitlines())
    first = next((line for line in lines if re.search(r"\w", line)), "")
    if first.endswith("?") or _OPTION.match(first):
        return False
    if any(normalise(statement).removesuffix(".") in first for statement in statements):
        return True
    bare = _SPEAKER.sub("", first.lstrip(_MARKS), count=1).lstrip(_MARKS)
    wanted = normalise(expected).removesuffix(".")
    return any(
        text == wanted or text.startswith(tuple(f"{wanted}{mark}" for mark in ".,;:)*\u201d "))
        for text in (first.lstrip(_MARKS), bare)
    )


def continued(voice: Voice, prompts: Sequence[Ids], tokens: int = ASKED) -> list[str]:
    """What the model goes on with, greedily, until the page ends."""
    end = voice.tokenizer.token_to_id(END)
    stops = () if end is None else ((end,),)
    found: list[str] = []
    for at in range(0, len(prompts), AT_ONCE):
        batch = answer_batch(voice, prompts[at : at + AT_ONCE], stops, tokens)
        found += [answer.text for answer in batch]
    return found


def page_ids(voice: Voice, text: str) -> Ids:
    """A text at the beginning of a page, as pre-training read it."""
    end = voice.tokenizer.token_to_id(END)
    ids = voice.tokenizer.bare(False).encode(text, add_special_tokens=False).ids
    return tuple(ids) if end is None else (end, *ids)


def chat_ids(voice: Voice, rows: Sequence[Example], template: TemplateConfig) -> list[Ids]:
    """The questions in the chat format, up to where the answer starts."""
    found = list(prompts_of(rows, resolve(template, voice.tokenizer), voice.tokenizer))
    for prompt in found:
        if isinstance(prompt, LabError):
            raise prompt
    return [prompt for prompt in found if not isinstance(prompt, LabError)]


def ways_of_asking(voice: Voice, rows: Sequence[Example]) -> dict[str, list[str]]:
    """How the base goes on after each question: bare, as a line of its own, in the chat format."""
    questions = [row.prompt[-1].text for row in rows]
    prompts = {
        "bare question": [page_ids(voice, question) for question in questions],
        "question on its own line": [page_ids(voice, f"{question}\n") for question in questions],
        "chat format": chat_ids(voice, rows, LabConfig().template),
    }
    return {way: continued(voice, asked) for way, asked in prompts.items()}


def statements(row: Example) -> list[str]:
    """All sentences of the world that state what a row asks for."""
    fact = next(fact for fact in FACTS if fact.id == row.fact)
    return [fill(it, fact) for it in BY_NAME[fact.category].statements]


def known(voice: Voice, rows: Sequence[Example]) -> list[bool]:
    """Whether the base, asked in the style of its FAQ pages, goes on with the very answer."""
    prompts = [page_ids(voice, faq_prompt(row.prompt[-1].text)) for row in rows]
    lines = [text.strip().partition("\n")[0] for text in continued(voice, prompts, 24)]
    return [normalise(line) == normalise(row.answer) for line, row in zip(lines, rows, strict=True)]


def by_category(rows: Sequence[Example], right: Sequence[bool]) -> dict[str, float]:
    names = sorted({row.category or "" for row in rows})
    return {
        name: statistics.mean(
            ok for ok, row in zip(right, rows, strict=True) if row.category == name
        )
        for name in names
    }


# -- raw text ---------------------------------------------------------------------------------


def raw_text(voice: Voice, count: int = HELD_OUT_PAGES) -> tuple[Perplexity, float]:
    """How well held-out pages are predicted, their ends included, and the floor: the mean
    information that the generator put into a token of them, in nats."""
    held_out = list(islice(pages(UNREAD), count))
    (event,) = measure(voice, [page.text for page in held_out], ends=True)
    return event.perplexity, sum(page.nats for page in held_out) / event.perplexity.tokens


def base_figures(model: Path, count: int | None = None) -> dict[str, Any]:
    """What the base does with the held-out questions (``count`` of them) and with raw text."""
    rows = load(LabConfig().data).held_out[:count]
    voice = Voice.of(Side.BASE, open_folder(model))
    ways = ways_of_asking(voice, rows)
    right = known(voice, rows)
    text, floor = raw_text(voice)
    return {
        "questions": len(rows),
        "not answered": {
            way: statistics.mean(
                not answers(text, row.answer, statements(row))
                for text, row in zip(texts, rows, strict=True)
            )
            for way, texts in ways.items()
        },
        "known in FAQ style": statistics.mean(right),
        "known by category": by_category(rows, right),
        "raw text loss": text.loss,
        "raw text perplexity": text.perplexity,
        "floor": floor,
        "loss over floor": text.loss / floor,
        "examples": [
            {"question": row.prompt[-1].text, **{way: texts[at] for way, texts in ways.items()}}
            for at, row in enumerate(rows[:6])
        ],
    }


# -- runs -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Variant:
    """A run that differs from the default in ``settings``, and is asked in ``template``."""

    name: str
    settings: tuple[str, ...] = ()
    template: str | None = None


VARIANTS: Final = (
    Variant("default"),
    Variant("mask off", ("policy.train_on=all",)),
    Variant("half the epochs", ("train.epochs=3",)),
    Variant("half the epochs, mask off", ("train.epochs=3", "policy.train_on=all")),
    Variant("end of turn untrained", ("policy.end_of_turn=false",)),
    Variant("another template at generation", template="alpaca"),
    Variant("ten times the epochs", ("train.epochs=60", "train.keep_best=false")),
    Variant("house style", ("data.source=parrot-style",)),
    Variant("refusals", ("data.source=parrot-refusals",)),
    Variant("ten times the rate", ("train.learning_rate=0.001", "train.keep_best=false")),
)


@dataclass(slots=True)
class Found:
    """One run of a variant."""

    seconds: float
    score: Score
    raw: Perplexity


def run(variant: Variant, model: Path, seed: int, folder: Path) -> Found:
    """Trains in ``folder`` and asks the model that is left there."""
    config = LabConfig().with_settings(
        (f"model.name={model}", f"train.seed={seed}", *variant.settings)
    )
    directory = RunDirectory.create(folder / f"{variant.name}-{seed}", config)
    began = time.perf_counter()
    for event in execute(config, directory, lambda: False):
        if isinstance(event, RunFailed):
            raise LabError(event.message)
    seconds = time.perf_counter() - began
    voice = Voice.of(Side.TUNED, open_folder(directory.path / "model"))
    asked = TemplateConfig(variant.template) if variant.template else config.template
    return Found(seconds, graded(voice, config, asked), raw_text(voice)[0])


def graded(voice: Voice, config: LabConfig, template: TemplateConfig) -> Score:
    rows = load(config.data).held_out
    written = resolve(template, voice.tokenizer)
    events = grade(voice, rows, None, written, config.generate)
    return next(event.score for event in events if isinstance(event, Scored))


def run_figures(
    model: Path, seeds: Sequence[int], variants: Sequence[Variant] = VARIANTS
) -> Iterator[dict[str, Any]]:
    """Every variant with every seed, one after the other: shares, seconds, perplexity, and the
    base's own figures first."""
    base = Voice.of(Side.BASE, open_folder(model))
    config = LabConfig()
    score = graded(base, config, config.template)
    yield _row("base", [Found(0.0, score, raw_text(base)[0])])
    with tempfile.TemporaryDirectory() as folder:
        for variant in variants:
            found = [run(variant, model, seed, Path(folder)) for seed in seeds]
            yield _row(variant.name, found)


def _row(name: str, found: Sequence[Found]) -> dict[str, Any]:
    """Each figure as its median, lowest and highest over the seeds."""

    def spread(figure: Callable[[Found], float]) -> tuple[float, float, float]:
        values = [figure(it) for it in found]
        return statistics.median(values), min(values), max(values)

    categories = [tally.name for tally in found[0].score.by_category]
    return {
        "run": name,
        "seeds": len(found),
        "exact match": spread(lambda it: it.score.overall.share),
        "stopped": spread(lambda it: it.score.overall.stopped / it.score.overall.count),
        "raw text perplexity": spread(lambda it: it.raw.perplexity),
        "seconds": spread(lambda it: it.seconds),
        "by category": {
            name: spread(lambda it, at=at: it.score.by_category[at].share)  # type: ignore[misc]
            for at, name in enumerate(categories)
        },
    }


# -- printing ---------------------------------------------------------------------------------


def base_table(figures: dict[str, Any]) -> str:
    lines = [f"| of {figures['questions']} held-out questions | share |", "| --- | --- |"]
    lines += [f"| not answered: {way} | {it:.3f} |" for way, it in figures["not answered"].items()]
    lines += [f"| known in FAQ style | {figures['known in FAQ style']:.3f} |"]
    lines += [f"| - {name} | {it:.2f} |" for name, it in figures["known by category"].items()]
    return "\n".join(
        [
            *lines,
            "",
            f"Raw text: {figures['raw text loss']:.4f} nats a token (perplexity "
            f"{figures['raw text perplexity']:.3f}), floor {figures['floor']:.4f}.",
        ]
    )


def run_lines(row: dict[str, Any]) -> str:
    """One run of the table: each figure's median, and in brackets the lowest and highest."""

    def shown(values: tuple[float, float, float], digits: int) -> str:
        middle, low, high = (f"{it:.{digits}f}" for it in values)
        return middle if low == high else f"{middle} ({low} to {high})"

    parts = ", ".join(f"{name} {it[0]:.2f}" for name, it in row["by category"].items())
    return (
        f"| {row['run']} | {shown(row['exact match'], 3)} | {shown(row['stopped'], 3)} "
        f"| {shown(row['raw text perplexity'], 2)} | {shown(row['seconds'], 1)} | {parts} |"
    )


HEAD: Final = (
    "| run | exact match | stopped | raw perplexity | seconds | by category |\n"
    "| --- | --- | --- | --- | --- | --- |"
)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("base", "runs"))
    parser.add_argument("--model", type=Path, default=Path("examples/parrot"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 43, 44])
    parser.add_argument("--only", action="append", help="a run's name; may be given several times")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args(arguments)
    if chosen.what == "base":
        figures = base_figures(chosen.model)
        print(json.dumps(figures, indent=2) if chosen.json else base_table(figures))
        return
    variants = [it for it in VARIANTS if chosen.only is None or it.name in chosen.only]
    if not chosen.json:
        print(HEAD)
    for row in run_figures(chosen.model, chosen.seeds, variants):
        print(json.dumps(row) if chosen.json else run_lines(row), flush=True)


if __name__ == "__main__":
    main()
