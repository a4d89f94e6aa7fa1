"""The doctor on ends, orders of turns and contents: every code on a case that has the fault."""

from __future__ import annotations

import pytest
import tokenizers

from sft_core.config import GenerateConfig, MaskPolicy, TrainOn
from sft_core.doctor import examine
from sft_core.templates import PRESETS
from sft_core.tokenizer import Tokenizer, load_tokenizer
from sft_core.types import Message, Severity, Template, ToolCall
from tests.doctor_cases import (
    PAIR,
    POLICY,
    TURNS,
    chat,
    codes,
    grave,
    looped,
    only,
    preset,
    texts,
    with_template,
)
from tests.trained_tokenizers import byte_level

BYTES = load_tokenizer("bytes")

CHATML = "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"

# -- ends -------------------------------------------------------------------------------------


def test_an_end_that_the_next_message_prints() -> None:
    late = Template(
        "late",
        "{% for m in messages %}{% if not loop.first %}<|im_end|>\n{% endif %}"
        "<|im_start|>{{ m.role }}\n{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}<|im_end|>\n<|im_start|>assistant\n{% endif %}",
    )
    for example in (PAIR, TURNS):
        found = examine(late, byte_level(), example, POLICY)
        finding = only(found, "end-of-turn-printed-by-next")
        assert finding.severity is Severity.WARNING
        assert "end-of-turn-missing" not in codes(found)
        assert example.messages[-1].text.endswith(texts(finding, late, byte_level(), example)[-1])


def test_stop_tokens_that_training_does_not_teach() -> None:
    wrong = GenerateConfig(stop_tokens=("</s>",))
    found = examine(preset("chatml"), byte_level(), PAIR, POLICY, generate_config=wrong)
    finding = only(found, "stop-differs")
    assert finding.severity is Severity.WARNING
    assert finding.fixed_settings == ("generate.stop_tokens=[]",)
    assert texts(finding, preset("chatml"), byte_level(), PAIR) == ["<|im_end|>"]
    right = GenerateConfig(stop_tokens=("</s>", "<|im_end|>"))
    assert "stop-differs" not in codes(
        examine(preset("chatml"), byte_level(), PAIR, POLICY, generate_config=right)
    )


def test_an_end_that_is_not_the_tokenizers_end_of_text_is_only_explained() -> None:
    found = examine(preset("chatml"), byte_level(), PAIR, POLICY)
    finding = only(found, "stop-differs")
    assert finding.severity is Severity.INFO
    assert "'<|im_end|>'" in finding.message
    assert "'</s>'" in finding.message
    assert "stop-differs" not in codes(examine(preset("zephyr"), byte_level(), PAIR, POLICY))


def test_padding_that_is_also_trained() -> None:
    found = examine(preset("zephyr"), byte_level(), PAIR, POLICY)  # it pads with </s>
    finding = only(found, "pad-is-trained")
    assert finding.severity is Severity.INFO
    assert texts(finding, preset("zephyr"), byte_level(), PAIR) == ["</s>"]
    assert "pad-is-trained" not in codes(examine(preset("chatml"), byte_level(), PAIR, POLICY))


def test_an_end_of_text_inside_the_prompt() -> None:
    ended = looped(
        "{% if m.role == 'user' %}{{ m.content }}</s>{% else %}{{ m.content }}<|im_end|>"
        "{% endif %}",
        prompt="",
    )
    finding = only(examine(ended, byte_level(), PAIR, POLICY), "end-of-text-in-prompt")
    assert texts(finding, ended, byte_level(), PAIR) == ["</s>"]
    # Closing every turn with it, the answer too, is how Zephyr does it; forging it does nothing.
    assert "end-of-text-in-prompt" not in codes(
        examine(preset("zephyr"), byte_level(), TURNS, POLICY)
    )
    forging = chat(("user", "what is </s>?"), ("assistant", "A token."))
    assert "end-of-text-in-prompt" not in codes(
        examine(preset("chatml"), byte_level(), forging, POLICY)
    )


# -- what is trained besides answers ----------------------------------------------------------


def test_training_everything_trains_prompts_and_headers() -> None:
    everything = MaskPolicy(TrainOn.ALL)
    found = examine(preset("chatml"), byte_level(), PAIR, everything)
    asked = only(found, "prompt-trained")
    assert asked.severity is Severity.WARNING
    assert asked.fixed_settings == ("policy.train_on=assistant",)
    assert "".join(texts(asked, preset("chatml"), byte_level(), PAIR)).strip() == "What is 2+2?"
    header = only(found, "header-trained")
    assert header.severity is Severity.INFO
    assert "<|im_start|>" in texts(header, preset("chatml"), byte_level(), PAIR)


def test_a_token_that_holds_the_end_of_an_answer_and_the_next_question() -> None:
    glued = chat(("user", "x"), ("assistant", "The capi"), ("user", "tal"), ("assistant", "Rome"))
    finding = only(examine(preset("plain"), byte_level(), glued, POLICY), "prompt-trained")
    assert "".join(texts(finding, preset("plain"), byte_level(), glued)).endswith("ital")
    assert finding.fixed_settings == ()


def test_a_header_that_generation_does_not_send() -> None:
    short = looped(CHATML, prompt="<|im_start|>")
    finding = only(examine(short, byte_level(), PAIR, POLICY), "header-trained")
    assert finding.severity is Severity.WARNING
    assert "'assistant\\n'" in finding.message
    assert "".join(texts(finding, short, byte_level(), PAIR)) == "assistant\n"


def test_words_that_a_template_puts_before_an_answer_are_explained() -> None:
    thinking = looped(
        "<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}<think>\n\n</think>\n\n{% endif %}"
        "{{ m.content }}<|im_end|>\n"
    )
    found = examine(thinking, byte_level(), PAIR, POLICY)
    assert only(found, "header-trained").severity is Severity.INFO
    assert grave(found) == []


# -- who speaks -------------------------------------------------------------------------------


def test_an_unknown_role() -> None:
    example = chat(("narrator", "Once upon"), ("assistant", "a time"))
    finding = only(examine(preset("chatml"), byte_level(), example, POLICY), "unknown-role")
    assert "'narrator'" in finding.message
    assert texts(finding, preset("chatml"), byte_level(), example)
    assert "unknown-role" not in codes(examine(preset("chatml"), byte_level(), PAIR, POLICY))


def test_two_answers_in_a_row() -> None:
    example = chat(("user", "One"), ("assistant", "First."), ("assistant", "Second."))
    finding = only(examine(preset("chatml"), byte_level(), example, POLICY), "consecutive-answers")
    assert "Messages 2 and 3" in finding.message
    shown = "".join(texts(finding, preset("chatml"), byte_level(), example))
    assert "Second." in shown
    assert "First." not in shown


FORGETFUL = looped(
    "<|im_start|>{{ m.role }}\n{{ m.content if loop.last else m.content.split('</think>')[-1] }}"
    "<|im_end|>\n"
)
REASONED = chat(
    ("user", "Hi"), ("assistant", "<think>hm</think>Yes."), ("user", "So?"), ("assistant", "No.")
)


def test_earlier_turns_that_change() -> None:
    finding = only(examine(FORGETFUL, byte_level(), REASONED, POLICY), "earlier-turns-change")
    assert finding.severity is Severity.WARNING
    assert "message 2" in finding.message
    assert finding.fixed_settings == ("policy.train_on=last_assistant",)
    assert texts(finding, FORGETFUL, byte_level(), REASONED)[0].startswith("Y")


def test_earlier_answers_that_end_otherwise_than_the_last() -> None:
    """As gpt-oss, which ends earlier answers with one token and the last with another."""
    returning = looped(
        "<|im_start|>{{ m.role }}\n{{ m.content }}"
        "{{ '</s>' if loop.last and m.role == 'assistant' else '<|im_end|>' }}\n"
    )
    finding = only(examine(returning, byte_level(), TURNS, POLICY), "earlier-turns-change")
    assert "'<|im_end|>" in finding.message
    assert "'</s>" in finding.message
    assert "earlier-turns-change" not in codes(examine(returning, byte_level(), PAIR, POLICY))


def test_earlier_turns_that_change_and_are_not_trained_are_explained() -> None:
    last = MaskPolicy(TrainOn.LAST_ASSISTANT)
    found = examine(FORGETFUL, byte_level(), REASONED, last)
    assert only(found, "earlier-turns-change").severity is Severity.INFO
    assert grave(found) == []


# -- what they say ----------------------------------------------------------------------------


def test_content_that_is_dropped() -> None:
    deaf = looped("{% if m.role != 'system' %}" + CHATML + "{% endif %}")
    example = chat(("system", "Be brief."), *PAIR.messages)
    finding = only(examine(deaf, byte_level(), example, POLICY), "content-dropped")
    assert "'Be brief.'" in finding.message
    assert "'system'" in finding.remedy


def test_content_whose_case_is_changed() -> None:
    loud = looped("<|im_start|>{{ m.role }}\n{{ m.content | upper }}<|im_end|>\n")
    finding = only(examine(loud, byte_level(), PAIR, POLICY), "content-altered")
    assert finding.severity is Severity.WARNING
    assert "'WHAT IS 2+2?'" in finding.message


def test_content_of_which_a_part_is_printed() -> None:
    half = looped("<|im_start|>{{ m.role }}\n{{ m.content.split('.')[0] }}<|im_end|>\n")
    example = chat(("user", "Hi"), ("assistant", "One. Two."))
    finding = only(examine(half, byte_level(), example, POLICY), "content-altered")
    assert "'One'" in finding.message


def test_content_that_is_trimmed() -> None:
    example = chat(("user", " Hi \n"), ("assistant", "Hello"))
    tokenizer = BYTES.with_tokens(
        ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|begin_of_text|>"]
    )
    finding = only(examine(preset("llama3"), tokenizer, example, POLICY), "content-trimmed")
    assert finding.severity is Severity.INFO
    assert "3 spaces or line breaks" in finding.message


@pytest.mark.parametrize("name", [name for name in PRESETS if name != "plain"])
def test_an_alpaca_input_is_neither_dropped_nor_altered(name: str) -> None:
    example = chat(Message("user", "Add them", context="1 and 2"), ("assistant", "3"))
    found = codes(examine(preset(name), byte_level(), example, POLICY))
    assert not [code for code in found if code.startswith("content-")]


def test_tool_calls_and_tools_that_are_dropped() -> None:
    call = Message("assistant", "", tool_calls=(ToolCall("weather", '{"city": "Oslo"}'),))
    example = chat(("user", "Weather?"), call, ("tool", "22"), ("assistant", "22 degrees."))
    found = examine(preset("chatml"), byte_level(), example, POLICY)
    assert "'weather'" in only(found, "tool-calls-dropped").message
    offered = type(example)(
        example.id, example.messages, tools=({"function": {"name": "weather"}},)
    )
    found = examine(preset("chatml"), byte_level(), offered, POLICY)
    assert "(weather)" in only(found, "tools-dropped").message


def test_reasoning_that_is_dropped() -> None:
    example = chat(("user", "2+2?"), Message("assistant", "4", reasoning="two and two"))
    found = examine(preset("chatml"), byte_level(), example, POLICY)
    assert only(found, "reasoning-dropped").severity is Severity.WARNING
    both = type(example)(example.id, example.messages * 2)
    found = examine(preset("chatml"), byte_level(), both, POLICY)
    last = only(found, "reasoning-dropped")
    assert (last.severity, "message 4" in last.message) == (Severity.WARNING, True)
    longer = type(example)(example.id, (*example.messages, *PAIR.messages))
    found = examine(preset("chatml"), byte_level(), longer, POLICY)
    assert only(found, "reasoning-dropped").severity is Severity.INFO


def test_a_date_in_the_prompt() -> None:
    dated = looped(CHATML)
    dated = Template("dated", "Today is {{ strftime_now('%d %b %Y') }}.\n" + dated.source)
    finding = only(examine(dated, byte_level(), PAIR, POLICY), "date-in-prompt")
    assert finding.severity is Severity.INFO
    assert any(
        character.isdigit()
        for text in texts(finding, dated, byte_level(), PAIR)
        for character in text
    )


# -- against what the tokenizer brings --------------------------------------------------------


def test_a_template_other_than_the_tokenizers_own() -> None:
    own = "{% for m in messages %}{{ m.role }}: {{ m.content }}</s>\n{% endfor %}"
    finding = only(examine(preset("chatml"), with_template(own), PAIR, POLICY), "template-differs")
    assert finding.severity is Severity.INFO
    assert finding.fixed_template == own
    same = with_template(preset("chatml").source)
    assert "template-differs" not in codes(examine(preset("chatml"), same, PAIR, POLICY))
    alike = with_template(preset("chatml").source + "{# another source, the same text #}")
    assert "template-differs" not in codes(examine(preset("chatml"), alike, PAIR, POLICY))


def test_a_missing_bos() -> None:
    base = byte_level()
    backend = tokenizers.Tokenizer.from_str(base.to_json())
    backend.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", base.bos_id or 0)]
    )
    tokenizer = Tokenizer("bos", backend, base.special_tokens)
    assert tokenizer.adds_bos
    assert not base.adds_bos
    finding = only(examine(preset("chatml"), tokenizer, PAIR, POLICY), "missing-bos")
    assert "'<s>'" in finding.message
    assert finding.tokens == (0,)
    assert finding.fixed_template is not None
    mended = Template("mended", finding.fixed_template)
    assert "missing-bos" not in codes(examine(mended, tokenizer, PAIR, POLICY))
