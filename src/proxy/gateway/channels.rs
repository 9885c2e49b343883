//! Which upstream a request goes to: smooth weighted round-robin among those that may serve it, so that every stretch of requests
//! holds the weights, without chance.

use std::sync::{Mutex, PoisonError};

use super::config::{Channel, User};

/// The upstreams and whose turn it is.
pub(super) struct Channels {
    list: Vec<Channel>,
    /// Nginx's counters: each round adds every candidate's weight to its own and takes the sum from the winner's.
    turns: Mutex<Vec<i64>>,
}

impl Channels {
    pub(super) fn new(list: Vec<Channel>) -> Self {
        Self { turns: Mutex::new(vec![0; list.len()]), list }
    }

    pub(super) fn get(&self, index: usize) -> &Channel {
        &self.list[index]
    }

    /// The channel of the next request of `user` for `model`; `None` if no channel may serve it.
    pub(super) fn choose(&self, user: &User, model: Option<&str>) -> Option<usize> {
        let may = |channel: &Channel| {
            let serves = model.is_none_or(|model| channel.models.is_empty() || channel.models.iter().any(|known| known == model));
            serves && (user.channels.is_empty() || user.channels.contains(&channel.name))
        };
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut sum, mut best) = (0, None::<usize>);
        for (index, channel) in self.list.iter().enumerate().filter(|(_, channel)| may(channel)) {
            turns[index] += i64::from(channel.weight);
            sum += i64::from(channel.weight);
            if best.is_none_or(|best| turns[index] > turns[best]) {
                best = Some(index);
            }
        }
        turns[best?] -= sum;
        best
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channel(name: &str, weight: u32, models: &[&str]) -> Channel {
        let models = models.iter().map(|&model| model.to_owned()).collect();
        Channel { name: name.into(), url: "http://127.0.0.1:1".into(), api_key: None, weight, models }
    }

    fn user(channels: &[&str]) -> User {
        User { name: "u".into(), key: "k".into(), quota: None, channels: channels.iter().map(|&name| name.to_owned()).collect() }
    }

    #[test]
    fn weights_hold_exactly_and_turns_are_spread() {
        let channels = Channels::new(vec![channel("a", 5, &[]), channel("b", 1, &[]), channel("c", 1, &[])]);
        let turns: String = (0..7).filter_map(|_| channels.choose(&user(&[]), Some("m"))).map(|i| channels.get(i).name.clone()).collect();
        assert_eq!(turns, "aabacaa");
        let mut counts = [0; 3];
        for _ in 0..1_000 * 7 {
            counts[channels.choose(&user(&[]), None).unwrap_or(9)] += 1;
        }
        assert_eq!(counts, [5_000, 1_000, 1_000]);
    }

    #[test]
    fn only_channels_of_the_model_and_the_user_are_chosen() {
        let channels = Channels::new(vec![channel("a", 1, &["x"]), channel("b", 9, &["y"]), channel("c", 1, &[])]);
        let all = |names: &[&str], model| -> Vec<usize> {
            let mut chosen: Vec<_> = (0..20).filter_map(|_| channels.choose(&user(names), model)).collect();
            chosen.sort_unstable();
            chosen.dedup();
            chosen
        };
        assert_eq!(all(&[], Some("x")), [0, 2]);
        assert_eq!(all(&["a", "b"], Some("x")), [0]);
        assert_eq!(all(&["b"], Some("z")), Vec::<usize>::new());
        assert_eq!(all(&["b"], None), [1]);
    }
}
