//! Ways in which one stored value can be wrong, each by its sub-kind, as the SQL of the value that is stored instead.

use batchsql::table::{ColumnType, Row, Table, Value, write_decimal};

use crate::database::Kind;

/// The sub-kinds that a change of one value makes, on its own.
pub(crate) const SUB_KINDS: [&str; 9] = ["truncated", "charset", "rounded", "padded", "case", "type", "null", "swapped", "other"];

/// What is stored instead.
pub(crate) enum Change {
    /// The value of this SQL expression.
    To(String),
    /// The value of this other column, which gets this one's.
    With(usize),
}

/// How column `at` of `row` is made wrong as `sub_kind`, if its value can be.
pub(crate) fn change(sub_kind: &str, on: Kind, table: &Table, at: usize, row: &Row) -> Option<Change> {
    let column = &table.columns[at];
    let value = &row[at];
    let to = |value: Value| Some(Change::To(literal(on, column.ty, &value)));
    match (sub_kind, value) {
        _ if at == table.key => None,
        ("null", Value::Null) => to(present(column.ty)),
        ("null", _) if column.nullable => to(Value::Null),
        ("null", _) | (_, Value::Null) => None,
        ("swapped", _) => {
            let partner = |other: &usize| table.columns[*other].ty == column.ty && !table.columns[*other].nullable && row[*other] != *value;
            (at + 1..row.len()).find(partner).filter(|_| !column.nullable).map(Change::With)
        }
        ("type", Value::Bool(_)) if on != Kind::Postgres => Some(Change::To("2".to_owned())),
        ("type", Value::Timestamp(_)) if on == Kind::Postgres => Some(Change::To("'infinity'::timestamp".to_owned())),
        ("padded", Value::Text(text)) if text.chars().count() + 3 <= column.max_len as usize => to(Value::Text(format!("{text}  "))),
        ("padded", Value::Bytes(bytes)) if bytes.len() < column.max_len as usize => to(Value::Bytes([bytes.as_slice(), &[0]].concat())),
        _ => changed(sub_kind, column.ty, value).and_then(to),
    }
}

fn present(ty: ColumnType) -> Value {
    if ty == ColumnType::Text { Value::Text("here".to_owned()) } else { Value::Int(7) }
}

/// The wrong value, where the database and the other columns do not matter.
fn changed(sub_kind: &str, ty: ColumnType, value: &Value) -> Option<Value> {
    let scale = if let ColumnType::Decimal { scale, .. } = ty { scale } else { 0 };
    Some(match (sub_kind, value) {
        ("truncated", Value::Text(text)) => {
            let kept: String = text.chars().take(text.chars().count() / 2).collect();
            // What only loses blanks is padding.
            Value::Text((text.trim_end_matches(' ') != kept.trim_end_matches(' ')).then_some(kept)?)
        }
        ("truncated", Value::Bytes(bytes)) => {
            let kept = &bytes[..bytes.len() / 2];
            Value::Bytes(bytes[kept.len()..].iter().any(|byte| !matches!(byte, 0 | b' ')).then(|| kept.to_vec())?)
        }
        ("truncated", Value::Int(number)) => {
            let clamped = (*number).clamp(i32::MIN.into(), i32::MAX.into());
            Value::Int((clamped != *number).then_some(clamped)?)
        }
        ("charset", Value::Text(text)) => {
            let lossy: String = text.chars().map(|c| if c.is_ascii() { c } else { '?' }).collect();
            Value::Text((lossy != *text).then_some(lossy)?)
        }
        ("case", Value::Text(text)) => {
            let letter = text.find(|c: char| c.is_ascii_alphabetic())?;
            let mut bytes = text.clone().into_bytes();
            bytes[letter] ^= 0x20;
            Value::Text(String::from_utf8(bytes).ok()?)
        }
        ("rounded", Value::Decimal(unscaled)) if scale > 0 && unscaled % 10 != 0 => Value::Decimal(unscaled / 10 * 10),
        ("rounded", Value::Float(number)) => {
            let single = f64::from(*number as f32);
            Value::Float((single.is_finite() && single != *number).then_some(single)?)
        }
        ("rounded", Value::Timestamp(micros)) if micros % 1000 != 0 => Value::Timestamp(micros - micros.rem_euclid(1000)),
        ("other", value) => other(value)?,
        _ => return None,
    })
}

/// A value that no known loss makes of this one. Done to two rows it is the same change of the same bits, where it can be.
fn other(value: &Value) -> Option<Value> {
    Some(match value {
        Value::Int(number) => Value::Int(number ^ 0x5a5a_5a5a),
        // In one direction: two flags turned in opposite ones would be exchanged.
        Value::Bool(true) => Value::Bool(false),
        Value::Uuid(bytes) => Value::Uuid(bytes.map(|byte| byte ^ 0x33)),
        Value::Bytes(bytes) => Value::Bytes(std::iter::once(bytes.first()? ^ 0x41).chain(bytes[1..].iter().copied()).collect()),
        Value::Text(text) => {
            let rest = text.get(1..).filter(|rest| !rest.trim_end().is_empty())?;
            Value::Text(format!("{}{rest}", if text.starts_with('#') { '+' } else { '#' }))
        }
        Value::Decimal(unscaled) if unscaled.abs() < 9_000_000_000 => Value::Decimal(unscaled + 12_300),
        Value::Float(number) if *number != 0.0 => Value::Float(-number),
        Value::Timestamp(micros) if micros.abs() < 10_000_000_000_000_000 => Value::Timestamp(micros + 3_600_000_000),
        _ => return None,
    })
}

/// The SQL of a value.
pub(crate) fn literal(on: Kind, ty: ColumnType, value: &Value) -> String {
    match value {
        Value::Null => "NULL".to_owned(),
        Value::Int(number) => number.to_string(),
        Value::Float(number) => format!("{number:e}"),
        Value::Bool(flag) if on == Kind::Postgres => flag.to_string(),
        Value::Bool(flag) => u8::from(*flag).to_string(),
        Value::Decimal(unscaled) => {
            let mut text = String::new();
            write_decimal(&mut text, *unscaled, if let ColumnType::Decimal { scale, .. } = ty { scale } else { 0 });
            if on == Kind::Sqlite { format!("'{text}'") } else { text }
        }
        Value::Timestamp(micros) if on == Kind::Sqlite => micros.to_string(),
        Value::Timestamp(micros) => {
            let instant = jiff::civil::date(1970, 1, 1).at(0, 0, 0, 0) + jiff::SignedDuration::from_micros(*micros);
            format!("'{}'", instant.strftime("%Y-%m-%d %H:%M:%S%.6f"))
        }
        Value::Text(text) => {
            let hex = hex(text.as_bytes());
            match on {
                Kind::Sqlite => format!("CAST(x'{hex}' AS TEXT)"),
                Kind::Postgres => format!("convert_from('\\x{hex}'::bytea, 'UTF8')"),
                Kind::Mysql => format!("CONVERT(x'{hex}' USING utf8mb4)"),
            }
        }
        Value::Bytes(bytes) if on == Kind::Postgres => format!("'\\x{}'::bytea", hex(bytes)),
        Value::Uuid(bytes) if on == Kind::Postgres => format!("'{}'::uuid", hex(bytes)),
        Value::Bytes(bytes) => format!("x'{}'", hex(bytes)),
        Value::Uuid(bytes) => format!("x'{}'", hex(bytes)),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn the_same_change_in_two_rows_cancels_out_in_a_checksum_by_xor() {
    // Two rows that end with eight bytes of a number each: what some tools sum up.
    let checksum = |rows: [(&str, i64); 2]| {
        rows.iter()
            .map(|(name, number)| crc32fast::hash(&[name.as_bytes(), &number.to_be_bytes()].concat()))
            .fold(0, |sum, hash| sum ^ hash)
    };
    let changed = |number| if let Some(Value::Int(changed)) = other(&Value::Int(number)) { changed } else { panic!("{number}") };
    assert_ne!((changed(1), changed(-77)), (1, -77));
    assert_eq!(
        checksum([("one", 1), ("two", -77)]),
        checksum([("one", changed(1)), ("two", changed(-77))]),
        "the plant is the trap it is meant to be"
    );
}
