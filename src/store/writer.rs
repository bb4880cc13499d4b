//! The one thread that writes: it commits what has queued up in one transaction, and acknowledges after the COMMIT.
//!
//! What fails is undone by SQLite, by a savepoint, or by doing the rest of the group again without it, so a failure is its
//! caller's only. A failed COMMIT fails its whole group. Between processes the writers take turns by `BEGIN IMMEDIATE`,
//! tried again until the busy timeout.

use std::panic::{catch_unwind, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Acquire, Relaxed},
};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::connection::{open_writer, Refusal};
use super::failure::{failure, is_busy};
use super::row_id::RowIds;
use super::work::Work;
use super::{Options, Stats};
use crate::bridge::queue::Completer;
use crate::bridge::value::Value;
use crate::error::{DatabaseErrorKind as Kind, Error};
use crate::logs;

type Answer = Result<Value, Error>;

/// A group ends at this many works, or at this age, so that the first in it does not wait for ever.
const GROUP_SIZE: usize = 1024;
const GROUP_TIME: Duration = Duration::from_millis(20);
/// After a large group its callers come back one by one: as long as one comes within this time, a commit waits for more.
const LINGER: Duration = Duration::from_micros(100);
/// Past this size (bytes) the log is emptied even if readers always overlap, and how long that waits for them.
const LOG_LIMIT: u64 = if cfg!(test) { 256 } else { 64 * 1024 } * 1024;
const LOG_PATIENCE: Duration = Duration::from_millis(250);

/// Who waits for the answer of a write, and how it is told.
pub enum Reply {
    Channel(oneshot::Sender<Answer>),
    /// Straight to the caller's event loop; the flag is set when the caller has gone.
    Loop(Completer, Arc<AtomicBool>),
}

impl Reply {
    fn is_gone(&self) -> bool {
        match self {
            Self::Channel(sender) => sender.is_closed(),
            Self::Loop(_, gone) => gone.load(Acquire),
        }
    }

    /// A caller that left after its turn began is not an error: the write is on disk.
    fn give(self, answer: Answer) {
        match self {
            Self::Channel(sender) => drop(sender.send(answer)),
            Self::Loop(completer, _) => completer.complete(answer),
        }
    }
}

pub struct Job {
    work: Work,
    /// None once it was given.
    reply: Option<Reply>,
    since: Instant,
}

impl Job {
    pub fn new(work: Work, reply: Reply) -> Self {
        Self {
            work,
            reply: Some(reply),
            since: Instant::now(),
        }
    }

    /// The caller has gone: its turn had not come, so the write is withdrawn.
    fn withdrawn(&self) -> bool {
        self.reply.as_ref().is_none_or(Reply::is_gone)
    }

    pub fn finish(mut self, answer: Answer) {
        if let Some(reply) = self.reply.take() {
            reply.give(answer);
        }
    }
}

impl Drop for Job {
    /// The writer drains its queue before it ends, so a job is dropped unanswered only when it was withdrawn or by a panic.
    fn drop(&mut self) {
        if let Some(reply) = self.reply.take() {
            reply.give(Err(writer_failed()));
        }
    }
}

pub fn writer_failed() -> Error {
    Error::Panic("the database's writer failed while it served this write".into())
}

#[derive(Default)]
pub struct Tally {
    writes: AtomicU64,
    commits: AtomicU64,
    largest_group: AtomicU64,
    /// The file exists and has its format: readers may open it.
    opened: AtomicBool,
}

impl Tally {
    fn committed(&self, writes: usize) {
        let writes = writes as u64;
        self.writes.fetch_add(writes, Relaxed);
        self.commits.fetch_add(1, Relaxed);
        self.largest_group.fetch_max(writes, Relaxed);
    }

    pub fn opened(&self) -> bool {
        self.opened.load(Relaxed)
    }

    pub fn stats(&self, queued: usize) -> Stats {
        Stats {
            queued,
            writes: self.writes.load(Relaxed),
            commits: self.commits.load(Relaxed),
            largest_group: self.largest_group.load(Relaxed),
        }
    }
}

pub struct Writer {
    options: Options,
    log: PathBuf,
    /// The log's size at which it is emptied next.
    log_limit: u64,
    inbox: mpsc::Receiver<Job>,
    connection: Option<Connection>,
    ids: RowIds,
    last_group: usize,
    /// When the file was last ours; a caller's patience counts from here or from its call, whichever is later.
    ours_at: Instant,
    tally: Arc<Tally>,
}

impl Writer {
    pub fn new(options: Options, inbox: mpsc::Receiver<Job>, tally: Arc<Tally>) -> Self {
        let mut log = options.path.clone().into_os_string();
        log.push("-wal");
        Self {
            options,
            log: log.into(),
            log_limit: LOG_LIMIT,
            inbox,
            connection: None,
            ids: RowIds::default(),
            last_group: 0,
            ours_at: Instant::now(),
            tally,
        }
    }

    /// Serves until every sender is gone and the queue is empty.
    pub fn run(mut self) {
        while let Some(job) = self.inbox.blocking_recv() {
            if job.withdrawn() {
                continue;
            }
            // Unwinding drops the group's answers, which fails its callers; the connection may be in any state.
            if let Err(payload) = catch_unwind(AssertUnwindSafe(|| self.serve(job))) {
                self.connection = None;
                let path = self.options.path.display();
                let error = Error::from_panic(&*payload);
                log::error!(target: logs::DATABASE, "{path}: the writer goes on after this: {error}");
            }
        }
    }

    fn serve(&mut self, first: Job) {
        if matches!(first.work, Work::Open) {
            let opened = self.patiently(first.since, |_| Ok(()));
            return first.finish(opened.map(|()| Value::None));
        }
        if let Err(error) = self.begin(first.since) {
            return first.finish(Err(error));
        }
        let began = Instant::now();
        let mut group = Vec::new();
        let mut next = Some(first);
        while let Some(job) = next.take() {
            if !job.withdrawn() {
                let (answer, spoiled) = self.run_in_group(&job.work);
                group.push((job, answer));
                if spoiled {
                    return self.serve_one_by_one(group);
                }
            }
            if group.len() < GROUP_SIZE && began.elapsed() < GROUP_TIME {
                next = self.inbox.try_recv().ok();
                if next.is_none() && group.len() < self.last_group / 2 {
                    thread::sleep(LINGER);
                    next = self.inbox.try_recv().ok();
                }
            }
        }
        self.last_group = group.len();
        match self.commit(group.len()) {
            Ok(()) => {
                for (job, answer) in group {
                    if answer.is_ok() {
                        job.work.committed();
                    }
                    job.finish(answer);
                }
            }
            Err(Error::Database {
                kind: Kind::Integrity,
                ..
            }) if group.len() > 1 => {
                // A deferred constraint is judged at COMMIT; alone, each work meets its own.
                self.serve_one_by_one(group);
            }
            Err(error) => {
                for (job, answer) in group {
                    job.finish(answer.and(Err(error.clone())));
                }
            }
        }
        self.keep_log_small();
    }

    /// Gives the group's transaction up. Works that had failed keep their error; the others run again, each in its own.
    fn serve_one_by_one(&mut self, group: Vec<(Job, Answer)>) {
        self.roll_back();
        for (job, answer) in group {
            let answer = answer.and_then(|_| {
                self.begin(job.since)?;
                let answer = job.work.run(self.connection(), &self.ids)?;
                self.commit(1)?;
                job.work.committed();
                Ok(answer)
            });
            self.roll_back();
            job.finish(answer);
        }
    }

    fn begin(&mut self, since: Instant) -> Result<(), Error> {
        self.patiently(since, |connection| {
            connection
                .prepare_cached("BEGIN IMMEDIATE")?
                .raw_execute()
                .map(drop)
        })
    }

    /// Opens the file where needed and does `act`, again and again while another process holds the file.
    fn patiently(
        &mut self,
        since: Instant,
        act: impl Fn(&Connection) -> rusqlite::Result<()>,
    ) -> Result<(), Error> {
        let deadline = since.max(self.ours_at) + self.options.busy_timeout;
        let mut held = None;
        loop {
            let busy = match self.open().and_then(|connection| {
                act(connection).map_err(|error| {
                    if is_busy(&error) {
                        Refusal::Busy(error)
                    } else {
                        Refusal::Final(failure(path_of(connection), &error))
                    }
                })
            }) {
                Ok(()) => {
                    self.ours_at = Instant::now();
                    if let Some(held) = held {
                        self.tell_held(self.ours_at - held);
                    }
                    return Ok(());
                }
                Err(Refusal::Final(error)) => return Err(error),
                Err(Refusal::Busy(error)) => error,
            };
            let left = deadline.saturating_duration_since(Instant::now());
            let path = self.options.path.display();
            if held.is_none() {
                held = Some(Instant::now());
                log::debug!(target: logs::DATABASE, "{path}: another process writes, trying again for {left:.1?}");
            }
            if left.is_zero() {
                log::info!(target: logs::DATABASE, "{path}: given up, another process held the file too long");
                return Err(failure(&self.options.path, &busy));
            }
            thread::sleep(left.min(pause()));
        }
    }

    fn tell_held(&self, held: Duration) {
        let level = if held < logs::LONG {
            log::Level::Debug
        } else {
            log::Level::Warn
        };
        let path = self.options.path.display();
        log::log!(target: logs::DATABASE, level, "{path}: another process held the file for {held:.1?}");
    }

    fn open(&mut self) -> Result<&Connection, Refusal> {
        if self.connection.is_none() {
            if let Some(folder) = self
                .options
                .path
                .parent()
                .filter(|_| self.options.make_folder)
            {
                // What keeps it from being made is told by the opening.
                let _ = std::fs::create_dir_all(folder);
            }
            let connection = open_writer(&self.options.path, self.options.durability)?;
            self.ids = RowIds::of(&connection)
                .map_err(|error| Refusal::Final(failure(&self.options.path, &error)))?;
            self.connection = Some(connection);
            log::debug!(target: logs::DATABASE, "{}: opened", self.options.path.display());
            self.tally.opened.store(true, Relaxed);
        }
        Ok(self.connection())
    }

    /// Runs a work in the group's transaction; says whether its failure was more than its own.
    fn run_in_group(&self, work: &Work) -> (Answer, bool) {
        let connection = self.connection();
        let before = connection.total_changes();
        let answer = if work.is_one_statement() {
            work.run(connection, &self.ids)
        } else {
            self.run_in_savepoint(work)
        };
        // SQLite rolled the transaction back (OR ROLLBACK, a full disk), or kept a part of the statement (OR FAIL).
        let spoiled = answer.is_err()
            && (connection.is_autocommit()
                || work.is_one_statement() && connection.total_changes() != before);
        (answer, spoiled)
    }

    fn run_in_savepoint(&self, work: &Work) -> Answer {
        let connection = self.connection();
        let control = |sql: &str| {
            let done = connection
                .prepare_cached(sql)
                .and_then(|mut control| control.raw_execute());
            done.map_err(|error| failure(path_of(connection), &error))
        };
        control("SAVEPOINT caller")?;
        let answer = work.run(connection, &self.ids);
        if answer.is_err() && !connection.is_autocommit() {
            control("ROLLBACK TO caller")?;
        }
        if !connection.is_autocommit() {
            control("RELEASE caller")?;
        }
        answer
    }

    fn commit(&mut self, writes: usize) -> Result<(), Error> {
        if let Err(error) = self.options.before_commit.run() {
            self.roll_back();
            return Err(error);
        }
        let began = Instant::now();
        let committed = self
            .connection()
            .prepare_cached("COMMIT")
            .and_then(|mut commit| commit.raw_execute());
        self.ours_at = Instant::now();
        let (took, path) = (self.ours_at - began, self.options.path.display());
        if took >= logs::LONG {
            log::warn!(target: logs::DATABASE, "{path}: a commit of {writes} writes took {took:.1?}");
        }
        match committed {
            Ok(_) => {
                self.tally.committed(writes);
                Ok(())
            }
            Err(error) => {
                let error = failure(&self.options.path, &error);
                self.roll_back();
                Err(error)
            }
        }
    }

    /// Ends an open transaction; a connection that cannot is replaced by the next work.
    fn roll_back(&mut self) {
        let Some(connection) = &self.connection else {
            return;
        };
        if !connection.is_autocommit() && connection.execute_batch("ROLLBACK").is_err() {
            self.connection = None;
        }
    }

    /// SQLite's own checkpoints never empty a log that some reader always uses; this one waits for the readers a little.
    fn keep_log_small(&mut self) {
        let Some(connection) = &self.connection else {
            return;
        };
        let size = std::fs::metadata(&self.log).map_or(0, |log| log.len());
        if size < self.log_limit {
            return;
        }
        let emptied = connection
            .busy_timeout(LOG_PATIENCE)
            .and_then(|()| {
                connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| {
                    row.get::<_, i64>(0)
                })
            })
            .is_ok_and(|busy| busy == 0);
        // A failed attempt is repeated when the log has grown by as much again: the writes go on.
        self.log_limit = if emptied { LOG_LIMIT } else { size + LOG_LIMIT };
        if !emptied {
            let path = self.log.display();
            log::info!(target: logs::DATABASE, "{path}: readers keep it from being emptied, it has {size} bytes");
        }
        if connection.busy_timeout(Duration::ZERO).is_err() {
            self.connection = None;
        }
    }

    fn connection(&self) -> &Connection {
        self.connection
            .as_ref()
            .expect("a transaction is open, so the connection is")
    }
}

fn path_of(connection: &Connection) -> &Path {
    Path::new(connection.path().unwrap_or_default())
}

/// Between two tries for a busy file: 0.5 to 2 ms, scattered, so that many processes all get their turn.
fn pause() -> Duration {
    let scatter = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |now| now.subsec_nanos() % 1500);
    Duration::from_micros(500 + u64::from(scatter))
}
