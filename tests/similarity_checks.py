"""What every keeper of similar records must do, as functions, so that a broken keeper can be shown to fail them."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import pytest

from core.errors.exceptions import Conflict, NotFound
from core.model.records import Incident, MarketWindow, RecordKind
from core.model.vectors import vector_of
from core.ports.similarity import Likeness, Match, Similarity

INCIDENTS, WINDOWS = RecordKind.INCIDENTS, RecordKind.MARKET_WINDOWS
Check = Callable[[Similarity, str], Awaitable[None]]
CHECKS: list[Check] = []
CHANGED_AT_ONCE = 6
LOADED = 1_050
"""More than two batches of any keeper."""


def check(function: Check) -> Check:
    CHECKS.append(function)
    return function


def version() -> str:
    return secrets.token_hex(16)


def incident(message: str, service: str = "bridge", category: str = "UNAVAILABLE", **rest: Any) -> Incident:
    return Incident(message=message, service=service, category=category, at_ms=1_790_000_000_000, **rest)


def window(closes: Sequence[float], symbol: str = "EURUSD", label: str = "breakout") -> MarketWindow:
    return MarketWindow(symbol=symbol, interval="1m", start_ms=0, label=label, closes=list(closes))


LIBRARY: Mapping[str, Incident] = {
    "reset": incident("connection to the tick store was reset while inserting batch 17", "bridge"),
    "refused": incident("connection to the ledger was refused", "gateway", "UNAVAILABLE"),
    "lease": incident("the lease of source demo has run out", "bridge", "CONFLICT"),
    "margin": incident("margin level is below the limit", "trading", "DENIED", resolution="deposit"),
    "Quote": incident("quote is older than 3 s", "trading", "DENIED"),
}


async def filled(keeper: Similarity, tenant: str, library: Mapping[str, Incident] = LIBRARY) -> None:
    assert await keeper.load(INCIDENTS, tenant, library, version=version()) == len(library)


async def ids(keeper: Similarity, tenant: str, **asked: Any) -> list[str]:
    found = await keeper.similar(INCIDENTS, tenant, Likeness(**asked))
    assert_ranked(found)
    return [match.record.id for match in found]


def assert_ranked(found: Sequence[Match]) -> None:
    scores = [match.score for match in found]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)


@check
async def a_record_is_read_as_it_was_written(keeper: Similarity, tenant: str) -> None:
    for kind, body in ((INCIDENTS, LIBRARY["margin"]), (WINDOWS, window([1.1, 1.2] * 512))):
        made = await keeper.create(kind, tenant, "One$#.+!@^=-", body, version="a" * 32)
        read = await keeper.read(kind, tenant, "One$#.+!@^=-")
        assert read == made
        assert (read.body, read.version, read.created_at_ms) == (body, "a" * 32, read.updated_at_ms)


@check
async def a_second_record_of_the_id_is_refused(keeper: Similarity, tenant: str) -> None:
    await keeper.create(INCIDENTS, tenant, "one", LIBRARY["reset"], version=version())
    with pytest.raises(Conflict) as refused:
        await keeper.create(INCIDENTS, tenant, "one", LIBRARY["lease"], version=version())
    assert refused.value.code == "RECORD_EXISTS"
    assert (await keeper.read(INCIDENTS, tenant, "one")).body == LIBRARY["reset"]


@check
async def a_write_that_is_asked_for_again_changes_nothing(keeper: Similarity, tenant: str) -> None:
    first = await keeper.create(INCIDENTS, tenant, "one", LIBRARY["reset"], version="a" * 32)
    assert await keeper.create(INCIDENTS, tenant, "one", LIBRARY["reset"], version="a" * 32) == first
    second = await keeper.update(
        INCIDENTS, tenant, "one", LIBRARY["lease"], expected="a" * 32, version="b" * 32
    )
    again = await keeper.update(
        INCIDENTS, tenant, "one", LIBRARY["lease"], expected="a" * 32, version="b" * 32
    )
    assert again == second == await keeper.read(INCIDENTS, tenant, "one")


@check
async def an_update_replaces_all_but_the_birth(keeper: Similarity, tenant: str) -> None:
    made = await keeper.create(INCIDENTS, tenant, "one", LIBRARY["reset"], version="a" * 32)
    changed = await keeper.update(
        INCIDENTS, tenant, "one", LIBRARY["lease"], expected="a" * 32, version="b" * 32
    )
    assert (changed.body, changed.version) == (LIBRARY["lease"], "b" * 32)
    assert changed.created_at_ms == made.created_at_ms <= changed.updated_at_ms
    assert await keeper.read(INCIDENTS, tenant, "one") == changed
    assert await ids(keeper, tenant, text="lease") == ["one"]
    assert await ids(keeper, tenant, text="reset") == []
    (found,) = await keeper.similar(INCIDENTS, tenant, Likeness(vector=vector_of(LIBRARY["lease"])))
    assert found.score == pytest.approx(1, abs=1e-4)


@check
async def another_version_is_neither_changed_nor_deleted(keeper: Similarity, tenant: str) -> None:
    await keeper.create(INCIDENTS, tenant, "one", LIBRARY["reset"], version="a" * 32)
    with pytest.raises(Conflict) as refused:
        await keeper.update(INCIDENTS, tenant, "one", LIBRARY["lease"], expected="c" * 32, version=version())
    assert refused.value.code == "VERSION_MISMATCH"
    with pytest.raises(Conflict) as refused:
        await keeper.delete(INCIDENTS, tenant, "one", expected="c" * 32)
    assert refused.value.code == "VERSION_MISMATCH"
    assert (await keeper.read(INCIDENTS, tenant, "one")).body == LIBRARY["reset"]


@check
async def of_many_who_change_a_version_at_once_one_succeeds(keeper: Similarity, tenant: str) -> None:
    await keeper.create(INCIDENTS, tenant, "one", LIBRARY["reset"], version="a" * 32)
    bodies = [incident(f"change {number}") for number in range(CHANGED_AT_ONCE)]
    changes = (
        keeper.update(INCIDENTS, tenant, "one", body, expected="a" * 32, version=version()) for body in bodies
    )
    done = await asyncio.gather(*changes, return_exceptions=True)
    changed = [one for one in done if not isinstance(one, Conflict)]
    assert changed == [await keeper.read(INCIDENTS, tenant, "one")]


@check
async def what_is_deleted_is_found_no_more(keeper: Similarity, tenant: str) -> None:
    await filled(keeper, tenant)
    await keeper.delete(INCIDENTS, tenant, "lease", expected=None)
    with pytest.raises(NotFound):
        await keeper.read(INCIDENTS, tenant, "lease")
    assert "lease" not in await ids(keeper, tenant, vector=vector_of(LIBRARY["lease"]))
    assert await ids(keeper, tenant, text="lease") == []
    assert len(await keeper.page(INCIDENTS, tenant, after=None, limit=10, where={})) == len(LIBRARY) - 1


@check
async def what_is_not_there_is_not_found(keeper: Similarity, tenant: str) -> None:
    for _ in range(2):
        with pytest.raises(NotFound):
            await keeper.read(INCIDENTS, tenant, "nothing")
        with pytest.raises(NotFound):
            await keeper.update(
                INCIDENTS, tenant, "nothing", LIBRARY["lease"], expected=None, version=version()
            )
        with pytest.raises(NotFound):
            await keeper.delete(INCIDENTS, tenant, "nothing", expected=None)
        assert list(await keeper.page(INCIDENTS, tenant, after=None, limit=10, where={})) == []
        assert await ids(keeper, tenant, text="lease", vector=vector_of(LIBRARY["lease"])) == []
        # The second time the tenant is known.
        await keeper.create(INCIDENTS, tenant, "one", LIBRARY["lease"], version=version())
        await keeper.delete(INCIDENTS, tenant, "one", expected=None)


@check
async def a_tenant_neither_sees_nor_finds_nor_changes_anothers(keeper: Similarity, tenant: str) -> None:
    await filled(keeper, tenant)
    rival = f"{tenant}-rival"
    await keeper.create(INCIDENTS, rival, "own", LIBRARY["margin"], version=version())
    with pytest.raises(NotFound):
        await keeper.read(INCIDENTS, rival, "reset")
    with pytest.raises(NotFound):
        await keeper.update(INCIDENTS, rival, "reset", LIBRARY["lease"], expected=None, version=version())
    with pytest.raises(NotFound):
        await keeper.delete(INCIDENTS, rival, "reset", expected=None)
    assert [one.id for one in await keeper.page(INCIDENTS, rival, after=None, limit=10, where={})] == ["own"]
    for asked in ({"vector": vector_of(LIBRARY["reset"])}, {"text": "limit reset"}):
        assert await ids(keeper, rival, **asked) == ["own"]
    assert await ids(keeper, rival, text="limit reset", vector=vector_of(LIBRARY["reset"])) == ["own"]
    # An id of another's is free.
    await keeper.create(INCIDENTS, rival, "reset", LIBRARY["Quote"], version=version())
    assert (await keeper.read(INCIDENTS, tenant, "reset")).body == LIBRARY["reset"]


@check
async def a_tenant_of_any_name_is_one(keeper: Similarity, tenant: str) -> None:
    for name in (f"{tenant}.eu", f"{tenant}/ü", f"{tenant}_eu"):
        await keeper.create(INCIDENTS, name, name[-2:], LIBRARY["reset"], version=version())
        assert [one.id for one in await keeper.page(INCIDENTS, name, after=None, limit=9, where={})] == [
            name[-2:]
        ]


@check
async def a_list_is_in_the_order_of_code_points_and_its_pages_leave_nothing_out(
    keeper: Similarity, tenant: str
) -> None:
    names = ["a", "A", "b", "B", "aa", "a-", "a.", "_", "Z", "10", "9", "a$"]
    await filled(keeper, tenant, dict.fromkeys(names, LIBRARY["lease"]))
    seen: list[str] = []
    for _ in range(len(names)):
        page = await keeper.page(INCIDENTS, tenant, after=seen[-1] if seen else None, limit=5, where={})
        if not page:
            break
        assert len(page) <= 5
        seen += [record.id for record in page]
    assert seen == sorted(names)


@check
async def a_list_and_a_search_hold_to_their_filters(keeper: Similarity, tenant: str) -> None:
    await filled(keeper, tenant)
    where = {"service": "bridge"}
    page = await keeper.page(INCIDENTS, tenant, after=None, limit=10, where=where)
    assert [record.id for record in page] == ["lease", "reset"]
    page = await keeper.page(INCIDENTS, tenant, after="lease", limit=10, where=where)
    assert [record.id for record in page] == ["reset"]
    assert list(await keeper.page(INCIDENTS, tenant, after=None, limit=9, where={"service": "Bridge"})) == []
    near = vector_of(LIBRARY["margin"])
    assert sorted(await ids(keeper, tenant, vector=near, where=where)) == ["lease", "reset"]
    assert await ids(keeper, tenant, text="the connection", where=where) == ["reset", "lease"]
    both = {**where, "category": "CONFLICT"}
    assert await ids(keeper, tenant, vector=near, where=both) == ["lease"]
    assert await ids(keeper, tenant, vector=near, text="connection", where=both) == ["lease"]


@check
async def the_nearest_come_first_and_the_same_scores_one(keeper: Similarity, tenant: str) -> None:
    await filled(keeper, tenant)
    again = incident("connection to the tick store was reset while inserting batch 94", "bridge")
    found = await keeper.similar(INCIDENTS, tenant, Likeness(vector=vector_of(again)))
    assert_ranked(found)
    assert [match.record.id for match in found][:2] == ["reset", "refused"]
    assert found[0].score == pytest.approx(1, abs=1e-4)
    assert found[1].score < 0.9
    assert found[0].record == await keeper.read(INCIDENTS, tenant, "reset")


@check
async def scores_of_vectors_are_cosines(keeper: Similarity, tenant: str) -> None:
    climb = [1.0 + step / 100 for step in range(40)]
    halt = [*climb[:20], *[climb[19]] * 20]
    library = {
        "climb": window(climb),
        "fall": window(climb[::-1]),
        "flat": window([1.0] * 8),
        "halt": window(halt),
    }
    await keeper.load(WINDOWS, tenant, library, version=version())
    asked = vector_of(window([100 * close for close in climb]))
    found = await keeper.similar(WINDOWS, tenant, Likeness(vector=asked))
    scores = {match.record.id: match.score for match in found}
    expected = {
        key: max(0.0, sum(a * b for a, b in zip(asked, vector_of(body), strict=True)))
        for key, body in library.items()
    }
    assert scores == pytest.approx(expected, abs=1e-4)
    assert scores["fall"] == scores["flat"] == 0


@check
async def words_find_what_has_them_and_the_rarer_word_weighs_more(keeper: Similarity, tenant: str) -> None:
    await filled(keeper, tenant)
    assert await ids(keeper, tenant, text="deposit") == ["margin"]
    assert await ids(keeper, tenant, text="DEPOSIT, please") == ["margin"]
    assert set(await ids(keeper, tenant, text="connection")) == {"reset", "refused"}
    # "connection" is in two, "ledger" in one.
    assert await ids(keeper, tenant, text="ledger connection") == ["refused", "reset"]
    assert (await ids(keeper, tenant, text="lease the"))[0] == "lease"
    assert await ids(keeper, tenant, text="unheard") == []
    assert await ids(keeper, tenant, text="?!") == []
    found = await keeper.similar(INCIDENTS, tenant, Likeness(text="ledger connection"))
    assert found[0].score == 1
    assert 0 < found[1].score < 1


@check
async def the_shorter_of_two_with_the_word_comes_first(keeper: Similarity, tenant: str) -> None:
    await filled(
        keeper,
        tenant,
        {
            "long": incident("stop and many other words that say nothing more about it at all"),
            "short": incident("stop"),
            "often": incident("stop stop stop"),
        },
    )
    assert await ids(keeper, tenant, text="stop") == ["often", "short", "long"]


@check
async def weight_goes_from_words_to_vector(keeper: Similarity, tenant: str) -> None:
    await filled(keeper, tenant)
    asked: dict[str, Any] = {"vector": vector_of(LIBRARY["reset"]), "text": "margin deposit"}
    assert (await ids(keeper, tenant, **asked, weight=0.9))[0] == "reset"
    assert (await ids(keeper, tenant, **asked, weight=0.1))[0] == "margin"
    assert await ids(keeper, tenant, **asked, weight=0.0) == ["margin"]
    by_vector = await keeper.similar(INCIDENTS, tenant, Likeness(vector=asked["vector"]))
    assert await keeper.similar(INCIDENTS, tenant, Likeness(**asked, weight=1.0)) == by_vector
    assert sorted(await ids(keeper, tenant, **asked)) == sorted(LIBRARY)


@check
async def both_at_once_is_the_weighted_mean_of_what_each_found(keeper: Similarity, tenant: str) -> None:
    await filled(keeper, tenant)
    near = await keeper.similar(INCIDENTS, tenant, Likeness(vector=vector_of(LIBRARY["lease"])))
    words = await keeper.similar(INCIDENTS, tenant, Likeness(text="connection ledger lease"))
    asked = Likeness(vector=vector_of(LIBRARY["lease"]), text="connection ledger lease", weight=0.25)
    found = await keeper.similar(INCIDENTS, tenant, asked)
    assert_ranked(found)
    expected = {match.record.id: 0.0 for match in near}
    for matches, share in ((near, 0.25), (words, 0.75)):
        scores = [match.score for match in matches]
        for match in matches:
            spread = (match.score - min(scores)) / (max(scores) - min(scores))
            expected[match.record.id] += share * spread
    # Cosines below zero are shown as zero, so what is far away differs a little.
    assert {match.record.id: match.score for match in found} == pytest.approx(expected, abs=0.05)


@check
async def no_more_than_the_limit_are_answered_and_those_are_the_best(keeper: Similarity, tenant: str) -> None:
    await filled(keeper, tenant)
    near = vector_of(LIBRARY["lease"])
    assert await ids(keeper, tenant, vector=near, limit=1) == ["lease"]
    assert await ids(keeper, tenant, text="lease connection", limit=1) == ["lease"]
    assert await ids(keeper, tenant, vector=near, text="lease", limit=1) == ["lease"]
    assert len(await ids(keeper, tenant, vector=near, limit=3)) == 3


@check
async def a_load_replaces_and_adds_and_may_be_done_again(keeper: Similarity, tenant: str) -> None:
    first = await keeper.create(INCIDENTS, tenant, "lease", LIBRARY["Quote"], version="a" * 32)
    assert await keeper.load(INCIDENTS, tenant, LIBRARY, version="b" * 32) == len(LIBRARY)
    loaded = await keeper.page(INCIDENTS, tenant, after=None, limit=10, where={})
    assert {record.id: record.body for record in loaded} == LIBRARY
    assert {record.version for record in loaded} == {"b" * 32}
    assert {record.id: record.created_at_ms for record in loaded}["lease"] == first.created_at_ms
    assert await keeper.load(INCIDENTS, tenant, LIBRARY, version="b" * 32) == len(LIBRARY)
    assert await keeper.page(INCIDENTS, tenant, after=None, limit=10, where={}) == loaded
    assert await keeper.load(INCIDENTS, tenant, {}, version=version()) == 0


@check
async def a_load_of_several_batches_keeps_every_record(keeper: Similarity, tenant: str) -> None:
    library = {f"{number:04}": window([1.0, *[1.0 + number / 1_000] * 8]) for number in range(LOADED)}
    library["0000"] = window([float(step) for step in range(1, 41)], "GBPUSD", "odd")
    assert await keeper.load(WINDOWS, tenant, library, version=version()) == LOADED
    page = await keeper.page(WINDOWS, tenant, after=None, limit=LOADED + 1, where={})
    assert {record.id: record.body for record in page} == library
    (odd,) = await keeper.similar(WINDOWS, tenant, Likeness(vector=vector_of(library["0000"]), limit=1))
    assert odd.record.id == "0000"
    (named,) = await keeper.similar(WINDOWS, tenant, Likeness(text="gbpusd"))
    assert named.record.body == library["0000"]


@check
async def the_kinds_are_kept_apart(keeper: Similarity, tenant: str) -> None:
    await keeper.create(INCIDENTS, tenant, "one", LIBRARY["reset"], version=version())
    await keeper.create(WINDOWS, tenant, "one", window([1.0, 2.0] * 4), version=version())
    await keeper.delete(INCIDENTS, tenant, "one", expected=None)
    assert (await keeper.read(WINDOWS, tenant, "one")).body == window([1.0, 2.0] * 4)


@check
async def it_answers_a_ping(keeper: Similarity, _tenant: str) -> None:
    await keeper.ping()
