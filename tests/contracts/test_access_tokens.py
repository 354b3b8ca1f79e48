"""The verifier of access tokens by itself: every attack, an external provider's tokens, and what a cached one costs."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from core.adapters.jose.access_tokens import AccessTokens
from core.adapters.jose.external import ExternalProvider
from core.adapters.jose.keys import KeyFile, keys_of
from core.errors.exceptions import Misconfigured, Unauthorized
from core.infrastructure.config_manager import write_settings_file
from core.model.principals import PrincipalKind
from core.settings import AuthSettings
from tests.engines import free_port
from tests.token_attacks import ATTACKS, NOT_FOR_HEADERS, Forge, pad

ISSUER, AUDIENCE = "https://id.example", "https://ticks.example"
ALL = {**ATTACKS, **NOT_FOR_HEADERS}


class Revoked:
    """The revocations a test decides on, by heart as every process knows them."""

    def __init__(self) -> None:
        self.names: dict[str, float] = {}

    def is_revoked(self, *credentials: str, issued_at_s: float) -> bool:
        return any(self.names.get(name, -1) >= issued_at_s for name in credentials)

    async def revoke(self, credential: str, expires_at_s: float) -> None:
        self.names[credential] = time.time()


@dataclass
class Ours:
    """A verifier of our own tokens and who could sign them."""

    tokens: AccessTokens
    forge: Forge
    path: Path
    revoked: Revoked


@pytest.fixture
def ours(tmp_path: Path) -> Ours:
    key = OKPKey.generate_key("Ed25519", {"use": "sig"}, auto_kid=True)
    path = tmp_path / "jwks.json"
    write_settings_file(path, {"keys": [key.as_dict(private=False)]})
    revoked = Revoked()
    return Ours(AccessTokens(KeyFile(path), AuthSettings(), revoked), Forge(key), path, revoked)


@pytest.mark.parametrize("attack", ALL)
async def test_no_attack_gets_past_the_verifier(ours: Ours, attack: str) -> None:
    token = ALL[attack](ours.forge)
    for _ in range(2):
        with pytest.raises(Unauthorized) as refused:
            await ours.tokens.verify(token)
        assert (refused.value.code, refused.value.public) == (
            "INVALID_TOKEN",
            "the access token is not valid",
        )
        assert token not in refused.value.detail or not token


async def test_what_every_attack_is_made_of_is_good(ours: Ours) -> None:
    principal = await ours.tokens.verify(ours.forge.signed())
    assert (principal.subject, principal.tenant, principal.kind) == ("demo", "demo", PrincipalKind.CLIENT)
    assert principal.credential == "token:x"
    assert principal.scopes == {"market:read"}


@pytest.mark.parametrize("name", ["token:x", "client:demo", "family:f"])
async def test_a_revocation_counts_for_a_token_already_verified(ours: Ours, name: str) -> None:
    token = ours.forge.signed(family="f")
    await ours.tokens.verify(token)
    await ours.revoked.revoke(name, 0)
    with pytest.raises(Unauthorized):
        await ours.tokens.verify(token)


async def test_a_token_expires_in_the_verifiers_memory_too(ours: Ours) -> None:
    token = ours.forge.signed(iat=int(time.time()) - 10, exp=int(time.time()) + 1)
    await ours.tokens.verify(token)
    async with asyncio.timeout(15):
        while True:
            try:
                await ours.tokens.verify(token)
            except Unauthorized:
                break
            await asyncio.sleep(0.2)


async def test_a_new_key_is_known_as_soon_as_it_is_needed_and_an_old_one_is_forgotten(ours: Ours) -> None:
    old = ours.forge.signed()
    await ours.tokens.verify(old)
    key = OKPKey.generate_key("Ed25519", auto_kid=True)
    await asyncio.sleep(0.25)  # an unknown key is looked for five times a second at most
    write_settings_file(ours.path, {"keys": [key.as_dict(private=False)]})
    await ours.tokens.verify(Forge(key).signed())
    ours.tokens.forget()
    with pytest.raises(Unauthorized):
        await ours.tokens.verify(old)


async def test_a_key_file_that_is_broken_changes_nothing(ours: Ours) -> None:
    await asyncio.sleep(0.25)  # as above
    ours.path.write_text("{")
    with pytest.raises(Unauthorized):
        await ours.tokens.verify(ours.forge.signed({"kid": "unknown"}))
    await ours.tokens.verify(ours.forge.signed())


@pytest.mark.parametrize("point", ["00" * 32, "01" + "00" * 31, "ec" + "ff" * 30 + "7f", "00" * 31 + "80"])
def test_a_key_of_small_order_is_no_key(point: str) -> None:
    """With such a key a signature of zeros fits any message."""
    key = {"kty": "OKP", "crv": "Ed25519", "x": pad(bytes.fromhex(point)), "kid": "weak"}
    with pytest.raises(ValueError, match="no key"):
        keys_of({"keys": [key]}, only_ed25519=True)


@pytest.mark.parametrize(
    "key",
    [
        {"kty": "RSA", "kid": "short", "e": "AQAB", "n": pad((1 << 1023 | 1).to_bytes(128, "big"))},
        OctKey.generate_key(256, auto_kid=True).as_dict(),
        ECKey.generate_key("secp256k1", auto_kid=True).as_dict(private=False),
        OKPKey.generate_key("X25519", auto_kid=True).as_dict(private=False),
        {**OKPKey.generate_key("Ed25519", auto_kid=True).as_dict(private=False), "use": "enc"},
        {"kty": "OKP", "crv": "Ed25519", "x": "AAAA", "kid": "short"},
        {**OKPKey.generate_key("Ed25519", auto_kid=True).as_dict(private=False), "key_ops": 5},
        {"kty": ["OKP"], "crv": {}, "x": 1, "kid": "odd"},
    ],
    ids=[
        "short RSA",
        "shared secret",
        "odd curve",
        "exchange",
        "for encryption",
        "cut short",
        "odd uses",
        "odd types",
    ],
)
def test_a_key_that_is_not_good_enough_is_left_out(key: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="no key"):
        keys_of({"keys": [key]}, only_ed25519=False)


def test_two_keys_with_one_id_are_refused() -> None:
    key = OKPKey.generate_key("Ed25519", auto_kid=True).as_dict(private=False)
    with pytest.raises(ValueError, match="one id"):
        keys_of({"keys": [key, key]}, only_ed25519=True)


@dataclass
class Provider:
    """A small OpenID provider: it serves a key set and counts who asks."""

    key: RSAKey = field(default_factory=lambda: RSAKey.generate_key(2048, auto_kid=True))
    fetches: int = 0
    answer: Callable[[], web.StreamResponse] | None = None
    elsewhere: int = 0
    port: int = field(default_factory=free_port)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/jwks.json"

    def token(self, header: dict[str, Any] | None = None, **changes: Any) -> str:
        now_s = int(time.time())
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": "ann",
            "tenant": "demo",
            "scope": "openid market:read admin",
            "iat": now_s,
            "exp": now_s + 600,
            **changes,
        }
        claims = {name: value for name, value in claims.items() if value is not None}
        full = {"alg": "RS256", "typ": "at+jwt", "kid": self.key.kid, **(header or {})}
        return jwt.encode(full, claims, self.key, algorithms=[full["alg"]])

    async def serve(self, _request: web.Request) -> web.StreamResponse:
        self.fetches += 1
        if self.answer is not None:
            return self.answer()
        await asyncio.sleep(0.02)
        return web.json_response({"keys": [self.key.as_dict(private=False)]})

    async def other(self, _request: web.Request) -> web.StreamResponse:
        self.elsewhere += 1
        return web.json_response({"keys": [self.key.as_dict(private=False)]})

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        app = web.Application()
        app.router.add_get("/jwks.json", self.serve)
        app.router.add_get("/elsewhere", self.other)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self.port).start()
        try:
            yield
        finally:
            await runner.cleanup()


def trusting(provider: Provider, **changes: Any) -> AuthSettings:
    auth = AuthSettings(external_issuer=ISSUER, external_jwks_url=provider.url, external_audience=AUDIENCE)
    return msgspec.structs.replace(auth, **changes)


@asynccontextmanager
async def house(
    ours: Ours, *, interval_s: float = 30.0, **changes: Any
) -> AsyncIterator[tuple[Any, Provider]]:
    """Yield a verifier that trusts a provider, and the provider."""
    provider = Provider()
    auth = trusting(provider, **changes)
    external = ExternalProvider(auth, refetch_interval_s=interval_s)
    async with provider.running():
        yield AccessTokens(KeyFile(ours.path), auth, ours.revoked, external), provider
    await external.close()


async def test_a_provider_vouches_for_a_user_and_only_scopes_of_ours_count(ours: Ours) -> None:
    async with house(ours) as (tokens, provider):
        principal = await tokens.verify(provider.token(aud=["other", AUDIENCE]))
        assert (principal.subject, principal.tenant, principal.kind) == ("ann", "demo", PrincipalKind.USER)
        assert principal.scopes == {"market:read"}
        assert (await tokens.verify(ours.forge.signed())).kind is PrincipalKind.CLIENT
        assert provider.fetches == 1


async def test_the_claims_may_have_other_names_and_scopes_be_a_list(ours: Ours) -> None:
    names = {"external_tenant_claim": "https://x/org", "external_scope_claim": "scp"}
    async with house(ours, **names) as (tokens, provider):
        token = provider.token(tenant=None, **{"https://x/org": "rival", "scp": ["jobs:read"]})
        principal = await tokens.verify(token)
        assert (principal.tenant, principal.scopes) == ("rival", {"jobs:read"})


async def test_many_at_once_cost_one_fetch(ours: Ours) -> None:
    async with house(ours) as (tokens, provider):
        await asyncio.gather(*(tokens.verify(provider.token(jti=str(n))) for n in range(20)))
        assert provider.fetches == 1


async def test_unknown_keys_cost_one_fetch_however_many_come(ours: Ours) -> None:
    async with house(ours) as (tokens, provider):
        for number in range(20):
            with pytest.raises(Unauthorized):
                await tokens.verify(provider.token({"kid": f"unknown{number}"}))
        assert provider.fetches == 1


async def test_a_provider_that_rotates_is_followed(ours: Ours) -> None:
    async with house(ours, interval_s=0) as (tokens, provider):
        await tokens.verify(provider.token())
        provider.key = RSAKey.generate_key(2048, auto_kid=True)
        await tokens.verify(provider.token())
        assert provider.fetches == 2


async def test_a_provider_that_is_away_leaves_its_keys(ours: Ours) -> None:
    async with house(ours, interval_s=0) as (tokens, provider):
        await tokens.verify(provider.token())
        provider.answer = lambda: web.Response(status=503)
        with pytest.raises(Unauthorized):
            await tokens.verify(provider.token({"kid": "unknown"}))
        await tokens.verify(provider.token(jti="new"))


async def test_no_redirect_is_followed(ours: Ours) -> None:
    async with house(ours) as (tokens, provider):
        provider.answer = lambda: web.Response(status=302, headers={"Location": "/elsewhere"})
        with pytest.raises(Unauthorized):
            await tokens.verify(provider.token())
        assert provider.elsewhere == 0


@pytest.mark.parametrize(
    "body", [b"{}", b"[" * 100_000, b"{" + b" " * 300_000 + b"}", b"\xff", b'{"keys":[]}']
)
async def test_an_answer_that_is_no_key_set_is_refused(ours: Ours, body: bytes) -> None:
    async with house(ours) as (tokens, provider):
        provider.answer = lambda: web.Response(body=body)
        with pytest.raises(Unauthorized):
            await tokens.verify(provider.token())


FORGED: dict[str, Callable[[Provider, Ours], str]] = {
    "another audience": lambda p, _: p.token(aud="other"),
    "no audience of ours in the list": lambda p, _: p.token(aud=["other"]),
    "an identity token": lambda p, _: p.token({"typ": "JWT"}),
    "our issuer by their key": lambda p, _: p.token(iss="tickgate"),
    "their issuer by our key": lambda _, o: o.forge.signed(iss=ISSUER, aud=AUDIENCE),
    "their issuer by our key under their kid": lambda p, o: o.forge.signed(
        {"kid": p.key.kid}, iss=ISSUER, aud=AUDIENCE
    ),
    "our issuer under their kid": lambda p, o: o.forge.signed({"kid": p.key.kid}),
    "an algorithm not agreed on": lambda p, _: p.token({"alg": "RS384"}),
    "a key in the header": lambda p, _: p.token({"jwk": p.key.as_dict(private=False)}),
    "an address in the header": lambda p, _: p.token({"jku": p.url}),
    "no tenant": lambda p, _: p.token(tenant=None),
    "a list of tenants": lambda p, _: p.token(tenant=["demo"]),
    "too long a life": lambda p, _: p.token(exp=int(time.time()) + 86_400),
    "expired": lambda p, _: p.token(iat=int(time.time()) - 700, exp=int(time.time()) - 60),
    "a scope that is a number": lambda p, _: p.token(scope=1),
    "no kid": lambda p, _: p.token({"kid": ""}),
}


@pytest.mark.parametrize("attack", FORGED)
async def test_a_providers_token_is_held_to_the_same_rules(ours: Ours, attack: str) -> None:
    async with house(ours) as (tokens, provider):
        with pytest.raises(Unauthorized):
            await tokens.verify(FORGED[attack](provider, ours))


@pytest.mark.parametrize(
    "changes",
    [
        {"external_jwks_url": "http://id.example/jwks.json"},
        {"external_jwks_url": "file:///etc/passwd"},
        {"external_jwks_url": ""},
        {"external_audience": ""},
        {"external_issuer": "tickgate"},
        {"external_algorithms": ["RS256", "HS256"]},
        {"external_algorithms": ["none"]},
        {"external_algorithms": []},
    ],
)
def test_a_provider_that_cannot_be_trusted_refuses_to_start(changes: dict[str, Any]) -> None:
    with pytest.raises(Misconfigured):
        ExternalProvider(trusting(Provider(), **changes))


async def test_a_cached_token_is_verified_without_giving_way(ours: Ours) -> None:
    token = ours.forge.signed()
    await ours.tokens.verify(token)
    coroutine = ours.tokens.verify(token)
    with pytest.raises(StopIteration):
        coroutine.send(None)
