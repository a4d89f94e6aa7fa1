"""How often each rival trains what the lab trains: ``python -m tests.bench_rivals``.

Over the lab's presets and the tests' odd templates, each with the tests' conversations: the share
of pairs in which a rival does exactly the same; in which it trains the same characters, whatever
the ids; in which it trains the same but for what stands between an answer's end and the next turn;
and, for the rest, what goes wrong, by kind. Any tokenizer can be measured, a built-in name or a
folder, and any data file instead of the tests' conversations.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence

from sft_core import data, sandbox
from sft_core.config import DataConfig, MaskPolicy
from sft_core.encode import encode
from sft_core.rivals import RIVALS, Difference, Kind, compare, mask
from sft_core.templates import PRESETS, find_preset
from sft_core.tokenizer import Tokenizer, load_tokenizer
from sft_core.types import Example, LabError, Template
from tests.sample_templates import DIALOGUE, SAMPLES, examples

BEHIND = "behind the end of the turn"


def pairs(
    tokenizer: Tokenizer, name: str, sources: Sequence[str], rows: Sequence[Example]
) -> Iterator[tuple[Difference, ...]]:
    """The differences of each pair that the lab itself can encode."""
    for source in sources:
        template = Template("t", source)
        for example in rows:
            try:
                rendered = sandbox.render(template, example, tokenizer.special_tokens)
                encoded = encode(rendered, tokenizer, MaskPolicy())
                made = mask(name, template, example, tokenizer, MaskPolicy())
            except LabError:
                continue
            yield compare(encoded, rendered, made)


def measure(tokenizer: Tokenizer, sources: Sequence[str], rows: Sequence[Example]) -> None:
    print(f"\n{tokenizer.name}: {len(sources)} templates, {len(rows)} conversations")
    head = f"{'':16s}{'pairs':>7s}{'same':>8s}{'labels':>8s}{'almost':>8s}"
    print(f"{head}   what goes wrong, % of pairs")
    for name in RIVALS:
        found = list(pairs(tokenizer, name, sources, rows))
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
    parser.add_argument("--preset", help="this template only")
    parser.add_argument("--rows", help="a data file instead of the tests' conversations")
    parser.add_argument("--limit", type=int, default=300, help="rows of it")
    chosen = parser.parse_args()
    rows = [*examples(), DIALOGUE]
    if chosen.rows:
        rows = list(data.load(DataConfig(chosen.rows, rows=chosen.limit)).examples)
    presets = [preset.source for preset in PRESETS.values()]
    sources = (
        [find_preset(chosen.preset).source] if chosen.preset else [*presets, *SAMPLES.values()]
    )
    for name in chosen.tokenizers:
        tokenizer = load_tokenizer(name)
        own = list(tokenizer.chat_templates.values())
        measure(tokenizer, own if chosen.own else sources, rows)


if __name__ == "__main__":
    main()
