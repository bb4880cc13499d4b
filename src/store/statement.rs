//! What a statement is, from its first words: enough to refuse what would break a group.

use super::failure::statement as wrong;
use crate::error::Error;

/// Settings that belong to the file or bound its size; any other would change the connection under everybody's feet.
const SETTABLE: [&str; 3] = ["APPLICATION_ID", "MAX_PAGE_COUNT", "USER_VERSION"];
/// Pragmas that take an argument and only look.
const INSPECTING: [&str; 9] = [
    "FOREIGN_KEY_CHECK",
    "FOREIGN_KEY_LIST",
    "INDEX_INFO",
    "INDEX_LIST",
    "INDEX_XINFO",
    "INTEGRITY_CHECK",
    "QUICK_CHECK",
    "TABLE_INFO",
    "TABLE_XINFO",
];

/// Refuses, before it is queued, a statement that is not a write of its own.
pub fn check_write(sql: &str) -> Result<(), Error> {
    let (word, rest) = first_word(sql)?;
    match word.as_str() {
        "SELECT" | "VALUES" | "EXPLAIN" => Err(wrong(format!(
            "{word} only reads: use fetch_all() or fetch_one()"
        ))),
        "PRAGMA" => match pragma(rest) {
            (name, true) if SETTABLE.contains(&name.as_str()) => Ok(()),
            (name, true) => Err(wrong(format!(
                "PRAGMA {name} would change the shared connection: use the arguments of Database(), or one of {}",
                SETTABLE.join(", ")
            ))),
            (name, false) => Err(wrong(format!("PRAGMA {name} only reads: use fetch_all() or fetch_one()"))),
        },
        _ => refuse_control(&word),
    }
}

/// Refuses a statement that would change the state of a reader; plain writes are found when it is prepared.
pub fn check_read(sql: &str) -> Result<(), Error> {
    let (word, rest) = first_word(sql)?;
    if word != "PRAGMA" {
        return refuse_control(&word);
    }
    match pragma(rest) {
        (name, true) if !INSPECTING.contains(&name.as_str()) => Err(wrong(format!(
            "PRAGMA {name} with a value sets it: use execute() where it is allowed"
        ))),
        _ => Ok(()),
    }
}

/// Whether the statement may change rows; of a schema change SQLite reports the count of the statement before.
pub fn changes_rows(sql: &str) -> bool {
    first_word(sql).is_ok_and(|(word, _)| {
        matches!(
            word.as_str(),
            "INSERT" | "REPLACE" | "UPDATE" | "DELETE" | "WITH"
        )
    })
}

fn refuse_control(word: &str) -> Result<(), Error> {
    match word {
        "BEGIN" | "COMMIT" | "END" | "ROLLBACK" | "SAVEPOINT" | "RELEASE" => Err(wrong(format!(
            "{word} is refused, the database opens and commits transactions itself: use batch([...]) for several \
             statements in one"
        ))),
        "ATTACH" | "DETACH" => Err(wrong(format!(
            "{word} is refused, a Database is one file: open a second Database for the other"
        ))),
        "VACUUM" => Err(wrong(
            "VACUUM is refused, it cannot run inside a transaction: run it with the sqlite3 program while no process \
             has the file open",
        )),
        _ => Ok(()),
    }
}

fn first_word(sql: &str) -> Result<(String, &str), Error> {
    if sql.contains('\0') {
        return Err(wrong("the SQL holds a NUL character"));
    }
    let (word, rest) = word(skip_blank(sql));
    if word.is_empty() && rest.is_empty() {
        return Err(wrong("the SQL is empty"));
    }
    Ok((word, rest))
}

/// The pragma's name, and whether it is given a value.
fn pragma(rest: &str) -> (String, bool) {
    let (mut name, mut rest) = word(skip_blank(rest));
    rest = skip_blank(rest);
    if let Some(after) = rest.strip_prefix('.') {
        (name, rest) = word(skip_blank(after));
        rest = skip_blank(rest);
    }
    (name, rest.starts_with(['=', '(']))
}

fn word(sql: &str) -> (String, &str) {
    let end = sql
        .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .unwrap_or(sql.len());
    (sql[..end].to_ascii_uppercase(), &sql[end..])
}

/// Skips what SQLite's own parser skips before a statement: blanks, comments, semicolons, a byte order mark.
fn skip_blank(mut sql: &str) -> &str {
    loop {
        let rest = sql.trim_start_matches(|c: char| {
            c.is_ascii_whitespace() || matches!(c, ';' | '\u{feff}' | '\u{b}')
        });
        sql = if let Some(comment) = rest.strip_prefix("--") {
            comment.find('\n').map_or("", |end| &comment[end..])
        } else if let Some(comment) = rest.strip_prefix("/*") {
            comment.find("*/").map_or("", |end| &comment[end + 2..])
        } else {
            return rest;
        };
    }
}

#[cfg(test)]
mod tests {
    use super::{changes_rows, check_read, check_write};

    #[test]
    fn what_would_break_the_group_is_refused_however_it_is_dressed() {
        for sql in [
            "BEGIN",
            " ;;\n commit",
            "-- a note\nROLLBACK",
            "/* a */ /* b */ savepoint a",
            "\u{feff}RELEASE a",
            "ATTACH 'x' AS y",
            "vacuum",
            "END",
            "PRAGMA journal_mode = DELETE",
            "PRAGMA main . synchronous(0)",
            "PRAGMA /* */ query_only=0",
        ] {
            assert!(check_write(sql).is_err(), "{sql}");
            assert!(check_read(sql).is_err(), "{sql}");
        }
        for sql in ["", " ;", "-- only a note", "/* open", "SELECT 1\0"] {
            assert!(check_write(sql).is_err(), "{sql:?}");
            assert!(check_read(sql).is_err(), "{sql:?}");
        }
    }

    #[test]
    fn reads_and_writes_are_told_apart() {
        assert!(check_write("SELECT 1").is_err());
        assert!(check_write("PRAGMA user_version").is_err());
        assert!(check_write("PRAGMA user_version = 3").is_ok());
        assert!(check_write("INSERT INTO t VALUES (1)").is_ok());
        assert!(check_read("PRAGMA table_info(t)").is_ok());
        assert!(check_read("PRAGMA journal_mode").is_ok());
        assert!(check_read("(SELECT 1)").is_ok());
        assert!(changes_rows(
            "-- why\nwith x AS (SELECT 1) INSERT INTO t SELECT * FROM x"
        ));
        assert!(!changes_rows("CREATE TABLE t (a)"));
    }
}
