"""Publishing is killed between any two of its writes, and readers never see a mixture."""

from __future__ import annotations

import random
import secrets
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from redis import Redis

from batch.publish_release import main, publish_release
from batch.published_lists import digest_of_lists, item_lists, user_records
from local.embedded import EmbeddedServers
from shared.adapters.activation import activate, active_release, check_usable, earlier_releases, roll_back
from shared.adapters.folder_blob import FolderBlobStore
from shared.adapters.keys import user_key
from shared.adapters.redis_releases import ITEM_KINDS, RedisReleaseStore
from shared.candidates.query import ListKind
from shared.errors import ReleaseUnavailable
from shared.releases.bundle import load_bundle
from shared.releases.lists import decode_list, decode_record
from shared.settings import SECRET_DEFAULT
from tests.integration.night_outputs import ITEMS, USERS, write_night

KILLS = 20

# For each line "release_id n" a child publishes as the stage does, but every command that writes is counted and sent
# alone, and before the n-th of them (counted from 1, 0 is none) the child kills itself. The answer is the child's exit
# status and how many writes it made.
RUNNER = """
import os, signal, sys
import pandas  # pyarrow imports it at its first use, which would be once in every child
from pathlib import Path
from redis import Redis
from batch.publish_release import publish_release
from shared.adapters.folder_blob import FolderBlobStore
from shared.adapters.redis_releases import RedisReleaseStore

READS = {"GET", "HGETALL", "HGET", "HLEN", "LRANGE", "SCAN", "PTTL"}
data, url, secret = Path(sys.argv[1]), *sys.argv[2:4]
writes = fatal = 0

def count(name):
    global writes
    if name not in READS:
        writes += 1
        if writes == fatal:
            os.kill(os.getpid(), signal.SIGKILL)

class OneByOne:
    def __init__(self, client):
        self.client, self.commands = client, []
    def execute_command(self, *words):
        self.commands.append(words)
    def execute(self, raise_on_error=True):
        commands, self.commands = self.commands, []
        return [self.client.execute_command(*words) for words in commands]

class Counting(Redis):
    def execute_command(self, *words, **options):
        count(words[0])
        return super().execute_command(*words, **options)
    def pipeline(self, transaction=True, shard_hint=None):
        if transaction:
            count("MULTI")
            return super().pipeline(transaction, shard_hint)
        return OneByOne(self)

for line in sys.stdin:
    release_id, fatal = line.split()[0], int(line.split()[1])
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        sys.stdout = open(os.devnull, "w")
        store = RedisReleaseStore(Counting.from_url(url, protocol=2))
        publish_release(data, FolderBlobStore(data), store, release_id, user_secret=secret, promote=lambda one: None)
        os.write(tell, str(writes).encode())
        os._exit(0)
    os.close(tell)
    _, status = os.waitpid(child, 0)
    said = os.read(told, 20).decode() or "0"
    os.close(told)
    print(os.waitstatus_to_exitcode(status), said, flush=True)
"""


@pytest.fixture
def store(state_client: Redis) -> RedisReleaseStore:
    return RedisReleaseStore(state_client)


def publish(data: Path, store: RedisReleaseStore, release_id: str, seed: int) -> None:
    write_night(data, release_id, seed)
    publish_release(
        data, FolderBlobStore(data), store, release_id, user_secret=SECRET_DEFAULT, promote=lambda _release_id: None
    )


class MortalPublisher:
    """A process that lets children publish and die."""

    def __init__(self, data: Path, url: str) -> None:
        command = [sys.executable, "-c", RUNNER, str(data), url, SECRET_DEFAULT]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def publish(self, release_id: str, fatal: int) -> tuple[int, int]:
        """(exit code, writes made) of a publish killed before its `fatal`-th write."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{release_id} {fatal}\n")
        self.process.stdin.flush()
        code, writes = self.process.stdout.readline().split()
        return int(code), int(writes)

    def close(self) -> None:
        self.process.communicate(timeout=30)


def read_as_the_api_does(data: Path, client: Redis) -> str:
    """Everything a worker reads through the allocation; raises when a list is missing, altered or of another night."""
    store = RedisReleaseStore(client)
    allocation = store.allocation()
    assert allocation is not None
    ((release_id, _),) = allocation.releases
    manifest = load_bundle(FolderBlobStore(data), release_id).manifest
    records = store.nightly_records(release_id, [user_key(user, SECRET_DEFAULT) for user in USERS])
    assert len(records) == manifest.users_count
    for data_of_user in records:
        assert data_of_user is not None
        decode_record(release_id, data_of_user)
    for kind in ITEM_KINDS:
        for found in store.similar_lists(release_id, kind, range(manifest.items_count)):
            assert found is not None
            decode_list(release_id, found)
    return release_id


def test_a_publish_killed_between_any_two_writes_mixes_nothing(
    tmp_path: Path, servers: EmbeddedServers, state_client: Redis, store: RedisReleaseStore
) -> None:
    seed = secrets.randbelow(2**32)
    print(f"seed {seed}")  # noqa: T201 - shown when the test fails
    draw = random.Random(seed)
    publish(tmp_path, store, "r-0", 0)
    write_night(tmp_path, "r-whole", 1)
    publisher = MortalPublisher(tmp_path, servers.state_url)
    code, total = publisher.publish("r-whole", 0)
    assert code == 0
    assert total > len(USERS) + 3 * ITEMS
    allowed = {"r-whole"}
    for trial in range(KILLS):
        release_id = f"r-{trial + 1}"
        write_night(tmp_path, release_id, trial + 2)
        fatal = draw.randint(1, total)
        assert publisher.publish(release_id, fatal) == (-signal.SIGKILL, 0), (seed, trial, fatal)
        allowed.add(release_id)
        assert read_as_the_api_does(tmp_path, state_client) in allowed, (seed, trial, fatal)
        if trial % 4 == 3:  # run again, as an operator would: it ends as if nothing had happened
            publish(tmp_path, store, release_id, trial + 2)
            assert read_as_the_api_does(tmp_path, state_client) == release_id
    publisher.close()
    publish(tmp_path, store, "r-last", 99)
    assert read_as_the_api_does(tmp_path, state_client) == "r-last"
    kept = {release_id for release_id, expiring in store.with_lists().items() if not expiring}
    assert kept == {"r-last", earlier_releases(store)[0]}


def test_what_is_published_is_what_the_night_made(
    tmp_path: Path, state_client: Redis, store: RedisReleaseStore
) -> None:
    publish(tmp_path, store, "r-1", 7)
    for user, record in user_records(tmp_path):
        (data,) = store.nightly_records("r-1", [user_key(user, SECRET_DEFAULT)])
        assert data is not None
        held = decode_record("r-1", data)
        assert (held.newest_at, held.actions_count) == (record.newest_at, record.actions_count)
        np.testing.assert_array_equal(held.indexes, record.indexes)
        np.testing.assert_array_equal(held.scores, record.scores)
        np.testing.assert_allclose(held.vector, record.vector, atol=1e-3)
    for kind in ListKind:
        for index, neighbours in item_lists(tmp_path, kind):
            (data,) = store.similar_lists("r-1", kind.value, [index])
            assert data is not None
            held_list = decode_list("r-1", data)
            np.testing.assert_array_equal(held_list.indexes, neighbours.indexes)
            np.testing.assert_array_equal(held_list.columns, neighbours.columns)


def test_the_stage_publishes_the_release_built_last(
    tmp_path: Path, servers: EmbeddedServers, store: RedisReleaseStore, capsys: pytest.CaptureFixture[str]
) -> None:
    write_night(tmp_path, "r-1", 7)
    assert main(["--data", str(tmp_path), "--redis", servers.state_url]) == 0
    assert "r-1 has all traffic" in capsys.readouterr().out
    assert active_release(store) == "r-1"
    assert main(["--data", str(tmp_path / "nothing"), "--redis", servers.state_url]) == 2
    assert "batch.build_release" in capsys.readouterr().err


def test_lists_that_are_not_all_there_get_no_traffic(
    tmp_path: Path, state_client: Redis, store: RedisReleaseStore
) -> None:
    publish(tmp_path, store, "r-1", 1)
    publish(tmp_path, store, "r-2", 2)
    state_client.hdel("rel:r-1:similar:0", "3")
    with pytest.raises(ReleaseUnavailable, match="39 of 40 similar"):
        activate(store, FolderBlobStore(tmp_path), "r-1")
    with pytest.raises(ReleaseUnavailable, match="39 of 40 similar"):
        roll_back(store, FolderBlobStore(tmp_path))
    assert active_release(store) == "r-2"
    (tmp_path / "nightly/candidates/part-00001.parquet").unlink()
    write_manifest_only = load_bundle(FolderBlobStore(tmp_path), "r-2").manifest
    assert write_manifest_only.users_count == len(USERS)
    with pytest.raises(ReleaseUnavailable, match="the night has 30 nightly lists"):
        publish_release(
            tmp_path, FolderBlobStore(tmp_path), store, "r-2", user_secret=SECRET_DEFAULT, promote=lambda _one: None
        )


def test_a_retired_release_that_comes_back_is_kept(
    tmp_path: Path, state_client: Redis, store: RedisReleaseStore
) -> None:
    for number in range(4):
        publish(tmp_path, store, f"r-{number}", number)
    assert store.with_lists() == {"r-0": True, "r-1": True, "r-2": False, "r-3": False}
    hour_ms = 3_600_000
    state_client.pexpire("rel:r-0:meta", hour_ms)
    publish(tmp_path, store, "r-3", 3)
    assert state_client.pttl("rel:r-0:meta") <= hour_ms, "every night would put the expiry off"
    publish(tmp_path, store, "r-0", 0)
    assert store.with_lists()["r-0"] is False
    assert all(state_client.pttl(key) == -1 for key in state_client.keys("rel:r-0:*"))
    check_usable(store, FolderBlobStore(tmp_path), "r-0")


def test_the_digest_of_lists_knows_content_and_not_files(tmp_path: Path) -> None:
    write_night(tmp_path / "one", "r-1", 5)
    write_night(tmp_path / "two", "r-1", 5)
    parts = tmp_path / "two/nightly/candidates"
    (parts / "part-00000.parquet").rename(parts / "part-00002.parquet")
    assert digest_of_lists(tmp_path / "one") == digest_of_lists(tmp_path / "two")
    write_night(tmp_path / "three", "r-1", 6)
    assert digest_of_lists(tmp_path / "one") != digest_of_lists(tmp_path / "three")
