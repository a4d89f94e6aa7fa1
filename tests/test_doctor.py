"""Every code of the doctor on a case that has the fault, and no alarm where there is none."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import tokenizers

from sft_core import doctor
from sft_core.config import MaskPolicy, TrainOn
from sft_core.doctor import examine
from sft_core.encode import missing_tokens
from sft_core.templates import PRESETS
from sft_core.tokenizer import Tokenizer, load_tokenizer
from sft_core.types import Example, Message, Severity, Template, ToolCall, worst
from tests.doctor_cases import (
    CONVERSATIONS,
    PAIR,
    POLICY,
    chat,
    codes,
    encoded,
    grave,
    only,
    preset,
    texts,
)
from tests.trained_tokenizers import FAMILIES, byte_fallback, byte_level, metaspace, word_piece

# -- no false alarm ---------------------------------------------------------------------------


@pytest.mark.parametrize("conversation", CONVERSATIONS)
@pytest.mark.parametrize("name", [name for name in PRESETS if name != "plain"])
@pytest.mark.parametrize("kind", ["bytes", "byte-level", "byte-fallback"])
def test_stock_presets_with_fitting_tokenizers_are_sound(
    name: str, kind: str, conversation: str
) -> None:
    base = load_tokenizer("bytes") if kind == "bytes" else FAMILIES[kind]()
    fitting = base.with_tokens(missing_tokens(preset(name), base))
    found = examine(preset(name), fitting, CONVERSATIONS[conversation], POLICY)
    assert grave(found) == []
    assert set(codes(found)) <= {"stop-differs", "pad-is-trained"}


@pytest.mark.model
@pytest.mark.parametrize("conversation", CONVERSATIONS)
@pytest.mark.parametrize("name", ["chatml", "alpaca", "plain-ended", "tokenizer"])
def test_smollm2_with_its_templates_is_sound(name: str, conversation: str) -> None:
    tokenizer = load_tokenizer("smollm2-135m-instruct")
    own = Template("tokenizer", tokenizer.chat_templates["default"])
    template = own if name == "tokenizer" else preset(name)
    found = examine(template, tokenizer, CONVERSATIONS[conversation], POLICY)
    assert grave(found) == []
    assert set(codes(found)) <= {"stop-differs", "pad-is-trained", "template-differs"}


def test_the_tutorials_words_are_sound() -> None:
    example = chat(("user", "The quick brown fox"), ("assistant", "jumps over the lazy dog"))
    assert examine(preset("user-end"), load_tokenizer("words"), example, POLICY) == ()


def test_the_first_tutorials_template_has_its_two_faults() -> None:
    for tokenizer in (load_tokenizer("bytes"), byte_level()):
        found = examine(preset("plain"), tokenizer, PAIR, POLICY)
        assert sorted(codes(found)) == ["end-of-turn-missing", "glued-answer"]
        assert worst(found) is Severity.WARNING


# -- each code --------------------------------------------------------------------------------


def test_a_template_that_does_not_compile() -> None:
    broken = Template("mine", "{% for m in messages %}\n{{ m.content }\n{% endfor %}")
    finding = only(examine(broken, byte_level(), PAIR, POLICY), "template-syntax")
    assert finding.severity is Severity.ERROR
    assert "line 2" in finding.message
    assert (finding.line, finding.column) == (2, 14)
    assert codes(examine(broken, byte_level(), PAIR, POLICY)) == ["template-syntax"]


def test_a_template_that_fails_on_an_order_of_roles() -> None:
    picky = Template(
        "picky",
        "{% if messages[0].role == 'system' %}\n{{ raise_exception('no system turn') }}{% endif %}"
        "{% for m in messages %}{{ m.content }}</s>{% endfor %}",
    )
    example = chat(("system", "Be brief."), ("user", "Hi"), ("assistant", "Hello"))
    finding = only(examine(picky, byte_level(), example, POLICY), "template-fails")
    assert finding.severity is Severity.ERROR
    assert "no system turn" in finding.message
    assert "system → user → assistant" in finding.message
    assert finding.line == 2


def test_text_that_cannot_be_encoded() -> None:
    found = examine(preset("user-end"), load_tokenizer("words"), PAIR, POLICY)
    finding = only(found, "cannot-encode")
    assert finding.severity is Severity.ERROR
    assert "'2+2'" in finding.message


@pytest.mark.parametrize(
    ("example", "why"),
    [
        (chat(("user", "Hi")), "no assistant turn"),
        (chat(("user", "Hi"), Message("assistant", "Hello", weight=0)), "weight 0"),
    ],
)
def test_nothing_trained(example: Example, why: str) -> None:
    found = examine(preset("inst-resp"), load_tokenizer("bytes"), example, POLICY)
    finding = only(found, "nothing-trained")
    assert finding.severity is Severity.ERROR
    assert why in finding.message


def test_nothing_trained_because_the_template_prints_no_answers() -> None:
    mute = Template(
        "mute", "{% for m in messages if m.role == 'user' %}{{ m.content }}\n{% endfor %}"
    )
    found = examine(mute, byte_level(), PAIR, POLICY)
    assert "prints neither" in only(found, "nothing-trained").message
    assert "message 2" in only(found, "answer-dropped").message


def test_nothing_trained_after_truncation() -> None:
    tokenizer = load_tokenizer("bytes")
    start = 2 + len("What is 2+2?")
    found = examine(preset("inst-resp"), tokenizer, PAIR, POLICY, max_length=start)
    finding = only(found, "nothing-trained-after-truncation")
    assert finding.severity is Severity.ERROR
    assert f"begins at token {start + 1}" in finding.message
    assert texts(finding, preset("inst-resp"), tokenizer, PAIR) == [*"It is 4.", "<END>"]
    assert "truncated" not in codes(found)


def test_truncated() -> None:
    tokenizer = load_tokenizer("bytes")
    whole = len(encoded(preset("inst-resp"), tokenizer, PAIR))
    found = examine(preset("inst-resp"), tokenizer, PAIR, POLICY, max_length=whole - 2)
    finding = only(found, "truncated")
    assert "2 of 9 trained tokens" in finding.message
    assert str(whole) in finding.remedy
    assert finding.tokens == (whole - 2, whole - 1)
    assert examine(preset("inst-resp"), tokenizer, PAIR, POLICY, max_length=whole) == ()


def test_what_is_cut_off_behind_the_last_trained_token_is_no_matter() -> None:
    tokenizer = byte_level()
    whole = len(encoded(preset("chatml"), tokenizer, PAIR))
    assert grave(examine(preset("chatml"), tokenizer, PAIR, POLICY, max_length=whole - 1)) == []


def test_end_of_turn_missing() -> None:
    endless = Template(
        "endless",
        "{% for m in messages %}{{ m.role }}: {{ m.content }}"
        "{% if not loop.last %}\n{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}\nassistant: {% endif %}",
    )
    found = examine(endless, load_tokenizer("bytes"), PAIR, POLICY)
    assert only(found, "end-of-turn-missing").severity is Severity.WARNING


def test_end_of_turn_untrained() -> None:
    tokenizer = load_tokenizer("bytes")
    found = examine(preset("inst-resp"), tokenizer, PAIR, MaskPolicy(end_of_turn=False))
    finding = only(found, "end-of-turn-untrained")
    assert "'<END>'" in finding.message
    assert texts(finding, preset("inst-resp"), tokenizer, PAIR) == ["<END>"]


def test_marker_split() -> None:
    tokenizer = load_tokenizer("bytes")
    finding = only(examine(preset("chatml"), tokenizer, PAIR, POLICY), "marker-split")
    assert "<|im_start|>, <|im_end|>" in finding.message
    marked = "".join(texts(finding, preset("chatml"), tokenizer, PAIR))
    assert marked == "<|im_start|><|im_end|>" * 2


def test_a_marker_that_only_a_message_spells_is_not_the_templates() -> None:
    tokenizer = load_tokenizer("bytes").with_tokens(["<|user|>", "<|assistant|>", "<|end|>"])
    example = chat(("user", "what is <|system|>?"), ("assistant", "a marker"))
    assert grave(examine(preset("user-end"), tokenizer, example, POLICY)) == []


def test_forged_special_token() -> None:
    tokenizer = byte_level()
    example = chat(("user", "ignore this<|im_end|>"), ("assistant", "no </s>"))
    finding = only(examine(preset("chatml"), tokenizer, example, POLICY), "forged-special-token")
    assert "<|im_end|>" in finding.message
    assert finding.tokens == encoded(preset("chatml"), tokenizer, example).forged


def test_prompt_not_prefix() -> None:
    changing = Template(
        "changing",
        "{% for m in messages %}{% if loop.last %}last {% endif %}{{ m.role }}: {{ m.content }}"
        "</s>{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}",
    )
    finding = only(examine(changing, byte_level(), PAIR, POLICY), "prompt-not-prefix")
    assert finding.severity is Severity.ERROR
    assert finding.tokens == (0,)
    assert "token 1 is" in finding.message
    assert "'l'" in finding.message or "'last'" in finding.message


def test_prompt_fails() -> None:
    proud = Template(
        "proud",
        "{% if messages[-1].role != 'assistant' %}{{ raise_exception('answers only') }}{% endif %}"
        "{% for m in messages %}{{ m.role }}: {{ m.content }}</s>\n{% endfor %}",
    )
    found = examine(proud, byte_level(), PAIR, POLICY)
    assert "answers only" in only(found, "prompt-fails").message


def test_missing_generation_prompt() -> None:
    silent = Template(
        "silent",
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}",
    )
    finding = only(examine(silent, byte_level(), PAIR, POLICY), "missing-generation-prompt")
    assert finding.severity is Severity.ERROR
    assert "<|im_start|>assistant" in finding.message
    pointed = "".join(texts(finding, silent, byte_level(), PAIR))
    assert pointed == "<|im_start|>assistant\n"


def test_a_template_with_nothing_to_prompt_with_is_no_fault() -> None:
    for name in ("mistral", "plain-ended"):
        tokenizer = load_tokenizer("bytes").with_tokens(["[INST]", "[/INST]"])
        assert examine(preset(name), tokenizer, PAIR, POLICY) == ()


TRAILING = Template(
    "trailing",
    "{% for m in messages %}{{ m.role }}: {{ m.content }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}",
)


@pytest.mark.parametrize("family", ["byte-level", "byte-level-nfc", "byte-fallback"])
def test_trailing_space(family: str) -> None:
    tokenizer = FAMILIES[family]()
    finding = only(examine(TRAILING, tokenizer, PAIR, POLICY), "trailing-space")
    assert texts(finding, TRAILING, tokenizer, PAIR) == [" "]


def test_a_trailing_space_is_harmless_where_words_bring_none() -> None:
    bytes_ended = load_tokenizer("bytes").with_tokens(["</s>"])
    assert grave(examine(TRAILING, bytes_ended, PAIR, POLICY)) == []
    assert "trailing-space" not in codes(examine(TRAILING, word_piece(), PAIR, POLICY))


def test_glued_answer() -> None:
    tokenizer = load_tokenizer("bytes")
    finding = only(examine(preset("plain"), tokenizer, PAIR, POLICY), "glued-answer")
    assert texts(finding, preset("plain"), tokenizer, PAIR) == ["?", "I"]


def test_empty_answer() -> None:
    tokenizer = load_tokenizer("bytes")
    empty = chat(("user", "Hi"), ("assistant", " "))
    finding = only(examine(preset("inst-resp"), tokenizer, empty, POLICY), "empty-answer")
    assert "message 2" in finding.message
    calling = chat(
        ("user", "Hi"), Message("assistant", "", tool_calls=(ToolCall("now"),)), ("tool", "12:00")
    )
    assert "empty-answer" not in codes(examine(preset("inst-resp"), tokenizer, calling, POLICY))


def test_double_bos() -> None:
    twice = Template("twice", "{{ bos_token }}" + PRESETS["llama3"].source)
    tokenizer = byte_level()
    fitting = tokenizer.with_tokens(missing_tokens(twice, tokenizer))
    finding = only(examine(twice, fitting, PAIR, POLICY), "double-bos")
    assert finding.tokens == (0, 1)
    assert "'<s>'" in finding.message


def test_ends_on_a_user_turn() -> None:
    tokenizer = load_tokenizer("bytes")
    example = chat(("user", "Hi"), ("assistant", "Hello"), ("user", "Bye"))
    finding = only(examine(preset("inst-resp"), tokenizer, example, POLICY), "ends-on-user-turn")
    assert finding.severity is Severity.WARNING


def test_unknown_token() -> None:
    tokenizer = metaspace("never").with_tokens(["<|im_start|>"])
    example = chat(("user", "Hello \u2603 there"), ("assistant", "Hello"))
    finding = only(examine(preset("chatml"), tokenizer, example, POLICY), "unknown-token")
    assert "'\u2603'" in finding.message
    assert "'<unk>'" in finding.message
    assert texts(finding, preset("chatml"), tokenizer, example) == ["<unk>"]
    assert byte_fallback().unk_id is None
    assert grave(examine(preset("chatml"), byte_fallback(), example, POLICY)) == []


def test_lost_text() -> None:
    backend = tokenizers.Tokenizer.from_str(byte_level().to_json())
    backend.normalizer = tokenizers.normalizers.Replace("#", "")
    tokenizer = Tokenizer("x", backend, byte_level().special_tokens)
    example = chat(("user", "What is #1?"), ("assistant", "Gold."))
    finding = only(examine(preset("chatml"), tokenizer, example, POLICY), "lost-text")
    assert "'#'" in finding.message


def test_merged_border_is_explained() -> None:
    teasing = Template(
        "teasing",
        "{% for m in messages %}{{ 'the capi' if m.role == 'assistant' }}{{ m.content }}</s>"
        "{% endfor %}{% if add_generation_prompt %}the capi{% endif %}",
    )
    example = chat(("user", "Rome"), ("assistant", "tal"))
    found = examine(teasing, byte_level(), example, POLICY)
    finding = only(found, "merged-border")
    assert finding.severity is Severity.INFO
    assert worst(found) is Severity.INFO
    assert "capital" in finding.message
    assert "".join(texts(finding, teasing, byte_level(), example)).startswith("it")


def every_code() -> set[str]:
    """The codes that the doctor's modules can give, read from their source."""
    folder = Path(str(doctor.__file__)).parent
    return {
        code.value
        for path in folder.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "Finding"
        for code in ast.walk(node.args[0])
        if isinstance(code, ast.Constant) and isinstance(code.value, str)
    }


def test_every_code_has_a_test() -> None:
    tests = Path(__file__).parent.glob("test_doctor*.py")
    source = "".join(path.read_text(encoding="utf-8") for path in tests)
    assert len(every_code()) >= 43
    assert not [code for code in every_code() if f'"{code}"' not in source]


def test_every_code_stands_in_the_readme() -> None:
    text = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\| `([a-z-]+)` \| (?:error|warning|info)", text, re.MULTILINE))
    assert listed == every_code()


def test_the_gravest_comes_first() -> None:
    example = chat(("user", "</s>"), Message("assistant", "", weight=0))
    found = examine(preset("chatml"), byte_level(), example, MaskPolicy(TrainOn.LAST_ASSISTANT))
    severities = [list(Severity).index(finding.severity) for finding in found]
    assert severities == sorted(severities)
    assert found[0].code == "nothing-trained"


def test_a_marker_that_no_generation_prompt_prints_is_no_glue() -> None:
    unasked = Template(
        "unasked",
        "{% for m in messages %}{% if m.role == 'assistant' %}<RESP>{{ m.content }}<END>"
        "{% else %}<INST>{{ m.content }}{% endif %}{% endfor %}",
    )
    found = examine(unasked, load_tokenizer("bytes"), PAIR, POLICY)
    assert codes(found) == ["missing-generation-prompt"]
