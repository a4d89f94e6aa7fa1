"""Other people's maskers, so that a lesson can show what each trains and where each breaks.

methods     the three by name, and what each would train of a conversation
markers     the role markers of a template, as somebody who searches for them reads them off it
compare     how that differs from what the lab trains, in places of the text
why         what went wrong there, in one sentence
"""

from __future__ import annotations

from sft_core.rivals.compare import Difference, Kind, compare
from sft_core.rivals.methods import RIVALS, Marker, Rival, RivalMask, find, mask

__all__ = [
    "RIVALS",
    "Difference",
    "Kind",
    "Marker",
    "Rival",
    "RivalMask",
    "compare",
    "find",
    "mask",
]
