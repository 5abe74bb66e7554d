//! Who takes part in the next step: first come, first served, with continuous batching.
//!
//! Pure: it knows no clock, no channel and no device. There is no prefill or decode phase: each sequence has tokens
//! that are not yet in the cache, and gets some of the step's token budget. Running sequences come first, those that
//! only need their next token before those with a long prompt, so decoding is never starved. When blocks run out, the
//! youngest sequence gives its blocks back and recomputes later.

use std::collections::VecDeque;

use crate::batch::{BLOCK_SIZE, StepBatch};
use crate::blocks::BlockPool;
use crate::confidence::{Confidence, MEASURED_EVERY};
use crate::contract::{FinishReason, Queued, RequestId, Sampling};

/// Bounds on what is taken in and on what one step does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most sequences that take part in steps.
    pub max_running: usize,
    /// Most tokens in one step; raised to `max_running` if lower.
    pub max_step_tokens: usize,
    /// Most requests in the queue.
    pub max_queued: usize,
    /// Most prompt tokens in the queue.
    pub max_queued_tokens: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_running: 16,
            max_step_tokens: 256,
            max_queued: 256,
            max_queued_tokens: 262_144,
        }
    }
}

/// A request inside the scheduler.
#[derive(Debug)]
pub(crate) struct Sequence {
    pub(crate) id: RequestId,
    /// Prompt and answer so far.
    tokens: Vec<u32>,
    prompt: usize,
    max_tokens: usize,
    sampling: Sampling,
    measured: bool,
    /// How many of `tokens` are in the cache.
    computed: usize,
    blocks: Vec<u32>,
}

impl Sequence {
    pub(crate) fn new(request: Queued) -> Self {
        Self {
            id: request.id,
            prompt: request.prompt.len(),
            tokens: request.prompt,
            max_tokens: request.max_tokens.max(1),
            sampling: request.sampling,
            measured: request.measured,
            computed: 0,
            blocks: Vec::new(),
        }
    }

    fn missing(&self) -> usize {
        self.tokens.len() - self.computed
    }

    pub(crate) fn prompt_tokens(&self) -> usize {
        self.prompt
    }
}

/// A row of logits in the step that was just scheduled.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row {
    pub(crate) sampling: Sampling,
    /// Index of the token in its answer.
    pub(crate) index: usize,
    /// Whether it is to be told how sure the model is of it.
    pub(crate) measured: bool,
    running: usize,
}

/// What [`Scheduler::commit`] did for one request.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Produced {
    pub(crate) id: RequestId,
    pub(crate) token: Option<u32>,
    pub(crate) confidence: Option<Confidence>,
    pub(crate) finished: Option<FinishReason>,
}

/// A token for a row of logits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Chosen {
    pub(crate) token: u32,
    pub(crate) confidence: Option<Confidence>,
}

pub(crate) struct Scheduler {
    max_running: usize,
    max_step_tokens: usize,
    end_tokens: Vec<u32>,
    running: Vec<Sequence>,
    waiting: VecDeque<Sequence>,
    blocks: BlockPool,
    rows: Vec<Row>,
    started: Vec<(RequestId, usize)>,
    preemptions: u64,
}

impl Scheduler {
    pub(crate) fn new(limits: &Limits, blocks: usize, end_tokens: Vec<u32>) -> Self {
        let max_running = limits.max_running.max(1);
        Self {
            max_running,
            max_step_tokens: limits.max_step_tokens.max(max_running),
            end_tokens,
            running: Vec::new(),
            waiting: VecDeque::new(),
            blocks: BlockPool::new(blocks),
            rows: Vec::new(),
            started: Vec::new(),
            preemptions: 0,
        }
    }

    pub(crate) fn add(&mut self, sequence: Sequence) {
        self.waiting.push_back(sequence);
    }

    /// Plans a step into `batch`; false if there is nothing to do.
    pub(crate) fn schedule(&mut self, batch: &mut StepBatch) -> bool {
        batch.clear();
        self.rows.clear();
        self.started.clear();
        let shares = self.share();
        for (running, &share) in shares.iter().enumerate() {
            if share == 0 {
                continue;
            }
            let sequence = &mut self.running[running];
            let end = sequence.computed + share;
            let sample = end == sequence.tokens.len();
            batch.push(
                &sequence.tokens[sequence.computed..end],
                sequence.computed,
                &sequence.blocks,
                sample,
            );
            sequence.computed = end;
            if sample {
                let index = sequence.tokens.len() - sequence.prompt;
                self.rows.push(Row {
                    sampling: sequence.sampling.clone(),
                    index,
                    measured: sequence.measured && index.is_multiple_of(MEASURED_EVERY),
                    running,
                });
            }
        }
        batch.sequences() > 0
    }

    /// How many tokens each running sequence computes in the next step; admits waiting ones.
    fn share(&mut self) -> Vec<usize> {
        let mut budget = self.max_step_tokens;
        let preemptions = self.preemptions;
        let mut shares = vec![0; self.running.len()];
        for decoding in [true, false] {
            let mut index = 0;
            while index < self.running.len() {
                if (self.running[index].missing() == 1) == decoding && shares[index] == 0 {
                    let share = self.running[index].missing().min(budget);
                    if share > 0 && self.reserve(index, share, &mut shares, &mut budget) {
                        shares[index] = share;
                        budget -= share;
                    }
                }
                index += 1;
            }
        }
        while preemptions == self.preemptions && budget > 0 && self.running.len() < self.max_running {
            let Some(share) = self.admit(budget) else { break };
            shares.push(share);
            budget -= share;
        }
        shares
    }

    /// Gets blocks for `share` more tokens of a running sequence, from the youngest others if need be. False if the
    /// sequence itself had to give up its place.
    fn reserve(&mut self, index: usize, share: usize, shares: &mut Vec<usize>, budget: &mut usize) -> bool {
        loop {
            let sequence = &mut self.running[index];
            let wanted = (sequence.computed + share).div_ceil(BLOCK_SIZE);
            if self.blocks.grow(&mut sequence.blocks, wanted) {
                return true;
            }
            let Some(mut youngest) = self.running.pop() else {
                return false;
            };
            *budget += shares.pop().unwrap_or(0);
            self.blocks.release(&mut youngest.blocks);
            youngest.computed = 0;
            self.preemptions += 1;
            self.waiting.push_front(youngest);
            if self.running.len() == index {
                return false;
            }
        }
    }

    /// Moves the first waiting sequence into the running ones if its tokens so far fit the free blocks.
    fn admit(&mut self, budget: usize) -> Option<usize> {
        let sequence = self.waiting.front_mut()?;
        if !self
            .blocks
            .grow(&mut sequence.blocks, sequence.tokens.len().div_ceil(BLOCK_SIZE))
        {
            return None;
        }
        let sequence = self.waiting.pop_front()?;
        let share = sequence.missing().min(budget);
        self.started.push((sequence.id, sequence.prompt));
        self.running.push(sequence);
        Some(share)
    }

    /// The rows of logits that the scheduled step asks for.
    pub(crate) fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// The requests that entered the scheduled step from the queue, with the lengths of their prompts.
    pub(crate) fn started(&self) -> &[(RequestId, usize)] {
        &self.started
    }

    /// Appends the tokens chosen for [`Self::rows`]; finished sequences leave and give their blocks back.
    pub(crate) fn commit(&mut self, chosen: &[Chosen], produced: &mut Vec<Produced>) {
        let mut leaving = Vec::new();
        for (row, &Chosen { token, confidence }) in self.rows.iter().zip(chosen) {
            let sequence = &mut self.running[row.running];
            let ended = !sequence.sampling.ignore_end && self.end_tokens.contains(&token);
            sequence.tokens.push(token);
            let finished = if ended {
                Some(FinishReason::End)
            } else {
                (sequence.tokens.len() - sequence.prompt >= sequence.max_tokens).then_some(FinishReason::Length)
            };
            if finished.is_some() {
                leaving.push(row.running);
            }
            produced.push(Produced {
                id: sequence.id,
                token: (!ended).then_some(token),
                confidence: confidence.filter(|_| !ended),
                finished,
            });
        }
        self.rows.clear();
        leaving.sort_unstable();
        for &index in leaving.iter().rev() {
            let mut sequence = self.running.remove(index);
            self.blocks.release(&mut sequence.blocks);
        }
    }

    /// Removes every request that `gone` names, running or waiting; calls `removed` for each.
    pub(crate) fn remove(&mut self, gone: impl Fn(RequestId) -> bool, mut removed: impl FnMut(&Sequence)) {
        let blocks = &mut self.blocks;
        self.running.retain_mut(|sequence| {
            let keep = !gone(sequence.id);
            if !keep {
                removed(sequence);
                blocks.release(&mut sequence.blocks);
            }
            keep
        });
        self.waiting.retain(|sequence| {
            let keep = !gone(sequence.id);
            if !keep {
                removed(sequence);
            }
            keep
        });
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.running.is_empty() && self.waiting.is_empty()
    }

    pub(crate) fn running(&self) -> usize {
        self.running.len()
    }

    pub(crate) fn used_blocks(&self) -> usize {
        self.blocks.used()
    }

    pub(crate) fn preemptions(&self) -> u64 {
        self.preemptions
    }
}

#[cfg(test)]
#[path = "scheduler_tests.rs"]
mod tests;
