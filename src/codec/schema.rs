//! Which fields the records of a document have, and their protobuf numbers.

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Text,
    Int,
    Float,
    Bool,
    /// Any value, as the message `Value`.
    Any,
    /// A map of texts to any values.
    Map,
    /// A record, by its place in the schema.
    Record(usize),
}

#[derive(Debug)]
pub struct Field {
    pub number: u32,
    pub name: String,
    pub kind: Kind,
    pub repeated: bool,
}

/// The field of every record that holds what its other fields cannot.
pub const EXTRA: u32 = 15;

#[derive(Debug)]
pub struct Record {
    pub name: String,
    pub fields: Vec<Field>,
}

impl Record {
    pub fn position(&self, number: u32) -> Option<usize> {
        let near = (number as usize).wrapping_sub(1);
        match self.fields.get(near) {
            Some(field) if field.number == number => Some(near),
            _ => self.fields.iter().position(|field| field.number == number),
        }
    }
}

/// The first record is the document.
#[derive(Debug)]
pub struct Schema {
    pub records: Vec<Record>,
}

/// A record as it is described: its name, and number, name, kind and whether there may be several of each field.
pub type Described = (String, Vec<(u32, String, String, bool)>);

impl Schema {
    pub fn new(described: Vec<Described>) -> Result<Self, String> {
        let names: Vec<String> = described.iter().map(|(name, _)| name.clone()).collect();
        let mut records = Vec::with_capacity(described.len());
        for (name, fields) in described {
            let mut own = Vec::with_capacity(fields.len());
            for (number, field, kind, repeated) in fields {
                let kind = match kind.as_str() {
                    "string" => Kind::Text,
                    "int64" => Kind::Int,
                    "double" => Kind::Float,
                    "bool" => Kind::Bool,
                    "Value" => Kind::Any,
                    "map" => Kind::Map,
                    record => match names.iter().position(|name| name == record) {
                        Some(place) => Kind::Record(place),
                        None => return Err(format!("{name}.{field}: there is no kind {record:?}")),
                    },
                };
                if number == 0 || number == EXTRA || number >= 1 << 29 || own.len() >= 64 {
                    return Err(format!("{name}.{field}: number {number} cannot be used"));
                }
                own.push(Field {
                    number,
                    name: field,
                    kind,
                    repeated,
                });
            }
            own.sort_by_key(|field: &Field| field.number);
            records.push(Record { name, fields: own });
        }
        if records.is_empty() {
            return Err("a schema has one record at least".to_owned());
        }
        Ok(Self { records })
    }
}
