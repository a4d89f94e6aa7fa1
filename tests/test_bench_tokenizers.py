"""What ``bench_tokenizers`` asks of real tokenizers, asked of those that are at hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoTokenizer

from sft_core import catalogue
from sft_core.templates import PRESETS
from sft_core.tokenizer import Tokenizer, load_tokenizer
from tests import bench_tokenizers
from tests.bench_tokenizers import Tally, judge
from tests.sample_templates import CONVERSATIONS
from tests.test_encode import merging
from tests.trained_tokenizers import FAMILIES

FORGETS_SYSTEM = (
    "{% for m in messages %}{% if m.role != 'system' or messages[-1].role == 'user' %}"
    "{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
"""As Mistral's: the system text is printed only while an answer is asked for."""


def judged(tokenizer: Tokenizer, template: str, folder: Path) -> Tally:
    owner = Tokenizer(
        tokenizer.name, tokenizer.backend, tokenizer.special_tokens, {"default": template}
    )
    owner.save(folder)
    return judge(tokenizer.name, load_tokenizer(str(folder)), AutoTokenizer.from_pretrained(folder))


@pytest.mark.model
def test_smollm2_with_its_own_template(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(catalogue.SMOLLM2)
    tokenizer.save(tmp_path)
    tally = judge(tokenizer.name, tokenizer, AutoTokenizer.from_pretrained(tmp_path))
    assert tally.turns == tally.equal == 18
    assert tally.theirs == {"same": 17, "forged": 1}
    assert not [*tally.refused, *tally.false, *tally.true, *tally.unexplained]


@pytest.mark.parametrize("family", FAMILIES)
def test_trained_tokenizers_by_the_same_rule(family: str, tmp_path: Path) -> None:
    tally = judged(FAMILIES[family](), PRESETS["chatml"].source, tmp_path)
    assert tally.turns == tally.equal == 18
    assert not tally.theirs["unexplained"]
    assert not [*tally.refused, *tally.false, *tally.true, *tally.unexplained]


def test_a_prompt_that_others_would_not_cut_is_told_apart(tmp_path: Path) -> None:
    glued = "{% for m in messages %}{{ m.role + ':' + m.content + '/' }}{% endfor %}"
    glued += "{% if add_generation_prompt %}assistant:{% endif %}"
    tally = judged(merging(":H"), glued, tmp_path)
    assert tally.turns == tally.equal
    assert tally.theirs["cut"] == 1
    assert not tally.theirs["unexplained"]


def test_a_template_that_asks_otherwise_is_named_by_the_doctor(tmp_path: Path) -> None:
    tally = judged(FAMILIES["byte-level"](), FORGETS_SYSTEM, tmp_path)
    assert (tally.turns - tally.equal, tally.named) == (1, 1)
    assert "prompt-not-prefix" in tally.true[0]
    assert not tally.false


def test_a_template_that_refuses_is_counted_with_the_sentence(tmp_path: Path) -> None:
    picky = "{% if messages | length > 2 %}{{ raise_exception('Two at most') }}{% endif %}"
    tally = judged(FAMILIES["byte-level"](), picky + PRESETS["chatml"].source, tmp_path)
    longer = [messages for messages in CONVERSATIONS.values() if len(messages) > 2]
    assert len(tally.refused) == len(longer)
    assert "Two at most" in tally.refused[0]


def test_the_table_needs_eight_with_a_template(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = FAMILIES["byte-level"]()
    for name, templates in (("one", {"default": PRESETS["chatml"].source}), ("bare", {})):
        Tokenizer(name, own.backend, own.special_tokens, templates).save(tmp_path / name)
    monkeypatch.setattr(
        bench_tokenizers, "library", lambda *_: [(it, tmp_path / it) for it in ("one", "bare")]
    )
    assert not bench_tokenizers.bench()
    printed = capsys.readouterr().out
    assert "brings no template" in printed
    assert "18 same" in printed or "17 same" in printed
    monkeypatch.setattr(bench_tokenizers, "LEAST", 1)
    assert bench_tokenizers.bench()
