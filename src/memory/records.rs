//! The records in SQLite: the tables, and what is done to them inside a transaction.
//!
//! A row is never changed but for `accessed` and `slot`, and its number never used again: an update is a new row. So what
//! others keep by row number (the words, the vectors) is right for as long as the row exists.

use rusqlite::{params, Connection, OptionalExtension};

use super::filter::{Filter, Members};
use super::insert::Counts;
use super::moment::Moment;
use super::scopes::counted;
use super::segments::{Removal, Segments};
use crate::error::{DatabaseErrorKind as Kind, Error};
use crate::store::failure::failure;

/// Raised when the tables change; a newer file is refused.
const FORMAT: i64 = 1;

const SCHEMA: &str = "
CREATE TABLE scope (id INTEGER PRIMARY KEY, path TEXT NOT NULL UNIQUE, records INTEGER NOT NULL DEFAULT 0);
CREATE TABLE name (id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE);
CREATE TABLE record (
  row INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL, scope INTEGER NOT NULL, created TEXT NOT NULL,
  created_at INTEGER NOT NULL, accessed TEXT NOT NULL, importance REAL NOT NULL, source INTEGER NOT NULL,
  private INTEGER NOT NULL, slot INTEGER, tags BLOB NOT NULL, categories TEXT NOT NULL, metadata TEXT NOT NULL,
  content TEXT NOT NULL);
CREATE INDEX record_id ON record (id);
CREATE INDEX record_created ON record (created);
CREATE INDEX record_scope ON record (scope, created);
CREATE TABLE tagged (tag INTEGER NOT NULL, row INTEGER NOT NULL, PRIMARY KEY (tag, row)) WITHOUT ROWID;
CREATE TABLE scope_tag (
  scope INTEGER NOT NULL, tag INTEGER NOT NULL, uses INTEGER NOT NULL, PRIMARY KEY (scope, tag)) WITHOUT ROWID;
CREATE TABLE gone (number INTEGER PRIMARY KEY AUTOINCREMENT, row INTEGER NOT NULL);
CREATE TABLE segment (base INTEGER PRIMARY KEY, capacity INTEGER NOT NULL, dim INTEGER NOT NULL);
CREATE TABLE setting (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO setting VALUES ('dim', 0), ('next_slot', 0);
";

/// An error of SQLite's or of ours; the first is told with the file's path.
pub enum Fault {
    Sql(rusqlite::Error),
    Ours(Error),
    /// The moment is past: a segment's file is not there any more, or an index says more than was then.
    Past(Error),
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Ours(error)
    }
}

pub type Done<T> = Result<T, Fault>;

/// Runs `act` and tells its error as the store's.
pub fn told<T>(connection: &Connection, act: impl FnOnce() -> Done<T>) -> Result<T, Error> {
    act().map_err(|fault| match fault {
        Fault::Sql(error) => failure(connection.path().unwrap_or_default().as_ref(), &error),
        Fault::Ours(error) | Fault::Past(error) => error,
    })
}

/// A record as it comes in; texts that mean something to Python only (JSON, times) stay as they are.
#[derive(Debug, Clone, Default)]
pub struct Record {
    pub id: String,
    pub content: String,
    pub scope: String,
    pub categories: String,
    pub metadata: String,
    /// What filters may ask for, see `fastcrew_async/memory/tags.py`.
    pub tags: Vec<String>,
    pub importance: f64,
    pub created: String,
    /// Microseconds since 1970.
    pub created_at: i64,
    pub accessed: String,
    pub source: Option<String>,
    pub private: bool,
    pub vector: Option<Vec<f32>>,
}

/// What a search, a listing or a deletion is limited to.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// What the path of the scope begins with.
    pub prefix: Option<String>,
    /// Tags of which one is needed, of which all are, and of which none may be there.
    pub any: Vec<String>,
    pub all: Vec<String>,
    pub none: Vec<String>,
    /// Private records are left out but those of this source ("": of none).
    pub visible_to: Option<String>,
    /// Microseconds since 1970: from, and until.
    pub created: (Option<i64>, Option<i64>),
}

pub fn create(connection: &Connection) -> Done<()> {
    let format: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if format > FORMAT {
        let text = format!(
            "{}: the memory store has format {format}, this version of fastcrew-async knows up to {FORMAT}: upgrade it",
            connection.path().unwrap_or_default()
        );
        return Err(Error::database(Kind::Open, text).into());
    }
    if format == 0 {
        connection.execute_batch(SCHEMA)?;
        connection.execute_batch(&format!("PRAGMA user_version = {FORMAT}"))?;
    }
    Ok(())
}

pub fn setting(connection: &Connection, name: &str) -> Done<i64> {
    let mut statement = connection.prepare_cached("SELECT value FROM setting WHERE name = ?1")?;
    Ok(statement.query_row([name], |row| row.get(0))?)
}

pub fn set(connection: &Connection, name: &str, value: i64) -> Done<()> {
    let mut statement =
        connection.prepare_cached("UPDATE setting SET value = ?2 WHERE name = ?1")?;
    statement.execute(params![name, value])?;
    Ok(())
}

pub fn named(connection: &Connection, text: &str) -> Done<Option<i64>> {
    let mut statement = connection.prepare_cached("SELECT id FROM name WHERE text = ?1")?;
    Ok(statement.query_row([text], |row| row.get(0)).optional()?)
}

/// The texts between which all lie that begin with `prefix`.
pub fn range(prefix: &str) -> (String, String) {
    (prefix.to_owned(), format!("{prefix}\u{10ffff}"))
}

/// Removes rows; gives the slots of their vectors, with the numbers of the removals.
pub fn remove(
    connection: &Connection,
    segments: &Segments,
    rows: &[i64],
) -> Done<Vec<(u64, Removal)>> {
    // Open, so that they can be marked.
    Moment::of(connection, segments)?;
    let mut slots = Vec::new();
    let mut counts = Counts::default();
    for &row in rows {
        let found = connection
            .prepare_cached("DELETE FROM record WHERE row = ?1 RETURNING scope, tags, slot")?
            .query_row([row], |found| {
                Ok((
                    found.get::<_, i64>(0)?,
                    found.get::<_, Vec<u8>>(1)?,
                    found.get::<_, Option<i64>>(2)?,
                ))
            })
            .optional()?;
        let Some((scope, packed, slot)) = found else {
            continue;
        };
        let tags: Vec<i64> = packed
            .chunks_exact(8)
            .map(|eight| i64::from_le_bytes(eight.try_into().expect("a chunk of eight")))
            .collect();
        *counts.records.entry(scope).or_default() -= 1;
        let mut untag =
            connection.prepare_cached("DELETE FROM tagged WHERE tag = ?1 AND row = ?2")?;
        for tag in tags {
            untag.execute([tag, row])?;
            *counts.uses.entry((scope, tag)).or_default() -= 1;
        }
        connection
            .prepare_cached("INSERT INTO gone (row) VALUES (?1)")?
            .execute([row])?;
        let removal = Removal::of(connection.last_insert_rowid());
        slots.extend(slot.map(|slot| (slot as u64, removal)));
    }
    counts.write(connection)?;
    Ok(slots)
}

/// Removes everything. The vectors' files go with their rows; `forget` lets the next vectors have another length.
pub fn clear(connection: &Connection, forget: bool) -> Done<i64> {
    let count = counted(connection, None)?;
    // A negative row stands for all rows up to it.
    connection.execute_batch(
        "INSERT INTO gone (row) SELECT -max(row) FROM record HAVING max(row) IS NOT NULL;
         DELETE FROM record; DELETE FROM tagged; DELETE FROM scope_tag; DELETE FROM segment;
         UPDATE scope SET records = 0",
    )?;
    if forget {
        set(connection, "dim", 0)?;
    }
    Ok(count)
}

fn column(connection: &Connection, sql: &str, values: impl rusqlite::Params) -> Done<Vec<i64>> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(values)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(row.get(0)?);
    }
    Ok(found)
}

pub fn rows_of_ids(connection: &Connection, ids: &[String]) -> Done<Vec<i64>> {
    let mut found = Vec::new();
    for id in ids {
        found.extend(column(
            connection,
            "SELECT row FROM record WHERE id = ?1",
            [id],
        )?);
    }
    Ok(found)
}

/// The rows that a deletion names; `older_than` compares the times as text, as CrewAI does.
pub fn rows_wanted(
    connection: &Connection,
    wanted: &Wanted,
    older_than: Option<&str>,
) -> Done<Vec<i64>> {
    let Some(filter) = filter(connection, wanted)? else {
        return Ok(Vec::new());
    };
    let (from, until) = range(wanted.prefix.as_deref().unwrap_or_default());
    let mut rows = column(
        connection,
        "SELECT row FROM record WHERE (?3 IS NULL OR created < ?3) AND (?1 = '' OR scope IN \
         (SELECT id FROM scope WHERE path >= ?1 AND path < ?2))",
        params![from, until, older_than],
    )?;
    rows.retain(|row| {
        filter.rows.iter().all(|rows| rows.has(*row))
            && !filter.not_rows.iter().any(|rows| rows.has(*row))
    });
    Ok(rows)
}

/// The rows in the scopes from one text to another.
pub fn rows_between(connection: &Connection, from: &str, until: &str) -> Done<Vec<i64>> {
    column(
        connection,
        "SELECT row FROM record WHERE scope IN (SELECT id FROM scope WHERE path >= ?1 AND path < ?2)",
        [from, until],
    )
}

/// The filter for what is wanted; None where nothing can be found.
pub fn filter(connection: &Connection, wanted: &Wanted) -> Done<Option<Filter>> {
    let mut filter = Filter {
        created: wanted.created,
        ..Filter::default()
    };
    if let Some(prefix) = &wanted.prefix {
        let (from, until) = range(prefix);
        let scopes = column(
            connection,
            "SELECT id FROM scope WHERE path >= ?1 AND path < ?2 AND records > 0",
            [from, until],
        )?;
        if scopes.is_empty() {
            return Ok(None);
        }
        filter.scopes = Some(Members::of(&scopes));
    }
    let tagged = |tags: &[String]| -> Done<Members> {
        let mut rows = Vec::new();
        for tag in tags {
            if let Some(tag) = named(connection, tag)? {
                rows.extend(column(
                    connection,
                    "SELECT row FROM tagged WHERE tag = ?1",
                    [tag],
                )?);
            }
        }
        Ok(Members::of(&rows))
    };
    if !wanted.any.is_empty() {
        filter.rows.push(tagged(&wanted.any)?);
    }
    for tag in &wanted.all {
        filter.rows.push(tagged(std::slice::from_ref(tag))?);
    }
    if !wanted.none.is_empty() {
        filter.not_rows.push(tagged(&wanted.none)?);
    }
    if let Some(source) = &wanted.visible_to {
        let source = if source.is_empty() {
            None
        } else {
            named(connection, &format!("s{source}"))?
        };
        filter.visible_to = Some(source.unwrap_or(0) as u32);
    }
    Ok(Some(filter))
}

pub fn touch(connection: &Connection, ids: &[String], now: &str) -> Done<()> {
    let mut statement =
        connection.prepare_cached("UPDATE record SET accessed = ?2 WHERE id = ?1")?;
    for id in ids {
        statement.execute([id.as_str(), now])?;
    }
    Ok(())
}

pub fn list_segments(connection: &Connection) -> Done<Vec<(u64, u64, usize)>> {
    let mut statement =
        connection.prepare_cached("SELECT base, capacity, dim FROM segment ORDER BY base")?;
    let found = statement.query_map([], |row| {
        Ok((
            row.get::<_, i64>(0)? as u64,
            row.get::<_, i64>(1)? as u64,
            row.get::<_, i64>(2)? as usize,
        ))
    })?;
    Ok(found.collect::<Result<_, _>>()?)
}
