"""What the process is doing now: ``fastcrew_async.stats()``."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastcrew_async import limits as _limits
from fastcrew_async import tools as _tools

if TYPE_CHECKING:
    from fastcrew_async.engine.turnstile import TurnstileStats


@dataclass(frozen=True)
class LimitStats:
    """One key of the limits. A limit of None is none."""

    concurrent: int | None
    """The most at the same time."""
    used: int
    """Calls (or kickoffs) under way."""
    waiting: int
    """Those that wait."""
    granted: int
    """Those let through so far, with those under way."""
    waited_seconds: float
    """How long all that were let through had waited, together."""
    reserved: int
    """Tokens that the calls under way are expected to take."""
    requests: int
    """Calls within the window that ends now."""
    requests_limit: int | None
    """The most, as configured or as the provider says, whichever is less."""
    tokens: int
    """Tokens within the window that ends now, with those reserved."""
    tokens_limit: int | None
    """The most, as with the requests."""
    paused_seconds: float
    """For how long nothing will be let through, since the provider has refused (429)."""
    refused: int
    """Answers with 429 so far."""


@dataclass(frozen=True)
class WorkerStats:
    """The worker pool: threads, jobs under way and waiting now; done and abandoned so far; abandoned, still going."""

    workers: int
    running: int
    waiting: int
    done: int
    abandoned: int
    still_running: int


@dataclass(frozen=True)
class ToolStats:
    """One tool, so far; see :func:`fastcrew_async.tools.stats`."""

    calls: int
    errors: int
    timeouts: int
    cache_hits: int
    abandoned: int
    """Sync calls that went on after their timeout or a cancellation."""
    seconds: float
    """In all calls together, waiting included."""


@dataclass(frozen=True)
class RunStats:
    """Kickoffs of crews and agents under way in this process, and those of ``AsyncCrew.start`` among them."""

    running: int
    started: int


@dataclass(frozen=True)
class Stats:
    """A snapshot."""

    limits: dict[str, LimitStats]
    """By key, those that were asked for lately."""
    workers: WorkerStats
    turnstile: TurnstileStats | None
    """The turnstile of the running event loop; None where none is running."""
    runs: RunStats
    tools: dict[str, ToolStats]
    """By name, those that were called."""


def stats() -> Stats:
    """What the process is doing now. Costs some microseconds, from any thread."""
    return Stats(_limit_stats(), _worker_stats(), _turnstile_stats(), _run_stats(), _tool_stats())


def _limit_stats() -> dict[str, LimitStats]:
    permits = _limits.active
    if permits is None:
        return {}
    return {
        name.rstrip(":"): LimitStats(
            concurrent,
            used,
            waiting,
            granted,
            waited,
            reserved,
            requests[1],
            requests[0],
            tokens[1],
            tokens[0],
            paused,
            permits.refused[name],
        )
        for name, concurrent, used, waiting, granted, waited, reserved, requests, tokens, paused in permits.stats()
    }


def _worker_stats() -> WorkerStats:
    workers = sys.modules.get("fastcrew_async.workers")
    pool = None if workers is None else workers._pool
    return WorkerStats(0, 0, 0, 0, 0, 0) if pool is None else WorkerStats(**pool.stats())


def _turnstile_stats() -> TurnstileStats | None:
    turnstile = sys.modules.get("fastcrew_async.engine.turnstile")
    if turnstile is None or sys.modules["asyncio"]._get_running_loop() is None:
        return None
    found: TurnstileStats = turnstile.turnstile().stats()
    return found


def _run_stats() -> RunStats:
    collector = sys.modules.get("fastcrew_async.engine.collector")
    run = sys.modules.get("fastcrew_async.run")
    return RunStats(
        0 if collector is None else collector._state.running,
        0 if run is None else run.under_way(),
    )


def _tool_stats() -> dict[str, ToolStats]:
    return {name: ToolStats(**found) for name, found in _tools.stats().items()}
