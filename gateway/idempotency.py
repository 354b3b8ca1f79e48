"""Idempotency-Key: a request that changes something is done once, however often it is sent.

Final answers are kept and given again: every 2xx and 4xx of the handler, and an outcome that is not known, which must
never be tried again blindly. Any other failure gives the key free, because nothing was done. A gateway that dies, or a
caller that hangs up, leaves the claim to run out: until then the key is in use, after it the request may be done
again. A handler whose effect must not happen twice therefore writes it inside `call.work()`, where effect and answer
commit together; such a route has nothing to claim beforehand. Source: draft-ietf-httpapi-idempotency-key-header.
"""

import hashlib
import re
from typing import Final

import msgspec
import structlog
from starlette.requests import Request
from starlette.responses import Response

from core.errors.categories import Category
from core.errors.exceptions import Invalid, TickgateError, Unavailable
from core.messages.jobs import report_of
from core.ports.idempotency import KEY_CODES, AnsweredBefore, Claim, IdempotentRequest, StoredAnswer
from core.telemetry import metrics
from gateway.problems import Challenged, problem
from gateway.routing import Call, Handler

log = structlog.get_logger(__name__)

HEADER: Final = "Idempotency-Key"
REPLAYED: Final = "Idempotency-Replayed"
ANSWER_BYTES_MAX: Final = 256 * 1024
KEPT_HEADERS: Final = frozenset(
    {"content-type", "location", "retry-after", "etag", "link", "preference-applied", "www-authenticate"}
)
FINAL_STATUSES: Final = frozenset(range(200, 500)) - {408, 425, 429}
_KEY: Final = re.compile(r"[\x21-\x7e]{8,255}")


async def answered_once(handler: Handler, call: Call) -> Response:
    """Return the handler's answer, or the one it gave when the request was first sent.

    Raises:
        Invalid: the key is missing (IDEMPOTENCY_KEY_MISSING), malformed (IDEMPOTENCY_KEY_MALFORMED) or was used for
            something else (IDEMPOTENCY_KEY_REUSED).
        Conflict: the first request with this key is still running (IDEMPOTENCY_KEY_IN_USE).
    """
    found = await call.services.idempotency.claim(request_of(call))
    if isinstance(found, StoredAnswer):
        return _replayed(found)
    try:
        response = await handler(call)
    except TickgateError as e:
        refusal, final = _refusal(e)
        await _settle(found, refusal, final=final)
        raise
    except Exception:
        await _settle(found, None, final=False)
        raise
    await _settle(found, response, final=_is_final(response))
    return response


async def answered_within(handler: Handler, call: Call) -> Response:
    """Return the answer of a handler that does all it does in `call.work()`, or the one it gave before.

    Raises as `answered_once` does.
    """
    asked = request_of(call)
    try:
        response = await handler(msgspec.structs.replace(call, asked=asked))
    except AnsweredBefore as e:
        return _replayed(e.answer)
    except TickgateError as e:
        refusal, final = _refusal(e)
        # That the key is another's says nothing of the request, and must not become its answer.
        if (
            final
            and e.code not in KEY_CODES
            and (earlier := await _refused(call, asked, refusal)) is not None
        ):
            return earlier
        raise
    metrics.IDEMPOTENT_REQUESTS.labels("done").inc()
    return response


def stored(response: Response) -> StoredAnswer:
    """Return what is kept of an answer."""
    body = bytes(response.body)
    assert len(body) <= ANSWER_BYTES_MAX, "the answer of an idempotent route is small"
    headers = {name: value for name, value in response.headers.items() if name in KEPT_HEADERS}
    return StoredAnswer(status=response.status_code, headers=headers, body=body)


async def _refused(call: Call, asked: IdempotentRequest, refusal: Response) -> Response | None:
    """Keep a refusal, unless the request was answered before: then return that. Raises as `Idempotency.work` does."""
    try:
        async with call.services.idempotency.work(asked) as work:
            await work.answer(stored(refusal))
    except AnsweredBefore as e:
        return _replayed(e.answer)
    except Unavailable as e:
        log.warning("idempotency.not_settled", final=True, error=str(e))
    else:
        metrics.IDEMPOTENT_REQUESTS.labels("done").inc()
    return None


def _replayed(answer: StoredAnswer) -> Response:
    metrics.IDEMPOTENT_REQUESTS.labels("replayed").inc()
    return Response(answer.body, answer.status, {**answer.headers, REPLAYED: "true"})


def _refusal(error: TickgateError) -> tuple[Response, bool]:
    """Return an error as it is answered, and whether that is final."""
    cause = error.error if isinstance(error, Challenged) else error
    refusal = problem(report_of(cause), error)
    return refusal, _is_final(refusal) or cause.category is Category.UNKNOWN_OUTCOME


async def _settle(claim: Claim, response: Response | None, *, final: bool) -> None:
    """Keep the answer or give the key free. Where neither can be done now, the claim runs out by itself."""
    metrics.IDEMPOTENT_REQUESTS.labels("done" if final else "freed").inc()
    try:
        if final and response is not None:
            await claim.complete(stored(response))
        else:
            await claim.release()
    except Unavailable as e:
        log.warning("idempotency.not_settled", final=final, error=str(e))


def _is_final(response: Response) -> bool:
    return response.status_code in FINAL_STATUSES


def request_of(call: Call) -> IdempotentRequest:
    scope, caller = call.request.scope, call.caller
    asked = (scope["method"].encode(), scope["path"].encode(), scope["query_string"], call.body)
    fingerprint = hashlib.sha256()
    for part in asked:
        fingerprint.update(len(part).to_bytes(8, "big") + part)
    return IdempotentRequest(
        tenant=caller.tenant,
        subject=caller.actor,
        key=_key(call.request),
        fingerprint=fingerprint.digest(),
    )


def _key(request: Request) -> str:
    values = request.headers.getlist(HEADER)
    if not values:
        raise Invalid(
            f"this request needs an {HEADER} header, a random UUID for instance",
            code="IDEMPOTENCY_KEY_MISSING",
        )
    key = values[0]
    if len(key) > 1 and key[0] == key[-1] == '"':
        # The draft writes it as a quoted string, most clients do not: both name the same request.
        key = key[1:-1]
    if len(values) > 1 or not _KEY.fullmatch(key):
        raise Invalid(
            f"{HEADER} is 8 to 255 visible ASCII characters, once", code="IDEMPOTENCY_KEY_MALFORMED"
        )
    return key
