"""Answers: what is sent, how they end, what is shown meanwhile, and that all ways agree."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, GPT2Config, PreTrainedModel

from sft_core import sandbox
from sft_core.config import GenerateConfig, MaskPolicy
from sft_core.encode import encode, stop_sequences
from sft_core.events import Answered, Side, TextGenerated
from sft_core.generate import (
    UNDECODED,
    Answer,
    Drawn,
    Voice,
    answer_batch,
    certain_text,
    compare,
    generate,
    prompt_ids,
)
from sft_core.templates import PRESETS
from sft_core.tokenizer import load_tokenizer
from sft_core.types import Example, Message, ModelError, Reason
from tests.tensors import MEMORISED, SMALL, memorised, pair, preset, tiny_model

END = 259


def knowing(side: Side = Side.TUNED) -> Voice:
    return Voice.of(side, memorised()[0])


def answer(
    voice: Voice,
    prompt: Sequence[int],
    stops: Sequence[tuple[int, ...]] = ((END,),),
    **config: float,
) -> tuple[list[Drawn], Answer]:
    *drawn, last = generate(voice, prompt, stops, GenerateConfig(**config))
    assert isinstance(last, Answer)
    return [token for token in drawn if isinstance(token, Drawn)], last


def asked(example: Example) -> tuple[int, ...]:
    opened, template = memorised()
    return prompt_ids(example, template, opened.tokenizer)


def voice_of(model: PreTrainedModel, context: int = 64) -> Voice:
    return Voice(Side.BASE, model, load_tokenizer("bytes"), context)


def gpt2(seed: int = 0) -> PreTrainedModel:
    """A second architecture: its absolute positions go wrong where padding counts."""
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=64,
        n_embd=32,
        n_layer=2,
        n_head=4,
        n_positions=64,
        initializer_range=0.2,
        bos_token_id=None,
        eos_token_id=None,
    )
    return AutoModelForCausalLM.from_config(config).eval()


# -- what is sent -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", PRESETS)
def test_the_prompt_is_what_stands_before_the_answer_in_training(name: str) -> None:
    tokenizer = load_tokenizer("bytes")
    template = preset(name)
    example = pair("Which bird?", "A heron.")
    rendered = sandbox.render(template, example, tokenizer.special_tokens)
    encoded = encode(rendered, tokenizer, MaskPolicy())
    before = encoded.reasons.index(Reason.ANSWER)
    assert prompt_ids(example, template, tokenizer) == encoded.ids[:before]


def test_an_answer_stops_on_the_end_of_turn_and_on_the_end_of_text() -> None:
    tokenizer = load_tokenizer("bytes").with_tokens(("<|im_start|>", "<|im_end|>"))
    end_of_turn = tokenizer.token_to_id("<|im_end|>")
    assert stop_sequences(preset("chatml"), tokenizer) == ((end_of_turn,), (END,))
    assert stop_sequences(preset("inst-resp"), tokenizer) == ((END,),)


def test_an_end_of_turn_left_as_text_is_a_sequence() -> None:
    tokenizer = load_tokenizer("bytes")
    assert stop_sequences(preset("chatml"), tokenizer)[0] == tuple(b"<|im_end|>")


def test_chosen_stop_tokens_stand_instead_of_what_was_taught() -> None:
    tokenizer = load_tokenizer("bytes")
    chosen = stop_sequences(preset("inst-resp"), tokenizer, ("<INST>", "ab"))
    assert chosen == ((tokenizer.token_to_id("<INST>"),), tuple(b"ab"))


# -- one answer -------------------------------------------------------------------------------


@pytest.mark.parametrize("example", MEMORISED, ids=lambda example: example.id)
def test_a_trained_model_says_what_it_learnt_and_stops(example: Example) -> None:
    drawn, last = answer(knowing(), asked(example))
    assert last.text == example.answer
    assert last.stopped
    assert last.reason == "Ended its turn with <END>"
    assert last.ids == (*example.answer.encode(), END)
    assert tuple(token.id for token in drawn) == last.ids


@pytest.mark.parametrize("make", [tiny_model, gpt2])
def test_greedy_is_what_transformers_generates(make: type) -> None:
    for seed in range(3):
        model = make(seed)
        prompt = [5, 9, 33, 2 + seed]
        theirs = model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, 4, dtype=torch.long),
            max_new_tokens=20,
            do_sample=False,
            eos_token_id=63,
            pad_token_id=0,
        )
        _, ours = answer(voice_of(model), prompt, ((63,),), max_new_tokens=20)
        assert list(ours.ids) == theirs[0, 4:].tolist()


def test_the_cache_changes_nothing_and_probabilities_are_the_models() -> None:
    model = tiny_model()
    drawn, _ = answer(voice_of(model), [5, 6, 7], (), max_new_tokens=12)
    ids = [5, 6, 7]
    for token in drawn:
        with torch.inference_mode():
            shares = model(torch.tensor([ids])).logits[0, -1].softmax(-1)
        assert token.id == int(shares.argmax())
        assert token.probability == pytest.approx(shares.max().item(), rel=1e-4)
        ids.append(token.id)


def test_an_answer_without_an_end_is_cut_off_and_says_so() -> None:
    _, last = answer(voice_of(tiny_model()), [5], (), max_new_tokens=7)
    assert (len(last.ids), last.stopped) == (7, False)
    assert last.reason == "Cut off after 7 tokens, the limit for an answer."


def test_a_full_context_ends_an_answer() -> None:
    _, last = answer(voice_of(tiny_model(), context=10), [5, 6, 7, 8], (), max_new_tokens=90)
    assert (len(last.ids), last.stopped) == (6, False)
    assert "context of 10 tokens is full" in last.reason


def test_a_prompt_that_fills_the_context_is_refused() -> None:
    with pytest.raises(ModelError, match="The prompt has 10 tokens"):
        answer(voice_of(tiny_model(), context=10), list(range(10)))


def test_a_sequence_of_several_ids_ends_an_answer() -> None:
    example = MEMORISED[3]
    drawn, last = answer(knowing(), asked(example), (tuple(b" four"),))
    assert last.text == "one two three"
    assert last.stopped
    assert last.ids == tuple(b"one two three four")
    assert not any(" f" in token.text for token in drawn)


def test_a_broken_off_stop_sequence_is_shown_after_all() -> None:
    drawn, last = answer(knowing(), asked(MEMORISED[3]), (tuple(b" fourteen"), (END,)))
    assert last.text == MEMORISED[3].answer
    assert drawn[-1].text == last.text


def test_a_request_to_stop_is_heard_within_a_token() -> None:
    asked_so_far = 0

    def stop() -> bool:
        nonlocal asked_so_far
        asked_so_far += 1
        return asked_so_far > 4

    events = list(generate(knowing(), asked(MEMORISED[3]), ((END,),), GenerateConfig(), stop))
    last = events[-1]
    assert isinstance(last, Answer)
    assert len(events) == 5
    assert (last.text, last.stopped, last.reason) == ("one ", False, "Stopped on request.")


def test_sampling_repeats_with_its_seed() -> None:
    voice = voice_of(tiny_model())
    first, again, other = (
        answer(voice, [5], (), max_new_tokens=12, temperature=1.5, seed=seed)[1].ids
        for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


# -- what is shown meanwhile ------------------------------------------------------------------


def test_no_half_character_is_ever_shown() -> None:
    for example in MEMORISED:
        drawn, last = answer(knowing(), asked(example))
        texts = [token.text for token in drawn]
        assert all(UNDECODED not in text for text in texts)
        assert all(later.startswith(earlier) for earlier, later in pairwise(texts))
        assert all(last.text.startswith(text) for text in texts)


def test_an_answer_cut_inside_a_character_ends_before_it() -> None:
    _, last = answer(knowing(), asked(MEMORISED[2]), max_new_tokens=len(b"wave ") + 3)
    assert last.text == "wave "


@given(st.text(max_size=12))
@settings(deadline=None)
def test_certain_text_grows_into_the_whole(text: str) -> None:
    tokenizer = load_tokenizer("bytes")
    ids = list(text.encode())
    shown = [certain_text(tokenizer, ids[:end], ()) for end in range(len(ids) + 1)]
    assert all(text.startswith(part) for part in shown if UNDECODED not in text)
    assert all(later.startswith(earlier) for earlier, later in pairwise(shown))


def test_bytes_that_are_no_text_do_not_hold_the_rest_back() -> None:
    tokenizer = load_tokenizer("bytes")
    assert certain_text(tokenizer, [0xFF, *b"ab"], ()) == f"{UNDECODED}ab"


# -- many at once -----------------------------------------------------------------------------


@pytest.mark.parametrize("make", [tiny_model, gpt2])
def test_a_batch_answers_as_one_by_one(make: type) -> None:
    voice = voice_of(make(1))
    prompts = [[5], [7, 8, 9, 10, 11, 12], [40, 41], [3] * 9]
    stops = ((33,), (12, 50))
    single = [answer(voice, prompt, stops, max_new_tokens=25)[1] for prompt in prompts]
    assert answer_batch(voice, prompts, stops, 25) == single


def test_a_batch_of_a_trained_model_ends_row_by_row() -> None:
    answers = answer_batch(knowing(), [asked(example) for example in MEMORISED], ((END,),), 60)
    assert [given.text for given in answers] == [example.answer for example in MEMORISED]
    assert all(given.stopped for given in answers)


def test_a_batch_respects_the_context_of_each_row() -> None:
    voice = voice_of(tiny_model(), context=12)
    answers = answer_batch(voice, [[5], [6] * 10], (), 90)
    assert [len(given.ids) for given in answers] == [11, 2]


def test_a_batch_hears_a_request_to_stop() -> None:
    answers = answer_batch(voice_of(tiny_model()), [[5], [6, 7]], (), 50, lambda: True)
    assert [given.reason for given in answers] == ["Stopped on request."] * 2


def test_an_empty_batch_has_no_answers() -> None:
    assert answer_batch(voice_of(tiny_model()), [], (), 5) == []


# -- two side by side -------------------------------------------------------------------------


def both() -> tuple[Voice, Voice]:
    from sft_core.models import open_model

    base = open_model(SMALL, memorised()[1], seed=0)
    return Voice.of(Side.BASE, base), knowing()


QUESTIONS = [(Message("user", "Which bird?"),), (Message("user", "Count."),)]


def test_both_sides_grow_together() -> None:
    base, tuned = both()
    config = GenerateConfig(max_new_tokens=20)
    events = list(compare(base, tuned, QUESTIONS, memorised()[1], config))
    first = [event for event in events if event.prompt == 0]
    growing = [event for event in first if isinstance(event, TextGenerated)]
    assert [event.side for event in growing[:6]] == [Side.BASE, Side.TUNED] * 3
    assert [event.tokens for event in growing if event.side is Side.TUNED] == list(range(1, 10))
    ends = [event for event in events if isinstance(event, Answered)]
    assert {(event.prompt, event.side) for event in ends} == {
        (prompt, side) for prompt in (0, 1) for side in Side
    }
    told = {(event.prompt, event.side): event for event in ends}
    assert told[0, Side.TUNED].text == "A heron."
    assert told[0, Side.TUNED].stopped
    assert told[0, Side.TUNED].prompt_ids == told[0, Side.BASE].prompt_ids
    assert told[0, Side.TUNED].seconds > 0
    assert not told[0, Side.BASE].stopped


def test_a_prompt_is_over_before_the_next_begins() -> None:
    base, tuned = both()
    config = GenerateConfig(max_new_tokens=5)
    numbers = [event.prompt for event in compare(base, tuned, QUESTIONS, memorised()[1], config)]
    assert numbers == sorted(numbers)


def test_one_voice_may_speak_alone() -> None:
    base, _ = both()
    config = GenerateConfig(max_new_tokens=3)
    events = list(compare(base, None, QUESTIONS[:1], memorised()[1], config))
    assert {event.side for event in events} == {Side.BASE}
    assert sum(isinstance(event, Answered) for event in events) == 1


def test_both_sides_draw_with_the_same_seed() -> None:
    opened, template = memorised()
    sides = Voice.of(Side.BASE, opened), Voice.of(Side.TUNED, opened)
    config = GenerateConfig(temperature=2.0, max_new_tokens=12)
    ends = [
        event
        for event in compare(*sides, QUESTIONS, template, config)
        if isinstance(event, Answered)
    ]
    assert ends[0].text == ends[1].text
    assert ends[2].text == ends[3].text


def test_a_prompt_that_does_not_fit_is_told_and_the_others_go_on() -> None:
    base, tuned = both()
    prompts = [(Message("user", "long " * 40),), QUESTIONS[0]]
    ends = [
        event
        for event in compare(base, tuned, prompts, memorised()[1], GenerateConfig())
        if isinstance(event, Answered)
    ]
    assert all("Shorten the prompt" in event.reason for event in ends[:2])
    assert [event.text for event in ends if event.side is Side.TUNED] == ["", "A heron."]


def test_a_stop_ends_both_sides_and_later_prompts() -> None:
    base, tuned = both()
    events = list(compare(base, tuned, QUESTIONS, memorised()[1], GenerateConfig(), lambda: True))
    assert [event.reason for event in events if isinstance(event, Answered)] == [
        "Stopped on request."
    ] * 2
    assert len(events) == 2


def test_a_model_in_training_mode_answers_without_dropout() -> None:
    model = gpt2()
    model.train()
    first = answer(voice_of(model), [5, 6], (), max_new_tokens=15)[1]
    assert answer(voice_of(model.train()), [5, 6], (), max_new_tokens=15)[1] == first
