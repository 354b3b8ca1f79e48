"""The gateway's places for exports are counted."""

import pytest

from core.errors.exceptions import RateLimited
from gateway.places import Places


async def test_one_more_than_there_are_places_is_refused_until_one_is_free() -> None:
    places = Places(1)
    async with places.one():
        with pytest.raises(RateLimited, match="TOO_MANY_EXPORTS"):
            async with places.one():
                pass
    async with places.one():
        assert places.taken == 1
    assert places.taken == 0
