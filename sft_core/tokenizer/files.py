"""A folder of tokenizer files, as the hub and ``save_pretrained`` lay them out <-> ``Tokenizer``.

Reads tokenizer.json, or where there is none, what ``older`` knows; and beside it, where they exist,
tokenizer_config.json, special_tokens_map.json, added_tokens.json, config.json (for ids that nothing
else names), chat_template.jinja, chat_template.json and additional_chat_templates/.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import tokenizers
from tokenizers import AddedToken

from sft_core.tokenizer import older
from sft_core.tokenizer.core import NAMED, Tokenizer
from sft_core.types import TokenizerError

FILES: Final = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "config.json",
    "chat_template.jinja",
    "chat_template.json",
    "additional_chat_templates/*.jinja",
)
"""All that is read of a tokenizer, as patterns relative to its folder; of one that has no
tokenizer.json, ``older.FILES`` too."""

_KEPT_SETTINGS: Final = ("model_max_length", "padding_side", "truncation_side")
_FLAGS: Final = ("single_word", "lstrip", "rstrip", "normalized", "special")


def read(folder: Path, name: str | None = None) -> Tokenizer:
    """The tokenizer of a folder; ``name`` is what a person calls it. Raises TokenizerError."""
    name = name or folder.name
    config = _json(folder / "tokenizer_config.json")
    named: dict[str, str] = {}
    whole = (folder / "tokenizer.json").is_file()
    if whole:
        backend = _from_json(folder / "tokenizer.json", name)
    else:
        backend, named = older.read(folder, name, config)
    listed = _listed(folder, config, whole)
    _add_missing(backend, listed)
    if not whole:
        _check_ids(backend, listed, name)
    return Tokenizer(
        name,
        backend,
        named | _special_tokens(folder, config, backend),
        _chat_templates(folder, config),
        {key: config[key] for key in _KEPT_SETTINGS if key in config},
    )


def _from_json(file: Path, name: str) -> tokenizers.Tokenizer:
    try:
        return tokenizers.Tokenizer.from_file(str(file))
    except Exception as error:  # noqa: BLE001  (the backend raises nothing narrower)
        raise TokenizerError(
            f"The tokenizer.json of {name} cannot be read ({error}). "
            "Save it again with save_pretrained of a current transformers."
        ) from None


def _json(file: Path) -> dict[str, Any]:
    """A JSON object; {} where there is no such file."""
    if not file.is_file():
        return {}
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TokenizerError(f"{file} cannot be read as JSON: {error}") from None
    if not isinstance(values, dict):
        raise TokenizerError(f"{file} must hold a JSON object.")
    return values


def _text(value: Any) -> str | None:
    """A token given as text, or as {"content": ...}."""
    if isinstance(value, Mapping):
        value = value.get("content")
    return value if isinstance(value, str) and value else None


def _listed(folder: Path, config: Mapping[str, Any], whole: bool) -> dict[int, AddedToken]:
    """Tokens that tokenizer_config.json adds, by the id it says, and where there is no
    tokenizer.json, those of added_tokens.json."""
    found = {}
    if not whole:
        special = _names_of_special({**_json(folder / "special_tokens_map.json"), **config})
        found = {
            id: AddedToken(text, normalized=False, special=text in special)
            for text, id in _json(folder / "added_tokens.json").items()
            if isinstance(id, int)
        }
    entries = config.get("added_tokens_decoder")
    for id, entry in (entries if isinstance(entries, Mapping) else {}).items():
        text = _text(entry)
        if text is not None and id.isdecimal():
            flags = {flag: bool(entry[flag]) for flag in _FLAGS if flag in entry}
            found[int(id)] = AddedToken(text, **flags)
    return dict(sorted(found.items()))


def _names_of_special(values: Mapping[str, Any]) -> set[str]:
    more = values.get("additional_special_tokens")
    entries = [*map(values.get, NAMED), *(more if isinstance(more, list) else ())]
    return {text for entry in entries if (text := _text(entry))}


def _add_missing(backend: tokenizers.Tokenizer, listed: Mapping[int, AddedToken]) -> None:
    """Those that the backend does not have yet, in the order of ids."""
    known = {token.content for token in backend.get_added_tokens_decoder().values()}
    for token in listed.values():
        if token.content not in known:
            backend.add_tokens([token])


def _check_ids(backend: tokenizers.Tokenizer, listed: Mapping[int, AddedToken], name: str) -> None:
    """Older files name ids that only their own class could bring about."""
    for id, token in listed.items():
        if backend.token_to_id(token.content) != id:
            raise TokenizerError(
                f"The files of {name} say that {token.content!r} is token {id}, but their "
                f"vocabulary makes it {backend.token_to_id(token.content)}. Convert it once: "
                f'AutoTokenizer.from_pretrained("{name}").save_pretrained("a-folder"), and name '
                "that folder."
            )


def _special_tokens(
    folder: Path, config: Mapping[str, Any], backend: tokenizers.Tokenizer
) -> dict[str, str]:
    """Named special tokens: tokenizer_config.json, else special_tokens_map.json, else the ids in
    config.json."""
    older = _json(folder / "special_tokens_map.json")
    extra = config.get("extra_special_tokens")
    named = {**older, **(extra if isinstance(extra, Mapping) else {}), **config}
    extra_names = tuple(extra) if isinstance(extra, Mapping) else ()
    found = {key: text for key in (*NAMED, *extra_names) if (text := _text(named.get(key)))}
    return _from_model_config(folder, backend) | found


def _from_model_config(folder: Path, backend: tokenizers.Tokenizer) -> dict[str, str]:
    config = _json(folder / "config.json")
    found = {}
    for name in ("bos_token", "eos_token", "pad_token"):
        id = config.get(f"{name}_id")
        token = backend.id_to_token(id) if isinstance(id, int) and id >= 0 else None
        if token is not None:
            found[name] = token
    return found


def _chat_templates(folder: Path, config: Mapping[str, Any]) -> dict[str, str]:
    """By name; a file of its own wins over an entry in a JSON file."""
    templates = _named(config.get("chat_template"))
    templates |= _named(_json(folder / "chat_template.json").get("chat_template"))
    for file in sorted((folder / "additional_chat_templates").glob("*.jinja")):
        templates[file.stem] = _read_text(file)
    default = folder / "chat_template.jinja"
    if default.is_file():
        templates["default"] = _read_text(default)
    return templates


def _named(value: Any) -> dict[str, str]:
    """One template, a mapping by name, or a list of {"name", "template"}."""
    match value:
        case str():
            return {"default": value}
        case Mapping():
            pairs = list(value.items())
        case list():
            entries = [entry for entry in value if isinstance(entry, Mapping)]
            pairs = [(entry.get("name"), entry.get("template")) for entry in entries]
        case _:
            return {}
    return {name: text for name, text in pairs if isinstance(name, str) and isinstance(text, str)}


def _read_text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TokenizerError(f"{file} cannot be read: {error}") from None


def write(tokenizer: Tokenizer, folder: Path) -> None:
    """The files of a tokenizer, as ``read`` and transformers' ``AutoTokenizer`` take them."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        **tokenizer.settings,
        **tokenizer.special_tokens,
        # Anything else would let transformers rebuild the pipeline from the vocabulary alone.
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer.json").write_text(tokenizer.to_json(), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(
        json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    for name, source in tokenizer.chat_templates.items():
        file = folder / "chat_template.jinja"
        if name != "default":
            file = folder / "additional_chat_templates" / f"{name}.jinja"
            file.parent.mkdir(exist_ok=True)
        file.write_text(source, encoding="utf-8")
