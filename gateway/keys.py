"""/v1/keys: a tenant's API keys. A secret is shown once, in the answer that made it.

A key never allows more than who makes it: its scopes are among the caller's. Only its owner may rotate it, for a new
secret would let the caller act as the owner; and a key may only rotate itself and keys made with it, so that revoking
a key ends everything that was ever reached through it. Anybody of the tenant with keys:write may revoke any.
"""

import time
from typing import Annotated, Final

import msgspec
from starlette.responses import Response

from core.errors.exceptions import Forbidden, Invalid, NotFound
from core.messages.message import Message
from core.model.keys import (
    GRACE_MINUTES_MAX,
    LIFE_S_MAX,
    NAME_LENGTH_MAX,
    ApiKey,
    KeySecret,
    is_id,
    new_secret,
)
from core.model.principals import Principal, Scope
from core.ports.access import NewKey
from gateway.authentication import require_still_valid
from gateway.bodies import parse_json
from gateway.idempotency import stored
from gateway.parameters import parse
from gateway.routing import Call

PAGE_MAX: Final = 1_000
PAGE_DEFAULT: Final = 100
EPOCH_MS_MAX: Final = 253_402_300_799_999  # the year 9999
KEY_CREDENTIAL: Final = "key:"

EpochMs = Annotated[
    int,
    msgspec.Meta(description="UTC epoch milliseconds.", ge=0, le=EPOCH_MS_MAX, examples=[1_798_675_200_000]),
]


class KeyQuery(Message, frozen=True, kw_only=True):
    """One page of keys, in the order they were made. cursor: `next_cursor` of the page before."""

    cursor: Annotated[str, msgspec.Meta(min_length=36, max_length=36)] | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=PAGE_MAX)] = PAGE_DEFAULT


class KeyWish(Message, frozen=True, kw_only=True):
    """A key to be made."""

    name: Annotated[
        str,
        msgspec.Meta(
            description="What it is for.",
            min_length=1,
            max_length=NAME_LENGTH_MAX,
            pattern=r"^[^\x00-\x1f\x7f]+$",
            examples=["nightly report"],
        ),
    ]
    scopes: Annotated[
        list[Scope],
        msgspec.Meta(description="What it may do; among the caller's own.", min_length=1, max_length=64),
    ]
    expires_at_ms: Annotated[
        EpochMs, msgspec.Meta(description="When it ends by itself; within 366 days. UTC epoch milliseconds.")
    ]


class RotationWish(Message, frozen=True, kw_only=True):
    """How to rotate a key."""

    grace_minutes: Annotated[
        int,
        msgspec.Meta(
            description="How long the old secret stays good beside the new.", ge=0, le=GRACE_MINUTES_MAX
        ),
    ] = 0


class Key(msgspec.Struct, kw_only=True):
    """An API key without its secret."""

    id: str
    name: str
    owner_kind: str
    subject: str
    scopes: list[str]
    prefix: Annotated[str, msgspec.Meta(description="How its text goes on after `tgk_`.")]
    made_with: Annotated[str | None, msgspec.Meta(description="The key it was made with, if any.")]
    created_at_ms: EpochMs
    rotated_at_ms: EpochMs | None
    expires_at_ms: EpochMs
    last_used_at_ms: Annotated[EpochMs | None, msgspec.Meta(description="Up to two minutes late.")]
    revoked_at_ms: EpochMs | None


class KeyWithSecret(Key, kw_only=True):
    """An API key with its secret, which is never shown again."""

    secret: Annotated[
        str, msgspec.Meta(description="Send it as `Authorization: Bearer ...` or `X-API-Key: ...`.")
    ]


class KeyPage(msgspec.Struct, kw_only=True):
    """A page of keys, revoked and expired ones too."""

    items: list[Key]
    next_cursor: Annotated[str | None, msgspec.Meta(description="Null on the last page.")]


async def listed(call: Call) -> Response:
    """List the tenant's API keys."""
    query = parse(call.request, KeyQuery)
    if query.cursor is not None and not is_id(query.cursor):
        raise Invalid("the cursor is none of ours", code="BAD_CURSOR")
    found = await call.services.api_keys.page(call.caller.tenant, after=query.cursor, limit=query.limit + 1)
    page = found[: query.limit]
    return _json(
        KeyPage(
            items=[msgspec.convert(_fields(key), Key) for key in page],
            next_cursor=page[-1].id if len(found) > query.limit else None,
        )
    )


async def create(call: Call) -> Response:
    """Make an API key and show its secret, once."""
    wish, caller = parse_json(call, KeyWish), call.caller
    life_s = wish.expires_at_ms / 1_000 - time.time()
    if not 0 < life_s <= LIFE_S_MAX:
        raise Invalid("expires_at_ms: a key ends in the future, within 366 days", code="INVALID_EXPIRY")
    scopes = frozenset(str(scope) for scope in wish.scopes)
    _require_among_own(scopes, caller)
    new = NewKey(
        owner_kind=caller.kind,
        subject=caller.subject,
        name=wish.name,
        scopes=scopes,
        expires_at_s=wish.expires_at_ms / 1_000,
        parent=_key_of(caller),
    )
    secret = new_secret()
    async with call.work() as work:
        # Inside: to get here may have taken long.
        await require_still_valid(call.request, call.services)
        key = await call.services.api_keys.create(work, new, secret)
        response = _json(_with_secret(key, secret), 201)
        await work.answer(stored(response))
    return response


async def rotate(call: Call) -> Response:
    """Give an API key a new secret and show it, once."""
    wish, caller = parse_json(call, RotationWish), call.caller
    key_id, keys = _asked_for(call), call.services.api_keys
    secret = new_secret()
    async with call.work() as work:
        key = await keys.key(work, key_id)
        used = _key_of(caller)
        if (key.owner_kind, key.subject) != (caller.kind, caller.subject) or used not in {
            None,
            key.id,
            key.parent,
        }:
            raise Forbidden("only the key's owner may rotate it", code="KEY_NOT_YOURS")
        _require_among_own(key.scopes, caller)
        rotated = await keys.rotate(work, key_id, secret, wish.grace_minutes * 60)
        response = _json(_with_secret(rotated, secret))
        await work.answer(stored(response))
    return response


async def revoke(call: Call) -> Response:
    """Revoke an API key and every key made with it, at once."""
    await call.services.api_keys.revoke(call.caller.tenant, _asked_for(call))
    return Response(status_code=204)


def _asked_for(call: Call) -> str:
    key_id: str = call.request.path_params["id"]
    if not is_id(key_id):
        raise NotFound("there is no such key", code="KEY_NOT_FOUND")
    return key_id


def _key_of(caller: Principal) -> str | None:
    """Return the id of the key the caller used, or None for a token."""
    credential = caller.credential
    return credential.removeprefix(KEY_CREDENTIAL) if credential.startswith(KEY_CREDENTIAL) else None


def _require_among_own(scopes: frozenset[str], caller: Principal) -> None:
    if beyond := sorted(scopes - caller.scopes):
        raise Forbidden(f"you do not have the scopes {', '.join(beyond)}", code="SCOPES_BEYOND_YOURS")


def _fields(key: ApiKey) -> dict[str, object]:
    return {
        "id": key.id,
        "name": key.name,
        "owner_kind": key.owner_kind,
        "subject": key.subject,
        "scopes": sorted(key.scopes),
        "prefix": key.prefix,
        "made_with": key.parent,
        "created_at_ms": key.created_at_ms,
        "rotated_at_ms": key.rotated_at_ms,
        "expires_at_ms": key.expires_at_ms,
        "last_used_at_ms": key.last_used_at_ms,
        "revoked_at_ms": key.revoked_at_ms,
    }


def _with_secret(key: ApiKey, secret: KeySecret) -> KeyWithSecret:
    return msgspec.convert({**_fields(key), "secret": secret.text}, KeyWithSecret)


def _json(body: msgspec.Struct, status: int = 200) -> Response:
    return Response(msgspec.json.encode(body), status, media_type="application/json")
