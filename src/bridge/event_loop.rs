//! The loop's side of the bridge: the asyncio futures that wait, and what resolves them.

use super::call;
use super::messenger::Messenger;
use super::queue::{Completer, CompletionQueue};
use super::value::Value;
use super::wake::Wake;
use crate::error::Error;
use crate::runtime::Permit;
use pyo3::exceptions::PyNotImplementedError;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyWeakrefMethods, PyWeakrefReference};
use slab::Slab;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How many completions one visit resolves; the host's callbacks run before the next.
const VISIT: usize = 1_000;

/// An iteration of the loop that takes longer has other work, beside which one more look at the queue costs nothing.
const BUSY: Duration = Duration::from_millis(1);

/// What an operation answered: owned by Rust until it is collected, or a Python object from a worker thread.
pub enum Answer {
    Rust(Result<Value, Error>),
    Python(PyResult<Py<PyAny>>),
}

impl Answer {
    pub fn into_py(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        match self {
            Self::Rust(outcome) => outcome?.into_py(py),
            Self::Python(outcome) => outcome,
        }
    }
}

/// One operation that somebody on the loop waits for.
struct Pending {
    /// Tells this operation from earlier users of its place in the slab, whose completions may come late.
    serial: u32,
    /// Only a signal: it is resolved with None, and the answer is collected by whoever awaits. `None` once resolved.
    future: Option<Py<PyAny>>,
    answer: Option<Answer>,
}

#[derive(Default)]
struct Waiting {
    operations: Slab<Pending>,
    serial: u32,
    visit_asked: Option<Instant>,
}

impl Waiting {
    fn get(&mut self, id: u64) -> Option<&mut Pending> {
        self.operations
            .get_mut(id as u32 as usize)
            .filter(|pending| pending.serial == (id >> 32) as u32)
    }

    fn insert(&mut self, future: Py<PyAny>) -> u64 {
        self.serial = self.serial.wrapping_add(1);
        let place = self.operations.insert(Pending {
            serial: self.serial,
            future: Some(future),
            answer: None,
        });
        (u64::from(self.serial) << 32) | place as u64
    }

    fn remove(&mut self, id: u64) -> Option<Pending> {
        self.get(id)?;
        Some(self.operations.remove(id as u32 as usize))
    }
}

/// One event loop as the runtime sees it. Alive while the loop watches it, or somebody awaits through it.
#[pyclass(frozen, weakref, module = "fastcrew_async._core")]
pub struct LoopBridge {
    pid: u32,
    event_loop: Py<PyAny>,
    queue: Arc<CompletionQueue>,
    waiting: Mutex<Waiting>,
}

impl LoopBridge {
    fn new<'py>(event_loop: &Bound<'py, PyAny>, wake: Wake) -> PyResult<Bound<'py, Self>> {
        let py = event_loop.py();
        let bridge = Self {
            pid: crate::process::id(),
            event_loop: event_loop.clone().unbind(),
            queue: Arc::new(CompletionQueue::new(wake)),
            waiting: Mutex::default(),
        };
        Bound::new(py, bridge)
    }

    /// A bridge that the loop watches; `None` where the loop cannot watch descriptors.
    #[cfg(unix)]
    fn watched<'py>(event_loop: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, Self>>> {
        let py = event_loop.py();
        let descriptor = super::wake::Descriptor::new()?;
        let fileno = descriptor.fileno();
        let bridge = Self::new(event_loop, Wake::Descriptor(descriptor))?;
        let drain = bridge.getattr(intern!(py, "drain"))?;
        match event_loop.call_method1(intern!(py, "add_reader"), (fileno, drain)) {
            Ok(_) => Ok(Some(bridge)),
            Err(error) if error.is_instance_of::<PyNotImplementedError>(py) => Ok(None),
            Err(error) => Err(error),
        }
    }

    #[cfg(not(unix))]
    fn watched<'py>(_: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, Self>>> {
        Ok(None)
    }

    /// Registers an operation: the asyncio future to yield, and who completes it.
    pub fn open(&self, py: Python<'_>, permit: Permit) -> PyResult<(Py<PyAny>, u64, Completer)> {
        let name = intern!(py, "create_future");
        let future = call::method(self.event_loop.bind(py), name, None)?.unbind();
        let id = self.lock().insert(future.clone_ref(py));
        let completer = Completer::new(self.queue.clone(), id, permit);
        // After the insert: a queue that is closed from now on still visits the loop, and finds the operation.
        if self.queue.is_closed() {
            self.forget(id);
            return Err(Error::RuntimeClosed.into());
        }
        Ok((future, id, completer))
    }

    /// Has the loop look at the queue in its next iteration, whatever else it does then. A quick operation is answered
    /// there without a wake, and beside a busy loop it does not wait for the loop to ask for events once more.
    pub fn visit_soon(bridge: &Bound<'_, Self>) -> PyResult<()> {
        let py = bridge.py();
        let this = bridge.get();
        if this.queue.expect() {
            this.lock().visit_asked = Some(Instant::now());
            let visit = bridge.getattr(intern!(py, "visit"))?;
            call::method(
                this.event_loop.bind(py),
                intern!(py, "call_soon"),
                Some(&visit),
            )?;
        }
        Ok(())
    }

    /// The answer of an operation, once; `None` while there is none.
    pub fn collect(&self, id: u64) -> Option<Answer> {
        let mut waiting = self.lock();
        waiting.get(id)?.answer.as_ref()?;
        waiting.remove(id)?.answer
    }

    /// Nobody waits for the operation any more: its completion will be ignored.
    pub fn forget(&self, id: u64) {
        let removed = self.lock().remove(id);
        // Dropped after the lock: releasing Python objects may run Python code.
        drop(removed);
    }

    /// Keeps the Python answer of an operation until the loop collects it; it is dropped if nobody waits.
    pub fn hold(&self, id: u64, answer: PyResult<Py<PyAny>>) {
        let mut answer = Some(Answer::Python(answer));
        if let Some(pending) = self.lock().get(id) {
            pending.answer = answer.take();
        }
        drop(answer);
    }

    pub fn is_of_this_process(&self) -> bool {
        self.pid == crate::process::id()
    }

    /// Has the loop visit the queue soon, from any thread. A closed loop is left in peace.
    pub fn call_soon(bridge: &Bound<'_, Self>) {
        let py = bridge.py();
        let event_loop = bridge.get().event_loop.bind(py);
        if let Ok(drain) = bridge.getattr(intern!(py, "drain")) {
            let _ = call::method(
                event_loop,
                intern!(py, "call_soon_threadsafe"),
                Some(&drain),
            );
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The futures to wake, each with its answer in place.
    fn answered(&self) -> (Vec<Py<PyAny>>, bool) {
        let taken = self.queue.take(VISIT);
        let mut futures = Vec::with_capacity(taken.items.len());
        let mut waiting = self.lock();
        for completion in taken.items {
            if let Some(pending) = waiting.get(completion.id) {
                if let Some(outcome) = completion.outcome {
                    pending.answer = Some(Answer::Rust(outcome));
                }
                futures.extend(pending.future.take());
            }
        }
        if taken.finished {
            for (_, pending) in &mut waiting.operations {
                if let Some(future) = pending.future.take() {
                    pending.answer = Some(Answer::Rust(Err(Error::RuntimeClosed)));
                    futures.push(future);
                }
            }
        }
        (futures, taken.finished)
    }
}

#[pymethods]
impl LoopBridge {
    /// Called by the loop when the queue has something.
    fn drain(&self, py: Python<'_>) -> PyResult<()> {
        let (futures, finished) = self.answered();
        let mut failure = None;
        let none = py.None().into_bound(py);
        for future in futures {
            let future = future.bind(py);
            if let Err(error) = call::method(future, intern!(py, "set_result"), Some(&none)) {
                // A cancelled future is done; its awaiter learns of that on its own.
                if !call::method(future, intern!(py, "done"), None)?.is_truthy()? {
                    failure = Some(error);
                }
            }
        }
        #[cfg(unix)]
        if finished {
            if let Wake::Descriptor(descriptor) = self.queue.bell() {
                self.event_loop.call_method1(
                    py,
                    intern!(py, "remove_reader"),
                    (descriptor.fileno(),),
                )?;
            }
        }
        #[cfg(not(unix))]
        let _ = finished;
        failure.map_or(Ok(()), Err)
    }

    /// Called by the loop in the iteration after an operation began, and in the next ones while they take long.
    fn visit(this: &Bound<'_, Self>) -> PyResult<()> {
        let bridge = this.get();
        let again = {
            let mut waiting = bridge.lock();
            let asked = waiting.visit_asked.take();
            asked.is_some_and(|asked| asked.elapsed() > BUSY)
        };
        bridge.drain(this.py())?;
        if again && !bridge.lock().operations.is_empty() {
            Self::visit_soon(this)?;
        }
        Ok(())
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.event_loop)?;
        // Never contended: it is only held by threads that are attached and run no Python meanwhile.
        if let Ok(waiting) = self.waiting.try_lock() {
            for (_, pending) in &waiting.operations {
                visit.call(&pending.future)?;
                if let Some(Answer::Python(Ok(answer))) = &pending.answer {
                    visit.call(answer)?;
                }
            }
        }
        Ok(())
    }

    fn __clear__(&self) {
        let cleared = std::mem::take(&mut *self.lock());
        drop(cleared);
    }
}

impl Drop for LoopBridge {
    fn drop(&mut self) {
        // The loop has gone: later completions are nobody's. In a forked child the parent must not be woken.
        if self.is_of_this_process() {
            self.queue.close();
        }
    }
}

/// The bridges of a runtime, by the address of their loop. A living bridge keeps its loop, so addresses are unique.
#[derive(Default)]
pub struct Bridges(Mutex<HashMap<usize, Py<PyWeakrefReference>>>);

impl Bridges {
    /// The bridge of the loop that runs in this thread, made on first use.
    pub fn running<'py>(
        &self,
        py: Python<'py>,
        messenger: &Messenger,
    ) -> PyResult<Bound<'py, LoopBridge>> {
        static GET_RUNNING_LOOP: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let event_loop = GET_RUNNING_LOOP
            .import(py, "asyncio", "get_running_loop")?
            .call0()?;
        let key = event_loop.as_ptr() as usize;
        if let Some(bridge) = self.get(py, key)? {
            return Ok(bridge);
        }
        let bridge = match LoopBridge::watched(&event_loop)? {
            Some(bridge) => bridge,
            None => LoopBridge::new(&event_loop, messenger.wake(key))?,
        };
        let reference = PyWeakrefReference::new(&bridge)?.unbind();
        let known = self.all(py);
        let mut bridges = self.lock();
        bridges.retain(|key, _| known.iter().any(|(known, _)| known == key));
        bridges.insert(key, reference);
        Ok(bridge)
    }

    pub fn get<'py>(
        &self,
        py: Python<'py>,
        key: usize,
    ) -> PyResult<Option<Bound<'py, LoopBridge>>> {
        let reference = self.lock().get(&key).map(|known| known.clone_ref(py));
        match reference {
            Some(reference) => Ok(reference.bind(py).upgrade_as::<LoopBridge>()?),
            None => Ok(None),
        }
    }

    /// Closes every queue: their loops are told, and fail what still waits.
    pub fn close(&self, py: Python<'_>) {
        for (_, bridge) in self.all(py) {
            bridge.get().queue.close();
        }
    }

    fn all<'py>(&self, py: Python<'py>) -> Vec<(usize, Bound<'py, LoopBridge>)> {
        let references: Vec<_> = self
            .lock()
            .iter()
            .map(|(key, reference)| (*key, reference.clone_ref(py)))
            .collect();
        references
            .into_iter()
            .filter_map(|(key, reference)| {
                let bridge = reference.bind(py).upgrade_as::<LoopBridge>().ok()??;
                Some((key, bridge))
            })
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<usize, Py<PyWeakrefReference>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
