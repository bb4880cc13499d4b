//! The places of workers and the jobs that wait for them: which job is next, and when another worker is needed.
//!
//! Jobs and workers are counted under one lock, so a job is never left without a worker that will come for it. Jobs put
//! by a job ("nested") go first and may exceed the limit of workers: the job that waits for them holds a worker
//! meanwhile, and would hold it for ever otherwise.
//!
//! Jobs belong to groups (a tool each). The next job is one of the group with the fewest running, and a named group never
//! has more running than its share of the workers, so that a slow tool leaves room for the others.
//!
//! A job that is abandoned while it runs goes on to its end. Up to `abandoned` such jobs do not count against the limit
//! of workers: others take their places.

use super::lock::{Condvar, Mutex, MutexGuard};
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

struct Group<J> {
    /// Waiting jobs, the oldest first.
    jobs: BTreeMap<u64, J>,
    running: usize,
}

struct State<J> {
    /// Those with jobs; "" is of the jobs that belong to no tool, and is without a share.
    groups: BTreeMap<Arc<str>, Group<J>>,
    nested: BTreeMap<u64, J>,
    tickets: u64,
    workers: usize,
    running: usize,
    /// Of the running ones, those that nobody waits for any more; and such calls on threads of others.
    held: usize,
    done: u64,
    abandoned: u64,
    closed: bool,
}

/// How many threads there may be.
#[derive(Clone, Copy)]
pub struct Limits {
    pub workers: usize,
    pub abandoned: usize,
}

impl Limits {
    /// How many workers one group may hold: three quarters, and one at least.
    fn share(self) -> usize {
        (self.workers - self.workers.div_ceil(4)).max(1)
    }
}

impl<J> State<J> {
    /// How many jobs of a group could run at once if there were workers.
    fn runnable(name: &str, group: &Group<J>, limits: Limits) -> usize {
        let waiting = group.jobs.len();
        if name.is_empty() {
            waiting
        } else {
            waiting.min(limits.share().saturating_sub(group.running))
        }
    }

    /// Counts a worker more if the jobs that wait need one; the caller then starts it.
    fn grow(&mut self, limits: Limits, nested: bool) -> bool {
        let available = self.workers - self.running;
        let wanted = if nested {
            self.nested.len() > available
        } else if self.workers < self.most(limits) {
            let runnable: usize = self
                .groups
                .iter()
                .map(|(name, group)| Self::runnable(name, group, limits))
                .sum();
            runnable + self.nested.len() > available
        } else {
            false
        };
        self.workers += usize::from(wanted);
        wanted
    }

    fn most(&self, limits: Limits) -> usize {
        limits.workers + self.held.min(limits.abandoned)
    }

    /// The next job, which counts as running.
    fn next(&mut self, limits: Limits) -> Option<J> {
        if let Some((_, job)) = self.nested.pop_first() {
            self.running += 1;
            return Some(job);
        }
        if self.workers > self.most(limits) {
            return None;
        }
        let (_, group) = self
            .groups
            .iter_mut()
            .filter(|(name, group)| Self::runnable(name, group, limits) > 0)
            .min_by_key(|(_, group)| (group.running, group.jobs.keys().next().copied()))?;
        let (_, job) = group.jobs.pop_first()?;
        group.running += 1;
        self.running += 1;
        Some(job)
    }

    fn waiting(&self) -> usize {
        let jobs: usize = self.groups.values().map(|group| group.jobs.len()).sum();
        jobs + self.nested.len()
    }

    /// Takes a waiting job out.
    fn remove(&mut self, slip: &Slip) -> Option<J> {
        let Some(name) = &slip.group else {
            return self.nested.remove(&slip.ticket);
        };
        let group = self.groups.get_mut(name)?;
        let removed = group.jobs.remove(&slip.ticket);
        self.tidy(name);
        removed
    }

    fn finish(&mut self, slip: &Slip, abandoned: bool) {
        self.running -= 1;
        self.done += 1;
        if abandoned {
            self.held -= 1;
        } else {
            self.leave_group(slip);
        }
    }

    /// A job that ran, or is abandoned, leaves its place in the group's share.
    fn leave_group(&mut self, slip: &Slip) {
        if let Some(name) = &slip.group {
            if let Some(group) = self.groups.get_mut(name) {
                group.running -= 1;
            }
            self.tidy(name);
        }
    }

    fn tidy(&mut self, name: &str) {
        let empty = |group: &Group<J>| group.running == 0 && group.jobs.is_empty();
        if self.groups.get(name).is_some_and(empty) {
            self.groups.remove(name);
        }
    }
}

impl<J> Default for Group<J> {
    fn default() -> Self {
        Self {
            jobs: BTreeMap::new(),
            running: 0,
        }
    }
}

impl<J> Default for State<J> {
    fn default() -> Self {
        Self {
            groups: BTreeMap::new(),
            nested: BTreeMap::new(),
            tickets: 0,
            workers: 0,
            running: 0,
            held: 0,
            done: 0,
            abandoned: 0,
            closed: false,
        }
    }
}

/// Changed with the state locked.
#[derive(Clone, Copy, PartialEq)]
enum Stage {
    /// In the queue, or running.
    Wanted,
    /// Running, and nobody waits for it.
    Abandoned,
    /// Not in the queue yet, or over.
    Finished,
}

/// A job as the queue knows it.
pub struct Slip {
    ticket: u64,
    /// None for a nested one.
    group: Option<Arc<str>>,
    stage: Mutex<Stage>,
}

impl Slip {
    fn stage(&self) -> MutexGuard<'_, Stage> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Workers, running and waiting jobs now, and abandoned calls that still run; done and abandoned jobs so far.
pub struct Counts {
    pub workers: usize,
    pub running: usize,
    pub waiting: usize,
    pub held: usize,
    pub done: u64,
    pub abandoned: u64,
}

pub struct Places<J> {
    limits: Limits,
    state: Mutex<State<J>>,
    changed: Condvar,
}

impl<J> Places<J> {
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            state: Mutex::new(State::default()),
            changed: Condvar::new(),
        }
    }

    /// For a job of a group; None for a nested one.
    pub fn slip(&self, group: Option<Arc<str>>) -> Slip {
        let mut state = self.lock();
        state.tickets += 1;
        Slip {
            ticket: state.tickets,
            group,
            stage: Mutex::new(Stage::Finished),
        }
    }

    /// Queues a job: whether the caller must start one more worker now, or None when the queue is closed.
    pub fn put(&self, slip: &Slip, job: J) -> Option<bool> {
        let grow = {
            let mut state = self.lock();
            if state.closed {
                return None;
            }
            *slip.stage() = Stage::Wanted;
            let jobs = match &slip.group {
                Some(name) => &mut state.groups.entry(name.clone()).or_default().jobs,
                None => &mut state.nested,
            };
            jobs.insert(slip.ticket, job);
            state.grow(self.limits, slip.group.is_none())
        };
        self.changed.notify_one();
        Some(grow)
    }

    /// The next job for the calling worker, which waits for it at most `timeout`. None ends the worker: nothing came, or
    /// there are too many workers, or the queue is closed.
    pub fn take(&self, timeout: Duration) -> Option<J> {
        let mut state = self.lock();
        let mut job = state.next(self.limits);
        if job.is_none() && !state.closed && state.workers <= state.most(self.limits) {
            let deadline = Instant::now().checked_add(timeout);
            while job.is_none() && !state.closed {
                let left = deadline.map_or(timeout, |deadline| {
                    deadline.saturating_duration_since(Instant::now())
                });
                if left.is_zero() {
                    break;
                }
                state = match self.changed.wait_timeout(state, left) {
                    Ok((state, _)) => state,
                    Err(poisoned) => poisoned.into_inner().0,
                };
                job = state.next(self.limits);
            }
        }
        if job.is_none() {
            state.workers -= 1;
            // It may have been the one too many that kept a waiting worker from the next job.
            if state.waiting() > 0 {
                self.changed.notify_one();
            }
        }
        job
    }

    /// Nobody waits for it any more: one that waits is removed and given back, one that runs is left alone and counted.
    pub fn abandon(&self, slip: &Slip) -> Option<J> {
        let mut state = self.lock();
        let removed = state.remove(slip);
        let mut stage = slip.stage();
        if removed.is_none() && *stage == Stage::Wanted {
            *stage = Stage::Abandoned;
            state.abandoned += 1;
            state.held += 1;
            state.leave_group(slip);
            // It has left its place in its group to one that waits, and its worker is not coming for that.
            if state.waiting() > 0 {
                self.changed.notify_one();
            }
        }
        removed
    }

    /// It has run to its end.
    pub fn finish(&self, slip: &Slip) {
        let mut state = self.lock();
        let stage = std::mem::replace(&mut *slip.stage(), Stage::Finished);
        state.finish(slip, stage == Stage::Abandoned);
    }

    /// Whether the caller must start one more worker now, for jobs that wait: an abandoned one may have left its place.
    pub fn grow(&self) -> bool {
        let mut state = self.lock();
        !state.closed && (state.grow(self.limits, true) || state.grow(self.limits, false))
    }

    /// How many abandoned calls still run, where they hold all places there are.
    pub fn all_held(&self) -> Option<usize> {
        let held = self.lock().held;
        (held >= self.limits.workers + self.limits.abandoned).then_some(held)
    }

    /// Counts a call that was abandoned on a thread which is not a worker, until it is `released`.
    pub fn hold(&self) {
        let mut state = self.lock();
        state.abandoned += 1;
        state.held += 1;
    }

    /// A call that was counted by `hold` has ended.
    pub fn released(&self) {
        self.lock().held -= 1;
    }

    /// Takes back a worker that `put` asked for and that could not be started.
    pub fn lost(&self) {
        self.lock().workers -= 1;
    }

    /// Ends the workers that wait, and gives back the jobs that do.
    pub fn close(&self) -> Vec<J> {
        let waiting = {
            let mut state = self.lock();
            state.closed = true;
            let mut waiting: Vec<J> = std::mem::take(&mut state.nested).into_values().collect();
            for group in state.groups.values_mut() {
                waiting.extend(std::mem::take(&mut group.jobs).into_values());
            }
            waiting
        };
        self.changed.notify_all();
        waiting
    }

    pub fn counts(&self) -> Counts {
        let state = self.lock();
        Counts {
            workers: state.workers,
            running: state.running,
            waiting: state.waiting(),
            held: state.held,
            done: state.done,
            abandoned: state.abandoned,
        }
    }

    /// Each job that waits, unless the lock is held.
    pub fn each<E>(&self, mut visit: impl FnMut(&J) -> Result<(), E>) -> Result<(), E> {
        if let Ok(state) = self.state.try_lock() {
            let groups = state.groups.values().flat_map(|group| group.jobs.values());
            for job in groups.chain(state.nested.values()) {
                visit(job)?;
            }
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State<J>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
