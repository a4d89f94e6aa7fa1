"""``make bench``: how often the lab's masks are right, over every template of three packages.

Each template renders each conversation, in the lab and in transformers, and ``tests.oracle`` judges
which characters are trained. A pair is a template with a conversation that transformers renders.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

import transformers

from sft_core import templates
from sft_core.config import MaskPolicy
from sft_core.doctor import examine
from sft_core.encode import missing_tokens
from sft_core.tokenizer import Tokenizer, load_tokenizer
from sft_core.types import Example, LabError, Severity, Template, TemplateError
from tests import bench_tags, oracle
from tests.chat_templates import Found, gather
from tests.many_conversations import conversations, stand_still

TOKENS: Final = {"bos_token": "<s>", "eos_token": "</s>"}
_BESIDE_THE_MASK: Final = {
    "empty-answer",
    "ends-on-user-turn",
    "forged-special-token",
    "marker-split",
    "merged-border",
    "no-end-of-turn",
    "unknown-token",
}
"""Findings that a wrong label must not hide behind: they are about something else."""


# -- one template -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Pair:
    """A template with a conversation: what the lab made of it and what the oracle says.

    ``outcome`` is "right", "wrong", "refused" (by the lab alone), "refused by both" or "rendered
    by the lab alone". ``findings`` are those of the doctor that concern the mask.
    """

    origin: str
    template: str
    conversation: str
    outcome: str
    method: str = ""
    form: str = "standard"
    causes: tuple[str, ...] = ()
    sentences: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()


def judge(found: Found) -> list[Pair]:
    """Every conversation through one template."""
    transformers.logging.set_verbosity_error()
    stand_still()
    return [_pair(found, example) for example in conversations(found.source)]


def _pair(found: Found, example: Example) -> Pair:
    pair = Pair(found.origin, found.name, example.id, "right")
    expected = oracle.reference(found.source, example, TOKENS)
    try:
        rendered = templates.render(Template(found.name, found.source), example, TOKENS)
        again = templates.render(Template(found.name, found.source), example, TOKENS)
    except TemplateError as error:
        both = expected is None
        return replace(
            pair,
            outcome="refused by both" if both else "refused",
            causes=() if both else (_why(error),),
            sentences=(str(error),),
        )
    standard = rendered.text == expected
    form = "standard" if standard else "another"
    pair = replace(pair, method=rendered.method, form=form)
    wrong = oracle.complaints(found.source, example, rendered, TOKENS)
    if again != rendered:
        wrong = [*wrong, oracle.Complaint("skeleton differs", "a second render says otherwise")]
    if not wrong:
        return pair if expected is not None else replace(pair, outcome="rendered by the lab alone")
    return replace(
        pair,
        outcome="wrong",
        causes=tuple(dict.fromkeys(it.cause for it in wrong)),
        sentences=tuple(f"{it.cause}: {it.sentence}" for it in wrong[:4]),
        findings=_findings(found, example),
    )


def _why(error: TemplateError) -> str:
    """The kind of a refusal."""
    text = str(error)
    return "cannot tell" if "cannot tell which characters" in text else "raises"


def _findings(found: Found, example: Example) -> tuple[str, ...]:
    template = Template(found.name, found.source)
    all_found = examine(template, fitting_tokenizer(template), example, MaskPolicy())
    grave = [it.code for it in all_found if it.severity is not Severity.INFO]
    return tuple(code for code in grave if code not in _BESIDE_THE_MASK)


def fitting_tokenizer(template: Template) -> Tokenizer:
    """A byte tokenizer that has the markers of a template as tokens, and ``TOKENS``."""
    plain = load_tokenizer("bytes")
    own = Tokenizer(plain.name, plain.backend, {**plain.special_tokens, **TOKENS})
    try:
        missing = missing_tokens(template, own)
    except LabError:
        return own
    return own.with_tokens(missing) if missing else own


# -- all of them ------------------------------------------------------------------------------


def run(found: Sequence[Found], workers: int = 2) -> list[Pair]:
    """Every pair, judged in a few processes."""
    with ProcessPoolExecutor(workers) as pool:
        return [pair for pairs in pool.map(judge, found, chunksize=4) for pair in pairs]


def report(found: Sequence[Found], pairs: Sequence[Pair]) -> None:
    """The tables."""
    origins = Counter(it.origin for it in found)
    print(f"\n{len(found)} chat templates: " + ", ".join(f"{n} {o}" for o, n in origins.items()))
    rendered = [it for it in pairs if it.outcome in ("right", "wrong", "refused")]
    right = [it for it in rendered if it.outcome == "right"]
    print(
        f"{len(rendered):,} pairs that transformers renders, of {len(pairs):,} in all; exactly "
        f"right: {len(right):,} = {len(right) / max(len(rendered), 1):.2%}"
    )
    _table("outcome", (it.outcome for it in pairs))
    _table("how the regions were found", (it.method or "refused" for it in rendered))
    _table("form of the messages", (f"{it.form} ({it.outcome})" for it in pairs if it.method))
    rest = [it for it in pairs if it.outcome in ("wrong", "refused")]
    _table("the rest by cause", (f"{it.outcome}: {it.causes[0]}" for it in rest))
    _table("the rest by conversation", (it.conversation for it in rest))
    silent = [it for it in pairs if it.outcome == "wrong" and not it.findings]
    print(f"\nwrong labels without a finding: {len(silent)}")
    for it in rest:
        mark = "" if it.findings or it.outcome == "refused" else "  NO FINDING"
        print(f"  {it.outcome:8s}{it.origin} {it.template} / {it.conversation}{mark}")
        for sentence in it.sentences:
            print(f"          {sentence[:200]}")


def _table(title: str, rows: Iterable[str]) -> None:
    print(f"\n{title}")
    for name, count in Counter(rows).most_common():
        print(f"  {name:52s}{count:8,d}")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--folder",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="more templates; where it holds a tokenizer, that is compared with too",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="every pair, as JSON")
    parser.add_argument("--only", metavar="TEXT", help="templates with this in their name")
    chosen = parser.parse_args(arguments)
    found = [it for it in gather(chosen.folder) if not chosen.only or chosen.only in it.name]
    pairs = run(found)
    report(found, pairs)
    compared = bench_tags.run(found, chosen.folder)
    bench_tags.report(compared)
    if chosen.json:
        everything = {
            "pairs": [asdict(it) for it in pairs],
            "tags": [asdict(it) for it in compared],
        }
        chosen.json.write_text(json.dumps(everything, indent=1))


if __name__ == "__main__":
    main()
