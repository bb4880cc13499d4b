//! The quick way to write: nothing of Python's runs meanwhile, so nothing need be held.
//!
//! Only exact types whose reading runs no code but the interpreter's own: the lock is not given up, nothing that the
//! garbage collector knows is made, and what a container holds stays there. Whatever else comes, an error too, makes the
//! caller start again with `python_walk::write`, which holds each value and says what is wrong.

use super::write::Emit;
use super::DEEPEST;
use pyo3::ffi;
use pyo3::prelude::*;
use std::ptr;

/// Whether the value could be written so; otherwise what has been written is of no use.
pub fn write<E: Emit>(value: &Bound<'_, PyAny>, out: &mut E, max_bytes: usize) -> bool {
    // SAFETY: the caller holds the value, and the interpreter's lock as long as the `Bound` lives.
    let written = unsafe { walk(value.as_ptr(), out, max_bytes, 0) };
    if !written {
        // SAFETY: the lock is held. What a text without UTF-8 has raised is found again.
        unsafe { ffi::PyErr_Clear() };
    }
    written && out.len() <= max_bytes
}

/// # Safety
///
/// The pointer is to an object that lives while this runs, and the interpreter's lock is held.
#[inline]
unsafe fn text<'a>(object: *mut ffi::PyObject) -> Option<&'a str> {
    let mut size = 0;
    // SAFETY: it is a str, as the caller has seen; what comes back lives as long as that, and is UTF-8.
    unsafe {
        let data = ffi::PyUnicode_AsUTF8AndSize(object, &mut size);
        if data.is_null() {
            return None;
        }
        let bytes = std::slice::from_raw_parts(data.cast(), size as usize);
        Some(std::str::from_utf8_unchecked(bytes))
    }
}

/// # Safety
///
/// The pointer is to an object that lives while this runs, and the interpreter's lock is held.
unsafe fn walk<E: Emit>(
    object: *mut ffi::PyObject,
    out: &mut E,
    max_bytes: usize,
    depth: usize,
) -> bool {
    // SAFETY: each call is given an object of the type that it is for; what is borrowed from a list or a dict stays in
    // it, because nothing runs that could change it.
    unsafe {
        let class = ffi::Py_TYPE(object);
        if class == &raw mut ffi::PyUnicode_Type {
            let Some(text) = text(object) else {
                return false;
            };
            if text.len() > max_bytes {
                return false;
            }
            out.text(text);
        } else if class == &raw mut ffi::PyDict_Type {
            let length = ffi::PyDict_Size(object);
            if depth >= DEEPEST || out.len() > max_bytes {
                return false;
            }
            out.map(length as usize);
            let (mut at, mut key, mut value) = (0, ptr::null_mut(), ptr::null_mut());
            let mut first = true;
            while ffi::PyDict_Next(object, &mut at, &mut key, &mut value) != 0 {
                if ffi::Py_TYPE(key) != &raw mut ffi::PyUnicode_Type {
                    return false;
                }
                let Some(key) = text(key) else {
                    return false;
                };
                if key.len() > max_bytes {
                    return false;
                }
                out.key(key, first, length == 1);
                first = false;
                if !walk(value, out, max_bytes, depth + 1) {
                    return false;
                }
            }
            out.end_map();
        } else if class == &raw mut ffi::PyList_Type {
            let length = ffi::PyList_Size(object);
            if depth >= DEEPEST {
                return false;
            }
            out.list(length as usize);
            for index in 0..length {
                out.item(index == 0);
                if out.len() > max_bytes
                    || !walk(
                        ffi::PyList_GetItem(object, index),
                        out,
                        max_bytes,
                        depth + 1,
                    )
                {
                    return false;
                }
            }
            out.end_list();
        } else if class == &raw mut ffi::PyLong_Type {
            let mut overflow = 0;
            let number = ffi::PyLong_AsLongLongAndOverflow(object, &mut overflow);
            if overflow != 0 {
                return false;
            }
            out.int(number);
        } else if class == &raw mut ffi::PyFloat_Type {
            out.float(ffi::PyFloat_AsDouble(object));
        } else if object == ffi::Py_None() {
            out.null();
        } else if class == &raw mut ffi::PyBool_Type {
            out.bool(object == ffi::Py_True());
        } else {
            return false;
        }
    }
    true
}
