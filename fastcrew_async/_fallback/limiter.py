"""How much of each key (a model, a tool, a tenant) may be used, and who of those that wait is next.

No clock and no waiting of its own: times come in as seconds, and out come the tickets that may go and the time to ask
again. Whoever waits has put a way to be woken under its ticket's number before it asks.
"""

from __future__ import annotations

import threading
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush

from fastcrew_async import core_log

SHARE = 4
"""Of those that have waited over the ageing time the oldest gets one of so many turns, whatever its rank."""

_UNUSUAL = 60.0  # who has waited for so many seconds has waited unusually long
_MANY = 1024  # from so many keys on, those that nobody uses are forgotten

RuleOfKey = tuple[int | None, int | None, int | None, float]
Granted = tuple[list[int], float | None]
_NO_RULE: RuleOfKey = (None, None, None, 0.0)


def _over(limit: int | None, cost: int, used: int) -> int:
    """By how much `cost`, on top of what is used, is too much; more than the whole limit fits into an empty window."""
    return 0 if limit is None else max(0, used + min(cost, limit) - limit)


@dataclass
class _Meter:
    """An amount within a rolling window: what was let through, and what a provider says that others have used."""

    limit: int | None = None
    learned: int | None = None
    foreign: int = 0
    foreign_until: float = 0.0
    log: deque[list[float]] = field(default_factory=deque)
    first: int = 0
    used: int = 0

    @property
    def cap(self) -> int | None:
        return min((limit for limit in (self.limit, self.learned) if limit is not None), default=None)

    def expire(self, now: float, window: float) -> None:
        while self.log and self.log[0][0] + window <= now:
            self.used -= int(self.log.popleft()[1])
            self.first += 1

    def of_others(self, now: float) -> int:
        return self.foreign if now < self.foreign_until else 0

    def fits(self, cost: int, now: float) -> bool:
        return not _over(self.limit, cost, self.used) and not _over(self.learned, cost, self.used + self.of_others(now))

    def when(self, cost: int, now: float, window: float) -> float:
        own = self._left_by(_over(self.limit, cost, self.used), now, window)
        foreign = self.of_others(now)
        everyone = self._left_by(_over(self.learned, cost, self.used + foreign), now, window)
        if foreign:
            after = self._left_by(_over(self.learned, cost, self.used), now, window)
            everyone = min(everyone, max(after, self.foreign_until))
        return max(own, everyone)

    def add(self, cost: int, now: float) -> tuple[int, int] | None:
        """The number of the entry, and what has been used with it; what is not limited is not noted."""
        if self.cap is None:
            return None
        self.log.append([now, cost])
        self.used += cost
        return self.first + len(self.log) - 1, self.used

    def amend(self, number: int, cost: int) -> None:
        index = number - self.first
        if index >= 0:
            self.used += cost - int(self.log[index][1])
            self.log[index][1] = cost

    def postpone(self, number: int, now: float) -> None:
        """An entry went out only now; what came after it may not leave the window before it."""
        index = number - self.first
        if index >= 0:
            self.log[index][0] = max(self.log[index][0], now)

    def observe(self, limit: int, remaining: int, reset: float, own: int, now: float, window: float) -> bool:
        """Whether the limit is another than it was."""
        if limit == 0 or reset > window:  # a limit over a longer time is none of this meter
            return False
        known, self.learned = self.learned, limit
        self.foreign = max(0, max(0, limit - remaining) - own)
        self.foreign_until = now + reset
        return known != limit

    def unlearn(self) -> None:
        """Forget the provider's word."""
        self.learned = None
        self.foreign = 0

    def _left_by(self, amount: int, now: float, window: float) -> float:
        """When as much as `amount` will have left the window."""
        if not amount:
            return now
        left = 0.0
        for time, cost in self.log:
            left += cost
            if left >= amount:
                return time + window
        return float("inf")


@dataclass
class _Key:
    name: str
    rule: RuleOfKey
    used: int = 0
    waiting: int = 0
    granted: int = 0
    waited: float = 0.0
    reserved: int = 0
    requests: _Meter = field(default_factory=_Meter)
    tokens: _Meter = field(default_factory=_Meter)
    paused_until: float = 0.0
    turns: int = 0  # grants since the last one that went by age

    def __post_init__(self) -> None:
        self.put(self.rule)

    def put(self, rule: RuleOfKey) -> None:
        self.rule = rule
        _, self.requests.limit, self.tokens.limit, self.window = rule

    def free(self) -> None:
        """Without a rule it is not limited, whatever the provider had said."""
        self.put(_NO_RULE)
        self.requests.unlearn()
        self.tokens.unlearn()
        self.paused_until = 0.0

    @property
    def full(self) -> bool:
        return self.rule[0] is not None and self.used >= self.rule[0]

    def expire(self, now: float) -> None:
        self.requests.expire(now, self.window)
        self.tokens.expire(now, self.window)

    def has_room(self, tokens: int, now: float) -> bool:
        self.expire(now)
        free = not self.full and self.paused_until <= now
        return free and self.requests.fits(1, now) and self.tokens.fits(tokens, now)

    def when(self, tokens: int, now: float) -> float | None:
        """When it will have room by the passing of time alone."""
        when = max(
            self.paused_until, self.requests.when(1, now, self.window), self.tokens.when(tokens, now, self.window)
        )
        return None if self.full or when == float("inf") else when

    def idle(self, now: float) -> bool:
        self.expire(now)
        return not (self.used or self.waiting or self.requests.log or self.tokens.log or self.paused_until > now)


@dataclass
class _Ticket:
    keys: tuple[str, ...]
    tokens: int
    rank: tuple[int, int]
    since: float
    entries: list[tuple[tuple[int, int] | None, tuple[int, int] | None]] | None = None


@dataclass
class _Group:
    """Those that wait for the same keys."""

    by_rank: list[tuple[int, int, int]] = field(default_factory=list)
    by_arrival: list[int] = field(default_factory=list)


_Place = tuple[int, int, int, int]


class Limiter:
    """The limits of a process, shared by its threads; each call gives the tickets that became free by it, and when to
    call :meth:`wake` if nothing else happens before."""

    def __init__(self) -> None:
        self._rules: dict[str, RuleOfKey] = {}
        self._ageing = 0.0
        self._keys: dict[str, _Key] = {}
        self._sweep_at = _MANY
        self._tickets: dict[int, _Ticket] = {}
        self._groups: dict[tuple[str, ...], _Group] = {}
        self._now = 0.0
        self._lock = threading.Lock()

    def configure(self, rules: Mapping[str, RuleOfKey], ageing: float, now: float) -> Granted:
        """Put other rules in force: concurrent, requests, tokens and window by key or kind of key.

        A key goes by the rule of its whole name, else by that of its kind, the part before the first colon; a key
        without a rule is not limited.
        """
        with self._lock:
            self._tick(now)
            self._rules = dict(rules)
            self._ageing = ageing
            for key in self._keys.values():
                rule = self._rule(key.name)
                if rule is None:
                    key.free()
                else:
                    key.put(rule)
            return self._pump()

    def acquire(self, ticket: int, keys: Sequence[str], tokens: int, rank: tuple[int, int], now: float) -> Granted:
        """Ask for one request under all of the keys, all or nothing.

        Tickets are numbered in the order of their coming; of those that wait the lowest rank goes first.
        """
        with self._lock:
            now = self._tick(now)
            if len(self._keys) >= max(self._sweep_at, _MANY):
                self._keys = {name: key for name, key in self._keys.items() if not key.idle(now)}
                self._sweep_at = 2 * len(self._keys)
            found = {name: key for name in sorted(keys) if (key := self._key(name)) is not None}
            asked = self._tickets[ticket] = _Ticket(tuple(found), tokens, rank, now)
            if not self._groups and all(key.has_room(tokens, now) for key in found.values()):
                self._grant(asked)
                return [ticket], None
            group = self._groups.setdefault(asked.keys, _Group())
            insort(group.by_rank, (*rank, ticket))
            insort(group.by_arrival, ticket)
            for key in found.values():
                key.waiting += 1
            return self._pump()

    def release(self, ticket: int, tokens: int | None, now: float) -> Granted:
        """The request is over; it took so many tokens, or as many as reserved."""
        with self._lock:
            return self._release(ticket, tokens, now)

    def sent(self, ticket: int, now: float) -> None:
        """The request goes out to the provider now, which may be some time after it was let through."""
        with self._lock:
            now = self._tick(now)
            asked = self._tickets.get(ticket)
            if asked is not None and asked.entries is not None:
                for name, (request, tokens) in zip(asked.keys, asked.entries, strict=True):
                    if request is not None:
                        self._keys[name].requests.postpone(request[0], now)
                    if tokens is not None:
                        self._keys[name].tokens.postpone(tokens[0], now)

    def cancel(self, ticket: int, now: float) -> Granted:
        """The request will not be made: it counts for nothing, whether it waited or had just been granted."""
        with self._lock:
            ended = self._tickets.get(ticket)
            if ended is not None and ended.entries is not None:
                for name, (request, _) in zip(ended.keys, ended.entries, strict=True):
                    if request is not None:
                        self._keys[name].requests.amend(request[0], 0)
                    self._keys[name].granted -= 1
            return self._release(ticket, 0, now)

    def observe(self, key: str, ticket: int, of_tokens: bool, word: tuple[int, int, float], now: float) -> Granted:
        """What the provider says of its limit, what remains of it, and the seconds until it is whole."""
        with self._lock:
            now = self._tick(now)
            found = self._key(key)
            if found is None:
                return [], None
            entry = None
            asked = self._tickets.get(ticket)
            if asked is not None and asked.entries is not None and key in asked.keys:
                entry = asked.entries[asked.keys.index(key)][of_tokens]
            found.expire(now)
            meter = found.tokens if of_tokens else found.requests
            limit, remaining, reset = word
            own = meter.used if entry is None else entry[1]
            if meter.observe(limit, remaining, reset, own, now, found.window):
                what = "tokens" if of_tokens else "requests"
                text = "%s: the provider allows %d %s in %g s, of which %d are left"
                core_log.limits.info(text, key, limit, what, found.window, remaining)
            return self._pump()

    def pause(self, key: str, seconds: float, now: float) -> Granted:
        """Nothing goes under this key for so many seconds: the provider has refused."""
        with self._lock:
            now = self._tick(now)
            found = self._key(key)
            if found is not None:
                found.paused_until = max(found.paused_until, now + seconds)
                core_log.limits.info("%s: the provider refuses, nothing goes for %g s", key, seconds)
            return self._pump()

    def wake(self, now: float) -> Granted:
        """Time has passed."""
        with self._lock:
            self._tick(now)
            return self._pump()

    def stats(
        self, now: float
    ) -> list[tuple[str, int | None, int, int, int, float, int, tuple[int | None, int], tuple[int | None, int], float]]:
        """All keys in use, by their names."""
        with self._lock:
            now = self._tick(now)
            for key in self._keys.values():
                key.expire(now)
            return [
                (
                    name,
                    key.rule[0],
                    key.used,
                    key.waiting,
                    key.granted,
                    key.waited,
                    key.reserved,
                    (key.requests.cap, key.requests.used),
                    (key.tokens.cap, key.tokens.used),
                    max(key.paused_until - now, 0.0),
                )
                for name, key in sorted(self._keys.items())
            ]

    def _tick(self, now: float) -> float:
        # Threads read the clock before they get here, not always in the order in which they do.
        self._now = max(self._now, now)
        return self._now

    def _rule(self, name: str) -> RuleOfKey | None:
        kind, colon, _ = name.partition(":")
        return self._rules.get(name) or (self._rules.get(kind) if colon else None)

    def _key(self, name: str) -> _Key | None:
        found = self._keys.get(name)
        if found is None and (rule := self._rule(name)) is not None:
            found = self._keys[name] = _Key(name, rule)
        return found

    def _grant(self, asked: _Ticket) -> None:
        asked.entries = []
        if self._now - asked.since >= _UNUSUAL:
            core_log.limits.info("%s: let through after %.0f s", ", ".join(asked.keys), self._now - asked.since)
        for name in asked.keys:
            key = self._keys[name]
            key.used += 1
            key.granted += 1
            key.turns += 1
            key.waited += self._now - asked.since
            key.reserved += asked.tokens
            asked.entries.append((key.requests.add(1, self._now), key.tokens.add(asked.tokens, self._now)))

    def _release(self, ticket: int, tokens: int | None, now: float) -> Granted:
        self._tick(now)
        ended = self._tickets.pop(ticket, None)  # one that is not known has ended already
        if ended is not None and ended.entries is None:
            self._leave(ticket, ended)
        elif ended is not None and ended.entries is not None:
            for name, (_, entry) in zip(ended.keys, ended.entries, strict=True):
                key = self._keys[name]
                key.used -= 1
                key.reserved -= ended.tokens
                if entry is not None and tokens is not None:
                    key.tokens.amend(entry[0], tokens)
        return self._pump()

    def _leave(self, ticket: int, asked: _Ticket) -> None:
        """A ticket waits no longer."""
        group = self._groups[asked.keys]
        del group.by_rank[bisect_left(group.by_rank, (*asked.rank, ticket))]
        del group.by_arrival[bisect_left(group.by_arrival, ticket)]
        if not group.by_arrival:
            del self._groups[asked.keys]
        for name in asked.keys:
            self._keys[name].waiting -= 1

    def _head(self, keys: tuple[str, ...]) -> tuple[_Place, tuple[str, ...]] | None:
        """Who of a group is next."""
        group = self._groups.get(keys)
        if group is None:
            return None
        oldest = group.by_arrival[0]
        aged = self._tickets[oldest].since + self._ageing <= self._now
        if aged and all(self._keys[name].turns + 1 >= SHARE for name in keys):
            return (0, 0, 0, oldest), keys
        return (1, *group.by_rank[0]), keys

    def _heads(self) -> list[tuple[_Place, tuple[str, ...]]]:
        heads = [head for keys in self._groups if (head := self._head(keys)) is not None]
        heapify(heads)
        return heads

    def _pump(self) -> Granted:
        """Grant all that can go.

        A key that lacks room for one is closed to all that come after it, so that what asks for much is not overtaken
        for ever; its other keys stay open to them, so that a full tenant does not stop a model.
        """
        granted: list[int] = []
        next_time: float | None = None
        closed: set[str] = set()
        heads = self._heads()
        while heads:
            place, keys = heappop(heads)
            if not closed.isdisjoint(keys):
                continue
            current = self._head(keys)
            if current is not None and current[0] != place:
                heappush(heads, current)  # its turn by age went to another group
                continue
            ticket = place[3]
            asked = self._tickets[ticket]
            lacking = [key for name in keys if not (key := self._keys[name]).has_room(asked.tokens, self._now)]
            for key in lacking:
                closed.add(key.name)
                when = key.when(asked.tokens, self._now)
                if when is not None:
                    next_time = when if next_time is None else min(next_time, when)
            if lacking:
                continue
            self._leave(ticket, asked)
            self._grant(asked)
            if place[0] == 0:
                for name in keys:
                    self._keys[name].turns = 0
            granted.append(ticket)
            if place[0] and any(self._keys[name].turns + 1 == SHARE for name in keys):
                heads = self._heads()  # another group's oldest may be due by it
            elif (head := self._head(keys)) is not None:
                heappush(heads, head)
        return granted, next_time
