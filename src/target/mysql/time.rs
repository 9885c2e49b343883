//! DATETIME values: as the text that is bound, and from the binary protocol's fields.

use std::fmt::Write as _;

const DAY_MICROS: i64 = 86_400_000_000;

/// Writes microseconds since the Unix epoch as `2024-01-02 03:04:05.000006`.
pub(super) fn write(out: &mut String, micros: i64) {
    let (days, rest) = (micros.div_euclid(DAY_MICROS), micros.rem_euclid(DAY_MICROS));
    let (year, month, day) = civil_from_days(days);
    let seconds = rest / 1_000_000;
    // Writing into a String cannot fail.
    let _ = write!(
        out,
        "{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}.{:06}",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60,
        rest % 1_000_000
    );
}

/// The fields of a DATE, DATETIME or TIMESTAMP of the binary protocol: length, then as many of them as are not zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Fields {
    year: u16,
    month: u8,
    day: u8,
    hour: u8,
    minute: u8,
    second: u8,
    micro: u32,
}

impl Fields {
    /// `None` if the bytes are no such value.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let (len, rest) = bytes.split_first()?;
        let mut fields = Self::default();
        if !matches!(len, 0 | 4 | 7 | 11) || rest.len() != usize::from(*len) {
            return None;
        }
        if let [y0, y1, month, day, ..] = *rest {
            (fields.year, fields.month, fields.day) = (u16::from_le_bytes([y0, y1]), month, day);
        }
        if let [_, _, _, _, hour, minute, second, ..] = *rest {
            (fields.hour, fields.minute, fields.second) = (hour, minute, second);
        }
        if let [.., a, b, c, d] = *rest
            && *len == 11
        {
            fields.micro = u32::from_le_bytes([a, b, c, d]);
        }
        Some(fields)
    }

    /// Microseconds since the Unix epoch; `None` for dates that are none, such as 0000-00-00.
    pub(super) fn micros(self) -> Option<i64> {
        let (month, day) = (i64::from(self.month), i64::from(self.day));
        if month == 0 || day == 0 {
            return None;
        }
        let seconds = i64::from(self.hour) * 3600 + i64::from(self.minute) * 60 + i64::from(self.second);
        Some(days_from_civil(self.year.into(), month, day) * DAY_MICROS + seconds * 1_000_000 + i64::from(self.micro))
    }

    /// As the server would show it.
    pub(super) fn text(self) -> String {
        let Self { year, month, day, hour, minute, second, micro } = self;
        format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{micro:06}")
    }
}

/// Days since 1970-01-01 of a date of the proleptic Gregorian calendar (Howard Hinnant's algorithm: years begin in March).
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// The inverse of [`days_from_civil`].
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(micros: i64) -> String {
        let mut out = String::new();
        write(&mut out, micros);
        out
    }

    #[test]
    fn microseconds_are_written_as_the_date_they_are() {
        assert_eq!(text(0), "1970-01-01 00:00:00.000000");
        assert_eq!(text(-1), "1969-12-31 23:59:59.999999");
        assert_eq!(text(1_709_210_096_000_007), "2024-02-29 12:34:56.000007");
        assert_eq!(text(253_402_300_799_999_999), "9999-12-31 23:59:59.999999");
        assert_eq!(text(-30_610_224_000_000_000), "1000-01-01 00:00:00.000000");
    }

    #[test]
    fn fields_give_the_same_instant() {
        let bytes = [11, 0xE8, 0x07, 2, 29, 12, 34, 56, 7, 0, 0, 0];
        assert_eq!(Fields::read(&bytes).unwrap().micros(), Some(1_709_210_096_000_007));
        assert_eq!(Fields::read(&[4, 0xB2, 0x07, 1, 1]).unwrap().micros(), Some(0));
        for day in -800_000..800_000 {
            let (y, m, d) = civil_from_days(day);
            assert_eq!(days_from_civil(y, m, d), day);
        }
    }

    #[test]
    fn dates_that_are_none_are_shown_as_text_and_cut_bytes_do_not_panic() {
        let zero = Fields::read(&[0]).unwrap();
        assert_eq!((zero.micros(), zero.text().as_str()), (None, "0000-00-00 00:00:00.000000"));
        let whole = [11, 0xE8, 0x07, 2, 29, 12, 34, 56, 7, 0, 0, 0];
        for len in 0..whole.len() {
            assert_eq!(Fields::read(&whole[..len]), None, "{len} bytes");
        }
    }
}
