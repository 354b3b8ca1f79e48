"""Encrypt a part of a backup in chunks, so that it can be read with bounded memory and no change goes unnoticed.

Each part is `magic | salt (16) | nonce prefix (7) | chunks`. Its key is HKDF-SHA-256 of the backup's key, with the
salt and the part's name: no part can stand for another. A chunk is 1 MiB of text, encrypted with AES-256-GCM under the
nonce `prefix | number of the chunk (4) | 1 for the last, else 0`: none can be left out, moved, doubled or taken from
the end. Source: Hoang, Reyhanitabar, Rogaway, Vizar, "Online Authenticated-Encryption" (2015), the STREAM construction.
"""

import hashlib
import hmac
import os
import secrets
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from core.errors.exceptions import Corrupt, Misconfigured
from core.settings import Secret

MAGIC: Final = b"TGSEAL1\n"
SALT_BYTES: Final = 16
PREFIX_BYTES: Final = 7
TAG_BYTES: Final = 16
CHUNK_BYTES: Final = 1024**2
KEY_BYTES: Final = 32
PASSPHRASE_LENGTH_MIN: Final = 12
SCRYPT_N: Final = 2**16
"""64 MiB of memory and about 0.2 s a guess."""
PASSPHRASE_VARIABLE: Final = "TICKGATE_BACKUP_PASSPHRASE"  # noqa: S105 - a name


def read_secret(key_file: Path | None, environment: Mapping[str, str] = os.environ) -> Secret | None:
    """Return what the key is made from: a file's content, or the environment's passphrase; None where there is neither.

    Raises: Misconfigured.
    """
    if key_file is not None:
        try:
            content = key_file.read_bytes()
        except OSError as e:
            raise Misconfigured(
                f"the key file {key_file} cannot be read: {e.strerror}", code="BAD_KEY"
            ) from e
        # latin-1 keeps every byte of a raw key.
        text = content if len(content) == KEY_BYTES else content.strip()
        return _checked(text.decode("latin-1"))
    passphrase = environment.get(PASSPHRASE_VARIABLE)
    return _checked(passphrase.encode().decode("latin-1")) if passphrase else None


def _checked(text: str) -> Secret:
    if len(text) < PASSPHRASE_LENGTH_MIN:
        raise Misconfigured(
            f"a backup's key is {KEY_BYTES} random bytes, or a passphrase of {PASSPHRASE_LENGTH_MIN} characters"
            " at least",
            code="BAD_KEY",
        )
    return Secret(text)


def key_of(secret: Secret, salt: bytes) -> bytes:
    """Return the backup's key: 32 bytes are one, everything else is a passphrase for scrypt."""
    content = secret.reveal().encode("latin-1")
    if len(content) == KEY_BYTES:
        return content
    return Scrypt(salt=salt, length=KEY_BYTES, n=SCRYPT_N, r=8, p=1).derive(content)


def seal_of(key: bytes, text: bytes) -> str:
    """Return a MAC of the manifest, so that nobody else can write one for these parts."""
    own = HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=b"tickgate manifest").derive(key)
    return hmac.new(own, text, hashlib.sha256).hexdigest()


class SealedWriter:
    """Encrypts what is written to it."""

    def __init__(self, raw: BinaryIO, key: bytes, name: str) -> None:
        self._raw = raw
        salt, prefix = secrets.token_bytes(SALT_BYTES), secrets.token_bytes(PREFIX_BYTES)
        self._chunks = _Chunks(key, salt, prefix, name)
        self._waiting = bytearray()
        raw.write(MAGIC + salt + prefix)

    def write(self, data: bytes) -> int:
        self._waiting += data
        # A full chunk is kept until it is known not to be the last.
        while len(self._waiting) > CHUNK_BYTES:
            self._raw.write(self._chunks.sealed(bytes(self._waiting[:CHUNK_BYTES]), last=False))
            del self._waiting[:CHUNK_BYTES]
        return len(data)

    def finish(self) -> None:
        self._raw.write(self._chunks.sealed(bytes(self._waiting), last=True))


class SealedReader:
    """Decrypts what it reads. Raises: Corrupt: a wrong key, or something was changed, moved or cut off."""

    def __init__(self, raw: BinaryIO, key: bytes, name: str) -> None:
        self._raw = raw
        head = exactly(raw, len(MAGIC) + SALT_BYTES + PREFIX_BYTES)
        if not head.startswith(MAGIC) or len(head) < len(MAGIC) + SALT_BYTES + PREFIX_BYTES:
            raise Corrupt(f"{name} is not encrypted as the manifest says", code="BACKUP_DAMAGED")
        salt, prefix = head[len(MAGIC) : len(MAGIC) + SALT_BYTES], head[-PREFIX_BYTES:]
        self._chunks = _Chunks(key, salt, prefix, name)
        self._ahead = exactly(raw, CHUNK_BYTES + TAG_BYTES)
        self._opened = b""
        self._ended = False

    def read(self, size: int = -1) -> bytes:
        if not self._opened and not self._ended:
            chunk, self._ahead = self._ahead, exactly(self._raw, CHUNK_BYTES + TAG_BYTES)
            self._ended = not self._ahead
            self._opened = self._chunks.opened(chunk, last=self._ended)
        size = len(self._opened) if size < 0 else size
        data, self._opened = self._opened[:size], self._opened[size:]
        return data


class _Chunks:
    def __init__(self, key: bytes, salt: bytes, prefix: bytes, name: str) -> None:
        info = b"tickgate part " + name.encode()
        self._cipher = AESGCM(HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=salt, info=info).derive(key))
        self._prefix = prefix
        self._name = name
        self._number = 0

    def sealed(self, text: bytes, *, last: bool) -> bytes:
        return self._cipher.encrypt(self._nonce(last=last), text, None)

    def opened(self, chunk: bytes, *, last: bool) -> bytes:
        try:
            return self._cipher.decrypt(self._nonce(last=last), chunk, None)
        except InvalidTag as e:
            raise Corrupt(f"{self._name} is damaged, or the key is another", code="BACKUP_DAMAGED") from e

    def _nonce(self, *, last: bool) -> bytes:
        nonce = self._prefix + struct.pack(">IB", self._number, last)
        self._number += 1
        return nonce


def exactly(raw: BinaryIO, size: int) -> bytes:
    """Return `size` bytes, less only at the end."""
    found = bytearray()
    while len(found) < size and (piece := raw.read(size - len(found))):
        found += piece
    return bytes(found)
