//! What both models are judged by, chosen before anything is chosen to train on. Pure.

use std::collections::{BTreeMap, BTreeSet};

use perennial_crds::retrain::{PrepareSettings, SuiteItem};

use super::candidate::Candidate;
use super::join::Label;
use super::prompt::PromptHash;
use super::share::choose;

/// What is held out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HeldOut {
    /// The items.
    pub items: Vec<SuiteItem>,
    /// Their prompts, which must not be trained on.
    pub prompts: BTreeSet<PromptHash>,
}

/// Holds out records of the changed traffic whose right answer is known: corrected ones first, then those rated good, by lot, one
/// for each prompt.
///
/// No requester gives more than its share, and with all that must not be trained on any more because a prompt of it was held out,
/// it is at most half of what there is: the other half is to learn from.
#[must_use]
pub fn hold_out(candidates: &[Candidate], settings: &PrepareSettings) -> HeldOut {
    if settings.recent_suites.is_empty() {
        return HeldOut::default();
    }
    let mut eligible: Vec<&Candidate> = candidates
        .iter()
        .filter(|candidate| candidate.exchange.time >= settings.drifted_since && candidate.label != Label::None)
        .collect();
    eligible.sort_by_key(|candidate| (candidate.label == Label::RatedGood, candidate.lot));
    let half = eligible.len() / 2;
    let mut seen = BTreeSet::new();
    let prompts: Vec<&Candidate> = eligible
        .iter()
        .copied()
        .filter(|candidate| seen.insert(candidate.prompt))
        .collect();
    let most = half.min(settings.hold_out as usize);
    let capped = shared(&prompts, most, settings.max_percent_per_requester);
    let afforded = affordable(&capped, &eligible, half);
    // Those that cost too much are gone, so shares are counted again.
    let mut chosen = shared(&afforded, most, settings.max_percent_per_requester);
    chosen.sort_by_key(|candidate| candidate.lot);
    HeldOut {
        items: chosen.iter().map(|candidate| item(candidate)).collect(),
        prompts: chosen.iter().map(|candidate| candidate.prompt).collect(),
    }
}

fn shared<'a>(candidates: &[&'a Candidate], most: usize, percent: u32) -> Vec<&'a Candidate> {
    let owners: Vec<&str> = candidates.iter().map(|candidate| candidate.owner.as_str()).collect();
    let chosen = choose(&owners, most, percent);
    chosen.taken.into_iter().map(|position| candidates[position]).collect()
}

/// Those, in their order, that together take at most `most` of the eligible ones away from training.
fn affordable<'a>(candidates: &[&'a Candidate], eligible: &[&Candidate], most: usize) -> Vec<&'a Candidate> {
    let mut holders: BTreeMap<PromptHash, Vec<usize>> = BTreeMap::new();
    for (position, candidate) in eligible.iter().enumerate() {
        for said in &candidate.said {
            holders.entry(*said).or_default().push(position);
        }
    }
    let mut gone: BTreeSet<usize> = BTreeSet::new();
    let mut afforded = Vec::new();
    for candidate in candidates {
        let all = holders.get(&candidate.prompt).map_or(&[][..], Vec::as_slice);
        let more: Vec<usize> = all
            .iter()
            .copied()
            .filter(|position| !gone.contains(position))
            .collect();
        if gone.len() + more.len() <= most {
            gone.extend(more);
            afforded.push(*candidate);
        }
    }
    afforded
}

fn item(candidate: &Candidate) -> SuiteItem {
    let exchange = &candidate.exchange;
    let answer = match &candidate.label {
        Label::Corrected(corrected) => corrected.clone(),
        Label::RatedGood | Label::None => exchange.answer.clone(),
    };
    SuiteItem {
        messages: exchange.messages.clone(),
        prompt: exchange.prompt.clone(),
        answer: Some(answer),
        exact: None,
        regex: None,
        max_tokens: None,
    }
}
