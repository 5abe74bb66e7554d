//! What is done after it was decided and stored.

use kube::ResourceExt;
use perennial_crds::capture_spec::Place;
use perennial_crds::conditions::Reason;
use perennial_crds::{DriftPolicy, LLMDeployment};

use super::seen::Templates;
use super::{Tools, trouble};
use crate::cycle::jobs::registry::restore;
use crate::cycle::jobs::{self, Site};
use crate::cycle::ledger::{Ledger, Stage};
use crate::cycle::report::{self, Report};
use crate::cycle::step::{Action, Standing};
use crate::deployment::validate::Validated;
use crate::drift::record::reports_selector;
use crate::drift::status::Trouble;
use crate::index::Owner;

/// Does what was decided; something that a person has to mend is for the status.
#[expect(
    clippy::too_many_arguments,
    reason = "called from one place, and each argument has a type of its own"
)]
pub(super) async fn carry_out(
    owner: &Owner,
    policy: &DriftPolicy,
    valid: &Validated,
    object: &LLMDeployment,
    ledger: &Ledger,
    actions: &[Action],
    templates: &Templates,
    tools: &Tools<'_>,
) -> Result<Option<Standing>, Trouble> {
    let mut problem = None;
    for action in actions {
        match action {
            Action::Create(kind) => {
                let (Some(cycle), Some(retraining)) = (&ledger.cycle, &policy.spec.retraining) else {
                    continue;
                };
                let site = Site {
                    policy,
                    retraining,
                    target: valid,
                    records: records(object),
                    environment: tools.environment,
                    cycle,
                };
                let template = templates
                    .of(*kind)
                    .map(|template| template.as_ref().map_err(Clone::clone));
                let job = template
                    .transpose()
                    .and_then(|template| jobs::job(*kind, &site, template));
                match job {
                    Ok(job) => match tools.writer.create_job(owner, &job).await {
                        Ok(()) => {}
                        Err(error) if error.is_final() => problem = Some(invalid(cycle.stage, &error.to_string())),
                        Err(error) => return Err(trouble(error)),
                    },
                    Err(why) => problem = Some(invalid(cycle.stage, &why)),
                }
            }
            Action::Restore(attempt) => {
                let output = policy.spec.retraining.as_ref().and_then(|spec| spec.output.as_ref());
                if let (Some(output), Some(tag)) = (output, &policy.spec.promotion.publish_tag) {
                    let job = restore(policy, &output.oci, tag, tools.environment, *attempt);
                    match tools.writer.create_job(owner, &job).await {
                        Ok(()) => {}
                        // It is tried again, and given up for a while when it took too long.
                        Err(error) if error.is_final() => problem = Some(unasked(&error.to_string())),
                        Err(error) => return Err(trouble(error)),
                    }
                }
            }
            Action::Delete(name) => tools.writer.delete_job(owner, policy, name).await.map_err(trouble)?,
            Action::Learn(lineage) => tools.writer.learn(valid, lineage).await.map_err(trouble)?,
            Action::Withdraw(digest) => tools.writer.unlearn(valid, digest).await.map_err(trouble)?,
            Action::Report(report) => tell(owner, policy, report, ledger, tools).await?,
        }
    }
    Ok(problem)
}

/// Writes the report of a cycle, and removes those that are older than the status tells. One that is refused is not worth
/// standing still for.
async fn tell(
    owner: &Owner,
    policy: &DriftPolicy,
    report: &Report,
    ledger: &Ledger,
    tools: &Tools<'_>,
) -> Result<(), Trouble> {
    let map = report::map(policy, report);
    match tools.writer.keep(owner, &map).await {
        Ok(()) => {}
        Err(error) if error.is_refused() => {
            let (namespace, name) = (&owner.namespace, &owner.name);
            tracing::warn!(namespace, name, %error, "The report of a cycle was refused.");
        }
        Err(error) => return Err(trouble(error)),
    }
    let newest = ledger.finished.iter().rev().take(policy.spec.history.cycles as usize);
    let kept: Vec<String> = newest.map(|cycle| report::name(&owner.name, &cycle.id)).collect();
    let selector = reports_selector(&owner.name);
    for old in tools
        .writer
        .config_maps(owner, &map, &selector)
        .await
        .map_err(trouble)?
    {
        let name = old.name_any();
        if !kept.contains(&name) {
            tools.writer.drop_map(owner, &name).await.map_err(trouble)?;
        }
    }
    Ok(())
}

fn records(object: &LLMDeployment) -> Option<Place<'_>> {
    object.spec.capture.as_ref()?.storage.as_ref()?.place()
}

fn unasked(why: &str) -> Standing {
    Standing::Idle {
        reason: Reason::Restoring,
        message: format!("the registry cannot be asked for a model that was learned before: {why}"),
        blocked: true,
    }
}

fn invalid(stage: Stage, why: &str) -> Standing {
    Standing::Running {
        message: format!("the Job of the stage {stage:?} cannot be made"),
        waits: Some((Reason::JobTemplateInvalid, why.to_owned())),
    }
}

/// Logs and counts what was decided.
pub(super) fn note(owner: &Owner, tools: &Tools<'_>, before: &Ledger, now: &Ledger) {
    for finished in now
        .finished
        .iter()
        .filter(|one| !before.finished.iter().any(|old| old.id == one.id))
    {
        tracing::info!(
            namespace = owner.namespace,
            name = owner.name,
            cycle = finished.id,
            outcome = ?finished.outcome,
            reason = finished.reason,
            "A cycle ended."
        );
        tools
            .metrics
            .cycle_ended(&format!("{:?}", finished.outcome), finished.gpu_seconds);
    }
    if let Some(cycle) = now
        .cycle
        .as_ref()
        .filter(|cycle| Some(cycle.stage) != before.cycle.as_ref().map(|old| old.stage))
    {
        tracing::info!(
            namespace = owner.namespace,
            name = owner.name,
            cycle = cycle.id,
            stage = ?cycle.stage,
            "A cycle went on."
        );
    }
}
