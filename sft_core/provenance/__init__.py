"""Where every character of a rendered conversation comes from.

- ``dialect``: the Jinja of ``apply_chat_template``; plain renders, and errors in words
- ``tagged``, ``sources``: a ``str`` whose characters carry tags; what the tags mean
- ``filters``, ``hooks``, ``trace``: the same Jinja, in which nothing drops a tag
- ``enclosed``: what the author's generation tags enclose
- ``turns``, ``regions``: from tags to header, content, end of turn, separator
- ``prefixes``: how answers are found where a template cannot be followed
- ``skeleton``: what a template prints around the messages, so that not every row is traced
- ``keys``: which keys of its messages a template can read
- ``shapes``: the forms in which templates expect the same messages
- ``rendering``: all of these in their order, for one conversation
"""

from __future__ import annotations

from sft_core.provenance.dialect import has_generation_tags
from sft_core.provenance.rendering import Conversation, Outcome, render_conversation
from sft_core.provenance.skeleton import Segment, Skeleton
from sft_core.provenance.sources import ASSISTANT
from sft_core.provenance.trace import literals
from sft_core.provenance.turns import special_pattern

__all__ = [
    "ASSISTANT",
    "Conversation",
    "Outcome",
    "Segment",
    "Skeleton",
    "has_generation_tags",
    "literals",
    "render_conversation",
    "special_pattern",
]
