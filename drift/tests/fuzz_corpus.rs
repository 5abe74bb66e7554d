//! Writes what the fuzzer begins with: `FUZZ_CORPUS=FOLDER cargo test -p perennial-drift --test fuzz_corpus`. Without the
//! variable it checks that these beginnings are accepted, so that fuzzing reaches what is behind the envelope.

mod common;

use common::{MONDAY, Random, Traffic, steady, watching};
use perennial_drift::baseline::Baseline;
use perennial_drift::decision::State;
use perennial_drift::pane::Pane;
use perennial_drift::pane::layout::Layout;

/// Header and checksum of an envelope, which the target puts on again.
const HEADER: usize = 19;
const CHECKSUM: usize = 8;

#[test]
fn the_corpus_is_accepted() {
    let layout = Layout::default();
    let policy = steady();
    let panes = Traffic::default().panes(&mut Random(1), MONDAY, 200, 100);
    let baseline = Baseline::learn(&panes, &policy).expect("is learned");
    let state = watching(&baseline, &policy);
    let empty = Pane::new(&layout, MONDAY, 300);
    let values = [
        (0, "pane", panes[0].encode()),
        (0, "empty-pane", empty.encode()),
        (1, "baseline", baseline.encode()),
        (2, "state", state.encode()),
    ];
    let folder = std::env::var_os("FUZZ_CORPUS").map(std::path::PathBuf::from);
    for (kind, name, bytes) in values {
        let bytes = bytes.expect("is encoded");
        match kind {
            0 => assert!(Pane::decode(&layout, &bytes).is_ok()),
            1 => assert!(Baseline::decode(&layout, &bytes).is_ok()),
            _ => assert!(State::decode(&layout, &bytes).is_ok()),
        }
        if let Some(folder) = &folder {
            std::fs::create_dir_all(folder).expect("a folder");
            let payload = &bytes[HEADER..bytes.len() - CHECKSUM];
            std::fs::write(folder.join(name), [&[2 * kind], bytes.as_slice()].concat()).expect("is written");
            std::fs::write(
                folder.join(format!("{name}-payload")),
                [&[2 * kind + 1], payload].concat(),
            )
            .expect("is written");
        }
    }
}
