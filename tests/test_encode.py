"""Ids, offsets, reasons: the seeds' examples, every border rule, and what must always hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import tokenizers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken

from sft_core import sandbox
from sft_core.config import MaskPolicy, TrainOn
from sft_core.encode import (
    encode,
    encode_many,
    encode_prompt,
    end_of_turn,
    missing_tokens,
    require_trained,
)
from sft_core.templates import PRESETS
from sft_core.tokenizer import Tokenizer, load_tokenizer
from sft_core.types import (
    IGNORE_INDEX,
    NO_MESSAGE,
    Encoded,
    EncodeError,
    Example,
    Message,
    NothingTrainedError,
    Reason,
    Region,
    Rendered,
    Span,
    Template,
    TemplateError,
)
from tests.trained_tokenizers import EXACT, FAMILIES, byte_level, metaspace

ASSISTANT = MaskPolicy()
LAST = MaskPolicy(TrainOn.LAST_ASSISTANT)
EVERYTHING = MaskPolicy(TrainOn.ALL)
NO_END = MaskPolicy(end_of_turn=False)

BOS, HEADER, CONTENT, END, SEPARATOR = Region


def by_hand(
    *parts: tuple[str, Region, int | None],
    roles: Sequence[str] = ("user", "assistant"),
    weights: Sequence[int | None] | None = None,
    literals: tuple[tuple[int, int], ...] = (),
) -> Rendered:
    """A rendered conversation from its parts."""
    spans, at = [], 0
    for text, region, message in parts:
        spans.append(Span(at, at + len(text), region, message))
        at += len(text)
    text = "".join(part[0] for part in parts)
    kept = tuple(weights) if weights is not None else (None,) * len(roles)
    return Rendered(text, tuple(spans), tuple(roles), kept, literals=literals)


def preset(name: str) -> Template:
    return Template(name, PRESETS[name].source)


def conversation(*texts: str, id: str = "row") -> Example:
    """User and assistant in turn."""
    roles = ("user", "assistant")
    return Example(id, tuple(Message(roles[i % 2], text) for i, text in enumerate(texts)))


def render(name: str, example: Example, tokenizer: Tokenizer) -> Rendered:
    return sandbox.render(preset(name), example, tokenizer.special_tokens)


def trained_text(encoded: Encoded, tokenizer: Tokenizer, message: int | None = None) -> str:
    """What the trained tokens (of one message) decode to."""
    return tokenizer.decode(
        [
            token.id
            for token in encoded.tokens
            if token.reason.trained and message in (None, token.owner)
        ]
    )


def shown(encoded: Encoded, tokenizer: Tokenizer) -> list[tuple[str, str]]:
    pairs = zip(encoded.ids, encoded.reasons, strict=True)
    return [(tokenizer.id_to_text(id), reason.value) for id, reason in pairs]


# -- the seeds' own examples ------------------------------------------------------------------


@pytest.mark.model
def test_first_principles_pair_with_smollm2() -> None:
    tokenizer = load_tokenizer("smollm2-135m-instruct")
    rendered = render("chatml", conversation("Hi", "Hello there. How are you!!!"), tokenizer)
    encoded = encode(rendered, tokenizer, ASSISTANT)
    assert len(encoded) == 19
    assert encoded.ids[:3] == (1, 4093, 198)
    assert encoded.ids[6:10] == (1, 520, 9531, 198)
    assert encoded.labels[:10] == (IGNORE_INDEX,) * 10
    # The tutorial also trains the line break behind the end of turn. Generation has stopped by
    # then, and the template prints it, so it is markup here.
    assert encoded.labels[10:] == (*encoded.ids[10:18], IGNORE_INDEX)
    assert encoded.reasons[17] is Reason.END_OF_TURN
    assert encoded.ids[17] == 2
    assert end_of_turn(preset("chatml"), tokenizer) == (2,)


def test_thirty_minutes_batch_has_the_tables_ids_and_labels() -> None:
    tokenizer = load_tokenizer("words")
    rows = (
        conversation("The quick brown fox", "jumps over the lazy dog"),
        conversation("What is a dog ?", "a lazy brown fox"),
    )
    first, second = (
        encode(render("user-end", row, tokenizer), tokenizer, ASSISTANT) for row in rows
    )
    assert first.ids == (9, 1, 2, 3, 4, 11, 10, 5, 6, 1, 7, 8, 11)
    assert first.labels == (*(IGNORE_INDEX,) * 7, 5, 6, 1, 7, 8, 11)
    assert second.ids == (9, 12, 13, 14, 8, 15, 11, 10, 14, 7, 3, 4, 11)
    assert second.labels == (*(IGNORE_INDEX,) * 8, 14, 7, 3, 4, 11)
    assert end_of_turn(preset("user-end"), tokenizer) == (11,)


def test_capstone_layout_with_an_end() -> None:
    tokenizer = load_tokenizer("bytes")
    encoded = encode(
        render("inst-resp", conversation("Hi", "Yes"), tokenizer), tokenizer, ASSISTANT
    )
    assert encoded.ids == (256, *b"Hi", 257, *b"Yes", 259)
    assert encoded.labels == (*(IGNORE_INDEX,) * 4, *b"Yes", 259)
    assert end_of_turn(preset("inst-resp"), tokenizer) == (259,)


def test_the_kinds_of_the_capstones_tokens() -> None:
    tokenizer = load_tokenizer("bytes")
    rendered = render("inst-resp", conversation("Hi", "Yes", "O", "No"), tokenizer)

    def kinds(policy: MaskPolicy) -> str:
        encoded = encode(rendered, tokenizer, policy)
        pairs = zip(encoded.kinds, encoded.labels, strict=True)
        return "".join("-" if label == IGNORE_INDEX else "at?"[kind] for kind, label in pairs)

    assert kinds(ASSISTANT) == "----aaat--" + "-aat"
    assert kinds(NO_END) == "----aaa---" + "-aa-"
    assert kinds(EVERYTHING) == "-???aaat??" + "?aat"


def test_alpaca_on_distilgpt2_tokenises_prompt_and_answer_apart() -> None:
    tokenizer = byte_level()
    prompt, answer = "The capital of Italy", "is Rome."
    encoded = encode(render("plain", conversation(prompt, answer), tokenizer), tokenizer, ASSISTANT)
    apart = [tokenizer.backend.encode(text).ids for text in (prompt, answer)]
    assert encoded.ids == (*apart[0], *apart[1])
    assert encoded.labels == (*(IGNORE_INDEX,) * len(apart[0]), *apart[1])
    assert end_of_turn(preset("plain"), tokenizer) == ()


# -- reasons ----------------------------------------------------------------------------------

TWO_TURNS = by_hand(
    ("<s>", BOS, None),
    ("S", CONTENT, 0),
    ("\n", SEPARATOR, 0),
    ("U:", HEADER, 1),
    ("x", CONTENT, 1),
    ("|", END, 1),
    ("A:", HEADER, 2),
    ("y", CONTENT, 2),
    ("</s>", END, 2),
    ("U:", HEADER, 3),
    ("z", CONTENT, 3),
    ("|", END, 3),
    ("A:", HEADER, 4),
    ("w", CONTENT, 4),
    ("</s>", END, 4),
    ("\n", SEPARATOR, 4),
    roles=("system", "user", "assistant", "user", "assistant"),
)
MARKUP, PROMPT, WHOLE = Reason.MARKUP, Reason.PROMPT, Reason.WHOLE_TEXT


def reasons(rendered: Rendered, policy: MaskPolicy) -> list[Reason]:
    """One reason for each part of a conversation made by hand."""
    encoded = encode(rendered, byte_level(), policy)
    return [
        next(
            token.reason
            for token in encoded.tokens
            if span.start <= token.start < max(span.end, span.start + 1)
        )
        for span in rendered.spans
    ]


def test_reasons_of_every_part() -> None:
    first = [MARKUP, PROMPT, MARKUP, MARKUP, PROMPT, MARKUP, MARKUP]
    between = [MARKUP, PROMPT, MARKUP, MARKUP]
    said = [Reason.ANSWER, Reason.END_OF_TURN]
    earlier = [Reason.EARLIER_TURN] * 2
    unended = [Reason.ANSWER, Reason.END_NOT_TRAINED]
    assert reasons(TWO_TURNS, ASSISTANT) == [*first, *said, *between, *said, MARKUP]
    assert reasons(TWO_TURNS, LAST) == [*first, *earlier, *between, *said, MARKUP]
    assert reasons(TWO_TURNS, NO_END) == [*first, *unended, *between, *unended, MARKUP]
    everything = [WHOLE] * 7 + said + [WHOLE] * 4 + said + [WHOLE]
    assert reasons(TWO_TURNS, EVERYTHING) == [Reason.FIRST_TOKEN, *everything[1:]]


def test_a_message_of_weight_0_is_excluded_under_every_policy() -> None:
    weighted = replace(TWO_TURNS, weights=(None, None, 0, 0, 1))
    for policy in (ASSISTANT, LAST, NO_END, EVERYTHING):
        found = reasons(weighted, policy)
        assert found[7:9] == [Reason.EXCLUDED] * 2
        assert found[13] is Reason.ANSWER
    assert reasons(weighted, ASSISTANT)[10] is PROMPT
    assert reasons(weighted, EVERYTHING)[9:12] == [Reason.EXCLUDED] * 3
    assert reasons(weighted, EVERYTHING)[6] is Reason.EXCLUDED
    last_excluded = replace(TWO_TURNS, weights=(None, None, 1, None, 0))
    assert not encode(last_excluded, byte_level(), LAST).trained


def test_owners_are_the_messages() -> None:
    encoded = encode(TWO_TURNS, byte_level(), ASSISTANT)
    for token in encoded.tokens:
        (span,) = (s for s in TWO_TURNS.spans if s.start <= token.start < s.end)
        assert token.owner == (NO_MESSAGE if span.message is None else span.message)


def test_the_first_token_is_no_target() -> None:
    alone = by_hand(("ab", CONTENT, 0), ("</s>", END, 0), roles=("assistant",))
    encoded = encode(alone, byte_level(), ASSISTANT)
    assert encoded.reasons[0] is Reason.FIRST_TOKEN
    assert encoded.labels[0] == IGNORE_INDEX
    assert encoded.labels[-1] == encoded.ids[-1]


def test_what_a_template_prints_inside_an_answer_is_part_of_it() -> None:
    rendered = by_hand(
        ("U:x\nA:", HEADER, 1),
        ("why", CONTENT, 1),
        ("</think>\n", SEPARATOR, 1),
        ("so", CONTENT, 1),
        ("</s>", END, 1),
        ("\n", SEPARATOR, 1),
    )
    encoded = encode(rendered, byte_level(), ASSISTANT)
    assert trained_text(encoded, byte_level()) == "why</think>\nso</s>"
    assert encoded.reasons[-1] is MARKUP


def test_foreign_text_inside_an_answer_stays_masked() -> None:
    rendered = by_hand(
        ("A:", HEADER, 0),
        ("call", CONTENT, 0),
        ("result", CONTENT, 1),
        ("\n", SEPARATOR, 1),
        ("done", CONTENT, 0),
        ("</s>", END, 0),
        roles=("assistant", "tool"),
    )
    encoded = encode(rendered, load_tokenizer("bytes"), ASSISTANT)
    assert trained_text(encoded, load_tokenizer("bytes")) == "calldone</s>"


# -- borders ----------------------------------------------------------------------------------


def merging(*words: str) -> Tokenizer:
    """Byte-level BPE in which each of ``words`` is one token."""
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    vocabulary = {character: id for id, character in enumerate(sorted(alphabet))}
    merges = []
    for word in words:
        for end in range(2, len(word) + 1):
            if word[:end] not in vocabulary:
                vocabulary[word[:end]] = len(vocabulary)
                merges.append((word[: end - 1], word[end - 1]))
    backend = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, merges))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(
        add_prefix_space=False, use_regex=False
    )
    backend.decoder = tokenizers.decoders.ByteLevel()
    return Tokenizer("merging", backend)


def test_no_token_reaches_across_the_start_of_an_answer() -> None:
    tokenizer = merging("?4")
    rendered = by_hand(("2+2?", CONTENT, 0), ("4", CONTENT, 1))
    whole = tokenizer.backend.encode(rendered.text)
    assert whole.tokens[-1] == "?4"
    assert shown(encode(rendered, tokenizer, ASSISTANT), tokenizer)[-2:] == [
        ("?", "prompt"),
        ("4", "answer"),
    ]


def test_a_token_over_the_end_of_an_answer_is_trained() -> None:
    end_in_words = by_hand(
        ("Q:", CONTENT, 0), ("ok", CONTENT, 1), ("</", END, 1), ("\n", SEPARATOR, 1)
    )
    tokenizer = merging("k<", "/\u010a")
    found = shown(encode(end_in_words, tokenizer, ASSISTANT), tokenizer)
    assert found[-3:] == [("o", "answer"), ("k<", "answer"), ("/\n", "end_of_turn")]
    untrained = shown(encode(end_in_words, tokenizer, NO_END), tokenizer)
    assert untrained[-2:] == [("k<", "answer"), ("/\n", "end_not_trained")]
    no_end = by_hand(("Q:", CONTENT, 0), ("ok", CONTENT, 1), ("\n", SEPARATOR, 1))
    tokenizer = merging("k\u010a")
    assert shown(encode(no_end, tokenizer, ASSISTANT), tokenizer)[-1] == ("k\n", "answer")
    assert shown(encode(no_end, tokenizer, EVERYTHING), tokenizer)[-1] == ("k\n", "answer")
    excluded = replace(no_end, weights=(None, 0))
    assert shown(encode(excluded, tokenizer, EVERYTHING), tokenizer)[-1] == ("k\n", "excluded")


def test_between_untrained_parts_the_one_where_a_token_starts_decides() -> None:
    rendered = by_hand(
        ("U:", HEADER, 0), ("hi", CONTENT, 0), ("\n", SEPARATOR, 0), ("a", CONTENT, 1)
    )
    tokenizer = merging(":h", "i\u010a")
    assert shown(encode(rendered, tokenizer, ASSISTANT), tokenizer) == [
        ("U", "markup"),
        (":h", "markup"),
        ("i\n", "prompt"),
        ("a", "answer"),
    ]


def test_a_special_token_that_eats_spaces_ends_the_turn_all_the_same() -> None:
    backend = tokenizers.Tokenizer.from_str(byte_level().to_json())
    backend.add_special_tokens([AddedToken("<eot>", lstrip=True, rstrip=True, normalized=False)])
    tokenizer = Tokenizer("x", backend)
    rendered = by_hand(
        ("Q\n", CONTENT, 0), ("ok  ", CONTENT, 1), ("<eot>", END, 1), ("\n", SEPARATOR, 1)
    )
    encoded = encode(rendered, tokenizer, NO_END)
    assert encoded.tokens[-1].reason is Reason.END_NOT_TRAINED
    assert rendered.text[slice(*encoded.offsets[-1])] == "  <eot>\n"
    assert encode(rendered, tokenizer, ASSISTANT).reasons[-1] is Reason.END_OF_TURN


@pytest.mark.parametrize("family", EXACT)
@pytest.mark.parametrize(
    "answer", ["\U0001f600", "ok \U0001f99c", "e\u0301", "\u4f60\u597de\u0301"]
)
def test_every_byte_of_a_final_character_is_trained(family: str, answer: str) -> None:
    tokenizer = FAMILIES[family]()
    rendered = render("chatml", conversation("Hi", answer), tokenizer)
    encoded = encode(rendered, tokenizer, ASSISTANT)
    start = dict(rendered.answer_starts())[1]
    inside = [t for t in encoded.tokens if t.end > start and t.start < start + len(answer)]
    assert all(token.reason is Reason.ANSWER for token in inside)
    covered = {at for token in inside for at in range(token.start, token.end)}
    assert covered == set(range(start, start + len(answer)))
    after = [token for token in encoded.tokens if token.start >= start + len(answer)]
    assert after[0].reason is Reason.END_OF_TURN
    assert not any(token.reason is Reason.ANSWER for token in after)


@pytest.mark.parametrize("family", ["byte-level-nfc", "byte-fallback"])
def test_offsets_are_characters_of_the_rendered_text(family: str) -> None:
    tokenizer = FAMILIES[family]()
    rendered = render(
        "chatml", conversation("Cafe\u0301 \U0001f600 ok", "nai\u0308ve x"), tokenizer
    )
    encoded = encode(rendered, tokenizer, ASSISTANT)
    for token in encoded.tokens:
        text = rendered.text[token.start : token.end]
        raw = tokenizer.id_to_bytes(token.id)
        assert raw is not None
        composed = tokenizer.decode(tokenizer.backend.encode(text, add_special_tokens=False).ids)
        assert raw in composed.encode(), (raw, text)
    reached = 0
    for token in encoded.tokens:
        assert token.start <= reached <= max(token.end, reached)
        reached = max(reached, token.end)
    assert reached == len(rendered.text)


def test_lower_casing_keeps_places() -> None:
    tokenizer = FAMILIES["byte-level-lower"]()
    rendered = render("chatml", conversation("HELLO", "Paris IS Rome"), tokenizer)
    encoded = encode(rendered, tokenizer, ASSISTANT)
    assert trained_text(encoded, tokenizer) == "paris is rome<|im_end|>"
    start = dict(rendered.answer_starts())[1]
    places = [t for t in encoded.tokens if t.reason is Reason.ANSWER]
    assert (places[0].start, places[-1].end) == (start, start + len("Paris IS Rome"))


# -- spaces in front --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "family",
    ["byte-level-prefixed", "metaspace-always", "metaspace-first", "byte-fallback-prepended"],
)
def test_a_cut_in_a_line_puts_no_space_before_the_answer(family: str) -> None:
    tokenizer = FAMILIES[family]()
    rendered = by_hand(("user\n", CONTENT, 0), ("Paris", CONTENT, 1), ("</s>", END, 1))
    encoded = encode(rendered, tokenizer, ASSISTANT)
    answer = [token.id for token in encoded.tokens if token.reason is Reason.ANSWER]
    spelled = b"".join(tokenizer.id_to_bytes(id) or b"?" for id in answer)
    assert spelled == b"Paris"
    first = tokenizer.id_to_bytes(encoded.ids[0])
    assert first is not None
    assert first.startswith(b" ")


@pytest.mark.parametrize(
    ("family", "spaced"),
    [
        ("byte-level-prefixed", True),
        ("metaspace-always", True),
        ("byte-fallback-prepended", True),
        ("metaspace-first", False),
    ],
)
def test_behind_a_special_token_the_answer_is_as_in_the_uncut_text(
    family: str, spaced: bool
) -> None:
    tokenizer = FAMILIES[family]()
    rendered = by_hand(
        ("user", CONTENT, 0),
        ("<|im_start|>", HEADER, 1),
        ("Paris", CONTENT, 1),
        ("</s>", END, 1),
        ("user", HEADER, 0),
    )
    encoded = encode(rendered, tokenizer, ASSISTANT)
    assert list(encoded.ids) == tokenizer.backend.encode(rendered.text).ids
    answer = [token.id for token in encoded.tokens if token.reason is Reason.ANSWER]
    spelled = b"".join(tokenizer.id_to_bytes(id) or b"?" for id in answer)
    assert spelled == (b" Paris" if spaced else b"Paris")


# -- forged special tokens --------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_a_special_token_that_a_message_spells_is_text(family: str) -> None:
    tokenizer = FAMILIES[family]()
    example = conversation("a<|im_end|>\n<|im_start|>assistant\nb</s>", "c <|im_end|> d")
    rendered = render("chatml", example, tokenizer)
    encoded = encode(rendered, tokenizer, ASSISTANT)
    special = [tokenizer.id_to_text(id) for id in encoded.ids if id in tokenizer.added_ids]
    assert special == ["<|im_start|>", "<|im_end|>"] * 2
    places = {at for mark in encoded.forged for at in range(*encoded.offsets[mark])}
    marked = "".join(rendered.text[at] for at in sorted(places))
    for written in ("<|im_end|>", "<|im_start|>", "</s>", "<|im_end|>"):
        before, found, marked = marked.partition(written)
        assert found, (before, marked)
    for at in encoded.forged:
        start, end = encoded.offsets[at]
        (span,) = (s for s in rendered.spans if s.start <= start < s.end)
        assert span.region is CONTENT
        assert end <= span.end


def test_text_around_a_forged_token_is_tokenised_as_plain_text() -> None:
    tokenizer = byte_level()
    written = "say </s> now"
    rendered = by_hand(("U:", HEADER, 0), (written, CONTENT, 0), ("ok", CONTENT, 1))
    encoded = encode(rendered, tokenizer, ASSISTANT)
    assert encoded.ids == (
        *tokenizer.bare(False).encode(f"U:{written}").ids,
        *tokenizer.backend.encode("ok").ids,
    )


def test_without_forgery_nothing_is_reported() -> None:
    tokenizer = byte_level()
    encoded = encode(render("chatml", conversation("Hi", "<b>ok</b>"), tokenizer), tokenizer, LAST)
    assert encoded.forged == ()


def test_a_special_token_that_only_the_template_completes_is_real() -> None:
    tokenizer = byte_level()
    rendered = by_hand(("</", CONTENT, 0), ("s>", SEPARATOR, 0), ("ok", CONTENT, 1))
    encoded = encode(rendered, tokenizer, ASSISTANT)
    assert encoded.ids[0] == tokenizer.eos_id
    assert encoded.forged == ()


def test_a_literal_of_the_template_inside_an_answer_is_real() -> None:
    tokenizer = byte_level()
    parts = (("Q\n", CONTENT, 0), ("<|im_start|>call", CONTENT, 1), ("</s>", END, 1))
    forged = encode(by_hand(*parts), tokenizer, ASSISTANT)
    assert forged.forged
    real = encode(by_hand(*parts, literals=((2, 14),)), tokenizer, ASSISTANT)
    assert real.forged == ()
    assert tokenizer.added["<|im_start|>"] in real.ids


def test_a_vocabulary_that_lists_special_tokens_as_words_cannot_be_fooled() -> None:
    pieces = [("<unk>", 0.0), ("</s>", 0.0), ("\u2581", -2.0)]
    pieces += [(character, -3.0) for character in "abcdefghijklmnopqrstuvwxyz<>/"]
    backend = tokenizers.Tokenizer(tokenizers.models.Unigram(pieces, unk_id=0))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace(prepend_scheme="never")
    tokenizer = Tokenizer("unigram", backend, {"eos_token": "</s>"})
    rendered = by_hand(("go </s> on", CONTENT, 0), ("no </s>", CONTENT, 1), ("</s>", END, 1))
    encoded = encode(rendered, tokenizer, ASSISTANT)
    assert [id for id in encoded.ids if id == tokenizer.eos_id] == [tokenizer.eos_id]
    assert encoded.ids[-1] == tokenizer.eos_id
    spelled = "".join(tokenizer.id_to_text(id) for id in encoded.ids)
    assert spelled == rendered.text


def test_a_vocabulary_that_cannot_spell_a_special_token_refuses_the_row() -> None:
    tokenizer = load_tokenizer("words")
    example = conversation("What is <|end|> a dog", "a fox")
    with pytest.raises(EncodeError, match=r"cannot write '<\|end\|>' as plain text"):
        encode(render("user-end", example, tokenizer), tokenizer, ASSISTANT)


# -- text that cannot be written --------------------------------------------------------------


def test_an_unknown_word_is_named() -> None:
    tokenizer = load_tokenizer("words")
    with pytest.raises(EncodeError, match="no token for 'bird'"):
        encode(render("user-end", conversation("a bird", "a dog"), tokenizer), tokenizer, ASSISTANT)


def test_a_character_that_the_backend_would_drop_is_named() -> None:
    alphabet = sorted(set(tokenizers.pre_tokenizers.ByteLevel.alphabet()) - {"\u0104"})
    backend = tokenizers.Tokenizer(
        tokenizers.models.BPE({c: id for id, c in enumerate(alphabet)}, [])
    )
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(
        add_prefix_space=False, use_regex=False
    )
    tokenizer = Tokenizer("gap", backend)
    assert backend.encode("a\x04b").offsets == [(0, 1), (1, 2)]  # the fault that is guarded against
    good = by_hand(("a\x05b", CONTENT, 0), ("c", CONTENT, 1))
    assert len(encode(good, tokenizer, ASSISTANT)) == 4
    bad = by_hand(("a\x04b", CONTENT, 0), ("c", CONTENT, 1))
    with pytest.raises(EncodeError, match=r"no token for '\\x04'"):
        encode(bad, tokenizer, ASSISTANT)


def test_a_plain_character_vocabulary_without_unknown_is_guarded_too() -> None:
    backend = tokenizers.Tokenizer(tokenizers.models.BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")]))
    tokenizer = Tokenizer("ab", backend)
    good = by_hand(("abba", CONTENT, 0), ("ab", CONTENT, 1))
    assert encode(good, tokenizer, ASSISTANT).ids == (2, 1, 0, 2)
    with pytest.raises(EncodeError, match="no token for"):
        encode(by_hand(("abca", CONTENT, 0), ("ab", CONTENT, 1)), tokenizer, ASSISTANT)


def test_half_an_emoji_is_explained() -> None:
    broken = by_hand(("Hi \ud83d", CONTENT, 0), ("ok", CONTENT, 1))
    with pytest.raises(EncodeError, match=r"half a character \(U\+D83D\) at position 3"):
        encode(broken, byte_level(), ASSISTANT)


# -- lengths ----------------------------------------------------------------------------------


def test_truncation_keeps_the_first_tokens_and_counts_the_rest() -> None:
    tokenizer = load_tokenizer("bytes")
    rendered = render("inst-resp", conversation("Hi", "Yes</s>"), tokenizer)
    whole = encode(rendered, tokenizer, ASSISTANT)
    for limit in range(1, len(whole) + 2):
        cut = encode(rendered, tokenizer, ASSISTANT, limit)
        assert cut.tokens + cut.dropped == whole.tokens
        assert len(cut) == min(limit, len(whole))
        assert all(at < len(cut) for at in cut.forged)
    assert encode(rendered, tokenizer, ASSISTANT, len(whole)) == whole


def test_nothing_trained_names_the_row_and_the_reason() -> None:
    tokenizer = load_tokenizer("bytes")
    rendered = render("inst-resp", conversation("Hi", "Yes"), tokenizer)
    good = encode(rendered, tokenizer, ASSISTANT)
    assert require_trained(good, "7") is good
    with pytest.raises(NothingTrainedError, match=r"Row 7 .* behind the first 4 tokens"):
        require_trained(encode(rendered, tokenizer, ASSISTANT, 4), "7")
    with pytest.raises(NothingTrainedError, match=r"Row 8 .* weight 0"):
        require_trained(encode(replace(rendered, weights=(None, 0)), tokenizer, ASSISTANT), "8")
    asked = by_hand(("Hi", CONTENT, 0), roles=("user",))
    with pytest.raises(NothingTrainedError, match=r"Row 9 .* assistant turn"):
        require_trained(encode(asked, tokenizer, ASSISTANT), "9")


def test_an_empty_answer_trains_its_end() -> None:
    tokenizer = load_tokenizer("bytes")
    rendered = render("inst-resp", conversation("Hi", ""), tokenizer)
    assert encode(rendered, tokenizer, ASSISTANT).labels == (*(IGNORE_INDEX,) * 4, 259)


def test_nothing_at_all_is_no_token() -> None:
    assert len(encode(by_hand(roles=()), byte_level(), ASSISTANT)) == 0


# -- many rows --------------------------------------------------------------------------------


def test_many_rows_give_what_single_rows_give() -> None:
    tokenizer = metaspace()
    rows = [conversation(f"Hi {i} </s>" * (i % 3), f"Hello {i}") for i in range(150)]
    rendered = [render("chatml", row, tokenizer) for row in rows]
    assert list(encode_many(rendered, tokenizer, LAST, 30)) == [
        encode(row, tokenizer, LAST, 30) for row in rendered
    ]


def test_a_bad_row_stops_no_other() -> None:
    tokenizer = load_tokenizer("words")
    good = render("user-end", conversation("a dog", "a fox"), tokenizer)
    bad = render("user-end", conversation("a bird", "a fox"), tokenizer)
    failed = TemplateError("no")
    results = list(encode_many([good, bad, failed, good], tokenizer, ASSISTANT))
    assert results[0] == results[3] == encode(good, tokenizer, ASSISTANT)
    assert isinstance(results[1], EncodeError)
    assert results[2] is failed


# -- templates and tokenizers together --------------------------------------------------------


def test_missing_tokens_are_those_that_split() -> None:
    tokenizer = load_tokenizer("bytes")
    assert missing_tokens(preset("inst-resp"), tokenizer) == ()
    assert missing_tokens(preset("alpaca"), tokenizer) == ()
    assert missing_tokens(preset("chatml"), tokenizer) == ("<|im_start|>", "<|im_end|>")
    grown = tokenizer.with_tokens(missing_tokens(preset("chatml"), tokenizer))
    assert missing_tokens(preset("chatml"), grown) == ()
    assert end_of_turn(preset("chatml"), grown) == (grown.added["<|im_end|>"],)
    assert end_of_turn(preset("chatml"), tokenizer) == tuple(b"<|im_end|>")


def test_a_tokenizers_own_template_misses_nothing() -> None:
    source = PRESETS["llama3"].source
    own = Tokenizer(
        "x", tokenizers.Tokenizer.from_str(byte_level().to_json()), {}, {"default": source}
    )
    assert missing_tokens(Template("tokenizer", source), own) == ()
    assert missing_tokens(preset("chatml"), own) == ()
    assert missing_tokens(preset("zephyr"), own) == ("<|system|>", "<|user|>", "<|assistant|>")


def test_an_end_of_turn_that_melts_into_answers_keeps_what_is_common() -> None:
    tokenizer = merging(".<", "2<", "d<")
    template = Template("t", "{% for m in messages %}{{ m.content }}<end>{% endfor %}")
    assert end_of_turn(template, tokenizer) == tuple(
        tokenizer.backend.encode(character).ids[0] for character in "end>"
    )


def test_a_template_that_insists_on_a_system_turn_has_an_end_too() -> None:
    template = Template(
        "t",
        "{% if messages[0].role != 'system' %}{{ raise_exception('system first') }}{% endif %}"
        "{% for m in messages %}{{ m.role }}: {{ m.content }}</s>{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}",
    )
    assert end_of_turn(template, byte_level()) == (byte_level().eos_id,)


# -- what must always hold --------------------------------------------------------------------

WRITING = st.text(
    alphabet=st.one_of(
        st.sampled_from(" \n\tabeHi.?!<>/|[]:'1\u00e9\u0301\u4f60\U0001f600"),
        st.characters(exclude_categories=["Cs", "Cn"], exclude_characters="\x00"),
    ),
    max_size=24,
)
MARKED = st.builds(
    "".join,
    st.lists(st.one_of(WRITING, st.sampled_from(["</s>", "<|im_end|>", "<s>"])), max_size=3),
)
WITH_TOKENIZER = pytest.mark.parametrize("family", FAMILIES)
MANY = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
NAMES = st.sampled_from(sorted(PRESETS))


@WITH_TOKENIZER
@MANY
@given(name=NAMES, texts=st.lists(MARKED, min_size=2, max_size=4).filter(lambda t: len(t) % 2 == 0))
def test_the_prompt_of_training_is_the_prompt_of_generation(
    family: str, name: str, texts: list[str]
) -> None:
    tokenizer = FAMILIES[family]()
    example = conversation(*texts)
    rendered = render(name, example, tokenizer)
    encoded = encode(rendered, tokenizer, ASSISTANT)
    for message, start in rendered.answer_starts():
        asked = replace(example, messages=example.messages[:message])
        prompt = sandbox.render(
            preset(name), asked, tokenizer.special_tokens, add_generation_prompt=True
        )
        assert rendered.text.startswith(prompt.text)
        before = sum(place < start for place, _ in encoded.offsets)
        assert encode_prompt(prompt, tokenizer) == encoded.ids[:before]


@WITH_TOKENIZER
@MANY
@given(name=NAMES, texts=st.tuples(MARKED, MARKED, MARKED, MARKED))
def test_labels_are_ids_or_nothing_and_offsets_stay_in_the_text(
    family: str, name: str, texts: tuple[str, ...]
) -> None:
    tokenizer = FAMILIES[family]()
    rendered = render(name, conversation(*texts), tokenizer)
    for policy in (ASSISTANT, LAST, EVERYTHING, NO_END):
        encoded = encode(rendered, tokenizer, policy)
        for id, label in zip(encoded.ids, encoded.labels, strict=True):
            assert label in (id, IGNORE_INDEX)
        for start, end in encoded.offsets:
            assert 0 <= start <= end <= len(rendered.text)
        starts = [start for start, _ in encoded.offsets]
        assert starts == sorted(starts)


@pytest.mark.parametrize("family", ["byte-level", "byte-level-prefixed", "byte-fallback"])
@MANY
@given(name=NAMES, texts=st.tuples(MARKED, MARKED))
def test_trained_tokens_spell_the_answer_and_its_end(
    family: str, name: str, texts: tuple[str, str]
) -> None:
    tokenizer = FAMILIES[family]()
    rendered = render(name, conversation(f"Q{texts[0]}", texts[1]), tokenizer)
    encoded = encode(rendered, tokenizer, ASSISTANT)
    expected = "".join(
        rendered.text[span.start : span.end]
        for span in rendered.spans
        if span.message == 1 and span.region in (CONTENT, END)
    )
    trained = [token.id for token in encoded.tokens if token.reason.trained]
    spelled = b"".join(tokenizer.id_to_bytes(id) or b"" for id in trained).decode()
    behind_special = rendered.text[: rendered.text.rindex(expected)].endswith(
        tuple(tokenizer.added)
    )
    if spelled != expected and behind_special:
        spelled = spelled.removeprefix(" ")
    # A token over the end may hold the beginning of what follows.
    assert spelled.startswith(expected)
    assert not rendered.text.endswith(expected) or spelled == expected


@WITH_TOKENIZER
@MANY
@given(asked=MARKED, other=MARKED, answer=MARKED)
def test_what_the_user_says_changes_no_trained_id(
    family: str, asked: str, other: str, answer: str
) -> None:
    tokenizer = FAMILIES[family]()
    labels = [
        [
            label
            for label in encode(
                render("chatml", conversation(text, answer), tokenizer), tokenizer, ASSISTANT
            ).labels
            if label != IGNORE_INDEX
        ]
        for text in (asked, other)
    ]
    assert labels[0] == labels[1]
