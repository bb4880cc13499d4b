use std::future::Future;
use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;
use tokio::runtime::Runtime;

use super::{Cell, Durability, Options, Params, Query, Store, Work};
use crate::bridge::value::Value;
use crate::error::{DatabaseErrorKind as Kind, Error};

struct Bench {
    runtime: Runtime,
    store: Store,
    folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        Self::with(16, Duration::from_secs(10))
    }

    fn with(queue_size: usize, busy_timeout: Duration) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(Options {
            path: folder.path().join("a.db"),
            readers: 2,
            queue_size,
            durability: Durability::Full,
            busy_timeout,
            before_commit: super::Hook::default(),
            make_folder: false,
        })
        .unwrap();
        let bench = Self {
            runtime: Runtime::new().unwrap(),
            store,
            folder,
        };
        bench
            .write(one("CREATE TABLE t (a INTEGER PRIMARY KEY, b)"))
            .unwrap();
        bench
    }

    fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(async {
            tokio::time::timeout(Duration::from_secs(20), future)
                .await
                .unwrap()
        })
    }

    fn write(&self, work: Work) -> Result<Value, Error> {
        self.wait(self.store.write(work)?)
    }

    fn read(&self, sql: &str) -> Result<Value, Error> {
        let query = Query {
            sql: sql.into(),
            params: none(),
            one: false,
        };
        self.wait(self.store.read(query)?)
    }

    fn count(&self) -> Value {
        self.read("SELECT count(*) FROM t").unwrap()
    }

    fn path(&self) -> std::path::PathBuf {
        self.folder.path().join("a.db")
    }
}

fn none() -> Params {
    Params::Positional(Vec::new())
}

fn one(sql: &str) -> Work {
    Work::One(sql.into(), none())
}

fn insert(a: i64) -> Work {
    Work::One(
        "INSERT INTO t VALUES (?, ?)".into(),
        Params::Positional(vec![Cell::Integer(a), Cell::Text("x".into())]),
    )
}

fn counted(count: i64) -> Value {
    Value::List(vec![Value::Tuple(vec![Value::Int(count)])])
}

fn kind(error: Error) -> Kind {
    match error {
        Error::Database { kind, .. } => kind,
        other => panic!("{other}"),
    }
}

/// Another process's hand on the file, as far as SQLite can tell.
fn hold(path: &Path) -> Connection {
    let holder = Connection::open(path).unwrap();
    holder.execute_batch("BEGIN IMMEDIATE").unwrap();
    holder
}

#[test]
fn a_failing_work_fails_alone_in_its_group() {
    let bench = Bench::new();
    let holder = hold(&bench.path());
    // The first waits for the holder; the rest queue up behind it into one group.
    let waits: Vec<_> = [1, 2, 2, 3]
        .map(|a| bench.store.write(insert(a)).unwrap())
        .into();
    holder.execute_batch("COMMIT").unwrap();
    let answers: Vec<_> = waits.into_iter().map(|wait| bench.wait(wait)).collect();
    assert_eq!(kind(answers[2].clone().unwrap_err()), Kind::Integrity);
    assert!(answers[0].is_ok() && answers[1].is_ok() && answers[3].is_ok());
    assert_eq!(bench.count(), counted(3));
    assert_eq!(bench.store.stats().commits, 2);
}

#[test]
fn a_work_that_rolls_the_transaction_back_fails_alone_too() {
    let bench = Bench::new();
    let holder = hold(&bench.path());
    let works = [
        insert(1),
        one("INSERT OR ROLLBACK INTO t VALUES (1, 'again')"),
        insert(2),
    ];
    let waits: Vec<_> = works
        .into_iter()
        .map(|work| bench.store.write(work).unwrap())
        .collect();
    holder.execute_batch("COMMIT").unwrap();
    let answers: Vec<_> = waits.into_iter().map(|wait| bench.wait(wait)).collect();
    assert_eq!(kind(answers[1].clone().unwrap_err()), Kind::Integrity);
    assert!(answers[0].is_ok() && answers[2].is_ok());
    assert_eq!(bench.count(), counted(2));
}

#[test]
fn a_constraint_judged_at_commit_fails_its_own_work() {
    let bench = Bench::new();
    bench
        .write(one(
            "CREATE TABLE child (a REFERENCES t (a) DEFERRABLE INITIALLY DEFERRED)",
        ))
        .unwrap();
    let holder = hold(&bench.path());
    let works = [
        insert(1),
        one("INSERT INTO child VALUES (99)"),
        one("INSERT INTO child VALUES (1)"),
    ];
    let waits: Vec<_> = works
        .into_iter()
        .map(|work| bench.store.write(work).unwrap())
        .collect();
    holder.execute_batch("COMMIT").unwrap();
    let answers: Vec<_> = waits.into_iter().map(|wait| bench.wait(wait)).collect();
    assert_eq!(kind(answers[1].clone().unwrap_err()), Kind::Integrity);
    assert!(answers[0].is_ok() && answers[2].is_ok());
    assert_eq!(
        bench.read("SELECT count(*) FROM child").unwrap(),
        counted(1)
    );
}

#[test]
fn a_failed_commit_acknowledges_nobody() {
    let bench = Bench::new();
    bench
        .write(one(
            "CREATE TABLE child (a REFERENCES t (a) DEFERRABLE INITIALLY DEFERRED)",
        ))
        .unwrap();
    let answer = bench.write(Work::Batch(vec![
        ("INSERT INTO t VALUES (1, 1)".into(), none()),
        ("INSERT INTO child VALUES (99)".into(), none()),
    ]));
    assert_eq!(kind(answer.unwrap_err()), Kind::Integrity);
    assert_eq!(bench.count(), counted(0));
    bench.write(insert(1)).unwrap();
}

#[test]
fn a_panic_fails_the_waiting_callers_and_the_writer_goes_on() {
    let bench = Bench::new();
    let holder = hold(&bench.path());
    let waits: Vec<_> = [insert(1), Work::Panic]
        .map(|work| bench.store.write(work).unwrap())
        .into();
    holder.execute_batch("COMMIT").unwrap();
    for wait in waits {
        assert!(matches!(bench.wait(wait), Err(Error::Panic(_))));
    }
    assert_eq!(bench.count(), counted(0));
    bench.write(insert(2)).unwrap();
    assert_eq!(bench.count(), counted(1));
}

#[test]
fn a_full_queue_makes_writers_wait_and_drops_none() {
    let bench = Bench::with(2, Duration::from_secs(10));
    let holder = hold(&bench.path());
    let tasks: Vec<_> = (0..50)
        .map(|a| bench.runtime.spawn(bench.store.write(insert(a)).unwrap()))
        .collect();
    assert!(bench.store.stats().queued <= 2);
    holder.execute_batch("COMMIT").unwrap();
    for task in tasks {
        bench.wait(task).unwrap().unwrap();
    }
    assert_eq!(bench.count(), counted(50));
}

#[test]
fn a_dropped_wait_withdraws_the_write() {
    let bench = Bench::new();
    let holder = hold(&bench.path());
    let first = bench.store.write(insert(1)).unwrap();
    drop(bench.store.write(insert(2)).unwrap());
    let last = bench.store.write(insert(3)).unwrap();
    holder.execute_batch("COMMIT").unwrap();
    bench.wait(first).unwrap();
    bench.wait(last).unwrap();
    assert_eq!(
        bench.read("SELECT a FROM t WHERE a = 2").unwrap(),
        Value::List(vec![])
    );
    assert_eq!(bench.count(), counted(2));
}

#[test]
fn readers_do_not_wait_while_the_writer_does() {
    let bench = Bench::new();
    let holder = hold(&bench.path());
    let write = bench.store.write(insert(1)).unwrap();
    assert_eq!(bench.count(), counted(0));
    holder.execute_batch("COMMIT").unwrap();
    bench.wait(write).unwrap();
}

#[test]
fn a_file_held_past_the_timeout_is_busy_and_nothing_is_written() {
    let bench = Bench::with(16, Duration::from_millis(50));
    let holder = hold(&bench.path());
    assert_eq!(kind(bench.write(insert(1)).unwrap_err()), Kind::Busy);
    holder.execute_batch("COMMIT").unwrap();
    assert_eq!(bench.count(), counted(0));
    bench.write(insert(1)).unwrap();
}

#[test]
fn the_log_is_emptied_once_no_reader_needs_it() {
    let bench = Bench::new();
    let log = bench.folder.path().join("a.db-wal");
    let size = || std::fs::metadata(&log).unwrap().len();
    let big = || one("INSERT INTO t (b) VALUES (zeroblob(300000))");
    let reader = Connection::open(bench.path()).unwrap();
    reader.execute_batch("BEGIN").unwrap();
    let seen = |row: &rusqlite::Row<'_>| row.get::<_, i64>(0);
    reader
        .query_row("SELECT count(*) FROM t", [], seen)
        .unwrap();
    // While it reads, the log grows and the writes go on.
    for _ in 0..3 {
        bench.write(big()).unwrap();
    }
    assert!(size() > 900_000);
    assert_eq!(reader.query_row("SELECT count(*) FROM t", [], seen), Ok(0));
    drop(reader);
    bench.write(big()).unwrap();
    // The next write goes to an empty log.
    bench.write(insert(99)).unwrap();
    assert!(size() < 100_000, "{}", size());
    assert_eq!(bench.count(), counted(5));
}

#[test]
fn a_dropped_read_interrupts_its_query() {
    let bench = Bench::new();
    let endless =
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n";
    for _ in 0..4 {
        let query = Query {
            sql: endless.into(),
            params: none(),
            one: true,
        };
        let read = bench.store.read(query).unwrap();
        let left = bench
            .runtime
            .block_on(async { tokio::time::timeout(Duration::from_millis(30), read).await });
        assert!(left.is_err());
    }
    // Both readers are free again: with two of them, four endless queries would keep this one waiting.
    assert_eq!(bench.count(), counted(0));
}

#[test]
fn close_drains_what_was_queued_and_refuses_what_comes_later() {
    let bench = Bench::with(2, Duration::from_secs(10));
    let holder = hold(&bench.path());
    let tasks: Vec<_> = (0..10)
        .map(|a| bench.runtime.spawn(bench.store.write(insert(a)).unwrap()))
        .collect();
    let closing = bench.store.close();
    assert_eq!(kind(bench.write(insert(99)).unwrap_err()), Kind::Closed);
    assert_eq!(kind(bench.read("SELECT 1").unwrap_err()), Kind::Closed);
    drop(holder);
    bench.wait(closing).unwrap();
    bench.wait(bench.store.close()).unwrap();
    for task in tasks {
        bench.wait(task).unwrap().unwrap();
    }
    let left: i64 = Connection::open(bench.path())
        .unwrap()
        .query_row("SELECT count(*) FROM t", [], |row| row.get(0))
        .unwrap();
    assert_eq!(left, 10);
    assert!(!bench.folder.path().join("a.db-wal").exists());
}

#[test]
fn a_table_in_use_by_its_own_connection_is_locked() {
    let connection = Connection::open_in_memory().unwrap();
    connection
        .execute_batch("CREATE TABLE t (a); INSERT INTO t VALUES (1), (2)")
        .unwrap();
    let mut statement = connection.prepare("SELECT a FROM t").unwrap();
    let mut rows = statement.query([]).unwrap();
    rows.next().unwrap();
    let error = connection.execute_batch("DROP TABLE t").unwrap_err();
    assert_eq!(super::failure::kind(&error), Kind::Locked);
}
