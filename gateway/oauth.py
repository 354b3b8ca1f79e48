"""POST /oauth/token: client credentials for an access token. Source: RFC 6749 sections 2.3, 4.4 and 5.

Authlib decides: how a client authenticates, which grants and scopes there are, what each refusal looks like. It asks
synchronously for a client, so the client is fetched before it is asked.
"""

import hashlib
import hmac
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qsl

import msgspec
import structlog
from authlib.oauth2.rfc6749 import (
    AuthorizationServer,
    ClientMixin,
    InvalidClientError,
    InvalidRequestError,
    InvalidScopeError,
    OAuth2Error,
    OAuth2Request,
)
from authlib.oauth2.rfc6749.authenticate_client import ClientAuthentication
from authlib.oauth2.rfc6749.grants import ClientCredentialsGrant
from authlib.oauth2.rfc6749.requests import BasicOAuth2Payload
from authlib.oauth2.rfc6749.util import extract_basic_authorization
from starlette.responses import Response

from core.ports import ApiClient
from core.telemetry import metrics
from gateway.routing import Call
from gateway.signing import TokenSigner

log = structlog.get_logger(__name__)

FIELDS_MAX: Final = 10
FORM_TYPE: Final = "application/x-www-form-urlencoded"
NO_STORE: Final = {"Cache-Control": "no-store", "Pragma": "no-cache"}
_NOBODY: Final = ApiClient(client_id="", tenant="", secret_hash="", scopes=frozenset())


async def token(call: Call) -> Response:
    """Answer an access token, or an OAuth 2 error."""
    headers = {"Authorization": call.request.headers.get("authorization", "")}
    try:
        form = _read_form(call)
        client_id = extract_basic_authorization(headers)[0] or form.get("client_id", "")
        client = await call.services.identity.client(client_id) if client_id else None
    except OAuth2Error as e:
        return _respond(*e())
    except ValueError:  # credentials that are not Base64, or not text
        return _respond(*InvalidClientError()())
    server = _Server(_Client(client or _NOBODY), call.services.signer)
    answer: Response = server.create_token_response(_TokenRequest(headers, form))
    outcome = "token.issued" if answer.status_code == 200 else "token.refused"
    log.info(outcome, client=client_id[:64], known=client is not None)
    if answer.status_code == 200:
        metrics.TOKENS_ISSUED.inc()
    return answer


def _read_form(call: Call) -> dict[str, str]:
    if call.request.headers.get("content-type", "").partition(";")[0].strip().lower() != FORM_TYPE:
        raise InvalidRequestError(f"the body must be {FORM_TYPE}")
    try:
        pairs = parse_qsl(
            call.body.decode(),
            keep_blank_values=True,
            strict_parsing=True,
            max_num_fields=FIELDS_MAX,
            errors="strict",
        )
    except ValueError as e:
        raise InvalidRequestError("the body is no form") from e
    form = dict(pairs)
    if len(form) != len(pairs):
        raise InvalidRequestError("a parameter is given more than once")
    if "grant_type" not in form:
        raise InvalidRequestError("grant_type is needed")
    return form


class _TokenRequest(OAuth2Request):  # type: ignore[misc]
    """The request as authlib reads it."""

    def __init__(self, headers: Mapping[str, str], form: Mapping[str, str]) -> None:
        # Whether the connection is safe is the deployment's to decide; authlib only looks at this text.
        super().__init__("POST", "https://tickgate/oauth/token", headers=dict(headers))
        self.payload = BasicOAuth2Payload(form)
        self._form = form

    @property
    def form(self) -> Mapping[str, str]:
        return self._form


class _Client(ClientMixin):  # type: ignore[misc]
    """An API client as authlib asks about it; nobody's secret matches an unknown client's."""

    def __init__(self, client: ApiClient) -> None:
        self.client = client

    def get_client_id(self) -> str:
        return self.client.client_id

    def check_client_secret(self, client_secret: str) -> bool:
        given = hashlib.sha256(client_secret.encode("utf-8", "replace")).hexdigest()
        return hmac.compare_digest(given, self.client.secret_hash)

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        return endpoint == "token" and method in _Grant.TOKEN_ENDPOINT_AUTH_METHODS

    def check_grant_type(self, grant_type: str) -> bool:
        return grant_type == "client_credentials"


class _Grant(ClientCredentialsGrant):  # type: ignore[misc]
    TOKEN_ENDPOINT_AUTH_METHODS: Final = ["client_secret_basic", "client_secret_post"]

    def validate_requested_scope(self) -> None:
        if not _wanted(self.request.payload.scope) <= self.request.client.client.scopes:
            raise InvalidScopeError("this client may not have all of these scopes")


class _Server(AuthorizationServer):  # type: ignore[misc]
    """An authorization server that knows one client: the one that is asking."""

    def __init__(self, client: _Client, signer: TokenSigner) -> None:
        super().__init__()
        self._signer = signer
        self._client_auth = ClientAuthentication(lambda _client_id: client)
        self.register_grant(_Grant)
        self.register_token_generator("default", self._token)

    def _token(self, client: _Client, scope: str | None = None, **_rest: Any) -> dict[str, Any]:
        scopes = _wanted(scope) or client.client.scopes
        return {
            "access_token": self._signer.sign(client.client, scopes),
            "token_type": "Bearer",
            "expires_in": self._signer.ttl_s,
            "scope": " ".join(sorted(scopes)),
        }

    def create_oauth2_request(self, request: _TokenRequest) -> _TokenRequest:
        return request

    def handle_response(self, status: int, body: Any, headers: list[tuple[str, str]]) -> Response:
        return _respond(status, body, headers)

    def save_token(self, token: Any, request: Any) -> None:
        """Keep nothing: a token speaks for itself."""

    def send_signal(self, name: str, *args: Any, **kwargs: Any) -> None:
        """Nobody listens."""


def _wanted(scope: str | None) -> set[str]:
    return set((scope or "").split())


def _respond(status: int, body: Any, headers: list[tuple[str, str]]) -> Response:
    kept = {name: value for name, value in headers if name.lower() != "content-type"}
    return Response(msgspec.json.encode(body), status, {**kept, **NO_STORE}, "application/json")
