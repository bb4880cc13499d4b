//! Python's values, as they are written.

use super::write::Emit;
use super::{DEEPEST, WIDEST_INTEGER};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple, PyType};
use pyo3::{ffi, intern};

/// Why a value cannot be written, and where it is: the innermost step first.
pub struct Unwritable {
    pub path: Vec<String>,
    pub message: String,
}

pub type Written<T> = Result<T, Box<Unwritable>>;

impl Unwritable {
    #[cold]
    pub fn because<T>(message: impl Into<String>) -> Written<T> {
        Err(Box::new(Self {
            path: Vec::new(),
            message: message.into(),
        }))
    }

    /// As one sentence, from the document down.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for step in self.path.iter().rev() {
            if !step.starts_with('[') && !text.is_empty() {
                text.push('.');
            }
            text.push_str(step);
        }
        if !text.is_empty() {
            text.push_str(": ");
        }
        text + &self.message
    }
}

pub fn within_key<T>(result: Written<T>, key: &str) -> Written<T> {
    result.map_err(|mut error| {
        error.path.push(key.chars().take(80).collect());
        error
    })
}

pub fn within_item<T>(result: Written<T>, index: usize) -> Written<T> {
    result.map_err(|mut error| {
        error.path.push(format!("[{index}]"));
        error
    })
}

/// What a value is, as all formats know it.
pub enum Plain<'a, 'py> {
    Null,
    Bool(bool),
    Int(i64),
    /// Beyond 64 bits.
    Big(&'a Bound<'py, PyAny>),
    Float(f64),
    Text(&'a Bound<'py, PyString>),
    Bytes(&'a Bound<'py, PyBytes>),
    Datetime(String),
    List(&'a Bound<'py, PyList>),
    Tuple(&'a Bound<'py, PyTuple>),
    Map(Bound<'py, PyDict>),
}

static DATETIME: PyOnceLock<Py<PyType>> = PyOnceLock::new();

/// The exact types first, then what is derived from them.
#[inline]
pub fn plain<'a, 'py>(value: &'a Bound<'py, PyAny>) -> Written<Plain<'a, 'py>> {
    if let Ok(text) = value.cast_exact::<PyString>() {
        return Ok(Plain::Text(text));
    }
    if let Ok(dict) = value.cast_exact::<PyDict>() {
        return Ok(Plain::Map(dict.clone()));
    }
    if let Ok(list) = value.cast_exact::<PyList>() {
        return Ok(Plain::List(list));
    }
    if value.is_none() {
        return Ok(Plain::Null);
    }
    if let Ok(truth) = value.cast_exact::<PyBool>() {
        return Ok(Plain::Bool(truth.is_true()));
    }
    if let Ok(number) = value.cast::<PyInt>() {
        let mut overflow = 0;
        // SAFETY: it is an int, and the pointer is to a local of the right type.
        let small = unsafe { ffi::PyLong_AsLongLongAndOverflow(number.as_ptr(), &mut overflow) };
        return Ok(if overflow == 0 {
            Plain::Int(small)
        } else {
            Plain::Big(value)
        });
    }
    if let Ok(number) = value.cast::<PyFloat>() {
        return Ok(Plain::Float(number.value()));
    }
    derived(value)
}

fn derived<'a, 'py>(value: &'a Bound<'py, PyAny>) -> Written<Plain<'a, 'py>> {
    let py = value.py();
    if let Ok(text) = value.cast::<PyString>() {
        return Ok(Plain::Text(text));
    }
    if let Ok(bytes) = value.cast::<PyBytes>() {
        return Ok(Plain::Bytes(bytes));
    }
    if let Ok(list) = value.cast::<PyList>() {
        return Ok(Plain::List(list));
    }
    if let Ok(tuple) = value.cast::<PyTuple>() {
        return Ok(Plain::Tuple(tuple));
    }
    if let Ok(dict) = value.cast::<PyDict>() {
        // An OrderedDict has an order of its own, which a copy takes over.
        let copy = PyDict::new(py);
        return match copy.update(dict.as_mapping()) {
            Ok(()) => Ok(Plain::Map(copy)),
            Err(error) => Unwritable::because(error.to_string()),
        };
    }
    let is_datetime = DATETIME
        .import(py, "datetime", "datetime")
        .is_ok_and(|class| value.get_type().is(class));
    if is_datetime {
        let text = value
            .call_method0(intern!(py, "isoformat"))
            .and_then(|text| text.extract::<String>());
        return match text {
            Ok(text) if super::number::is_datetime(text.as_bytes()) => Ok(Plain::Datetime(text)),
            Ok(text) => Unwritable::because(format!("{text} is no date and time of a fixed form")),
            Err(error) => Unwritable::because(error.to_string()),
        };
    }
    let name = value
        .get_type()
        .name()
        .map_or_else(|_| "value".to_owned(), |name| name.to_string());
    Unwritable::because(format!(
        "{name} cannot be written; use None, bool, int, float, str, bytes, datetime, list or dict"
    ))
}

#[inline]
pub fn utf8<'a>(text: &'a Bound<'_, PyString>) -> Written<&'a str> {
    match text.to_str() {
        Ok(text) => Ok(text),
        Err(error) => not_utf8(text, error),
    }
}

#[cold]
fn not_utf8<T>(text: &Bound<'_, PyString>, error: PyErr) -> Written<T> {
    let start = error
        .value(text.py())
        .getattr("start")
        .and_then(|start| start.extract::<usize>());
    match start {
        Ok(start) => Unwritable::because(format!(
            "half a surrogate pair at index {start} has no UTF-8; replace it first, for example with \
             text.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace')"
        )),
        Err(_) => Unwritable::because(error.to_string()),
    }
}

/// An integer beyond 64 bits, in decimal digits or in two's complement of the fewest bytes.
pub fn big(value: &Bound<'_, PyAny>, decimal: bool) -> Written<Vec<u8>> {
    let py = value.py();
    let make = || {
        let class = py.get_type::<PyInt>();
        let bits: usize = class
            .call_method1(intern!(py, "bit_length"), (value,))?
            .extract()?;
        if bits >= WIDEST_INTEGER * 8 {
            return Ok(Err(bits));
        }
        if decimal {
            let text = class.call_method1(intern!(py, "__repr__"), (value,))?;
            return PyResult::Ok(Ok(text.extract::<String>()?.into_bytes()));
        }
        let signed = PyDict::new(py);
        signed.set_item(intern!(py, "signed"), true)?;
        let bytes = class.call_method(
            intern!(py, "to_bytes"),
            (value, bits / 8 + 1, intern!(py, "big")),
            Some(&signed),
        )?;
        Ok(Ok(bytes.extract::<Vec<u8>>()?))
    };
    match make() {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(bits)) => Unwritable::because(format!(
            "an integer of {bits} bits cannot be written; the most is {}",
            WIDEST_INTEGER * 8 - 1
        )),
        Err(error) => Unwritable::because(error.to_string()),
    }
}

/// The entries of a dict, in its order. Nothing is checked where it changes meanwhile; each entry is held as it is read.
pub struct Entries<'a, 'py> {
    dict: &'a Bound<'py, PyDict>,
    at: ffi::Py_ssize_t,
}

impl<'a, 'py> Entries<'a, 'py> {
    pub fn of(dict: &'a Bound<'py, PyDict>) -> Self {
        Self { dict, at: 0 }
    }
}

impl<'py> Iterator for Entries<'_, 'py> {
    type Item = (Bound<'py, PyAny>, Bound<'py, PyAny>);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let (mut key, mut value) = (std::ptr::null_mut(), std::ptr::null_mut());
        let py = self.dict.py();
        // SAFETY: it is a dict, the pointers are to locals of the right types; what comes back is borrowed, and a
        // reference of our own is taken before anything else can run.
        unsafe {
            if ffi::PyDict_Next(self.dict.as_ptr(), &mut self.at, &mut key, &mut value) == 0 {
                return None;
            }
            Some((
                Bound::from_borrowed_ptr(py, key),
                Bound::from_borrowed_ptr(py, value),
            ))
        }
    }
}

pub fn key_of<'a, 'py>(key: &'a Bound<'py, PyAny>) -> Written<&'a Bound<'py, PyString>> {
    match key.cast::<PyString>() {
        Ok(text) => Ok(text),
        Err(_) => {
            let name = key
                .get_type()
                .name()
                .map_or_else(|_| "value".to_owned(), |name| name.to_string());
            Unwritable::because(format!("a key is {name}; use a str"))
        }
    }
}

pub fn too_large<T>(max_bytes: usize) -> Written<T> {
    Unwritable::because(format!(
        "the document is larger than max_bytes={max_bytes}; raise it, or write the document in frames"
    ))
}

pub fn too_deep<T>() -> Written<T> {
    Unwritable::because(format!(
        "nested deeper than {DEEPEST} levels; flatten it, and see that it does not contain itself"
    ))
}

fn changed<T>() -> Written<T> {
    Unwritable::because("it changed while it was written")
}

/// Writes a value in JSON or MessagePack.
pub fn write<E: Emit>(
    value: &Bound<'_, PyAny>,
    out: &mut E,
    max_bytes: usize,
    depth: usize,
) -> Written<()> {
    if let Ok(text) = value.cast_exact::<PyString>() {
        return write_text(text, out, max_bytes);
    }
    if let Ok(dict) = value.cast_exact::<PyDict>() {
        return write_map(dict, out, max_bytes, depth);
    }
    if out.len() > max_bytes {
        return too_large(max_bytes);
    }
    match plain(value)? {
        Plain::Text(text) => write_text(text, out, max_bytes)?,
        Plain::Map(dict) => write_map(&dict, out, max_bytes, depth)?,
        Plain::List(list) => {
            if depth >= DEEPEST {
                return too_deep();
            }
            let length = list.len();
            out.list(length);
            for index in 0..length {
                let Ok(item) = list.get_item(index) else {
                    return changed();
                };
                out.item(index == 0);
                if let Err(error) = write(&item, out, max_bytes, depth + 1) {
                    return within_item(Err(error), index);
                }
            }
            if list.len() != length {
                return changed();
            }
            out.end_list();
        }
        Plain::Tuple(tuple) => {
            if depth >= DEEPEST {
                return too_deep();
            }
            out.list(tuple.len());
            for (index, item) in tuple.iter().enumerate() {
                out.item(index == 0);
                within_item(write(&item, out, max_bytes, depth + 1), index)?;
            }
            out.end_list();
        }
        Plain::Null => out.null(),
        Plain::Bool(truth) => out.bool(truth),
        Plain::Int(number) => out.int(number),
        Plain::Big(number) => out.big(&big(number, E::DECIMAL)?),
        Plain::Float(number) => out.float(number),
        Plain::Bytes(bytes) => {
            let bytes = bytes.as_bytes();
            if bytes.len() > max_bytes - out.len() {
                return too_large(max_bytes);
            }
            out.bytes(bytes);
        }
        Plain::Datetime(text) => out.datetime(&text),
    }
    if out.len() > max_bytes {
        return too_large(max_bytes);
    }
    Ok(())
}

#[inline]
fn write_text<E: Emit>(text: &Bound<'_, PyString>, out: &mut E, max_bytes: usize) -> Written<()> {
    let text = utf8(text)?;
    if text.len() > max_bytes.saturating_sub(out.len()) {
        return too_large(max_bytes);
    }
    out.text(text);
    Ok(())
}

fn write_map<E: Emit>(
    dict: &Bound<'_, PyDict>,
    out: &mut E,
    max_bytes: usize,
    depth: usize,
) -> Written<()> {
    if depth >= DEEPEST {
        return too_deep();
    }
    let length = dict.len();
    let mut count = 0;
    out.map(length);
    for (key, value) in Entries::of(dict) {
        let key = utf8(key_of(&key)?)?;
        if key.len() > max_bytes.saturating_sub(out.len()) {
            return too_large(max_bytes);
        }
        out.key(key, count == 0, length == 1);
        if let Err(error) = write(&value, out, max_bytes, depth + 1) {
            return within_key(Err(error), key);
        }
        count += 1;
    }
    if count != length {
        return changed();
    }
    out.end_map();
    Ok(())
}
