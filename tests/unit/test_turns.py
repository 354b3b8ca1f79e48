"""Sharing a load: never one that began before the question, one that runs and one that waits at the most."""

import asyncio

import pytest

from core.errors.exceptions import Unavailable
from workers.turns import Turns


class Loads:
    """Loads that end when they are told to, each with its number."""

    def __init__(self) -> None:
        self.begun = 0
        self.gates: list[asyncio.Future[None]] = []

    async def __call__(self) -> int:
        self.begun += 1
        number = self.begun
        gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.gates.append(gate)
        await gate
        return number


async def turned(loads: Loads, count: int) -> None:
    while loads.begun < count:
        await asyncio.sleep(0)


async def test_a_load_that_has_begun_is_not_shared() -> None:
    turns: Turns[str, int] = Turns()
    loads = Loads()
    first = [asyncio.create_task(turns.ask("a", loads)) for _ in range(3)]
    await turned(loads, 1)
    later = [asyncio.create_task(turns.ask("a", loads)) for _ in range(50)]
    await asyncio.sleep(0)
    loads.gates[0].set_result(None)
    await turned(loads, 2)
    loads.gates[1].set_result(None)
    assert await asyncio.gather(*first) == [1] * 3
    assert await asyncio.gather(*later) == [2] * 50
    assert loads.begun == 2


async def test_loads_of_different_keys_run_side_by_side() -> None:
    turns: Turns[str, int] = Turns()
    loads = Loads()
    asked = [asyncio.create_task(turns.ask(key, loads)) for key in "abc"]
    await turned(loads, 3)
    for gate in loads.gates:
        gate.set_result(None)
    assert sorted(await asyncio.gather(*asked)) == [1, 2, 3]


async def test_an_error_is_told_to_all_who_shared_it_and_to_nobody_else() -> None:
    turns: Turns[str, int] = Turns()

    async def refuse() -> int:
        raise Unavailable("away", code="X")

    asked = await asyncio.gather(*(turns.ask("a", refuse) for _ in range(3)), return_exceptions=True)
    assert all(isinstance(error, Unavailable) for error in asked)

    async def answer() -> int:
        return 7

    assert await turns.ask("a", answer) == 7


async def test_who_gives_up_takes_nothing_from_the_others() -> None:
    turns: Turns[str, int] = Turns()
    loads = Loads()
    first = asyncio.create_task(turns.ask("a", loads))
    second = asyncio.create_task(turns.ask("a", loads))
    await turned(loads, 1)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    loads.gates[0].set_result(None)
    assert await second == 1
