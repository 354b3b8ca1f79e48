"""Access tokens of an external OpenID provider: its keys are fetched, kept, and asked for again with restraint.

The first unknown key id within REFETCH_INTERVAL_S has the key set fetched once, whoever else asks waits for that same
fetch; the next unknown ones are refused at once. A provider that is away changes nothing: its keys are kept, and what
they verify stays good. Nothing in a token says where to fetch from; redirects are not followed.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
import structlog

from core.adapters.jose.claims import Refused, check_times, scopes, text
from core.adapters.jose.keys import PublicKey, keys_of
from core.adapters.jose.reading import UnverifiedToken
from core.adapters.jose.verified import CACHED_S_MAX, Verified, check_signature
from core.errors.exceptions import Misconfigured
from core.model.principals import Principal, PrincipalKind, Scope
from core.settings import AuthSettings

log = structlog.get_logger(__name__)

ALGORITHMS: Final = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519", "EdDSA"}
)
"""Only signatures by a private key: a shared secret would let its verifiers sign."""
REFUSED_HEADERS: Final = frozenset({"jwk", "jku", "x5u", "x5c", "crit", "b64", "zip", "cty", "enc"})
LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
FETCH_TIMEOUT_S: Final = 3.0
FETCH_BYTES_MAX: Final = 256 * 1024
REFETCH_INTERVAL_S: Final = 30.0
"""Between two fetches, whatever is asked and however the last one ended."""
KEYS_S_MAX: Final = 3_600.0
"""Older keys are fetched again when one is needed: that is how a provider takes a key back."""
AUDIENCES_MAX: Final = 16


class ExternalProvider:
    """Verifies the tokens of one provider."""

    def __init__(self, auth: AuthSettings, *, refetch_interval_s: float = REFETCH_INTERVAL_S) -> None:
        """Raises: Misconfigured."""
        _check(auth)
        self._auth = auth
        self._algorithms = frozenset(auth.external_algorithms)
        self._types = frozenset(kind.lower() for kind in auth.external_token_types)
        self._refetch_interval_s = refetch_interval_s
        self._keys: Mapping[str, PublicKey] = {}
        self._fetched_at_s = self._asked_at_s = float("-inf")
        self._fetching: asyncio.Task[None] | None = None

    def issued(self, unverified: UnverifiedToken) -> bool:
        """Whether the token says that it comes from this provider."""
        return unverified.claims.get("iss") == self._auth.external_issuer

    async def verify(self, token: str, unverified: UnverifiedToken) -> Verified:
        """Raises: Refused."""
        header, claims, auth = unverified.header, unverified.claims, self._auth
        kind, algorithm = header.get("typ"), header.get("alg")
        if header.keys() & REFUSED_HEADERS or not isinstance(kind, str) or kind.lower() not in self._types:
            raise Refused("header")
        if not isinstance(algorithm, str) or algorithm not in self._algorithms:
            raise Refused("alg")
        audiences = claims.get("aud")
        if isinstance(audiences, str):
            audiences = [audiences]
        if (
            not isinstance(audiences, list)
            or len(audiences) > AUDIENCES_MAX
            or auth.external_audience not in audiences
        ):
            raise Refused("aud")
        now_s = time.time()
        issued_at_s, expires_at_s = check_times(claims, now_s, auth.external_token_ttl_s_max)
        tenant, subject = text(claims, auth.external_tenant_claim), text(claims, "sub")
        # Everything that costs nothing has been looked at; only now may it cost a fetch.
        check_signature(token, await self._key(text(header, "kid")), algorithm)
        known = frozenset(str(scope) for scope in Scope)
        token_id = f"token:{text(claims, 'jti')}" if "jti" in claims else ""
        return Verified(
            principal=Principal(
                subject=subject,
                tenant=tenant,
                scopes=_scopes(claims, auth.external_scope_claim) & known,
                expires_at_s=expires_at_s,
                kind=PrincipalKind.USER,
                credential=token_id,
            ),
            one=(token_id,) if token_id else (),
            owner=f"user:{subject}",
            issued_at_s=issued_at_s,
            until_s=min(expires_at_s, now_s + CACHED_S_MAX),
        )

    async def _key(self, key_id: str) -> PublicKey:
        old = time.monotonic() - self._fetched_at_s > KEYS_S_MAX
        if key_id not in self._keys or old:
            await self._refetch()
        key = self._keys.get(key_id)
        if key is None:
            raise Refused("kid")
        return key

    async def _refetch(self) -> None:
        """Fetch, or wait for who is fetching, unless it was done lately."""
        if self._fetching is None:
            if time.monotonic() - self._asked_at_s < self._refetch_interval_s:
                return
            self._asked_at_s = time.monotonic()
            self._fetching = asyncio.create_task(self._fetch(), name="external-keys")
        # A caller that gives up does not end what others wait for.
        await asyncio.shield(self._fetching)

    async def _fetch(self) -> None:
        try:
            self._keys = keys_of(
                json.loads(await _download(self._auth.external_jwks_url)), only_ed25519=False
            )
            self._fetched_at_s = time.monotonic()
            log.info("external_keys.fetched", keys=len(self._keys))
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError, RecursionError) as e:
            log.warning("external_keys.kept", error=repr(e)[:200], keys=len(self._keys))
        finally:
            self._fetching = None

    async def close(self) -> None:
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.wait((self._fetching,))


async def _download(url: str) -> bytes:
    timeout = aiohttp.ClientTimeout(total=FETCH_TIMEOUT_S)
    async with (
        aiohttp.ClientSession(timeout=timeout, trust_env=False) as session,
        session.get(url, allow_redirects=False, headers={"Accept": "application/json"}) as answer,
    ):
        if answer.status != 200:
            raise ValueError(f"status {answer.status}")
        body = bytearray()
        async for piece in answer.content.iter_chunked(16 * 1024):
            body += piece
            if len(body) > FETCH_BYTES_MAX:
                raise ValueError("too large")
    return bytes(body)


def _scopes(claims: Mapping[str, Any], name: str) -> frozenset[str]:
    """Return the scopes; some providers write a list. None at all is no scope."""
    value = claims.get(name, "")
    if isinstance(value, list):
        if not all(isinstance(one, str) for one in value):
            raise Refused(name)
        return frozenset(value)
    return scopes({name: value}, name)


def _check(auth: AuthSettings) -> None:
    """Raises: Misconfigured: the provider is set up so that it cannot be trusted."""
    address = urlsplit(auth.external_jwks_url)
    if address.scheme != "https" and not (address.scheme == "http" and address.hostname in LOOPBACK):
        raise Misconfigured("TICKGATE_AUTH_EXTERNAL_JWKS_URL must be https", code="BAD_EXTERNAL_PROVIDER")
    if not auth.external_audience or auth.external_issuer == auth.issuer:
        raise Misconfigured(
            "TICKGATE_AUTH_EXTERNAL_AUDIENCE must name this API, and the external issuer be another than ours",
            code="BAD_EXTERNAL_PROVIDER",
        )
    if not auth.external_algorithms or not ALGORITHMS.issuperset(auth.external_algorithms):
        raise Misconfigured(
            f"TICKGATE_AUTH_EXTERNAL_ALGORITHMS must be among {', '.join(sorted(ALGORITHMS))}",
            code="BAD_EXTERNAL_PROVIDER",
        )


@asynccontextmanager
async def external_provider(auth: AuthSettings) -> AsyncIterator[ExternalProvider | None]:
    """Yield the provider that is configured, if any; its keys are fetched when needed. Raises: Misconfigured."""
    if not auth.external_issuer:
        yield None
        return
    provider = ExternalProvider(auth)
    try:
        yield provider
    finally:
        await provider.close()
