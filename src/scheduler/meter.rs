//! An amount within a rolling window: what was let through, and what a provider says that others have used.

use std::collections::VecDeque;

#[derive(Default)]
pub struct Meter {
    /// The most within a window, as configured.
    pub limit: Option<u64>,
    /// The most within a window, as the provider says, for all its users together.
    learned: Option<u64>,
    /// What the provider counts beyond what is counted here, until when.
    foreign: u64,
    foreign_until: f64,
    log: VecDeque<(f64, u64)>,
    /// The number of the log's first entry; entries are numbered as they come.
    first: u64,
    used: u64,
}

/// An entry of the log: its number, and what had been used with it.
#[derive(Clone, Copy)]
pub struct Entry {
    pub number: u64,
    pub used: u64,
}

impl Meter {
    /// The lower of what is configured and what is learned.
    pub fn cap(&self) -> Option<u64> {
        match (self.limit, self.learned) {
            (Some(limit), Some(learned)) => Some(limit.min(learned)),
            (limit, learned) => limit.or(learned),
        }
    }

    pub fn used(&self) -> u64 {
        self.used
    }

    pub fn is_empty(&self) -> bool {
        self.log.is_empty()
    }

    /// Forget what has left the window.
    pub fn expire(&mut self, now: f64, window: f64) {
        while let Some(&(time, cost)) = self.log.front() {
            if time + window > now {
                break;
            }
            self.log.pop_front();
            self.first += 1;
            self.used -= cost;
        }
    }

    /// Whether `cost` fits. More than the whole limit fits into an empty window.
    pub fn fits(&self, cost: u64, now: f64) -> bool {
        over(self.limit, cost, self.used) == 0
            && over(self.learned, cost, self.used + self.foreign(now)) == 0
    }

    /// When `cost` will fit, if nothing else goes through.
    pub fn when(&self, cost: u64, now: f64, window: f64) -> f64 {
        let own = self.left_by(over(self.limit, cost, self.used), now, window);
        let foreign = self.foreign(now);
        let with = over(self.learned, cost, self.used + foreign);
        let mut all = self.left_by(with, now, window);
        if foreign > 0 {
            let without = over(self.learned, cost, self.used);
            let after = self.left_by(without, now, window).max(self.foreign_until);
            all = all.min(after);
        }
        own.max(all)
    }

    /// Let `cost` through; what is not limited is not noted.
    pub fn add(&mut self, cost: u64, now: f64) -> Option<Entry> {
        self.cap()?;
        self.log.push_back((now, cost));
        self.used += cost;
        Some(Entry {
            number: self.first + self.log.len() as u64 - 1,
            used: self.used,
        })
    }

    /// The cost of an entry turned out to be another one.
    pub fn amend(&mut self, number: u64, cost: u64) {
        let Some(index) = number.checked_sub(self.first) else {
            return; // it has left the window
        };
        if let Some(entry) = self.log.get_mut(index as usize) {
            self.used = self.used - entry.1 + cost;
            entry.1 = cost;
        }
    }

    /// An entry went out only now; what came after it may not leave the window before it.
    pub fn postpone(&mut self, number: u64, now: f64) {
        let Some(index) = number.checked_sub(self.first) else {
            return;
        };
        if let Some(entry) = self.log.get_mut(index as usize) {
            entry.0 = entry.0.max(now);
        }
    }

    /// The provider's word: of `limit`, `remaining` were left when `own` had been used here; all of it is back after
    /// `reset` seconds. A limit over a longer time than the window is none of this meter. Says whether the limit is
    /// another than it was.
    pub fn observe(
        &mut self,
        (limit, remaining, reset): (u64, u64, f64),
        own: u64,
        now: f64,
        window: f64,
    ) -> bool {
        if limit == 0 || reset > window {
            return false;
        }
        let known = self.learned.replace(limit);
        self.foreign = limit.saturating_sub(remaining).saturating_sub(own);
        self.foreign_until = now + reset;
        known != Some(limit)
    }

    /// Forget the provider's word.
    pub fn unlearn(&mut self) {
        self.learned = None;
        self.foreign = 0;
    }

    fn foreign(&self, now: f64) -> u64 {
        if now < self.foreign_until {
            self.foreign
        } else {
            0
        }
    }

    /// When as much as `amount` will have left the window.
    fn left_by(&self, amount: u64, now: f64, window: f64) -> f64 {
        if amount == 0 {
            return now;
        }
        let mut left = 0;
        for &(time, cost) in &self.log {
            left += cost;
            if left >= amount {
                return time + window;
            }
        }
        f64::INFINITY
    }
}

/// By how much `cost`, on top of what is used, is too much.
fn over(limit: Option<u64>, cost: u64, used: u64) -> u64 {
    limit.map_or(0, |limit| (used + cost.min(limit)).saturating_sub(limit))
}
