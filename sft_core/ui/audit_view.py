"""An audit in the page's words: its state, its figures, its plots, its lists of rows. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sft_core import plots
from sft_core.audit import NAMED_ROWS, Audit, Pair, Row
from sft_core.dealing import percent
from sft_core.ui.audits import Progress, State
from sft_core.ui.findings import findings_value
from sft_core.ui.words import waiting

EMPTY: Final = (
    "Every row through this template, tokenizer and mask: how long the rows are, how much of them "
    "is trained, what the length limit cuts off, and which rows repeat each other."
)
STALE: Final = "This audit is of other data or settings than the page has now: audit again."
CAPTIONS: Final = (
    (
        "How long the rows are",
        "Tokens of each row before anything is cut off, counted in bars of equal width.",
    ),
    (
        "How much of a row is trained",
        "For each row, its trained tokens divided by its tokens within the length limit.",
    ),
    (
        "What another limit would keep",
        "Over all rows: the trained tokens that stand before a limit, as a share of all trained "
        "tokens; and the rows no longer than it, as a share of all rows.",
    ),
)
"""What each plot shows, and how it was computed."""
LONGEST: Final = 300
_LEVELS: Final = {State.STOPPED: "info", State.FAILED: "error"}


# -- state and figures -----------------------------------------------------------------------


def summary_value(progress: Progress | None) -> dict[str, Any]:
    if progress is None:
        return {"text": EMPTY}
    audit, total = progress.audit, progress.total
    return {
        "state": progress.state.value,
        "over": progress.state.over,
        "share": audit.rows / total if total else 1.0,
        "text": _sentence(progress),
        "level": _LEVELS.get(progress.state),
        "title": progress.title,
        "figures": _figures(audit) if audit.rows else [],
        "notes": _notes(audit),
    }


def _sentence(progress: Progress) -> str:
    done, total = progress.audit.rows, progress.total
    match progress.state:
        case State.WAITING:
            return waiting(progress.ahead).replace("job", "audit")
        case State.RUNNING:
            return f"{done:,} of {total:,} rows. {progress.text}".removesuffix(". ")
        case State.DONE:
            which = f"all {total:,} training rows" if total != 1 else "the one training row"
            return f"{which}. {progress.text}" if progress.text else which
    return progress.text


def _figures(audit: Audit) -> list[dict[str, str]]:
    """Name, figure, what stands beside it, and how it was computed."""
    kept, trained = audit.tokens, audit.trained_tokens
    return [
        _figure(
            "trained tokens",
            percent(audit.trained_share),
            f"{trained:,} of {kept:,}",
            "Trained tokens of all rows together, divided by all their tokens within the length "
            "limit. A long row weighs more than a short one.",
        ),
        _figure(
            "tokens per row",
            f"{audit.mean_length:,.0f}",
            f"on average; the longest has {audit.longest:,}",
            "Tokens within the length limit, divided by the rows that have tokens. The longest "
            "row is measured before anything is cut off.",
        ),
        _figure(
            "trained tokens lost",
            percent(audit.lost_share),
            _limit_words(audit),
            "Trained tokens that stand behind the length limit, divided by all trained tokens, "
            "lost ones included. No model sees them.",
        ),
        *_padding(audit),
    ]


def _padding(audit: Audit) -> list[dict[str, str]]:
    laid = audit.layouts
    if laid is None:
        return []
    return [
        _figure(
            "padding, if there were any",
            percent(laid.empty(laid.to_window)),
            f"at {laid.window:,} tokens a row; packed {percent(laid.empty(laid.packed))}",
            "Were every row padded to the length limit: places without a token, divided by all "
            "places. Packed: the same for windows of that length, each filled with whole rows. The "
            "lab computes hardly any padding either way.",
        )
    ]


def _figure(name: str, figure: str, beside: str, how: str) -> dict[str, str]:
    return {"name": name, "figure": figure, "beside": beside, "how": how}


def _limit_words(audit: Audit) -> str:
    if audit.max_length is None:
        return "there is no length limit"
    lost = audit.dropped_trained_tokens
    return f"{lost:,} behind the limit of {audit.max_length:,}"


def _notes(audit: Audit) -> list[dict[str, str]]:
    """What must not be overlooked, in a sentence each, the gravest first."""
    notes = []
    if audit.failed:
        first = audit.failures[0]
        who = _rows(audit.failed, "row") if audit.done else f"All {audit.failed:,} rows"
        notes.append(
            _note(
                "warning" if audit.done else "error",
                f"{who} could not be made into tokens and {_are(audit.failed)} in no figure. The "
                f"first, {_short(first.row)}: {_short(first.message)}",
            )
        )
    if audit.untrained_rows:
        notes.append(
            _note(
                "warning",
                f"{_rows(audit.untrained_rows, 'row')} {_have(audit.untrained_rows)} nothing to "
                "train on; training leaves them out.",
            )
        )
    if audit.dropped_trained_tokens:
        notes.append(_note("warning", _truncation(audit)))
    if audit.leaked_rows:
        pair = audit.leaked[0]
        notes.append(
            _note(
                "warning",
                f"{_rows(audit.leaked_rows, 'training row')} answer"
                f"{'s' if audit.leaked_rows == 1 else ''} the prompt of a row that is kept back "
                f"({_short(pair.row)} that of {_short(pair.other)}): what is measured there is no "
                "longer unseen. Take such rows out of one side.",
            )
        )
    return notes


def _truncation(audit: Audit) -> str:
    """How many rows the limit cuts, and the smallest one drawn that keeps nearly everything."""
    whole = audit.trained_tokens + audit.dropped_trained_tokens
    enough = next(it.tokens for it in audit.limits if it.trained >= 0.99 * whole)
    return (
        f"{_rows(audit.truncated_rows, 'row')} {_are(audit.truncated_rows)} longer than "
        f"{audit.max_length:,} tokens. What stands behind is lost: "
        f"{percent(audit.lost_share)} of all trained tokens. A limit of {enough:,} keeps at "
        "least 99 %."
    )


def _note(level: str, text: str) -> dict[str, str]:
    return {"level": level, "text": text}


def _are(count: int) -> str:
    return "are" if count > 1 else "is"


def _have(count: int) -> str:
    return "have" if count > 1 else "has"


def _short(text: str) -> str:
    """What somebody's data or template says, as long as a sentence can bear it."""
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} …"


def _rows(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'s'[: count != 1]}"


# -- plots -----------------------------------------------------------------------------------


def plot_values(progress: Progress | None) -> tuple[dict[str, Any], ...]:
    """-> values of the views for lengths, shares and limits."""
    audit = progress.audit if progress else Audit()
    if not audit.done:
        return ({"figure": None, "empty": ""},) * 3
    labels = (
        f"Rows by length. On average {audit.mean_length:,.0f} tokens are kept, the longest row "
        f"has {audit.longest:,}.",
        f"Rows by trained share. Over all rows it is {percent(audit.trained_share)}.",
        f"Rows whole and trained tokens kept by length limit. Now {audit.truncated_rows:,} rows "
        "are cut.",
    )
    drawn = (plots.lengths(audit), plots.shares(audit), plots.limits(audit))
    return tuple(
        {"figure": figure.to_plotly_json(), "label": label, "caption": caption, "how": how}
        for figure, label, (caption, how) in zip(drawn, labels, CAPTIONS, strict=True)
    )


# -- findings --------------------------------------------------------------------------------


def survey_value(progress: Progress | None) -> dict[str, Any]:
    """What the doctor says of some of the rows; nothing before it has said anything."""
    if progress is None or not progress.surveyed:
        return {"findings": []}
    many = progress.surveyed < progress.total
    which = f"{progress.surveyed:,} rows from all over the set" if many else "all rows"
    value = findings_value(progress.findings, progress.config)
    value["good"] = "Nothing is wrong with any of these rows."
    return {**value, "title": f"What the doctor says of {which}"}


# -- lists of rows ---------------------------------------------------------------------------


def lists_value(progress: Progress | None) -> dict[str, Any]:
    """The lists, each with its count, what it holds, and its first rows."""
    audit = progress.audit if progress else Audit()
    if not audit.rows:
        return {"lists": []}
    lists = [
        _list(
            "worst",
            "Least trained",
            None,
            "The rows with the smallest share of trained tokens within the limit.",
            _measured(audit.worst),
        ),
        _list(
            "truncated",
            "Cut off",
            audit.truncated_rows,
            "Rows longer than the limit. What stands behind it, no model sees; where that is "
            "the end of the answer, stopping is not learnt from this row.",
            _measured(audit.truncated),
        ),
        _list(
            "untrained",
            "Nothing trained",
            audit.untrained_rows,
            "Rows without one trained token within the limit. Training leaves them out.",
            _measured(audit.untrained),
        ),
        _list(
            "duplicates",
            "Repeats",
            audit.duplicate_rows,
            "Rows that say word for word what an earlier row says. Each repeat counts once more "
            "in every epoch. Compared by a digest of roles, texts, tool calls and tools.",
            _pairs(audit.duplicates),
            "Repeats",
        ),
        _list(
            "conflicts",
            "Other answers",
            audit.conflict_rows,
            "Rows that give the prompt of an earlier row another answer. A model that is asked "
            "learns a mixture of both.",
            _pairs(audit.conflicts),
            "Same prompt as",
        ),
        _list(
            "leaked",
            "Also kept back",
            audit.leaked_rows,
            f"Rows that answer the prompt of one of the {audit.held_out_rows:,} eval and held-out "
            "rows, at their end or on the way.",
            _pairs(audit.leaked),
            "Prompt of",
        ),
        _list(
            "forged",
            "Forged markers",
            audit.forged_rows,
            "Rows in which a message spells a special token. It is encoded as plain text.",
            _measured(audit.forged),
        ),
        _list(
            "failed",
            "Failed",
            audit.failed,
            "Rows that could not be rendered or encoded. They are in no figure.",
            [{"row": it.row, "why": _short(it.message)} for it in audit.failures],
        ),
    ]
    return {"lists": [it for it in lists if it["count"] or it["key"] in ("worst", "truncated")]}


def _list(
    key: str,
    name: str,
    count: int | None,
    what: str,
    rows: Sequence[dict[str, Any]],
    other: str = "",
) -> dict[str, Any]:
    return {
        "key": key,
        "name": name,
        "count": len(rows) if count is None else count,
        "counted": count is not None,
        "what": what,
        "rows": list(rows),
        "other": other,
        "named": NAMED_ROWS,
    }


def _measured(rows: Sequence[Row]) -> list[dict[str, Any]]:
    return [
        {
            "row": it.row,
            "tokens": it.tokens,
            "trained": it.trained,
            "share": round(it.share, 4),
            "lost": it.lost,
        }
        for it in rows
    ]


def _pairs(pairs: Sequence[Pair]) -> list[dict[str, Any]]:
    return [{"row": it.row, "other": it.other} for it in pairs]
