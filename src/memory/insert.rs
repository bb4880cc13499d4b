//! Records on their way into the tables and files, inside a transaction: what a save of many shares is looked up once.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use rusqlite::types::{ToSqlOutput, Value as Sql, ValueRef};
use rusqlite::{params, Connection, OptionalExtension};

use super::records::{list_segments, named, set, setting, Done, Record};
use super::segments::{capacity, Entry, Segment, Segments, Slots, PRIVATE};
use crate::error::Error;

/// Slots that are written together.
const RUN: usize = 256;
/// Rows that one statement adds: half of what a row costs is beginning and ending its statement.
const AT_ONCE: usize = 32;
/// Tags that are sorted and written together, at least.
const TAGS: usize = 32_768;
/// Names that are kept in memory, and the length (bytes) of the longest of them.
const KEPT: usize = 32_768;
const LONGEST: usize = 256;

type ByText = HashMap<Box<str>, i64>;

/// The numbers of names and scopes.
#[derive(Default)]
pub struct Numbers {
    names: ByText,
    scopes: ByText,
}

/// Numbers that are on disk; there they stay for as long as the file, so they need not be looked up again.
#[derive(Default)]
pub struct Kept(RwLock<Numbers>);

impl Kept {
    /// Keeps what a save has met, once it is on disk.
    pub fn keep(&self, met: Numbers) {
        let mut kept = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let Numbers { names, scopes } = &mut *kept;
        for (kept, met) in [(names, met.names), (scopes, met.scopes)] {
            if kept.len() + met.len() > KEPT {
                kept.clear();
            }
            let short = met.into_iter().filter(|(text, _)| text.len() <= LONGEST);
            kept.extend(short.take(KEPT));
        }
    }
}

/// One save, whose records come in parts.
pub struct Insertion<'a> {
    connection: &'a Connection,
    segments: &'a Segments,
    kept: &'a Kept,
    met: Numbers,
    counts: Counts,
    run: Run<'a>,
    tagged: Vec<[i64; 2]>,
    next_row: i64,
    dim: Option<usize>,
}

impl<'a> Insertion<'a> {
    pub fn begin(connection: &'a Connection, segments: &'a Segments, kept: &'a Kept) -> Done<Self> {
        let last: Option<i64> = connection
            .prepare_cached("SELECT seq FROM sqlite_sequence WHERE name = 'record'")?
            .query_row([], |row| row.get(0))
            .optional()?;
        Ok(Self {
            connection,
            segments,
            kept,
            met: Numbers::default(),
            counts: Counts::default(),
            run: Run::new(connection, segments),
            tagged: Vec::new(),
            next_row: last.unwrap_or(0) + 1,
            dim: None,
        })
    }

    /// Adds records, in order.
    pub fn add(&mut self, records: &[Record]) -> Done<()> {
        let connection = self.connection;
        self.check(records)?;
        let kept = self.kept.0.read().unwrap_or_else(PoisonError::into_inner);
        let mut added = Vec::with_capacity(records.len());
        for record in records {
            let row = self.next_row;
            self.next_row += 1;
            let scopes = (&kept.scopes, &mut self.met.scopes);
            let scope = number(scopes, &record.scope, || scope(connection, &record.scope))?;
            let mut name = |text: &str| {
                let names = (&kept.names, &mut self.met.names);
                number(names, text, || name(connection, text))
            };
            let source = match record.source.as_deref() {
                None | Some("") => 0,
                Some(source) => name(&format!("s{source}"))?,
            };
            *self.counts.records.entry(scope).or_default() += 1;
            let mut packed = Vec::with_capacity(8 * record.tags.len());
            for text in &record.tags {
                let tag = name(text)?;
                packed.extend_from_slice(&tag.to_le_bytes());
                self.tagged.push([tag, row]);
                // Only categories are ever counted by scope.
                if text.starts_with('c') {
                    *self.counts.uses.entry((scope, tag)).or_default() += 1;
                }
            }
            let slot = match &record.vector {
                Some(vector) => {
                    let entry = Entry {
                        row,
                        created: record.created_at,
                        scope: scope as u32,
                        source: source as u32,
                        flags: if record.private { PRIVATE } else { 0 },
                        scale: 0.0,
                        lost: 0.0,
                        length: 0.0,
                    };
                    let slot = self.run.place(vector.len())?;
                    self.run.slots.add(entry, vector);
                    Some(slot as i64)
                }
                None => None,
            };
            added.push([
                row.into(),
                text(&record.id),
                scope.into(),
                text(&record.created),
                record.created_at.into(),
                text(&record.accessed),
                record.importance.into(),
                source.into(),
                record.private.into(),
                slot.map_or(ToSqlOutput::Owned(Sql::Null), ToSqlOutput::from),
                packed.into(),
                text(&record.categories),
                text(&record.metadata),
                text(&record.content),
            ]);
        }
        drop(kept);
        // OR FAIL: a failure undoes the whole save, so no statement needs to be undone by itself, which costs a copy of
        // each page that it changes.
        add(
            connection,
            "INSERT OR FAIL INTO record (row, id, scope, created, created_at, accessed, importance, source, private, \
             slot, tags, categories, metadata, content) VALUES",
            &added,
        )?;
        if self.tagged.len() >= TAGS {
            self.tag()?;
        }
        Ok(())
    }

    /// The vectors of a store are of one length, which its first sets.
    fn check(&mut self, records: &[Record]) -> Done<()> {
        let mut vectors = records.iter().filter_map(|record| record.vector.as_ref());
        let Some(given) = vectors.next().map(Vec::len).filter(|_| self.dim.is_none()) else {
            return Ok(());
        };
        let stored = setting(self.connection, "dim")? as usize;
        if stored == 0 {
            set(self.connection, "dim", given as i64)?;
        } else if stored != given {
            return Err(Error::Dimension { stored, given }.into());
        }
        self.dim = Some(given);
        Ok(())
    }

    /// Writes the tags that have gathered, in the order of their table.
    fn tag(&mut self) -> Done<()> {
        let mut tagged = std::mem::take(&mut self.tagged);
        tagged.sort_unstable();
        let tagged: Vec<_> = tagged
            .into_iter()
            .map(|pair| pair.map(ToSqlOutput::from))
            .collect();
        add(
            self.connection,
            "INSERT OR IGNORE INTO tagged (tag, row) VALUES",
            &tagged,
        )
    }

    /// Writes the rest, and gives what is to be kept once it is on disk.
    pub fn finish(mut self) -> Done<Numbers> {
        self.run.write()?;
        if self.run.written >= RUN {
            self.segments.begin_flush();
        }
        self.tag()?;
        self.counts.write(self.connection)?;
        Ok(self.met)
    }
}

/// The number of a text: one that is kept, one that was met, or the one that `ask` tells.
fn number(
    (kept, met): (&ByText, &mut ByText),
    text: &str,
    ask: impl FnOnce() -> Done<i64>,
) -> Done<i64> {
    if let Some(number) = kept.get(text).or_else(|| met.get(text)) {
        return Ok(*number);
    }
    let number = ask()?;
    met.insert(text.into(), number);
    Ok(number)
}

fn name(connection: &Connection, text: &str) -> Done<i64> {
    if let Some(id) = named(connection, text)? {
        return Ok(id);
    }
    connection
        .prepare_cached("INSERT INTO name (text) VALUES (?1)")?
        .execute([text])?;
    Ok(connection.last_insert_rowid())
}

fn scope(connection: &Connection, path: &str) -> Done<i64> {
    let mut statement = connection.prepare_cached("SELECT id FROM scope WHERE path = ?1")?;
    if let Some(id) = statement.query_row([path], |row| row.get(0)).optional()? {
        return Ok(id);
    }
    connection
        .prepare_cached("INSERT INTO scope (path) VALUES (?1)")?
        .execute([path])?;
    Ok(connection.last_insert_rowid())
}

fn text(text: &str) -> ToSqlOutput<'_> {
    ToSqlOutput::Borrowed(ValueRef::Text(text.as_bytes()))
}

fn add<const COLUMNS: usize>(
    connection: &Connection,
    insert: &str,
    rows: &[[ToSqlOutput<'_>; COLUMNS]],
) -> Done<()> {
    let add_some = |rows: &[[ToSqlOutput<'_>; COLUMNS]]| -> Done<()> {
        let row = format!("({}),", &"?,".repeat(COLUMNS)[..COLUMNS * 2 - 1]);
        let rows_sql = row.repeat(rows.len());
        let sql = format!("{insert} {}", &rows_sql[..rows_sql.len() - 1]);
        let mut statement = connection.prepare_cached(&sql)?;
        for (at, value) in rows.iter().flatten().enumerate() {
            statement.raw_bind_parameter(at + 1, value)?;
        }
        statement.raw_execute()?;
        Ok(())
    };
    let whole = rows.chunks_exact(AT_ONCE);
    let rest = whole.remainder();
    for rows in whole {
        add_some(rows)?;
    }
    rest.iter()
        .try_for_each(|row| add_some(std::slice::from_ref(row)))
}

/// What a transaction adds to the counts, or takes from them.
#[derive(Default)]
pub struct Counts {
    pub records: HashMap<i64, i64>,
    pub uses: HashMap<(i64, i64), i64>,
}

impl Counts {
    pub fn write(&self, connection: &Connection) -> Done<()> {
        let mut records =
            connection.prepare_cached("UPDATE scope SET records = records + ?2 WHERE id = ?1")?;
        for (scope, by) in &self.records {
            records.execute([scope, by])?;
        }
        let mut more = connection.prepare_cached(
            "INSERT INTO scope_tag (scope, tag, uses) VALUES (?1, ?2, ?3) \
             ON CONFLICT DO UPDATE SET uses = uses + excluded.uses",
        )?;
        let mut fewer = connection.prepare_cached(
            "UPDATE scope_tag SET uses = uses + ?3 WHERE scope = ?1 AND tag = ?2",
        )?;
        for ((scope, tag), by) in &self.uses {
            // A removal does not know which of its tags are categories; what is not counted stays so.
            let counted = if *by > 0 { &mut more } else { &mut fewer };
            counted.execute([scope, tag, by])?;
        }
        Ok(())
    }
}

/// Vectors on their way to the next slots; some hundred are written together.
pub struct Run<'a> {
    connection: &'a Connection,
    segments: &'a Segments,
    segment: Option<Arc<Segment>>,
    /// Where what has gathered is written.
    first: u64,
    pub slots: Slots,
    written: usize,
}

impl<'a> Run<'a> {
    pub fn new(connection: &'a Connection, segments: &'a Segments) -> Self {
        Self {
            connection,
            segments,
            segment: None,
            first: 0,
            slots: Slots::default(),
            written: 0,
        }
    }

    /// The slot of the vector that is added next.
    pub fn place(&mut self, dim: usize) -> Done<u64> {
        if self.slots.count == RUN {
            self.write()?;
        }
        let next = self.first + self.slots.count as u64;
        if self.segment.as_ref().is_some_and(|here| here.holds(next)) {
            return Ok(next);
        }
        self.write()?;
        let segment = self.open(dim)?;
        self.segment = Some(segment);
        Ok(self.first)
    }

    /// The segment that has the next slot; a new one where the last is full, or of another length.
    fn open(&mut self, dim: usize) -> Done<Arc<Segment>> {
        let next = setting(self.connection, "next_slot")? as u64;
        self.first = next;
        let last = list_segments(self.connection)?.pop();
        if let Some((base, capacity, width)) = last {
            if width == dim && next < base + capacity {
                return Ok(self.segments.get(base, capacity, dim)?);
            }
        }
        self.first = last.map_or(next, |(base, capacity, _)| next.max(base + capacity));
        let room = capacity(dim);
        self.connection
            .prepare_cached("INSERT INTO segment (base, capacity, dim) VALUES (?1, ?2, ?3)")?
            .execute(params![self.first as i64, room as i64, dim as i64])?;
        Ok(self.segments.create(self.first, room, dim)?)
    }

    /// Writes what has gathered, and counts it.
    fn write(&mut self) -> Done<()> {
        let Some(segment) = self.segment.as_ref().filter(|_| self.slots.count > 0) else {
            return Ok(());
        };
        self.segments.write(segment, self.first, &self.slots)?;
        self.first += self.slots.count as u64;
        self.written += self.slots.count;
        self.slots.clear();
        set(self.connection, "next_slot", self.first as i64)
    }

    pub fn finish(mut self) -> Done<()> {
        self.write()
    }
}
