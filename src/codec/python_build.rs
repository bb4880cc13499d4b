//! Python's objects, built as a document is read.

use super::build::{Build, Made, Refused};
use pyo3::exceptions::PyUnicodeDecodeError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyList, PyString};
use pyo3::{ffi, intern};
use std::sync::{Mutex, MutexGuard, TryLockError};

/// The keys read last: most documents have the same few, and a key that is there already has its hash too.
static KEYS: Mutex<Keys> = Mutex::new(Keys {
    slots: [const { None }; SLOTS],
});
const SLOTS: usize = 512;
const LONGEST: usize = 32;

/// Length and ends of a key, which are all of it where it has sixteen bytes at most; the key; the object for it.
type Kept = (Ends, Box<[u8]>, Py<PyString>);
type Ends = (usize, u64, u64);

struct Keys {
    slots: [Option<Kept>; SLOTS],
}

#[inline]
fn ends_of(text: &[u8]) -> Ends {
    let word = |bytes: &[u8; 8]| u64::from_le_bytes(*bytes);
    if let (Some(first), Some(last)) = (text.first_chunk(), text.last_chunk()) {
        return (text.len(), word(first), word(last));
    }
    let short = text
        .iter()
        .fold(0, |word, &byte| word << 8 | u64::from(byte));
    (text.len(), short, 0)
}

/// Where a key is kept.
#[inline]
fn slot_of((length, first, last): Ends) -> usize {
    let mixed = first.wrapping_mul(0x9e37_79b9_7f4a_7c15)
        ^ last.wrapping_mul(0xc2b2_ae3d_27d4_eb4f)
        ^ length as u64;
    (mixed >> 23) as usize % SLOTS
}

pub struct Objects<'py> {
    py: Python<'py>,
    /// None while another thread reads.
    keys: Option<MutexGuard<'static, Keys>>,
    /// What went wrong in the interpreter, for `Refused::Failed`.
    pub error: Option<PyErr>,
}

impl<'py> Objects<'py> {
    pub fn new(py: Python<'py>) -> Self {
        let keys = match KEYS.try_lock() {
            Ok(keys) => Some(keys),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        };
        Self {
            py,
            keys,
            error: None,
        }
    }

    #[cold]
    fn failed(&mut self, error: PyErr) -> Refused {
        self.error = Some(error);
        Refused::Failed
    }

    #[inline]
    fn new_text(&mut self, text: &[u8]) -> Made<Bound<'py, PyAny>> {
        // SAFETY: the pointer and the length are those of a slice; the interpreter checks that it is UTF-8.
        let made = unsafe {
            let object = ffi::PyUnicode_FromStringAndSize(
                text.as_ptr().cast(),
                text.len() as ffi::Py_ssize_t,
            );
            Bound::from_owned_ptr_or_err(self.py, object)
        };
        made.map_err(|error| self.not_utf8(text, error))
    }

    #[cold]
    fn not_utf8(&mut self, text: &[u8], error: PyErr) -> Refused {
        if error.is_instance_of::<PyUnicodeDecodeError>(self.py) {
            if let Err(place) = std::str::from_utf8(text) {
                return Refused::Text(place.valid_up_to());
            }
        }
        self.failed(error)
    }
}

static FROM_ISO: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

impl<'py> Build for Objects<'py> {
    type Value = Bound<'py, PyAny>;
    type Key = Bound<'py, PyAny>;
    type List = Bound<'py, PyList>;
    /// The entries put so far are counted: fewer in the end means that a key was there twice.
    type Map = (Bound<'py, PyDict>, usize);

    #[inline]
    fn null(&mut self) -> Self::Value {
        self.py.None().into_bound(self.py)
    }

    #[inline]
    fn bool(&mut self, value: bool) -> Self::Value {
        PyBool::new(self.py, value).to_owned().into_any()
    }

    fn int(&mut self, value: i64) -> Made<Self::Value> {
        match value.into_pyobject(self.py) {
            Ok(object) => Ok(object.into_any()),
        }
    }

    fn unsigned(&mut self, value: u64) -> Made<Self::Value> {
        match value.into_pyobject(self.py) {
            Ok(object) => Ok(object.into_any()),
        }
    }

    fn big(&mut self, bytes: &[u8]) -> Made<Self::Value> {
        let py = self.py;
        let make = || {
            let signed = PyDict::new(py);
            signed.set_item(intern!(py, "signed"), true)?;
            let class = py.get_type::<pyo3::types::PyInt>();
            let given = (PyBytes::new(py, bytes), intern!(py, "big"));
            class.call_method(intern!(py, "from_bytes"), given, Some(&signed))
        };
        make().map_err(|error| self.failed(error))
    }

    fn digits(&mut self, text: &str) -> Made<Self::Value> {
        let py = self.py;
        let make = || {
            let value = py.get_type::<pyo3::types::PyInt>().call1((text,))?;
            let bits: usize = value.call_method0(intern!(py, "bit_length"))?.extract()?;
            PyResult::Ok((value, bits))
        };
        match make() {
            Ok((value, bits)) if bits < super::WIDEST_INTEGER * 8 => Ok(value),
            Ok(_) => Err(Refused::Failed),
            Err(error) => Err(self.failed(error)),
        }
    }

    fn float(&mut self, value: f64) -> Made<Self::Value> {
        Ok(PyFloat::new(self.py, value).into_any())
    }

    #[inline]
    fn text(&mut self, text: &[u8]) -> Made<Self::Value> {
        self.new_text(text)
    }

    fn bytes(&mut self, bytes: &[u8]) -> Made<Self::Value> {
        Ok(PyBytes::new(self.py, bytes).into_any())
    }

    fn datetime(&mut self, text: &str) -> Made<Self::Value> {
        let py = self.py;
        let make = || {
            FROM_ISO
                .get_or_try_init(py, || {
                    let class = py.import("datetime")?.getattr("datetime")?;
                    PyResult::Ok(class.getattr("fromisoformat")?.unbind())
                })?
                .bind(py)
                .call1((text,))
        };
        make().map_err(|error| {
            if error.is_instance_of::<pyo3::exceptions::PyValueError>(py) {
                Refused::Datetime
            } else {
                self.failed(error)
            }
        })
    }

    fn list(&mut self) -> Made<Self::List> {
        Ok(PyList::empty(self.py))
    }

    #[inline]
    fn push(&mut self, list: &mut Self::List, value: Self::Value) -> Made<()> {
        list.append(value).map_err(|error| self.failed(error))
    }

    fn end_list(&mut self, list: Self::List) -> Self::Value {
        list.into_any()
    }

    #[inline]
    fn key(&mut self, text: &[u8]) -> Made<Self::Key> {
        if text.len() > LONGEST || self.keys.is_none() {
            return self.new_text(text);
        }
        let ends = ends_of(text);
        let slot = slot_of(ends);
        if let Some(keys) = &self.keys {
            if let Some((kept, name, object)) = &keys.slots[slot] {
                if *kept == ends && (text.len() <= 16 || **name == *text) {
                    return Ok(object.bind(self.py).clone().into_any());
                }
            }
        }
        let made = self.new_text(text)?;
        if let (Some(keys), Ok(string)) = (&mut self.keys, made.cast::<PyString>()) {
            keys.slots[slot] = Some((ends, text.into(), string.clone().unbind()));
        }
        Ok(made)
    }

    fn map(&mut self) -> Made<Self::Map> {
        Ok((PyDict::new(self.py), 0))
    }

    #[inline]
    fn put(&mut self, map: &mut Self::Map, key: Self::Key, value: Self::Value) -> Made<()> {
        map.1 += 1;
        map.0
            .set_item(key, value)
            .map_err(|error| self.failed(error))
    }

    fn end_map(&mut self, (dict, count): Self::Map) -> Made<Self::Value> {
        if dict.len() < count {
            return Err(Refused::Twice);
        }
        Ok(dict.into_any())
    }
}
