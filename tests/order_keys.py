"""The key that signs orders in tests, the same in every process of a run, and files that hold it."""

import base64
import hashlib
from pathlib import Path
from typing import Any, Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from core.infrastructure.signing_keys import Key, write_keys
from core.messages.order_seals import CommandKeys, CommandSigner
from core.settings import Settings


def order_key(name: str = "tests") -> Key:
    """Return a private key that follows from a name."""

    def text(raw: bytes) -> str:
        return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()

    seed = hashlib.sha256(name.encode()).digest()
    public = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
    return {"kty": "OKP", "crv": "Ed25519", "kid": name, "d": text(seed), "x": text(public)}


SIGNER: Final = CommandSigner(order_key())
KEYS: Final = CommandKeys([order_key()])


def write_order_keys(directory: Path) -> tuple[Path, Path]:
    """Write both halves; return where they lie, the private one first."""
    directory.mkdir(parents=True, exist_ok=True)
    files = directory / "orders.json", directory / "orders-public.json"
    write_keys(*files, [order_key()])
    return files


def signing(settings: Settings, directory: Path, **trading: Any) -> Settings:
    """Return the settings of a worker that signs orders."""
    key_file = str(write_order_keys(directory)[0])
    return msgspec.structs.replace(
        settings, trading=msgspec.structs.replace(settings.trading, key_file=key_file, **trading)
    )
