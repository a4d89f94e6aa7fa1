"""The lab beside transformers' ``return_assistant_tokens_mask``, on templates with generation tags.

Both are asked for the same conversations with the same tokenizer, and compared token by token. For
each side it is worked out what its own tokens would be if every token were trained that overlaps
what the author enclosed; where a side differs from that, or where the two read other ids, the cause
is found out from how the side works. What no cause explains is counted as unexplained.
"""

from __future__ import annotations

import logging
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import jinja2
import transformers
from jinja2 import nodes
from transformers import AutoTokenizer
from transformers.utils.chat_template_utils import render_jinja_template

from sft_core import templates
from sft_core.config import MaskPolicy, TrainOn
from sft_core.encode import encode
from sft_core.provenance import dialect, has_generation_tags
from sft_core.reasons import stretches
from sft_core.tokenizer import Tokenizer, load_tokenizer
from sft_core.tokenizer.pieces import Cut, Pieces, tokenize
from sft_core.types import (
    Encoded,
    EncodeError,
    Example,
    Reason,
    Region,
    Rendered,
    Template,
    TemplateError,
)
from tests import oracle
from tests.chat_templates import Found
from tests.many_conversations import conversations, stand_still
from tests.test_generation_tags import EVERYWHERE

BY_TAGS: Final = MaskPolicy(TrainOn.GENERATION_TAGS)
SMALL: Final = "smollm2-135m-instruct"
Range = tuple[int, int]

WORDS_ALONE: Final = (
    "{% for m in messages %}{{ '<|im_start|>' ~ m.role ~ '\\n' }}{% if m.role == 'assistant' %}"
    "{% generation %}{{ m.content }}{% endgeneration %}{% else %}{{ m.content }}{% endif %}"
    "{{ '<|im_end|>\\n' }}{% endfor %}"
    "{{ '<|im_start|>assistant\\n' if add_generation_prompt }}"
)


@dataclass(frozen=True, slots=True)
class Compared:
    """One conversation through one template with one tokenizer; ``causes`` are why the masks
    differ, none where they agree. ``author`` says where the tags and the answers differ."""

    template: str
    conversation: str
    tokenizer: str
    outcome: str
    causes: tuple[str, ...] = ()
    author: tuple[str, ...] = ()
    tokens: int = 0
    differing: int = 0


@dataclass(frozen=True)
class Theirs:
    """What transformers gives."""

    ids: Sequence[int]
    offsets: Sequence[Range]
    mask: Sequence[int]
    ranges: Sequence[Range]
    encoding: Any


def own_templates() -> list[Found]:
    """Templates that no package brings: with tags in macros and blocks, and around bare words."""
    made = {f"tags: {name}": source for name, source in EVERYWHERE.items()}
    made["tags: words alone"] = WORDS_ALONE
    return [Found("tests", name, source) for name, source in made.items()]


def run(found: Sequence[Found], folders: Sequence[Path], workers: int = 2) -> list[Compared]:
    """Every comparison, in a few processes."""
    tagged = [it for it in found if has_generation_tags(it.source)] + own_templates()
    tokenizers = [SMALL, *(str(it) for it in folders if (it / "tokenizer.json").exists())]
    with ProcessPoolExecutor(workers) as pool:
        jobs = [
            pool.submit(compare_all, name, tagged[at::workers])
            for name in tokenizers
            for at in range(workers)
        ]
        return [it for job in jobs for it in job.result()]


def compare_all(name: str, found: Sequence[Found]) -> list[Compared]:
    """Every template of ``found`` with one tokenizer."""
    transformers.logging.set_verbosity_error()
    logging.disable(logging.WARNING)
    stand_still()
    tokenizer = load_tokenizer(name)
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save(Path(folder))
        peer = AutoTokenizer.from_pretrained(folder)
        return [
            _compare(it, example, tokenizer, peer)
            for it in found
            for example in conversations(it.source)
        ]


def _compare(found: Found, example: Example, tokenizer: Tokenizer, peer: Any) -> Compared:
    made = Compared(found.name, example.id, tokenizer.name, "agrees")
    special = tokenizer.special_tokens
    try:
        rendered = templates.render(Template(found.name, found.source), example, special)
        encoded = encode(rendered, tokenizer, BY_TAGS)
    except (TemplateError, EncodeError):
        both = oracle.reference(found.source, example, special) is None
        return replace(made, outcome="refused by both" if both else "refused by the lab")
    theirs = _theirs(found.source, example, rendered, peer)
    if theirs is None or rendered.tagged is None:
        return replace(made, outcome="refused by transformers" if theirs is None else "tags lost")
    causes = dict.fromkeys(_causes(found.source, rendered, encoded, theirs, tokenizer))
    author = tuple(dict.fromkeys(_author(rendered)))
    differing = _differing(encoded, theirs)
    outcome = "differs" if differing else "agrees"
    return replace(
        made,
        outcome=outcome,
        causes=tuple(causes) if causes else ("unexplained",) if differing else (),
        author=author,
        tokens=len(theirs.ids),
        differing=differing,
    )


def _theirs(source: str, example: Example, rendered: Rendered, peer: Any) -> Theirs | None:
    """What transformers makes of the messages in the form that the lab's text comes from."""
    given = templates.conversation(example)
    special = {name: str(text) for name, text in peer.special_tokens_map.items()}
    for messages in oracle.shapes(example):
        if oracle.Prints(source, example, special)(messages) != rendered.text:
            continue
        try:
            out = peer.apply_chat_template(
                messages,
                tools=given.tools,
                chat_template=source,
                return_assistant_tokens_mask=True,
                return_dict=True,
                **given.extra,
            )
        except jinja2.TemplateError:
            continue
        _, [ranges] = render_jinja_template(
            [messages],
            tools=given.tools,
            chat_template=source,
            return_assistant_tokens_mask=True,
            **special,
            **given.extra,
        )
        again = peer(rendered.text, add_special_tokens=False, return_offsets_mapping=True)
        if list(again["input_ids"]) != list(out["input_ids"]):
            raise AssertionError("apply_chat_template tokenises otherwise")
        return Theirs(
            out["input_ids"], again["offset_mapping"], out["assistant_masks"], ranges, again
        )
    return None


# -- why the two differ -----------------------------------------------------------------------


def _differing(encoded: Encoded, theirs: Theirs) -> int:
    """How many tokens differ; where the ids are not the same, how many of either side stand for
    a character that only one of them trains, and 1 at least."""
    trained = [reason.trained for reason in encoded.reasons]
    if list(encoded.ids) == list(theirs.ids):
        return sum(a != bool(b) for a, b in zip(trained, theirs.mask, strict=True))
    return max(
        1,
        sum(
            1
            for a in set(zip(encoded.ids, encoded.offsets, trained, strict=True))
            ^ set(zip(theirs.ids, theirs.offsets, map(bool, theirs.mask), strict=True))
        ),
    )


def _causes(
    source: str, rendered: Rendered, encoded: Encoded, theirs: Theirs, tokenizer: Tokenizer
) -> Iterator[str]:
    tagged = rendered.tagged or ()
    if _joined(theirs.ranges) != _joined(tagged):
        yield (
            "tags in a macro, block or set: transformers counts from another place"
            if _nested(source)
            else "unexplained: other characters enclosed"
        )
    else:
        yield from _mapping(rendered.text, theirs, tagged)
    for at, (start, end) in enumerate(encoded.offsets):
        trained = encoded.reasons[at].trained
        if trained != _overlaps((start, end), tagged):
            yield from _own(rendered.text, encoded, at, tokenizer, tagged)
    if list(encoded.ids) != list(theirs.ids):
        yield from _other_ids(rendered, encoded, theirs, tokenizer)


def _mapping(text: str, theirs: Theirs, tagged: Sequence[Range]) -> Iterator[str]:
    """Where transformers' mask is not that of the tokens that overlap what it knows enclosed."""
    bounds = [
        (
            theirs.encoding.char_to_token(a),
            theirs.encoding.char_to_token(b - 1) if b else None,
            a,
            b,
        )
        for a, b in theirs.ranges
    ]
    for at, place in enumerate(theirs.offsets):
        masked, wanted = bool(theirs.mask[at]), _overlaps(place, tagged)
        if masked and not wanted:
            yield _too_much(at, place, bounds)
        elif wanted and not masked:
            yield _too_little(at, place, bounds, text)


def _too_much(at: int, place: Range, bounds: Sequence[tuple[Any, Any, int, int]]) -> str:
    for first, last, start, end in bounds:
        if first is None or at < first:
            continue
        if start == end and last is not None and at <= last:
            return "nothing enclosed: transformers labels a neighbour"
        if not last:
            return "the end is in no token of theirs (composed or dropped): labels to the end"
        if place[0] == place[1] and at <= last:
            return "a token that stands for no character"
    return "unexplained: transformers trains more"


def _too_little(
    at: int, place: Range, bounds: Sequence[tuple[Any, Any, int, int]], text: str
) -> str:
    for first, last, start, end in bounds:
        if not (place[0] < end and place[1] > start):
            continue
        if first is None:
            return "the start is in no token of theirs (composed or dropped): nothing labelled on"
        if last is not None and at > last and place[0] <= end - 1 < place[1]:
            return "the last character is several tokens (emoji): transformers labels the first"
        if at < first:
            return "the first character is several tokens: transformers labels from the last on"
    if any(first is None for first, *_ in bounds):
        return "the start is in no token of theirs (composed or dropped): nothing labelled on"
    return "unexplained: transformers trains less"


def _own(
    text: str, encoded: Encoded, at: int, tokenizer: Tokenizer, tagged: Sequence[Range]
) -> Iterator[str]:
    """Why the lab's label is not that of a token which overlaps what is enclosed."""
    start, end = encoded.offsets[at]
    if encoded.reasons[at] is Reason.FIRST_TOKEN:
        yield "the very first token, which nothing predicts: the lab trains it never"
    elif encoded.ids[at] in tokenizer.added_ids and text[start:end] != text[start:end].strip():
        yield "an added token that eats spaces: the lab goes by its first visible character"
    elif start == end:
        yield "a token that stands for no character"
    elif tokenizer.backend.normalizer is not None:
        yield "composed characters: the lab owns them whole"
    else:
        yield "unexplained: the lab"


def _other_ids(
    rendered: Rendered, encoded: Encoded, theirs: Theirs, tokenizer: Tokenizer
) -> Iterator[str]:
    if encoded.forged:
        yield "a special token forged in a message: plain text in the lab, a command in theirs"
    (whole,) = tokenize(tokenizer, [Cut(rendered.text)])
    if isinstance(whole, Pieces) and whole.ids == list(theirs.ids):
        if not encoded.forged or _cut_matters(rendered, tokenizer):
            yield "other ids: the lab cuts the text where an answer starts, as generation does"
    elif not encoded.forged:
        yield "unexplained: other ids"


def _cut_matters(rendered: Rendered, tokenizer: Tokenizer) -> bool:
    """Whether the cuts alone change the ids."""
    text = rendered.text
    places = sorted({start for _, start in rendered.answer_starts()} - {0, len(text)})
    cut, whole = tokenize(tokenizer, [Cut(text, tuple(places)), Cut(text)])
    return not (isinstance(cut, Pieces) and isinstance(whole, Pieces) and cut.ids == whole.ids)


def _nested(source: str) -> bool:
    """Whether a generation tag stands in something whose output is not printed as it comes."""
    tree = dialect.parse(source)
    kinds = (nodes.Macro, nodes.AssignBlock, nodes.FilterBlock, nodes.CallBlock)
    for outer in (it for kind in kinds for it in tree.find_all(kind)):
        inner = list(outer.find_all(nodes.ExtensionAttribute))
        own = isinstance(outer, nodes.CallBlock) and outer.call.find(nodes.ExtensionAttribute)
        if len(inner) > bool(own):
            return True
    return False


# -- what the author enclosed, beside the answers -----------------------------------------------


def _author(rendered: Rendered) -> Iterator[str]:
    """Where the policy "assistant" trains other characters than the tags enclose."""
    answers = {
        at
        for it in stretches(rendered, MaskPolicy())
        if it.reason.trained
        for at in range(it.start, it.end)
    }
    tagged = {at for start, end in rendered.tagged or () for at in range(start, end)}
    region = [span for span in rendered.spans for _ in range(span.end - span.start)]
    printed = {at for start, end in rendered.literals for at in range(start, end)}
    for start, end in _runs(answers - tagged):
        if rendered.text[start:end].isspace():
            yield "the tags leave whitespace of an answer out"
        elif all(region[at].region is Region.END_OF_TURN for at in range(start, end)):
            yield "the tags leave the end of turn out"
        elif printed.issuperset(range(start, end)):
            yield "the tags leave out what the template prints in an answer"
        else:
            yield "the tags leave out words of an answer"
    for start, end in _runs(tagged - answers):
        span = region[start]
        if rendered.text[start:end].isspace():
            yield "the tags enclose whitespace around an answer"
        elif span.region is Region.HEADER:
            yield "the tags enclose what the generation prompt opens"
        elif span.region is Region.CONTENT:
            yield "the tags enclose another's words"
        else:
            yield "the tags enclose what stands behind the end of turn"


def _overlaps(place: Range, ranges: Sequence[Range]) -> bool:
    return any(place[0] < end and place[1] > start for start, end in ranges)


def _joined(ranges: Sequence[Range]) -> list[Range]:
    return _runs({at for start, end in ranges for at in range(start, end)})


def _runs(places: set[int]) -> list[Range]:
    runs: list[Range] = []
    for at in sorted(places):
        start = runs.pop()[0] if runs and runs[-1][1] == at else at
        runs.append((start, at + 1))
    return runs


# -- the tables -------------------------------------------------------------------------------


def report(compared: Sequence[Compared]) -> None:
    names = Counter(it.tokenizer for it in compared)
    count = len({it.template for it in compared})
    print(f"\nGeneration tags: {count} templates with them, tokenizers {', '.join(names)}")
    _table(
        "the policy generation_tags beside return_assistant_tokens_mask (conversations)",
        Counter(it.outcome for it in compared),
    )
    _table(
        "why they differ (one conversation may have several causes)",
        Counter(cause for it in compared for cause in it.causes if it.outcome == "differs"),
    )
    judged = [it for it in compared if it.outcome in ("agrees", "differs")]
    _table(
        "the policy assistant beside what the tags enclose (characters, by conversation)",
        Counter("they agree" if not it.author else "they differ" for it in judged),
    )
    _table("why they differ", Counter(cause for it in judged for cause in it.author))
    for it in compared:
        if any("unexplained" in cause for cause in it.causes) or it.outcome == "tags lost":
            print(
                f"  {it.outcome}: {it.template} / {it.conversation} / {it.tokenizer}: {it.causes}"
            )


def _table(title: str, rows: Mapping[str, int]) -> None:
    print(f"\n{title}")
    for name, count in sorted(rows.items(), key=lambda it: -it[1]):
        print(f"  {name:84s}{count:8,d}")
