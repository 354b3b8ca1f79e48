"""What is set of risk: a change is before an order or behind it, all versions are kept, what is unreadable denies."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import asyncpg
import pytest

from core.adapters.postgres.pool import Postgres
from core.adapters.postgres.risk_desk import PostgresRiskDesk
from core.adapters.postgres.work import operators_work, work_of
from core.errors.exceptions import Conflict, Corrupt, Defect, Forbidden, NotFound, Unavailable
from core.infrastructure.central_hub import open_hub
from core.infrastructure.halting import OPERATOR
from core.model.principals import PrincipalKind
from core.model.risk import (
    OPERATORS,
    KillSwitch,
    LimitScope,
    RiskLimits,
    RiskRules,
    SwitchScope,
    TradingState,
)
from core.settings import Settings
from tests.engines import House, new_databases

WAITING_S_MAX = 20.0
ACTIVE, REDUCING, HALTED = TradingState.ACTIVE, TradingState.REDUCING, TradingState.HALTED


@pytest.fixture(scope="module")
def settings(house: House) -> Settings:
    return new_databases(house)


class Book:
    """The book over a database, and tenants nobody has used before."""

    def __init__(self, postgres: Postgres) -> None:
        self.postgres = postgres
        self.port = PostgresRiskDesk(postgres)
        self.tenant = f"t-{uuid.uuid4().hex[:12]}"

    def work(self, tenant: str | None = None) -> Any:
        return work_of(self.postgres, self.tenant if tenant is None else tenant)

    async def rules(self, account: str = "a", strategy: str = "s", symbol: str = "EURUSD") -> RiskRules:
        async with self.work() as work:
            return await self.port.rules(work, account=account, strategy=strategy, symbol=symbol)

    async def engage(
        self, scope: SwitchScope = SwitchScope.TENANT, target: str = "", author: str = "client:c"
    ) -> KillSwitch:
        async with self.work() as work:
            return await self.port.engage(work, scope, target, reason="r", author=author)

    async def make_accounts(self, *ids: str) -> None:
        async with self.postgres.acquire() as connection:
            for one in ids:
                await connection.execute(
                    "insert into accounts (tenant, id, version, title, login, server, currency, leverage, trade_mode,"
                    " margin_mode) values ($1, $2, 'v', 't', 1, 's', 'EUR', 1, 'demo', 'netting')",
                    self.tenant,
                    one,
                )

    async def engage_everybodys(self) -> KillSwitch:
        async with operators_work(self.postgres) as work:
            return await self.port.engage(work, SwitchScope.GLOBAL, "", reason="r", author=OPERATOR)

    async def release(
        self, switch_id: str, tenant: str | None = None, author: str = "client:c"
    ) -> KillSwitch:
        async with self.work(tenant) as work:
            return await self.port.release(work, switch_id, author=author)

    async def release_everybodys(self, switch_id: str) -> KillSwitch | None:
        async with operators_work(self.postgres) as work:
            return await self.port.release(work, switch_id, author=OPERATOR)

    async def set(
        self, limits: dict[str, object], scope: LimitScope = LimitScope.TENANT, target: str = "", **more: Any
    ) -> int:
        async with self.work() as work:
            kept = await self.port.set_limits(
                work,
                scope,
                target,
                limits,
                expected=more.get("expected"),
                author=more.get("author", "client:c"),
            )
        return kept.version

    async def state(
        self, state: TradingState, scope: SwitchScope = SwitchScope.TENANT, target: str = ""
    ) -> None:
        async with self.work() as work:
            await self.port.set_state(work, scope, target, state, reason="r", author="client:c")

    async def own_switches(self, before: str | None = None, limit: int = 100) -> list[KillSwitch]:
        """Return a page of the tenant's, without everybody's, which other tests leave behind."""
        found = await self.port.switches(self.tenant, before=before, limit=limit)
        return [one for one in found if one.tenant == self.tenant]

    async def waiting(self, count: int) -> None:
        """Wait until so many transactions of this database wait for a lock of the book."""
        query = (
            "select count(*) from pg_locks where locktype = 'advisory' and not granted"
            " and database = (select oid from pg_database where datname = current_database())"
        )
        async with asyncio.timeout(WAITING_S_MAX), self.postgres.acquire() as connection:
            while await connection.fetchval(query) < count:
                await asyncio.sleep(0.01)


@pytest.fixture
async def book(settings: Settings) -> AsyncIterator[Book]:
    async with open_hub(settings, {"postgres"}) as hub:
        book = Book(hub["postgres"])
        await book.make_accounts("a", "b")
        yield book


Change = Callable[[Book], Awaitable[Any]]
CHANGES: dict[str, Change] = {
    "a switch of the tenant": lambda book: book.engage(),
    "a switch of an account": lambda book: book.engage(SwitchScope.ACCOUNT, "a"),
    "limits": lambda book: book.set({"volume_max": "1"}),
    "a state": lambda book: book.state(HALTED),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
async def test_nothing_is_set_between_a_judgement_and_its_commit(book: Book, change: Change) -> None:
    async with book.work() as work:
        before = await book.port.rules(work, account="a", strategy="s", symbol="EURUSD")
        changing = asyncio.ensure_future(change(book))
        await book.waiting(1)
        assert await book.port.rules(work, account="a", strategy="s", symbol="EURUSD") == before
        assert not changing.done()
    await changing
    assert await book.rules() != before


async def test_nothing_is_set_between_the_last_look_and_the_sending(book: Book) -> None:
    async with book.work() as work:
        assert (await book.port.halted(work, account="a", strategy="s")).by == ()
        engaging = asyncio.ensure_future(book.engage())
        await book.waiting(1)
        assert not engaging.done()
    await engaging


async def test_a_judgement_waits_for_a_switch_that_is_being_engaged(book: Book) -> None:
    async with book.work() as work:
        await book.port.engage(work, SwitchScope.TENANT, "", reason="r", author="client:c")
        judging = asyncio.ensure_future(book.rules())
        await book.waiting(1)
        assert not judging.done()
    assert (await judging).halts == ("tenant",)


async def test_what_was_not_engaged_after_all_halts_nothing(book: Book) -> None:
    async def engaged_and_failed() -> None:
        async with book.work() as work:
            await book.port.engage(work, SwitchScope.TENANT, "", reason="r", author="client:c")
            raise Conflict("something else is wrong", code="VERSION_MISMATCH")

    with pytest.raises(Conflict):
        await engaged_and_failed()
    assert (await book.rules()).halts == ()


async def test_everybodys_switch_waits_for_every_tenants_orders(book: Book) -> None:
    async with book.work() as work:
        await book.port.rules(work, account="a", strategy="s", symbol="EURUSD")
        engaging = asyncio.ensure_future(book.engage_everybodys())
        await book.waiting(1)
        assert not engaging.done()
    switch = await engaging
    assert (await book.rules()).halts == ("global",)
    await book.release_everybodys(switch.id)
    assert (await book.rules()).halts == ()


async def test_tenants_do_not_wait_for_each_other(book: Book) -> None:
    async with book.work("another") as work:
        await book.port.rules(work, account="a", strategy="s", symbol="EURUSD")
        await book.engage()
    assert (await book.rules()).halts == ("tenant",)


async def test_orders_do_not_wait_for_each_other(book: Book) -> None:
    async with book.work() as work:
        await book.port.rules(work, account="a", strategy="s", symbol="EURUSD")
        assert (await book.rules()).state is ACTIVE


async def test_a_switch_covers_its_own_and_nothing_else(book: Book) -> None:
    await book.engage(SwitchScope.ACCOUNT, "a")
    await book.engage(SwitchScope.ACCOUNT, "a")
    await book.engage(SwitchScope.STRATEGY, "s")
    assert (await book.rules()).halts == ("account a", "strategy s")
    assert (await book.rules(account="b")).halts == ("strategy s",)
    assert (await book.rules(account="s", strategy="a")).halts == ()


async def test_a_switch_of_an_account_nobody_has_is_refused(book: Book) -> None:
    """Mistyped in a hurry, it would halt nothing, and everybody would believe it did."""
    for wrong in ("A", "aa", ""):
        with pytest.raises(NotFound) as refused:
            await book.engage(SwitchScope.ACCOUNT, wrong)
        assert refused.value.code == "ACCOUNT_NOT_FOUND"
    assert await book.own_switches() == []


async def test_the_worst_state_of_all_scopes_holds(book: Book) -> None:
    assert (await book.rules()).state is ACTIVE
    await book.state(ACTIVE, SwitchScope.ACCOUNT, "a")
    await book.state(REDUCING, SwitchScope.STRATEGY, "s")
    assert (await book.rules()).state is REDUCING
    await book.state(HALTED)
    assert (await book.rules()).state is HALTED
    async with book.work() as work:
        assert (await book.port.halted(work, account="a", strategy="s")).by == ("tenant",)
    await book.state(ACTIVE)
    assert (await book.rules()).state is REDUCING


async def test_the_strictest_limits_of_all_scopes_hold(book: Book) -> None:
    await book.set({"volume_max": "100"})
    await book.set({"volume_max": "5", "restricted": ["XAUUSD"]}, LimitScope.ACCOUNT, "a")
    await book.set({"volume_max": "7", "restricted": ["BTCUSD"]}, LimitScope.STRATEGY, "s")
    newest = await book.set({"position_max": "1"}, LimitScope.SYMBOL, "EURUSD")
    await book.set({"volume_max": "0"}, LimitScope.ACCOUNT, "b")
    limits = (await book.rules()).limits
    assert (limits.volume_max, limits.position_max, limits.version) == (Decimal(5), Decimal(1), newest)
    assert limits.restricted == {"XAUUSD", "BTCUSD"}
    assert (await book.rules(account="c", strategy="", symbol="X")).limits.volume_max == Decimal(100)


async def test_every_version_is_kept_with_its_author_and_the_newest_counts(book: Book) -> None:
    first = await book.set({"volume_max": "1"}, author="client:one")
    second = await book.set({"volume_max": "2"}, author="client:two", expected=first)
    found = await book.port.versions(book.tenant, LimitScope.TENANT, "", before=None, limit=9)
    assert [(one.version, one.author, one.limits) for one in found] == [
        (second, "client:two", {"volume_max": "2"}),
        (first, "client:one", {"volume_max": "1"}),
    ]
    assert (await book.rules()).limits.volume_max == Decimal(2)
    assert [one.version for one in await book.port.limits(book.tenant, after=None, limit=9)] == [second]


async def test_versions_are_paged_the_newest_first(book: Book) -> None:
    made = [await book.set({"volume_max": str(n)}) for n in range(5)]
    found: list[int] = []
    while page := await book.port.versions(
        book.tenant, LimitScope.TENANT, "", before=found[-1] if found else None, limit=2
    ):
        found += [one.version for one in page]
    assert found == made[::-1]


async def test_limits_and_states_are_paged_by_scope_and_target(book: Book) -> None:
    places = [("account", "a"), ("account", "b"), ("strategy", "a"), ("strategy", "Z/z"), ("tenant", "")]
    for scope, target in places:
        await book.set({"volume_max": "1"}, LimitScope(scope), target)
        await book.set({"volume_max": "2"}, LimitScope(scope), target)
        await book.state(ACTIVE, SwitchScope(scope), target)
    for page_of in (book.port.limits, book.port.states):
        found: list[tuple[str, str]] = []
        while page := await page_of(book.tenant, after=found[-1] if found else None, limit=2):
            found += [(str(one.scope), one.target) for one in page]
        assert found == sorted(places)
    assert {one.version for one in await book.port.states(book.tenant, after=None, limit=9)} == {1}


async def test_a_state_is_found_where_it_was_set_and_nowhere_else(book: Book) -> None:
    await book.state(REDUCING, SwitchScope.ACCOUNT, "a")
    await book.state(HALTED, SwitchScope.ACCOUNT, "a")
    found = await book.port.state(book.tenant, SwitchScope.ACCOUNT, "a")
    assert (found.state, found.version, found.reason, found.author) == (HALTED, 2, "r", "client:c")
    with pytest.raises(NotFound) as refused:
        await book.port.state(book.tenant, SwitchScope.STRATEGY, "a")
    assert refused.value.code == "TRADING_STATE_NOT_FOUND"


async def test_of_two_who_read_the_same_version_one_sets_limits(book: Book) -> None:
    ended = await asyncio.gather(
        *(book.set({"volume_max": str(n)}, expected=0) for n in (1, 2)), return_exceptions=True
    )
    assert sorted(type(one).__name__ for one in ended) == ["Conflict", "int"]
    refused = next(one for one in ended if isinstance(one, Conflict))
    assert refused.code == "VERSION_MISMATCH"


@pytest.mark.parametrize("table", ["risk_limits", "kill_switches"])
async def test_a_tenant_rewrites_no_history(book: Book, table: str) -> None:
    await book.set({"volume_max": "1"})
    await book.engage()
    for statement in (f"delete from {table}", f"update {table} set tenant = tenant", f"truncate {table}"):
        with pytest.raises(Defect) as refused:
            async with book.postgres.of_tenant(book.tenant) as connection:
                await connection.execute(statement)
        assert isinstance(refused.value.__cause__, asyncpg.InsufficientPrivilegeError)


async def test_another_tenants_switches_limits_and_states_are_not_there(book: Book) -> None:
    switch = await book.engage()
    await book.set({"volume_max": "1"})
    await book.state(HALTED)
    other = Book(book.postgres)
    assert await other.rules() == RiskRules(limits=RiskLimits(), state=ACTIVE)
    assert await other.own_switches() == []
    assert switch.id not in {
        one.id for one in await other.port.switches(other.tenant, before=None, limit=100)
    }
    assert list(await other.port.limits(other.tenant, after=None, limit=9)) == []
    assert list(await other.port.states(other.tenant, after=None, limit=9)) == []
    with pytest.raises(NotFound):
        await other.port.switch(other.tenant, switch.id)
    with pytest.raises(NotFound):
        await other.release(switch.id)
    assert (await book.rules()).halts == ("tenant",)


@asynccontextmanager
async def everybody_halted(book: Book) -> AsyncIterator[KillSwitch]:
    switch = await book.engage_everybodys()
    try:
        yield switch
    finally:
        await book.release_everybodys(switch.id)


async def test_everybodys_switch_is_seen_by_every_tenant_and_released_by_none(book: Book) -> None:
    async with everybody_halted(book) as switch:
        assert (await book.port.switch(book.tenant, switch.id)).scope is SwitchScope.GLOBAL
        assert [one.id for one in await book.port.switches(book.tenant, before=None, limit=1)] == [switch.id]
        with pytest.raises(Forbidden) as refused:
            await book.release(switch.id)
        assert refused.value.code == "OPERATORS_ONLY"
        assert (await book.rules()).halts == ("global",)


async def test_a_tenants_role_cannot_touch_everybodys_switch_whatever_the_sql_says(book: Book) -> None:
    release = "update kill_switches set released_by = 'x', released_at = now() where tenant = ''"
    insert = "insert into kill_switches (tenant, scope, target, reason, engaged_by) values ('', 'global', '', '', '')"
    async with everybody_halted(book):
        for statement in (release, insert):
            with pytest.raises(Defect) as refused:
                async with book.postgres.of_tenant(book.tenant) as connection:
                    await connection.execute(statement)
            assert isinstance(refused.value.__cause__, asyncpg.InsufficientPrivilegeError)
        assert (await book.rules()).halts == ("global",)


async def test_what_the_operator_engaged_for_a_tenant_only_the_operator_releases(book: Book) -> None:
    switch = await book.engage(author=OPERATOR)
    with pytest.raises(Forbidden) as refused:
        await book.release(switch.id)
    assert (refused.value.code, (await book.rules()).halts) == ("OPERATORS_ONLY", ("tenant",))
    released = await book.release(switch.id, author=OPERATOR)
    assert released is not None
    assert released.released_by == OPERATOR
    assert (await book.rules()).halts == ()


def test_no_caller_of_the_api_is_named_as_the_operator_is() -> None:
    assert not {f"{kind}:" for kind in PrincipalKind} & {OPERATORS}


async def test_of_many_who_release_a_switch_one_does(book: Book) -> None:
    switch = await book.engage()
    ended = await asyncio.gather(*(book.release(switch.id, author=f"client:{n}") for n in range(5)))
    assert [one is None for one in ended].count(False) == 1


async def test_a_released_switch_stays_listed_as_it_was_first_released(book: Book) -> None:
    switch = await book.engage(SwitchScope.ACCOUNT, "a")
    first = await book.release(switch.id, author="client:one")
    assert first is not None
    assert (first.released_by, first.reason, first.engaged_by) == ("client:one", "r", "client:c")
    assert await book.release(switch.id, author="client:two") is None
    assert await book.own_switches() == [first]
    assert (await book.rules()).halts == ()


async def test_switches_are_paged_the_latest_first(book: Book) -> None:
    made = [(await book.engage(SwitchScope.STRATEGY, str(n))).id for n in range(5)]
    found: list[str] = []
    while page := await book.own_switches(found[-1] if found else None, limit=2):
        found += [one.id for one in page]
    assert found == made[::-1]


@pytest.mark.parametrize("text", ["", "x", "00000000-0000-0000-0000-000000000000", "' or true --"])
async def test_what_is_no_switchs_id_is_not_found(book: Book, text: str) -> None:
    with pytest.raises(NotFound) as refused:
        await book.release(text)
    assert refused.value.code == "KILL_SWITCH_NOT_FOUND"


async def test_who_enforces_is_told_the_switches_of_all_tenants_that_hold(book: Book) -> None:
    other = Book(book.postgres)
    held = {(await book.engage()).id, (await other.engage(SwitchScope.STRATEGY, "s")).id}
    gone = (await book.engage()).id
    await book.release(gone)
    ids = {one.id for one in await book.port.engaged()}
    assert held <= ids
    assert gone not in ids


UNREADABLE = {
    "a limit nobody knows": '{"courage_max": 1}',
    "no number": '{"volume_max": "much"}',
    "below nothing": '{"volume_max": "-1"}',
    "no limits": "[]",
}


@pytest.mark.parametrize("text", UNREADABLE.values(), ids=UNREADABLE)
async def test_limits_that_cannot_be_read_deny(book: Book, text: str) -> None:
    async with book.postgres.acquire() as connection:
        await connection.execute(
            "insert into risk_limits (tenant, scope, target, limits, author) values ($1, 'account', 'a', $2, 'x')",
            book.tenant,
            text,
        )
    with pytest.raises(Corrupt) as refused:
        await book.rules()
    assert refused.value.code == "RISK_LIMITS_UNREADABLE"


@pytest.fixture
def settings_of_its_own(house: House) -> Settings:
    return new_databases(house)


async def test_a_state_that_cannot_be_read_denies(settings_of_its_own: Settings) -> None:
    async with open_hub(settings_of_its_own, {"postgres"}) as hub:
        book = Book(hub["postgres"])
        async with book.postgres.acquire() as connection:
            # As a later version might have it.
            await connection.execute("alter table trading_states drop constraint trading_states_state_check")
            await connection.execute(
                "insert into trading_states (tenant, scope, target, state, reason, author)"
                " values ($1, 'tenant', '', 'PAUSED', '', 'x')",
                book.tenant,
            )
        with pytest.raises(Corrupt) as refused:
            await book.rules()
        assert refused.value.code == "RISK_STATE_UNREADABLE"
        with pytest.raises(Corrupt):
            async with book.work() as work:
                await book.port.halted(work, account="a", strategy="s")


@pytest.mark.parametrize("ask", ["rules", "halted"])
async def test_a_ledger_that_goes_away_denies(book: Book, ask: str) -> None:
    async def asked_when_it_is_gone() -> object:
        async with book.work() as work:
            pid = work.connection.get_server_pid()
            async with book.postgres.acquire() as other:
                await other.execute("select pg_terminate_backend($1)", pid)
            if ask == "rules":
                return await book.port.rules(work, account="a", strategy="s", symbol="EURUSD")
            return await book.port.halted(work, account="a", strategy="s")

    with pytest.raises(Unavailable):
        await asked_when_it_is_gone()
