"""/oauth/*: tokens are given, renewed, revoked and explained. Source: RFC 6749, RFC 7009, RFC 7662.

Authlib decides what is allowed and what each refusal looks like; then what has to be kept is kept, and only then is it
answered. An answer that is lost after a rotation costs its client the refresh token: it asks again with its secret.
"""

from typing import Any, Final

import structlog
from authlib.oauth2.rfc6749 import InvalidGrantError, OAuth2Error
from starlette.responses import Response

from core.errors.exceptions import Unauthorized
from core.model.principals import Principal, PrincipalKind
from core.model.refresh_tokens import hash_of
from core.ports.access import ApiClient, RefreshGrant, RefreshState
from core.telemetry import metrics
from gateway.oauth_requests import Asked, authenticated, respond
from gateway.oauth_server import OFFLINE, Server
from gateway.routing import Call

log = structlog.get_logger(__name__)

REMEMBERED_S: Final = 60
"""A revocation outlives its token by the clocks' difference."""


async def token(call: Call) -> Response:
    """Answer an access token, and a refresh token if asked, or an OAuth 2 error.

    For client credentials, or for a refresh token; that one is then good no more, and a new one is in the answer. Ask
    one at a time: a refresh token that is used twice ends with all that came from it.
    """
    try:
        asked = await authenticated(call, "grant_type")
        found = await _presented(call, asked) if asked.form["grant_type"] == "refresh_token" else None
        server = Server(asked.asking, call.services.signer, found)
        answer: Response = server.create_token_response(asked.request)
        if answer.status_code == 200:
            await _keep(call, asked, server)
    except OAuth2Error as e:
        return _refused(call, e)
    fields = {
        "client": asked.client.client_id,
        "tenant": asked.client.tenant,
        "grant": asked.form["grant_type"][:32],
    }
    if answer.status_code != 200:
        log.info("token.refused", **fields)
        return answer
    metrics.TOKENS_ISSUED.inc()
    log.info("token.issued", **fields, family=server.made.family if server.made else None)
    return answer


async def revoke(call: Call) -> Response:
    """End a token of the asking client; a refresh token takes along all that came from it.

    What is no token, or somebody else's, is answered like one that was ended.
    """
    try:
        asked = await authenticated(call, "token")
    except OAuth2Error as e:
        return _refused(call, e)
    text, client, services = asked.form["token"], asked.client, call.services
    if (digest := hash_of(text)) is not None:
        found = await services.grants.find(client.tenant, digest)
        if found is not None and found.client_id == client.client_id:
            await services.grants.revoke(client.tenant, found.family)
    else:
        principal = await _own_access_token(call, text, client)
        if principal is not None and principal.subject == client.client_id:
            await services.revocations.revoke(principal.credential, principal.expires_at_s + REMEMBERED_S)
            log.info("token.revoked", client=client.client_id, credential=principal.credential)
    return respond(200, {}, [])


async def introspect(call: Call) -> Response:
    """Tell what a token of the asking client's tenant is worth; any other is not active."""
    try:
        asked = await authenticated(call, "token")
    except OAuth2Error as e:
        return _refused(call, e)
    text, client = asked.form["token"], asked.client
    if (digest := hash_of(text)) is not None:
        body = _explained(await call.services.grants.find(client.tenant, digest), client)
    else:
        body = _access_explained(call, await _own_access_token(call, text, client))
    return respond(200, body, [])


async def _presented(call: Call, asked: Asked) -> RefreshGrant | None:
    """Return what the refresh token stands for if it is this client's and good. Raises: InvalidGrantError."""
    digest = hash_of(asked.form.get("refresh_token", ""))
    found = None if digest is None else await call.services.grants.find(asked.client.tenant, digest)
    if found is None or found.client_id != asked.client.client_id:
        return None
    await _end_if_reused(call, asked.client, found, found.state)
    return found if found.state is RefreshState.GOOD else None


async def _keep(call: Call, asked: Asked, server: Server) -> None:
    """Keep the refresh token that was made. Raises: InvalidGrantError: the one before was rotated in the meantime."""
    made, found = server.made, server.found
    if made is None:
        return
    new_hash = hash_of(made.text)
    assert new_hash is not None, "we write what we can read"
    if found is None:
        await call.services.grants.start(asked.client, made.scopes, made.family, new_hash)
        return
    old_hash = hash_of(asked.form["refresh_token"])
    assert old_hash is not None, "it was found by it"
    state = await call.services.grants.rotate(asked.client, old_hash, new_hash)
    await _end_if_reused(call, asked.client, found, state)
    if state is not RefreshState.GOOD:
        raise InvalidGrantError()


async def _end_if_reused(call: Call, client: ApiClient, found: RefreshGrant, state: RefreshState) -> None:
    if state is RefreshState.REUSED:
        await call.services.grants.revoke(client.tenant, found.family)
        log.warning("refresh.reused", client=client.client_id, tenant=client.tenant, family=found.family)
        raise InvalidGrantError()


async def _own_access_token(call: Call, text: str, client: ApiClient) -> Principal | None:
    """Return the principal of an access token of ours for this client's tenant, or None."""
    try:
        principal = await call.services.verifier.verify(text)
    except Unauthorized:
        return None
    ours = principal.kind is PrincipalKind.CLIENT and principal.tenant == client.tenant
    return principal if ours else None


def _explained(found: RefreshGrant | None, client: ApiClient) -> dict[str, Any]:
    if found is None or found.state is not RefreshState.GOOD:
        return {"active": False}
    return {
        "active": True,
        "client_id": found.client_id,
        "sub": found.client_id,
        "tenant": client.tenant,
        "scope": " ".join(sorted({*found.scopes, OFFLINE})),
        "iat": found.issued_at_s,
        "exp": found.expires_at_s,
    }


def _access_explained(call: Call, principal: Principal | None) -> dict[str, Any]:
    if principal is None:
        return {"active": False}
    auth = call.services.settings.auth
    return {
        "active": True,
        "client_id": principal.subject,
        "sub": principal.subject,
        "tenant": principal.tenant,
        "scope": " ".join(sorted(principal.scopes)),
        "token_type": "Bearer",
        "exp": principal.expires_at_s,
        "iss": auth.issuer,
        "aud": auth.audience,
        "jti": principal.credential.partition(":")[2],
    }


def _refused(call: Call, error: OAuth2Error) -> Response:
    log.info("oauth.refused", route=call.request.url.path, error=error.error)
    return respond(*error())
