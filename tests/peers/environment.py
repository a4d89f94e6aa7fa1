"""The peers' own environment: exact versions apart from the lab's, made once, kept in build/."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HOME = ROOT / "build" / "peers"
READY = HOME / ".ready"
NEEDS = (ROOT / "tests" / "peers" / "requirements.txt", ROOT / "constraints.txt")


def wanted() -> str:
    """What the environment is made from; another one is made where this changes."""
    return "\n".join([sys.version, *(file.read_text(encoding="utf-8") for file in NEEDS)])


def ready() -> bool:
    """Whether ``peers_python`` has nothing to install."""
    return READY.is_file() and READY.read_text(encoding="utf-8") == wanted()


def peers_python() -> Path:
    """The interpreter of the peers' environment, which is made where there is none, or another.
    Raises subprocess.CalledProcessError where pip cannot install it."""
    python = HOME / ("Scripts" if os.name == "nt" else "bin") / "python"
    if ready():
        return python
    HOME.parent.mkdir(exist_ok=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(HOME)], check=True)
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "-qq"]
    requirements, constraints = map(str, NEEDS)
    subprocess.run([*pip, "install", "-r", requirements, "-c", constraints], check=True)
    READY.write_text(wanted(), encoding="utf-8")
    return python
