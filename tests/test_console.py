"""What a terminal shows is drawn from the events and nothing else."""

from __future__ import annotations

import io
import signal
import threading
from dataclasses import replace

import pytest

from sft_core.config import LabConfig
from sft_core.console import Progress, beside, ctrl_c, curve, perplexities, printable, scores
from sft_core.events import (
    Answered,
    EvalLogged,
    Perplexity,
    PhaseEntered,
    RunStarted,
    Score,
    Side,
    StepLogged,
    Tally,
)
from sft_core.record import RunRecord

STARTED = RunStarted(
    run="r",
    model="m",
    device="cpu",
    precision="fp32",
    parameters=1,
    trainable=1,
    train_rows=1,
    eval_rows=1,
    test_rows=1,
    bad_rows=0,
    truncated_rows=0,
    tokens=1,
    trained_tokens=1,
    total_steps=4,
)


def step(number: int, loss: float) -> StepLogged:
    return StepLogged(
        step=number,
        epoch=1.0,
        loss=loss,
        learning_rate=0.1,
        grad_norm=1.0,
        tokens=1,
        trained_tokens=1,
        tokens_per_second=1234.0,
        seconds_left=1.0,
        memory_mb=1.0,
    )


def answer(side: Side, text: str, *, stopped: bool) -> Answered:
    return Answered(
        side=side,
        prompt=0,
        text=text,
        stopped=stopped,
        reason="it printed its end of turn" if stopped else "cut off after 3 tokens",
        ids=(1,),
        prompt_ids=(2,),
        seconds=0.1,
    )


def record(*losses: float) -> RunRecord:
    return RunRecord(LabConfig(), [step(at, loss) for at, loss in enumerate(losses, start=1)])


def test_a_falling_loss_falls_in_the_drawing() -> None:
    drawing = curve(record(4.0, 3.0, 2.0, 1.0), width=8, height=4).splitlines()
    dots = [line[9:].index(".") for line in drawing[:4]]
    assert dots == sorted(dots)
    assert len(set(dots)) == 4
    assert drawing[0].startswith("   4.00 |")
    assert drawing[3].startswith("   1.00 |")
    assert "step 4" in drawing[5]


def test_evaluations_are_drawn_with_their_own_mark() -> None:
    run = record(4.0, 1.0)
    run.add(EvalLogged(step=2, loss=2.5, trained_tokens=1, best=True))
    drawing = curve(run, width=8, height=3).splitlines()
    assert drawing[1].rstrip().endswith("o")


@pytest.mark.parametrize(("losses", "marks"), [((), 0), ((2.0,), 1), ((2.0, 2.0, 2.0), 3)])
def test_a_short_or_flat_run_is_drawn_too(losses: tuple[float, ...], marks: int) -> None:
    lines = [line for line in curve(record(*losses), width=9).splitlines() if "|" in line]
    assert "".join(line.partition("|")[2] for line in lines).count(".") == marks


def test_scores_stand_beside_each_other() -> None:
    before = Score(Tally("all", 4, 0, 1), (Tally("capital", 4, 0, 1),), Tally("seen", 3, 0, 1))
    after = Score(
        Tally("all", 4, 3, 4),
        (Tally("capital", 4, 3, 4),),
        Tally("seen", 3, 3, 3),
        Tally("unseen", 1, 0, 1),
    )
    table = scores({Side.BASE: before, Side.TUNED: after}).splitlines()
    assert table[0].split() == ["exact", "match", "before", "after"]
    assert table[1].split() == ["all", "rows", "0/4", "=", "0.00", "3/4", "=", "0.75"]
    assert any("capital" in line and "3/4 = 0.75" in line for line in table)
    assert any("seen in training" in line and "3/3 = 1.00" in line for line in table)
    assert table[-1].split()[-2:] == ["1/4", "4/4"]


def test_perplexities_stand_beside_each_other() -> None:
    read = {Side.BASE: Perplexity(8.0, 4, 16, 2), Side.TUNED: Perplexity(12.0, 4, 16, 2)}
    table = [line.split() for line in perplexities(read).splitlines()]
    assert table == [
        ["raw", "text", "before", "after"],
        ["perplexity", "7.389", "20.09"],
        ["bits", "per", "byte", "0.7213", "1.082"],
        ["nats", "per", "token", "2", "3"],
        ["after", "/", "before", "2.718"],
        ["2", "texts,", "4", "tokens,", "16", "bytes", "predicted"],
    ]
    alone = perplexities({Side.BASE: read[Side.BASE]})
    assert "after" not in alone


def test_answers_stand_beside_each_other() -> None:
    shown = beside(
        "Capital of France?",
        {
            Side.BASE: answer(Side.BASE, "x" * 50, stopped=False),
            Side.TUNED: answer(Side.TUNED, "Paris.\n\nYes.", stopped=True),
        },
    ).splitlines()
    assert shown[0] == "> Capital of France?"
    assert shown[3].split() == ["x" * 38, "Paris."]
    assert shown[-1].strip() == "[it printed its end of turn]"
    assert any("[cut off after 3 tokens]" in line for line in shown)


@pytest.mark.parametrize(("text", "shown"), [("", "(nothing)"), ("  \n", "(3 characters of white")])
def test_an_answer_that_cannot_be_seen_is_told(text: str, shown: str) -> None:
    assert shown in beside("Hi", {Side.BASE: answer(Side.BASE, text, stopped=False)})


def test_a_model_cannot_steer_the_terminal() -> None:
    assert (
        printable("a\x1b[2Jb\rc\nd\te")
        == "a\N{REPLACEMENT CHARACTER}[2Jb\N{REPLACEMENT CHARACTER}c\nd\te"
    )


def test_the_bar_counts_steps_and_says_phases() -> None:
    stream = io.StringIO()
    bar = Progress(stream)
    for event in (PhaseEntered(phase="Reading rows"), STARTED, step(2, 1.5), step(4, 1.25)):
        bar.show(event)
    bar.close()
    text = stream.getvalue()
    assert "Reading rows" in text
    assert "4/4" in text
    assert "loss 1.250" in text
    assert "1,234 tokens/s" in text
    assert "peak" not in text


def test_the_bar_tells_what_newer_logs_hold() -> None:
    stream = io.StringIO()
    bar = Progress(stream)
    full = replace(step(4, 1.25), smoothed_loss=1.5, accuracy=0.81, peak_share=0.37)
    for event in (STARTED, full):
        bar.show(event)
    bar.close()
    assert "loss 1.500, 81% right, 1,234 tokens/s, 37% of peak" in stream.getvalue()


def test_the_first_ctrl_c_asks_and_the_second_breaks_off() -> None:
    stream = io.StringIO()
    # A shell that starts the tests in the background has Ctrl-C ignored.
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
    before = signal.getsignal(signal.SIGINT)
    with ctrl_c(stream) as should_stop:
        assert not should_stop()
        signal.raise_signal(signal.SIGINT)
        assert should_stop()
        assert "again to break off" in stream.getvalue()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
    signal.signal(signal.SIGINT, inherited)


def test_beside_the_main_thread_nothing_is_caught() -> None:
    found: list[bool] = []

    def ask() -> None:
        with ctrl_c(io.StringIO()) as should_stop:
            found.append(should_stop())

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    assert found == [False]
