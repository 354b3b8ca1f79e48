"""Verify access tokens: ours, and an external OpenID provider's if one is configured.

One algorithm family, explicit keys, one spelling, every claim checked, and a bounded cache. Verifying costs ~200 us, a
cache hit 2-3 us: an entry lives no longer than its token and no longer than CACHED_S_MAX, it ends with the keys it was
verified by, and each hit asks whether the token, its client or its family has been revoked in the meantime.
"""

import hashlib
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, NoReturn

import structlog

from core.adapters.jose.claims import Refused, check_times, scopes, text
from core.adapters.jose.external import ExternalProvider, external_provider
from core.adapters.jose.keys import KeyFile
from core.adapters.jose.reading import TOKEN_BYTES_MAX, Unreadable, UnverifiedToken, read
from core.adapters.jose.verified import CACHED_S_MAX, Verified, check_signature
from core.errors.exceptions import Misconfigured, Unauthorized
from core.model.principals import Principal, PrincipalKind
from core.ports.access import Revocations
from core.settings import AuthSettings, Settings

log = structlog.get_logger(__name__)

ALGORITHMS: Final = ("Ed25519", "EdDSA")
TOKEN_TYPE: Final = "at+jwt"  # noqa: S105 - a media type; source: RFC 9068
HEADER: Final = frozenset({"alg", "typ", "kid"})
CACHED_TOKENS_MAX: Final = 10_000


class AccessTokens:
    """The `TokenVerifier` port: turns a bearer token into a Principal, or refuses it."""

    def __init__(
        self,
        keys: KeyFile,
        auth: AuthSettings,
        revocations: Revocations,
        external: ExternalProvider | None = None,
    ) -> None:
        self._keys = keys
        self._auth = auth
        self._revocations = revocations
        self._external = external
        self._cache: OrderedDict[bytes, Verified] = OrderedDict()

    async def verify(self, token: str) -> Principal:
        if len(token) > TOKEN_BYTES_MAX:
            refuse("too long")
        digest = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
        found = self._cache.get(digest)
        if found is None or found.until_s <= time.time():
            found = await self._verify(token)
            self._cache[digest] = found
            log.info("token.accepted", credential=found.principal.credential, tenant=found.principal.tenant)
            if len(self._cache) > CACHED_TOKENS_MAX:
                self._cache.popitem(last=False)
        revoked = self._revocations.is_revoked
        if revoked(*found.one, issued_at_s=0) or revoked(found.owner, issued_at_s=found.issued_at_s):
            refuse("revoked")
        return found.principal

    def forget(self) -> None:
        """Believe nothing that was verified by keys of before."""
        self._cache.clear()

    async def _verify(self, token: str) -> Verified:
        try:
            unverified = read(token)
            if self._external is not None and self._external.issued(unverified):
                return await self._external.verify(token, unverified)
            return self._own(token, unverified)
        except (Unreadable, Refused) as e:
            refuse(str(e), e)

    def _own(self, token: str, unverified: UnverifiedToken) -> Verified:
        header, claims = unverified.header, unverified.claims
        # Exactly what we write: whatever else a header may ask for, a key, an address, an extension, is not ours.
        if header.keys() != HEADER or header["typ"] != TOKEN_TYPE or header["alg"] not in ALGORITHMS:
            raise Refused("header")
        key_id = header["kid"]
        key = self._keys.get(key_id) if isinstance(key_id, str) else None
        if key is None:
            raise Refused("kid")
        check_signature(token, key, header["alg"])
        if claims.get("iss") != self._auth.issuer:
            raise Refused("iss")
        if claims.get("aud") != self._auth.audience:
            # We write one audience. A list, even with us in it, was not written by us.
            raise Refused("aud")
        now_s = time.time()
        issued_at_s, expires_at_s = check_times(claims, now_s, self._auth.token_ttl_s)
        token_id, client = f"token:{text(claims, 'jti')}", text(claims, "client_id")
        family = (f"family:{text(claims, 'family')}",) if "family" in claims else ()
        return Verified(
            principal=Principal(
                subject=text(claims, "sub"),
                tenant=text(claims, "tenant"),
                scopes=scopes(claims),
                expires_at_s=expires_at_s,
                kind=PrincipalKind.CLIENT,
                credential=token_id,
            ),
            one=(token_id, *family),
            owner=f"client:{client}",
            issued_at_s=issued_at_s,
            until_s=min(expires_at_s, now_s + CACHED_S_MAX),
        )


def refuse(detail: str, cause: Exception | None = None) -> NoReturn:
    """Raises: Unauthorized; the caller is not told what was wrong."""
    raise Unauthorized("the access token is not valid", code="INVALID_TOKEN", detail=detail) from cause


@asynccontextmanager
async def open_access_tokens(settings: Settings, services: Mapping[str, Any]) -> AsyncIterator[AccessTokens]:
    """Read the public key set, and follow its file.

    Raises:
        Misconfigured: TICKGATE_AUTH_JWKS_FILE is unset or holds no key set.
    """
    if not settings.auth.jwks_file:
        raise Misconfigured("TICKGATE_AUTH_JWKS_FILE must name the public key set", code="NO_JWKS")
    keys = KeyFile(Path(settings.auth.jwks_file))
    async with external_provider(settings.auth) as external:
        tokens = AccessTokens(keys, settings.auth, services["revocations"], external)
        async with keys.followed(tokens.forget):
            yield tokens
