"""The command line: what it prints, where, and the exit code it leaves with."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sft_core import embedded
from sft_core.cli import main
from sft_core.config import DataConfig, TemplateConfig
from sft_core.events import PhaseEntered, RunFinished, RunStopped, from_json
from sft_core.execution import execute
from sft_core.record import RunStatus
from sft_core.rundir import RunDirectory
from tests.small_jobs import tiny, trained

ROOT = Path(__file__).resolve().parents[1]
ALPACA = {"instruction": "Say hi", "output": "Hi."}
BAD = {"colour": "red"}
FEW = [ALPACA | {"instruction": f"Say {word}", "output": word} for word in ("hi", "ho", "hey")]

Out = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    return trained(tmp_path_factory.mktemp("runs") / "run")


def rows(path: Path, *values: object) -> str:
    path.write_text("".join(json.dumps(value) + "\n" for value in values), encoding="utf-8")
    return str(path)


def printed(out: Out) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.readouterr().out.splitlines()]


def inspect(*options: str) -> int:
    return main(["inspect", "--tokenizer", "bytes", *options])


# -- inspect ----------------------------------------------------------------------------------


def test_inspect_prints_a_row_a_line(tmp_path: Path, capsys: Out) -> None:
    file = rows(tmp_path / "rows.jsonl", ALPACA, {"prompt": "Hi", "completion": "Hé."})
    assert inspect("--template", "inst-resp", "--input", file) == 0
    first, second = printed(capsys)
    assert (first["id"], second["id"]) == ("row-1", "row-2")
    assert first["ids"][0] == 256
    assert second["labels"][-1] == 259
    assert second["generation_prompt"] == "<INST>Hi<RESP>"


def test_inspect_names_bad_rows_and_goes_on(tmp_path: Path, capsys: Out) -> None:
    file = rows(tmp_path / "rows.jsonl", BAD, ALPACA)
    assert inspect("--template", "inst-resp", "--input", file) == 1
    bad, good = printed(capsys)
    assert set(bad) == {"id", "error"}
    assert "colour" in bad["error"]
    assert good["id"] == "row-2"


def test_inspect_takes_a_policy_and_a_length(tmp_path: Path, capsys: Out) -> None:
    file = rows(tmp_path / "rows.jsonl", ALPACA)
    options = ("--template", "inst-resp", "--input", file)
    assert inspect(*options, "--policy", "all", "--no-end-of-turn") == 0
    (row,) = printed(capsys)
    assert row["reasons"][1] == "whole_text"
    assert row["reasons"][-1] == "end_not_trained"
    assert inspect(*options, "--max-length", "4") == 0
    (row,) = printed(capsys)
    assert len(row["ids"]) == 4


def test_inspect_trains_what_generation_tags_enclose(tmp_path: Path, capsys: Out) -> None:
    template = tmp_path / "mine.jinja"
    template.write_text(
        "{% for m in messages %}{{ '<RESP>' }}{% generation %}{{ m.content[:2] }}"
        "{% endgeneration %}{{ m.content[2:] }}{% endfor %}"
    )
    file = rows(tmp_path / "rows.jsonl", ALPACA)
    options = ("--template", str(template), "--input", file, "--policy", "generation_tags")
    assert inspect(*options) == 0
    (row,) = printed(capsys)
    assert row["text"] == "<RESP>Say hi<RESP>Hi."
    assert row["reasons"][-3:] == ["answer", "answer", "untagged"]


def test_inspect_takes_a_template_of_one_s_own(tmp_path: Path, capsys: Out) -> None:
    template = tmp_path / "mine.jinja"
    template.write_text("{% for m in messages %}[{{ m.role }}]{{ m.content }};{% endfor %}")
    file = rows(tmp_path / "rows.jsonl", ALPACA)
    assert inspect("--template", str(template), "--input", file) == 0
    (row,) = printed(capsys)
    assert row["text"] == "[user]Say hi;[assistant]Hi.;"
    template.write_text("{% for m in %}")
    assert inspect("--template", str(template), "--input", file) == 1
    (row,) = printed(capsys)
    assert set(row) == {"id", "error"}


def test_inspect_says_what_a_rival_would_train(tmp_path: Path, capsys: Out) -> None:
    file = rows(tmp_path / "rows.jsonl", ALPACA)
    options = ("--template", "inst-resp", "--input", file, "--rival")
    assert inspect(*options, "prefix-length") == 0
    (row,) = printed(capsys)
    assert row["rival"]["differences"] == []
    assert row["rival"]["labels"] == row["labels"]
    assert inspect(*options, "tokenise-apart") == 0
    (row,) = printed(capsys)
    (difference,) = row["rival"]["differences"]
    assert row["rival"]["text"] == "<INST>Say hi<RESP>Hi."
    assert difference["kind"] == "misses-end"
    assert "without the '<END>'" in difference["sentence"]
    (place,) = difference["places"]
    assert row["text"][slice(*place)] == "<END>"
    assert [row["labels"][at] for at in difference["tokens"]] == [row["ids"][-1]]


def test_inspect_reads_standard_input(monkeypatch: pytest.MonkeyPatch, capsys: Out) -> None:
    line = json.dumps(ALPACA).encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(line)))
    assert inspect("--template", "inst-resp", "--input", "-") == 0
    assert [row["id"] for row in printed(capsys)] == ["row-1"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--template", "nobody-s", "--input", "rows.jsonl"), "no template"),
        (("--template", "gone.jinja", "--input", "rows.jsonl"), "no template file gone.jinja"),
        (("--template", "tokenizer", "--input", "rows.jsonl"), "brings no chat template"),
        (("--template", "inst-resp", "--input", "missing.jsonl"), "no file missing.jsonl"),
    ],
)
def test_inspect_knows_wrong_usage(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Out,
    options: tuple[str, ...],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    rows(tmp_path / "rows.jsonl", ALPACA)
    assert inspect(*options) == 2
    said = capsys.readouterr()
    assert not said.out
    assert words in said.err
    assert said.err.count("\n") == 1
    assert "Traceback" not in said.err


@pytest.mark.parametrize(
    "line", ["", "inspect", "inspect --policy nobody", "inspect --rival x", "trian", "compare"]
)
def test_wrong_options_leave_with_two(line: str, capsys: Out) -> None:
    with pytest.raises(SystemExit) as left:
        main(line.split())
    assert left.value.code == 2
    assert "usage:" in capsys.readouterr().err


# -- doctor -----------------------------------------------------------------------------------


def doctor(*options: str) -> int:
    return main(["doctor", "--tokenizer", "bytes", *options])


SILENT = "{% for m in messages %}{{ m.role }}: {{ m.content }}<END>{% endfor %}"


def test_doctor_is_content_with_the_default(capsys: Out) -> None:
    assert doctor("--template", "inst-resp", "--data", "six-tasks") == 0
    shown = capsys.readouterr().out
    assert "No finding." in shown
    assert "160 rows, 0 failed" in shown
    assert "one epoch in batches of 8" in shown


def test_doctor_counts_what_padding_and_packing_take(capsys: Out) -> None:
    options = ("--template", "inst-resp", "--data", "six-tasks", "--max-length", "128")
    assert doctor(*options, "--batch-size", "4", "--json") == 0
    laid = printed(capsys)[0]["audit"]["layouts"]
    assert (laid["rows"], laid["batch_size"], laid["window"]) == (160, 4, 128)
    assert laid["to_window"] == 160 * 128
    assert laid["tokens"] <= laid["packed"] == laid["windows"] * 128 < laid["to_window"]
    assert doctor(*options, "--batch-size", "0") == 2


def test_doctor_names_an_error_with_its_remedy_and_fails(tmp_path: Path, capsys: Out) -> None:
    file = rows(tmp_path / "rows.jsonl", ALPACA, ALPACA | {"instruction": "Again"})
    template = tmp_path / "silent.jinja"
    template.write_text(SILENT)
    assert doctor("--template", str(template), "--data", file) == 1
    shown = capsys.readouterr().out
    assert shown.startswith("ERROR    missing-generation-prompt")
    assert "In 2 of 2 rows (100.0%)" in shown
    assert "rows: row-1, row-2" in shown
    assert doctor("--template", str(template), "--data", file, "--json") == 1
    [report] = printed(capsys)
    assert report["rows"] == 2
    assert report["worst"] == "error"
    assert report["audit"]["rows"] == 2
    [silent] = [it for it in report["findings"] if it["code"] == "missing-generation-prompt"]
    mended = tmp_path / "mended.jinja"
    mended.write_text(silent["fixed_template"])
    assert doctor("--template", str(mended), "--data", file) == 0


def test_doctor_passes_with_warnings(tmp_path: Path, capsys: Out) -> None:
    file = rows(tmp_path / "rows.jsonl", BAD, ALPACA, BAD)
    assert doctor("--template", "chatml", "--data", file, "--json") == 0
    [report] = printed(capsys)
    found = {it["code"]: it for it in report["findings"]}
    assert report["worst"] == "warning"
    assert found["row-unreadable"]["rows"] == ["row-1", "row-3"]
    assert found["marker-split"]["fixed_settings"] == ["model.missing_tokens=add"]
    options = ("--data", file, "--json", "--add-tokens", "--stop", "<END>")
    assert doctor("--template", "chatml", *options) == 0
    found = {it["code"]: it for it in printed(capsys)[0]["findings"]}
    assert "marker-split" not in found
    assert "'<END>'" in found["stop-differs"]["message"]


def test_doctor_reports_a_template_that_cannot_be_read(tmp_path: Path, capsys: Out) -> None:
    template = tmp_path / "broken.jinja"
    template.write_text("{% for m in messages %}\n{{ m.content }\n{% endfor %}")
    options = ("--data", "six-tasks", "--json", "--add-tokens")
    assert doctor("--template", str(template), *options) == 1
    [report] = printed(capsys)
    [finding] = report["findings"]
    assert (finding["code"], finding["line"], finding["column"]) == ("template-syntax", 2, 14)


def test_doctor_can_be_strict_and_read_standard_input(
    monkeypatch: pytest.MonkeyPatch, capsys: Out
) -> None:
    def piped(*options: str) -> int:
        text = "".join(json.dumps(row) + "\n" for row in (BAD, ALPACA))
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        return doctor("--template", "inst-resp", "--data", "-", *options)

    assert piped() == 0
    assert "row-unreadable" in capsys.readouterr().out
    assert piped("--strict") == 1
    assert doctor("--template", "inst-resp", "--data", "six-tasks", "--strict") == 0


def test_doctor_fails_on_a_file_without_a_usable_row(tmp_path: Path, capsys: Out) -> None:
    file = rows(tmp_path / "rows.jsonl", BAD, BAD)
    assert doctor("--template", "inst-resp", "--data", file) == 1
    assert capsys.readouterr().err.startswith("sft_core: ")


@pytest.mark.parametrize(
    "options",
    [
        ("--template", "inst-resp", "--data", "no-such-file.jsonl"),
        ("--template", "no-such-preset", "--data", "six-tasks"),
        ("--template", "tokenizer", "--data", "six-tasks"),
        ("--template", "inst-resp", "--data", "six-tasks", "--rows", "0"),
        ("--template", "inst-resp", "--data", "six-tasks", "--stop", ""),
    ],
)
def test_doctor_knows_wrong_usage(options: tuple[str, ...], capsys: Out) -> None:
    assert doctor(*options) == 2
    told = capsys.readouterr()
    assert told.err.startswith("sft_core: ")
    assert told.out == ""


# -- train ------------------------------------------------------------------------------------


def command(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "sft_core", *arguments],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **options,
    )


def test_train_streams_events_and_stops_at_ctrl_c(tmp_path: Path) -> None:
    config = tmp_path / "run.json"
    config.write_text(tiny(max_steps=50_000, eval_every=0).to_json())
    process = command("train", "--config", str(config), "--runs", str(tmp_path / "runs"))
    with process:
        assert process.stdout
        assert process.stderr
        events = []
        for line in process.stdout:
            events.append(json.loads(line))
            if events[-1]["event"] == "CheckpointSaved":
                process.send_signal(signal.SIGINT)
                break
        events += [json.loads(line) for line in process.stdout]
        said = process.stderr.read()
    assert process.returncode == 0
    assert events[-1]["event"] == "RunStopped"
    directory = RunDirectory.open(Path(events[-1]["run_dir"]))
    assert directory.path.parent == tmp_path / "runs"
    assert [from_json(json.dumps(event)) for event in events] == list(directory.read().events)
    assert directory.weights() == directory.path / "model"
    assert "Stopping after this step" in said
    assert "step/s" in said or "s/step" in said
    assert f"Go on with: python -m sft_core train --resume {directory.path}" in said


def test_a_paused_run_is_resumed_by_its_folder_or_its_id(tmp_path: Path, capsys: Out) -> None:
    directory = RunDirectory.create(tmp_path / "a23456789bcd", tiny(max_steps=4))
    paused = list(execute(directory.config(), directory, lambda: directory.read().step == 2))
    assert isinstance(paused[-1], RunStopped)
    assert main(["train", "--resume", str(directory.path), "--set", "seed=1"]) == 2
    assert "Leave --config and --set out" in capsys.readouterr().err
    assert main(["train", "--resume", directory.id, "--runs", str(tmp_path)]) == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["step"] for event in told if event["event"] == "StepLogged"] == [3, 4]
    assert directory.read().status is RunStatus.FINISHED
    assert main(["train", "--resume", str(directory.path)]) == 1
    assert "finished, so there is nothing to resume" in capsys.readouterr().err


def test_a_run_whose_process_is_gone_is_ended_before_it_is_resumed(
    tmp_path: Path, capsys: Out
) -> None:
    directory = RunDirectory.create(tmp_path / "run", tiny())
    directory.append(PhaseEntered(phase="Loading"))
    directory.release()
    assert main(["train", "--resume", str(directory.path)]) == 1
    assert "has nothing to resume from" in capsys.readouterr().err
    assert directory.read().status is RunStatus.INTERRUPTED


def test_train_applies_settings(tmp_path: Path, capsys: Out) -> None:
    config = tmp_path / "run.json"
    config.write_text(tiny().to_json())
    options = ["--config", str(config), "--runs", str(tmp_path / "runs")]
    assert main(["train", *options, "--set", "max_steps=2", "--set", "data.eval_rows=4"]) == 0
    events = printed(capsys)
    assert sum(event["event"] == "StepLogged" for event in events) == 2
    assert events[-1]["event"] == "RunFinished"
    kept = RunDirectory(Path(events[-1]["run_dir"])).config()
    assert (kept.train.max_steps, kept.data.eval_rows) == (2, 4)


def test_train_can_say_what_memory_it_would_take(tmp_path: Path, capsys: Out) -> None:
    runs = tmp_path / "runs"
    assert main(["train", "--estimate", "--runs", str(runs), "--set", "batch_size=4"]) == 0
    said = capsys.readouterr().out
    assert "activations of 1,024 tokens" in said
    assert "4 rows of up to 256 tokens" in said
    assert not runs.exists()


def test_train_that_fails_leaves_with_one(tmp_path: Path, capsys: Out) -> None:
    (tmp_path / "empty.jsonl").touch()
    source = f"data.source={tmp_path / 'empty.jsonl'}"
    assert main(["train", "--runs", str(tmp_path / "runs"), "--set", source]) == 1
    said = capsys.readouterr()
    last = json.loads(said.out.splitlines()[-1])
    assert last["event"] == "RunFailed"
    assert Path(last["run_dir"]).is_dir()
    assert "sft_core: empty.jsonl is empty" in said.err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--config", "missing.json"], "cannot be read: no such file"),
        (["--config", "broken.json"], "not JSON"),
        (["--set", "epochz=3"], "Did you mean 'epochs'"),
        (["--set", "epochs"], "key=value"),
    ],
)
def test_a_wrong_configuration_leaves_with_two(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Out,
    options: list[str],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.json").write_text("{")
    assert main(["train", *options]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


# -- compare, evaluate, export ----------------------------------------------------------------


def test_compare_prints_both_answers(run: RunDirectory, capsys: Out) -> None:
    options = [
        "--run",
        str(run.path),
        "--prompt",
        "Hi",
        "--prompt",
        "Hé",
        "--set",
        "max_new_tokens=3",
    ]
    assert main(["compare", *options, "--json"]) == 0
    first, second = printed(capsys)
    assert (first["prompt"], second["prompt"]) == ("Hi", "Hé")
    for side in ("base", "tuned"):
        assert len(first[side]["ids"]) <= 3
        assert first[side]["prompt_ids"] == [256, *b"Hi", 257]
        assert isinstance(first[side]["stopped"], bool)
        assert first[side]["reason"]
    assert main(["compare", *options]) == 0
    shown = capsys.readouterr().out
    assert "> Hi" in shown
    assert "tuned" in shown


def test_a_run_is_found_by_its_name_too(run: RunDirectory, capsys: Out) -> None:
    options = ["--run", run.id, "--runs", str(run.path.parent), "--prompt", "Hi"]
    assert main(["compare", *options, "--set", "max_new_tokens=2", "--json"]) == 0
    assert main(["compare", "--run", "nobody", "--prompt", "Hi"]) == 2
    assert "There is no run" in capsys.readouterr().err


def test_evaluate_prints_before_and_after(run: RunDirectory, tmp_path: Path, capsys: Out) -> None:
    assert main(["evaluate", "--run", str(run.path), "--json"]) == 0
    (found,) = printed(capsys)
    assert found["rows"] == found["base"]["rows"] == 40
    assert 0 <= found["exact_match"] <= 1
    assert set(found["by_category"]) == set(found["base"]["by_category"])
    assert found["counts"]["seen"] + found["counts"]["unseen"] == 40
    assert main(["evaluate", "--run", str(run.path)]) == 0
    assert "fact not in training" in capsys.readouterr().out


def test_evaluate_takes_rows_of_one_s_own(run: RunDirectory, tmp_path: Path, capsys: Out) -> None:
    file = rows(tmp_path / "rows.jsonl", ALPACA, ALPACA | {"output": 5}, {"instruction": "Hi"})
    assert main(["evaluate", "--run", str(run.path), "--data", file, "--json"]) == 0
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert found["rows"] == 2
    assert found["seen"] is None
    assert "row-3" in said.err
    missing = str(tmp_path / "missing.jsonl")
    assert main(["evaluate", "--run", str(run.path), "--data", missing, "--json"]) == 1
    assert "no file missing.jsonl" in capsys.readouterr().err


def test_evaluate_reads_raw_text(run: RunDirectory, tmp_path: Path, capsys: Out) -> None:
    texts = rows(tmp_path / "texts.jsonl", {"text": "Lima is in Peru."}, {"text": "Ä" * 400})
    data = rows(tmp_path / "rows.jsonl", ALPACA)
    options = ["evaluate", "--run", str(run.path), "--text", texts, "--data", data]
    assert main([*options, "--json"]) == 0
    (found,) = printed(capsys)
    assert found["rows"] == 1
    read = found["perplexity"]
    for side in ("base", "tuned"):
        assert (read[side]["tokens"], read[side]["documents"]) == (816, 2)
    assert read["ratio"] == pytest.approx(read["tuned"]["perplexity"] / read["base"]["perplexity"])
    assert main(options) == 0
    shown = capsys.readouterr().out
    assert shown.index("exact match") < shown.index("raw text") < shown.index("816 tokens")


def test_evaluate_reads_text_of_a_run_without_test_rows(tmp_path: Path, capsys: Out) -> None:
    config = tiny(max_steps=1).but(data=DataConfig(source=rows(tmp_path / "r.jsonl", *FEW)))
    directory = RunDirectory.create(tmp_path / "run", config)
    assert isinstance(list(execute(config, directory))[-1], RunFinished)
    text = tmp_path / "one.txt"
    text.write_text("Lima is in Peru.\n", encoding="utf-8")
    options = ["evaluate", "--run", str(directory.path)]
    assert main([*options, "--text", str(text), "--json"]) == 0
    (found,) = printed(capsys)
    assert set(found) == {"run", "template", "perplexity"}
    assert found["perplexity"]["base"]["bytes"] == 17
    assert main([*options, "--text", str(text)]) == 0
    assert "exact match" not in capsys.readouterr().out
    assert main(options) == 1, "without text there is nothing to say"


def test_evaluate_says_what_is_wrong_with_a_text(
    run: RunDirectory, tmp_path: Path, capsys: Out
) -> None:
    for file in (str(tmp_path / "gone.txt"), rows(tmp_path / "rows.jsonl", ALPACA)):
        assert main(["evaluate", "--run", str(run.path), "--text", file]) == 1
        said = capsys.readouterr()
        assert not said.out
        assert "no file gone.txt" in said.err or 'has no "text"' in said.err


def test_evaluate_asks_in_another_template(run: RunDirectory, tmp_path: Path, capsys: Out) -> None:
    data = rows(tmp_path / "rows.jsonl", *FEW)
    options = ["evaluate", "--run", str(run.path), "--data", data, "--json"]
    assert main(options) == 0
    other = ["--set", "template.name=alpaca", "--set", "generate.max_new_tokens=3"]
    assert main([*options, *other]) == 0
    own, alpaca = printed(capsys)
    assert (own["template"], alpaca["template"]) == ("inst-resp", "alpaca")


def test_another_template_reaches_the_model(run: RunDirectory, capsys: Out) -> None:
    options = ["compare", "--run", str(run.path), "--prompt", "Hi", "--json"]
    assert main([*options, "--set", "template.name=alpaca"]) == 0
    assert main([*options, "--set", "template.source={{ messages[0].content }}"]) == 0
    alpaca, own = printed(capsys)
    assert "### Instruction:\nHi" in bytes(alpaca["tuned"]["prompt_ids"]).decode()
    assert own["tuned"]["prompt_ids"] == list(b"Hi")


def test_a_name_means_that_template_and_not_the_run_s_own_source(
    tmp_path: Path, capsys: Out
) -> None:
    own = "{% for m in messages %}[{{ m.content }}]<END>{% endfor %}"
    config = tiny(max_steps=1).but(template=TemplateConfig("mine", own))
    directory = RunDirectory.create(tmp_path / "run", config)
    assert isinstance(list(execute(config, directory))[-1], RunFinished)
    options = ["compare", "--run", str(directory.path), "--prompt", "Hi", "--json"]
    assert main([*options, "--set", "template.name=alpaca"]) == 0
    assert main([*options, "--set", "max_new_tokens=2"]) == 0
    alpaca, mine = printed(capsys)
    assert b"### Instruction" in bytes(alpaca["base"]["prompt_ids"])
    assert mine["base"]["prompt_ids"][:4] == list(b"[Hi]")


@pytest.mark.parametrize("command", [["compare", "--prompt", "Hi"], ["evaluate"]])
@pytest.mark.parametrize("setting", ["epochs=99", "model.name=x", "policy.end_of_turn=false"])
def test_a_finished_run_is_not_trained_otherwise(
    run: RunDirectory, capsys: Out, command: list[str], setting: str
) -> None:
    assert main([*command, "--run", str(run.path), "--set", setting]) == 2
    said = capsys.readouterr()
    assert not said.out
    assert "template and generate only" in said.err


def test_export_writes_where_it_is_told(run: RunDirectory, tmp_path: Path, capsys: Out) -> None:
    target = tmp_path / "run.zip"
    assert main(["export", "--run", str(run.path), "--out", str(target)]) == 0
    assert capsys.readouterr().out == f"{target}\n"
    assert target.stat().st_size > 0


# -- the whole of it --------------------------------------------------------------------------


def shortened(folder: Path) -> Path:
    """A copy of the parrot with one row of each category to be asked."""
    shutil.copytree(embedded.FOLDER, folder, ignore=shutil.ignore_patterns("*.md", "*.py"))
    held_out = folder / embedded.ROWS["parrot"].held_out
    lines = held_out.read_text(encoding="utf-8").splitlines(keepends=True)
    one_each = {json.loads(line)["category"]: line for line in lines}
    held_out.write_text("".join(one_each.values()), encoding="utf-8")
    return folder


def test_the_demo_of_the_lesson_shows_curve_scores_and_answers(tmp_path: Path, capsys: Out) -> None:
    quick = ["max_steps=6", "width=16", "depth=1", "heads=2", "max_new_tokens=4", "sample_every=0"]
    settings = [word for setting in quick for word in ("--set", setting)]
    lesson = ["--config", str(ROOT / "examples/six_tasks/run.json")]
    assert main(["demo", *lesson, "--runs", str(tmp_path / "runs"), *settings]) == 0
    shown = capsys.readouterr().out
    assert "Training bytes-gpt on six-tasks" in shown
    assert ". training loss" in shown
    assert "before" in shown
    assert "fact seen in training" in shown
    assert shown.count("> ") >= 3
    assert "compare --run" in shown


def test_the_demo_is_of_the_default_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Out
) -> None:
    monkeypatch.setattr(embedded, "FOLDER", shortened(tmp_path / "parrot"))
    settings = ["--set", "max_steps=2", "--set", "max_new_tokens=2", "--set", "sample_every=0"]
    assert main(["demo", "--runs", str(tmp_path / "runs"), *settings]) == 0
    shown = capsys.readouterr().out
    assert "Training parrot on parrot" in shown
    assert ". training loss" in shown
    assert "fact not in training" in shown
    assert shown.count("\n> ") == 3


def test_without_the_parrot_the_default_says_so_and_the_lesson_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Out
) -> None:
    monkeypatch.setattr(embedded, "FOLDER", tmp_path)
    assert main(["train", "--runs", str(tmp_path / "runs")]) == 1
    assert "lacks examples/parrot" in capsys.readouterr().err
    config = tmp_path / "run.json"
    config.write_text(tiny(max_steps=1).to_json())
    assert main(["train", "--runs", str(tmp_path / "runs"), "--config", str(config)]) == 0


def test_a_reader_that_goes_away_is_no_crash(run: RunDirectory, tmp_path: Path) -> None:
    file = rows(tmp_path / "rows.jsonl", *[ALPACA] * 2000)
    arguments = ("--tokenizer", "bytes", "--template", "inst-resp", "--input", file)
    with command("inspect", *arguments, env={**os.environ, "PYTHONUNBUFFERED": "1"}) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.readline()
        process.stdout.close()
        said = process.stderr.read()
    assert process.returncode == 1
    assert said == ""
