//! Agents' memory: records in SQLite, vectors in memory-mapped files beside it, searches that filter before they rank.
//!
//! `records` is the truth, `segments` holds the vectors, `search` ranks them. A write is a task of the store's writer, so
//! saves commit in groups and are acknowledged on disk; a search is one read transaction on one of its readers.

mod coming;
mod compaction;
mod filter;
mod found;
mod insert;
mod kernels;
mod porter;
#[cfg(feature = "extension-module")]
mod python;
#[cfg(feature = "extension-module")]
mod python_found;
mod queries;
mod ranking;
mod records;
mod scopes;
mod search;
mod segments;
#[cfg(any(feature = "extension-module", test))]
mod time;
mod words;

use std::collections::BTreeSet;
use std::future::Future;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use rusqlite::Connection;

use self::coming::{Coming, Late};
use self::insert::{Insertion, Kept, Numbers};
use self::records::{told, Done, Fault};
use self::segments::Segments;
use crate::bridge::value::Value;
use crate::error::Error;
use crate::store::{Durability, Hook, Options, Store, Task, Work};

pub use found::Found;
#[cfg(feature = "extension-module")]
pub use python::PyMemories;
pub use records::{Record, Wanted};
pub use search::Metric;
pub use words::Method;
use words::Words;

/// How the dimensions of a vector are bounded: the sums of the codes must fit 32 bits.
pub const MOST_DIMENSIONS: usize = 65_536;

/// Pages of SQLite's log (16 MB) after which they are written to the file: a save of many changes the same pages, those of
/// the indexes, over and over.
const LOG_PAGES: u32 = 4000;
/// How often a read begins anew because a segment was removed under it.
const MOST_TRIES: usize = 10;

type Answer = Result<Value, Error>;

/// A folder with `records.db` and the vectors' files.
pub struct Memories {
    store: Store,
    segments: Arc<Segments>,
    /// Whether the tables are known to be on disk. Until a first write is acknowledged they may be rolled back.
    created: Arc<AtomicBool>,
    /// By word, and by stem.
    words: Arc<[RwLock<Words>; 2]>,
    kept: Arc<Kept>,
}

/// Which records a deletion names.
#[derive(Debug, Clone)]
pub enum Doomed {
    All {
        forget: bool,
    },
    Ids(Vec<String>),
    /// Of the ids, where some are given; and created before.
    Wanted(Wanted, Option<String>, Option<Vec<String>>),
    Between(String, String),
}

impl Memories {
    pub fn new(folder: PathBuf, readers: u32, busy_timeout: Duration) -> Result<Self, Error> {
        let segments = Arc::new(Segments::new(folder.clone()));
        let flushed = Arc::clone(&segments);
        let store = Store::new(Options {
            path: folder.join("records.db"),
            readers,
            queue_size: 10_000,
            durability: Durability::Full,
            busy_timeout,
            before_commit: Hook(Some(Arc::new(move || flushed.flush()))),
            make_folder: true,
        })?;
        Ok(Self {
            store,
            segments,
            created: Arc::default(),
            words: Arc::new([false, true].map(|stemmed| RwLock::new(Words::new(stemmed)))),
            kept: Arc::default(),
        })
    }

    fn write<F>(&self, act: F) -> Result<impl Future<Output = Answer> + Send + 'static, Error>
    where
        F: Fn(&Connection, &Segments) -> Done<Value> + Send + 'static,
    {
        let segments = Arc::clone(&self.segments);
        let created = Arc::clone(&self.created);
        let committed = Arc::clone(&self.created);
        let writing = self
            .store
            .write(Work::Task(Task(Box::new(move |connection| {
                told(connection, || {
                    if !created.load(Relaxed) {
                        prepare(connection, &segments)?;
                    }
                    act(connection, &segments)
                })
            }))))?;
        Ok(async move {
            let answer = writing.await?;
            committed.store(true, Relaxed);
            Ok(answer)
        })
    }

    /// A write that adds records; the numbers that it has met are kept once it is on disk.
    fn write_records<F>(
        &self,
        act: F,
    ) -> Result<impl Future<Output = Answer> + Send + 'static, Error>
    where
        F: Fn(&Connection, &Segments, &Kept) -> Done<(Value, Numbers)> + Send + 'static,
    {
        let (kept, known) = (Arc::clone(&self.kept), Arc::clone(&self.kept));
        let met = Arc::new(Mutex::new(Numbers::default()));
        let found = Arc::clone(&met);
        let lock = |met: &Mutex<Numbers>, numbers| {
            std::mem::replace(
                &mut *met.lock().unwrap_or_else(PoisonError::into_inner),
                numbers,
            )
        };
        let written = self.write(move |connection, segments| {
            let (answer, numbers) = act(connection, segments, &known)?;
            lock(&met, numbers);
            Ok(answer)
        })?;
        Ok(async move {
            let answer = written.await?;
            kept.keep(lock(&found, Numbers::default()));
            Ok(answer)
        })
    }

    fn read<F>(&self, look: F) -> Result<impl Future<Output = Answer> + Send + 'static, Error>
    where
        F: Fn(&Connection, &Segments) -> Done<Value> + Send + 'static,
    {
        // Reads need the tables; the first task of a process makes sure of them.
        let opening = if self.created.load(Relaxed) {
            None
        } else {
            Some(self.write(|_, _| Ok(Value::None))?)
        };
        let segments = Arc::clone(&self.segments);
        let looking = self.store.look(move |connection| {
            told(connection, || {
                let mut tries = 0;
                loop {
                    // One transaction: the rows are as they were when the slots were counted.
                    let snapshot = connection.unchecked_transaction()?;
                    let found = look(connection, &segments);
                    snapshot.finish()?;
                    tries += 1;
                    match found {
                        // A compaction has removed a segment of this moment; a later moment has its vectors elsewhere.
                        Err(Fault::Removed(_)) if tries < MOST_TRIES => {}
                        found => return found,
                    }
                }
            })
        })?;
        Ok(async move {
            if let Some(opening) = opening {
                opening.await?;
            }
            looking.await
        })
    }

    pub fn open(&self) -> Result<impl Future<Output = Answer> + Send + 'static, Error> {
        self.write(|_, _| Ok(Value::None))
    }

    /// Saves records that have been checked, while more of them may be coming.
    pub fn save(
        self: &Arc<Self>,
        coming: Arc<Coming>,
    ) -> Result<impl Future<Output = Answer> + Send + 'static, Error> {
        let memories = Arc::clone(self);
        let written = self.write_coming(Arc::clone(&coming))?;
        Ok(async move {
            if written.await? == Value::None {
                return Ok(Value::None);
            }
            memories.write_coming(coming)?.await.map(|_| Value::None)
        })
    }

    /// False, and nothing is written, where they were late.
    fn write_coming(
        &self,
        coming: Arc<Coming>,
    ) -> Result<impl Future<Output = Answer> + Send + 'static, Error> {
        self.write_records(move |connection, segments, kept| {
            let control = |sql: &str| -> Done<()> {
                Ok(connection.prepare_cached(sql)?.raw_execute().map(drop)?)
            };
            let may_be_late = !coming.is_whole();
            if may_be_late {
                control("SAVEPOINT coming")?;
            }
            let mut insertion = Insertion::begin(connection, segments, kept)?;
            let mut number = 0;
            let written = loop {
                match coming.part(number) {
                    Ok(Some(records)) => insertion.add(&records)?,
                    Ok(None) => break (Value::None, insertion.finish()?),
                    Err(Late) => {
                        control("ROLLBACK TO coming")?;
                        break (Value::Bool(false), Numbers::default());
                    }
                }
                number += 1;
            };
            if may_be_late {
                control("RELEASE coming")?;
            }
            Ok(written)
        })
    }

    /// Replaces all records that have an id of these.
    pub fn replace(
        &self,
        records: Vec<Record>,
    ) -> Result<impl Future<Output = Answer> + Send + 'static, Error> {
        check(&records)?;
        let ids: Vec<String> = records.iter().map(|record| record.id.clone()).collect();
        let written = self.write_records(move |connection, segments, kept| {
            let rows = records::rows_of_ids(connection, &ids)?;
            let slots = records::remove(connection, segments, &rows)?;
            let mut insertion = Insertion::begin(connection, segments, kept)?;
            insertion.add(&records)?;
            Ok((slots_value(slots), insertion.finish()?))
        })?;
        let buried = self.bury(written);
        Ok(async move { buried.await.map(|_| Value::None) })
    }

    /// Removes records and tells how many.
    pub fn delete(
        &self,
        doomed: Doomed,
    ) -> Result<impl Future<Output = Answer> + Send + 'static, Error> {
        let written = self.write(move |connection, segments| {
            let rows = match &doomed {
                Doomed::All { forget } => {
                    let count = records::clear(connection, *forget)?;
                    return Ok(Value::Tuple(vec![
                        Value::Int(count),
                        Value::List(Vec::new()),
                    ]));
                }
                Doomed::Ids(ids) => records::rows_of_ids(connection, ids)?,
                Doomed::Wanted(wanted, older, ids) => {
                    let mut rows = records::rows_wanted(connection, wanted, older.as_deref())?;
                    if let Some(ids) = ids {
                        let named = records::rows_of_ids(connection, ids)?;
                        let named: BTreeSet<i64> = named.into_iter().collect();
                        rows.retain(|row| named.contains(row));
                    }
                    rows
                }
                Doomed::Between(from, until) => records::rows_between(connection, from, until)?,
            };
            let slots = records::remove(connection, segments, &rows)?;
            let unique: BTreeSet<i64> = rows.into_iter().collect();
            Ok(Value::Tuple(vec![
                Value::Int(unique.len() as i64),
                slots_list(slots),
            ]))
        })?;
        Ok(self.bury(written))
    }

    /// Marks the slots of removed rows, once the removal is committed; what a crash leaves unmarked a search marks.
    fn bury(
        &self,
        written: impl Future<Output = Answer> + Send + 'static,
    ) -> impl Future<Output = Answer> + Send + 'static {
        let segments = Arc::clone(&self.segments);
        async move {
            let Value::Tuple(mut answer) = written.await? else {
                return Ok(Value::None);
            };
            if let Some(Value::List(slots)) = answer.pop() {
                for slot in slots {
                    if let Value::Int(slot) = slot {
                        segments.bury(slot as u64);
                    }
                }
            }
            Ok(answer.pop().unwrap_or_default())
        }
    }

    pub fn touch(
        &self,
        ids: Vec<String>,
        now: String,
    ) -> Result<impl Future<Output = Answer> + Send + 'static, Error> {
        self.write(move |connection, _| {
            records::touch(connection, &ids, &now)?;
            Ok(Value::None)
        })
    }

    pub fn get(&self, id: String) -> Result<impl Future<Output = Answer> + Send + 'static, Error> {
        self.read(move |connection, segments| {
            let vectors = records::open_segments(connection, segments)?;
            Ok(found::by_id(connection, &vectors, &id)?.unwrap_or_default())
        })
    }

    pub fn list(
        &self,
        prefix: Option<String>,
        limit: i64,
        offset: i64,
        vectors: bool,
    ) -> Result<impl Future<Output = Answer> + Send + 'static, Error> {
        self.read(move |connection, segments| {
            let vectors = if vectors {
                records::open_segments(connection, segments)?
            } else {
                Vec::new()
            };
            found::list(connection, &vectors, prefix.as_deref(), limit, offset)
        })
    }

    pub fn scope_info(
        &self,
        prefix: Option<String>,
    ) -> Result<impl Future<Output = Answer> + Send + 'static, Error> {
        self.read(move |connection, _| scopes::scope_info(connection, prefix.as_deref()))
    }

    pub fn scopes(
        &self,
        prefix: Option<String>,
    ) -> Result<impl Future<Output = Answer> + Send + 'static, Error> {
        self.read(move |connection, _| scopes::scopes(connection, prefix.as_deref()))
    }

    pub fn categories(
        &self,
        prefix: Option<String>,
    ) -> Result<impl Future<Output = Answer> + Send + 'static, Error> {
        self.read(move |connection, _| scopes::categories(connection, prefix.as_deref()))
    }

    pub fn count(
        &self,
        prefix: Option<String>,
    ) -> Result<impl Future<Output = Answer> + Send + 'static, Error> {
        self.read(move |connection, _| {
            Ok(Value::Int(scopes::counted(connection, prefix.as_deref())?))
        })
    }

    /// One slice of compaction: moves up to `most` vectors out of the segment at `base`, beginning at its slot `from`. Gives
    /// the slot to go on at, or None when the segment was empty and is gone.
    pub fn compact(
        &self,
        base: u64,
        from: usize,
        most: usize,
    ) -> Result<impl Future<Output = Answer> + Send + 'static, Error> {
        let written = self.write(move |connection, segments| {
            let next = compaction::move_slice(connection, segments, base, from, most)?;
            Ok(next.map_or(Value::None, |next| Value::Int(next as i64)))
        })?;
        let segments = Arc::clone(&self.segments);
        Ok(async move {
            let next = written.await?;
            if next == Value::None {
                segments.remove(base);
            }
            Ok(next)
        })
    }

    pub fn sizes(&self) -> Result<impl Future<Output = Answer> + Send + 'static, Error> {
        self.read(compaction::sizes)
    }

    pub fn close(&self) -> impl Future<Output = Answer> + Send + 'static {
        self.store.close()
    }

    pub fn stats(&self) -> crate::store::Stats {
        self.store.stats()
    }
}

/// The tables, and no files that a crash or a rollback has left. Runs under the database's write lock.
fn prepare(connection: &Connection, segments: &Segments) -> Done<()> {
    connection.query_row(
        &format!("PRAGMA wal_autocheckpoint = {LOG_PAGES}"),
        [],
        |_| Ok(()),
    )?;
    records::create(connection)?;
    let kept = records::list_segments(connection)?
        .into_iter()
        .map(|(base, ..)| base)
        .collect();
    segments.keep_only(&kept, true);
    Ok(())
}

fn slots_list(slots: Vec<u64>) -> Value {
    Value::List(
        slots
            .into_iter()
            .map(|slot| Value::Int(slot as i64))
            .collect(),
    )
}

fn slots_value(slots: Vec<u64>) -> Value {
    Value::Tuple(vec![Value::None, slots_list(slots)])
}

/// Refuses what cannot be stored before anything is queued.
fn check(records: &[Record]) -> Result<(), Error> {
    check_next(records, &mut None)
}

/// `first` is the length of the first vector before.
fn check_next(records: &[Record], first: &mut Option<usize>) -> Result<(), Error> {
    for record in records {
        let Some(vector) = &record.vector else {
            continue;
        };
        let given = vector.len();
        let what = format_args!("the vector of record {:?}", record.id);
        if given == 0 || given > MOST_DIMENSIONS {
            return Err(Error::Invalid(format!(
                "{what} has {given} dimensions: from 1 to {MOST_DIMENSIONS} are possible"
            )));
        }
        finite(vector, what)?;
        let stored = *first.get_or_insert(given);
        if stored != given {
            return Err(Error::Dimension { stored, given });
        }
    }
    Ok(())
}

fn finite(vector: &[f32], what: impl std::fmt::Display) -> Result<(), Error> {
    // Without a way out in its middle the loop is vectorised.
    if vector.iter().fold(true, |fine, x| fine & x.is_finite()) {
        return Ok(());
    }
    match vector.iter().position(|number| !number.is_finite()) {
        None => Ok(()),
        Some(at) => Err(Error::Invalid(format!(
            "{what} holds {} at place {at}: every number must be finite, and within the range of 32 bits",
            vector[at]
        ))),
    }
}
