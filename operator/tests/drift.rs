//! What a DriftPolicy remembers: from panes to a baseline, to a suspicion, to a drift; through restarts, gaps and rollouts.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;
use perennial_crds::DriftPolicy;
use perennial_crds::drift_policy::{DriftPolicyStatus, Phase};
use perennial_drift::features::{Encoder, Exchange, Extractor, FinishReason};
use perennial_drift::observe::Interval;
use perennial_drift::pane::Pane;
use perennial_drift::pane::layout::Layout;
use perennial_operator::drift::memory::{Memory, Stage};
use perennial_operator::drift::status::{Hearing, Trouble, View, status};
use perennial_operator::drift::terms::{About, policy as terms};
use perennial_operator::drift::{notice, record};
use serde_json::json;

const SECONDS: i64 = 10;
const REQUESTS: u64 = 30;

fn policy() -> DriftPolicy {
    serde_json::from_value(json!({
        "apiVersion": "perennial.dev/v1alpha1",
        "kind": "DriftPolicy",
        "metadata": {"name": "watch", "namespace": "models", "uid": "one", "generation": 3},
        "spec": {
            "targetRef": {"name": "tiny"},
            "observation": {"paneSeconds": SECONDS, "minSamples": 25, "maxPaneSeconds": 60},
            "baseline": {"learned": {"seconds": 600, "minSamples": 1000, "season": "None"}},
            "confirmSeconds": 30,
        },
    }))
    .unwrap()
}

/// Traffic in which prompts are so many times as long as usual.
struct Traffic {
    extractor: Extractor,
    layout: Layout,
}

impl Traffic {
    fn new() -> Self {
        let extractor = Extractor::new(Encoder::Ngrams).unwrap();
        let layout = Layout::of(extractor.recipe());
        Self { extractor, layout }
    }

    fn pane(&self, number: i64, factor: u32) -> Interval {
        let start = number * SECONDS;
        let mut pane = Pane::new(&self.layout, start, 10);
        for request in 0..REQUESTS {
            let mixed = mix(number as u64 * REQUESTS + request);
            let features = self.extractor.features(&Exchange {
                id: &format!("{number}-{request}"),
                prompt_tokens: Some(factor * (20 + u32::try_from(mixed % 200).unwrap())),
                output_tokens: Some(10 + u32::try_from(mixed / 7 % 90).unwrap()),
                finish_reason: Some(if mixed.is_multiple_of(10) {
                    FinishReason::Length
                } else {
                    FinishReason::Stop
                }),
                ..Exchange::default()
            });
            pane.add(&features);
        }
        Interval {
            start,
            pane: Some(pane),
        }
    }
}

/// `SplitMix64`: the same numbers on each run, and no pattern in them.
fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed ^ (mixed >> 31)) >> 33
}

fn gap(number: i64) -> Interval {
    Interval {
        start: number * SECONDS,
        pane: None,
    }
}

fn memory(traffic: &Traffic) -> Memory {
    let about = About::new(&policy().spec, "uid", "sha256:a", None);
    Memory::new(about, traffic.layout.fingerprint(), 1_000 * SECONDS)
}

/// Everything that is stored of a memory, as it would lie in the cluster.
#[derive(Default)]
struct Store {
    evidence: Option<ConfigMap>,
    baseline: Vec<ConfigMap>,
    panes: Vec<ConfigMap>,
}

impl Store {
    fn keep(&mut self, memory: &Memory, collected: &[i64], frozen: bool) {
        match &memory.stage {
            Stage::Learning(panes) => {
                for map in record::panes(&policy(), &memory.about, panes, collected) {
                    self.panes.retain(|known| known.name_any() != map.name_any());
                    self.panes.push(map);
                }
            }
            Stage::Watching(watching) if frozen => {
                self.baseline = record::baseline(&policy(), watching).unwrap();
            }
            Stage::Watching(_) => {}
        }
        self.evidence = Some(record::evidence(&policy(), memory).unwrap());
    }

    fn read(&self) -> Memory {
        record::read("watch", self.evidence.as_ref().unwrap(), &self.panes, &self.baseline).unwrap()
    }
}

fn look(memory: &Memory, old: &DriftPolicyStatus) -> DriftPolicyStatus {
    let (policy, terms) = (policy(), terms(&policy().spec));
    let view = View {
        policy: &policy,
        terms: &terms,
        memory: Some(memory),
        hearing: &Hearing::All(2),
        trouble: None,
        probes: None,
        cycles: None,
    };
    status(old, &view, Timestamp::from_second(memory.until).unwrap())
}

fn condition(status: &DriftPolicyStatus, kind: &str) -> (String, String) {
    let found = status.conditions.iter().find(|condition| condition.type_ == kind);
    found.map_or_else(Default::default, |found| (found.status.clone(), found.reason.clone()))
}

#[test]
fn a_change_is_learned_against_suspected_confirmed_and_over_whenever_the_operator_restarts() {
    let (traffic, terms) = (Traffic::new(), terms(&policy().spec));
    let (mut whole, mut store) = (memory(&traffic), Store::default());
    store.keep(&whole, &[], false);
    let (mut said, mut told, mut phases) = (DriftPolicyStatus::default(), Vec::new(), Vec::new());
    for number in 1_000..1_400 {
        let factor = if (1_200..1_300).contains(&number) { 3 } else { 1 };
        let interval = traffic.pane(number, factor);
        // An operator that has just been started knows what lies in the cluster, and nothing else.
        let mut restarted = store.read();
        assert_eq!(restarted, whole, "before pane {number}");
        restarted.take(vec![interval.clone()], Some(0), &terms).unwrap();
        let changes = whole.take(vec![interval.clone()], Some(0), &terms).unwrap();
        assert_eq!(restarted, whole, "after pane {number}");
        // The same pane again, from a replica that was asked twice, changes nothing.
        let once = whole.clone();
        whole.take(vec![interval], Some(0), &terms).unwrap();
        assert_eq!(once, whole);
        store.keep(&whole, &changes.collected, changes.frozen);
        let now = look(&whole, &said);
        told.extend(notice::notices(&said, &now).into_iter().map(|notice| notice.reason));
        if said.phase != now.phase {
            phases.push((number, now.phase.unwrap()));
        }
        if now.phase == Some(Phase::Drifted) {
            assert_eq!(now.top_signal.as_deref(), Some("PromptTokens"));
            assert_eq!(condition(&now, "Drifted"), ("True".to_owned(), "InputDrift".to_owned()));
        }
        said = now;
    }
    let order: Vec<Phase> = phases.iter().map(|(_, phase)| *phase).collect();
    assert_eq!(
        order,
        [
            Phase::Learning,
            Phase::Watching,
            Phase::Suspected,
            Phase::Drifted,
            Phase::Watching
        ],
        "{phases:?}"
    );
    assert_eq!(
        told,
        ["BaselineLearned", "DriftSuspected", "DriftConfirmed", "DriftOver"]
    );
    assert!(phases[2].0 >= 1_200 && phases[3].0 < 1_300, "{phases:?}");
    assert_eq!(
        condition(&said, "Ready"),
        ("True".to_owned(), "PolicyActive".to_owned())
    );
    // What lies in the cluster is small enough for it, and names what belongs together.
    let size = |map: &ConfigMap| {
        map.binary_data
            .iter()
            .flatten()
            .map(|(_, bytes)| bytes.0.len())
            .sum::<usize>()
    };
    let all = store.evidence.iter().chain(&store.baseline).chain(&store.panes);
    let sizes: Vec<usize> = all.map(size).collect();
    println!("bytes of evidence, baseline and panes: {sizes:?}");
    assert!(sizes.iter().all(|bytes| *bytes < record::LARGEST), "{sizes:?}");
}

#[test]
fn starts_and_silence_are_left_out_and_never_alarm() {
    let (traffic, terms) = (Traffic::new(), terms(&policy().spec));
    let mut memory = memory(&traffic);
    memory
        .take(
            (1_000..1_100).map(|number| traffic.pane(number, 1)).collect(),
            Some(0),
            &terms,
        )
        .unwrap();
    let learned = memory.report().expect("a baseline");
    // A rollout: other traffic, of replicas that have just begun to answer.
    let rollout = (1_100..1_150).map(|number| traffic.pane(number, 5)).collect();
    memory.take(rollout, Some(1_149 * SECONDS), &terms).unwrap();
    memory.take((1_150..1_160).map(gap).collect(), Some(0), &terms).unwrap();
    memory.take((1_160..1_170).map(gap).collect(), None, &terms).unwrap();
    let after = memory.report().expect("a baseline");
    assert_eq!(after.log_evidence, learned.log_evidence);
    assert_eq!((memory.seen.masked, memory.seen.gaps), (50, 20));
    assert_eq!(
        look(&memory, &DriftPolicyStatus::default()).phase,
        Some(Phase::Watching)
    );
    // Nothing of what was left out is learned from, either.
    let mut fresh = self::memory(&traffic);
    fresh
        .take(
            (1_000..1_100).map(|number| traffic.pane(number, 1)).collect(),
            None,
            &terms,
        )
        .unwrap();
    assert_eq!(fresh.report(), None);
    assert!(matches!(&fresh.stage, Stage::Learning(panes) if panes.is_empty()));
}

#[test]
fn new_terms_keep_the_baseline_and_begin_the_evidence_anew() {
    let traffic = Traffic::new();
    let (mut memory, before) = (memory(&traffic), terms(&policy().spec));
    memory
        .take(
            (1_000..1_100).map(|number| traffic.pane(number, 1)).collect(),
            Some(0),
            &before,
        )
        .unwrap();
    let digest = |memory: &Memory| match &memory.stage {
        Stage::Watching(watching) => watching.digest.clone(),
        Stage::Learning(_) => panic!("it still learns"),
    };
    let first = digest(&memory);
    let mut after = before.clone();
    after.confirm_seconds = 60;
    let changes = memory.take(vec![traffic.pane(1_100, 1)], Some(0), &after).unwrap();
    assert!(changes.restarted && !changes.frozen);
    assert_eq!(digest(&memory), first);
}

#[test]
fn what_was_damaged_is_refused_and_says_what() {
    let (traffic, terms) = (Traffic::new(), terms(&policy().spec));
    let mut memory = memory(&traffic);
    let changes = memory
        .take(
            (1_000..1_100).map(|number| traffic.pane(number, 1)).collect(),
            Some(0),
            &terms,
        )
        .unwrap();
    let mut store = Store::default();
    store.keep(&memory, &changes.collected, changes.frozen);
    let read = |evidence: &ConfigMap, baseline: &[ConfigMap]| {
        record::read("watch", evidence, &[], baseline)
            .expect_err("refused")
            .to_string()
    };
    let (evidence, baseline) = (store.evidence.unwrap(), store.baseline);
    assert!(read(&evidence, &[]).contains("with the baseline is not there"));
    let mut other = baseline.clone();
    other[0]
        .binary_data
        .as_mut()
        .unwrap()
        .get_mut("baseline")
        .unwrap()
        .0
        .push(0);
    assert!(read(&evidence, &other).contains("does not hold the baseline"));
    let mut cut = evidence.clone();
    cut.binary_data
        .as_mut()
        .unwrap()
        .get_mut("state")
        .unwrap()
        .0
        .truncate(40);
    assert!(!read(&cut, &baseline).is_empty());
    let mut empty = evidence;
    empty.data = None;
    assert!(read(&empty, &baseline).contains("record.json"));
}

#[test]
fn troubles_are_told_with_what_to_do() {
    let (policy, terms) = (policy(), terms(&policy().spec));
    let say = |hearing: &Hearing, trouble: Option<&Trouble>| {
        let view = View {
            policy: &policy,
            terms: &terms,
            memory: None,
            hearing,
            trouble,
            probes: None,
            cycles: None,
        };
        status(&DriftPolicyStatus::default(), &view, Timestamp::from_second(0).unwrap())
    };
    let ready = |hearing: &Hearing, trouble: Option<&Trouble>| condition(&say(hearing, trouble), "Ready");
    let no = |reason: &str| ("False".to_owned(), reason.to_owned());
    assert_eq!(
        ready(&Hearing::Unknown, Some(&Trouble::TargetNotFound)),
        no("TargetNotFound")
    );
    let taken = say(&Hearing::Unknown, Some(&Trouble::TargetTaken("older".to_owned())));
    assert_eq!(
        condition(&taken, "Stalled"),
        ("True".to_owned(), "TargetTaken".to_owned())
    );
    assert_eq!(taken.phase, Some(Phase::Stalled));
    assert_eq!(
        notice::notices(&DriftPolicyStatus::default(), &taken)[0].reason,
        "TargetTaken"
    );
    let partly = Hearing::Partly(0, 2, "cannot be reached".to_owned());
    assert_eq!(ready(&partly, None), no("PanesUnavailable"));
    assert_eq!(ready(&Hearing::Incompatible, None), no("PanesIncompatible"));
    assert_eq!(ready(&Hearing::Skewed(400), None), no("ClockSkew"));
    // A model that is switched off has no traffic; the policy is as it should be.
    assert_eq!(ready(&Hearing::NoReplica, None).0, "True");
    assert_eq!(
        condition(&say(&Hearing::NoReplica, None), "Observing"),
        no("NoReplicaReady")
    );
}

#[test]
fn a_baseline_by_the_hour_of_the_week_takes_as_many_config_maps_as_it_needs() {
    let traffic = Traffic::new();
    let mut policy = policy();
    policy.spec.observation.pane_seconds = 1_800;
    policy.spec.observation.max_pane_seconds = 3_600;
    policy.spec.baseline.learned.seconds = 604_800;
    policy.spec.baseline.learned.season = perennial_crds::drift_policy::Season::HourOfWeek;
    let terms = terms(&policy.spec);
    let about = About::new(&policy.spec, "uid", "sha256:a", None);
    let mut memory = Memory::new(about, traffic.layout.fingerprint(), 0);
    let mut frozen = false;
    for half in 0..340 {
        let mut pane = Pane::new(&traffic.layout, half * 1_800, 1_800);
        for request in 0..60_u32 {
            let subjects = [
                "sailing",
                "the price of bread",
                "old bridges",
                "gardening in spring",
                "tax law",
                "chess",
            ];
            let subject =
                |salt: u64| subjects[mix(half as u64 * 1_000 + u64::from(request) + salt) as usize % subjects.len()];
            let prompt = format!("Tell me about {} and {} at {half}", subject(0), subject(500));
            pane.add(&traffic.extractor.features(&Exchange {
                id: &format!("{half}-{request}"),
                prompt: Some(&prompt),
                prompt_tokens: Some(20 + request % 17),
                ..Exchange::default()
            }));
        }
        let interval = Interval {
            start: pane.start(),
            pane: Some(pane),
        };
        frozen |= memory.take(vec![interval], Some(-7_200), &terms).unwrap().frozen;
    }
    assert!(frozen);
    let Stage::Watching(watching) = &memory.stage else {
        panic!("it still learns")
    };
    let maps = record::baseline(&policy, watching).unwrap();
    let bytes = watching.baseline.encode().unwrap().len();
    println!("{bytes} bytes in {} ConfigMaps", maps.len());
    assert!(maps.len() > 1, "{bytes} bytes");
    let evidence = record::evidence(&policy, &memory).unwrap();
    let names: Vec<String> = maps.iter().map(ResourceExt::name_any).collect();
    assert_eq!(record::baseline_names("watch", &evidence).unwrap(), names);
    assert_eq!(record::read("watch", &evidence, &[], &maps).unwrap(), memory);
    assert!(record::read("watch", &evidence, &[], &maps[..1]).is_err());
}

#[test]
fn too_many_panes_are_let_go_of_and_what_is_stored_is_what_is_remembered() {
    let (traffic, mut policy) = (Traffic::new(), policy());
    // Never enough requests: it learns for ever.
    policy.spec.baseline.learned.min_samples = 1_000_000;
    let terms = terms(&policy.spec);
    let mut memory = memory(&traffic);
    let mut stored: std::collections::BTreeMap<String, ConfigMap> = std::collections::BTreeMap::new();
    for number in 1_000..3_100 {
        let mut pane = Pane::new(&traffic.layout, number * SECONDS, 10);
        pane.add(&traffic.extractor.features(&Exchange::default()));
        let interval = Interval {
            start: number * SECONDS,
            pane: Some(pane),
        };
        let changes = memory.take(vec![interval], Some(0), &terms).unwrap();
        let Stage::Learning(panes) = &memory.stage else {
            panic!("it has learned")
        };
        for map in record::panes(&policy, &memory.about, panes, &changes.collected) {
            stored.insert(map.name_any(), map);
        }
        for name in record::emptied("watch", &memory.about, panes, &changes.dropped) {
            assert!(stored.remove(&name).is_some(), "{name}");
        }
    }
    let maps: Vec<ConfigMap> = stored.into_values().collect();
    assert!(maps.len() <= 2_048 / 12 + 2, "{}", maps.len());
    let evidence = record::evidence(&policy, &memory).unwrap();
    assert_eq!(record::read("watch", &evidence, &maps, &[]).unwrap(), memory);
}

#[test]
fn the_move_to_another_revision_is_left_out() {
    let (traffic, terms) = (Traffic::new(), terms(&policy().spec));
    let mut memory = memory(&traffic);
    memory.serves(Some("a"), 0);
    memory.take(vec![traffic.pane(1_000, 1)], Some(0), &terms).unwrap();
    memory.serves(Some("b"), 1_005 * SECONDS);
    memory.serves(None, 1_006 * SECONDS);
    memory
        .take(
            (1_001..1_010).map(|number| traffic.pane(number, 1)).collect(),
            Some(0),
            &terms,
        )
        .unwrap();
    assert_eq!(memory.seen.masked, 5, "until a pane after the move");
}
