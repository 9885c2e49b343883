//! Looks a header of a reply up.

use super::Headers;

impl Headers {
    /// The value of the first header of this name, whatever its case, if it is text.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        match self {
            Headers::Map(map) => map.get(name)?.to_str().ok(),
            Headers::Raw(head) => {
                // The first line is the status.
                let mut fields = head.split(|byte| *byte == b'\n').skip(1).filter_map(|line| {
                    let colon = memchr::memchr(b':', line)?;
                    Some((&line[..colon], &line[colon + 1..]))
                });
                let (_, value) = fields.find(|(field, _)| field.eq_ignore_ascii_case(name.as_bytes()))?;
                std::str::from_utf8(value.trim_ascii()).ok()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_found_in_either_form() {
        let raw = Headers::Raw(
            b"HTTP/1.1 200 x: y\r\nX-Response-Time-Ms:  145.32 \r\nhost: a:1\r\nHost: b\r\nempty:\r\nbad: \xff\r\n\r\n".to_vec(),
        );
        assert_eq!(raw.get("x-response-time-ms"), Some("145.32"));
        assert_eq!(raw.get("HOST"), Some("a:1"));
        assert_eq!(raw.get("empty"), Some(""));
        assert_eq!(raw.get("bad"), None);
        assert_eq!(raw.get("http/1.1 200 x"), None);
        let mut map = http::HeaderMap::new();
        map.insert("x-a", http::HeaderValue::from_static("1"));
        assert_eq!(Headers::Map(map).get("X-A"), Some("1"));
    }
}
