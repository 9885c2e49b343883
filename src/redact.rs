//! Secrets out of everything people or files get to see: passwords in URLs, and values that came from the environment.
//!
//! It errs on the side of hiding too much: a `@` that is not escaped in a password must not show the password's first half.

use serde_json::Value;

use crate::scenario::Scenario;

/// What stands where a secret was.
pub const HIDDEN: &str = "***";

/// Shorter secrets are hidden inside URLs only: replacing every `a` of a text would hide the text, not the secret.
const SHORTEST: usize = 4;

/// `text` without the passwords of the URLs in it.
#[must_use]
pub fn redact_url(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("://").map(|i| i + 3) {
        let end = rest[start..].find(|c: char| c.is_whitespace() || c == '"').map_or(rest.len(), |i| start + i);
        out.push_str(&rest[..start]);
        let url = Parts::of(&rest[start..end]);
        out.push_str(url.user);
        if url.password.is_some() {
            out.push(':');
            out.push_str(HIDDEN);
        }
        out.push_str(if url.has_login { "@" } else { "" });
        redact_query(url.rest, &mut out);
        rest = &rest[end..];
    }
    out.push_str(rest);
    out
}

/// `text` without `secrets` and without the passwords of the URLs in it.
#[must_use]
pub fn redact(text: &str, secrets: &[String]) -> String {
    let mut longest_first: Vec<&String> = secrets.iter().filter(|s| s.len() >= SHORTEST).collect();
    longest_first.sort_by_key(|s| std::cmp::Reverse(s.len()));
    longest_first.into_iter().fold(redact_url(text), |text, secret| text.replace(secret.as_str(), HIDDEN))
}

/// The secrets that `url` carries, as written and decoded. A password that is the user's name is none: the name is shown.
#[must_use]
pub fn secrets_of_url(url: &str) -> Vec<String> {
    let Some((_, after)) = url.split_once("://") else { return Vec::new() };
    let parts = Parts::of(after);
    let query = parts.rest.split_once('?').map_or("", |(_, query)| query);
    let in_query = query.split('&').filter_map(|pair| pair.split_once('=')).filter(|(key, _)| is_secret(key)).map(|(_, value)| value);
    let mut secrets = Vec::new();
    for secret in parts.password.into_iter().chain(in_query).filter(|s| !s.is_empty() && *s != parts.user) {
        let decoded = percent_decode(secret);
        if decoded != secret {
            secrets.push(decoded);
        }
        secrets.push(secret.to_owned());
    }
    secrets
}

/// The resolved scenario as reports keep it.
///
/// # Panics
/// Never: a scenario that was read can be written.
#[must_use]
pub fn redacted_scenario(scenario: &Scenario, secrets: &[String]) -> Value {
    let mut value = serde_json::to_value(scenario).expect("a scenario is made of texts, numbers and lists");
    redact_value(&mut value, secrets);
    value
}

/// Hides `secrets` in every text of `value`.
pub(crate) fn redact_value(value: &mut Value, secrets: &[String]) {
    match value {
        Value::String(text) => *text = redact(text, secrets),
        Value::Array(items) => items.iter_mut().for_each(|item| redact_value(item, secrets)),
        Value::Object(entries) => entries.values_mut().for_each(|item| redact_value(item, secrets)),
        _ => {}
    }
}

/// What follows `://`.
struct Parts<'a> {
    user: &'a str,
    password: Option<&'a str>,
    has_login: bool,
    rest: &'a str,
}

impl<'a> Parts<'a> {
    fn of(after: &'a str) -> Self {
        let Some((login, rest)) = after.rsplit_once('@') else {
            return Self { user: "", password: None, has_login: false, rest: after };
        };
        let (user, password) = login.split_once(':').map_or((login, None), |(user, password)| (user, Some(password)));
        Self { user, password, has_login: true, rest }
    }
}

fn is_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    ["pass", "secret", "token", "key"].iter().any(|word| key.contains(word))
}

fn redact_query(rest: &str, out: &mut String) {
    let Some((path, query)) = rest.split_once('?') else { return out.push_str(rest) };
    out.push_str(path);
    let pairs = query.split('&').map(|pair| match pair.split_once('=') {
        Some((key, value)) if is_secret(key) && !value.is_empty() => format!("{key}={HIDDEN}"),
        _ => pair.to_owned(),
    });
    out.push('?');
    out.push_str(&pairs.collect::<Vec<_>>().join("&"));
}

/// `%41` → `A`; what is no escape stays.
#[must_use]
pub fn percent_decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let escape = (*first == b'%').then(|| tail.get(..2)).flatten().and_then(|hex| std::str::from_utf8(hex).ok());
        match escape.filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit())).and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_in_urls_are_hidden_wherever_they_stand() {
        assert_eq!(redact_url("postgres://bob:s3cret@db:5432/x"), "postgres://bob:***@db:5432/x");
        assert_eq!(redact_url("at \"mysql://bob:p@ss/w#rd@db/x\": refused"), "at \"mysql://bob:***@db/x\": refused");
        assert_eq!(
            redact_url("postgres://bob@db/x?sslmode=require&sslpassword=abc"),
            "postgres://bob@db/x?sslmode=require&sslpassword=***"
        );
        assert_eq!(redact_url("two: a://b:c@d and e://f:g@h."), "two: a://b:***@d and e://f:***@h.");
        assert_eq!(redact_url("sqlite:///tmp/x.db, no secret: 5 @ 6"), "sqlite:///tmp/x.db, no secret: 5 @ 6");
    }

    #[test]
    fn the_secrets_of_a_url_are_known_in_both_forms() {
        assert_eq!(secrets_of_url("postgres://bob:a%40b@db/x"), ["a@b", "a%40b"]);
        assert_eq!(secrets_of_url("postgres://db/x?password=hunter2"), ["hunter2"]);
        assert!(secrets_of_url("postgres://postgres:postgres@db/x").is_empty());
        assert!(secrets_of_url("data.db").is_empty());
    }

    #[test]
    fn longer_secrets_go_first_and_short_ones_only_inside_urls() {
        let secrets = ["hunter".to_owned(), "hunter22".to_owned(), "ab".to_owned()];
        assert_eq!(redact("login hunter22 failed, hunter too; abc a://u:ab@h", &secrets), "login *** failed, *** too; abc a://u:***@h");
    }

    #[test]
    fn escapes_are_decoded_and_other_percents_kept() {
        assert_eq!(percent_decode("a%20b%C3%A4%"), "a bä%");
        assert_eq!(percent_decode("100%+1 %zz"), "100%+1 %zz");
    }
}
