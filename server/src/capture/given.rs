//! Which feedback was given not long ago: none is kept twice when it is sent again, and not too much on one answer.
//!
//! Knows hashes that nobody can turn back into ids or texts.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};

use perennial_crds::capture::FeedbackRecord;

/// Answers that are remembered: 256 KiB or so.
const REMEMBERED: usize = 4096;
/// Most feedback that is kept on one answer.
const MOST: u32 = 8;

/// Feedback as it is remembered.
#[derive(Clone, Copy)]
pub(super) struct Mark {
    answer: u64,
    opinion: u64,
}

/// What is to become of feedback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is to be kept.
    New,
    /// The same is kept already. Only the last on an answer counts for that: whoever goes back to an opinion has a new one.
    Repeated,
    /// There is as much on that answer as is kept.
    Enough,
}

struct OnAnswer {
    last: u64,
    count: u32,
}

/// The feedback that was kept last.
#[derive(Default)]
pub(super) struct Given {
    hasher: RandomState,
    answers: HashMap<u64, OnAnswer>,
    order: VecDeque<u64>,
    lowered: u64,
}

impl Given {
    /// How this feedback is remembered: the time does not matter.
    pub(super) fn mark(&self, feedback: &FeedbackRecord) -> Mark {
        let score = feedback.score.map(f64::to_bits);
        Mark {
            answer: self.hasher.hash_one(&feedback.request_id),
            opinion: self.hasher.hash_one((score, &feedback.corrected_output)),
        }
    }

    /// What is to become of it. When the level was lowered since the last time, so often now, what was kept is gone.
    pub(super) fn fate(&mut self, mark: Mark, lowered: u64) -> Fate {
        if lowered != self.lowered {
            self.answers.clear();
            self.order.clear();
            self.lowered = lowered;
        }
        match self.answers.get(&mark.answer) {
            Some(known) if known.last == mark.opinion => Fate::Repeated,
            Some(known) if known.count >= MOST => Fate::Enough,
            _ => Fate::New,
        }
    }

    /// It is kept.
    pub(super) fn add(&mut self, mark: Mark) {
        let known = self.answers.entry(mark.answer).or_insert_with(|| {
            self.order.push_back(mark.answer);
            OnAnswer {
                last: mark.opinion,
                count: 0,
            }
        });
        known.last = mark.opinion;
        known.count += 1;
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.answers.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feedback(id: &str, score: f64, text: Option<&str>, time: i64) -> FeedbackRecord {
        FeedbackRecord {
            request_id: id.to_owned(),
            time,
            score: Some(score),
            corrected_output: text.map(str::to_owned),
        }
    }

    impl Given {
        fn give(&mut self, feedback: &FeedbackRecord, lowered: u64) -> Fate {
            let mark = self.mark(feedback);
            let fate = self.fate(mark, lowered);
            if fate == Fate::New {
                self.add(mark);
            }
            fate
        }
    }

    #[test]
    fn what_is_sent_again_is_known_and_another_opinion_is_not() {
        let mut given = Given::default();
        for (feedback, fate) in [
            (feedback("a", 1.0, None, 1), Fate::New),
            (feedback("a", 1.0, None, 2), Fate::Repeated),
            (feedback("a", 0.5, None, 2), Fate::New),
            (feedback("a", 0.5, Some("42"), 2), Fate::New),
            (feedback("a", 0.5, Some("42"), 3), Fate::Repeated),
            (feedback("a", 0.5, Some("43"), 3), Fate::New),
            (feedback("b", 0.5, Some("43"), 3), Fate::New),
            (feedback("a", 0.5, Some("43"), 4), Fate::Repeated),
            // The last one counts when a correction is learned from.
            (feedback("a", 0.5, Some("42"), 5), Fate::New),
        ] {
            assert_eq!(given.give(&feedback, 0), fate, "{feedback:?}");
        }
    }

    #[test]
    fn on_one_answer_not_more_than_enough_is_kept() {
        let mut given = Given::default();
        for number in 0..MOST {
            assert_eq!(given.give(&feedback("a", f64::from(number), None, 0), 0), Fate::New);
        }
        assert_eq!(given.give(&feedback("a", -1.0, None, 0), 0), Fate::Enough);
        assert_eq!(
            given.give(&feedback("a", f64::from(MOST - 1), None, 0), 0),
            Fate::Repeated
        );
        assert_eq!(given.give(&feedback("b", -1.0, None, 0), 0), Fate::New);
    }

    #[test]
    fn what_was_forgotten_is_new() {
        let mut given = Given::default();
        let first = feedback("first", 1.0, None, 0);
        assert_eq!(given.give(&first, 0), Fate::New);
        for number in 1..REMEMBERED {
            assert_eq!(given.give(&feedback(&number.to_string(), 1.0, None, 0), 0), Fate::New);
        }
        assert_eq!(given.give(&first, 0), Fate::Repeated);
        assert_eq!(given.give(&feedback("one more", 1.0, None, 0), 0), Fate::New);
        assert_eq!((given.answers.len(), given.order.len()), (REMEMBERED, REMEMBERED));
        assert_eq!(
            given.give(&first, 0),
            Fate::New,
            "it is the oldest, and there was no room"
        );
        assert_eq!(given.give(&first, 0), Fate::Repeated);
        assert_eq!(given.give(&first, 1), Fate::New, "the level was lowered since");
        assert_eq!((given.answers.len(), given.order.len()), (1, 1));
    }
}
