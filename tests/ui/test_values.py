"""What the page shows is what the record, the rows and the tokens say."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tokenizers

from sft_core.config import DataConfig, LabConfig, LoraConfig, MaskPolicy, TemplateConfig, TrainOn
from sft_core.dealing import total_steps
from sft_core.events import (
    Answered,
    EvalLogged,
    Graded,
    KindLoss,
    PhaseEntered,
    RunEvent,
    RunFailed,
    RunFinished,
    RunQueued,
    RunStopped,
    SampleGenerated,
    Score,
    ScoreLogged,
    Side,
    Tally,
    TextGenerated,
    Warned,
)
from sft_core.lessons import FROM_SCRATCH
from sft_core.record import RunRecord
from sft_core.tokenizer import Tokenizer
from sft_core.types import ConfigError, Example, Finding, Message, Reason, Severity
from sft_core.ui import (
    answers,
    data_panel,
    data_view,
    header,
    run_facts,
    run_view,
    session,
    template_panel,
    words,
)
from sft_core.ui.adopt import adopted
from sft_core.ui.compare import Asked
from sft_core.ui.consequence import consequence_value
from sft_core.ui.data_panel import Source
from sft_core.ui.live_plot import losses_value
from sft_core.ui.look import OUT_OF_REACH, look
from sft_core.ui.session import OWN, preset_source
from sft_core.ui.settings_form import PRESETS, Settings
from sft_core.ui.sources import Pick, pack, rows_of
from sft_core.ui.token_view import NAMES, text_value, tokens_value
from tests.test_plots import started, step
from tests.trained_tokenizers import byte_level
from tests.ui.controls import from_scratch

ROWS = rows_of(FROM_SCRATCH.data)
FIRST = ROWS.splits.train[0]


def contract(**parts: Any) -> LabConfig:
    return FROM_SCRATCH.but(**parts)


# -- tokens ----------------------------------------------------------------------------------


def test_every_policy_and_every_reason_has_words_and_a_look() -> None:
    css = (Path(header.__file__).parent / "static/css/views.css").read_text(encoding="utf-8")
    for reason in Reason:
        assert NAMES[reason]
        assert f".t-{reason} {{" in css
        assert f".strip.only-{reason} .t-{reason}" in css
    assert len({header.mask_text(MaskPolicy(train_on)) for train_on in TrainOn}) == len(TrainOn)


def test_the_strip_carries_every_id_reason_and_byte_of_the_encoding() -> None:
    seen = look(contract(), FIRST)
    value = tokens_value(seen)
    assert seen.encoded is not None
    assert [row[1] for row in value["tokens"]] == list(seen.encoded.ids)
    reasons = [value["reasons"][row[2]]["key"] for row in value["tokens"]]
    assert reasons == [reason.value for reason in seen.encoded.reasons]
    assert value["cut"] == len(seen.prompt_ids)
    spelled = "".join(row[0] for row in value["tokens"])
    assert FIRST.answer in spelled
    letters = [row for row in value["tokens"] if row[1] < 256]
    assert bytes.fromhex("".join(row[6] for row in letters)).decode() == (
        FIRST.prompt[-1].text + FIRST.answer
    )


def test_what_the_limit_cuts_off_is_shown_as_cut_off() -> None:
    config = contract()
    short = config.but(train=replace(config.train, max_length=10))
    whole = tokens_value(look(config, FIRST))
    value = tokens_value(look(short, FIRST))
    assert len(value["tokens"]) == 10
    assert [row[1] for row in value["tokens"] + value["dropped"]] == [
        row[1] for row in whole["tokens"]
    ]


def test_a_template_that_fails_gives_its_sentence_and_a_finding() -> None:
    broken = contract(template=TemplateConfig("mine", "{% for m in messages %}"))
    seen = look(broken, FIRST)
    assert tokens_value(seen)["error"] == str(seen.error)
    assert seen.findings[0].severity is Severity.ERROR
    assert text_value(seen)["error"]


def test_the_text_is_the_rendered_text_with_the_cut_at_the_answer() -> None:
    seen = look(contract(), FIRST)
    value = text_value(seen)
    assert seen.rendered is not None
    text = "".join(segment[0] for segment in value["segments"])
    assert text == seen.rendered.text
    assert text[: value["cut"]] == value["prompt"]
    assert text[value["cut"] :].startswith(FIRST.answer)


# -- header ----------------------------------------------------------------------------------


def test_the_chips_say_what_is_loaded_and_take_the_worst_finding() -> None:
    seen = look(contract(policy=MaskPolicy(TrainOn.ASSISTANT, end_of_turn=False)), FIRST)
    chips = {chip["key"]: chip for chip in header.chips_value(seen, ROWS)["chips"]}
    assert "bytes-gpt" in chips["model"]["text"]
    assert chips["data"]["text"].startswith("six-tasks 160/")
    assert chips["mask"]["text"] == "answers, no end of turn"
    assert chips["mask"]["level"] == "warning"
    assert chips["data"]["level"] is None
    worse = replace(seen, findings=(*seen.findings, Finding("x", Severity.ERROR, "Broken.")))
    chips = {chip["key"]: chip for chip in header.chips_value(worse, ROWS)["chips"]}
    assert (chips["template"]["level"], chips["template"]["note"]) == ("error", "Broken.")


def test_every_code_that_colours_a_chip_is_one_that_the_doctor_has() -> None:
    folder = Path(header.__file__).resolve().parents[1] / "doctor"
    source = "".join(file.read_text() for file in folder.glob("*.py"))
    assert all(f'"{code}"' in source for code in set(header._CHIP_OF) - {OUT_OF_REACH})


# -- data ------------------------------------------------------------------------------------


def test_pages_go_through_all_parts_without_gap_or_repetition() -> None:
    first = data_view.rows_value(ROWS, "all", 0, Pick())
    seen = [
        row["key"]
        for page in range(first["pages"])
        for row in data_view.rows_value(ROWS, "all", page, Pick())["rows"]
    ]
    assert len(seen) == len(set(seen)) == first["counts"]["all"] == len(ROWS.part("all"))
    beyond = data_view.rows_value(ROWS, "test", 10_000, Pick())
    assert beyond["page"] == beyond["pages"] - 1


def test_loading_shows_bad_rows_and_a_source_that_fails_keeps_the_old_one(tmp_path: Path) -> None:
    rows = [{"prompt": f"q{n}", "response": f"a{n}"} for n in range(30)] + [{"prompt": "alone"}]
    file = tmp_path / "rows.json"
    file.write_text(json.dumps(rows))
    held = pack(FROM_SCRATCH.data)
    config, pick, reading, shown, builder = data_panel.load(
        Source(kind="upload", file=str(file), eval_rows=5, test_rows=5), held
    )
    value = json.loads(reading)
    assert (value["badCount"], value["format"]) == (1, "prompt-response")
    assert value["counts"] == [20, 5, 5]
    assert pick == Pick()
    assert json.loads(shown)["rows"][0]["turns"][0]["text"].startswith("q")
    assert json.loads(builder)["own"] is False
    again = data_panel.load(Source(kind="upload", file=str(tmp_path / "gone.json")), config)
    assert "the rows of rows.json are used" in json.loads(again[2])["error"]
    assert not isinstance(again[0], str), "the data configuration must stay"


def test_columns_that_no_format_knows_can_be_mapped_by_hand(tmp_path: Path) -> None:
    file = tmp_path / "odd.jsonl"
    file.write_text("\n".join(json.dumps({"a": f"q{n}", "b": f"r{n}"}) for n in range(20)))
    source = Source(kind="upload", file=str(file), eval_rows=2)
    unread = json.loads(data_panel.load(source, pack(FROM_SCRATCH.data))[2])
    assert unread["available"] == ["a", "b"]
    assert "prompt-response" in {format["name"] for format in unread["formats"]}
    corrected = {**unread, "columns": {"prompt": "a", "response": "b"}}
    loaded = data_panel.load(
        replace(source, reading=json.dumps(corrected)), pack(FROM_SCRATCH.data)
    )
    assert json.loads(loaded[2])["mapped"] == {"prompt": "a", "response": "b"}
    other = replace(source, file=str(tmp_path / "x.jsonl"), reading=json.dumps(corrected))
    assert other._columns(str(other.file)) == {}, "a mapping belongs to its own source"


# -- settings --------------------------------------------------------------------------------


def settings(**values: Any) -> Settings:
    base = FROM_SCRATCH.train
    known = {name: getattr(base, name, None) for name in Settings.__dataclass_fields__}
    known |= {"max_steps": "", "max_minutes": "", "sample_prompts": ""}
    known |= {"lora_rank": 16, "lora_alpha": 32, "lora_dropout": 0, "lora_targets": ""}
    return Settings(**{**known, **values})


def test_the_form_spells_a_training_configuration() -> None:
    made = settings(max_steps="120", sample_prompts="Hi\n\n Bye ", max_minutes="1.5").config()
    assert (made.max_steps, made.max_minutes) == (120, 1.5)
    assert made.sample_prompts == ("Hi", "Bye")
    assert settings().config().learning_rate == FROM_SCRATCH.train.learning_rate


@pytest.mark.parametrize(
    ("rows", "batch", "accumulation", "epochs"), [(160, 8, 1, 3), (7, 4, 3, 2)]
)
def test_the_consequence_counts_steps_as_training_does(
    rows: int, batch: int, accumulation: int, epochs: float
) -> None:
    from math import ceil

    made = settings(batch_size=batch, accumulation=accumulation, epochs=epochs).config()
    made = replace(made, max_steps=None)
    steps = total_steps([9] * rows, made)
    assert steps == ceil(epochs * ceil(ceil(rows / batch) / accumulation))
    assert f"{steps:,} step" in consequence_value(made, rows)["text"]


def test_the_consequence_of_packing_follows_from_the_lengths() -> None:
    made = settings(batch_size=2, epochs=3, packing=True, max_length=60).config()
    made = replace(made, max_steps=None)
    unknown = consequence_value(made, 160)["text"]
    assert unknown == (
        "160 rows, packed into steps of 2 windows of 60 tokens. How many steps that makes follows "
        "from the rows' lengths."
    )
    known = consequence_value(made, 160, 15.0)["text"]
    assert total_steps([15] * 160, made) == 60
    assert known == (
        "160 rows of 15 tokens on average, about 60 steps of 2 windows of 60 tokens, about 8 rows "
        "a step: every row is seen 3 times."
    )


def test_every_preset_of_settings_is_one_that_the_form_gives_back() -> None:
    from sft_core.ui.adopt import settings as shown

    for _, train in PRESETS.values():
        assert Settings(*shown(train)).config() == train
        assert Settings(*shown(train)).lora() == LoraConfig()
        assert "level" not in consequence_value(train, 160)


def test_the_form_spells_adapters_and_says_where_they_would_learn_little() -> None:
    from sft_core.ui.adopt import settings as shown

    made = settings(
        method="lora", lora_rank=8, lora_alpha=4.5, lora_dropout=0.1, lora_targets="q_proj, v_proj"
    )
    lora = LoraConfig(rank=8, alpha=4.5, dropout=0.1, targets=("q_proj", "v_proj"))
    assert made.lora() == lora
    assert Settings(*shown(made.config(), lora)).lora() == lora
    with pytest.raises(ConfigError, match="Rank is empty"):
        settings(method="lora", lora_rank=None).lora()
    assert settings(lora_rank=None).lora() == LoraConfig(), "a control that nobody sees"
    low = consequence_value(replace(made.config(), learning_rate=2e-5), 160)
    assert low["level"] == "warning"
    assert "2e-05 is low" in low["text"]


# -- a run -----------------------------------------------------------------------------------


def test_the_facts_tell_how_many_parameters_learn_where_not_all_do() -> None:
    def facts(trainable: int) -> dict[str, str]:
        event = replace(started(40), parameters=2_000_000, trainable=trainable)
        value = run_view.status_value("r", RunRecord(FROM_SCRATCH, [event]))
        return {name: figure for name, figure, _ in value["facts"]}

    assert facts(25_000)["trained parameters"] == "25,000 (1.25%)"
    assert "trained parameters" not in facts(2_000_000)
    whole = run_view.described(FROM_SCRATCH)
    low = run_view.described(FROM_SCRATCH.with_settings(["method=lora", "rank=4"]))
    assert low == f"{whole}, LoRA of rank 4"


def test_a_run_is_told_from_queue_to_end() -> None:
    record = RunRecord(FROM_SCRATCH, [RunQueued(run="r", position=2)])
    assert "2 jobs stand before" in run_view.status_value("r", record)["text"]
    record.add(PhaseEntered(phase="Reading rows"))
    assert run_view.status_value("r", record)["text"] == "Reading rows"
    record.add(started(40))
    for number in range(1, 11):
        record.add(step(number, 2.0))
    record.add(Warned(code="w", message="Mind this."))
    value = run_view.status_value("r", record)
    assert (value["state"], value["share"]) == ("running", 0.25)
    assert ["step", "10 of 40"] in [fact[:2] for fact in value["facts"]]
    assert value["notes"] == [{"level": "warning", "text": "Mind this."}]
    assert run_view.status_value("r", record, stopping=True)["state"] == "stopping"
    record.add(RunFinished(step=40, restored_step=30, seconds=75, run_dir="x"))
    value = run_view.status_value("r", record)
    assert value["text"] == "Done: 40 steps in 1 min 15 s. Its best weights, of step 30, were kept."
    assert value["learnt"]


def told(*events: RunEvent) -> dict[str, tuple[str, str]]:
    """Figure and how it was computed, by name."""
    record = RunRecord(FROM_SCRATCH, [started(40), *events])
    return {name: (figure, how) for name, figure, how in run_facts.facts(record)}


def test_a_run_tells_its_figures_and_how_each_was_computed() -> None:
    facts = told(
        replace(
            step(3, 2.0),
            smoothed_loss=2.5,
            accuracy=0.456,
            trained_tokens_per_second=412.0,
            peak_share=0.372,
            memory_mb=1536.0,
        )
    )
    expected = {
        "train loss": "2.000",
        "smoothed": "2.500",
        "token accuracy": "46%",
        "tokens read": "1,000 tokens/s",
        "tokens trained": "412 tokens/s",
        "of hardware's peak": "37%",
        "memory": "1.5 GB",
    }
    assert {name: facts[name][0] for name in expected} == expected
    assert all(len(how) > 10 for _, how in facts.values())
    assert "this processor" in facts["of hardware's peak"][1]
    assert facts["left"][0] == "1 s"


def test_the_share_of_a_gpus_peak_is_told_as_one() -> None:
    gpu = replace(started(40), device="NVIDIA L4")
    facts = run_facts.facts(RunRecord(FROM_SCRATCH, [gpu, replace(step(1, 1.0), peak_share=0.5)]))
    hows = {name: how for name, _, how in facts}
    assert "maker of the GPU" in hows["of hardware's peak"]
    assert "on the GPU" in hows["memory"]


def test_a_log_of_an_older_version_tells_what_it_has() -> None:
    facts = told(step(3, 2.0))
    assert not {"smoothed", "token accuracy", "tokens trained", "of hardware's peak"} & set(facts)
    assert facts["tokens read"][0] == "1,000 tokens/s"
    assert {"step", "train loss", "memory", "parameters"} <= set(facts)


def test_the_curves_below_the_loss_are_those_that_the_log_holds() -> None:
    def titles(*events: RunEvent) -> list[str]:
        return [it["title"] for it in losses_value(RunRecord(FROM_SCRATCH, events))["below"]]

    assert titles() == []
    old = [step(number, 2.0) for number in (1, 2)]
    assert titles(*old) == ["Learning rate", "Gradient norm"]
    parts = tuple(KindLoss(kind=kind, loss=1.0, tokens=5) for kind in ("answer", "template"))
    new = [replace(event, accuracy=0.5, kinds=parts) for event in old]
    assert titles(*new)[:2] == ["Answer and template", "Token accuracy"]
    value = losses_value(RunRecord(FROM_SCRATCH, new))
    assert value["label"] == "Loss by step. At step 2 the train loss is 2.000."
    assert all(it["how"] and it["label"] and it["figure"]["data"] for it in value["below"])
    assert losses_value(None)["figure"] is None


def test_a_failed_run_says_its_sentence() -> None:
    record = RunRecord(FROM_SCRATCH, [RunFailed(kind="X", message="No row is left.", run_dir="r")])
    value = run_view.status_value("r", record)
    assert (value["state"], value["text"], value["learnt"]) == ("failed", "No row is left.", False)


def score(exact: int) -> Score:
    return Score(
        overall=Tally("all", 40, exact, 40),
        by_category=(Tally("code", 6, exact // 6, 6),),
        seen=Tally("seen", 28, exact, 28),
        unseen=Tally("unseen", 12, 0, 12),
    )


def test_scores_stand_before_and_after_with_unseen_facts_apart() -> None:
    record = RunRecord(FROM_SCRATCH, [ScoreLogged(step=0, score=score(0))])
    first = run_view.scores_value(record)
    assert (first["before"]["exact"], first["after"]) == (0, None)
    record.add(ScoreLogged(step=9, score=score(26)))
    value = run_view.scores_value(record)
    assert (value["before"]["exact"], value["after"]["exact"]) == (0, 26)
    assert value["unseen"] == {"count": 12, "exact": 0, "stopped": 12}
    assert value["text"].startswith("12 of these 40 facts stood in no training row")
    assert value["categories"][0]["after"]["exact"] == 4


def test_a_run_that_ended_before_it_was_asked_again_has_no_score_of_its_own() -> None:
    record = RunRecord(FROM_SCRATCH, [ScoreLogged(step=0, score=score(3))])
    assert run_view.scores_value(record)["text"].startswith("12 of these 40")
    record.add(RunStopped(step=7, reason="Stopped on request.", run_dir="run"))
    value = run_view.scores_value(record)
    assert value["text"] == run_view.ASKED_BEFORE
    assert (value["before"]["exact"], value["after"]) == (3, None)
    assert "exact" not in run_view.summary(record)


def test_where_no_fact_stood_in_training_it_is_said_once() -> None:
    tally = Tally("all", 9, 8, 9)
    alike = Score(overall=tally, unseen=replace(tally, name="unseen"))
    for config, source in ((LabConfig(), "it knew before"), (FROM_SCRATCH, "can only guess")):
        value = run_view.scores_value(RunRecord(config, [ScoreLogged(step=9, score=alike)]))
        assert value["unseen"] is value["unseenBefore"] is None
        assert value["text"].startswith("None of these 9 facts stood in a training row: ")
        assert source in value["text"]
    rows = tuple(
        Example(str(at), (Message("user", "Q"), Message("assistant", "A")), fact=str(at))
        for at in range(3)
    )
    pairs = run_view.pairs_value(rows, frozenset({"other"}))["pairs"]
    assert [pair["seen"] for pair in pairs] == [None] * 3


def test_rows_that_name_no_fact_are_not_said_to_have_met_one() -> None:
    """Of the refusals' held-out rows only those about the parrot's world ask for a fact."""
    rows = rows_of(DataConfig("parrot-refusals"))
    note = data_view.reading_value(DataConfig("parrot-refusals"), rows)["note"]
    assert note.startswith("54 of the 103 held-out rows ask for a fact, and none of those stands")
    score = Score(Tally("all", 103, 90, 103), unseen=Tally("unseen", 54, 50, 54))
    text = run_view.scores_value(RunRecord(LabConfig(), [ScoreLogged(step=9, score=score)]))["text"]
    assert text.startswith("54 of these 103 rows ask for a fact, and none of those stood")
    assert "other words" not in text
    assert {rows.fact_note(row) for row in rows.splits.test} == {None}
    pairs = run_view.pairs_value(rows.splits.test, rows.seen)["pairs"]
    assert {pair["seen"] for pair in pairs} == {None}


def test_held_out_rows_say_whether_their_fact_was_seen_and_what_was_answered() -> None:
    rows = (
        Example("1", (Message("user", "Q"), Message("assistant", "A")), fact="known"),
        Example("2", (Message("user", "R"), Message("assistant", "B")), fact="new"),
    )
    graded = Graded(
        side=Side.TUNED,
        row="2",
        category=None,
        seen=False,
        prompt="R",
        expected="B",
        answer="C",
        exact=False,
        stopped=True,
    )
    pairs = run_view.pairs_value(rows, frozenset({"known"}), [graded])["pairs"]
    assert [pair["seen"] for pair in pairs] == [True, False]
    assert pairs[1]["after"] == {"answer": "C", "exact": False}
    assert pairs[0]["before"] is None
    assert run_view.pairs_value(rows, None)["pairs"][0]["seen"] is None


def test_samples_are_a_story_for_each_prompt_newest_first() -> None:
    events = [
        SampleGenerated(step=number, prompt=prompt, text=f"{number}", stopped=True, tokens=1)
        for number in (0, 20)
        for prompt in ("p", "q")
    ]
    value = run_view.samples_value(RunRecord(FROM_SCRATCH, events))["prompts"]
    assert [item["prompt"] for item in value] == ["p", "q"]
    assert [item["step"] for item in value[0]["story"]] == [20, 0]


def test_the_list_of_runs_tells_each_in_a_line() -> None:
    record = RunRecord(FROM_SCRATCH, [started(4), step(1, 2.0), step(2, 1.0)])
    record.add(EvalLogged(step=2, loss=1.25, trained_tokens=9, best=True))
    value = run_view.runs_value([("abcd", record)], "abcd", now=record.events[0].time + 130)
    line = value["runs"][0]
    assert line["text"] == "bytes-gpt on six-tasks, INST / RESP, running"
    assert line["when"] == "2 min ago"
    record.add(RunStopped(step=2, reason="Stopped on request.", run_dir="r"))
    told = run_view.summary(record)
    assert told == "bytes-gpt on six-tasks, INST / RESP, 2 steps, eval loss 1.25, paused"


# -- compare ---------------------------------------------------------------------------------


def test_an_example_is_asked_with_all_its_turns_and_a_changed_one_as_typed() -> None:
    row = ROWS.splits.test[0]
    shown = {
        "prompts": [
            {"text": row.prompt[-1].text, "example": row.id},
            {"text": "Mine", "example": row.id},
            {"text": "  ", "example": None},
        ]
    }
    asked = answers.questions(json.dumps(shown), ROWS)
    assert [question.messages for question in asked] == [row.prompt, (Message("user", "Mine"),)]
    assert [question.expected for question in asked] == [row.answer, ""]


def test_example_chips_show_each_category_first() -> None:
    value = answers.prompts_value(ROWS)
    categories = {row.id: row.category for row in ROWS.splits.test}
    first = [categories[example["row"]] for example in value["examples"][:6]]
    assert len(set(first)) == 6
    assert len(value["prompts"]) == 3


def test_the_board_fills_side_by_side_and_keeps_what_was_stopped() -> None:
    board = answers.Board(["p", "q"], ["", ""], FROM_SCRATCH, "abcdefgh")
    board.add(TextGenerated(side=Side.BASE, prompt=0, text="He", tokens=2))
    board.add(
        Answered(
            side=Side.TUNED,
            prompt=0,
            text="Yes",
            stopped=True,
            reason="Ended its turn.",
            ids=(1, 2, 3),
            prompt_ids=(9,),
            seconds=0.5,
        )
    )
    first = board.value()["prompts"][0]
    assert first["base"]["state"] == "writing"
    assert (first["tuned"]["state"], first["tuned"]["rate"]) == ("done", "6 tokens/s")
    assert board.halt()
    assert not board.halt()
    states = [
        pair[side]["state"] for pair in board.value()["prompts"] for side in ("base", "tuned")
    ]
    assert states == ["halted", "done", "halted", "halted"]
    alone = answers.Board(["p"], [""], FROM_SCRATCH, None)
    assert alone.value()["prompts"][0]["tuned"]["state"] == "absent"


# -- handlers of the template panel ----------------------------------------------------------


def test_the_template_follows_the_model_unless_it_was_edited() -> None:
    smol = from_scratch(model="smollm2-135m-instruct")
    _, shape, _, preset, source, _ = template_panel.choose_model(smol)
    assert preset["value"] == "chatml"
    assert "<|im_start|>" in source
    assert shape["visible"] is False
    edited = from_scratch(model="smollm2-135m-instruct", source="{{ messages }}")
    assert not isinstance(template_panel.choose_model(edited)[4], str)


def test_what_cannot_be_looked_at_says_so_in_the_strip() -> None:
    painted = template_panel.repaint(from_scratch(width=None))
    assert json.loads(painted[0])["error"] == "Width is empty: give a number."


def test_words() -> None:
    import doctest

    assert doctest.testmod(words).failed == 0


def test_compare_stops_on_what_is_typed() -> None:
    asked = Asked("", "greedy", None, None, None, 1.0, None, 20, " <|endoftext|>  </s> ")
    assert asked.config().stop_tokens == ("<|endoftext|>", "</s>")
    assert Asked("", "greedy", None, None, None, 1.0, None, 20).config().stop_tokens == ()


def test_named_templates_of_a_tokenizer_can_be_chosen(tmp_path: Path) -> None:
    base = byte_level()
    named = {
        "default": preset_source("chatml", "bytes-gpt"),
        "tool_use": "{{ messages[0].content }}",
    }
    backend = tokenizers.Tokenizer.from_str(base.to_json())
    Tokenizer("two", backend, base.special_tokens, named).save(tmp_path)
    given = from_scratch(model=OWN, own_model=str(tmp_path))
    *_, listed, _, _ = template_panel.choose_model(given)
    assert ("The tokenizer's own: tool_use", "tokenizer:tool_use") in listed["choices"]
    source, _ = template_panel.choose_preset(replace(given, preset="tokenizer:tool_use"))
    assert source == named["tool_use"]
    config = session.contract(replace(given, preset="tokenizer:tool_use", source=source))
    assert (config.template.name, config.template.source) == ("tokenizer:tool_use", None)
    shown = adopted(config)
    assert any(isinstance(it, dict) and it.get("value") == "tokenizer:tool_use" for it in shown)


def test_what_stops_a_template_is_said_once() -> None:
    config = LabConfig(template=TemplateConfig("mine", "{{ foo.bar.baz }}"))
    example = Example("x", (Message("user", "Hi"), Message("assistant", "Yes.")))
    [finding] = look(config, example).findings
    assert (finding.code, finding.line) == ("template-fails", 1)


def test_another_kind_of_source_brings_its_own_rows(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text('{"prompt": "Hi", "response": "Yes."}\n' * 20)
    mine = data_panel.load(Source(kind="upload", file=str(file)), pack(DataConfig()))
    back = data_panel.change_kind(Source(kind="built-in", file=str(file)), mine[0])
    assert back[0] == pack(DataConfig())
    again = data_panel.change_kind(Source(kind="upload", file=str(file)), back[0])
    assert again[0] == mine[0]
    asked_later = data_panel.change_kind(Source(kind="hub", address="a/b"), back[0])
    assert asked_later == data_panel.change_kind(Source(kind="hub", address="a/b"), mine[0])
    unnamed = data_panel.load(Source(kind="hub"), back[0])
    assert "Name a data set" in json.loads(unnamed[2])["error"]
    # What was said of a file that cannot be read does not stay beside the rows that are used.
    same = data_panel.change_kind(Source(), pack(DataConfig()))
    assert "160 rows to train on" in json.loads(same[2])["split"]
    assert same[0] == asked_later[0]


def test_a_turn_that_calls_a_tool_says_so(tmp_path: Path) -> None:
    call = {"function": {"name": "look_up", "arguments": "{}"}}
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "tool_calls": [call]}]
    file = tmp_path / "tools.json"
    file.write_text(json.dumps([{"messages": turns}] * 4))
    rows = rows_of(DataConfig(source=str(file), eval_rows=0))
    shown = data_view.rows_value(rows, "train", 0, Pick())["rows"][0]["turns"]
    assert [turn["calls"] for turn in shown] == ["", "look_up"]


def test_a_prompt_that_opens_no_turn_is_not_called_exact() -> None:
    source = "{% for m in messages %}<INST>{{ m.role }} {{ m.content }}<END>{% endfor %}"
    seen = look(session.contract(from_scratch(source=source)), FIRST)
    said = text_value(seen)
    assert said["level"] == "error"
    assert "nothing that opens" in said["sentence"]
    assert "exactly" in text_value(look(FROM_SCRATCH, FIRST))["sentence"]
