//! The runtime object: tokio of one process, and its bridges to the event loops of that process.

mod core;
mod intake;

pub use self::core::Core;
pub use intake::{Intake, Permit};

#[cfg(feature = "extension-module")]
pub use python::Runtime;

#[cfg(feature = "extension-module")]
mod python {
    use super::Core;
    use crate::bridge::awaitable::Awaitable;
    use crate::bridge::caught::caught;
    use crate::bridge::event_loop::LoopBridge;
    use crate::bridge::messenger::Messenger;
    use crate::bridge::value::Value;
    use crate::bridge::Bridges;
    use crate::error::Error;
    use crate::logs;
    use pyo3::prelude::*;
    use std::future::Future;
    use std::sync::mpsc::{sync_channel, RecvTimeoutError};
    use std::sync::Arc;
    use std::time::Duration;

    /// How long closing waits for tokio's threads once their work was dropped.
    const SHUTDOWN_BOUND: Duration = Duration::from_secs(1);

    /// How often a blocking wait looks for signals; an answer ends it at once.
    const SIGNALS: Duration = Duration::from_millis(50);

    /// The core's runtime of this process. ``fastcrew_async.runtime.get()`` is the usual way to it.
    #[pyclass(frozen, module = "fastcrew_async._core")]
    pub struct Runtime {
        core: Arc<Core>,
        bridges: Arc<Bridges>,
        messenger: Messenger,
    }

    impl Runtime {
        pub fn core(&self) -> &Arc<Core> {
            &self.core
        }

        /// The bridge of the loop that runs in this thread; `RuntimeError` where none runs.
        pub fn bridge<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, LoopBridge>> {
            self.bridges.running(py, &self.messenger)
        }

        /// The blocking twin of an operation: waits for `future` with the GIL released.
        pub fn block_on_detached<F>(&self, py: Python<'_>, future: F) -> PyResult<Py<PyAny>>
        where
            F: Future<Output = Result<Value, Error>> + Send,
        {
            let permit = self.core.enter()?;
            let outcome = py.detach(|| self.core.handle().block_on(future));
            drop(permit);
            outcome?.into_py(py)
        }
    }

    impl Runtime {
        /// The blocking twin of an operation that may take long: waits for `future` with the GIL released, and ends it when a
        /// signal, as Ctrl-C, interrupts the wait.
        pub fn wait_interruptibly<F>(&self, py: Python<'_>, future: F) -> PyResult<Py<PyAny>>
        where
            F: Future<Output = Result<Value, Error>> + Send + 'static,
        {
            let permit = self.core.enter()?;
            let (sender, mut answers) = sync_channel(1);
            let task = self.core.spawn(async move {
                let _ = sender.send(caught(future).await);
                drop(permit);
            });
            loop {
                let (answer, waiting) = py.detach(move || (answers.recv_timeout(SIGNALS), answers));
                answers = waiting;
                match answer {
                    Ok(outcome) => return outcome?.into_py(py),
                    Err(RecvTimeoutError::Disconnected) => return Err(Error::RuntimeClosed.into()),
                    Err(RecvTimeoutError::Timeout) => {
                        py.check_signals().inspect_err(|_| task.abort())?
                    }
                }
            }
        }
    }

    #[pymethods]
    impl Runtime {
        /// `threads`: tokio's worker threads. One is quickest while they only wait: a second costs more in waking than it saves.
        #[new]
        #[pyo3(signature = (threads=1))]
        fn new(threads: usize) -> PyResult<Self> {
            if threads == 0 {
                return Err(Error::Invalid("threads must be at least 1, not 0".to_owned()).into());
            }
            let bridges = Arc::new(Bridges::default());
            let core = Arc::new(Core::new(threads)?);
            log::debug!(target: logs::RUNTIME, "started in process {}, threads: {threads}", core.pid());
            Ok(Self {
                core,
                messenger: Messenger::new(bridges.clone()),
                bridges,
            })
        }

        /// The process that this runtime belongs to.
        #[getter]
        fn pid(&self) -> u32 {
            self.core.pid()
        }

        #[getter]
        fn closed(&self) -> bool {
            self.core.intake().is_closed()
        }

        /// How many operations have begun and not ended.
        #[getter]
        fn in_flight(&self) -> usize {
            self.core.intake().in_flight()
        }

        /// Sleeps on the core's clock.
        fn sleep(this: Py<Self>, seconds: f64) -> PyResult<Awaitable> {
            let duration = duration("seconds", seconds)?;
            Ok(Awaitable::new(this, async move {
                tokio::time::sleep(duration).await;
                Ok(Value::None)
            }))
        }

        /// Answers `value` through a tokio task.
        fn echo(this: Py<Self>, value: Value) -> Awaitable {
            Awaitable::new(this, async move { Ok(value) })
        }

        /// Answers `value` at once: tokio is not entered.
        fn ready(&self, value: Value) -> Awaitable {
            Awaitable::ready(Ok(value))
        }

        /// Closes the runtime: refuses new work, waits at most `timeout` seconds for what is in flight, then fails it with
        /// ``RuntimeClosedError``. Blocks the calling thread. Says whether all work had ended in time.
        #[pyo3(signature = (timeout=5.0))]
        fn close(&self, py: Python<'_>, timeout: f64) -> PyResult<bool> {
            self.core.check_process("runtime")?;
            let timeout = duration("timeout", timeout)?;
            let first = self.core.intake().close();
            // Detached: worker threads need the GIL to end their jobs, and the caller may hold up nobody meanwhile.
            let drained = py.detach(|| self.core.intake().drain(timeout));
            match self.core.intake().in_flight() {
                _ if !first => {}
                0 => log::debug!(target: logs::RUNTIME, "closed"),
                left => log::info!(
                    target: logs::RUNTIME,
                    "closed after {timeout:?} with operations in flight, which fail: {left}"
                ),
            }
            self.bridges.close(py);
            py.detach(|| self.core.shutdown(SHUTDOWN_BOUND));
            Ok(drained)
        }
    }

    fn duration(name: &str, seconds: f64) -> Result<Duration, Error> {
        Duration::try_from_secs_f64(seconds).map_err(|_| {
            Error::Invalid(format!("{name} must be a number from 0 on, not {seconds}"))
        })
    }
}
