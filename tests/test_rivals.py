"""The rivals do well where they really do, break where they really break, and every difference
says why."""

from __future__ import annotations

import doctest
from dataclasses import dataclass

import pytest

from sft_core import sandbox
from sft_core.config import MaskPolicy, TrainOn
from sft_core.encode import encode
from sft_core.rivals import RIVALS, Difference, Kind, RivalMask, compare, find, mask, words
from sft_core.rivals.sides import NOWHERE, align
from sft_core.templates import PRESETS
from sft_core.tokenizer import Tokenizer, load_tokenizer
from sft_core.types import (
    ConfigError,
    Encoded,
    Example,
    LabError,
    Message,
    Rendered,
    Template,
    TemplateError,
)
from tests.sample_templates import (
    DIALOGUE,
    FORGETFUL,
    SAMPLES,
    SHOUTING,
    assistant,
    examples,
    system,
    user,
)
from tests.trained_tokenizers import EXACT, FAMILIES, byte_level, metaspace

EVERY = MaskPolicy()
LAST = MaskPolicy(TrainOn.LAST_ASSISTANT)

TIGHT = """\
{%- for m in messages -%}
{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}
"""
"""ChatML without the line break behind a turn, which is all that parts the rivals from the lab."""

BRACKETS = """\
{%- for m in messages -%}{{ '[' + m.role + '] ' + m.content + '\\n' }}{%- endfor -%}
{%- if add_generation_prompt -%}{{ '[assistant] ' }}{%- endif -%}
"""
PICKY = (
    "{%- if messages[-1].role == 'user' and messages | length > 2 -%}"
    "{{ raise_exception('one question only') }}{%- endif -%}" + TIGHT
)

TWO = (user("Hello there"), assistant("Hi."), user("Why"), assistant("So."))


@dataclass(frozen=True)
class Compared:
    encoded: Encoded
    rendered: Rendered
    mask: RivalMask
    differences: tuple[Difference, ...]

    def told(self, kind: Kind) -> dict[str, list[str]]:
        """Sentence -> the texts that it is about."""
        return {
            it.sentence: [self.rendered.text[a:b] for a, b in it.places]
            for it in self.differences
            if it.kind is kind
        }

    def one(self, kind: Kind) -> tuple[str, list[str]]:
        (found,) = self.told(kind).items()
        return found

    @property
    def trained(self) -> str:
        """The text of the tokens that the rival trains."""
        pairs = zip(self.mask.offsets, self.mask.trained, strict=True)
        return "".join(self.mask.text[a:b] for (a, b), trained in pairs if trained)


def against(
    name: str,
    source: str,
    *messages: Message,
    tokenizer: Tokenizer | None = None,
    policy: MaskPolicy = EVERY,
) -> Compared:
    tokenizer = tokenizer or byte_level()
    template, example = Template("t", source), Example("row", messages)
    rendered = sandbox.render(template, example, tokenizer.special_tokens)
    encoded = encode(rendered, tokenizer, policy)
    made = mask(name, template, example, tokenizer, policy)
    return Compared(encoded, rendered, made, compare(encoded, rendered, made))


# -- the register ------------------------------------------------------------------------------


def test_names_are_stable_and_a_wrong_one_is_explained() -> None:
    assert list(RIVALS) == ["tokenise-apart", "marker-search", "prefix-length"]
    assert all(name == rival.name for name, rival in RIVALS.items())
    with pytest.raises(ConfigError, match="Did you mean 'marker-search'"):
        find("marker")
    with pytest.raises(ConfigError, match="Choose one of tokenise-apart, marker-search, prefix"):
        mask("x", Template("t", TIGHT), DIALOGUE, byte_level(), EVERY)


def test_words() -> None:
    assert doctest.testmod(words).failed == 0


# -- where each does well ----------------------------------------------------------------------


@pytest.mark.parametrize("family", EXACT)
@pytest.mark.parametrize("name", ["marker-search", "prefix-length"])
def test_closed_turns_between_special_tokens_suit_both_searches(name: str, family: str) -> None:
    found = against(name, TIGHT, *TWO, tokenizer=FAMILIES[family]())
    assert found.differences == ()
    assert found.mask.ids == found.encoded.ids
    assert found.mask.labels == found.encoded.labels


def test_one_question_glued_to_its_answer_suits_tokenising_apart() -> None:
    found = against("tokenise-apart", PRESETS["plain"].source, user("Say hi"), assistant("Hi."))
    assert found.differences == ()
    assert found.mask.labels == found.encoded.labels
    assert found.trained == "Hi."


def test_a_prompt_s_length_is_right_in_words_too() -> None:
    source = PRESETS["plain-ended"].source
    found = against("prefix-length", source, *TWO)
    assert found.differences == ()
    assert found.trained == "Hi.</s>So.</s>"
    assert against("prefix-length", source, *TWO, policy=LAST).trained == "So.</s>"


def test_where_all_is_trained_no_method_is_asked() -> None:
    everything = MaskPolicy(TrainOn.ALL)
    for name in ("marker-search", "prefix-length"):
        assert against(name, TIGHT, *TWO, policy=everything).differences == ()
    source = PRESETS["chatml"].source
    sentence, _ = against("tokenise-apart", source, *TWO, policy=everything).one(Kind.MISSES_ANSWER)
    assert "is not even read" in sentence


@pytest.mark.parametrize("name", RIVALS)
@pytest.mark.parametrize("family", ["byte-level", "metaspace-always"])
def test_no_difference_is_told_exactly_where_there_is_none(name: str, family: str) -> None:
    """Over presets, odd templates and all conversations, judged by ids and labels."""
    tokenizer = FAMILIES[family]()
    sources = [TIGHT, *(preset.source for preset in PRESETS.values())]
    agreed = 0
    for source in [*sources, *SAMPLES.values()] if family == "byte-level" else sources:
        for example in [*examples(), DIALOGUE]:
            template = Template("t", source)
            try:
                rendered = sandbox.render(template, example, tokenizer.special_tokens)
                encoded = encode(rendered, tokenizer, EVERY)
            except LabError:
                continue
            made = mask(name, template, example, tokenizer, EVERY)
            differences = compare(encoded, rendered, made)
            same = not made.problem and _same(encoded, made)
            assert (not differences) == same, (source, example.id, differences)
            assert all(it.sentence.endswith(".") for it in differences)
            agreed += same
    assert agreed


def _same(encoded: Encoded, made: RivalMask) -> bool:
    """Equal ids and labels, but for the first token's, and for masked tokens at the end that the
    rival leaves out."""
    size = len(made.ids)
    same = made.ids == encoded.ids[:size] and made.labels[1:] == encoded.labels[1:size]
    return same and not any(reason.trained for reason in encoded.reasons[size:])


def test_the_lab_differs_from_itself_nowhere() -> None:
    for family in FAMILIES.values():
        found = against("prefix-length", SHOUTING, *DIALOGUE.messages, tokenizer=family())
        encoded = found.encoded
        trained = tuple(reason.trained for reason in encoded.reasons)
        own = RivalMask("x", found.rendered.text, encoded.ids, encoded.offsets, trained)
        assert compare(encoded, found.rendered, own) == ()


# -- marker search -----------------------------------------------------------------------------


def test_a_leading_system_turn_stays_trained() -> None:
    found = against("marker-search", TIGHT, system("Be kind."), *TWO)
    sentence, places = found.one(Kind.TRAINS_OTHER)
    assert sentence == (
        "Nothing is masked before the first user marker, so the system turn there is trained."
    )
    assert places == ["system\nBe kind.<|im_end|>"], "the very first token is never predicted"
    (difference,) = found.differences
    assert "".join(found.rendered.text[slice(*found.encoded.offsets[i])] for i in difference.tokens)
    assert found.encoded.tokens[difference.tokens[0]].start == len("<|im_start|>")


def test_what_stands_behind_the_end_of_a_turn_stays_trained() -> None:
    found = against("marker-search", PRESETS["chatml"].source, *TWO)
    sentence, places = found.one(Kind.TRAINS_OTHER)
    assert sentence.startswith("Masking starts again only at the next user marker, so '\\n'")
    assert places == ["\n", "\n"]


def test_a_message_that_says_the_marker_is_taken_for_a_turn() -> None:
    said = "Say <|im_start|>assistant\nthree times"
    found = against("marker-search", TIGHT, user(said), assistant("No."), *TWO)
    sentence, places = found.one(Kind.TRAINS_OTHER)
    assert sentence.startswith(
        "Message 1 (user) says the assistant marker '<|im_start|>assistant\\n' itself"
    )
    assert places[0].startswith("three times")
    forged, _ = found.one(Kind.OTHER_IDS)
    assert forged.startswith("Message 1 (user) says '<|im_start|>', which becomes the real")


def test_two_answers_in_a_row_shift_every_later_pair() -> None:
    messages = (user("a"), assistant("b"), assistant("c"), user("d"), assistant("e"))
    told = against("marker-search", TIGHT, *messages).told(Kind.TRAINS_OTHER)
    (header,) = [it for it in told if it.startswith("An assistant marker is masked only behind")]
    assert told[header][0] == "<|im_start|>assistant\n"
    (shifted,) = [it for it in told if it.startswith("More assistant than user markers")]
    assert told[shifted] == ["<|im_start|>user\nd<|im_end|>"]


def test_two_questions_in_a_row_mask_an_answer() -> None:
    messages = (user("a"), user("b"), assistant("c"), user("d"), assistant("e"))
    found = against("marker-search", TIGHT, *messages)
    assert found.one(Kind.MISSES_ANSWER)[0].startswith("More user than assistant markers")
    assert found.one(Kind.MISSES_ANSWER)[1] == ["c"]
    assert found.one(Kind.MISSES_END)[1] == ["<|im_end|>"]


def test_a_question_without_answer_and_a_tool_s_turn_stay_trained() -> None:
    tool = Message("tool", "22")
    asked = (user("a"), assistant("b"), tool, assistant("c"), user("d"))
    told = against("marker-search", TIGHT, *asked).told(Kind.TRAINS_OTHER)
    assert any("so a tool turn counts as a part of the answer" in sentence for sentence in told)
    alone = against("marker-search", TIGHT, *TWO, user("d"))
    sentence, places = alone.one(Kind.TRAINS_OTHER)
    assert sentence.startswith("No assistant marker follows this turn")
    assert places == ["<|im_start|>user\nd<|im_end|>"]


def test_a_marker_that_melts_into_its_neighbours_is_not_found() -> None:
    found = against("marker-search", BRACKETS, user("Who"), assistant("apple"))
    sentence, _ = found.one(Kind.FINDS_NOTHING)
    assert sentence == (
        "The assistant marker '[assistant] ' is tokenised otherwise before 'a' than alone, "
        "' apple' in place of ' ', so the search does not find it: nothing is masked, and "
        "everything is trained."
    )
    assert all(found.mask.trained)


def test_without_a_marker_the_search_says_so() -> None:
    found = against("marker-search", PRESETS["plain"].source, *TWO)
    sentence, places = found.one(Kind.FINDS_NOTHING)
    assert "no marker to search for" in sentence
    assert places == ["Hi.", "So."]
    assert found.mask.labels == ()
    rewritten = against("marker-search", "{% for m in messages %}x{% endfor %}", *TWO)
    assert "no marker can be read off it" in rewritten.mask.problem


def test_a_conversation_without_a_user_is_trained_whole() -> None:
    found = against("marker-search", TIGHT, system("Speak."), assistant("Hi."))
    sentence, _ = found.one(Kind.FINDS_NOTHING)
    assert sentence.startswith("The user marker '<|im_start|>user\\n' does not stand in this")


def test_the_search_knows_no_weights_and_no_last_turn() -> None:
    light = Message("assistant", "b", weight=0)
    for name in RIVALS:
        found = against(name, TIGHT, user("a"), light, policy=EVERY)
        assert any("weight 0" in sentence for sentence in found.told(Kind.TRAINS_OTHER)), name
    found = against("marker-search", TIGHT, *TWO, policy=LAST)
    assert "also those that the policy leaves out" in found.one(Kind.TRAINS_OTHER)[0]
    found = against("prefix-length", TIGHT, *TWO, policy=MaskPolicy(end_of_turn=False))
    assert "the end of a turn from the answer" in found.one(Kind.TRAINS_OTHER)[0]


# -- prefix length -----------------------------------------------------------------------------


def test_a_token_across_the_border_is_masked_with_the_prompt() -> None:
    found = against("prefix-length", BRACKETS, user("Who"), assistant("apple"))
    sentence, places = found.one(Kind.MISSES_ANSWER)
    assert "where ' apple' holds its end and the start of the answer" in sentence
    assert sentence.endswith("the mask reaches 1 token too far.")
    assert places == ["apple"]
    ids, places = found.one(Kind.OTHER_IDS)
    assert "' apple' across their border" in ids
    assert places == [" apple"]


def test_an_answer_that_later_turns_change_ends_elsewhere() -> None:
    thought = assistant("<think>one two three</think>yes")
    found = against("prefix-length", FORGETFUL, user("a"), thought, user("b"), assistant("c"))
    told = found.told(Kind.TRAINS_OTHER)
    (sentence,) = [it for it in told if it.startswith("The conversation up to message 2")]
    assert sentence.endswith("in the whole text that turn ends at another token.")
    assert "<|user|>b" in "".join(told[sentence])


def test_a_prompt_that_is_no_prefix_points_to_a_wrong_place() -> None:
    broken = "{{ 'many words ' if messages | length > 2 }}" + TIGHT
    sentence, _ = next(iter(against("prefix-length", broken, *TWO).told(Kind.TRAINS_OTHER).items()))
    assert sentence.startswith("The prompt of message 2 (assistant) is printed otherwise")


def test_a_template_that_refuses_a_prompt_gives_its_reason() -> None:
    found = against("prefix-length", PICKY, *TWO)
    sentence, _ = found.one(Kind.FINDS_NOTHING)
    assert sentence.startswith("The template does not print the conversation before message 4 on")
    assert "one question only" in sentence


def test_all_behind_the_prompt_is_trained() -> None:
    found = against("prefix-length", PRESETS["chatml"].source, *TWO)
    assert found.one(Kind.TRAINS_OTHER)[1] == ["\n", "\n"]


# -- tokenise apart ----------------------------------------------------------------------------


def test_neither_earlier_answers_nor_ends_of_turn_are_known() -> None:
    found = against("tokenise-apart", TIGHT, *TWO)
    sentence, places = found.one(Kind.MISSES_ANSWER)
    assert "every earlier answer counts as prompt" in sentence
    assert places == ["Hi."]
    ends = found.told(Kind.MISSES_END)
    (last,) = [sentence for sentence in ends if "never learns to stop" in sentence]
    assert ends[last] == ["<|im_end|>"]
    assert found.rendered.text.rindex("<|im_end|>") == found.differences[-1].places[0][0]
    single = against("tokenise-apart", TIGHT, *TWO, policy=LAST)
    assert [it.kind for it in single.differences] == [Kind.MISSES_END]


def test_a_space_is_put_before_an_answer_that_stands_alone() -> None:
    source = PRESETS["plain-ended"].source
    found = against(
        "tokenise-apart", source, user("Who"), assistant("Paris"), tokenizer=metaspace("first")
    )
    sentence, _ = found.one(Kind.OTHER_IDS)
    assert sentence.startswith("Tokenised apart, the answer gets ' ' in front")


def test_an_answer_that_the_template_rewords_is_not_what_is_tokenised() -> None:
    found = against("tokenise-apart", SHOUTING, user("Who"), assistant("paris "))
    sentence, _ = found.one(Kind.MISSES_ANSWER)
    assert sentence == (
        "The template prints the answer as 'PARIS', and what was tokenised is the row's 'paris '."
    )


def test_what_a_template_adds_to_an_answer_is_missed() -> None:
    source = SAMPLES["opens-thinking"]
    found = against("tokenise-apart", source, user("a"), assistant("b", "because"))
    sentence, places = found.one(Kind.MISSES_ANSWER)
    assert "in this answer too, and only its text is tokenised" in sentence
    assert places == ["because\n</think>\n"]


@pytest.mark.parametrize("name", ["tokenise-apart", "prefix-length"])
def test_a_conversation_without_an_answer_has_nothing_to_train(name: str) -> None:
    found = against(name, TIGHT, user("a"))
    assert found.one(Kind.FINDS_NOTHING)[0].startswith("The conversation has no assistant turn")
    empty = against(name, PRESETS["plain"].source, user("a"), assistant(""))
    assert empty.differences == (), "the lab trains nothing either"


def test_a_conversation_that_does_not_render_is_the_template_s_error() -> None:
    with pytest.raises(TemplateError):
        mask("prefix-length", Template("t", "{{ 1 / 0 }}"), DIALOGUE, byte_level(), EVERY)


# -- places ------------------------------------------------------------------------------------


def test_texts_are_laid_over_each_other_in_order() -> None:
    assert align("abc", "abcd") == [0, 1, 2]
    assert align("aXbc", "abc") == [0, NOWHERE, 1, 2]
    assert align(" Yes. ", "Yes.") == [NOWHERE, 0, 1, 2, 3, NOWHERE]
    assert align("x" * 3000, "y" * 3000) == [NOWHERE] * 3000


def test_a_length_limit_does_not_make_a_difference() -> None:
    found = against("prefix-length", TIGHT, *TWO)
    short = encode(found.rendered, byte_level(), EVERY, 5)
    assert compare(short, found.rendered, found.mask) == ()


# -- the tutorial's own tokenizer --------------------------------------------------------------


@pytest.mark.model
def test_the_second_tutorial_s_figures() -> None:
    smol = load_tokenizer("smollm2-135m-instruct")
    found = against(
        "marker-search",
        PRESETS["chatml"].source,
        user("Hi"),
        assistant("Hello there. How are you!!!"),
        tokenizer=smol,
    )
    assert [marker.ids for marker in found.mask.markers] == [(1, 4093, 198), (1, 520, 9531, 198)]
    assert len(found.mask.ids) == 19
    assert found.mask.trained.count(False) == 10
    assert found.one(Kind.TRAINS_OTHER)[1] == ["\n"]


@pytest.mark.model
def test_markers_in_words_break_with_what_stands_beside_them() -> None:
    smol = load_tokenizer("smollm2-135m-instruct")
    source = PRESETS["inst-resp"].source
    found = against(
        "marker-search", source, user("What is the capital?"), assistant("Paris."), tokenizer=smol
    )
    assert found.one(Kind.FINDS_NOTHING)[0].startswith(
        "The assistant marker '<RESP>' is tokenised otherwise behind '?' than alone, '?<' in place "
        "of '<'"
    )
    assert against("prefix-length", source, *TWO, tokenizer=smol).differences == ()
    mistral = PRESETS["mistral"].source
    asked = (user("What is the capital?"), assistant("Paris."))
    assert against("marker-search", mistral, *asked, tokenizer=smol).differences == ()
    assert against("prefix-length", mistral, *asked, tokenizer=smol).differences == ()


@pytest.mark.model
def test_a_token_across_the_border_may_be_trained_with_the_prompt_s_end() -> None:
    smol = load_tokenizer("smollm2-135m-instruct")
    asked = (user('He said "Why?"'), assistant('"Because."'))
    found = against("prefix-length", PRESETS["plain"].source, *asked, tokenizer=smol)
    sentence, places = found.one(Kind.TRAINS_OTHER)
    assert sentence.startswith("In the whole text '\"\"' is one token, which holds the end of")
    assert places == ['"']
