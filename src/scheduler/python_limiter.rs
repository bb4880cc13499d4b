//! The limits as Python sees them.

use super::limiter;
use super::limits::{Rule, Turn};
use pyo3::prelude::*;
use std::collections::HashMap;

type Granted = (Vec<u64>, Option<f64>);
type RuleOfKey = (Option<u64>, Option<u64>, Option<u64>, f64);
type Metered = (Option<u64>, u64);
type StatsOfKey = (
    String,
    Option<u64>,
    u64,
    u64,
    u64,
    f64,
    u64,
    Metered,
    Metered,
    f64,
);

impl From<Turn> for Granted {
    fn from(turn: Turn) -> Self {
        (turn.granted, turn.next)
    }
}

/// How much of each key may be used, and who of those that wait is next.
///
/// The lock inside is only taken by threads that hold the GIL, and never for longer than one step.
#[pyclass(frozen, module = "fastcrew_async._core")]
pub struct Limiter(limiter::Limiter);

#[pymethods]
impl Limiter {
    #[new]
    fn new() -> Self {
        Self(limiter::Limiter::default())
    }

    /// Put other rules in force: concurrent, requests, tokens and window by key or kind of key.
    fn configure(&self, rules: HashMap<String, RuleOfKey>, ageing: f64, now: f64) -> Granted {
        let rules = rules
            .into_iter()
            .map(|(name, (concurrent, requests, tokens, window))| {
                let rule = Rule {
                    concurrent,
                    requests,
                    tokens,
                    window,
                };
                (name, rule)
            })
            .collect();
        self.0.configure(rules, ageing, now).into()
    }

    /// Ask for one request under all of the keys, all or nothing.
    fn acquire(
        &self,
        ticket: u64,
        keys: Vec<String>,
        tokens: u64,
        rank: (i64, u64),
        now: f64,
    ) -> Granted {
        self.0.acquire(ticket, &keys, tokens, rank, now).into()
    }

    /// The request is over; it took so many tokens, or as many as reserved.
    fn release(&self, ticket: u64, tokens: Option<u64>, now: f64) -> Granted {
        self.0.release(ticket, tokens, now).into()
    }

    /// The request goes out to the provider now.
    fn sent(&self, ticket: u64, now: f64) {
        self.0.sent(ticket, now);
    }

    /// The request will not be made.
    fn cancel(&self, ticket: u64, now: f64) -> Granted {
        self.0.cancel(ticket, now).into()
    }

    /// What the provider says of its limit, what remains of it, and the seconds until it is whole.
    fn observe(
        &self,
        key: &str,
        ticket: u64,
        of_tokens: bool,
        word: (u64, u64, f64),
        now: f64,
    ) -> Granted {
        self.0.observe(key, ticket, of_tokens, word, now).into()
    }

    /// Nothing goes under this key for so many seconds.
    fn pause(&self, key: &str, seconds: f64, now: f64) -> Granted {
        self.0.pause(key, seconds, now).into()
    }

    /// Time has passed.
    fn wake(&self, now: f64) -> Granted {
        self.0.wake(now).into()
    }

    /// All keys in use, by their names.
    fn stats(&self, now: f64) -> Vec<StatsOfKey> {
        self.0
            .stats(now)
            .into_iter()
            .map(|key| {
                (
                    key.name,
                    key.concurrent,
                    key.used,
                    key.waiting,
                    key.granted,
                    key.waited,
                    key.reserved,
                    key.requests,
                    key.tokens,
                    key.paused,
                )
            })
            .collect()
    }
}
