"""What /oauth/* is asked, and by whom: the form, and the client, authenticated. Source: RFC 6749 section 2.3.

Authlib decides how a client authenticates and what a refusal looks like. It asks synchronously for a client, so the
client is fetched before it is asked.
"""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl

import msgspec
from authlib.oauth2.rfc6749 import ClientMixin, InvalidClientError, InvalidRequestError, OAuth2Request
from authlib.oauth2.rfc6749.authenticate_client import ClientAuthentication
from authlib.oauth2.rfc6749.requests import BasicOAuth2Payload
from authlib.oauth2.rfc6749.util import extract_basic_authorization
from starlette.responses import Response

from core.ports.access import ApiClient
from gateway.routing import Call

FIELDS_MAX: Final = 64
FIELDS: Final = frozenset(
    {"grant_type", "scope", "refresh_token", "token", "token_type_hint", "client_id", "client_secret"}
)
"""What we read; others are ignored. Source: RFC 6749 section 3.2."""
FORM_TYPE: Final = "application/x-www-form-urlencoded"
NO_STORE: Final = {"Cache-Control": "no-store", "Pragma": "no-cache"}
AUTHENTICATION_METHODS: Final = ("client_secret_basic", "client_secret_post")
GRANT_TYPES: Final = ("client_credentials", "refresh_token")
NOBODY: Final = ApiClient(client_id="", tenant="", secret_hash="", scopes=frozenset())


class FormRequest(OAuth2Request):  # type: ignore[misc]
    """The request as authlib reads it."""

    def __init__(self, headers: Mapping[str, str], form: Mapping[str, str]) -> None:
        # Whether the connection is safe is the deployment's to decide; authlib only looks at this text.
        super().__init__("POST", "https://tickgate/oauth/token", headers=dict(headers))
        self.payload = BasicOAuth2Payload(form)
        self._form = form

    @property
    def form(self) -> Mapping[str, str]:
        return self._form


class AskingClient(ClientMixin):  # type: ignore[misc]
    """An API client as authlib asks about it; nobody's secret matches an unknown client's."""

    def __init__(self, client: ApiClient) -> None:
        self.client = client

    def get_client_id(self) -> str:
        return self.client.client_id

    def check_client_secret(self, client_secret: str) -> bool:
        given = hashlib.sha256(client_secret.encode("utf-8", "replace")).hexdigest()
        return hmac.compare_digest(given, self.client.secret_hash)

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        return endpoint == "token" and method in AUTHENTICATION_METHODS

    def check_grant_type(self, grant_type: str) -> bool:
        return grant_type in GRANT_TYPES


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request whose client has shown its secret."""

    request: FormRequest
    asking: AskingClient

    @property
    def client(self) -> ApiClient:
        return self.asking.client

    @property
    def form(self) -> Mapping[str, str]:
        return self.request.form


async def authenticated(call: Call, needed: str) -> Asked:
    """Read the form, which has to hold `needed`, and authenticate its client.

    Raises: OAuth2Error: invalid_request, invalid_client. Unavailable.
    """
    header = call.request.headers.getlist("authorization")
    if len(header) > 1:
        raise InvalidRequestError("the client authenticates more than once")
    headers = {"Authorization": header[0]} if header else {}
    form = _read_form(call, needed)
    try:
        basic_id = extract_basic_authorization(headers)[0]
    except ValueError as e:  # credentials that are not Base64, or not text
        raise InvalidClientError() from e
    if basic_id and (form.get("client_id", basic_id) != basic_id or "client_secret" in form):
        raise InvalidRequestError("the client authenticates more than once")
    client_id = basic_id or form.get("client_id", "")
    client = await call.services.identity.client(client_id) if client_id else None
    asking = AskingClient(client or NOBODY)
    request = FormRequest(headers, form)
    ClientAuthentication(lambda _client_id: asking)(request, AUTHENTICATION_METHODS)
    return Asked(request=request, asking=asking)


def respond(status: int, body: Any, headers: list[tuple[str, str]]) -> Response:
    """Answer as OAuth 2 does: JSON that nobody keeps."""
    kept = {name: value for name, value in headers if name.lower() != "content-type"}
    return Response(msgspec.json.encode(body), status, {**kept, **NO_STORE}, "application/json")


def _read_form(call: Call, needed: str) -> dict[str, str]:
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
    known = [(name, value) for name, value in pairs if name in FIELDS]
    form = dict(known)
    if len(form) != len(known):
        raise InvalidRequestError("a parameter is given more than once")
    if not form.get(needed):
        raise InvalidRequestError(f"{needed} is needed")
    return form
