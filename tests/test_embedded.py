"""The parrot's files are found beside the package, and a copy that lacks one says so."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sft_core import embedded
from sft_core.catalogue import find, installed
from sft_core.config import LabConfig, ModelConfig
from sft_core.models import context, open_model, size
from sft_core.tokenizer import load_tokenizer
from sft_core.types import DataError, Example, Message, ModelError, TokenizerError
from sft_core.weights import whole_folder

ROOT = Path(__file__).resolve().parents[1]
CHAT_MARKERS = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")


@pytest.fixture
def partial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout without the parrot."""
    monkeypatch.setattr(embedded, "FOLDER", tmp_path)
    return tmp_path


def test_the_files_lie_in_this_checkout() -> None:
    assert embedded.here()
    assert embedded.model_folder() == ROOT / "examples" / "parrot"
    for files in embedded.ROWS.values():
        for name in (files.train, files.held_out, files.validation):
            assert name is None or embedded.rows_file(name).parent == embedded.FOLDER


def test_they_are_found_wherever_the_lab_is_started_from(tmp_path: Path) -> None:
    code = "from sft_core import embedded; print(embedded.model_folder())"
    ran = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); {code}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert Path(ran.stdout.strip()) == embedded.FOLDER


def test_a_folder_of_the_same_name_is_not_taken_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "parrot").mkdir()
    monkeypatch.chdir(tmp_path)
    assert whole_folder(find("parrot"), None) == embedded.FOLDER
    assert load_tokenizer("parrot").token_to_id(CHAT_MARKERS[0]) is not None


def test_its_tokenizer_knows_the_chat_markers_as_single_tokens() -> None:
    tokenizer = load_tokenizer("parrot")
    assert set(CHAT_MARKERS) <= set(tokenizer.added)
    ids = [tokenizer.token_to_id(marker) for marker in CHAT_MARKERS]
    assert None not in ids
    assert len(set(ids)) == 3
    assert "default" in tokenizer.chat_templates


def test_the_model_opens_with_room_for_every_token() -> None:
    opened = open_model(ModelConfig(name="parrot"), None, seed=0)
    counted = size(ModelConfig(name="parrot"))
    assert opened.parameters == counted.parameters < 5_000_000
    assert opened.context == context(ModelConfig(name="parrot")) == embedded.context()
    assert opened.context >= LabConfig().train.max_length
    assert opened.model.get_input_embeddings().num_embeddings >= opened.tokenizer.vocab_size
    assert opened.added == ()


# -- where it is missing ----------------------------------------------------------------------


@pytest.mark.parametrize("name", embedded.MODEL_FILES)
def test_each_missing_file_is_named_with_what_to_do(partial: Path, name: str) -> None:
    for other in embedded.MODEL_FILES:
        if other != name:
            (partial / other).touch()
    assert not embedded.here()
    assert embedded.context() is None
    assert not installed(find("parrot"))
    with pytest.raises(ModelError, match=rf"lacks examples/parrot/{name}\. Fetch .* bytes-gpt"):
        embedded.model_folder()


def test_model_tokenizer_and_rows_say_it_alike(partial: Path) -> None:
    with pytest.raises(ModelError, match="lacks examples/parrot"):
        size(ModelConfig(name="parrot"))
    with pytest.raises(TokenizerError, match="lacks examples/parrot"):
        load_tokenizer("parrot")
    with pytest.raises(DataError, match=r"lacks examples/parrot/train\.jsonl"):
        embedded.rows_file("train.jsonl")


def test_other_models_go_on_without_it(partial: Path) -> None:
    config = ModelConfig(name="bytes-gpt", width=16, depth=1, heads=2)
    assert open_model(config, None, seed=0).parameters > 0
    assert installed(find("bytes-gpt"))


def test_the_parrot_renders_its_own_template_as_chatml() -> None:
    from sft_core.config import TemplateConfig
    from sft_core.sandbox import render
    from sft_core.templates import resolve

    tokenizer = load_tokenizer("parrot")
    example = Example("r", (Message("user", "Hi"), Message("assistant", "Yes")))
    texts = [
        render(resolve(TemplateConfig(name), tokenizer), example, tokenizer.special_tokens).text
        for name in ("tokenizer", "chatml")
    ]
    assert texts[0].rstrip() == texts[1].rstrip()
