"""The Compare tab: several prompts, two equal columns that answer together."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import gradio as gr

from sft_core.config import GenerateConfig, LabConfig
from sft_core.events import Answered, PhaseEntered, RunQueued, TextGenerated
from sft_core.jobs import CompareJob
from sft_core.runs import Runs
from sft_core.settings import HOST
from sft_core.types import ConfigError, LabError
from sft_core.ui.answers import NO_ANSWERS, Board, prompts_value, questions, title_value
from sft_core.ui.fields import Fields
from sft_core.ui.listen import Tickets, heard
from sft_core.ui.parts import heading
from sft_core.ui.session import Choices, contract, given, sentence, whole
from sft_core.ui.sources import Rows, rows_of
from sft_core.ui.view import dumps, view
from sft_core.ui.words import waiting

REPAINT_SECONDS: Final = 0.08
GREEDY, SAMPLED = "greedy", "sampled"


@dataclass(frozen=True, slots=True)
class Asked:
    """The controls of the tab."""

    prompts: str
    how: str
    temperature: float | None
    top_p: float | None
    top_k: float | None
    repetition_penalty: float | None
    seed: float | None
    max_new_tokens: float | None
    stop_on: str = ""

    def config(self) -> GenerateConfig:
        """Raises ConfigError."""
        length = whole(self.max_new_tokens, "Longest answer")
        penalty = given(self.repetition_penalty, "Repetition penalty")
        stops = tuple(self.stop_on.split())
        if self.how == GREEDY:
            return GenerateConfig(
                max_new_tokens=length, repetition_penalty=penalty, stop_tokens=stops
            )
        temperature = given(self.temperature, "Temperature")
        if not temperature:
            raise ConfigError("Temperature 0 is greedy: raise it to sample, or choose greedy.")
        return GenerateConfig(
            max_new_tokens=length,
            temperature=temperature,
            top_p=given(self.top_p, "Top p"),
            top_k=whole(self.top_k, "Top k"),
            repetition_penalty=penalty,
            seed=whole(self.seed, "Seed"),
            stop_tokens=stops,
        )


@dataclass(frozen=True, slots=True)
class Tab:
    asked: Fields[Asked]
    title: gr.HTML
    prompts: gr.HTML
    go: gr.Button
    stop: gr.Button
    line: gr.HTML
    answers: gr.HTML
    sampling: gr.Column
    ticket: gr.State


# -- handlers --------------------------------------------------------------------------------


def compare(
    runs: Runs, tickets: Tickets, ticket: str, asked: Asked, choices: Choices, run: str | None
) -> Iterator[tuple[str, Any]]:
    """Yields (line, answers) while both sides answer."""
    try:
        directory = runs.directory(run) if run else None
        config = directory.config() if directory else contract(choices)
        found = questions(asked.prompts, _rows(config))
        generate = asked.config()
        job = CompareJob(
            run_dir=directory.path if directory else None,
            config=config,
            prompts=tuple(question.messages for question in found),
            generate=generate,
        )
        HOST.check(config.but(generate=generate))
    except LabError as error:
        yield dumps({"text": sentence(error), "level": "error"}), gr.skip()
        return
    board = Board(
        [question.text for question in found],
        [question.expected for question in found],
        config,
        run if directory else None,
    )
    yield from _stream(runs, job, board, tickets, ticket)


def _stream(
    runs: Runs, job: CompareJob, board: Board, tickets: Tickets, ticket: str
) -> Iterator[tuple[str, Any]]:
    stop = tickets.of(ticket)
    line: dict[str, Any] = {"text": "Loading the models", "busy": True}
    painted = 0.0
    yield dumps(line), dumps(board.value())
    try:
        for event in heard(runs.ask(job), stop):
            match event:
                case RunQueued(position=position):
                    line = {"text": f"Waiting: {waiting(position)}", "busy": True}
                case PhaseEntered(phase=phase):
                    line = {"text": phase, "busy": True}
                case TextGenerated() | Answered():
                    board.add(event)
                    line = {"text": "Answering", "busy": True}
            if event is not None and time.monotonic() - painted > REPAINT_SECONDS:
                painted = time.monotonic()
                yield dumps(line), dumps(board.value())
        line = {"text": ""}
        if board.halt():
            line = {"text": "Stopped. What was answered until then stays.", "level": "info"}
    except LabError as error:
        board.halt()
        line = {"text": sentence(error), "level": "error"}
    finally:
        tickets.end(ticket)
    yield dumps(line), dumps(board.value())


def begin() -> tuple[str, Any, Any]:
    """-> (a new ticket, Compare, Stop) as a comparison begins."""
    return secrets.token_hex(8), gr.update(visible=False), gr.update(visible=True)


def halt(tickets: Tickets, ticket: str) -> None:
    """Stops the comparison; it says so itself."""
    tickets.stop(ticket)


def done() -> tuple[Any, Any]:
    """-> (Compare, Stop) once it is over."""
    return gr.update(visible=True), gr.update(visible=False)


def _rows(config: LabConfig) -> Rows | None:
    """The rows that the prompts' examples come from, where they can still be read."""
    try:
        return rows_of(config.data)
    except LabError:
        return None


def refresh(runs: Runs, choices: Choices, run: str | None) -> tuple[str, str]:
    """-> (title, prompts) when another run is looked at or other data is loaded."""
    config: LabConfig | None = None
    try:
        if run:
            config = runs.directory(run).config()
        rows = rows_of(config.data if config else choices.data)
    except LabError:
        return dumps(title_value(run, config)), gr.skip()
    return dumps(title_value(run, config)), dumps(prompts_value(rows))


def show_sampling(how: str) -> Any:
    return gr.update(visible=how == SAMPLED)


# -- layout ----------------------------------------------------------------------------------


def build(rows: Rows) -> Tab:
    title = view("line", title_value(None, None), elem_id="compare-title")
    with gr.Row(elem_classes="columns"):
        with gr.Column(scale=7):
            heading("Ask")
            prompts = view("prompts", prompts_value(rows), elem_id="prompts")
            with gr.Row(elem_classes="inline"):
                go = gr.Button("Compare", variant="primary", size="lg", scale=0, elem_id="compare")
                stop = gr.Button(
                    "Stop",
                    variant="stop",
                    size="lg",
                    scale=0,
                    visible=False,
                    elem_id="compare-stop",
                )
                line = view("line", {"text": ""}, elem_id="compare-line")
        with gr.Column(scale=5):
            heading("How answers are drawn")
            # Long enough for any model that may be chosen later.
            controls, sampling = _controls(GenerateConfig())
    answers = view("answers", NO_ANSWERS, elem_id="answers")
    return Tab(
        asked=Fields(Asked, prompts=prompts, **controls),
        title=title,
        prompts=prompts,
        go=go,
        stop=stop,
        line=line,
        answers=answers,
        sampling=sampling,
        ticket=gr.State(""),
    )


def _controls(generate: GenerateConfig) -> tuple[dict[str, Any], gr.Column]:
    how = gr.Radio(
        [("Greedy", GREEDY), ("Sampled", SAMPLED)], value=GREEDY, label="Drawn", elem_id="how"
    )
    with gr.Row(elem_classes="pairwise"):
        length = gr.Number(
            generate.max_new_tokens,
            label="Longest answer, tokens",
            precision=0,
            minimum=1,
            maximum=HOST.max_new_tokens,
            min_width=120,
            elem_id="longest",
        )
        penalty = gr.Number(
            generate.repetition_penalty,
            label="Repetition penalty",
            minimum=0.1,
            maximum=10,
            step=0.05,
            min_width=120,
        )
    stop_on = gr.Textbox(
        " ".join(generate.stop_tokens),
        label="Stop on",
        placeholder="what training taught as the end of a turn",
        info="Type other tokens, with spaces between them, to see what happens when a program "
        "stops on the wrong ones.",
        max_lines=1,
        elem_id="stop-on",
    )
    with gr.Column(visible=False) as sampling, gr.Row(elem_classes="pairwise"):
        temperature = gr.Slider(0, 2, 0.7, step=0.05, label="Temperature", min_width=120)
        top_p = gr.Slider(0.05, 1, 0.9, step=0.01, label="Top p", min_width=120)
        top_k = gr.Slider(0, 200, 0, step=1, label="Top k, 0 is off", min_width=120)
        seed = gr.Number(generate.seed, label="Seed", precision=0, minimum=0, min_width=120)
    controls = {
        "how": how,
        "temperature": temperature,
        "top_p": top_p,
        "top_k": top_k,
        "repetition_penalty": penalty,
        "seed": seed,
        "max_new_tokens": length,
        "stop_on": stop_on,
    }
    return controls, sampling
