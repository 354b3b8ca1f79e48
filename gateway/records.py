"""Records: five handlers for every kind. A change names the version it means, so that nobody overwrites what they have
not seen.
"""

import hashlib
import re
import secrets
from typing import Any, Final

import msgspec
from starlette.responses import Response

from core.errors.exceptions import Conflict, Invalid, NotFound
from core.messages.jobs import Answer
from core.messages.records import (
    RecordCreation,
    RecordDeletion,
    RecordPageQuestion,
    RecordQuestion,
    RecordUpdate,
)
from core.model.records import ID_PATTERN, SHELVES, Body, Deed, RecordKind
from gateway.asking import accepted, answered, ask, written
from gateway.bodies import parse_json
from gateway.idempotency import HEADER as KEY_HEADER
from gateway.parameters import NoParameters, parse
from gateway.record_shapes import SHAPES
from gateway.routing import Call, Handler

_ID: Final = re.compile(ID_PATTERN)
_TAG: Final = re.compile(r'"[\x21\x23-\x7e]{0,128}"')
_ANY: Final = "*"
STEADY: Final = frozenset(RecordKind) - {RecordKind.ACCOUNTS}
"""Kinds of which the version says all; how an account stands changes without anybody writing it."""


def create(kind: RecordKind) -> Handler:
    async def create(call: Call) -> Response:
        parse(call.request, NoParameters)
        wish = _sound(parse_json(call, SHAPES[kind].wish))
        version = _version_of(call, kind)
        named = wish.pop("id")
        record_id = version if named is msgspec.UNSET else named
        asked = RecordCreation(id=record_id, body=wish, version=version)
        answer = await ask(call, f"{kind}.{Deed.CREATE}", asked)
        if isinstance(answer, str):
            return accepted(answer)
        response = _one(call, answer, 201)
        response.headers["Location"] = f"/v1/{kind}/{record_id}"
        return response

    return create


def listed(kind: RecordKind) -> Handler:
    async def page(call: Call) -> Response:
        query: Any = parse(call.request, SHAPES[kind].query)
        given = {field: getattr(query, field) for field in SHELVES[kind].filters}
        where = {field: value for field, value in given.items() if value is not None}
        asked = RecordPageQuestion(after=query.cursor, limit=query.limit, where=where)
        return await answered(call, f"{kind}.{Deed.PAGE}", asked)

    return page


def read(kind: RecordKind) -> Handler:
    async def read(call: Call) -> Response:
        parse(call.request, NoParameters)
        answer = await ask(call, f"{kind}.{Deed.READ}", RecordQuestion(id=id_of(call)))
        if isinstance(answer, str):
            return accepted(answer)
        if kind in STEADY and answer.version is not None and _is_known(call, answer.version):
            return Response(status_code=304, headers={"ETag": f'"{answer.version}"'})
        return _one(call, answer, 200)

    return read


def update(kind: RecordKind) -> Handler:
    async def update(call: Call) -> Response:
        parse(call.request, NoParameters)
        record_id, expected = id_of(call), expected_version(call)
        body = _sound(parse_json(call, SHELVES[kind].body))
        asked = RecordUpdate(id=record_id, body=body, version=secrets.token_hex(16), expected=expected)
        answer = await ask(call, f"{kind}.{Deed.UPDATE}", asked)
        return accepted(answer) if isinstance(answer, str) else _one(call, answer, 200)

    return update


def delete(kind: RecordKind) -> Handler:
    async def delete(call: Call) -> Response:
        parse(call.request, NoParameters)
        asked = RecordDeletion(id=id_of(call), expected=expected_version(call))
        answer = await ask(call, f"{kind}.{Deed.DELETE}", asked)
        return accepted(answer) if isinstance(answer, str) else Response(status_code=204)

    return delete


def _sound(body: Body) -> dict[str, Any]:
    if contradiction := body.contradiction():
        raise Invalid(contradiction, code="CONTRADICTORY_BODY")
    return msgspec.structs.asdict(body)


def _one(call: Call, answer: Answer, status: int) -> Response:
    response = written(call, answer)
    response.status_code = status
    response.headers["ETag"] = f'"{answer.version}"'
    return response


def _version_of(call: Call, kind: RecordKind) -> str:
    """Name the write after its Idempotency-Key: sent again after a gateway has died, it is the same write."""
    caller = call.caller
    parts = (caller.tenant, caller.kind, caller.subject, kind, call.request.headers[KEY_HEADER])
    name = hashlib.blake2b(digest_size=16)
    for part in parts:
        name.update(len(part).to_bytes(4, "big") + part.encode())
    return name.hexdigest()


def id_of(call: Call) -> str:
    record_id: str = call.request.path_params["id"]
    if not _ID.fullmatch(record_id):
        raise NotFound("no record can have this id", code="RECORD_NOT_FOUND")
    return record_id


def expected_version(call: Call) -> str | None:
    """Return the version If-Match names, None for any. A weak tag matches nothing. Source: RFC 9110, 13.1.1."""
    tags = call.request.headers.getlist("If-Match")
    if not tags:
        raise Invalid(
            "say which version you mean: If-Match with the record's ETag, or * for any",
            code="IF_MATCH_MISSING",
        )
    tag = tags[0].strip()
    if len(tags) == 1 and tag == _ANY:
        return None
    if len(tags) == 1 and tag.startswith("W/") and _TAG.fullmatch(tag[2:]):
        raise Conflict("a weak tag matches no version", code="VERSION_MISMATCH")
    if len(tags) > 1 or not _TAG.fullmatch(tag):
        raise Invalid("If-Match is one quoted ETag, or *", code="IF_MATCH_MALFORMED")
    return tag[1:-1]


def _is_known(call: Call, version: str) -> bool:
    """Whether If-None-Match names the version. Source: RFC 9110, 13.1.2."""
    given = ",".join(call.request.headers.getlist("If-None-Match"))
    tags = {tag.strip().removeprefix("W/") for tag in given.split(",")}
    return _ANY in tags or f'"{version}"' in tags
