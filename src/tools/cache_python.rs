//! The cache as Python sees it, and the canonical text of a call's arguments.

use super::cache::{Cache, Claim};
use crate::error::Error;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Results as bytes, by key.
#[pyclass(frozen, module = "fastcrew_async._core")]
pub struct ResultCache(Mutex<Cache>);

impl ResultCache {
    fn lock(&self) -> MutexGuard<'_, Cache> {
        // Nothing panics while the lock is held, and the state is consistent after each step.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl ResultCache {
    #[new]
    fn new(max_entries: usize, max_bytes: usize) -> Self {
        Self(Mutex::new(Cache::new(max_entries, max_bytes)))
    }

    /// The result of `key` as ``("hit", bytes)``; or ``("lead", ticket)``: make the call and settle it; or
    /// ``("wait", ticket)``: another one makes it.
    fn claim<'py>(
        &self,
        py: Python<'py>,
        key: &str,
    ) -> PyResult<(&'static str, Bound<'py, PyAny>)> {
        let claim = self.lock().claim(key, Instant::now());
        Ok(match claim {
            Claim::Hit(value) => ("hit", PyBytes::new(py, &value).into_any()),
            Claim::Lead(ticket) => ("lead", ticket.into_pyobject(py)?.into_any()),
            Claim::Wait(ticket) => ("wait", ticket.into_pyobject(py)?.into_any()),
        })
    }

    /// The leader's call has ended; `value` is kept for `ttl` seconds, None is not. Gives the tickets of those who wait.
    fn settle(&self, key: &str, leader: u64, value: Option<&[u8]>, ttl: f64) -> PyResult<Vec<u64>> {
        let seconds = Duration::try_from_secs_f64(ttl)
            .map_err(|_| Error::Invalid(format!("ttl={ttl} is not a number of seconds")))?;
        Ok(self
            .lock()
            .settle(key, leader, value, seconds, Instant::now()))
    }

    /// A caller gives up. When it led, gives the ticket of the one that leads now, if any waits.
    fn leave(&self, key: &str, ticket: u64) -> Option<u64> {
        self.lock().leave(key, ticket)
    }

    /// Forgets the results; calls under way go on and are kept.
    fn clear(&self) {
        self.lock().clear();
    }

    /// Entries and bytes now; entries put out so far to make room.
    fn stats(&self) -> BTreeMap<&'static str, u64> {
        let cache = self.lock();
        BTreeMap::from([
            ("entries", cache.entries() as u64),
            ("bytes", cache.bytes() as u64),
            ("evicted", cache.evicted()),
        ])
    }
}

const DEEPEST: usize = 100;

/// The arguments as JSON with sorted keys, the same for the same arguments only; None where they are not plain JSON.
#[pyfunction]
pub fn canonical(arguments: &Bound<'_, PyAny>) -> PyResult<Option<String>> {
    let mut text = String::new();
    Ok(write(arguments, &mut text, 0)?.then_some(text))
}

/// False where the value, or a part of it, is no plain JSON.
fn write(value: &Bound<'_, PyAny>, text: &mut String, depth: usize) -> PyResult<bool> {
    if depth > DEEPEST {
        return Ok(false);
    }
    if let Ok(string) = value.cast_exact::<PyString>() {
        return Ok(quote(string, text));
    }
    if value.is_none() {
        text.push_str("null");
    } else if let Ok(truth) = value.cast_exact::<PyBool>() {
        text.push_str(if truth.is_true() { "true" } else { "false" });
    } else if value.is_exact_instance_of::<PyInt>() || value.is_exact_instance_of::<PyFloat>() {
        return number(value, text);
    } else if let Ok(dict) = value.cast_exact::<PyDict>() {
        return write_dict(dict, text, depth);
    } else if let Ok(list) = value.cast_exact::<PyList>() {
        return write_list(list, text, depth);
    } else {
        return Ok(false);
    }
    Ok(true)
}

fn write_dict(dict: &Bound<'_, PyDict>, text: &mut String, depth: usize) -> PyResult<bool> {
    let mut items = Vec::with_capacity(dict.len());
    for (key, value) in dict.iter() {
        let Ok(key) = key.cast_into_exact::<PyString>() else {
            return Ok(false);
        };
        let Ok(name) = key.to_cow().map(|name| name.into_owned()) else {
            return Ok(false);
        };
        items.push((name, key, value));
    }
    items.sort_by(|one, other| one.0.cmp(&other.0));
    text.push('{');
    for (position, (_, key, value)) in items.iter().enumerate() {
        if position > 0 {
            text.push(',');
        }
        if !quote(key, text) {
            return Ok(false);
        }
        text.push(':');
        if !write(value, text, depth + 1)? {
            return Ok(false);
        }
    }
    text.push('}');
    Ok(true)
}

/// False for what JSON has no number for, and for an integer of so many digits that Python refuses to write it.
fn number(value: &Bound<'_, PyAny>, text: &mut String) -> PyResult<bool> {
    if let Ok(float) = value.cast_exact::<PyFloat>() {
        if !float.value().is_finite() {
            return Ok(false);
        }
    }
    let Ok(written) = value.repr() else {
        return Ok(false);
    };
    text.push_str(&written.to_cow()?);
    Ok(true)
}

fn write_list(list: &Bound<'_, PyList>, text: &mut String, depth: usize) -> PyResult<bool> {
    text.push('[');
    for (position, item) in list.iter().enumerate() {
        if position > 0 {
            text.push(',');
        }
        if !write(&item, text, depth + 1)? {
            return Ok(false);
        }
    }
    text.push(']');
    Ok(true)
}

/// False for a text with half a surrogate pair, which has no UTF-8.
fn quote(string: &Bound<'_, PyString>, text: &mut String) -> bool {
    let Ok(plain) = string.to_cow() else {
        return false;
    };
    text.push('"');
    for character in plain.chars() {
        match character {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            '\u{8}' => text.push_str("\\b"),
            '\u{c}' => text.push_str("\\f"),
            control if control < ' ' => text.push_str(&format!("\\u{:04x}", u32::from(control))),
            other => text.push(other),
        }
    }
    text.push('"');
    true
}
