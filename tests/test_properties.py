"""What must hold for any conversation, template, policy and tokenizer: checked on generated ones.

``PRINTS`` says, as a person reads it off each template, what the template prints of an answer and
what ends it. That, and not what the lab found out about the template, is what trained tokens are
compared with. How depends on what the tokenizer can give back:

- ``SPELLING`` families: the bytes of the trained tokens are the answer's, up to NFC where the
  tokenizer composes accents. Two things are sentencepiece's own: U+2581 comes back as a space, and
  a space may stand in front where the tokenizer puts one behind a special token.
- The others lower-case, know no unusual character, or drop spaces, so that their tokens do not
  spell the text; there only the characters that the tokens stand for are compared, by offsets.

A token that holds the end of an answer and something behind it is trained (see ``encode``), so the
last one alone may reach further.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sft_core import encode as room
from sft_core import templates
from sft_core.config import MaskPolicy, TrainOn
from sft_core.doctor import examine
from sft_core.encode import encode, encode_many, encode_prompt
from sft_core.templates import PRESETS
from sft_core.tokenizer import Tokenizer, load_tokenizer
from sft_core.tokenizer.builtin import WORDS as WORD_LIST
from sft_core.tokenizer.core import Prefix
from sft_core.types import (
    IGNORE_INDEX,
    EncodeError,
    Example,
    LabError,
    Message,
    Reason,
    Rendered,
    Template,
    Token,
)
from tests.sample_templates import SAMPLES
from tests.trained_tokenizers import FAMILIES

# -- what is generated ----------------------------------------------------------------------------

Printer = Callable[[str], str]


def _as_it_is(content: str) -> str:
    return content


PRINTS: Final[dict[str, tuple[Printer, str]]] = {
    "plain": (_as_it_is, ""),
    "plain-ended": (_as_it_is, "EOS"),
    "chatml": (_as_it_is, "<|im_end|>"),
    "alpaca": (_as_it_is, "EOS"),
    "inst-resp": (_as_it_is, "<END>"),
    "user-end": (_as_it_is, "<|end|>"),
    "llama3": (str.strip, "<|eot_id|>"),
    "gemma": (str.strip, "<end_of_turn>"),
    "mistral": (_as_it_is, "EOS"),
    "zephyr": (_as_it_is, "EOS"),
    "trimmed": (str.strip, " ##"),
    "shouting": (lambda content: content.strip().upper(), "<|stop|>"),
    "system-in-user": (_as_it_is, "EOS"),
    "at-the-end": (_as_it_is, "<end>"),
    "macros": (str.strip, "</assistant>"),
    "forgetful": (_as_it_is, "<|end|>"),
    "generation-tags": (_as_it_is, "<|im_end|>"),
    "no-prompt": (lambda content: f"<|im_start|>assistant\n{content}", "<|im_end|>"),
    "by-number": (_as_it_is, "<|end|>"),
    "opens-thinking": (lambda content: f"\n</think>\n{content}", "<|end|>"),
    "blocks": (_as_it_is, "! [/assistant]"),
}
"""Template -> what it makes of an answer, and what it prints to end it."""

SPELLING: Final = frozenset(
    {
        "bytes",
        "byte-level",
        "byte-level-nfc",
        "byte-level-prefixed",
        "byte-fallback",
        "byte-fallback-prepended",
    }
)
POLICIES: Final = tuple(MaskPolicy(it, end) for it in TrainOn for end in (True, False))
MARKERS: Final = (
    "<s>",
    "</s>",
    "<unk>",
    "<|im_start|>",
    "<|im_end|>",
    "<|end|>",
    "<END>",
    "[INST]",
)
TEXTS = st.lists(
    st.one_of(
        st.sampled_from(
            [*MARKERS, "", " ", "\n\n", "\t", "Hello there, how are you?", "user\n", "assistant"]
        ),
        st.text(alphabet=" \n\tabcABC.?!0123456789'\"{}%<>|/", max_size=16),
        st.text(
            alphabet="e\u0301\u00e9\u00df\u4f60\u597d\u0130\u2581\u200d\ufe0f\U0001f600", max_size=6
        ),
        st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=8),
    ),
    max_size=4,
).map("".join)


def _library() -> dict[str, Tokenizer]:
    return {name: make() for name, make in FAMILIES.items()} | {"bytes": load_tokenizer("bytes")}


TOKENIZERS: Final = _library()


@st.composite
def conversations(draw: st.DrawFn) -> tuple[Message, ...]:
    """A system turn or none, then users and assistants, some answers with a weight."""
    turns = [Message("system", draw(TEXTS))] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 3))):
        turns.append(Message("user", draw(TEXTS)))
        for _ in range(draw(st.sampled_from([1, 1, 1, 2]))):
            weight = draw(st.sampled_from([None, None, 1, 0]))
            turns.append(Message("assistant", draw(TEXTS), weight=weight))
    return tuple(turns)


FAMILY = st.sampled_from(sorted(TOKENIZERS))
NAME = st.sampled_from(sorted(PRINTS))
POLICY = st.sampled_from(POLICIES)


def template(name: str) -> Template:
    return Template(name, PRESETS[name].source if name in PRESETS else SAMPLES[name])


def render(name: str, messages: tuple[Message, ...], tokenizer: Tokenizer) -> Rendered:
    return templates.render(template(name), Example("row", messages), tokenizer.special_tokens)


def printed(name: str, content: str, tokenizer: Tokenizer, policy: MaskPolicy) -> str:
    """What a model should learn to give for an answer."""
    printer, end = PRINTS[name]
    if end == "EOS":
        end = tokenizer.special_tokens["eos_token"]
    return printer(content) + (end if policy.end_of_turn else "")


@dataclass(frozen=True)
class Turn:
    """The tokens of one answer, and the text that they should stand for."""

    tokens: tuple[Token, ...]
    expected: str


def turns(
    name: str, messages: tuple[Message, ...], tokenizer: Tokenizer, policy: MaskPolicy
) -> Iterator[Turn]:
    """One for each answer that the policy trains."""
    wanted = (Reason.ANSWER, Reason.END_OF_TURN, Reason.FIRST_TOKEN)
    encoded = encode(render(name, messages, tokenizer), tokenizer, policy)
    said = [index for index, message in enumerate(messages) if message.role == "assistant"]
    for index, message in enumerate(messages):
        own = tuple(
            token for token in encoded.tokens if token.owner == index and token.reason in wanted
        )
        expected = printed(name, message.text, tokenizer, policy)
        skipped = policy.train_on is TrainOn.LAST_ASSISTANT and [index] != said[-1:]
        # None of these templates has the tags; tests/test_generation_tags.py is about those.
        skipped = skipped or policy.train_on is TrainOn.GENERATION_TAGS
        if message.role != "assistant" or message.weight == 0 or skipped:
            assert not own or own[0].reason is Reason.FIRST_TOKEN
        elif expected:
            yield Turn(own, expected)
        else:
            assert not own


def covered(ranges: Iterator[tuple[int, int]]) -> set[int]:
    return {place for start, end in ranges for place in range(start, end)}


# -- the properties -------------------------------------------------------------------------------


@given(family=FAMILY, name=NAME, policy=POLICY, messages=conversations())
def test_a_label_is_the_tokens_own_id_where_the_reason_trains_it(
    family: str, name: str, policy: MaskPolicy, messages: tuple[Message, ...]
) -> None:
    tokenizer = TOKENIZERS[family]
    encoded = encode(render(name, messages, tokenizer), tokenizer, policy)
    for id, label, reason in zip(encoded.ids, encoded.labels, encoded.reasons, strict=True):
        assert label == (id if reason.trained else IGNORE_INDEX)
        assert 0 <= id < tokenizer.vocab_size
    assert not encoded.reasons or not encoded.reasons[0].trained


@given(family=FAMILY, name=NAME, policy=POLICY, messages=conversations())
def test_trained_tokens_are_the_answer_as_printed_and_its_end(
    family: str, name: str, policy: MaskPolicy, messages: tuple[Message, ...]
) -> None:
    tokenizer = TOKENIZERS[family]
    text = render(name, messages, tokenizer).text
    behind = 0
    for turn in turns(name, messages, tokenizer, policy):
        places = covered((token.start, token.end) for token in turn.tokens)
        if family == "word-piece":
            found = kept_by_bert("".join(text[place] for place in sorted(places)))
            assert found.startswith(kept_by_bert(turn.expected))
            continue
        begin = turn.tokens[0].start
        end = begin + len(turn.expected)
        assert behind <= begin
        assert text[begin:end] == turn.expected
        last = turn.tokens[-1]
        assert places == set(range(begin, max(end, last.end)))
        assert last.start < end
        assert all(token.end <= end for token in turn.tokens if token.start < last.start)
        if family in SPELLING:
            assert spelled(family, turn) == as_spelled(family, turn, text)
        behind = end


def spelled(family: str, turn: Turn) -> str:
    """What the tokens of a turn spell, byte by byte."""
    found = (TOKENIZERS[family].id_to_bytes(token.id) for token in turn.tokens)
    return comparable(family, b"".join(raw for raw in found if raw is not None).decode())


def as_spelled(family: str, turn: Turn, text: str) -> str:
    """What they should spell: the answer, and what its last token holds beyond it."""
    begin = turn.tokens[0].start
    wanted = text[begin : max(begin + len(turn.expected), turn.tokens[-1].end)]
    behind_special = begin == 0 or text[:begin].endswith(tuple(TOKENIZERS[family].added))
    if TOKENIZERS[family].prefix is not Prefix.NEVER and behind_special:
        wanted = f" {wanted}" if spelled(family, turn).startswith(" ") else wanted
    return comparable(family, wanted)


def comparable(family: str, text: str) -> str:
    """A text without what this family's spelling cannot tell apart (see the top)."""
    if family == "byte-level-nfc":
        return unicodedata.normalize("NFC", text)
    if family.startswith("byte-fallback"):
        text = text.replace("\u2581", " ")
    if TOKENIZERS[family].prefix is Prefix.EVERY_PIECE:
        for marker in TOKENIZERS[family].added:
            text = text.replace(f"{marker} ", marker)
    return text


@given(family=FAMILY, name=NAME, messages=conversations(), other=TEXTS, data=st.data())
def test_what_a_user_says_changes_no_trained_text(
    family: str, name: str, messages: tuple[Message, ...], other: str, data: st.DataObject
) -> None:
    tokenizer = TOKENIZERS[family]
    users = [index for index, message in enumerate(messages) if message.role == "user"]
    changed = list(messages)
    for index in data.draw(st.sets(st.sampled_from(users), min_size=1)):
        changed[index] = Message("user", other)
    before, after = (
        [
            (turn.expected, [token.id for token in turn.tokens])
            for turn in turns(name, version, tokenizer, MaskPolicy())
        ]
        for version in (messages, tuple(changed))
    )
    assert [text for text, _ in before] == [text for text, _ in after]
    if PRINTS[name][1] in ("EOS", "<|im_end|>"):  # known to every family here but "bytes"
        ends_whole = family != "bytes" or PRINTS[name][1] == "EOS"
        assert not ends_whole or [ids for _, ids in before] == [ids for _, ids in after]


@given(
    family=FAMILY,
    name=NAME,
    policy=POLICY,
    rows=st.lists(conversations(), min_size=1, max_size=6),
    at_once=st.sampled_from([1, 2, 3, 64]),
    data=st.data(),
)
def test_a_row_is_encoded_alike_in_any_batch_order_and_company(
    family: str,
    name: str,
    policy: MaskPolicy,
    rows: list[tuple[Message, ...]],
    at_once: int,
    data: st.DataObject,
) -> None:
    tokenizer = TOKENIZERS[family]
    half = Message("user", "half of \ud83d")  # a row that cannot be encoded, among the others
    rendered: list[Rendered | LabError] = [render(name, row, tokenizer) for row in rows]
    rendered += [render(name, (half, Message("assistant", "x")), tokenizer), EncodeError("before")]
    order = data.draw(st.permutations(range(len(rendered))))
    limit = data.draw(st.sampled_from([None, 1, 7]))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(room, "ROWS_AT_ONCE", at_once)
        shuffled = [rendered[index] for index in order]
        results = dict(zip(order, encode_many(shuffled, tokenizer, policy, limit), strict=True))
    for index, row in enumerate(rendered[:-2]):
        assert isinstance(row, Rendered)
        assert results[index] == encode(row, tokenizer, policy, limit)
    assert isinstance(results[len(rows)], EncodeError)
    assert results[len(rows) + 1] is rendered[-1]


@given(family=FAMILY, name=NAME, messages=conversations())
def test_what_stands_before_an_answer_is_what_generation_sends_or_the_doctor_says_so(
    family: str, name: str, messages: tuple[Message, ...]
) -> None:
    tokenizer = TOKENIZERS[family]
    encoded = encode(render(name, messages, tokenizer), tokenizer, MaskPolicy())
    differs = False
    for index, message in enumerate(messages):
        own = [at for at, token in enumerate(encoded.tokens) if token.owner == index]
        trained = [at for at in own if encoded.reasons[at].trained]
        if message.role != "assistant" or not trained:
            continue
        prompt = templates.render(
            template(name),
            Example("row", messages[:index]),
            tokenizer.special_tokens,
            add_generation_prompt=True,
        )
        # The first token of all is never trained, also where it belongs to an answer.
        before = encoded.ids[: trained[0] if own[0] else 0]
        differs |= encode_prompt(prompt, tokenizer) != before
    example = Example("row", messages)
    codes = {it.code for it in examine(template(name), tokenizer, example, MaskPolicy())}
    assert differs == bool(codes & {"prompt-not-prefix", "prompt-fails"})
    assert not differs or name in SAMPLES, "no preset may do so"


@given(family=FAMILY, name=NAME, policy=POLICY, messages=conversations(), length=st.integers(0, 60))
def test_truncation_keeps_a_prefix_and_drops_the_rest(
    family: str, name: str, policy: MaskPolicy, messages: tuple[Message, ...], length: int
) -> None:
    tokenizer = TOKENIZERS[family]
    rendered = render(name, messages, tokenizer)
    whole = encode(rendered, tokenizer, policy)
    cut = encode(rendered, tokenizer, policy, length)
    assert len(cut) == min(length, len(whole))
    assert cut.tokens + cut.dropped == whole.tokens
    assert cut.labels == whole.labels[:length]
    assert cut.forged == tuple(at for at in whole.forged if at < length)


@given(family=FAMILY, name=NAME, messages=conversations())
def test_offsets_lie_in_the_text_and_leave_out_only_what_the_tokenizer_drops(
    family: str, name: str, messages: tuple[Message, ...]
) -> None:
    rendered = render(name, messages, TOKENIZERS[family])
    encoded = encode(rendered, TOKENIZERS[family], MaskPolicy())
    assert all(0 <= start <= end <= len(rendered.text) for start, end in encoded.offsets)
    left_out = set(range(len(rendered.text))) - covered(iter(encoded.offsets))
    text = "".join(rendered.text[place] for place in sorted(left_out))
    assert not (kept_by_bert(text) if family == "word-piece" else text)


def kept_by_bert(text: str) -> str:
    """All but spaces, control characters and accents, which BERT's normaliser takes out."""
    return "".join(
        character
        for character in text
        if not character.isspace()
        and unicodedata.category(character)[0] not in "CM"
        and character != "\ufffd"
    )


# -- sixteen words --------------------------------------------------------------------------------

WORDS = st.lists(
    st.sampled_from([word for word in WORD_LIST if not word.startswith("<")]), min_size=1
).map(" ".join)


@given(asked=st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=3), policy=POLICY)
def test_a_vocabulary_of_words_trains_the_words_of_the_answers(
    asked: list[tuple[str, str]], policy: MaskPolicy
) -> None:
    tokenizer = load_tokenizer("words")
    messages = tuple(
        Message(role, text)
        for pair in asked
        for role, text in zip(("user", "assistant"), pair, strict=True)
    )
    encoded = encode(render("user-end", messages, tokenizer), tokenizer, policy)
    own: dict[int, list[int]] = {}
    for token in encoded.tokens:
        if token.reason in (Reason.ANSWER, Reason.END_OF_TURN):
            own.setdefault(token.owner, []).append(token.id)
    kept = asked[-1:] if policy.train_on is TrainOn.LAST_ASSISTANT else asked
    kept = [] if policy.train_on is TrainOn.GENERATION_TAGS else kept  # this template has none
    end = " <|end|>" if policy.end_of_turn else ""
    assert [tokenizer.decode(ids) for ids in own.values()] == [f"{it}{end}" for _, it in kept]
