"""From messages to labels: the lab beside the tokenizer alone and beside TRL, in one run.

The rows are those of a data file, tiled to a number; nothing in any contender remembers a whole
text or row. TRL runs what ``SFTTrainer`` runs before training: its own ``_prepare_dataset``, over
a ``datasets.Dataset`` with the same messages, and with a template that prints the same text.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
from transformers import AutoTokenizer

from sft_core import data, templates
from sft_core.config import DataConfig, MaskPolicy
from sft_core.encode import encode_many
from sft_core.prepare import Row
from sft_core.sandbox import render_many
from sft_core.templates import find_preset
from sft_core.tokenizer import Tokenizer, load_tokenizer
from sft_core.types import Encoded, Example, Rendered, Template
from tests.bench_race import Contender, race

ROOT = Path(__file__).resolve().parents[1]
MAX_LENGTH = 1024  # what SFTConfig has, and what the lab's rows are cut to here
WITHOUT_TRL = "TRL is not installed, so it does not run: pip install --no-deps 'trl==1.16.*'"

# A line of the templates, and the same with the tags that TRL finds answers by.
_PRINTED = {
    "chatml": "    {{ '<|im_start|>' + message.role + '\\n' + message.content"
    " + '<|im_end|>\\n' }}\n",
    "tokenizer": "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>'"
    " + '\n'}}",
}
_TAGGED = (
    "{%- if message.role == 'assistant' -%}{{ '<|im_start|>assistant\\n' }}{%- generation -%}"
    "{{ message.content + '<|im_end|>' }}{%- endgeneration -%}{{ '\\n' }}{%- else -%}"
    "{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}{%- endif -%}"
)


@dataclass(frozen=True, slots=True)
class Case:
    """Rows through one template. ``own`` is the template as a visitor would have typed it, so
    that it renders in the sandbox's process; ``tagged`` prints the same with generation tags."""

    rows: Sequence[Example]
    tokenizer: Tokenizer
    template: Template
    own: Template
    tagged: str
    texts: Sequence[str]

    @property
    def special(self) -> dict[str, str]:
        return dict(self.tokenizer.special_tokens)


def tiled(file: str, count: int) -> list[Example]:
    own = data.load(DataConfig(file, rows=None)).examples
    return [own[at % len(own)] for at in range(count)]


def case(name: str, rows: Sequence[Example], tokenizer: Tokenizer) -> Case:
    source = find_preset(name).source if name == "chatml" else tokenizer.chat_templates["default"]
    template = Template(name, source)
    own = Template(name, source + "{#- typed by a visitor #}")
    found = list(render_many(template, rows, tokenizer.special_tokens))
    failed = [it for it in found if not isinstance(it, Rendered)]
    assert not failed, failed[:1]
    texts = [it.text for it in found if isinstance(it, Rendered)]
    assert _PRINTED[name] in source
    tagged = source.replace(_PRINTED[name], _TAGGED)
    return Case(rows, tokenizer, template, own, tagged, texts)


# -- the lab --------------------------------------------------------------------------------------


def labelled(one: Case, template: Template) -> Iterator[Row]:
    """What ``prepare`` does with rows."""
    rendered = render_many(template, one.rows, one.special)
    for found in encode_many(rendered, one.tokenizer, MaskPolicy(), MAX_LENGTH):
        assert isinstance(found, Encoded), found
        yield Row.of("", found)


def lab(name: str, one: Case, template: Template) -> Contender:
    return Contender(name, lambda: float(sum(1 for _ in labelled(one, template))))


def labels_alone(one: Case) -> Contender:
    rendered = list(render_many(one.template, one.rows, one.special))

    def run() -> float:
        found = encode_many(rendered, one.tokenizer, MaskPolicy(), MAX_LENGTH)
        return float(sum(1 for it in found if isinstance(it, Encoded) and Row.of("", it)))

    return Contender("the lab, rendered rows to labels", run)


# -- its peers ------------------------------------------------------------------------------------


def peer_tokenizer(one: Case) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        one.tokenizer.save(Path(folder))
        made = AutoTokenizer.from_pretrained(folder)
    made.chat_template = one.tagged
    return made


def tokenizers_alone(one: Case, peer: Any) -> list[Contender]:
    def with_transformers() -> float:
        for at in range(0, len(one.texts), 1000):
            peer(one.texts[at : at + 1000], add_special_tokens=False)
        return float(len(one.texts))

    def bare() -> float:
        for at in range(0, len(one.texts), 1000):
            texts = one.texts[at : at + 1000]
            found = one.tokenizer.backend.encode_batch(texts, add_special_tokens=False)
            for encoding in found:
                encoding.ids  # noqa: B018  (reading makes the list of ids)
        return float(len(one.texts))

    return [
        Contender("tokenizer alone: transformers, 1,000 at once", with_transformers),
        Contender("tokenizer alone: encode_batch, ids read", bare),
    ]


def columns(one: Case) -> list[dict[str, Any]]:
    """The rows as TRL takes them. Arguments of calls are text, since Arrow would give each row
    the keys of all others."""
    made = []
    for at, row in enumerate(one.rows):
        messages = [dict(message) for message in templates.conversation(row).messages]
        for message in messages:
            if calls := message.get("tool_calls"):
                message["tool_calls"] = json.dumps(calls)
        made.append({"row": at, "messages": messages})
    return made


def trl_prepare(peer: Any, rows: datasets.Dataset, completion: bool) -> datasets.Dataset:
    from trl import SFTConfig, SFTTrainer

    with tempfile.TemporaryDirectory() as folder:
        settings = SFTConfig(
            output_dir=folder,
            max_length=MAX_LENGTH,
            assistant_only_loss=not completion,
            bf16=False,
            use_cpu=True,
            report_to="none",
        )
    trainer = SimpleNamespace(_tokenizer=peer, chat_template=None, completion_only_loss=completion)
    return SFTTrainer._prepare_dataset(trainer, rows, peer, settings, False, None, "train")


def trl_contenders(one: Case, peer: Any) -> list[Contender]:
    whole = columns(one)
    asked = [
        {"row": it["row"], "prompt": it["messages"][:-1], "completion": it["messages"][-1:]}
        for it in whole
        if it["messages"][-1]["role"] == "assistant"
    ]
    talks, pairs = datasets.Dataset.from_list(whole), datasets.Dataset.from_list(asked)

    def run(rows: datasets.Dataset, completion: bool) -> float:
        trl_prepare(peer, rows, completion)
        return float(len(rows))

    return [
        Contender("TRL: assistant_only_loss", lambda: run(talks, False)),
        Contender("TRL: prompt and completion", lambda: run(pairs, True)),
    ]


# -- are the labels the same ----------------------------------------------------------------------


def parity(one: Case, peer: Any) -> str:
    """How many rows get the same labels from TRL as from the lab, and why the others do not."""
    prepared = trl_prepare(peer, datasets.Dataset.from_list(columns(one)), False)
    theirs = {row["row"]: (row["input_ids"], row["labels"]) for row in prepared}
    same = ids = 0
    for at, row in enumerate(labelled(one, one.template)):
        if at in theirs:
            same += theirs[at] == (list(row.ids), list(row.labels))
            ids += theirs[at][0] != list(row.ids)
    other = len(theirs) - same - ids
    return (
        f"Labels against TRL's: {same:,} of {len(theirs):,} rows equal; {ids:,} differ in ids "
        f"(text is cut where an answer starts), {other:,} in labels alone; TRL dropped "
        f"{len(one.rows) - len(theirs):,}."
    )


def bench_pipeline(files: Sequence[str], rounds: int, count: int) -> None:
    datasets.disable_progress_bars()
    try:
        import trl
    except ImportError:
        trl = None
    tokenizer = load_tokenizer("smollm2-135m-instruct")
    for file in files:
        rows = tiled(file, count)
        for name in ("chatml", "tokenizer"):
            one = case(name, rows, tokenizer)
            peer = peer_tokenizer(one)
            contenders = tokenizers_alone(one, peer)
            if trl is not None:
                contenders += trl_contenders(one, peer)
            contenders.append(lab("the lab, template in the sandbox's process", one, one.own))
            if name == "chatml":
                contenders.append(lab("the lab, template that it ships", one, one.template))
            contenders.append(labels_alone(one))
            load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
            title = f"From messages to labels: {Path(file).name}, template {name}, load {load:.1f}"
            race(title, "rows/s", contenders, rounds)
            print(WITHOUT_TRL if trl is None else parity(one, peer))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", action="append", help="a data file; may be given several times")
    parser.add_argument("--count", type=int, default=4000, help="rows to tile it to")
    parser.add_argument("--rounds", type=int, default=7, help="interleaved runs")
    chosen = parser.parse_args()
    files = chosen.rows or [str(ROOT / "examples/short_answers/rows.jsonl")]
    bench_pipeline(files, chosen.rounds, chosen.count)


if __name__ == "__main__":
    main()
