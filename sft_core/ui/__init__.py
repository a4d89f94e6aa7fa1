"""The page: ``build_app`` lays the tabs out, wires them, and says how to launch them."""

from __future__ import annotations

import atexit
import logging
import os
import threading
from contextlib import suppress
from typing import Any, Final

import gradio as gr

from sft_core import sandbox
from sft_core.catalogue import find
from sft_core.config import LabConfig
from sft_core.lessons import FROM_SCRATCH
from sft_core.runs import Runs
from sft_core.settings import HOST
from sft_core.tokenizer import load_tokenizer
from sft_core.types import Example, LabError, Message, Template
from sft_core.ui import (
    audit_panel,
    batch_panel,
    compare,
    data_panel,
    header,
    live_plot,
    memory_line,
    template_panel,
    tokens,
    train,
)
from sft_core.ui.audits import Audits
from sft_core.ui.look import look
from sft_core.ui.parts import introduction, next_steps
from sft_core.ui.sources import Pick, rows_of
from sft_core.ui.theme import theme
from sft_core.ui.view import STATIC, script, stylesheets, view
from sft_core.ui.wiring import Page, choices_of, wire
from sft_core.worker import compute

log = logging.getLogger(__name__)

HANDLER_THREADS: Final = 40
UPLOADS_KEPT_SECONDS: Final = 24 * 3600


def build_app(runs: Runs | None = None) -> tuple[gr.Blocks, dict[str, Any]]:
    """-> (the page, what to hand to its ``launch``). Without ``runs`` the page keeps its own, in
    the folder that the environment names, and closes them when the process ends."""
    if runs is None:
        runs = Runs(HOST.runs_dir, compute())
        atexit.register(runs.close)
    config, missing = opening()
    rows = rows_of(config.data)
    example = rows.at(Pick())
    assert example is not None
    seen = look(config, example)
    with gr.Blocks(
        title="SFT Lab",
        analytics_enabled=False,
        fill_width=True,
        delete_cache=(3600, UPLOADS_KEPT_SECONDS),
    ) as blocks:
        chips, run_chip = header.build(seen, rows)
        with gr.Tabs(elem_id="tabs", overflow_behavior="wrap"):
            with gr.Tab("Data & Template", id="data", elem_id="tab-data"):
                introduction(
                    "See what supervised fine-tuning does: choose rows and a chat template, look "
                    "at which tokens are trained and why, train a small model, and compare it with "
                    "what it was. Everything is set to work as it is; start anywhere."
                )
                if missing:
                    view("line", {"text": missing, "level": "warning"}, elem_id="missing-default")
                data = data_panel.build(config.data)
                template = template_panel.build(config, seen)
                next_steps(("tokens", "Look at its tokens"), ("train", "Train on these rows"))
            with gr.Tab("Tokens", id="tokens", elem_id="tab-tokens") as tokens_tab:
                with gr.Tabs(elem_id="scope"):
                    with gr.Tab("One conversation", id="one", elem_id="tab-one"):
                        inspector = tokens.build(rows, seen)
                    batch = batch_panel.build(tokens_tab)
                    whole_set = audit_panel.build(tokens_tab)
                next_steps(("train", "Train on these rows"))
            with gr.Tab("Train", id="train", elem_id="tab-train") as train_tab:
                training = train.build(config, rows)
            with gr.Tab("Compare", id="compare", elem_id="tab-compare"):
                comparison = compare.build(rows)
        for part in (training.timer, whole_set.timer, whole_set.audit):
            part.render()
        page = Page(
            chips=chips,
            run_chip=run_chip,
            data=data,
            template=template,
            tokens=inspector,
            batch=batch,
            whole_set=whole_set,
            train_tab=train_tab,
            train=training,
            compare=comparison,
            choices=choices_of(data, template, training),
            own_runs=gr.BrowserState([], storage_key="sft-lab-runs", secret="sft-lab"),
        )
        wire(page, runs, Audits(), blocks)
        memory_line.wire(training.memory, training.settings, page.choices, template.size, train_tab)
    threading.Thread(target=warm, name="warm", daemon=True).start()
    blocks.queue(max_size=HOST.sessions, default_concurrency_limit=None)
    return blocks, options()


def opening() -> tuple[LabConfig, str]:
    """-> (what the page opens on, what to say of it): the default, or where this copy of the lab
    lacks its files, the lesson that needs none, and why."""
    config = LabConfig()
    try:
        load_tokenizer(find(config.model.name).tokenizer)
        rows_of(config.data)
    except LabError as error:
        log.warning("The page opens on the lesson from scratch: %s", error)
        return FROM_SCRATCH, str(error)
    return config, ""


def warm() -> None:
    """Starts the process in which templates render, so that the first keystroke does not wait."""
    with suppress(LabError):
        sandbox.render(Template("warm", "{{ messages }}"), Example("warm", (Message("user"),)), {})


def options() -> dict[str, Any]:
    """How the page is launched: its looks, its bounds, and where it listens."""
    port = os.environ.get("PORT") or os.environ.get("GRADIO_SERVER_PORT") or "7860"
    home = "0.0.0.0" if HOST.on_space else "127.0.0.1"
    return {
        "server_name": os.environ.get("GRADIO_SERVER_NAME", home),
        "server_port": int(port),
        "theme": theme(),
        "css_paths": stylesheets(),
        "head": f"<script>{script()}</script>{live_plot.head()}",
        "favicon_path": STATIC / "favicon.svg",
        "footer_links": [],
        "ssr_mode": False,
        "run_history": False,
        "max_file_size": f"{HOST.max_upload_mb:g}mb",
        "state_session_capacity": HOST.sessions,
        # Each job that waits holds a thread; the page's own handlers must still find one.
        "max_threads": HANDLER_THREADS + HOST.queue_size,
    }
