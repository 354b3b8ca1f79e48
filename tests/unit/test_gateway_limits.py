"""How much the gateway does at once: for itself, for one caller, for one tenant."""

import asyncio
from collections.abc import Sequence

import pytest

from core.errors.exceptions import RateLimited, Unavailable
from core.messages.jobs import Answer, JobState, SymbolQuery
from core.messages.message import Message
from core.model.rates import Rate, Verdict
from core.settings import LimitsSettings
from gateway.limits import Limits, TenantQueue


class Unasked:
    """A limiter for tests of what needs none."""

    def try_take(self, caller: str, rates: Sequence[Rate]) -> Verdict | None:
        raise AssertionError

    async def take(self, caller: str, rates: Sequence[Rate]) -> Verdict:
        raise AssertionError


class SilentQueue:
    """A queue whose workers never answer."""

    async def ask(self, function: str, request: Message, *, tenant: str, timeout_ms: int) -> Answer | str:
        await asyncio.Event().wait()
        raise AssertionError

    async def state(self, job_id: str, *, tenant: str) -> JobState:
        raise AssertionError

    async def served(self, queue: str) -> bool:
        return True


def test_one_more_than_the_process_may_answer_is_refused_until_one_is_done() -> None:
    limits = Limits(LimitsSettings(at_once_max=2), Unasked())
    limits.take_place()
    limits.take_place()
    with pytest.raises(Unavailable, match="OVERLOADED"):
        limits.take_place()
    limits.leave_place()
    limits.take_place()


def test_one_more_than_a_caller_may_have_is_refused_and_nobody_else_is() -> None:
    limits = Limits(LimitsSettings(at_once_by_caller_max=1), Unasked())
    limits.take_place_of("a", "t")
    with pytest.raises(RateLimited, match="TOO_MANY_AT_ONCE"):
        limits.take_place_of("a", "t")
    limits.take_place_of("b", "t")
    limits.leave_place_of("a", "t")
    limits.take_place_of("a", "t")


def test_a_tenant_of_many_callers_leaves_room_for_others() -> None:
    limits = Limits(LimitsSettings(at_once_by_tenant_max=2), Unasked())
    for caller in ("a", "b"):
        limits.take_place_of(caller, "many")
    with pytest.raises(RateLimited, match="TOO_MANY_AT_ONCE"):
        limits.take_place_of("c", "many")
    limits.take_place_of("d", "another")
    limits.leave_place_of("a", "many")
    limits.take_place_of("c", "many")


async def test_a_tenant_that_waits_for_too_much_is_refused_and_no_other_tenant_is() -> None:
    queue = TenantQueue(SilentQueue(), 1)
    asked = [asyncio.create_task(queue.ask("f", SymbolQuery(), tenant=t, timeout_ms=1)) for t in ("a", "b")]
    await asyncio.sleep(0)
    with pytest.raises(RateLimited, match="TENANT_QUEUE_FULL"):
        await queue.ask("f", SymbolQuery(), tenant="a", timeout_ms=1)
    assert not any(task.done() for task in asked)
    for task in asked:
        task.cancel()
    await asyncio.gather(*asked, return_exceptions=True)
