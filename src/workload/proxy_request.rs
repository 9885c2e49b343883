//! Requests to a gateway: operation `index` of a run always asks the same, so that the right reply and the right log row are known
//! without remembering either.

use rand::{Rng as _, SeedableRng as _};
use rand_xoshiro::Xoshiro256PlusPlus;

use super::reply;
use crate::scenario::SizeRange;
use crate::scenario::proxy::{Mix, ProxyRequest, Replies};

/// Regenerates any request of a run from (seed, index).
#[derive(Clone, Debug)]
pub struct Generator {
    seed: u64,
    tag: u32,
    /// Upper ends of the routes' shares of 2^64.
    shares: Vec<u64>,
    users: usize,
    models: usize,
    channels: usize,
    prompt: SizeRange,
}

/// One request, as numbers into the scenario's lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Which operation.
    pub index: u64,
    /// Which of `mix`.
    pub route: usize,
    /// Which of `users`.
    pub user: usize,
    /// Which of `models`.
    pub model: usize,
    /// Which of `channels`; 0 if there are none.
    pub channel: usize,
    /// Words of the prompt, the id included.
    pub words: u32,
    /// What the words are drawn from.
    bits: u64,
}

/// The text that must come back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Nobody knows.
    Any,
    /// This text, and these tokens of prompt and completion.
    Chat {
        /// The content, pieces joined.
        text: String,
        /// As the mock model counts them.
        usage: (u64, u64),
    },
    /// The messages that were sent, each ended by a line feed.
    Echo(String),
}

impl Generator {
    /// A generator for the requests of `workload` in run `run_id` under `seed`. The run is part of the ids: a log keeps the rows of
    /// earlier runs, and those of one seed must not be taken for this one's.
    #[must_use]
    pub fn new(seed: u64, run_id: &str, workload: &ProxyRequest) -> Self {
        let all: f64 = workload.mix.iter().map(|mix| mix.weight).sum();
        let mut sum = 0.0;
        let mut shares: Vec<u64> = workload
            .mix
            .iter()
            .map(|mix| {
                sum += mix.weight / all;
                (sum * 18_446_744_073_709_551_616.0) as u64
            })
            .collect();
        if let Some(last) = shares.last_mut() {
            *last = u64::MAX;
        }
        let tag = crc32fast::hash(format!("{seed} {run_id}").as_bytes());
        let (users, models, channels) = (workload.users.len(), workload.models.len(), workload.channels.len());
        Self { seed, tag, shares, users, models, channels, prompt: workload.prompt }
    }

    /// What all ids of the run begin with.
    #[must_use]
    pub fn ids(&self) -> String {
        format!("{}{:08x}-", reply::ID_PREFIX, self.tag)
    }

    /// The same requests under other ids: for the pairs that go past the gateway.
    #[must_use]
    pub fn paired(&self) -> Self {
        Self { tag: !self.tag, ..self.clone() }
    }

    /// Operation `index`.
    #[must_use]
    pub fn operation(&self, index: u64) -> Operation {
        let mut rng =
            Xoshiro256PlusPlus::seed_from_u64((self.seed ^ 0x7265_7175_6573_7473).wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(index));
        let draw = rng.next_u64();
        let route = self.shares.partition_point(|end| *end < draw);
        let mut below = |bound: usize| ((u128::from(rng.next_u64()) * bound as u128) >> 64) as usize;
        Operation {
            index,
            route,
            user: below(self.users),
            model: below(self.models),
            channel: below(self.channels.max(1)),
            words: self.prompt.min + below((self.prompt.max - self.prompt.min) as usize + 1) as u32,
            bits: rng.next_u64(),
        }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self, operation: &Operation) -> String {
        reply::request_id(self.tag, operation.index)
    }

    /// The operation that an id names, if it is one of this run's.
    #[must_use]
    pub fn index_of(&self, id: &str) -> Option<u64> {
        reply::parse_id(id).filter(|(tag, _)| *tag == self.tag).map(|(_, index)| index)
    }

    /// The prompt: the id, then words.
    #[must_use]
    pub fn prompt(&self, operation: &Operation) -> String {
        let mut text = self.id(operation);
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(operation.bits);
        for _ in 1..operation.words {
            text.push(' ');
            word(&mut rng, &mut text);
        }
        text
    }

    /// The messages of a WebSocket session.
    #[must_use]
    pub fn messages(&self, operation: &Operation, count: u32) -> Vec<String> {
        let prompt = self.prompt(operation);
        (0..count).map(|number| format!("{number} {prompt}")).collect()
    }

    /// What must come back.
    #[must_use]
    pub fn expected(&self, operation: &Operation, mix: &Mix, replies: Replies) -> Expected {
        match (&mix.chat, &mix.websocket, replies) {
            (Some(chat), _, Replies::Mock) => Expected::Chat {
                text: reply::text(&self.id(operation), chat.max_tokens),
                usage: (u64::from(operation.words), u64::from(chat.max_tokens)),
            },
            (_, Some(socket), _) => Expected::Echo(self.messages(operation, socket.messages).iter().flat_map(|m| [m, "\n"]).collect()),
            _ => Expected::Any,
        }
    }
}

/// Three to eight small letters.
fn word(rng: &mut Xoshiro256PlusPlus, text: &mut String) {
    let mut bits = rng.next_u64();
    for _ in 0..3 + bits % 6 {
        bits >>= 5;
        text.push(char::from(b"abcdefghijklmnopqrstuvwxyzaeioun"[(bits & 31) as usize]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload() -> ProxyRequest {
        serde_json::from_value(serde_json::json!({
            "requests": 1, "models": ["a", "b"], "users": [{"name": "x"}, {"name": "y"}, {"name": "z"}], "prompt": {"min": 2, "max": 5},
            "mix": [{"weight": 3, "chat": {}}, {"weight": 1, "websocket": {"messages": 2}}]
        }))
        .unwrap()
    }

    #[test]
    fn an_operation_is_a_function_of_seed_and_index_and_its_id_of_the_run_too() {
        let one = Generator::new(7, "run-a", &workload());
        let other = Generator::new(7, "run-b", &workload());
        assert_eq!(one.operation(9), one.operation(9));
        assert_eq!(one.operation(9), other.operation(9));
        assert_ne!(one.operation(9), Generator::new(8, "run-a", &workload()).operation(9));
        let id = one.id(&one.operation(9));
        assert!(id.starts_with(&one.ids()) && id.ends_with("-9"), "{id}");
        assert_eq!((one.index_of(&id), other.index_of(&id), one.paired().index_of(&id)), (Some(9), None, None));
    }

    #[test]
    fn routes_come_in_the_shares_of_their_weights_and_lists_evenly() {
        let generator = Generator::new(1, "r", &workload());
        let operations: Vec<Operation> = (0..12_000).map(|index| generator.operation(index)).collect();
        let share = |test: &dyn Fn(&Operation) -> bool| operations.iter().filter(|o| test(o)).count();
        // Four standard deviations of a binomial of 12,000.
        assert!((8_810..=9_190).contains(&share(&|o| o.route == 0)), "{}", share(&|o| o.route == 0));
        for user in 0..3 {
            assert!((3_790..=4_210).contains(&share(&|o| o.user == user)));
        }
        for words in 2..=5 {
            assert!((2_810..=3_190).contains(&share(&|o| o.words == words)));
        }
        assert!(operations.iter().all(|o| o.model < 2 && o.channel == 0));
    }

    #[test]
    fn prompts_have_their_words_and_replies_are_known() {
        let (workload, generator) = (workload(), Generator::new(1, "r", &workload()));
        for index in 0..200 {
            let operation = generator.operation(index);
            let prompt = generator.prompt(&operation);
            assert_eq!(reply::prompt_tokens(&prompt), u64::from(operation.words), "{prompt}");
            assert_eq!(reply::find_id(&prompt), Some(generator.id(&operation).as_str()));
            let mix = &workload.mix[operation.route];
            match generator.expected(&operation, mix, Replies::Mock) {
                Expected::Chat { text, usage } => {
                    assert_eq!((operation.route, usage), (0, (u64::from(operation.words), 32)));
                    assert_eq!(text, reply::text(&generator.id(&operation), 32));
                }
                Expected::Echo(text) => assert_eq!((operation.route, text), (1, format!("0 {prompt}\n1 {prompt}\n"))),
                Expected::Any => panic!("every route of this mix has a right reply"),
            }
        }
        let operation = generator.operation(0);
        assert_eq!(generator.expected(&operation, &workload.mix[0], Replies::Any), Expected::Any);
    }
}
