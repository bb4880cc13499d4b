//! Records on their way out of SQLite.

use rusqlite::{Connection, OptionalExtension, Row};

use super::moment::Moment;
use super::records::{range, Done};
use super::scopes::counted;
use crate::bridge::value::Value;

// CROSS JOIN: the records lead, whatever the planner thinks of the few scopes.
const COLUMNS: &str = "SELECT r.id, r.content, s.path, r.categories, r.metadata, r.importance, r.created, r.accessed, \
                       n.text, r.private, r.slot FROM record r CROSS JOIN scope s ON s.id = r.scope \
                       LEFT JOIN name n ON n.id = r.source ";

/// A record on its way to Python, which makes a dictionary of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    texts: String,
    /// Where each text ends: id, content, scope, categories, metadata, created, accessed, source.
    ends: [usize; 8],
    pub importance: f64,
    pub private: bool,
    pub sourced: bool,
    pub vector: Option<Vec<u8>>,
}

impl Found {
    fn of(row: &Row<'_>, vectors: Option<&Moment>) -> rusqlite::Result<Self> {
        let mut texts = [""; 8];
        for (text, column) in texts.iter_mut().zip([0, 1, 2, 3, 4, 6, 7, 8]) {
            *text = row.get_ref(column)?.as_str_or_null()?.unwrap_or_default();
        }
        let mut end = 0;
        let ends = texts.map(|text| {
            end += text.len();
            end
        });
        let slot: Option<i64> = row.get(10)?;
        Ok(Self {
            texts: texts.concat(),
            ends,
            importance: row.get(5)?,
            private: row.get(9)?,
            sourced: !texts[7].is_empty(),
            vector: vectors
                .zip(slot)
                .and_then(|(moment, slot)| moment.vector(slot as u64)),
        })
    }

    /// The text of this number; the source begins with its kind.
    pub fn text(&self, number: usize) -> &str {
        let from = number.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.texts[from..self.ends[number]]
    }
}

fn record(row: &Row<'_>, vectors: Option<&Moment>) -> rusqlite::Result<Value> {
    Ok(Value::Record(Box::new(Found::of(row, vectors)?)))
}

pub fn is_there(connection: &Connection, row: i64) -> Done<bool> {
    let mut statement = connection.prepare_cached("SELECT 1 FROM record WHERE row = ?1")?;
    Ok(statement.exists([row])?)
}

pub fn by_row(connection: &Connection, moment: &Moment, row: i64) -> Done<Option<Value>> {
    let mut statement = connection.prepare_cached(&format!("{COLUMNS} WHERE r.row = ?1"))?;
    Ok(statement
        .query_row([row], |row| record(row, Some(moment)))
        .optional()?)
}

pub fn by_id(connection: &Connection, moment: &Moment, id: &str) -> Done<Option<Value>> {
    let mut statement =
        connection.prepare_cached(&format!("{COLUMNS} WHERE r.id = ?1 ORDER BY r.row LIMIT 1"))?;
    Ok(statement
        .query_row([id], |row| record(row, Some(moment)))
        .optional()?)
}

/// The newest first, with their vectors where `vectors` are given.
pub fn list(
    connection: &Connection,
    vectors: Option<&Moment>,
    prefix: Option<&str>,
    limit: i64,
    offset: i64,
) -> Done<Value> {
    const ORDER: &str = "ORDER BY r.created DESC, r.row DESC LIMIT ?1 OFFSET ?2";
    let collect = |sql: String, values: &[&dyn rusqlite::ToSql]| -> Done<Value> {
        let mut statement = connection.prepare_cached(&sql)?;
        let found = statement.query_map(values, |row| record(row, vectors))?;
        Ok(Value::List(found.collect::<Result<_, _>>()?))
    };
    let Some(prefix) = prefix else {
        return collect(format!("{COLUMNS} {ORDER}"), &[&limit, &offset]);
    };
    let (from, until) = range(prefix);
    let inside = counted(connection, Some(prefix))?;
    // Where much of the store is in the scope, the newest of it are soon met among the newest of all.
    let by_time = if inside.saturating_mul(8) > counted(connection, None)? {
        "+"
    } else {
        ""
    };
    let place =
        format!("WHERE {by_time}r.scope IN (SELECT id FROM scope WHERE path >= ?3 AND path < ?4)");
    collect(
        format!("{COLUMNS} {place} {ORDER}"),
        &[&limit, &offset, &from, &until],
    )
}
