//! What lies in scopes: how many records, with which categories, from when to when.

use rusqlite::Connection;

use super::records::{range, Done};
use crate::bridge::value::Value;

/// `(scopes with their counts, categories, oldest, newest)` of what lies in a scope.
pub fn scope_info(connection: &Connection, prefix: Option<&str>) -> Done<Value> {
    let (oldest, newest): (Option<String>, Option<String>) = match prefix {
        None => connection
            .prepare_cached(
                "SELECT (SELECT min(created) FROM record), (SELECT max(created) FROM record)",
            )?
            .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?,
        Some(prefix) => {
            let (from, until) = range(prefix);
            connection
                .prepare_cached(
                    "SELECT min((SELECT min(created) FROM record WHERE scope = s.id)), \
                     max((SELECT max(created) FROM record WHERE scope = s.id)) \
                     FROM scope s WHERE s.path >= ?1 AND s.path < ?2 AND s.records > 0",
                )?
                .query_row([&from, &until], |row| Ok((row.get(0)?, row.get(1)?)))?
        }
    };
    let text = |text: Option<String>| text.map_or(Value::None, Value::Text);
    Ok(Value::Tuple(vec![
        scopes(connection, prefix)?,
        categories(connection, prefix)?,
        text(oldest),
        text(newest),
    ]))
}

/// The scopes that have records, with their counts.
pub fn scopes(connection: &Connection, prefix: Option<&str>) -> Done<Value> {
    let (from, until) = range(prefix.unwrap_or_default());
    pairs(
        connection,
        "SELECT path, records FROM scope WHERE (?1 = '' OR path >= ?1 AND path < ?2) AND records > 0 ORDER BY path",
        &from,
        &until,
        0,
    )
}

/// The categories of what lies in a scope, with their counts.
pub fn categories(connection: &Connection, prefix: Option<&str>) -> Done<Value> {
    let (from, until) = range(prefix.unwrap_or_default());
    pairs(
        connection,
        "SELECT n.text, sum(t.uses) FROM scope_tag t JOIN name n ON n.id = t.tag WHERE t.uses > 0 AND substr(n.text, 1, 1) = 'c' \
         AND (?1 = '' OR t.scope IN (SELECT id FROM scope WHERE path >= ?1 AND path < ?2)) GROUP BY t.tag",
        &from,
        &until,
        1,
    )
}

fn pairs(connection: &Connection, sql: &str, from: &str, until: &str, cut: usize) -> Done<Value> {
    let mut statement = connection.prepare_cached(sql)?;
    let found = statement.query_map([from, until], |row| {
        let text: String = row.get(0)?;
        Ok(Value::Tuple(vec![
            Value::Text(text[cut..].to_owned()),
            Value::Int(row.get(1)?),
        ]))
    })?;
    Ok(Value::List(found.collect::<Result<_, _>>()?))
}

/// How many records lie in a scope, or in all.
pub fn counted(connection: &Connection, prefix: Option<&str>) -> Done<i64> {
    let sum = "SELECT coalesce(sum(records), 0) FROM scope";
    let Some(prefix) = prefix else {
        return Ok(connection
            .prepare_cached(sum)?
            .query_row([], |row| row.get(0))?);
    };
    let (from, until) = range(prefix);
    let mut statement =
        connection.prepare_cached(&format!("{sum} WHERE path >= ?1 AND path < ?2"))?;
    Ok(statement.query_row([from, until], |row| row.get(0))?)
}
