//! The queue that feeds the pool of Python threads: which job is next, and when another thread is needed.
//!
//! Workers wait in `take` with the GIL released. Jobs and workers are counted under one lock, so a job is never left
//! without a worker that will come for it. Jobs put by a job ("nested") go first and may exceed the limit of workers:
//! the job that waits for them holds a worker meanwhile, and would hold it for ever otherwise.
//!
//! Jobs belong to groups (a tool each). The next job is one of the group with the fewest running, and a named group never
//! has more running than its share of the workers, so that a slow tool leaves room for the others.
//!
//! A job that is abandoned while it runs goes on to its end. Up to `max_abandoned` such jobs do not count against the
//! limit of workers: others take their places. When abandoned jobs hold all places there are, new jobs are refused.

use crate::bridge::awaitable::{Abort, Awaitable, Begun};
use crate::bridge::event_loop::LoopBridge;
use crate::bridge::queue::Completer;
use crate::error::Error;
use crate::runtime::Runtime;
use pyo3::exceptions::{PyRuntimeError, PyStopIteration};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

#[derive(Default)]
struct Group {
    /// Waiting jobs, the oldest first.
    jobs: BTreeMap<u64, Py<Job>>,
    running: usize,
}

#[derive(Default)]
struct State {
    /// Those with jobs; "" is of the jobs that belong to no tool, and is without a share.
    groups: BTreeMap<Arc<str>, Group>,
    nested: BTreeMap<u64, Py<Job>>,
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
struct Limits {
    workers: usize,
    abandoned: usize,
}

impl Limits {
    /// How many workers one group may hold: three quarters, and one at least.
    fn share(self) -> usize {
        (self.workers - self.workers.div_ceil(4)).max(1)
    }
}

impl State {
    /// How many jobs of a group could run at once if there were workers.
    fn runnable(name: &str, group: &Group, limits: Limits) -> usize {
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

    fn check(&self, limits: Limits) -> Result<(), Error> {
        if self.held < limits.workers + limits.abandoned {
            return Ok(());
        }
        Err(Error::Abandoned(format!(
            "{} sync calls were abandoned at a deadline or a cancellation and still run, and hold all places \
             (max_workers={}, max_abandoned={}): give what they wait for a timeout of its own, or set \
             FASTCREW_ASYNC_MAX_ABANDONED higher",
            self.held, limits.workers, limits.abandoned
        )))
    }

    /// The next job, which counts as running.
    fn next(&mut self, limits: Limits) -> Option<Py<Job>> {
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
    fn remove(&mut self, job: &Job) -> Option<Py<Job>> {
        let Some(name) = &job.group else {
            return self.nested.remove(&job.ticket);
        };
        let group = self.groups.get_mut(name)?;
        let removed = group.jobs.remove(&job.ticket);
        self.tidy(name);
        removed
    }

    fn finish(&mut self, job: &Job, abandoned: bool) {
        self.running -= 1;
        self.done += 1;
        if abandoned {
            self.held -= 1;
        } else {
            self.leave_group(job);
        }
    }

    /// A job that ran, or is abandoned, leaves its place in the group's share.
    fn leave_group(&mut self, job: &Job) {
        if let Some(name) = &job.group {
            if let Some(group) = self.groups.get_mut(name) {
                group.running -= 1;
            }
            self.tidy(name);
        }
    }

    fn tidy(&mut self, name: &str) {
        let empty = |group: &Group| group.running == 0 && group.jobs.is_empty();
        if self.groups.get(name).is_some_and(empty) {
            self.groups.remove(name);
        }
    }
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One call on its way to a worker and back.
#[pyclass(frozen, weakref, module = "fastcrew_async._core")]
pub struct Job {
    shared: Arc<Shared>,
    ticket: u64,
    /// None for a nested one.
    group: Option<Arc<str>>,
    call: Mutex<Option<Py<PyAny>>>,
    reply: Mutex<Option<Reply>>,
    stage: Mutex<Stage>,
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

struct Reply {
    bridge: Py<LoopBridge>,
    id: u64,
    completer: Completer,
}

impl Job {
    /// Nobody waits for it any more: one that waits is removed, one that runs is left alone and counted.
    pub fn abandon(&self) {
        if self.is_finished() {
            return;
        }
        let removed = {
            let mut state = self.shared.lock();
            let removed = state.remove(self);
            let mut stage = self.stage();
            if removed.is_none() && *stage == Stage::Wanted {
                *stage = Stage::Abandoned;
                state.abandoned += 1;
                state.held += 1;
                state.leave_group(self);
            }
            removed
        };
        // Both are dropped without a lock held: releasing Python objects may run Python code.
        drop(removed);
        let call = self
            .call
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        drop(call);
    }

    fn stage(&self) -> MutexGuard<'_, Stage> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_finished(&self) -> bool {
        self.reply
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_none()
    }

    fn take_reply(&self) -> Option<Reply> {
        self.reply
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    fn finish(&self, answer: PyResult<Py<PyAny>>) {
        if let Some(reply) = self.take_reply() {
            let mut state = self.shared.lock();
            let stage = std::mem::replace(&mut *self.stage(), Stage::Finished);
            state.finish(self, stage == Stage::Abandoned);
            drop(state);
            reply.bridge.get().hold(reply.id, answer);
            reply.completer.complete_held();
        }
    }
}

#[pymethods]
impl Job {
    /// What to call, once; None when the job was abandoned.
    fn call(&self) -> Option<Py<PyAny>> {
        self.call
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    /// Answers the job. Only the first answer counts.
    fn set_result(&self, value: Py<PyAny>) {
        self.finish(Ok(value));
    }

    /// Fails the job with what the call raised.
    fn set_exception(&self, exception: Bound<'_, PyAny>) {
        let py = exception.py();
        let error = PyErr::from_value(exception);
        if error.is_instance_of::<PyStopIteration>(py) {
            // To a coroutine it would be a result.
            let wrapped = PyRuntimeError::new_err("the call raised StopIteration");
            wrapped.set_cause(py, Some(error));
            self.finish(Err(wrapped));
        } else {
            self.finish(Err(error));
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        if let Ok(call) = self.call.try_lock() {
            visit.call(&*call)?;
        }
        if let Ok(reply) = self.reply.try_lock() {
            visit.call(reply.as_ref().map(|reply| &reply.bridge))?;
        }
        Ok(())
    }
}

/// Jobs for at most `max_workers` threads, which the caller runs, and one more for each of up to `max_abandoned` jobs
/// that were abandoned and still run.
#[pyclass(frozen, module = "fastcrew_async._core")]
pub struct WorkQueue {
    runtime: Py<Runtime>,
    limits: Limits,
    shared: Arc<Shared>,
}

#[pymethods]
impl WorkQueue {
    #[new]
    fn new(runtime: Py<Runtime>, max_workers: usize, max_abandoned: usize) -> PyResult<Self> {
        if max_workers == 0 {
            return Err(Error::Invalid("max_workers must be at least 1, not 0".to_owned()).into());
        }
        Ok(Self {
            runtime,
            limits: Limits {
                workers: max_workers,
                abandoned: max_abandoned,
            },
            shared: Arc::default(),
        })
    }

    /// Queues `call` for a worker and gives its awaitable, which belongs to the running loop. The second value says that
    /// the caller must start one more worker now. `group` is the tool that the call belongs to.
    #[pyo3(signature = (call, nested=false, group=""))]
    fn put(
        &self,
        py: Python<'_>,
        call: Py<PyAny>,
        nested: bool,
        group: &str,
    ) -> PyResult<(Awaitable, bool)> {
        self.check()?;
        let runtime = self.runtime.get();
        let permit = runtime.core().enter()?;
        let bridge = runtime.bridge(py)?.unbind();
        let (future, id, completer) = bridge.get().open(py, permit)?;
        let ticket = {
            let mut state = self.shared.lock();
            state.tickets += 1;
            state.tickets
        };
        let reply = Reply {
            bridge: bridge.clone_ref(py),
            id,
            completer,
        };
        let group: Option<Arc<str>> = (!nested).then(|| group.into());
        let job = Job {
            shared: self.shared.clone(),
            ticket,
            group: group.clone(),
            call: Mutex::new(Some(call)),
            reply: Mutex::new(Some(reply)),
            stage: Mutex::new(Stage::Finished),
        };
        let job = Py::new(py, job)?;
        let begun = Begun::new(bridge, future, id, Abort::Job(job.clone_ref(py)));
        let grow = {
            let mut state = self.shared.lock();
            if state.closed {
                return Err(Error::RuntimeClosed.into());
            }
            *job.get().stage() = Stage::Wanted;
            let jobs = match group {
                Some(name) => &mut state.groups.entry(name).or_default().jobs,
                None => &mut state.nested,
            };
            jobs.insert(ticket, job);
            state.grow(self.limits, nested)
        };
        self.shared.changed.notify_one();
        Ok((Awaitable::begun(begun), grow))
    }

    /// The next job for the calling worker, which waits for it at most `timeout` seconds with the GIL released. None ends
    /// the worker: nothing came, or there are too many workers, or the queue is closed.
    fn take(&self, py: Python<'_>, timeout: f64) -> PyResult<Option<Py<Job>>> {
        self.runtime.get().core().check_process("work queue")?;
        let timeout = Duration::try_from_secs_f64(timeout).unwrap_or(Duration::MAX);
        Ok(py.detach(|| {
            let shared = &self.shared;
            let mut state = shared.lock();
            let mut job = state.next(self.limits);
            if job.is_none() && !state.closed && state.workers <= state.most(self.limits) {
                let deadline = std::time::Instant::now().checked_add(timeout);
                while job.is_none() && !state.closed {
                    let left = deadline.map_or(timeout, |deadline| {
                        deadline.saturating_duration_since(std::time::Instant::now())
                    });
                    if left.is_zero() {
                        break;
                    }
                    state = match shared.changed.wait_timeout(state, left) {
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
                    shared.changed.notify_one();
                }
            }
            job
        }))
    }

    /// Whether the caller must start one more worker now, for jobs that wait: an abandoned one may have left its place.
    fn grow(&self) -> bool {
        let mut state = self.shared.lock();
        !state.closed && (state.grow(self.limits, true) || state.grow(self.limits, false))
    }

    /// Raises what `put` raises when abandoned calls hold all places.
    fn check(&self) -> PyResult<()> {
        Ok(self.shared.lock().check(self.limits)?)
    }

    /// Counts a call that was abandoned on a thread which is not a worker, until it is `released`.
    fn hold(&self) {
        let mut state = self.shared.lock();
        state.abandoned += 1;
        state.held += 1;
    }

    /// A call that was counted by `hold` has ended.
    fn released(&self) {
        self.shared.lock().held -= 1;
    }

    /// Takes back a worker that `put` asked for and that could not be started.
    fn lost(&self) {
        self.shared.lock().workers -= 1;
    }

    /// Ends the workers that wait, and fails the jobs that do.
    fn close(&self) -> PyResult<()> {
        self.runtime.get().core().check_process("work queue")?;
        let waiting = {
            let mut state = self.shared.lock();
            state.closed = true;
            let mut waiting: Vec<Py<Job>> =
                std::mem::take(&mut state.nested).into_values().collect();
            for group in state.groups.values_mut() {
                waiting.extend(std::mem::take(&mut group.jobs).into_values());
            }
            waiting
        };
        self.shared.changed.notify_all();
        for job in &waiting {
            // Its completer says, when dropped, that the runtime is closed.
            drop(job.get().take_reply());
        }
        Ok(())
    }

    /// Workers, running and waiting jobs now, and abandoned calls that still run; done and abandoned jobs so far.
    fn stats(&self) -> PyResult<BTreeMap<&'static str, u64>> {
        self.runtime.get().core().check_process("work queue")?;
        let state = self.shared.lock();
        Ok(BTreeMap::from([
            ("workers", state.workers as u64),
            ("running", state.running as u64),
            ("waiting", state.waiting() as u64),
            ("done", state.done),
            ("abandoned", state.abandoned),
            ("still_running", state.held as u64),
        ]))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        if let Ok(state) = self.shared.state.try_lock() {
            let groups = state.groups.values().flat_map(|group| group.jobs.values());
            for job in groups.chain(state.nested.values()) {
                visit.call(job)?;
            }
        }
        Ok(())
    }
}

impl Drop for WorkQueue {
    fn drop(&mut self) {
        // Waiting jobs and the shared state hold each other. In a forked child the lock may be held for ever.
        let _ = self.close();
    }
}
