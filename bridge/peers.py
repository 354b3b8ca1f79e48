"""How often one address may connect here, and how often show a credential that is none.

An address is known only once the upgrade is done, so whoever comes too often is closed then, before a byte of it is
read. Behind a TLS proxy everybody has the proxy's address: there the limit is the proxy's to keep.
"""

from collections import OrderedDict
from typing import Final

from picows import WSTransport

from bridge.allowance import Allowance
from core.model.addresses import NOBODY, network
from core.settings import BridgeSettings
from core.telemetry import metrics

PEERS_MAX: Final = 10_000
"""Beyond this the address longest not seen is forgotten, which gives it a minute's worth of connects."""
MINUTE_S: Final = 60.0


class Peers:
    """The allowances of every address seen lately."""

    def __init__(self, settings: BridgeSettings) -> None:
        self._settings = settings
        self._connects: OrderedDict[str, Allowance] = OrderedDict()
        self._failures: OrderedDict[str, Allowance] = OrderedDict()

    def admit(self, transport: WSTransport, at_s: float) -> bool:
        """Count a connect, and tell whether it may stay. at_s: a monotonic clock's."""
        if self._settings.behind_tls_proxy:
            return True
        address = _address(transport)
        failures = self._failures.get(address)
        # In this order: who may not come in for its failures has not used up a connect.
        admitted = (failures is None or failures.left(at_s) >= 1) and _of(
            self._connects, address, self._settings.connects_per_minute_max
        ).take(at_s)
        if not admitted:
            metrics.BRIDGE_CONNECTS_REFUSED.inc()
        return admitted

    def note_failure(self, transport: WSTransport | None, at_s: float) -> None:
        """Count a credential that was refused."""
        if transport is not None and not self._settings.behind_tls_proxy:
            _of(self._failures, _address(transport), self._settings.failures_per_minute_max).take(at_s)


def _of(allowances: OrderedDict[str, Allowance], address: str, per_minute: int) -> Allowance:
    allowance = allowances.get(address)
    if allowance is None:
        allowance = allowances[address] = Allowance(burst=per_minute, per_s=per_minute / MINUTE_S)
        if len(allowances) > PEERS_MAX:
            allowances.popitem(last=False)
    allowances.move_to_end(address)
    return allowance


def _address(transport: WSTransport) -> str:
    peer = transport.underlying_transport.get_extra_info("peername")
    return network(peer[0]) if peer else NOBODY
