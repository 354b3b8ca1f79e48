"""Seal stored answers, which may hold secrets, so that only whoever sends the request again can read them.

The encryption key is derived from the caller's Idempotency-Key, of which the ledger holds a hash only. A key that can
be guessed protects nothing: callers are told to use a random UUID. Source: RFC 5869 (HKDF), NIST SP 800-38D (GCM).
"""

import hashlib
import os
from typing import Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from core.errors.exceptions import Corrupt
from core.ports.idempotency import IdempotentRequest, StoredAnswer

SALT_BYTES: Final = 16
NONCE_BYTES: Final = 12
KEY_BYTES: Final = 32
PURPOSE: Final = b"tickgate idempotent answer 1"
_decode: Final = msgspec.msgpack.Decoder(StoredAnswer).decode


def key_hash(request: IdempotentRequest) -> bytes:
    """Return what the ledger knows the key by. It shares nothing with the encryption key but its input."""
    return hashlib.sha256(b"tickgate idempotency key\0" + request.key.encode()).digest()


def seal(answer: StoredAnswer, request: IdempotentRequest) -> bytes:
    salt, nonce = os.urandom(SALT_BYTES), os.urandom(NONCE_BYTES)
    sealed = AESGCM(_key(request, salt)).encrypt(nonce, msgspec.msgpack.encode(answer), _bound_to(request))
    return salt + nonce + sealed


def unseal(stored: bytes, request: IdempotentRequest) -> StoredAnswer:
    """Raises: Corrupt: it was changed, or moved from another row."""
    salt, nonce = stored[:SALT_BYTES], stored[SALT_BYTES : SALT_BYTES + NONCE_BYTES]
    sealed = stored[SALT_BYTES + NONCE_BYTES :]
    try:
        return _decode(AESGCM(_key(request, salt)).decrypt(nonce, sealed, _bound_to(request)))
    except (InvalidTag, ValueError) as e:
        raise Corrupt("the stored answer cannot be read", code="STORED_ANSWER_CORRUPT") from e


def _key(request: IdempotentRequest, salt: bytes) -> bytes:
    return HKDF(SHA256(), KEY_BYTES, salt, PURPOSE).derive(request.key.encode())


def _bound_to(request: IdempotentRequest) -> bytes:
    return b"\0".join((request.tenant.encode(), request.subject.encode(), request.fingerprint))
