//! What a cycle that begins may delete of those that have ended. Pure.
//!
//! The texts of all of them go. A model stays if it passed its gate, for it may serve, now or again, or somebody may have
//! taken it from a proposal; and whatever it is, if anybody serves from its folder.

use std::collections::BTreeSet;
use std::path::{Component, Path};

use perennial_crds::retrain::EndedCycle;

use super::ledger::{Finished, Ledger, Model, Outcome};
use super::step::{Target, cycle_path};

/// What may be deleted. `places`: the paths on the workspace volume from which LLMDeployments take their models.
#[must_use]
pub fn leftovers(ledger: &Ledger, policy: &str, target: &Target, places: &BTreeSet<String>) -> Vec<EndedCycle> {
    let models: Vec<&Model> = target.base.iter().chain(&target.champion).collect();
    let served_from = |id: &str| {
        let folder = cycle_path(policy, id);
        let mounted = models.iter().filter_map(|model| model.claim_path.as_ref());
        places.iter().chain(mounted).any(|place| overlap(place, &folder))
    };
    let known = |digest: &String| models.iter().any(|model| model.digest == *digest) || target.learned.contains(digest);
    let wanted = |one: &Finished| match &one.candidate {
        None => false,
        Some(_) if one.in_registry => false,
        Some(digest) => one.outcome == Outcome::Promoted || passed(one) || known(digest),
    };
    let finished = ledger
        .finished
        .iter()
        .map(|one| (&one.id, !wanted(one)))
        .chain(ledger.without_data.iter().map(|id| (id, true)));
    finished
        .map(|(id, unwanted)| EndedCycle {
            cycle_id: id.clone(),
            discard: unwanted && !served_from(id),
        })
        .collect()
}

fn passed(one: &Finished) -> bool {
    !one.verdicts.is_empty() && one.verdicts.iter().all(|verdict| verdict.passed)
}

/// Whether one path is the other, or a folder that it is in.
fn overlap(one: &str, other: &str) -> bool {
    fn names(path: &str) -> impl Iterator<Item = Component<'_>> {
        Path::new(path)
            .components()
            .filter(|part| matches!(part, Component::Normal(_)))
    }
    names(one).zip(names(other)).all(|(one, other)| one == other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_overlaps_with_what_is_in_it_and_what_it_is_in() {
        for path in ["", "a", "a/b", "a/b/c/output/model.gguf", "./a//b/"] {
            assert!(overlap(path, "a/b/c") && overlap("a/b/c", path), "{path}");
        }
        for path in ["b", "a/bb", "a/b/cc", "a/b/d/output"] {
            assert!(!overlap(path, "a/b/c"), "{path}");
        }
    }
}
