"""What all commands share: exit codes, how errors and results are printed."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from typing import Final, Protocol

OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2


class AddCommand(Protocol):
    """Adds a command that runs a function and gives its parser, to be given options."""

    def __call__(
        self, run: Callable[[argparse.Namespace], int], help: str
    ) -> argparse.ArgumentParser: ...


def complain(error: object, code: int) -> int:
    """An error as one line on standard error; gives ``code`` back."""
    print(f"sft_core: {error}", file=sys.stderr)
    return code


def print_json(value: object) -> None:
    """One value as one line on standard output, seen at once by whoever reads it."""
    print(json.dumps(value, ensure_ascii=False), flush=True)


def why(error: OSError | UnicodeDecodeError) -> str:
    """Why a file could not be read, as the end of a sentence."""
    text = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
    return (text or str(error)).lower()
