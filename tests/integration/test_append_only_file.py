"""A server's append-only file holds what was deleted until it is rewritten, which the night asks for."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from local.embedded import LOG_OPTIONS, EmbeddedServer
from shared.adapters.redis_connection import connect
from shared.adapters.redis_files import rewrite_append_only_file
from shared.errors import InfrastructureFault
from tests.integration.traces import files_with, word_of


def test_what_was_deleted_is_in_no_file_any_more(tmp_path: Path) -> None:
    with (
        EmbeddedServer(tmp_path, LOG_OPTIONS) as server,
        closing(connect(server.url, timeout_ms=5000)) as client,
    ):
        client.set("a", "somebody 7f3a")
        client.set("b", "else 41c9")
        client.delete("a")
        assert files_with(tmp_path, word_of("somebody 7f3a"))
        assert rewrite_append_only_file(client, 30)
        assert not files_with(tmp_path, word_of("somebody 7f3a"))
        assert files_with(tmp_path, word_of("else 41c9"))


def test_a_server_without_such_a_file_and_one_that_is_not_asked(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path, ()) as server, closing(connect(server.url, timeout_ms=5000)) as client:
        assert rewrite_append_only_file(client, 30), "it keeps none"
        assert not list(tmp_path.glob("appendonlydir/*"))
        client.config_set("appendonly", "yes")
        client.acl_setuser("plain", enabled=True, nopass=True, categories=["+@all"], commands=["-bgrewriteaof"],
                           keys=["*"])  # fmt: skip
        client.execute_command("AUTH", "plain", "x")
        assert not rewrite_append_only_file(client, 30)
    with closing(connect(server.url, timeout_ms=500)) as gone, pytest.raises(InfrastructureFault, match="rewritten"):
        rewrite_append_only_file(gone, 1)
