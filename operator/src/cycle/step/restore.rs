//! A model that was learned before this cluster was built: the registry still knows it.
//!
//! A tag is written only for what passed its gate. So a policy that has never begun a cycle asks for it once, and what it
//! finds serves again if the spec still asks for the model that it was learned from.

use perennial_crds::retraining::{PromotionMode, RetrainingSpec};

use super::{Action, Machine, State, restore_name};
use crate::cycle::answers;
use crate::cycle::ledger::Restore;
use crate::cycle::lineage::Lineage;

/// Seconds until a registry that did not answer is asked again.
const AGAIN: i64 = 600;
/// Seconds after which a Job that does not end is given up.
const PATIENCE: i64 = 1_800;

impl Machine<'_> {
    /// What is done about a model that was learned before, in words; nothing once that is over, or if there can be none.
    pub(super) fn restore(&mut self, retraining: &RetrainingSpec) -> Option<String> {
        let output = &retraining.output.as_ref()?.oci;
        self.spec.promotion.publish_tag.as_ref()?;
        let target = &self.observed.target;
        let base = target.base.as_ref()?.digest.clone();
        let mine = self.spec.promotion.mode != PromotionMode::Propose && target.follows && !self.spec.suspend;
        if self.ledger.begun > 0 || !mine {
            return None;
        }
        let mut restore = self.ledger.restore.clone().unwrap_or_default();
        if restore.outcome.is_some() {
            return None;
        }
        if restore.asking {
            self.read(&mut restore, &output.repository, &base);
        } else if restore.found.is_none() && target.settled && self.observed.now >= restore.after {
            let champion = target.champion.as_ref().map(|champion| &champion.digest);
            // What another policy learned may be newer than the tag.
            if target.learned.is_empty() && champion == Some(&base) {
                restore.attempts += 1;
                restore.asking = true;
                restore.asked = self.observed.now;
                self.actions.push(Action::Restore(restore.attempts));
            } else {
                restore.outcome = Some("a learned model serves already".to_owned());
            }
        }
        if let Some(found) = restore.found.clone() {
            let secret = output.pull_secret_ref.as_ref().map(|secret| secret.name.clone());
            self.introduce(&mut restore, *found, secret, &base);
        }
        let busy = restore.asking || restore.found.is_some();
        self.ledger.restore = Some(restore);
        busy.then(|| "the registry is asked for a model that was learned before".to_owned())
    }

    /// Lets go of a model that was found and is not to be restored any more. If that is wanted again, it is asked for again.
    pub(super) fn let_go_of_restored(&mut self) {
        let retraining = self.spec.retraining.as_ref();
        let has_output = retraining.is_some_and(|retraining| retraining.output.is_some());
        let promotion = &self.spec.promotion;
        let wanted = has_output && promotion.publish_tag.is_some() && promotion.mode != PromotionMode::Propose;
        if wanted && self.ledger.begun == 0 {
            return;
        }
        let restore = self.ledger.restore.as_mut();
        let Some(found) = restore.and_then(|restore| restore.found.take()) else {
            return;
        };
        let digest = found.model.digest;
        if !self.observed.target.served.contains(&digest) {
            let why = "models that were learned before are not restored any more";
            self.ledger.withdrawn.insert(digest, why.to_owned());
        }
    }

    fn read(&mut self, restore: &mut Restore, repository: &str, base: &str) {
        let end = match &self.observed.restore {
            Some(State::Ended(end)) => end,
            // One that finds no room is in nobody's way: cycles may begin meanwhile, and end the question.
            other if self.observed.now > restore.asked + PATIENCE => {
                if other.is_some() {
                    let name = restore_name(self.policy, restore.attempts);
                    self.actions.push(Action::Delete(name));
                }
                restore.asking = false;
                restore.after = self.observed.now + AGAIN;
                return;
            }
            None => {
                self.actions.push(Action::Restore(restore.attempts));
                return;
            }
            Some(State::Waiting(_) | State::Running(_)) => return,
        };
        restore.asking = false;
        let promotion = &self.spec.promotion;
        let approved = |lineage: &Lineage| {
            promotion.mode != PromotionMode::Approve || promotion.approved_digests.contains(&lineage.model.digest)
        };
        match answers::restored(end, repository, base) {
            Ok(Some(lineage)) if !approved(&lineage) => {
                restore.outcome = Some(format!(
                    "the tag names {}, which is not in spec.promotion.approvedDigests",
                    lineage.model.digest
                ));
            }
            Ok(Some(lineage)) => restore.found = Some(Box::new(lineage)),
            Ok(None) => restore.outcome = Some("no model was learned before".to_owned()),
            Err((true, _)) => restore.after = self.observed.now + AGAIN,
            Err((false, why)) => restore.outcome = Some(why),
        }
    }

    /// Stores what was found with the target, as what this policy learned.
    fn introduce(&mut self, restore: &mut Restore, found: Lineage, pull_secret: Option<String>, base: &str) {
        let target = &self.observed.target;
        let digest = found.model.digest.clone();
        let serves = target
            .champion
            .as_ref()
            .is_some_and(|champion| champion.digest == digest);
        restore.outcome = if found.base.digest != base {
            Some("the spec asks for another model by now".to_owned())
        } else if target.failed.contains(&digest) {
            let why = "the model that was learned before did not come up";
            self.ledger.withdrawn.insert(digest.clone(), why.to_owned());
            Some(why.to_owned())
        } else if serves && target.settled && target.served.contains(&digest) {
            Some("the model that was learned before serves again".to_owned())
        } else if self.is_unheeded(&digest, &mut restore.unheeded_since) {
            let why = "the target did not take up the model that was learned before";
            self.ledger.withdrawn.insert(digest.clone(), why.to_owned());
            Some(why.to_owned())
        } else {
            None
        };
        if restore.outcome.is_some() {
            restore.found = None;
            return;
        }
        if !target.learned.contains(&digest) {
            let mut lineage = found;
            lineage.model.pull_secret = pull_secret;
            self.policy.name.clone_into(&mut lineage.policy);
            self.policy.uid.clone_into(&mut lineage.policy_uid);
            self.actions.push(Action::Learn(Box::new(lineage)));
        }
    }
}
