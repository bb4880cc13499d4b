//! When what has failed is tried again.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// The retries of one run: each task has its attempts, and all of them share a budget, so that a service that is down
/// is not asked by every task as often as each may ask.
pub struct Retries {
    attempts: u32,
    backoff: f64,
    longest: f64,
    left: AtomicU32,
}

impl Retries {
    /// `attempts` of one task, the first included; `backoff` and `longest` in seconds; `budget` retries in all.
    pub fn new(attempts: u32, backoff: f64, longest: f64, budget: u32) -> Self {
        Self {
            attempts,
            backoff,
            longest,
            left: AtomicU32::new(budget),
        }
    }

    /// Seconds until the next attempt of a task that has failed `failures` times, or None when that was the last one.
    ///
    /// The wait doubles with each failure up to the longest one. Its second half is multiplied with `chance`, 0 to 1,
    /// so that tasks that failed together do not come back together.
    pub fn failed(&self, failures: u32, chance: f64) -> Option<f64> {
        if failures >= self.attempts {
            return None;
        }
        self.left
            .fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1))
            .ok()?;
        let doubled = self.backoff * 2f64.powi(failures.saturating_sub(1).min(1000) as i32);
        Some(doubled.min(self.longest) * (0.5 + 0.5 * chance))
    }

    /// Retries that the run still has.
    pub fn left(&self) -> u32 {
        self.left.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::Retries;

    #[test]
    fn the_wait_doubles_up_to_the_longest() {
        let retries = Retries::new(9, 1.0, 5.0, 99);
        let waits: Vec<_> = (1..6).map(|n| retries.failed(n, 1.0)).collect();
        assert_eq!(waits, [1.0, 2.0, 4.0, 5.0, 5.0].map(Some));
        assert_eq!(retries.failed(1, 0.0), Some(0.5));
    }

    #[test]
    fn the_budget_is_shared_by_threads_and_never_overdrawn() {
        let retries = Retries::new(2, 0.0, 0.0, 1000);
        let granted: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        (0..500)
                            .filter(|_| retries.failed(1, 0.0).is_some())
                            .count()
                    })
                })
                .collect();
            threads.into_iter().map(|each| each.join().unwrap()).sum()
        });
        assert_eq!((granted, retries.left()), (1000, 0));
    }
}
