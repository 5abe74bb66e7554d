//! The tag of a better model in its repository.

use super::{Action, Machine, Standing, State, Turn, over, running};
use crate::cycle::answers;
use crate::cycle::ledger::{Cycle, JobRecord, Kind, Outcome};

/// Seconds after which a Job that does not begin, or does not end, is given up: it moves a few kilobytes.
const PATIENCE: i64 = 1_800;

impl Machine<'_> {
    /// The better model serves; its tag follows, if it is to have one. Whatever comes of that, it serves.
    pub(super) fn publishing(&mut self, cycle: &mut Cycle) -> Turn {
        if let Some(standing) = self.publish(cycle) {
            return Turn::Stay(standing);
        }
        let message = format!("the better model serves{}", tag_told(cycle));
        over(Outcome::Promoted, "GatePassed", message)
    }

    /// Lets the tag be written; nothing once that is over, or if there is none to write.
    pub(super) fn publish(&mut self, cycle: &mut Cycle) -> Option<Standing> {
        if cycle.repository.is_none() || self.spec.promotion.publish_tag.is_none() || cycle.published.is_some() {
            return None;
        }
        let standing = running("the tag of the better model is being written".to_owned());
        let Some(seen) = self.observed.jobs.get(&Kind::Publish) else {
            if cycle.jobs.contains_key(&Kind::Publish) {
                cycle.published = Some(Err("somebody removed the Job".to_owned()));
                return None;
            }
            self.actions.push(Action::Create(Kind::Publish));
            return Some(standing);
        };
        let now = self.observed.now;
        let record = cycle.jobs.entry(Kind::Publish).or_insert_with(|| JobRecord {
            uid: seen.uid.clone(),
            ended: None,
        });
        match &seen.state {
            State::Ended(end) => {
                record.ended.get_or_insert(now);
                cycle.published = Some(answers::published(end));
                None
            }
            State::Running(since) if now > since + PATIENCE => {
                cycle.published = Some(Err("the Job did not end".to_owned()));
                None
            }
            State::Waiting(why) if now > seen.made + PATIENCE => {
                cycle.published = Some(Err(format!("the Job did not begin: {why}")));
                None
            }
            State::Running(_) | State::Waiting(_) => Some(standing),
        }
    }
}

/// What came of writing the tag, behind other words.
pub(super) fn tag_told(cycle: &Cycle) -> String {
    match &cycle.published {
        None => String::new(),
        Some(Ok(())) => "; its tag is written".to_owned(),
        Some(Err(why)) => format!("; its tag could not be written: {why}"),
    }
}
