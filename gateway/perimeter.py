"""The middlewares around the routes, in order, and what must be true of the settings before anybody listens.

From the outside in: the request tracer, who is calling (proxies), who may read the answer (cross-origin), the
envelope, in which every error becomes an answer, and inside it what is refused whoever asks.
"""

from typing import Final

from starlette.middleware import Middleware

from core.errors.exceptions import Misconfigured
from core.infrastructure.exposure import LOCAL_NAMES, is_loopback, require_tls, tls_context
from core.settings import GatewaySettings
from gateway.catalog import ENDPOINTS
from gateway.cors import CrossOriginHeaders, Preflights, policy_of
from gateway.entrance import Entrance
from gateway.envelope import Envelope
from gateway.proxies import TrustedProxies, networks_of
from gateway.request_tracer import RequestTracer

METHODS: Final = frozenset({endpoint.method for endpoint in ENDPOINTS} | {"HEAD"})


def check_exposure(gateway: GatewaySettings) -> None:
    """Raises: Misconfigured: we would speak in the clear over a network, or the certificate is none."""
    require_tls(
        "gateway",
        host=gateway.host,
        certificate_file=gateway.tls_certificate_file,
        behind_tls_proxy=gateway.behind_tls_proxy,
    )
    if gateway.tls_certificate_file:
        tls_context("gateway", gateway.tls_certificate_file, gateway.tls_key_file)


def perimeter(gateway: GatewaySettings) -> list[Middleware]:
    """Raises: Misconfigured: an origin, a proxy or a host name is not one."""
    networks = networks_of(gateway.trusted_proxies)
    policy = policy_of(gateway.cors_origins, METHODS)
    proxies = [Middleware(TrustedProxies, networks=networks, header=gateway.proxy_header)]
    headers = [Middleware(CrossOriginHeaders, policy=policy)]
    preflights = [Middleware(Preflights, policy=policy)]
    return [
        Middleware(RequestTracer),
        *(proxies if networks else ()),
        *(headers if policy.origins else ()),
        Middleware(Envelope),
        Middleware(Entrance, hosts=_hosts(gateway)),
        *(preflights if policy.origins else ()),
    ]


def _hosts(gateway: GatewaySettings) -> frozenset[str] | None:
    """Return the names to answer to: those configured; else any, but on loopback without a proxy this machine's."""
    for name in gateway.allowed_hosts:
        if not name or name != name.lower() or set(name) & set("*/:[] "):
            raise Misconfigured(
                f"{name!r} is no host name: lower case, without port or pattern", code="BAD_HOST"
            )
    if gateway.allowed_hosts:
        return frozenset(gateway.allowed_hosts)
    alone = is_loopback(gateway.host) and not gateway.trusted_proxies
    return LOCAL_NAMES if alone else None
