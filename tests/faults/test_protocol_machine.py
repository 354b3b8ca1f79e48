"""The ingest protocol under every interleaving hypothesis can think of: crashes, lost answers, orphans, cuts.

The bridge's own code runs (connection, sessions, door, writer); the store and the ledger are models that keep the
truth and do what ClickHouse was measured to do: an insert whose client died may still commit, until it is drained.
Invariant: the store always holds exactly the ticks 1..k of the tape, in order, once; what was acknowledged is in it.

The same machine must fail with each of three injected bugs, or it would prove nothing.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.errors import FlakyStrategyDefinition
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from picows import WSMsgType
from picows.picows import _make_test_ws_frame

from bridge.admission import Door
from bridge.fanout import Fanout
from bridge.ingest import IngestConnection
from bridge.leases import LeaseKeeper
from bridge.orders import OrderRelay
from bridge.peers import Peers
from bridge.sessions import Sessions
from bridge.subscribers import Subscribers
from core.errors.exceptions import UnknownOutcome
from core.messages import wire
from core.messages.wire import Batch, FrameType, Hello, Notice, Resume
from core.model.ticks import TICK_DTYPE, MarketCursor, SymbolRun, Tally, TickBlock
from core.ports.ticks import Dropped, Lease, Source, TickInsert
from core.settings import BridgeSettings

RUNS = 1_000
STEPS_MAX = 40
TAPE_ROWS = 200
SETTLING_TURNS = 12


def tape() -> np.ndarray:
    rows = np.zeros(TAPE_ROWS, dtype=TICK_DTYPE)
    rows["time_msc"] = 1_714_557_600_000 + np.arange(TAPE_ROWS) // 3
    rows["time"] = rows["time_msc"] // 1_000
    rows["bid"], rows["ask"] = 1.0 + np.arange(TAPE_ROWS), 2.0 + np.arange(TAPE_ROWS)
    return rows


TAPE = tape()


class StillClock:
    def now_ms(self) -> int:
        return 1_714_557_700_000

    def monotonic_s(self) -> float:
        return 0.0


class ModelLedger:
    """The parts of the ledger the protocol uses, always there."""

    def __init__(self) -> None:
        self.generation = 0

    async def authenticate(self, source: str, token: str) -> Source:
        return Source(name=source, tenant="t")

    async def has_forgotten(self, source: str, install: str) -> bool:
        return False

    async def epoch_of(self, source: str, install: str) -> int:
        return 1

    async def take_lease(self, source: Source, holder: str, ttl_s: float) -> Lease:
        self.generation += 1
        return Lease(source=source.name, holder=holder, generation=self.generation, expires_in_s=ttl_s)

    async def release_lease(self, lease: Lease) -> None:
        return None

    async def recorded_tallies(self, source: str, epoch: int, day: int | None) -> Sequence[Tally]:
        return ()

    async def record_tallies(self, source: str, epoch: int, tallies: Sequence[Tally]) -> None:
        return None

    async def record_notice(self, source: str, epoch: int, notice: Notice) -> None:
        return None

    async def epochs(self, source: str) -> Mapping[int, Dropped]:
        return {1: Dropped()}


class ModelStore:
    """Holds (seq, bid) pairs in commit order. `running` inserts end when a rule says so, or when they are drained."""

    def __init__(self, bug: str) -> None:
        self.bug = bug
        self.rows: list[tuple[int, float]] = []
        self.running: list[tuple[TickBlock, asyncio.Future[None]]] = []
        self.tokens: set[int] = set()

    async def durable_seq(self, source: str, epoch: int, floor: int = 0) -> int:
        return max((seq for seq, _ in self.rows), default=0)

    async def drain(self, source: str) -> None:
        if self.bug == "skip_drain":
            return
        # KILL ... SYNC: what had not committed never will.
        for _, answer in self.running:
            if not answer.done():
                answer.set_exception(UnknownOutcome("killed"))
        self.running.clear()

    async def append(self, insert: TickInsert, generation: int) -> None:
        block = insert.block
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        answer.add_done_callback(lambda done: done.cancelled() or done.exception())
        self.running.append((block, answer))
        if self.bug == "ack_before_insert":
            return
        await asyncio.shield(answer)

    def prepare(self, block: TickBlock) -> Sequence[TickInsert]:
        return (TickInsert(block=block, body=()),)

    async def cursors(self, source: str) -> Mapping[str, MarketCursor]:
        return {}

    def fail(self, block: TickBlock) -> None:
        if self.bug == "dedup_token":
            # The record of a token is written before the part: a crash between the two swallows the retry.
            self.tokens.add(block.first_seq)

    def commit(self, block: TickBlock) -> None:
        if block.first_seq in self.tokens:
            return
        self.rows += [(block.first_seq + i, float(row["bid"])) for i, row in enumerate(block.rows)]


class ModelTransport:
    """What the connection sends, kept for the connector."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.is_close_frame_sent = False

    @property
    def underlying_transport(self) -> "ModelTransport":
        return self

    def get_write_buffer_size(self) -> int:
        return 0

    def get_extra_info(self, name: str) -> None:
        return None

    def send(self, kind: WSMsgType, payload: bytes) -> None:
        self.sent.append(bytes(payload))

    def send_close(self, code: Any, message: bytes) -> None:
        self.is_close_frame_sent = True

    def disconnect(self, graceful: bool = True) -> None:
        return None


class IngestMachine(RuleBasedStateMachine):
    """One connector with an endless tape, one bridge process at a time, one store."""

    bug = ""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.store = ModelStore(self.bug)
        self.ledger = ModelLedger()
        self.acknowledged = 0
        self.connection: IngestConnection | None = None
        self.transport = ModelTransport()
        self.next_to_send: int | None = None

    # -- the world --------------------------------------------------------------------------------------

    @initialize()
    def start_bridge(self) -> None:
        clock = StillClock()
        options = BridgeSettings(insert_interval_ms_min=0, window_rows=60, window_frames=8)
        leases = LeaseKeeper(self.ledger, clock, "bridge", 15.0)  # type: ignore[arg-type]
        door = Door(registry=self.ledger, store=self.store, leases=leases, settings=options)  # type: ignore[arg-type]
        self.sessions = Sessions(
            door=door,
            registry=self.ledger,  # type: ignore[arg-type]
            store=self.store,
            leases=leases,
            fanout=Fanout(),
            clock=clock,
            settings=options,
            peers=Peers(options),
            subscribers=Subscribers(options.stream_subscribers_by_tenant_max),
            orders=OrderRelay(self.ledger, clock),  # type: ignore[arg-type] - nobody sends orders here
        )

    def settle(self) -> None:
        async def turns() -> None:
            for _ in range(SETTLING_TURNS):
                await asyncio.sleep(0)

        self.loop.run_until_complete(turns())
        self.read_answers()

    def read_answers(self) -> None:
        sent, self.transport.sent = self.transport.sent, []
        for frame in sent:
            kind = wire.frame_type(frame)
            if kind is FrameType.ACK:
                self.acknowledged = max(self.acknowledged, wire.decode_ack(frame))
            elif kind is FrameType.RESUME:
                resume = wire.decode_json(frame, Resume)
                self.next_to_send = resume.next_seq
                self.acknowledged = max(self.acknowledged, resume.next_seq - 1)
            elif kind is FrameType.NACK:
                expected = wire.decode_json(frame, wire.Nack).expected
                self.next_to_send = expected if expected is not None else self.next_to_send

    def frame(self, payload: bytes) -> None:
        assert self.connection is not None
        message = _make_test_ws_frame(WSMsgType.BINARY, payload, True, False)

        async def deliver() -> None:
            assert self.connection is not None
            self.connection.on_ws_frame(self.transport, message)

        self.loop.run_until_complete(deliver())
        self.settle()

    # -- the connector ----------------------------------------------------------------------------------

    @precondition(lambda self: self.connection is None)
    @rule()
    def connect(self) -> None:
        self.connection = IngestConnection(self.sessions)
        self.transport = ModelTransport()
        self.next_to_send = None

        async def open_it() -> None:
            assert self.connection is not None
            self.connection.on_ws_connected(self.transport)

        self.loop.run_until_complete(open_it())
        hello = Hello(
            versions=[1],
            source="s",
            install="i",
            token="t",
            first_seq=self.acknowledged + 1,
            next_seq=TAPE_ROWS + 1,
        )
        self.frame(wire.encode_json(FrameType.HELLO, hello))

    @precondition(lambda self: self.next_to_send is not None and self.next_to_send <= TAPE_ROWS)
    @rule(count=st.integers(1, 12))
    def send(self, count: int) -> None:
        if self.next_to_send is None or self.next_to_send > TAPE_ROWS:
            return
        self.send_from(self.next_to_send, count)
        self.next_to_send = min(TAPE_ROWS, self.next_to_send + count - 1) + 1
        self.read_answers()

    @precondition(lambda self: self.next_to_send is not None and self.next_to_send <= TAPE_ROWS)
    @rule(counts=st.lists(st.integers(1, 20), min_size=1, max_size=4))
    def all_goes_well_for_a_while(self, counts: list[int]) -> None:
        for count in counts:
            self.send(count)
            while self.store.running:
                self.insert_commits_and_is_answered(0)

    @precondition(lambda self: self.next_to_send is not None)
    @rule(first=st.integers(1, TAPE_ROWS), count=st.integers(1, 12))
    def send_anything(self, first: int, count: int) -> None:
        self.send_from(first, count)

    @precondition(lambda self: self.next_to_send is not None)
    @rule(first=st.integers(1, TAPE_ROWS), at=st.integers(8, 100))
    def send_a_broken_frame(self, first: int, at: int) -> None:
        payload = bytearray(self.batch(first, 3))
        payload[at % len(payload)] ^= 0x41
        if at % len(payload) >= 8:
            self.frame(bytes(payload))

    def send_from(self, first: int, count: int) -> None:
        if not self.transport.is_close_frame_sent:
            self.frame(self.batch(first, count))

    @staticmethod
    def batch(first: int, count: int) -> bytes:
        rows = TAPE[first - 1 : first - 1 + count]
        return wire.encode_batch(
            Batch(first_seq=first, rows=rows, runs=(SymbolRun(symbol="EURUSD", count=len(rows)),))
        )

    # -- what goes wrong --------------------------------------------------------------------------------

    # Luck keeps a session alive for some steps, or nothing would ever be in flight when it ends.
    @precondition(lambda self: self.connection is not None)
    @rule(kill=st.booleans(), luck=st.integers(0, 3))
    def cut_or_kill(self, kill: bool, luck: int) -> None:
        if luck == 0 or self.transport.is_close_frame_sent:
            self.cut()
            if kill:
                self.start_bridge()

    def cut(self) -> None:
        async def lose() -> None:
            assert self.connection is not None
            self.connection.on_ws_disconnected(self.transport)

        self.loop.run_until_complete(lose())
        self.connection = None
        self.next_to_send = None
        self.settle()

    @precondition(lambda self: bool(self.store.running))
    @rule(which=st.integers(0, 7))
    def insert_commits_and_is_answered(self, which: int) -> None:
        block, answer = self.store.running.pop(which % len(self.store.running))
        self.store.commit(block)
        if not answer.done():
            answer.set_result(None)
        self.settle()

    @precondition(lambda self: bool(self.store.running))
    @rule(which=st.integers(0, 7), committed=st.booleans())
    def answer_is_lost(self, which: int, committed: bool) -> None:
        block, answer = self.store.running.pop(which % len(self.store.running))
        (self.store.commit if committed else self.store.fail)(block)
        if not answer.done():
            answer.set_exception(UnknownOutcome("reset"))
        self.settle()

    @precondition(lambda self: bool(self.store.running))
    @rule(which=st.integers(0, 7))
    def client_times_out_while_the_insert_goes_on(self, which: int) -> None:
        _, answer = self.store.running[which % len(self.store.running)]
        if not answer.done():
            answer.set_exception(UnknownOutcome("time-out"))
        self.settle()

    # -- what must hold ---------------------------------------------------------------------------------

    @invariant()
    def stored_once_in_order_without_holes(self) -> None:
        seqs = [seq for seq, _ in self.store.rows]
        assert seqs == list(range(1, len(seqs) + 1)), f"stored seqs {seqs}"
        assert all(bid == TAPE["bid"][seq - 1] for seq, bid in self.store.rows)

    @invariant()
    def what_is_acknowledged_is_stored(self) -> None:
        assert self.acknowledged <= len(self.store.rows)

    def teardown(self) -> None:
        if self.connection is not None:
            self.cut()
        for _, answer in self.store.running:
            if not answer.done():
                answer.cancel()
        self.settle()
        self.loop.close()


REPLAYS_MAX = 3


def profile(runs: int) -> settings:
    return settings(
        max_examples=runs,
        stateful_step_count=STEPS_MAX,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
        print_blob=False,
        report_multiple_bugs=False,
    )


def test_a_thousand_runs_lose_and_double_nothing() -> None:
    for attempt in range(REPLAYS_MAX):
        try:
            run_state_machine_as_test(IngestMachine, settings=profile(RUNS))
        except FlakyStrategyDefinition:
            # No violation: a machine that stalls replays its choices in another time than it made them in.
            if attempt + 1 == REPLAYS_MAX:
                raise
        else:
            break


@pytest.mark.parametrize("bug", ["ack_before_insert", "skip_drain", "dedup_token"])
def test_the_machine_finds_an_injected_bug(bug: str) -> None:
    broken = type("Broken", (IngestMachine,), {"bug": bug})
    with pytest.raises(AssertionError):
        run_state_machine_as_test(broken, settings=profile(RUNS))
