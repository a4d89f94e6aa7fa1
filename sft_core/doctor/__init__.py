"""What is wrong with a template, a tokenizer, conversations and a policy together.

``examine`` runs every check in ``CHECKS`` over one conversation and gives their findings, the
gravest first; ``doctor`` does so for many and gives one finding a fault, with the rows that have
it. A check is a generator over a ``Case``; to add one, write it and add it there. Codes are
stable: other tools may rely on them.

case      what a check is given
answers   is anything trained, and nothing but answers?
ends      do answers end, and does generation stop there?
turns     who speaks after whom, and what do earlier turns become?
content   is what the messages say in the text, as they say it?
markers   are special tokens whole, and nobody's forgery?
prompts   does generation send what training saw?
tags      do generation tags enclose the answers?
wording   can the tokenizer write the text?
own       what would the tokenizer's own template do?
remedies  templates mended mechanically, and proved
survey    the findings of many rows as one
"""

from __future__ import annotations

from sft_core.config import GenerateConfig, MaskPolicy
from sft_core.doctor import remedies
from sft_core.doctor.case import Setting
from sft_core.doctor.checks import CHECKS, look
from sft_core.doctor.survey import Findings, doctor, unreadable_rows
from sft_core.tokenizer import Tokenizer
from sft_core.types import Example, Finding, Template

__all__ = ["CHECKS", "Findings", "doctor", "examine", "unreadable_rows"]


def examine(
    template: Template,
    tokenizer: Tokenizer,
    example: Example,
    policy: MaskPolicy,
    max_length: int | None = None,
    generate_config: GenerateConfig | None = None,
) -> tuple[Finding, ...]:
    """Everything that is wrong with this conversation in this setting, gravest first.

    ``tokens`` of a finding are positions in what ``encode`` gives without a length limit. Never
    raises for what is wrong with template or text: that is a finding too.
    """
    setting = Setting(template, tokenizer, policy, generate_config or GenerateConfig(), max_length)
    return remedies.with_remedies(look(setting, example), setting, example, look)
