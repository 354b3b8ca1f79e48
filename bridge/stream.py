"""`GET /v1/stream`: live quotes for one subscriber, conflated, bounded, and honest about what it skipped."""

import asyncio
from collections.abc import Callable
from typing import Final
from urllib.parse import parse_qs

import msgspec
import structlog
from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest

from bridge.allowance import Allowance
from bridge.fanout import Newest, Quote, QuoteKey
from bridge.sessions import Sessions
from bridge.sockets import closes, end
from core.errors.exceptions import Forbidden, Invalid, RateLimited, TickgateError, Unauthorized
from core.model.principals import Principal
from core.ports.access import TokenVerifier
from core.telemetry import metrics

log = structlog.get_logger(__name__)

PATH: Final = "/v1/stream"
SCOPE: Final = "market:read"
SYMBOLS_MAX: Final = 500
QUERY_FIELDS_MAX: Final = 8
CONTROL_BYTES_MAX: Final = 16 * 1024
HEARTBEAT_S: Final = 15.0
MESSAGES_BURST: Final = 50
MESSAGES_PER_S: Final = 10.0
CLOSE_CODES: Final = {"INVALID": 4400, "UNAUTHORIZED": 4401, "FORBIDDEN": 4403, "RATE_LIMITED": 4429}
CLOSE_INTERNAL: Final = 4500
VERIFY_INTERVAL_MS: Final = 1_000
"""How often a running stream's token is verified again; from memory, which costs microseconds."""
CLOSE_EXPIRED: Final = 4401


class Subscribe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a subscriber may send. token: needed once, where the handshake carried none. symbols: null means all;
    without them what was chosen stays.
    """

    token: str = ""
    symbols: list[str] | msgspec.UnsetType | None = msgspec.UNSET


class Item(Quote, frozen=True, kw_only=True):
    """A quote and how many ticks of its symbol were skipped since the last one sent to this subscriber."""

    skipped: int


class Quotes(msgspec.Struct, frozen=True, kw_only=True, tag="quotes"):
    items: list[Item]


class Failure(msgspec.Struct, frozen=True, kw_only=True, tag="error"):
    code: str
    message: str


class StreamConnection(WSListener):
    """One subscriber. Nothing is queued for it: each round sends what changed, or waits while it is slow."""

    def __init__(self, request: WSUpgradeRequest, tokens: TokenVerifier, sessions: Sessions) -> None:
        self._fanout = sessions.fanout
        self._peers = sessions.peers
        self._subscribers = sessions.subscribers
        self._settings = sessions.settings
        self._clock = sessions.clock
        self._tokens = tokens
        self._transport: WSTransport | None = None
        self._principal: Principal | None = None
        self._symbols = _symbols_of(request)
        self._token = request.headers.get("Authorization", "").removeprefix("Bearer ").strip()
        self._verified_at_ms = 0
        self._seen: dict[QuoteKey, int] = {}
        self._messages = Allowance(burst=MESSAGES_BURST, per_s=MESSAGES_PER_S)
        self._encoder = msgspec.json.Encoder()
        self._task: asyncio.Task[None] | None = None

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._transport = transport
        metrics.BRIDGE_SUBSCRIBERS.inc()
        if not self._peers.admit(transport, self._clock.monotonic_s()):
            self._fail("RATE_LIMITED", "too many connections", CLOSE_CODES["RATE_LIMITED"])
            return
        self._task = asyncio.get_running_loop().create_task(self._run())

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        metrics.BRIDGE_SUBSCRIBERS.dec()
        self._peers.note_known(transport)
        if self._principal is not None:
            self._subscribers.leave(self._principal.tenant)
            self._principal = None
        if self._task is not None:
            self._task.cancel()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if closes(transport, frame) or transport.is_close_frame_sent:
            return
        if frame.msg_type in (WSMsgType.TEXT, WSMsgType.BINARY):
            self._guarded(lambda: self._subscribe(frame.get_payload_as_bytes(), whole=frame.fin))

    def _subscribe(self, payload: bytes, *, whole: bool) -> None:
        if not self._messages.take(self._clock.monotonic_s()):
            raise RateLimited("too many messages; connect again and send fewer")
        if not whole or len(payload) > CONTROL_BYTES_MAX:
            raise Invalid(f"a message is whole and at most {CONTROL_BYTES_MAX} bytes")
        try:
            wanted = msgspec.json.decode(payload, type=Subscribe)
        except msgspec.DecodeError as e:
            raise Invalid(f"not a subscription: {e}") from e
        if wanted.symbols is None:
            self._symbols = None
        elif wanted.symbols is not msgspec.UNSET:
            if len(wanted.symbols) > SYMBOLS_MAX:
                raise Invalid(f"at most {SYMBOLS_MAX} symbols")
            self._symbols = frozenset(wanted.symbols)
        if wanted.token:
            self._token, self._verified_at_ms = wanted.token, 0

    async def _authenticate(self) -> None:
        """Verify the newest token, again and again: it may be revoked while the stream runs."""
        now_ms = self._clock.now_ms()
        if not self._token or now_ms - self._verified_at_ms < VERIFY_INTERVAL_MS:
            return
        self._verified_at_ms = now_ms
        try:
            principal = await self._tokens.verify(self._token)
        except Unauthorized:
            self._peers.note_failure(self._transport, self._clock.monotonic_s())
            raise
        if SCOPE not in principal.scopes:
            raise Forbidden(f"this stream needs the scope {SCOPE}")
        self._recognise(principal)

    def _recognise(self, principal: Principal) -> None:
        """Count for the token's tenant, which a new token may change. Raises: RateLimited."""
        before = self._principal
        if before is None or before.tenant != principal.tenant:
            self._subscribers.enter(principal.tenant)
            if before is not None:
                self._subscribers.leave(before.tenant)
        self._principal = principal
        self._peers.note_known(self._transport)

    def _guarded(self, step: Callable[[], None]) -> None:
        try:
            step()
        except TickgateError as e:
            self._fail(e.code, e.public, CLOSE_CODES.get(e.category.value, CLOSE_INTERNAL))

    async def _run(self) -> None:
        try:
            await self._stream()
        except TickgateError as e:
            self._fail(e.code, e.public, CLOSE_CODES.get(e.category.value, CLOSE_INTERNAL))

    async def _stream(self) -> None:
        await asyncio.sleep(0)
        waited_s = 0.0
        await self._authenticate()
        while self._principal is None:
            if waited_s >= self._settings.hello_timeout_s:
                raise Unauthorized("no access token in time")
            await asyncio.sleep(0.01)
            waited_s += 0.01
            await self._authenticate()
        idle_s = 0.0
        interval_s = self._settings.stream_interval_ms / 1_000
        while self._clock.now_ms() < self._principal.expires_at_s * 1_000:
            await self._authenticate()
            if self._send_changes(self._principal.tenant):
                idle_s = 0.0
            elif (idle_s := idle_s + interval_s) >= HEARTBEAT_S and self._transport is not None:
                self._transport.send_ping()
                idle_s = 0.0
            await asyncio.sleep(interval_s)
        self._fail("TOKEN_EXPIRED", "connect again with a new access token", CLOSE_EXPIRED)

    def _send_changes(self, tenant: str) -> bool:
        """Send what changed since the last round; a subscriber whose buffer is full gets a newer quote later."""
        if self._transport is None:
            return False
        buffered = self._transport.underlying_transport.get_write_buffer_size()
        if buffered > self._settings.stream_buffer_bytes_max:
            return False
        items = [
            self._item(key, newest)
            for key, newest in self._fanout.newest.get(tenant, {}).items()
            if newest.ticks != self._seen.get(key) and (self._symbols is None or key[1] in self._symbols)
        ]
        if items:
            self._transport.send(WSMsgType.TEXT, self._encoder.encode(Quotes(items=items)))
        return bool(items)

    def _item(self, key: QuoteKey, newest: Newest) -> Item:
        # The first quote of a symbol is where this subscriber came in: nothing was skipped before it.
        skipped = newest.ticks - self._seen.get(key, newest.ticks - 1) - 1
        self._seen[key] = newest.ticks
        metrics.BRIDGE_QUOTES_SKIPPED.inc(skipped)
        return Item(**msgspec.structs.asdict(newest.quote), skipped=skipped)

    def _fail(self, code: str, message: str, close_code: int) -> None:
        if self._transport is None or self._transport.is_close_frame_sent:
            return
        self._transport.send(WSMsgType.TEXT, self._encoder.encode(Failure(code=code, message=message)))
        end(self._transport, close_code, code)


def _symbols_of(request: WSUpgradeRequest) -> frozenset[str] | None:
    """Raises: Invalid."""
    query = request.path.decode("ascii", "replace").partition("?")[2]
    try:
        wanted = parse_qs(query, max_num_fields=QUERY_FIELDS_MAX).get("symbols")
    except ValueError as e:
        raise Invalid(f"a query has at most {QUERY_FIELDS_MAX} fields") from e
    return frozenset(wanted[0].split(",")[:SYMBOLS_MAX]) if wanted else None
