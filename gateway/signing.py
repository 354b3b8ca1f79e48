"""Sign access tokens with the private Ed25519 key that only the gateway reads. Source: RFC 9068 (JWT access tokens)."""

import secrets
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any, Final

import structlog
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import OKPKey

from core.errors.exceptions import Misconfigured, TickgateError
from core.infrastructure.signing_keys import Key, public_half, read_keys
from core.ports.access import ApiClient
from core.settings import AuthSettings

log = structlog.get_logger(__name__)

ALGORITHM: Final = "Ed25519"  # source: RFC 9864, which retires the ambiguous name EdDSA
JWT_TYPE: Final = "at+jwt"
TOKEN_ID_BYTES: Final = 16
LOOK_INTERVAL_S: Final = 1.0
"""The key file is looked at when a key is needed, and no more often than this."""


class TokenSigner:
    """Issues access tokens. A key file that was rotated is noticed; a broken one changes nothing."""

    def __init__(self, auth: AuthSettings) -> None:
        """Raises: Misconfigured."""
        self._auth = auth
        self._path = Path(auth.key_file)
        self._looked_at_s = time.monotonic()
        self._stamp = self._path.stat().st_mtime_ns if self._path.exists() else 0
        self._key, self._public = _load(self._path)

    @property
    def ttl_s(self) -> int:
        return self._auth.token_ttl_s

    @property
    def public_keys(self) -> dict[str, Any]:
        """The keys tokens of ours are verified with, as a JSON Web Key Set."""
        self._refresh()
        return self._public

    def sign(self, client: ApiClient, scopes: Collection[str], family: str | None = None) -> str:
        """Return a token that lets its bearer act for `client` within `scopes`. family: of its refresh token."""
        self._refresh()
        now_s = int(time.time())
        claims: dict[str, Any] = {
            "iss": self._auth.issuer,
            "aud": self._auth.audience,
            "sub": client.client_id,
            "client_id": client.client_id,
            "tenant": client.tenant,
            "scope": " ".join(sorted(scopes)),
            "iat": now_s,
            "exp": now_s + self.ttl_s,
            "jti": secrets.token_urlsafe(TOKEN_ID_BYTES),
            **({"family": family} if family else {}),
        }
        header = {"alg": ALGORITHM, "typ": JWT_TYPE, "kid": self._key.kid}
        return jwt.encode(header, claims, self._key, algorithms=[ALGORITHM])

    def _refresh(self) -> None:
        now_s = time.monotonic()
        if now_s - self._looked_at_s < LOOK_INTERVAL_S:
            return
        self._looked_at_s = now_s
        try:
            stamp = self._path.stat().st_mtime_ns
            if stamp == self._stamp:
                return
            self._key, self._public = _load(self._path)
        except (OSError, TickgateError) as e:
            log.error("signing_keys.unreadable", error=repr(e))
            return
        self._stamp = stamp
        log.info("signing_keys.read", kid=self._key.kid, keys=len(self._public["keys"]))


def load_signer(auth: AuthSettings) -> TokenSigner:
    """Read the private key set; its first key signs, so that a new one can be published before it is used.

    Raises:
        Misconfigured: TICKGATE_AUTH_KEY_FILE is unset or holds no private Ed25519 key.
    """
    if not auth.key_file:
        raise Misconfigured("TICKGATE_AUTH_KEY_FILE must name the private key set", code="NO_SIGNING_KEY")
    return TokenSigner(auth)


def _load(path: Path) -> tuple[OKPKey, dict[str, Any]]:
    keys = read_keys(path)
    return _signing_key(keys[0], path), public_half(keys)


def _signing_key(document: Key, path: Path) -> OKPKey:
    try:
        key = OKPKey.import_key({name: document[name] for name in ("kty", "crv", "x", "d", "kid")})
        private = key.is_private and key.curve_name == "Ed25519"
    except (JoseError, ValueError, KeyError, TypeError) as e:
        raise Misconfigured(f"{path} holds no private Ed25519 key", code="BAD_SIGNING_KEY") from e
    if not private:
        raise Misconfigured(f"{path} holds no private Ed25519 key", code="BAD_SIGNING_KEY")
    return key
