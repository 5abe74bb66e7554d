//! What an operator remembers of a drift that it has seen, so that a test need not wait for one.

use anyhow::{Result, bail, ensure};
use k8s_openapi::api::core::v1::ConfigMap;
use perennial_crds::DriftPolicy;
use perennial_drift::cause::Probes;
use perennial_drift::features::{Encoder, Exchange, Extractor, FinishReason};
use perennial_drift::observe::Interval;
use perennial_drift::pane::Pane;
use perennial_drift::pane::layout::Layout;
use perennial_operator::drift::memory::{Memory, Stage};
use perennial_operator::drift::record;
use perennial_operator::drift::terms::{About, policy as terms};

/// `spec.observation.paneSeconds` of a policy that is to remember it.
pub const PANE_SECONDS: i64 = 10;

/// What has changed.
#[derive(Clone, Copy, PartialEq)]
pub enum Change {
    /// Prompts are four times as long.
    LongerPrompts,
    /// Of the answers that are rated, six of ten are rated badly, and not one of ten.
    WorseRatings,
}

/// The ConfigMaps of a policy that has learned what is normal, and has then seen a change. `target` is the UID of its
/// LLMDeployment, `base` the digest of the model in its spec.
///
/// # Errors
/// If the policy does not allow it.
pub fn remembered(policy: &DriftPolicy, target: &str, base: &str, change: Change) -> Result<Vec<ConfigMap>> {
    let memory = memory(policy, target, base, change)?;
    let Stage::Watching(watching) = &memory.stage else {
        bail!("nothing was learned");
    };
    let mut maps = record::baseline(policy, watching)?;
    maps.push(record::evidence(policy, &memory)?);
    Ok(maps)
}

fn memory(policy: &DriftPolicy, target: &str, base: &str, change: Change) -> Result<Memory> {
    let extractor = Extractor::new(Encoder::Ngrams)?;
    let layout = Layout::of(extractor.recipe());
    let about = About::new(&policy.spec, target, base, None);
    let first = jiff::Timestamp::now().as_second() / PANE_SECONDS - 200;
    let mut memory = Memory::new(about, layout.fingerprint(), first * PANE_SECONDS);
    memory.serves(Some("any"), 0);
    for number in 0..190_i64 {
        let start = (first + number) * PANE_SECONDS;
        let has_changed = |what| number >= 100 && change == what;
        let factor = if has_changed(Change::LongerPrompts) { 4 } else { 1 };
        let mut pane = Pane::new(&layout, start, u32::try_from(PANE_SECONDS)?);
        for request in 0..30_u32 {
            let mixed = u32::try_from((number * 30 + i64::from(request)) * 7919 % 200)?;
            pane.add(&extractor.features(&Exchange {
                id: &format!("{number}-{request}"),
                prompt_tokens: Some(factor * (20 + mixed)),
                output_tokens: Some(10 + mixed / 3),
                finish_reason: Some(FinishReason::Stop),
                ..Exchange::default()
            }));
        }
        // A baseline needs a thousand.
        for rating in 0..20 {
            pane.add_rating(rating < if has_changed(Change::WorseRatings) { 12 } else { 2 });
        }
        let interval = Interval {
            start,
            pane: Some(pane),
        };
        memory.take(vec![interval], Some(0), &terms(&policy.spec))?;
    }
    ensure!(memory.cause(Probes::Unknown).is_some(), "nothing has drifted");
    Ok(memory)
}
