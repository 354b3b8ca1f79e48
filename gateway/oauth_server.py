"""The authorization server of one request: which grants there are, which scopes they give, what a token's answer holds.

A client gets a refresh token only when it asks for the scope `offline_access`. RFC 6749 section 4.4.3 advises against
refresh tokens for client credentials, because a client can always ask again. We give one to those who ask, for clients
that hand work to a process which must not hold their secret for longer than it takes to start.
"""

from dataclasses import dataclass, field
from typing import Any, Final

from authlib.oauth2.rfc6749 import AuthorizationServer, InvalidScopeError
from authlib.oauth2.rfc6749.authenticate_client import ClientAuthentication
from authlib.oauth2.rfc6749.grants import ClientCredentialsGrant, RefreshTokenGrant
from starlette.responses import Response

from core.model.keys import new_id
from core.model.refresh_tokens import new_text
from core.ports.access import RefreshGrant
from gateway.oauth_requests import AUTHENTICATION_METHODS, AskingClient, FormRequest, respond
from gateway.signing import TokenSigner

OFFLINE: Final = "offline_access"
"""Asks for a refresh token. Source: OpenID Connect Core section 11."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRefreshToken:
    """A refresh token that was made and is still to be kept. scopes: of its family."""

    family: str
    scopes: frozenset[str]
    text: str = field(repr=False)


class Server(AuthorizationServer):  # type: ignore[misc]
    """An authorization server that knows one client, the one that is asking, and at most one refresh token."""

    def __init__(self, asking: AskingClient, signer: TokenSigner, found: RefreshGrant | None) -> None:
        super().__init__()
        self._signer = signer
        self.found = found
        self.made: NewRefreshToken | None = None
        self._client_auth = ClientAuthentication(lambda _client_id: asking)
        self.register_grant(_ClientCredentials)
        self.register_grant(_Refresh)
        self.register_token_generator("default", self._token)

    def _token(self, client: AskingClient, scope: str | None = None, **_rest: Any) -> dict[str, Any]:
        wanted = words(scope)
        granted = self.found.scopes if self.found else client.client.scopes
        # What the client has lost since then it does not get back by an old refresh token.
        scopes = frozenset(wanted - {OFFLINE} or granted) & client.client.scopes
        if self.found or OFFLINE in wanted:
            family = self.found.family if self.found else new_id()
            # Narrowing is for this access token; the family keeps what it was given. Source: RFC 6749 section 6.
            kept = granted if self.found else scopes
            self.made = NewRefreshToken(family=family, scopes=kept, text=new_text())
        return {
            "access_token": self._signer.sign(client.client, scopes, self.made.family if self.made else None),
            "token_type": "Bearer",
            "expires_in": self._signer.ttl_s,
            "scope": " ".join(sorted({*scopes, OFFLINE} if self.made else scopes)),
            **({"refresh_token": self.made.text} if self.made else {}),
        }

    def create_oauth2_request(self, request: FormRequest) -> FormRequest:
        return request

    def handle_response(self, status: int, body: Any, headers: list[tuple[str, str]]) -> Response:
        return respond(status, body, headers)

    def save_token(self, token: Any, request: Any) -> None:
        """Keep nothing: an access token speaks for itself, and `made` is kept by whoever asked."""

    def send_signal(self, name: str, *args: Any, **kwargs: Any) -> None:
        """Nobody listens."""


class _ClientCredentials(ClientCredentialsGrant):  # type: ignore[misc]
    TOKEN_ENDPOINT_AUTH_METHODS: Final = list(AUTHENTICATION_METHODS)

    def validate_requested_scope(self) -> None:
        if not words(self.request.payload.scope) - {OFFLINE} <= self.request.client.client.scopes:
            raise InvalidScopeError("this client may not have all of these scopes")


class _Refresh(RefreshTokenGrant):  # type: ignore[misc]
    TOKEN_ENDPOINT_AUTH_METHODS: Final = list(AUTHENTICATION_METHODS)

    def authenticate_refresh_token(self, _text: str) -> "_RefreshToken | None":
        return _RefreshToken(self.server.found) if self.server.found else None

    def authenticate_user(self, _token: Any) -> str:
        return str(self.request.client.get_client_id())

    def revoke_old_credential(self, _token: Any) -> None:
        """The rotation does, when the new one is kept."""


class _RefreshToken:
    """A refresh token as authlib asks about it."""

    def __init__(self, found: RefreshGrant) -> None:
        self._found = found

    def check_client(self, asking: AskingClient) -> bool:
        return asking.get_client_id() == self._found.client_id

    def get_scope(self) -> str:
        return " ".join(sorted({*self._found.scopes, OFFLINE}))


def words(scope: str | None) -> set[str]:
    return set((scope or "").split())
