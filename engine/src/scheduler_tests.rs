use std::collections::{HashMap, HashSet};

use proptest::prelude::*;

use super::*;

const END: u32 = 7;
const SURE: Confidence = Confidence {
    logprob: -0.5,
    entropy: 1.0,
};

fn scheduler(max_running: usize, max_step_tokens: usize, blocks: usize) -> Scheduler {
    Scheduler::new(
        &Limits {
            max_running,
            max_step_tokens,
            ..Limits::default()
        },
        blocks,
        vec![END],
    )
}

fn sequence(id: u64, prompt: usize, max_tokens: usize) -> Sequence {
    sampled(id, prompt, max_tokens, Sampling::default())
}

fn sampled(id: u64, prompt: usize, max_tokens: usize, sampling: Sampling) -> Sequence {
    Sequence::new(Queued {
        id: RequestId(id),
        prompt: vec![1; prompt],
        max_tokens,
        sampling,
        measured: id.is_multiple_of(2),
    })
}

/// Runs a step in which every row gets `token`; returns the batch and what was produced.
fn step(scheduler: &mut Scheduler, token: u32) -> (StepBatch, Vec<Produced>) {
    let mut batch = StepBatch::default();
    let mut produced = Vec::new();
    scheduler.schedule(&mut batch);
    let confidence = |row: &Row| row.measured.then_some(SURE);
    let chosen: Vec<Chosen> = scheduler
        .rows()
        .iter()
        .map(|row| Chosen {
            token,
            confidence: confidence(row),
        })
        .collect();
    scheduler.commit(&chosen, &mut produced);
    (batch, produced)
}

#[test]
fn a_long_prompt_is_cut_into_the_budget_and_does_not_starve_decoding() {
    let mut scheduler = scheduler(4, 8, 64);
    scheduler.add(sequence(1, 3, 10));
    let (_, produced) = step(&mut scheduler, 2);
    assert_eq!(produced.len(), 1);
    scheduler.add(sequence(2, 30, 10));
    for _ in 0..4 {
        let (batch, produced) = step(&mut scheduler, 2);
        assert!(batch.tokens.len() <= 8);
        assert!(
            produced.iter().any(|one| one.id == RequestId(1)),
            "the running answer got its token"
        );
    }
    let (_, produced) = step(&mut scheduler, 2);
    assert!(
        produced.iter().any(|one| one.id == RequestId(2)),
        "30 tokens at 7 a step are done in the fifth"
    );
}

#[test]
fn a_short_answer_is_not_starved_by_a_long_prompt_before_it() {
    let mut scheduler = scheduler(4, 8, 64);
    scheduler.add(sequence(1, 60, 2));
    step(&mut scheduler, 2);
    scheduler.add(sequence(2, 1, 5));
    for _ in 0..7 {
        step(&mut scheduler, 2);
    }
    let (_, produced) = step(&mut scheduler, 2);
    assert!(produced.iter().any(|one| one.id == RequestId(2)), "{produced:?}");
}

#[test]
fn an_end_token_ends_the_answer_unless_it_is_ignored() {
    let mut scheduler = scheduler(4, 8, 64);
    scheduler.add(sequence(1, 2, 5));
    let ignoring = Sampling {
        ignore_end: true,
        ..Sampling::default()
    };
    scheduler.add(sampled(2, 1, 2, ignoring));
    let (_, produced) = step(&mut scheduler, END);
    let expected = [
        Produced {
            id: RequestId(1),
            token: None,
            confidence: None,
            finished: Some(FinishReason::End),
        },
        Produced {
            id: RequestId(2),
            token: Some(END),
            confidence: Some(SURE),
            finished: None,
        },
    ];
    assert_eq!(produced, expected);
    let (_, produced) = step(&mut scheduler, END);
    assert_eq!(produced[0].finished, Some(FinishReason::Length));
    assert!(scheduler.is_empty() && scheduler.used_blocks() == 0);
}

#[test]
fn removed_requests_give_their_blocks_back() {
    let mut scheduler = scheduler(1, 64, 8);
    scheduler.add(sequence(1, 40, 5));
    scheduler.add(sequence(2, 40, 5));
    step(&mut scheduler, 2);
    assert_eq!(scheduler.used_blocks(), 2);
    let mut removed = Vec::new();
    scheduler.remove(|_| true, |sequence| removed.push(sequence.id));
    assert_eq!(
        (removed.len(), scheduler.used_blocks(), scheduler.is_empty()),
        (2, 0, true)
    );
}

#[test]
fn when_blocks_run_out_the_youngest_recomputes() {
    let mut scheduler = scheduler(2, 256, 3);
    scheduler.add(sequence(1, 32, 40));
    scheduler.add(sequence(2, 32, 40));
    let mut tokens: HashMap<RequestId, usize> = HashMap::new();
    for _ in 0..200 {
        for one in step(&mut scheduler, 2).1 {
            *tokens.entry(one.id).or_default() += usize::from(one.token.is_some());
        }
    }
    assert!(scheduler.preemptions() > 0);
    assert_eq!(tokens, HashMap::from([(RequestId(1), 40), (RequestId(2), 40)]));
}

#[derive(Clone, Debug)]
struct Arrival {
    step: usize,
    prompt: usize,
    max_tokens: usize,
    cancel_after: Option<usize>,
}

fn arrivals() -> impl Strategy<Value = Vec<Arrival>> {
    let one = (0_usize..20, 1_usize..120, 1_usize..60, prop::option::of(0_usize..30));
    prop::collection::vec(
        one.prop_map(|(step, prompt, max_tokens, cancel_after)| Arrival {
            step,
            prompt,
            max_tokens,
            cancel_after,
        }),
        1..12,
    )
}

/// What holds for every batch, whoever made it.
fn check_batch(batch: &StepBatch, max_step_tokens: usize, blocks: usize) -> Result<(), TestCaseError> {
    prop_assert!(batch.tokens.len() <= max_step_tokens);
    prop_assert_eq!(batch.positions.len(), batch.tokens.len());
    let slots: HashSet<u32> = batch.slots.iter().copied().collect();
    prop_assert_eq!(slots.len(), batch.tokens.len(), "two tokens in one slot");
    let mut owners: HashMap<u32, usize> = HashMap::new();
    for index in 0..batch.sequences() {
        let length = batch.kv_lengths[index] as usize;
        prop_assert_eq!(batch.blocks(index).len(), length.div_ceil(BLOCK_SIZE));
        let query = batch.query(index);
        prop_assert_eq!(batch.positions[query.end - 1] as usize + 1, length);
        for &block in batch.blocks(index) {
            prop_assert!((block as usize) < blocks);
            prop_assert_eq!(*owners.entry(block).or_insert(index), index, "a block with two owners");
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever arrives and leaves: budgets hold, no block is shared or lost, and every request that is not
    /// cancelled gets exactly its tokens.
    #[test]
    fn every_request_gets_its_tokens(
        arrivals in arrivals(), max_running in 1_usize..6, budget in 1_usize..64, blocks in 6_usize..16,
    ) {
        let mut scheduler = scheduler(max_running, budget, blocks);
        let max_step_tokens = budget.max(max_running);
        let mut tokens: HashMap<u64, usize> = HashMap::new();
        let mut finished: HashSet<u64> = HashSet::new();
        for now in 0..20_000 {
            for (id, arrival) in arrivals.iter().enumerate() {
                let id = id as u64;
                if arrival.step == now {
                    scheduler.add(sequence(id, arrival.prompt, arrival.max_tokens));
                }
                if arrival.cancel_after.is_some_and(|after| arrival.step + after == now) {
                    scheduler.remove(|gone| gone == RequestId(id), |_| {});
                }
            }
            let (batch, produced) = step(&mut scheduler, 2);
            check_batch(&batch, max_step_tokens, blocks)?;
            prop_assert!(scheduler.running() <= max_running);
            for one in produced {
                prop_assert!(!finished.contains(&one.id.0), "a token after the end");
                *tokens.entry(one.id.0).or_default() += 1;
                if one.finished.is_some() {
                    finished.insert(one.id.0);
                }
            }
            if now > 60 && scheduler.is_empty() {
                break;
            }
        }
        prop_assert!(scheduler.is_empty(), "work is left over");
        prop_assert_eq!(scheduler.used_blocks(), 0);
        for (id, arrival) in arrivals.iter().enumerate() {
            if arrival.cancel_after.is_none() {
                prop_assert_eq!(tokens.get(&(id as u64)).copied(), Some(arrival.max_tokens));
            }
        }
    }
}
