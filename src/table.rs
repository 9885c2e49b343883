//! Tables, columns and rows: the plain data that workloads make, the pipeline writes and the verifier compares.
//!
//! Goals: one bounded set of column types that every database stores exactly; rows that can be refilled without allocating.
//! Non-goals: being a general SQL type system.

/// What a column can hold. Each type has an exact representation on every supported database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnType {
    /// Signed 64-bit integer.
    Int64,
    /// IEEE 754 double, compared by bit pattern.
    Float64,
    /// Exact decimal with `precision` digits (1 to 18), `scale` of them behind the point.
    Decimal {
        /// Digits in all, 1 to 18.
        precision: u8,
        /// Digits behind the point, at most `precision`.
        scale: u8,
    },
    /// True or false.
    Bool,
    /// UTF-8 text.
    Text,
    /// Raw bytes.
    Bytes,
    /// Microseconds since 1970-01-01T00:00:00Z, without leap seconds.
    Timestamp,
    /// 16 bytes.
    Uuid,
}

/// One column of a [`Table`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Name as given; targets quote it.
    pub name: String,
    /// What it holds.
    pub ty: ColumnType,
    /// Whether NULL may be stored.
    pub nullable: bool,
    /// Whether a secondary index is kept on it.
    pub index: bool,
    /// Longest value: characters of a text, bytes of a byte string. Ignored by the other types.
    pub max_len: u32,
}

/// A table as the workload wants it. Exactly one column, of type [`ColumnType::Int64`] and not nullable, is the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Name as given; targets quote it.
    pub name: String,
    /// The columns, in the order of a row's values.
    pub columns: Vec<Column>,
    /// Position of the key in `columns`.
    pub key: usize,
    /// Whether the key is the primary key. If not, the table has a surrogate primary key beside it
    /// ([`SURROGATE_KEY`]) and a plain index on the key, so that duplicates can be stored and seen.
    pub unique_key: bool,
}

/// Name of the surrogate primary key of a table whose key is not unique.
pub const SURROGATE_KEY: &str = "batchsql_row";

/// One value of a [`Row`].
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// SQL NULL.
    Null,
    /// For [`ColumnType::Int64`].
    Int(i64),
    /// For [`ColumnType::Float64`].
    Float(f64),
    /// For [`ColumnType::Decimal`]: the unscaled number; the scale is the column's.
    Decimal(i64),
    /// For [`ColumnType::Bool`].
    Bool(bool),
    /// For [`ColumnType::Text`].
    Text(String),
    /// For [`ColumnType::Bytes`].
    Bytes(Vec<u8>),
    /// For [`ColumnType::Timestamp`]: microseconds since the Unix epoch.
    Timestamp(i64),
    /// For [`ColumnType::Uuid`].
    Uuid([u8; 16]),
}

/// The values of one row, in the order of [`Table::columns`].
pub type Row = Vec<Value>;

impl Table {
    /// The key of `row`.
    ///
    /// # Panics
    /// If the row was not made for this table (its key is not an integer): a programming error of the caller.
    #[must_use]
    pub fn key_of(&self, row: &Row) -> i64 {
        match row[self.key] {
            Value::Int(key) => key,
            ref other => panic!("the key of table {:?} is an integer, found {other:?}", self.name),
        }
    }

    /// Says what is wrong with `row` for this table, if anything: wrong number of values, wrong type, NULL where none may be.
    #[must_use]
    pub fn mismatch(&self, row: &Row) -> Option<String> {
        if row.len() != self.columns.len() {
            return Some(format!("table {:?} has {} columns, the row has {} values", self.name, self.columns.len(), row.len()));
        }
        self.columns.iter().zip(row).find(|(column, value)| !column.accepts(value)).map(|(column, value)| {
            format!("column {:?} is {:?}{}, found {value:?}", column.name, column.ty, if column.nullable { "" } else { ", not null" })
        })
    }
}

impl Column {
    fn accepts(&self, value: &Value) -> bool {
        match value {
            Value::Null => self.nullable,
            Value::Int(_) => self.ty == ColumnType::Int64,
            Value::Float(_) => self.ty == ColumnType::Float64,
            Value::Decimal(_) => matches!(self.ty, ColumnType::Decimal { .. }),
            Value::Bool(_) => self.ty == ColumnType::Bool,
            Value::Text(_) => self.ty == ColumnType::Text,
            Value::Bytes(_) => self.ty == ColumnType::Bytes,
            Value::Timestamp(_) => self.ty == ColumnType::Timestamp,
            Value::Uuid(_) => self.ty == ColumnType::Uuid,
        }
    }
}

impl Value {
    /// Bytes this value takes in a statement, roughly; used to keep statements under a server's packet limit.
    #[must_use]
    pub fn wire_len(&self) -> usize {
        match self {
            Value::Null => 1,
            Value::Bool(_) => 2,
            Value::Int(_) | Value::Float(_) => 9,
            Value::Timestamp(_) => 13,
            Value::Uuid(_) => 17,
            Value::Decimal(_) => 22,
            Value::Text(text) => text.len() + 9,
            Value::Bytes(bytes) => bytes.len() + 9,
        }
    }
}

/// Writes `unscaled` with `scale` digits behind the point, e.g. `-0.05` for (-5, 2): the one text form in which decimals are
/// bound, read back and compared.
pub fn write_decimal(out: &mut String, unscaled: i64, scale: u8) {
    use std::fmt::Write as _;
    let magnitude = unscaled.unsigned_abs();
    let unit = 10u64.pow(u32::from(scale));
    let sign = if unscaled < 0 { "-" } else { "" };
    // Writing into a String cannot fail.
    let _ = if scale == 0 {
        write!(out, "{sign}{magnitude}")
    } else {
        write!(out, "{sign}{}.{:0width$}", magnitude / unit, magnitude % unit, width = usize::from(scale))
    };
}

/// One value read back, borrowed from its [`RowBlock`]. Decimals arrive as text in the form of [`write_decimal`].
/// A database may answer with another type than the column's; then the cell says what was really there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cell<'a> {
    /// SQL NULL.
    Null,
    /// An integer.
    Int(i64),
    /// A double.
    Float(f64),
    /// A boolean.
    Bool(bool),
    /// Text (or a decimal's digits); bytes, because what is stored need not be UTF-8.
    Text(&'a [u8]),
    /// Raw bytes.
    Bytes(&'a [u8]),
    /// Microseconds since the Unix epoch.
    Timestamp(i64),
    /// 16 bytes.
    Uuid([u8; 16]),
}

#[derive(Clone, Copy, Debug)]
enum Slot {
    Null,
    Int(i64),
    Float(f64),
    Bool(bool),
    Text { start: u32, len: u32 },
    Bytes { start: u32, len: u32 },
    Timestamp(i64),
    Uuid([u8; 16]),
}

/// Some rows read back, column after column, in one arena: what a scan hands to the verifier.
#[derive(Debug)]
pub struct RowBlock {
    width: usize,
    slots: Vec<Slot>,
    arena: Vec<u8>,
}

impl RowBlock {
    /// Rows in a full block.
    pub const ROWS: usize = 512;
    /// A block also counts as full when its text and byte values reach this many bytes.
    pub const BYTES: usize = 1 << 20;

    /// An empty block for rows of `width` columns.
    #[must_use]
    pub fn new(width: usize) -> Self {
        Self { width, slots: Vec::with_capacity(width * Self::ROWS), arena: Vec::new() }
    }

    /// Appends the next value of the row being built.
    pub fn push(&mut self, cell: Cell<'_>) {
        let slot = match cell {
            Cell::Null => Slot::Null,
            Cell::Int(v) => Slot::Int(v),
            Cell::Float(v) => Slot::Float(v),
            Cell::Bool(v) => Slot::Bool(v),
            Cell::Timestamp(v) => Slot::Timestamp(v),
            Cell::Uuid(v) => Slot::Uuid(v),
            Cell::Text(bytes) => {
                let (start, len) = self.store(bytes);
                Slot::Text { start, len }
            }
            Cell::Bytes(bytes) => {
                let (start, len) = self.store(bytes);
                Slot::Bytes { start, len }
            }
        };
        self.slots.push(slot);
    }

    fn store(&mut self, bytes: &[u8]) -> (u32, u32) {
        let start = self.arena.len() as u32;
        self.arena.extend_from_slice(bytes);
        (start, bytes.len() as u32)
    }

    /// Whole rows in the block.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.slots.len() / self.width
    }

    /// Whether the block should be handed on.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.rows() >= Self::ROWS || self.arena.len() >= Self::BYTES
    }

    /// The value of row `row` in column `column`.
    #[must_use]
    pub fn cell(&self, row: usize, column: usize) -> Cell<'_> {
        let bytes = |start: u32, len: u32| &self.arena[start as usize..][..len as usize];
        match self.slots[row * self.width + column] {
            Slot::Null => Cell::Null,
            Slot::Int(v) => Cell::Int(v),
            Slot::Float(v) => Cell::Float(v),
            Slot::Bool(v) => Cell::Bool(v),
            Slot::Timestamp(v) => Cell::Timestamp(v),
            Slot::Uuid(v) => Cell::Uuid(v),
            Slot::Text { start, len } => Cell::Text(bytes(start, len)),
            Slot::Bytes { start, len } => Cell::Bytes(bytes(start, len)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_have_one_text_form() {
        let text = |unscaled, scale| {
            let mut out = String::new();
            write_decimal(&mut out, unscaled, scale);
            out
        };
        assert_eq!(text(12345, 2), "123.45");
        assert_eq!(text(-5, 2), "-0.05");
        assert_eq!(text(0, 2), "0.00");
        assert_eq!(text(7, 0), "7");
        assert_eq!(text(-999_999_999_999_999_999, 18), "-0.999999999999999999");
    }

    #[test]
    fn blocks_give_back_what_was_pushed() {
        let mut block = RowBlock::new(3);
        for cell in [Cell::Int(1), Cell::Text(b"ab"), Cell::Null, Cell::Int(2), Cell::Bytes(b"c"), Cell::Uuid([7; 16])] {
            block.push(cell);
        }
        assert_eq!(block.rows(), 2);
        assert_eq!(block.cell(0, 1), Cell::Text(b"ab"));
        assert_eq!(block.cell(0, 2), Cell::Null);
        assert_eq!(block.cell(1, 1), Cell::Bytes(b"c"));
        assert_eq!(block.cell(1, 2), Cell::Uuid([7; 16]));
        assert!(!block.is_full());
    }

    #[test]
    fn rows_of_another_shape_are_told() {
        let column = |name: &str, ty, nullable| Column { name: name.into(), ty, nullable, index: false, max_len: 10 };
        let table = Table {
            name: "t".into(),
            columns: vec![column("id", ColumnType::Int64, false), column("name", ColumnType::Text, true)],
            key: 0,
            unique_key: true,
        };
        assert_eq!(table.mismatch(&vec![Value::Int(1), Value::Null]), None);
        assert_eq!(table.mismatch(&vec![Value::Int(1)]).unwrap(), "table \"t\" has 2 columns, the row has 1 values");
        assert_eq!(table.mismatch(&vec![Value::Null, Value::Null]).unwrap(), "column \"id\" is Int64, not null, found Null");
    }
}
