//! Replicas that serve a trace: continuous batching in steps of a quarter of a second, cold starts, drains.

use std::collections::VecDeque;

use perennial_autoscaler::Sample;
use perennial_autoscaler::sample::FIRST_TOKEN_BOUNDS;

use crate::scaler::{Scaler, Seen, View};
use crate::trace::Request;

/// Seconds of a step.
const STEP: f64 = 0.25;
/// Steps in a second.
const STEPS: usize = 4;

/// What a replica can do. An 8 B model on one mid-range GPU, roughly.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    /// Requests at a time.
    pub slots: usize,
    /// Prompt tokens per second.
    pub prefill: f64,
    /// Seconds of a step that gives every running request a token: alone, and for each request more.
    pub decode: (f64, f64),
    /// Tokens of the key-value cache.
    pub cache: u64,
    /// Seconds from being asked for to the first token.
    pub cold_start: f64,
}

impl Machine {
    /// The machine of the benchmark.
    pub fn new(cold_start: f64) -> Self {
        Self {
            slots: 16,
            prefill: 8000.0,
            decode: (0.025, 0.0006),
            cache: 48_000,
            cold_start,
        }
    }

    /// Seconds that a request takes on a full replica, divided by the requests at a time: what it costs.
    pub fn cost(&self, request: &Request) -> f64 {
        let full = self.decode.0 + self.decode.1 * self.slots as f64;
        f64::from(request.context) / self.prefill + f64::from(request.generated) * full / self.slots as f64
    }
}

#[derive(Clone, Copy, Debug)]
struct Job {
    arrived: f64,
    started: f64,
    prompt: f64,
    left: f64,
    held: f64,
}

struct Pod {
    id: u32,
    ready_at: f64,
    leaving: bool,
    queue: VecDeque<Job>,
    running: Vec<Job>,
    sample: Sample,
}

/// What a run cost and what it gave.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Outcome {
    /// Hours of replicas, starting and draining ones too.
    pub gpu_hours: f64,
    /// Seconds in which more than one of twenty arriving requests got its first token later than the objective.
    pub seconds_over: f64,
    /// Seconds in which a request arrived.
    pub seconds: f64,
    /// Part of all requests that got it later.
    pub late: f64,
    /// Changes of the number of replicas.
    pub changes: u32,
    /// Most replicas at a time.
    pub most: u32,
}

/// Plays a trace. One point every ten seconds goes to `watch`: time, replicas asked for, ready ones, waiting requests.
pub struct World<'a> {
    machine: Machine,
    trace: &'a [Request],
    blackouts: &'a [(f64, f64, bool)],
    objective: f64,
    pods: Vec<Pod>,
    held: VecDeque<Job>,
    next_id: u32,
    wanted: u32,
    /// Requests that arrived in each second, and those of them that were late.
    seconds: Vec<(u32, u32)>,
    outcome: Outcome,
}

impl<'a> World<'a> {
    /// A world that begins with `replicas` ready.
    pub fn new(
        machine: Machine,
        trace: &'a [Request],
        blackouts: &'a [(f64, f64, bool)],
        objective: f64,
        replicas: u32,
    ) -> Self {
        let length = trace.last().map_or(0.0, |last| last.at);
        let mut world = Self {
            machine,
            trace,
            blackouts,
            objective,
            pods: Vec::new(),
            held: VecDeque::new(),
            next_id: 0,
            wanted: replicas,
            seconds: vec![(0, 0); length as usize + 2],
            outcome: Outcome::default(),
        };
        for _ in 0..replicas {
            world.add(0.0);
        }
        world
    }

    fn add(&mut self, ready_at: f64) {
        let sample = Sample {
            boot: u64::from(self.next_id) + 1,
            slots: self.machine.slots as u32,
            cache_total: self.machine.cache,
            cold_start: Some(self.machine.cold_start),
            ..Sample::default()
        };
        self.pods.push(Pod {
            id: self.next_id,
            ready_at,
            leaving: false,
            queue: VecDeque::new(),
            running: Vec::new(),
            sample,
        });
        self.next_id += 1;
    }

    /// Plays the whole trace.
    pub fn play(mut self, scaler: &mut dyn Scaler, mut watch: impl FnMut(f64, u32, u32, usize)) -> Outcome {
        let mut next = 0;
        let mut seen = Vec::new();
        for second in 0..self.seconds.len() {
            let now = second as f64;
            seen.clear();
            seen.extend(
                self.pods
                    .iter()
                    .filter(|pod| !pod.leaving)
                    .map(|pod| self.see(pod, now)),
            );
            let view = View {
                wanted: self.wanted,
                pods: &seen,
            };
            let desired = scaler.tick(now, &view);
            self.scale(desired, now);
            if second % 10 == 0 {
                let ready = seen.iter().filter(|pod| pod.ready).count() as u32;
                let waiting = self.pods.iter().map(|pod| pod.queue.len()).sum::<usize>() + self.held.len();
                watch(now, self.wanted, ready, waiting);
            }
            for step in 0..STEPS {
                let now = now + STEP * step as f64;
                while let Some(request) = self.trace.get(next).filter(|request| request.at < now + STEP) {
                    self.arrive(request, now);
                    next += 1;
                }
                self.step(now);
            }
            self.outcome.gpu_hours += self.pods.len() as f64 / 3600.0;
        }
        self.close()
    }

    fn see(&self, pod: &Pod, now: f64) -> Seen {
        let ready = pod.ready_at <= now;
        let hidden = self
            .blackouts
            .iter()
            .any(|(from, until, all)| (*from..*until).contains(&now) && (*all || pod.id.is_multiple_of(2)));
        Seen {
            id: pod.id,
            ready,
            sample: (ready && !hidden).then(|| Sample {
                running: pod.running.len() as u32,
                waiting: pod.queue.len() as u32,
                queued_tokens: pod.queue.iter().map(|job| job.prompt as u64).sum(),
                cache_used: pod.running.iter().map(|job| job.held as u64).sum(),
                ..pod.sample
            }),
        }
    }

    fn scale(&mut self, desired: u32, now: f64) {
        if desired != self.wanted {
            self.outcome.changes += 1;
            self.wanted = desired;
            self.outcome.most = self.outcome.most.max(desired);
        }
        let mut exist = self.pods.iter().filter(|pod| !pod.leaving).count() as u32;
        while exist < desired {
            self.add(now + self.machine.cold_start);
            exist += 1;
        }
        while exist > desired {
            // As ReplicaSets do it with a deletion cost: those that are not ready first, then those with least work.
            let order = |pod: &&mut Pod| {
                (
                    pod.ready_at <= now,
                    pod.running.len() + pod.queue.len(),
                    u32::MAX - pod.id,
                )
            };
            if let Some(pod) = self.pods.iter_mut().filter(|pod| !pod.leaving).min_by_key(order) {
                pod.leaving = true;
            }
            exist -= 1;
        }
        self.pods
            .retain(|pod| !(pod.leaving && pod.running.is_empty() && pod.queue.is_empty()));
    }

    fn arrive(&mut self, request: &Request, now: f64) {
        self.seconds[request.at as usize].0 += 1;
        let job = Job {
            arrived: request.at,
            started: 0.0,
            prompt: f64::from(request.context),
            left: f64::from(request.generated.max(1)),
            held: f64::from(request.context),
        };
        self.route(job, now);
    }

    /// To the ready replica with the fewest requests; if there is none, it is held for the next one.
    fn route(&mut self, job: Job, now: f64) {
        let ready = |pod: &&mut Pod| !pod.leaving && pod.ready_at <= now;
        let least = |pod: &&mut Pod| pod.running.len() + pod.queue.len();
        match self.pods.iter_mut().filter(ready).min_by_key(least) {
            Some(pod) => {
                pod.sample.arrived += 1;
                pod.queue.push_back(job);
            }
            None => self.held.push_back(job),
        }
    }

    fn step(&mut self, now: f64) {
        if self.pods.iter().any(|pod| !pod.leaving && pod.ready_at <= now) {
            while let Some(job) = self.held.pop_front() {
                self.route(job, now);
            }
        }
        for pod in self.pods.iter_mut().filter(|pod| pod.ready_at <= now) {
            pod.step(now, &self.machine, self.objective, &mut self.seconds);
        }
    }

    fn close(mut self) -> Outcome {
        let left = self.pods.iter().flat_map(|pod| pod.queue.iter()).chain(&self.held);
        let end = self.seconds.len() as f64;
        for job in left.filter(|job| end - job.arrived > self.objective) {
            self.seconds[job.arrived as usize].1 += 1;
        }
        let (mut arrived, mut late) = (0, 0);
        for (all, over) in self.seconds.iter().filter(|(all, _)| *all > 0) {
            self.outcome.seconds += 1.0;
            self.outcome.seconds_over += f64::from(u8::from(f64::from(*over) > 0.05 * f64::from(*all)));
            arrived += all;
            late += over;
        }
        self.outcome.late = f64::from(late) / f64::from(arrived.max(1));
        self.outcome
    }
}

impl Pod {
    fn step(&mut self, now: f64, machine: &Machine, objective: f64, seconds: &mut [(u32, u32)]) {
        while self.running.len() < machine.slots {
            let Some(mut job) = self.queue.pop_front() else { break };
            job.started = now.max(job.arrived);
            self.running.push(job);
        }
        if self.running.is_empty() {
            return;
        }
        let decoding = self.running.iter().filter(|job| job.prompt <= 0.0).count() as f64;
        // Prompts one after the other; what is left of the step goes to tokens.
        let mut used = 0.0;
        for job in self.running.iter_mut().filter(|job| job.prompt > 0.0) {
            let room = (STEP - used) * machine.prefill;
            let done = job.prompt.min(room);
            job.prompt -= done;
            used += done / machine.prefill;
            if job.prompt > 0.0 {
                break;
            }
            let wait = now + used - job.arrived;
            let late = u32::from(wait > objective);
            seconds[job.arrived as usize].1 += late;
            let bucket = FIRST_TOKEN_BOUNDS.iter().take_while(|bound| **bound < wait).count();
            self.sample.first_token[bucket] += 1;
        }
        let tokens = (STEP - used) / (machine.decode.0 + machine.decode.1 * decoding);
        let mut generated = 0.0;
        for job in self.running.iter_mut().filter(|job| job.prompt <= 0.0) {
            let made = tokens.min(job.left);
            job.left -= made;
            job.held += made;
            generated += made;
        }
        self.sample.generated += generated as u64;
        let sample = &mut self.sample;
        self.running.retain(|job| {
            let done = job.prompt <= 0.0 && job.left <= 0.0;
            if done {
                sample.finished += 1;
                sample.computed_seconds += now + STEP - job.started;
            }
            !done
        });
    }
}
