//! One Postgres connection of the pool, and the three ways in which rows travel over it.

use std::fmt::Write as _;

use sqlx::encode::{Encode, IsNull};
use sqlx::error::{BoxDynError, DatabaseError};
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgArgumentBuffer, PgArguments, PgConnectOptions, PgConnection, PgTypeInfo};
use sqlx::{Arguments as _, AssertSqlSafe, ConnectOptions as _, Connection as _, Postgres, Type};

use super::wire;
use crate::table::{ColumnType, Row, Table, Value};
use crate::target::server::Link;
use crate::target::sql::{self, Limits};
use crate::target::{Conflict, ErrorClass, Method, WritePlan};

/// Most bind variables of one statement (the protocol's counter has 16 bits).
pub(super) const MAX_BINDS: usize = 65_535;
/// Bytes of one statement. A message may have 1 GiB, but both sides keep it in memory, several times over.
pub(super) const MAX_BYTES: usize = 64 << 20;

/// One connection.
pub(super) struct PgLink(PgConnection);

impl Link for PgLink {
    type Options = PgConnectOptions;

    async fn open(options: &PgConnectOptions) -> Result<(Self, u64), sqlx::Error> {
        let mut connection = options.connect().await?;
        let id: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut connection).await?;
        Ok((Self(connection), u64::from(id.unsigned_abs())))
    }

    async fn close(self) {
        // The server notices a closed socket as well.
        let _ = self.0.close().await;
    }

    fn limits(_: &PgConnectOptions, plan: &WritePlan) -> Limits {
        let rows = if plan.method == Method::Values { MAX_BINDS / plan.table.columns.len() } else { usize::MAX };
        Limits { rows, bytes: MAX_BYTES }
    }

    async fn insert(&mut self, plan: &WritePlan, rows: &[Row]) -> Result<(), sqlx::Error> {
        match plan.method {
            Method::Copy => self.copy(&plan.table, rows).await,
            Method::Values => self.execute(values_sql(plan, rows.len()), values_arguments(&plan.table, rows)?).await,
            _ => self.execute(unnest_sql(plan), unnest_arguments(&plan.table, rows)?).await,
        }
    }

    async fn warnings(&mut self) -> Result<u64, sqlx::Error> {
        // Postgres alters no value on its own.
        Ok(0)
    }

    async fn control(&mut self, statement: &'static str) -> Result<(), sqlx::Error> {
        sqlx::raw_sql(statement).execute(&mut self.0).await.map(drop)
    }

    fn class(error: &dyn DatabaseError) -> ErrorClass {
        error.code().map_or(ErrorClass::Other, |state| class(&state))
    }
}

impl PgLink {
    pub(super) fn connection(&mut self) -> &mut PgConnection {
        &mut self.0
    }

    async fn execute(&mut self, sql: String, arguments: PgArguments) -> Result<(), sqlx::Error> {
        sqlx::query_with(AssertSqlSafe(sql), arguments).execute(&mut self.0).await.map(drop)
    }

    async fn copy(&mut self, table: &Table, rows: &[Row]) -> Result<(), sqlx::Error> {
        let sql = format!("COPY {} ({}) FROM STDIN (FORMAT binary)", sql::quoted(&table.name, '"'), sql::column_list(table, '"'));
        let mut copy = self.0.copy_in_raw(&sql).await?;
        if let Err(error) = copy.send(copy_data(table, rows)).await {
            // Only a broken connection fails here; nothing more can be said over it.
            drop(copy);
            return Err(error);
        }
        copy.finish().await.map(drop)
    }
}

/// What COPY's binary format holds: a signature, the rows, an end mark.
fn copy_data(table: &Table, rows: &[Row]) -> Vec<u8> {
    let mut out = Vec::with_capacity(rows.iter().flatten().map(|value| value.wire_len() + 4).sum::<usize>() + 64);
    out.extend_from_slice(b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0");
    let width = table.columns.len() as i16;
    for row in rows {
        out.extend_from_slice(&width.to_be_bytes());
        for (value, column) in row.iter().zip(&table.columns) {
            wire::put_field(&mut out, value, column.ty);
        }
    }
    out.extend_from_slice(&(-1i16).to_be_bytes());
    out
}

fn insert_head(table: &Table) -> String {
    format!("INSERT INTO {} ({}) ", sql::quoted(&table.name, '"'), sql::column_list(table, '"'))
}

/// The conflict strategy as Postgres writes it.
fn conflict_tail(table: &Table, conflict: Conflict) -> String {
    let key = sql::quoted(&table.columns[table.key].name, '"');
    let sets: Vec<String> = (table.columns.iter().enumerate().filter(|(index, _)| *index != table.key))
        .map(|(_, column)| sql::quoted(&column.name, '"'))
        .map(|name| format!("{name}=EXCLUDED.{name}"))
        .collect();
    match conflict {
        Conflict::Error => String::new(),
        Conflict::Replace | Conflict::Update if !sets.is_empty() => format!(" ON CONFLICT ({key}) DO UPDATE SET {}", sets.join(",")),
        Conflict::Ignore | Conflict::Replace | Conflict::Update => format!(" ON CONFLICT ({key}) DO NOTHING"),
    }
}

fn values_sql(plan: &WritePlan, rows: usize) -> String {
    let width = plan.table.columns.len();
    let mut sql = insert_head(&plan.table) + "VALUES ";
    sql.reserve(rows * width * 7);
    for row in 0..rows {
        sql.push_str(if row == 0 { "(" } else { ",(" });
        for column in 0..width {
            // Writing into a String cannot fail.
            let _ = write!(sql, "{}${}", if column == 0 { "" } else { "," }, row * width + column + 1);
        }
        sql.push(')');
    }
    sql + &conflict_tail(&plan.table, plan.conflict)
}

fn unnest_sql(plan: &WritePlan) -> String {
    let arrays: Vec<String> = (1..=plan.table.columns.len()).map(|n| format!("${n}")).collect();
    format!("{}SELECT * FROM UNNEST({}){}", insert_head(&plan.table), arrays.join(","), conflict_tail(&plan.table, plan.conflict))
}

fn values_arguments(table: &Table, rows: &[Row]) -> Result<PgArguments, sqlx::Error> {
    let mut arguments = PgArguments::default();
    let bytes = rows.iter().flatten().map(|value| value.wire_len() + 4).sum();
    arguments.reserve(rows.len() * table.columns.len(), bytes);
    for row in rows {
        for (value, column) in row.iter().zip(&table.columns) {
            arguments.add(Bind { value, ty: column.ty }).map_err(sqlx::Error::Encode)?;
        }
    }
    Ok(arguments)
}

fn unnest_arguments(table: &Table, rows: &[Row]) -> Result<PgArguments, sqlx::Error> {
    let mut arguments = PgArguments::default();
    for (index, column) in table.columns.iter().enumerate() {
        arguments.add(Array { rows, index, ty: column.ty }).map_err(sqlx::Error::Encode)?;
    }
    Ok(arguments)
}

/// One value as a bind variable.
struct Bind<'a> {
    value: &'a Value,
    ty: ColumnType,
}

/// One column of some rows as an array.
struct Array<'a> {
    rows: &'a [Row],
    index: usize,
    ty: ColumnType,
}

/// Both say their type by value ([`Encode::produces`]); this one is never asked for.
fn type_of_value() -> PgTypeInfo {
    PgTypeInfo::with_oid(Oid(0))
}

impl Type<Postgres> for Bind<'_> {
    fn type_info() -> PgTypeInfo {
        type_of_value()
    }
}

impl Encode<'_, Postgres> for Bind<'_> {
    fn encode_by_ref(&self, out: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        wire::put_value(out, self.value, self.ty);
        Ok(if matches!(self.value, Value::Null) { IsNull::Yes } else { IsNull::No })
    }

    fn produces(&self) -> Option<PgTypeInfo> {
        Some(PgTypeInfo::with_oid(Oid(wire::oids(self.ty).0)))
    }
}

impl Type<Postgres> for Array<'_> {
    fn type_info() -> PgTypeInfo {
        type_of_value()
    }
}

impl Encode<'_, Postgres> for Array<'_> {
    fn encode_by_ref(&self, out: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        let column = || self.rows.iter().map(|row| &row[self.index]);
        let nulls = column().any(|value| matches!(value, Value::Null));
        // One dimension, whether it holds NULLs, the element's type, how many, counted from 1.
        for word in [1, i32::from(nulls), wire::oids(self.ty).0 as i32, self.rows.len() as i32, 1] {
            out.extend_from_slice(&word.to_be_bytes());
        }
        for value in column() {
            wire::put_field(out, value, self.ty);
        }
        Ok(IsNull::No)
    }

    fn produces(&self) -> Option<PgTypeInfo> {
        Some(PgTypeInfo::with_oid(Oid(wire::oids(self.ty).1)))
    }

    fn size_hint(&self) -> usize {
        self.rows.iter().map(|row| row[self.index].wire_len() + 4).sum::<usize>() + 20
    }
}

/// What an SQLSTATE is counted as.
fn class(state: &str) -> ErrorClass {
    match state {
        "40P01" => ErrorClass::Deadlock,
        "40001" => ErrorClass::Serialization,
        "55P03" => ErrorClass::LockTimeout,
        "53100" => ErrorClass::DiskFull,
        "25006" => ErrorClass::ReadOnly,
        "54000" => ErrorClass::TooLarge,
        "57014" => ErrorClass::Cancelled,
        "57P01" | "57P02" | "57P03" | "53300" => ErrorClass::Connection,
        state if state.starts_with("08") => ErrorClass::Connection,
        state if state.starts_with("22") => ErrorClass::Data,
        state if state.starts_with("23") => ErrorClass::Constraint,
        _ => ErrorClass::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Column;

    fn plan(names: &[&str], conflict: Conflict) -> WritePlan {
        let column = |name: &&str| Column { name: (*name).into(), ty: ColumnType::Int64, nullable: false, index: false, max_len: 0 };
        let table = Table { name: "t\"x".into(), columns: names.iter().map(column).collect(), key: 0, unique_key: true };
        WritePlan { table, conflict, method: Method::Values }
    }

    #[test]
    fn statements_name_every_column_and_the_conflict() {
        assert_eq!(values_sql(&plan(&["id", "a"], Conflict::Error), 2), r#"INSERT INTO "t""x" ("id","a") VALUES ($1,$2),($3,$4)"#);
        assert_eq!(
            unnest_sql(&plan(&["id", "a"], Conflict::Update)),
            r#"INSERT INTO "t""x" ("id","a") SELECT * FROM UNNEST($1,$2) ON CONFLICT ("id") DO UPDATE SET "a"=EXCLUDED."a""#
        );
        // Without a column beside the key there is nothing to update.
        assert!(unnest_sql(&plan(&["id"], Conflict::Replace)).ends_with(r#" ON CONFLICT ("id") DO NOTHING"#));
    }

    #[test]
    fn copy_data_has_its_signature_rows_and_end() {
        let table = plan(&["id"], Conflict::Error).table;
        let data = copy_data(&table, &[vec![Value::Int(258)], vec![Value::Null]]);
        assert_eq!(&data[..19], b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0");
        assert_eq!(&data[19..], [0, 1, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 1, 2, 0, 1, 255, 255, 255, 255, 255, 255]);
    }

    #[test]
    fn classes_come_from_the_sqlstate() {
        let cases = [
            ("40P01", ErrorClass::Deadlock),
            ("40001", ErrorClass::Serialization),
            ("55P03", ErrorClass::LockTimeout),
            ("23505", ErrorClass::Constraint),
            ("22001", ErrorClass::Data),
            ("53100", ErrorClass::DiskFull),
            ("25006", ErrorClass::ReadOnly),
            ("08006", ErrorClass::Connection),
            ("57014", ErrorClass::Cancelled),
            ("54000", ErrorClass::TooLarge),
            ("57P01", ErrorClass::Connection),
            ("57P02", ErrorClass::Connection),
            ("57P03", ErrorClass::Connection),
            ("53300", ErrorClass::Connection),
            ("42P01", ErrorClass::Other),
        ];
        for (state, expected) in cases {
            assert_eq!(class(state), expected, "{state}");
        }
    }
}
