"""The limiter's contract, on the compiled core and on its Python twin."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from fastcrew_async._fallback.limiter import SHARE
from fastcrew_async._fallback.limiter import Limiter as InPython

ANY = (0, 0)
Rule = tuple[int | None, int | None, int | None, float]


def concurrent(limit: int) -> Rule:
    return limit, None, None, 60.0


@pytest.fixture
def make(backend: Any) -> Any:
    def limiter(rules: dict[str, Rule], ageing: float = 1e9) -> Any:
        made = backend.Limiter()
        made.configure(rules, ageing, 0.0)
        return made

    return limiter


def used(limiter: Any, now: float = 0.0) -> dict[str, tuple[int, int]]:
    """In use and waiting, by key."""
    return {row[0]: (row[2], row[3]) for row in limiter.stats(now)}


def test_so_many_at_once_and_the_next_when_one_ends(make: Any) -> None:
    limiter = make({"model": concurrent(2)})
    assert [limiter.acquire(n, ["model:a"], 0, ANY, 0.0)[0] for n in (1, 2, 3, 4)] == [[1], [2], [], []]
    assert used(limiter) == {"model:a": (2, 2)}
    assert limiter.release(1, None, 1.0) == ([3], None)
    assert limiter.release(2, None, 1.0) == ([4], None)
    assert limiter.release(3, None, 1.0) == limiter.release(4, None, 1.0) == ([], None)
    assert used(limiter) == {"model:a": (0, 0)}


def test_a_key_goes_by_its_own_rule_else_by_that_of_its_kind_else_it_is_free(make: Any) -> None:
    limiter = make({"tool": concurrent(1), "tool:fast": concurrent(2)})
    assert [limiter.acquire(n, ["tool:fast"], 0, ANY, 0.0)[0] for n in (1, 2, 3)] == [[1], [2], []]
    assert [limiter.acquire(n, ["tool:slow"], 0, ANY, 0.0)[0] for n in (4, 5)] == [[4], []]
    assert all(limiter.acquire(n, ["tenant:a"], 0, ANY, 0.0)[0] == [n] for n in range(6, 20))
    assert set(used(limiter)) == {"tool:fast", "tool:slow"}


def test_requests_within_a_rolling_window(make: Any) -> None:
    limiter = make({"model": (None, 2, None, 10.0)})
    assert limiter.acquire(1, ["model:a"], 0, ANY, 0.0) == ([1], None)
    assert limiter.acquire(2, ["model:a"], 0, ANY, 4.0) == ([2], None)
    assert limiter.release(1, None, 5.0) == ([], None)  # it has been made, and counts on
    assert limiter.acquire(3, ["model:a"], 0, ANY, 5.0) == ([], 10.0)
    assert limiter.acquire(4, ["model:a"], 0, ANY, 5.0) == ([], 10.0)
    assert limiter.wake(9.9) == ([], 10.0)
    assert limiter.wake(10.0) == ([3], 14.0)
    assert limiter.wake(14.0) == ([4], None)


def test_the_window_of_a_request_begins_when_it_is_sent(make: Any) -> None:
    limiter = make({"model": (None, 2, 100, 10.0)})
    limiter.acquire(1, ["model:a"], 10, ANY, 0.0)
    limiter.acquire(2, ["model:a"], 10, ANY, 0.0)
    limiter.sent(1, 3.0)
    limiter.sent(2, 1.0)
    limiter.sent(9, 1.0)
    assert limiter.acquire(3, ["model:a"], 10, ANY, 4.0) == ([], 13.0)
    assert limiter.wake(13.0) == ([3], None)


def test_tokens_are_reserved_and_settled(make: Any) -> None:
    limiter = make({"model": (None, None, 100, 10.0)})
    assert limiter.acquire(1, ["model:a"], 80, ANY, 0.0) == ([1], None)
    assert limiter.acquire(2, ["model:a"], 50, ANY, 1.0) == ([], 10.0)
    assert limiter.stats(1.0)[0][6:9] == (80, (None, 0), (100, 80))
    assert limiter.release(1, 50, 2.0) == ([2], None)  # it took less
    assert limiter.release(2, 70, 3.0) == ([], None)  # it took more
    assert limiter.stats(3.0)[0][6:9] == (0, (None, 0), (100, 120))
    assert limiter.acquire(3, ["model:a"], 30, ANY, 3.0) == ([], 10.0)
    assert limiter.wake(10.0) == ([3], None)


def test_more_tokens_than_the_limit_go_alone(make: Any) -> None:
    limiter = make({"model": (None, None, 100, 10.0)})
    assert limiter.acquire(1, ["model:a"], 5, ANY, 0.0) == ([1], None)
    assert limiter.acquire(2, ["model:a"], 500, ANY, 1.0) == ([], 10.0)
    assert limiter.wake(10.0) == ([2], None)
    assert limiter.acquire(3, ["model:a"], 1, ANY, 11.0) == ([], 20.0)


def test_all_keys_or_none(make: Any) -> None:
    limiter = make({"model": concurrent(1), "tenant": concurrent(1)})
    assert limiter.acquire(1, ["model:a", "tenant:x"], 0, ANY, 0.0)[0] == [1]
    assert limiter.acquire(2, ["model:b", "tenant:x"], 0, ANY, 0.0)[0] == []
    # The one that waits for its tenant does not hold the model that it also needs.
    assert limiter.acquire(3, ["model:b", "tenant:y"], 0, ANY, 0.0)[0] == [3]
    assert limiter.release(1, None, 0.0)[0] == []
    assert limiter.release(3, None, 0.0)[0] == [2]


def test_what_asks_for_much_is_not_overtaken_by_what_asks_for_little(make: Any) -> None:
    limiter = make({"model": (None, None, 100, 10.0)})
    limiter.acquire(1, ["model:a"], 60, ANY, 0.0)
    assert limiter.acquire(2, ["model:a"], 90, ANY, 1.0)[0] == []
    assert limiter.acquire(3, ["model:a"], 10, ANY, 1.0)[0] == []
    assert limiter.wake(10.0)[0] == [2, 3]


def test_the_lowest_rank_goes_first(make: Any) -> None:
    limiter = make({"model": concurrent(1)})
    limiter.acquire(1, ["model:a"], 0, ANY, 0.0)
    for ticket, rank in ((2, (1, 0)), (3, (0, 9)), (4, (0, 3)), (5, (0, 3))):
        assert limiter.acquire(ticket, ["model:a"], 0, rank, 0.0)[0] == []
    order = []
    last = 1
    while granted := limiter.release(last, None, 0.0)[0]:
        (last,) = granted
        order.append(last)
    assert order == [4, 5, 3, 2]


def test_whoever_has_waited_long_gets_one_of_some_turns(make: Any) -> None:
    limiter = make({"model": concurrent(1)}, ageing=10.0)
    limiter.acquire(0, ["model:a"], 0, ANY, 0.0)
    for batch in (1, 2, 3):
        limiter.acquire(batch, ["model:a"], 0, (1, batch), 0.0)
    order = []
    last = 0
    for turn in range(12):  # an endless row of others that rank before them
        limiter.acquire(10 + turn, ["model:a"], 0, ANY, 11.0 + turn)
        ((last,), _) = limiter.release(last, None, 11.0 + turn)
        order.append(last)
    assert [place for place, ticket in enumerate(order) if ticket < 10] == [2, 2 + SHARE, 2 + 2 * SHARE]
    assert [ticket for ticket in order if ticket < 10] == [1, 2, 3]


def test_a_turn_by_age_may_fall_due_in_the_middle_of_a_round(make: Any) -> None:
    limiter = make({"model": (None, None, 10, 10.0)}, ageing=2.0)
    limiter.acquire(0, ["model:a"], 10, ANY, 0.0)
    limiter.acquire(1, ["model:a"], 1, (1, 0), 0.0)  # alone under its key, ranks after the others, waits the longest
    for ticket in range(2, 8):
        limiter.acquire(ticket, ["model:a", "model:b"], 1, ANY, 5.0)
    granted, _ = limiter.wake(10.0)
    assert granted.index(1) < granted.index(7)
    assert granted.index(1) == SHARE - 2  # the first turn went at the start


def test_a_cancelled_one_counts_for_nothing(make: Any) -> None:
    limiter = make({"model": (1, 2, 100, 10.0)})
    limiter.acquire(1, ["model:a"], 60, ANY, 0.0)
    limiter.acquire(2, ["model:a"], 60, ANY, 0.0)
    limiter.acquire(3, ["model:a"], 10, ANY, 0.0)
    assert limiter.cancel(2, 1.0) == ([], None)
    assert limiter.cancel(1, 1.0) == ([3], None)  # granted, and never made
    assert limiter.stats(1.0)[0][2:9] == (1, 0, 1, 1.0, 10, (2, 1), (100, 10))
    assert limiter.cancel(3, 1.0) == limiter.cancel(3, 1.0) == limiter.release(99, 5, 1.0) == ([], None)
    assert limiter.stats(1.0)[0][2:9] == (0, 0, 0, 1.0, 0, (2, 0), (100, 0))


def test_after_a_refusal_nothing_goes_for_a_while(make: Any) -> None:
    limiter = make({"model": concurrent(5)})
    assert limiter.pause("model:a", 3.0, 1.0) == ([], None)
    assert limiter.acquire(1, ["model:a"], 0, ANY, 2.0) == ([], 4.0)
    assert limiter.stats(2.0)[0][9] == 2.0
    assert limiter.wake(4.0) == ([1], None)
    limiter.pause("nobody:knows", 3.0, 1.0)


def test_the_providers_limit_is_learned(make: Any) -> None:
    limiter = make({"model": (None, None, None, 60.0)})
    limiter.acquire(1, ["model:a"], 5, ANY, 0.0)
    limiter.observe("model:a", 1, False, (2, 1, 60.0), 1.0)
    limiter.observe("model:a", 1, True, (10, 5, 60.0), 1.0)
    # Ours is not in the log yet, since there was no limit when it went: the provider has counted it.
    assert limiter.acquire(2, ["model:a"], 5, ANY, 2.0) == ([2], None)
    assert limiter.acquire(3, ["model:a"], 1, ANY, 2.0) == ([], 61.0)
    assert limiter.stats(2.0)[0][7:9] == ((2, 1), (10, 5))
    assert limiter.wake(61.0) == ([3], None)


def test_what_others_use_of_the_same_allowance_is_not_ours(make: Any) -> None:
    limiter = make({"model": (None, 100, None, 60.0)})
    for ticket in range(10):
        limiter.acquire(ticket, ["model:a"], 0, ANY, 0.0)
    limiter.observe("model:a", 9, False, (100, 20, 30.0), 1.0)  # 80 are used, 70 of them by others
    assert sum(len(limiter.acquire(n, ["model:a"], 0, ANY, 2.0)[0]) for n in range(100, 150)) == 20
    assert limiter.wake(2.0) == ([], 31.0)
    # Of our own requests the provider had counted some more when it answered; they are no one else's.
    assert len(limiter.observe("model:a", 119, False, (100, 70, 30.0), 3.0)[0]) == 30


def test_a_limit_over_a_longer_time_is_left_to_the_provider(make: Any) -> None:
    limiter = make({"model": (None, 100, None, 60.0)})
    limiter.acquire(1, ["model:a"], 0, ANY, 0.0)
    limiter.observe("model:a", 1, False, (10_000, 0, 86_400.0), 1.0)
    limiter.observe("model:a", 1, False, (0, 0, 1.0), 1.0)
    assert limiter.acquire(2, ["model:a"], 0, ANY, 1.0) == ([2], None)


def test_new_rules_apply_to_those_that_wait(make: Any) -> None:
    limiter = make({"model": concurrent(1), "tenant": concurrent(1)})
    limiter.acquire(1, ["model:a", "tenant:x"], 0, ANY, 0.0)
    for ticket in (2, 3, 4):
        limiter.acquire(ticket, ["model:a", "tenant:x"], 0, ANY, 0.0)
    assert limiter.configure({"model": concurrent(1)}, 1e9, 1.0)[0] == []
    assert limiter.configure({"model": concurrent(3)}, 1e9, 1.0)[0] == [2, 3]
    assert limiter.configure({"model": concurrent(1)}, 1e9, 1.0)[0] == []
    assert limiter.release(1, None, 1.0)[0] == limiter.release(2, None, 1.0)[0] == []
    assert limiter.release(3, None, 1.0)[0] == [4]
    assert limiter.configure({}, 1e9, 1.0)[0] == []
    assert all(limiter.acquire(n, ["model:a"], 0, ANY, 1.0)[0] == [n] for n in range(10, 20))


PAUSED = [("pause", 3.0)]
LEARNED = [("observe", 0, False, (1, 0, 3.0)), ("observe", 0, True, (1, 0, 3.0))]


@pytest.mark.parametrize("told", [PAUSED, LEARNED])
def test_without_a_rule_the_providers_word_holds_nobody_up(make: Any, told: list[Any]) -> None:
    rules = {"model": concurrent(5), "model:b": concurrent(5)}
    limiter = make(rules)
    for ticket, key in enumerate(("model:a", "model:b")):
        for method, *word in told:
            getattr(limiter, method)(key, *word, 1.0)
        assert limiter.acquire(ticket, [key], 1, ANY, 1.0) == ([], 4.0)
    assert limiter.configure({"model:b": concurrent(9)}, 1e9, 2.0) == ([0], 4.0)  # it holds where there is a rule
    assert limiter.configure({}, 1e9, 2.0) == ([1], None)
    limiter.configure(rules, 1e9, 2.0)  # and does not come back
    assert limiter.acquire(2, ["model:a"], 1, ANY, 2.0) == ([2], None)


def test_keys_that_nobody_uses_are_forgotten(make: Any) -> None:
    limiter = make({"tenant": (3, 5, None, 1.0)})
    limiter.acquire(0, ["tenant:stays"], 0, ANY, 0.0)
    for number in range(1, 5000):
        limiter.acquire(number, [f"tenant:{number}"], 0, ANY, float(number))
        limiter.release(number, None, float(number))
    found = used(limiter, 5000.0)
    assert len(found) <= 1025
    assert found["tenant:stays"] == (1, 0)


def test_a_clock_that_was_read_earlier_does_no_harm(make: Any) -> None:
    limiter = make({"model": (None, 1, None, 10.0)})
    assert limiter.acquire(1, ["model:a"], 0, ANY, 5.0) == ([1], None)
    assert limiter.acquire(2, ["model:a"], 0, ANY, 4.0) == ([], 15.0)


# Beside a plain model: every decision made anew from a list of all that happened.


@dataclass
class Asked:
    ticket: int
    keys: tuple[str, ...]
    tokens: int
    rank: tuple[int, int]
    since: float


@dataclass
class Plain:
    rules: dict[str, Rule]
    ageing: float
    waiting: list[Asked] = field(default_factory=list)
    running: dict[int, Asked] = field(default_factory=dict)
    log: list[list[Any]] = field(default_factory=list)  # key, time, requests, tokens, ticket
    turns: dict[str, int] = field(default_factory=dict)

    def room(self, key: str, tokens: int, now: float) -> bool:
        at_once, requests, amount, window = self.rules[key.split(":")[0]]
        recent = [entry for entry in self.log if entry[0] == key and entry[1] + window > now]
        return (
            (at_once is None or sum(key in asked.keys for asked in self.running.values()) < at_once)
            and (requests is None or sum(entry[2] for entry in recent) + 1 <= requests)
            and (amount is None or sum(entry[3] for entry in recent) + min(tokens, amount) <= amount)
        )

    def place(self, asked: Asked, now: float) -> tuple[int, ...]:
        oldest = min(other.ticket for other in self.waiting if other.keys == asked.keys) == asked.ticket
        due = all(self.turns.get(key, 0) >= SHARE - 1 for key in asked.keys)
        return (
            (0, asked.ticket) if oldest and due and asked.since + self.ageing <= now else (1, *asked.rank, asked.ticket)
        )

    def grant(self, now: float) -> list[int]:
        granted: list[int] = []
        closed: set[str] = set()
        while open_ := [asked for asked in self.waiting if closed.isdisjoint(asked.keys)]:
            asked = min(open_, key=lambda one: self.place(one, now))
            lacking = {key for key in asked.keys if not self.room(key, asked.tokens, now)}
            closed |= lacking
            if not lacking:
                by_age = self.place(asked, now)[0] == 0
                for key in asked.keys:
                    self.turns[key] = 0 if by_age else self.turns.get(key, 0) + 1
                    self.log.append([key, now, 1, asked.tokens, asked.ticket])
                self.waiting.remove(asked)
                self.running[asked.ticket] = asked
                granted.append(asked.ticket)
        return granted

    def end(self, ticket: int, requests: int, tokens: int | None) -> None:
        self.waiting = [asked for asked in self.waiting if asked.ticket != ticket]
        self.running.pop(ticket, None)
        for entry in self.log:
            if entry[4] == ticket:
                entry[2:4] = requests, entry[3] if tokens is None else tokens


limit = st.none() | st.integers(1, 4)
rules = st.fixed_dictionaries(
    {kind: st.tuples(limit, limit, st.none() | st.integers(5, 40), st.sampled_from([3.0, 10.0])) for kind in "mt"}
)
keys = st.lists(st.sampled_from(["m:a", "m:b", "t:x", "t:y"]), min_size=1, max_size=3, unique=True)


@settings(max_examples=200, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(rules, st.sampled_from([2.0, 8.0, 1e9]), st.data())
def test_core_and_twin_do_what_the_plain_model_does(rules: dict[str, Rule], ageing: float, data: Any) -> None:
    core = pytest.importorskip("fastcrew_async._core", reason="the compiled core is not built here")
    both = [core.Limiter(), InPython()]
    for limiter in both:
        limiter.configure(rules, ageing, 0.0)
    plain = Plain(rules, ageing)
    now = 0.0
    for ticket in range(data.draw(st.integers(1, 40))):
        now += data.draw(st.sampled_from([0.0, 0.0, 0.5, 2.0]))
        known = [*plain.running, *(asked.ticket for asked in plain.waiting)]
        action = data.draw(st.sampled_from(["acquire", "acquire", "release", "cancel", "wake"]))
        if action == "acquire":
            asked = (
                data.draw(keys),
                data.draw(st.integers(0, 50)),
                data.draw(st.tuples(st.integers(0, 2), st.integers(0, 3))),
            )
            turns = [limiter.acquire(ticket, *asked, now) for limiter in both]
            plain.waiting.append(Asked(ticket, tuple(sorted(asked[0])), *asked[1:], now))
        elif action == "wake" or not known:
            turns = [limiter.wake(now) for limiter in both]
        else:
            gone = data.draw(st.sampled_from(known))
            if action == "cancel":
                turns = [limiter.cancel(gone, now) for limiter in both]
                plain.end(gone, 0, 0)
            elif gone in plain.running:
                took = data.draw(st.none() | st.integers(0, 60))
                turns = [limiter.release(gone, took, now) for limiter in both]
                plain.end(gone, 1, took)
            else:
                continue
        assert turns[0] == turns[1]
        granted, following = turns[0]
        assert granted == plain.grant(now)
        assert both[0].stats(now) == both[1].stats(now)
        assert following is None or (following > now and plain.waiting)
    # Whatever waits is served in the end.
    for _ in range(200):
        for running in list(plain.running):
            for limiter in both:
                granted = limiter.release(running, None, now)[0]
            plain.end(running, 1, None)
            assert granted == plain.grant(now)
        if not plain.waiting:
            break
        turns = [limiter.wake(now) for limiter in both]
        assert turns[0] == turns[1]
        assert turns[0][0] == plain.grant(now)
        if not plain.running:
            assert turns[0][1] is not None, "something waits, nothing runs, and no time is given: it would never end"
            now = turns[0][1]
            turns = [limiter.wake(now) for limiter in both]
            assert turns[0] == turns[1]
            assert turns[0][0] == plain.grant(now)
    assert not plain.waiting
