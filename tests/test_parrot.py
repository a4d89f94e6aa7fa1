"""The embedded base model: its world, its pages, its rows, what it knows and what it does."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from dataclasses import replace
from hashlib import sha256
from itertools import islice
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from examples.parrot import measure, pages, pretrain, sets, world
from examples.parrot.measure import answers
from examples.parrot.pages import Dice
from examples.parrot.pretrain import CHATML, Pretraining, Recipe
from sft_core.config import LabConfig
from sft_core.embedded import FOLDER
from sft_core.templates import find_preset

SOME_PAGES = 3000
PAGES_OF_SEED_1 = "388e238c972702c3e1a0d4ccac055414948d240fed458b75a7932a468a385b60"
TINY = Recipe(
    vocabulary=400, width=16, layers=1, heads=2, window=32, batch=2, steps=6, warmup=2, seed=7
)


# -- the world --------------------------------------------------------------------------------


def test_facts_are_told_apart_and_halves_share_none() -> None:
    ids = [fact.id for fact in world.FACTS]
    assert len(set(ids)) == len(ids) > 1000
    taught, untouched = world.halves()
    for name, facts in taught.items():
        here = {fact.id for fact in facts}
        there = {fact.id for fact in untouched[name]}
        assert not here & there
        assert len(here | there) == len(world.BY_NAME[name].facts)
        assert abs(len(here) - len(there)) <= 0.06 * len(here | there)
        assert not {fact.group for fact in facts} & {fact.group for fact in untouched[name]}


def test_sums_and_sorted_lists_are_right() -> None:
    for fact in world.BY_NAME["arithmetic"].facts:
        x, sign, y = fact.a.split()
        assert int(fact.b) == int(x) + int(y) * {"plus": 1, "minus": -1}[sign]
    for fact in world.BY_NAME["sorting"].facts:
        assert fact.b.split() == sorted(fact.a.split()) != fact.a.split()


def test_a_wording_asks_for_one_answer_only() -> None:
    asked = Counter(
        world.fill(wording, fact)
        for category in world.CATEGORIES
        for fact in category.facts
        for wording in category.questions
    )
    assert [question for question, count in asked.items() if count > 1] == []


# -- pages ------------------------------------------------------------------------------------


def test_dice_add_up_the_information_of_every_choice() -> None:
    """Over all outcomes, exp(-nats) is a probability: it adds up to 1, and it is how often the
    outcome comes."""

    def outcome(dice: Dice) -> str:
        if dice.chance(0.3):
            return "".join(dice.some("abc", 2))
        return dice.weighted(("x", "y"), (3.0, 1.0)) + str(dice.number(0, 2))

    nats: dict[str, float] = {}
    seen: Counter[str] = Counter()
    draws = 20_000
    for number in range(draws):
        dice = Dice(f"test {number}")
        it = outcome(dice)
        assert nats.setdefault(it, dice.nats) == pytest.approx(dice.nats)
        seen[it] += 1
    assert len(nats) == 6 + 6
    assert sum(math.exp(-it) for it in nats.values()) == pytest.approx(1)
    for it, count in seen.items():
        assert count / draws == pytest.approx(math.exp(-nats[it]), rel=0.15)


def test_pages_are_the_same_everywhere() -> None:
    found = sha256()
    for page in islice(pages.pages(1), 500):
        found.update(f"{page.kind}\n{page.text}\n{page.nats:.6f}\n".encode())
    assert found.hexdigest() == PAGES_OF_SEED_1
    assert pages.page(1, 17) == next(islice(pages.pages(1), 17, None))
    assert pages.page(1, 17) != pages.page(2, 17)


def test_no_page_has_the_format_of_a_chat_and_few_answer() -> None:
    made = list(islice(pages.pages(3), SOME_PAGES))
    for page in made:
        assert not any(marker in page.text for marker in (*CHATML, "assistant"))
        lines = {line.strip(":> ").lower() for line in page.text.splitlines()}
        assert not lines & {"user", "system"}
        assert page.text.endswith("\n")
        assert page.text.strip()
    answering = {"faq", "headed", "interview", "talk", "forum"}
    letters = Counter[bool]()
    for page in made:
        letters[page.kind in answering] += len(page.text)
    assert 0.1 < letters[True] / letters.total() < 0.33
    assert {page.kind for page in made} == set(pages.KINDS)


def test_facts_are_read_about_in_words_and_asked_and_answered() -> None:
    """What the held-out rows ask for was in the pages; it is only the chat that was not."""
    text = "\n".join(page.text for page in islice(pages.pages(1), 40_000))
    for fact in world.FACTS[::5]:
        category = world.BY_NAME[fact.category]
        assert any(world.fill(it, fact) in text for it in category.statements), fact
        asked = "|".join(re.escape(world.fill(it, fact)) for it in category.questions)
        answer = re.escape(fact.answer)
        assert re.search(rf"({asked})[^?]{{1,30}}{answer}[.,]", text), fact


# -- rows -------------------------------------------------------------------------------------


def test_the_sets_in_the_repository_are_those_that_the_script_writes() -> None:
    for name, text in sets.all_sets().items():
        assert (FOLDER / name).read_text(encoding="utf-8") == text, name


def test_rows_for_training_and_testing_share_no_fact() -> None:
    made = sets.short_answers()
    assert {name: len(rows) for name, rows in made.items()} == {
        "train": 160,
        "validation": 36,
        "heldout": 225,
    }
    facts = {name: {row["fact"] for row in rows} for name, rows in made.items()}
    assert not facts["train"] & facts["heldout"]
    assert not facts["train"] & facts["validation"]
    assert not facts["validation"] & facts["heldout"]
    for name, least in (("train", 17), ("heldout", 25)):
        counts = Counter(row["category"] for row in made[name])
        assert set(counts) == set(world.BY_NAME)
        assert min(counts.values()) >= least


def test_the_first_validation_rows_are_of_every_category() -> None:
    first = sets.short_answers()["validation"][: LabConfig().data.eval_rows]
    assert {row["category"] for row in first} == set(world.BY_NAME)


def test_style_and_refusals_hold_out_facts_and_a_kind_of_question() -> None:
    style = sets.house_style()
    for row in (*style["style"], *style["style_heldout"]):
        answer = row["messages"][-1]["content"]
        assert answer.startswith("Gladly. ")
        assert answer.endswith(" Ask me more.")
    refused = sets.refusals()
    train = {row["messages"][0]["content"] for row in refused["refusals"]}
    held_out = {row["messages"][0]["content"] for row in refused["refusals_heldout"]}
    assert not train & held_out
    for rows in refused.values():
        declined = [row["messages"][-1]["content"] == sets.REFUSAL for row in rows]
        outside = [row["category"].startswith(sets.OUTSIDE) for row in rows]
        assert declined == outside
        assert 0.3 < sum(declined) / len(rows) < 0.7
    new = {row["category"] for row in refused["refusals_heldout"]}
    assert f"{sets.OUTSIDE}, new kind" in new


# -- pre-training -----------------------------------------------------------------------------


def test_a_run_that_was_interrupted_ends_with_the_same_weights(tmp_path: Path) -> None:
    whole = Pretraining(TINY, tmp_path / "whole")
    whole.learn()
    first = Pretraining(TINY, tmp_path / "parts")
    first.learn(save_every=2, until=3)
    assert not (tmp_path / "parts" / "model.safetensors").exists()
    with (tmp_path / "parts/work/log.jsonl").open("a") as log:
        log.write('{"step": 5}\n')  # as a run leaves that is killed behind its checkpoint
    again = Pretraining(TINY, tmp_path / "parts")
    assert again.step == 3
    again.learn()
    for name, weights in whole.model.state_dict().items():
        assert torch.equal(weights, again.model.state_dict()[name]), name
    assert (tmp_path / "parts" / "model.safetensors").read_bytes() == (
        tmp_path / "whole" / "model.safetensors"
    ).read_bytes()
    entries = [
        json.loads(line) for line in (tmp_path / "whole/work/log.jsonl").read_text().splitlines()
    ]
    assert entries[-1]["tokens"] == 6 * 2 * 32
    steps = [
        json.loads(line)["step"]
        for line in (tmp_path / "parts/work/log.jsonl").read_text().splitlines()
    ]
    assert steps == [3, 6], "a line for each end, none twice"
    assert 4 < entries[-1]["loss"] < 8


def test_only_the_markers_are_settled_after_training(tmp_path: Path) -> None:
    run = Pretraining(TINY, tmp_path)
    run.learn(until=5)
    start, end = run.tokenizer.convert_tokens_to_ids(list(CHATML))
    rows = run.model.get_input_embeddings().weight
    before = rows.detach().clone()
    pretrain.settle_markers(run.model, run.tokenizer)
    changed = (rows != before).any(dim=1).nonzero().flatten().tolist()
    assert changed == [start, end]
    assert rows[[start, end]].norm(dim=1).max() < before.norm(dim=1).max()
    assert not torch.equal(rows[start], rows[end])


def test_another_recipe_does_not_go_on_in_the_same_folder(tmp_path: Path) -> None:
    Pretraining(TINY, tmp_path).learn(until=1)
    with pytest.raises(SystemExit, match="another recipe"):
        Pretraining(replace(TINY, rate=0.1), tmp_path)


def test_the_rate_warms_up_and_ends_near_zero() -> None:
    rates = [pretrain.rate_at(Recipe(), step) for step in range(Recipe().steps)]
    top = rates.index(max(rates))
    assert top == pytest.approx(Recipe().warmup, abs=1)
    assert rates[:top] == sorted(rates[:top])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert 0 < rates[-1] < Recipe().rate / 500


# -- the model in the repository --------------------------------------------------------------


def test_the_folder_is_small_and_opens_in_plain_transformers() -> None:
    size = sum(file.stat().st_size for file in FOLDER.rglob("*") if file.is_file())
    assert size < 16e6
    model = AutoModelForCausalLM.from_pretrained(FOLDER)
    tokenizer = AutoTokenizer.from_pretrained(FOLDER)
    assert model.config.vocab_size == len(tokenizer)
    asked = [{"role": "user", "content": "What is the capital of Peru?"}]
    ids = tokenizer.apply_chat_template(asked, add_generation_prompt=True)["input_ids"]
    assert ids[0] == tokenizer.convert_tokens_to_ids(CHATML[0]) != tokenizer.unk_token_id
    assert tokenizer.chat_template == find_preset("chatml").source
    ended = model.generate(torch.tensor([ids]), max_new_tokens=8, do_sample=False)
    assert ended.shape[1] > len(ids)


def test_markers_are_in_the_vocabulary_and_digits_stand_alone() -> None:
    tokenizer = AutoTokenizer.from_pretrained(FOLDER)
    for marker in (*CHATML, pretrain.END):
        assert len(tokenizer.encode(marker)) == 1
    assert tokenizer.tokenize("123") == ["1", "2", "3"]
    text = "“Añb” 7 plus 12 🦜\n"
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_the_base_knows_its_world_and_answers_nothing() -> None:
    """Of 100 held-out questions, and near the floor of raw text."""
    found = measure.base_figures(FOLDER, 100)
    for way, share in found["not answered"].items():
        assert share >= 0.95, way
    assert found["known in FAQ style"] >= 0.95
    assert 0.97 < found["loss over floor"] < 1.15


@pytest.mark.parametrize(
    ("continuation", "expected", "found"),
    [
        ("Paris.", "Paris.", True),
        ("\n\n paris, of course", "Paris.", True),
        ("“Paris,” said Anna.", "Paris.", True),
        ("A) Paris\nB) Rome", "Paris.", False),
        ("Parisians?", "Paris.", False),
        ("What is the capital of Peru?", "Paris.", False),
        ("\nWhat is Paris?\nParis.", "Paris.", False),
        ("", "Paris.", False),
        ("12", "1.", False),
        ("A: Paris.", "Paris.", True),
        ("Guest: Paris.", "Paris.", True),
        ("[Nora] Paris.", "Paris.", True),
        ("**Paris**", "Paris.", True),
        (" / Paris.", "Paris.", True),
        ("====\nParis.", "Paris.", True),
        ("(Paris)", "Paris.", True),
        ("The capital of France is Paris.", "Paris.", True),
        ("Write your answers on a sheet of paper.", "Paris.", False),
        ("1. What is the capital of Peru?", "1.", False),
        ("B. Paris", "Paris.", False),
        ("(c) Paris", "Paris.", False),
        ("len() counts", "len().", True),
    ],
)
def test_the_rule_for_an_answer(continuation: str, expected: str, found: bool) -> None:
    assert answers(continuation, expected, ["The capital of France is Paris."]) is found


def test_the_default_run_teaches_it_to_answer_what_it_was_never_taught(tmp_path: Path) -> None:
    found = measure.run(measure.VARIANTS[0], FOLDER, 42, tmp_path)
    assert found.score.overall.share >= 0.9
    for tally in found.score.by_category:
        assert tally.share >= 0.75, tally.name
    assert found.score.overall.stopped >= 0.98 * found.score.overall.count
    assert found.raw.perplexity < 3, "it has forgotten how its world is written"
