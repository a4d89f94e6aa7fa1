"""A zip that loads in plain transformers, and whose script repeats the run's own losses."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from sft_core import embedded
from sft_core.config import (
    DataConfig,
    GenerateConfig,
    LabConfig,
    LoraConfig,
    ModelConfig,
    TemplateConfig,
    TrainConfig,
)
from sft_core.data import load, write_jsonl
from sft_core.embedded import MODEL_FILES
from sft_core.events import EvalLogged, RunFinished, StepLogged
from sft_core.execution import execute
from sft_core.export import export
from sft_core.models import open_folder
from sft_core.rundir import RunDirectory
from sft_core.types import ModelError, StorageError
from tests.small_jobs import tiny, trained


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    return trained(tmp_path_factory.mktemp("runs") / "run", accumulation=2, warmup_steps=2)


@pytest.fixture(scope="module")
def unpacked(run: RunDirectory, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(export(run, folder / "run.zip")) as archive:
        archive.extractall(folder)
    return folder


def repeated(folder: Path) -> str:
    """What the script prints that lies in an unpacked zip."""
    ran = subprocess.run(
        [sys.executable, "train.py"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": "", "OMP_NUM_THREADS": "1"},
    )
    return ran.stdout


def test_the_model_is_the_run_s_and_opens_in_plain_transformers(
    run: RunDirectory, unpacked: Path
) -> None:
    ids = torch.tensor([[256, 72, 105, 257]])
    plain = AutoModelForCausalLM.from_pretrained(unpacked / "model")
    weights = run.weights()
    assert weights
    with torch.no_grad():
        assert torch.equal(plain(ids).logits, open_folder(weights).model(ids).logits)
    assert AutoTokenizer.from_pretrained(unpacked / "model")("Hi").input_ids == [72, 105]


def test_the_settings_can_be_run_again(run: RunDirectory, unpacked: Path) -> None:
    assert (unpacked / "config.json").read_text() == run.config().to_json()
    template = run.template()
    assert template
    assert (unpacked / "template.jinja").read_text() == template.source
    assert "does the run again" in (unpacked / "README.md").read_text()


def test_the_script_repeats_the_run_s_losses(run: RunDirectory, unpacked: Path) -> None:
    script = repeated(unpacked)
    record = run.read()
    losses = [float(text) for text in re.findall(r"  loss (\S+)", script)]
    assert losses == pytest.approx([event.loss for event in record.of(StepLogged)], abs=2e-3)
    evals = [float(text) for text in re.findall(r"eval loss (\S+)", script)]
    logged = [event.loss for event in record.of(EvalLogged) if event.step > 0]
    assert evals == pytest.approx(logged, abs=2e-3)
    again = AutoModelForCausalLM.from_pretrained(unpacked / "retrained").state_dict()
    first = AutoModelForCausalLM.from_pretrained(unpacked / "model").state_dict()
    assert again.keys() == first.keys()
    for name, tensor in first.items():
        torch.testing.assert_close(again[name], tensor, atol=1e-4, rtol=0)


def parrot(folder: Path) -> RunDirectory:
    """A run of the embedded model, short enough for a test."""
    config = LabConfig(
        data=DataConfig("six-tasks", rows=16, eval_rows=4),
        model=ModelConfig(name="parrot"),
        template=TemplateConfig("chatml"),
        train=TrainConfig(max_steps=3, batch_size=4, eval_every=0, sample_every=0),
        generate=GenerateConfig(max_new_tokens=2),
    )
    directory = RunDirectory.create(folder, config)
    assert isinstance(list(execute(config, directory))[-1], RunFinished)
    return directory


def test_a_run_of_the_embedded_model_takes_its_base_along(tmp_path: Path) -> None:
    """Nobody could fetch it from elsewhere, so the zip alone repeats the run."""
    run = parrot(tmp_path / "run")
    with zipfile.ZipFile(export(run, tmp_path / "run.zip")) as archive:
        archive.extractall(tmp_path / "unpacked")
    assert {file.name for file in (tmp_path / "unpacked" / "base").iterdir()} >= set(MODEL_FILES)
    script = repeated(tmp_path / "unpacked")
    losses = [float(text) for text in re.findall(r"  loss (\S+)", script)]
    logged = [event.loss for event in run.read().of(StepLogged)]
    assert len(logged) == 3
    assert losses == pytest.approx(logged, abs=2e-2)


def test_a_base_that_is_gone_costs_the_script_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = parrot(tmp_path / "run")
    monkeypatch.setattr(embedded, "FOLDER", tmp_path / "nowhere")
    with zipfile.ZipFile(export(run, tmp_path / "run.zip")) as archive:
        names = archive.namelist()
        readme = archive.read("README.md").decode()
    assert "model/model.safetensors" in names
    assert not {"train.py", "base/model.safetensors"} & set(names)
    assert "lacks examples/parrot" in readme


def test_rows_that_are_gone_cost_the_script_alone(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    write_jsonl(load(DataConfig("six-tasks", rows=20)).examples, file)
    config = replace(tiny(max_steps=1), data=DataConfig(source=str(file), eval_rows=2))
    directory = RunDirectory.create(tmp_path / "run", config)
    list(execute(config, directory))
    file.unlink()
    with zipfile.ZipFile(export(directory, tmp_path / "run.zip")) as archive:
        names = archive.namelist()
        readme = archive.read("README.md").decode()
    assert "model/model.safetensors" in names
    assert "train.py" not in names
    assert "rows.jsonl" in readme


def test_a_lora_run_takes_its_adapter_along_and_is_repeated(tmp_path: Path) -> None:
    """The markers of this template are new to the model, so their embeddings are learnt too."""
    config = tiny(method="lora", learning_rate=0.01, warmup_steps=0).but(
        lora=LoraConfig(rank=4), template=TemplateConfig("chatml")
    )
    run = RunDirectory.create(tmp_path / "run", config)
    assert isinstance(list(execute(config, run))[-1], RunFinished)
    folder = tmp_path / "unpacked"
    with zipfile.ZipFile(export(run, tmp_path / "run.zip")) as archive:
        archive.extractall(folder)
    assert not (folder / "model" / "adapter").exists()
    readme = (folder / "README.md").read_text()
    assert "adapter/        what LoRA learnt" in readme
    assert "peft for its LoRA" in readme
    record = run.read()
    losses = [float(text) for text in re.findall(r"  loss (\S+)", repeated(folder))]
    logged = [event.loss for event in record.of(StepLogged)]
    assert losses == pytest.approx(logged, abs=2e-3)
    assert logged[-1] < logged[0] - 0.1
    again = load_file(folder / "retrained" / "adapter" / "adapter_model.safetensors")
    first = load_file(folder / "adapter" / "adapter_model.safetensors")
    assert again.keys() == first.keys()
    assert any("trainable_tokens" in name for name in first)
    for name, tensor in first.items():
        torch.testing.assert_close(again[name], tensor, atol=1e-3, rtol=0)
    merged = load_file(folder / "retrained" / "model.safetensors")
    for name, tensor in load_file(folder / "model" / "model.safetensors").items():
        torch.testing.assert_close(merged[name], tensor, atol=1e-3, rtol=0)


def test_the_rows_in_the_zip_are_those_that_were_trained(unpacked: Path) -> None:
    rows = [json.loads(line) for line in (unpacked / "train.jsonl").read_text().splitlines()]
    steps = [json.loads(line) for line in (unpacked / "steps.jsonl").read_text().splitlines()]
    assert len(rows) == 160
    assert [len(micro_batches) for micro_batches in steps] == [2] * 6
    dealt = [at for micro_batches in steps for batch in micro_batches for at in batch]
    assert len(set(dealt)) == len(dealt) == 6 * 2 * 4


def test_a_run_without_weights_is_not_exported(tmp_path: Path) -> None:
    directory = RunDirectory.create(tmp_path / "run", tiny())
    with pytest.raises(ModelError, match="nothing to export"):
        export(directory, tmp_path / "run.zip")
    assert not (tmp_path / "run.zip").exists()


def test_a_place_that_cannot_be_written_is_one_sentence(run: RunDirectory, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(StorageError):
        export(run, tmp_path / "file" / "run.zip")
