//! One MySQL or MariaDB connection of the pool: multi-row INSERTs with bound values, and the warnings they leave.

use std::fmt::Write as _;

use sqlx::encode::{Encode, IsNull};
use sqlx::error::{BoxDynError, DatabaseError};
use sqlx::mysql::{MySqlArguments, MySqlConnectOptions, MySqlConnection, MySqlDatabaseError, MySqlTypeInfo};
use sqlx::{Arguments as _, AssertSqlSafe, ConnectOptions as _, Connection as _, MySql, Row as _, Type};

use super::time;
use crate::table::{ColumnType, Row, Table, Value, write_decimal};
use crate::target::server::Link;
use crate::target::sql::{self, Limits};
use crate::target::{Conflict, ErrorClass, WritePlan};

/// Most bind variables of one statement (the protocol's counter has 16 bits).
pub(super) const MAX_BINDS: usize = 65_535;

/// What it takes to open a connection, and what the server said about itself on the first one.
#[derive(Clone)]
pub(super) struct Options {
    pub(super) connect: MySqlConnectOptions,
    /// `@@max_allowed_packet`.
    pub(super) max_bytes: usize,
    /// MariaDB names the new row `VALUES(column)`; MySQL has an alias for it, and warns of the older form at each statement.
    pub(super) mariadb: bool,
}

/// One connection.
pub(super) struct MyLink {
    connection: MySqlConnection,
    mariadb: bool,
}

/// `autocommit`: a batch of one statement relies on it, and servers can have it off. `sql_mode`: sqlx's handshake adds to it, and
/// what the server does with values that do not fit must stay as it is.
const SESSION: &str = "SET autocommit = 1, sql_mode = @@global.sql_mode";

/// By default few warnings are kept (MariaDB: 64), and as many harmless ones would hide one that tells of an altered value.
const KEEP_WARNINGS: &str = "SET max_error_count = 65535";

/// An administrator's privilege is missing.
const PRIVILEGE_MISSING: u16 = 1227;

/// Sets up a session.
pub(super) async fn prepare(connection: &mut MySqlConnection) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(SESSION).execute(&mut *connection).await?;
    match sqlx::raw_sql(KEEP_WARNINGS).execute(connection).await {
        // MySQL since 9 lets only administrators do so, and keeps 1,024 for everybody else.
        Err(sqlx::Error::Database(e)) if e.try_downcast_ref::<MySqlDatabaseError>().is_some_and(|e| e.number() == PRIVILEGE_MISSING) => {
            Ok(())
        }
        done => done.map(drop),
    }
}

impl Link for MyLink {
    type Options = Options;

    async fn open(options: &Options) -> Result<(Self, u64), sqlx::Error> {
        let mut connection = options.connect.connect().await?;
        prepare(&mut connection).await?;
        let id: u64 = sqlx::query_scalar("SELECT CONNECTION_ID()").fetch_one(&mut connection).await?;
        Ok((Self { connection, mariadb: options.mariadb }, id))
    }

    async fn close(self) {
        // The server notices a closed socket as well.
        let _ = self.connection.close().await;
    }

    fn limits(options: &Options, plan: &WritePlan) -> Limits {
        Limits { rows: MAX_BINDS / plan.table.columns.len(), bytes: options.max_bytes }
    }

    async fn insert(&mut self, plan: &WritePlan, rows: &[Row]) -> Result<(), sqlx::Error> {
        let sql = insert_sql(plan, rows.len(), self.mariadb);
        sqlx::query_with(AssertSqlSafe(sql), arguments(&plan.table, rows)?).execute(&mut self.connection).await.map(drop)
    }

    async fn warnings(&mut self) -> Result<u64, sqlx::Error> {
        // Not `SELECT @@warning_count`: on MySQL that empties the list.
        let count = sqlx::raw_sql("SHOW COUNT(*) WARNINGS").fetch_one(&mut self.connection).await?;
        if count.try_get_unchecked::<u64, _>(0)? == 0 {
            return Ok(0);
        }
        let mut altered = 0;
        for row in sqlx::raw_sql("SHOW WARNINGS").fetch_all(&mut self.connection).await? {
            let (level, code): (String, u32) = (row.try_get_unchecked(0)?, row.try_get_unchecked(1)?);
            // 1062: the key exists, which INSERT IGNORE is for. 1287: the syntax is deprecated.
            altered += u64::from(level != "Note" && code != 1062 && code != 1287);
        }
        Ok(altered)
    }

    async fn control(&mut self, statement: &'static str) -> Result<(), sqlx::Error> {
        sqlx::raw_sql(statement).execute(&mut self.connection).await.map(drop)
    }

    fn class(error: &dyn DatabaseError) -> ErrorClass {
        let number = error.try_downcast_ref::<MySqlDatabaseError>().map_or(0, MySqlDatabaseError::number);
        class(number, error.code().as_deref().unwrap_or(""))
    }
}

impl MyLink {
    pub(super) fn connection(&mut self) -> &mut MySqlConnection {
        &mut self.connection
    }

    pub(super) fn set_mariadb(&mut self, mariadb: bool) {
        self.mariadb = mariadb;
    }
}

/// What an error number is counted as; where the number says nothing, its SQLSTATE.
fn class(number: u16, state: &str) -> ErrorClass {
    match number {
        1213 => ErrorClass::Deadlock,
        1205 | 3572 => ErrorClass::LockTimeout,
        // MariaDB, innodb_snapshot_isolation: the row has changed since the snapshot.
        1020 => ErrorClass::Serialization,
        1021 | 1114 => ErrorClass::DiskFull,
        // The server, the session or (1290) some other option of the server allows no writes.
        1290 | 1792 | 1836 => ErrorClass::ReadOnly,
        1118 | 1153 | 1301 => ErrorClass::TooLarge,
        // Killed, or over a time limit that the server sets.
        1317 | 1969 | 3024 => ErrorClass::Cancelled,
        // Too many connections; shutdown; MariaDB: this connection was killed.
        1040 | 1053 | 1203 | 1226 | 1927 => ErrorClass::Connection,
        1048 | 1062 | 1169 | 1216 | 1217 | 1451 | 1452 | 3819 | 4025 => ErrorClass::Constraint,
        1264 | 1265 | 1292 | 1364 | 1366 | 1406 | 1411 => ErrorClass::Data,
        _ if state == "40001" => ErrorClass::Serialization,
        _ if state.starts_with("08") => ErrorClass::Connection,
        _ if state.starts_with("22") => ErrorClass::Data,
        _ if state.starts_with("23") => ErrorClass::Constraint,
        _ => ErrorClass::Other,
    }
}

fn insert_sql(plan: &WritePlan, rows: usize, mariadb: bool) -> String {
    let table = &plan.table;
    let verb = match plan.conflict {
        Conflict::Error | Conflict::Update => "INSERT INTO",
        Conflict::Ignore => "INSERT IGNORE INTO",
        Conflict::Replace => "REPLACE INTO",
    };
    let group = format!("({}?),", "?,".repeat(table.columns.len() - 1));
    let mut sql = format!("{verb} {} ({}) VALUES ", sql::quoted(&table.name, '`'), sql::column_list(table, '`'));
    sql.reserve(rows * group.len() + 256);
    for _ in 0..rows {
        sql.push_str(&group);
    }
    sql.pop();
    if plan.conflict == Conflict::Update {
        sql.push_str(if mariadb { " ON DUPLICATE KEY UPDATE " } else { " AS batchsql_new ON DUPLICATE KEY UPDATE " });
        // The key is among them, set to what it is: a table may have no other column.
        for (index, column) in table.columns.iter().enumerate() {
            let name = sql::quoted(&column.name, '`');
            let value = if mariadb { format!("VALUES({name})") } else { format!("batchsql_new.{name}") };
            // Writing into a String cannot fail.
            let _ = write!(sql, "{}{name}={value}", if index == 0 { "" } else { "," });
        }
    }
    sql
}

fn arguments(table: &Table, rows: &[Row]) -> Result<MySqlArguments, sqlx::Error> {
    let mut arguments = MySqlArguments::default();
    arguments.reserve(rows.len() * table.columns.len(), rows.iter().flatten().map(Value::wire_len).sum());
    for row in rows {
        for (value, column) in row.iter().zip(&table.columns) {
            arguments.add(Bind { value, ty: column.ty }).map_err(sqlx::Error::Encode)?;
        }
    }
    Ok(arguments)
}

/// One value as a bind variable. Decimals and times travel as text, which the server converts without loss.
struct Bind<'a> {
    value: &'a Value,
    ty: ColumnType,
}

impl Type<MySql> for Bind<'_> {
    fn type_info() -> MySqlTypeInfo {
        // Never asked for: a value says its type itself.
        <str as Type<MySql>>::type_info()
    }
}

impl Encode<'_, MySql> for Bind<'_> {
    fn encode_by_ref(&self, out: &mut Vec<u8>) -> Result<IsNull, BoxDynError> {
        match self.value {
            Value::Null => return Ok(IsNull::Yes),
            Value::Int(v) => out.extend_from_slice(&v.to_le_bytes()),
            Value::Float(v) => out.extend_from_slice(&v.to_bits().to_le_bytes()),
            Value::Bool(v) => out.push(u8::from(*v)),
            Value::Text(v) => return <&str as Encode<MySql>>::encode_by_ref(&v.as_str(), out),
            Value::Bytes(v) => return <&[u8] as Encode<MySql>>::encode_by_ref(&v.as_slice(), out),
            Value::Uuid(v) => return <&[u8] as Encode<MySql>>::encode_by_ref(&v.as_slice(), out),
            Value::Decimal(v) => {
                let scale = if let ColumnType::Decimal { scale, .. } = self.ty { scale } else { 0 };
                let mut text = String::with_capacity(24);
                write_decimal(&mut text, *v, scale);
                return <&str as Encode<MySql>>::encode_by_ref(&text.as_str(), out);
            }
            Value::Timestamp(v) => {
                let mut text = String::with_capacity(32);
                time::write(&mut text, *v);
                return <&str as Encode<MySql>>::encode_by_ref(&text.as_str(), out);
            }
        }
        Ok(IsNull::No)
    }

    /// By column, not by value: a NULL of another type makes MySQL prepare the statement anew.
    fn produces(&self) -> Option<MySqlTypeInfo> {
        Some(match self.ty {
            ColumnType::Int64 => <i64 as Type<MySql>>::type_info(),
            ColumnType::Float64 => <f64 as Type<MySql>>::type_info(),
            ColumnType::Bool => <i8 as Type<MySql>>::type_info(),
            ColumnType::Text | ColumnType::Decimal { .. } | ColumnType::Timestamp => <str as Type<MySql>>::type_info(),
            ColumnType::Bytes | ColumnType::Uuid => <[u8] as Type<MySql>>::type_info(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Column;
    use crate::target::Method;

    fn plan(names: &[&str], conflict: Conflict) -> WritePlan {
        let column = |name: &&str| Column { name: (*name).into(), ty: ColumnType::Int64, nullable: false, index: false, max_len: 0 };
        let table = Table { name: "t`x".into(), columns: names.iter().map(column).collect(), key: 0, unique_key: true };
        WritePlan { table, conflict, method: Method::Values }
    }

    #[test]
    fn statements_name_every_column_and_the_conflict() {
        assert_eq!(insert_sql(&plan(&["id", "a"], Conflict::Error), 2, true), "INSERT INTO `t``x` (`id`,`a`) VALUES (?,?),(?,?)");
        assert_eq!(insert_sql(&plan(&["id"], Conflict::Ignore), 1, true), "INSERT IGNORE INTO `t``x` (`id`) VALUES (?)");
        assert_eq!(insert_sql(&plan(&["id", "a"], Conflict::Replace), 1, false), "REPLACE INTO `t``x` (`id`,`a`) VALUES (?,?)");
        assert_eq!(
            insert_sql(&plan(&["id", "a"], Conflict::Update), 1, true),
            "INSERT INTO `t``x` (`id`,`a`) VALUES (?,?) ON DUPLICATE KEY UPDATE `id`=VALUES(`id`),`a`=VALUES(`a`)"
        );
        assert_eq!(
            insert_sql(&plan(&["id"], Conflict::Update), 1, false),
            "INSERT INTO `t``x` (`id`) VALUES (?) AS batchsql_new ON DUPLICATE KEY UPDATE `id`=batchsql_new.`id`"
        );
    }

    #[test]
    fn the_number_decides_before_the_sqlstate() {
        let cases = [
            (1213, "40001", ErrorClass::Deadlock),
            (1205, "HY000", ErrorClass::LockTimeout),
            (1020, "HY000", ErrorClass::Serialization),
            (1062, "23000", ErrorClass::Constraint),
            (1406, "22001", ErrorClass::Data),
            (1153, "08S01", ErrorClass::TooLarge),
            (1114, "HY000", ErrorClass::DiskFull),
            (1792, "25006", ErrorClass::ReadOnly),
            (1317, "70100", ErrorClass::Cancelled),
            (9999, "40001", ErrorClass::Serialization),
            (9999, "08S01", ErrorClass::Connection),
            (1146, "42S02", ErrorClass::Other),
            (9999, "22007", ErrorClass::Data),
            (9999, "23000", ErrorClass::Constraint),
            (9999, "HY000", ErrorClass::Other),
        ];
        for (number, state, expected) in cases {
            assert_eq!(class(number, state), expected, "{number} {state}");
        }
        // Each number that is named, under a state that says nothing.
        let named: [(&[u16], ErrorClass); 8] = [
            (&[1213], ErrorClass::Deadlock),
            (&[1205, 3572], ErrorClass::LockTimeout),
            (&[1020], ErrorClass::Serialization),
            (&[1021, 1114], ErrorClass::DiskFull),
            (&[1118, 1153, 1301], ErrorClass::TooLarge),
            (&[1317, 1969, 3024], ErrorClass::Cancelled),
            (&[1040, 1053, 1203, 1226, 1927], ErrorClass::Connection),
            (&[1048, 1062, 1169, 1216, 1217, 1451, 1452, 3819, 4025], ErrorClass::Constraint),
        ];
        for (numbers, expected) in named {
            assert!(numbers.iter().all(|number| class(*number, "HY000") == expected), "{expected:?}");
        }
        assert!([1264, 1265, 1292, 1364, 1366, 1406, 1411].iter().all(|number| class(*number, "HY000") == ErrorClass::Data));
    }
}
