//! The limits of a process, shared by its threads.
//!
//! Whoever waits has put a way to be woken under its ticket's number before it asks. Each call is one section under
//! the lock, and gives its caller all tickets that became free by it; the caller wakes those. Nothing waits in here.

use super::limits::{KeyStats, Limits, Rule, Turn};
use super::lock::Mutex;
use std::collections::HashMap;
use std::sync::PoisonError;

#[derive(Default)]
pub struct Limiter(Mutex<Limits>);

impl Limiter {
    pub fn configure(&self, rules: HashMap<String, Rule>, ageing: f64, now: f64) -> Turn {
        self.with(|limits| limits.configure(rules, ageing, now))
    }

    pub fn acquire(
        &self,
        ticket: u64,
        keys: &[String],
        tokens: u64,
        rank: (i64, u64),
        now: f64,
    ) -> Turn {
        self.with(|limits| limits.acquire(ticket, keys, tokens, rank, now))
    }

    pub fn release(&self, ticket: u64, tokens: Option<u64>, now: f64) -> Turn {
        self.with(|limits| limits.release(ticket, tokens, now))
    }

    pub fn sent(&self, ticket: u64, now: f64) {
        self.with(|limits| limits.sent(ticket, now));
    }

    pub fn cancel(&self, ticket: u64, now: f64) -> Turn {
        self.with(|limits| limits.cancel(ticket, now))
    }

    pub fn observe(
        &self,
        key: &str,
        ticket: u64,
        of_tokens: bool,
        word: (u64, u64, f64),
        now: f64,
    ) -> Turn {
        self.with(|limits| limits.observe(key, ticket, of_tokens, word, now))
    }

    pub fn pause(&self, key: &str, seconds: f64, now: f64) -> Turn {
        self.with(|limits| limits.pause(key, seconds, now))
    }

    pub fn wake(&self, now: f64) -> Turn {
        self.with(|limits| limits.wake(now))
    }

    pub fn stats(&self, now: f64) -> Vec<KeyStats> {
        self.with(|limits| limits.stats(now))
    }

    fn with<T>(&self, work: impl FnOnce(&mut Limits) -> T) -> T {
        // Nothing panics while the lock is held, and the state is consistent after each step.
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
