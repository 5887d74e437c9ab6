"""Rows of files on disk, whole and damaged: all are read, or each is accounted for, or the file is named."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openrlhf_maxk.problems.sources.reading.rows import BadFile, RowReader
from openrlhf_maxk.problems.sources.source import Rejected

from .originals import CODECONTESTS, MBPP_FULL, contest, write_json_lines, write_parquet

ROWS = [{"task_id": i, "text": f"row {i}" + " ä" * i, "code": "", "test_list": ["a"] * i} for i in range(23)]


def write(path: Path, kind: str) -> Path:
    if kind == "parquet":
        return write_parquet(path / "rows.parquet", ROWS, MBPP_FULL)
    if kind == "jsonl":
        return write_json_lines(path / "rows.jsonl", ROWS)
    if kind == "json":
        (path / "rows.json").write_text(json.dumps(ROWS), encoding="utf-8")
        return path / "rows.json"
    with pa.OSFile(str(path / "rows.arrow"), "wb") as sink, pa.ipc.new_stream(sink, MBPP_FULL) as stream:
        stream.write_table(pa.Table.from_pylist(ROWS, MBPP_FULL), max_chunksize=7)
    return path / "rows.arrow"


def read(path: Path, start: int = 0, **options: Any) -> list[tuple[int, Any]]:
    found = RowReader(path, ["task_id", "text", "test_list"], **options).read(start)
    return [(r.index, r.fields.reason if isinstance(r.fields, Rejected) else r.fields) for r in found]


def attempt(path: Path, **options: Any) -> list[tuple[int, Any]] | str:
    """The rows, or what is said about the file."""
    try:
        return read(path, **options)
    except BadFile as e:
        return str(e)


@pytest.mark.parametrize("kind", ["parquet", "arrow", "jsonl", "json"])
def test_reads_on_from_every_row(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path, kind)
    rows = read(path)
    assert [(i, f["task_id"], f["text"], f["test_list"]) for i, f in rows] == [
        (i, i, row["text"], row["test_list"]) for i, row in enumerate(ROWS)
    ]
    for start in range(len(ROWS) + 2):
        assert read(path, start) == rows[start:]


@pytest.mark.parametrize("kind", ["parquet", "arrow", "jsonl", "json"])
def test_a_file_that_is_cut_short_is_named(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path, kind)
    whole, rows = path.read_bytes(), read(path)
    cuts = sorted({len(whole) - 2, *(random.Random(0).randrange(1, len(whole) - 1) for _ in range(25))})
    for cut in cuts:
        path.write_bytes(whole[:cut])
        found = attempt(path)
        if isinstance(found, str):
            assert path.name in found
        else:  # cut exactly between two rows of JSON lines, or in the mark at an Arrow stream's end
            assert found == rows[: len(found)]
            assert kind == "arrow" or (kind == "jsonl" and whole[cut - 1 : cut + 1].count(b"\n"))


def test_a_row_group_that_is_damaged_is_counted(tmp_path: Path) -> None:
    path = write(tmp_path, "parquet")
    rows, data = read(path), bytearray(path.read_bytes())
    for group in (1, 3):
        column = pq.ParquetFile(path).metadata.row_group(group).column(1)
        start = column.dictionary_page_offset or column.data_page_offset
        data[start : start + 12] = b"\xff" * 12
    path.write_bytes(data)
    with pytest.raises(BadFile, match="row group 1 is damaged"):
        read(path)
    expected = [(i, "unreadable_row") if i // 5 in (1, 3) else row for i, row in enumerate(rows)]
    assert read(path, skip_bad=True) == expected
    assert read(path, 17, skip_bad=True) == expected[17:]


def test_only_wanted_columns_are_read(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "x.parquet", [contest(1)], CODECONTESTS)
    row = next(RowReader(path, ["name"], ["cf_rating", "absent"]).read())
    assert row.fields == {"name": "p00001 Sum", "cf_rating": 0}


def test_a_file_of_another_data_set_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match=r"rows.parquet has no column difficulty: not an original file"):
        list(RowReader(write(tmp_path, "parquet"), ["text", "difficulty"]).read())


def test_a_pointer_to_data_is_named(tmp_path: Path) -> None:
    path = tmp_path / "test.jsonl"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n", encoding="utf-8")
    with pytest.raises(BadFile, match="git lfs pull"):
        read(path)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", "invalid_json"),
        (b"[1]", "not_an_object"),
        (b"null", "not_an_object"),
        (b"NaN", "not_an_object"),
        (b'{"a": "\xff"}', "not_unicode"),
        (b"\x00\x01\x02", "invalid_json"),
        (b"[" * 100_000 + b"]" * 100_000, "invalid_json"),
        (b'{"a": 1' + b"0" * 5000 + b"}", "invalid_json"),
        (b'{"a": "' + b"x" * 300_000 + b'"}', "row_too_large"),
        (b"x" * 3_000_000, "row_too_large"),
    ],
)
def test_bad_lines_are_counted_one_by_one(tmp_path: Path, line: bytes, reason: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": 0}\n\n' + line + b"\n   \n" + b'{"a": 2}\n')
    expected = [(0, {"a": 0}), (2, reason), (4, {"a": 2})]  # as an editor numbers lines, but from 0
    assert read(path, max_row_bytes=250_000) == expected
    assert read(path, 4, max_row_bytes=250_000) == expected[2:]


def test_a_last_line_without_an_end_is_read_if_whole(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": 0}\n{"a": 1}')
    assert read(path) == [(0, {"a": 0}), (1, {"a": 1})]
    path.write_bytes(b'{"a": 0}\n{"a": ')
    with pytest.raises(BadFile, match=r"rows.jsonl ends in the middle of row 1: fetch it again"):
        read(path)
    assert read(path, skip_bad=True) == [(0, {"a": 0}), (1, "cut_short")]


def test_large_rows_are_never_turned_into_objects(tmp_path: Path) -> None:
    rows = [{"task_id": 0, "text": "a"}, {"task_id": 1, "text": "b" * 10**6}, {"task_id": 2, "text": "c"}]
    path = write_parquet(tmp_path / "x.parquet", rows, MBPP_FULL)
    assert [r for _, r in read(path, max_row_bytes=10**5)][1] == "row_too_large"
    assert [i for i, r in read(path, max_row_bytes=10**5) if r != "row_too_large"] == [0, 2]


def test_texts_that_are_not_unicode_are_counted(tmp_path: Path) -> None:
    raw = pa.array([b"good", b"\xff\xfe"], pa.binary()).view(pa.string())
    columns = {"task_id": pa.array([0, 1]), "text": raw, "test_list": pa.array([["a"], ["b"]])}
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    assert [r if isinstance(r, str) else r["text"] for _, r in read(tmp_path / "x.parquet")] == ["good", "not_unicode"]


def rising(numbers: list[int]) -> bool:
    """Whether numbers grow; blank lines of JSON lines have one too."""
    return numbers == sorted(set(numbers))


@settings(max_examples=200)
@given(st.binary(max_size=200), st.sampled_from([".parquet", ".arrow", ".jsonl", ".json", ".csv"]), st.booleans())
def test_any_bytes_are_rows_or_a_named_file(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, suffix: str, skip: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / f"any{suffix}"
    path.write_bytes(data)
    found = attempt(path, skip_bad=skip)
    assert path.name in found if isinstance(found, str) else rising([i for i, _ in found])


@settings(max_examples=150)
@given(st.data())
def test_damaged_bytes_are_rows_or_a_named_file(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.getbasetemp()
    kind = data.draw(st.sampled_from(["parquet", "arrow", "jsonl"]))
    path = write(folder, kind)
    damaged = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(damaged)
    found = attempt(path, skip_bad=data.draw(st.booleans()))
    assert path.name in found if isinstance(found, str) else rising([i for i, _ in found])


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ('[]\n{"a": 1}\n', [Rejected, dict]),  # lines, of which the first is a list
        ('[{"a": 1}, {"a": 2}]\n', [dict, dict]),  # one list, under the name of lines
        ('[\n{"a": 1}\n]\n', [dict]),
    ],
)
def test_a_list_is_told_from_lines_that_begin_with_one(tmp_path: Path, text: str, rows: list[type]) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(text)
    assert [type(row.fields) for row in RowReader(path, ["a"]).read()] == rows
