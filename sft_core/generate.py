"""Answers, token by token: the own loop with a key-value cache, one voice or two side by side.

What is sent is exactly what stood before the answer in training (law 2), and generation ends on
what training taught as the end of a turn (law 7). V is the size of the vocabulary.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Self

import torch
from torch import Tensor
from transformers import PreTrainedModel

from sft_core.config import GenerateConfig
from sft_core.encode import encode_prompt, stop_sequences
from sft_core.events import ON_REQUEST, Answered, AnswerEvent, Side, TextGenerated
from sft_core.models import Opened, arguments, reading, require_context, threads_for
from sft_core.pace import never
from sft_core.sampling import Sampler
from sft_core.sandbox import render, render_many
from sft_core.tokenizer import Tokenizer
from sft_core.types import Example, LabError, Message, ModelError, Template

Ids = tuple[int, ...]

UNDECODED: Final = "\ufffd"
LONGEST_HALF: Final = 3
"""Of a character's at most four bytes of UTF-8, so many can be there without the last."""


@dataclass(frozen=True, slots=True)
class Voice:
    """A model that answers, and on whose behalf."""

    side: Side
    model: PreTrainedModel
    tokenizer: Tokenizer
    context: int

    @classmethod
    def of(cls, side: Side, opened: Opened) -> Self:
        return cls(side, opened.model, opened.tokenizer, opened.context)


@dataclass(frozen=True, slots=True)
class Drawn:
    """One more token. ``probability`` is the model's own for it, before temperature, filters and
    penalty; ``text`` the whole answer so far, as far as it is certain: no half character, and no
    beginning of a stop sequence."""

    id: int
    probability: float
    text: str


@dataclass(frozen=True, slots=True)
class Answer:
    """A finished answer. ``ids`` are all that was drawn, the end of turn included; ``text``
    leaves it out. ``stopped`` says whether the model ended it, ``reason`` how it ended."""

    ids: Ids
    text: str
    stopped: bool
    reason: str


# -- the contract with training ---------------------------------------------------------------


def prompt_ids(example: Example, template: Template, tokenizer: Tokenizer) -> Ids:
    """What a model is sent so that it gives the last answer of ``example``: the tokens that
    stand before that answer in training. Raises TemplateError."""
    asked = replace(example, messages=example.prompt)
    rendered = render(template, asked, tokenizer.special_tokens, add_generation_prompt=True)
    return encode_prompt(rendered, tokenizer)


def prompts_of(
    examples: Iterable[Example], template: Template, tokenizer: Tokenizer
) -> Iterator[Ids | LabError]:
    """What ``prompt_ids`` gives for each example, in order; what fails is yielded as its error."""
    asked = (replace(example, messages=example.prompt) for example in examples)
    special = tokenizer.special_tokens
    for rendered in render_many(template, asked, special, add_generation_prompt=True):
        try:
            yield rendered if isinstance(rendered, LabError) else encode_prompt(rendered, tokenizer)
        except LabError as error:
            yield error


# -- one answer -------------------------------------------------------------------------------


def generate(
    voice: Voice,
    prompt: Sequence[int],
    stops: Sequence[Ids],
    config: GenerateConfig,
    should_stop: Callable[[], bool] = never,
) -> Iterator[Drawn | Answer]:
    """Yields each token as it is drawn and at last the Answer. Raises ModelError where the prompt
    fills the model's context."""
    require_context(voice.context, len(prompt))
    reader = _Reader(voice.model)
    sampler = Sampler(config, prompt)
    unread, drawn = list(prompt), list[int]()
    while True:
        ending = _ending(voice, len(prompt), drawn, stops, config.max_new_tokens)
        if ending is None and should_stop():
            ending = (False, ON_REQUEST)
        if ending is not None:
            yield Answer(tuple(drawn), _final_text(voice, drawn, stops, ending[0]), *ending)
            return
        token, probability = sampler.draw(reader.read(unread))
        drawn.append(token)
        unread = [token]
        yield Drawn(token, probability, certain_text(voice.tokenizer, drawn, stops))


class _Reader:
    """A model in the middle of one text: each token is computed once."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model.eval()
        self._past: Any = None
        self._ids: list[int] = []

    @torch.inference_mode()
    def read(self, ids: Sequence[int]) -> Tensor:
        """Reads on, and gives the logits (V,) of what comes next, in float32 on the CPU."""
        self._ids += ids
        fresh = self._ids if self._past is None else self._ids[-len(ids) :]
        place = self._model.device
        start = len(self._ids) - len(fresh)
        out = self._model(
            **arguments(
                self._model,
                input_ids=torch.tensor([fresh], device=place),
                attention_mask=torch.ones(1, len(self._ids), dtype=torch.long, device=place),
                position_ids=torch.arange(start, len(self._ids), device=place).unsqueeze(0),
                past_key_values=self._past,
                use_cache=True,
                logits_to_keep=1,
            )
        )
        # A model that keeps no such cache is shown the whole text every time.
        self._past = getattr(out, "past_key_values", None)
        logits: Tensor = out.logits[0, -1].float().cpu()
        return logits


def _ending(
    voice: Voice, prompt: int, drawn: Sequence[int], stops: Sequence[Ids], limit: int
) -> tuple[bool, str] | None:
    """(stopped by itself, in words), or None where the answer goes on."""
    for stop in stops:
        if tuple(drawn[-len(stop) :]) == stop:
            return True, f"Ended its turn with {voice.tokenizer.decode(stop)}"
    if len(drawn) >= limit:
        return False, f"Cut off after {limit} tokens, the limit for an answer."
    if prompt + len(drawn) >= voice.context:
        return False, f"Cut off: the model's context of {voice.context} tokens is full."
    return None


# -- what can be shown ------------------------------------------------------------------------


def certain_text(tokenizer: Tokenizer, drawn: Sequence[int], stops: Sequence[Ids]) -> str:
    """The text of an answer that goes on, without what the next token may still change."""
    body = drawn[: len(drawn) - _begun(drawn, stops)]
    return _without_half(tokenizer.decode(body))


def _final_text(voice: Voice, drawn: Sequence[int], stops: Sequence[Ids], stopped: bool) -> str:
    """The text of an answer that is over, without the end of turn."""
    if not stopped:
        return _without_half(voice.tokenizer.decode(drawn))
    ended = next(stop for stop in stops if tuple(drawn[-len(stop) :]) == stop)
    return voice.tokenizer.decode(drawn[: len(drawn) - len(ended)])


def _begun(drawn: Sequence[int], stops: Sequence[Ids]) -> int:
    """How many tokens at the end of ``drawn`` are a stop sequence or the beginning of one."""
    longest = max((len(stop) for stop in stops), default=0)
    for length in range(min(longest, len(drawn)), 0, -1):
        tail = tuple(drawn[len(drawn) - length :])
        if any(stop[:length] == tail for stop in stops):
            return length
    return 0


def _without_half(text: str) -> str:
    """Drops what stands for the first bytes of a character whose last one is not there yet."""
    end = len(text)
    while end > max(0, len(text) - LONGEST_HALF) and text[end - 1] == UNDECODED:
        end -= 1
    return text[:end]


# -- two side by side -------------------------------------------------------------------------


def compare(
    base: Voice,
    tuned: Voice | None,
    prompts: Sequence[Sequence[Message]],
    template: Template,
    config: GenerateConfig,
    should_stop: Callable[[], bool] = never,
) -> Iterator[AnswerEvent]:
    """Answers each prompt with both voices, a token of one and then a token of the other, so
    that both texts grow together. Both draw with the same seed. A prompt that does not fit into
    a model's context is answered with the sentence that says so; the others go on."""
    voices = (base,) if tuned is None else (base, tuned)
    stops = {
        voice.side: stop_sequences(template, voice.tokenizer, config.stop_tokens)
        for voice in voices
    }
    with threads_for(base.model):
        for number, messages in enumerate(prompts):
            example = Example(f"prompt {number + 1}", tuple(messages))
            seeded = replace(config, seed=config.seed + number)
            yield from _in_turns(
                _told(voice, number, example, template, stops[voice.side], seeded, should_stop)
                for voice in voices
            )
            if should_stop():
                return


def _in_turns(streams: Iterable[Iterator[AnswerEvent]]) -> Iterator[AnswerEvent]:
    """One event of each stream, and again, until all are over."""
    going = list(streams)
    while going:
        for stream in tuple(going):
            event = next(stream, None)
            if event is None:
                going.remove(stream)
            else:
                yield event


def _told(
    voice: Voice,
    number: int,
    example: Example,
    template: Template,
    stops: Sequence[Ids],
    config: GenerateConfig,
    should_stop: Callable[[], bool],
) -> Iterator[AnswerEvent]:
    """One voice's answer to one prompt as events. Time spent elsewhere is not counted."""
    ids = prompt_ids(example, template, voice.tokenizer)
    answer = Answer((), "", False, ON_REQUEST)
    seconds = 0.0
    tokens = 0
    began = time.perf_counter()
    try:
        for step in generate(voice, ids, stops, config, should_stop):
            seconds += time.perf_counter() - began
            if isinstance(step, Answer):
                answer = step
            else:
                tokens += 1
                yield TextGenerated(side=voice.side, prompt=number, text=step.text, tokens=tokens)
            began = time.perf_counter()
    except ModelError as error:
        answer = Answer((), "", False, str(error))
    yield Answered(
        side=voice.side,
        prompt=number,
        text=answer.text,
        stopped=answer.stopped,
        reason=answer.reason,
        ids=answer.ids,
        prompt_ids=ids,
        seconds=seconds,
    )


# -- many at once -----------------------------------------------------------------------------


def answer_batch(
    voice: Voice,
    prompts: Sequence[Sequence[int]],
    stops: Sequence[Ids],
    max_new_tokens: int,
    should_stop: Callable[[], bool] = never,
) -> list[Answer]:
    """Greedy answers to several prompts at once, the same that ``generate`` gives one by one.

    Prompts are filled up on the left, so that every row's next token stands last; positions
    count from each row's own first token. Rows leave the batch as they end. Raises ModelError
    where a prompt fills the model's context.
    """
    for prompt in prompts:
        require_context(voice.context, len(prompt))
    with reading(voice.model):
        return _answered(voice, prompts, stops, max_new_tokens, should_stop)


def _answered(
    voice: Voice,
    prompts: Sequence[Sequence[int]],
    stops: Sequence[Ids],
    max_new_tokens: int,
    should_stop: Callable[[], bool],
) -> list[Answer]:
    rows = _Rows(voice, prompts)
    answers: list[Answer | None] = [None] * len(prompts)
    while rows.left:
        stop_now = should_stop()
        for row, drawn in tuple(rows.left.items()):
            length = len(prompts[row])
            ending = _ending(voice, length, drawn, stops, max_new_tokens)
            if ending is None and stop_now:
                ending = (False, ON_REQUEST)
            if ending is not None:
                text = _final_text(voice, drawn, stops, ending[0])
                answers[row] = Answer(tuple(drawn), text, *ending)
        rows.keep([row for row in rows.left if answers[row] is None])
        if rows.left:
            rows.advance()
    return [answer for answer in answers if answer is not None]


class _Rows:
    """Texts that grow together. ``left`` maps the number of each that has not ended to the
    tokens that it has drawn; its order is that of the tensors' rows."""

    def __init__(self, voice: Voice, prompts: Sequence[Sequence[int]]) -> None:
        self._model = voice.model.eval()
        self.left: dict[int, list[int]] = {row: [] for row in range(len(prompts))}
        width = max(map(len, prompts), default=0)
        gaps = [width - len(prompt) for prompt in prompts]
        # Any id fills a gap, since the mask hides it; 0 exists in every model.
        ids = [[0] * gap + list(prompt) for gap, prompt in zip(gaps, prompts, strict=True)]
        mask = [[0] * gap + [1] * (width - gap) for gap in gaps]
        self._ids = torch.tensor(ids, device=voice.model.device)
        self._mask = torch.tensor(mask, device=voice.model.device)
        self._past: Any = None

    def keep(self, rows: Sequence[int]) -> None:
        """Forgets all rows but these."""
        if len(rows) == len(self.left):
            return
        order = list(self.left)
        at = torch.tensor([order.index(row) for row in rows], device=self._ids.device)
        self.left = {row: self.left[row] for row in rows}
        if rows:
            self._ids, self._mask = self._ids[at], self._mask[at]
            if self._past is not None:
                self._past.batch_select_indices(at)

    def advance(self) -> None:
        """Draws one more token for every row."""
        fresh = self._ids if self._past is None else self._ids[:, -1:]
        positions = (self._mask.cumsum(dim=1) - 1).clamp(min=0)
        out = self._model(
            **arguments(
                self._model,
                input_ids=fresh,
                attention_mask=self._mask,
                position_ids=positions[:, -fresh.shape[1] :],
                past_key_values=self._past,
                use_cache=True,
                logits_to_keep=1,
            )
        )
        self._past = getattr(out, "past_key_values", None)
        chosen = out.logits[:, -1].float().argmax(dim=-1, keepdim=True)
        self._ids = torch.cat([self._ids, chosen], dim=1)
        self._mask = torch.cat([self._mask, torch.ones_like(chosen)], dim=1)
        for drawn, token in zip(self.left.values(), chosen[:, 0].tolist(), strict=True):
            drawn.append(token)
