"""Checkpoints: what a stream was at one moment, signed, and kept where who has the database cannot reach.

A chain alone does not show that its end is missing, nor that all of it was written anew. A checkpoint outside does.
"""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from core.auditing.chain import canonical

FIRST: Final = "0" * 64
"""What the first checkpoint of a stream follows."""
Hash = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """size: events of the stream; root: of the Merkle tree over their hashes; head: the last one's hash; previous: the
    hash of the checkpoint before. key: the id of the one that signed; signature: base64.
    """

    stream: str
    size: int
    root: Hash
    head: Hash
    previous: Hash
    at_ms: int
    key: str
    signature: str = ""

    def signed_part(self) -> bytes:
        """Return what the signature covers."""
        fields = msgspec.structs.asdict(self)
        del fields["signature"]
        return b"tickgate.checkpoint\x00" + canonical(fields)

    def digest(self) -> str:
        """Return what the next checkpoint names as the one before it."""
        return hashlib.sha256(self.signed_part()).hexdigest()


class Signer:
    """Signs checkpoints. key: a private Ed25519 JSON Web Key."""

    def __init__(self, key: Mapping[str, Any]) -> None:
        self.key_id = str(key["kid"])
        self._private = Ed25519PrivateKey.from_private_bytes(_decoded(key["d"]))

    def signed(self, checkpoint: Checkpoint) -> Checkpoint:
        whole = msgspec.structs.replace(checkpoint, key=self.key_id)
        signature = base64.b64encode(self._private.sign(whole.signed_part())).decode()
        return msgspec.structs.replace(whole, signature=signature)


class Keyring:
    """Verifies checkpoints. keys: public Ed25519 JSON Web Keys."""

    def __init__(self, keys: Sequence[Mapping[str, Any]]) -> None:
        self._public = {
            str(key["kid"]): Ed25519PublicKey.from_public_bytes(_decoded(key["x"])) for key in keys
        }

    def verifies(self, checkpoint: Checkpoint) -> bool:
        public = self._public.get(checkpoint.key)
        if public is None:
            return False
        try:
            public.verify(base64.b64decode(checkpoint.signature), checkpoint.signed_part())
        except (InvalidSignature, ValueError):
            return False
        return True


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
