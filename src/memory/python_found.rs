//! A record that was found, as the dictionary of its fields that a `MemoryRecord` has.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyFloat, PyInt, PyList, PyString};

use super::found::Found;

/// The fields in the order of the class, but for the embedding.
const FIELDS: [&str; 10] = [
    "id",
    "content",
    "scope",
    "categories",
    "metadata",
    "importance",
    "created_at",
    "last_accessed",
    "source",
    "private",
];

/// What all records are made with.
struct Maker {
    /// Its copy is a dictionary that has room for all fields.
    blank: Py<PyDict>,
    fields: [Py<PyString>; 10],
    moment: Py<PyAny>,
    loads: Py<PyAny>,
}

static MAKER: PyOnceLock<Maker> = PyOnceLock::new();

impl Maker {
    fn new(py: Python<'_>) -> PyResult<Self> {
        let blank = PyDict::new(py);
        let fields = FIELDS.map(|field| PyString::intern(py, field));
        for field in &fields {
            blank.set_item(field, py.None())?;
        }
        let moment = py.import("datetime")?.getattr("datetime")?;
        Ok(Self {
            blank: blank.unbind(),
            fields: fields.map(Bound::unbind),
            moment: moment.getattr("fromisoformat")?.unbind(),
            loads: py.import("json")?.getattr("loads")?.unbind(),
        })
    }

    fn moment<'py>(&self, py: Python<'py>, text: &str) -> PyResult<Bound<'py, PyAny>> {
        let moment = self.moment.bind(py);
        match text.strip_suffix('Z') {
            // Python knows it from 3.11 on.
            Some(text) => moment.call1((format!("{text}+00:00"),)),
            None => moment.call1((text,)),
        }
    }

    fn json<'py>(&self, py: Python<'py>, text: &str) -> PyResult<Bound<'py, PyAny>> {
        match simple(py, text) {
            Some(value) => Ok(value),
            None => self.loads.bind(py).call1((text,)),
        }
    }
}

impl Found {
    /// `(the fields, the vector's numbers in bytes)`: without a vector None, which then is the embedding as well.
    pub fn into_py(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let maker = MAKER.get_or_try_init(py, || Maker::new(py))?;
        let values = maker.blank.bind(py).copy()?;
        let set = |field: usize, value: Bound<'_, PyAny>| {
            values.set_item(maker.fields[field].bind(py), value)
        };
        for field in 0..3 {
            set(field, PyString::new(py, self.text(field)).into_any())?;
        }
        set(3, maker.json(py, self.text(3))?)?;
        set(4, maker.json(py, self.text(4))?)?;
        set(5, PyFloat::new(py, self.importance).into_any())?;
        set(6, maker.moment(py, self.text(5))?)?;
        set(7, maker.moment(py, self.text(6))?)?;
        if self.sourced {
            set(8, PyString::new(py, &self.text(7)[1..]).into_any())?;
        }
        set(9, self.private.into_pyobject(py)?.to_owned().into_any())?;
        let vector = match self.vector {
            Some(vector) => PyBytes::new(py, &vector).into_any(),
            None => {
                values.set_item(intern!(py, "embedding"), py.None())?;
                py.None().into_bound(py)
            }
        };
        Ok((values, vector).into_pyobject(py)?.into_any().unbind())
    }
}

/// What most categories and metadata are, as `json.dumps` writes it: a list of texts, or an object of texts and numbers,
/// without anything escaped. None for all else.
fn simple<'py>(py: Python<'py>, text: &str) -> Option<Bound<'py, PyAny>> {
    match text {
        "[]" => return Some(PyList::empty(py).into_any()),
        "{}" => return Some(PyDict::new(py).into_any()),
        _ if text.contains('\\') => return None,
        _ => {}
    }
    if let Some(mut rest) = text.strip_prefix('[') {
        let list = PyList::empty(py);
        loop {
            let (item, after) = quoted(rest)?;
            list.append(item).ok()?;
            match after {
                "]" => return Some(list.into_any()),
                _ => rest = after.strip_prefix(", ")?,
            }
        }
    }
    let mut rest = text.strip_prefix('{')?;
    let dict = PyDict::new(py);
    loop {
        let (key, after) = quoted(rest)?;
        let after = after.strip_prefix(": ")?;
        let after = if after.starts_with('"') {
            let (value, after) = quoted(after)?;
            dict.set_item(key, value).ok()?;
            after
        } else {
            let (value, after) = after.split_at(after.find([',', '}'])?);
            dict.set_item(key, plain(py, value)?).ok()?;
            after
        };
        match after {
            "}" => return Some(dict.into_any()),
            _ => rest = after.strip_prefix(", ")?,
        }
    }
}

/// A text in quotes, and what comes after it.
fn quoted(text: &str) -> Option<(&str, &str)> {
    text.strip_prefix('"')?.split_once('"')
}

fn plain<'py>(py: Python<'py>, text: &str) -> Option<Bound<'py, PyAny>> {
    let is_whole = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let is_number = |text: &str| text.bytes().all(|byte| b"0123456789.+-e".contains(&byte));
    match text {
        "null" => Some(py.None().into_bound(py)),
        "true" | "false" => Some(
            (text == "true")
                .into_pyobject(py)
                .ok()?
                .to_owned()
                .into_any(),
        ),
        _ if is_whole(text.strip_prefix('-').unwrap_or(text)) => {
            let number: i64 = text.parse().ok()?;
            Some(PyInt::new(py, number).into_any())
        }
        // As Python, Rust reads the nearest float.
        _ if is_number(text) => Some(PyFloat::new(py, text.parse().ok()?).into_any()),
        _ => None,
    }
}
