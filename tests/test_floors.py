"""The house holds: who may import whom, read from the source of every module."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "sft_core"

FLOORS: tuple[tuple[str, ...], ...] = (
    (
        "tokens",
        "types",
        "recipe",
        "config",
        "machine",
        "memory",
        "lessons",
        "settings",
        "scores",
        "smoothing",
        "events",
        "fitting",
        "record",
        "cost",
    ),
    (
        "ahead",
        "embedded",
        "catalogue",
        "tasks",
        "formats",
        "readers",
        "data",
        "tokenizer",
        "provenance",
        "templates",
        "sandbox",
        "reasons",
        "layout",
        "encode",
        "packing",
        "dealing",
        "rivals",
        "doctor",
        "audit",
        "plots",
        "curves",
    ),
    (
        "heap",
        "batch",
        "loss",
        "head",
        "documents",
        "weights",
        "models",
        "shapes",
        "adapters",
        "quicker",
        "compiled",
        "forward",
    ),
    (
        "pace",
        "peak",
        "schedule",
        "checkpoint",
        "resume",
        "sampling",
        "generate",
        "evaluate",
        "perplexity",
        "prepare",
        "processes",
        "microbatch",
        "learner",
        "keeping",
        "forewarning",
        "asking",
        "train",
    ),
    (
        "disk",
        "rundir",
        "execution",
        "compute",
        "scene",
        "jobs",
        "zerogpu",
        "worker",
        "jobqueue",
        "runs",
        "together",
        "export",
    ),
    ("reports", "console", "cli", "__main__", "ui"),
)
TENSOR_LIBRARIES = {"torch", "transformers", "accelerate", "peft"}


def modules() -> list[str]:
    """Every module of the package by its first name: "encode", "ui", ..."""
    names = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}
    names |= {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    return sorted(names)


def sources(module: str) -> list[Path]:
    file = PACKAGE / f"{module}.py"
    return [file] if file.exists() else sorted((PACKAGE / module).rglob("*.py"))


def place(module: str) -> tuple[int, int]:
    """(floor, rank on the floor)."""
    for floor, names in enumerate(FLOORS):
        if module in names:
            return floor, names.index(module)
    pytest.fail(f"{module} stands on no floor: add it to FLOORS and to ARCHITECTURE.md")


def imports(path: Path) -> set[str]:
    """Every dotted name that a file imports, at its top or inside a function."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: write imports in full"
            base = node.module or ""
            found.add(base)
            found |= {f"{base}.{alias.name}" for alias in node.names}
    return found


def own(names: set[str]) -> set[str]:
    """The modules of this package among imported names."""
    known = set(modules())
    parts = (name.split(".") for name in names if name.startswith("sft_core."))
    return {part[1] for part in parts if part[1] in known}


@pytest.mark.parametrize("module", modules())
def test_a_module_imports_only_from_below(module: str) -> None:
    floor, rank = place(module)
    for path in sources(module):
        for other in own(imports(path)) - {module}:
            assert place(other) < (floor, rank), f"{path.name} may not import {other}"


@pytest.mark.parametrize("module", modules())
def test_only_the_page_imports_gradio(module: str) -> None:
    for path in sources(module):
        tops = {name.split(".")[0] for name in imports(path)}
        assert module == "ui" or "gradio" not in tops, path.name


@pytest.mark.parametrize("module", [*FLOORS[0], *FLOORS[1], "ui"])
def test_values_text_and_page_know_no_tensors(module: str) -> None:
    for path in sources(module):
        tops = {name.split(".")[0] for name in imports(path)}
        assert not tops & TENSOR_LIBRARIES, path.name


def test_importing_the_page_loads_no_torch() -> None:
    code = "import sys, sft_core.ui; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=120).returncode == 0


def test_the_map_names_every_room() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    missing = [module for module in modules() if f"`{module}" not in text]
    assert not missing


def test_every_room_has_its_tests() -> None:
    tested = {path.stem.removeprefix("test_") for path in (ROOT / "tests").glob("test_*.py")}
    untested = set(modules()) - tested - {"__main__", "ui"}
    assert not untested
