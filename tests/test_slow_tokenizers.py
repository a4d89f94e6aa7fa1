"""Folders without a tokenizer.json: sentencepiece's and transformers' ids, and the lab's rules."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from sft_core import templates
from sft_core.config import MaskPolicy
from sft_core.encode import encode, encode_prompt
from sft_core.templates import PRESETS
from sft_core.tokenizer import Tokenizer, load_tokenizer
from sft_core.tokenizer import sentencepiece as room
from sft_core.tokenizer.core import Prefix
from sft_core.tokenizer.pieces import Cut, Pieces, tokenize
from sft_core.types import EncodeError, Example, Message, Template, TokenizerError
from tests.trained_tokenizers import CORPUS, byte_fallback, byte_level, word_piece

# -- models to compare with -----------------------------------------------------------------------

PLAIN = {"normalization_rule_name": "identity", "remove_extra_whitespaces": False}
KINDS: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "bpe", "byte_fallback": True, **PLAIN},
    "gemma": {"model_type": "bpe", "byte_fallback": True, "add_dummy_prefix": False, **PLAIN},
    "bpe": {"model_type": "bpe", **PLAIN},
    "bpe-nfkc": {"model_type": "bpe"},
    "unigram": {"model_type": "unigram", **PLAIN},
    "unigram-bytes": {"model_type": "unigram", "byte_fallback": True, **PLAIN},
    "unigram-bare": {"model_type": "unigram", "add_dummy_prefix": False, **PLAIN},
    "single-spaces": {"model_type": "unigram", "normalization_rule_name": "identity"},
    "t5": {"model_type": "unigram", "pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1},
}


@cache
def trained(kind: str, **more: Any) -> bytes:
    """A small sentencepiece model file of this kind."""
    options = KINDS[kind] | more
    file = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS),
        model_writer=file,
        vocab_size=420 if options.get("byte_fallback") else 220,
        hard_vocab_limit=False,
        minloglevel=2,
        **options,
    )
    return file.getvalue()


def folder_of(
    folder: Path, model: bytes, config: dict[str, Any] | None = None, file: str = "tokenizer.model"
) -> Path:
    (folder / file).write_bytes(model)
    if config is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tokenizer]:
    """One tokenizer of each kind, by the lab."""
    return {
        kind: load_tokenizer(str(folder_of(tmp_path_factory.mktemp(kind), trained(kind))))
        for kind in KINDS
    }


def ids(tokenizer: Tokenizer, text: str) -> list[int]:
    found: list[int] = tokenizer.backend.encode(text, add_special_tokens=False).ids
    return found


TEXTS = st.lists(
    st.one_of(
        st.sampled_from(
            [
                "Hello there",
                "the capital of",
                " ",
                "  ",
                "\n",
                "caf\u00e9",
                "<0x41>",
                "\u4f60\u597d",
            ]
        ),
        st.text(
            alphabet=" \tabeHi.?<>/|1\u00e9\u4f60\U0001f600\u2460\uff21\u00a0\u3000\ufb01",
            max_size=9,
        ),
        st.text(alphabet=st.characters(exclude_categories=["Cs", "M"]), max_size=6),
    ),
    max_size=5,
).map("".join)

# -- sentencepiece itself -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@given(text=TEXTS)
def test_ids_and_text_are_those_of_sentencepiece(
    library: dict[str, Tokenizer], kind: str, text: str
) -> None:
    theirs = sentencepiece.SentencePieceProcessor(model_proto=trained(kind))
    ours = library[kind]
    assume(not any(marker in text for marker in ours.added))  # see the module's own words
    assert ids(ours, text) == theirs.encode(text)
    if theirs.unk_id() not in theirs.encode(text) and not text.startswith(("\u2581", " ")):
        assert ours.decode(ids(ours, text)) == theirs.decode(theirs.encode(text))


@pytest.mark.parametrize("kind", KINDS)
def test_vocabulary_and_named_tokens_are_those_of_the_file(
    library: dict[str, Tokenizer], kind: str
) -> None:
    theirs = sentencepiece.SentencePieceProcessor(model_proto=trained(kind))
    ours = library[kind]
    assert ours.vocab_size == theirs.get_piece_size()
    pieces = {theirs.id_to_piece(id): id for id in range(theirs.get_piece_size())}
    assert {piece: ours.token_to_id(piece) for piece in pieces} == pieces
    named = {"unk": theirs.unk_id(), "bos": theirs.bos_id(), "eos": theirs.eos_id()}
    named["pad"] = theirs.pad_id()
    assert dict(ours.special_tokens) == {
        f"{role}_token": theirs.id_to_piece(id) for role, id in named.items() if id >= 0
    }


def test_a_byte_has_a_token_and_no_text_can_forge_it(library: dict[str, Tokenizer]) -> None:
    for kind in ("llama", "gemma", "unigram-bytes"):
        ours = library[kind]
        assert ours.unk_id is None
        byte = ours.token_to_id("<0x41>")
        assert byte not in ids(ours, "<0x41>A")
        assert ours.decode(ids(ours, "\U0001f680 <0x41>")) == "\U0001f680 <0x41>"


def test_symbols_of_the_user_and_commands_are_whole(tmp_path: Path) -> None:
    model = trained("gemma", user_defined_symbols="<start_of_turn>,<end_of_turn>")
    ours = load_tokenizer(str(folder_of(tmp_path, model)))
    theirs = sentencepiece.SentencePieceProcessor(model_proto=model)
    text = "<start_of_turn>user\nHello there<end_of_turn>\n"
    assert ids(ours, text) == theirs.encode(text)
    assert ids(ours, "<s>a</s>") == [ours.bos_id, *ids(ours, "a"), ours.eos_id]
    assert ours.control_ids == {ours.added[text] for text in ("<unk>", "<s>", "</s>")}


def test_runs_of_spaces_that_are_symbols_are_whole(tmp_path: Path) -> None:
    runs = ["\u2581" * length for length in range(2, 9)]
    model = trained("gemma", user_defined_symbols=",".join(runs))
    ours = load_tokenizer(str(folder_of(tmp_path, model)))
    theirs = sentencepiece.SentencePieceProcessor(model_proto=model)
    for length in range(1, 9):
        text = f"a{' ' * length}Hello there\n{' ' * length}b"
        assert ids(ours, text) == theirs.encode(text)
    assert ours.id_to_bytes(theirs.piece_to_id(runs[2])) == b"    "


def test_an_added_run_of_spaces_spells_spaces() -> None:
    tokenizer = byte_fallback().with_tokens(["\u2581\u2581"])
    id = tokenizer.token_to_id("\u2581\u2581")
    assert id is not None
    assert tokenizer.decode([id]) == "  "
    assert tokenizer.id_to_bytes(id) == b"  "


def test_a_piece_that_is_out_of_use_is_never_made() -> None:
    pieces = [
        room.Piece("<unk>", 0.0, room.Kind.UNKNOWN),
        room.Piece("a", -1.0, room.Kind.NORMAL),
        room.Piece("aa", 0.0, room.Kind.UNUSED),
    ]
    for algorithm in (1, 2):
        model = room._model(pieces, room.Settings(algorithm=algorithm))
        assert [token.id for token in model.tokenize("aa")] == [1, 1]


# -- transformers ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "config", "file"),
    [
        ("llama", {"tokenizer_class": "LlamaTokenizer", "legacy": False}, "tokenizer.model"),
        ("t5", {"tokenizer_class": "T5Tokenizer", "extra_ids": 3}, "spiece.model"),
    ],
)
def test_ids_are_those_of_transformers(
    tmp_path: Path, kind: str, config: dict[str, Any], file: str
) -> None:
    folder = folder_of(tmp_path, trained(kind), config, file)
    theirs = AutoTokenizer.from_pretrained(folder)
    ours = load_tokenizer(str(folder))
    assert ours.vocab_size == len(theirs)
    assert dict(ours.special_tokens) == theirs.special_tokens_map
    for text in (
        "Hello there</s> you",
        "<extra_id_1>a<extra_id_0> b",
        " caf\u00e9 \U0001f600\n",
        "",
    ):
        if kind == "llama" or file == "spiece.model":
            assert ids(ours, text) == theirs(text, add_special_tokens=False).input_ids


def test_without_legacy_a_space_goes_in_front_of_the_whole_text_only(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, trained("llama"), {"legacy": False})
    assert load_tokenizer(str(folder)).prefix is Prefix.AT_START
    folder_of(tmp_path, trained("llama"), {"legacy": True})
    assert load_tokenizer(str(folder)).prefix is Prefix.EVERY_PIECE


def save_parts(tokenizer: Tokenizer, folder: Path, **files: Any) -> Path:
    """The vocabulary as its model writes it, and further files as JSON."""
    tokenizer.backend.model.save(str(folder))
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


SAMPLES = (
    "Hello there. It's 12345 o'clock\n\n  def x():\n\treturn 1\r\n",
    "Cafe\u0301 na\u00efve \u4f60\u597d \U0001f600 I'LL we've   spaces ",
    "<|im_start|>user\nHi<|im_end|>\n<tool>",
    "",
)


@pytest.mark.parametrize("kind", ["GPT2", "Qwen2"])
def test_bytes_by_vocabulary_and_merges(tmp_path: Path, kind: str) -> None:
    trained_here = byte_level("nfc" if kind == "Qwen2" else "")
    size = trained_here.backend.get_vocab_size(with_added_tokens=False)
    folder = save_parts(
        trained_here,
        tmp_path,
        tokenizer_config={"tokenizer_class": f"{kind}Tokenizer", "model_max_length": 77},
        special_tokens_map={
            "eos_token": {"content": "</s>"},
            "bos_token": "<s>",
            "unk_token": "<unk>",
            "pad_token": "</s>",
            "additional_special_tokens": ["<|im_end|>"],
        },
        added_tokens={"<tool>": size, "<|extra|>": size + 1},
    )
    ours = load_tokenizer(str(folder))
    assert (ours.added["<tool>"], ours.added["<|extra|>"]) == (size, size + 1)
    assert ours.vocab_size == size + 2
    assert ours.special_tokens["eos_token"] == "</s>"
    assert ours.added["<tool>"] not in ours.control_ids
    theirs = AutoTokenizer.from_pretrained(folder)
    for text in SAMPLES:
        if "<|im_start|>" not in text:  # nothing in these files says that it is a token
            assert ids(ours, text) == theirs(text, add_special_tokens=False).input_ids
    if kind == "GPT2":
        assert ids(ours, SAMPLES[0]) == ids(trained_here, SAMPLES[0])


def test_a_space_in_front_as_the_configuration_says(tmp_path: Path) -> None:
    config = {"tokenizer_class": "RobertaTokenizer", "add_prefix_space": True}
    ours = load_tokenizer(str(save_parts(byte_level(), tmp_path, tokenizer_config=config)))
    assert ours.prefix is Prefix.EVERY_PIECE
    assert ids(ours, "you") == ids(ours, " you")


@pytest.mark.parametrize("lower", [True, False])
def test_word_pieces(tmp_path: Path, lower: bool) -> None:
    words = [*(word_piece().backend.get_vocab(False)), "[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"]
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    config = {"tokenizer_class": "BertTokenizer", "do_lower_case": lower}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    ours = load_tokenizer(str(tmp_path))
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert dict(ours.special_tokens) == theirs.special_tokens_map
    for text in ("Hello there, how are you?", "caf\u00e9 \u4f60\u597d [SEP] \U0001f600", ""):
        assert ids(ours, text) == theirs(text, add_special_tokens=False).input_ids


# -- the lab's own rules --------------------------------------------------------------------------

MARKED = st.builds(
    "".join,
    st.lists(st.one_of(TEXTS, st.sampled_from(["</s>", "<|im_end|>", "<0x41>"])), max_size=3),
)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=30)
@given(
    name=st.sampled_from(sorted(PRESETS)), asked=MARKED, answer=MARKED, again=MARKED, more=MARKED
)
def test_training_and_generation_see_the_same_prompt(
    library: dict[str, Tokenizer],
    kind: str,
    name: str,
    asked: str,
    answer: str,
    again: str,
    more: str,
) -> None:
    tokenizer = library[kind]
    template = Template(name, PRESETS[name].source)
    texts = (("user", asked), ("assistant", answer), ("user", again), ("assistant", more))
    example = Example("row", tuple(Message(role, text) for role, text in texts))
    rendered = templates.render(template, example, tokenizer.special_tokens)
    encoded = encode(rendered, tokenizer, MaskPolicy())
    assert all(0 <= start <= end <= len(rendered.text) for start, end in encoded.offsets)
    for message, start in rendered.answer_starts():
        prompt = templates.render(
            template,
            replace(example, messages=example.messages[:message]),
            tokenizer.special_tokens,
            add_generation_prompt=True,
        )
        before = sum(place < start for place, _ in encoded.offsets)
        assert encode_prompt(prompt, tokenizer) == encoded.ids[:before]


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_read_is_saved_as_a_tokenizer_of_today(
    library: dict[str, Tokenizer], kind: str, tmp_path: Path
) -> None:
    library[kind].save(tmp_path)
    assert (tmp_path / "tokenizer.json").is_file()
    back = load_tokenizer(str(tmp_path))
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    for text in SAMPLES:
        assert ids(back, text) == ids(library[kind], text)
        assert theirs(text, add_special_tokens=False).input_ids == ids(back, text)


# -- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["llama", "t5"])
@given(share=st.floats(0, 1), byte=st.integers(0, 255), whole=st.booleans())
def test_a_damaged_model_is_explained(
    tmp_path_factory: pytest.TempPathFactory, kind: str, share: float, byte: int, whole: bool
) -> None:
    model = trained(kind)
    cut = int(share * (len(model) - 1))
    file = tmp_path_factory.getbasetemp() / "damaged.model"
    file.write_bytes(model[:cut] + bytes([byte]) + model[cut + 1 :] if whole else model[:cut])
    try:
        room.build(file, "x", legacy=True)
    except TokenizerError as error:
        found = str(error)
    else:
        found = "it does no harm."
    assert found.endswith(".")


def test_a_character_map_that_leads_nowhere_refuses_the_row(tmp_path: Path) -> None:
    """The file looks whole; only the text that a character is mapped to is missing."""
    folder_of(tmp_path, trained("t5"))
    pieces, said = room.parse(tmp_path / "tokenizer.model", "x")
    states = int.from_bytes(said.character_map[:4], "little")
    broken = said._replace(character_map=said.character_map[: 4 + states])
    tokenizer = Tokenizer("x", room._backend(pieces, broken, legacy=True))
    (good, bad) = tokenize(tokenizer, [Cut("Hello there"), Cut("\u2460 \ufb01")])
    assert isinstance(good, Pieces)
    assert isinstance(bad, EncodeError)


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({"tekken.json": "{}"}, "in an older form"),
        ({"tokenizer.model": "aGVsbG8= 0\ndGhl 1\n"}, "in an older form"),
        ({"tokenizer.model": "\x08\x01"}, "no sentencepiece model"),
        ({"README.md": ""}, "has no tokenizer.json"),
        ({"vocab.txt": "a\nb\n"}, r"has no \[UNK\]"),
        ({"vocab.json": "{}", "merges.txt": "a b\n"}, "cannot be read"),
        ({"vocab.json": '{"a</w>": 0}', "merges.txt": ""}, "not one of bytes"),
        (
            {
                "vocab.txt": "[UNK]\n",
                "tokenizer_config.json": '{"tokenizer_class": "OddTokenizer"}',
            },
            "its class OddTokenizer has rules",
        ),
    ],
)
def test_what_the_lab_cannot_build_is_refused_with_a_way_out(
    tmp_path: Path, files: dict[str, str], sentence: str
) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(TokenizerError, match=sentence):
        load_tokenizer(str(tmp_path))


def test_ids_that_only_a_class_of_its_own_could_bring_about_are_refused(tmp_path: Path) -> None:
    save_parts(byte_level(), tmp_path, added_tokens={"<far>": 9999})
    with pytest.raises(
        TokenizerError, match="'<far>' is token 9999, but their vocabulary makes it"
    ):
        load_tokenizer(str(tmp_path))


@pytest.mark.parametrize("model_type", ["char", "word"])
def test_other_algorithms_are_refused(tmp_path: Path, model_type: str) -> None:
    folder_of(tmp_path, trained("bpe", model_type=model_type))
    with pytest.raises(TokenizerError, match="knows words or characters only"):
        load_tokenizer(str(tmp_path))


def test_spaces_behind_words_are_refused(tmp_path: Path) -> None:
    folder_of(tmp_path, trained("unigram", treat_whitespace_as_suffix=True))
    with pytest.raises(TokenizerError, match="writes spaces in a way of its own"):
        load_tokenizer(str(tmp_path))
