//! One SQLite file: a writer thread that commits in groups, and a pool of readers.
//!
//! A write is acknowledged after the COMMIT of its group; a read never waits for the writer. Both take and give owned values,
//! so nothing here knows Python. The class of `python.rs` is the door, `fastcrew_async/store.py` what users see.

mod connection;
pub mod failure;
mod params;
#[cfg(feature = "extension-module")]
mod python;
mod readers;
mod row_id;
mod statement;
mod work;
mod writer;

use std::future::Future;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot, watch};

use crate::bridge::value::Value;
use crate::error::{DatabaseErrorKind, Error};

pub use connection::Durability;
pub use params::{Cell, Params};
#[cfg(feature = "extension-module")]
pub use python::PyStore;
pub use readers::{Query, Readers};
pub use work::{Task, Work};
use writer::{writer_failed, Tally, Writer};
pub use writer::{Job, Reply};

/// How a file is opened; the meanings are those of `fastcrew_async.Database`.
#[derive(Debug, Clone)]
pub struct Options {
    pub path: PathBuf,
    pub readers: u32,
    pub queue_size: usize,
    pub durability: Durability,
    pub busy_timeout: Duration,
    pub before_commit: Hook,
    /// Make the file's folder where it is missing.
    pub make_folder: bool,
}

/// What must be on disk before a group's commit is. When it fails, the group does.
#[derive(Clone, Default)]
pub struct Hook(pub Option<Arc<dyn Fn() -> Result<(), Error> + Send + Sync>>);

impl Hook {
    fn run(&self) -> Result<(), Error> {
        self.0.as_ref().map_or(Ok(()), |hook| hook())
    }
}

impl std::fmt::Debug for Hook {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        to.write_str(if self.0.is_some() { "Hook" } else { "no hook" })
    }
}

/// Writes that wait, writes done, groups committed, and the largest group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    pub queued: usize,
    pub writes: u64,
    pub commits: u64,
    pub largest_group: u64,
}

pub struct Store {
    /// Taken by `close`; the writer ends when the last clone of it is gone.
    intake: Mutex<Option<mpsc::Sender<Job>>>,
    readers: Arc<Readers>,
    tally: Arc<Tally>,
    ended: watch::Receiver<()>,
}

impl Store {
    /// Starts the writer thread. The file itself is opened by the first operation, and again by the next when that failed.
    pub fn new(options: Options) -> Result<Self, Error> {
        let (sender, inbox) = mpsc::channel(options.queue_size);
        let (end, ended) = watch::channel(());
        let tally = Arc::new(Tally::default());
        let readers = Arc::new(Readers::new(&options));
        let writer = Writer::new(options, inbox, Arc::clone(&tally));
        std::thread::Builder::new()
            .name("fastcrew-writer".into())
            .spawn(move || {
                writer.run();
                drop(end);
            })
            .map_err(|error| {
                let text = format!("the writer's thread does not start: {error}");
                Error::database(DatabaseErrorKind::Other, text)
            })?;
        Ok(Self {
            intake: Mutex::new(Some(sender)),
            readers,
            tally,
            ended,
        })
    }

    /// Queues a write at once, in the order of the calls; the future gives its answer.
    ///
    /// When the queue is full the future waits for a place. Dropping the future withdraws a write whose turn has not come;
    /// a write whose turn has come is committed whole.
    pub fn write(
        &self,
        work: Work,
    ) -> Result<impl Future<Output = Result<Value, Error>> + Send + 'static, Error> {
        work.check()?;
        let (sender, answer) = oneshot::channel();
        let waiting = self.queue(Job::new(work, Reply::Channel(sender)));
        Ok(async move {
            if let Some(waiting) = waiting {
                waiting.await;
            }
            answer.await.unwrap_or_else(|_| Err(writer_failed()))
        })
    }

    /// Queues `job`, or gives the wait for a place. A job that cannot be served any more answers so itself.
    pub fn queue(&self, job: Job) -> Option<impl Future<Output = ()> + Send + 'static> {
        let Ok(intake) = self.intake() else {
            job.finish(Err(failure::closed()));
            return None;
        };
        match intake.try_send(job) {
            Ok(()) | Err(TrySendError::Closed(_)) => None,
            Err(TrySendError::Full(job)) => Some(async move { drop(intake.send(job).await) }),
        }
    }

    /// Runs a query on a reader: all its rows, or the first one or None.
    pub fn read(
        &self,
        query: Query,
    ) -> Result<impl Future<Output = Result<Value, Error>> + Send + 'static, Error> {
        query.check()?;
        self.look(move |connection| readers::answer(connection, &query))
    }

    /// Calls `look` with a reader, on a blocking thread.
    pub fn look<F>(
        &self,
        look: F,
    ) -> Result<impl Future<Output = Result<Value, Error>> + Send + 'static, Error>
    where
        F: FnOnce(&Connection) -> Result<Value, Error> + Send + 'static,
    {
        // The writer creates the file and sets its format, once; from then on reads do not pass it.
        let opening = if self.tally.opened() {
            drop(self.intake()?);
            None
        } else {
            Some(self.write(Work::Open)?)
        };
        let readers = Arc::clone(&self.readers);
        Ok(async move {
            if let Some(opening) = opening {
                opening.await?;
            }
            readers.run(look).await
        })
    }

    /// Refuses new work at once; the future ends when all that was queued is on disk and the file is closed.
    pub fn close(&self) -> impl Future<Output = Result<Value, Error>> + Send + 'static {
        let intake = self.lock().take();
        let (readers, mut ended) = (Arc::clone(&self.readers), self.ended.clone());
        async move {
            readers.close().await;
            // Only now may the writer end: of two connections that close at once each sees the other's lock on the file,
            // and neither removes the write-ahead log.
            drop(intake);
            // The writer never sends; its end drops the sender, which is the only way out of this wait.
            while ended.changed().await.is_ok() {}
            Ok(Value::None)
        }
    }

    pub fn stats(&self) -> Stats {
        let queued = self.lock().as_ref().map_or(0, |intake| {
            intake.max_capacity().saturating_sub(intake.capacity())
        });
        self.tally.stats(queued)
    }

    fn intake(&self) -> Result<mpsc::Sender<Job>, Error> {
        self.lock().clone().ok_or_else(failure::closed)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<mpsc::Sender<Job>>> {
        self.intake.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
