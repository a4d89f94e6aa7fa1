"""``load_tokenizer``: a tokenizer by name, wherever it comes from, kept while it is in use."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Final

from sft_core import catalogue, embedded
from sft_core.tokenizer import files, hub, older, packaged
from sft_core.tokenizer.builtin import BUILT_IN
from sft_core.tokenizer.core import Tokenizer
from sft_core.types import ModelError, TokenizerError

KEPT: Final = 4
"""How many tokenizers stay in memory; a large one takes some 300 MB."""


def load_tokenizer(name: str, revision: str | None = None) -> Tokenizer:
    """A tokenizer by its name: "bytes", "words", a name of the model catalogue, a folder with a
    tokenizer.json or files of an older form, or a hub id (of which only the tokenizer files are
    fetched).

    ``revision`` is a branch, tag or commit on the hub. Raises TokenizerError or HubError.
    """
    name = name.strip()
    if not name:
        raise TokenizerError("Choose a tokenizer: its name, a folder, or a hub id.")
    if name in BUILT_IN:
        return _built_in(name)
    if name == catalogue.PARROT:
        return _embedded(name)
    if name == catalogue.SMOLLM2:
        return _packaged(name)
    card = catalogue.find(name)
    if card.tokenizer != name:
        return load_tokenizer(card.tokenizer, revision)
    folder = _folder(name)
    if folder is not None:
        return _read(folder, _stamp(folder), name)
    if _looks_like_a_path(name):
        raise TokenizerError(f"There is no folder {name}. Check the path.")
    return _fetched(name, revision)


def _folder(name: str) -> Path | None:
    """The folder that a name means: itself, or that of the vocabulary that it points to."""
    path = Path(name).expanduser()
    if path.is_dir():
        return path.resolve()
    vocabulary = path.name in ("tokenizer.json", *older.FILES)
    return path.resolve().parent if vocabulary and path.is_file() else None


def _looks_like_a_path(name: str) -> bool:
    return name.startswith((".", "~", "/")) or "\\" in name or name.count("/") > 1


def _stamp(folder: Path) -> tuple[int, ...]:
    """Changes when any file of the tokenizer does."""
    patterns = (*files.FILES, *older.FILES)
    found = sorted(path for pattern in patterns for path in folder.glob(pattern))
    return tuple(path.stat().st_mtime_ns for path in found)


@lru_cache(maxsize=2)
def _built_in(name: str) -> Tokenizer:
    return BUILT_IN[name]()


def _embedded(name: str) -> Tokenizer:
    try:
        folder = embedded.model_folder()
    except ModelError as error:
        raise TokenizerError(str(error)) from None
    return _read(folder, _stamp(folder), name)


@lru_cache(maxsize=1)
def _packaged(name: str) -> Tokenizer:
    try:
        file = catalogue.smollm2_file()
    except ModelError as error:
        raise TokenizerError(str(error)) from None
    return packaged.from_gguf(file, name)


@lru_cache(maxsize=KEPT)
def _read(folder: Path, stamp: tuple[int, ...], name: str) -> Tokenizer:
    return files.read(folder, name)


@lru_cache(maxsize=KEPT)
def _fetched(name: str, revision: str | None) -> Tokenizer:
    return files.read(hub.fetch(name, revision), name)
