//! The wheel: every two seconds all pods of all scaled objects are asked, and each object is decided about.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use perennial_autoscaler::{Decision, History, Limit, Policy, Replicas, Sight, decide};
use perennial_crds::LLMDeployment;
use perennial_crds::status::ScalingDecision;
use tokio::time::MissedTickBehavior;

use super::board::{Board, Verdict};
use super::load_client::LoadClient;
use super::pods::{self, Serving};
use super::scrape::{Asked, Scraper};
use super::terms;
use crate::deployment::observe::Indexes;
use crate::index::Owner;
use crate::metrics::Metrics;

/// From one round to the next.
pub const ROUND: Duration = Duration::from_secs(2);
/// Decisions that are told in the status.
const TOLD: usize = 5;
/// What is seen must be different for so many seconds before the status says so: a pod that has just become ready, or missed a
/// question, is no news.
const SIGHT_SETTLES: f64 = 10.0;
/// A limit stays told for so many seconds after it was last felt.
const LIMIT_LASTS: f64 = 60.0;
/// A cold start that differs by less than this part of the one told is the same.
const SAME_COLD_START: f64 = 0.1;

/// Gives the objects that are there at this moment.
pub type Objects = Box<dyn Fn() -> Vec<Arc<LLMDeployment>> + Send + Sync>;

/// Asks, decides, and puts the result on the board, until it is dropped.
pub struct Scaler {
    objects: Objects,
    indexes: Indexes,
    board: Board,
    metrics: Arc<Metrics>,
    scraper: Scraper,
    asked: Vec<Asked>,
    states: HashMap<Owner, State>,
    clock: Clock,
    port: u16,
}

/// Seconds since 1970 that never jump.
struct Clock {
    started: Instant,
    epoch: f64,
}

impl Clock {
    fn now(&self) -> f64 {
        self.epoch + self.started.elapsed().as_secs_f64()
    }
}

/// One object between two rounds.
struct State {
    uid: String,
    history: History,
    wanted: u32,
    decisions: Vec<ScalingDecision>,
    revision: Option<String>,
    sight: Option<Told<Sight>>,
    limit: Option<(Limit, f64)>,
    cold_start: Option<i64>,
}

/// Something that is told only when it has lasted.
struct Told<T> {
    told: T,
    other: Option<(T, f64)>,
}

impl<T: Copy + PartialEq> Told<T> {
    fn new(value: T) -> Self {
        Self {
            told: value,
            other: None,
        }
    }

    fn see(&mut self, value: T, now: f64, lasting: f64) {
        match self.other {
            _ if value == self.told => self.other = None,
            Some((other, since)) if other == value => {
                if now - since >= lasting {
                    *self = Self::new(value);
                }
            }
            _ => self.other = Some((value, now)),
        }
    }
}

impl Scaler {
    /// A scaler that knows nothing yet, of pods that tell their load at this port.
    #[must_use]
    pub fn new(objects: Objects, indexes: Indexes, board: Board, metrics: Arc<Metrics>, port: u16) -> Self {
        Self {
            port,
            objects,
            indexes,
            board,
            metrics,
            scraper: Scraper::default(),
            asked: Vec::new(),
            states: HashMap::new(),
            clock: Clock {
                started: Instant::now(),
                epoch: Timestamp::now().as_duration().as_secs_f64(),
            },
        }
    }

    /// Turns until dropped.
    pub async fn run(mut self) {
        self.indexes.wait_until_ready().await;
        // Operators of several namespaces do not ask in the same instant.
        let mut ticks = tokio::time::interval(ROUND + Duration::from_millis(rand_millis()));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.round().await;
        }
    }

    /// One round.
    pub async fn round(&mut self) {
        let scaled = self.scaled();
        self.states
            .retain(|owner, state| scaled.get(owner).is_some_and(|one| one.uid == state.uid));
        self.board.keep(|owner| scaled.contains_key(owner));
        if scaled.is_empty() {
            self.asked.clear();
            return;
        }
        self.call_roll(&scaled);
        let started = Instant::now();
        self.scraper.round(&mut self.asked).await;
        self.metrics.scraped(&self.asked, started.elapsed());
        let now = self.clock.now();
        let answers: HashMap<&str, &Asked> = self.asked.iter().map(|asked| (&*asked.pod, asked)).collect();
        let mut oldest: f64 = 0.0;
        for (owner, one) in &scaled {
            let state = self
                .states
                .entry(owner.clone())
                .or_insert_with(|| State::new(one, &self.indexes, owner));
            let before = state.news();
            let first = self.board.verdict(owner, &one.uid).is_none();
            let decision = state.look(one, &answers, &self.indexes, owner, now);
            oldest = oldest.max(state.history.blind_since().map_or(0.0, |since| now - since));
            if decision.desired != decision.from {
                self.metrics.scaled(decision.desired > decision.from);
                tracing::info!(
                    namespace = owner.namespace,
                    name = owner.name,
                    from = decision.from,
                    to = decision.desired,
                    reason = decision.reason,
                    "Scaling."
                );
            }
            if first || before != state.news() {
                self.board.say(owner, state.verdict(&one.serving, now));
            }
        }
        self.metrics.oldest_load(oldest);
        self.board.tell();
    }

    /// Objects that are to be scaled, with their pods.
    fn scaled(&self) -> BTreeMap<Owner, Scaled> {
        let objects = (self.objects)();
        let scaled = objects.into_iter().filter_map(|object| {
            let spec = object.spec.autoscaling.as_ref()?;
            if object.spec.suspend || object.metadata.deletion_timestamp.is_some() {
                return None;
            }
            let owner = Owner {
                namespace: object.namespace()?,
                name: object.name_any(),
            };
            let revision = pods::serving_revision(&self.indexes, &owner);
            let serving = revision
                .as_ref()
                .map(|revision| pods::serving(&self.indexes, &owner, revision));
            let one = Scaled {
                uid: object.uid()?,
                policy: terms::policy(spec),
                serving: serving.unwrap_or_default(),
                revision,
                object,
            };
            Some((owner, one))
        });
        scaled.collect()
    }

    /// Keeps the connections to pods that are still there and begins with new ones.
    fn call_roll(&mut self, scaled: &BTreeMap<Owner, Scaled>) {
        let mut present: HashMap<&str, &Serving> = HashMap::new();
        for one in scaled.values() {
            present.extend(one.serving.iter().map(|serving| (serving.uid(), serving)));
        }
        let port = self.port;
        // A pod whose sandbox was made anew keeps its UID and has another address.
        self.asked.retain(|asked| {
            let stays = present
                .get(&*asked.pod)
                .is_some_and(|serving| SocketAddr::new(serving.address, port) == asked.client.address());
            stays && present.remove(&*asked.pod).is_some()
        });
        self.asked.extend(present.into_values().map(|serving| Asked {
            pod: serving.uid().into(),
            client: LoadClient::new(SocketAddr::new(serving.address, port)),
            answer: None,
        }));
    }
}

/// An object that is to be scaled.
struct Scaled {
    uid: String,
    object: Arc<LLMDeployment>,
    policy: Policy,
    revision: Option<String>,
    serving: Vec<Serving>,
}

impl State {
    fn new(one: &Scaled, indexes: &Indexes, owner: &Owner) -> Self {
        let before = one.object.status.as_ref().and_then(|status| status.autoscaling.clone());
        let before = before.unwrap_or_default();
        Self {
            uid: one.uid.clone(),
            history: History::with_changes(terms::changes(&before)),
            wanted: pods::initial(indexes, owner, &one.object, one.policy.min, one.policy.max),
            cold_start: before.cold_start_seconds,
            decisions: before.last_decisions,
            revision: one.revision.clone(),
            sight: None,
            limit: None,
        }
    }

    /// Takes in the answers of this round and decides.
    fn look(
        &mut self,
        one: &Scaled,
        answers: &HashMap<&str, &Asked>,
        indexes: &Indexes,
        owner: &Owner,
        now: f64,
    ) -> Decision {
        if self.revision != one.revision {
            self.revision.clone_from(&one.revision);
            self.history.new_revision();
        }
        self.history
            .keep(|pod| one.serving.iter().any(|serving| serving.uid() == pod));
        for serving in &one.serving {
            let Some(asked) = answers.get(serving.uid()) else {
                continue;
            };
            self.history.expect(&asked.pod);
            if let Some(Ok(load)) = &asked.answer {
                self.history
                    .sampled(&asked.pod, now, terms::sample(load, serving.before_start));
            }
        }
        self.history.round(now);
        let ready = u32::try_from(one.serving.len()).unwrap_or(u32::MAX);
        let status = one.object.status.clone().unwrap_or_default();
        let replicas: Replicas = pods::replicas(indexes, owner, &status, self.wanted, ready);
        let decision = decide(&self.history, &one.policy, &replicas, now);
        self.history.decided(now, &decision);
        self.note(&decision, now);
        decision
    }

    fn note(&mut self, decision: &Decision, now: f64) {
        let sight = self.sight.get_or_insert(Told::new(decision.sight));
        sight.see(decision.sight, now, SIGHT_SETTLES);
        match decision.limit {
            Some(limit) => self.limit = Some((limit, now)),
            None if self.limit.is_some_and(|(_, felt)| now - felt > LIMIT_LASTS) => self.limit = None,
            None => {}
        }
        let measured = self.history.cold_start();
        let differs = |told: f64, now: f64| (now - told).abs() > (told * SAME_COLD_START).max(1.0);
        if let Some(measured) = measured
            && self.cold_start.is_none_or(|told| differs(told as f64, measured))
        {
            self.cold_start = Some(measured.round() as i64);
        }
        if decision.desired == decision.from {
            return;
        }
        self.wanted = decision.desired;
        let told = ScalingDecision {
            time: Time(Timestamp::from_second(now as i64).unwrap_or_default()),
            from: signed(decision.from),
            to: signed(decision.desired),
            reason: decision.reason.clone(),
        };
        self.decisions.insert(0, told);
        self.decisions.truncate(TOLD);
    }

    /// What is worth a look at the object when it changes. A decision changes `wanted`.
    fn news(&self) -> (u32, Option<Sight>, Option<Limit>, Option<i64>) {
        (
            self.wanted,
            self.sight.as_ref().map(|sight| sight.told),
            self.limit.map(|(limit, _)| limit),
            self.cold_start,
        )
    }

    fn verdict(&self, serving: &[Serving], now: f64) -> Verdict {
        let work = |serving: &Serving| Some((serving.name().to_owned(), self.history.work(serving.uid(), now)?));
        Verdict {
            uid: self.uid.clone(),
            desired: signed(self.wanted),
            sight: self.sight.as_ref().map_or(Sight::NoneReady, |sight| sight.told),
            limit: self.limit.map(|(limit, _)| limit),
            decisions: self.decisions.clone(),
            cold_start: self.cold_start,
            work: serving.iter().filter_map(work).collect(),
        }
    }
}

fn signed(replicas: u32) -> i32 {
    i32::try_from(replicas).unwrap_or(i32::MAX)
}

fn rand_millis() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish() % 100
}
