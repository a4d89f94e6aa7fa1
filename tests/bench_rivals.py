"""How often each rival trains what the lab trains: ``python -m tests.bench_rivals``.

Over the lab's presets and the tests' odd templates, each with the tests' conversations: the share
of pairs in which a rival does exactly the same; in which it trains the same characters, whatever
the ids; in which it trains the same but for what stands between an answer's end and the next turn;
and, for the rest, what goes wrong, by kind. Any tokenizer can be measured: a built-in name or a
folder.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator

from sft_core import sandbox
from sft_core.config import MaskPolicy
from sft_core.encode import encode
from sft_core.rivals import RIVALS, Difference, Kind, compare, mask
from sft_core.templates import PRESETS
from sft_core.tokenizer import Tokenizer, load_tokenizer
from sft_core.types import LabError, Template
from tests.sample_templates import DIALOGUE, SAMPLES, examples

BEHIND = "behind the end of the turn"
Pair = tuple[str, tuple[Difference, ...]]


def pairs(tokenizer: Tokenizer, name: str, own: bool) -> Iterator[Pair]:
    """(conversation, differences) for each pair that the lab itself can encode."""
    sources = {preset.name: preset.source for preset in PRESETS.values()} | SAMPLES
    chosen = dict(tokenizer.chat_templates) if own else sources
    for source in chosen.values():
        template = Template("t", source)
        for example in [*examples(), DIALOGUE]:
            try:
                rendered = sandbox.render(template, example, tokenizer.special_tokens)
                encoded = encode(rendered, tokenizer, MaskPolicy())
                made = mask(name, template, example, tokenizer, MaskPolicy())
            except LabError:
                continue
            yield example.id, compare(encoded, rendered, made)


def measure(tokenizer: Tokenizer, own: bool) -> None:
    print(f"\n{tokenizer.name}, {'its own template' if own else 'presets and samples'}")
    head = f"{'':16s}{'pairs':>7s}{'same':>8s}{'labels':>8s}{'almost':>8s}"
    print(f"{head}   what goes wrong, % of pairs")
    for name in RIVALS:
        found = [differences for _, differences in pairs(tokenizer, name, own)]
        if not found:
            print(f"{name:16s}{0:7d}")
            continue
        labels = [[it for it in one if it.kind is not Kind.OTHER_IDS] for one in found]
        almost = [[it for it in one if BEHIND not in it.sentence] for one in labels]
        kinds = Counter(kind for one in found for kind in {it.kind for it in one})
        shares = "".join(
            f"{100 * sum(not one for one in each) / len(found):8.1f}"
            for each in (found, labels, almost)
        )
        causes = ", ".join(f"{kind} {100 * n / len(found):.0f}" for kind, n in kinds.most_common())
        print(f"{name:16s}{len(found):7d}{shares}   {causes}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tokenizers", nargs="*", default=["smollm2-135m-instruct", "bytes"])
    parser.add_argument("--own", action="store_true", help="the tokenizers' own templates instead")
    chosen = parser.parse_args()
    for name in chosen.tokenizers:
        measure(load_tokenizer(name), chosen.own)


if __name__ == "__main__":
    main()
