//! The awaitable that Python gets: it starts at its first step, and ends its work when it is cancelled.
//!
//! It is a `collections.abc.Coroutine`, so a task steps it directly. The first step starts the operation and yields an
//! asyncio future of the running loop; the second collects the answer. `throw`, `close` and deallocation abort the
//! work before control returns. An answer that is known already never enters tokio.

use super::caught::caught;
use super::event_loop::{Answer, LoopBridge};
use super::queue::Completer;
use super::value::Value;
use crate::error::Error;
use crate::runtime::Runtime;
use pyo3::exceptions::{PyRuntimeError, PyStopIteration, PyTypeError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyType;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use tokio::task::AbortHandle;

/// How to tell the work of an operation that nobody waits for it any more.
pub enum Abort {
    Nothing,
    Task(AbortHandle),
    /// Set when the awaiter has gone; for work that looks at it before it begins.
    Flag(Arc<AtomicBool>),
    Job(Py<crate::tools::work_queue::Job>),
}

impl Abort {
    fn abort(&self) {
        match self {
            Self::Nothing => {}
            Self::Task(handle) => handle.abort(),
            Self::Flag(flag) => flag.store(true, Ordering::Release),
            Self::Job(job) => job.get().abandon(),
        }
    }
}

type Start = Box<dyn FnOnce(Completer) -> Abort + Send>;

/// An operation that has begun. Dropping it before its answer was collected aborts the work.
pub struct Begun {
    bridge: Py<LoopBridge>,
    future: Py<PyAny>,
    id: u64,
    abort: Abort,
}

impl Begun {
    pub fn new(bridge: Py<LoopBridge>, future: Py<PyAny>, id: u64, abort: Abort) -> Self {
        Self {
            bridge,
            future,
            id,
            abort,
        }
    }

    fn start(py: Python<'_>, runtime: &Runtime, start: Start) -> PyResult<Self> {
        let permit = runtime.core().enter()?;
        let bridge = runtime.bridge(py)?;
        let (future, id, completer) = bridge.get().open(py, permit)?;
        LoopBridge::visit_soon(&bridge)?;
        Ok(Self::new(bridge.unbind(), future, id, start(completer)))
    }

    /// The future, marked as its own `__await__` would mark it, so that a task accepts it.
    fn yielded(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.future
            .setattr(py, intern!(py, "_asyncio_future_blocking"), true)?;
        Ok(self.future.clone_ref(py))
    }

    fn collect(&mut self) -> Option<Answer> {
        let answer = self.bridge.get().collect(self.id)?;
        self.abort = Abort::Nothing;
        Some(answer)
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        let bridge = self.bridge.get();
        // In a forked child the work does not exist, and tokio's locks may be held for ever.
        if bridge.is_of_this_process() {
            self.abort.abort();
        }
        bridge.forget(self.id);
    }
}

#[derive(Default)]
enum State {
    Ready(Answer),
    Lazy(Py<Runtime>, Start),
    Begun(Begun),
    Waiting(Begun),
    #[default]
    Spent,
}

/// An operation of the core. Await it once; it does nothing until then.
#[pyclass(weakref, module = "fastcrew_async._core")]
pub struct Awaitable(Mutex<State>);

impl Awaitable {
    /// Runs `future` on tokio when awaited.
    pub fn new<F>(runtime: Py<Runtime>, future: F) -> Self
    where
        F: Future<Output = Result<Value, Error>> + Send + 'static,
    {
        let handle = runtime.get().core().handle().clone();
        Self::start(runtime, move |completer| {
            let task = handle.spawn(async move { completer.complete(caught(future).await) });
            Abort::Task(task.abort_handle())
        })
    }

    /// Calls `start` when awaited, for work that needs no tokio task: whoever gets the completer completes it.
    pub fn start<F>(runtime: Py<Runtime>, start: F) -> Self
    where
        F: FnOnce(Completer) -> Abort + Send + 'static,
    {
        Self(Mutex::new(State::Lazy(runtime, Box::new(start))))
    }

    /// An answer that is known already.
    pub fn ready(outcome: Result<Value, Error>) -> Self {
        Self(Mutex::new(State::Ready(Answer::Rust(outcome))))
    }

    /// An operation that was begun by the caller.
    pub fn begun(begun: Begun) -> Self {
        Self(Mutex::new(State::Begun(begun)))
    }

    fn state(&mut self) -> &mut State {
        match self.0.get_mut() {
            Ok(state) => state,
            Err(poisoned) => poisoned.into_inner(),
        }
    }

    /// `Ok(Some)` is yielded; the end of the work is `StopIteration`, or `Ok(None)` where the answer is None.
    fn step(&mut self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        match std::mem::take(self.state()) {
            State::Ready(answer) => returned(py, answer),
            State::Lazy(runtime, start) => {
                let begun = Begun::start(py, runtime.get(), start)?;
                self.wait(py, begun)
            }
            State::Begun(begun) => self.wait(py, begun),
            State::Waiting(mut begun) => match begun.collect() {
                Some(answer) => returned(py, answer),
                None => {
                    *self.state() = State::Waiting(begun);
                    Err(PyRuntimeError::new_err(
                        "this operation is being awaited already: call the method again for a second one",
                    ))
                }
            },
            State::Spent => Err(PyRuntimeError::new_err(
                "this operation was awaited before: call the method again for a second one",
            )),
        }
    }

    fn wait(&mut self, py: Python<'_>, begun: Begun) -> PyResult<Option<Py<PyAny>>> {
        let future = begun.yielded(py)?;
        *self.state() = State::Waiting(begun);
        Ok(Some(future))
    }
}

fn returned(py: Python<'_>, answer: Answer) -> PyResult<Option<Py<PyAny>>> {
    let value = answer.into_py(py)?;
    if value.is_none(py) {
        return Ok(None);
    }
    // In a tuple of its own: a bare tuple would be taken for the arguments.
    Err(PyStopIteration::new_err((value,)))
}

#[pymethods]
impl Awaitable {
    fn __await__(this: Py<Self>) -> Py<Self> {
        this
    }

    fn __iter__(this: Py<Self>) -> Py<Self> {
        this
    }

    fn __next__(&mut self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        self.step(py)
    }

    /// One step, as of a coroutine; ``value`` is ignored.
    fn send(&mut self, py: Python<'_>, value: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        let _ = value;
        match self.step(py)? {
            Some(future) => Ok(future),
            None => Err(PyStopIteration::new_err(())),
        }
    }

    /// Aborts the work, then raises the exception given.
    #[pyo3(signature = (typ, val=None, tb=None, /))]
    fn throw(
        &mut self,
        typ: Bound<'_, PyAny>,
        val: Option<Bound<'_, PyAny>>,
        tb: Option<Bound<'_, PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        drop(std::mem::take(self.state()));
        let exception = match val {
            Some(val) if val.is_instance_of::<pyo3::exceptions::PyBaseException>() => val,
            Some(val) => typ.call1((val,))?,
            None if typ.is_instance_of::<PyType>() => typ.call0()?,
            None => typ,
        };
        if !exception.is_instance_of::<pyo3::exceptions::PyBaseException>() {
            return Err(PyTypeError::new_err(format!(
                "throw() takes an exception, not {}",
                exception.repr()?
            )));
        }
        if let Some(tb) = tb {
            exception.setattr(intern!(exception.py(), "__traceback__"), tb)?;
        }
        Err(PyErr::from_value(exception))
    }

    /// Aborts the work.
    fn close(&mut self) {
        drop(std::mem::take(self.state()));
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        if let Ok(state) = self.0.try_lock() {
            if let State::Begun(begun) | State::Waiting(begun) = &*state {
                visit.call(&begun.bridge)?;
                visit.call(&begun.future)?;
                if let Abort::Job(job) = &begun.abort {
                    visit.call(job)?;
                }
            }
        }
        Ok(())
    }

    fn __clear__(&mut self) {
        self.close();
    }
}
