"""Mechanical remedies, proved by using them; and the doctor over many rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from sft_core.config import GenerateConfig, LabConfig, MaskPolicy, TrainOn
from sft_core.doctor import Findings, doctor, examine, unreadable_rows
from sft_core.encode import missing_tokens
from sft_core.templates import PRESETS
from sft_core.tokenizer import Tokenizer, load_tokenizer
from sft_core.types import Example, Message, Severity, Template, ToolCall
from tests.doctor_cases import (
    PAIR,
    POLICY,
    TURNS,
    chat,
    codes,
    encoded,
    grave,
    looped,
    only,
    preset,
    with_template,
)
from tests.trained_tokenizers import byte_level

SOUND = "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
DASHED = """\
{%- for message in messages -%}
    {{- '<|im_start|>' + message['role'] + '\\n' + message['content'] -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<|im_start|>assistant\\n' -}}
{%- endif -%}
"""
FAULTY = {
    "missing-generation-prompt": looped(SOUND, "").source.replace(
        "{% if add_generation_prompt %}{% endif %}", ""
    ),
    "unused-generation-prompt": looped(SOUND, "").source,
    "prompt-not-prefix": looped(SOUND, "<|im_start|>model\n").source,
    "header-trained": looped(SOUND, "<|im_start|>").source,
    "end-of-turn-missing": DASHED,
    "double-bos": "{{ bos_token }}{{ bos_token }}" + looped(SOUND).source,
    "content-altered": looped(SOUND.replace("m.content", "m.content | upper")).source,
    "glued-answer": "{% for m in messages %}{{ m.content }}"
    "{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}",
    "trailing-space": looped("{{ m.role }}: {{ m.content }}</s>\n", "assistant: ").source,
}


@pytest.mark.parametrize("code", FAULTY)
def test_a_mended_template_has_the_fault_no_more(code: str) -> None:
    faulty = Template("mine", FAULTY[code])
    before = examine(faulty, byte_level(), PAIR, POLICY)
    finding = only(before, code)
    assert finding.fixed_template is not None
    mended = Template("mine", finding.fixed_template)
    for example in (PAIR, TURNS):
        after = grave(examine(mended, byte_level(), example, POLICY))
        assert code not in codes(examine(mended, byte_level(), example, POLICY))
        assert set(after) <= set(grave(examine(faulty, byte_level(), example, POLICY)))
    assert encoded(mended, byte_level(), PAIR).trained


def test_a_template_that_no_edit_mends_has_no_mechanical_remedy() -> None:
    mute = Template("mute", "{{ messages[-1].content }}")
    for finding in examine(mute, byte_level(), PAIR, POLICY):
        assert finding.fixed_template is None


def test_tool_calls_come_back_with_the_tokenizers_own_template() -> None:
    own = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
        "{% for call in m.tool_calls or [] %}{{ call.function | tojson }}{% endfor %}"
        "<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    call = Message("assistant", "", tool_calls=(ToolCall("weather"),))
    example = chat(("user", "Weather?"), call, ("tool", "22"), ("assistant", "22 degrees."))
    found = examine(preset("chatml"), with_template(own), example, POLICY)
    assert only(found, "tool-calls-dropped").fixed_template == own
    blind = with_template(PRESETS["user-end"].source)
    found = examine(preset("chatml"), blind, example, POLICY)
    assert only(found, "tool-calls-dropped").fixed_template is None


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        (("policy.end_of_turn=false",), "end-of-turn-untrained"),
        (("policy.train_on=all",), "prompt-trained"),
        (("train.max_length=20",), "truncated"),
        (("train.max_length=3",), "nothing-trained-after-truncation"),
        (('generate.stop_tokens=["</s>"]',), "stop-differs"),
    ],
)
def test_settings_that_mend_are_settings_of_the_lab(settings: tuple[str, ...], code: str) -> None:
    def found(config: LabConfig) -> list[str]:
        tokenizer, limit = byte_level(), config.train.max_length
        found = examine(preset("chatml"), tokenizer, SHORT, config.policy, limit, config.generate)
        mends.extend(it.fixed_settings for it in found if it.code == code)
        return grave(found)

    mends: list[tuple[str, ...]] = []
    faulty = LabConfig().with_settings(settings)
    assert code in found(faulty)
    assert code not in found(faulty.with_settings(mends[0]))


SHORT = chat(("user", "Hi"), ("assistant", "Hello there, how are you today?"))


# -- many rows --------------------------------------------------------------------------------


def rows(count: int) -> Iterator[Example]:
    for number in range(count):
        answer = "" if number % 4 == 3 else f"Answer {number}."
        yield replace(chat(("user", "Hi"), ("assistant", answer)), id=f"row-{number}")


def test_a_fault_of_many_rows_is_one_finding_with_its_rows_and_share() -> None:
    found = doctor(preset("chatml"), byte_level(), rows(40), POLICY)
    assert found.rows == 40
    assert found.worst is Severity.WARNING
    [empty] = [it for it in found.items if it.code == "empty-answer"]
    assert empty.rows == tuple(f"row-{number}" for number in range(3, 40, 4))
    assert "10 of 40 rows (25.0%), first in row-3" in empty.message
    assert found.to_dict()["findings"][0]["code"] == "empty-answer"
    assert len({it.code for it in found.items}) == len(found.items)


def test_the_share_of_truncated_rows_is_given() -> None:
    long = replace(chat(("user", "Hi"), ("assistant", "word " * 60)), id="long")
    found = doctor(preset("chatml"), byte_level(), [PAIR, long, PAIR, PAIR], POLICY, max_length=50)
    [cut] = [it for it in found.items if it.code == "truncated"]
    assert cut.rows == ("long",)
    assert "1 of 4 rows (25.0%)" in cut.message
    longer = replace(chat(("user", "Hi"), ("assistant", "word " * 90)), id="longer")
    found = doctor(preset("chatml"), byte_level(), [long, longer], POLICY, max_length=50)
    [cut] = [it for it in found.items if it.code == "truncated"]
    length = len(encoded(preset("chatml"), byte_level(), longer))
    assert cut.fixed_settings == (f"train.max_length={length}",)


def test_one_row_is_worded_as_one() -> None:
    found = doctor(preset("inst-resp"), load_tokenizer("bytes"), [PAIR], POLICY)
    assert [it for it in found.items if it.severity is not Severity.INFO] == []
    assert doctor(preset("inst-resp"), load_tokenizer("bytes"), [], POLICY) == Findings(0, ())


def test_a_template_that_cannot_be_read_is_told_once() -> None:
    broken = Template("mine", "{% for m in messages %}")
    found = doctor(broken, byte_level(), rows(5), POLICY)
    assert [it.code for it in found.items] == ["template-syntax"]
    assert found.items[0].line == 1


def test_a_template_that_always_fails_is_given_up() -> None:
    taken: list[str] = []

    def counted() -> Iterator[Example]:
        for row in rows(500):
            taken.append(row.id)
            yield row

    failing = Template("failing", "{{ raise_exception('never') }}")
    found = doctor(failing, byte_level(), counted(), POLICY)
    assert found.worst is Severity.ERROR
    assert len(taken) < 10


def test_orders_of_turns_that_a_template_refuses_are_named() -> None:
    alternating = Template(
        "strict",
        "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('turns must alternate') }}{% endif %}"
        "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    )
    found = doctor(alternating, byte_level(), [PAIR], POLICY)
    [refused] = [it for it in found.items if it.code == "role-order-refused"]
    assert refused.severity is Severity.INFO
    for name in ("a system turn first", "two user turns in a row", "without a question"):
        assert name in refused.message
    assert "several questions" not in refused.message
    assert "turns must alternate" in refused.message
    assert refused.rows == ()


def test_stop_tokens_and_policy_reach_every_row() -> None:
    wrong = GenerateConfig(stop_tokens=("</s>",))
    policy = MaskPolicy(TrainOn.ASSISTANT, end_of_turn=False)
    found = doctor(preset("chatml"), byte_level(), [PAIR, TURNS], policy, wrong)
    assert {"stop-differs", "end-of-turn-untrained"} <= {it.code for it in found.items}


@pytest.mark.parametrize("name", PRESETS)
def test_no_preset_is_called_wrong_on_plain_conversations(name: str) -> None:
    """The plain concatenation has its two warnings; no preset has an error."""
    base = load_tokenizer("bytes")
    tokenizer: Tokenizer = base.with_tokens(missing_tokens(preset(name), base))
    found = doctor(preset(name), tokenizer, [PAIR, TURNS], POLICY)
    assert found.worst in (None, Severity.INFO) or name == "plain"
    assert found.worst is not Severity.ERROR


def test_rows_that_are_no_conversation_are_one_finding() -> None:
    assert unreadable_rows([]) == ()
    [one] = unreadable_rows([("row-3", "Row row-3 has no answer.")])
    assert one.message == "Row row-3 has no answer."
    [many] = unreadable_rows([("row-3", "Row row-3 has no answer."), ("row-9", "It is empty.")])
    assert many.code == "row-unreadable"
    assert many.rows == ("row-3", "row-9")
    assert many.message.startswith("2 rows cannot be read; the first: Row row-3")


def test_several_faults_are_mended_one_after_the_other() -> None:
    template = Template(
        "messy", "{% for m in messages %}<INST>{{ m.role }} {{ m.content | upper }}{% endfor %}"
    )
    tokenizer = load_tokenizer("bytes")
    mended: list[str] = []
    while True:
        found = examine(template, tokenizer, PAIR, POLICY)
        fixable = [it for it in found if it.fixed_template is not None]
        if not fixable:
            break
        assert fixable[0].code not in mended
        mended.append(fixable[0].code)
        template = Template("messy", fixable[0].fixed_template or "")
    assert mended == ["missing-generation-prompt", "end-of-turn-missing", "content-altered"]
    assert grave(found) == []
