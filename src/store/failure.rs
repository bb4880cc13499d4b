//! SQLite's errors as ours: one table, and messages that say what to do.

use std::path::Path;

use rusqlite::ErrorCode;

use crate::error::{DatabaseErrorKind as Kind, Error};

pub fn statement(message: impl Into<String>) -> Error {
    Error::database(Kind::Statement, message)
}

pub fn closed() -> Error {
    Error::database(
        Kind::Closed,
        "the database is closed; make a new Database to go on",
    )
}

pub fn is_busy(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy)
}

pub fn kind(error: &rusqlite::Error) -> Kind {
    let Some(code) = error.sqlite_error_code() else {
        return Kind::Statement;
    };
    match code {
        ErrorCode::DatabaseBusy => Kind::Busy,
        ErrorCode::DatabaseLocked => Kind::Locked,
        ErrorCode::DiskFull => Kind::Full,
        ErrorCode::ReadOnly => Kind::ReadOnly,
        ErrorCode::CannotOpen => Kind::Open,
        ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt => Kind::Corrupt,
        ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch => Kind::Integrity,
        ErrorCode::Unknown
        | ErrorCode::TooBig
        | ErrorCode::ParameterOutOfRange
        | ErrorCode::ApiMisuse => Kind::Statement,
        _ => Kind::Other,
    }
}

/// `error`, met while working on the file at `path`.
pub fn failure(path: &Path, error: &rusqlite::Error) -> Error {
    let kind = kind(error);
    let (text, path) = (text(error), path.display());
    let message = match kind {
        Kind::Busy => format!("{path}: {text}: another process held the file past busy_timeout"),
        Kind::Locked => format!("{text}: another statement of this process uses the table"),
        Kind::Full => format!("{path}: {text}: free space on its disk, or raise max_page_count"),
        Kind::ReadOnly => {
            format!("{path}: {text}: the file and its folder must both allow writing")
        }
        Kind::Open => {
            format!("{path}: {text}: its folder must exist and allow creating files")
        }
        Kind::Corrupt => format!("{path}: {text}: restore it from a copy, or choose another path"),
        Kind::Other => format!("{path}: {text}"),
        Kind::Closed | Kind::Integrity | Kind::Statement => text,
    };
    Error::Database { kind, message }
}

fn text(error: &rusqlite::Error) -> String {
    match error {
        rusqlite::Error::MultipleStatement => {
            "only one statement at a time; use batch([...]) for several".into()
        }
        rusqlite::Error::SqlInputError {
            msg, sql, offset, ..
        } => match usize::try_from(*offset).ok().and_then(|at| sql.get(at..)) {
            Some(rest) if !rest.is_empty() => {
                let near: String = rest.chars().take(40).collect();
                format!("{msg}, at: {near}")
            }
            _ => msg.clone(),
        },
        other => other.to_string(),
    }
}
