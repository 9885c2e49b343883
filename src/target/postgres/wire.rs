//! Values in Postgres's binary format, as bound values, array elements and COPY fields carry them, and back.

use crate::table::{Cell, ColumnType, RowBlock, Value};

/// Microseconds from 1970-01-01 to 2000-01-01, where Postgres's timestamps begin.
pub(super) const EPOCH_MICROS: i64 = 946_684_800_000_000;
const NUMERIC_NEGATIVE: u16 = 0x4000;

/// Object ids of a column's type and of its array, the same on every server.
pub(super) fn oids(ty: ColumnType) -> (u32, u32) {
    match ty {
        ColumnType::Int64 => (20, 1016),
        ColumnType::Float64 => (701, 1022),
        ColumnType::Decimal { .. } => (1700, 1231),
        ColumnType::Bool => (16, 1000),
        ColumnType::Text => (25, 1009),
        ColumnType::Bytes => (17, 1001),
        ColumnType::Timestamp => (1114, 1115),
        ColumnType::Uuid => (2950, 2951),
    }
}

/// Appends a value with its length in front, or the length -1 for NULL.
pub(super) fn put_field(out: &mut Vec<u8>, value: &Value, ty: ColumnType) {
    if matches!(value, Value::Null) {
        out.extend_from_slice(&(-1i32).to_be_bytes());
        return;
    }
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    put_value(out, value, ty);
    let len = (out.len() - at - 4) as i32;
    out[at..at + 4].copy_from_slice(&len.to_be_bytes());
}

/// Appends a value without its length; nothing for NULL.
pub(super) fn put_value(out: &mut Vec<u8>, value: &Value, ty: ColumnType) {
    match value {
        Value::Null => {}
        Value::Int(v) => out.extend_from_slice(&v.to_be_bytes()),
        Value::Float(v) => out.extend_from_slice(&v.to_bits().to_be_bytes()),
        Value::Decimal(v) => put_numeric(out, *v, if let ColumnType::Decimal { scale, .. } = ty { scale } else { 0 }),
        Value::Bool(v) => out.push(u8::from(*v)),
        Value::Text(v) => out.extend_from_slice(v.as_bytes()),
        Value::Bytes(v) => out.extend_from_slice(v),
        Value::Timestamp(v) => out.extend_from_slice(&v.saturating_sub(EPOCH_MICROS).to_be_bytes()),
        Value::Uuid(v) => out.extend_from_slice(v),
    }
}

/// Appends a numeric: how many base-10000 digits, the first one's power, the sign, digits to show behind the point, the digits.
fn put_numeric(out: &mut Vec<u8>, unscaled: i64, scale: u8) {
    let unit = 10u64.pow(u32::from(scale));
    let magnitude = unscaled.unsigned_abs();
    let fraction_digits = usize::from(scale).div_ceil(4);
    let padding = 10u128.pow((fraction_digits * 4) as u32 - u32::from(scale));
    // Five digits hold the integer part of any i64, five the fraction.
    let mut digits = [0u16; 10];
    let mut integer = magnitude / unit;
    for digit in digits[..5].iter_mut().rev() {
        *digit = (integer % 10_000) as u16;
        integer /= 10_000;
    }
    let mut fraction = u128::from(magnitude % unit) * padding;
    for digit in digits[5..5 + fraction_digits].iter_mut().rev() {
        *digit = (fraction % 10_000) as u16;
        fraction /= 10_000;
    }
    let first = digits.iter().position(|digit| *digit != 0).unwrap_or(digits.len());
    let last = digits.iter().rposition(|digit| *digit != 0).map_or(first, |at| at + 1);
    let weight = if first == digits.len() { 0 } else { 4 - first as i16 };
    let sign = if unscaled < 0 { NUMERIC_NEGATIVE } else { 0 };
    for word in [(last - first) as u16, weight as u16, sign, u16::from(scale)] {
        out.extend_from_slice(&word.to_be_bytes());
    }
    for digit in &digits[first..last] {
        out.extend_from_slice(&digit.to_be_bytes());
    }
}

/// Writes a numeric as text with all the digits it shows; `None` if the bytes are no numeric.
fn numeric_text(bytes: &[u8], out: &mut String) -> Option<()> {
    use std::fmt::Write as _;
    let word = |at: usize| bytes.get(at * 2..at * 2 + 2).map(|b| u16::from_be_bytes([b[0], b[1]]));
    let (count, weight, sign, shown) = (i32::from(word(0)?), i32::from(word(1)? as i16), word(2)?, usize::from(word(3)?));
    let special = match sign {
        0xC000 => "NaN",
        0xD000 => "Infinity",
        0xF000 => "-Infinity",
        _ => "",
    };
    if !special.is_empty() {
        out.push_str(special);
        return Some(());
    }
    let digit = |power: i32| if (0..count).contains(&(weight - power)) { word(4 + (weight - power) as usize) } else { Some(0) };
    if sign == NUMERIC_NEGATIVE {
        out.push('-');
    }
    // Writing into a String cannot fail.
    let _ = write!(out, "{}", digit(weight.max(0))?);
    for power in (0..weight.max(0)).rev() {
        let _ = write!(out, "{:04}", digit(power)?);
    }
    if shown > 0 {
        out.push('.');
        let end = out.len() + shown;
        let mut power = -1;
        while out.len() < end {
            let _ = write!(out, "{:04}", digit(power)?);
            power -= 1;
        }
        out.truncate(end);
    }
    Some(())
}

/// Pushes what a field of the server's type `oid` holds. A type without a cell of its own arrives as its raw bytes.
pub(super) fn push_cell(block: &mut RowBlock, oid: u32, field: Option<&[u8]>, scratch: &mut String) {
    let Some(bytes) = field else {
        block.push(Cell::Null);
        return;
    };
    scratch.clear();
    let cell = match oid {
        20 => be::<8>(bytes).map(|b| Cell::Int(i64::from_be_bytes(b))),
        23 => be::<4>(bytes).map(|b| Cell::Int(i32::from_be_bytes(b).into())),
        21 => be::<2>(bytes).map(|b| Cell::Int(i16::from_be_bytes(b).into())),
        26 => be::<4>(bytes).map(|b| Cell::Int(u32::from_be_bytes(b).into())),
        701 => be::<8>(bytes).map(|b| Cell::Float(f64::from_be_bytes(b))),
        700 => be::<4>(bytes).map(|b| Cell::Float(f32::from_be_bytes(b).into())),
        16 => be::<1>(bytes).map(|[b]| Cell::Bool(b != 0)),
        // text, varchar, char(n), name, json, xml
        25 | 1043 | 1042 | 19 | 114 | 142 => Some(Cell::Text(bytes)),
        // jsonb: a version in front
        3802 => bytes.get(1..).map(Cell::Text),
        1114 | 1184 => be::<8>(bytes).map(|b| timestamp(i64::from_be_bytes(b))),
        1082 => be::<4>(bytes).map(|b| timestamp(i64::from(i32::from_be_bytes(b)) * 86_400_000_000)),
        2950 => be::<16>(bytes).map(Cell::Uuid),
        1700 => numeric_text(bytes, scratch).map(|()| Cell::Text(scratch.as_bytes())),
        _ => None,
    };
    block.push(cell.unwrap_or(Cell::Bytes(bytes)));
}

fn timestamp(micros: i64) -> Cell<'static> {
    match micros {
        i64::MAX => Cell::Text(b"infinity"),
        i64::MIN => Cell::Text(b"-infinity"),
        // What Postgres can store lies far within the limits.
        micros => Cell::Timestamp(micros.saturating_add(EPOCH_MICROS)),
    }
}

fn be<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    bytes.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::write_decimal;

    fn numeric(unscaled: i64, scale: u8) -> Vec<u8> {
        let mut out = Vec::new();
        put_numeric(&mut out, unscaled, scale);
        out
    }

    #[test]
    fn numerics_have_the_bytes_that_postgres_sends() {
        // SELECT numeric_send(123.45), (-0.05), 0.00, 10000, 0.0001
        assert_eq!(numeric(12345, 2), [0, 2, 0, 0, 0, 0, 0, 2, 0, 123, 0x11, 0x94]);
        assert_eq!(numeric(-5, 2), [0, 1, 0xFF, 0xFF, 0x40, 0, 0, 2, 1, 0xF4]);
        assert_eq!(numeric(0, 2), [0, 0, 0, 0, 0, 0, 0, 2]);
        assert_eq!(numeric(10_000, 0), [0, 1, 0, 1, 0, 0, 0, 0, 0, 1]);
        assert_eq!(numeric(1, 4), [0, 1, 0xFF, 0xFF, 0, 0, 0, 4, 0, 1]);
    }

    #[test]
    fn numerics_come_back_as_their_one_text_form() {
        let magnitudes = [0, 1, 5, 9, 10, 99, 9_999, 10_000, 10_001, 123_456_789, 100_000_000, 999_999_999_999_999_999];
        for unscaled in magnitudes.into_iter().flat_map(|m: i64| [m, -m]) {
            for scale in 0..=18 {
                let (mut expected, mut found) = (String::new(), String::new());
                write_decimal(&mut expected, unscaled, scale);
                numeric_text(&numeric(unscaled, scale), &mut found).unwrap();
                assert_eq!(found, expected, "{unscaled} with scale {scale}");
            }
        }
    }

    #[test]
    fn what_is_no_number_is_told_and_cut_bytes_do_not_panic() {
        let mut out = String::new();
        numeric_text(&[0, 0, 0, 0, 0xC0, 0, 0, 0], &mut out).unwrap();
        assert_eq!(out, "NaN");
        let whole = numeric(123_456_789, 3);
        for len in 0..whole.len() {
            assert_eq!(numeric_text(&whole[..len], &mut String::new()), None, "{len} bytes");
        }
    }

    #[test]
    fn fields_of_another_type_arrive_as_what_they_are() {
        let mut block = RowBlock::new(5);
        let mut scratch = String::new();
        push_cell(&mut block, 23, Some(&(-7i32).to_be_bytes()), &mut scratch);
        push_cell(&mut block, 700, Some(&1.5f32.to_be_bytes()), &mut scratch);
        push_cell(&mut block, 1114, Some(&i64::MAX.to_be_bytes()), &mut scratch);
        push_cell(&mut block, 20, Some(b"short"), &mut scratch);
        push_cell(&mut block, 99_999, None, &mut scratch);
        let cells: Vec<_> = (0..5).map(|column| block.cell(0, column)).collect();
        assert_eq!(cells, [Cell::Int(-7), Cell::Float(1.5), Cell::Text(b"infinity"), Cell::Bytes(b"short"), Cell::Null]);
    }
}
