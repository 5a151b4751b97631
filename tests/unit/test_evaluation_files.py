from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch.evaluation.files import ColumnNames, digest_of, ids, lists, numbers, read_columns
from shared.errors import ConfigurationError


def parquet(path: Path, **columns: object) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def test_parquet_and_text_files_give_the_same_rows_under_the_field_names(tmp_path: Path) -> None:
    names = ColumnNames(user="who", item="what", position="nr")
    first = parquet(tmp_path / "a.parquet", who=[7, 8], what=[1, 2], nr=[0, 1], more=["x", "y"])
    (tmp_path / "b.csv").write_text("nr,who,what\n0,7,1\n1,8,2\n")
    with gzip.open(tmp_path / "c.tsv.gz", "wt") as file:
        file.write("who\twhat\tnr\n7\t1\t0\n8\t2\t1\n")
    for path in (first, tmp_path / "b.csv", tmp_path / "c.tsv.gz"):
        table = read_columns(path, names, ["user", "position", "item"])
        assert table.column_names == ["user", "position", "item"]
        assert ids(table["user"]).to_pylist() == ["7", "8"]
        assert ids(table["item"]).to_pylist() == ["1", "2"]
        assert numbers(table, "position", path).to_pylist() == [0, 1]


def test_ids_in_text_files_stay_as_they_are_written(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("user,item\n007,7\n7,07\n")
    table = read_columns(tmp_path / "a.csv", ColumnNames(), ["user", "item"])
    assert ids(table["user"]).to_pylist() == ["007", "7"]
    assert ids(table["item"]).to_pylist() == ["7", "07"]


def test_lists_come_as_lists_as_json_and_as_words(tmp_path: Path) -> None:
    nested = parquet(tmp_path / "a.parquet", prefix=[[3, 4], [5]])
    (tmp_path / "b.csv").write_text('prefix\n"[3, 4]"\n[5]\n')
    (tmp_path / "c.csv").write_text("prefix\n3 4\n5\n")
    for path in (nested, tmp_path / "b.csv", tmp_path / "c.csv"):
        lengths, members = lists(read_columns(path, ColumnNames(), ["prefix"]), "prefix", path)
        assert lengths.to_pylist() == [2, 1]
        assert ids(members).to_pylist() == ["3", "4", "5"]


def test_what_cannot_be_used_is_named(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", user=["a", None], pos=["x", "y"], prefix=["[1", "2"])
    names = ColumnNames()
    with pytest.raises(ConfigurationError, match=r"no column 'item' \(it has user, pos, prefix\).*--item-column"):
        read_columns(path, names, ["item"])
    with pytest.raises(ConfigurationError, match=r"column 'user' .* 1 empty"):
        read_columns(path, names, ["user"])
    table = read_columns(path, names, ["position", "prefix"])
    with pytest.raises(ConfigurationError, match=r"column for position .* whole numbers"):
        numbers(table, "position", path)
    with pytest.raises(ConfigurationError, match="is no list of ids"):
        lists(table, "prefix", path)
    with pytest.raises(ConfigurationError, match="must hold lists"):
        lists(pa.table({"prefix": pa.chunked_array([[1, 2]])}), "prefix", path)
    with pytest.raises(ConfigurationError, match="no file"):
        read_columns(tmp_path / "none.parquet", names, ["user"])
    (tmp_path / "bad.parquet").write_bytes(b"not parquet at all")
    with pytest.raises(ConfigurationError, match="cannot be read as Parquet or CSV"):
        read_columns(tmp_path / "bad.parquet", names, ["user"])
    empty = parquet(tmp_path / "empty.parquet", user=pa.array([], pa.int64()))
    with pytest.raises(ConfigurationError, match="has no rows"):
        read_columns(empty, names, ["user"])


def test_the_fingerprint_follows_the_bytes(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"a" * 10)
    two.write_bytes(b"a" * 10)
    assert digest_of([one]) == digest_of([two])
    two.write_bytes(b"a" * 9 + b"b")
    assert digest_of([one]) != digest_of([two])
    assert np.unique([digest_of([one, two]), digest_of([two, one])]).size == 2
