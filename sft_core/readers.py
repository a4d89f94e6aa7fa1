"""Sources -> rows, lazily: files on disk, and data sets on the hub.

Every reader yields plain dicts and reads no further than it is asked to, so that a few rows of a
large source cost a few rows. The exception is a JSON file that is one array: it is parsed whole.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import IO, Any, Final, cast

from sft_core.config import DataConfig
from sft_core.types import DataError, HubError

SUFFIXES: Final = (".json", ".jsonl", ".csv", ".tsv", ".parquet")
_BATCH: Final = 64
_HUB_SECONDS: Final = 10.0
_HUB_BLOCK: Final = 2**18
"""Bytes that are fetched from the hub at a time."""


def read_file(path: Path) -> Iterator[Any]:
    """The rows of a JSON, JSONL, CSV, TSV or Parquet file; all but Parquet may be gzipped. Raises
    DataError where the file is none of these or is damaged."""
    with _opened(path) as file:
        yield from _rows(file, path.name)


def read_texts(path: Path) -> tuple[str, ...]:
    """Raw documents: a .txt file is one, and any file of rows has one in the "text" of each row.
    Raises DataError where the file cannot be read or a row has no text."""
    if kind(path.name) == ".txt":
        with _opened(path) as file, _decoded(file, path.name) as text:
            return (text.read(),)
    if path.is_file() and kind(path.name) not in (*SUFFIXES, ".ndjson"):
        raise DataError(
            f"{path.name} is no kind of file that raw text is read from. Bring one document as "
            '.txt, or rows with a "text" as JSONL.'
        )
    return tuple(_text(row, number, path.name) for number, row in enumerate(read_file(path), 1))


def _text(row: Any, number: int, name: str) -> str:
    if isinstance(row, DataError):
        raise row
    text = row.get("text") if isinstance(row, dict) else None
    if not isinstance(text, str):
        raise DataError(
            f'Row {number} of {name} has no "text". Give every row its document under that name, '
            "or bring one document as a .txt file."
        )
    return text


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """A file, with a sentence for whatever is wrong with it. Raises DataError."""
    if not path.is_file():
        raise DataError(f"There is no file {path.name}. Check its name and its folder.")
    if path.stat().st_size == 0:
        raise DataError(f"{path.name} is empty.")
    try:
        with path.open("rb") as file:
            yield file
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path.name} is not UTF-8 text (byte {error.start}). Save it as UTF-8 and try again."
        ) from None
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path.name} cannot be read: {error}. Upload it again.") from None


def kind(name: str) -> str:
    """What a file's name says that it is: its suffix, in lower case, that of compression aside."""
    suffixes = [suffix.lower() for suffix in Path(name).suffixes]
    if suffixes[-1:] == [".gz"]:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def _rows(file: IO[bytes], name: str) -> Iterator[Any]:
    """The rows of an open file, by the kind that its name says."""
    if kind(name) == ".parquet":
        yield from _parquet(file, name)
        return
    with _decoded(file, name) as text:
        match kind(name):
            case ".json":
                yield from _json(text, name)
            case ".jsonl" | ".ndjson":
                yield from _jsonl(text, name)
            case ".csv":
                yield from _csv(text, name, ",")
            case ".tsv":
                yield from _csv(text, name, "\t")
            case _:
                raise DataError(
                    f"{name} is no kind of file that the lab reads. Bring JSON, JSONL, CSV or "
                    "Parquet."
                )


def _decoded(file: IO[bytes], name: str) -> IO[str]:
    """An open file as text, unpacked where its name says so."""
    if name.lower().endswith(".gz"):
        file = cast(IO[bytes], gzip.GzipFile(fileobj=file))
    # A byte order mark, as spreadsheets write it, is no part of the first column's name.
    return io.TextIOWrapper(file, encoding="utf-8-sig", newline="")


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
    head = file.readline()
    if delimiter == "," and head.count(";") > head.count(","):
        delimiter = ";"  # spreadsheets write it where the comma is the decimal sign
    reader = csv.DictReader(chain((head,), file), delimiter=delimiter)
    try:
        if not reader.fieldnames or all(not field for field in reader.fieldnames):
            raise DataError(f"{name} has no line with column names.")
        for row in reader:
            yield _more_cells(row, name, reader.line_num, delimiter) if None in row else row
    except csv.Error as error:
        raise DataError(f"{name} is not CSV: {error} near line {reader.line_num}.") from None


def _more_cells(row: dict[Any, Any], name: str, line: int, delimiter: str) -> DataError:
    """Cells beyond the last column are the rest of a text that was cut at its commas."""
    extra = len(row[None])
    return DataError(
        f"The row that ends on line {line} of {name} has {extra} more "
        f"{'cell' if extra == 1 else 'cells'} than there are columns. Put quotes around text that "
        f"holds {delimiter!r}."
    )


def _parquet(source: IO[bytes], name: str) -> Iterator[Any]:
    import pyarrow
    import pyarrow.parquet

    try:
        # Without pre-buffering, a row group is fetched when it is come to and not before.
        with pyarrow.parquet.ParquetFile(source, pre_buffer=False) as file:
            for group in range(file.num_row_groups):
                for batch in file.iter_batches(batch_size=_BATCH, row_groups=[group]):
                    yield from batch.to_pylist()
    except pyarrow.ArrowException as error:
        raise DataError(f"{name} is not a Parquet file: {str(error)[:120]}") from None


# -- the hub ----------------------------------------------------------------------------------


def read_hub(config: DataConfig) -> Iterator[Any]:
    """The rows of a data set on the hub: only the parts of its files that hold the rows asked for
    are fetched. No code of the data set is run. Raises HubError or DataError."""
    import datasets
    import huggingface_hub as hub

    name = config.source
    try:
        # Asked once and first: the readers below would try a dead hub for half a minute.
        hub.HfApi().dataset_info(name, timeout=_HUB_SECONDS)
        yield from _hub_rows(config)
    except (hub.errors.GatedRepoError, hub.errors.RepositoryNotFoundError):
        raise HubError(
            f"The hub has no public data set {name!r}. Check the spelling (owner/name); a gated "
            "or private one needs a token in HF_TOKEN."
        ) from None
    except hub.errors.HFValidationError:
        raise DataError(
            f"{name!r} is neither a built-in set, nor a file here, nor a name on the hub, which "
            "looks like owner/name."
        ) from None
    except (
        OSError,
        hub.errors.HTTPError,  # type: ignore[attr-defined]  # that of the HTTP library in use
        datasets.exceptions.DatasetsError,
    ) as error:
        raise HubError(
            f"The hub did not deliver {name!r} ({type(error).__name__}). Check the connection and "
            "try again, or upload a file."
        ) from None


def _hub_rows(config: DataConfig) -> Iterator[Any]:
    """Which files hold a split is for the datasets library to say. They are read here, since its
    own streaming fetches many megabytes ahead of the first row."""
    import datasets
    import huggingface_hub as hub

    name, split = config.source, config.split or "train"
    try:
        builder = datasets.load_dataset_builder(name, config.subset)
        files = list((builder.config.data_files or {}).get(split, ()))
        readable = files and all(kind(file) in (*SUFFIXES, ".ndjson") for file in files)
        if not readable:
            rows = datasets.load_dataset(name, config.subset, split=split, streaming=True)
    except ValueError as error:
        raise DataError(_choice(name, split, config, error)) from None
    if not readable:
        yield from rows
        return
    filesystem = hub.HfFileSystem()
    for path in files:
        with filesystem.open(path, "rb", block_size=_HUB_BLOCK) as file:
            yield from _rows(file, Path(path).name)


def _choice(name: str, split: str, config: DataConfig, error: ValueError) -> str:
    """What the datasets library says of a wrong split or subset, as one sentence."""
    text = " ".join(str(error).split())
    if "Bad split" in text or "Unknown split" in text:
        return f"{name} has no split {split!r}. {text[text.find('Available') :][:200]}"
    if "Config name is missing" in text or "BuilderConfig" in text:
        return f"{name} needs another subset than {config.subset!r}: {text[:300]}"
    return f"{name} cannot be read as rows: {text[:200]}"
