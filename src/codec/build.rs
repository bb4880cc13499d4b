//! What a reader builds, and why it refuses.

use std::collections::HashSet;

/// Why a document is refused, and at which byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub offset: usize,
    pub message: String,
}

impl Fault {
    #[cold]
    pub fn at<T>(offset: usize, message: impl Into<String>) -> Read<T> {
        Err(Box::new(Self {
            offset,
            message: message.into(),
        }))
    }

    pub fn early<T>(offset: usize) -> Read<T> {
        Self::at(offset, "the document ends too early")
    }

    pub fn deep<T>(offset: usize) -> Read<T> {
        Self::at(
            offset,
            format!("nested deeper than {} levels", super::DEEPEST),
        )
    }
}

pub type Read<T> = Result<T, Box<Fault>>;

/// Why a value cannot be built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// Not UTF-8, from this byte of the text on.
    Text(usize),
    Datetime,
    /// A key is there twice.
    Twice,
    /// The builder knows more.
    Failed,
}

impl Refused {
    #[cold]
    pub fn at(self, offset: usize) -> Box<Fault> {
        let (offset, message) = match self {
            Self::Text(within) => (offset + within, "the text is not UTF-8"),
            Self::Datetime => (
                offset,
                "this is no date and time as datetime.isoformat() writes it",
            ),
            Self::Twice => (offset, "a key is there twice in this map"),
            Self::Failed => (offset, "the value cannot be made"),
        };
        Box::new(Fault {
            offset,
            message: message.to_owned(),
        })
    }
}

pub type Made<T> = Result<T, Refused>;

pub trait Build {
    type Value;
    type Key;
    type List;
    type Map;

    fn null(&mut self) -> Self::Value;
    fn bool(&mut self, value: bool) -> Self::Value;
    fn int(&mut self, value: i64) -> Made<Self::Value>;
    fn unsigned(&mut self, value: u64) -> Made<Self::Value>;
    /// An integer in two's complement, the highest byte first.
    fn big(&mut self, bytes: &[u8]) -> Made<Self::Value>;
    /// An integer in decimal digits, perhaps with a minus sign.
    fn digits(&mut self, text: &str) -> Made<Self::Value>;
    fn float(&mut self, value: f64) -> Made<Self::Value>;
    fn text(&mut self, text: &[u8]) -> Made<Self::Value>;
    fn bytes(&mut self, bytes: &[u8]) -> Made<Self::Value>;
    /// A text that `number::is_datetime` has found to have the right form.
    fn datetime(&mut self, text: &str) -> Made<Self::Value>;

    fn list(&mut self) -> Made<Self::List>;
    fn push(&mut self, list: &mut Self::List, value: Self::Value) -> Made<()>;
    fn end_list(&mut self, list: Self::List) -> Self::Value;

    fn key(&mut self, text: &[u8]) -> Made<Self::Key>;
    fn map(&mut self) -> Made<Self::Map>;
    fn put(&mut self, map: &mut Self::Map, key: Self::Key, value: Self::Value) -> Made<()>;
    fn end_map(&mut self, map: Self::Map) -> Made<Self::Value>;
}

/// A document outside of an interpreter.
#[derive(Debug, Clone, PartialEq)]
pub enum Tree {
    Null,
    Bool(bool),
    Int(i64),
    Unsigned(u64),
    Big(Vec<u8>),
    Digits(String),
    Float(f64),
    Text(String),
    Bytes(Vec<u8>),
    Datetime(String),
    List(Vec<Tree>),
    Map(Vec<(String, Tree)>),
}

#[derive(Debug, Default)]
pub struct Trees;

fn owned(text: &[u8]) -> Made<String> {
    match std::str::from_utf8(text) {
        Ok(text) => Ok(text.to_owned()),
        Err(error) => Err(Refused::Text(error.valid_up_to())),
    }
}

impl Build for Trees {
    type Value = Tree;
    type Key = String;
    type List = Vec<Tree>;
    type Map = Vec<(String, Tree)>;

    fn null(&mut self) -> Tree {
        Tree::Null
    }
    fn bool(&mut self, value: bool) -> Tree {
        Tree::Bool(value)
    }
    fn int(&mut self, value: i64) -> Made<Tree> {
        Ok(Tree::Int(value))
    }
    fn unsigned(&mut self, value: u64) -> Made<Tree> {
        Ok(Tree::Unsigned(value))
    }
    fn big(&mut self, bytes: &[u8]) -> Made<Tree> {
        Ok(Tree::Big(bytes.to_vec()))
    }
    fn digits(&mut self, text: &str) -> Made<Tree> {
        Ok(Tree::Digits(text.to_owned()))
    }
    fn float(&mut self, value: f64) -> Made<Tree> {
        Ok(Tree::Float(value))
    }
    fn text(&mut self, text: &[u8]) -> Made<Tree> {
        owned(text).map(Tree::Text)
    }
    fn bytes(&mut self, bytes: &[u8]) -> Made<Tree> {
        Ok(Tree::Bytes(bytes.to_vec()))
    }
    fn datetime(&mut self, text: &str) -> Made<Tree> {
        Ok(Tree::Datetime(text.to_owned()))
    }
    fn list(&mut self) -> Made<Vec<Tree>> {
        Ok(Vec::new())
    }
    fn push(&mut self, list: &mut Vec<Tree>, value: Tree) -> Made<()> {
        list.push(value);
        Ok(())
    }
    fn end_list(&mut self, list: Vec<Tree>) -> Tree {
        Tree::List(list)
    }
    fn key(&mut self, text: &[u8]) -> Made<String> {
        owned(text)
    }
    fn map(&mut self) -> Made<Vec<(String, Tree)>> {
        Ok(Vec::new())
    }
    fn put(&mut self, map: &mut Vec<(String, Tree)>, key: String, value: Tree) -> Made<()> {
        map.push((key, value));
        Ok(())
    }
    fn end_map(&mut self, map: Vec<(String, Tree)>) -> Made<Tree> {
        let names: HashSet<&str> = map.iter().map(|(name, _)| name.as_str()).collect();
        if names.len() < map.len() {
            return Err(Refused::Twice);
        }
        Ok(Tree::Map(map))
    }
}
