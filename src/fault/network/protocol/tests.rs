//! Conversations as they pass on the wire, split at every place.

use proptest::prelude::*;

use super::*;

/// Who said what, in order.
type Script = Vec<(bool, Vec<u8>)>;

/// What was understood, by the number of bytes that this side had sent before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Begins { at: usize, commits: bool },
    RequestEnds { at: usize },
    AnswerEnds { at: usize, failed: bool },
}

/// Reads `script`, each of its texts in pieces of the lengths that `cuts` gives for what of the text was read before.
fn understood(spoken: Spoken, script: &Script, mut cuts: impl FnMut(usize) -> usize) -> Vec<Event> {
    let mut reader = spoken.reader();
    let mut events = Vec::new();
    let mut held: [Vec<u8>; 2] = Default::default();
    let mut read = [0, 0];
    for (client, text) in script {
        let side = usize::from(*client);
        let mut rest = text.as_slice();
        while !rest.is_empty() {
            let (now, then) = rest.split_at(cuts(text.len() - rest.len()).clamp(1, rest.len()));
            rest = then;
            held[side].extend_from_slice(now);
            while !held[side].is_empty() {
                let piece = if *client { reader.client(&held[side]) } else { reader.server(&held[side]) };
                let Some(piece) = piece else { break };
                assert!((1..=held[side].len()).contains(&piece.len), "{piece:?}");
                events.extend(piece.begins.map(|request| Event::Begins { at: read[side], commits: request.commits }));
                read[side] += piece.len;
                held[side].drain(..piece.len);
                if piece.ends {
                    let at = read[side];
                    events.push(if *client { Event::RequestEnds { at } } else { Event::AnswerEnds { at, failed: piece.failed } });
                }
            }
        }
    }
    assert!(held.iter().all(Vec::is_empty), "something was held back: {held:?}");
    events
}

/// Asserts what is understood of `script`, wherever it is split.
#[track_caller]
fn assert_understood(spoken: Spoken, script: &Script, expected: &[Event]) {
    assert_eq!(understood(spoken, script, |_| usize::MAX), expected);
    assert_eq!(understood(spoken, script, |_| 1), expected, "byte by byte");
    let longest = script.iter().map(|(_, text)| text.len()).max().unwrap();
    for first in 1..longest {
        let cut = |read| if read == 0 { first } else { usize::MAX };
        assert_eq!(understood(spoken, script, cut), expected, "cut after {first}");
    }
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind], (body.len() as u32 + 4).to_be_bytes().as_slice(), body].concat()
}

fn startup(code: u32, rest: &[u8]) -> Vec<u8> {
    [(rest.len() as u32 + 8).to_be_bytes().as_slice(), &code.to_be_bytes(), rest].concat()
}

fn ready(transaction: u8) -> Vec<u8> {
    message(b'Z', &[transaction])
}

/// A login without encryption, up to the server being ready.
fn postgres_login() -> Script {
    vec![
        (true, startup(80_877_103, b"")),
        (false, b"N".to_vec()),
        (true, startup(196_608, b"user\0me\0\0")),
        (false, message(b'R', &[0, 0, 0, 5, 1, 2, 3, 4])),
        (true, message(b'p', b"md5\0")),
        (false, [message(b'R', &[0; 4]), message(b'S', b"a\0b\0"), ready(b'I')].concat()),
    ]
}

fn sent(script: &Script, client: bool) -> usize {
    script.iter().filter(|(of, _)| *of == client).map(|(_, text)| text.len()).sum()
}

#[test]
fn postgres_extended_queries_are_told_apart() {
    let mut script = postgres_login();
    let prepare = [message(b'P', b"s1\0  insert INTO t VALUES ($1)\0\0\0"), message(b'D', b"Ss1\0"), message(b'S', b"")].concat();
    script.push((true, prepare));
    script.push((false, [message(b'1', b""), message(b'n', b""), ready(b'I')].concat()));
    let begins = sent(&script, true);
    let bind = message(b'B', &[b"\0s1\0".as_slice(), &[7; 300]].concat());
    let execute = [bind, message(b'E', b"\0\0\0\0\0"), message(b'C', b"P\0"), message(b'S', b"")].concat();
    script.push((true, execute.clone()));
    let ends = sent(&script, true);
    script.push((false, [message(b'2', b""), message(b'C', b"INSERT 0 1\0"), ready(b'I')].concat()));
    let answered = sent(&script, false);
    script.push((true, [message(b'C', b"Ss1\0"), message(b'S', b"")].concat()));
    script.push((false, [message(b'3', b""), ready(b'I')].concat()));
    // Nobody knows what a statement does that was closed.
    script.push((true, execute));
    script.push((false, [message(b'E', b"no such\0"), ready(b'I')].concat()));
    let expected =
        [Event::Begins { at: begins, commits: true }, Event::RequestEnds { at: ends }, Event::AnswerEnds { at: answered, failed: false }];
    assert_understood(Spoken::Postgres, &script, &expected);
}

#[test]
fn postgres_commits_where_its_transaction_ends() {
    let mut script = postgres_login();
    let mut expected = Vec::new();
    let query = |text: &str| message(b'Q', &[text.as_bytes(), b"\0"].concat());
    let steps = [("BEGIN", None, b'T', false), ("insert into t", Some(false), b'T', false), ("COMMIT", Some(true), b'I', false)];
    let failed = [("REPLACE x", Some(true), b'I', true), ("select 'COMMIT'", None, b'I', false)];
    for (text, commits, after, fails) in steps.into_iter().chain(failed) {
        if let Some(commits) = commits {
            expected.push(Event::Begins { at: sent(&script, true), commits });
        }
        script.push((true, query(text)));
        if commits.is_some() {
            expected.push(Event::RequestEnds { at: sent(&script, true) });
        }
        script.push((false, [message(if fails { b'E' } else { b'C' }, b"x\0"), ready(after)].concat()));
        if commits.is_some() {
            expected.push(Event::AnswerEnds { at: sent(&script, false), failed: fails });
        }
    }
    assert_understood(Spoken::Postgres, &script, &expected);
}

#[test]
fn a_copy_ends_with_its_rows_and_its_invitation_is_no_answer() {
    let mut script = postgres_login();
    let begins = sent(&script, true);
    script.push((true, message(b'Q', b"COPY \"t\" (\"a\") FROM STDIN (FORMAT binary)\0")));
    script.push((false, message(b'G', &[1, 0, 1, 0, 1])));
    script.push((true, [message(b'd', &[3; 200]), message(b'd', b"x")].concat()));
    script.push((true, message(b'c', b"")));
    let ends = sent(&script, true);
    script.push((false, [message(b'C', b"COPY 2\0"), ready(b'I')].concat()));
    let answered = sent(&script, false);
    script.push((true, message(b'Q', b"COPY t TO STDOUT\0")));
    script.push((false, [message(b'H', &[1, 0, 0]), message(b'd', b"row"), message(b'c', b""), ready(b'I')].concat()));
    let expected =
        [Event::Begins { at: begins, commits: true }, Event::RequestEnds { at: ends }, Event::AnswerEnds { at: answered, failed: false }];
    assert_understood(Spoken::Postgres, &script, &expected);
    let mut reader = Spoken::Postgres.reader();
    let parts = |reader: &mut dyn Reader, client: bool, mut text: &[u8]| {
        let mut parts = Vec::new();
        while !text.is_empty() {
            let piece = if client { reader.client(text) } else { reader.server(text) }.unwrap();
            parts.push(piece.part);
            text = &text[piece.len..];
        }
        parts
    };
    let of: Vec<_> = script[6..10].iter().collect();
    for (client, text) in &script[..6] {
        parts(reader.as_mut(), *client, text);
    }
    assert!(parts(reader.as_mut(), true, &of[0].1).iter().all(|part| *part));
    assert!(parts(reader.as_mut(), false, &of[1].1).iter().all(|part| !part), "the invitation passes");
}

fn packet(number: u8, payload: &[u8]) -> Vec<u8> {
    let len = (payload.len() as u32).to_le_bytes();
    [&len[..3], &[number], payload].concat()
}

/// An OK with this status behind a large number of rows.
fn ok(status: u16) -> Vec<u8> {
    packet(1, &[&[0, 0xfc, 1, 1, 0][..], &status.to_le_bytes(), &[0, 0]].concat())
}

fn mysql_login() -> Script {
    let greeting = [b"\x0a10.11\0".as_slice(), &[9; 40]].concat();
    vec![
        (false, packet(0, &greeting)),
        (true, packet(1, &[&0x00a0_8205u32.to_le_bytes()[..], &[1; 60]].concat())),
        (false, packet(2, b"\xfemysql_native_password\0salt")),
        (true, packet(3, &[5; 20])),
        (false, packet(4, &[0, 0, 0, 2, 0, 0, 0])),
    ]
}

#[test]
fn mysql_statements_are_known_by_what_prepared_them() {
    let mut script = mysql_login();
    script.push((true, packet(0, b"\x16INSERT INTO t VALUES (?)")));
    script.push((false, [packet(1, &[&[0][..], &7u32.to_le_bytes(), &[0, 0, 1, 0, 0, 0, 0]].concat()), packet(2, &[3; 30])].concat()));
    let begins = sent(&script, true);
    script.push((true, packet(0, &[&[0x17][..], &7u32.to_le_bytes(), &[1; 200]].concat())));
    let ends = sent(&script, true);
    script.push((false, ok(2)));
    let answered = sent(&script, false);
    script.push((true, packet(0, b"\x03SHOW COUNT(*) WARNINGS")));
    script.push((false, [packet(1, &[1]), packet(2, &[3; 40]), packet(3, b"\x010"), packet(4, &[0xfe, 0, 0, 2, 0])].concat()));
    script.push((true, packet(0, &[&[0x19][..], &7u32.to_le_bytes()].concat())));
    script.push((true, packet(0, &[&[0x17][..], &7u32.to_le_bytes(), &[1; 9]].concat())));
    script.push((false, packet(1, b"\xff\x10\x04#HY000unknown")));
    let expected =
        [Event::Begins { at: begins, commits: true }, Event::RequestEnds { at: ends }, Event::AnswerEnds { at: answered, failed: false }];
    assert_understood(Spoken::Mysql, &script, &expected);
}

#[test]
fn mysql_commits_where_its_transaction_ends() {
    let mut script = mysql_login();
    let mut expected = Vec::new();
    let error = packet(1, b"\xff\x26\x04#23000duplicate");
    let steps = [
        ("BEGIN", None, ok(3)),
        ("REPLACE INTO t", Some(false), ok(3)),
        ("COMMIT", Some(true), ok(2)),
        ("insert into t", Some(true), error),
        ("SET autocommit = 0", None, ok(0)),
        ("insert into t", Some(false), ok(1)),
    ];
    for (text, commits, answer) in steps {
        expected.extend(commits.map(|commits| Event::Begins { at: sent(&script, true), commits }));
        script.push((true, packet(0, &[b"\x03", text.as_bytes()].concat())));
        expected.extend(commits.map(|_| Event::RequestEnds { at: sent(&script, true) }));
        let failed = answer[4] == 0xff;
        script.push((false, answer));
        expected.extend(commits.map(|_| Event::AnswerEnds { at: sent(&script, false), failed }));
    }
    assert_understood(Spoken::Mysql, &script, &expected);
}

#[test]
fn a_command_of_more_than_one_packet_is_one_request() {
    let mut script = mysql_login();
    let text = [b"\x03INSERT INTO t VALUES ('".as_slice(), &vec![b'x'; 0xff_ffff - 24]].concat();
    let begins = sent(&script, true);
    script.push((true, [[&[0xff, 0xff, 0xff, 0][..], &text].concat(), packet(1, b"')")].concat()));
    let ends = sent(&script, true);
    script.push((false, ok(2)));
    let expected = [
        Event::Begins { at: begins, commits: true },
        Event::RequestEnds { at: ends },
        Event::AnswerEnds { at: sent(&script, false), failed: false },
    ];
    assert_eq!(understood(Spoken::Mysql, &script, |_| 50_000), expected);
}

#[test]
fn encrypted_connections_pass_as_bytes() {
    let postgres = vec![(true, startup(80_877_103, b"")), (false, b"S".to_vec()), (true, vec![0x16; 40]), (false, vec![0x16; 40])];
    assert_understood(Spoken::Postgres, &postgres, &[]);
    let mut wish = vec![0u8; 32];
    wish[..4].copy_from_slice(&0x0000_8a05u32.to_le_bytes());
    let mysql = vec![mysql_login()[0].clone(), (true, [packet(1, &wish), vec![0x16; 90]].concat()), (false, vec![0x16; 40])];
    assert_understood(Spoken::Mysql, &mysql, &[]);
    let http = vec![(true, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec()), (false, vec![0, 0, 4, 4])];
    assert_understood(Spoken::Http1, &http, &[]);
}

#[test]
fn http_bodies_end_where_their_heads_say() {
    let mut script: Script = Vec::new();
    let mut expected = Vec::new();
    let exchanges: [(&str, &str); 6] = [
        ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"),
        ("HEAD / HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n"),
        ("POST /a HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", "HTTP/1.1 204 No Content\r\n\r\n"),
        (
            "POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\nA;x=1\r\n0123456789\r\n1\r\n\n\r\n0\r\nT: 1\r\n\r\n",
        ),
        ("GET /b HTTP/1.1\r\n\r\n", "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"),
        ("GET /ws HTTP/1.1\r\nUpgrade: websocket\r\n\r\n", "HTTP/1.1 101 Switching\r\n\r\nanything"),
    ];
    for (place, (request, answer)) in exchanges.into_iter().enumerate() {
        expected.push(Event::Begins { at: sent(&script, true), commits: false });
        script.push((true, request.into()));
        expected.push(Event::RequestEnds { at: sent(&script, true) });
        script.push((false, answer.into()));
        if place < 5 {
            expected.push(Event::AnswerEnds { at: sent(&script, false), failed: false });
        }
    }
    script.push((true, b"\x81\x05anything".to_vec()));
    assert_understood(Spoken::Http1, &script, &expected);
}

#[test]
fn of_bytes_only_the_turns_are_known() {
    let script: Script = vec![(true, vec![1; 9]), (false, vec![2; 9]), (false, vec![2; 9]), (true, vec![1; 9])];
    let expected = [Event::Begins { at: 0, commits: false }, Event::Begins { at: 9, commits: false }];
    assert_understood(Spoken::Bytes, &script, &expected);
}

proptest! {
    /// Whatever comes, every byte passes in the end, and nothing panics.
    #[test]
    fn nonsense_passes(spoken in 0usize..4, script in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 1..80)), 1..30)) {
        let mut reader = [Spoken::Postgres, Spoken::Mysql, Spoken::Http1, Spoken::Bytes][spoken].reader();
        let mut held = [Vec::new(), Vec::new()];
        for (client, text) in script {
            let held = &mut held[usize::from(client)];
            held.extend(text);
            while !held.is_empty() {
                let piece = if client { reader.client(held) } else { reader.server(held) };
                let Some(piece) = piece else { break };
                prop_assert!((1..=held.len()).contains(&piece.len));
                held.drain(..piece.len);
            }
        }
    }

    #[test]
    fn a_conversation_is_understood_however_it_arrives(cuts in prop::collection::vec(1usize..40, 1..200)) {
        let mut script = postgres_login();
        script.push((true, message(b'Q', b"insert into t values (1)\0")));
        script.push((false, [message(b'C', b"INSERT 0 1\0"), ready(b'I')].concat()));
        let whole = understood(Spoken::Postgres, &script, |_| usize::MAX);
        prop_assert_eq!(whole.len(), 3);
        let mut cuts = cuts.into_iter().cycle();
        prop_assert_eq!(understood(Spoken::Postgres, &script, |_| cuts.next().unwrap()), whole);
    }
}
