"""Pages amid late and repeated events, from two workers that follow at their own pace: every value recomputes."""

from __future__ import annotations

import random
from contextlib import closing
from pathlib import Path

from feature_jobs.check_parity import check_parity
from functions.bootstrap import compose
from local.embedded import EmbeddedServers
from shared.adapters.user_keys import keyed_with
from shared.ingest.lake import read_rows
from tests.benchmarks.parity_world import EventMaker, Feeder, PageAsker
from tests.integration.api_shop import open_shop

REQUESTS = 300
EVENTS = 3_000


def test_pages_amid_late_and_repeated_events_recompute_from_the_lake(servers: EmbeddedServers, tmp_path: Path) -> None:
    draw = random.Random(3)
    with open_shop(servers.state_url, servers.log_url, tmp_path, EXPLORATION="0.05") as shop:
        maker = EventMaker(7, users=60)
        feeder = Feeder(shop, maker, 7)
        other = compose(shop.settings)
        with closing(other):
            other.refresh()
            askers = [PageAsker(services, seed, users=60) for seed, services in enumerate((shop.services, other))]
            for done in range(1, REQUESTS + 1):
                while feeder.published < EVENTS * done // REQUESTS:
                    feeder.feed(EVENTS * done // REQUESTS - feeder.published)
                if draw.random() < 0.3:  # users' shards run ahead of the items, and one worker's items of the other's
                    draw.choice((shop.services, other)).follower.follow()
                askers[done % 2].ask()
                if done % 100 == 0:
                    shop.services.sealer.run()
        shop.services.exposures.flush()
        shop.services.sealer.run()

        verdicts = read_rows(shop.blobs, columns=["verdict"])["verdict"].to_pylist()
        assert verdicts.count("duplicate") > 20
        assert maker.counts["late"] > 80
        assert maker.counts["user_erased"]
        differences = check_parity(shop.blobs, key_of=keyed_with(shop.settings.user_key_secret))
        assert differences.exposures + differences.skipped.total() == REQUESTS
        assert set(differences.skipped) <= {"empty page", "its user was erased"}
        assert 0 < differences.skipped["its user was erased"] < REQUESTS / 10
        assert differences.rows > 1_500
        assert differences.mismatches.sum() == 0, differences.first_mismatch
