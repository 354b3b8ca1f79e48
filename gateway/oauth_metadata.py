"""/.well-known/*: the keys tokens are verified with, and where everything of OAuth is. Source: RFC 7517, RFC 8414."""

from typing import Final

import msgspec
from starlette.responses import Response

from core.infrastructure.signing_keys import NOTICE_S
from core.model.principals import Scope
from gateway.answers import KeyDocument, PublicKey, ServerMetadata
from gateway.oauth_requests import AUTHENTICATION_METHODS, GRANT_TYPES
from gateway.oauth_server import OFFLINE
from gateway.routing import Call

CACHED: Final = {"Cache-Control": f"public, max-age={NOTICE_S}"}
"""As long as a new key is published before it signs."""


async def jwks(call: Call) -> Response:
    """Show the keys that verify access tokens: the one that signs, the next, and those that signed lately."""
    keys = [PublicKey(**key) for key in call.services.signer.public_keys["keys"]]
    return Response(msgspec.json.encode(KeyDocument(keys=keys)), 200, CACHED, "application/json")


async def metadata(call: Call) -> Response:
    """Say where everything of OAuth is, and what it can do."""
    issuer = call.services.settings.auth.issuer
    # An issuer that is an address is the one callers reach us by; otherwise it is the one this caller used.
    origin = issuer if issuer.startswith(("https://", "http://")) else str(call.request.base_url)
    at = origin.rstrip("/")
    body = ServerMetadata(
        issuer=issuer,
        token_endpoint=f"{at}/oauth/token",
        revocation_endpoint=f"{at}/oauth/revoke",
        introspection_endpoint=f"{at}/oauth/introspect",
        jwks_uri=f"{at}/.well-known/jwks.json",
        scopes_supported=[*sorted(Scope), OFFLINE],
        response_types_supported=[],
        grant_types_supported=list(GRANT_TYPES),
        token_endpoint_auth_methods_supported=list(AUTHENTICATION_METHODS),
        revocation_endpoint_auth_methods_supported=list(AUTHENTICATION_METHODS),
        introspection_endpoint_auth_methods_supported=list(AUTHENTICATION_METHODS),
    )
    return Response(msgspec.json.encode(body), media_type="application/json")
