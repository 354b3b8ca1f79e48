"""What the operations of the OpenAPI document share: headers, problems, security schemes, and which route has which."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from core.errors.categories import Category
from core.model.principals import Scope
from gateway.problems import CONTENT_TYPE as PROBLEM_TYPE
from gateway.problems import TITLES
from gateway.routing import Access, Endpoint, RateClass

Json = dict[str, Any]

_ALWAYS: Final = ("X-Request-Id", "traceresponse")
_LIMITED: Final = ("RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset", "RateLimit-Policy")
_COUNT: Final[Mapping[str, Any]] = {"type": "integer", "minimum": 0}

RESPONSE_HEADERS: Final[Mapping[str, Json]] = {
    "X-Request-Id": {
        "description": "The trace id of this request: what to quote when asking about it.",
        "required": True,
        "schema": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
    },
    "traceresponse": {
        "description": "This hop, as W3C Trace Context writes it.",
        "required": True,
        "schema": {"type": "string", "pattern": "^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$"},
    },
    "RateLimit-Limit": {"description": "How many requests the window allows.", "schema": _COUNT},
    "RateLimit-Remaining": {"description": "How many of them are left.", "schema": _COUNT},
    "RateLimit-Reset": {"description": "Seconds until there are more.", "schema": _COUNT},
    "Content-Disposition": {
        "description": "The name of the file.",
        "schema": {"type": "string", "pattern": '^attachment; filename="[\\w.-]+"$'},
    },
    "RateLimit-Policy": {
        "description": "Every window there is: how many requests, and `w`, its seconds.",
        "schema": {"type": "string"},
    },
    "Retry-After": {"description": "Seconds to wait before asking again.", "schema": _COUNT},
    "Link": {"description": 'The next page, `rel="next"`.', "schema": {"type": "string"}},
    "X-Next-Cursor": {
        "description": "`next_cursor` for formats whose body cannot carry it; absent on the last page.",
        "schema": {"type": "string"},
    },
    "ETag": {
        "description": "The record's version, as If-Match and If-None-Match name it.",
        "schema": {"type": "string", "pattern": '^"[!#-~]*"$'},
    },
    "Location": {"description": "Where it is.", "schema": {"type": "string"}},
    "Preference-Applied": {"description": "Which preference was heeded.", "schema": {"type": "string"}},
    "Idempotency-Replayed": {
        "description": "`true` where this was answered before; nothing was done again.",
        "schema": {"type": "string", "enum": ["true"]},
    },
    "WWW-Authenticate": {"description": "How to authenticate.", "schema": {"type": "string"}},
}

REQUEST_HEADERS: Final[Mapping[str, Json]] = {
    "traceparent": {
        "description": "The caller's hop, W3C Trace Context; a malformed one is replaced.",
        "required": False,
        "schema": {"type": "string"},
    },
    "Prefer": {
        "description": "`wait=SECONDS`: how long to keep the connection for the answer before it becomes 202.",
        "required": False,
        "schema": {"type": "string"},
    },
    "If-Match": {
        "description": "The ETag of the version that is meant, or `*` for any.",
        "required": True,
        "schema": {"type": "string", "pattern": '^(\\*|"[!#-~]{0,128}")$'},
    },
    "If-None-Match": {
        "description": "ETags the caller has; 304 where one of them still is the record's.",
        "required": False,
        "schema": {"type": "string"},
    },
    "Last-Event-ID": {
        "description": "The last event the caller has seen; the next one follows it.",
        "required": False,
        "schema": {"type": "string", "pattern": "^[0-9]{0,18}$"},
    },
    "Idempotency-Key": {
        "description": "Unique for what is to be done once; the same key and body again answer what was answered.",
        "required": True,
        "schema": {"type": "string", "minLength": 8, "maxLength": 255, "pattern": "^[!#-~]+$"},
    },
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """A problem routes share. name: of its component; category, code: of one that is answered so, as an example;
    headers: rows of RESPONSE_HEADERS.
    """

    name: str
    description: str
    category: Category
    code: str
    headers: tuple[str, ...] = ()


PROBLEMS: Final[Mapping[int, Shared]] = {
    400: Shared(
        name="BadRequest",
        category=Category.INVALID,
        code="INVALID_PARAMETER",
        description="It makes no sense as written; `errors` names parameters.",
    ),
    401: Shared(
        name="Unauthenticated",
        category=Category.UNAUTHORIZED,
        code="TOKEN_MISSING",
        description="No credential, or one that is not valid.",
        headers=("WWW-Authenticate",),
    ),
    403: Shared(
        name="NotAllowed",
        category=Category.FORBIDDEN,
        code="INSUFFICIENT_SCOPE",
        description="The credential does not allow this.",
        headers=("WWW-Authenticate",),
    ),
    404: Shared(
        name="NotThere",
        category=Category.NOT_FOUND,
        code="JOB_NOT_FOUND",
        description="There is no such thing, or it is somebody else's.",
    ),
    408: Shared(
        name="BodyTooSlow",
        category=Category.INVALID,
        code="BODY_TOO_SLOW",
        description="The body did not arrive in time.",
    ),
    409: Shared(
        name="InTheWay",
        category=Category.CONFLICT,
        code="IDEMPOTENCY_KEY_IN_USE",
        description="A request with this Idempotency-Key is being answered.",
    ),
    412: Shared(
        name="Changed",
        category=Category.CONFLICT,
        code="VERSION_MISMATCH",
        description="It has another version than If-Match says; read it again.",
    ),
    413: Shared(
        name="BodyTooLarge",
        category=Category.INVALID,
        code="BODY_TOO_LARGE",
        description="The body is larger than this route takes; most take none.",
    ),
    414: Shared(
        name="TargetTooLong",
        category=Category.INVALID,
        code="URI_TOO_LONG",
        description="Path and query together are too long.",
    ),
    415: Shared(
        name="BodyEncoded",
        category=Category.INVALID,
        code="BODY_TYPE",
        description="The body is compressed, or of a type this route does not take.",
    ),
    421: Shared(
        name="NotOurHost",
        category=Category.INVALID,
        code="NOT_OUR_HOST",
        description="The Host header names somebody else.",
    ),
    422: Shared(
        name="KeyReused",
        category=Category.INVALID,
        code="IDEMPOTENCY_KEY_REUSED",
        description="The Idempotency-Key was used with another body.",
    ),
    428: Shared(
        name="VersionNeeded",
        category=Category.INVALID,
        code="IF_MATCH_MISSING",
        description="It changes only for who says which version is meant.",
    ),
    429: Shared(
        name="TooMany",
        category=Category.RATE_LIMITED,
        code="RATE_LIMITED",
        description="Too much at once.",
        headers=("Retry-After", *_LIMITED),
    ),
    500: Shared(
        name="Defect",
        category=Category.DEFECT,
        code="DEFECT",
        description="Something on our side is broken; quote `fingerprint`.",
    ),
    503: Shared(
        name="Unavailable",
        category=Category.UNAVAILABLE,
        code="QUEUE_UNAVAILABLE",
        description="Something we depend on does not answer; nothing was done.",
        headers=("Retry-After",),
    ),
    504: Shared(
        name="TooSlow",
        category=Category.UNAVAILABLE,
        code="DEADLINE_EXCEEDED",
        description="The answer was not ready in time.",
        headers=("Retry-After",),
    ),
}

SECURITY_SCHEMES: Final[Mapping[str, Json]] = {
    "oauth2": {
        "type": "oauth2",
        "description": "Client credentials for an access token.",
        "flows": {
            "clientCredentials": {
                "tokenUrl": "/oauth/token",
                "scopes": {scope.value: scope.name.replace("_", " ").lower() for scope in Scope},
            }
        },
    },
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "An access token or an API key as it is.",
    },
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "An API key."},
    "operator": {"type": "http", "scheme": "bearer", "description": "The metrics token."},
    "client": {"type": "http", "scheme": "basic", "description": "Client id and secret, at /oauth/* only."},
}
_CALLERS: Final = ("oauth2", "bearer", "key")


def statuses_of(endpoint: Endpoint) -> list[int]:
    """Return the shared problems this route can answer."""
    named = endpoint.access not in {Access.PUBLIC, Access.OPERATOR}
    can_be_late = named or endpoint.body_bytes_max > 0
    occurs = {
        400: True,
        401: named,
        403: isinstance(endpoint.access, Scope) or endpoint.access is Access.OPERATOR,
        404: "{" in endpoint.path,
        408: endpoint.body_bytes_max > 0,
        409: endpoint.idempotent,
        412: "If-Match" in endpoint.headers,
        413: True,
        414: True,
        415: endpoint.body_bytes_max > 0,
        421: True,
        422: endpoint.idempotent,
        428: "If-Match" in endpoint.headers,
        429: endpoint.rate is not RateClass.UNLIMITED,
        500: True,
        503: can_be_late,
        504: can_be_late,
    }
    assert occurs.keys() == PROBLEMS.keys(), "every shared problem is decided about"
    return [status for status, can in occurs.items() if can]


def security_of(endpoint: Endpoint) -> list[Json]:
    """Return the credentials that open this route, any one of them."""
    if isinstance(endpoint.access, Scope):
        return [{scheme: [endpoint.access.value]} for scheme in _CALLERS]
    if endpoint.access in {Access.AUTHENTICATED, Access.DOCUMENTED}:
        return [{scheme: []} for scheme in _CALLERS]
    if endpoint.access is Access.OPERATOR:
        return [{"operator": []}, {}]
    if endpoint.rate is RateClass.TOKEN and endpoint.body_bytes_max:
        return [{"client": []}, {}]
    return []


def headers_of(endpoint: Endpoint, own: tuple[str, ...]) -> Json:
    """Return references to the headers an answer of this route carries."""
    limited = _LIMITED if endpoint.rate is not RateClass.UNLIMITED else ()
    replayed = ("Idempotency-Replayed",) if endpoint.idempotent else ()
    return header_references((*_ALWAYS, *limited, *replayed, *own))


def shared_components() -> Json:
    """Return the components that come from no type of ours."""
    responses = {
        problem.name: {
            "description": problem.description,
            "headers": header_references((*_ALWAYS, *problem.headers)),
            "content": {
                PROBLEM_TYPE: {
                    "schema": {"$ref": "#/components/schemas/Problem"},
                    "example": _example(status, problem),
                }
            },
        }
        for status, problem in PROBLEMS.items()
    }
    parameters = {name: {"name": name, "in": "header", **row} for name, row in REQUEST_HEADERS.items()}
    return {
        "responses": responses,
        "headers": dict(RESPONSE_HEADERS),
        "parameters": parameters,
        "securitySchemes": dict(SECURITY_SCHEMES),
    }


def _example(status: int, problem: Shared) -> Json:
    return {
        "type": f"urn:tickgate:problem:{problem.code}",
        "title": TITLES[problem.category],
        "status": status,
        "code": problem.code,
        "detail": problem.description,
        "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
    }


def header_references(names: tuple[str, ...]) -> Json:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in dict.fromkeys(names)}
