//! The core's one error type, and its one conversion to the exceptions of `fastcrew_async/errors.py`.

use thiserror::Error as ThisError;

/// Which of the database exceptions an error becomes; the names are those of `errors.py`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DatabaseErrorKind {
    Other,
    Closed,
    Open,
    Busy,
    Locked,
    Full,
    ReadOnly,
    Corrupt,
    Integrity,
    Statement,
}

/// Which of the HTTP exceptions an error becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HttpErrorKind {
    /// No connection, or it was lost, or what came through it is no HTTP.
    Connection,
    Timeout,
}

#[derive(Debug, Clone, PartialEq, ThisError)]
pub enum Error {
    #[error("the runtime is closed; fastcrew_async.runtime.get() makes a new one")]
    RuntimeClosed,
    #[error("this {what} belongs to process {owner}, and this is process {current}: make a new one after the fork")]
    Forked {
        what: &'static str,
        owner: u32,
        current: u32,
    },
    #[error("the compiled core panicked: {0}; please report it")]
    Panic(String),
    #[error("{message}")]
    Database {
        kind: DatabaseErrorKind,
        message: String,
    },
    #[error("{message}")]
    Http {
        kind: HttpErrorKind,
        message: String,
    },
    /// A tool call that is nested too deep, or repeats one of its callers.
    #[error("{0}")]
    Recursion(String),
    /// Abandoned calls hold all places of the worker pool.
    #[error("{0}")]
    Abandoned(String),
    /// A vector of another length than those in the memory store.
    #[error("the store holds vectors of {stored} dimensions, this one has {given}")]
    Dimension { stored: usize, given: usize },
    /// A value that no document can hold.
    #[error("{0}")]
    Encode(String),
    /// Bytes that are no document, from `offset` on.
    #[error("{message}")]
    Decode { message: String, offset: usize },
    /// A number that does not fit; Python's `OverflowError`.
    #[error("{0}")]
    Overflow(String),
    /// An argument of a right type and a wrong value; Python's `ValueError`.
    #[error("{0}")]
    Invalid(String),
}

impl Error {
    pub fn database(kind: DatabaseErrorKind, message: impl Into<String>) -> Self {
        Self::Database {
            kind,
            message: message.into(),
        }
    }

    pub fn http(kind: HttpErrorKind, message: impl Into<String>) -> Self {
        Self::Http {
            kind,
            message: message.into(),
        }
    }

    /// The error for a payload caught by `catch_unwind` or a join handle.
    pub fn from_panic(payload: &(dyn std::any::Any + Send)) -> Self {
        let text = payload
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| payload.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "no message".to_owned());
        Self::Panic(text)
    }
}

#[cfg(feature = "extension-module")]
mod python {
    use super::{DatabaseErrorKind, Error, HttpErrorKind};
    use pyo3::exceptions::{PyOverflowError, PyValueError};
    use pyo3::prelude::*;

    impl DatabaseErrorKind {
        fn class(self) -> &'static str {
            match self {
                Self::Other => "DatabaseError",
                Self::Closed => "DatabaseClosedError",
                Self::Open => "DatabaseOpenError",
                Self::Busy => "DatabaseBusyError",
                Self::Locked => "DatabaseLockedError",
                Self::Full => "DatabaseFullError",
                Self::ReadOnly => "DatabaseReadOnlyError",
                Self::Corrupt => "DatabaseCorruptError",
                Self::Integrity => "IntegrityError",
                Self::Statement => "StatementError",
            }
        }
    }

    impl From<Error> for PyErr {
        fn from(error: Error) -> Self {
            if let Error::Dimension { stored, given } = error {
                return Python::attach(|py| dimension_mismatch(py, stored, given));
            }
            let message = error.to_string();
            let offset = match error {
                Error::Decode { offset, .. } => Some(offset),
                _ => None,
            };
            let class = match error {
                Error::RuntimeClosed => "RuntimeClosedError",
                Error::Forked { .. } => "ForkedProcessError",
                Error::Panic(_) => "CorePanicError",
                Error::Database { kind, .. } => kind.class(),
                Error::Http { kind, .. } => match kind {
                    HttpErrorKind::Connection => "HttpConnectionError",
                    HttpErrorKind::Timeout => "HttpTimeoutError",
                },
                Error::Encode(_) => "EncodeError",
                Error::Decode { .. } => "DecodeError",
                Error::Abandoned(_) => "AbandonedCallsError",
                Error::Recursion(_) => "ToolRecursionError",
                Error::Dimension { .. } => "DatabaseError",
                Error::Overflow(_) => return PyOverflowError::new_err(message),
                Error::Invalid(_) => return PyValueError::new_err(message),
            };
            Python::attach(|py| {
                let made = py
                    .import("fastcrew_async.errors")
                    .and_then(|errors| errors.getattr(class))
                    .and_then(|class| match offset {
                        Some(offset) => class.call1((message, offset)),
                        None => class.call1((message,)),
                    });
                match made {
                    Ok(exception) => PyErr::from_value(exception),
                    Err(failure) => failure,
                }
            })
        }
    }

    /// CrewAI's own error, whose text says how it comes about and what to do.
    fn dimension_mismatch(py: Python<'_>, stored: usize, given: usize) -> PyErr {
        let made = py
            .import("crewai.memory.storage.backend")
            .and_then(|backend| backend.getattr("EmbeddingDimensionMismatchError"))
            .and_then(|class| class.call1((stored, given)));
        made.map_or_else(|failure| failure, PyErr::from_value)
    }
}
