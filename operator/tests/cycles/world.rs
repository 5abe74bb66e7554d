//! A cluster with one policy, in which anything may happen that can happen, at the pace of random numbers.

use std::collections::{BTreeMap, BTreeSet};

use perennial_crds::DriftPolicySpec;
use perennial_drift::cause::Cause;
use perennial_operator::cycle::ledger::{Cycle, Kind, Ledger, Model, Outcome, Stage};
use perennial_operator::cycle::step::{
    Action, Drift, End, Observed, Policy, Seen, State, Step, Target, job_name, step,
};
use serde_json::json;

/// Text that stands for a prompt: a Job says it where nothing may be told on.
pub const CANARY: &str = "CANARY-7d1f";
const NAME: &str = "watch";
const REPOSITORY: &str = "registry.example/models/tiny";

/// Random numbers by SplitMix64: the same on every machine.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }
}

struct Job {
    kind: Kind,
    cycle: Cycle,
    uid: String,
    state: State,
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
    /// Promoted digests.
    pub promoted: BTreeSet<String>,
    /// Models that were stored again in a cluster that was built again.
    pub restored: u64,
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
    jobs: BTreeMap<String, Job>,
    drift: Option<Drift>,
    heard: bool,
    base: Model,
    champion: Model,
    learned: BTreeMap<String, (Model, String)>,
    failed: BTreeSet<String>,
    captures: bool,
    follows: bool,
    gpus: i64,
    /// UID of the policy: another one in a cluster that was built again.
    uid: String,
    /// Fixed prompts are being asked.
    awaits_probes: bool,
    /// They are answered otherwise.
    regressed: bool,
    /// What the registry's tag names, with its base.
    tag: Option<(Model, String)>,
    /// The Job that asks for it.
    restore: Option<State>,
    /// Its number.
    attempt: u32,
    /// Reports that the operator knows to be written: a killed one knows nothing.
    reported: BTreeSet<String>,
    made: u64,
    /// One of so many bad things that could happen does.
    peace: u64,
    /// True quality of models.
    quality: BTreeMap<String, f64>,
}

fn digest(number: u64) -> String {
    format!("sha256:{number:064x}")
}

fn model(number: u64) -> Model {
    Model {
        uri: format!("hf://org/model@{number:040x}"),
        digest: digest(number),
        claim: None,
        claim_path: None,
        pull_secret: None,
    }
}

fn spec(dice: &mut Dice) -> DriftPolicySpec {
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
    fn wanted(&self) -> Model {
        let valid = self
            .learned
            .values()
            .filter(|(_, base)| *base == self.base.digest && self.follows);
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
                base: Some(self.base.clone()),
                champion: Some(self.champion.clone()),
                settled: wanted.digest == self.champion.digest,
                failed: self.failed.clone(),
                captures: self.captures,
                follows: self.follows,
                learned: self.learned.keys().cloned().collect(),
            },
            jobs: of_cycle.map(|job| (job.kind, seen(job))).collect(),
            awaits_probes: self.awaits_probes,
            regressed: self.regressed,
            restore: self.restore.clone().filter(|_| {
                let restore = self.ledger.restore.as_ref();
                restore.is_some_and(|restore| restore.attempts == self.attempt)
            }),
            strays: strays.map(|(name, _)| name.clone()).collect(),
            reported: self.reported.clone(),
            gpus: Ok(self.gpus),
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

    /// GPU seconds that a cycle may use.
    pub fn reserve(&self) -> i64 {
        self.gpus * 3600
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
                self.log.promoted.extend(finished.candidate.clone());
            }
        }
    }

    fn act(&mut self, action: &Action) {
        match action {
            Action::Create(kind) => self.create(*kind),
            Action::Delete(name) => {
                let job = self.jobs.remove(name).expect("a Job that was seen");
                assert!(!matches!(job.state, State::Ended(_)), "a Job that ended was removed");
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
            state: State::Waiting("room".to_owned()),
        };
        self.jobs.insert(name, job);
    }

    /// Something happens, or nothing.
    pub fn happen(&mut self) {
        self.now += self.dice.of(&[3, 30, 300, 3600]);
        if self.dice.one_in(50) {
            // Another operator's clock.
            self.now -= 120;
        }
        for name in self.jobs.keys().cloned().collect::<Vec<_>>() {
            if self.dice.one_in(2) {
                self.advance(&name);
            }
        }
        if let Some(state) = self.restore.take() {
            self.restore = Some(self.asked(state));
        }
        let event = self.dice.below(64);
        let bad = (8..20).contains(&event);
        if bad && !self.dice.one_in(self.peace) {
            return;
        }
        match event {
            0..8 => self.drift_begins(),
            8..11 => self.drift = None,
            11 => self.heard = !self.heard,
            12 => {
                // Git asks for another model.
                self.made += 1;
                self.base = model(self.made);
                self.quality.insert(self.base.digest.clone(), 0.5);
            }
            13 => self.follows = !self.follows,
            14 => self.captures = !self.captures,
            15 => self.spec.suspend = !self.spec.suspend,
            16 => {
                self.generation += 1;
                let suspend = self.spec.suspend;
                self.spec = spec(&mut self.dice);
                self.spec.suspend = suspend;
            }
            17 => self.remove_a_job(),
            18 => self.approve(),
            19 => self.put_into_git(),
            20..45 => self.roll_out(),
            45 => {
                // What was switched off is switched on again.
                (self.heard, self.captures, self.follows, self.spec.suspend) = (true, true, true, false);
                (self.awaits_probes, self.regressed) = (false, false);
            }
            46 => self.awaits_probes = !self.awaits_probes,
            47 => self.regressed = self.dice.one_in(2),
            48 if self.dice.one_in(4) => self.built_again(),
            _ => {}
        }
    }

    /// Everything goes well from now on, and nobody interferes.
    pub fn calm_down(&mut self) {
        self.now += 3600;
        self.drift = None;
        self.heard = true;
        self.spec.suspend = false;
        (self.awaits_probes, self.regressed) = (false, false);
        if let Some(state) = self.restore.take() {
            self.restore = Some(self.asked(state));
        }
        for name in self.jobs.keys().cloned().collect::<Vec<_>>() {
            self.advance(&name);
        }
        self.roll_out();
    }

    fn drift_begins(&mut self) {
        let cause = self.dice.of(&[
            Cause::InputDrift,
            Cause::InputDrift,
            Cause::InputDrift,
            Cause::ServingRegression,
            Cause::OutputShift,
            Cause::QualityDrop,
            Cause::Undetermined,
            Cause::SingleSource,
            Cause::Masked,
        ]);
        self.drift = Some(Drift {
            cause,
            since: self.now - 1000,
            report: "{}".to_owned(),
        });
    }

    /// The cluster is lost and built again from Git; the registry remembers.
    fn built_again(&mut self) {
        self.made += 1;
        self.uid = format!("0000-{}", self.made);
        self.ledger = Ledger::default();
        self.jobs.clear();
        self.learned.clear();
        self.failed.clear();
        self.reported.clear();
        self.restore = None;
        self.champion = self.base.clone();
        // What counted towards limits was counted in the cluster that is gone.
        self.log.begun.clear();
        self.log.ended.clear();
        self.log.gpu_seconds.clear();
        self.log.finished.clear();
        self.log.reported.clear();
        self.log.built_again += 1;
    }

    /// What becomes of the Job that asks for the tag.
    fn asked(&mut self, state: State) -> State {
        match state {
            State::Waiting(_) => State::Running(self.now),
            State::Ended(end) => State::Ended(end),
            State::Running(_) => State::Ended(match (self.trouble(6), &self.tag) {
                (0, _) => failed("SourceUnreachable"),
                (1, _) => said(format!("{CANARY} is no JSON")),
                (2, Some((model, base))) => said(restored(&model.digest, &model_of(&digest(94)), base)),
                (3, _) => End {
                    message: Some(json!({"schema": "restore/v1", "outcome": "Untrusted", "message": "no"}).to_string()),
                    ..failed("Error")
                },
                (_, Some((model, base))) => said(restored(&model.digest, model, base)),
                (_, None) => said(json!({"schema": "restore/v1", "outcome": "Succeeded"}).to_string()),
            }),
        }
    }

    fn remove_a_job(&mut self) {
        let name = self.jobs.keys().next_back().cloned();
        if let Some(job) = name.and_then(|name| self.jobs.remove(&name)) {
            self.log.removed_by_hand += 1;
            // What a Job used that nobody has looked at before it was removed, nobody can know.
            let seen = self
                .ledger
                .cycle
                .as_ref()
                .is_some_and(|cycle| cycle.jobs.contains_key(&job.kind));
            if let State::Ended(end) = &job.state
                && !seen
            {
                let used = (job.cycle.started, end.gpu_seconds);
                let at = self.log.gpu_seconds.iter().rposition(|one| *one == used);
                at.map(|at| self.log.gpu_seconds.remove(at));
            }
        }
    }

    fn approve(&mut self) {
        let candidate = self.ledger.cycle.as_ref().and_then(|cycle| cycle.candidate.as_ref());
        if let Some(candidate) = candidate {
            self.spec.promotion.approved_digests.push(candidate.digest.clone());
            self.generation += 1;
        }
    }

    /// Somebody takes the proposal.
    fn put_into_git(&mut self) {
        let cycle = self
            .ledger
            .cycle
            .as_ref()
            .filter(|cycle| cycle.stage == Stage::Proposed);
        if let Some(candidate) = cycle.and_then(|cycle| cycle.candidate.clone()) {
            self.base = candidate;
        }
    }

    fn roll_out(&mut self) {
        let wanted = self.wanted();
        // A mark of failure goes with the wish for that revision.
        self.failed.retain(|digest| *digest == wanted.digest);
        if wanted.digest == self.champion.digest {
            return;
        }
        let fails = self.failed.contains(&wanted.digest) || (self.dice.one_in(self.peace) && self.dice.one_in(3));
        if self.learned.contains_key(&wanted.digest) && fails {
            self.failed.insert(wanted.digest);
        } else {
            self.champion = wanted;
        }
    }

    fn advance(&mut self, name: &str) {
        let Some(job) = self.jobs.get(name) else { return };
        let (kind, cycle) = (job.kind, job.cycle.clone());
        let state = match &job.state {
            State::Waiting(_) if self.dice.one_in(3) => return,
            State::Waiting(_) => State::Running(self.now),
            State::Ended(_) => return,
            State::Running(since) => {
                // A node's kubelet ends it at its deadline.
                let late = self.now - since > 3600;
                let gpu_seconds = self.gpus * (self.now - since).clamp(0, 3600) * i64::from(kind == Kind::Retrain);
                self.log.gpu_seconds.push((cycle.started, gpu_seconds));
                State::Ended(End {
                    gpu_seconds,
                    ..if late && kind != Kind::Prepare {
                        failed("DeadlineExceeded")
                    } else {
                        self.end(kind, &cycle)
                    }
                })
            }
        };
        if let Some(job) = self.jobs.get_mut(name) {
            job.state = state;
        }
    }

    /// Below `end` when something bad happens, and `end` itself when not.
    fn trouble(&mut self, end: u64) -> u64 {
        if self.dice.one_in(self.peace) {
            self.dice.below(end)
        } else {
            end
        }
    }

    fn end(&mut self, kind: Kind, cycle: &Cycle) -> End {
        match self.trouble(12) {
            0 => return failed("Error"),
            1 => return said(format!("{CANARY} is no JSON")),
            2 => {
                return said(format!(
                    "{{\"schema\": \"other/v1\", \"outcome\": \"Succeeded\", \"x\": \"{CANARY}\"}}"
                ));
            }
            3 => return said(CANARY.repeat(1000)),
            4 => {
                return End {
                    succeeded: true,
                    ..End::default()
                };
            }
            _ => {}
        }
        match kind {
            Kind::Prepare => said(if self.trouble(5) == 0 {
                json!({"schema": "prepare/v1", "outcome": "DataRejected", "message": "too few"}).to_string()
            } else {
                let items = if self.trouble(6) == 0 { 10 } else { 80 };
                json!({"schema": "prepare/v1", "outcome": "Succeeded", "manifestDigest": digest(7), "suitesDigest": digest(8),
                    "records": 500, "items": {"recent": items}})
                .to_string()
            }),
            Kind::Retrain => self.trained(cycle),
            Kind::Gate => self.judged(cycle),
            Kind::Publish => self.published(cycle),
        }
    }

    fn trained(&mut self, cycle: &Cycle) -> End {
        self.made += 1;
        let (mut made, mut base, mut manifest) = (digest(self.made), cycle.base.digest.clone(), digest(7));
        let (mut uri, mut kind) = (None, "Merged");
        // Truth: better, the same, or worse.
        let quality =
            self.quality.get(&cycle.champion.digest).copied().unwrap_or(0.5) + self.dice.of(&[-0.1, 0.0, 0.1, 0.1]);
        let outcome = match self.trouble(14) {
            0 => "NoImprovement",
            1 => "DataRejected",
            2 => {
                base = digest(99);
                "Succeeded"
            }
            3 => {
                manifest = digest(98);
                "Succeeded"
            }
            4 => {
                let wrong = [
                    "file:///mnt/model/../other",
                    "oci://registry.example/models/other@sha256:0",
                ];
                uri = Some(self.dice.of(&wrong).to_owned());
                "Succeeded"
            }
            5 => {
                kind = "Adapter";
                "Succeeded"
            }
            6 => {
                made = self.ledger.rejected.back().cloned().unwrap_or(made);
                "Succeeded"
            }
            7 => {
                made = "sha256:XYZ".to_owned();
                "Succeeded"
            }
            8 => "Retryable",
            _ => "Succeeded",
        };
        self.quality.entry(made.clone()).or_insert(quality);
        let right = match &cycle.repository {
            Some(repository) => format!("oci://{repository}@{made}"),
            None => "file:///mnt/model/model.gguf".to_owned(),
        };
        let uri = uri.unwrap_or(right);
        said(
            json!({"schema": "retrain/v1", "outcome": outcome, "model": {"uri": uri, "digest": made, "baseDigest": base, "kind": kind},
                "data": {"manifestDigest": manifest}})
            .to_string(),
        )
    }

    fn published(&mut self, cycle: &Cycle) -> End {
        if self.trouble(3) == 0 {
            return failed("Error");
        }
        let candidate = cycle.candidate.clone().expect("a candidate");
        self.tag = Some((candidate, cycle.base.digest.clone()));
        said(json!({"schema": "publish/v1", "outcome": "Succeeded", "digest": digest(6)}).to_string())
    }

    fn judged(&mut self, cycle: &Cycle) -> End {
        let candidate = cycle
            .candidate
            .as_ref()
            .map(|candidate| candidate.digest.clone())
            .unwrap_or_default();
        let mut checked = candidate.clone();
        let mut outcome = "Succeeded";
        match self.trouble(10) {
            0 => checked = digest(97),
            1 => outcome = "Untrusted",
            _ => {}
        }
        let verification =
            json!({"schema": "verify/v1", "outcome": outcome, "digest": checked, "sizeBytes": 1}).to_string();
        if outcome == "Untrusted" {
            return End {
                verification: Some(verification),
                ..failed("Error")
            };
        }
        let truth = |digest: &String| self.quality.get(digest).copied().unwrap_or(0.5).clamp(0.0, 1.0);
        let (champion, mine) = (truth(&cycle.champion.digest), truth(&candidate));
        let difference = mine - champion;
        let (mut judged_candidate, mut judged_champion) = (candidate.clone(), cycle.champion.digest.clone());
        let mut items = 80;
        match self.trouble(12) {
            0 => judged_candidate = digest(96),
            1 => judged_champion = digest(95),
            2 => items = 3,
            _ => {}
        }
        let honest = judged_candidate == candidate
            && judged_champion == cycle.champion.digest
            && items == 80
            && checked == candidate
            && difference > 0.05;
        if honest {
            self.log.passed.insert((candidate, judged_champion.clone()));
        }
        let words = json!({"schema": "gate/v1", "outcome": "Succeeded", "championDigest": judged_champion,
            "candidateDigest": judged_candidate, "suites": [{"name": "recent", "items": items, "championMean": champion,
            "candidateMean": mine, "differenceMean": difference, "differenceSquaresMean": difference * difference + 0.001}]});
        End {
            verification: Some(verification),
            ..said(words.to_string())
        }
    }
}

fn model_of(digest: &str) -> Model {
    Model {
        uri: format!("oci://{REPOSITORY}@{digest}"),
        digest: digest.to_owned(),
        ..model(1)
    }
}

fn restored(digest: &str, model: &Model, base: &str) -> String {
    let base = Model {
        digest: base.to_owned(),
        ..self::model(1)
    };
    json!({"schema": "restore/v1", "outcome": "Succeeded", "digest": digest, "lineage": {"model": model, "base": base,
        "championDigest": "", "cycleId": "0", "policy": "watch", "policyUid": "another", "manifestDigest": "", "gate": []}})
    .to_string()
}

fn said(message: String) -> End {
    End {
        succeeded: true,
        message: Some(message),
        ..End::default()
    }
}

fn failed(why: &str) -> End {
    End {
        why: why.to_owned(),
        ..End::default()
    }
}
