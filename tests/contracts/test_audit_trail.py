"""The audit trail in the ledger: gap free whoever writes, appended to and nothing else, sealed, and found out."""

import asyncio
from pathlib import Path

import asyncpg
import pytest

from core.adapters.postgres.pool import Postgres
from core.auditing.checkpoints import Keyring, Signer
from core.auditing.sealing import seal
from core.auditing.verification import Verdict, verify
from core.errors.exceptions import Corrupt, Defect, Misconfigured
from core.infrastructure.anchors import FileAnchor
from core.infrastructure.central_hub import Hub, open_hub
from core.infrastructure.signing_keys import new_key
from core.model.audit import AuditEvent
from core.settings import AuditSettings, Settings
from tests.engines import House, new_databases
from workers.auditing import Sealing, sealing_of

NEEDS = {"audit", "audit_archive", "order_ledger", "postgres"}
KEY = new_key(0)
TENANT = "demo"


@pytest.fixture
def settings(house: House) -> Settings:
    return new_databases(house)


async def write(hub: Hub, count: int, tenant: str = TENANT) -> None:
    for number in range(count):
        async with hub["order_ledger"].work(tenant) as work:
            event = AuditEvent(type="order.moved", actor="a", order=f"o{number}", facts={"number": number})
            await hub["audit"].append(work, event)


async def verdict(hub: Hub, anchor: FileAnchor) -> Verdict:
    entries = await hub["audit_archive"].entries(TENANT, after=0, limit=10_000)
    found = [one for one in anchor.all() if one.stream == TENANT]
    return verify(TENANT, entries, found, Keyring([KEY]))


def sealing(hub: Hub, anchor: FileAnchor | None) -> Sealing:
    return Sealing(archive=hub["audit_archive"], signer=Signer(KEY), anchor=anchor)


async def test_many_writers_leave_no_gap_and_no_fork(settings: Settings, tmp_path: Path) -> None:
    anchor = FileAnchor(tmp_path / "anchor")
    async with open_hub(settings, NEEDS) as hub:
        await asyncio.gather(*(write(hub, 12) for _ in range(8)), write(hub, 5, "rival"))
        await sealing(hub, anchor).run({}, None)
        assert await verdict(hub, anchor) == Verdict(stream=TENANT, events=96, anchored=96)
        assert {one.stream: one.size for one in anchor.all()} == {TENANT: 96, "rival": 5}


async def test_what_is_rolled_back_was_never_written(settings: Settings) -> None:
    async with open_hub(settings, NEEDS) as hub:
        await write(hub, 1)
        with pytest.raises(KeyError):
            await write_and_fail(hub)
        await write(hub, 1)
        entries = await hub["audit_archive"].entries(TENANT, after=0, limit=10)
        assert [one.seq for one in entries] == [1, 2]


async def test_sealing_goes_on_where_it_was_and_an_anchor_that_was_away_gets_all(
    settings: Settings, tmp_path: Path
) -> None:
    missing = FileAnchor(tmp_path / "not there" / "anchor")
    anchor = FileAnchor(tmp_path / "anchor")
    async with open_hub(settings, NEEDS) as hub:
        for count in (3, 1, 4):
            await write(hub, count)
            await sealing(hub, missing).run({}, None)
        await sealing(hub, anchor).run({}, None)
        await sealing(hub, anchor).run({}, None)
        assert [one.size for one in anchor.all()] == [3, 4, 8]
        assert (await verdict(hub, anchor)).anchored == 8


async def test_of_two_that_seal_at_once_one_does(settings: Settings, tmp_path: Path) -> None:
    anchor = FileAnchor(tmp_path / "anchor")
    async with open_hub(settings, NEEDS) as hub:
        await write(hub, 20)
        await asyncio.gather(*(sealing(hub, anchor).run({}, None) for _ in range(6)))
        assert (await verdict(hub, anchor)).finding is None


async def write_and_fail(hub: Hub) -> None:
    async with hub["order_ledger"].work(TENANT) as work:
        await hub["audit"].append(work, AuditEvent(type="t", actor="a"))
        raise KeyError


TAMPERING: dict[str, str] = {
    "edit": "update audit_events set event = decode('7b7d', 'hex') where seq = 3",
    "edit a column": "update audit_events set account = 'x' where seq = 4",
    "delete the first": "delete from audit_events where seq = 1",
    "delete one": "delete from audit_events where seq = 5",
    "truncate": "delete from audit_events where seq > 6",
    "forget": "truncate audit_events",
    "swap": "update audit_events set seq = case seq when 2 then -3 else -2 end where seq in (2, 3)",
}


@pytest.mark.parametrize("deed", TAMPERING)
async def test_what_an_administrator_changes_is_found(settings: Settings, tmp_path: Path, deed: str) -> None:
    anchor = FileAnchor(tmp_path / "anchor")
    async with open_hub(settings, NEEDS) as hub:
        await write(hub, 8)
        await sealing(hub, anchor).run({}, None)
        await as_administrator(hub["postgres"], TAMPERING[deed])
        assert (await verdict(hub, anchor)).finding is not None


async def test_what_was_broken_since_the_last_seal_is_not_sealed(settings: Settings) -> None:
    async with open_hub(settings, NEEDS) as hub:
        await write(hub, 3)
        await seal(hub["audit_archive"], TENANT, Signer(KEY))
        await write(hub, 3)
        await as_administrator(hub["postgres"], TAMPERING["delete one"])
        with pytest.raises(Corrupt, match="event 5"):
            await seal(hub["audit_archive"], TENANT, Signer(KEY))


async def as_administrator(postgres: Postgres, statement: str) -> None:
    async with postgres.acquire() as connection, connection.transaction():
        await connection.execute("set local session_replication_role = replica")
        if "case seq" in statement:
            await connection.execute("alter table audit_events drop constraint audit_events_seq_check")
            await connection.execute(statement)
            statement = "update audit_events set seq = -seq where seq < 0"
        await connection.execute(statement)


async def append(hub: Hub, event: AuditEvent) -> None:
    async with hub["order_ledger"].work(TENANT) as work:
        await hub["audit"].append(work, event)


async def run_as(postgres: Postgres, whose: str, statement: str) -> None:
    opened = postgres.of_tenant(TENANT) if whose == "tenant" else postgres.acquire()
    async with opened as connection:
        await connection.execute(statement)


REFUSED = [
    "update audit_events set type = 'x'",
    "delete from audit_events",
    "truncate audit_events",
    "update audit_heads set seq = 1, hash = hash",
    "delete from audit_heads",
]


@pytest.mark.parametrize("statement", REFUSED)
@pytest.mark.parametrize("whose", ["tenant", "owner"])
async def test_neither_a_tenant_nor_the_owner_rewrites_by_accident(
    settings: Settings, statement: str, whose: str
) -> None:
    async with open_hub(settings, NEEDS) as hub:
        await write(hub, 3)
        with pytest.raises(Defect) as refused:
            await run_as(hub["postgres"], whose, statement)
        assert isinstance(refused.value.__cause__, asyncpg.InsufficientPrivilegeError)


async def test_an_event_holds_no_float(settings: Settings) -> None:
    async with open_hub(settings, NEEDS) as hub:
        event = AuditEvent(type="t", actor="a", facts={"prices": [1.1]})  # type: ignore[dict-item]
        with pytest.raises(TypeError, match="float"):
            await append(hub, event)


def test_an_anchor_without_a_key_is_refused() -> None:
    with pytest.raises(Misconfigured, match="key_file"):
        sealing_of(None, AuditSettings(anchor="x"))  # type: ignore[arg-type]
