"""Every chat template that three packages bring: TRL, llama-cpp-python and vLLM.

Their source archives are fetched once, from wherever pip is configured to look, into ``build/``.
Nothing in them is built or run: templates are read out of files that are templates, out of JSON
values named as such, and out of strings in Python sources.
"""

from __future__ import annotations

import ast
import json
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import jinja2
import jinja2.meta
from jinja2 import nodes

from sft_core.provenance import dialect

ROOT: Final = Path(__file__).resolve().parents[1]
CACHE: Final = ROOT / "build" / "chat_templates"
PACKAGES: Final = ("trl", "llama_cpp_python", "vllm")
_TEMPLATE_FILES: Final = (".jinja", ".jinja2")
_MAX_FILE: Final = 2_000_000


class Found(NamedTuple):
    """A template, the package or folder that it comes from, and where in it."""

    origin: str
    name: str
    source: str


def gather(folders: Iterable[Path] = ()) -> list[Found]:
    """All templates, each source once, under the first name that it was met by."""
    first: dict[str, Found] = {}
    for package in PACKAGES:
        for found in _in_archive(package, archive(package)):
            first.setdefault(found.source, found)
    for folder in folders:
        for found in _in_folder(folder):
            first.setdefault(found.source, found)
    return list(first.values())


# -- the archives -----------------------------------------------------------------------------


def archive(package: str) -> Path:
    """A package's latest source archive in the cache, fetched if it is not there. ``pip
    download`` would build the package to learn its dependencies, and vLLM needs torch for that;
    so pip is asked for its finder and its downloader alone. Raises ConnectionError."""
    kept = sorted(CACHE.glob(f"{package}-*.tar.gz"))
    if kept:
        return kept[-1]
    from pip._internal.commands import create_command
    from pip._internal.network.download import Downloader

    CACHE.mkdir(parents=True, exist_ok=True)
    command: Any = create_command("download")
    options, _ = command.parse_args(["--no-deps", package])
    with command.main_context():
        session = command.get_default_session(options)
        finder = command._build_package_finder(options, session)
        sources = [it for it in finder.find_all_candidates(package) if not it.link.is_wheel]
        stable = [it for it in sources if not it.version.is_prerelease] or sources
        if not stable:
            raise ConnectionError(f"No source archive of {package} can be found.")
        latest = max(stable, key=lambda it: it.version)
        fetched = Downloader(session, "off")(latest.link, str(CACHE))
    path = Path(fetched if isinstance(fetched, str) else fetched[0])
    if latest.link.has_hash:
        _check(path, latest.link)
    return path


def _check(path: Path, link: Any) -> None:
    """Raises ConnectionError where the archive is not the one that the index promised."""
    import hashlib

    if hashlib.new(link.hash_name, path.read_bytes()).hexdigest() != link.hash:
        path.unlink()
        raise ConnectionError(f"{path.name} came with a wrong checksum. Try again.")


def _in_archive(package: str, path: Path) -> Iterator[Found]:
    with tarfile.open(path) as archive:
        members = [it for it in archive if it.isfile() and it.size <= _MAX_FILE]
        for member in members:
            readable = member.name.endswith((*_TEMPLATE_FILES, ".json", ".py"))
            stream = archive.extractfile(member) if readable else None
            if stream is None:
                continue
            text = stream.read().decode("utf-8", "replace")
            inside = member.name.partition("/")[2]
            for name, source in _in_file(inside, text):
                yield Found(package, name, source)


def _in_folder(folder: Path) -> Iterator[Found]:
    for pattern in ("tokenizer_config.json", "chat_template.json", "*.jinja"):
        for path in sorted(folder.rglob(pattern)):
            text = path.read_text(encoding="utf-8")
            for name, source in _in_file(f"{path.parent.name}/{path.name}", text):
                yield Found(folder.name, name, source)


# -- templates in files -----------------------------------------------------------------------


def _in_file(name: str, text: str) -> Iterator[tuple[str, str]]:
    if name.endswith(_TEMPLATE_FILES):
        candidates: Iterable[tuple[str, str]] = [("", text)]
    elif name.endswith(".json"):
        candidates = _in_json(text)
    else:
        # What tests and documentation spell out is a fragment as often as a template.
        candidates = () if "test" in name else _in_python(text)
    for place, source in candidates:
        if is_chat_template(source):
            yield f"{name}{place}", source


def _in_json(text: str) -> Iterator[tuple[str, str]]:
    if "{%" not in text:
        return
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        return
    yield from _strings(value, "")


def _strings(value: Any, place: str) -> Iterator[tuple[str, str]]:
    """Every string, and every list of strings as the lines of one text, under a name that says
    "template"."""
    if isinstance(value, list) and value and all(isinstance(line, str) for line in value):
        value = "".join(value) if value[0].endswith("\n") else "\n".join(value)
    if isinstance(value, str):
        if "template" in place:
            yield place, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _strings(item, f"{place}.{key}")
    elif isinstance(value, list):
        for at, item in enumerate(value):
            yield from _strings(item, f"{place}[{at}]")


def _in_python(text: str) -> Iterator[tuple[str, str]]:
    if "{%" not in text:
        return
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield f":{node.lineno}", node.value


def is_chat_template(source: str) -> bool:
    """Whether a text is a Jinja template that prints something of ``messages``."""
    if "{%" not in source and "{{" not in source:
        return False
    try:
        tree = dialect.environment().parse(source)
    except jinja2.TemplateSyntaxError:
        return False
    printed = tree.find(nodes.Output) is not None
    return printed and "messages" in jinja2.meta.find_undeclared_variables(tree)
