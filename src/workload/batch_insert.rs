//! Rows for batch inserts: operation `index` of a run always has the same key and the same values, so that no row has to be
//! remembered. The generator is xoshiro256++ (Blackman and Vigna, 2018), seeded per operation; its output is the same on every
//! platform.

use rand::{Rng as _, SeedableRng as _};
use rand_xoshiro::Xoshiro256PlusPlus;

use crate::scenario::{BatchInsert, Charset, IndexOrder, SizeRange};
use crate::table::{ColumnType, Row, Value};

/// Regenerates any row of a run from (seed, index).
#[derive(Clone, Debug)]
pub struct Generator {
    seed: u64,
    columns: Vec<ColumnPlan>,
    charset: Charset,
    /// Thresholds on 64 random bits.
    nulls: u64,
    extremes: u64,
    duplicates: u64,
}

#[derive(Clone, Debug)]
struct ColumnPlan {
    ty: ColumnType,
    key: bool,
    nullable: bool,
    /// Whether its texts begin with the operation's number.
    numbered: bool,
    size: SizeRange,
}

/// Keeps the streams of keys and of values apart.
const KEY_STREAM: u64 = 0x6b65_7973;
const VALUE_STREAM: u64 = 0x7661_6c75_6573;

/// 1000-01-01 and the end of 9999: what every supported database stores exactly, in microseconds since 1970.
const FIRST_TIMESTAMP: i64 = -30_610_224_000_000_000;
const LAST_TIMESTAMP: i64 = 253_402_300_799_999_999;

impl Generator {
    /// A generator for the rows of `workload` under `seed`.
    #[must_use]
    pub fn new(seed: u64, workload: &BatchInsert) -> Self {
        let columns = workload
            .columns
            .iter()
            .map(|column| ColumnPlan {
                ty: column.ty.0,
                key: column.key,
                nullable: column.nullable,
                numbered: column.index && workload.content.index_order == IndexOrder::Ascending,
                size: column.size.unwrap_or(workload.content.size),
            })
            .collect();
        Self {
            seed,
            columns,
            charset: workload.content.charset,
            nulls: threshold(workload.content.nulls.0),
            extremes: threshold(workload.content.extremes.0),
            duplicates: threshold(workload.duplicate_keys.0),
        }
    }

    /// Whether several operations may share a key.
    #[must_use]
    pub fn has_duplicates(&self) -> bool {
        self.duplicates > 0
    }

    /// The key slot of operation `index`: its own index, or an earlier one's if its key is a duplicate.
    #[must_use]
    pub fn slot(&self, index: u64) -> u64 {
        if self.duplicates == 0 || index == 0 {
            return index;
        }
        let mut rng = self.rng(KEY_STREAM, index);
        if rng.next_u64() < self.duplicates { below(&mut rng, index) } else { index }
    }

    /// The key that stands for a slot.
    #[must_use]
    pub fn key(slot: u64) -> i64 {
        slot as i64 + 1
    }

    /// Fills `row` with the values of operation `index`, reusing its allocations.
    pub fn fill(&self, index: u64, row: &mut Row) {
        let mut rng = self.rng(VALUE_STREAM, index);
        row.resize(self.columns.len(), Value::Null);
        for (column, value) in self.columns.iter().zip(row) {
            if column.key {
                *value = Value::Int(Self::key(self.slot(index)));
            } else if column.nullable && self.nulls > 0 && rng.next_u64() < self.nulls {
                *value = Value::Null;
            } else if self.extremes > 0 && rng.next_u64() < self.extremes {
                self.extreme(column, &mut rng, value);
            } else {
                self.ordinary(column, index, &mut rng, value);
            }
        }
    }

    /// The values of operation `index`.
    #[must_use]
    pub fn row(&self, index: u64) -> Row {
        let mut row = Row::new();
        self.fill(index, &mut row);
        row
    }

    fn rng(&self, stream: u64, index: u64) -> Xoshiro256PlusPlus {
        // seed_from_u64 spreads the bits by SplitMix64; the multiplier keeps neighbouring (seed, index) pairs apart.
        Xoshiro256PlusPlus::seed_from_u64((self.seed ^ stream).wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(index))
    }

    fn ordinary(&self, column: &ColumnPlan, index: u64, rng: &mut Xoshiro256PlusPlus, value: &mut Value) {
        match column.ty {
            ColumnType::Int64 => *value = Value::Int(rng.next_u64() as i64),
            // Up to ±2^43 in steps of 2^-20: many significant bits, no rounding in generating it.
            ColumnType::Float64 => *value = Value::Float((rng.next_u64() as i64 >> 1) as f64 / f64::from(1u32 << 20)),
            ColumnType::Decimal { precision, .. } => {
                let bound = 10u64.pow(u32::from(precision));
                let magnitude = below(rng, bound) as i64;
                *value = Value::Decimal(if rng.next_u64() & 1 == 0 { magnitude } else { -magnitude });
            }
            ColumnType::Bool => *value = Value::Bool(rng.next_u64() & 1 == 1),
            ColumnType::Text => {
                let chars = size(rng, column.size);
                self.text(rng, column.numbered.then_some(index), chars, value);
            }
            ColumnType::Bytes => {
                let len = size(rng, column.size);
                bytes(rng, len, value);
            }
            // 2000-01-01 to 2037: exact in microseconds everywhere.
            ColumnType::Timestamp => *value = Value::Timestamp(946_684_800_000_000 + below(rng, 1_200_000_000_000_000) as i64),
            ColumnType::Uuid => {
                let mut uuid = [0; 16];
                rng.fill_bytes(&mut uuid);
                *value = Value::Uuid(uuid);
            }
        }
    }

    fn extreme(&self, column: &ColumnPlan, rng: &mut Xoshiro256PlusPlus, value: &mut Value) {
        let pick = rng.next_u64() as usize;
        match column.ty {
            ColumnType::Int64 => *value = Value::Int([i64::MIN, i64::MAX, 0, -1][pick % 4]),
            ColumnType::Float64 => *value = Value::Float([f64::MAX, f64::MIN, f64::MIN_POSITIVE, 0.1, 16_777_217.0, 0.0][pick % 6]),
            ColumnType::Decimal { precision, .. } => {
                let greatest = 10i64.pow(u32::from(precision)) - 1;
                *value = Value::Decimal([greatest, -greatest, 0, 1, -1][pick % 5]);
            }
            ColumnType::Bool => *value = Value::Bool(pick % 2 == 1),
            ColumnType::Text => self.text(rng, None, [column.size.min, column.size.max][pick % 2], value),
            ColumnType::Bytes => bytes(rng, [column.size.min, column.size.max][pick % 2], value),
            ColumnType::Timestamp => *value = Value::Timestamp([FIRST_TIMESTAMP, LAST_TIMESTAMP, 0, -1][pick % 4]),
            ColumnType::Uuid => *value = Value::Uuid([[0; 16], [0xff; 16]][pick % 2]),
        }
    }

    fn text(&self, rng: &mut Xoshiro256PlusPlus, number: Option<u64>, mut chars: u32, value: &mut Value) {
        if !matches!(value, Value::Text(_)) {
            *value = Value::Text(String::with_capacity(chars as usize));
        }
        let Value::Text(text) = value else { unreachable!("set above") };
        text.clear();
        if let Some(number) = number {
            let digits = digits(number);
            let kept = digits.len().min(chars as usize);
            text.push_str(std::str::from_utf8(&digits[..kept]).expect("digits are ASCII"));
            chars -= kept as u32;
        }
        match self.charset {
            Charset::Ascii => ascii(rng, chars, text),
            Charset::Unicode => unicode(rng, chars, text),
        }
    }
}

/// A number in base 32 with digits that sort as their values do; seven hold more than the most rows of a run.
fn digits(number: u64) -> [u8; 7] {
    std::array::from_fn(|place| b"0123456789abcdefghijklmnopqrstuv"[(number >> (30 - 5 * place) & 31) as usize])
}

/// 64 characters, so that six random bits pick one; quotes, backslash and space are among them because writers get them wrong.
const ASCII: [u8; 64] = *b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUV0123456789 '\"\\-_";

fn ascii(rng: &mut Xoshiro256PlusPlus, mut chars: u32, text: &mut String) {
    text.reserve(chars as usize);
    while chars > 0 {
        let mut bits = rng.next_u64();
        let mut chunk = [0; 10];
        for byte in &mut chunk {
            *byte = ASCII[(bits & 63) as usize];
            bits >>= 6;
        }
        let take = chars.min(10) as usize;
        text.push_str(std::str::from_utf8(&chunk[..take]).expect("the alphabet is ASCII"));
        chars -= take as u32;
    }
}

/// First code points of 64 assigned characters that take 2, 3 and 4 bytes in UTF-8.
const WIDE: [u32; 3] = [0x00c0, 0x4e00, 0x1f600];

fn unicode(rng: &mut Xoshiro256PlusPlus, chars: u32, text: &mut String) {
    for _ in 0..chars {
        let bits = rng.next_u64();
        let low = ((bits >> 2) & 63) as u32;
        match bits & 3 {
            0 => text.push(char::from(ASCII[low as usize])),
            plane => text.push(char::from_u32(WIDE[plane as usize - 1] + low).expect("assigned characters")),
        }
    }
}

fn bytes(rng: &mut Xoshiro256PlusPlus, len: u32, value: &mut Value) {
    if !matches!(value, Value::Bytes(_)) {
        *value = Value::Bytes(Vec::new());
    }
    let Value::Bytes(bytes) = value else { unreachable!("set above") };
    bytes.clear();
    bytes.resize(len as usize, 0);
    rng.fill_bytes(bytes);
}

fn size(rng: &mut Xoshiro256PlusPlus, range: SizeRange) -> u32 {
    range.min + below(rng, u64::from(range.max - range.min) + 1) as u32
}

/// A number below `bound`, by multiplication (Lemire, 2019) without rejection: a bias below 2^-20 is nothing to a load.
fn below(rng: &mut Xoshiro256PlusPlus, bound: u64) -> u64 {
    ((u128::from(rng.next_u64()) * u128::from(bound)) >> 64) as u64
}

/// The share of all 64-bit numbers that lie below the result is `share`.
fn threshold(share: f64) -> u64 {
    // The cast saturates, so that a share of 1 means always.
    (share * 18_446_744_073_709_551_616.0) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::units::{Share, TypeName};
    use crate::scenario::{ColumnConfig, Content};

    fn workload() -> BatchInsert {
        serde_json::from_value(serde_json::json!({})).unwrap()
    }

    #[test]
    fn rows_are_a_pure_function_of_seed_and_index() {
        let generator = Generator::new(42, &workload());
        let mut reused = generator.row(9);
        generator.fill(7, &mut reused);
        assert_eq!(reused, generator.row(7));
        assert_ne!(generator.row(7), generator.row(8));
        assert_ne!(generator.row(7), Generator::new(43, &workload()).row(7));
        // The generator is portable: these values must never change, or saved ledgers could not be verified.
        assert_eq!(generator.row(0)[0], Value::Int(1));
        insta::assert_debug_snapshot!(generator.row(1));
    }

    #[test]
    fn without_duplicates_every_key_is_its_own() {
        let generator = Generator::new(1, &workload());
        assert!((0..1000).all(|index| generator.slot(index) == index));
    }

    #[test]
    fn duplicates_come_in_the_asked_share_and_point_backwards() {
        let generator = Generator::new(1, &BatchInsert { duplicate_keys: Share(0.2), ..workload() });
        let duplicates = (0..10_000).filter(|&index| generator.slot(index) != index).count();
        assert!((1_880..=2_120).contains(&duplicates), "{duplicates} of 10,000 at a share of 0.2 (4 sigma is 160)");
        assert!((0..10_000).all(|index| generator.slot(index) <= index));
    }

    #[test]
    fn sizes_nulls_and_extremes_are_as_asked() {
        let column = |name: &str, ty, nullable| ColumnConfig {
            name: name.into(),
            ty: TypeName(ty),
            key: name == "id",
            nullable,
            index: false,
            size: None,
        };
        let content = Content { size: SizeRange { min: 3, max: 5 }, charset: Charset::Unicode, nulls: Share(0.5), ..Content::default() };
        let columns = vec![column("id", ColumnType::Int64, false), column("t", ColumnType::Text, true)];
        let generator = Generator::new(3, &BatchInsert { columns, content, ..workload() });
        let mut nulls = 0;
        let mut four_bytes = false;
        for index in 0..2_000 {
            match &generator.row(index)[1] {
                Value::Null => nulls += 1,
                Value::Text(text) => {
                    assert!((3..=5).contains(&text.chars().count()), "{text:?}");
                    four_bytes |= text.chars().any(|c| c.len_utf8() == 4);
                }
                other => panic!("{other:?}"),
            }
        }
        assert!((910..=1_090).contains(&nulls), "{nulls} of 2,000 at a share of 0.5 (4 sigma is 90)");
        assert!(four_bytes);
    }

    #[test]
    fn indexed_texts_begin_with_the_number_unless_asked_to_be_random() {
        let names = |generator: &Generator| -> Vec<String> {
            let name = |index| match &generator.row(index)[1] {
                Value::Text(name) => name.clone(),
                other => panic!("{other:?}"),
            };
            (1_000..1_100).map(name).collect()
        };
        let ascending = names(&Generator::new(1, &workload()));
        assert!(ascending[0].starts_with("00000v8") && ascending.is_sorted(), "{ascending:?}");
        let Value::Text(data) = &Generator::new(1, &workload()).row(1_000)[3] else { panic!("data is a text") };
        assert!(!data.starts_with("00000v8"), "data has no index");
        let content = Content { index_order: IndexOrder::Random, ..Content::default() };
        assert!(!names(&Generator::new(1, &BatchInsert { content, ..workload() })).is_sorted());
        let content = Content { size: SizeRange { min: 3, max: 3 }, ..Content::default() };
        assert_eq!(names(&Generator::new(1, &BatchInsert { content, ..workload() }))[0], "000");
    }

    #[test]
    fn a_share_of_one_means_always() {
        let content = Content { extremes: Share(1.0), ..Content::default() };
        let generator = Generator::new(5, &BatchInsert { content, ..workload() });
        for index in 0..200 {
            let Value::Decimal(value) = generator.row(index)[4] else { panic!("value is a decimal") };
            assert!([9_999_999_999, -9_999_999_999, 0, 1, -1].contains(&value), "{value}");
        }
    }
}
