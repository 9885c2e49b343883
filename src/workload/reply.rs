//! The one right reply of the mock model to a request: a pure function of the request's id and the number of tokens asked for, so
//! that whoever knows the id can tell a whole reply from a cut, mixed-up, repeated or altered one, without either side storing it.
//!
//! The first token is the id itself, so that a reply that belongs to another request says whose it is; every later token carries its
//! number and a word drawn from the id: `bq-0badcafe-17 1-tirelo 2-onka 3-…`.

use std::fmt::Write as _;

/// Every request id begins with it.
pub const ID_PREFIX: &str = "bq-";

/// Tokens of a reply whose request asks for no number.
pub const DEFAULT_TOKENS: u32 = 32;

/// The id of operation `index`: `tag` names the run and its seed, so that runs with one seed leave log rows that differ.
#[must_use]
pub fn request_id(tag: u32, index: u64) -> String {
    format!("{ID_PREFIX}{tag:08x}-{index}")
}

/// The run's tag and the operation's index that an id names, if it is one of ours.
#[must_use]
pub fn parse_id(id: &str) -> Option<(u32, u64)> {
    let (tag, index) = id.strip_prefix(ID_PREFIX)?.split_once('-')?;
    let sound = tag.len() == 8 && (index == "0" || !index.starts_with('0')) && index.bytes().all(|b| b.is_ascii_digit());
    sound.then(|| Some((u32::from_str_radix(tag, 16).ok()?, index.parse().ok()?)))?
}

/// The first id of ours in `text`, e.g. in a prompt.
#[must_use]
pub fn find_id(text: &str) -> Option<&str> {
    text.match_indices(ID_PREFIX).find_map(|(at, _)| {
        let rest = &text[at..];
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '-').unwrap_or(rest.len());
        parse_id(&rest[..end]).map(|_| &rest[..end])
    })
}

/// The tokens of the right reply: `tokens` of them, the first being the id; joined they are the whole text.
pub fn tokens(id: &str, tokens: u32) -> impl Iterator<Item = String> + '_ {
    let mut state = fnv1a(id.as_bytes());
    (0..tokens).map(move |number| {
        if number == 0 {
            return id.to_owned();
        }
        let mut token = format!(" {number}-");
        state = splitmix(state);
        let mut bits = state;
        for _ in 0..2 + bits % 3 {
            bits >>= 7;
            // Writing into a String cannot fail.
            let _ = write!(token, "{}", SYLLABLES[(bits & 31) as usize]);
        }
        token
    })
}

/// The whole text of the right reply.
#[must_use]
pub fn text(id: &str, count: u32) -> String {
    tokens(id, count).collect()
}

/// How the mock model counts the tokens of a prompt: its words.
#[must_use]
pub fn prompt_tokens(prompt: &str) -> u64 {
    prompt.split_whitespace().count() as u64
}

const SYLLABLES: [&str; 32] = [
    "ba", "be", "bi", "bo", "da", "de", "di", "do", "ka", "ke", "ki", "ko", "la", "le", "li", "lo", "ma", "me", "mi", "mo", "na", "ne",
    "ni", "no", "ra", "re", "ri", "ro", "ta", "te", "ti", "to",
];

/// FNV-1a, 64 bits (Fowler, Noll, Vo).
pub(crate) fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// SplitMix64 (Steele, Lea, Flood, 2014).
fn splitmix(state: u64) -> u64 {
    let mut z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_names_its_run_and_its_operation() {
        let id = request_id(0x0bad_cafe, 17);
        assert_eq!(id, "bq-0badcafe-17");
        assert_eq!(parse_id(&id), Some((0x0bad_cafe, 17)));
        for other in ["bq-0badcafe-", "bq-0badcafe-017", "bq-0badcafe-x", "bq-bad-1", "0badcafe-17", "bq-0badcafe-18446744073709551616"] {
            assert_eq!(parse_id(other), None, "{other}");
        }
        assert_eq!(find_id("say: bq-no, bq-0badcafe-17, please"), Some("bq-0badcafe-17"));
        assert_eq!(find_id("nothing"), None);
    }

    #[test]
    fn a_reply_says_whose_it_is_and_counts_its_tokens() {
        let reply = text("bq-0badcafe-17", 4);
        // Portable: saved ledgers are judged by it.
        insta::assert_snapshot!(reply);
        assert_eq!(tokens("bq-0badcafe-17", 4).count(), 4);
        assert_ne!(text("bq-0badcafe-18", 4)[14..], reply[14..], "the words are drawn from the id");
        assert_eq!(text("bq-0badcafe-17", 3), reply[..reply.find(" 3-").unwrap_or_default()], "fewer tokens are a beginning");
        assert_eq!(prompt_tokens(" a b\nc "), 3);
    }
}
