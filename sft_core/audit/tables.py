"""An audit as CSV: a line for each row, written while rows stream, and the figures as one table.

What a spreadsheet would run as a formula gets an apostrophe in front: ids and messages come from
somebody's data.
"""

from __future__ import annotations

import csv
from dataclasses import asdict
from typing import Final, TextIO

from sft_core.audit.figures import Audit, Row
from sft_core.dealing import Layouts

ROW_COLUMNS: Final = (
    "id",
    "tokens",
    "kept",
    "trained",
    "share",
    "lost",
    "forged",
    "duplicate_of",
    "same_prompt_as",
    "held_out_as",
    "error",
)
_FORMULAS: Final = ("=", "+", "-", "@", "\t", "\r")


class RowTable:
    """A line for each row, written at once to ``file`` (text, opened with ``newline=""``). The
    counts of a row that failed stay empty."""

    def __init__(self, file: TextIO) -> None:
        self._writer = csv.writer(file)
        self._writer.writerow(ROW_COLUMNS)

    def add(self, row: Row) -> None:
        figures = (row.tokens, row.kept, row.trained, f"{row.share:.4f}", row.lost, row.forged)
        texts = (row.duplicate_of, row.same_prompt_as, row.held_out_as, row.error)
        self._writer.writerow(
            (
                _plain(row.row),
                *(figures if row.error is None else [""] * len(figures)),
                *(_plain(text or "") for text in texts),
            )
        )


class FigureTable:
    """The figures of an audit in the columns figure, start, stop, value: counts and means by name,
    then the bars of both histograms (rows, and how many of them are beyond the limit), then what
    each other length limit would keep, then the places that each layout takes."""

    def __init__(self, file: TextIO) -> None:
        self._writer = csv.writer(file)
        self._writer.writerow(("figure", "start", "stop", "value"))

    def add(self, audit: Audit) -> None:
        for name in Audit.__slots__:
            value = getattr(audit, name)
            if not isinstance(value, tuple | Layouts):
                self._write(name, "" if value is None else value)
        for name, derived in audit.derived().items():
            self._write(name, f"{derived:.6g}")
        for bar in audit.lengths:
            self._write("length_rows", bar.rows, f"{bar.start:g}", f"{bar.stop:g}")
            self._write("length_rows_over_limit", bar.over, f"{bar.start:g}", f"{bar.stop:g}")
        for bar in audit.shares:
            self._write("share_rows", bar.rows, f"{bar.start:g}", f"{bar.stop:g}")
        for limit in audit.limits:
            self._write("rows_whole_at_limit", limit.rows, stop=str(limit.tokens))
            self._write("trained_tokens_at_limit", limit.trained, stop=str(limit.tokens))
        if audit.layouts is not None:
            for name, places in asdict(audit.layouts).items():
                self._write(f"layout_{name}", places)

    def _write(self, name: str, value: object, start: str = "", stop: str = "") -> None:
        self._writer.writerow((name, start, stop, value))


def _plain(text: str) -> str:
    """A text as it is, unless a spreadsheet would take it for a formula. Half of a character,
    which no file can hold, becomes its escape."""
    text = text.encode("utf-8", "backslashreplace").decode()
    number = text.lstrip("+-").replace(".", "", 1).isdigit()
    return f"'{text}" if text.startswith(_FORMULAS) and not number else text
