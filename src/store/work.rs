//! A caller's write: one statement, one statement with many rows, or several statements. Each is atomic.

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Statement};

use super::failure::failure;
use super::params::{Cell, Params};
use super::row_id::RowIds;
use super::statement;
use crate::bridge::value::Value;
use crate::error::Error;

/// A write of the core's own.
pub struct Task {
    /// It may run twice: a group is done again without the work that spoiled it.
    pub act: Box<Act>,
    /// What follows once it is on disk, whether its caller still waits or not.
    pub then: Box<dyn Fn() + Send>,
}

type Act = dyn Fn(&Connection) -> Result<Value, Error> + Send;

impl std::fmt::Debug for Task {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        to.write_str("Task")
    }
}

#[derive(Debug)]
pub enum Work {
    /// Opens the file and does no more; in the queue it marks a place.
    Open,
    One(String, Params),
    Many(String, Vec<Params>),
    Batch(Vec<(String, Params)>),
    Task(Task),
    #[cfg(test)]
    Panic,
}

/// What a statement did: rows changed, the row id it inserted, and the rows of RETURNING.
#[derive(Default)]
struct Outcome {
    changed: i64,
    row_id: Option<i64>,
    rows: Vec<Value>,
}

impl Outcome {
    fn into_value(self) -> Value {
        let row_id = self.row_id.map_or(Value::None, Value::Int);
        Value::Tuple(vec![
            Value::Int(self.changed),
            row_id,
            Value::List(self.rows),
        ])
    }
}

impl Work {
    pub fn check(&self) -> Result<(), Error> {
        match self {
            Self::One(sql, _) | Self::Many(sql, _) => statement::check_write(sql),
            Self::Batch(statements) => statements
                .iter()
                .try_for_each(|(sql, _)| statement::check_write(sql)),
            _ => Ok(()),
        }
    }

    /// Whether SQLite undoes a failure of this work by itself, as it does for a statement that fails as a whole.
    pub fn is_one_statement(&self) -> bool {
        !matches!(self, Self::Many(..) | Self::Batch(_) | Self::Task(_))
    }

    /// Runs inside an open transaction.
    pub fn run(&self, connection: &Connection, ids: &RowIds) -> Result<Value, Error> {
        match self {
            Self::Open => Ok(Value::None),
            Self::One(sql, params) => run_rows(connection, ids, sql, std::slice::from_ref(params))
                .map(Outcome::into_value),
            Self::Many(sql, rows) => run_rows(connection, ids, sql, rows).map(Outcome::into_value),
            Self::Batch(statements) => {
                let each = statements.iter().enumerate().map(|(index, (sql, params))| {
                    run_rows(connection, ids, sql, std::slice::from_ref(params))
                        .map(Outcome::into_value)
                        .map_err(|error| at(error, "statement", index))
                });
                each.collect::<Result<_, _>>().map(Value::List)
            }
            Self::Task(task) => (task.act)(connection),
            #[cfg(test)]
            Self::Panic => panic!("asked for by a test"),
        }
    }
}

impl Work {
    /// To be called after the COMMIT.
    pub fn committed(&self) {
        if let Self::Task(task) = self {
            (task.then)();
        }
    }
}

fn run_rows(
    connection: &Connection,
    ids: &RowIds,
    sql: &str,
    rows: &[Params],
) -> Result<Outcome, Error> {
    let fail =
        |error: rusqlite::Error| failure(connection.path().unwrap_or_default().as_ref(), &error);
    let mut statement = connection.prepare_cached(sql).map_err(fail)?;
    let counts = statement::changes_rows(sql);
    let mut outcome = Outcome::default();
    for (index, params) in rows.iter().enumerate() {
        let number = |error| {
            if rows.len() == 1 {
                error
            } else {
                at(error, "row", index)
            }
        };
        ids.begin(connection);
        let before = connection.total_changes();
        params.bind(&mut statement).map_err(number)?;
        outcome
            .rows
            .append(&mut collect(&mut statement, usize::MAX).map_err(|error| number(fail(error)))?);
        if counts && connection.total_changes() != before {
            outcome.changed += i64::try_from(connection.changes()).unwrap_or(i64::MAX);
            outcome.row_id = ids.inserted(connection).or(outcome.row_id);
        }
    }
    Ok(outcome)
}

/// Steps a bound statement to its end, or to `limit` rows.
pub fn collect(statement: &mut Statement<'_>, limit: usize) -> rusqlite::Result<Vec<Value>> {
    let width = statement.column_count();
    let mut rows = statement.raw_query();
    let mut collected = Vec::new();
    while collected.len() < limit {
        let Some(row) = rows.next()? else { break };
        let cells =
            (0..width).map(|column| row.get_ref(column).and_then(|cell| owned(cell, column)));
        collected.push(Value::Tuple(cells.collect::<Result<_, _>>()?));
    }
    Ok(collected)
}

fn owned(cell: ValueRef<'_>, column: usize) -> rusqlite::Result<Value> {
    Ok(
        match Cell::try_from(cell).map_err(|_| {
            rusqlite::Error::InvalidColumnType(
                column,
                "text that is not UTF-8".into(),
                cell.data_type(),
            )
        })? {
            Cell::Null => Value::None,
            Cell::Integer(value) => Value::Int(value),
            Cell::Real(value) => Value::Float(value),
            Cell::Text(value) => Value::Text(value),
            Cell::Blob(value) => Value::Bytes(value),
        },
    )
}

/// Names the row or statement (from 1) that failed among many.
fn at(error: Error, what: &str, index: usize) -> Error {
    match error {
        Error::Database { kind, message } => Error::Database {
            kind,
            message: format!("{what} {}: {message}", index + 1),
        },
        other => other,
    }
}
