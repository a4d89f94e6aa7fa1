"""One server, as ``python app.py`` starts it, and one browser for all tests of the page."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from tests.browser import FLAGS, executable

ROOT = Path(__file__).resolve().parents[2]
READY = ".view-chips .chip"
CUT_OFF = re.compile(r"AbortError: signal is aborted|Connection errored out")
"""What Gradio's script says of its open streams when their document is taken away."""


@dataclass
class Server:
    """A running lab: where it answers, how long it took, and which process it is."""

    url: str
    seconds: float
    process: subprocess.Popen[str]
    folder: Path

    @property
    def log(self) -> str:
        return (self.folder / "server.log").read_text()

    def stop_all_runs(self) -> None:
        """Frees the compute process for the next test, also where this one failed."""
        for run in (self.folder / "runs").glob("*/config.json"):
            (run.parent / "stop").touch()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(folder: Path, **environment: str) -> Server:
    """Starts ``python app.py`` with its runs in ``folder`` and waits until it answers."""
    port = free_port()
    began = time.monotonic()
    with (folder / "server.log").open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "app.py"],
            cwd=ROOT,
            env={
                **os.environ,
                "PORT": str(port),
                "SFT_RUNS_DIR": str(folder / "runs"),
                "GRADIO_TEMP_DIR": str(folder / "uploads"),
                "HF_HUB_OFFLINE": "1",
                **environment,
            },
            stdout=out,
            stderr=subprocess.STDOUT,
            text=True,
        )
    url = f"http://127.0.0.1:{port}/"
    while time.monotonic() - began < 60:
        with suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:
            if answer.status == 200:
                return Server(url, time.monotonic() - began, process, folder)
        assert process.poll() is None, (folder / "server.log").read_text()
        time.sleep(0.1)
    raise AssertionError("The server does not answer.")


def end(server: Server) -> None:
    server.process.terminate()
    try:
        server.process.wait(20)
    except subprocess.TimeoutExpired:
        server.process.kill()
        server.process.wait()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = start(tmp_path_factory.mktemp("lab"))
    yield made
    end(made)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=executable(), args=list(FLAGS))
        yield made
        made.close()


@dataclass
class Watched:
    """What a page did that it should not do."""

    problems: list[str] = field(default_factory=list)
    leaving: bool = False

    def follow(self, page: Page) -> None:
        page.on("pageerror", lambda error: self.problems.append(f"script: {error}"))
        page.on("console", self._console)
        page.on("request", self._request)

    def _console(self, message: object) -> None:
        text = str(getattr(message, "text", ""))
        cut_off = self.leaving and CUT_OFF.search(text)
        if getattr(message, "type", "") == "error" and not cut_off:
            self.problems.append(f"console: {text}")

    @contextmanager
    def left(self) -> Iterator[None]:
        """While a document is taken away, its streams may say that they were cut off; whether
        they do is a race between the browser and the server."""
        self.leaving = True
        yield
        self.leaving = False

    def _request(self, request: object) -> None:
        url = str(getattr(request, "url", ""))
        if not re.match(r"(data|blob):|http://127\.0\.0\.1[:/]", url):
            self.problems.append(f"external request: {url}")


@pytest.fixture
def watched() -> Iterator[Watched]:
    """Every test that opens a page also asserts: no script or console error, nothing asked from
    another machine."""
    made = Watched()
    yield made
    assert made.problems == []


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    made = browser.new_context(viewport={"width": 1440, "height": 900})
    made.set_default_timeout(20_000)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def _runs_end(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "server" in request.fixturenames:
        request.getfixturevalue("server").stop_all_runs()


@pytest.fixture
def page(context: BrowserContext, server: Server, watched: Watched) -> Page:
    """The lab, opened."""
    return visit(context, server.url, watched)


@pytest.fixture
def lesson(page: Page) -> Page:
    """The lab, turned to the lesson from scratch by choosing its model: its runs cost less than
    the default's, and its markers are short."""
    page.click("#model input")
    page.click("[role=option]:has-text('Byte-level GPT')")
    expect(page.locator("#chips")).to_contain_text("six-tasks")
    expect(page.locator("#chips")).to_contain_text("INST / RESP")
    page.click("#tab-train-button")
    expect(page.locator("#train-preset input")).to_have_value("A model from random weights")
    page.click("#tab-data-button")
    return page


def visit(context: BrowserContext, url: str, watched: Watched) -> Page:
    page = context.new_page()
    watched.follow(page)
    page.goto(url)
    page.wait_for_selector(READY)
    return page
