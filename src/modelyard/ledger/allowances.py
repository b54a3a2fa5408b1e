"""Allowances: what a worker holds of limits, so that most requests ask the database for nothing.

A worker holds a little more of a limit than its requests have reserved, a 64th of what is left. As
long as a request finds room in that, it is reserved in memory alone. All that any worker holds
counts as taken for the others, so no hard limit is ever passed. What is held beyond need shrinks
with what is left, down to nothing where few are left, and is given back after a second without
use (O'Neil 1986, The escrow transactional method).
"""

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from modelyard.ledger.entries import Demand, Place, Reservation, Standing
from modelyard.ledger.limits import Limit

SHARE = 64
MOST_SHARE = 48
"""No more than so small a share of what is left is held beyond need."""


@dataclass
class Allowance:
    """What a worker holds of one counter; `left` is of the limit, as last seen."""

    limit: Limit
    held: int = 0
    reserved: int = 0
    room: int = 0
    left: int = 0
    is_known: bool = False
    is_idle: bool = False

    def has_room(self, demand: Demand) -> bool:
        """Whether a demand fits without a question to the database.

        A limit that was set anew is asked about first. Of what is known at the end alone, a
        request demands nothing: it has room as long as anything is left.
        """
        asked = demand.limit
        if not self.is_known or (self.limit is not asked and self.limit != asked):
            return False
        if not asked.is_hard:
            return True
        return self.room >= demand.amount and self.left >= max(1, demand.amount)


@dataclass
class Plan:
    """What a transaction makes of an allowance, which holds once it is committed."""

    is_idle: bool = False
    """Whether nothing beyond need is to be held."""
    freed: int = 0
    granted: int = 0
    used: int = 0
    slack: int = 0
    reserved: int = 0
    held: int = 0
    left: int = 0


@dataclass
class Allowances:
    """Those of a worker; requests take from them on the event loop, its thread plans them."""

    worker: str
    lock: threading.Lock = field(default_factory=threading.Lock)
    _all: dict[Place, Allowance] = field(default_factory=dict)

    def take(self, demands: Sequence[Demand]) -> Reservation | None:
        """A reservation within the room there is; None where the database has to be asked."""
        with self.lock:
            found = [self._all.get(each.place) for each in demands]
            if not all(
                own and own.has_room(each) for own, each in zip(found, demands, strict=True)
            ):
                return None
            standings = []
            for own, each in zip(found, demands, strict=True):
                assert own
                self._reserve(own, each)
                standings.append(Standing(each.limit, own.left))
        return Reservation(self.worker, tuple(demands), None, tuple(standings))

    def _reserve(self, own: Allowance, demand: Demand) -> None:
        own.is_idle = False
        own.left -= demand.amount
        own.reserved += demand.amount
        if demand.limit.is_hard:
            own.room -= demand.amount

    def of(self, demand: Demand) -> Allowance:
        """The allowance of a demand's counter."""
        return self._all.setdefault(demand.place, Allowance(demand.limit))

    def claim(self, demand: Demand) -> None:
        """See to an allowance for a demand, by the limit as it is now; the lock is held."""
        own = self.of(demand)
        if own.limit != demand.limit:
            own.limit, own.is_known = demand.limit, False

    def let_go(self, demands: Sequence[Demand]) -> None:
        """Have what was reserved be room again; what the database says is held stays."""
        with self.lock:
            for each in demands:
                if own := self._all.get(each.place):
                    own.reserved = max(0, own.reserved - each.amount)
                    own.left += each.amount
                    own.room = max(0, own.held - own.reserved)

    def at(self, place: Place) -> Allowance:
        """The allowance of a counter that has one."""
        return self._all[place]

    def taken(self, place: Place, plan: Plan) -> int:
        """How much this worker has reserved, with what the plan changes of it."""
        return self._all[place].reserved - plan.freed + plan.granted

    def cap(self, place: Place, plan: Plan, used: int, others: int) -> None:
        """Have no more room than what the plan grants leaves of the limit; the lock is held."""
        own = self._all[place]
        left = own.limit.amount - used - plan.used - others - self.taken(place, plan)
        own.room = max(0, min(own.room, left))

    def decide(self, place: Place, plan: Plan, used: int, others: int) -> None:
        """Decide how much is held; `used` and `others` are as the database has them.

        The lock is held. Until `done`, what both the old and the new hold cover can be taken.
        """
        own = self._all[place]
        if not own.limit.is_hard:
            plan.reserved = own.reserved
            plan.left = own.limit.amount - used - plan.used - self.taken(place, plan)
            return
        needed = self.taken(place, plan)
        plan.left = own.limit.amount - used - plan.used - others - needed
        is_exact = plan.is_idle or own.limit.measure == "at_once"
        plan.slack = 0 if is_exact else _slack(max(0, plan.left), own.held - needed)
        plan.reserved, plan.held = own.reserved, needed + plan.slack
        own.room = max(0, min(plan.slack, own.held - own.reserved))

    def done(self, plans: Mapping[Place, Plan], is_committed: bool) -> None:
        """Have plans hold, or leave all as it was."""
        with self.lock:
            for place, plan in plans.items():
                own = self._all[place]
                if is_committed:
                    own.left = plan.left - (own.reserved - plan.reserved)
                    own.held, own.is_known = plan.held, True
                    own.reserved += plan.granted - plan.freed
                own.room = max(0, own.held - own.reserved)

    def doubt(self, places: Iterable[Place]) -> None:
        """Have the next transaction see to it that counters are there."""
        with self.lock:
            for place in places:
                self._all[place].is_known = False

    def idle(self) -> list[Place]:
        """Counters of which more is held than reserved, and nothing was taken since last asked."""
        with self.lock:
            for place in [p for p, own in self._all.items() if _is_over(own)]:
                del self._all[place]
            found = [p for p, own in self._all.items() if own.is_idle and own.held > own.reserved]
            for own in self._all.values():
                own.is_idle = True
        return found


def _slack(left: int, spare: int) -> int:
    """How much is held beyond need; where `spare` is about right it stays, and is not written.

    >>> _slack(6400, 0), _slack(6300, 100), _slack(3200, 100)
    (100, 100, 50)
    """
    most = left // MOST_SHARE
    return spare if most // 2 <= spare <= most else left // SHARE


def _is_over(own: Allowance) -> bool:
    return own.is_idle and not own.held and not own.reserved
