"""Findings about ``{% generation %}`` tags: their code, what they say and which tokens."""

from __future__ import annotations

import pytest

from sft_core.config import LabConfig, MaskPolicy, TrainOn
from sft_core.doctor import examine
from sft_core.encode import encode
from sft_core.sandbox import render
from sft_core.tokenizer import Tokenizer, load_tokenizer
from sft_core.types import Example, Finding, Message, Severity, Template

BY_TAGS = MaskPolicy(TrainOn.GENERATION_TAGS)
TALK = Example(
    "talk",
    (
        Message("user", "Hi"),
        Message("assistant", "Yes."),
        Message("user", "Why?"),
        Message("assistant", "So."),
    ),
)


def template(answer: str, question: str = "<INST>{{ m.content }}") -> Template:
    """One whose assistant turns print ``answer``."""
    return Template(
        "tagged",
        "{% for m in messages %}{% if m.role == 'user' %}"
        + question
        + "{% else %}"
        + answer
        + "{% endif %}{% endfor %}{{ '<RESP>' if add_generation_prompt }}",
    )


GOOD = template("<RESP>{% generation %}{{ m.content }}<END>{% endgeneration %}")
NONE = template("<RESP>{{ m.content }}<END>")


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return load_tokenizer("bytes")


def found(code: str, own: Template, tokenizer: Tokenizer, policy: MaskPolicy) -> list[Finding]:
    return [it for it in examine(own, tokenizer, TALK, policy) if it.code == code]


def named(finding: Finding, own: Template, tokenizer: Tokenizer) -> str:
    encoded = encode(render(own, TALK, tokenizer.special_tokens), tokenizer, BY_TAGS)
    return tokenizer.decode([encoded.ids[at] for at in finding.tokens])


def test_a_template_without_tags(tokenizer: Tokenizer) -> None:
    [finding] = found("no-generation-tags", NONE, tokenizer, BY_TAGS)
    assert finding.severity is Severity.ERROR
    assert "has no {% generation %} tags" in finding.message
    config = LabConfig().but(policy=BY_TAGS).with_settings(finding.fixed_settings)
    assert config.policy.train_on is TrainOn.ASSISTANT
    assert not found("no-generation-tags", NONE, tokenizer, config.policy)
    assert not found("no-generation-tags", GOOD, tokenizer, BY_TAGS)


def test_a_template_without_tags_is_not_blamed_for_its_answers(tokenizer: Tokenizer) -> None:
    assert not found("nothing-trained", NONE, tokenizer, BY_TAGS)
    empty = template("<RESP>{{ m.content }}<END>{% generation %}{% endgeneration %}")
    [finding] = found("nothing-trained", empty, tokenizer, BY_TAGS)
    assert "tags enclose no token" in finding.message


def test_tags_that_are_lost(tokenizer: Tokenizer) -> None:
    lists = Template(
        "lists",
        "{% for m in messages %}{{ [m.content] }}{% generation %}#{% endgeneration %}{% endfor %}"
        '{{ "[\'" if add_generation_prompt }}',
    )
    [finding] = found("no-generation-tags", lists, tokenizer, BY_TAGS)
    assert "cannot follow" in finding.message


@pytest.mark.parametrize("policy", [BY_TAGS, MaskPolicy()])
def test_tags_around_the_answers_are_no_finding(tokenizer: Tokenizer, policy: MaskPolicy) -> None:
    assert not found("generation-tags-differ", GOOD, tokenizer, policy)
    assert not found("generation-tags-differ", NONE, tokenizer, policy)


@pytest.mark.parametrize(
    ("answer", "words", "tokens"),
    [
        (
            "<RESP>{% generation %}{{ m.content }}{% endgeneration %}<END>",
            "leave the end of turn out: '<END>' stands outside",
            "<END><END>",
        ),
        (
            "<RESP>{% generation %}{{ m.content }}<END>{{ '\\n' }}{% endgeneration %}",
            "in whitespace only: '\\n' belongs to no answer and is inside",
            "\n\n",
        ),
        (
            "{% generation %}<RESP>{{ m.content }}<END>{% endgeneration %}",
            "not around the answers: '<RESP>' belongs to no answer and is inside",
            "<RESP><RESP>",
        ),
        (
            "{% generation %}<RESP>{% endgeneration %}{{ m.content }}<END>",
            "'<RESP>' belongs to no answer and is inside, and 'Yes.<END>' belongs to an answer "
            "and is outside",
            "<RESP>Yes.<END><RESP>So.<END>",
        ),
        (
            "<RESP>{% if loop.last %}{% generation %}{{ m.content }}<END>{% endgeneration %}"
            "{% else %}{{ m.content }}<END>{% endif %}",
            "'Yes.<END>' belongs to an answer and is outside",
            "Yes.<END>",
        ),
    ],
)
def test_tags_that_enclose_something_else(
    answer: str, words: str, tokens: str, tokenizer: Tokenizer
) -> None:
    own = template(answer)
    for policy in (BY_TAGS, MaskPolicy()):
        [finding] = found("generation-tags-differ", own, tokenizer, policy)
        told = Severity.INFO if "whitespace only" in words else Severity.WARNING
        assert finding.severity is told
        assert words in finding.message
        assert finding.message.endswith(".")
        assert named(finding, own, tokenizer) == tokens


def test_a_message_of_weight_0_is_no_difference(tokenizer: Tokenizer) -> None:
    example = Example("x", (Message("user", "Hi"), Message("assistant", "Yes.", weight=0)))
    codes = [it.code for it in examine(GOOD, tokenizer, example, BY_TAGS)]
    assert "nothing-trained" in codes
    assert "generation-tags-differ" not in codes


def test_tags_around_a_question(tokenizer: Tokenizer) -> None:
    answer = "<RESP>{% generation %}{{ m.content }}<END>{% endgeneration %}"
    own = template(answer, "<INST>{% generation %}{{ m.content }}{% endgeneration %}")
    [finding] = found("generation-tags-differ", own, tokenizer, BY_TAGS)
    assert "'Hi' belongs to no answer and is inside" in finding.message
    assert named(finding, own, tokenizer) == "HiWhy?"
