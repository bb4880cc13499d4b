//! Records on their way out of SQLite.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Row};

use super::records::{range, Done};
use super::scopes::counted;
use super::segments::Segment;
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
    fn of(row: &Row<'_>, vectors: &[Arc<Segment>]) -> rusqlite::Result<Self> {
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
            vector: slot.and_then(|slot| vector(vectors, slot as u64)),
        })
    }

    /// The text of this number; the source begins with its kind.
    pub fn text(&self, number: usize) -> &str {
        let from = number.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.texts[from..self.ends[number]]
    }
}

fn record(row: &Row<'_>, vectors: &[Arc<Segment>]) -> rusqlite::Result<Value> {
    Ok(Value::Record(Box::new(Found::of(row, vectors)?)))
}

fn vector(segments: &[Arc<Segment>], slot: u64) -> Option<Vec<u8>> {
    let after = segments.partition_point(|segment| segment.base <= slot);
    let segment = &segments[after.checked_sub(1)?];
    let is_here = segment.holds(slot);
    is_here.then(|| segment.numbers((slot - segment.base) as usize).to_vec())
}

pub fn by_row(connection: &Connection, vectors: &[Arc<Segment>], row: i64) -> Done<Option<Value>> {
    let mut statement = connection.prepare_cached(&format!("{COLUMNS} WHERE r.row = ?1"))?;
    Ok(statement
        .query_row([row], |row| record(row, vectors))
        .optional()?)
}

pub fn by_id(connection: &Connection, vectors: &[Arc<Segment>], id: &str) -> Done<Option<Value>> {
    let mut statement =
        connection.prepare_cached(&format!("{COLUMNS} WHERE r.id = ?1 ORDER BY r.row LIMIT 1"))?;
    Ok(statement
        .query_row([id], |row| record(row, vectors))
        .optional()?)
}

/// The newest first.
pub fn list(
    connection: &Connection,
    vectors: &[Arc<Segment>],
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
