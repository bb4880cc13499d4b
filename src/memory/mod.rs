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
mod moment;
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
use self::moment::Moment;
use self::records::{told, Done, Fault};
use self::segments::{Removal, Segments};
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

/// What follows on a write once it is on disk. What a crash leaves undone, a search or the next opening does.
#[derive(Default)]
struct Aftermath {
    met: Numbers,
    /// Slots whose rows were removed.
    dead: Vec<(u64, Removal)>,
    /// Segments that are in no table any more.
    removed: Vec<u64>,
}

impl Aftermath {
    fn happen(self, segments: &Segments, kept: &Kept) {
        kept.keep(self.met);
        for (slot, removal) in self.dead {
            segments.bury(slot, removal);
        }
        for base in self.removed {
            segments.remove(base);
        }
    }
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
        F: Fn(&Connection, &Segments, &mut Aftermath) -> Done<Value> + Send + 'static,
    {
        let aftermath = Arc::new(Mutex::new(Aftermath::default()));
        let made = Arc::clone(&aftermath);
        let segments = Arc::clone(&self.segments);
        let created = Arc::clone(&self.created);
        let act = move |connection: &Connection| {
            told(connection, || {
                if !created.load(Relaxed) {
                    prepare(connection, &segments)?;
                }
                let mut after = Aftermath::default();
                let answer = act(connection, &segments, &mut after)?;
                *made.lock().unwrap_or_else(PoisonError::into_inner) = after;
                Ok(answer)
            })
        };
        let segments = Arc::clone(&self.segments);
        let created = Arc::clone(&self.created);
        let kept = Arc::clone(&self.kept);
        let then = move || {
            created.store(true, Relaxed);
            let mut after = aftermath.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *after).happen(&segments, &kept);
        };
        self.store.write(Work::Task(Task {
            act: Box::new(act),
            then: Box::new(then),
        }))
    }

    fn read<F>(&self, look: F) -> Result<impl Future<Output = Answer> + Send + 'static, Error>
    where
        F: Fn(&Connection, &Segments) -> Done<Value> + Send + 'static,
    {
        // Reads need the tables; the first task of a process makes sure of them.
        let opening = if self.created.load(Relaxed) {
            None
        } else {
            Some(self.write(|_, _, _| Ok(Value::None))?)
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
                        Err(Fault::Past(_)) if tries < MOST_TRIES => {}
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
        self.write(|_, _, _| Ok(Value::None))
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
        let kept = Arc::clone(&self.kept);
        self.write(move |connection, segments, after| {
            let control = |sql: &str| -> Done<()> {
                Ok(connection.prepare_cached(sql)?.raw_execute().map(drop)?)
            };
            let may_be_late = !coming.is_whole();
            if may_be_late {
                control("SAVEPOINT coming")?;
            }
            let mut insertion = Insertion::begin(connection, segments, &kept)?;
            let mut number = 0;
            let written = loop {
                match coming.part(number) {
                    Ok(Some(records)) => insertion.add(&records)?,
                    Ok(None) => {
                        after.met = insertion.finish()?;
                        break Value::None;
                    }
                    Err(Late) => {
                        control("ROLLBACK TO coming")?;
                        break Value::Bool(false);
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
        let kept = Arc::clone(&self.kept);
        self.write(move |connection, segments, after| {
            let rows = records::rows_of_ids(connection, &ids)?;
            after.dead = records::remove(connection, segments, &rows)?;
            let mut insertion = Insertion::begin(connection, segments, &kept)?;
            insertion.add(&records)?;
            after.met = insertion.finish()?;
            Ok(Value::None)
        })
    }

    /// Removes records and tells how many.
    pub fn delete(
        &self,
        doomed: Doomed,
    ) -> Result<impl Future<Output = Answer> + Send + 'static, Error> {
        self.write(move |connection, segments, after| {
            let rows = match &doomed {
                Doomed::All { forget } => {
                    let listed = records::list_segments(connection)?;
                    after.removed = listed.into_iter().map(|(base, ..)| base).collect();
                    return Ok(Value::Int(records::clear(connection, *forget)?));
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
            after.dead = records::remove(connection, segments, &rows)?;
            let unique: BTreeSet<i64> = rows.into_iter().collect();
            Ok(Value::Int(unique.len() as i64))
        })
    }

    pub fn touch(
        &self,
        ids: Vec<String>,
        now: String,
    ) -> Result<impl Future<Output = Answer> + Send + 'static, Error> {
        self.write(move |connection, _, _| {
            records::touch(connection, &ids, &now)?;
            Ok(Value::None)
        })
    }

    pub fn get(&self, id: String) -> Result<impl Future<Output = Answer> + Send + 'static, Error> {
        self.read(move |connection, segments| {
            let moment = Moment::of(connection, segments)?;
            Ok(found::by_id(connection, &moment, &id)?.unwrap_or_default())
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
            let moment = vectors
                .then(|| Moment::of(connection, segments))
                .transpose()?;
            found::list(
                connection,
                moment.as_ref(),
                prefix.as_deref(),
                limit,
                offset,
            )
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
        self.write(move |connection, segments, after| {
            let next = compaction::move_slice(connection, segments, base, from, most)?;
            if next.is_none() {
                after.removed.push(base);
            }
            Ok(next.map_or(Value::None, |next| Value::Int(next as i64)))
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
    segments.remove_others(&kept);
    Ok(())
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
