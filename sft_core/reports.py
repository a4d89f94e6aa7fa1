"""What the lab found, as plain JSON for other programs: a row as it would be trained on, what is
wrong with a data set, an answer, an evaluation."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from sft_core.audit import Audit, audit
from sft_core.config import GenerateConfig, MaskPolicy, TrainConfig
from sft_core.data import Loaded
from sft_core.doctor import Findings, doctor, examine, unreadable_rows
from sft_core.encode import encode, encode_prompt
from sft_core.events import Answered, Perplexity, Score, Side
from sft_core.formats import recognise, to_example
from sft_core.rivals import Difference, compare, mask
from sft_core.sandbox import render
from sft_core.tokenizer import Tokenizer
from sft_core.types import Example, Finding, LabError, RowError, Template

_TRAIN: Final = TrainConfig()


def examples(rows: Iterable[Any]) -> Iterator[Example | RowError]:
    """Rows as they came from a file, each read by the format of its own columns, so that a file
    may mix formats; what cannot be used comes back as its error, in its place."""
    for number, values in enumerate(rows, 1):
        id = f"row-{number}"
        try:
            if isinstance(values, LabError):
                raise values
            known = isinstance(values, Mapping)
            format, columns = recognise(list(map(str, values)), {}) if known else ("messages", {})
            yield to_example(values, format, columns, id)
        except RowError as error:
            yield error
        except LabError as error:
            yield RowError(id, str(error))


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What the doctor says of a data set in its setting, and the figures of the same rows."""

    findings: Findings
    audit: Audit

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {**self.findings.to_dict(), "audit": json.loads(self.audit.to_json())}


def diagnosis(
    data: Loaded,
    template: Template,
    tokenizer: Tokenizer,
    policy: MaskPolicy,
    generate_config: GenerateConfig,
    max_length: int | None = None,
    train: TrainConfig = _TRAIN,
) -> Diagnosis:
    """A data set, examined and counted, and laid out in the batches of ``train``. Never
    raises for what is wrong with rows or template."""
    found = doctor(
        template, tokenizer, data.examples, policy, generate_config, max_length=max_length
    )
    bad = unreadable_rows([(row.row, row.message) for row in data.bad])
    figures = audit(data.examples, template, tokenizer, policy, max_length, train=train)
    return Diagnosis(Findings.sorted(found.rows, (*found.items, *bad)), figures)


def row(
    example: Example,
    template: Template,
    tokenizer: Tokenizer,
    policy: MaskPolicy,
    max_length: int | None = None,
    rival: str | None = None,
) -> dict[str, Any]:
    """A row as it would be trained on. Raises the LabError of one that cannot be rendered or
    encoded.

    ``ids``, ``labels``, ``reasons`` and ``offsets`` run in parallel; offsets are half-open ranges
    of characters of ``text``. ``generation_prompt`` is the row without its last answer, as text
    and as the ids that generation sends. With the name of a ``rival``, "rival" says what that
    method would train and how it differs; the length limit does not touch it.
    """
    special = tokenizer.special_tokens
    rendered = render(template, example, special)
    encoded = encode(rendered, tokenizer, policy, max_length)
    asked = replace(example, messages=example.prompt)
    prompt = render(template, asked, special, add_generation_prompt=True)
    findings = examine(template, tokenizer, example, policy, max_length)
    reported: dict[str, Any] = {
        "id": example.id,
        "text": rendered.text,
        "ids": encoded.ids,
        "labels": encoded.labels,
        "reasons": encoded.reasons,
        "offsets": encoded.offsets,
        "generation_prompt": prompt.text,
        "generation_prompt_ids": encode_prompt(prompt, tokenizer),
        "findings": [_finding(finding) for finding in findings],
    }
    if rival is not None:
        made = mask(rival, template, example, tokenizer, policy)
        differences = compare(encoded, rendered, made)
        reported["rival"] = {
            "name": rival,
            "text": made.text,
            "ids": made.ids,
            "labels": made.labels,
            "differences": [_difference(it) for it in differences],
        }
    return reported


def _difference(difference: Difference) -> dict[str, Any]:
    """``places`` are characters of the row's text, ``tokens`` positions in its ids."""
    return {
        "kind": difference.kind,
        "sentence": difference.sentence,
        "places": difference.places,
        "tokens": difference.tokens,
    }


def _finding(finding: Finding) -> dict[str, Any]:
    """A finding without the parts that it does not have."""
    values = asdict(finding)
    return {name: value for name, value in values.items() if value not in (None, "", ())}


def answers(prompt: str, found: Mapping[Side, Answered]) -> dict[str, Any]:
    """What each side answered to ``prompt``."""
    return {"prompt": prompt, **{side.value: _answer(answer) for side, answer in found.items()}}


def _answer(answer: Answered) -> dict[str, Any]:
    return {
        "text": answer.text,
        "stopped": answer.stopped,
        "reason": answer.reason,
        "ids": answer.ids,
        "prompt_ids": answer.prompt_ids,
        "seconds": round(answer.seconds, 3),
    }


def evaluation(
    run: str,
    template: str,
    found: Mapping[Side, Score],
    read: Mapping[Side, Perplexity] | None = None,
) -> dict[str, Any]:
    """The tuned model's figures at the top, the base model's under "base". Shares lie in [0, 1]
    and are null where the data does not tell. ``template`` is what prompts were written in.
    What no answers or no texts were asked for is not there at all."""
    figures = {side: _figures(score) for side, score in found.items()}
    told: dict[str, Any] = {"run": run, "template": template, **figures.get(Side.TUNED, {})}
    if found:
        told["base"] = figures.get(Side.BASE)
    if read:
        told["perplexity"] = perplexities(read)
    return told


def perplexities(read: Mapping[Side, Perplexity]) -> dict[str, Any]:
    """How well each side predicts raw texts. "ratio" is tuned / base: above 1, something was
    forgotten."""
    ratio = perplexity_ratio(read)
    return {**{side.value: _predicted(it) for side, it in read.items()}, "ratio": ratio}


def perplexity_ratio(read: Mapping[Side, Perplexity]) -> float | None:
    """tuned / base, from the losses, so that it holds where a perplexity is too large a number;
    None where one of them is missing, or where the ratio itself is too large."""
    if len(read) < len(Side):
        return None
    try:
        return math.exp(read[Side.TUNED].loss - read[Side.BASE].loss)
    except OverflowError:
        return None


def _predicted(found: Perplexity) -> dict[str, Any]:
    return {
        "perplexity": _finite(found.perplexity),
        "loss": found.loss,
        "bits_per_byte": _finite(found.bits_per_byte),
        "tokens": found.tokens,
        "bytes": found.bytes,
        "documents": found.documents,
    }


def _finite(number: float) -> float | None:
    """JSON knows no infinity."""
    return number if math.isfinite(number) else None


def _figures(score: Score) -> dict[str, Any]:
    overall = score.overall
    return {
        "rows": overall.count,
        "exact_match": overall.share,
        "stopped": overall.stopped / overall.count if overall.count else 0.0,
        "seen": score.seen.share if score.seen else None,
        "unseen": score.unseen.share if score.unseen else None,
        "by_category": {tally.name: tally.share for tally in score.by_category},
        "counts": _counts(score),
    }


def _counts(score: Score) -> dict[str, int]:
    """How many rows each share was computed from."""
    parts = [part for part in (score.seen, score.unseen) if part]
    return {tally.name: tally.count for tally in (*parts, *score.by_category)}
