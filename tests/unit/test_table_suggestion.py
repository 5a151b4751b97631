from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from batch.ingest_events import main
from batch.input_files import InputFile
from batch.table_mapping import mapping_of
from batch.table_suggestion import suggest_mapping

NOW = 1_790_000_000_000


def suggested(path: Path) -> dict[str, Any]:
    suggestion = suggest_mapping(InputFile(str(path)), NOW)
    assert tomllib.loads(suggestion.text) == suggestion.document
    mapping_of(suggestion.document, "the suggestion")
    events: dict[str, Any] = suggestion.document["events"]
    return events


CASES = {
    "rees46.csv": (
        (
            "event_time,event_type,product_id,category_id,category_code,brand,price,user_id,user_session\n"
            "2019-10-01 00:00:00 UTC,view,44600062,21,electronics.phone,shiseido,35.79,541312140,72d\n"
            "2019-10-01 00:00:01 UTC,remove_from_cart,1,22,electronics.tv,aqua,33.20,5,9\n"
        ),
        {
            "time": "event_time", "user": "user_id", "item": "product_id", "event": "event_type",
            "session": "user_session", "price": "price", "category": "category_code", "brand": "brand",
        },
        {
            "time_format": "iso", "category_separator": ".",
            "names": {"view": "view", "remove_from_cart": "remove_from_cart"},
        },
    ),
    "german.csv": (
        "Datum;Kunde;Artikel;Preis;Menge;Bestellung\n31.12.2023 09:15;7;A 1;1.234,50;2;99\n",
        {"time": "Datum", "user": "Kunde", "item": "Artikel", "price": "Preis", "quantity": "Menge",
         "order": "Bestellung"},
        {"time_format": "%d.%m.%Y %H:%M", "separator": ";", "decimal": ",", "thousands": ".",
         "constants": {"event": "purchase"}},
    ),
    "ratings.csv": (
        "rating,parent_asin,user_id,timestamp\n5,B00,AE2,1588687728923\n",
        {"time": "timestamp", "user": "user_id", "item": "parent_asin"},
        {"time_format": "epoch_ms", "constants": {"event": "view"}},
    ),
    "seconds.tsv": (
        "visitor\tsku\taction\twhen\n1\t2\tpv\t1511544070\n1\t2\tbuy\t1511544071\n1\t2\tfav\t1511544072\n",
        {"time": "when", "user": "visitor", "item": "sku", "event": "action"},
        {"time_format": "epoch_s", "separator": "\t", "names": {"pv": "view", "buy": "purchase", "fav": "ignore"}},
    ),
    "content.csv": (
        "ts,uid,sku,what\n1511544070,1,2,gesehen\n1511544070,1,2,gekauft\n1511544071,1,2,Suche\n",
        {"time": "ts", "user": "uid", "item": "sku", "event": "what"},
        {"time_format": "epoch_s", "names": {"gesehen": "view", "gekauft": "purchase", "Suche": "ignore"}},
    ),
    "months.csv": (
        "date,customer_id,product_id\n12/31/2023,1,2\n",
        {"time": "date", "user": "customer_id", "item": "product_id"},
        {"time_format": "%m/%d/%Y", "constants": {"event": "view"}},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_columns_are_guessed_by_name_and_content(name: str, tmp_path: Path) -> None:
    text, columns, rest = CASES[name]
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    found = suggested(path)
    assert found == {**rest, "columns": columns}


def test_json_lines_and_latin_1(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    rows = [
        {"ts": 1_588_687_728, "user": {"id": "u1", "name": "x"}, "product": {"sku": "s", "priceCents": 5}, "e": [1]}
    ]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    found = suggested(path)
    assert found["columns"] == {"time": "ts", "user": "user.id", "item": "product.sku", "price": "product.priceCents"}
    assert found["price_scale"] == 1
    latin = tmp_path / "latin.csv"
    latin.write_bytes("Datum,Kunde,Artikel\n2023-05-01,Müller,A\n".encode("latin-1"))
    assert suggested(latin)["encoding"] == "latin-1"


def test_a_suggestion_can_be_saved_and_used_but_replaces_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, saved, out = tmp_path / "rees46.csv", tmp_path / "m.toml", tmp_path / "shop"
    path.write_text(CASES["rees46.csv"][0])
    table = ["--format", "table", "--path", str(path)]
    assert main([*table, "--suggest", str(saved), "--dry-run"]) == 0
    assert "rows: 2 = 2 events + 0 rejected" in capsys.readouterr().out
    assert main([*table, "--suggest", str(saved)]) == 2
    assert "is there already" in capsys.readouterr().err
    assert main([*table, "--mapping", str(saved), "--out", str(out)]) == 0
    assert main([*table, "--dry-run"]) == 0
    assert (
        '[events.names]  # view, cart, remove_from_cart, purchase, or ignore\nview = "view"' in capsys.readouterr().out
    )


def test_a_table_without_users_is_said_to_be_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "stock.csv"
    path.write_text("sku,left\nA,3\n")
    assert main(["--format", "table", "--path", str(path), "--suggest"]) == 2
    assert "no column looks like time or user (it has sku, left)" in capsys.readouterr().err
