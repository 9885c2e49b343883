//! `timeline.csv`: a line a second, under the names of [`Second`]'s fields.

use super::Second;

/// The header, there even when no second passed.
const FIELDS: [&str; 16] = [
    "second",
    "phase",
    "offered",
    "acknowledged",
    "rejected",
    "unknown",
    "dropped",
    "retries",
    "response_p50_ms",
    "response_p99_ms",
    "service_p50_ms",
    "service_p99_ms",
    "queue_length",
    "in_flight",
    "rss_bytes",
    "faults",
];

/// The file's text.
///
/// # Errors
/// Never in practice: memory takes every line.
pub fn csv(timeline: &[Second]) -> anyhow::Result<String> {
    let mut writer = csv::WriterBuilder::new().has_headers(false).from_writer(Vec::new());
    writer.write_record(FIELDS)?;
    timeline.iter().try_for_each(|second| writer.serialize(second))?;
    Ok(String::from_utf8(writer.into_inner()?)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn the_header_names_the_fields_of_a_second() {
        let value = serde_json::to_value(Second::default()).unwrap();
        let names: Vec<_> = value.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(names, FIELDS);
        assert_eq!(csv(&[]).unwrap().trim_end().split(',').collect::<Vec<_>>(), FIELDS);
    }

    #[test]
    fn every_second_is_a_line_that_reads_back() {
        let timeline = sample::violated().timeline;
        let text = csv(&timeline).unwrap();
        let read: Vec<Second> = csv::Reader::from_reader(text.as_bytes()).deserialize().map(Result::unwrap).collect();
        assert_eq!(read, timeline);
        assert!(read.iter().any(|second| second.response_p50_ms.is_none()), "an empty field must read back as none");
    }
}
