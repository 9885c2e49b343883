//! What our own HTTP servers have in common: whose token a request brings, and foreign text in a page.

use http::HeaderMap;
use http::header::AUTHORIZATION;

/// Whether the request brings `Authorization: Bearer` with this token.
pub(crate) fn has_token(headers: &HeaderMap, token: &str) -> bool {
    let given = headers.get(AUTHORIZATION).and_then(|value| value.as_bytes().split_at_checked("Bearer ".len()));
    given.is_some_and(|(scheme, given)| scheme.eq_ignore_ascii_case(b"Bearer ") && same(given, token.as_bytes()))
}

/// Whether two secrets are the same, in a time that tells nothing but their lengths.
fn same(a: &[u8], b: &[u8]) -> bool {
    let differing = a.iter().zip(b).fold(0, |bits, (a, b)| std::hint::black_box(bits | (a ^ b)));
    a.len() == b.len() && differing == 0
}

/// `text` for the inside of an element or a quoted attribute of HTML.
pub(crate) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn only_the_whole_token_of_the_right_scheme_is_taken() {
        let brings = |value: &'static str| {
            let headers = HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_static(value))]);
            has_token(&headers, "s3cret-token")
        };
        assert!(brings("Bearer s3cret-token") && brings("bearer s3cret-token"));
        for wrong in ["", "Bearer", "Bearer ", "Bearer s3cret-toke", "Bearer s3cret-tokenX", "Bearer s3cret-Token", "Basic s3cret-token"] {
            assert!(!brings(wrong), "{wrong:?}");
        }
        assert!(!has_token(&HeaderMap::new(), "s3cret-token"));
    }

    #[test]
    fn no_text_ends_an_element_or_an_attribute() {
        assert_eq!(escaped(r#"<a href="x">&'"#), "&lt;a href=&quot;x&quot;&gt;&amp;&#39;");
    }
}
