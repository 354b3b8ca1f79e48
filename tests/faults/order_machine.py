"""Orders as a state machine: submitted, sent, changed, matched, taken back, halted, by whoever dies at any await.

All at once or one within the other, on a netting and a hedging account, at a venue that errs.
"""

import asyncio
import uuid
from functools import partial
from typing import Any, Final

import hypothesis.strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from core.model.orders import TERMINAL, OrderState, Side
from core.model.risk import SwitchScope
from tests.deaths import dying, held_up
from tests.faults.order_truth import (
    ALWAYS,
    Books,
    BrokenPromise,
    audit_verifies,
    books_of,
    every_order_has_ended_as_it_did,
    ledger_and_venue_agree,
    ledger_holds_what_the_venue_does,
    no_dead_sender_is_waited_for,
    nothing_is_reserved,
    require,
)
from tests.faults.order_world import HEDGING, NETTING, Actor, Ground, OrderWorld, Wish
from tests.trading_truth import Trouble

TRIES_MAX: Final = 5
QUIET_AFTER: Final = 10
"""So many minutes and looks at the venue it takes at most until nothing is on its way any more."""
ENDED_AFTER: Final = 3
ORDERS = st.integers(0, 20)
DEATHS = st.none() | st.integers(0, 20) | st.integers(0, 60)
HOLD_UPS = st.none() | st.integers(0, 40)
SILENCES = st.sampled_from([Trouble.EXECUTED_THEN_SILENT, Trouble.NEVER_ARRIVED])
TROUBLES = st.just(Trouble.NONE) | SILENCES | st.sampled_from(Trouble)
WISHES = st.builds(
    Wish,
    account=st.sampled_from([NETTING, HEDGING]),
    side=st.sampled_from(Side),
    market=st.booleans(),
    valid=st.sampled_from([False, False, True]),
)
FIRST: Final = (
    (Wish(account=NETTING, side=Side.BUY, market=False), Trouble.IN_PART),
    (Wish(account=HEDGING, side=Side.SELL, market=False), Trouble.NONE),
    (Wish(account=HEDGING, side=Side.BUY, market=True), Trouble.NONE),
)
ACTORS = st.sampled_from([*Actor, Actor.WORKER])
CALLERS = st.sampled_from([Actor.CANCELER, Actor.MODIFIER])


class OrderMachine(RuleBasedStateMachine):
    """One tenant's life. ground: set before it runs; broken: what it found, of all its lives."""

    ground: Ground
    broken: Final[list[str]] = []

    def __init__(self) -> None:
        super().__init__()
        self.world = OrderWorld(self.ground)
        self.venue = self.world.venue
        self.run = self.ground.run
        self.whole = True

    @initialize(first=st.lists(st.tuples(WISHES, TROUBLES), max_size=3))
    def begin(self, first: list[tuple[Wish, Trouble]]) -> None:
        """Begin with some orders sent, of which two work."""
        self.run(self.world.begin())
        for wish, trouble in [*FIRST, *first]:
            self._submitted(wish, None, False)
            self.venue.trouble = trouble
            self.run(self.world.sweep())
            self._nobody_meanwhile()

    # -- what happens --------------------------------------------------------------------------------

    @rule(wish=WISHES, awaits=DEATHS, twice=st.booleans(), wiped=st.integers(0, 5))
    def submit(self, wish: Wish, awaits: int | None, twice: bool, wiped: int) -> None:
        """Submit an order, perhaps twice at once. Whoever is not answered sends the same again."""
        self.world.quotes.wiped = wiped == 5
        self._submitted(wish, awaits, twice)

    @rule(number=ORDERS, awaits=DEATHS)
    def close_a_position(self, number: int, awaits: int | None) -> None:
        held = sorted(self.venue.books[HEDGING].held().items())
        if held:
            ticket, (_, signed) = held[number % len(held)]
            side = Side.SELL if signed > 0 else Side.BUY
            self._submitted(Wish(account=HEDGING, side=side, market=True, position=ticket), awaits, False)

    @rule(trouble=TROUBLES, awaits=DEATHS, twice=st.booleans(), within=st.none() | ACTORS, number=ORDERS)
    def sweep(
        self, trouble: Trouble, awaits: int | None, twice: bool, within: Actor | None, number: int
    ) -> None:
        """Do what the outbox says, perhaps by two workers; within the venue's answer somebody else does something."""
        self.venue.trouble = trouble
        if within is not None:
            self.venue.meanwhile = partial(self.world.act, within, number)

        async def swept() -> None:
            sweeps = [dying(self.world.sweep(), awaits), *([self.world.sweep()] if twice else [])]
            await _all(*sweeps)

        self.run(swept())
        self._nobody_meanwhile()

    @rule(asker=CALLERS, number=ORDERS, trouble=st.just(Trouble.REJECTED) | TROUBLES, within=CALLERS | ACTORS)
    def ask_for_a_change(self, asker: Actor, number: int, trouble: Trouble, within: Actor) -> None:
        self._asked(asker, number, trouble, within)

    @rule(number=ORDERS, trouble=st.just(Trouble.NONE) | TROUBLES)
    def change_and_take_back(self, number: int, trouble: Trouble) -> None:
        self._asked(Actor.MODIFIER, number, trouble, Actor.CANCELER)

    @rule(
        actors=st.lists(st.tuples(ACTORS, ORDERS, HOLD_UPS, DEATHS), min_size=1, max_size=4), trouble=TROUBLES
    )
    def act(self, actors: list[tuple[Actor, int, int | None, int | None]], trouble: Trouble) -> None:
        """Let one or some act, at once."""
        self.venue.trouble = trouble

        async def acted() -> None:
            await _all(*(dying(held_up(self.world.act(a, n), held), dies) for a, n, held, dies in actors))

        self.run(acted())
        self._nobody_meanwhile()

    @rule(
        wish=WISHES,
        scope=st.sampled_from([SwitchScope.TENANT, SwitchScope.ACCOUNT]),
        number=ORDERS,
        awaits=DEATHS,
    )
    def halt_and_resume(self, wish: Wish, scope: SwitchScope, number: int, awaits: int | None) -> None:
        """Engage a kill switch, let somebody send and somebody enforce, and release it."""
        self._submitted(wish, None, False)
        account = (NETTING, HEDGING)[number % 2]
        target = account if scope is SwitchScope.ACCOUNT else ""
        switch = self.run(self.world.engage(scope, target))
        self.venue.halted = {account} if target else {NETTING, HEDGING}
        self.run(self.world.sweep())
        self.run(dying(self.world.enforcer.enforce(), awaits))
        self.venue.halted = set()
        self.run(self.world.release(switch))

    @rule(wish=WISHES, away=st.booleans(), awaits=st.integers(5, 20))
    def a_minute_passes(self, wish: Wish, away: bool, awaits: int) -> None:
        """A worker dies; a minute later another looks at the venue, which may be away by then."""
        self.run(self.world.sweep())
        self._submitted(wish, None, False)
        self.run(dying(self.world.sweep(), awaits))
        self.run(self.world.minute())
        self.venue.away = away
        self.run(self.world.reconcile())
        self.venue.away = False
        self._require(no_dead_sender_is_waited_for(self.world, self._books()))

    @rule(number=ORDERS, state=st.sampled_from(OrderState))
    def an_illegal_move_is_refused(self, number: int, state: OrderState) -> None:
        if self.world.submitted:
            chosen = sorted(self.world.submitted)[number % len(self.world.submitted)]
            self._require(self.run(self.world.break_the_rules(chosen, state)))

    # -- what holds ----------------------------------------------------------------------------------

    @invariant()
    def what_must_always_hold(self) -> None:
        books = self._books()
        self._require(problem for check in ALWAYS for problem in check(self.world, books))

    def teardown(self) -> None:
        if self.world.accounts and self.whole:
            self._heals()

    def _heals(self) -> None:
        """Let everybody do his work: then nothing is on its way, and when the market has come all has ended."""
        self.venue.trouble, self.world.quotes.wiped = Trouble.NONE, False
        for _ in range(QUIET_AFTER):
            self._a_quiet_minute()
            if not list(ledger_and_venue_agree(self.world, self._books())):
                break
        self._require(ledger_and_venue_agree(self.world, self._books()))
        for _ in range(ENDED_AFTER):
            self.venue.advance()
            self._a_quiet_minute()
            if all(one["state"] in TERMINAL for one in self._books().orders):
                break
        # What a look at the venue has changed, the next one counts no more.
        self.run(self.world.reconcile())
        self.what_must_always_hold()
        books = self._books()
        self._require(every_order_has_ended_as_it_did(self.world, books))
        self._require(ledger_holds_what_the_venue_does(self.world, books))
        self._require(self.run(nothing_is_reserved(self.world)))
        self._require(self.run(audit_verifies(self.world)))

    # -- how -----------------------------------------------------------------------------------------

    def _submitted(self, wish: Wish, awaits: int | None, twice: bool) -> None:
        key = uuid.uuid4().hex

        async def submitted() -> set[str]:
            tries = [
                dying(self.world.submit(key, wish), awaits),
                *([self.world.submit(key, wish)] if twice else []),
            ]
            found = {one for one in await _all(*tries) if one}
            for _ in range(TRIES_MAX):
                if found:
                    break
                found = {one for one in [await self.world.submit(key, wish)] if one}
            return found

        found = self.run(submitted())
        self._require([] if len(found) == 1 else [f"one key became the orders {found}"])
        self.world.submitted |= found

    def _asked(self, asker: Actor, number: int, trouble: Trouble, within: Actor) -> None:
        """Take an order back or change it; a worker does so at once, and meanwhile somebody acts on the same order."""
        self.run(self.world.sweep())
        self.run(self.world.act(asker, number))
        self.venue.trouble = trouble
        self.venue.meanwhile = partial(self.world.act, within, number)
        self.run(self.world.sweep())
        self._nobody_meanwhile()

    def _a_quiet_minute(self) -> None:
        self.run(self.world.minute())
        self.run(self.world.sweep())
        self.run(self.world.reconcile())

    def _books(self) -> Books:
        books: Books = self.run(books_of(self.world))
        return books

    def _nobody_meanwhile(self) -> None:
        self.venue.meanwhile, self.venue.trouble = None, Trouble.NONE

    def _require(self, problems: Any) -> None:
        try:
            require(list(problems))
        except BrokenPromise as e:
            self.broken.append(str(e))
            self.whole = False
            raise


async def _all(*coroutines: Any) -> list[Any]:
    """Run them at once, to the end of each. Raises: what the first of them raised."""
    done = await asyncio.gather(*coroutines, return_exceptions=True)
    for one in done:
        if isinstance(one, BaseException):
            raise one
    return done
