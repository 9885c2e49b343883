//! Values that carry a unit in a scenario: durations, shares, column types. Each reads and writes the form people type.

use std::borrow::Cow;
use std::str::FromStr;
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

/// Numbers with units, several times. Fractions are as long as a whole number of nanoseconds always comes of them.
const TIME_PATTERN: &str =
    r"^ *(([0-9]{1,9}(\.[0-9]{1,3})? *(us|µs|ms|s|sec|m|min)|[0-9]{1,9}(\.[0-9]{1,2})? *(h|hr)|[0-9]{1,9} *(ns|d|day|days)) *)+$";

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(self.0))
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        humantime::parse_duration(text.trim())
            .map(Time)
            .map_err(|e| D::Error::custom(format!("{text:?} is no duration ({e}); write e.g. 100ms, 5s or 2m")))
    }
}

impl JsonSchema for Time {
    fn schema_name() -> Cow<'static, str> {
        "Time".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": TIME_PATTERN, "description": "A duration with its unit: 100ms, 5s, 1m 30s" })
    }
}

/// An amount of memory, written with its unit: `512MiB`, `2GiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// In bytes.
    pub bytes: u64,
}

const MEMORY_PATTERN: &str = "^[1-9][0-9]{0,5} ?(MiB|GiB)$";

impl Serialize for Memory {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mebibytes = self.bytes >> 20;
        if mebibytes.is_multiple_of(1024) {
            serializer.collect_str(&format_args!("{}GiB", mebibytes / 1024))
        } else {
            serializer.collect_str(&format_args!("{mebibytes}MiB"))
        }
    }
}

impl<'de> Deserialize<'de> for Memory {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        let amount = |unit: &str, bits: u32| text.strip_suffix(unit)?.trim().parse::<u32>().ok().map(|n| u64::from(n) << bits);
        let bytes = amount("MiB", 20).or_else(|| amount("GiB", 30));
        bytes
            .map(|bytes| Self { bytes })
            .ok_or_else(|| D::Error::custom(format!("{text:?} is no amount of memory; write e.g. 512MiB or 2GiB")))
    }
}

impl JsonSchema for Memory {
    fn schema_name() -> Cow<'static, str> {
        "Memory".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": MEMORY_PATTERN, "description": "An amount of memory with its unit: 512MiB, 2GiB" })
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
            Form::Percent(text) => percentage(&text),
        };
        share
            .filter(|s| (0.0..=1.0).contains(s))
            .map(Share)
            .ok_or_else(|| D::Error::custom("a share lies between 0 and 1, e.g. 0.1 or 10%"))
    }
}

/// What a text that ends in `%` stands for.
fn percentage(text: &str) -> Option<f64> {
    text.trim().strip_suffix('%').and_then(|n| n.trim().parse::<f64>().ok()).map(|n| n / 100.0)
}

/// As on the command line, where a number is a text too.
impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let share = percentage(text).or_else(|| text.trim().parse().ok());
        share.filter(|s| (0.0..=1.0).contains(s)).map(Share).ok_or_else(|| "a share lies between 0 and 1, e.g. 0.1 or 10%".to_owned())
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
        // Written out for every precision, so that the scale cannot exceed it.
        let decimals: Vec<String> =
            (1..=18).map(|p| format!(r"{p}\s*,\s*({})", (0..=p).map(|s| s.to_string()).collect::<Vec<_>>().join("|"))).collect();
        json_schema!({
            "type": "string",
            "pattern": format!(r"^(int64|float64|bool|text|bytes|timestamp|uuid|decimal\(\s*({})\s*\))$", decimals.join("|")),
            "description": "int64, float64, decimal(p,s) with 1 ≤ p ≤ 18 and s ≤ p, bool, text, bytes, timestamp or uuid"
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// What the schema of `T` says of `value`.
    fn valid<T: JsonSchema>(value: &serde_json::Value) -> bool {
        jsonschema::is_valid(&schemars::schema_for!(T).to_value(), value)
    }

    #[test]
    fn durations_carry_their_unit() {
        let read = |text: &str| serde_json::from_value::<Time>(json!(text)).ok().filter(|_| valid::<Time>(&json!(text))).map(|t| t.0);
        assert_eq!(read("100ms"), Some(Duration::from_millis(100)));
        assert_eq!(read("1m 30s"), Some(Duration::from_secs(90)));
        assert_eq!(read("1.5 s"), Some(Duration::from_millis(1500)));
        assert_eq!(read("0.25h"), Some(Duration::from_secs(900)));
        assert_eq!(read("2days"), Some(Duration::from_secs(172_800)));
        for wrong in ["5", "-5s", "5 parsecs", "", "s", "1w", "0.0001h", "99999999999d"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn memory_carries_its_unit() {
        let read = |text: &str| serde_json::from_value::<Memory>(json!(text)).ok().filter(|_| valid::<Memory>(&json!(text)));
        for (text, bytes, written) in [("512MiB", 512 << 20, "512MiB"), ("2 GiB", 2 << 30, "2GiB"), ("1024MiB", 1 << 30, "1GiB")] {
            assert_eq!(read(text), Some(Memory { bytes }), "{text}");
            assert_eq!(serde_json::to_value(Memory { bytes }).unwrap(), json!(written));
        }
        for wrong in ["512", "1GB", "0MiB", "1.5GiB", "-1GiB", "GiB"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn shares_are_numbers_or_percentages() {
        let read =
            |value: serde_json::Value| serde_json::from_value::<Share>(value.clone()).ok().filter(|_| valid::<Share>(&value)).map(|s| s.0);
        assert_eq!(read(json!(0.25)), Some(0.25));
        assert_eq!(read(json!("10%")), Some(0.1));
        assert_eq!(read(json!("100 %")), Some(1.0));
        assert_eq!(read(json!(1)), Some(1.0));
        for wrong in [json!(1.1), json!(-0.1), json!("101%"), json!("0.1"), json!(true), json!("-1%")] {
            assert_eq!(read(wrong.clone()), None, "{wrong}");
        }
    }

    #[test]
    fn a_decimals_scale_is_within_its_precision() {
        let read = |text: &str| (valid::<TypeName>(&json!(text)), serde_json::from_value::<TypeName>(json!(text)).ok().map(|t| t.0));
        assert_eq!(read("decimal(10,2)"), (true, Some(ColumnType::Decimal { precision: 10, scale: 2 })));
        assert_eq!(read("decimal( 18 , 18 )"), (true, Some(ColumnType::Decimal { precision: 18, scale: 18 })));
        for wrong in ["decimal(2,3)", "decimal(19,0)", "decimal(0,0)", "decimal(5)", "int32", "TEXT", "decimal(05,1)"] {
            assert!(!read(wrong).0, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn what_the_patterns_allow_can_be_read(text in TIME_PATTERN.trim_start_matches('^').trim_end_matches('$')) {
            prop_assert!(valid::<Time>(&json!(text)));
            prop_assert!(serde_json::from_value::<Time>(json!(text)).is_ok(), "{text:?}");
        }

        #[test]
        fn a_written_duration_is_valid_and_the_same(nanos in 0u64..30 * 86_400 * 1_000_000_000) {
            let time = Time(Duration::from_nanos(nanos));
            let written = serde_json::to_value(time).unwrap();
            prop_assert!(valid::<Time>(&written), "{written}");
            prop_assert_eq!(serde_json::from_value::<Time>(written).unwrap(), time);
        }
    }
}
