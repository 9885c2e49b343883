//! Values that carry a unit in a scenario: durations, shares, column types. Each reads and writes the form people type.

use std::borrow::Cow;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::table::ColumnType;

/// A length of time, written with its unit: `100ms`, `5s`, `1m 30s`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(pub Duration);

impl Time {
    /// `n` milliseconds.
    #[must_use]
    pub const fn millis(n: u64) -> Self {
        Self(Duration::from_millis(n))
    }

    /// `n` seconds.
    #[must_use]
    pub const fn secs(n: u64) -> Self {
        Self(Duration::from_secs(n))
    }
}

/// One duration in words, without its anchors: digits and a unit, several times.
const TIME_PATTERN: &str = r"^\s*([0-9]+\s*(ns|us|ms|s|sec|m|min|h|hr|d|day|days)\s*)+$";

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(self.0))
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        humantime::parse_duration(text.trim()).map(Time).map_err(|e| D::Error::custom(format!("{text:?} is no duration ({e}); write e.g. 100ms, 5s or 2m")))
    }
}

impl JsonSchema for Time {
    fn schema_name() -> Cow<'static, str> {
        "Time".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": TIME_PATTERN, "description": "A duration with its unit: 100ms, 5s, 2m" })
    }
}

/// A share between 0 and 1; also written `10%`.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd)]
pub struct Share(pub f64);

impl Serialize for Share {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.0)
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Number(f64),
            Percent(String),
        }
        let share = match Form::deserialize(deserializer)? {
            Form::Number(number) => Some(number),
            Form::Percent(text) => text.trim().strip_suffix('%').and_then(|n| n.trim().parse::<f64>().ok()).map(|n| n / 100.0),
        };
        share.filter(|s| (0.0..=1.0).contains(s)).map(Share).ok_or_else(|| D::Error::custom("a share lies between 0 and 1, e.g. 0.1 or 10%"))
    }
}

impl JsonSchema for Share {
    fn schema_name() -> Cow<'static, str> {
        "Share".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["number", "string"], "minimum": 0, "maximum": 1,
            "pattern": r"^\s*(100(\.0+)?|[0-9]{1,2}(\.[0-9]+)?)\s*%$",
            "description": "A share between 0 and 1, or a percentage: 0.1, 10%"
        })
    }
}

/// A column type as written: `int64`, `float64`, `decimal(10,2)`, `bool`, `text`, `bytes`, `timestamp`, `uuid`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TypeName(pub ColumnType);

impl Serialize for TypeName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            ColumnType::Int64 => serializer.serialize_str("int64"),
            ColumnType::Float64 => serializer.serialize_str("float64"),
            ColumnType::Decimal { precision, scale } => serializer.collect_str(&format_args!("decimal({precision},{scale})")),
            ColumnType::Bool => serializer.serialize_str("bool"),
            ColumnType::Text => serializer.serialize_str("text"),
            ColumnType::Bytes => serializer.serialize_str("bytes"),
            ColumnType::Timestamp => serializer.serialize_str("timestamp"),
            ColumnType::Uuid => serializer.serialize_str("uuid"),
        }
    }
}

impl<'de> Deserialize<'de> for TypeName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        parse_type(&text).map(TypeName).ok_or_else(|| {
            D::Error::custom(format!("{text:?} is no column type; write int64, float64, decimal(p,s) with 1 ≤ p ≤ 18 and s ≤ p, bool, text, bytes, timestamp or uuid"))
        })
    }
}

fn parse_type(text: &str) -> Option<ColumnType> {
    Some(match text {
        "int64" => ColumnType::Int64,
        "float64" => ColumnType::Float64,
        "bool" => ColumnType::Bool,
        "text" => ColumnType::Text,
        "bytes" => ColumnType::Bytes,
        "timestamp" => ColumnType::Timestamp,
        "uuid" => ColumnType::Uuid,
        _ => {
            let (precision, scale) = text.strip_prefix("decimal(")?.strip_suffix(')')?.split_once(',')?;
            let (precision, scale) = (precision.trim().parse().ok()?, scale.trim().parse().ok()?);
            return ((1..=18).contains(&precision) && scale <= precision).then_some(ColumnType::Decimal { precision, scale });
        }
    })
}

impl JsonSchema for TypeName {
    fn schema_name() -> Cow<'static, str> {
        "ColumnType".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": r"^(int64|float64|bool|text|bytes|timestamp|uuid|decimal\(\s*([1-9]|1[0-8])\s*,\s*([0-9]|1[0-8])\s*\))$",
            "description": "int64, float64, decimal(p,s) with 1 ≤ p ≤ 18 and s ≤ p, bool, text, bytes, timestamp or uuid"
        })
    }
}
