//! Digests on Postgres: a chain of its own 64-bit hash over the columns, each seeded with the hash of those before it and the first
//! with the key.
//!
//! Not MD5: in a server built with OpenSSL each call sets up a hash anew, and a row would cost four times as much as this (2.5 against
//! 0.6 µs), more than reading it back does. Every column enters by its exact text or bytes, never by Postgres's idea of equality.
//! What the chain takes for granted (the hash function, the column types, UTF-8 on the server) is asked for each time; where it is
//! otherwise, the server's answer is no digest and everything is read.

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Column as _, Executor as _, Row as _, SqlSafeStr as _, Statement as _};

use super::wire;
use crate::table::{Column, ColumnType, Row, Table, Value};
use crate::target::KeyRange;
use crate::target::digest::RangeDigest;
use crate::target::sql::{self, quoted};

/// One plan for every range: the key's index, and none of what only pays for long queries.
const SETTINGS: &str = "SET enable_seqscan = off; SET jit = off; SET max_parallel_workers_per_gather = 0";

const PROBE: &str = "batchsql proves that rows are there";
const PROBE_SEED: i64 = 0x0123_4567_89ab_cdef;

/// Why the server's digests would not be comparable with ours, if so.
pub(super) async fn obstacle(connection: &mut PgConnection, table: &Table) -> Result<Option<String>, sqlx::Error> {
    sqlx::raw_sql(SETTINGS).execute(&mut *connection).await?;
    let probe = "SELECT current_setting('server_encoding'), hashtextextended($1, $2)";
    let (encoding, found): (String, i64) = sqlx::query_as(probe).bind(PROBE).bind(PROBE_SEED).fetch_one(&mut *connection).await?;
    if encoding != "UTF8" {
        return Ok(Some(format!("the server stores text in {encoding}, not in UTF8")));
    }
    if found as u64 != hash(PROBE.as_bytes(), PROBE_SEED as u64) {
        return Ok(Some("the server's hash function is another one".to_owned()));
    }
    let select = format!("SELECT {} FROM {}", sql::column_list(table, '"'), quoted(&table.name, '"'));
    let statement = connection.prepare(AssertSqlSafe(select).into_sql_str()).await?;
    for (column, found) in table.columns.iter().zip(statement.columns()) {
        if found.type_info().oid().map(|oid| oid.0) != Some(wire::oids(column.ty).0) {
            return Ok(Some(format!("column {:?} is of type {} by now", column.name, found.type_info())));
        }
    }
    Ok(None)
}

/// The digest of each range.
pub(super) async fn ranges(connection: &mut PgConnection, table: &Table, ranges: &[KeyRange]) -> Result<Vec<RangeDigest>, sqlx::Error> {
    let mut digests = Vec::with_capacity(ranges.len());
    for range in ranges {
        let row = sqlx::raw_sql(AssertSqlSafe(range_sql(table, *range))).fetch_one(&mut *connection).await?;
        let sum: Option<String> = row.try_get_unchecked(3)?;
        let digest =
            RangeDigest::of_answer(row.try_get_unchecked(0)?, row.try_get_unchecked(1)?, row.try_get_unchecked(2)?, sum.as_deref());
        digests.push(digest.ok_or_else(|| sqlx::Error::Protocol("the server's sum of hashes is no whole number".into()))?);
    }
    Ok(digests)
}

fn range_sql(table: &Table, range: KeyRange) -> String {
    let key = quoted(&table.columns[table.key].name, '"');
    // A sum of bare keys would be no hash.
    let first = if table.columns.len() == 1 { format!("hashtextextended('', {key})") } else { key.clone() };
    let hash = others(table).fold(first, |chain, column| format!("hashtextextended({}, {chain})", text_sql(column)));
    format!(
        "SELECT count(*), min({key}), max({key}), sum({hash})::text FROM {}{}",
        quoted(&table.name, '"'),
        sql::filter_with_null(&key, range, sql::POSTGRES)
    )
}

/// All columns but the key.
fn others(table: &Table) -> impl Iterator<Item = &Column> {
    table.columns.iter().enumerate().filter(|(position, _)| *position != table.key).map(|(_, column)| column)
}

/// A column as text, exactly. Where NULL is allowed, what is not NULL has a `v` in front; elsewhere a NULL makes the whole sum differ,
/// because it then counts a row that it does not hash.
fn text_sql(column: &Column) -> String {
    let name = quoted(&column.name, '"');
    let text = match column.ty {
        ColumnType::Text => name,
        ColumnType::Int64 | ColumnType::Decimal { .. } | ColumnType::Bool => format!("{name}::text"),
        ColumnType::Bytes => format!("encode({name}, 'hex')"),
        ColumnType::Float64 => format!("encode(float8send({name}), 'hex')"),
        ColumnType::Timestamp => format!("encode(timestamp_send({name}), 'hex')"),
        ColumnType::Uuid => format!("encode(uuid_send({name}), 'hex')"),
    };
    if column.nullable { format!("coalesce('v' || {text}, 'n')") } else { text }
}

/// The same hash, computed here.
pub(super) fn row_hash(table: &Table, row: &Row, scratch: &mut Vec<u8>) -> u64 {
    let key = table.key_of(row) as u64;
    let mut chain = if table.columns.len() == 1 { hash(b"", key) } else { key };
    for (position, (column, value)) in table.columns.iter().zip(row).enumerate() {
        if position == table.key {
            continue;
        }
        chain = match value {
            Value::Text(text) if !column.nullable => hash(text.as_bytes(), chain),
            value => {
                scratch.clear();
                put_text(scratch, column, value);
                hash(scratch, chain)
            }
        };
    }
    chain
}

/// What [`text_sql`] gives for `value`.
fn put_text(out: &mut Vec<u8>, column: &Column, value: &Value) {
    if column.nullable {
        out.push(if matches!(value, Value::Null) { b'n' } else { b'v' });
    }
    match value {
        Value::Null => {}
        Value::Text(text) => out.extend_from_slice(text.as_bytes()),
        Value::Bool(v) => out.extend_from_slice(if *v { b"true" } else { b"false" }),
        Value::Int(v) => put_decimal(out, *v, 0),
        Value::Decimal(v) => put_decimal(out, *v, if let ColumnType::Decimal { scale, .. } = column.ty { scale } else { 0 }),
        Value::Bytes(v) => put_hex(out, v),
        Value::Uuid(v) => put_hex(out, v),
        Value::Float(v) => put_hex(out, &v.to_bits().to_be_bytes()),
        Value::Timestamp(v) => put_hex(out, &v.saturating_sub(wire::EPOCH_MICROS).to_be_bytes()),
    }
}

fn put_hex(out: &mut Vec<u8>, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.extend(bytes.iter().flat_map(|byte| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]));
}

/// As [`crate::table::write_decimal`], in a third of the time: this runs for every row.
fn put_decimal(out: &mut Vec<u8>, unscaled: i64, scale: u8) {
    // 19 digits and the point.
    let mut text = [0; 20];
    let mut rest = unscaled.unsigned_abs();
    let (mut at, mut digits) = (text.len(), 0);
    while rest > 0 || digits <= scale {
        if digits == scale && scale > 0 {
            at -= 1;
            text[at] = b'.';
        }
        at -= 1;
        text[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        digits += 1;
    }
    if unscaled < 0 {
        out.push(b'-');
    }
    out.extend_from_slice(&text[at..]);
}

/// Postgres's `hash_bytes_extended`: Bob Jenkins's lookup3 (2006) with a seed of 64 bits, as `hashtextextended` gives it on
/// little-endian machines.
fn hash(bytes: &[u8], seed: u64) -> u64 {
    let start = 0x9e37_79b9u32.wrapping_add(bytes.len() as u32).wrapping_add(3_923_095);
    let mut state = [start; 3];
    if seed != 0 {
        state[0] = state[0].wrapping_add((seed >> 32) as u32);
        state[1] = state[1].wrapping_add(seed as u32);
        mix(&mut state);
    }
    let (chunks, rest) = bytes.as_chunks::<12>();
    for chunk in chunks {
        absorb(&mut state, chunk);
        mix(&mut state);
    }
    let (words, odd) = rest.as_chunks::<4>();
    let mut last = [0; 3];
    for (word, bytes) in last.iter_mut().zip(words) {
        *word = u32::from_le_bytes(*bytes);
    }
    last[words.len()] = odd.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte));
    // The lowest byte of the last word is the length's.
    last[2] <<= 8;
    for (word, add) in state.iter_mut().zip(last) {
        *word = word.wrapping_add(add);
    }
    finish(state)
}

fn absorb(state: &mut [u32; 3], chunk: &[u8; 12]) {
    for (word, bytes) in state.iter_mut().zip(chunk.as_chunks::<4>().0) {
        *word = word.wrapping_add(u32::from_le_bytes(*bytes));
    }
}

fn mix([a, b, c]: &mut [u32; 3]) {
    let step = |x: &mut u32, y: &mut u32, z: u32, by: u32| {
        // x −= y; x ^= rot(y); y += z
        *x = x.wrapping_sub(*y) ^ y.rotate_left(by);
        *y = y.wrapping_add(z);
    };
    step(a, c, *b, 4);
    step(b, a, *c, 6);
    step(c, b, *a, 8);
    step(a, c, *b, 16);
    step(b, a, *c, 19);
    step(c, b, *a, 4);
}

fn finish([mut a, mut b, mut c]: [u32; 3]) -> u64 {
    let step = |x: &mut u32, y: u32, by: u32| *x = (*x ^ y).wrapping_sub(y.rotate_left(by));
    step(&mut c, b, 14);
    step(&mut a, c, 11);
    step(&mut b, a, 25);
    step(&mut c, b, 16);
    step(&mut a, c, 4);
    step(&mut b, a, 14);
    step(&mut c, b, 24);
    u64::from(b) << 32 | u64::from(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_the_servers() {
        // SELECT l, hashtextextended(left('abcdefghijklmnopqrstuvwxyz', l), 0), … -81985529216486896) FROM generate_series(0, 26) l
        let known = [
            (0, -6_939_563_903_564_495_251, -4_360_243_155_399_339_951),
            (1, 3_591_986_179_850_072_241, -3_769_679_941_098_070_425),
            (4, -1_038_429_303_365_892_052, -1_096_456_540_471_568_729),
            (8, -8_882_191_227_074_733_005, 6_158_868_735_791_441_116),
            (9, -3_278_210_106_038_014_113, 1_165_702_885_788_070_018),
            (11, 3_112_909_444_737_856_467, -3_412_181_864_404_672_258),
            (12, -7_556_637_188_122_330_412, -8_083_380_240_550_263_376),
            (13, 8_871_624_171_452_417_744, -784_401_870_887_573_373),
            (26, -6_612_928_417_832_572_997, -2_051_540_582_632_967_866),
        ];
        for (len, plain, seeded) in known {
            let text = &b"abcdefghijklmnopqrstuvwxyz"[..len];
            assert_eq!(
                [hash(text, 0), hash(text, -81_985_529_216_486_896i64 as u64)].map(|hash| hash as i64),
                [plain, seeded],
                "{len} letters"
            );
        }
    }

    #[test]
    fn decimals_are_written_as_everywhere() {
        let numbers = [0, 1, -1, 5, 9, 10, 99, -100, 12_345, 999_999_999_999_999_999, -999_999_999_999_999_999, i64::MAX, i64::MIN];
        for (number, scale) in numbers.into_iter().flat_map(|number| (0..=18).map(move |scale| (number, scale))) {
            let (mut ours, mut theirs) = (Vec::new(), String::new());
            put_decimal(&mut ours, number, scale);
            crate::table::write_decimal(&mut theirs, number, scale);
            assert_eq!(String::from_utf8(ours).unwrap(), theirs, "{number} with scale {scale}");
        }
    }

    #[test]
    fn null_is_no_text_and_a_column_is_not_its_neighbour() {
        let column = |name: &str, ty| Column { name: name.into(), ty, nullable: name != "id", index: false, max_len: 10 };
        let columns = vec![column("id", ColumnType::Int64), column("a", ColumnType::Text), column("b", ColumnType::Text)];
        let table = Table { name: "t".into(), columns, key: 0, unique_key: true };
        let text = |text: &str| Value::Text(text.into());
        let pairs = [
            (text("x"), text("")),
            (text(""), text("x")),
            (Value::Null, text("x")),
            (text("n"), text("x")),
            (text(""), Value::Null),
            (Value::Null, Value::Null),
        ];
        let mut scratch = Vec::new();
        let mut hashes: Vec<u64> = Vec::new();
        for key in [1, 2] {
            hashes.extend(pairs.iter().map(|(a, b)| row_hash(&table, &vec![Value::Int(key), a.clone(), b.clone()], &mut scratch)));
        }
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), 12);
        assert_eq!(
            range_sql(&table, KeyRange { from: Some(1), to: None }),
            "SELECT count(*), min(\"id\"), max(\"id\"), sum(hashtextextended(coalesce('v' || \"b\", 'n'), \
             hashtextextended(coalesce('v' || \"a\", 'n'), \"id\")))::text FROM \"t\" WHERE \"id\" >= '1'::bigint"
        );
    }
}
