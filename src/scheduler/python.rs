//! The graph and the retries as Python sees them.

use super::graph::{Graph, GraphError};
use super::retries;
use crate::error::Error;
use pyo3::prelude::*;
use std::sync::{Mutex, MutexGuard, PoisonError};

impl From<GraphError> for Error {
    fn from(error: GraphError) -> Self {
        Self::Invalid(error.to_string())
    }
}

/// The tasks of a run and what each waits for.
#[pyclass(frozen, module = "fastcrew_async._core")]
pub struct TaskGraph(Mutex<Graph>);

impl TaskGraph {
    fn lock(&self) -> MutexGuard<'_, Graph> {
        // Nothing panics while the lock is held, and the state is consistent after each step.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl TaskGraph {
    #[new]
    fn new(py: Python<'_>, dependencies: Vec<Vec<usize>>) -> PyResult<Self> {
        let graph = py
            .detach(|| Graph::new(&dependencies))
            .map_err(Error::from)?;
        Ok(Self(Mutex::new(graph)))
    }

    /// Tasks that are running, ready or waiting.
    #[getter]
    fn left(&self) -> usize {
        self.lock().left()
    }

    /// Up to ``limit`` tasks that may start now; they count as running.
    fn take(&self, limit: usize) -> Vec<usize> {
        self.lock().take(limit)
    }

    /// A running task is done.
    fn finish(&self, task: usize) -> PyResult<()> {
        Ok(self.lock().finish(task).map_err(Error::from)?)
    }

    /// A running task has failed; gives the tasks that will never start.
    fn fail(&self, task: usize) -> PyResult<Vec<usize>> {
        Ok(self.lock().fail(task).map_err(Error::from)?)
    }
}

/// The retries of a run.
#[pyclass(frozen, module = "fastcrew_async._core")]
pub struct Retries(retries::Retries);

#[pymethods]
impl Retries {
    #[new]
    fn new(attempts: u32, backoff: f64, longest: f64, budget: u32) -> Self {
        Self(retries::Retries::new(attempts, backoff, longest, budget))
    }

    /// Retries that the run still has.
    #[getter]
    fn left(&self) -> u32 {
        self.0.left()
    }

    /// Seconds until the next attempt of a task that has failed ``failures`` times; None when that was the last.
    fn failed(&self, failures: u32, chance: f64) -> Option<f64> {
        self.0.failed(failures, chance)
    }
}
