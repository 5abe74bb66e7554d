//! The engine's thread: tokens, limits, cancellation, failures, drain.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a helper that fails is a failed test"
)]

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use perennial_engine::simulated::{SimulatedRunner, SimulatedSettings, VOCABULARY};
use perennial_engine::{
    Confidence, Engine, EngineHandle, FinishReason, Limits, MEASURED_EVERY, ModelRunner, Queued, Rejected, RequestId,
    RunnerError, RunnerSpec, Sampling, StepBatch, StepOut, Updates,
};

fn settings() -> SimulatedSettings {
    SimulatedSettings {
        max_length: 512,
        cache_tokens: 2048,
        ..SimulatedSettings::default()
    }
}

fn start(settings: SimulatedSettings, limits: Limits) -> (EngineHandle, Updates) {
    EngineHandle::start(Box::new(SimulatedRunner::new(settings)), limits).expect("a thread")
}

fn request(id: u64, prompt: usize, max_tokens: usize) -> Queued {
    let sampling = Sampling {
        ignore_end: true,
        ..Sampling::default()
    };
    Queued {
        id: RequestId(id),
        prompt: vec![65 + (id % 16) as u32; prompt],
        max_tokens,
        sampling,
        measured: false,
    }
}

/// Reads until `count` requests have finished.
fn collect(updates: &mut Updates, count: usize) -> HashMap<u64, (Vec<u32>, FinishReason)> {
    let mut tokens: HashMap<u64, Vec<u32>> = HashMap::new();
    let mut finished = HashMap::new();
    while finished.len() < count {
        let step = updates.blocking_recv().expect("the engine is alive");
        for update in step.sequences {
            let list = tokens.entry(update.id.0).or_default();
            list.extend(update.token);
            if let Some(reason) = update.finished {
                finished.insert(update.id.0, (std::mem::take(list), reason));
            }
        }
    }
    finished
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(std::time::Instant::now() < deadline, "{what}");
        std::thread::yield_now();
    }
}

#[test]
fn an_answer_is_the_same_alone_and_among_others() {
    let (engine, mut updates) = start(settings(), Limits::default());
    let alone = engine.submit(request(3, 40, 30)).expect("accepted");
    let (expected, reason) = collect(&mut updates, 1).remove(&3).expect("an answer");
    drop(alone);
    assert_eq!((expected.len(), reason), (30, FinishReason::Length));
    let controls: Vec<_> = (100..108)
        .chain([3])
        .map(|id| engine.submit(request(id, 40, 30)).expect("accepted"))
        .collect();
    assert_eq!(collect(&mut updates, 9)[&3].0, expected);
    drop(controls);
}

#[test]
fn one_token_in_four_of_a_measured_answer_says_how_sure_the_model_was() {
    let (engine, mut updates) = start(settings(), Limits::default());
    let measured = Queued {
        measured: true,
        ..request(0, 40, 30)
    };
    let _controls = [measured, request(1, 40, 30)].map(|request| engine.submit(request).expect("accepted"));
    let (mut seen, mut left): ([Vec<bool>; 2], usize) = (Default::default(), 2);
    while left > 0 {
        for update in updates.blocking_recv().expect("the engine is alive").sequences {
            if update.token.is_some() {
                seen[update.id.0 as usize].push(update.confidence.is_some());
            }
            if let Some(Confidence { logprob, entropy }) = update.confidence {
                // The simulated model is all but sure.
                assert!(
                    (-1e-5..=0.0).contains(&logprob) && (0.0..1e-4).contains(&entropy),
                    "{logprob} {entropy}"
                );
            }
            left -= usize::from(update.finished.is_some());
        }
    }
    let expected = (0..30_usize)
        .map(|index| index.is_multiple_of(MEASURED_EVERY))
        .collect();
    assert_eq!(seen, [expected, vec![false; 30]]);
}

/// A vocabulary so large that several threads choose: the next token is the one before, and as many more as its position.
struct Wide(RunnerSpec);

impl ModelRunner for Wide {
    fn spec(&self) -> &RunnerSpec {
        &self.0
    }

    fn step(&mut self, batch: &StepBatch, out: &mut StepOut) -> Result<(), RunnerError> {
        let vocabulary = self.0.vocabulary;
        for &index in &batch.logits_indices {
            let next = batch.tokens[index as usize] + batch.positions[index as usize];
            out.logits
                .extend((0..vocabulary).map(|token| if token == next as usize { 9.0 } else { 0.0 }));
        }
        Ok(())
    }
}

#[test]
fn each_answer_gets_its_own_tokens_when_several_threads_choose() {
    let spec = RunnerSpec {
        max_length: 64,
        vocabulary: 100_000,
        blocks: 64,
        end_tokens: Vec::new(),
    };
    let (engine, mut updates) = EngineHandle::start(Box::new(Wide(spec)), Limits::default()).expect("a thread");
    let queued = |id: u64| Queued {
        prompt: vec![1000 * id as u32],
        measured: true,
        ..request(id, 1, 6)
    };
    let _controls: Vec<_> = (1..=5).map(|id| engine.submit(queued(id)).expect("accepted")).collect();
    for (id, (tokens, reason)) in collect(&mut updates, 5) {
        let expected: Vec<u32> = [0, 1, 3, 6, 10, 15].map(|more| 1000 * id as u32 + more).to_vec();
        assert_eq!((tokens, reason), (expected, FinishReason::Length));
    }
}

#[test]
fn sampled_answers_repeat_with_their_seed_even_when_preempted() {
    let sampling = Sampling {
        temperature: 1.5,
        seed: 11,
        ignore_end: true,
        ..Sampling::default()
    };
    let queued = |id| Queued {
        sampling: sampling.clone(),
        ..request(id, 100, 80)
    };
    let (engine, mut updates) = start(settings(), Limits::default());
    let _alone = engine.submit(queued(0)).expect("accepted");
    let expected = collect(&mut updates, 1).remove(&0).expect("an answer").0;
    let tight = SimulatedSettings {
        cache_tokens: 512,
        ..settings()
    };
    let (engine, mut updates) = start(tight, Limits::default());
    let _controls: Vec<_> = (0..6)
        .map(|id| {
            engine
                .submit(Queued {
                    prompt: vec![65; 100],
                    ..queued(id)
                })
                .expect("accepted")
        })
        .collect();
    let answers = collect(&mut updates, 6);
    assert!(engine.load().preemptions > 0);
    assert!(answers.values().all(|(tokens, _)| *tokens == expected));
}

#[test]
fn a_full_queue_rejects_with_a_time_to_come_back() {
    let slow = SimulatedSettings {
        decode_tokens_per_second: 5.0,
        ..settings()
    };
    let (engine, _updates) = start(
        slow,
        Limits {
            max_running: 1,
            max_queued: 2,
            ..Limits::default()
        },
    );
    let _first = engine.submit(request(0, 4, 100)).expect("accepted");
    wait_until("the first runs and has left the queue", || {
        let load = engine.load();
        load.running == 1 && load.waiting == 0
    });
    let _second = engine.submit(request(1, 4, 100)).expect("accepted");
    let _third = engine.submit(request(2, 4, 100)).expect("accepted");
    match engine.submit(request(3, 4, 100)) {
        Err(Rejected::QueueFull {
            waiting,
            queued_tokens,
            retry_after,
        }) => {
            assert_eq!((waiting, queued_tokens), (2, 8));
            assert!((1..=60).contains(&retry_after.as_secs()));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn queued_tokens_are_bounded_too() {
    let slow = SimulatedSettings {
        decode_tokens_per_second: 5.0,
        ..settings()
    };
    let (engine, _updates) = start(
        slow,
        Limits {
            max_running: 1,
            max_queued_tokens: 100,
            ..Limits::default()
        },
    );
    let _first = engine.submit(request(0, 4, 100)).expect("accepted");
    wait_until("the first runs and has left the queue", || {
        let load = engine.load();
        load.running == 1 && load.waiting == 0
    });
    let _second = engine.submit(request(1, 90, 10)).expect("accepted");
    assert!(matches!(
        engine.submit(request(2, 20, 10)),
        Err(Rejected::QueueFull { .. })
    ));
}

#[test]
fn what_does_not_fit_or_is_no_prompt_is_refused_at_once() {
    let (engine, _updates) = start(settings(), Limits::default());
    let too_long = Rejected::TooLong {
        prompt: 500,
        max_tokens: 13,
        limit: 512,
    };
    assert_eq!(engine.submit(request(0, 500, 13)).expect_err("refused"), too_long);
    assert!(matches!(
        engine.submit(request(0, 0, 1)),
        Err(Rejected::InvalidPrompt { .. })
    ));
    let unknown = Queued {
        prompt: vec![VOCABULARY as u32],
        ..request(0, 1, 1)
    };
    assert!(matches!(engine.submit(unknown), Err(Rejected::InvalidPrompt { .. })));
}

#[test]
fn dropping_the_control_frees_everything() {
    let slow = SimulatedSettings {
        decode_tokens_per_second: 200.0,
        ..settings()
    };
    let (engine, mut updates) = start(
        slow,
        Limits {
            max_running: 4,
            ..Limits::default()
        },
    );
    let controls: Vec<_> = (0..12)
        .map(|id| engine.submit(request(id, 64, 400)).expect("accepted"))
        .collect();
    // Blocks are told at the end of a step, requests that run at its beginning.
    wait_until("four run on two blocks each", || {
        let load = engine.load();
        load.running == 4 && load.used_blocks >= 8
    });
    drop(controls);
    let answers = collect(&mut updates, 12);
    assert!(answers.values().all(|(_, reason)| *reason == FinishReason::Cancelled));
    wait_until("all is free", || {
        let load = engine.load();
        (load.running, load.waiting, load.queued_tokens, load.used_blocks) == (0, 0, 0, 0)
    });
    let _next = engine.submit(request(99, 64, 3)).expect("accepted");
    assert_eq!(collect(&mut updates, 1)[&99].0.len(), 3);
}

#[test]
fn a_draining_engine_finishes_and_takes_no_more() {
    let (engine, mut updates) = start(settings(), Limits::default());
    let _running = engine.submit(request(0, 8, 200)).expect("accepted");
    engine.drain();
    assert_eq!(
        engine.submit(request(1, 8, 1)).expect_err("refused"),
        Rejected::Draining
    );
    assert_eq!(collect(&mut updates, 1)[&0].0.len(), 200);
}

#[test]
fn nobody_reading_updates_stops_nothing() {
    let (engine, mut updates) = start(
        settings(),
        Limits {
            max_running: 2,
            ..Limits::default()
        },
    );
    let _controls: Vec<_> = (0..2)
        .map(|id| engine.submit(request(id, 8, 400)).expect("accepted"))
        .collect();
    wait_until("all steps are done while nothing is read", || {
        engine.load().steps >= 400
    });
    assert!(collect(&mut updates, 2).values().all(|(tokens, _)| tokens.len() == 400));
}

enum Fault {
    Panic,
    Error,
    NotANumber,
    WrongSize,
}

/// Waits for the word, then fails.
struct Faulty {
    spec: RunnerSpec,
    go: Receiver<()>,
    fault: Fault,
}

impl ModelRunner for Faulty {
    fn spec(&self) -> &RunnerSpec {
        &self.spec
    }

    fn step(&mut self, batch: &StepBatch, out: &mut StepOut) -> Result<(), RunnerError> {
        self.go.recv().expect("the word");
        match self.fault {
            Fault::Panic => panic!("on purpose"),
            Fault::Error => return Err(RunnerError::NotANumber),
            Fault::NotANumber => out
                .logits
                .resize(batch.logits_indices.len() * self.spec.vocabulary, f32::NAN),
            Fault::WrongSize => out.logits.push(0.0),
        }
        Ok(())
    }
}

fn faulty(fault: Fault) -> (EngineHandle, Updates, Sender<()>) {
    let (word, go) = channel();
    let spec = RunnerSpec {
        max_length: 64,
        vocabulary: 128,
        blocks: 16,
        end_tokens: Vec::new(),
    };
    let limits = Limits {
        max_running: 2,
        ..Limits::default()
    };
    let (engine, updates) = EngineHandle::start(Box::new(Faulty { spec, go, fault }), limits).expect("a thread");
    (engine, updates, word)
}

#[test]
fn a_failing_runner_answers_every_request() {
    for fault in [Fault::Panic, Fault::Error, Fault::NotANumber, Fault::WrongSize] {
        let (engine, mut updates, word) = faulty(fault);
        let _controls: Vec<_> = (0..5)
            .map(|id| engine.submit(request(id, 4, 4)).expect("accepted"))
            .collect();
        word.send(()).expect("the engine listens");
        let answers = collect(&mut updates, 5);
        assert!(
            answers
                .values()
                .all(|(_, reason)| matches!(reason, FinishReason::Failed(_)))
        );
        wait_until("the engine says so", || engine.load().failed);
        assert!(matches!(engine.submit(request(9, 4, 4)), Err(Rejected::Stopped(_))));
        assert!(updates.blocking_recv().is_none(), "nothing comes after the failure");
    }
}

#[test]
fn load_is_read_while_a_step_hangs() {
    let (engine, _updates, word) = faulty(Fault::Error);
    let _control = engine.submit(request(0, 4, 4)).expect("accepted");
    wait_until("the request runs", || engine.load().running == 1);
    let before = engine.load().since_last_step;
    wait_until("time passes without a step", || engine.load().since_last_step > before);
    word.send(()).expect("the engine listens");
}
