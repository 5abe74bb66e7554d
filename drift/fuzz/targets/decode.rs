//! Whatever bytes come: they are refused, or they are a value whose encoding is these very bytes.
//!
//! Half of the inputs are taken as they are; the others are put into an envelope with a right header and checksum, so
//! that what is behind these is reached, too. A pane that was accepted must then add without overflow.
#![no_main]

use libfuzzer_sys::fuzz_target;
use perennial_drift::baseline::Baseline;
use perennial_drift::decision::State;
use perennial_drift::pane::Pane;
use perennial_drift::pane::layout::Layout;
use sha2::{Digest, Sha256};

fn enveloped(letter: u8, layout: u64, payload: &[u8]) -> Vec<u8> {
    let mut bytes = b"PDRN".to_vec();
    bytes.push(letter);
    bytes.extend_from_slice(&1_u16.to_le_bytes());
    bytes.extend_from_slice(&layout.to_le_bytes());
    bytes.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    bytes.extend_from_slice(payload);
    let sum = Sha256::digest(&bytes);
    bytes.extend_from_slice(&sum[..8]);
    bytes
}

fuzz_target!(|data: &[u8]| {
    let layout = Layout::default();
    let Some((choice, rest)) = data.split_first() else { return };
    let wrapped = |letter| match choice % 2 {
        0 => rest.to_vec(),
        _ => enveloped(letter, layout.fingerprint(), rest),
    };
    match choice / 2 % 3 {
        0 => {
            let bytes = wrapped(b'P');
            if let Ok(pane) = Pane::decode(&layout, &bytes) {
                assert_eq!(pane.encode().as_deref(), Ok(bytes.as_slice()));
                let mut sum = pane.clone();
                let _ = sum.merge(&pane);
                let _ = (sum.distinct(), sum.memory());
            }
        }
        1 => {
            let bytes = wrapped(b'B');
            if let Ok(baseline) = Baseline::decode(&layout, &bytes) {
                assert_eq!(baseline.encode().as_deref(), Ok(bytes.as_slice()));
            }
        }
        _ => {
            let bytes = wrapped(b'S');
            if let Ok(state) = State::decode(&layout, &bytes) {
                assert_eq!(state.encode().as_deref(), Ok(bytes.as_slice()));
            }
        }
    }
});
