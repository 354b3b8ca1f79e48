"""The bridge's one port: connectors, subscribers, and three small HTTP answers, each known by its path."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Final

import msgspec
import structlog
from picows import (
    WSListener,
    WSUpgradeRequest,
    WSUpgradeResponse,
    WSUpgradeResponseWithListener,
    ws_create_server,
)
from prometheus_client import Gauge

from bridge import stream
from bridge.ingest import IngestConnection
from bridge.sessions import Sessions
from bridge.stream import StreamConnection
from core.errors.exceptions import Invalid, Misconfigured
from core.infrastructure.exposure import is_local_caller, require_tls, tls_context
from core.messages import wire
from core.ports.access import TokenVerifier
from core.settings import BridgeSettings
from core.telemetry import metrics

log = structlog.get_logger(__name__)

# A frame's own header and the JSON of control frames fit in the slack.
WEBSOCKET_FRAME_BYTES_MAX: Final = wire.FRAME_BYTES_MAX + 1_024

Answer = WSListener | WSUpgradeResponseWithListener | None


class Server:
    """Dispatches connections. ready: told by the health loop, so that a probe never waits for a store."""

    def __init__(self, sessions: Sessions, tokens: TokenVerifier, settings: BridgeSettings) -> None:
        self._sessions = sessions
        self._tokens = tokens
        self._settings = settings
        self.not_ready: str = "starting"

    def accept(self, request: WSUpgradeRequest) -> Answer:
        """Choose what serves a request; None is 404."""
        path = request.path.decode("ascii", "replace").partition("?")[0]
        if path in (wire.PATH, stream.PATH) and "Upgrade" not in request.headers:
            return _plain(HTTPStatus.UPGRADE_REQUIRED, b"this is a WebSocket endpoint\n", "text/plain")
        if path in (wire.PATH, stream.PATH) and not self._may_come_from(path, request):
            return _plain(HTTPStatus.FORBIDDEN, b"not from a page of that origin\n", "text/plain")
        if path == wire.PATH:
            return self._limited(metrics.BRIDGE_CONNECTIONS, self._settings.connections_max, self._ingest)
        if path == stream.PATH:
            return self._limited(
                metrics.BRIDGE_SUBSCRIBERS,
                self._settings.stream_subscribers_max,
                lambda: self._stream(request),
            )
        return self._http(path, request)

    def _ingest(self) -> WSListener:
        return IngestConnection(self._sessions)

    def _stream(self, request: WSUpgradeRequest) -> WSListener:
        return StreamConnection(request, self._tokens, self._sessions)

    def _may_come_from(self, path: str, request: WSUpgradeRequest) -> bool:
        """Whether no web page asks, or one that may: no browser asks a WebSocket's server before it connects."""
        origins = request.headers.getall("Origin", ())
        return not origins or (
            path == stream.PATH and len(origins) == 1 and origins[0] in self._settings.stream_origins
        )

    def _limited(self, gauge: Gauge, limit: int, listener: Callable[[], WSListener]) -> Answer:
        if metrics.value(gauge) >= limit:
            return _plain(HTTPStatus.SERVICE_UNAVAILABLE, b"too many connections\n", "text/plain")
        try:
            return listener()
        except Invalid as e:
            return _plain(HTTPStatus.BAD_REQUEST, f"{e.public}\n".encode(), "text/plain")

    def _http(self, path: str, request: WSUpgradeRequest) -> Answer:
        # Of the caller's address only this is known here: it is as local as what we listen on.
        local = is_local_caller(self._settings.host, request.headers)
        if path == "/livez":
            return _json(HTTPStatus.OK, {"status": "pass"})
        if path == "/readyz":
            status = HTTPStatus.SERVICE_UNAVAILABLE if self.not_ready else HTTPStatus.OK
            return _json(status, self._readiness(local))
        if path == "/metrics" and local:
            return _plain(HTTPStatus.OK, metrics.render(), metrics.CONTENT_TYPE)
        return None

    def _readiness(self, local: bool) -> dict[str, str]:
        if not self.not_ready:
            return {"status": "pass"}
        # Which store fails is for operators to read, not for whoever can reach the port.
        reason = {"reason": self.not_ready} if local else {}
        return {"status": "fail", **reason}


def _json(status: HTTPStatus, body: dict[str, str]) -> WSUpgradeResponseWithListener:
    return _plain(status, msgspec.json.encode(body), "application/health+json")


def _plain(status: HTTPStatus, body: bytes, content_type: str) -> WSUpgradeResponseWithListener:
    headers = {"Content-Type": content_type, "Cache-Control": "no-store"}
    if status < HTTPStatus.BAD_REQUEST:
        return WSUpgradeResponseWithListener(WSUpgradeResponse.create_ok_response(body, headers), None)
    return WSUpgradeResponseWithListener(WSUpgradeResponse.create_error_response(status, body, headers), None)


def tls(settings: BridgeSettings) -> ssl.SSLContext | None:
    """Return the TLS context, or None on loopback and behind a proxy that ends TLS.

    Raises:
        Misconfigured: the bridge would listen beyond this machine without TLS, or the files are no certificate.
    """
    require_tls(
        "bridge",
        host=settings.host,
        certificate_file=settings.tls_certificate_file,
        behind_tls_proxy=settings.behind_tls_proxy,
    )
    if not settings.tls_certificate_file:
        return None
    return tls_context("bridge", settings.tls_certificate_file, settings.tls_key_file)


@asynccontextmanager
async def listen(server: Server, settings: BridgeSettings) -> AsyncIterator[asyncio.Server]:
    """Listen until the block ends.

    Raises:
        Misconfigured: the port is taken, or TLS is missing where it is needed.
    """
    context = tls(settings)
    try:
        listening = await ws_create_server(
            server.accept,
            settings.host,
            settings.port,
            ssl=context,
            max_frame_size=WEBSOCKET_FRAME_BYTES_MAX,
            websocket_handshake_timeout=settings.hello_timeout_s,
            read_buffer_init_size=64 * 1024,
        )
    except OSError as e:
        raise Misconfigured(f"port {settings.port} of {settings.host} is taken", code="PORT_TAKEN") from e
    log.info("bridge.listening", host=settings.host, port=settings.port, tls=context is not None)
    try:
        yield listening
    finally:
        listening.close()


async def watch_readiness(
    server: Server, unhealthy: Callable[[], Awaitable[str]], interval_s: float = 1.0
) -> None:
    """Keep `server.not_ready` true to the stores' pings until cancelled."""
    while True:
        try:
            server.not_ready = await unhealthy()
        except Exception:
            log.exception("readiness.defect")
            server.not_ready = "the health check itself fails"
        await asyncio.sleep(interval_s)
