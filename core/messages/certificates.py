"""Completeness certificates as they are answered; core/market/completeness.py issues them."""

import msgspec


class DayCertificate(msgspec.Struct, frozen=True, kw_only=True):
    """One symbol and day. `sent_*` is the connector's word, `stored_*` what the store found just now."""

    symbol: str
    day: str
    last_seq: int
    sent_rows: int
    stored_rows: int
    sent_checksum: str
    stored_checksum: str
    green: bool


class Certificate(msgspec.Struct, frozen=True, kw_only=True):
    """One (source, epoch). problems: sentences, empty when green. dropped: rows gone by the
    retention policy. uncertified: rows that no tally speaks of yet."""

    source: str
    epoch: int
    rows: int
    distinct: int
    first_seq: int
    last_seq: int
    quarantined: int
    dropped: int
    uncertified: int
    green: bool
    problems: list[str]
    days: list[DayCertificate]
