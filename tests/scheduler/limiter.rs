//! The limiter in every order in which threads may come to it: no permit is lost or given twice, nobody sleeps on.
//!
//! The sources are compiled into this test with the model checker's lock in the place of the standard library's.
#![allow(dead_code)]

mod lock {
    pub use loom::sync::Mutex;
}
mod logs {
    pub const LIMITS: &str = "nobody listens";
}
#[path = "../../src/scheduler/limiter.rs"]
mod limiter;
#[path = "../../src/scheduler/limits.rs"]
mod limits;
#[path = "../../src/scheduler/meter.rs"]
mod meter;

use limiter::Limiter;
use limits::{Rule, Turn};
use loom::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;
use std::collections::{HashMap, HashSet};

const RANK: (i64, u64) = (0, 0);

/// The limiter as its users have it: each ticket has a way to be woken before it asks.
struct Shared {
    limiter: Limiter,
    woken: Mutex<HashSet<u64>>,
    rang: Condvar,
    inside: AtomicUsize,
}

impl Shared {
    fn new(concurrent: u64) -> Arc<Self> {
        let shared = Self {
            limiter: Limiter::default(),
            woken: Mutex::new(HashSet::new()),
            rang: Condvar::new(),
            inside: AtomicUsize::new(0),
        };
        shared.configure(concurrent);
        Arc::new(shared)
    }

    fn configure(&self, concurrent: u64) {
        let rule = Rule {
            concurrent: Some(concurrent),
            ..Rule::default()
        };
        self.wake(
            self.limiter
                .configure(HashMap::from([("model".to_owned(), rule)]), 1e9, 0.0),
        );
    }

    fn wake(&self, turn: Turn) {
        if turn.granted.is_empty() {
            return;
        }
        self.woken.lock().unwrap().extend(turn.granted);
        self.rang.notify_all();
    }

    /// A whole request; loom finds the orders in which it would wait for ever.
    fn request(&self, ticket: u64, most: usize) {
        self.wake(
            self.limiter
                .acquire(ticket, &["model".to_owned()], 0, RANK, 0.0),
        );
        let mut woken = self.woken.lock().unwrap();
        while !woken.remove(&ticket) {
            woken = self.rang.wait(woken).unwrap();
        }
        drop(woken);
        assert!(self.inside.fetch_add(1, SeqCst) < most);
        self.inside.fetch_sub(1, SeqCst);
        self.wake(self.limiter.release(ticket, None, 0.0));
    }

    /// A request that is given up at once, whether it was granted in the meantime or not.
    fn give_up(&self, ticket: u64) {
        self.wake(
            self.limiter
                .acquire(ticket, &["model".to_owned()], 0, RANK, 0.0),
        );
        self.wake(self.limiter.cancel(ticket, 0.0));
    }

    fn assert_free(&self) {
        let stats = self.limiter.stats(0.0);
        assert_eq!((stats[0].used, stats[0].waiting), (0, 0));
    }
}

#[test]
fn nobody_is_left_waiting_and_no_permit_is_given_twice() {
    loom::model(|| {
        let shared = Shared::new(1);
        let other = shared.clone();
        let thread = thread::spawn(move || other.request(1, 1));
        shared.request(2, 1);
        thread.join().unwrap();
        shared.assert_free();
    });
}

#[test]
fn one_that_gives_up_leaves_its_permit_to_the_next() {
    loom::model(|| {
        let shared = Shared::new(1);
        shared
            .limiter
            .acquire(9, &["model".to_owned()], 0, RANK, 0.0);
        let other = shared.clone();
        let thread = thread::spawn(move || other.give_up(1));
        shared.wake(shared.limiter.release(9, None, 0.0));
        shared.request(2, 1);
        thread.join().unwrap();
        shared.assert_free();
    });
}

#[test]
fn a_higher_limit_lets_those_in_who_wait() {
    loom::model(|| {
        let shared = Shared::new(1);
        shared
            .limiter
            .acquire(9, &["model".to_owned()], 0, RANK, 0.0); // and keeps it
        let other = shared.clone();
        let thread = thread::spawn(move || other.request(1, 1));
        shared.configure(2);
        thread.join().unwrap();
        shared.limiter.release(9, None, 0.0);
        shared.assert_free();
    });
}
