"""Files and hub data sets are read row by row, no further than asked, and fail in sentences."""

from __future__ import annotations

import gzip
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from sft_core.readers import kind, read_file, read_texts
from sft_core.types import DataError
from tests.data_hub import serve

ROWS = [
    {"prompt": "Größe?", "response": "zwei\nZeilen, mit Komma"},
    {"prompt": "b", "response": "c"},
]
ROOT = Path(__file__).resolve().parents[1]


def lines(rows: list[dict[str, str]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


CSV = 'prompt,response\r\nGröße?,"zwei\nZeilen, mit Komma"\r\nb,c\r\n'
SEMICOLONS = 'prompt;response\r\nGröße?;"zwei\nZeilen, mit Komma"\r\nb;c\r\n'


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", json.dumps(ROWS).encode()),
        ("wrapped.json", json.dumps({"version": 1, "data": ROWS}).encode()),
        ("lines.json", lines(ROWS).encode()),
        ("a.jsonl", lines(ROWS).encode()),
        ("blank.jsonl", lines(ROWS).replace("\n", "\n\n").encode()),
        ("a.csv", CSV.encode()),
        ("bom.csv", CSV.encode("utf-8-sig")),
        ("semicolons.csv", SEMICOLONS.encode()),
        ("A.TSV", CSV.replace(",", "\t", 1).replace("?,", "?\t").replace("b,", "b\t").encode()),
        ("a.jsonl.gz", gzip.compress(lines(ROWS).encode())),
    ],
)
def test_files_of_every_kind_give_the_same_rows(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert list(read_file(tmp_path / name)) == ROWS


def test_parquet_gives_the_same_rows(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    assert list(read_file(tmp_path / "a.parquet")) == ROWS


def test_one_row_as_an_object_is_a_set_of_one(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"messages": [{"role": "user"}]}))
    assert len(list(read_file(tmp_path / "a.json"))) == 1


def test_a_damaged_line_is_an_error_among_rows(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"prompt": "a"}\n{"prompt": \n{"prompt": "b"}\n')
    first, second, third = read_file(tmp_path / "a.jsonl")
    assert (first, third) == ({"prompt": "a"}, {"prompt": "b"})
    assert isinstance(second, DataError)
    assert "Line 2" in str(second)


def test_text_that_was_cut_at_its_commas_is_an_error_among_rows(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("prompt,response\na,yes, no and maybe\nb,c\n")
    first, second = read_file(tmp_path / "a.csv")
    assert "line 2 of a.csv has 1 more cell than there are columns" in str(first)
    assert second == {"prompt": "b", "response": "c"}


def test_a_long_file_is_not_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl"
    path.write_text(lines(ROWS) * 100_000 + "this is no JSON\n")
    rows = read_file(path)
    assert len(list(islice(rows, 3))) == 3
    rows.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.json", b"", "is empty"),
        ("a.json", b"hello", "not JSON"),
        ("a.json", b"4", "no list of rows"),
        ("a.json", b"[" * 100_000, "nested too deeply"),
        ("a.txt", b"hello", "no kind of file"),
        ("a", b"hello", "no kind of file"),
        ("a.csv", "prompt\nä".encode("latin-1"), "not UTF-8"),
        ("a.csv", b"\n\n", "no line with column names"),
        ("a.parquet", b"hello", "not a Parquet file"),
        ("a.jsonl.gz", b"hello", "cannot be read"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(
    tmp_path: Path, name: str, content: bytes, sentence: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=sentence):
        list(read_file(tmp_path / name))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no file b\.json"):
        list(read_file(tmp_path / "b.json"))


def test_kinds_come_from_suffixes() -> None:
    assert [kind(name) for name in ("a.JSON", "a.b.csv.gz", "a")] == [".json", ".csv", ""]


# -- raw text ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.txt", "a.TXT.gz"])
def test_a_text_file_is_one_document_as_it_stands(tmp_path: Path, name: str) -> None:
    raw = "\ufeffÄ\r\n\r\nb\n".encode()
    (tmp_path / name).write_bytes(gzip.compress(raw) if name.endswith("gz") else raw)
    assert read_texts(tmp_path / name) == ("Ä\r\n\r\nb\n",)


def test_every_row_of_a_file_has_a_document(tmp_path: Path) -> None:
    rows = [{"text": "a\n", "id": "1"}, {"text": ""}]
    (tmp_path / "a.jsonl").write_text(lines(rows))
    assert read_texts(tmp_path / "a.jsonl") == ("a\n", "")


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.txt", b"", "is empty"),
        ("a.txt", "ä".encode("latin-1"), "not UTF-8"),
        ("a.txt.gz", b"hello", "cannot be read"),
        ("a.jsonl", b'{"text": "a"}\n{"text": 5}', 'Row 2 of a.jsonl has no "text"'),
        ("a.jsonl", b"[1]", 'Row 1 of a.jsonl has no "text"'),
        ("a.jsonl", b"{", "Line 1 of a.jsonl is not JSON"),
        ("a.pdf", b"hello", "one document as .txt"),
        ("a.csv", b"prompt\na\n", 'Row 1 of a.csv has no "text"'),
    ],
)
def test_what_is_wrong_with_a_text_is_said(
    tmp_path: Path, name: str, content: bytes, sentence: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=sentence):
        read_texts(tmp_path / name)


# -- the hub ----------------------------------------------------------------------------------

READ = """
import sys
from sft_core import data
from sft_core.config import DataConfig
from sft_core.types import LabError
try:
    loaded = data.load(DataConfig(**eval(sys.argv[1])))
    print(len(loaded.examples), loaded.examples[-1].answer)
except LabError as error:
    print(type(error).__name__, error)
"""


class Reader:
    """Reads from a hub in a process of its own: the hub's client takes its address at import."""

    def __init__(self, address: str, home: Path, sent: list[int]) -> None:
        self.address, self.home, self.sent = address, home, sent

    def read(self, **config: object) -> tuple[str, int]:
        """What the lab says, and how many bytes the hub sent."""
        before = sum(self.sent)
        done = subprocess.run(
            [sys.executable, "-c", READ, repr(config)],
            cwd=ROOT,
            env={**os.environ, "HF_ENDPOINT": self.address, "HF_HOME": str(self.home)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip(), sum(self.sent) - before


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    root = tmp_path_factory.mktemp("hub")
    draw = random.Random(0)
    rows = [
        {"prompt": f"{number} {draw.randbytes(40).hex()}", "response": f"answer {number}"}
        for number in range(200_000)
    ]
    for name in ("lab/table", "lab/lines"):
        (root / name).mkdir(parents=True)
    table = pyarrow.Table.from_pylist(rows)
    pyarrow.parquet.write_table(table, root / "lab/table/train.parquet", row_group_size=1000)
    (root / "lab/lines/train.jsonl").write_text(lines(rows))
    (root / "lab/lines/test.jsonl").write_text(lines(rows[:30]))
    server, address, sent = serve(root)
    yield Reader(address, tmp_path_factory.mktemp("home"), sent)
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("name", ["lab/table", "lab/lines"])
def test_a_few_rows_of_two_hundred_thousand_cost_a_few_rows(hub: Reader, name: str) -> None:
    said, sent = hub.read(source=name, rows=100)
    assert said == "100 answer 99"
    # Both files hold more than 15 MB.
    assert sent < 1_500_000


def test_a_split_is_chosen(hub: Reader) -> None:
    assert hub.read(source="lab/lines", split="test")[0] == "30 answer 29"


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"source": "lab/lines", "split": "dev"}, "no split 'dev'"),
        ({"source": "lab/lines", "subset": "french"}, "another subset than 'french'"),
        ({"source": "lab/nothing"}, "HubError The hub has no public data set 'lab/nothing'"),
        ({"source": "no such name"}, "neither a built-in set"),
    ],
)
def test_what_the_hub_does_not_have_is_said(
    hub: Reader, config: dict[str, str], sentence: str
) -> None:
    assert sentence in hub.read(**config)[0]


def test_a_dead_hub_is_said_at_once(hub: Reader) -> None:
    dead = Reader("http://127.0.0.1:9", hub.home, [])
    assert "HubError The hub did not deliver" in dead.read(source="lab/lines")[0]
