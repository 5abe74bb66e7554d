//! A cluster of values: it applies plans as the operator's shell does, write by write, makes pods ready and lets
//! endpoints follow with a delay.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use perennial_operator::deployment::plan::{Known, Observed, Phase, Plan, Running, Wanted, plan};
use perennial_operator::deployment::revision::Failure;

/// Seconds of a tick.
const TICK: i64 = 5;

#[derive(Clone, Debug)]
struct Deployment {
    created: Timestamp,
    replicas: i32,
    ready: i32,
}

/// Records of a revision: they outlive its Deployment.
#[derive(Clone, Debug, Default)]
struct Record {
    served: bool,
    failed: Option<Failure>,
}

/// One write of the operator.
enum Write {
    Forgive(String),
    GiveUp(String),
    Record(String),
    Service(String),
    Scale(String, i32),
    MarkServed(String),
    Delete(String),
}

/// The cluster.
#[derive(Clone, Debug)]
pub struct Cluster {
    now: Timestamp,
    sound: BTreeSet<String>,
    service: Option<String>,
    endpoints: Vec<String>,
    records: BTreeMap<String, Record>,
    deployments: BTreeMap<String, Deployment>,
    started: BTreeMap<String, usize>,
}

impl Cluster {
    /// An empty cluster in which the pods of these revisions get ready and those of others never.
    pub fn new(sound: &BTreeSet<&str>) -> Self {
        Self {
            now: crate::common::now(),
            sound: sound.iter().map(|name| (*name).to_owned()).collect(),
            service: None,
            endpoints: Vec::new(),
            records: BTreeMap::new(),
            deployments: BTreeMap::new(),
            started: BTreeMap::new(),
        }
    }

    /// Where the Service leads.
    pub fn service(&self) -> Option<&str> {
        self.service.as_deref()
    }

    /// What runs, and how many replicas are asked of it.
    pub fn deployments(&self) -> Vec<(&str, i32)> {
        self.deployments.iter().map(|(n, d)| (n.as_str(), d.replicas)).collect()
    }

    /// Ready pods of a revision.
    pub fn ready(&self, name: &str) -> i32 {
        self.deployments.get(name).map_or(0, |deployment| deployment.ready)
    }

    /// Whether pods of this revision get ready.
    pub fn is_sound(&self, name: &str) -> bool {
        self.sound.contains(name)
    }

    /// How often a Deployment of this revision was made.
    pub fn started(&self, name: &str) -> usize {
        self.started.get(name).copied().unwrap_or(0)
    }

    /// A ready pod breaks down.
    pub fn lose_pod(&mut self, name: &str) {
        if let Some(deployment) = self.deployments.get_mut(name) {
            deployment.ready = (deployment.ready - 1).max(0);
        }
        self.update_endpoints();
    }

    /// Somebody deletes the Service.
    pub fn lose_service(&mut self) {
        self.service = None;
        self.endpoints.clear();
    }

    /// Time passes: one pod of each sound revision gets ready, endpoints follow.
    pub fn tick(&mut self) {
        self.now += SignedDuration::from_secs(TICK);
        for (name, deployment) in &mut self.deployments {
            if self.sound.contains(name) {
                deployment.ready = (deployment.ready + 1).min(deployment.replicas);
            }
        }
        self.update_endpoints();
    }

    fn update_endpoints(&mut self) {
        let Some(service) = &self.service else { return };
        let ready = usize::try_from(self.ready(service)).unwrap();
        self.endpoints = vec![service.clone(); ready];
    }

    /// One look of the operator, which ends after so many writes. Gives the phase and the number of writes.
    pub fn look(&mut self, wanted: &Wanted, ends_after: usize) -> Result<(Phase, usize), String> {
        let wanted = Wanted {
            now: self.now,
            ..wanted.clone()
        };
        let plan = plan(&self.observed(), &wanted);
        let writes = self.writes(&plan, &wanted);
        let count = writes.len();
        for write in writes.into_iter().take(ends_after) {
            let answered = self.answers();
            self.carry_out(write, &wanted);
            if answered && wanted.replicas > 0 && !self.answers() {
                return Err(format!("a write took the last replica away: {plan:?} in {self:?}"));
            }
        }
        Ok((plan.phase, count))
    }

    fn answers(&self) -> bool {
        self.service().is_some_and(|service| self.ready(service) > 0)
    }

    /// As `Children::observed` sees it.
    fn observed(&self) -> Observed {
        let names: BTreeSet<&String> = self.records.keys().chain(self.deployments.keys()).collect();
        let known = |name: &String| {
            let record = self.records.get(name).cloned().unwrap_or_default();
            let running = self.deployments.get(name).map(|deployment| Running {
                created: deployment.created,
                ready: deployment.ready,
                replicas: deployment.replicas,
            });
            Known {
                running,
                served: record.served,
                failed: record.failed,
            }
        };
        let of_stable = |name: &&String| Some(name.as_str()) == self.service();
        let ready_endpoints = self.endpoints.iter().filter(of_stable).count();
        Observed {
            stable: self.service.clone(),
            endpoints_moved: ready_endpoints > 0 && ready_endpoints == self.endpoints.len(),
            ready_endpoints,
            revisions: names.into_iter().map(|name| (name.clone(), known(name))).collect(),
        }
    }

    /// The writes that a plan needs, in the order of the shell.
    fn writes(&self, plan: &Plan, wanted: &Wanted) -> Vec<Write> {
        let mut writes: Vec<Write> = plan.forgive.iter().cloned().map(Write::Forgive).collect();
        if plan.give_up {
            writes.extend(wanted.target.clone().map(Write::GiveUp));
        }
        let target = wanted.target.iter();
        let new = target.filter(|target| plan.deployments.contains_key(*target) && !self.records.contains_key(*target));
        writes.extend(new.cloned().map(Write::Record));
        if plan.stable != self.service {
            writes.extend(plan.stable.clone().map(Write::Service));
        }
        for (name, replicas) in &plan.deployments {
            if self.deployments.get(name).map(|found| found.replicas) != Some(*replicas) {
                writes.push(Write::Scale(name.clone(), *replicas));
            }
        }
        writes.extend(plan.mark_served.clone().map(Write::MarkServed));
        writes.extend(plan.remove.iter().cloned().map(Write::Delete));
        writes
    }

    fn carry_out(&mut self, write: Write, wanted: &Wanted) {
        match write {
            Write::Forgive(name) => self.records.entry(name).or_default().failed = None,
            Write::GiveUp(name) => {
                self.records.entry(name).or_default().failed = Some(crate::common::failure(wanted.retry.as_deref()));
            }
            Write::Record(name) => _ = self.records.entry(name).or_default(),
            Write::Service(name) => self.service = Some(name),
            Write::Scale(name, replicas) => {
                let created = self.now;
                let deployment = self.deployments.entry(name.clone()).or_insert_with(|| {
                    *self.started.entry(name).or_default() += 1;
                    Deployment {
                        created,
                        replicas,
                        ready: 0,
                    }
                });
                deployment.replicas = replicas;
                deployment.ready = deployment.ready.min(replicas);
            }
            Write::MarkServed(name) => self.records.entry(name).or_default().served = true,
            Write::Delete(name) => _ = self.deployments.remove(&name),
        }
    }
}
