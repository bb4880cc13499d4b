//! The completion queue of one event loop: finished work waits here, as owned values, for the loop to collect it.
//!
//! No Python object is in here, so a push never waits for the interpreter.

use super::inbox::Inbox;
use super::value::Value;
use super::wake::Wake;
use crate::error::Error;
use crate::runtime::Permit;
use std::sync::Arc;

/// A finished operation. `None` says that the loop's side holds the answer already, as a Python object.
pub struct Completion {
    pub id: u64,
    pub outcome: Option<Result<Value, Error>>,
}

/// What is finished, of one loop.
pub type CompletionQueue = Inbox<Completion, Wake>;

/// The right, and the duty, to complete one operation once: from any thread, without Python.
///
/// Dropped unused, it completes with [`Error::RuntimeClosed`], so that nobody waits for an answer that cannot come.
pub struct Completer {
    queue: Arc<CompletionQueue>,
    id: u64,
    done: bool,
    // Given back after the push: a closing runtime waits for it.
    _permit: Permit,
}

impl Completer {
    pub fn new(queue: Arc<CompletionQueue>, id: u64, permit: Permit) -> Self {
        Self {
            queue,
            id,
            done: false,
            _permit: permit,
        }
    }

    pub fn complete(mut self, outcome: Result<Value, Error>) {
        self.finish(Some(outcome));
    }

    /// Says that the answer lies on the loop's side, as a Python object.
    pub fn complete_held(mut self) {
        self.finish(None);
    }

    fn finish(&mut self, outcome: Option<Result<Value, Error>>) {
        self.done = true;
        self.queue.push(Completion {
            id: self.id,
            outcome,
        });
    }
}

impl Drop for Completer {
    fn drop(&mut self) {
        if !self.done {
            self.finish(Some(Err(Error::RuntimeClosed)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bridge::inbox::{Bell, Taken};
    use std::sync::mpsc::{channel, Receiver};

    fn queue() -> (CompletionQueue, Receiver<usize>) {
        let (to, wakes) = channel();
        (CompletionQueue::new(Wake::Messenger { to, key: 7 }), wakes)
    }

    fn completion(id: u64) -> Completion {
        Completion {
            id,
            outcome: Some(Ok(Value::None)),
        }
    }

    fn ids(taken: &Taken<Completion>) -> Vec<u64> {
        taken.items.iter().map(|c| c.id).collect()
    }

    #[test]
    fn a_burst_wakes_once_and_keeps_its_order() {
        let (queue, wakes) = queue();
        for id in 0..5 {
            queue.push(completion(id));
        }
        assert_eq!(wakes.try_iter().count(), 1);
        assert_eq!(ids(&queue.take(100)), [0, 1, 2, 3, 4]);
        queue.push(completion(5));
        assert_eq!(wakes.try_iter().count(), 1);
    }

    #[test]
    fn what_is_left_behind_wakes_again() {
        let (queue, wakes) = queue();
        for id in 0..5 {
            queue.push(completion(id));
        }
        assert_eq!(wakes.try_iter().count(), 1);
        assert_eq!(ids(&queue.take(3)), [0, 1, 2]);
        assert_eq!(wakes.try_iter().count(), 1);
        assert_eq!(ids(&queue.take(3)), [3, 4]);
        assert_eq!(wakes.try_iter().count(), 0);
    }

    #[test]
    fn close_delivers_what_is_inside_and_refuses_the_rest() {
        let (queue, _wakes) = queue();
        queue.push(completion(1));
        queue.push(completion(2));
        queue.close();
        queue.push(completion(3));
        let first = queue.take(1);
        assert_eq!((ids(&first), first.finished), (vec![1], false));
        let last = queue.take(1);
        assert_eq!((ids(&last), last.finished), (vec![2], true));
    }

    #[test]
    fn a_dropped_completer_answers_that_the_runtime_is_closed() {
        let (queue, _wakes) = queue();
        let queue = Arc::new(queue);
        let permit = crate::runtime::Intake::default().enter().unwrap();
        drop(Completer::new(queue.clone(), 9, permit));
        let taken = queue.take(10);
        assert_eq!(taken.items[0].outcome, Some(Err(Error::RuntimeClosed)));
    }

    #[test]
    fn an_expected_visit_needs_no_wake_and_is_expected_once() {
        let (queue, wakes) = queue();
        assert!(queue.expect());
        assert!(!queue.expect());
        queue.push(completion(1));
        assert_eq!(wakes.try_iter().count(), 0);
        assert_eq!(ids(&queue.take(10)), [1]);
        queue.push(completion(2));
        assert_eq!(wakes.try_iter().count(), 1);
        assert!(queue.expect());
        assert_eq!(ids(&queue.take(10)), [2]);
    }

    #[cfg(unix)]
    #[test]
    fn the_descriptor_is_readable_only_while_signalled() {
        use crate::bridge::wake::Descriptor;
        let wake = Wake::Descriptor(Descriptor::new().unwrap());
        wake.signal();
        wake.signal();
        wake.clear();
        wake.clear();
    }
}
