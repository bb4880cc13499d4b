//! The completion queue in every order in which threads may come to it: no answer is lost or given twice, and the loop
//! never sleeps on one.
//!
//! The sources are compiled into this test with the model checker's lock in the place of the standard library's.
#![allow(dead_code)]

mod lock {
    pub use loom::sync::{Mutex, MutexGuard};
}
#[path = "../../src/bridge/inbox.rs"]
mod inbox;

use inbox::{Bell, Inbox};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

/// A loop that sleeps until its descriptor is readable.
struct Ring {
    rung: Mutex<bool>,
    changed: Condvar,
}

impl Ring {
    fn new() -> Self {
        Self {
            rung: Mutex::new(false),
            changed: Condvar::new(),
        }
    }

    fn wait(&self) {
        let mut rung = self.rung.lock().unwrap();
        while !*rung {
            rung = self.changed.wait(rung).unwrap();
        }
    }
}

impl Bell for Ring {
    fn signal(&self) {
        *self.rung.lock().unwrap() = true;
        self.changed.notify_all();
    }

    fn clear(&self) {
        *self.rung.lock().unwrap() = false;
    }
}

type Queue = Arc<Inbox<usize, Ring>>;

fn queue() -> Queue {
    Arc::new(Inbox::new(Ring::new()))
}

/// Takes as the loop does, whenever it is woken, until `count` have come.
fn collect(queue: &Queue, count: usize, limit: usize) -> Vec<usize> {
    let mut found = Vec::new();
    while found.len() < count {
        queue.bell().wait();
        found.extend(queue.take(limit).items);
    }
    found
}

#[test]
fn every_answer_wakes_the_loop_that_may_sleep() {
    loom::model(|| {
        let queue = queue();
        let threads: Vec<_> = (0..2)
            .map(|id| {
                let queue = queue.clone();
                thread::spawn(move || queue.push(id))
            })
            .collect();
        let mut found = collect(&queue, 2, 1);
        found.sort_unstable();
        assert_eq!(found, [0, 1]);
        for thread in threads {
            thread.join().unwrap();
        }
        assert!(queue.take(9).items.is_empty());
    });
}

#[test]
fn a_promised_visit_misses_nothing() {
    loom::model(|| {
        let queue = queue();
        assert!(queue.expect());
        let other = queue.clone();
        let thread = thread::spawn(move || other.push(7));
        let mut found: Vec<usize> = queue.take(9).items.into(); // the visit that was promised
        if found.is_empty() {
            found = collect(&queue, 1, 9);
        }
        assert_eq!(found, [7]);
        thread.join().unwrap();
    });
}

#[test]
fn what_comes_while_it_closes_is_delivered_or_dropped_and_the_end_is_told_once_it_is_empty() {
    loom::model(|| {
        let queue = queue();
        let other = queue.clone();
        let pushing = thread::spawn(move || other.push(7));
        let other = queue.clone();
        let closing = thread::spawn(move || other.close());
        let mut found = Vec::new();
        loop {
            queue.bell().wait();
            let taken = queue.take(9);
            found.extend(taken.items);
            if taken.finished {
                break;
            }
        }
        pushing.join().unwrap();
        closing.join().unwrap();
        let late = queue.take(9);
        assert!(late.items.is_empty() && late.finished);
        assert!(found.is_empty() || found == [7]);
    });
}
