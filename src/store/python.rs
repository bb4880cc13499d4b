//! The store as a Python class, and Python values as parameters. All checks of arguments happen here, before anything is queued.

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::sync::Arc;
use std::time::Duration;

use pyo3::exceptions::{PyOverflowError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyFloat, PyInt, PyList, PyMapping, PyString, PyTuple};

use super::failure::statement as wrong;
use super::{Cell, Durability, Hook, Job, Options, Params, Query, Reply, Store, Work};
use crate::bridge::awaitable::{Abort, Awaitable};
use crate::error::Error;
use crate::process::Owned;
use crate::runtime::Runtime;

/// One SQLite file. ``fastcrew_async.Database`` is the usual way to it.
#[pyclass(frozen, name = "Store", module = "fastcrew_async._core")]
pub struct PyStore {
    runtime: Py<Runtime>,
    store: Owned<Store>,
}

impl PyStore {
    fn write(&self, py: Python<'_>, work: Work) -> PyResult<Awaitable> {
        work.check()?;
        let store = Arc::clone(self.store.get()?);
        let handle = self.runtime.get().core().handle().clone();
        Ok(Awaitable::start(
            self.runtime.clone_ref(py),
            move |completer| {
                let gone = Arc::new(AtomicBool::new(false));
                let reply = Reply::Loop(completer, Arc::clone(&gone));
                if let Some(waiting) = store.queue(Job::new(work, reply)) {
                    handle.spawn(waiting);
                }
                Abort::Flag(gone)
            },
        ))
    }

    fn write_sync(&self, py: Python<'_>, work: Work) -> PyResult<Py<PyAny>> {
        let answer = self.store.get()?.write(work)?;
        self.runtime.get().block_on_detached(py, answer)
    }

    fn read(&self, py: Python<'_>, query: Query) -> PyResult<Awaitable> {
        let answer = self.store.get()?.read(query)?;
        Ok(Awaitable::new(self.runtime.clone_ref(py), answer))
    }

    fn read_sync(&self, py: Python<'_>, query: Query) -> PyResult<Py<PyAny>> {
        let answer = self.store.get()?.read(query)?;
        self.runtime.get().block_on_detached(py, answer)
    }
}

#[pymethods]
impl PyStore {
    #[new]
    fn new(
        runtime: Py<Runtime>,
        path: std::path::PathBuf,
        readers: u32,
        queue_size: usize,
        durability: &str,
        busy_timeout: f64,
    ) -> PyResult<Self> {
        let durability = match durability {
            "full" => Durability::Full,
            "relaxed" => Durability::Relaxed,
            other => {
                let text = format!("durability must be \"full\" or \"relaxed\", not {other:?}");
                return Err(Error::Invalid(text).into());
            }
        };
        let busy_timeout = Duration::try_from_secs_f64(busy_timeout).map_err(|error| {
            Error::Invalid(format!("busy_timeout must be seconds, from 0 on: {error}"))
        })?;
        if readers == 0 || queue_size == 0 {
            return Err(Error::Invalid("readers and queue_size must be at least 1".into()).into());
        }
        runtime.get().core().check_process("runtime")?;
        let store = Store::new(Options {
            path,
            readers,
            queue_size,
            durability,
            busy_timeout,
            before_commit: Hook::default(),
            make_folder: false,
        })?;
        Ok(Self {
            runtime,
            store: Owned::new("Database", store),
        })
    }

    /// Opens the file; later operations would do so themselves.
    fn open(&self, py: Python<'_>) -> PyResult<Awaitable> {
        self.write(py, Work::Open)
    }

    fn open_sync(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.write_sync(py, Work::Open)
    }

    fn execute(
        &self,
        py: Python<'_>,
        sql: String,
        parameters: &Bound<'_, PyAny>,
    ) -> PyResult<Awaitable> {
        self.write(py, Work::One(sql, params(parameters)?))
    }

    fn execute_sync(
        &self,
        py: Python<'_>,
        sql: String,
        parameters: &Bound<'_, PyAny>,
    ) -> PyResult<Py<PyAny>> {
        self.write_sync(py, Work::One(sql, params(parameters)?))
    }

    fn execute_many(
        &self,
        py: Python<'_>,
        sql: String,
        rows: &Bound<'_, PyAny>,
    ) -> PyResult<Awaitable> {
        self.write(py, Work::Many(sql, many(rows)?))
    }

    fn execute_many_sync(
        &self,
        py: Python<'_>,
        sql: String,
        rows: &Bound<'_, PyAny>,
    ) -> PyResult<Py<PyAny>> {
        self.write_sync(py, Work::Many(sql, many(rows)?))
    }

    fn batch(&self, py: Python<'_>, statements: &Bound<'_, PyAny>) -> PyResult<Awaitable> {
        self.write(py, Work::Batch(batch(statements)?))
    }

    fn batch_sync(&self, py: Python<'_>, statements: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        self.write_sync(py, Work::Batch(batch(statements)?))
    }

    fn fetch(
        &self,
        py: Python<'_>,
        sql: String,
        parameters: &Bound<'_, PyAny>,
        one: bool,
    ) -> PyResult<Awaitable> {
        let params = params(parameters)?;
        self.read(py, Query { sql, params, one })
    }

    fn fetch_sync(
        &self,
        py: Python<'_>,
        sql: String,
        parameters: &Bound<'_, PyAny>,
        one: bool,
    ) -> PyResult<Py<PyAny>> {
        let params = params(parameters)?;
        self.read_sync(py, Query { sql, params, one })
    }

    /// Refuses new work from this call on; done when all that was queued is on disk and the file is closed.
    fn close(&self, py: Python<'_>) -> PyResult<Awaitable> {
        let closing = self.store.get()?.close();
        Ok(Awaitable::new(self.runtime.clone_ref(py), closing))
    }

    fn close_sync(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let closing = self.store.get()?.close();
        self.runtime.get().block_on_detached(py, closing)
    }

    /// ``(queued, writes, commits, largest_group)``.
    fn stats(&self) -> PyResult<(usize, u64, u64, u64)> {
        let stats = self.store.get()?.stats();
        Ok((
            stats.queued,
            stats.writes,
            stats.commits,
            stats.largest_group,
        ))
    }
}

fn many(rows: &Bound<'_, PyAny>) -> PyResult<Vec<Params>> {
    let numbered = rows.try_iter()?.enumerate();
    numbered
        .map(|(index, row)| params(&row?).map_err(|error| at(rows.py(), error, "row", index)))
        .collect()
}

fn batch(statements: &Bound<'_, PyAny>) -> PyResult<Vec<(String, Params)>> {
    let numbered = statements.try_iter()?.enumerate();
    numbered
        .map(|(index, statement)| {
            let statement = statement?;
            let number = |error| at(statements.py(), error, "statement", index);
            let (sql, parameters): (String, Bound<'_, PyAny>) =
                statement.extract().map_err(|_| {
                    number(PyTypeError::new_err(format!(
                        "give a pair (sql, params), not {}",
                        name(&statement)
                    )))
                })?;
            Ok((sql, params(&parameters).map_err(number)?))
        })
        .collect()
}

fn params(given: &Bound<'_, PyAny>) -> PyResult<Params> {
    if let Ok(tuple) = given.cast::<PyTuple>() {
        return positional(tuple.iter());
    }
    if let Ok(list) = given.cast::<PyList>() {
        return positional(list.iter());
    }
    if let Ok(mapping) = given.cast::<PyMapping>() {
        let pairs = mapping.items()?;
        let cells = pairs.iter().map(|pair| {
            let (key, value): (Bound<'_, PyAny>, Bound<'_, PyAny>) = pair.extract()?;
            let Ok(key) = key.cast::<PyString>() else {
                return Err(PyTypeError::new_err(format!(
                    "the names of parameters are str, not {}",
                    name(&key)
                )));
            };
            let key = key.to_str()?.to_owned();
            let cell = cell(&value, &key)?;
            Ok((key, cell))
        });
        return Ok(Params::Named(cells.collect::<PyResult<HashMap<_, _>>>()?));
    }
    Err(PyTypeError::new_err(format!(
        "parameters must be a tuple, a list or a mapping, not {}",
        name(given)
    )))
}

fn positional<'py>(values: impl Iterator<Item = Bound<'py, PyAny>>) -> PyResult<Params> {
    let cells = values
        .enumerate()
        .map(|(index, value)| cell(&value, index + 1));
    Ok(Params::Positional(cells.collect::<PyResult<_>>()?))
}

/// One value; `place` is its position (from 1) or its name.
fn cell(value: &Bound<'_, PyAny>, place: impl std::fmt::Display) -> PyResult<Cell> {
    if value.is_none() {
        return Ok(Cell::Null);
    }
    if let Ok(text) = value.cast::<PyString>() {
        let text = text.to_str().map_err(|_| {
            wrong(format!(
                "parameter {place}: the text is not Unicode (a lone surrogate): pass bytes"
            ))
        })?;
        return Ok(Cell::Text(text.to_owned()));
    }
    if let Ok(truth) = value.cast::<PyBool>() {
        return Ok(Cell::Integer(truth.is_true().into()));
    }
    if let Ok(number) = value.cast::<PyInt>() {
        return number.extract().map(Cell::Integer).map_err(|_| {
            PyOverflowError::new_err(format!(
                "parameter {place}: the int does not fit SQLite's 64 bits: pass it as text"
            ))
        });
    }
    if let Ok(number) = value.cast::<PyFloat>() {
        return Ok(Cell::Real(number.value()));
    }
    if let Ok(bytes) = value.cast::<PyBytes>() {
        return Ok(Cell::Blob(bytes.as_bytes().to_vec()));
    }
    Err(PyTypeError::new_err(format!(
        "parameter {place} is a {}: pass None, bool, int, float, str or bytes",
        name(value)
    )))
}

fn name(value: &Bound<'_, PyAny>) -> String {
    value
        .get_type()
        .name()
        .map_or_else(|_| "?".to_owned(), |name| name.to_string())
}

/// The same error, with the row or statement (from 1) that it was met in.
fn at(py: Python<'_>, error: PyErr, what: &str, index: usize) -> PyErr {
    let text = format!("{what} {}: {}", index + 1, error.value(py));
    match error.get_type(py).call1((text,)) {
        Ok(named) => PyErr::from_value(named),
        Err(_) => error,
    }
}
