"""The gateway's places for exports are counted."""

import pytest

from core.errors.exceptions import RateLimited
from gateway.places import Places


async def test_one_more_than_there_are_places_is_refused_until_one_is_free() -> None:
    places = Places(1)
    async with places.one("a"):
        with pytest.raises(RateLimited, match="TOO_MANY_EXPORTS"):
            async with places.one("a"):
                pass
    async with places.one("a"):
        assert places.taken == 1
    assert places.taken == 0


async def test_the_last_place_is_not_for_a_tenant_that_has_one() -> None:
    places = Places(2)
    async with places.one("a"):
        with pytest.raises(RateLimited, match="TOO_MANY_EXPORTS"):
            async with places.one("a"):
                pass
        async with places.one("b"):
            assert places.taken == 2
