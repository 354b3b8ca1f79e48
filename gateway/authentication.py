"""Who is calling: the token or API key of a request, checked; and whether they may use this route."""

import hmac
from typing import Final

from starlette.requests import Request

from core.errors.exceptions import Forbidden, Unauthorized
from core.infrastructure.exposure import is_local_caller
from core.model.keys import MARK as KEY_MARK
from core.model.principals import Principal, Scope
from gateway.problems import Challenged
from gateway.routing import Access, Services

KEY_HEADER: Final = "X-API-Key"
KEY_HEADER_BYTES: Final = b"x-api-key"
CREDENTIAL_HEADERS: Final = frozenset({b"authorization", KEY_HEADER_BYTES})


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
    return await _verified(request, services)


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


async def require_still_valid(request: Request, services: Services) -> None:
    """Look once more, where what is given outlives the token it is given for; a key's row is held by whoever uses it.

    Raises: Challenged: the token has been revoked meanwhile.
    """
    if not _credential(request).startswith(KEY_MARK):
        await _verified(request, services)


async def _verified(request: Request, services: Services) -> Principal:
    credential = _credential(request)
    try:
        if credential.startswith(KEY_MARK):
            with services.limits.looking_up(request, credential):
                return await services.api_keys.verify(credential)
        return await services.verifier.verify(credential)
    except Unauthorized as e:
        raise Challenged(e, 'Bearer realm="tickgate", error="invalid_token"') from e


def _credential(request: Request) -> str:
    """Return the one token or key the request carries; never what is in its URL."""
    # One pass over what came; asking by name costs a pass each.
    given = [(name, value) for name, value in request.scope["headers"] if name in CREDENTIAL_HEADERS]
    if len(given) > 1:
        raise Challenged(
            Unauthorized("one credential is enough: a token or a key, once", code="CREDENTIALS_AMBIGUOUS"),
            'Bearer realm="tickgate", error="invalid_request"',
        )
    name, value = given[0] if given else (b"", b"")
    text = value.decode("latin-1")
    credential = text.strip() if name == KEY_HEADER_BYTES else _bearer_of(text)
    if not credential:
        raise Challenged(
            Unauthorized(
                f"an access token or API key is needed: Authorization: Bearer ..., or {KEY_HEADER}: ...",
                code="TOKEN_MISSING",
            ),
            'Bearer realm="tickgate"',
        )
    if name == KEY_HEADER_BYTES and not credential.startswith(KEY_MARK):
        raise Challenged(
            Unauthorized("the API key is not valid", code="INVALID_KEY"),
            'Bearer realm="tickgate", error="invalid_token"',
        )
    return credential


def _bearer(request: Request) -> str:
    values = request.headers.getlist("authorization")
    return _bearer_of(values[0]) if len(values) == 1 else ""


def _bearer_of(header: str) -> str:
    scheme, _, token = header.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def is_operator(request: Request, metrics_token: str) -> bool:
    """Whether the caller is on this machine, or bears the metrics token."""
    token = _bearer(request)
    if metrics_token and token and hmac.compare_digest(token.encode(), metrics_token.encode()):
        return True
    return request.client is not None and is_local_caller(request.client.host, request.headers)


def _require_operator(request: Request, metrics_token: str) -> None:
    if not is_operator(request, metrics_token):
        raise Forbidden("only for operators", code="OPERATORS_ONLY")
