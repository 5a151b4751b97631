"""One consumer as a process of its own, to be killed: settings from the environment, the pump, the real event function.

Its argument is the session timeout in milliseconds.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

from functions.bootstrap import compose
from local.kafka_pump import KafkaPump
from local.trigger_host import event_hub_batch
from shared.adapters.kafka_connection import connection_of
from shared.settings import Settings


def main() -> None:
    settings = Settings.from_environment(os.environ)
    services = compose(settings)
    pump = KafkaPump(
        connection_of(settings),
        settings.event_source,
        lambda records: services.ingest.process_batch(event_hub_batch(records)),
        batch_size=20,
        session_timeout_ms=int(sys.argv[1]),
    )
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    pump.start()
    ended.wait()
    pump.stop()
    services.close()


if __name__ == "__main__":
    main()
