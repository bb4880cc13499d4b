//! The values of a statement's placeholders.

use std::collections::HashMap;

use rusqlite::Statement;

use super::failure::statement as wrong;
use crate::error::Error;

pub use rusqlite::types::Value as Cell;

/// By position (`?`, `?1`) or by name (`:name`, `@name`, `$name`; the keys carry no mark).
#[derive(Debug, Clone, PartialEq)]
pub enum Params {
    Positional(Vec<Cell>),
    Named(HashMap<String, Cell>),
}

impl Params {
    pub fn bind(&self, statement: &mut Statement<'_>) -> Result<(), Error> {
        let wanted = statement.parameter_count();
        if let Self::Positional(cells) = self {
            if cells.len() != wanted {
                let given = cells.len();
                return Err(wrong(format!(
                    "the statement takes {wanted} parameters, {given} were given"
                )));
            }
        }
        for index in 1..=wanted {
            let name = statement
                .parameter_name(index)
                .filter(|name| !name.starts_with('?'));
            let cell = match (self, name) {
                (Self::Positional(cells), None) => &cells[index - 1],
                (Self::Named(cells), Some(name)) => cells
                    .get(&name[1..])
                    .ok_or_else(|| wrong(format!("no value for parameter {name}")))?,
                (Self::Positional(_), Some(name)) => {
                    return Err(wrong(format!(
                        "the statement names its parameter {name}: pass a mapping"
                    )))
                }
                (Self::Named(_), None) => {
                    return Err(wrong(format!(
                        "parameter {index} of the statement has no name: pass a sequence"
                    )))
                }
            };
            statement
                .raw_bind_parameter(index, cell)
                .map_err(|error| wrong(format!("parameter {index}: {error}")))?;
        }
        Ok(())
    }
}
