"""Tokenizers: ids as their sources have them, special tokens, folders, the hub, saving."""

from __future__ import annotations

import http.server
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, pre_tokenizers, processors

from sft_core import catalogue
from sft_core.tokenizer import Tokenizer, load_tokenizer, loading, packaged
from sft_core.tokenizer.builtin import WORDS, bytes_tokenizer, words_tokenizer
from sft_core.tokenizer.core import Prefix
from sft_core.types import HubError, LabError, TokenizerError
from tests.small_hub import serve
from tests.trained_tokenizers import EXACT, FAMILIES, byte_level, metaspace

WIDE_SAMPLE = (
    "Hello there. How are you!!!",
    "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
    "Spaces   and\ttabs\r\n\n\n  1. 12345 3.14159\u00a0x",
    "It's I'LL we've DON'T o'clock 'quoted' \u2018curly\u2019",
    "Cafe\u0301 caf\u00e9 \u00c5ngstr\u00f6m \ufb01ne \u4f60\u597d\u4e16\u754c",
    "\u0645\u0631\u062d\u0628\u0627 \u05e9\u05dc\u05d5\u05dd",
    "\U0001f600\U0001f99c \U0001f468\u200d\U0001f469\u200d\U0001f467 \u20ac",
    "def f(x: int) -> str:\n    return f'{x!r}'  # comment\n",
    "<|endoftext|><repo_name>a/b<file_sep>path <empty_output> <not_a_token>",
    '{"a": [1, 2.5, null, true], "b": "\\u00e9\\n"}',
    " leading and trailing ",
    "",
)


def ids(tokenizer: Tokenizer, text: str) -> list[int]:
    found: list[int] = tokenizer.backend.encode(text, add_special_tokens=False).ids
    return found


# -- built in ---------------------------------------------------------------------------------


def test_bytes_has_the_layout_of_the_capstone_and_an_end() -> None:
    tokenizer = load_tokenizer("bytes")
    assert tokenizer.added == {"<INST>": 256, "<RESP>": 257, "<PAD>": 258, "<END>": 259}
    assert (tokenizer.vocab_size, tokenizer.eos_id, tokenizer.pad_id) == (260, 259, 258)
    assert tokenizer.bos_id is None
    assert tokenizer.unk_id is None
    text = "<INST>h\u00e9 \U0001f600<RESP>"
    assert ids(tokenizer, text) == [256, *"h\u00e9 \U0001f600".encode(), 257]


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_bytes_are_the_ids_of_any_text_and_come_back(text: str) -> None:
    tokenizer = load_tokenizer("bytes")
    if not any(marker in text for marker in tokenizer.added):
        assert bytes(ids(tokenizer, text)) == text.encode()
    assert tokenizer.decode(ids(tokenizer, text)) == text


def test_words_has_the_table_of_the_tutorial() -> None:
    tokenizer = load_tokenizer("words")
    assert {word: tokenizer.token_to_id(word) for word in WORDS} == {
        "<pad>": 0,
        "The": 1,
        "quick": 2,
        "brown": 3,
        "fox": 4,
        "jumps": 5,
        "over": 6,
        "lazy": 7,
        "dog": 8,
        "<|user|>": 9,
        "<|assistant|>": 10,
        "<|end|>": 11,
        "What": 12,
        "is": 13,
        "a": 14,
        "?": 15,
    }
    assert tokenizer.vocab_size == 16
    assert ids(tokenizer, "over the lazy dog") == [6, 1, 7, 8]
    assert ids(tokenizer, "the? What is the") == [1, 15, 12, 13, 1]
    assert ids(tokenizer, "<|user|> What is a dog?<|end|>") == [9, 12, 13, 14, 8, 15, 11]
    assert tokenizer.decode([5, 6, 1, 7, 8, 11]) == "jumps over The lazy dog <|end|>"


def test_a_name_of_the_catalogue_gives_its_tokenizer() -> None:
    assert load_tokenizer("bytes-gpt") is load_tokenizer("bytes")


# -- the packaged model -----------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.model
def test_smollm2_is_what_transformers_makes_of_the_same_file_but_for_digits(cache: Path) -> None:
    from transformers import AutoTokenizer

    file = catalogue.smollm2_file()
    theirs = AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name)
    # The conversion does not read the file's tokenizer.ggml.pre, which asks for single digits.
    theirs.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    )
    ours = packaged.from_gguf(file, catalogue.SMOLLM2)
    alphabet = [ours.id_to_text(id) for id in range(0, 49152, 7)]
    texts = [*WIDE_SAMPLE, "".join(alphabet), " ".join(alphabet)]
    assert [ids(ours, text) for text in texts] == theirs(texts, add_special_tokens=False).input_ids
    assert dict(ours.special_tokens) == theirs.special_tokens_map
    assert ours.chat_templates == {"default": theirs.chat_template}
    assert ours.vocab_size == len(theirs)
    assert ours.added == theirs.get_added_vocab()


@pytest.mark.model
def test_smollm2_reads_numbers_digit_by_digit(cache: Path) -> None:
    ours = packaged.from_gguf(catalogue.smollm2_file(), catalogue.SMOLLM2)
    assert [ours.decode([id]) for id in ids(ours, "\n\n1. In 1969")][-5:] == [
        " ",
        "1",
        "9",
        "6",
        "9",
    ]
    assert ours.decode(ids(ours, "\n\n1. In 1969")) == "\n\n1. In 1969"


@pytest.mark.model
def test_smollm2_is_read_from_its_file_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = catalogue.smollm2_file()
    first = packaged.from_gguf(file, "smollm2")
    entry = packaged.cache_entry(file, "smollm2")
    assert entry.is_relative_to(cache)
    assert (entry / "tokenizer.json").is_file()
    assert [path.name for path in entry.parent.iterdir()] == [entry.name]
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "gguf", None)  # so that reading the file again would fail
        second = packaged.from_gguf(file, "smollm2")
    assert second.to_json() == first.to_json()
    assert second.special_tokens == first.special_tokens
    assert second.chat_templates == first.chat_templates
    (entry / "tokenizer.json").write_text("{", encoding="utf-8")
    assert packaged.from_gguf(file, "smollm2").to_json() == first.to_json()
    assert (entry / "tokenizer.json").read_text(encoding="utf-8") == first.to_json()


@pytest.mark.model
def test_smollm2_needs_no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a-file").write_text("", encoding="utf-8")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a-file"))
    assert packaged.from_gguf(catalogue.smollm2_file(), "smollm2").vocab_size == 49152


def test_a_damaged_gguf_file_is_explained(tmp_path: Path, cache: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"not a model at all, but long enough to look at")
    with pytest.raises(TokenizerError, match=r"model\.gguf cannot be read as a GGUF file"):
        packaged.from_gguf(file, "broken")
    with pytest.raises(TokenizerError, match="cannot be read"):
        packaged.from_gguf(tmp_path / "missing.gguf", "missing")


# -- ids, bytes, text -------------------------------------------------------------------------


def test_half_a_character_shows_its_bytes() -> None:
    tokenizer = load_tokenizer("bytes")
    first, *_ = ids(tokenizer, "\U0001f600")
    assert tokenizer.id_to_text(first) == "\\xf0"
    assert tokenizer.id_to_bytes(first) == b"\xf0"
    assert tokenizer.id_to_text(257) == "<RESP>"
    assert tokenizer.id_to_text(9999) == "[no token 9999]"
    assert tokenizer.id_to_bytes(9999) is None


@pytest.mark.parametrize("family", EXACT)
def test_bytes_of_all_ids_join_to_the_text(family: str) -> None:
    tokenizer = FAMILIES[family]()
    text = "The capital of France, one list.<|im_end|>"
    found = [tokenizer.id_to_bytes(id) for id in ids(tokenizer, text)]
    assert b"".join(part or b"?" for part in found).strip() == text.encode()


def test_a_vocabulary_without_spaces_does_not_claim_bytes() -> None:
    tokenizer = FAMILIES["word-piece"]()
    word = ids(tokenizer, "hello")[0]
    assert tokenizer.id_to_bytes(word) is None
    assert tokenizer.id_to_text(word) == "hello"
    assert tokenizer.id_to_bytes(tokenizer.added["<s>"]) == b"<s>"


def test_unknown_is_what_the_vocabulary_yields_not_what_the_files_name() -> None:
    named = Tokenizer(
        "x", tokenizers.Tokenizer.from_str(byte_level().to_json()), {"unk_token": "<unk>"}
    )
    assert named.special_tokens["unk_token"] == "<unk>"
    assert named.unk_id is None
    assert metaspace().unk_id == metaspace().token_to_id("<unk>")
    assert FAMILIES["byte-fallback"]().unk_id is None
    assert FAMILIES["word-piece"]().unk_id == 0


def test_control_tokens_are_those_that_steer() -> None:
    backend = tokenizers.Tokenizer.from_str(byte_level().to_json())
    backend.add_tokens(
        [AddedToken("<think>"), AddedToken("\n\n\n"), AddedToken("<|turn|>"), AddedToken("<eot>")]
    )
    tokenizer = Tokenizer("x", backend, {"eos_token": "<eot>"})
    control = {tokenizer.id_to_text(id) for id in tokenizer.control_ids}
    assert {"<|turn|>", "<eot>", "<s>", "<|im_end|>"} <= control
    assert not {"<think>", "\n\n\n"} & control


@pytest.mark.parametrize(
    ("family", "prefix"),
    [
        ("byte-level", Prefix.NEVER),
        ("byte-level-prefixed", Prefix.EVERY_PIECE),
        ("metaspace-always", Prefix.EVERY_PIECE),
        ("metaspace-first", Prefix.AT_START),
        ("metaspace-never", Prefix.NEVER),
        ("byte-fallback-prepended", Prefix.EVERY_PIECE),
        ("word-piece", Prefix.NEVER),
    ],
)
def test_where_a_space_is_put_in_front(family: str, prefix: Prefix) -> None:
    tokenizer = FAMILIES[family]()
    assert tokenizer.prefix is prefix
    bare = tokenizer.bare(False).encode("capital", add_special_tokens=False)
    assert tokenizer.decode(bare.ids) == "capital"
    prefixed = tokenizer.bare(True).encode("capital", add_special_tokens=False).ids
    assert prefixed == ids(tokenizer, "capital")
    assert (prefixed == bare.ids) is (prefix is Prefix.NEVER)


def test_the_bare_model_knows_no_special_tokens() -> None:
    tokenizer = byte_level()
    found = tokenizer.bare(False).encode("a<|im_end|>b").ids
    assert tokenizer.added_ids.isdisjoint(found)
    assert tokenizer.decode(found) == "a<|im_end|>b"


# -- adding tokens ----------------------------------------------------------------------------


def test_added_tokens_are_whole_and_stand_at_the_end() -> None:
    tokenizer = load_tokenizer("bytes")
    grown = tokenizer.with_tokens(["<|im_start|>", "<RESP>", "<|im_end|>", "<|im_start|>"])
    assert grown.added["<|im_start|>"] == 260
    assert grown.added["<|im_end|>"] == 261
    assert grown.added["<RESP>"] == 257
    assert grown.vocab_size == 262
    assert ids(grown, "a<|im_end|>") == [97, 261]
    assert {260, 261} <= grown.control_ids
    assert (grown.eos_id, grown.pad_id) == (tokenizer.eos_id, tokenizer.pad_id)
    assert tokenizer.vocab_size == 260
    assert len(ids(tokenizer, "a<|im_end|>")) == 11


def test_an_invisible_token_is_refused() -> None:
    with pytest.raises(TokenizerError, match="at least one visible character"):
        load_tokenizer("bytes").with_tokens(["<ok>", " "])


# -- folders ----------------------------------------------------------------------------------


def write(folder: Path, **files: object) -> Path:
    """A folder of tokenizer files: text as it is, anything else as JSON; "__" stands for "/"."""
    for name, value in files.items():
        stem, _, ending = name.rpartition("_")
        path = folder / (stem.replace("__", "/") + "." + ending)
        path.parent.mkdir(parents=True, exist_ok=True)
        text = value if isinstance(value, str) else json.dumps(value)
        path.write_text(text, encoding="utf-8")
    return folder


def test_a_folder_with_everything(tmp_path: Path) -> None:
    backend = tokenizers.Tokenizer.from_str(byte_level().to_json())
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", backend.token_to_id("<s>"))]
    )
    backend.enable_truncation(4)
    backend.enable_padding(length=16)
    write(
        tmp_path,
        tokenizer_json=backend.to_str(),
        tokenizer_config_json={
            "bos_token": {"__type": "AddedToken", "content": "<s>", "special": True},
            "eos_token": "</s>",
            "pad_token": None,
            "model_max_length": 2048,
            "extra_special_tokens": {"image_token": "<image>"},
            "added_tokens_decoder": {
                "9001": {"content": "<late>", "special": False},
                "9000": {"content": "<early>", "special": True},
            },
            "chat_template": [
                {"name": "default", "template": "in the config"},
                {"name": "tool_use", "template": "with tools"},
            ],
        },
        special_tokens_map_json={"unk_token": {"content": "<unk>"}, "bos_token": "</s>"},
        chat_template_jinja="in a file",
        additional_chat_templates__rag_jinja="with documents",
    )
    tokenizer = load_tokenizer(str(tmp_path))
    assert tokenizer.special_tokens == {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "image_token": "<image>",
    }
    assert tokenizer.chat_templates == {
        "default": "in a file",
        "tool_use": "with tools",
        "rag": "with documents",
    }
    long = "a long text that is neither cut off nor filled up, and has no BOS in front"
    assert tokenizer.decode(tokenizer.backend.encode(long).ids) == long
    size = byte_level().vocab_size
    assert [tokenizer.added[text] for text in ("<early>", "<late>", "<image>")] == [
        size,
        size + 1,
        size + 2,
    ]


def test_ids_in_the_model_configuration_name_what_nothing_else_does(tmp_path: Path) -> None:
    end = byte_level().token_to_id("</s>")
    write(tmp_path, tokenizer_json=byte_level().to_json())
    write(tmp_path, config_json={"eos_token_id": end, "bos_token_id": 99999, "pad_token_id": [1]})
    assert load_tokenizer(str(tmp_path)).special_tokens == {"eos_token": "</s>"}
    write(tmp_path, tokenizer_config_json={"eos_token": "<|im_end|>"})
    assert load_tokenizer(str(tmp_path)).special_tokens == {"eos_token": "<|im_end|>"}


@pytest.mark.parametrize(
    ("value", "templates"),
    [
        ("one", {"default": "one"}),
        ({"default": "one", "rag": "two"}, {"default": "one", "rag": "two"}),
        ([{"name": "a", "template": "b"}, {"name": None}, "x"], {"a": "b"}),
        (17, {}),
    ],
)
def test_chat_templates_in_every_form(
    tmp_path: Path, value: object, templates: dict[str, str]
) -> None:
    write(tmp_path, tokenizer_json=byte_level().to_json())
    write(tmp_path, tokenizer_config_json={"chat_template": value})
    assert load_tokenizer(str(tmp_path)).chat_templates == templates
    write(tmp_path, chat_template_json={"chat_template": "of a processor"})
    found = load_tokenizer(str(tmp_path)).chat_templates
    assert found == templates | {"default": "of a processor"}


def test_a_file_or_a_folder_name_both_will_do(tmp_path: Path) -> None:
    write(tmp_path, tokenizer_json=byte_level().to_json())
    by_file = load_tokenizer(str(tmp_path / "tokenizer.json"))
    assert by_file.vocab_size == load_tokenizer(f"{tmp_path}/").vocab_size


def test_a_changed_folder_is_read_again(tmp_path: Path) -> None:
    byte_level().save(tmp_path)
    first = load_tokenizer(str(tmp_path))
    assert load_tokenizer(str(tmp_path)) is first
    first.with_tokens(["<new>"]).save(tmp_path)
    assert "<new>" in load_tokenizer(str(tmp_path)).added


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({}, "has no tokenizer.json"),
        ({"tokenizer_model": "sentencepiece"}, "Convert it once"),
        ({"vocab_json": {}, "merges_txt": ""}, "Convert it once"),
        ({"tokenizer_json": "{not json"}, "cannot be read"),
        ({"tokenizer_json": {"version": "1.0"}}, "cannot be read"),
        ({"tokenizer_json": None, "tokenizer_config_json": "[1]"}, "must hold a JSON object"),
        ({"tokenizer_json": None, "tokenizer_config_json": "{"}, "cannot be read as JSON"),
    ],
)
def test_a_folder_that_cannot_be_read_says_what_to_do(
    tmp_path: Path, files: dict[str, object], sentence: str
) -> None:
    whole = byte_level().to_json()
    write(tmp_path, **{name: whole if value is None else value for name, value in files.items()})
    with pytest.raises(TokenizerError, match=sentence):
        load_tokenizer(str(tmp_path))


@pytest.mark.parametrize("name", ["", "   "])
def test_no_name_is_explained(name: str) -> None:
    with pytest.raises(TokenizerError, match="Choose a tokenizer"):
        load_tokenizer(name)


@pytest.mark.parametrize("name", ["/no/such/folder", "./nowhere", "~/nowhere", "a/b/c"])
def test_a_missing_folder_is_not_looked_for_on_the_hub(name: str) -> None:
    with pytest.raises(TokenizerError, match="There is no folder"):
        load_tokenizer(name)


# -- saving -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["bytes", "words", *FAMILIES])
@pytest.mark.parametrize("model_type", [None, "llama", "gpt2"])
def test_transformers_loads_what_is_saved_and_agrees_on_ids(
    tmp_path: Path, name: str, model_type: str | None
) -> None:
    from transformers import AutoTokenizer

    made = load_tokenizer(name) if name in ("bytes", "words") else FAMILIES[name]()
    ours = made.with_tokens(["<|late|>"])
    ours.save(tmp_path)
    if model_type:
        write(tmp_path, config_json={"model_type": model_type})
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    words = ("The quick brown fox <|end|> What is a dog?", "<|late|> jumps over the lazy dog")
    for text in words if name == "words" else (*WIDE_SAMPLE, "a<|late|> b</s>"):
        assert theirs(text, add_special_tokens=False).input_ids == ids(ours, text)
    for role, text in ours.special_tokens.items():
        assert getattr(theirs, role) == text


def test_saving_keeps_templates_settings_and_what_the_tokenizer_adds_for_others(
    tmp_path: Path,
) -> None:
    backend = tokenizers.Tokenizer.from_str(byte_level().to_json())
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", backend.token_to_id("<s>"))]
    )
    made = Tokenizer(
        "x",
        backend,
        {"bos_token": "<s>"},
        {"default": "{{ 1 }}\n", "tool_use": "{{ 2 }}"},
        {"model_max_length": 77},
    )
    assert ids(made, "hello") == made.backend.encode("hello").ids
    made.save(tmp_path)
    back = load_tokenizer(str(tmp_path))
    assert back.chat_templates == made.chat_templates
    assert back.settings == {"model_max_length": 77}
    assert back.to_json() == made.to_json()
    plain = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert plain.encode("hello").ids == [made.bos_id, *ids(made, "hello")]


# -- the hub ----------------------------------------------------------------------------------


class SmallHub(NamedTuple):
    """A hub on this machine: its repositories, and what it was asked for."""

    server: http.server.ThreadingHTTPServer
    root: Path
    asked: list[str]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SmallHub]:
    from huggingface_hub import constants

    server, address, asked = serve(tmp_path / "hub")
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    loading._fetched.cache_clear()
    yield SmallHub(server, tmp_path / "hub", asked)
    server.shutdown()
    server.server_close()
    loading._fetched.cache_clear()


def test_of_a_hub_id_only_the_tokenizer_is_fetched(hub: SmallHub) -> None:
    bytes_tokenizer().save(hub.root / "owner" / "model")
    write(hub.root / "owner" / "model", model_safetensors="weights", README_md="text")
    tokenizer = load_tokenizer("owner/model")
    assert (tokenizer.name, tokenizer.vocab_size) == ("owner/model", 260)
    fetched = {path.rpartition("/")[2] for path in hub.asked if "/resolve/" in path}
    assert fetched == {"tokenizer.json", "tokenizer_config.json"}
    before = len(hub.asked)
    assert load_tokenizer("owner/model") is tokenizer
    assert len(hub.asked) == before


def test_files_of_an_older_form_are_fetched_where_there_are_no_others(hub: SmallHub) -> None:
    folder = hub.root / "owner" / "old"
    write(folder, tokenizer_config_json='{"eos_token": "</s>"}', model_safetensors="weights")
    byte_level().backend.model.save(str(folder))
    tokenizer = load_tokenizer("owner/old")
    assert tokenizer.eos_id == byte_level().eos_id
    assert ids(tokenizer, "Hello there") == ids(byte_level(), "Hello there")
    fetched = {path.rpartition("/")[2] for path in hub.asked if "/resolve/" in path}
    assert fetched == {"tokenizer_config.json", "vocab.json", "merges.txt"}
    hub.server.shutdown()
    hub.server.server_close()
    loading._fetched.cache_clear()
    assert load_tokenizer("owner/old").vocab_size == tokenizer.vocab_size


def test_what_was_fetched_once_needs_no_hub(hub: SmallHub) -> None:
    words_tokenizer().save(hub.root / "owner" / "model")
    load_tokenizer("owner/model")
    hub.server.shutdown()
    hub.server.server_close()
    loading._fetched.cache_clear()
    assert load_tokenizer("owner/model").vocab_size == 16
    with pytest.raises(HubError, match="The hub does not answer"):
        load_tokenizer("owner/other")


@pytest.mark.parametrize(
    ("name", "revision", "kind", "sentence"),
    [
        ("owner/absent", None, HubError, "has no model owner/absent, or it is private"),
        ("gated/model", None, HubError, "gated/model is gated: accept its conditions"),
        ("broken/model", None, HubError, "The hub does not answer"),
        ("owner/slow", "v2", HubError, "has no revision 'v2'"),
        ("owner/slow", None, TokenizerError, "holds a tokenizer in an older form"),
        ("owner/empty", None, TokenizerError, "owner/empty has no tokenizer.json"),
        ("two words", None, HubError, "neither a tokenizer that the lab knows, nor a folder"),
    ],
)
def test_what_the_hub_does_not_have_is_explained(
    hub: SmallHub, name: str, revision: str | None, kind: type[LabError], sentence: str
) -> None:
    write(hub.root / "owner" / "slow", spiece_model="sentencepiece")
    write(hub.root / "owner" / "empty", README_md="text")
    with pytest.raises(kind, match=sentence):
        load_tokenizer(name, revision)
