//! Reads: pooled connections on blocking threads. They never wait for the writer.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{mpsc, Arc, Mutex, PoisonError};
use std::time::Duration;

use r2d2_sqlite::SqliteConnectionManager;
use rusqlite::Connection;
use scheduled_thread_pool::ScheduledThreadPool;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use super::connection::{prepare_reader, reader_flags};
use super::failure::{closed, failure, kind, statement as wrong};
use super::params::Params;
use super::work::collect;
use super::{statement, Options};
use crate::bridge::value::Value;
use crate::error::{DatabaseErrorKind as Kind, Error};
use crate::logs;

type Pool = r2d2::Pool<SqliteConnectionManager>;

/// A query looks whether its caller has left after so many steps of SQLite's machine: some 0.1 ms.
const LOOK_EVERY: i32 = 10_000;

#[derive(Debug)]
pub struct Query {
    pub sql: String,
    pub params: Params,
    /// Only the first row, or None, instead of the list of all.
    pub one: bool,
}

impl Query {
    pub fn check(&self) -> Result<(), Error> {
        statement::check_read(&self.sql)
    }
}

pub struct Readers {
    options: Options,
    /// One permit a connection: waiting for a connection costs no thread. Closed with the pool.
    permits: Arc<Semaphore>,
    pool: Mutex<Option<Opened>>,
}

struct Opened {
    pool: Pool,
    /// The one thread that opens its connections.
    opener: Arc<ScheduledThreadPool>,
}

impl Opened {
    /// Closes the connections before it returns. The opener may still hold the pool for a moment after it has opened
    /// one; were a reader the last to close the file, it could not remove the write-ahead log.
    fn close(self) {
        drop(self.pool);
        let (done, told) = mpsc::channel::<()>();
        self.opener.execute(move || drop(done));
        let _ = told.recv();
    }
}

impl Readers {
    pub fn new(options: &Options) -> Self {
        Self {
            options: options.clone(),
            permits: Arc::new(Semaphore::new(options.readers as usize)),
            pool: Mutex::new(None),
        }
    }

    pub async fn run<F>(&self, look: F) -> Result<Value, Error>
    where
        F: FnOnce(&Connection) -> Result<Value, Error> + Send + 'static,
    {
        let permits = Arc::clone(&self.permits);
        let permit = permits.acquire_owned().await.map_err(|_| closed())?;
        let pool = self.pool();
        let left = Left::default();
        let gone = Arc::clone(&left.0);
        let read = spawn_blocking(move || {
            let answer = read(&pool, look, gone);
            drop(pool); // before the permit: who has them all, to close, must be the last to hold it
            drop(permit);
            answer
        });
        read.await
            .unwrap_or_else(|error| match error.try_into_panic() {
                Ok(payload) => {
                    let error = Error::from_panic(payload.as_ref());
                    log::error!(target: logs::DATABASE, "{error}");
                    Err(error)
                }
                Err(_) => Err(Error::RuntimeClosed),
            })
    }

    /// Waits for the reads in flight, then closes the connections.
    pub async fn close(&self) {
        // An error means that it is closed already.
        let Ok(_all) = self.permits.acquire_many(self.options.readers).await else {
            return;
        };
        self.permits.close();
        let opened = self
            .pool
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        // Closing touches the file; a failed join has nothing to say about it.
        let _ = spawn_blocking(move || opened.map(Opened::close)).await;
    }

    /// The pool; it opens a connection when a query needs one.
    fn pool(&self) -> Pool {
        let mut opened = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(opened) = opened.as_ref() {
            return opened.pool.clone();
        }
        let timeout = self.options.busy_timeout;
        let manager = SqliteConnectionManager::file(&self.options.path)
            .with_flags(reader_flags())
            .with_init(move |connection| prepare_reader(connection, timeout));
        let opener = Arc::new(
            ScheduledThreadPool::builder()
                .num_threads(1)
                .thread_name_pattern("fastcrew-readers")
                .build(),
        );
        let pool = r2d2::Pool::builder()
            .max_size(self.options.readers)
            .min_idle(Some(0))
            .max_lifetime(None)
            .test_on_check_out(false)
            .connection_timeout(timeout.max(Duration::from_secs(1)))
            .error_handler(Box::new(r2d2::NopErrorHandler))
            .thread_pool(Arc::clone(&opener))
            .build_unchecked(manager);
        *opened = Some(Opened {
            pool: pool.clone(),
            opener,
        });
        pool
    }
}

fn read<F>(pool: &Pool, look: F, gone: Arc<AtomicBool>) -> Result<Value, Error>
where
    F: FnOnce(&Connection) -> Result<Value, Error>,
{
    let connection = pool.get().map_err(|error| {
        let text = format!("no reader of the file can be opened: {error}");
        Error::database(Kind::Open, text)
    })?;
    connection
        .progress_handler(LOOK_EVERY, Some(move || gone.load(Relaxed)))
        .map_err(|error| failure(connection.path().unwrap_or_default().as_ref(), &error))?;
    look(&connection)
}

/// The rows that a query asks for.
pub fn answer(connection: &Connection, query: &Query) -> Result<Value, Error> {
    let fail = |error: rusqlite::Error| {
        match kind(&error) {
        Kind::ReadOnly => wrong("fetch_one() and fetch_all() only read: use execute(), its result has the rows of RETURNING"),
        _ => failure(connection.path().unwrap_or_default().as_ref(), &error),
    }
    };
    let mut statement = connection.prepare_cached(&query.sql).map_err(fail)?;
    query.params.bind(&mut statement)?;
    let limit = if query.one { 1 } else { usize::MAX };
    let mut rows = collect(&mut statement, limit).map_err(fail)?;
    Ok(if query.one {
        rows.pop().unwrap_or_default()
    } else {
        Value::List(rows)
    })
}

/// Tells a query that its caller has left, so that no runaway keeps a connection.
#[derive(Default)]
struct Left(Arc<AtomicBool>);

impl Drop for Left {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}
