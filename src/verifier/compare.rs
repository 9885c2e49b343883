//! One row as it must be against one row as it is: by bytes and bit patterns, never by a database's idea of equality; and, where
//! they differ, how.

use crate::report::Anomaly;
use crate::table::{Cell, ColumnType, Row, RowBlock, Table, Value, write_decimal};

/// How a stored row differs.
#[derive(Debug)]
pub(super) struct Difference {
    /// How many columns differ.
    pub(super) columns: usize,
    /// The first of them.
    column: String,
    sub_kind: &'static str,
    expected: String,
    found: String,
}

impl Difference {
    pub(super) fn anomaly(self, key: i64) -> Anomaly {
        Anomaly {
            class: "corrupted".to_owned(),
            sub_kind: Some(self.sub_kind.to_owned()),
            key,
            column: Some(self.column),
            expected: Some(self.expected),
            found: Some(self.found),
        }
    }
}

/// What differs between `expected` and row `row` of `block`, if anything.
pub(super) fn difference(table: &Table, expected: &Row, block: &RowBlock, row: usize) -> Option<Difference> {
    let same = |position: usize| is_same(table.columns[position].ty, &expected[position], block.cell(row, position));
    let first = (0..expected.len()).find(|position| !same(*position))?;
    let column = &table.columns[first];
    let cell = block.cell(row, first);
    // A value that belongs to another column of the same row.
    let elsewhere = (0..expected.len())
        .any(|other| other != first && table.columns[other].ty == column.ty && is_same(column.ty, &expected[other], cell) && !same(other));
    Some(Difference {
        columns: (first..expected.len()).filter(|position| !same(*position)).count(),
        column: column.name.clone(),
        sub_kind: if elsewhere { "swapped" } else { sub_kind(column.ty, &expected[first], cell) },
        expected: show_value(column.ty, &expected[first]),
        found: show_cell(cell),
    })
}

fn scale(ty: ColumnType) -> u8 {
    if let ColumnType::Decimal { scale, .. } = ty { scale } else { 0 }
}

fn is_same(ty: ColumnType, expected: &Value, cell: Cell<'_>) -> bool {
    match (expected, cell) {
        (Value::Null, Cell::Null) => true,
        (Value::Int(a), Cell::Int(b)) | (Value::Timestamp(a), Cell::Timestamp(b)) => *a == b,
        (Value::Float(a), Cell::Float(b)) => a.to_bits() == b.to_bits(),
        (Value::Bool(a), Cell::Bool(b)) => *a == b,
        (Value::Text(a), Cell::Text(b)) => a.as_bytes() == b,
        (Value::Bytes(a), Cell::Bytes(b)) => a == b,
        (Value::Uuid(a), Cell::Uuid(b)) => *a == b,
        (Value::Decimal(a), Cell::Text(b)) => is_decimal(*a, scale(ty), b),
        _ => false,
    }
}

/// Whether `text` is the canonical form of the decimal, without building that form: this runs once a row.
fn is_decimal(unscaled: i64, scale: u8, text: &[u8]) -> bool {
    let (negative, digits) = text.strip_prefix(b"-").map_or((false, text), |rest| (true, rest));
    let mut rest = unscaled.unsigned_abs();
    if negative != (unscaled < 0) || digits.is_empty() {
        return false;
    }
    let point = digits.len().checked_sub(usize::from(scale) + 1);
    let whole = if scale == 0 { Some(digits.len()) } else { point };
    if whole.is_none_or(|whole| whole == 0 || (whole > 1 && digits[0] == b'0')) {
        return false;
    }
    for (position, &byte) in digits.iter().enumerate().rev() {
        if scale > 0 && Some(position) == point {
            if byte != b'.' {
                return false;
            }
            continue;
        }
        if byte != b'0' + (rest % 10) as u8 {
            return false;
        }
        rest /= 10;
    }
    rest == 0
}

/// How `found` came out of `expected`, as far as it shows.
fn sub_kind(ty: ColumnType, expected: &Value, found: Cell<'_>) -> &'static str {
    match (expected, found) {
        (Value::Null, _) | (_, Cell::Null) => "null",
        (Value::Text(a), Cell::Text(b)) => text_kind(a.as_bytes(), b),
        (Value::Bytes(a), Cell::Bytes(b)) => length_kind(a, b).unwrap_or("other"),
        (Value::Decimal(a), Cell::Text(b)) => decimal_kind(*a, scale(ty), b),
        (Value::Float(a), Cell::Float(b)) => {
            // What a column of single precision, or of a few digits, keeps.
            if (*a - b).abs() <= a.abs() * 1e-6 { "rounded" } else { "other" }
        }
        (Value::Timestamp(a), Cell::Timestamp(b)) => {
            let rounded = [1_000, 10_000, 100_000, 1_000_000].iter().any(|unit| b % unit == 0 && (a - b).abs() < *unit);
            if rounded { "rounded" } else { "other" }
        }
        (Value::Int(a), Cell::Int(b)) => {
            // What a narrower integer column clamps to.
            let clamped = [(i64::from(i8::MIN), i64::from(i8::MAX)), (i64::from(i16::MIN), i64::from(i16::MAX)), (-8_388_608, 8_388_607)]
                .into_iter()
                .chain([(i64::from(i32::MIN), i64::from(i32::MAX)), (0, 255), (0, 65_535), (0, 16_777_215), (0, i64::from(u32::MAX))])
                .any(|(least, greatest)| b == *a.clamp(&least, &greatest));
            if clamped { "truncated" } else { "other" }
        }
        (Value::Bool(_), Cell::Bool(_)) | (Value::Uuid(_), Cell::Uuid(_)) => "other",
        _ => "type",
    }
}

/// What only the length tells.
fn length_kind(expected: &[u8], found: &[u8]) -> Option<&'static str> {
    let trimmed = |bytes: &[u8]| bytes.len() - bytes.iter().rev().take_while(|byte| matches!(byte, b' ' | 0)).count();
    if expected[..trimmed(expected)] == found[..trimmed(found)] {
        return Some("padded");
    }
    expected.starts_with(found).then_some("truncated")
}

fn text_kind(expected: &[u8], found: &[u8]) -> &'static str {
    if let Some(kind) = length_kind(expected, found) {
        return kind;
    }
    let (a, b) = (String::from_utf8_lossy(expected), String::from_utf8_lossy(found));
    if is_charset_loss(&a, &b) {
        "charset"
    } else if a.to_lowercase() == b.to_lowercase() {
        "case"
    } else {
        "other"
    }
}

/// Whether `found` is `expected` with characters beyond ASCII replaced by `?` or U+FFFD: by one mark a character, or by one a byte.
fn is_charset_loss(expected: &str, found: &str) -> bool {
    expected != found && [|_| 1, char::len_utf8].into_iter().any(|marks| is_replaced(expected, found, marks))
}

fn is_replaced(expected: &str, found: &str, marks: fn(char) -> usize) -> bool {
    let mut found = found.chars().peekable();
    let same = expected.chars().all(|character| {
        found.next_if_eq(&character).is_some()
            || (!character.is_ascii() && (0..marks(character)).all(|_| found.next_if(|mark| matches!(mark, '?' | '\u{fffd}')).is_some()))
    });
    same && found.next().is_none()
}

fn decimal_kind(unscaled: i64, scale: u8, found: &[u8]) -> &'static str {
    let text = String::from_utf8_lossy(found);
    let mut exact = String::new();
    write_decimal(&mut exact, unscaled, scale);
    let (Ok(a), Ok(b)) = (exact.parse::<f64>(), text.parse::<f64>()) else { return "other" };
    let digits = text.split_once('.').map_or(0, |(_, digits)| digits.trim_end_matches('0').len());
    let unit = 10f64.powi(-(digits as i32));
    if digits < usize::from(scale) && (a - b).abs() < unit { "rounded" } else { "other" }
}

/// Longest value shown.
const SHOWN_CHARS: usize = 120;

/// A row for people, values by column.
pub(super) fn show_row(table: &Table, row: &Row) -> String {
    let columns = table.columns.iter().zip(row);
    let values: Vec<String> = columns.map(|(column, value)| format!("{}={}", column.name, show_value(column.ty, value))).collect();
    clip(&values.join(" "))
}

fn show_value(ty: ColumnType, value: &Value) -> String {
    match value {
        Value::Null => "NULL".to_owned(),
        Value::Int(v) | Value::Timestamp(v) => v.to_string(),
        Value::Float(v) => format!("{v:?}"),
        Value::Bool(v) => v.to_string(),
        Value::Text(v) => clip(v),
        Value::Bytes(v) => hex(v),
        Value::Uuid(v) => hex(v),
        Value::Decimal(v) => {
            let mut text = String::new();
            write_decimal(&mut text, *v, scale(ty));
            text
        }
    }
}

fn show_cell(cell: Cell<'_>) -> String {
    match cell {
        Cell::Null => "NULL".to_owned(),
        Cell::Int(v) | Cell::Timestamp(v) => v.to_string(),
        Cell::Float(v) => format!("{v:?}"),
        Cell::Bool(v) => v.to_string(),
        Cell::Text(v) => clip(&String::from_utf8_lossy(v)),
        Cell::Bytes(v) => hex(v),
        Cell::Uuid(v) => hex(&v),
    }
}

/// Values come from a database: control characters are made visible, and the length is bounded.
fn clip(text: &str) -> String {
    let mut shown = String::new();
    for (count, character) in text.chars().enumerate() {
        if count == SHOWN_CHARS {
            shown.push('…');
            break;
        }
        if character.is_control() { shown.extend(character.escape_default()) } else { shown.push(character) }
    }
    shown
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut shown = String::from("0x");
    for byte in bytes.iter().take(SHOWN_CHARS / 2) {
        // Writing into a String cannot fail.
        let _ = write!(shown, "{byte:02x}");
    }
    if bytes.len() > SHOWN_CHARS / 2 {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_compared_by_their_canonical_text() {
        for (unscaled, scale) in [(0, 2), (5, 2), (-5, 2), (12345, 2), (-9_999_999_999, 2), (7, 0), (-120, 0), (i64::MAX / 10, 18), (10, 1)]
        {
            let mut text = String::new();
            write_decimal(&mut text, unscaled, scale);
            assert!(is_decimal(unscaled, scale, text.as_bytes()), "{text}");
            for wrong in [format!("{text}0"), format!("0{text}"), format!("-{text}"), text.replace('.', ","), String::new(), "-".into()] {
                assert!(wrong == text || !is_decimal(unscaled, scale, wrong.as_bytes()), "{wrong} is not {text}");
            }
            assert!(!is_decimal(unscaled + 1, scale, text.as_bytes()));
        }
    }

    #[test]
    fn what_happened_to_a_text_is_told() {
        let kind = |a: &str, b: &str| text_kind(a.as_bytes(), b.as_bytes());
        assert_eq!(kind("toolong", "toolo"), "truncated");
        assert_eq!(kind("a😀b", "a?b"), "charset");
        assert_eq!(kind("a😀b", "a????b"), "charset");
        assert_eq!(kind("é", "\u{fffd}"), "charset");
        assert_eq!(kind("éàx", "??x"), "charset");
        assert_eq!(kind("éàx", "????x"), "charset");
        assert_eq!(kind("éà?", "???"), "charset");
        assert_eq!(kind("éàx", "???x"), "other");
        assert_eq!(kind("a?c", "a??"), "other");
        assert_eq!(kind("ab", "ab  "), "padded");
        assert_eq!(kind("ab  ", "ab"), "padded");
        assert_eq!(kind("Abc", "aBC"), "case");
        assert_eq!(kind("abc", "xyz"), "other");
        assert_eq!(kind("a?c", "a?d"), "other");
    }

    #[test]
    fn what_happened_to_a_number_is_told() {
        assert_eq!(sub_kind(ColumnType::Float64, &Value::Float(16_777_217.0), Cell::Float(16_777_216.0)), "rounded");
        assert_eq!(sub_kind(ColumnType::Float64, &Value::Float(1.0), Cell::Float(2.0)), "other");
        assert_eq!(sub_kind(ColumnType::Int64, &Value::Int(999), Cell::Int(255)), "truncated");
        // Bytes that are no UTF-8 look alike as text.
        assert_eq!(sub_kind(ColumnType::Bytes, &Value::Bytes(vec![0x80, 1]), Cell::Bytes(&[0xc1, 1])), "other");
        assert_eq!(sub_kind(ColumnType::Int64, &Value::Int(999), Cell::Int(998)), "other");
        assert_eq!(
            sub_kind(ColumnType::Timestamp, &Value::Timestamp(1_700_000_000_123_456), Cell::Timestamp(1_700_000_000_000_000)),
            "rounded"
        );
        assert_eq!(sub_kind(ColumnType::Timestamp, &Value::Timestamp(5), Cell::Timestamp(3_600_000_005)), "other");
        let decimal = ColumnType::Decimal { precision: 10, scale: 2 };
        assert_eq!(sub_kind(decimal, &Value::Decimal(12_345), Cell::Text(b"123.50")), "rounded");
        assert_eq!(sub_kind(decimal, &Value::Decimal(12_345), Cell::Text(b"123.46")), "other");
        assert_eq!(sub_kind(decimal, &Value::Decimal(12_345), Cell::Int(123)), "type");
        assert_eq!(sub_kind(ColumnType::Text, &Value::Text("a".into()), Cell::Null), "null");
        assert_eq!(sub_kind(ColumnType::Bool, &Value::Bool(true), Cell::Bool(false)), "other");
    }

    const DECIMAL: ColumnType = ColumnType::Decimal { precision: 10, scale: 2 };

    /// A value of every type, beside the type; texts and bytes twice.
    fn of_every_type() -> (Table, Row) {
        let values = [
            (ColumnType::Int64, Value::Int(-3)),
            (ColumnType::Float64, Value::Float(0.5)),
            (DECIMAL, Value::Decimal(-105)),
            (ColumnType::Bool, Value::Bool(true)),
            (ColumnType::Text, Value::Text("a\nb".into())),
            (ColumnType::Bytes, Value::Bytes(vec![0, 255])),
            (ColumnType::Timestamp, Value::Timestamp(1_700_000_000_123_456)),
            (ColumnType::Uuid, Value::Uuid([7; 16])),
            (ColumnType::Text, Value::Null),
        ];
        let column = |(place, (ty, _)): (usize, &(ColumnType, Value))| crate::table::Column {
            name: format!("c{place}"),
            ty: *ty,
            nullable: true,
            index: false,
            max_len: 9,
        };
        let columns = values.iter().enumerate().map(column).collect();
        let table = Table { name: "t".into(), columns, key: 0, unique_key: true };
        (table, values.into_iter().map(|(_, value)| value).collect())
    }

    fn between(table: &Table, expected: &Row, stored: &Row) -> Option<Difference> {
        difference(table, expected, &crate::target::mock::block(table, &[stored]), 0)
    }

    #[test]
    fn every_type_is_the_same_only_as_itself() {
        let (table, row) = of_every_type();
        assert!(between(&table, &row, &row).is_none());
        assert_eq!(
            show_row(&table, &row),
            "c0=-3 c1=0.5 c2=-1.05 c3=true c4=a\\nb c5=0x00ff c6=1700000000123456 c7=0x07070707070707070707070707070707 c8=NULL"
        );
        let others = [
            (Value::Int(-4), "-4"),
            (Value::Float(-0.5), "-0.5"),
            (Value::Decimal(-106), "-1.06"),
            (Value::Bool(false), "false"),
            (Value::Text("a\tb".into()), "a\\tb"),
            (Value::Bytes(vec![1]), "0x01"),
            (Value::Timestamp(3), "3"),
            (Value::Uuid([1; 16]), "0x01010101010101010101010101010101"),
            (Value::Text("a".into()), "a"),
        ];
        for (place, (other, shown)) in others.into_iter().enumerate() {
            let mut stored = row.clone();
            stored[place] = other;
            let told = between(&table, &row, &stored).expect("it differs").anomaly(5);
            assert_eq!((told.key, told.column.as_deref(), told.found.as_deref()), (5, Some(&*format!("c{place}")), Some(shown)));
            // Zero and minus zero are the same number and not the same value.
            assert!(!is_same(ColumnType::Float64, &Value::Float(0.0), Cell::Float(-0.0)));
            stored[place] = Value::Null;
            let null = between(&table, &row, &stored).map(|told| (told.columns, told.sub_kind, told.found));
            assert_eq!(null, (place < 8).then(|| (1, "null", "NULL".to_owned())), "{place}");
        }
    }

    #[test]
    fn columns_that_differ_are_counted_and_only_a_value_out_of_its_place_is_swapped() {
        let texts = ["a", "b", "c"].map(|text| Value::Text(text.into()));
        let (mut table, _) = of_every_type();
        table.columns = vec![table.columns[4].clone(); 3];
        table.columns.push(table.columns[0].clone());
        table.columns[3].ty = ColumnType::Bytes;
        let row = [texts.as_slice(), &[Value::Bytes(b"z".to_vec())]].concat();
        let told = |stored: [&str; 4]| {
            let mut stored: Row = stored.iter().map(|text| Value::Text((*text).into())).collect();
            stored[3] = Value::Bytes(if let Value::Text(text) = &stored[3] { text.clone().into_bytes() } else { vec![] });
            between(&table, &row, &stored).map(|told| (told.columns, told.sub_kind))
        };
        assert_eq!(told(["b", "a", "c", "z"]), Some((2, "swapped")));
        assert_eq!(told(["b", "c", "a", "z"]), Some((3, "swapped")));
        // The other column still has its value: nothing was moved.
        assert_eq!(told(["b", "b", "c", "z"]), Some((1, "other")));
        assert_eq!(told(["a", "b", "x", "y"]), Some((2, "other")));
        assert_eq!(told(["x", "y", "c", "z"]), Some((2, "other")));
        // A value of a column of another type.
        assert_eq!(told(["z", "b", "c", "a"]), Some((2, "other")));
    }

    #[test]
    fn digits_of_another_scale_are_another_value() {
        let (mut table, _) = of_every_type();
        table.columns = vec![table.columns[2].clone(); 2];
        table.columns[1].ty = ColumnType::Decimal { precision: 10, scale: 3 };
        let row: Row = vec![Value::Decimal(100), Value::Decimal(12_345)];
        let stored: Row = vec![Value::Decimal(12_345), Value::Decimal(1)];
        assert_eq!(between(&table, &row, &stored).map(|told| (told.columns, told.sub_kind)), Some((2, "other")));
    }

    #[test]
    fn a_number_at_the_bound_of_a_narrower_column_was_clamped() {
        let bounds = [
            (1000, 127),
            (-1000, -128),
            (100_000, 32_767),
            (-100_000, -32_768),
            (10_000_000, 8_388_607),
            (-10_000_000, -8_388_608),
            (1 << 40, 2_147_483_647),
            (-(1 << 40), -2_147_483_648),
            (999, 255),
            (-5, 0),
            (100_000, 65_535),
            (20_000_000, 16_777_215),
            (1 << 40, 4_294_967_295),
        ];
        for (expected, found) in bounds {
            let kind = |found| sub_kind(ColumnType::Int64, &Value::Int(expected), Cell::Int(found));
            assert_eq!([kind(found), kind(found - 1), kind(found + 1)], ["truncated", "other", "other"], "{expected} {found}");
        }
    }

    #[test]
    fn a_number_near_enough_was_rounded() {
        let float = |expected, found| sub_kind(ColumnType::Float64, &Value::Float(expected), Cell::Float(found));
        assert_eq!([float(1e6, 1e6 + 1.0), float(1e6, 1e6 - 1.0), float(-1e6, -1e6 - 1.0)], ["rounded"; 3]);
        assert_eq!([float(1e6, 1e6 + 1.5), float(-1e6, -1e6 + 1.5), float(1e6, -1e6), float(0.5, 1.0)], ["other"; 4]);
        let time = |found| sub_kind(ColumnType::Timestamp, &Value::Timestamp(1_700_000_123_456), Cell::Timestamp(found));
        assert_eq!([time(1_700_000_123_000), time(1_700_000_124_000), time(1_700_000_120_000), time(1_700_000_000_000)], ["rounded"; 4]);
        assert_eq!([time(1_700_001_000_000), time(1_700_000_100_000)], ["rounded"; 2]);
        assert_eq!([time(1_700_000_122_000), time(1_700_000_123_450), time(1_700_002_000_000), time(1_699_999_000_000)], ["other"; 4]);
        let exact = sub_kind(ColumnType::Timestamp, &Value::Timestamp(5_001_000), Cell::Timestamp(5_000_000));
        assert_eq!(exact, "rounded");
        assert_eq!(sub_kind(ColumnType::Timestamp, &Value::Timestamp(3_000), Cell::Timestamp(2_000)), "other", "a whole unit away");
        let decimal = |found: &str| sub_kind(DECIMAL, &Value::Decimal(12_345), Cell::Text(found.as_bytes()));
        assert_eq!([decimal("123.5"), decimal("123.4"), decimal("123"), decimal("124"), decimal("123.40")], ["rounded"; 5]);
        assert_eq!(sub_kind(DECIMAL, &Value::Decimal(12_400), Cell::Text(b"123")), "other", "a whole unit away");
        assert_eq!([decimal("123.3"), decimal("125"), decimal("123.44"), decimal("x"), decimal("-123.5"), decimal("122")], ["other"; 6]);
    }

    #[test]
    fn a_text_that_lost_characters_is_told_from_one_that_never_had_them() {
        let kind = |a: &str, b: &str| text_kind(a.as_bytes(), b.as_bytes());
        assert_eq!([kind("é", "?"), kind("é", "??"), kind("a😀", "a????"), kind("é?", "??"), kind("éa", "?a")], ["charset"; 5]);
        // More marks than bytes, a mark for ASCII, characters left over or missing.
        assert_eq!([kind("é", "???"), kind("ab", "a?"), kind("éa", "?"), kind("é", "?b"), kind("éb", "?c")], ["other"; 5]);
        assert_eq!([kind("ab\0", "ab"), kind("ab", "ab\0 "), kind("ab ", "ab\0")], ["padded"; 3]);
        assert_eq!([kind("ab", ""), kind("a b", "a ")], ["truncated"; 2]);
        assert_eq!([kind("ab", "AB"), kind("É", "é")], ["case"; 2]);
        assert_eq!(sub_kind(ColumnType::Bytes, &Value::Bytes(vec![1, 2, 3]), Cell::Bytes(&[1, 2])), "truncated");
        assert_eq!(sub_kind(ColumnType::Uuid, &Value::Uuid([1; 16]), Cell::Uuid([2; 16])), "other");
        assert_eq!(sub_kind(ColumnType::Int64, &Value::Int(1), Cell::Text(b"1")), "type");
        assert_eq!(sub_kind(ColumnType::Text, &Value::Null, Cell::Text(b"1")), "null");
    }

    #[test]
    fn what_is_shown_is_bounded_and_has_no_control_characters() {
        let long = "x".repeat(121);
        assert_eq!(clip(&long[..120]), long[..120]);
        assert_eq!(clip(&long), format!("{}…", &long[..120]));
        assert_eq!(clip("a\x1b[1mb\u{85}"), "a\\u{1b}[1mb\\u{85}");
        assert_eq!(hex(&[0xab; 60]), format!("0x{}", "ab".repeat(60)));
        assert_eq!(hex(&[0xab; 61]), format!("0x{}…", "ab".repeat(60)));
    }
}
