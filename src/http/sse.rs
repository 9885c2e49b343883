//! Event streams (`text/event-stream`) as the WHATWG defines them, fed piece by piece: the same events come out however the bytes
//! were split. Only `data` is kept; `event`, `id` and `retry` say nothing about a model's answer.

use super::failure::too_large;
use crate::target::Failure;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A parser in the midst of a stream.
pub(super) struct Parser {
    /// Most bytes of an event: of its data, or of any one line.
    event_bytes: usize,
    /// The beginning of a line whose end has not come.
    line: Vec<u8>,
    /// The event so far, if it has data.
    data: Option<Vec<u8>>,
    /// Whether a line feed now belongs to the line end before it.
    after_return: bool,
    /// Whether no line has ended yet.
    at_start: bool,
    /// Lines that are no field of an event stream; they are skipped.
    foreign_lines: u64,
}

impl Parser {
    pub(super) fn new(event_bytes: usize) -> Self {
        Self { event_bytes, line: Vec::new(), data: None, after_return: false, at_start: true, foreign_lines: 0 }
    }

    /// Lines so far that an event stream does not have.
    pub(super) fn foreign_lines(&self) -> u64 {
        self.foreign_lines
    }

    /// Takes the next bytes and gives the data of every event that they complete to `event`.
    ///
    /// # Errors
    /// `event`'s own, or when an event is too large.
    pub(super) fn push(&mut self, mut bytes: &[u8], mut event: impl FnMut(&[u8]) -> Result<(), Failure>) -> Result<(), Failure> {
        if std::mem::take(&mut self.after_return) {
            match bytes {
                [] => self.after_return = true,
                [b'\n', rest @ ..] => bytes = rest,
                _ => {}
            }
        }
        while let Some(end) = memchr::memchr2(b'\n', b'\r', bytes) {
            let line = &bytes[..end];
            if self.line.is_empty() {
                self.fits(line.len())?;
                self.end_line(line, &mut event)?;
            } else {
                self.keep(line)?;
                let mut line = std::mem::take(&mut self.line);
                self.end_line(&line, &mut event)?;
                line.clear();
                self.line = line;
            }
            bytes = match &bytes[end..] {
                [b'\r', b'\n', rest @ ..] => rest,
                [b'\r'] => {
                    self.after_return = true;
                    &[]
                }
                other => &other[1..],
            };
        }
        self.keep(bytes)
    }

    /// Appends to the unfinished line.
    fn keep(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.fits(self.line.len() + bytes.len())?;
        self.line.extend_from_slice(bytes);
        Ok(())
    }

    /// Whether a line may be so long.
    fn fits(&self, length: usize) -> Result<(), Failure> {
        if length > self.event_bytes { Err(too_large("a line of the stream", self.event_bytes, "limits.event_bytes")) } else { Ok(()) }
    }

    fn end_line(&mut self, mut line: &[u8], event: &mut impl FnMut(&[u8]) -> Result<(), Failure>) -> Result<(), Failure> {
        if std::mem::take(&mut self.at_start) {
            line = line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line);
        }
        if line.is_empty() {
            return self.data.take().map_or(Ok(()), |data| event(&data));
        }
        let (field, value) = match memchr::memchr(b':', line) {
            Some(colon) => (&line[..colon], &line[colon + 1..]),
            None => (line, &[][..]),
        };
        match field {
            b"data" => self.append(value.strip_prefix(b" ").unwrap_or(value)),
            // An empty name begins a comment.
            b"" | b"event" | b"id" | b"retry" => Ok(()),
            _ => {
                self.foreign_lines += 1;
                Ok(())
            }
        }
    }

    fn append(&mut self, value: &[u8]) -> Result<(), Failure> {
        let kept = self.data.as_ref().map_or(0, |data| data.len() + 1);
        if kept + value.len() > self.event_bytes {
            return Err(too_large("an event of the stream", self.event_bytes, "limits.event_bytes"));
        }
        match &mut self.data {
            Some(data) => {
                data.push(b'\n');
                data.extend_from_slice(value);
            }
            None => self.data = Some(value.to_vec()),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::target::ErrorClass;

    fn events(pieces: &[&[u8]]) -> Vec<String> {
        let mut parser = Parser::new(1 << 20);
        let mut events = Vec::new();
        for piece in pieces {
            parser
                .push(piece, |data| {
                    events.push(String::from_utf8_lossy(data).into_owned());
                    Ok(())
                })
                .unwrap();
        }
        events
    }

    #[test]
    fn events_are_read_as_the_standard_says() {
        let cases: [(&str, &[&str]); 13] = [
            ("data: a\n\ndata: b\n\n", &["a", "b"]),
            ("data: a\r\n\r\ndata: b\r\rdata: c\n\n", &["a", "b", "c"]),
            ("data: one\ndata: two\n\n", &["one\ntwo"]),
            ("data\n\ndata\ndata\n\ndata:", &["", "\n"]),
            ("data:test\n\ndata: test\n\ndata:  test\n\n", &["test", "test", " test"]),
            (": comment\n\n:\n\ndata: a\n: between\ndata: b\n\n", &["a\nb"]),
            ("\u{feff}data: marked\n\n", &["marked"]),
            ("data: a\n\n\u{feff}data: no field\n\n", &["a"]),
            ("event: x\nid: 1\nretry: 5\ndata: {\"a\":\"b: c\"}\n\n", &["{\"a\":\"b: c\"}"]),
            ("event: nothing\n\n", &[]),
            ("DATA: a\n\n data: b\n\nfield\n\n", &[]),
            ("data: never ended\n", &[]),
            ("\n\n\r\n\rdata: ü\n\n", &["ü"]),
        ];
        for (stream, expected) in cases {
            assert_eq!(events(&[stream.as_bytes()]), expected, "{stream:?}");
        }
    }

    #[test]
    fn lines_that_are_no_fields_are_counted() {
        let mut parser = Parser::new(64);
        parser.push(b"<html>\n<p>data: no</p>\n: comment\ndata: yes\n", |_| Ok(())).unwrap();
        assert_eq!(parser.foreign_lines(), 2);
    }

    #[test]
    fn what_is_too_large_is_refused_before_it_is_kept() {
        for stream in ["data: 0123456789abcdef\n", "data: 0123\ndata: 4567\ndata: 89ab\n\n", ": 0123456789abcdef\n"] {
            let mut parser = Parser::new(12);
            let pushed = stream.as_bytes().iter().try_for_each(|byte| parser.push(&[*byte], |_| Ok(())));
            assert_eq!(pushed.unwrap_err().class, ErrorClass::TooLarge, "{stream:?}");
            let at_once = Parser::new(12).push(stream.as_bytes(), |_| Ok(()));
            assert_eq!(at_once.unwrap_err().class, ErrorClass::TooLarge, "{stream:?} at once");
            assert!(parser.line.len() <= 12 && parser.data.unwrap_or_default().len() <= 12, "{stream:?}");
        }
    }

    proptest! {
        #[test]
        fn any_split_of_the_bytes_gives_the_same_events(
            pieces in prop::collection::vec(
                prop::sample::select(vec!["\n", "\r", "\r\n", "data", "data:", "data: ", ":", " ", "x", "ü", "\u{feff}", "id: 3", "\n\n"]),
                0..60,
            ),
            cuts in prop::collection::vec(0usize..400, 0..40),
        ) {
            let stream = pieces.concat().into_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(stream.len())).collect();
            cuts.extend([0, stream.len()]);
            cuts.sort_unstable();
            let split: Vec<&[u8]> = cuts.windows(2).map(|cut| &stream[cut[0]..cut[1]]).collect();
            prop_assert_eq!(events(&split), events(&[&stream]));
        }
    }
}
