"""Sources -> rows, lazily: files on disk, and data sets on the hub.

Every reader yields plain dicts and reads no further than it is asked to, so that a few rows of a
large source cost a few rows. The exception is a JSON file that is one array: it is parsed whole.
"""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

from sft_core.config import DataConfig
from sft_core.types import DataError, HubError

SUFFIXES: Final = (".json", ".jsonl", ".csv", ".tsv", ".parquet")
_BATCH: Final = 64


def read_file(path: Path) -> Iterator[Any]:
    """The rows of a JSON, JSONL, CSV, TSV or Parquet file; all but Parquet may be gzipped. Raises
    DataError where the file is none of these or is damaged."""
    if not path.is_file():
        raise DataError(f"There is no file {path.name}. Check its name, or upload it again.")
    suffixes = [suffix.lower() for suffix in path.suffixes]
    kind = (
        suffixes[-2] if suffixes[-1:] == [".gz"] and len(suffixes) > 1 else "".join(suffixes[-1:])
    )
    if path.stat().st_size == 0:
        raise DataError(f"{path.name} is empty.")
    try:
        if kind == ".parquet":
            yield from _parquet(path)
            return
        with _text(path) as file:
            match kind:
                case ".json":
                    yield from _json(file, path.name)
                case ".jsonl" | ".ndjson":
                    yield from _jsonl(file, path.name)
                case ".csv" | ".tsv":
                    yield from _csv(file, path.name, "\t" if kind == ".tsv" else ",")
                case _:
                    raise DataError(
                        f"{path.name} is no kind of file that the lab reads. Bring JSON, JSONL, "
                        "CSV or Parquet."
                    )
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path.name} is not UTF-8 text (byte {error.start}). Save it as UTF-8 and try again."
        ) from None
    except (OSError, EOFError) as error:
        raise DataError(f"{path.name} cannot be read: {error}. Upload it again.") from None


@contextmanager
def _text(path: Path) -> Iterator[IO[str]]:
    opener = gzip.open if path.suffix.lower() == ".gz" else open
    # A byte order mark, as spreadsheets write it, is no part of the first column's name.
    with opener(path, "rt", encoding="utf-8-sig", newline="") as file:
        yield file


def _json(file: IO[str], name: str) -> Iterator[Any]:
    """One array of rows; or one row a line under the wrong name; or an object that holds the
    array."""
    text = file.read()
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        if text.lstrip()[:1] == "{":
            yield from _jsonl(iter(text.splitlines()), name)
            return
        raise DataError(
            f"{name} is not JSON: {error.msg} at line {error.lineno}, column {error.colno}."
        ) from None
    except RecursionError:
        raise DataError(f"{name} is nested too deeply to be rows of data.") from None
    if isinstance(value, dict):
        lists = [it for it in value.values() if isinstance(it, list) and it]
        value = lists[0] if len(lists) == 1 and isinstance(lists[0][0], dict) else [value]
    if not isinstance(value, list):
        raise DataError(f"{name} holds no list of rows.")
    yield from value


def _jsonl(lines: Iterator[str] | IO[str], name: str) -> Iterator[Any]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield json.loads(line)
        except json.JSONDecodeError as error:
            yield DataError(f"Line {number} of {name} is not JSON: {error.msg}.")
        except RecursionError:
            yield DataError(f"Line {number} of {name} is nested too deeply.")


def _csv(file: IO[str], name: str, delimiter: str) -> Iterator[Any]:
    csv.field_size_limit(2**31 - 1)  # answers are longer than a spreadsheet's cells
    reader = csv.DictReader(file, delimiter=delimiter)
    try:
        if not reader.fieldnames or all(not field for field in reader.fieldnames):
            raise DataError(f"{name} has no line with column names.")
        for row in reader:
            row.pop(None, None)  # cells beyond the last column
            yield row
    except csv.Error as error:
        raise DataError(f"{name} is not CSV: {error} near line {reader.line_num}.") from None


def _parquet(path: Path) -> Iterator[Any]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_BATCH):
                yield from batch.to_pylist()
    except pyarrow.ArrowException as error:
        raise DataError(f"{path.name} is not a Parquet file: {str(error)[:120]}") from None


# -- the hub ----------------------------------------------------------------------------------


def read_hub(config: DataConfig) -> Iterator[Any]:
    """The rows of a data set on the hub, streamed: only the parts that hold the rows asked for
    are fetched. No code of the data set is run. Raises HubError or DataError."""
    import datasets
    import huggingface_hub.errors as hub

    name = config.source
    split = config.split or "train"
    try:
        yield from datasets.load_dataset(name, config.subset, split=split, streaming=True)
    except (
        hub.GatedRepoError,
        hub.RepositoryNotFoundError,
        datasets.exceptions.DatasetNotFoundError,
    ):
        raise HubError(
            f"The hub has no public data set {name!r}. Check the spelling (owner/name); a gated "
            "or private one needs a token in HF_TOKEN."
        ) from None
    except ValueError as error:
        raise DataError(_choice(name, split, config, error)) from None
    except (OSError, hub.HfHubHTTPError, datasets.exceptions.DatasetsError) as error:
        raise HubError(
            f"The hub did not deliver {name!r} ({type(error).__name__}). Check the connection and "
            "try again, or upload a file."
        ) from None
    except Exception as error:
        # The hub's clients raise what their HTTP libraries raise; httpx has its own family.
        if type(error).__module__.split(".")[0] not in ("httpx", "httpcore", "aiohttp", "requests"):
            raise
        raise HubError(
            f"The hub does not answer ({type(error).__name__}). Check the connection and try "
            "again, or upload a file."
        ) from None


def _choice(name: str, split: str, config: DataConfig, error: ValueError) -> str:
    """What the datasets library says of a wrong split or subset, as one sentence."""
    text = " ".join(str(error).split())
    if "Bad split" in text or "Unknown split" in text:
        return f"{name} has no split {split!r}. {text[text.find('Available') :][:200]}"
    if "Config name is missing" in text or "BuilderConfig" in text:
        return f"{name} needs another subset than {config.subset!r}: {text[:300]}"
    return f"{name} cannot be read as rows: {text[:200]}"
