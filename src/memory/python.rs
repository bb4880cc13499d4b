//! The memories as a Python class; `fastcrew_async.MemoryStore` is what users see.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyIterator, PyList};

use super::coming::Coming;
use super::time::iso;
use super::{check_next, Doomed, Memories, Method, Metric, Record, Wanted};
use crate::bridge::awaitable::Awaitable;
use crate::bridge::value::Value;
use crate::error::Error;
use crate::process::Owned;
use crate::runtime::Runtime;

/// One folder of memories. ``fastcrew_async.MemoryStore`` is the usual way to it.
#[pyclass(frozen, name = "Memories", module = "fastcrew_async._core")]
pub struct PyMemories {
    runtime: Py<Runtime>,
    memories: Owned<Memories>,
}

impl PyMemories {
    fn later<F>(&self, py: Python<'_>, begun: Result<F, Error>) -> PyResult<Awaitable>
    where
        F: std::future::Future<Output = Result<Value, Error>> + Send + 'static,
    {
        Ok(Awaitable::new(self.runtime.clone_ref(py), begun?))
    }

    fn now<F>(&self, py: Python<'_>, begun: Result<F, Error>) -> PyResult<Py<PyAny>>
    where
        F: std::future::Future<Output = Result<Value, Error>> + Send,
    {
        self.runtime.get().block_on_detached(py, begun?)
    }
}

/// f32, little endian.
fn numbers(bytes: &[u8]) -> Vec<f32> {
    bytes
        .chunks_exact(4)
        .map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]]))
        .collect()
}

/// A vector, of a list of numbers or of f32 in bytes. A number that 32 bits do not hold becomes infinite.
struct Vector(Vec<f32>);

impl<'py> FromPyObject<'_, 'py> for Vector {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        let Ok(list) = object.cast::<PyList>() else {
            return Ok(Self(numbers(&object.extract::<PyBackedBytes>()?)));
        };
        let mut found = Vec::with_capacity(list.len());
        // Most are floats, which are read without counting references: thousands of them are rarely in the cache.
        loop {
            // SAFETY: the places are within the list, and nothing runs that could change it while an item is borrowed.
            found.extend((found.len()..list.len()).map_while(|at| unsafe {
                let item = ffi::PyList_GetItem(list.as_ptr(), at as ffi::Py_ssize_t);
                (ffi::PyFloat_CheckExact(item) != 0).then(|| ffi::PyFloat_AsDouble(item) as f32)
            }));
            if found.len() >= list.len() {
                break;
            }
            let number: f64 = list.get_item(found.len())?.extract()?;
            found.push(number as f32);
        }
        Ok(Self(found))
    }
}

impl<'py> FromPyObject<'_, 'py> for Record {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        type Times = (i64, i64, Option<(String, String)>);
        type Owner = (Option<String>, bool);
        let (id, content, scope, categories, metadata, tags, importance, times, owner, vector) =
            object.extract()?;
        let ((created_at, accessed_at, texts), (source, private)): (Times, Owner) = (times, owner);
        let (created, accessed) = texts.unwrap_or_else(|| (iso(created_at), iso(accessed_at)));
        let vector: Option<Vector> = vector;
        Ok(Self {
            id,
            content,
            scope,
            categories,
            metadata,
            tags,
            importance,
            created,
            created_at,
            accessed,
            source,
            private,
            vector: vector.map(|vector| vector.0),
        })
    }
}

/// Records one after the other: of an iterator no two need to be there at once.
struct Records(Vec<Record>);

impl<'py> FromPyObject<'_, 'py> for Records {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        some(&mut object.try_iter()?, usize::MAX).map(Self)
    }
}

fn some(records: &mut Bound<'_, PyIterator>, most: usize) -> PyResult<Vec<Record>> {
    records.take(most).map(|record| record?.extract()).collect()
}

/// Records that are read while others are written.
const PART: usize = 128;

/// Begins to save while the records are still being read.
fn save(
    memories: &Arc<Memories>,
    records: &Bound<'_, PyAny>,
) -> PyResult<impl Future<Output = Result<Value, Error>> + Send + 'static> {
    let mut records = records.try_iter()?;
    let mut width = None;
    let mut next = || -> PyResult<Vec<Record>> {
        let part = some(&mut records, PART)?;
        check_next(&part, &mut width)?;
        Ok(part)
    };
    let mut part = next()?;
    let mut is_last = part.len() < PART;
    let coming = Arc::new(Coming::new(part));
    if is_last {
        coming.finish();
    }
    let writing = memories.save(Arc::clone(&coming))?;
    while !is_last {
        part = next().inspect_err(|_| coming.fail())?;
        is_last = part.len() < PART;
        coming.add(part);
    }
    coming.finish();
    Ok(writing)
}

impl<'py> FromPyObject<'_, 'py> for Wanted {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        let (prefix, any, all, none, visible_to, created) = object.extract()?;
        Ok(Self {
            prefix,
            any,
            all,
            none,
            visible_to,
            created,
        })
    }
}

fn metric_of(name: &str) -> Result<Metric, Error> {
    Metric::of(name).ok_or_else(|| {
        Error::Invalid(format!(
            "metric must be \"cosine\", \"dot\" or \"euclid\", not {name:?}"
        ))
    })
}

fn doomed(
    ids: Option<Vec<String>>,
    wanted: Option<(Wanted, Option<String>)>,
    between: Option<(String, String)>,
    forget: bool,
) -> Doomed {
    match (ids, wanted, between) {
        (ids, Some((wanted, older_than)), _) => Doomed::Wanted(wanted, older_than, ids),
        (Some(ids), None, _) => Doomed::Ids(ids),
        (None, None, Some((from, until))) => Doomed::Between(from, until),
        (None, None, None) => Doomed::All { forget },
    }
}

/// Both halves of an operation: one for an event loop, one that waits with the GIL released.
macro_rules! operations {
    ($($(#[$text:meta])* $name:ident $sync:ident ($($argument:ident: $type:ty),*) $begin:expr;)*) => {
        #[pymethods]
        impl PyMemories {
            $(
                $(#[$text])*
                #[allow(clippy::too_many_arguments)]
                fn $name(&self, py: Python<'_>, $($argument: $type),*) -> PyResult<Awaitable> {
                    let begin: fn(&Memories, $($type),*) -> PyResult<_> = $begin;
                    self.later(py, Ok(begin(self.memories.get()?, $($argument),*)?))
                }

                #[allow(clippy::too_many_arguments)]
                fn $sync(&self, py: Python<'_>, $($argument: $type),*) -> PyResult<Py<PyAny>> {
                    let begin: fn(&Memories, $($type),*) -> PyResult<_> = $begin;
                    self.now(py, Ok(begin(self.memories.get()?, $($argument),*)?))
                }
            )*

            #[new]
            fn new(runtime: Py<Runtime>, folder: PathBuf, readers: u32, busy_timeout: f64) -> PyResult<Self> {
                let busy_timeout = Duration::try_from_secs_f64(busy_timeout)
                    .map_err(|error| Error::Invalid(format!("busy_timeout must be seconds, from 0 on: {error}")))?;
                if readers == 0 {
                    return Err(Error::Invalid("readers must be at least 1".into()).into());
                }
                runtime.get().core().check_process("runtime")?;
                let memories = Memories::new(folder, readers, busy_timeout)?;
                Ok(Self { runtime, memories: Owned::new("MemoryStore", memories) })
            }

            fn save(&self, py: Python<'_>, records: &Bound<'_, PyAny>) -> PyResult<Awaitable> {
                self.later(py, Ok(save(self.memories.get()?, records)?))
            }

            fn save_sync(&self, py: Python<'_>, records: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
                self.now(py, Ok(save(self.memories.get()?, records)?))
            }

            /// ``(queued, writes, commits, largest_group)``.
            fn writes(&self) -> PyResult<(usize, u64, u64, u64)> {
                let stats = self.memories.get()?.stats();
                Ok((stats.queued, stats.writes, stats.commits, stats.largest_group))
            }
        }
    };
}

operations! {
    /// Opens the files; later operations would do so themselves.
    open open_sync () |memories| Ok(memories.open()?);
    replace replace_sync (records: Records) |memories, records| Ok(memories.replace(records.0)?);
    touch touch_sync (ids: Vec<String>, now: String) |memories, ids, now| Ok(memories.touch(ids, now)?);
    get get_sync (id: String) |memories, id| Ok(memories.get(id)?);
    newest newest_sync (prefix: Option<String>, limit: i64, offset: i64, vectors: bool)
        |memories, prefix, limit, offset, vectors| Ok(memories.list(prefix, limit, offset, vectors)?);
    search search_sync (metric: String, vector: PyBackedBytes, wanted: Wanted, limit: usize, least: f64)
        |memories, metric, vector, wanted, limit, least| {
            Ok(memories.search(metric_of(&metric)?, numbers(&vector), wanted, limit, least)?)
        };
    candidates candidates_sync (vector: PyBackedBytes, wanted: Wanted, first: u64, most: usize)
        |memories, vector, wanted, first, most| Ok(memories.candidates(numbers(&vector), wanted, first, most)?);
    at_rows at_rows_sync (rows: Vec<i64>) |memories, rows| Ok(memories.at_rows(rows)?);
    by_words by_words_sync (
        text: String,
        method: String,
        stemmed: bool,
        near: Option<(String, PyBackedBytes)>,
        wanted: Wanted,
        limit: usize
    ) |memories, text, method, stemmed, near, wanted, limit| {
        let near = near.map(|(metric, vector)| Ok::<_, Error>((metric_of(&metric)?, numbers(&vector)))).transpose()?;
        let method = Method::of(&method)
            .ok_or_else(|| Error::Invalid(format!("method must be \"bm25\" or \"tfidf\", not {method:?}")))?;
        Ok(memories.by_words(text, method, stemmed, near, wanted, limit)?)
    };
    compact compact_sync (base: u64, first: usize, most: usize) |memories, base, first, most| Ok(memories.compact(base, first, most)?);
    sizes sizes_sync () |memories| Ok(memories.sizes()?);
    delete delete_sync (
        ids: Option<Vec<String>>,
        wanted: Option<(Wanted, Option<String>)>,
        between: Option<(String, String)>,
        forget: bool
    ) |memories, ids, wanted, between, forget| Ok(memories.delete(doomed(ids, wanted, between, forget))?);
    scope_info scope_info_sync (prefix: Option<String>) |memories, prefix| Ok(memories.scope_info(prefix)?);
    scopes scopes_sync (prefix: Option<String>) |memories, prefix| Ok(memories.scopes(prefix)?);
    categories categories_sync (prefix: Option<String>) |memories, prefix| Ok(memories.categories(prefix)?);
    count count_sync (prefix: Option<String>) |memories, prefix| Ok(memories.count(prefix)?);
    close close_sync () |memories| Ok(memories.close());
}
