//! The queue that feeds the pool of Python threads.
//!
//! Workers wait in `take` with the GIL released; who is next is decided by [`super::places`]. When abandoned jobs hold all
//! places there are, new jobs are refused.

use super::places::{Limits, Places, Slip};
use crate::bridge::awaitable::{Abort, Awaitable, Begun};
use crate::bridge::event_loop::LoopBridge;
use crate::bridge::queue::Completer;
use crate::error::Error;
use crate::runtime::Runtime;
use pyo3::exceptions::{PyRuntimeError, PyStopIteration};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// One call on its way to a worker and back.
#[pyclass(frozen, weakref, module = "fastcrew_async._core")]
pub struct Job {
    places: Arc<Places<Py<Job>>>,
    slip: Slip,
    call: Mutex<Option<Py<PyAny>>>,
    reply: Mutex<Option<Reply>>,
    untold: Arc<Untold>,
}

/// Answers that lie on the loop's side, and of which the loops have not been told: a worker does so once it has released
/// the GIL. Woken before, a loop would go to sleep again until the worker is there.
#[derive(Default)]
struct Untold(Mutex<Vec<Completer>>);

impl Untold {
    fn push(&self, completer: Completer) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(completer);
    }

    fn tell(&self) {
        let untold = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        for completer in untold {
            completer.complete_held();
        }
    }
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
        let removed = self.places.abandon(&self.slip);
        // Both are dropped without a lock held: releasing Python objects may run Python code.
        drop(removed);
        let call = self
            .call
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        drop(call);
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
            self.places.finish(&self.slip);
            reply.bridge.get().hold(reply.id, answer);
            self.untold.push(reply.completer);
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

    /// Answers the job. Only the first answer counts. Its awaiter is told by the next `take`.
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
    places: Arc<Places<Py<Job>>>,
    untold: Arc<Untold>,
}

#[pymethods]
impl WorkQueue {
    #[new]
    fn new(runtime: Py<Runtime>, max_workers: usize, max_abandoned: usize) -> PyResult<Self> {
        if max_workers == 0 {
            return Err(Error::Invalid("max_workers must be at least 1, not 0".to_owned()).into());
        }
        let limits = Limits {
            workers: max_workers,
            abandoned: max_abandoned,
        };
        Ok(Self {
            runtime,
            limits,
            places: Arc::new(Places::new(limits)),
            untold: Arc::default(),
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
        let reply = Reply {
            bridge: bridge.clone_ref(py),
            id,
            completer,
        };
        let job = Job {
            places: self.places.clone(),
            slip: self.places.slip((!nested).then(|| group.into())),
            call: Mutex::new(Some(call)),
            reply: Mutex::new(Some(reply)),
            untold: self.untold.clone(),
        };
        let job = Py::new(py, job)?;
        let begun = Begun::new(bridge, future, id, Abort::Job(job.clone_ref(py)));
        let slip = &job.get().slip;
        let grow = self.places.put(slip, job.clone_ref(py));
        let grow = grow.ok_or(Error::RuntimeClosed)?;
        Ok((Awaitable::begun(begun), grow))
    }

    /// Tells of the answers so far, and gives the next job for the calling worker, which waits for it at most `timeout`
    /// seconds with the GIL released. None ends the worker: nothing came, or there are too many workers, or the queue is
    /// closed.
    fn take(&self, py: Python<'_>, timeout: f64) -> PyResult<Option<Py<Job>>> {
        self.runtime.get().core().check_process("work queue")?;
        let timeout = Duration::try_from_secs_f64(timeout).unwrap_or(Duration::MAX);
        Ok(py.detach(|| {
            self.untold.tell();
            self.places.take(timeout)
        }))
    }

    /// Whether the caller must start one more worker now, for jobs that wait: an abandoned one may have left its place.
    fn grow(&self) -> bool {
        self.places.grow()
    }

    /// Raises what `put` raises when abandoned calls hold all places.
    fn check(&self) -> PyResult<()> {
        let Some(held) = self.places.all_held() else {
            return Ok(());
        };
        Err(Error::Abandoned(format!(
            "{held} sync calls were abandoned at a deadline or a cancellation and still run, and hold all places \
             (max_workers={}, max_abandoned={}): give what they wait for a timeout of its own, or set \
             FASTCREW_ASYNC_MAX_ABANDONED higher",
            self.limits.workers, self.limits.abandoned
        ))
        .into())
    }

    /// Counts a call that was abandoned on a thread which is not a worker, until it is `released`.
    fn hold(&self) {
        self.places.hold();
    }

    /// A call that was counted by `hold` has ended.
    fn released(&self) {
        self.places.released();
    }

    /// Takes back a worker that `put` asked for and that could not be started.
    fn lost(&self) {
        self.places.lost();
    }

    /// Ends the workers that wait, and fails the jobs that do.
    fn close(&self) -> PyResult<()> {
        self.runtime.get().core().check_process("work queue")?;
        for job in self.places.close() {
            // Its completer says, when dropped, that the runtime is closed.
            drop(job.get().take_reply());
        }
        Ok(())
    }

    /// Workers, running and waiting jobs now, and abandoned calls that still run; done and abandoned jobs so far.
    fn stats(&self) -> PyResult<BTreeMap<&'static str, u64>> {
        self.runtime.get().core().check_process("work queue")?;
        let now = self.places.counts();
        Ok(BTreeMap::from([
            ("workers", now.workers as u64),
            ("running", now.running as u64),
            ("waiting", now.waiting as u64),
            ("done", now.done),
            ("abandoned", now.abandoned),
            ("still_running", now.held as u64),
        ]))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.places.each(|job| visit.call(job))
    }
}

impl Drop for WorkQueue {
    fn drop(&mut self) {
        // Waiting jobs and the shared state hold each other. In a forked child the lock may be held for ever.
        let _ = self.close();
    }
}
