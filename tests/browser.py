"""Finds a Chromium for the browser tests, or gets one: ``python -m tests.browser --install``."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking")
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def system_chromium() -> str | None:
    """A Chromium on the PATH, or None."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


def playwright_chromium() -> str | None:
    """The Chromium that playwright itself has installed, or None."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = playwright.chromium.executable_path
    return path if path and Path(path).exists() else None


def executable() -> str | None:
    """What ``chromium.launch(executable_path=...)`` should be given."""
    return system_chromium() or playwright_chromium()


def install() -> None:
    """Playwright's own build first; where it cannot be had, the system's package."""
    if executable():
        return
    attempts = [[sys.executable, "-m", "playwright", "install", "chromium"]]
    if shutil.which("apt-get") and os.geteuid() == 0:
        attempts += [["apt-get", "update", "-qq"], ["apt-get", "install", "-y", "-qq", "chromium"]]
    for command in attempts:
        try:
            subprocess.run(command, check=False, timeout=600, stdout=subprocess.DEVNULL)
        except subprocess.TimeoutExpired:
            continue
        if executable():
            return
    sys.exit(
        "The browser tests need Chromium. Install the package 'chromium' with your system's "
        "package manager, or run: python -m playwright install --with-deps chromium"
    )


if __name__ == "__main__":
    if "--install" in sys.argv[1:]:
        install()
    sys.stdout.write(f"{executable()}\n")
