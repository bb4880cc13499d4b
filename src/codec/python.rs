//! The codec as Python sees it.

use super::build::Fault;
use super::frames::Splitter;
use super::python_build::Objects;
use super::python_protobuf::Walk;
use super::python_walk::{write, Unwritable, Written};
use super::schema::{Described, Schema};
use super::write::Emit;
use super::{json, json_write, msgpack, protobuf, python_quick};
use crate::error::Error;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

fn unreadable(fault: Fault) -> PyErr {
    Error::Decode {
        message: format!("{}, at byte {}", fault.message, fault.offset),
        offset: fault.offset,
    }
    .into()
}

const LONGEST_EXPECTED: usize = 256 * 1024;

enum Format {
    Json,
    Msgpack,
    Protobuf,
}

impl Format {
    fn named(name: &str) -> PyResult<Self> {
        Ok(match name {
            "json" => Self::Json,
            "msgpack" => Self::Msgpack,
            "protobuf" => Self::Protobuf,
            other => {
                return Err(PyValueError::new_err(format!(
                    "format={other:?} is not known; use json, msgpack or protobuf"
                )))
            }
        })
    }
}

/// Documents of one schema as bytes and back.
#[pyclass(frozen, module = "fastcrew_async._core")]
pub struct Codec {
    schema: Schema,
    /// About how long the next document may be: as long as the last one, where that was not very long.
    expected: AtomicUsize,
    names: Vec<Vec<Py<PyString>>>,
}

#[pymethods]
impl Codec {
    /// The records, the document first: each a name and its fields, and of each field number, name, kind, and whether
    /// there may be several.
    #[new]
    fn new(py: Python<'_>, schema: Vec<Described>) -> PyResult<Self> {
        let schema = Schema::new(schema).map_err(Error::Invalid)?;
        let names = schema
            .records
            .iter()
            .map(|record| {
                let names = record.fields.iter();
                names
                    .map(|field| PyString::intern(py, &field.name).unbind())
                    .collect()
            })
            .collect();
        Ok(Self {
            schema,
            expected: AtomicUsize::new(0),
            names,
        })
    }

    fn encode<'py>(
        &self,
        py: Python<'py>,
        document: &Bound<'py, PyDict>,
        format: &str,
        max_bytes: usize,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let mut out = Vec::with_capacity(1024 + self.expected.load(Ordering::Relaxed));
        let written = match Format::named(format)? {
            Format::Json => either(document, &mut json_write::Writer(&mut out), max_bytes),
            Format::Msgpack => either(document, &mut msgpack::Writer(&mut out), max_bytes),
            Format::Protobuf => {
                let mut walk = Walk {
                    schema: &self.schema,
                    names: &self.names,
                    out: &mut out,
                    max_bytes,
                };
                walk.record(document, 0, 0)
            }
        };
        match written {
            Ok(()) => {
                self.expected
                    .store(out.len().min(LONGEST_EXPECTED), Ordering::Relaxed);
                Ok(PyBytes::new(py, &out))
            }
            Err(error) => Err(encode_error(&error)),
        }
    }

    fn decode<'py>(
        &self,
        py: Python<'py>,
        data: &Bound<'py, PyBytes>,
        format: &str,
        max_bytes: usize,
    ) -> PyResult<Bound<'py, PyAny>> {
        let data = data.as_bytes();
        let format = Format::named(format)?;
        if data.len() > max_bytes {
            return Err(unreadable(Fault {
                offset: max_bytes,
                message: format!(
                    "the document has {} bytes, more than max_bytes={max_bytes}",
                    data.len()
                ),
            }));
        }
        let mut objects = Objects::new(py);
        let read = match format {
            Format::Json => json::read(data, &mut objects),
            Format::Msgpack => msgpack::read(data, &mut objects),
            Format::Protobuf => protobuf::read(data, &self.schema, &mut objects),
        };
        match (read, objects.error.take()) {
            (Ok(value), _) => Ok(value),
            (Err(_), Some(error)) => Err(error),
            (Err(fault), None) => Err(unreadable(*fault)),
        }
    }
}

/// The quick way where it will do, otherwise the one that holds what it reads.
fn either<E: Emit>(document: &Bound<'_, PyDict>, out: &mut E, max_bytes: usize) -> Written<()> {
    if python_quick::write(document, out, max_bytes) {
        return Ok(());
    }
    out.clear();
    write(document, out, max_bytes, 0)
}

fn encode_error(error: &Unwritable) -> PyErr {
    Error::Encode(error.text()).into()
}

/// Cuts what arrives in pieces into frames, each with its length before it.
#[pyclass(frozen, module = "fastcrew_async._core")]
pub struct FrameSplitter(Mutex<Splitter>);

#[pymethods]
impl FrameSplitter {
    #[new]
    fn new(max_frame: usize) -> Self {
        Self(Mutex::new(Splitter::new(max_frame)))
    }

    /// The frames that are complete with this piece.
    fn feed<'py>(
        &self,
        py: Python<'py>,
        piece: &Bound<'py, PyBytes>,
    ) -> PyResult<Bound<'py, PyList>> {
        let frames = PyList::empty(py);
        let mut failed = Ok(());
        let fed =
            self.0
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .feed(piece.as_bytes(), |frame| {
                    if failed.is_ok() {
                        failed = frames.append(PyBytes::new(py, frame));
                    }
                });
        failed?;
        fed.map_err(|fault| unreadable(*fault))?;
        Ok(frames)
    }

    /// Nothing more comes: an error where that is within a frame.
    fn end(&self) -> PyResult<()> {
        let splitter = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        splitter.end().map_err(|fault| unreadable(*fault))
    }

    /// How many bytes wait for the rest of their frame.
    #[getter]
    fn waiting(&self) -> usize {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .waiting()
    }
}
