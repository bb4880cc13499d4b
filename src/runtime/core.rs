//! The tokio runtime of one process: built once, bound to its process, closed in two phases.

use super::intake::{Intake, Permit};
use crate::error::Error;
use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::runtime::{Builder, Handle, Runtime as Tokio};
use tokio::task::JoinHandle;

pub struct Core {
    pid: u32,
    handle: Handle,
    // Taken by whoever shuts it down.
    tokio: Mutex<Option<Tokio>>,
    intake: Intake,
}

impl Core {
    /// `threads`: tokio's worker threads. They wait for I/O and timers, they do not compute.
    pub fn new(threads: usize) -> std::io::Result<Self> {
        let tokio = Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name("fastcrew-core")
            .enable_all()
            .build()?;
        Ok(Self {
            pid: crate::process::id(),
            handle: tokio.handle().clone(),
            tokio: Mutex::new(Some(tokio)),
            intake: Intake::default(),
        })
    }

    pub fn pid(&self) -> u32 {
        self.pid
    }

    pub fn intake(&self) -> &Intake {
        &self.intake
    }

    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// A child process inherits the object, but none of its threads: whoever waited on them would hang.
    pub fn check_process(&self, what: &'static str) -> Result<(), Error> {
        let current = crate::process::id();
        if current == self.pid {
            Ok(())
        } else {
            Err(Error::Forked {
                what,
                owner: self.pid,
                current,
            })
        }
    }

    /// The permit for one operation; refused in another process, and once closing has begun.
    pub fn enter(&self) -> Result<Permit, Error> {
        self.check_process("runtime")?;
        self.intake.enter()
    }

    pub fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.handle.spawn(future)
    }

    pub fn spawn_blocking<F, R>(&self, call: F) -> JoinHandle<R>
    where
        F: FnOnce() -> R + Send + 'static,
        R: Send + 'static,
    {
        self.handle.spawn_blocking(call)
    }

    /// Drops tokio and all its tasks; waits for its threads, at most `bound`. Must not run under the GIL.
    pub fn shutdown(&self, bound: Duration) {
        let tokio = self
            .tokio
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(tokio) = tokio {
            tokio.shutdown_timeout(bound);
        }
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        let tokio = self
            .tokio
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        match tokio {
            Some(tokio) if crate::process::id() == self.pid => tokio.shutdown_background(),
            // Its threads do not exist in a forked child, and its locks may be held for ever.
            Some(tokio) => std::mem::forget(tokio),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn shutdown_is_bounded_and_drops_pending_tasks() {
        struct Signal(std::sync::mpsc::Sender<()>);
        impl Drop for Signal {
            fn drop(&mut self) {
                let _ = self.0.send(());
            }
        }
        let core = Core::new(1).unwrap();
        let (dropped, was_dropped) = std::sync::mpsc::channel();
        let signal = Signal(dropped);
        core.spawn(async move {
            let _signal = signal;
            std::future::pending::<()>().await;
        });
        let (release, held) = std::sync::mpsc::channel::<()>();
        core.spawn_blocking(move || held.recv());
        let begin = Instant::now();
        core.shutdown(Duration::from_millis(50));
        assert!(begin.elapsed() < Duration::from_secs(10));
        assert!(was_dropped.recv_timeout(Duration::from_secs(10)).is_ok());
        drop(release);
    }

    #[test]
    fn a_closed_core_refuses_work() {
        let core = Core::new(1).unwrap();
        assert!(core.enter().is_ok());
        core.intake().close();
        assert_eq!(core.enter().err(), Some(Error::RuntimeClosed));
    }
}
