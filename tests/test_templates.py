"""Which template, what it sees of an example, and what the shipped ones print."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from sft_core import templates
from sft_core.config import TemplateConfig
from sft_core.templates import PRESETS, PRESETS_SOURCES, find_preset, markers, resolve
from sft_core.tokenizer import Tokenizer, load_tokenizer
from sft_core.types import (
    ContentPart,
    Example,
    Message,
    Region,
    Rendered,
    Template,
    TemplateError,
    ToolCall,
)
from tests.oracle import reference
from tests.sample_templates import DIALOGUE, TOKENS, assistant, system, user

NAMES = {Region.BOS: "b", Region.HEADER: "h", Region.CONTENT: "c", Region.END_OF_TURN: "e"}
NAMES[Region.SEPARATOR] = "s"

WITH_CONTEXT = replace(
    DIALOGUE, messages=(DIALOGUE.messages[0], user("Hi", "now"), *DIALOGUE.messages[2:])
)


def render(name: str, *messages: Message, prompt: bool = False) -> Rendered:
    template = Template(name, PRESETS[name].source)
    return templates.render(template, Example("x", messages), TOKENS, add_generation_prompt=prompt)


def written(rendered: Rendered) -> str:
    return "¦".join(
        f"{NAMES[span.region]}{'-' if span.message is None else span.message} "
        f"{rendered.text[span.start : span.end]}"
        for span in rendered.spans
    )


# -- the presets ----------------------------------------------------------------------------------

# For a system turn, a question with a context, an answer, a question and an answer; one letter
# a region, the message, and the text.
EXPECTED = {
    "plain": "c0  Be brief ¦c1 Hi¦s1 : ¦c1 now¦c2  Yes. ¦c3 Why¦c4 So",
    "plain-ended": (
        "c0  Be brief ¦e0 \n¦c1 Hi¦s1 : ¦c1 now¦e1 \n¦c2  Yes. ¦e2 </s>¦c3 Why¦e3 \n¦c4 So¦e4 </s>"
    ),
    "chatml": (
        "h0 <|im_start|>system\n¦c0  Be brief ¦e0 <|im_end|>¦s0 \n¦h1 <|im_start|>user\n¦"
        "c1 Hi\nnow¦e1 <|im_end|>¦s1 \n¦h2 <|im_start|>assistant\n¦c2  Yes. ¦e2 <|im_end|>¦"
        "s2 \n¦h3 <|im_start|>user\n¦c3 Why¦e3 <|im_end|>¦s3 \n¦h4 <|im_start|>assistant\n¦"
        "c4 So¦e4 <|im_end|>¦s4 \n"
    ),
    "alpaca": (
        "c0  Be brief ¦e0 \n\n¦h1 ### Instruction:\n¦c1 Hi¦s1 \n\n### Input:\n¦c1 now¦"
        "e1 \n\n¦h2 ### Response:\n¦c2  Yes. ¦e2 </s>¦h3 \n\n### Instruction:\n¦c3 Why¦"
        "e3 \n\n¦h4 ### Response:\n¦c4 So¦e4 </s>"
    ),
    "inst-resp": (
        "h0 <INST>¦c0  Be brief ¦h1 \n\n¦c1 Hi\nnow¦h2 <RESP>¦c2  Yes. ¦e2 <END>¦h3 <INST>¦"
        "c3 Why¦h4 <RESP>¦c4 So¦e4 <END>"
    ),
    "user-end": (
        "h0 <|system|>\n¦c0  Be brief ¦e0 <|end|>¦s0 \n¦h1 <|user|>\n¦c1 Hi\nnow¦e1 <|end|>¦"
        "s1 \n¦h2 <|assistant|>\n¦c2  Yes. ¦e2 <|end|>¦s2 \n¦h3 <|user|>\n¦c3 Why¦e3 <|end|>¦"
        "s3 \n¦h4 <|assistant|>\n¦c4 So¦e4 <|end|>¦s4 \n"
    ),
    "llama3": (
        "b- <s>¦h0 <|start_header_id|>system<|end_header_id|>\n\n¦c0 Be brief¦e0 <|eot_id|>¦"
        "h1 <|start_header_id|>user<|end_header_id|>\n\n¦c1 Hi\nnow¦e1 <|eot_id|>¦"
        "h2 <|start_header_id|>assistant<|end_header_id|>\n\n¦c2 Yes.¦e2 <|eot_id|>¦"
        "h3 <|start_header_id|>user<|end_header_id|>\n\n¦c3 Why¦e3 <|eot_id|>¦"
        "h4 <|start_header_id|>assistant<|end_header_id|>\n\n¦c4 So¦e4 <|eot_id|>"
    ),
    "gemma": (
        "b- <s>¦h0 <start_of_turn>user\n¦c0  Be brief ¦e0 \n\n¦c1 Hi\nnow¦e1 <end_of_turn>¦"
        "s1 \n¦h2 <start_of_turn>model\n¦c2 Yes.¦e2 <end_of_turn>¦s2 \n¦"
        "h3 <start_of_turn>user\n¦c3 Why¦e3 <end_of_turn>¦s3 \n¦h4 <start_of_turn>model\n¦"
        "c4 So¦e4 <end_of_turn>¦s4 \n"
    ),
    "mistral": (
        "b- <s>¦h0 [INST]¦c0  Be brief ¦e0 \n\n¦c1 Hi\nnow¦e1 [/INST]¦c2  Yes. ¦e2 </s>¦"
        "h3 [INST]¦c3 Why¦e3 [/INST]¦c4 So¦e4 </s>"
    ),
    "zephyr": (
        "h0 <|system|>\n¦c0  Be brief ¦e0 </s>¦s0 \n¦h1 <|user|>\n¦c1 Hi\nnow¦e1 </s>¦s1 \n¦"
        "h2 <|assistant|>\n¦c2  Yes. ¦e2 </s>¦s2 \n¦h3 <|user|>\n¦c3 Why¦e3 </s>¦s3 \n¦"
        "h4 <|assistant|>\n¦c4 So¦e4 </s>¦s4 \n"
    ),
}


@pytest.mark.parametrize("name", PRESETS)
def test_regions_of_the_presets(name: str) -> None:
    rendered = render(name, *WITH_CONTEXT.messages)
    assert rendered.method == "provenance"
    assert rendered.roles == ("system", "user", "assistant", "user", "assistant")
    assert rendered.weights == (None,) * 5
    assert written(rendered) == EXPECTED[name]


SINGLE = {
    "plain": "HiYes",
    "plain-ended": "Hi\nYes</s>",
    "chatml": "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nYes<|im_end|>\n",
    "alpaca": "Below is an instruction that describes a task. Write a response that appropriately "
    "completes the request.\n\n### Instruction:\nHi\n\n### Response:\nYes</s>",
    "inst-resp": "<INST>Hi<RESP>Yes<END>",
    "user-end": "<|user|>\nHi<|end|>\n<|assistant|>\nYes<|end|>\n",
    "llama3": "<s><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\nYes<|eot_id|>",
    "gemma": "<s><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\nYes<end_of_turn>\n",
    "mistral": "<s>[INST]Hi[/INST]Yes</s>",
    "zephyr": "<|user|>\nHi</s>\n<|assistant|>\nYes</s>\n",
}


@pytest.mark.parametrize("name", PRESETS)
def test_a_question_and_an_answer(name: str) -> None:
    rendered = render(name, user("Hi"), assistant("Yes"))
    prompt = render(name, user("Hi"), prompt=True)
    assert rendered.text == SINGLE[name]
    [(_, start)] = rendered.answer_starts()
    assert rendered.text[:start] == prompt.text
    assert rendered.text[start:].startswith("Yes")


def test_alpaca_with_an_input_is_stanfords_text() -> None:
    rendered = render("alpaca", user("Name the topic.", "Cats purr."), assistant("Cats"))
    assert rendered.text == (
        "Below is an instruction that describes a task, paired with an input that provides "
        "further context. Write a response that appropriately completes the request.\n\n"
        "### Instruction:\nName the topic.\n\n### Input:\nCats purr.\n\n### Response:\nCats</s>"
    )


def test_plain_is_the_first_tutorials_prompt() -> None:
    with_input = render("plain", user("Name the topic.", "Cats purr."), assistant("Cats"))
    assert with_input.text == "Name the topic.: Cats purr.Cats"
    assert {span.region for span in with_input.spans} == {Region.CONTENT, Region.SEPARATOR}


def test_chatml_is_the_second_tutorials_template() -> None:
    theirs = (
        "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
        "{{ message['content'] }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    for messages in (DIALOGUE.messages, DIALOGUE.messages[:2], (assistant(""),)):
        for prompt in (False, True):
            text = reference(theirs, Example("x", messages), TOKENS, prompt)
            assert render("chatml", *messages, prompt=prompt).text == text


@pytest.mark.parametrize("name", PRESETS)
def test_what_comes_later_changes_nothing_before(name: str) -> None:
    whole = render(name, *WITH_CONTEXT.messages).text
    for count in range(1, len(WITH_CONTEXT.messages)):
        messages = WITH_CONTEXT.messages[:count]
        assert whole.startswith(render(name, *messages).text)
        if WITH_CONTEXT.messages[count].role == "assistant":
            assert whole.startswith(render(name, *messages, prompt=True).text)


@pytest.mark.parametrize("name", PRESETS)
def test_a_tokenizer_without_special_tokens(name: str) -> None:
    template = Template(name, PRESETS[name].source)
    rendered = templates.render(template, Example("x", (user("Hi"), assistant("Yes"))), {})
    assert rendered.text == SINGLE[name].replace("<s>", "").replace("</s>", "")


def test_a_system_turn_opens_what_has_no_place_for_it() -> None:
    talk = (system("Be kind."), user("Hi"), assistant("Yes"))
    assert render("gemma", *talk).text.startswith(
        "<s><start_of_turn>user\nBe kind.\n\nHi<end_of_turn>\n<start_of_turn>model\n"
    )
    assert render("mistral", *talk).text == "<s>[INST]Be kind.\n\nHi[/INST]Yes</s>"
    assert render("inst-resp", *talk).text == "<INST>Be kind.\n\nHi<RESP>Yes<END>"
    assert render("alpaca", *talk).text == (
        "Be kind.\n\n### Instruction:\nHi\n\n### Response:\nYes</s>"
    )


def test_presets_say_what_they_are() -> None:
    for name, preset in PRESETS.items():
        assert preset.name == name
        assert preset.title
        assert preset.sentence.endswith(".")
        assert preset.source in PRESETS_SOURCES
    assert len(PRESETS_SOURCES) == len(PRESETS) == 10


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("seed000", "plain"),
        ("Seed 001", "chatml"),
        ("seed003", "inst-resp"),
        ("SEED004", "user-end"),
        ("llama-3", "llama3"),
        ("inst_resp", "inst-resp"),
        ("Plain Ended", "plain-ended"),
        ("ChatML", "chatml"),
    ],
)
def test_presets_go_by_many_names(alias: str, name: str) -> None:
    assert find_preset(alias) is PRESETS[name]


def test_an_unknown_preset_is_answered_with_the_nearest() -> None:
    with pytest.raises(TemplateError, match=r"no template 'chatmal'\. Did you mean 'chatml'\?"):
        find_preset("chatmal")
    with pytest.raises(TemplateError, match="Choose one of plain, "):
        find_preset("")


# -- which template -------------------------------------------------------------------------------


@pytest.fixture
def tokenizer() -> Tokenizer:
    return load_tokenizer("bytes")


def owning(tokenizer: Tokenizer, **own: str) -> Tokenizer:
    return Tokenizer(tokenizer.name, tokenizer.backend, tokenizer.special_tokens, own)


def test_resolve_finds_what_the_configuration_means(tokenizer: Tokenizer) -> None:
    own = owning(tokenizer, default="D", tool_use="T", rag="R")
    assert resolve(TemplateConfig("seed001"), own) == Template("chatml", PRESETS["chatml"].source)
    assert resolve(TemplateConfig("mine", "{{ x }}"), own) == Template("mine", "{{ x }}")
    assert resolve(TemplateConfig("tokenizer"), own) == Template("tokenizer", "D")
    assert resolve(TemplateConfig("Tokenizer"), own, tools=True).source == "T"
    assert resolve(TemplateConfig("tokenizer:rag"), own) == Template("tokenizer:rag", "R")
    assert resolve(TemplateConfig("tokenizer"), owning(tokenizer, only="O")).source == "O"


def test_resolve_says_what_there_is(tokenizer: Tokenizer) -> None:
    with pytest.raises(TemplateError, match="brings no chat template"):
        resolve(TemplateConfig("tokenizer"), owning(tokenizer))
    with pytest.raises(TemplateError, match=r"no template 'rag'\. It has default\."):
        resolve(TemplateConfig("tokenizer:rag"), owning(tokenizer, default="D"))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("plain", set()),
        ("alpaca", set()),
        ("chatml", {"<|im_start|>", "<|im_end|>"}),
        ("inst-resp", {"<INST>", "<RESP>", "<END>"}),
        ("user-end", {"<|system|>", "<|user|>", "<|assistant|>", "<|end|>"}),
        ("llama3", {"<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"}),
        ("gemma", {"<start_of_turn>", "<end_of_turn>"}),
        ("mistral", {"[INST]", "[/INST]"}),
    ],
)
def test_markers_of_the_presets(name: str, expected: set[str]) -> None:
    assert set(markers(PRESETS[name].source)) == expected


def test_markers_are_what_is_printed_not_what_is_asked_or_told() -> None:
    source = (
        "{% if '<never>' in messages[0].content %}{{ '<tool_call>\\n' }}{% endif %}"
        "Put the call into <tool_call> tags, between <tools> and </tools>.<|im_end|>"
    )
    assert markers(source) == ("<tool_call>", "<|im_end|>")
    with pytest.raises(TemplateError, match="line 1"):
        markers("{% if %}")


# -- what a template sees -------------------------------------------------------------------------


def test_messages_as_apply_chat_template_gets_them() -> None:
    call = ToolCall("f", '{"a": [1]}', "id1")
    example = Example(
        "x",
        (
            user("Do", "this"),
            Message("assistant", "", reasoning="why", tool_calls=(call, ToolCall("g", "oops"))),
            Message("tool", "1", name="f", tool_call_id="id1"),
            Message("user", (ContentPart("text", "a"), ContentPart("image"))),
        ),
        tools=({"function": {"name": "f"}},),
        extra={"day": "Monday", "set": {1}, "pair": (1, None)},
    )
    given = templates.conversation(example)
    assert given.messages == [
        {"role": "user", "content": "Do\nthis", "instruction": "Do", "input": "this"},
        {
            "thinking": "why",
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {
                    "type": "function",
                    "id": "id1",
                    "function": {"name": "f", "arguments": {"a": [1]}},
                },
                {"type": "function", "function": {"name": "g", "arguments": "oops"}},
            ],
            "reasoning_content": "why",
        },
        {"role": "tool", "content": "1", "name": "f", "tool_call_id": "id1"},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image", "text": ""}]},
    ]
    assert given.tools == [{"function": {"name": "f"}}]
    assert given.extra == {"day": "Monday", "set": "<set>", "pair": [1, None]}
    assert templates.conversation(Example("y", ())).tools is None


def test_roles_and_weights_travel_along() -> None:
    rendered = render("chatml", user("Hi"), Message("assistant", "Yes", weight=0))
    assert (rendered.roles, rendered.weights) == (("user", "assistant"), (None, 0))


def test_the_room_stays_light() -> None:
    code = (
        "import sys, sft_core.sandbox.child\n"
        "heavy = {'torch', 'transformers', 'tokenizers', 'gradio', 'pydantic', 'numpy'}\n"
        "sys.exit(bool(heavy & set(sys.modules)))"
    )
    root = Path(templates.__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, timeout=60).returncode == 0
