//! Conditions of any object, as statements with reasons. Pure.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use perennial_crds::conditions::{ConditionType, Reason};

/// One statement: true or false, why, and in words.
pub(crate) struct Statement {
    pub(crate) holds: bool,
    pub(crate) reason: Reason,
    pub(crate) message: String,
}

pub(crate) fn statement(holds: bool, reason: Reason, message: impl Into<String>) -> Statement {
    Statement {
        holds,
        reason,
        message: message.into(),
    }
}

/// Conditions that keep the time of their last change of `status`.
pub(crate) struct Conditions<'a> {
    pub(crate) old: &'a [Condition],
    pub(crate) new: Vec<Condition>,
    pub(crate) generation: i64,
    pub(crate) now: Timestamp,
}

impl Conditions<'_> {
    /// Says it anew.
    pub(crate) fn set(&mut self, kind: ConditionType, said: &Statement) {
        let type_ = kind.to_string();
        let status = if said.holds { "True" } else { "False" };
        let unchanged = self.old.iter().find(|old| old.type_ == type_ && old.status == status);
        // Whole seconds, as the API keeps them: a finer value would never compare equal to what was stored.
        let now = Timestamp::from_second(self.now.as_second()).unwrap_or(self.now);
        self.new.push(Condition {
            last_transition_time: unchanged.map_or(Time(now), |old| old.last_transition_time.clone()),
            message: said.message.clone(),
            observed_generation: Some(self.generation),
            reason: said.reason.to_string(),
            status: status.to_owned(),
            type_,
        });
    }

    /// Whether it was said before.
    pub(crate) fn has(&self, kind: ConditionType) -> bool {
        let type_ = kind.to_string();
        self.old.iter().any(|old| old.type_ == type_)
    }

    /// Says again what was said.
    pub(crate) fn keep(&mut self, kind: ConditionType) {
        let type_ = kind.to_string();
        let old = self.old.iter().find(|old| old.type_ == type_);
        self.new.extend(old.map(|old| Condition {
            observed_generation: Some(self.generation),
            ..old.clone()
        }));
    }

    /// Says it if there is something to say.
    pub(crate) fn set_if(&mut self, kind: ConditionType, said: Option<&Statement>) {
        if let Some(said) = said {
            self.set(kind, said);
        }
    }
}
