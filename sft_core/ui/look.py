"""One conversation looked at through the contract: its text, its tokens, what generation sends,
and what the doctor says. The same ``render`` and ``encode`` as in training, nothing else."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from sft_core import doctor, embedded, sandbox, templates
from sft_core.catalogue import Origin, find
from sft_core.config import LabConfig, MissingTokens
from sft_core.encode import encode, encode_prompt, missing_tokens
from sft_core.tokenizer import Tokenizer, load_tokenizer
from sft_core.types import (
    Encoded,
    Example,
    Finding,
    HubError,
    LabError,
    ModelError,
    Rendered,
    Severity,
    Template,
    TemplateError,
    TokenizerError,
)

OUT_OF_REACH: Final = "model-out-of-reach"
STUCK: Final = "cannot-go-on"
"""Codes of what stops a look before the doctor could say more."""


@dataclass(frozen=True, slots=True)
class Look:
    """What was found, as far as it got; ``error`` is what stopped it.

    ``missing`` are the markers that the tokenizer lacks and ``added`` those that were added to it.
    ``prompt`` and ``prompt_ids`` are what generation sends for the last answer.
    """

    config: LabConfig
    example: Example
    template: Template | None = None
    tokenizer: Tokenizer | None = None
    missing: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    rendered: Rendered | None = None
    encoded: Encoded | None = None
    prompt: str = ""
    prompt_ids: tuple[int, ...] = ()
    findings: tuple[Finding, ...] = ()
    error: LabError | None = None

    @property
    def answer_start(self) -> int | None:
        """The character at which the last answer begins; None where there is no answer."""
        starts = self.rendered.answer_starts() if self.rendered else ()
        return starts[-1][1] if starts else None

    @property
    def cut(self) -> int | None:
        """The first token of the last answer, counted over kept and dropped tokens alike."""
        start, encoded = self.answer_start, self.encoded
        if start is None or encoded is None:
            return None
        tokens = (*encoded.tokens, *encoded.dropped)
        return next((at for at, token in enumerate(tokens) if token.start >= start), None)

    @property
    def differs_at(self) -> int | None:
        """The first position where training and generation send different tokens; None where
        generation sends exactly what stood before the answer (law 2)."""
        cut, encoded = self.cut, self.encoded
        if cut is None or encoded is None:
            return None
        before = tuple(token.id for token in (*encoded.tokens, *encoded.dropped)[:cut])
        if before == self.prompt_ids:
            return None
        pairs = zip(before, self.prompt_ids, strict=False)
        shorter = min(len(before), len(self.prompt_ids))
        return next((at for at, (one, other) in enumerate(pairs) if one != other), shorter)


def look(config: LabConfig, example: Example) -> Look:
    """Looks at ``example`` as the run of ``config`` would. Never raises a LabError: what could
    not be done is in ``error``, and what could stays."""
    seen = Look(config, example)
    try:
        seen = _open(seen)
        seen = _encode(seen)
        seen = _prompt(seen)
    except LabError as error:
        seen = replace(seen, error=error)
    return replace(seen, findings=_findings(seen))


def _open(seen: Look) -> Look:
    tokenizer = load_tokenizer(find(seen.config.model.name).tokenizer)
    seen = replace(seen, tokenizer=tokenizer)
    template = templates.resolve(seen.config.template, tokenizer)
    missing = missing_tokens(template, tokenizer)
    seen = replace(seen, template=template, missing=missing)
    if missing and seen.config.model.missing_tokens is MissingTokens.ADD:
        seen = replace(seen, tokenizer=tokenizer.with_tokens(missing), added=missing)
    return seen


def _encode(seen: Look) -> Look:
    assert seen.template is not None
    assert seen.tokenizer is not None
    tokenizer = seen.tokenizer
    rendered = sandbox.render(seen.template, seen.example, tokenizer.special_tokens)
    seen = replace(seen, rendered=rendered)
    encoded = encode(rendered, tokenizer, seen.config.policy, limit(seen.config))
    return replace(seen, encoded=encoded)


def limit(config: LabConfig) -> int:
    """The length that rows are cut to, as far as the page can know it: the context of a model from
    elsewhere is known only once it is opened."""
    longest = config.train.max_length
    match find(config.model.name).origin:
        case Origin.RANDOM:
            return min(longest, config.model.context)
        case Origin.EMBEDDED:
            return min(longest, embedded.context() or longest)
    return longest


def _prompt(seen: Look) -> Look:
    assert seen.template is not None
    assert seen.tokenizer is not None
    if not seen.example.prompt or len(seen.example.prompt) == len(seen.example.messages):
        return seen
    asked = replace(seen.example, messages=seen.example.prompt)
    special = seen.tokenizer.special_tokens
    prompt = sandbox.render(seen.template, asked, special, add_generation_prompt=True)
    return replace(seen, prompt=prompt.text, prompt_ids=encode_prompt(prompt, seen.tokenizer))


def _findings(seen: Look) -> tuple[Finding, ...]:
    """The doctor's findings; a problem that stopped the look stands first."""
    own = (_as_finding(seen.error),) if seen.error else ()
    if seen.template is None or seen.tokenizer is None:
        return own
    try:
        found = doctor.examine(
            seen.template,
            seen.tokenizer,
            seen.example,
            seen.config.policy,
            limit(seen.config),
            seen.config.generate,
        )
    except LabError as error:
        return own or (_as_finding(error),)
    if not own or not any(finding.message.startswith(own[0].message) for finding in found):
        return *own, *found
    # The doctor met the same problem and says more of it; where it stands may be known only here.
    first = own[0]
    return tuple(
        replace(it, line=first.line, column=first.column)
        if it.message.startswith(first.message) and it.line is None
        else it
        for it in found
    )


def _as_finding(error: LabError) -> Finding:
    elsewhere = isinstance(error, (TokenizerError, HubError, ModelError))
    code = OUT_OF_REACH if elsewhere else STUCK
    finding = Finding(code, Severity.ERROR, str(error))
    if isinstance(error, TemplateError):
        return replace(finding, line=error.line, column=error.column)
    return finding
