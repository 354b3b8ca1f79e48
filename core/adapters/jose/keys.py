"""Public keys by their id: which are good enough, and a file of ours that is read again when it has changed."""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import structlog
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, JWKRegistry, OKPKey, RSAKey

from core.errors.exceptions import Misconfigured

log = structlog.get_logger(__name__)

PublicKey = RSAKey | ECKey | OKPKey

KEYS_MAX: Final = 64
KEY_ID_LENGTH_MAX: Final = 200
RSA_BITS_MIN: Final = 2_048
RSA_BITS_MAX: Final = 8_192
BITS_PER_LETTER: Final = 6
FILE_BYTES_MAX: Final = 256 * 1024
POLL_INTERVAL_S: Final = 2.0
LOOK_INTERVAL_S: Final = 0.2
"""An unknown key id has the file looked at, but no more often than this."""
SMALL_ORDER: Final = frozenset(
    # Ed25519 points of small order, and 0, 1 and p-1 written as more than p: one signature fits many messages. Source:
    # Chalkias et al., Taming the many EdDSAs, 2020, table 1. The sign bit is ignored.
    {
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    }
)


def keys_of(document: Any, *, only_ed25519: bool) -> Mapping[str, PublicKey]:
    """Return the keys of a JSON Web Key Set that may verify signatures, by id; others are left out.

    Raises:
        ValueError: it is no key set, it holds too many keys, or none that is good enough.
    """
    listed = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(listed, list) or len(listed) > KEYS_MAX:
        raise ValueError("no JSON Web Key Set, or too large a one")
    found: dict[str, PublicKey] = {}
    for one in listed:
        key_id = one.get("kid") if isinstance(one, dict) else None
        if not isinstance(key_id, str) or not 0 < len(key_id) <= KEY_ID_LENGTH_MAX:
            continue
        if key_id in found:
            raise ValueError("two keys with one id")
        key = _public_key(one)
        if key is not None and (isinstance(key, OKPKey) or not only_ed25519):
            found[key_id] = key
    if not found:
        raise ValueError("no key that could be used")
    return found


def _public_key(document: Mapping[str, Any]) -> PublicKey | None:
    uses = document.get("key_ops", ["verify"])
    if document.get("use", "sig") != "sig" or not isinstance(uses, list) or "verify" not in uses:
        return None
    if document.get("kty") == "RSA" and len(str(document.get("n", ""))) * BITS_PER_LETTER < RSA_BITS_MIN:
        return None
    try:
        # Only what makes the key, so that nothing else in the document has a say.
        key = JWKRegistry.import_key(
            {
                name: document[name]
                for name in ("kty", "crv", "x", "y", "n", "e", "kid", "alg")
                if name in document
            }
        )
        return key if isinstance(key, PublicKey) and _is_strong(key) else None
    except (JoseError, ValueError, TypeError, KeyError):
        return None


def _is_strong(key: PublicKey) -> bool:
    if isinstance(key, RSAKey):
        numbers = key.public_key.public_numbers()
        return RSA_BITS_MIN <= numbers.n.bit_length() <= RSA_BITS_MAX and numbers.e >= 65_537
    if isinstance(key, ECKey):
        return key.curve_name in {"P-256", "P-384", "P-521"}
    if key.curve_name != "Ed25519":
        return False
    raw = bytearray(key.public_key.public_bytes_raw())
    raw[31] &= 0x7F
    return raw.hex() not in SMALL_ORDER


class KeyFile:
    """The public keys in a file. Whoever replaces the file is noticed within POLL_INTERVAL_S."""

    def __init__(self, path: Path) -> None:
        """Raises: Misconfigured: the file holds no key set."""
        self._path = path
        self._looked_at_s = time.monotonic()
        self._stamp = _stamp(path)
        try:
            self._keys = _read(path)
        except (OSError, ValueError) as e:
            raise Misconfigured(f"{path} holds no JSON Web Key Set", code="BAD_JWKS") from e

    def get(self, key_id: str) -> PublicKey | None:
        """Return the key; an unknown one may just have been added."""
        if key_id not in self._keys and time.monotonic() - self._looked_at_s >= LOOK_INTERVAL_S:
            self.refresh()
        return self._keys.get(key_id)

    def refresh(self) -> bool:
        """Read the file if it is another than before, and tell whether its keys are. A broken one changes nothing."""
        self._looked_at_s = time.monotonic()
        stamp = _stamp(self._path)
        if stamp == self._stamp:
            return False
        try:
            self._keys = _read(self._path)
        except (OSError, ValueError) as e:
            log.error("keys.unreadable", path=str(self._path), error=repr(e))
            return False
        self._stamp = stamp
        log.info("keys.read", path=str(self._path), keys=sorted(self._keys))
        return True

    @asynccontextmanager
    async def followed(self, changed: Any) -> AsyncIterator[None]:
        """Look at the file now and then until left; call `changed()` when its keys are others."""
        following = asyncio.create_task(self._follow(changed), name="keys")
        try:
            yield
        finally:
            following.cancel()
            await asyncio.wait((following,))

    async def _follow(self, changed: Any) -> None:
        while True:
            await asyncio.sleep(POLL_INTERVAL_S)
            if self.refresh():
                changed()


def _read(path: Path) -> Mapping[str, PublicKey]:
    with path.open("rb") as file:
        text = file.read(FILE_BYTES_MAX + 1)
    if len(text) > FILE_BYTES_MAX:
        raise ValueError("too large")
    return keys_of(json.loads(text), only_ed25519=True)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino, status.st_size
