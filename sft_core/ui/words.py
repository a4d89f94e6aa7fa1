"""Figures and places in the words of the page."""

from __future__ import annotations


def waiting(position: int) -> str:
    """
    >>> waiting(0), waiting(1), waiting(3)
    ('next in the queue', '1 job stands before this one', '3 jobs stand before this one')
    """
    if position == 0:
        return "next in the queue"
    return f"{position} job{'s stand' if position > 1 else ' stands'} before this one"


def duration(seconds: float) -> str:
    """
    >>> duration(8.4), duration(75), duration(3700)
    ('8 s', '1 min 15 s', '1 h 1 min')
    """
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def megabytes(size: float) -> str:
    """
    >>> megabytes(612.4), megabytes(1536)
    ('612 MB', '1.5 GB')
    """
    return f"{size:,.0f} MB" if size < 1024 else f"{size / 1024:,.1f} GB"


def ago(seconds: float) -> str:
    """
    >>> ago(12), ago(150), ago(7300), ago(200_000)
    ('just now', '2 min ago', '2 h ago', '2 days ago')
    """
    for unit, size in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= size * (2 if unit == "days" else 1):
            return f"{int(seconds // size)} {unit} ago"
    return "just now"


def short_count(number: int) -> str:
    """
    >>> short_count(2_134_000), short_count(860), short_count(1_235_814_400)
    ('2.1M', '860', '1.24B')
    """
    for bound, letter, digits in ((1e9, "B", 2), (1e6, "M", 1), (1e3, "K", 0)):
        if number >= bound:
            return f"{number / bound:.{digits}f}{letter}"
    return str(number)


def short_run(run: str) -> str:
    """Enough of a run's id to tell it from others by eye."""
    return run[:4]
