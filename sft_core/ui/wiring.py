"""Which control calls which handler, and what each answer repaints.

Everything that changes the contract goes through one listener, so that answers come back in the
order of the questions, and fast typing asks only for the last state of the text.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Final

import gradio as gr

from sft_core.runs import Runs
from sft_core.settings import HOST
from sft_core.ui import (
    audit_panel,
    batch_panel,
    consequence,
    data_panel,
    findings,
    rival_view,
    run_handlers,
    settings_form,
    template_panel,
)
from sft_core.ui import compare as compare_tab
from sft_core.ui import tokens as tokens_tab
from sft_core.ui import train as train_tab
from sft_core.ui.audits import Audits
from sft_core.ui.fields import Fields, bind
from sft_core.ui.listen import Tickets
from sft_core.ui.parts import LIGHT
from sft_core.ui.session import Choices

SHAPE: Final = ("width", "depth", "heads", "context")
NUMBERS: Final = ("rows", "eval_rows", "test_rows", "seed")


@dataclass(frozen=True, slots=True)
class Page:
    """Every part of the page that takes part in the wiring."""

    chips: gr.HTML
    run_chip: gr.HTML
    data: data_panel.Panel
    template: template_panel.Panel
    tokens: tokens_tab.Tab
    batch: batch_panel.Panel
    whole_set: audit_panel.Panel
    train_tab: gr.Tab
    train: train_tab.Tab
    compare: compare_tab.Tab
    choices: Fields[Choices]
    own_runs: gr.BrowserState

    def looked_at(self) -> list[Any]:
        """What ``template_panel.repaint`` repaints."""
        panel = self.template
        return [
            panel.tokens,
            panel.text,
            panel.found.findings,
            self.chips,
            panel.missing_box,
            self.tokens.stepper,
        ]

    def places(self) -> tuple[findings.Shown, ...]:
        """Where findings are shown."""
        return self.template.found, self.tokens.found, self.whole_set.found

    def loads(self) -> list[Any]:
        """What ``data_panel.load`` gives values for, in its order."""
        data = self.data
        return [data.config, data.pick, data.reading, data.rows, self.template.builder]

    def adopting(self) -> list[Any]:
        """What ``adopt.adopted`` gives values for, in its order."""
        data, panel = self.data, self.template
        source, controls = data.source, panel.controls
        return [
            *self.loads(),
            *(source["kind"], *data.boxes),
            *(source[name] for name in ("built_in", "address", "subset", "split", *NUMBERS)),
            *(controls["model"], controls["own_model"], panel.own_box, panel.shape_box),
            *(controls[name] for name in SHAPE),
            *(controls[name] for name in ("missing", "preset", "source")),
            *(controls[name] for name in ("train_on", "end_of_turn")),
            *self.settings(),
        ]

    def settings(self) -> list[Any]:
        return [self.train.settings[field.name] for field in fields(settings_form.Settings)]


def choices_of(
    data: data_panel.Panel, template: template_panel.Panel, train: train_tab.Tab
) -> Fields[Choices]:
    """The controls of the contract, wherever on the page they stand."""
    return Fields(
        Choices,
        held=data.config,
        pick=data.pick,
        conversation=template.builder,
        max_length=train.settings["max_length"],
        **template.controls,
    )


def wire(page: Page, runs: Runs, audits: Audits, blocks: gr.Blocks) -> None:
    wire_data(page)
    wire_contract(page)
    wire_model(page, runs)
    wire_rival(page)
    wire_training(page, runs, blocks)
    wire_grading(page, runs)
    wire_comparison(page, runs)
    opening = [page.data.pick, page.data.rows, page.template.builder]
    batch_panel.wire(
        page.batch, page.choices, page.train.settings, page.data.config, page.data.rows, opening
    )
    undone = page.template.undone
    mended = findings.outputs(page.places(), undone, page.choices)
    audit_panel.wire(
        page.whole_set, audits, page.choices, opening, mended, undone, page.data.rows, blocks.load
    )


# -- data ------------------------------------------------------------------------------------


def wire_data(page: Page) -> None:
    panel, source = page.data, page.data.source
    loads = page.loads()
    source["kind"].input(*bind(data_panel.change_kind, source, panel.config), loads, **LIGHT)
    gr.on(
        [
            source["built_in"].input,
            source["file"].upload,
            source["address"].submit,
            panel.load.click,
            panel.reading.edit,
            *(source[name].submit for name in NUMBERS),
            *(source[name].blur for name in NUMBERS),
        ],
        *bind(data_panel.load, source, panel.config),
        loads,
        trigger_mode="always_last",
        concurrency_limit=None,
        show_progress="minimal",
        show_progress_on=panel.reading,
        api_visibility="private",
    )
    turn, inputs = bind(data_panel.turn_page, panel.config, panel.pick, event=True)
    panel.rows.leaf(turn, inputs, panel.rows, **LIGHT)
    choose, inputs = bind(data_panel.choose, panel.config, panel.rows, event=True)
    for event in (panel.rows.pick, page.tokens.stepper.pick):
        event(choose, inputs, [panel.pick, panel.rows, page.template.builder], **LIGHT)


# -- model, template, mask, conversation -----------------------------------------------------


def wire_contract(page: Page) -> None:
    panel, controls = page.template, page.template.controls
    repaint, inputs = bind(template_panel.repaint, page.choices)
    gr.on(
        [
            page.data.config.change,
            page.data.pick.change,
            panel.builder.edit,
            controls["source"].change,
            controls["train_on"].change,
            controls["end_of_turn"].change,
            controls["missing"].change,
            page.train.settings["max_length"].change,
            *(controls[name].change for name in SHAPE),
        ],
        repaint,
        inputs,
        page.looked_at(),
        trigger_mode="always_last",
        **LIGHT,
    )
    preset, inputs = bind(template_panel.choose_preset, page.choices)
    controls["preset"].input(preset, inputs, [controls["source"], panel.preset_note], **LIGHT)
    back, inputs = bind(template_panel.back_to_row, page.choices)
    panel.builder.reset(back, inputs, panel.builder, **LIGHT).then(
        repaint, inputs, page.looked_at(), **LIGHT
    )
    findings.wire(page.places(), panel.undone, page.choices)


def wire_rival(page: Page) -> None:
    """The other masker is asked anew whenever the tokens were."""
    oppose, inputs = bind(rival_view.oppose, page.choices, page.tokens.rival)
    gr.on(
        [page.tokens.rival.change, page.template.tokens.change],
        oppose,
        inputs,
        page.tokens.differences,
        trigger_mode="always_last",
        **LIGHT,
    )


def wire_model(page: Page, runs: Runs) -> None:
    panel, controls = page.template, page.template.controls
    choose, inputs = bind(template_panel.choose_model, page.choices)
    repaint, _ = bind(template_panel.repaint, page.choices)
    measure, _ = bind(template_panel.measure, page.choices, fixed=(runs,))
    outputs = [panel.own_box, panel.shape_box, panel.model_note]
    outputs += [controls["preset"], controls["source"], panel.preset_note]
    chosen = gr.on(
        [controls["model"].input, controls["own_model"].submit],
        choose,
        inputs,
        outputs,
        trigger_mode="always_last",
        **LIGHT,
    )
    rows, source = bind(data_panel.follow_model, page.data.source, page.choices)
    chosen = chosen.then(rows, source, [page.data.source["built_in"], *page.loads()], **LIGHT)
    chosen = chosen.then(repaint, inputs, page.looked_at(), **LIGHT)
    fitting, both = bind(run_handlers.follow_model, page.train.settings, page.choices)
    chosen.then(fitting, both, [page.train.preset, *page.settings()], **LIGHT)
    counted = [panel.count.click(measure, inputs, panel.size, **LIGHT)]
    if not HOST.on_space:
        # Counting needs the compute process, which on a Space is everybody's.
        counted.append(chosen.then(measure, inputs, panel.size, **LIGHT))
    for count in counted:
        count.then(repaint, inputs, page.looked_at(), **LIGHT)


# -- training --------------------------------------------------------------------------------


def wire_training(page: Page, runs: Runs, blocks: gr.Blocks) -> None:
    tab, settings = page.train, page.train.settings
    say, inputs = bind(consequence.consequence, settings, page.choices)
    gr.on(
        [
            page.data.config.change,
            page.train_tab.select,
            *(settings[name].change for name in settings_form.TOLD),
        ],
        say,
        inputs,
        tab.consequence,
        trigger_mode="always_last",
        **LIGHT,
    )
    followed = tab.followed(page.run_chip)
    follow, looking = bind(run_handlers.follow, tab.run, tab.drawn, fixed=(runs,))
    start, inputs = bind(run_handlers.start, settings, page.choices, tab.run, fixed=(runs,))
    tab.start.click(
        start, inputs, [tab.run, tab.line, tab.drawn], trigger_mode="once", **LIGHT
    ).then(follow, looking, followed, **LIGHT)
    stop, inputs = bind(run_handlers.stop, tab.run, fixed=(runs,))
    tab.stop.click(stop, inputs, [tab.line, tab.status], **LIGHT)
    resume, inputs = bind(run_handlers.resume, tab.run, fixed=(runs,))
    tab.resume.click(resume, inputs, [tab.line, tab.drawn], trigger_mode="once", **LIGHT).then(
        follow, looking, followed, **LIGHT
    )
    adopt_run, inputs = bind(run_handlers.adopt_run, tab.run, fixed=(runs,))
    tab.status.adopt(adopt_run, inputs, page.adopting(), **LIGHT)
    tab.preset.input(run_handlers.begin_with, tab.preset, page.settings(), **LIGHT)
    tab.timer.tick(follow, looking, followed, trigger_mode="once", **LIGHT)
    open_run, inputs = bind(run_handlers.opened, tab.run, fixed=(runs,), event=True)
    tab.runs.open(open_run, inputs, [tab.run, tab.line, tab.drawn], **LIGHT).then(
        follow, looking, followed, **LIGHT
    )
    _wire_surroundings(page, runs)
    _wire_arrival(page, runs, blocks, follow, looking, followed)


def _wire_surroundings(page: Page, runs: Runs) -> None:
    """What changes when another run is looked at, when a run ends, or when data is loaded."""
    tab = page.train
    around, inputs = bind(
        run_handlers.around, tab.run, page.own_runs, page.data.config, fixed=(runs,)
    )
    gr.on(
        [tab.run.change, tab.phase.change, page.data.config.change],
        around,
        inputs,
        [tab.address, tab.runs, tab.pairs, page.own_runs],
        trigger_mode="always_last",
        **LIGHT,
    )
    refresh, inputs = bind(compare_tab.refresh, page.choices, tab.run, fixed=(runs,))
    gr.on(
        [tab.run.change, page.data.config.change],
        refresh,
        inputs,
        [page.compare.title, page.compare.prompts],
        trigger_mode="always_last",
        **LIGHT,
    )


def wire_grading(page: Page, runs: Runs) -> None:
    tab = page.train
    grade, inputs = bind(run_handlers.grade, tab.run, fixed=(runs,))
    tab.grade.click(grade, inputs, [tab.grade_line, tab.pairs], trigger_mode="once", **LIGHT)


def _wire_arrival(
    page: Page, runs: Runs, blocks: gr.Blocks, follow: Any, looking: Any, followed: list[Any]
) -> None:
    """Somebody opens the page, by a link to a run or without."""
    tab = page.train

    def arrive(own: list[str] | None, request: gr.Request) -> tuple[Any, ...]:
        asked = request.query_params.get("run")
        return run_handlers.arrived(runs, str(asked) if asked else None, own or [])

    arrived = blocks.load(arrive, page.own_runs, [tab.run, tab.line, tab.drawn, tab.runs], **LIGHT)
    followed_first = arrived.then(follow, looking, followed, **LIGHT)
    adopt_run, inputs = bind(run_handlers.adopt_linked, tab.run, fixed=(runs,))
    adopted = followed_first.then(adopt_run, inputs, page.adopting(), **LIGHT)
    if not HOST.on_space:
        measure, inputs = bind(template_panel.measure, page.choices, fixed=(runs,))
        repaint, _ = bind(template_panel.repaint, page.choices)
        adopted.then(measure, inputs, page.template.size, **LIGHT).then(
            repaint, inputs, page.looked_at(), **LIGHT
        )


# -- comparison ------------------------------------------------------------------------------


def wire_comparison(page: Page, runs: Runs) -> None:
    tab, tickets = page.compare, Tickets()
    tab.asked["how"].change(compare_tab.show_sampling, tab.asked["how"], tab.sampling, **LIGHT)
    ask, inputs = bind(
        compare_tab.compare,
        tab.ticket,
        tab.asked,
        page.choices,
        page.train.run,
        fixed=(runs, tickets),
    )
    buttons = [tab.ticket, tab.go, tab.stop]
    begun = tab.go.click(compare_tab.begin, None, buttons, trigger_mode="once", **LIGHT)
    asked = begun.then(ask, inputs, [tab.line, tab.answers], **LIGHT)
    asked.then(compare_tab.done, None, [tab.go, tab.stop], **LIGHT)
    stop, inputs = bind(compare_tab.halt, tab.ticket, fixed=(tickets,))
    tab.stop.click(stop, inputs, None, **LIGHT)
