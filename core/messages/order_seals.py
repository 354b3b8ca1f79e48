"""Seals on orders for terminals and on their answers, so that whoever carries them can neither make nor change one.

A command is signed by the trading worker that sends it (Ed25519): the connector has only the public half, whoever
relays has neither. An answer carries a MAC by a key that follows from the source's token, which the connector has, the
bridge has been shown, and of which the ledger knows the hash; Redis never sees it. It covers the very command it
answers. What is sealed is the bytes themselves: nothing has to be made canonical.
Source: RFC 8032 (Ed25519), RFC 2104 (HMAC).
"""

import base64
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from core.errors.exceptions import Unauthorized

SIGNATURE_BYTES: Final = 64
MAC_BYTES: Final = 32
KEYS_MAX: Final = 8
"""Public keys a connector tries, one after the other: the one that signs, the next, and some past ones."""
_COMMAND: Final = b"tickgate.order.2\x00"
_REPLY: Final = b"tickgate.order-reply.2\x00"
_REPLY_KEY: Final = b"tickgate.order-reply-key.2"


class CommandSigner:
    """Signs commands. key: a private Ed25519 JSON Web Key."""

    def __init__(self, key: Mapping[str, Any]) -> None:
        self._private = Ed25519PrivateKey.from_private_bytes(_decoded(key["d"]))

    def sealed(self, body: bytes) -> bytes:
        """Return the signature and behind it the command."""
        return self._private.sign(_COMMAND + body) + body


class CommandKeys:
    """Verifies commands. keys: public Ed25519 JSON Web Keys, at most KEYS_MAX of which count."""

    def __init__(self, keys: Sequence[Mapping[str, Any]]) -> None:
        self._public = [Ed25519PublicKey.from_public_bytes(_decoded(key["x"])) for key in keys[:KEYS_MAX]]

    def opened(self, sealed: bytes) -> bytes:
        """Return the command. Raises: Unauthorized: nobody who may send orders has signed it."""
        signature, body = sealed[:SIGNATURE_BYTES], sealed[SIGNATURE_BYTES:]
        for public in self._public:
            try:
                public.verify(signature, _COMMAND + body)
            except InvalidSignature:
                continue
            return body
        raise Unauthorized("the order is not signed by a trading worker", code="BAD_SIGNATURE")


def token_hash(token: str) -> str:
    """Return what the ledger keeps of a source's token."""
    return hashlib.sha256(token.encode()).hexdigest()


def reply_key(hashed_token: str) -> bytes:
    """Return the key of a source's answers. hashed_token: as the ledger keeps it."""
    return hmac.digest(bytes.fromhex(hashed_token), _REPLY_KEY, "sha256")


def digest_of(sealed_command: bytes) -> bytes:
    """Return what an answer says which command it answers."""
    return hashlib.sha256(sealed_command).digest()


def sealed_reply(key: bytes, asked: bytes, body: bytes) -> bytes:
    """Return the MAC and behind it the answer. asked: the digest of the sealed command."""
    return _mac(key, asked, body) + body


def opened_reply(key: bytes, asked: bytes, sealed: bytes) -> bytes:
    """Return the answer. Raises: Unauthorized: it is nobody's who was asked, or it answers something else."""
    body = sealed[MAC_BYTES:]
    if not hmac.compare_digest(sealed[:MAC_BYTES], _mac(key, asked, body)):
        raise Unauthorized("the answer to an order is not its terminal's", code="BAD_SIGNATURE")
    return body


def _mac(key: bytes, asked: bytes, body: bytes) -> bytes:
    return hmac.digest(key, _REPLY + asked + body, "sha256")


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
