"""What is kept of a paper account, as it is read before something is made of it."""

from dataclasses import dataclass

from core.model.ledger import Listing
from core.model.venues import Deal, VenueOrder


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperPage:
    """An account's book at one moment. text: as it was kept, None where nothing was yet; version: 0 then.

    at_ms: that moment, by the clock all of the account's times are told by. listing: what is known of the book's
    symbols, of one that was asked for, and of those whose prices turn their currencies into the account's.
    """

    text: bytes | None
    version: int
    at_ms: int
    listing: Listing


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperPast:
    """What has happened on an account. Oldest first."""

    deals: tuple[Deal, ...] = ()
    ended: tuple[VenueOrder, ...] = ()
