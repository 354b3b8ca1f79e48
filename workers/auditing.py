"""Sealing the audit trail, as a scheduled job: sign what every stream is now, and keep that outside."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import structlog

from core.auditing.checkpoints import Signer
from core.auditing.sealing import seal
from core.errors.exceptions import Corrupt, Misconfigured, Unavailable
from core.infrastructure.anchors import Anchor, anchor_at
from core.infrastructure.central_hub import Hub
from core.infrastructure.error_handler import report
from core.infrastructure.signing_keys import read_keys
from core.messages.jobs import Answer
from core.model.retries import RetryClass
from core.ports.audit import AuditArchive
from core.ports.jobs import JobFunction
from core.settings import AuditSettings, Settings
from core.telemetry import metrics

log = structlog.get_logger(__name__)

NOTHING: Final = Answer(content_type="application/json", body=b"null")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealing:
    """Seals and anchors. signer: None where no key is set up, anchor: None where no place is."""

    archive: AuditArchive
    signer: Signer | None
    anchor: Anchor | None

    async def run(self, _ctx: Mapping[str, Any], _request: Any, **_rest: Any) -> Answer:
        """Seal what was added to every stream. One that is broken is told of, and the others are sealed."""
        if self.signer is None:
            return NOTHING
        for stream, _seq in await self.archive.streams():
            try:
                await seal(self.archive, stream, self.signer)
            except Corrupt as e:
                metrics.AUDIT_BROKEN.inc()
                report(e, stream=stream)
        if self.anchor is not None:
            await self._carry_out(self.anchor)
        return NOTHING

    async def _carry_out(self, anchor: Anchor) -> None:
        for kept in await self.archive.unanchored():
            try:
                await asyncio.to_thread(anchor.add, kept.text)
            except Unavailable as e:
                # Trading goes on; what is not outside yet is carried there next time.
                metrics.AUDIT_ANCHOR_FAILURES.inc()
                log.error("audit.not_anchored", error=str(e))
                return
            await self.archive.anchored(kept)


def sealing_of(archive: AuditArchive, settings: AuditSettings) -> Sealing:
    """Return what seals, as it is set up. Raises: Misconfigured."""
    signer = Signer(read_keys(Path(settings.key_file))[0]) if settings.key_file else None
    if settings.anchor and signer is None:
        raise Misconfigured("audit.anchor needs audit.key_file to sign with", code="AUDIT_KEY_MISSING")
    return Sealing(
        archive=archive, signer=signer, anchor=anchor_at(settings.anchor) if settings.anchor else None
    )


def functions(hub: Hub, settings: Settings) -> Sequence[JobFunction]:
    """Return the scheduled function."""
    sealing = sealing_of(hub["audit_archive"], settings.audit)
    return [JobFunction(name="audit.seal", run=sealing.run, retry=RetryClass.WHEN_UNAVAILABLE)]
