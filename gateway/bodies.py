"""Request bodies, bounded in size and time."""

import asyncio
from typing import Final

from starlette.requests import ClientDisconnect, Request

from core.errors.exceptions import Invalid

BODY_TIMEOUT_S: Final = 5.0


async def read_body(request: Request, bytes_max: int) -> bytes:
    """Return the whole body; with `bytes_max` 0 there must be none.

    Raises:
        Invalid: encoded (BODY_ENCODED), too large (BODY_TOO_LARGE), too slow (BODY_TOO_SLOW) or not what its
            framing says (BODY_BROKEN).
    """
    length = request.headers.get("content-length", "")
    if bytes_max == 0:
        # Nothing here reads it, but something in front of us might; a body nobody expects is a second request.
        if length.strip("0") or "transfer-encoding" in request.headers:
            raise Invalid("this route takes no body", code="BODY_TOO_LARGE")
        return b""
    if request.headers.get("content-encoding", "identity") != "identity":
        raise Invalid("encoded bodies are not taken", code="BODY_ENCODED")
    if length.isdecimal() and int(length) > bytes_max:
        raise _too_large(bytes_max)
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            async for chunk in request.stream():
                body += chunk
                if len(body) > bytes_max:
                    raise _too_large(bytes_max)
    except TimeoutError as e:
        raise Invalid(f"the body did not arrive within {BODY_TIMEOUT_S:g} s", code="BODY_TOO_SLOW") from e
    except ClientDisconnect as e:
        raise Invalid("the body ended too early, or its chunks are none", code="BODY_BROKEN") from e
    return bytes(body)


def _too_large(bytes_max: int) -> Invalid:
    return Invalid(f"the body may hold at most {bytes_max} bytes", code="BODY_TOO_LARGE")
