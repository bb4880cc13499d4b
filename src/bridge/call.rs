//! Calls into Python from threads that may outlive the interpreter: those of the core, and daemon threads with a loop.
//!
//! Before Python 3.14, a thread that asks for the GIL while the interpreter exits is ended by `pthread_exit`, which
//! unwinds its stack. PyO3 has a thread hang instead where PyO3 itself asks, as Python 3.14 does; Python code that is
//! called asks too, whenever it gave way to another thread. That unwinding would reach a Rust frame which must not be
//! unwound, and abort the process. Source: <https://github.com/python/cpython/issues/87135>.

use pyo3::prelude::*;
use pyo3::types::PyString;

/// `object.name(argument)`, or `object.name()`, in a thread that hangs should the interpreter exit meanwhile.
pub fn method<'py>(
    object: &Bound<'py, PyAny>,
    name: &Bound<'py, PyString>,
    argument: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    #[cfg(unix)]
    return unwound::method(object, name, argument);
    #[cfg(not(unix))]
    match argument {
        Some(argument) => object.call_method1(name, (argument,)),
        None => object.call_method0(name),
    }
}

#[cfg(unix)]
mod unwound {
    use super::*;
    use pyo3::ffi::{PyObject, PyObject_CallMethodObjArgs};
    use std::hint::black_box;
    use std::ptr::null_mut;

    type MayNotUnwind = unsafe extern "C" fn(*mut PyObject, *mut PyObject, ...) -> *mut PyObject;
    type MayUnwind =
        unsafe extern "C-unwind" fn(*mut PyObject, *mut PyObject, ...) -> *mut PyObject;

    /// Dropped by an unwinding only. The thread does not hold the GIL then: it was refused it.
    struct Hang;

    impl Drop for Hang {
        fn drop(&mut self) {
            loop {
                std::thread::park();
            }
        }
    }

    pub fn method<'py>(
        object: &Bound<'py, PyAny>,
        name: &Bound<'py, PyString>,
        argument: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let hang = Hang;
        let end: *mut PyObject = null_mut();
        let argument = argument.map_or(end, |argument| argument.as_ptr());
        // A black box: where the compiler sees which function it is, it goes by PyO3's word that it does not unwind.
        let call: MayNotUnwind = black_box(PyObject_CallMethodObjArgs);
        // SAFETY: the two types differ only in what a caller is prepared for.
        let call = unsafe { std::mem::transmute::<MayNotUnwind, MayUnwind>(call) };
        // SAFETY: attached, as the `Bound`s show; the arguments are objects, and their list ends with a null. What is
        // returned is a new reference, or null with an exception set.
        let answer = unsafe {
            let answer = call(object.as_ptr(), name.as_ptr(), argument, end);
            Bound::from_owned_ptr_or_err(object.py(), answer)
        };
        std::mem::forget(hang);
        answer
    }
}
