//! Counts the operations in flight, and can be closed: a closing runtime refuses new ones and waits for the rest.

use crate::error::Error;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// The bit of the count that says "closed"; the bits below it are the operations in flight.
const CLOSED: usize = 1 << (usize::BITS - 1);

#[derive(Default)]
struct Count {
    count: AtomicUsize,
    empty: Mutex<()>,
    changed: Condvar,
}

#[derive(Clone, Default)]
pub struct Intake(Arc<Count>);

impl Intake {
    /// Counts one more operation, until the permit is dropped.
    pub fn enter(&self) -> Result<Permit, Error> {
        let before = self.0.count.fetch_add(1, SeqCst);
        let permit = Permit(self.0.clone());
        if before & CLOSED == 0 {
            Ok(permit)
        } else {
            Err(Error::RuntimeClosed)
        }
    }

    pub fn in_flight(&self) -> usize {
        self.0.count.load(SeqCst) & !CLOSED
    }

    pub fn is_closed(&self) -> bool {
        self.0.count.load(SeqCst) & CLOSED != 0
    }

    /// Refuses new operations from now on; `false` if it was closed already.
    pub fn close(&self) -> bool {
        self.0.count.fetch_or(CLOSED, SeqCst) & CLOSED == 0
    }

    /// Waits until nothing is in flight, at most `timeout`; says whether that was reached.
    pub fn drain(&self, timeout: Duration) -> bool {
        let guard = self.0.empty.lock().unwrap_or_else(PoisonError::into_inner);
        let (_guard, wait) = self
            .0
            .changed
            .wait_timeout_while(guard, timeout, |()| self.in_flight() > 0)
            .unwrap_or_else(PoisonError::into_inner);
        !wait.timed_out()
    }
}

/// One operation in flight.
pub struct Permit(Arc<Count>);

impl Drop for Permit {
    fn drop(&mut self) {
        if self.0.count.fetch_sub(1, SeqCst) == CLOSED | 1 {
            // Taking the lock orders this after the waiter's check, so that the signal is not lost.
            drop(self.0.empty.lock().unwrap_or_else(PoisonError::into_inner));
            self.0.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_intake_refuses_and_drains() {
        let intake = Intake::default();
        let permit = intake.enter().unwrap();
        assert!(intake.close());
        assert!(!intake.close());
        assert!(matches!(intake.enter(), Err(Error::RuntimeClosed)));
        assert!(!intake.drain(Duration::from_millis(1)));
        let waiter = {
            let intake = intake.clone();
            std::thread::spawn(move || intake.drain(Duration::from_secs(10)))
        };
        drop(permit);
        assert!(waiter.join().unwrap());
        assert_eq!(intake.in_flight(), 0);
    }
}
