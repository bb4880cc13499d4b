//! The owned answer of a finished operation, and the one place where it becomes a Python object.

/// What crosses from Rust to Python. It owns its data, so that any thread may make and drop it.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Value {
    #[default]
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    Bytes(Vec<u8>),
    Tuple(Vec<Value>),
    List(Vec<Value>),
    Record(Box<crate::memory::Found>),
}

#[cfg(feature = "extension-module")]
mod python {
    use super::Value;
    use crate::error::Error;
    use pyo3::exceptions::PyTypeError;
    use pyo3::prelude::*;
    use pyo3::types::{PyBool, PyBytes, PyFloat, PyInt, PyList, PyString, PyTuple};

    impl Value {
        pub fn into_py(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
            let each = |values: Vec<Value>| {
                values
                    .into_iter()
                    .map(|value| value.into_py(py))
                    .collect::<PyResult<Vec<_>>>()
            };
            Ok(match self {
                Self::None => py.None(),
                Self::Bool(value) => PyBool::new(py, value).to_owned().into_any().unbind(),
                Self::Int(value) => value.into_pyobject(py)?.into_any().unbind(),
                Self::Float(value) => PyFloat::new(py, value).into_any().unbind(),
                Self::Text(value) => PyString::new(py, &value).into_any().unbind(),
                Self::Bytes(value) => PyBytes::new(py, &value).into_any().unbind(),
                Self::Tuple(values) => PyTuple::new(py, each(values)?)?.into_any().unbind(),
                Self::List(values) => PyList::new(py, each(values)?)?.into_any().unbind(),
                Self::Record(found) => found.into_py(py)?,
            })
        }
    }

    /// Only scalars come in: None, bool, int of 64 bits, float, str and bytes.
    impl<'py> FromPyObject<'_, 'py> for Value {
        type Error = PyErr;

        fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
            // bool before int, whose subclass it is.
            if object.is_none() {
                Ok(Self::None)
            } else if let Ok(value) = object.cast::<PyBool>() {
                Ok(Self::Bool(value.is_true()))
            } else if object.is_instance_of::<PyInt>() {
                object.extract().map(Self::Int).map_err(|_| {
                    Error::Overflow(format!("{} does not fit 64 bits", *object)).into()
                })
            } else if let Ok(value) = object.cast::<PyFloat>() {
                Ok(Self::Float(value.value()))
            } else if let Ok(value) = object.cast::<PyString>() {
                Ok(Self::Text(value.to_str()?.to_owned()))
            } else if let Ok(value) = object.cast::<PyBytes>() {
                Ok(Self::Bytes(value.as_bytes().to_vec()))
            } else {
                Err(PyTypeError::new_err(format!(
                    "expected None, bool, int, float, str or bytes, not {}",
                    object.get_type().name()?
                )))
            }
        }
    }
}
