"""Who is calling: the credential of a request, checked; and whether they may use this route."""

import hmac
from typing import Final

from starlette.requests import Request

from core.errors.exceptions import Forbidden, Unauthorized
from core.model.principals import Principal, Scope
from core.ports import TokenVerifier
from gateway.problems import Challenged
from gateway.routing import Access, Services

LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "::ffff:127.0.0.1"})
PROXY_HEADERS: Final = ("x-forwarded-for", "forwarded", "x-real-ip")


async def authenticate(access: Access | Scope, request: Request, services: Services) -> Principal | None:
    """Return the caller, or None where none is asked for.

    Raises:
        Challenged: no credential, or one that is not valid. Forbidden: only for operators.
    """
    if access is Access.PUBLIC or (access is Access.DOCUMENTED and services.settings.gateway.docs):
        return None
    if access is Access.OPERATOR:
        _require_operator(request, services.settings.gateway.metrics_token.reveal())
        return None
    return _verified(request, services.verifier)


def authorise(access: Access | Scope, principal: Principal | None) -> None:
    """Raises: Challenged: the caller's credential does not carry the route's scope."""
    if isinstance(access, Scope):
        require_scope(principal, access)


def require_scope(principal: Principal | None, scope: Scope) -> None:
    """Raises: Challenged: the caller's credential does not carry `scope`."""
    if principal is None or scope not in principal.scopes:
        raise Challenged(
            Forbidden(f"this needs the scope {scope}", code="INSUFFICIENT_SCOPE"),
            f'Bearer realm="tickgate", error="insufficient_scope", scope="{scope}"',
        )


def _verified(request: Request, verifier: TokenVerifier) -> Principal:
    token = _bearer(request)
    if not token:
        raise Challenged(
            Unauthorized("an access token is needed: Authorization: Bearer ...", code="TOKEN_MISSING"),
            'Bearer realm="tickgate"',
        )
    try:
        return verifier.verify(token)
    except Unauthorized as e:
        raise Challenged(e, 'Bearer realm="tickgate", error="invalid_token"') from e


def _bearer(request: Request) -> str:
    values = request.headers.getlist("authorization")
    scheme, _, token = (values[0] if len(values) == 1 else "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def is_operator(request: Request, metrics_token: str) -> bool:
    """Whether the caller is on this machine, or bears the metrics token."""
    token = _bearer(request)
    if metrics_token and token and hmac.compare_digest(token.encode(), metrics_token.encode()):
        return True
    # A proxy on this machine makes the whole world look local.
    proxied = any(name in request.headers for name in PROXY_HEADERS)
    return request.client is not None and request.client.host in LOOPBACK and not proxied


def _require_operator(request: Request, metrics_token: str) -> None:
    if not is_operator(request, metrics_token):
        raise Forbidden("only for operators", code="OPERATORS_ONLY")
