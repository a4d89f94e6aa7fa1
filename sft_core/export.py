"""A run as one zip: its weights, its settings and log, and a script that does it again.

The script (``exported/train.py``) needs torch and transformers alone, and peft for a LoRA run. The
rows go with it as the ids and labels that were trained, in the order in which they were dealt
out, so that it repeats the run rather than something like it.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sft_core import embedded
from sft_core.catalogue import Origin, find
from sft_core.checkpoint import ADAPTER
from sft_core.config import LabConfig
from sft_core.dealing import steps
from sft_core.disk import storing
from sft_core.events import RunStarted
from sft_core.rundir import CONFIG, EVENTS, TEMPLATE, TEST_ROWS, RunDirectory
from sft_core.types import LabError, ModelError

if TYPE_CHECKING:
    from sft_core.prepare import Prepared, Row

SCRIPT: Final = Path(__file__).parent / "exported" / "train.py"
README: Final = """# Run {run} of SFT Lab

model/          the tuned model, for AutoModelForCausalLM and AutoTokenizer
{adapter}config.json     everything that was chosen; `python -m sft_core train --config config.json`
template.jinja  the chat template in force
events.jsonl    everything that happened, one event a line
test.jsonl      the rows kept back for testing
{script}
"""
ADAPTED: Final = """adapter/        what LoRA learnt, alone; model/ has it merged. With peft, on the
                model that the run started from: PeftModel.from_pretrained(base, "adapter").
                Where the template added tokens, resize that model's embeddings to the
                vocab_size in model/config.json first
"""
AGAIN: Final = """train.py        does the run again: needs torch and transformers{peft},
                and the files settings.json, train.jsonl, eval.jsonl and steps.jsonl
                beside it, and the folder base/ where there is one: the model that the
                run started from"""
NOT_AGAIN: Final = (
    "There is no script to do it again, since what it needs cannot be read now: {why}"
)


def export(directory: RunDirectory, target: Path) -> Path:
    """Writes the zip and returns its path. Rows that cannot be read any more are left out, with
    the script that needs them. Raises ModelError where the run saved no weights, StorageError.

    Imports torch, so a page has this done in the compute process.
    """
    weights = directory.weights()
    if weights is None:
        raise ModelError("This run has saved no weights, so there is nothing to export.")
    has_adapter = (weights / ADAPTER).is_dir()
    script = NOT_AGAIN
    extra: list[tuple[str, str]] = []
    files = list(_files(directory, weights))
    try:
        base = list(_base(directory.config()))
        extra = list(_repetition(directory))
        files += base
        script = AGAIN.format(peft=", peft for its LoRA" if has_adapter else "")
    except LabError as error:
        script = NOT_AGAIN.format(why=error)
    unfinished = target.with_name(f".{target.name}.part")
    with storing(target):
        try:
            with zipfile.ZipFile(unfinished, "w", zipfile.ZIP_DEFLATED) as archive:
                for file, name in files:
                    # Weights do not get smaller, and take long to find that out.
                    packed = zipfile.ZIP_STORED if file.suffix == ".safetensors" else None
                    archive.write(file, name, packed)
                for name, text in extra:
                    archive.writestr(name, text)
                adapter = ADAPTED if has_adapter else ""
                readme = README.format(run=directory.id, adapter=adapter, script=script)
                archive.writestr("README.md", readme)
            unfinished.replace(target)
        finally:
            unfinished.unlink(missing_ok=True)
    return target


def _files(directory: RunDirectory, weights: Path) -> Iterator[tuple[Path, str]]:
    for file in sorted(weights.rglob("*")):
        if file.is_file():
            place = file.relative_to(weights)
            yield file, str(place) if place.parts[0] == ADAPTER else f"model/{place}"
    for name in (CONFIG, TEMPLATE, EVENTS, TEST_ROWS):
        if (directory.path / name).is_file():
            yield directory.path / name, name


def _base(config: LabConfig) -> Iterator[tuple[Path, str]]:
    """The model that the run started from, where nobody could fetch it from elsewhere: it lies in
    the lab's checkout alone, and is small. Raises ModelError where it is gone."""
    if find(config.model.name).origin is Origin.EMBEDDED:
        folder = embedded.model_folder()
        for name in (*embedded.MODEL_FILES, *embedded.FURTHER_FILES):
            if (folder / name).is_file():
                yield folder / name, f"base/{name}"


# -- doing it again ---------------------------------------------------------------------------


def _repetition(directory: RunDirectory) -> Iterator[tuple[str, str]]:
    """Name and text of the script and of all that it reads. Raises LabError where the rows
    cannot be read any more."""
    record = directory.read()
    started = record.last(RunStarted)
    if started is None:
        raise ModelError("the run ended before it had read them.")
    config = record.config
    prepared = _prepared(config)
    lengths = [len(row.ids) for row in prepared.train]
    yield "train.py", SCRIPT.read_text(encoding="utf-8")
    yield "settings.json", json.dumps(_settings(config, started, prepared), indent=2)
    yield "train.jsonl", _lines(map(_row, prepared.train))
    yield "eval.jsonl", _lines(map(_row, prepared.eval))
    yield "steps.jsonl", _lines(steps(lengths, config.train, started.total_steps))


def _prepared(config: LabConfig) -> Prepared:
    """The rows as training made them, without the warnings that it had already."""
    from sft_core.prepare import prepare

    work = prepare(config, lambda: False)
    while True:
        try:
            next(work)
        except StopIteration as end:
            prepared: Prepared = end.value
            return prepared


def _settings(config: LabConfig, started: RunStarted, prepared: Prepared) -> dict[str, Any]:
    from sft_core.models import pad_id
    from sft_core.schedule import warmup_steps

    tokenizer = prepared.tokenizer
    return {
        "config": config.to_dict(),
        "origin": find(config.model.name).origin,
        "precision": started.precision,
        "steps": started.total_steps,
        "warmup": warmup_steps(config.train, started.total_steps),
        "pad_id": pad_id(tokenizer),
        "new_ids": [tokenizer.token_to_id(text) for text in started.added_tokens],
        "vocabulary": tokenizer.vocab_size,
    }


def _row(row: Row) -> dict[str, Any]:
    return {"id": row.id, "input_ids": list(row.ids), "labels": list(row.labels)}


def _lines(values: Iterable[Any]) -> str:
    return "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values)
