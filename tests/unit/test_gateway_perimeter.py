"""The perimeter's settings: what refuses to start, and whom a proxy's word makes the client."""

import asyncio
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from core.errors.exceptions import Misconfigured
from core.infrastructure.config_manager import load_settings
from core.infrastructure.exposure import is_loopback, require_tls
from core.settings import GatewaySettings
from gateway.cors import EXPOSED_HEADERS, REQUEST_HEADERS
from gateway.openapi_shared import REQUEST_HEADERS as DOCUMENTED_REQUEST_HEADERS
from gateway.openapi_shared import RESPONSE_HEADERS, SECURITY_SCHEMES
from gateway.perimeter import check_exposure, perimeter
from gateway.proxies import TrustedProxies, networks_of

TRUSTED = ("10.0.0.0/8", "192.0.2.1", "2001:db8:1::/48", "127.0.0.1")


def rewritten(peer: str, headers: list[tuple[str, str]], header: str = "x-forwarded-for") -> tuple[str, str]:
    """Return client and scheme as the application sees them."""
    seen: dict[str, Any] = {}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.update(scope)

    scope: Scope = {
        "type": "http",
        "client": (peer, 4711),
        "scheme": "http",
        "headers": [(name.encode(), value.encode()) for name, value in headers],
    }
    proxies = TrustedProxies(app, networks=networks_of(TRUSTED), header=header)
    asyncio.run(proxies(scope, None, None))  # type: ignore[arg-type]
    return seen["client"][0], seen["scheme"]


FOR = "x-forwarded-for"


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "client"),
    [
        ("203.0.113.9", ["198.51.100.1"], "203.0.113.9"),  # nobody's word counts from there
        ("10.1.2.3", [], "10.1.2.3"),
        ("10.1.2.3", ["198.51.100.1"], "198.51.100.1"),
        ("::ffff:10.1.2.3", ["198.51.100.1"], "198.51.100.1"),
        ("10.1.2.3", ["6.6.6.6, 198.51.100.1"], "198.51.100.1"),  # what is further left is hearsay
        ("10.1.2.3", ["127.0.0.1, 198.51.100.1"], "198.51.100.1"),
        ("10.1.2.3", ["6.6.6.6, 198.51.100.1, 192.0.2.1"], "198.51.100.1"),
        ("10.1.2.3", ["6.6.6.6", "198.51.100.1", "192.0.2.1"], "198.51.100.1"),
        ("10.1.2.3", ["10.9.9.9, 10.8.8.8"], "10.9.9.9"),  # all of them ours: the outermost
        ("10.1.2.3", ["198.51.100.1:4711"], "198.51.100.1"),
        ("10.1.2.3", ["[2001:db8::7]:4711"], "2001:db8::7"),
        ("10.1.2.3", ["2001:db8::7"], "2001:db8::7"),
        ("2001:db8:1::5", ["198.51.100.1"], "198.51.100.1"),
        ("10.1.2.3", ["unknown"], "10.1.2.3"),
        ("10.1.2.3", ["198.51.100.1, _hidden, 10.9.9.9"], "10.9.9.9"),
        ("10.1.2.3", ["'; drop table"], "10.1.2.3"),
        ("10.1.2.3", [""], "10.1.2.3"),
        ("127.0.0.1", ["198.51.100.1"], "198.51.100.1"),  # no longer local
        ("not-an-address", ["198.51.100.1"], "not-an-address"),
    ],
)
def test_the_client_is_the_right_most_hop_that_is_not_trusted(
    peer: str, forwarded_for: list[str], client: str
) -> None:
    assert rewritten(peer, [(FOR, value) for value in forwarded_for])[0] == client


@pytest.mark.parametrize(
    ("value", "client", "scheme"),
    [
        ("for=198.51.100.1;proto=https;by=10.0.0.1", "198.51.100.1", "https"),
        ('for="[2001:db8::7]:4711";proto=https', "2001:db8::7", "https"),
        ("For=6.6.6.6;proto=http, FOR=198.51.100.1;Proto=https", "198.51.100.1", "https"),
        ("for=198.51.100.1;proto=https, for=10.0.0.7;proto=http", "198.51.100.1", "https"),
        ("for=unknown;proto=https", "10.1.2.3", "http"),
        ("for=198.51.100.1;proto=gopher", "198.51.100.1", "http"),
        ("198.51.100.1", "10.1.2.3", "http"),
    ],
)
def test_forwarded_is_read_where_it_is_what_the_proxies_write(value: str, client: str, scheme: str) -> None:
    assert rewritten("10.1.2.3", [("forwarded", value)], "forwarded") == (client, scheme)


def test_the_header_the_proxies_do_not_write_is_the_callers_own() -> None:
    headers = [("forwarded", "for=6.6.6.6"), ("x-real-ip", "6.6.6.6"), (FOR, "198.51.100.1")]
    assert rewritten("10.1.2.3", headers)[0] == "198.51.100.1"
    assert rewritten("10.1.2.3", [(FOR, "6.6.6.6")], "forwarded")[0] == "10.1.2.3"


def test_the_scheme_is_what_the_nearest_proxy_says_and_only_a_trusted_one() -> None:
    assert rewritten("10.1.2.3", [("x-forwarded-proto", "http, https")])[1] == "https"
    assert rewritten("203.0.113.9", [("x-forwarded-proto", "https")])[1] == "http"
    assert rewritten("10.1.2.3", [("x-forwarded-proto", "javascript")])[1] == "http"


@pytest.mark.parametrize(
    ("setting", "value", "code"),
    [
        ("cors_origins", "*", "BAD_CORS_ORIGIN"),
        ("cors_origins", "null", "BAD_CORS_ORIGIN"),
        ("cors_origins", "https://*.example.com", "BAD_CORS_ORIGIN"),
        ("cors_origins", "https://app.example.com/", "BAD_CORS_ORIGIN"),
        ("cors_origins", "https://app.example.com:443", "BAD_CORS_ORIGIN"),
        ("cors_origins", "https://App.example.com", "BAD_CORS_ORIGIN"),
        ("cors_origins", "app.example.com", "BAD_CORS_ORIGIN"),
        ("trusted_proxies", "*", "BAD_PROXY"),
        ("trusted_proxies", "0.0.0.0/0", "BAD_PROXY"),
        ("trusted_proxies", "::/0", "BAD_PROXY"),
        ("trusted_proxies", "proxy.example.com", "BAD_PROXY"),
        ("trusted_proxies", "10.0.0.1/8", "BAD_PROXY"),
        ("allowed_hosts", "*", "BAD_HOST"),
        ("allowed_hosts", "api.example.com:443", "BAD_HOST"),
    ],
)
def test_a_setting_that_means_everybody_or_nothing_refuses_to_start(
    setting: str, value: str, code: str
) -> None:
    settings = load_settings({f"TICKGATE_GATEWAY_{setting.upper()}": value})
    with pytest.raises(Misconfigured) as refused:
        perimeter(settings.gateway)
    assert refused.value.code == code


def test_lists_are_read_from_the_environment() -> None:
    settings = load_settings({"TICKGATE_GATEWAY_CORS_ORIGINS": "https://a.example, http://localhost:5173"})
    assert settings.gateway.cors_origins == ["https://a.example", "http://localhost:5173"]
    perimeter(settings.gateway)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "gateway", "::ffff:192.0.2.7"])
def test_nothing_listens_beyond_loopback_in_the_clear(host: str) -> None:
    with pytest.raises(Misconfigured) as refused:
        check_exposure(GatewaySettings(host=host))
    assert refused.value.code == "TLS_REQUIRED"
    assert "TICKGATE_GATEWAY_BEHIND_TLS_PROXY" in refused.value.public


def test_behind_a_proxy_that_ends_tls_it_may() -> None:
    check_exposure(GatewaySettings(host="0.0.0.0", behind_tls_proxy=True))
    require_tls("bridge", host="::", certificate_file="some.pem", behind_tls_proxy=False)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.53", "::1", "localhost", "::ffff:127.0.0.1"])
def test_loopback_is_this_machine(host: str) -> None:
    assert is_loopback(host)
    check_exposure(GatewaySettings(host=host))


def test_a_certificate_that_is_none_refuses_to_start() -> None:
    with pytest.raises(Misconfigured) as refused:
        check_exposure(GatewaySettings(tls_certificate_file="/dev/null", tls_key_file="/dev/null"))
    assert refused.value.code == "BAD_TLS"


def test_pages_may_send_and_read_every_header_that_is_documented() -> None:
    assert set(RESPONSE_HEADERS) <= set(EXPOSED_HEADERS)
    credentials = {scheme["name"] for scheme in SECURITY_SCHEMES.values() if scheme["type"] == "apiKey"}
    assert set(DOCUMENTED_REQUEST_HEADERS) | credentials | {"Authorization"} <= set(REQUEST_HEADERS)
