"""What a job about models works with: whose run, which models, which templates.

The models that were used last stay open on a shelf in the compute process, so that a second
comparison starts at once. Nothing here imports torch before a model is opened.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Generator, Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from sft_core.catalogue import find
from sft_core.config import LabConfig, TemplateConfig
from sft_core.encode import encode
from sft_core.events import Event, PhaseEntered, Side
from sft_core.rundir import RunDirectory
from sft_core.sandbox import render
from sft_core.templates import resolve
from sft_core.tokenizer import load_tokenizer
from sft_core.types import Example, ModelError, Template

if TYPE_CHECKING:
    from sft_core.generate import Voice
    from sft_core.models import Opened

SHELF_SIZE: Final = 2
_SHELF: Final[OrderedDict[Hashable, Voice]] = OrderedDict()


def clear_shelf() -> None:
    """Closes every open model."""
    _SHELF.clear()


def _from_shelf(key: Hashable, open_it: Callable[[], Voice]) -> Voice:
    """The open model of that key; opened now, in the place of the one least recently used, where
    it is not there."""
    if key not in _SHELF:
        while len(_SHELF) >= SHELF_SIZE:
            _SHELF.popitem(last=False)
        _SHELF[key] = open_it()
    _SHELF.move_to_end(key)
    return _SHELF[key]


@dataclass(frozen=True, slots=True)
class Scene:
    """``template`` is the one that the run trains with, ``asked`` the one that prompts are written
    in: another only where somebody wants to see what that does."""

    directory: RunDirectory | None
    config: LabConfig
    template: Template
    asked: Template

    @classmethod
    def of(
        cls, run_dir: Path | None, config: LabConfig, template: TemplateConfig | None = None
    ) -> Self:
        """With ``run_dir``, configuration and template are those of that run, whatever ``config``
        says. ``template`` is for prompts alone. Raises RunNotFoundError or TemplateError."""
        directory = RunDirectory.open(run_dir) if run_dir else None
        if directory:
            config = directory.config()
        trained = directory.template() if directory else None
        if trained is None:
            trained = _resolved(config, config.template)
        asked = trained if template is None else _resolved(config, template)
        return cls(directory, config, trained, asked)

    def voice(self, side: Side) -> Generator[Event, None, Voice]:
        """Says what it does, and returns the opened model."""
        yield PhaseEntered(phase=f"Opening the {side} model")
        return self._base() if side is Side.BASE else self._tuned()

    def _base(self) -> Voice:
        """The model as it was before the first step, random weights included."""
        from sft_core.models import open_model

        config, seed = self.config.model, self.config.train.seed
        key = (config, self.template, seed)
        return _from_shelf(key, lambda: _voice(Side.BASE, open_model(config, self.template, seed)))

    def _tuned(self) -> Voice:
        from sft_core.models import open_folder

        folder = self.directory.weights() if self.directory else None
        if folder is None:
            raise ModelError(
                "This run has saved no weights: it ended before its first checkpoint. Start it "
                "again, and let it take a few steps more."
            )
        written = max(file.stat().st_mtime_ns for file in folder.glob("*.safetensors"))
        key = (folder, written)
        return _from_shelf(key, lambda: _voice(Side.TUNED, open_folder(folder)))

    def losses(self, voice: Voice, example: Example) -> tuple[float | None, ...]:
        """The loss of each token of ``example``; None for the first."""
        import torch

        from sft_core.loss import per_token_loss
        from sft_core.models import arguments

        tokenizer = voice.tokenizer
        rendered = render(self.template, example, tokenizer.special_tokens)
        encoded = encode(rendered, tokenizer, self.config.policy, self.config.train.max_length)
        ids = torch.tensor([encoded.ids], device=voice.model.device)
        with torch.inference_mode():
            inputs = arguments(voice.model, input_ids=ids, attention_mask=torch.ones_like(ids))
            logits = voice.model.eval()(**inputs).logits
        found = per_token_loss(logits, ids)[0].tolist()
        return (None, *found[1:])


def _resolved(config: LabConfig, template: TemplateConfig) -> Template:
    """A template by its configuration, which may mean the one of the base model's tokenizer."""
    return resolve(template, load_tokenizer(find(config.model.name).tokenizer))


def _voice(side: Side, opened: Opened) -> Voice:
    from sft_core.generate import Voice
    from sft_core.models import device

    voice = Voice.of(side, opened)
    voice.model.to(device())
    return voice
