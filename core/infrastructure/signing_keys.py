"""The key file that signs access tokens, and its public half that verifies them: what a safe rotation does to both.

The key file is a JSON Web Key Set. Its first key signs; the second is the next one, published so that everybody knows
it before it is used; public keys after them signed before and still verify. Two rules make rotation seamless:

- a key signs only after it has been published for NOTICE_S, the time anybody may keep a copy of the key set;
- a key that has signed stays published for OVERLAP_S: a token's life, plus the time a verifier may remember it.

The public half is written first, so that nobody meets a signature whose key is not known.
"""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from core.errors.exceptions import Conflict, Misconfigured
from core.infrastructure.config_manager import write_settings_file

NOTICE_S: Final = 300
"""Also how long GET /.well-known/jwks.json may be cached."""
OVERLAP_S: Final = 900 + 60 + 60
"""A token's life at most, a verifier's cache, and clocks that differ."""
_PUBLIC: Final = ("kty", "crv", "x", "kid", "use")
_KEPT: Final = (*_PUBLIC, "published_at", "retired_at")

Key = Mapping[str, Any]


def new_key(now_s: float) -> Key:
    """Return a private Ed25519 key nobody has had before."""
    from joserfc.jwk import OKPKey  # noqa: PLC0415 - loads a cryptography library; most commands need none

    key = OKPKey.generate_key("Ed25519", {"use": "sig"}, auto_kid=True)
    return {**key.as_dict(private=True), "published_at": int(now_s)}


def public_half(keys: Sequence[Key]) -> dict[str, Any]:
    """Return the key set that may be shown to anybody."""
    return {"keys": [{name: key[name] for name in _PUBLIC if name in key} for key in keys]}


def rotated(keys: Sequence[Key], now_s: float) -> Sequence[Key]:
    """Return the keys after one more step: the next key signs, a new next key is published, old ones are dropped.

    Where there is no next key yet, one is published and nothing else happens.

    Raises:
        Conflict: the next key is too new to be known everywhere (code KEY_TOO_NEW).
    """
    private = [key for key in keys if "d" in key]
    retired = [key for key in keys if "d" not in key and now_s - key.get("retired_at", 0) < OVERLAP_S]
    if len(private) == 1:
        return [*private, new_key(now_s), *retired]
    signing, upcoming, *others = private
    wait_s = upcoming.get("published_at", 0) + NOTICE_S - now_s
    if wait_s > 0:
        raise Conflict(
            f"the next key is not known everywhere yet; try again in {int(wait_s) + 1} s", code="KEY_TOO_NEW"
        )
    # Its private half is destroyed: it will never sign again.
    past = {name: signing[name] for name in _KEPT if name in signing} | {"retired_at": int(now_s)}
    return [upcoming, *(others or [new_key(now_s)]), past, *retired]


def write_keys(key_file: Path, jwks_file: Path, keys: Sequence[Key]) -> None:
    """Write both halves, the public one first. A retired key leaves the public half when a later rotation drops it."""
    write_settings_file(jwks_file, public_half(keys))
    write_settings_file(key_file, {"keys": [dict(key) for key in keys]})


def read_keys(key_file: Path) -> Sequence[Key]:
    """Return the keys of the key file, the one that signs first. Raises: Misconfigured."""
    try:
        keys = json.loads(key_file.read_bytes())["keys"]
        if not all(isinstance(key, dict) and isinstance(key.get("kid"), str) for key in keys):
            raise ValueError("a key has no id")
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise Misconfigured(f"{key_file} holds no JSON Web Key Set", code="BAD_SIGNING_KEY") from e
    if not keys or "d" not in keys[0]:
        raise Misconfigured(f"{key_file} holds no private key to sign with", code="BAD_SIGNING_KEY")
    return list(keys)


def read_public_keys(jwks_file: Path) -> Sequence[Key]:
    """Return the keys of a public half. Raises: Misconfigured."""
    try:
        keys = json.loads(jwks_file.read_bytes())["keys"]
        if not all(isinstance(key["kid"], str) and isinstance(key["x"], str) for key in keys):
            raise ValueError("a key has no id")
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise Misconfigured(f"{jwks_file} holds no JSON Web Key Set", code="BAD_SIGNING_KEY") from e
    return list(keys)


def rotate(key_file: Path, jwks_file: Path) -> Sequence[Key]:
    """Take one step, and return the keys as they are now. Raises: Conflict, Misconfigured."""
    keys = rotated(read_keys(key_file), time.time())
    write_keys(key_file, jwks_file, keys)
    return keys
