"""Accounts are records that trade: read one, and how it stands is told beside what it is."""

from dataclasses import dataclass

import msgspec

from core.messages.jobs import Answer
from core.messages.orders import standing_fields
from core.messages.records import RecordQuestion
from core.ports.orders import TradingReads
from workers.answering import JSON_TYPE
from workers.records import RecordJobs, record_fields


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountJobs(RecordJobs):
    """Does to accounts what a job asks. standings: what their venues have said of them."""

    standings: TradingReads

    async def read(self, asked: RecordQuestion, tenant: str, _attempt: int) -> Answer:
        record = await self.keeper.read(self.kind, tenant, asked.id)
        standing = await self.standings.standing(tenant, asked.id)
        body = {**record_fields(record), "standing": standing_fields(standing)}
        return Answer(content_type=JSON_TYPE, body=msgspec.json.encode(body), rows=1, version=record.version)
