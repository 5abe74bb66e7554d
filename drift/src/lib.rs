//! Has the traffic of a model changed, since when, in what, by how much, and how sure are we?
//!
//! Many replicas fill [`pane`]s from [`features`] of requests; a reader merges them exactly ([`observe`]), learns a
//! [`baseline`], and lets [`decision`] weigh the [`evidence`] of each new pane against a stated budget of false alarms.
//! [`effect`] says how large a change is, [`cause`] what it comes from, [`explain`] says it in words. The crate is pure:
//! values in, values out. It must never know Kubernetes, HTTP, a clock or a thread, and nothing in it keeps a prompt.
//!
//! ```
//! use perennial_drift::features::{Encoder, Exchange, Extractor};
//! use perennial_drift::pane::{Pane, layout::Layout};
//! use perennial_drift::policy::{Policy, Season};
//! use perennial_drift::{baseline::Baseline, decision::State, envelope::digest, explain, observe::Interval};
//!
//! let extractor = Extractor::new(Encoder::Ngrams)?;
//! let layout = Layout::of(extractor.recipe());
//! let policy = Policy { season: Season::None, baseline_seconds: 3_600, baseline_min_samples: 2_000, ..Policy::default() };
//! // A replica's pane: a hundred requests in five minutes. Panes of other replicas are added with `Pane::merge`.
//! let pane = |number: i64, factor: u32| {
//!     let mut pane = Pane::new(&layout, 300 * number, policy.pane_seconds);
//!     for request in 0..100 {
//!         let prompt_tokens = Some(factor * (20 + request * 37 % 100));
//!         pane.add(&extractor.features(&Exchange { prompt_tokens, ..Exchange::default() }));
//!     }
//!     pane
//! };
//! let baseline = Baseline::learn(&(0..40).map(|number| pane(number, 1)).collect::<Vec<_>>(), &policy)?;
//! let mut state = State::watching(&baseline, &digest(&baseline.encode()?), &policy, baseline.to);
//! for pane in (40..60).map(|number| pane(number, 2)) {
//!     state.step(&Interval { start: pane.start(), pane: Some(pane) }, None, &baseline, &policy)?;
//! }
//! let report = explain::report(&state, &baseline, &policy);
//! // Drifted: Tokens per prompt rose: ...
//! println!("{:?}: {}", report.phase, report.signals[0].sentence);
//! # assert_eq!(report.phase, perennial_drift::decision::Phase::Drifted);
//! # assert!(report.signals[0].sentence.starts_with("Tokens per prompt rose: "), "{}", report.signals[0].sentence);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod baseline;
pub mod cause;
pub mod classical;
pub mod decision;
pub mod effect;
pub mod envelope;
pub mod evidence;
pub mod explain;
pub mod features;
pub mod math;
pub mod observe;
pub mod pane;
pub mod policy;
pub mod probe;
pub mod signal;
pub mod tally;
