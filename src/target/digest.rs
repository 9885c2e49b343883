//! Digests of key ranges: what a database and this program each compute from the same rows, so that a range whose digests agree
//! need not be read.
//!
//! A row's hash covers its key and every column in a form that tells any two rows of the table apart; the hashes of a range are
//! added up, modulo 2^64. A sum, and not XOR, because the same change in an even number of rows must not cancel out.

use sha2::{Digest as _, Sha256};

use crate::table::{Cell, ColumnType, Row, Table, Value, write_decimal};

/// What is stored in a range of keys, without the rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RangeDigest {
    /// How many rows.
    pub rows: u64,
    /// Least and greatest key, if there is any row.
    pub keys: Option<(i64, i64)>,
    /// Sum of the rows' hashes, modulo 2^64.
    pub sum: u64,
}

impl RangeDigest {
    /// Adds a row.
    pub fn add(&mut self, key: i64, hash: u64) {
        *self = self.join(&RangeDigest { rows: 1, keys: Some((key, key)), sum: hash });
    }

    /// The digest of both ranges together.
    #[must_use]
    pub fn join(&self, other: &RangeDigest) -> RangeDigest {
        let keys = match (self.keys, other.keys) {
            (Some((a, b)), Some((c, d))) => Some((a.min(c), b.max(d))),
            (mine, others) => mine.or(others),
        };
        RangeDigest { rows: self.rows + other.rows, keys, sum: self.sum.wrapping_add(other.sum) }
    }

    /// From what a server answers: a count, the least and the greatest key, and an exact decimal as text.
    pub(super) fn of_answer(rows: i64, least: Option<i64>, greatest: Option<i64>, sum: Option<&str>) -> Option<RangeDigest> {
        // Sums of signed and of unsigned hashes are the same modulo 2^64; the cast takes them so.
        let sum = sum.map_or(Some(0), |sum| sum.parse::<i128>().ok())? as u64;
        Some(RangeDigest { rows: u64::try_from(rows).ok()?, keys: least.zip(greatest), sum })
    }
}

/// The first 64 bits of the bytes' SHA-256: of the hashes that MySQL and MariaDB have, the one that both still have (MySQL gave MD5
/// up).
pub(super) fn sha_64(bytes: &[u8]) -> u64 {
    let hash: [u8; 32] = Sha256::digest(bytes).into();
    hash[..8].iter().fold(0, |word, byte| word << 8 | u64::from(*byte))
}

/// The hash of a row by its cells; where the database runs in this process, both sides compute it so.
pub fn row_hash(table: &Table, row: &Row, scratch: &mut Vec<u8>) -> u64 {
    scratch.clear();
    let mut decimal = String::new();
    for (column, value) in table.columns.iter().zip(row) {
        put_cell(scratch, cell_of(column.ty, value, &mut decimal));
    }
    sha_64(scratch)
}

/// `value` as a column of type `ty` gives it back.
pub(super) fn cell_of<'a>(ty: ColumnType, value: &'a Value, decimal: &'a mut String) -> Cell<'a> {
    match value {
        Value::Null => Cell::Null,
        Value::Int(v) => Cell::Int(*v),
        Value::Float(v) => Cell::Float(*v),
        Value::Bool(v) => Cell::Bool(*v),
        Value::Timestamp(v) => Cell::Timestamp(*v),
        Value::Uuid(v) => Cell::Uuid(*v),
        Value::Text(v) => Cell::Text(v.as_bytes()),
        Value::Bytes(v) => Cell::Bytes(v),
        Value::Decimal(v) => {
            decimal.clear();
            write_decimal(decimal, *v, if let ColumnType::Decimal { scale, .. } = ty { scale } else { 0 });
            Cell::Text(decimal.as_bytes())
        }
    }
}

/// Appends a cell so that no two sequences of cells give the same bytes: its type, its length where that varies, its bytes.
pub(super) fn put_cell(out: &mut Vec<u8>, cell: Cell<'_>) {
    let mut fixed = |tag: u8, bytes: &[u8]| {
        out.push(tag);
        out.extend_from_slice(bytes);
    };
    match cell {
        Cell::Null => fixed(0, &[]),
        Cell::Int(v) => fixed(1, &v.to_be_bytes()),
        Cell::Float(v) => fixed(2, &v.to_bits().to_be_bytes()),
        Cell::Bool(v) => fixed(3, &[u8::from(v)]),
        Cell::Timestamp(v) => fixed(4, &v.to_be_bytes()),
        Cell::Uuid(v) => fixed(5, &v),
        Cell::Text(v) => {
            fixed(6, &(v.len() as u64).to_be_bytes());
            out.extend_from_slice(v);
        }
        Cell::Bytes(v) => {
            fixed(7, &(v.len() as u64).to_be_bytes());
            out.extend_from_slice(v);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Owned, because cells borrow.
    fn any_cell() -> impl Strategy<Value = (u8, Vec<u8>, i64)> {
        (0u8..8, proptest::collection::vec(0u8..4, 0..6), prop_oneof![-2i64..3, any::<i64>()])
    }

    fn cell((kind, bytes, number): &(u8, Vec<u8>, i64)) -> Cell<'_> {
        match kind {
            0 => Cell::Null,
            1 => Cell::Int(*number),
            2 => Cell::Float(f64::from_bits(*number as u64)),
            3 => Cell::Bool(number % 2 == 0),
            4 => Cell::Timestamp(*number),
            5 => Cell::Uuid([*number as u8; 16]),
            6 => Cell::Text(bytes),
            _ => Cell::Bytes(bytes),
        }
    }

    fn is_same(a: Cell<'_>, b: Cell<'_>) -> bool {
        // NaN is not equal to itself, and 0.0 is to -0.0.
        if let (Cell::Float(a), Cell::Float(b)) = (a, b) { a.to_bits() == b.to_bits() } else { a == b }
    }

    proptest! {
        #[test]
        fn no_two_rows_are_written_the_same(a in proptest::collection::vec(any_cell(), 1..5), b in proptest::collection::vec(any_cell(), 1..5)) {
            let written = |row: &[(u8, Vec<u8>, i64)]| {
                let mut out = Vec::new();
                row.iter().for_each(|one| put_cell(&mut out, cell(one)));
                out
            };
            let same = a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| is_same(cell(a), cell(b)));
            prop_assert_eq!(written(&a) == written(&b), same);
        }
    }

    #[test]
    fn digests_of_neighbours_join_to_the_digest_of_both() {
        let mut all = RangeDigest::default();
        let mut halves = [RangeDigest::default(); 2];
        for (key, hash) in [(3, u64::MAX), (-7, 5), (9, 1 << 63), (4, 1 << 63)] {
            all.add(key, hash);
            halves[usize::from(key > 3)].add(key, hash);
        }
        assert_eq!(halves[0].join(&halves[1]), all);
        assert_eq!(all, RangeDigest { rows: 4, keys: Some((-7, 9)), sum: 4 });
        assert_eq!(all.join(&RangeDigest::default()), all);
    }

    #[test]
    fn what_servers_answer_is_taken_modulo_the_hash() {
        let of = |sum: &str| RangeDigest::of_answer(2, Some(1), Some(2), Some(sum)).map(|digest| digest.sum);
        assert_eq!(of("-1"), Some(u64::MAX));
        assert_eq!(of("18446744073709551615"), Some(u64::MAX));
        assert_eq!(of("36893488147419103232"), Some(0));
        assert_eq!((of("1.5"), of("")), (None, None));
        assert_eq!(RangeDigest::of_answer(0, None, None, None), Some(RangeDigest::default()));
        assert_eq!(RangeDigest::of_answer(-1, None, None, None), None);
    }

    #[test]
    fn the_hash_is_the_first_quarter_of_sha_256() {
        assert_eq!(sha_64(b""), 0xe3b0_c442_98fc_1c14);
        assert_eq!(sha_64(b"abc"), 0xba78_16bf_8f01_cfea);
    }
}
