//! A cluster with one policy, in which anything may happen that can happen, at the pace of random numbers.

use std::collections::{BTreeMap, BTreeSet};

use perennial_crds::DriftPolicySpec;
use perennial_drift::cause::Cause;
use perennial_operator::cycle::ledger::{Cycle, Kind, Ledger, Model, Outcome, Stage};
use perennial_operator::cycle::step::{Action, Drift, Observed, Policy, Seen, State, Step, Target, job_name, step};
use serde_json::json;

use crate::dice::Dice;

/// Text that stands for a prompt: a Job says it where nothing may be told on.
pub const CANARY: &str = "CANARY-7d1f";
const NAME: &str = "watch";
pub const REPOSITORY: &str = "registry.example/models/tiny";

pub struct Job {
    pub kind: Kind,
    pub cycle: Cycle,
    pub uid: String,
    pub made: i64,
    pub state: State,
}

/// What the world remembers that no operator can forget.
#[derive(Default)]
pub struct Log {
    /// Jobs by cycle and kind: how often each was made.
    pub made: BTreeMap<(String, Kind), u32>,
    /// Training Jobs.
    pub trained: u64,
    /// Cycles that began and were not given up for want of data: when, and which.
    pub begun: Vec<(i64, String)>,
    /// Cycles that ended: when, and how.
    pub ended: Vec<(i64, Outcome)>,
    /// Their ids.
    pub finished: BTreeSet<String>,
    /// GPU seconds of training Jobs that ended: of a cycle that began then.
    pub gpu_seconds: Vec<(i64, i64)>,
    /// Digests that passed an honest gate, against which champion.
    pub passed: BTreeSet<(String, String)>,
    /// Digests that were rolled out.
    pub learned: Vec<String>,
    /// Digests that have answered, whichever target.
    pub served: BTreeSet<String>,
    /// Promoted digests.
    pub promoted: BTreeSet<String>,
    /// Models that were stored again in a cluster that was built again.
    pub restored: u64,
    /// Models that a later cycle may delete.
    pub discarded: u64,
    /// Clusters that were built again.
    pub built_again: u64,
    /// Jobs that somebody removed.
    pub removed_by_hand: u32,
    /// Cycles of which there is a report.
    pub reported: BTreeSet<String>,
    /// Steps.
    pub steps: u64,
}

pub struct World {
    pub dice: Dice,
    pub now: i64,
    pub spec: DriftPolicySpec,
    pub generation: i64,
    pub log: Log,
    /// What is stored in the cluster.
    pub ledger: Ledger,
    pub jobs: BTreeMap<String, Job>,
    pub drift: Option<Drift>,
    pub heard: bool,
    pub base: Model,
    pub champion: Model,
    pub learned: BTreeMap<String, (Model, String)>,
    pub failed: BTreeSet<String>,
    /// Digests that have served.
    pub served: BTreeSet<String>,
    /// The target is to have replicas.
    pub runs: bool,
    /// UID of the target.
    pub target: String,
    pub captures: bool,
    pub follows: bool,
    pub gpus: i64,
    /// UID of the policy: another one in a cluster that was built again.
    pub uid: String,
    /// Fixed prompts are being asked.
    pub awaits_probes: bool,
    /// They are answered otherwise.
    pub regressed: bool,
    /// What the registry's tag names, with its base.
    pub tag: Option<(Model, String)>,
    /// The Job that asks for it.
    pub restore: Option<State>,
    /// Its number.
    pub attempt: u32,
    /// Reports that the operator knows to be written: a killed one knows nothing.
    pub reported: BTreeSet<String>,
    pub made: u64,
    /// One of so many bad things that could happen does.
    pub peace: u64,
    /// True quality of models.
    pub quality: BTreeMap<String, f64>,
}

pub fn digest(number: u64) -> String {
    format!("sha256:{number:064x}")
}

pub fn model(number: u64) -> Model {
    Model {
        uri: format!("hf://org/model@{number:040x}"),
        digest: digest(number),
        claim: None,
        claim_path: None,
        pull_secret: None,
    }
}

pub fn spec(dice: &mut Dice) -> DriftPolicySpec {
    let mode = dice.of(&["Propose", "Approve", "Automatic", "Automatic"]);
    let mut spec = json!({
        "targetRef": {"name": "tiny"},
        "confirmSeconds": 60,
        "retraining": {
            "workspace": {"persistentVolumeClaim": {"claimName": "work"}},
            "activeDeadlineSeconds": 3600,
            "limits": {
                "cooldownSeconds": dice.of(&[0, 600, 7200]),
                "maxCycles": {"count": dice.of(&[1, 2, 5]), "perDays": 1},
                "backoff": {"initialSeconds": dice.of(&[0, 600]), "maxSeconds": 7200},
                "stopAfterUnpromoted": dice.of(&[1, 2, 3]),
            },
        },
        "gate": {"minItems": 50},
        "promotion": {"mode": mode},
    });
    if dice.one_in(2) {
        spec["retraining"]["output"] = json!({"oci": {"repository": REPOSITORY}});
        spec["promotion"]["publishTag"] = json!("champion");
    }
    if dice.one_in(2) {
        spec["retraining"]["limits"]["maxGPUSeconds"] = json!({"count": dice.of(&[4000, 8000, 20_000]), "perDays": 1});
    }
    serde_json::from_value(spec).expect("a spec")
}

impl World {
    pub fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let spec = spec(&mut dice);
        let gpus = dice.of(&[0, 1, 2]);
        let peace = dice.of(&[1, 6, 30]);
        Self {
            now: 1_800_000_000,
            spec,
            generation: 1,
            log: Log::default(),
            ledger: Ledger::default(),
            jobs: BTreeMap::new(),
            drift: None,
            heard: true,
            base: model(1),
            champion: model(1),
            learned: BTreeMap::new(),
            failed: BTreeSet::new(),
            served: BTreeSet::from([digest(1)]),
            runs: true,
            target: "target-1".to_owned(),
            captures: true,
            follows: true,
            gpus,
            uid: "0000-1111".to_owned(),
            awaits_probes: false,
            regressed: false,
            tag: None,
            restore: None,
            attempt: 0,
            reported: BTreeSet::new(),
            made: 100,
            peace,
            quality: BTreeMap::from([(digest(1), 0.5)]),
            dice,
        }
    }

    /// The digest that the target is to serve.
    pub fn wanted(&self) -> Model {
        let introduced = self.ledger.introduces().map(|model| model.digest.as_str());
        let may_serve = |digest: &str| self.served.contains(digest) || (self.runs && introduced == Some(digest));
        let valid = self
            .learned
            .values()
            .filter(|(model, base)| *base == self.base.digest && self.follows && may_serve(&model.digest));
        valid
            .map(|(model, _)| model.clone())
            .next_back()
            .unwrap_or_else(|| self.base.clone())
    }

    fn observed(&self) -> Observed {
        let wanted = self.wanted();
        let current = self.ledger.cycle.as_ref().map(|cycle| cycle.id.as_str());
        let seen = |job: &Job| Seen {
            uid: job.uid.clone(),
            made: job.made,
            deadline: 3600,
            gpu_seconds: self.gpu_seconds(job),
            state: job.state.clone(),
        };
        let of_cycle = self.jobs.values().filter(|job| Some(job.cycle.id.as_str()) == current);
        let strays = self
            .jobs
            .iter()
            .filter(|(_, job)| Some(job.cycle.id.as_str()) != current && !matches!(job.state, State::Ended(_)));
        Observed {
            now: self.now,
            generation: self.generation,
            drift: self.drift.clone().filter(|_| self.heard),
            calm: self.heard && self.drift.is_none(),
            target: Target {
                uid: self.target.clone(),
                runs: self.runs,
                served: self.served.clone(),
                base: Some(self.base.clone()),
                champion: Some(self.champion.clone()),
                settled: wanted.digest == self.champion.digest,
                failed: self.failed.clone(),
                captures: self.captures,
                follows: self.follows,
                learned: self.learned.keys().cloned().collect(),
            },
            places: BTreeSet::new(),
            jobs: of_cycle.map(|job| (job.kind, seen(job))).collect(),
            awaits_probes: self.awaits_probes,
            regressed: self.regressed,
            restore: self.restore.clone().filter(|_| {
                let restore = self.ledger.restore.as_ref();
                restore.is_some_and(|restore| restore.attempts == self.attempt)
            }),
            strays: strays.map(|(name, _)| name.clone()).collect(),
            reported: self.reported.clone(),
            gpu_seconds: Ok(self.reserve()),
        }
    }

    /// One look of the operator, which may be killed at any moment of it.
    pub fn look(&mut self) -> Step {
        self.log.steps += 1;
        let observed = self.observed();
        let uid = self.uid.clone();
        let policy = Policy { name: NAME, uid: &uid };
        let decided = step(&self.ledger, &observed, &self.spec, &policy);
        // The same again: an operator that is started anew decides the same.
        assert_eq!(decided, step(&self.ledger, &observed, &self.spec, &policy));
        self.reported.clear();
        if self.dice.one_in(12) {
            return decided;
        }
        let before = std::mem::replace(&mut self.ledger, decided.ledger.clone());
        self.note(&before);
        for action in &decided.actions {
            if self.dice.one_in(12) {
                self.reported.clear();
                break;
            }
            self.act(action);
        }
        decided
    }

    /// GPU seconds that a cycle may use: the Job that trains has these GPUs, the one that judges a single one.
    pub fn reserve(&self) -> i64 {
        (self.gpus + self.gpus.min(1)) * 3600
    }

    pub fn gpus_of(&self, kind: Kind) -> i64 {
        match kind {
            Kind::Retrain => self.gpus,
            Kind::Gate => self.gpus.min(1),
            Kind::Prepare | Kind::Publish => 0,
        }
    }

    /// What the pods of a Job have used so far.
    pub fn gpu_seconds(&self, job: &Job) -> i64 {
        match &job.state {
            State::Waiting(_) => 0,
            State::Running(since) => self.gpus_of(job.kind) * (self.now - since).clamp(0, 3600),
            State::Ended(end) => end.gpu_seconds,
        }
    }

    fn note(&mut self, before: &Ledger) {
        let id = |ledger: &Ledger| ledger.cycle.as_ref().map(|cycle| cycle.id.clone());
        let (was, is) = (id(before), id(&self.ledger));
        if was != is {
            let finished = |id: &String| self.ledger.finished.iter().any(|one| one.id == *id);
            if let Some(was) = was.filter(|was| !finished(was)) {
                self.log.begun.retain(|(_, begun)| *begun != was);
            }
            if let Some(is) = is {
                assert!(!self.awaits_probes, "a cycle began before the probes were answered");
                self.log.begun.push((self.now, is));
            }
        }
        let known: BTreeSet<&String> = before.finished.iter().map(|one| &one.id).collect();
        for finished in self.ledger.finished.iter().filter(|one| !known.contains(&one.id)) {
            self.log.ended.push((finished.ended, finished.outcome));
            self.log.finished.insert(finished.id.clone());
            if finished.outcome == Outcome::Promoted {
                let served = finished
                    .candidate
                    .as_ref()
                    .is_some_and(|digest| self.log.served.contains(digest));
                assert!(served, "a model counts as promoted that never served");
                self.log.promoted.extend(finished.candidate.clone());
            }
        }
    }

    fn act(&mut self, action: &Action) {
        match action {
            Action::Create(kind) => self.create(*kind),
            Action::Delete(name) => {
                let Some(job) = self.jobs.remove(name) else { return };
                let ended = matches!(job.state, State::Ended(_));
                assert!(
                    !ended || job.kind == Kind::Prepare,
                    "a Job that ended was removed before anybody could look at it"
                );
                if !ended {
                    self.log.gpu_seconds.push((job.cycle.started, self.gpu_seconds(&job)));
                }
            }
            Action::Learn(lineage) => {
                let pair = (lineage.model.digest.clone(), self.champion.digest.clone());
                assert_eq!(lineage.base.digest, self.base.digest);
                assert_eq!(lineage.policy_uid, self.uid);
                if self.ledger.begun == 0 {
                    let tagged = self.tag.as_ref().map(|(model, _)| &model.digest);
                    assert_eq!(tagged, Some(&pair.0), "a model serves again that was never published");
                    let passed = self.log.passed.iter().any(|(digest, _)| *digest == pair.0);
                    assert!(passed, "a model was published that never passed the gate");
                    self.log.restored += 1;
                } else {
                    assert!(
                        self.log.passed.contains(&pair),
                        "a model was rolled out that did not pass the gate against the champion"
                    );
                    assert!(
                        self.quality[&pair.0] > self.quality[&pair.1],
                        "a worse model was rolled out"
                    );
                }
                self.log.learned.push(pair.0.clone());
                self.learned
                    .entry(pair.0)
                    .or_insert((lineage.model.clone(), lineage.base.digest.clone()));
            }
            Action::Report(report) => {
                let finished = self.ledger.finished.iter().find(|one| one.id == report.id);
                let finished = finished.expect("only a cycle that has ended is reported");
                assert_eq!((finished.outcome, finished.ended), (report.outcome, report.ended));
                let page = perennial_operator::cycle::report::page(report, NAME, "target");
                assert!(!page.contains(CANARY), "what a Job said was told on");
                self.reported.insert(report.id.clone());
                self.log.reported.insert(report.id.clone());
            }
            Action::Restore(attempt) => {
                // A Job of another number is another Job.
                if self.restore.is_none() || self.attempt != *attempt {
                    self.restore = Some(State::Waiting("room".to_owned()));
                }
                self.attempt = *attempt;
            }
            Action::Withdraw(digest) => {
                // Only one that served in another cluster may fail to come up in this one.
                let served = self.ledger.begun > 0 && self.log.promoted.contains(digest);
                assert!(!served, "a promoted model was taken away");
                self.learned.remove(digest);
            }
        }
    }

    /// What a new cycle deletes is of cycles that have ended, and no model that anybody may use.
    fn deletes_nothing_in_use(&mut self, cycle: &Cycle) {
        for leftover in &cycle.leftovers {
            let id = &leftover.cycle_id;
            assert_ne!(*id, cycle.id);
            let Some(finished) = self.ledger.finished.iter().find(|one| one.id == *id) else {
                assert!(self.ledger.without_data.contains(id), "only what has ended is deleted");
                continue;
            };
            let on_workspace = leftover.discard && !finished.in_registry;
            if let Some(digest) = finished.candidate.as_ref().filter(|_| on_workspace) {
                let used = [&self.base.digest, &self.champion.digest].contains(&digest)
                    || self.learned.contains_key(digest)
                    || self.log.promoted.contains(digest);
                assert!(!used, "a model is deleted that is in use");
                self.log.discarded += 1;
            }
        }
    }

    fn create(&mut self, kind: Kind) {
        let cycle = self.ledger.cycle.clone().expect("a cycle");
        let name = job_name(NAME, kind, &cycle.id);
        if self.jobs.contains_key(&name) {
            return;
        }
        assert!(
            matches!(cycle.cause, Cause::InputDrift | Cause::QualityDrop),
            "retraining answers a cause that it cannot cure"
        );
        assert!(
            !self.regressed || kind == Kind::Publish,
            "retraining answers a regression of the service"
        );
        if kind == Kind::Publish {
            let candidate = cycle.candidate.as_ref().expect("a candidate");
            let serves = self.champion.digest == candidate.digest;
            assert!(serves || cycle.stage == Stage::Proposed, "the tag is for what serves");
            let pair = (candidate.digest.clone(), cycle.champion.digest.clone());
            assert!(self.log.passed.contains(&pair), "the tag is for what passed its gate");
        }
        if kind == Kind::Prepare {
            self.deletes_nothing_in_use(&cycle);
        }
        if kind == Kind::Retrain {
            assert!(
                cycle.manifest.is_some() && cycle.suites.is_some(),
                "trained before the test was held out"
            );
            self.log.trained += 1;
        }
        *self.log.made.entry((cycle.id.clone(), kind)).or_default() += 1;
        self.made += 1;
        let job = Job {
            kind,
            cycle,
            uid: format!("uid-{}", self.made),
            made: self.now,
            state: State::Waiting("room".to_owned()),
        };
        self.jobs.insert(name, job);
    }
}
