//! What waits for one event loop: any thread pushes, only the loop's thread takes.
//!
//! The first push into an empty inbox wakes the loop, so a burst costs one wake, and none when the loop is about to look
//! anyway.

use super::lock::{Mutex, MutexGuard};
use std::collections::VecDeque;
use std::sync::PoisonError;

/// How a sleeping loop is woken.
pub trait Bell {
    fn signal(&self);
    fn clear(&self);
}

/// What one visit of the loop took out.
pub struct Taken<T> {
    pub items: VecDeque<T>,
    /// The inbox is closed and this was its last content: nothing else will ever come.
    pub finished: bool,
}

struct State<T> {
    waiting: VecDeque<T>,
    /// The loop was woken and has not come yet.
    signalled: bool,
    /// The loop has promised to come without being woken.
    expected: bool,
    closed: bool,
}

pub struct Inbox<T, B> {
    state: Mutex<State<T>>,
    bell: B,
}

impl<T, B: Bell> Inbox<T, B> {
    pub fn new(bell: B) -> Self {
        let state = State {
            waiting: VecDeque::new(),
            signalled: false,
            expected: false,
            closed: false,
        };
        Self {
            state: Mutex::new(state),
            bell,
        }
    }

    pub fn bell(&self) -> &B {
        &self.bell
    }

    /// Adds an item and wakes the loop if it may be asleep; after `close` it does nothing.
    pub fn push(&self, item: T) {
        let mut state = self.lock();
        if !state.closed {
            state.waiting.push_back(item);
            self.signal(&mut state);
        }
    }

    /// Promises that the loop will look soon, so that nobody needs to wake it; `false` if that was said already.
    pub fn expect(&self) -> bool {
        !std::mem::replace(&mut self.lock().expected, true)
    }

    /// Takes up to `limit` items, oldest first. What is left behind wakes the loop again, so that the host's own
    /// callbacks run in between.
    pub fn take(&self, limit: usize) -> Taken<T> {
        let mut state = self.lock();
        state.expected = false;
        if std::mem::take(&mut state.signalled) {
            self.bell.clear();
        }
        let items = if state.waiting.len() <= limit {
            std::mem::take(&mut state.waiting)
        } else {
            state.waiting.drain(..limit).collect()
        };
        let left = !state.waiting.is_empty();
        if left {
            self.signal(&mut state);
        }
        Taken {
            items,
            finished: state.closed && !left,
        }
    }

    /// Refuses later pushes; what is inside can still be taken. The loop is woken to see it.
    pub fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        self.signal(&mut state);
    }

    // Under the lock, so that the bell rings exactly while `signalled` says so.
    fn signal(&self, state: &mut State<T>) {
        if !state.signalled && !state.expected {
            state.signalled = true;
            self.bell.signal();
        }
    }

    pub fn is_closed(&self) -> bool {
        self.lock().closed
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // Nothing panics while the lock is held, and the state is consistent after each step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
