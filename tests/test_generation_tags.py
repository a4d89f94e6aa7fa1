"""What ``{% generation %}`` encloses is known wherever the tag stands, and on every path."""

from __future__ import annotations

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from sft_core import sandbox, templates
from sft_core.config import MaskPolicy, TrainOn
from sft_core.encode import encode, require_trained
from sft_core.provenance import has_generation_tags, rendering, skeleton
from sft_core.provenance.enclosed import CLOSING, OPENING, written
from sft_core.tokenizer import load_tokenizer
from sft_core.types import Example, Message, NothingTrainedError, Rendered, Template
from tests.oracle import complaints, reference
from tests.sample_templates import SAMPLES, TOKENS, assistant, examples, system, user

IN_LOOP = SAMPLES["generation-tags"]

IN_MACRO = """\
{%- macro answer(m) -%}
{{ '[a]' }}{% generation %}{{ m.content | trim }}{{ '#' }}{% endgeneration %}{{ '\\n' }}
{%- endmacro -%}
{%- for m in messages -%}
{{ answer(m) if m.role == 'assistant' else '[' ~ m.role[0] ~ ']' ~ m.content ~ '\\n' }}
{%- endfor -%}
{{ '[a]' if add_generation_prompt }}
"""

IN_SET_BLOCK = """\
{%- for m in messages -%}
{%- set shown -%}
  {%- if m.role == 'assistant' -%}
  {% generation %} {{ m.content }} # {% endgeneration %}
  {%- else -%}{{ m.content }}{%- endif -%}
{%- endset -%}
{{ '[' ~ m.role[0] ~ ']' ~ shown | trim ~ '\\n' }}
{%- endfor -%}
{{ '[a]' if add_generation_prompt }}
"""
"""Trimmed when it is printed: what encloses the spaces encloses what is left."""

IN_CALL_BLOCK = """\
{%- macro turn(m) -%}{{ '[' ~ m.role[0] ~ ']' }}{{ caller() }}{{ '\\n' }}{%- endmacro -%}
{%- for m in messages -%}
{%- call turn(m) -%}
{%- if m.role == 'assistant' -%}
{% generation %}{{ m.content }}#{% endgeneration %}
{%- else -%}{{ m.content }}{%- endif -%}
{%- endcall -%}
{%- endfor -%}
{{ '[a]' if add_generation_prompt }}
"""

AT_THE_END = """\
{%- set ns = namespace(out='') -%}
{%- for m in messages -%}
{%- set piece -%}
{%- if m.role == 'assistant' -%}{% generation %}{{ m.content }}#{% endgeneration %}
{%- else -%}{{ m.content }}{%- endif -%}
{%- endset -%}
{%- set ns.out = ns.out ~ '[' ~ m.role[0] ~ ']' ~ piece ~ '\\n' -%}
{%- endfor -%}
{{ ns.out ~ ('[a]' if add_generation_prompt else '') }}
"""

SOMETIMES = """\
{%- for m in messages -%}
{{ '[' ~ m.role[0] ~ ']' }}
{%- if m.role == 'assistant' and 'skip' not in m.content -%}
{% generation %}{{ m.content }}#{% endgeneration %}
{%- else -%}{{ m.content }}#{%- endif -%}
{{ '\\n' }}
{%- endfor -%}
{{ '[a]' if add_generation_prompt }}
"""

EVERYWHERE = {
    "loop": IN_LOOP,
    "macro": IN_MACRO,
    "set block": IN_SET_BLOCK,
    "call block": IN_CALL_BLOCK,
    "at the end": AT_THE_END,
    "sometimes": SOMETIMES,
}

TALK = Example(
    "talk", (system("Be kind"), user("Hi"), assistant(" Yes "), user("Why"), assistant("So"))
)


def render(source: str, example: Example) -> Rendered:
    return templates.render(Template("test", source), example, TOKENS)


def tagged(rendered: Rendered) -> list[str]:
    assert rendered.tagged is not None
    return [rendered.text[start:end] for start, end in rendered.tagged]


@pytest.fixture
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendering, "_SKELETONS", skeleton.Memory())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("loop", [" Yes <|im_end|>", "So<|im_end|>"]),
        ("macro", ["Yes#", "So#"]),
        ("set block", ["Yes  #", "So #"]),
        ("call block", [" Yes #", "So#"]),
        ("at the end", [" Yes #", "So#"]),
        ("sometimes", [" Yes #", "So#"]),
    ],
)
def test_tags_are_followed_wherever_they_stand(
    name: str, expected: list[str], forgetful: None
) -> None:
    for _ in range(2):  # by trace, then by skeleton
        assert tagged(render(EVERYWHERE[name], TALK)) == expected


@pytest.mark.parametrize("name", ["loop", "sometimes"])
def test_where_transformers_can_say_it_says_the_same(name: str) -> None:
    for example in examples():
        text = reference(EVERYWHERE[name], example, TOKENS)
        given = templates.conversation(example)
        _, [theirs] = render_jinja_template(
            [list(given.messages)],
            tools=given.tools,
            chat_template=EVERYWHERE[name],
            return_assistant_tokens_mask=True,
            **TOKENS,
        )
        rendered = render(EVERYWHERE[name], example)
        assert rendered.text == text
        assert rendered.tagged == tuple(place for place in theirs if place[0] < place[1])


@pytest.mark.parametrize("name", EVERYWHERE)
def test_the_regions_are_right_with_tags_too(name: str) -> None:
    for example in examples():
        if reference(EVERYWHERE[name], example, TOKENS) is not None:
            rendered = render(EVERYWHERE[name], example)
            assert rendered.text == reference(EVERYWHERE[name], example, TOKENS)
            assert not complaints(EVERYWHERE[name], example, rendered, TOKENS)


def test_a_skeleton_does_not_decide_what_a_template_encloses(forgetful: None) -> None:
    rows = [("Yes", ["Yes#"]), ("skip", []), ("No", ["No#"]), (f"a{OPENING}b", [f"a{OPENING}b#"])]
    for answer, expected in [*rows, *rows]:
        assert tagged(render(SOMETIMES, Example("x", (user("Q"), assistant(answer))))) == expected


def test_empty_bodies_enclose_nothing() -> None:
    source = (
        "{% for m in messages %}<{{ m.content }}{% generation %}{% endgeneration %}>{% endfor %}"
    )
    assert render(source, TALK).tagged == ()
    source = SOMETIMES.replace("#", "")
    assert tagged(render(source, Example("x", (user("Q"), assistant(""))))) == []


def test_no_tags_and_tags_that_are_lost() -> None:
    assert render(templates.PRESETS["chatml"].source, TALK).tagged is None
    lists = (
        "{% for m in messages %}{{ [m.content] }}{% generation %}#{% endgeneration %}{% endfor %}"
    )
    prompt = '{{ "[\'" if add_generation_prompt }}'
    rendered = render(lists + prompt, Example("x", (user("Q"), assistant("A"))))
    assert (rendered.method, rendered.tagged) == ("prefix", None)


def test_answers_are_found_where_only_the_tags_are_lost() -> None:
    mixed = (
        "{% for m in messages %}{% set all %}<{{ m.content }}{% generation %}{{ m.content }}"
        "{% endgeneration %}{% endset %}{{ all[1:] | wordwrap(99) }}{{ '|' }}{% endfor %}"
    )
    rendered = render(mixed, Example("x", (user("Q"), assistant("A"))))
    assert (rendered.text, rendered.method, rendered.tagged) == ("QQ|AA|", "provenance", None)


def test_which_templates_have_tags() -> None:
    assert has_generation_tags(IN_MACRO)
    assert has_generation_tags("{%- generation -%}x{%- endgeneration -%}")
    assert not has_generation_tags("{# {% generation %} #}{{ '{% generation %}' }}")
    assert not has_generation_tags(
        "{% macro f() %}{{ caller() }}{% endmacro %}{% call f() %}x{% endcall %}"
    )


def test_written_tags_are_taken_apart() -> None:
    o, c = OPENING, CLOSING
    assert written(f"a{o}bc{c}d") == ("abcd", ((1, 3),))
    assert written(f"{o}a{o}b{c}{c}{o}c{c}{o}{c}d") == ("abcd", ((0, 3),))
    assert written("abc") == ("abc", ())
    assert written(f"a{c}b{o}") is None
    assert written(f"a{o}b") is None


def test_the_sandbox_passes_tags_on() -> None:
    template = Template("own", IN_MACRO)
    assert tagged(sandbox.render(template, TALK, TOKENS)) == ["Yes#", "So#"]
    [row] = sandbox.render_many(template, [TALK], TOKENS)
    assert isinstance(row, Rendered)
    assert tagged(row) == ["Yes#", "So#"]
    plain = Template(
        "own", IN_MACRO.replace("{% generation %}", "").replace("{% endgeneration %}", "")
    )
    assert sandbox.render(plain, TALK, TOKENS).tagged is None


def test_a_row_is_trained_by_its_tags() -> None:
    tokenizer = load_tokenizer("bytes")
    policy = MaskPolicy(TrainOn.GENERATION_TAGS)
    encoded = encode(render(IN_SET_BLOCK, TALK), tokenizer, policy)
    trained = [id for id, label in zip(encoded.ids, encoded.labels, strict=True) if label >= 0]
    assert tokenizer.decode(trained) == "Yes  #So #"
    untagged = encode(render(SAMPLES["by-number"], TALK), tokenizer, policy)
    assert not untagged.trained
    with pytest.raises(NothingTrainedError, match="generation tags enclose nothing of it"):
        require_trained(untagged, "7")


def test_a_message_of_weight_0_is_not_trained_by_tags() -> None:
    talk = Example("x", (user("Q"), Message("assistant", "A", weight=0)))
    encoded = encode(
        render(IN_MACRO, talk), load_tokenizer("bytes"), MaskPolicy(TrainOn("generation_tags"))
    )
    assert not encoded.trained
