"""Sign access tokens with the private Ed25519 key that only the gateway reads. Source: RFC 9068 (JWT access tokens)."""

import json
import secrets
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any, Final

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet, OKPKey

from core.errors.exceptions import Misconfigured
from core.ports import ApiClient
from core.settings import AuthSettings

ALGORITHM: Final = "Ed25519"  # source: RFC 9864, which retires the ambiguous name EdDSA
JWT_TYPE: Final = "at+jwt"
TOKEN_ID_BYTES: Final = 16


class TokenSigner:
    """Issues access tokens."""

    def __init__(self, key: OKPKey, auth: AuthSettings) -> None:
        self._key = key
        self._auth = auth
        self._header = {"alg": ALGORITHM, "typ": JWT_TYPE, "kid": key.kid}

    @property
    def ttl_s(self) -> int:
        return self._auth.token_ttl_s

    def sign(self, client: ApiClient, scopes: Collection[str]) -> str:
        """Return a token that lets its bearer act for `client` within `scopes`."""
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
        }
        return jwt.encode(self._header, claims, self._key, algorithms=[ALGORITHM])


def load_signer(auth: AuthSettings) -> TokenSigner:
    """Read the private key set; its first key signs, so that a new one can be published before it is used.

    Raises:
        Misconfigured: TICKGATE_AUTH_KEY_FILE is unset or holds no private Ed25519 key.
    """
    if not auth.key_file:
        raise Misconfigured("TICKGATE_AUTH_KEY_FILE must name the private key set", code="NO_SIGNING_KEY")
    try:
        keys = KeySet.import_key_set(json.loads(Path(auth.key_file).read_bytes()))
    except (OSError, ValueError, KeyError, TypeError, JoseError) as e:
        raise Misconfigured(f"{auth.key_file} holds no JSON Web Key Set", code="BAD_SIGNING_KEY") from e
    key = keys.keys[0] if keys.keys else None
    if not isinstance(key, OKPKey) or not key.is_private or key.as_dict().get("crv") != "Ed25519":
        raise Misconfigured(f"{auth.key_file} holds no private Ed25519 key", code="BAD_SIGNING_KEY")
    key.ensure_kid()
    return TokenSigner(key, auth)
