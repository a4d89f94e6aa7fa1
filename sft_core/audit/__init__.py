"""What a whole data set looks like to training: lengths, the trained share, truncation, rows that
fail, and rows that repeat each other.

``progress`` goes through the rows once and gives a fresh ``Audit`` now and then, so that a page
can show figures while they grow. ``audit`` gives the last one. Memory grows with the rows only by
a digest and an id for each prompt, which is what finding repeats takes.

figures   the values: ``Audit`` and what it is made of
repeats   which rows say the same
tally     rows -> figures
tables    figures and rows as CSV
"""

from sft_core.audit.figures import (
    BINS,
    NAMED_ROWS,
    SHARES,
    Audit,
    Bar,
    Failure,
    Limit,
    Pair,
    Row,
)
from sft_core.audit.repeats import Repeats
from sft_core.audit.tables import FigureTable, RowTable
from sft_core.audit.tally import Tally, audit, progress, rows

__all__ = [
    "BINS",
    "NAMED_ROWS",
    "SHARES",
    "Audit",
    "Bar",
    "Failure",
    "FigureTable",
    "Limit",
    "Pair",
    "Repeats",
    "Row",
    "RowTable",
    "Tally",
    "audit",
    "progress",
    "rows",
]
