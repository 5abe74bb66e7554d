//! Answers and what people thought of them. Pure.

use std::collections::BTreeMap;

use perennial_crds::capture::{ExchangeRecord, FeedbackRecord, Finish};

/// What people thought of one answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Opinion {
    /// How it should have been, as the last one said who said so.
    pub corrected: Option<String>,
    corrected_at: i64,
    sum: f64,
    count: u32,
}

impl Opinion {
    /// Adds what somebody thought. Of two at the same time the later one in the records counts.
    pub fn add(&mut self, feedback: FeedbackRecord) {
        if let Some(score) = feedback.score.filter(|score| score.is_finite()) {
            self.sum += score.clamp(-1.0, 1.0);
            self.count += 1;
        }
        let corrected = feedback.corrected_output.filter(|text| !text.trim().is_empty());
        if corrected.is_some() && (self.corrected.is_none() || feedback.time >= self.corrected_at) {
            self.corrected = corrected;
            self.corrected_at = feedback.time;
        }
    }

    /// The mean of all scores.
    #[must_use]
    pub fn score(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / f64::from(self.count))
    }
}

/// What people thought, by request.
pub type Opinions = BTreeMap<String, Opinion>;

/// What was learned about an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Label {
    /// Somebody said how it should have been.
    Corrected(String),
    /// People found it good, and it ended by itself.
    RatedGood,
    /// Nothing that could be learned from.
    None,
}

/// Joins an answer with what people thought of it. An answer that somebody corrected was not good, whatever others thought; of a
/// text that was cut off nobody knows what the rest was.
#[must_use]
pub fn label(exchange: &ExchangeRecord, opinion: Option<&Opinion>) -> Label {
    let Some(opinion) = opinion.filter(|_| !exchange.truncated) else {
        return Label::None;
    };
    if let Some(corrected) = &opinion.corrected {
        return Label::Corrected(corrected.clone());
    }
    let good = opinion.score().is_some_and(|score| score > 0.0);
    if good && exchange.finish == Finish::Stop && !exchange.answer.trim().is_empty() {
        return Label::RatedGood;
    }
    Label::None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feedback(time: i64, score: Option<f64>, corrected: Option<&str>) -> FeedbackRecord {
        FeedbackRecord {
            request_id: "a".to_owned(),
            time,
            score,
            corrected_output: corrected.map(str::to_owned),
        }
    }

    fn opinion(all: &[(i64, Option<f64>, Option<&str>)]) -> Opinion {
        let mut opinion = Opinion::default();
        for (time, score, corrected) in all {
            opinion.add(feedback(*time, *score, *corrected));
        }
        opinion
    }

    fn exchange(finish: Finish) -> ExchangeRecord {
        ExchangeRecord {
            request_id: "a".to_owned(),
            time: 0,
            revision: None,
            requester: None,
            messages: Vec::new(),
            prompt: Some("p".to_owned()),
            answer: "own".to_owned(),
            finish,
            prompt_tokens: 1,
            output_tokens: 1,
            sampling_weight: 1.0,
            redactions: BTreeMap::new(),
            truncated: false,
        }
    }

    #[test]
    fn the_last_correction_wins_and_scores_are_averaged() {
        let opinion = opinion(&[
            (5, Some(1.0), Some("late")),
            (3, None, Some("early")),
            (6, Some(-0.5), None),
            (7, Some(f64::NAN), Some("  ")),
        ]);
        assert_eq!(
            (opinion.corrected.as_deref(), opinion.score()),
            (Some("late"), Some(0.25))
        );
        assert_eq!(super::Opinion::default().score(), None);
    }

    #[test]
    fn only_what_somebody_answered_for_is_a_label() {
        let stop = exchange(Finish::Stop);
        let labelled = |all| label(&stop, Some(&opinion(all)));
        assert_eq!(
            labelled(&[(1, Some(-1.0), Some("better"))]),
            Label::Corrected("better".to_owned())
        );
        assert_eq!(labelled(&[(1, Some(0.1), None)]), Label::RatedGood);
        assert_eq!(labelled(&[(1, Some(0.0), None)]), Label::None);
        assert_eq!(labelled(&[(1, Some(1.0), None), (2, Some(-1.0), None)]), Label::None);
        assert_eq!(label(&stop, None), Label::None);
        let good = opinion(&[(1, Some(1.0), None)]);
        for finish in [Finish::Length, Finish::Abort, Finish::Error] {
            assert_eq!(label(&exchange(finish), Some(&good)), Label::None);
        }
        let cut = ExchangeRecord {
            truncated: true,
            ..stop.clone()
        };
        assert_eq!(label(&cut, Some(&good)), Label::None);
        let empty = ExchangeRecord {
            answer: " ".to_owned(),
            ..stop
        };
        assert_eq!(label(&empty, Some(&good)), Label::None);
    }
}
