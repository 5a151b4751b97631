"""The releases command: what may serve, activating, going back, and never to something that is not whole."""

from __future__ import annotations

from pathlib import Path

import pytest
from redis import Redis

from batch.publish_release import publish_release
from batch.releases import main
from local.embedded import EmbeddedServers
from shared.adapters.activation import active_release, earlier_releases
from shared.adapters.folder_blob import FolderBlobStore
from shared.adapters.redis_releases import RedisReleaseStore
from shared.settings import SECRET_DEFAULT
from tests.integration.night_outputs import write_night


class Shop:
    """Three nights published, and the command for them."""

    def __init__(self, data: Path, url: str, client: Redis) -> None:
        self.data, self.url, self.store = data, url, RedisReleaseStore(client)
        for number in (1, 2, 3):
            self.publish(f"r-{number}", number)

    def publish(self, release_id: str, seed: int) -> None:
        write_night(self.data, release_id, seed)
        blobs = FolderBlobStore(self.data)
        publish_release(
            self.data, blobs, self.store, release_id, user_secret=SECRET_DEFAULT, promote=lambda _release_id: None
        )

    def run(self, *words: str) -> int:
        return main([*words, "--data", str(self.data), "--redis", self.url])


@pytest.fixture
def shop(tmp_path: Path, servers: EmbeddedServers, state_client: Redis) -> Shop:
    return Shop(tmp_path, servers.state_url, state_client)


def test_the_list_tells_what_serves_and_what_a_rollback_would_take(
    shop: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    assert shop.run("list") == 0
    lines = {
        line.split()[0]: line.split()[-1] for line in capsys.readouterr().out.splitlines() if line.startswith("r-")
    }
    assert lines == {"r-1": "expiring", "r-2": "rollback", "r-3": "active"}
    assert shop.run("show", "r-2") == 0
    said = capsys.readouterr().out
    assert '"release_id": "r-2"' in said
    assert said.endswith("usable: yes\nactive: no\n")
    assert shop.run("show", "r-9") == 2


def test_a_rollback_goes_back_one_release_and_then_another(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert shop.run("rollback") == 0
    assert "release r-2 has all traffic instead of r-3 (allocation version 4)" in capsys.readouterr().out
    assert shop.run("rollback") == 0
    assert active_release(shop.store) == "r-1", "not r-3 again, which did harm"
    assert shop.store.with_lists()["r-1"] is False, "what serves does not expire"
    assert shop.run("rollback") == 2
    assert "nothing to go back to" in capsys.readouterr().err
    shop.publish("r-4", 4)
    assert earlier_releases(shop.store)[0] == "r-1"


def test_a_rollback_after_a_publish_that_died_before_it_was_written_down(shop: Shop) -> None:
    shop.store.set_published(["r-2", "r-1"])  # the allocation has moved to r-3, the history has not
    assert shop.run("rollback") == 0
    assert active_release(shop.store) == "r-2"
    assert earlier_releases(shop.store) == ["r-1"]


def test_activating_moves_traffic_and_can_be_taken_back(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert shop.run("activate", "r-1") == 0
    assert "r-1 has all traffic instead of r-3" in capsys.readouterr().out
    version = shop.store.allocation()
    assert shop.run("activate", "r-1") == 0
    assert shop.store.allocation() == version, "doing it twice moves nothing"
    assert shop.run("rollback") == 0
    assert active_release(shop.store) == "r-3"


@pytest.mark.parametrize("damage", ["file", "manifest", "list", "lists"])
def test_nothing_that_is_not_whole_gets_traffic(
    shop: Shop, state_client: Redis, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shop.data / "releases/r-2"
    if damage == "file":
        (folder / "item_factors.npy").write_bytes(b"altered")
    elif damage == "manifest":
        (folder / "manifest.json").unlink()
    elif damage == "list":
        state_client.hdel("rel:r-2:cooccurrence:0", "5")
    else:
        state_client.delete(*state_client.keys("rel:r-2:*"))
    for words in (["rollback"], ["activate", "r-2"]):
        assert shop.run(*words) == 2
        assert "r-2" in capsys.readouterr().err
        assert active_release(shop.store) == "r-3"
