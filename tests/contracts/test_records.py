"""The `Records` port: one suite for every keeper at every place it can be."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from core.errors.exceptions import Conflict, NotFound, TickgateError
from core.infrastructure.central_hub import open_hub
from core.model.records import SHELVES, RecordKind
from core.ports.records import Records
from core.settings import Settings
from tests.engines import House, bring_forward, new_databases
from tests.record_keepers import CASES, Keeper, body_of

TENANTS = ("demo", "rival")


@pytest.fixture(scope="module")
def shared(house: House) -> Settings:
    return new_databases(house)


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}-{case[1]}")
async def shelf(request: pytest.FixtureRequest, shared: Settings) -> AsyncIterator["Shelf"]:
    """A keeper, a kind it keeps, and a tenant nobody has used."""
    keeper: Keeper
    keeper, kind = request.param
    if keeper.at is None:
        async with open_hub(shared, {keeper.service}) as hub:
            yield Shelf(hub[keeper.service], kind)
        return
    async with keeper.at(shared) as settings:
        await bring_forward(settings)
        async with open_hub(settings, {keeper.service}) as hub:
            yield Shelf(hub[keeper.service], kind)


class Shelf:
    """The records of one kind, as one tenant asks for them."""

    def __init__(self, keeper: Records, kind: RecordKind) -> None:
        self.keeper = keeper
        self.kind = kind
        self.tenant = f"t-{secrets.token_hex(6)}"

    async def create(self, record_id: str = "one", number: int = 0, **changes: Any) -> Any:
        asked = {"version": version(), "word": "", **changes}
        body = body_of(self.kind, number, asked["word"])
        return await self.keeper.create(self.kind, self.tenant, record_id, body, version=asked["version"])

    async def read(self, record_id: str = "one") -> Any:
        return await self.keeper.read(self.kind, self.tenant, record_id)

    async def page(self, after: str | None = None, limit: int = 100, **where: str) -> list[str]:
        found = await self.keeper.page(self.kind, self.tenant, after=after, limit=limit, where=where)
        return [record.id for record in found]

    async def update(self, record_id: str = "one", number: int = 1, **changes: Any) -> Any:
        asked = {"version": version(), "expected": None, **changes}
        return await self.keeper.update(
            self.kind, self.tenant, record_id, body_of(self.kind, number), **asked
        )

    async def delete(self, record_id: str = "one", expected: str | None = None) -> None:
        await self.keeper.delete(self.kind, self.tenant, record_id, expected=expected)


def version() -> str:
    return secrets.token_hex(16)


async def code_of(awaitable: Any, kind: type[TickgateError] = Conflict) -> str:
    with pytest.raises(kind) as refused:
        await awaitable
    return str(refused.value.code)


async def test_what_was_kept_is_read_as_it_was_written(shelf: Shelf) -> None:
    for number in range(3):
        made = await shelf.create(f"r{number}", number, version=f"{number:032x}")
        found = await shelf.read(f"r{number}")
        assert found == made
        assert found.body == body_of(shelf.kind, number)
        assert (found.id, found.version) == (f"r{number}", f"{number:032x}")
        assert found.created_at_ms == found.updated_at_ms > 1_700_000_000_000


async def test_a_name_is_given_once(shelf: Shelf) -> None:
    made = await shelf.create()
    assert await code_of(shelf.create(number=1)) == "RECORD_EXISTS"
    assert await shelf.read() == made


async def test_a_creation_tried_again_is_the_same(shelf: Shelf) -> None:
    made = await shelf.create(version="a" * 32)
    assert await shelf.create(version="a" * 32) == made
    assert await shelf.page() == ["one"]


async def test_of_many_who_create_at_once_one_succeeds(shelf: Shelf) -> None:
    tries = await asyncio.gather(*(shelf.create(number=n) for n in range(6)), return_exceptions=True)
    made = [found for found in tries if not isinstance(found, BaseException)]
    assert len(made) == 1
    assert all(isinstance(e, Conflict) for e in tries if isinstance(e, BaseException))
    assert await shelf.read() == made[0]


@pytest.mark.parametrize("record_id", ["WIN$N", "#AAPL", "a.b_c-d", "A=B+C!@^", "x" * 64, "0"])
async def test_every_name_the_pattern_allows_can_be_kept(shelf: Shelf, record_id: str) -> None:
    made = await shelf.create(record_id)
    assert await shelf.read(record_id) == made
    assert await shelf.page() == [record_id]
    await shelf.delete(record_id)
    assert await shelf.page() == []


async def test_names_differ_by_case(shelf: Shelf) -> None:
    await shelf.create("a", 0)
    await shelf.create("A", 1)
    assert await shelf.page() == ["A", "a"]
    assert (await shelf.read("A")).body == body_of(shelf.kind, 1)


async def test_what_is_not_there_is_not_found(shelf: Shelf) -> None:
    await shelf.create("another")
    assert await code_of(shelf.read(), NotFound) == "RECORD_NOT_FOUND"
    assert await code_of(shelf.update(), NotFound) == "RECORD_NOT_FOUND"
    assert await code_of(shelf.update(expected="0" * 32), NotFound) == "RECORD_NOT_FOUND"
    assert await code_of(shelf.delete(), NotFound) == "RECORD_NOT_FOUND"


async def test_an_update_replaces_the_body_and_keeps_the_beginning(shelf: Shelf) -> None:
    made = await shelf.create()
    changed = await shelf.update(expected=made.version, version="c" * 32)
    assert await shelf.read() == changed
    assert changed.body == body_of(shelf.kind, 1)
    assert (changed.version, changed.created_at_ms) == ("c" * 32, made.created_at_ms)
    assert changed.updated_at_ms >= made.updated_at_ms


async def test_an_update_of_another_version_changes_nothing(shelf: Shelf) -> None:
    made = await shelf.create()
    assert await code_of(shelf.update(expected="0" * 32)) == "VERSION_MISMATCH"
    assert await shelf.read() == made


async def test_an_update_tried_again_is_the_same(shelf: Shelf) -> None:
    made = await shelf.create()
    changed = await shelf.update(expected=made.version, version="c" * 32)
    assert await shelf.update(expected=made.version, version="c" * 32) == changed
    assert await shelf.read() == changed


async def test_of_many_who_update_one_version_at_once_one_succeeds(shelf: Shelf) -> None:
    made = await shelf.create()
    tries = await asyncio.gather(
        *(shelf.update(number=n, expected=made.version) for n in range(1, 7)), return_exceptions=True
    )
    done = [found for found in tries if not isinstance(found, BaseException)]
    assert len(done) == 1
    assert {e.code for e in tries if isinstance(e, Conflict)} == {"VERSION_MISMATCH"}
    assert await shelf.read() == done[0]


async def test_whoever_means_any_version_replaces_any(shelf: Shelf) -> None:
    await shelf.create()
    changed = await shelf.update(number=4)
    assert await shelf.read() == changed


async def test_a_deletion_of_another_version_deletes_nothing(shelf: Shelf) -> None:
    made = await shelf.create()
    assert await code_of(shelf.delete(expected="0" * 32)) == "VERSION_MISMATCH"
    assert await shelf.read() == made


async def test_what_was_deleted_is_gone_and_its_name_free(shelf: Shelf) -> None:
    made = await shelf.create()
    await shelf.delete(expected=made.version)
    assert await code_of(shelf.read(), NotFound) == "RECORD_NOT_FOUND"
    assert await shelf.page() == []
    again = await shelf.create(number=2)
    assert await shelf.read() == again
    assert again.body == body_of(shelf.kind, 2)


async def test_pages_put_together_are_everything_once_and_in_order(shelf: Shelf) -> None:
    names = sorted(["a", "B", "Z", "aa", "z9", "10", "9", "_", "$x", "b-1", "b.1"])
    for number, name in enumerate(reversed(names)):
        await shelf.create(name, number)
    assert await shelf.page() == names
    seen: list[str] = []
    while page := await shelf.page(after=seen[-1] if seen else None, limit=3):
        assert len(page) <= 3
        seen += page
    assert seen == names
    assert await shelf.page(after="b-1x") == [name for name in names if name > "b-1x"]


async def test_a_filter_lets_through_what_has_its_value(shelf: Shelf) -> None:
    filters = [name for name in SHELVES[shelf.kind].filters if name != "sort"]
    if not filters:
        pytest.skip("nothing to filter by")
    for number in range(6):
        await shelf.create(f"r{number}", number, word="odd" if number % 2 else "even'%_")
    for name in filters:
        assert await shelf.page(**{name: "odd"}) == ["r1", "r3", "r5"]
        assert await shelf.page(**{name: "even'%_"}, after="r0", limit=1) == ["r2"]
        assert await shelf.page(**{name: "od"}) == []
    assert await shelf.page(**dict.fromkeys(filters, "odd")) == ["r1", "r3", "r5"]


async def test_a_tenant_sees_and_changes_its_own_only(shelf: Shelf) -> None:
    made = await shelf.create()
    owner, shelf.tenant = shelf.tenant, f"{shelf.tenant}x"
    assert await shelf.page() == []
    assert await code_of(shelf.read(), NotFound) == "RECORD_NOT_FOUND"
    assert await code_of(shelf.update(expected=made.version), NotFound) == "RECORD_NOT_FOUND"
    assert await code_of(shelf.delete(), NotFound) == "RECORD_NOT_FOUND"
    theirs = await shelf.create(number=3)
    shelf.tenant = owner
    assert await shelf.read() == made
    assert theirs.body == body_of(shelf.kind, 3)


async def test_what_is_read_is_of_its_kind(shelf: Shelf) -> None:
    await shelf.create()
    body = (await shelf.read()).body
    assert type(body) is SHELVES[shelf.kind].body
    assert msgspec.convert(msgspec.to_builtins(body), type(body)) == body
