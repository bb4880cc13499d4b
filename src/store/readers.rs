//! Reads: pooled connections on blocking threads. They never wait for the writer.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use r2d2_sqlite::SqliteConnectionManager;
use rusqlite::InterruptHandle;
use scheduled_thread_pool::ScheduledThreadPool;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use super::connection::{prepare_reader, reader_flags};
use super::failure::{closed, failure, statement as wrong};
use super::params::Params;
use super::work::collect;
use super::{statement, Options};
use crate::bridge::value::Value;
use crate::error::{DatabaseErrorKind as Kind, Error};

type Pool = r2d2::Pool<SqliteConnectionManager>;

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
    pool: Mutex<Option<Pool>>,
}

impl Readers {
    pub fn new(options: &Options) -> Self {
        Self {
            options: options.clone(),
            permits: Arc::new(Semaphore::new(options.readers as usize)),
            pool: Mutex::new(None),
        }
    }

    pub async fn run(&self, query: Query) -> Result<Value, Error> {
        let permits = Arc::clone(&self.permits);
        let permit = permits.acquire_owned().await.map_err(|_| closed())?;
        let pool = self.pool();
        let running = Running::default();
        let slot = Arc::clone(&running.0);
        let read = spawn_blocking(move || {
            let answer = read(&pool, &query, &slot);
            drop(permit);
            answer
        });
        read.await
            .unwrap_or_else(|error| match error.try_into_panic() {
                Ok(payload) => Err(Error::from_panic(payload.as_ref())),
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
        let pool = self
            .pool
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        // Closing touches the file; a failed join has nothing to say about it.
        let _ = spawn_blocking(move || drop(pool)).await;
    }

    /// The pool; it opens a connection when a query needs one.
    fn pool(&self) -> Pool {
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pool) = pool.as_ref() {
            return pool.clone();
        }
        let timeout = self.options.busy_timeout;
        let manager = SqliteConnectionManager::file(&self.options.path)
            .with_flags(reader_flags())
            .with_init(move |connection| prepare_reader(connection, timeout));
        let opener = ScheduledThreadPool::builder()
            .num_threads(1)
            .thread_name_pattern("fastcrew-readers")
            .build();
        let made = r2d2::Pool::builder()
            .max_size(self.options.readers)
            .min_idle(Some(0))
            .max_lifetime(None)
            .test_on_check_out(false)
            .connection_timeout(timeout.max(Duration::from_secs(1)))
            .error_handler(Box::new(r2d2::NopErrorHandler))
            .thread_pool(Arc::new(opener))
            .build_unchecked(manager);
        *pool = Some(made.clone());
        made
    }
}

fn read(
    pool: &Pool,
    query: &Query,
    running: &Mutex<Option<InterruptHandle>>,
) -> Result<Value, Error> {
    let connection = pool.get().map_err(|error| {
        let text = format!("no reader of the file can be opened: {error}");
        Error::database(Kind::Open, text)
    })?;
    let fail =
        |error: rusqlite::Error| failure(connection.path().unwrap_or_default().as_ref(), &error);
    let mut statement = connection.prepare_cached(&query.sql).map_err(fail)?;
    if !statement.readonly() {
        return Err(wrong(
            "fetch_one() and fetch_all() only read: use execute(), its result has the rows of RETURNING",
        ));
    }
    query.params.bind(&mut statement)?;
    set(running, Some(connection.get_interrupt_handle()));
    let rows = collect(&mut statement, if query.one { 1 } else { usize::MAX });
    set(running, None);
    let mut rows = rows.map_err(fail)?;
    Ok(if query.one {
        rows.pop().unwrap_or_default()
    } else {
        Value::List(rows)
    })
}

/// The statement a caller waits for. A caller that leaves interrupts it, so that no runaway query keeps a connection.
#[derive(Default)]
struct Running(Arc<Mutex<Option<InterruptHandle>>>);

impl Drop for Running {
    fn drop(&mut self) {
        // Held while interrupting: the connection does not pass to another query in between.
        if let Some(handle) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            handle.interrupt();
        }
    }
}

fn set(running: &Mutex<Option<InterruptHandle>>, handle: Option<InterruptHandle>) {
    *running.lock().unwrap_or_else(PoisonError::into_inner) = handle;
}
