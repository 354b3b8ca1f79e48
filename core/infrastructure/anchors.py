"""Where checkpoints of the audit trail are kept outside: a file that is only appended to, or a bucket that locks.

An S3 bucket should have Object Lock with a default retention in compliance mode: then nobody, its owner included, can
change or delete a checkpoint before its time, and it needs nothing of us.
"""

import fcntl
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol

from core.auditing.checkpoints import Checkpoint
from core.auditing.sealing import read
from core.errors.exceptions import Unavailable
from core.infrastructure.backups.vaults import S3Vault, vault_at

SIZE_DIGITS: Final = 16
"""Enough for names to sort as numbers do."""


class Anchor(Protocol):
    """A place outside. Every method raises Unavailable where it does not answer."""

    def add(self, text: bytes) -> None:
        """Keep a checkpoint for good. Doing it twice is harmless."""

    def all(self) -> Sequence[Checkpoint]:
        """Return every checkpoint there is, each stream's in its order. Raises: Corrupt."""


def anchor_at(address: str) -> Anchor:
    """Return the anchor at a path or an s3:// address. Raises: Invalid."""
    if "://" not in address:
        return FileAnchor(Path(address).expanduser().absolute())
    vault = vault_at(address)
    assert isinstance(vault, S3Vault)
    return BucketAnchor(vault)


class FileAnchor:
    """A file, a checkpoint a line. Better on another machine's disk, and append-only (`chattr +a`)."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, text: bytes) -> None:
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            with os.fdopen(descriptor, "ab") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                file.write(text + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as e:
            raise Unavailable(
                f"{self._path} cannot be written", code="ANCHOR_UNAVAILABLE", detail=str(e)
            ) from e

    def all(self) -> Sequence[Checkpoint]:
        try:
            lines = self._path.read_bytes().splitlines() if self._path.exists() else []
        except OSError as e:
            raise Unavailable(f"{self._path} cannot be read", code="ANCHOR_UNAVAILABLE", detail=str(e)) from e
        return _in_order([line for line in lines if line])


class BucketAnchor:
    """A prefix of a bucket, an object a checkpoint."""

    def __init__(self, vault: S3Vault) -> None:
        self._vault = vault

    def add(self, text: bytes) -> None:
        checkpoint = read(text)
        stream = hashlib.sha256(checkpoint.stream.encode()).hexdigest()[:32]
        with self._vault.create(f"{stream}/{checkpoint.size:0{SIZE_DIGITS}}.json") as file:
            file.write(text)

    def all(self) -> Sequence[Checkpoint]:
        texts = []
        for name in self._vault.names():
            with self._vault.open(name) as file:
                texts.append(file.read())
        return _in_order(texts)


def _in_order(texts: Sequence[bytes]) -> Sequence[Checkpoint]:
    found = [read(text) for text in dict.fromkeys(texts)]
    return sorted(found, key=lambda one: (one.stream, one.size))
