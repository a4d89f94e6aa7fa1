"""From a configuration to rows of tokens, with everything that was left out accounted for."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from sft_core import sandbox
from sft_core.config import DataConfig, LabConfig, MaskPolicy, TemplateConfig, TrainConfig
from sft_core.data import load, write_jsonl
from sft_core.encode import encode
from sft_core.events import PhaseEntered, RunEvent, Warned
from sft_core.lessons import FROM_SCRATCH
from sft_core.pace import never
from sft_core.prepare import FACTS, TEMPLATE, TEST_ROWS, Prepared, keep, prepare
from sft_core.types import DataError, Example, NothingTrainedError, StorageError, TemplateError
from tests.tensors import SMALL, pair, preset

PAIRS = tuple(
    pair(f"Question {number}?", f"Answer {number}.", f"p{number}", fact=f"fact {number}")
    for number in range(10)
)


def configured(tmp_path: Path, examples: tuple[Example, ...] = PAIRS, **data: int) -> LabConfig:
    file = tmp_path / "rows.jsonl"
    write_jsonl(examples, file)
    sizes = {"eval_rows": 2, "test_rows": 3, **data}
    return FROM_SCRATCH.but(
        data=DataConfig(source=str(file), **sizes),
        model=SMALL,
        train=TrainConfig(max_length=100),
    )


def prepared(
    config: LabConfig, should_stop: Callable[[], bool] = never
) -> tuple[Prepared | None, list[RunEvent]]:
    events: list[RunEvent] = []
    work = prepare(config, should_stop)
    while True:
        try:
            events.append(next(work))
        except StopIteration as end:
            return end.value, events


def ready(config: LabConfig) -> tuple[Prepared, list[str]]:
    """What was prepared, and the warnings."""
    result, events = prepared(config)
    assert result is not None
    return result, [event.message for event in events if isinstance(event, Warned)]


def test_rows_are_split_and_encoded_as_everywhere(tmp_path: Path) -> None:
    result, warnings = ready(configured(tmp_path))
    assert (len(result.train), len(result.eval), len(result.test)) == (5, 2, 3)
    assert warnings == []
    examples = {example.id: example for example in PAIRS}
    for row in (*result.train, *result.eval):
        rendered = sandbox.render(preset(), examples[row.id], result.tokenizer.special_tokens)
        encoded = encode(rendered, result.tokenizer, MaskPolicy())
        assert tuple(row.ids) == encoded.ids
        assert tuple(row.labels) == encoded.labels
        assert row.kinds == encoded.kinds
        assert row.trained == encoded.trained
    assert result.facts == {examples[row.id].fact for row in result.train}


def test_what_happens_is_told_in_words(tmp_path: Path) -> None:
    _, events = prepared(configured(tmp_path))
    assert [event.phase for event in events if isinstance(event, PhaseEntered)] == [
        "Reading rows",
        "Encoding 7 rows",
    ]


def test_unusable_rows_are_counted_and_the_first_are_named(tmp_path: Path) -> None:
    config = configured(tmp_path, eval_rows=0, test_rows=0)
    file = Path(config.data.source)
    empty = [pair("And?", "", f"empty {number}") for number in range(4)]
    write_jsonl((*PAIRS, *empty), file)
    with file.open("a") as more:
        more.write('{"messages": 7}\n')
    result, [warning] = ready(config.but(policy=MaskPolicy(end_of_turn=False)))
    assert len(result.train) == 10
    assert result.bad_rows == 5
    assert warning.startswith("5 rows are left out. ")
    assert "row-15" in warning
    assert "empty 0" in warning or "empty 1" in warning
    assert warning.endswith("And 2 more.")


def test_no_usable_row_is_an_error_that_names_one(tmp_path: Path) -> None:
    rows = tuple(pair("x" * 120, "late", f"long {number}") for number in range(3))
    config = configured(tmp_path, rows, eval_rows=0, test_rows=0)
    with pytest.raises(NothingTrainedError, match=r"No row can be trained on\. 3 rows.*Row long"):
        ready(config)


def test_too_few_rows_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="test_rows"):
        ready(configured(tmp_path, test_rows=10))


def test_truncation_is_counted_and_told(tmp_path: Path) -> None:
    rows = (*PAIRS, pair("Long?", "word " * 30, "long"))
    config = configured(tmp_path, rows, eval_rows=0, test_rows=0)
    result, [warning] = ready(config)
    assert result.truncated == 1
    assert max(len(row.ids) for row in result.train) == 100
    assert warning.startswith("1 of 11 rows are longer than 100 tokens")
    assert "%" in warning


def test_a_model_with_a_short_context_cuts_there_and_says_so(tmp_path: Path) -> None:
    config = configured(tmp_path).with_settings(["context=20", "max_length=64"])
    result, warnings = ready(config)
    assert result.max_length == 20
    assert any("the model reads at most 20 tokens" in warning for warning in warnings)


def test_a_template_of_ones_own_renders_in_the_sandbox(tmp_path: Path) -> None:
    source = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
    config = configured(tmp_path).but(template=TemplateConfig(name="mine", source=source))
    result, _ = ready(config)
    first = result.tokenizer.decode(result.train[0].ids)
    assert first.startswith("[user]Question")


def test_a_template_that_does_not_compile_is_an_error(tmp_path: Path) -> None:
    broken = TemplateConfig(name="mine", source="{% for m in messages %}")
    with pytest.raises((TemplateError, NothingTrainedError)):
        ready(configured(tmp_path).but(template=broken))


def test_a_stop_is_heard(tmp_path: Path) -> None:
    assert prepared(configured(tmp_path), lambda: True)[0] is None


def test_samples_are_rows_of_different_categories(tmp_path: Path) -> None:
    result, _ = ready(FROM_SCRATCH)
    categories = [example.category for example in result.samples]
    assert len(categories) == len(set(categories)) == 3
    assert all(example in result.test for example in result.samples)
    assert {example.fact for example in result.samples} <= result.facts


def test_samples_are_what_was_asked_for(tmp_path: Path) -> None:
    config = configured(tmp_path).with_settings(['sample_prompts=["Who?", "Why?"]'])
    result, _ = ready(config)
    assert [example.prompt[-1].text for example in result.samples] == ["Who?", "Why?"]


def test_sample_prompts_that_cannot_be_asked_are_told_and_passed_over(tmp_path: Path) -> None:
    config = configured(tmp_path)
    long = config.with_settings([f'sample_prompts=["Who?", "{"why " * 40}"]'])
    result, [warning] = ready(long)
    assert [example.prompt[-1].text for example in result.samples] == ["Who?"]
    assert warning.startswith("1 of 2 sample prompts cannot be asked. The first, 'why why")
    assert "it fills 128 tokens" in warning
    strict = TemplateConfig(
        name="strict",
        source="{% if messages|length == 1 %}{{ raise_exception('Say more.') }}{% endif %}"
        "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}",
    )
    config = configured(tmp_path, test_rows=0).but(template=strict)
    result, warnings = ready(config.with_settings(['sample_prompts=["Who?"]']))
    assert result.samples == ()
    assert "Say more." in warnings[-1]


def test_what_the_doctor_says_of_the_first_rows_is_told_before_a_step_is_made(
    tmp_path: Path,
) -> None:
    silent = TemplateConfig(
        name="silent",
        source="{% for m in messages %}{{ m.role }}: {{ m.content }}<END>{% endfor %}",
    )
    _, [warning] = ready(configured(tmp_path, test_rows=0).but(template=silent))
    assert "ignores add_generation_prompt" in warning
    assert warning.endswith("if add_generation_prompt is set.")


def test_prompts_beyond_the_context_stay_among_the_test_rows_and_are_told(tmp_path: Path) -> None:
    rows = tuple(pair("x " * 60, "y", f"long {number}") for number in range(3))
    mixed = configured(tmp_path, (*PAIRS, *rows), eval_rows=0, test_rows=11)
    result, warnings = ready(mixed.with_settings(["model.context=60"]))
    assert len(result.test) == 11
    assert any("of 11 test rows fill the model's 60 tokens" in warning for warning in warnings)


def test_without_categories_samples_are_the_first_rows(tmp_path: Path) -> None:
    result, _ = ready(configured(tmp_path))
    assert result.samples == result.test


def test_a_reader_of_the_run_finds_template_facts_and_test_rows(tmp_path: Path) -> None:
    result, _ = ready(configured(tmp_path))
    run = tmp_path / "run"
    run.mkdir()
    keep(result, run)
    assert (run / TEMPLATE).read_text() == preset().source
    assert set(json.loads((run / FACTS).read_text())) == result.facts
    assert load(DataConfig(source=str(run / TEST_ROWS))).examples == result.test
    with pytest.raises(StorageError, match="could not be saved"):
        keep(result, tmp_path / "nowhere")
