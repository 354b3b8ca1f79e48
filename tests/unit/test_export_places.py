"""The worker's places for exports are counted, and shared between tenants."""

import asyncio

import pytest

from core.errors.exceptions import Unavailable
from workers.export_places import ExportPlaces


async def test_the_last_place_is_not_for_a_tenant_that_has_one() -> None:
    places = ExportPlaces(2, 0.01)
    async with places.one("a"):
        with pytest.raises(Unavailable, match="EXPORTS_BUSY"):
            async with places.one("a"):
                pass
        async with places.one("b"):
            with pytest.raises(Unavailable, match="EXPORTS_BUSY"):
                async with places.one("c"):
                    pass


async def test_who_waits_gets_the_place_that_comes_free() -> None:
    places = ExportPlaces(1, 10)
    got = asyncio.Event()

    async def wait() -> None:
        async with places.one("b"):
            got.set()

    async with places.one("a"):
        waiting = asyncio.create_task(wait())
        await asyncio.sleep(0)
        assert not got.is_set()
    await waiting
    assert got.is_set()
