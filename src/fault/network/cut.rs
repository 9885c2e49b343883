//! Cuts: which requests they strike, drawn from the seed, and where in a conversation the connection ends.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use rand::{Rng as _, SeedableRng as _};
use rand_xoshiro::Xoshiro256PlusPlus;

use super::protocol::{HELD, Reader, Request, Silent, Spoken};
use crate::scenario::fault::{CutWhen, Fault};

/// Longest part of a request, or of an answer, that passes before it is cut (both may be shorter).
const FURTHEST: u32 = 12;

/// One fault of the kind `cut`.
pub(super) struct Cut {
    when: CutWhen,
    /// `when: at_byte`.
    bytes: u64,
    share: f64,
    most: u64,
    state: Mutex<State>,
}

struct State {
    /// Between begin and heal.
    active: bool,
    rng: Xoshiro256PlusPlus,
    /// Requests that were struck or are yet to be.
    drawn: u64,
    struck: u64,
}

impl Cut {
    pub(super) fn new(fault: &Fault, seed: u64) -> Self {
        Self {
            when: fault.when.unwrap_or(CutWhen::AfterRequest),
            bytes: fault.bytes.unwrap_or(0),
            share: fault.share.map_or(1.0, |share| share.0),
            most: fault.most.unwrap_or(u64::MAX),
            state: Mutex::new(State { active: false, rng: Xoshiro256PlusPlus::seed_from_u64(seed), drawn: 0, struck: 0 }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_active(&self, active: bool) {
        self.state().active = active;
    }

    pub(super) fn struck(&self) -> u64 {
        self.state().struck
    }

    /// Whether it strikes the request that begins, and how far that comes then.
    fn draw(self: &Arc<Self>, request: Request) -> Option<Doom> {
        let possible = match self.when {
            CutWhen::AfterCommit => request.commits,
            CutWhen::AtByte => false,
            _ => true,
        };
        let mut state = self.state();
        if !possible || !state.active || state.drawn >= self.most || !happens(&mut state.rng, self.share) {
            return None;
        }
        state.drawn += 1;
        let scale = state.rng.next_u32() % (FURTHEST + 1);
        let left = 1 + u64::from(state.rng.next_u32()) % (1 << scale);
        Some(Doom::new(self, left))
    }

    /// Whether it strikes a connection (`when: at_byte`), and after how many bytes.
    fn draw_connection(self: &Arc<Self>) -> Option<Doom> {
        let mut state = self.state();
        if self.when != CutWhen::AtByte || !state.active || state.drawn >= self.most || !happens(&mut state.rng, self.share) {
            return None;
        }
        state.drawn += 1;
        Some(Doom::new(self, self.bytes))
    }
}

fn happens(rng: &mut Xoshiro256PlusPlus, share: f64) -> bool {
    ((rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64) < share
}

/// What is to become of a connection. If it does not come about, another request may be struck in its place.
struct Doom {
    cut: Arc<Cut>,
    /// Bytes that may still pass.
    left: u64,
    /// `when: after_commit`: the answer so far.
    held: BytesMut,
    struck: bool,
}

impl Doom {
    fn new(cut: &Arc<Cut>, left: u64) -> Self {
        Self { cut: Arc::clone(cut), left, held: BytesMut::new(), struck: false }
    }

    /// Whether the cut comes about: not if the fault was healed meanwhile.
    fn strikes(&mut self) -> bool {
        let mut state = self.cut.state();
        state.struck += u64::from(state.active);
        self.struck = state.active;
        self.struck
    }
}

impl Drop for Doom {
    fn drop(&mut self) {
        self.cut.state().drawn -= u64::from(!self.struck);
    }
}

/// The cuts of a run that are in force.
#[derive(Default)]
pub(super) struct Cuts {
    /// Counts every change, so that a connection sees a cut that began after it.
    version: AtomicU64,
    list: Mutex<Vec<Arc<Cut>>>,
}

impl Cuts {
    fn list(&self) -> MutexGuard<'_, Vec<Arc<Cut>>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn begin(&self, cut: &Arc<Cut>) {
        cut.set_active(true);
        self.list().push(Arc::clone(cut));
        self.version.fetch_add(1, Ordering::Release);
    }

    pub(super) fn heal(&self, cut: &Arc<Cut>) {
        cut.set_active(false);
        self.list().retain(|other| !Arc::ptr_eq(other, cut));
        self.version.fetch_add(1, Ordering::Release);
    }
}

/// What may pass, and whether the connection is cut behind it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Passed {
    pub(super) bytes: Bytes,
    pub(super) cut: bool,
}

/// The conversation on one connection.
pub(super) struct Talk {
    reader: Box<dyn Reader>,
    cuts: Arc<Cuts>,
    doom: Option<Doom>,
    /// `when: at_byte`.
    limit: Option<Doom>,
    /// The cuts that were looked at for `limit`.
    seen: u64,
    /// It has been cut.
    over: bool,
}

impl Talk {
    pub(super) fn new(spoken: Spoken, cuts: Arc<Cuts>) -> Self {
        Self { reader: spoken.reader(), cuts, doom: None, limit: None, seen: 0, over: false }
    }

    /// Takes from `buffer` what may pass to the server. What stays is passed with what comes next.
    pub(super) fn client(&mut self, buffer: &mut BytesMut) -> Passed {
        if self.over {
            return self.nothing(buffer);
        }
        let mut out = BytesMut::new();
        while !buffer.is_empty() && !self.over {
            let Some(piece) = self.reader.client(buffer) else {
                if buffer.len() < HELD {
                    break;
                }
                self.reader = Box::new(Silent);
                continue;
            };
            if let Some(request) = piece.begins {
                // What was to strike the one before and did not may strike this one.
                self.doom = None;
                self.doom = self.cuts.list().iter().find_map(|cut| cut.draw(request));
            }
            let when = self.doom.as_ref().filter(|_| piece.part).map(|doom| doom.cut.when);
            let mut len = piece.len;
            match when {
                Some(CutWhen::BeforeRequest) if self.strikes() => len = 0,
                Some(CutWhen::WithinRequest) => len = self.within(piece.len, piece.ends),
                _ => {}
            }
            out.unsplit(buffer.split_to(len));
            if when == Some(CutWhen::AfterRequest) && piece.ends {
                self.strikes();
            }
        }
        self.limited(&mut out);
        Passed { bytes: out.freeze(), cut: self.over }
    }

    /// The same for what comes from the server.
    pub(super) fn server(&mut self, buffer: &mut BytesMut) -> Passed {
        if self.over {
            return self.nothing(buffer);
        }
        let mut out = BytesMut::new();
        while !buffer.is_empty() && !self.over {
            let Some(piece) = self.reader.server(buffer) else {
                if buffer.len() < HELD {
                    break;
                }
                self.reader = Box::new(Silent);
                continue;
            };
            match self.doom.as_ref().filter(|_| piece.part).map(|doom| doom.cut.when) {
                Some(CutWhen::WithinAnswer) => {
                    let len = self.within(piece.len, piece.ends);
                    out.unsplit(buffer.split_to(len));
                }
                Some(CutWhen::AfterCommit) => {
                    let bytes = buffer.split_to(piece.len);
                    out.unsplit(self.committed(bytes, piece.ends, piece.failed));
                }
                _ => out.unsplit(buffer.split_to(piece.len)),
            }
            if piece.part && piece.ends && !self.over {
                self.doom = None;
            }
        }
        Passed { bytes: out.freeze(), cut: self.over }
    }

    /// The other direction was cut; it says so once what may pass has been written.
    fn nothing(&self, buffer: &mut BytesMut) -> Passed {
        buffer.clear();
        Passed { bytes: Bytes::new(), cut: false }
    }

    fn strikes(&mut self) -> bool {
        self.over = self.doom.as_mut().is_some_and(Doom::strikes);
        if !self.over {
            self.doom = None;
        }
        self.over
    }

    /// How much of a piece passes before the cut; the last byte of what it belongs to never does.
    fn within(&mut self, len: usize, ends: bool) -> usize {
        let Some(doom) = &mut self.doom else { return len };
        let most = len - usize::from(ends);
        let passes = usize::try_from(doom.left).unwrap_or(usize::MAX).min(most);
        doom.left -= passes as u64;
        if (ends || doom.left == 0) && self.strikes() { passes } else { len }
    }

    /// A piece of the answer to what commits: it is held back to its end. What passes of it.
    fn committed(&mut self, bytes: BytesMut, ends: bool, failed: bool) -> BytesMut {
        let Some(doom) = &mut self.doom else { return bytes };
        doom.held.unsplit(bytes);
        if !ends && doom.held.len() <= HELD {
            return BytesMut::new();
        }
        let held = std::mem::take(&mut doom.held);
        // An error: nothing was committed, and the client may know.
        if failed {
            self.doom = None;
            return held;
        }
        if self.strikes() { BytesMut::new() } else { held }
    }

    /// Ends what goes to the server at the byte that a cut names.
    fn limited(&mut self, out: &mut BytesMut) {
        let version = self.cuts.version.load(Ordering::Acquire);
        if version != std::mem::replace(&mut self.seen, version) {
            self.limit = self.cuts.list().iter().find_map(Cut::draw_connection);
        }
        let Some(limit) = &mut self.limit else { return };
        let passes = usize::try_from(limit.left).unwrap_or(usize::MAX).min(out.len());
        limit.left -= passes as u64;
        if limit.left > 0 {
            return;
        }
        if !self.over && limit.strikes() {
            self.over = true;
            out.truncate(passes);
        }
        self.limit = None;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// A conversation, with what was read of either side and is not passed yet.
    struct Sides {
        talk: Talk,
        held: [BytesMut; 2],
    }

    /// One in MySQL's words after its login, and the cut that it is under.
    fn talk(fault: Value) -> (Sides, Arc<Cut>) {
        let mut fault = fault;
        (fault["at"], fault["for"], fault["kind"]) = (json!("0s"), json!("1s"), json!("cut"));
        let cuts = Arc::new(Cuts::default());
        let cut = Arc::new(Cut::new(&serde_json::from_value(fault).unwrap(), 7));
        cuts.begin(&cut);
        let mut talk = Sides { talk: Talk::new(Spoken::Mysql, cuts), held: Default::default() };
        assert_eq!(client(&mut talk, &packet(1, &[0; 40])), (packet(1, &[0; 40]), false));
        assert_eq!(server(&mut talk, &OK), (OK.to_vec(), false));
        (talk, cut)
    }

    const OK: [u8; 11] = [7, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0];
    const ERROR: [u8; 7] = [3, 0, 0, 1, 0xff, 1, 0];

    fn packet(number: u8, payload: &[u8]) -> Vec<u8> {
        [&[payload.len() as u8, 0, 0, number], payload].concat()
    }

    fn insert() -> Vec<u8> {
        packet(0, b"\x03INSERT INTO t VALUES (1), (2), (3)")
    }

    fn client(sides: &mut Sides, bytes: &[u8]) -> (Vec<u8>, bool) {
        sides.held[0].extend_from_slice(bytes);
        let passed = sides.talk.client(&mut sides.held[0]);
        (passed.bytes.to_vec(), passed.cut)
    }

    fn server(sides: &mut Sides, bytes: &[u8]) -> (Vec<u8>, bool) {
        sides.held[1].extend_from_slice(bytes);
        let passed = sides.talk.server(&mut sides.held[1]);
        (passed.bytes.to_vec(), passed.cut)
    }

    #[test]
    fn before_a_request_nothing_of_it_passes_and_what_reads_does() {
        let (mut talk, cut) = talk(json!({"when": "before_request"}));
        let question = packet(0, b"\x03SELECT 'INSERT'");
        assert_eq!(client(&mut talk, &question), (question.clone(), false));
        assert_eq!(client(&mut talk, &insert()), (vec![], true));
        assert_eq!(cut.struck(), 1);
        assert_eq!((client(&mut talk, &insert()), server(&mut talk, &OK)), ((vec![], false), (vec![], false)), "it is over");
    }

    #[test]
    fn within_a_request_a_part_passes_and_never_its_last_byte() {
        for pieces in [1, 7, 100] {
            let (mut talk, cut) = talk(json!({"when": "within_request"}));
            let mut passed = Vec::new();
            for piece in insert().chunks(pieces) {
                passed.extend(client(&mut talk, piece).0);
            }
            assert!((1..insert().len()).contains(&passed.len()) && insert().starts_with(&passed), "{passed:?}");
            assert_eq!(cut.struck(), 1);
        }
    }

    #[test]
    fn after_a_request_all_of_it_passes_and_nothing_comes_back() {
        let (mut talk, _cut) = talk(json!({"when": "after_request"}));
        let (first, last) = (&insert()[..15], &insert()[15..]);
        assert_eq!(client(&mut talk, first), (first.to_vec(), false));
        assert_eq!(client(&mut talk, last), (last.to_vec(), true));
        assert_eq!(server(&mut talk, &OK), (vec![], false));
    }

    #[test]
    fn after_a_commit_its_whole_answer_is_kept_back_and_an_error_is_not() {
        let (mut talk, cut) = talk(json!({"when": "after_commit", "most": 1}));
        assert_eq!(client(&mut talk, &insert()), (insert(), false));
        assert_eq!(server(&mut talk, &ERROR[..6]), (vec![], false));
        assert_eq!(server(&mut talk, &ERROR[6..]), (ERROR.to_vec(), false), "the client may know of it");
        assert_eq!(cut.struck(), 0);
        assert_eq!(client(&mut talk, &insert()), (insert(), false));
        assert_eq!(server(&mut talk, &OK[..10]), (vec![], false));
        assert_eq!(server(&mut talk, &OK[10..]), (vec![], true));
        assert_eq!(cut.struck(), 1);
    }

    #[test]
    fn within_an_answer_a_part_passes_and_never_its_last_byte() {
        let (mut talk, cut) = talk(json!({"when": "within_answer"}));
        assert_eq!(client(&mut talk, &insert()), (insert(), false));
        let mut passed = Vec::new();
        for byte in OK {
            passed.extend(server(&mut talk, &[byte]).0);
        }
        assert!((1..OK.len()).contains(&passed.len()) && OK.starts_with(&passed), "{passed:?}");
        assert_eq!(cut.struck(), 1);
    }

    #[test]
    fn what_is_healed_before_it_strikes_does_not() {
        let (mut talk, cut) = talk(json!({"when": "after_commit"}));
        assert_eq!(client(&mut talk, &insert()), (insert(), false));
        assert_eq!(server(&mut talk, &OK[..5]), (vec![], false));
        cut.set_active(false);
        assert_eq!(server(&mut talk, &OK[5..]), (OK.to_vec(), false));
        assert_eq!(cut.struck(), 0);
    }

    #[test]
    fn a_cut_that_does_not_come_about_leaves_its_place_to_another() {
        let (mut one, cut) = talk(json!({"when": "after_commit", "most": 1}));
        assert_eq!(client(&mut one, &insert()), (insert(), false));
        assert_eq!(cut.state().drawn, 1);
        let mut other = Sides { talk: Talk::new(Spoken::Bytes, Arc::clone(&one.talk.cuts)), held: Default::default() };
        drop(one);
        assert_eq!(client(&mut other, &[1; 9]), (vec![1; 9], false), "bytes commit nothing");
        assert_eq!(cut.state().drawn, 0);
        assert_eq!(cut.struck(), 0);
    }
}
