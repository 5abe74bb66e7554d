//! What is deleted of cycles that have ended.

use perennial_crds::retrain::EndedCycle;

use super::*;

#[test]
fn what_earlier_cycles_froze_is_deleted_and_models_in_use_stay() {
    let site = Site::filled(0..40);
    for cycle in ["promoted", "rejected", "unknown"] {
        let told = PrepareSettings {
            cycle_id: cycle.to_owned(),
            ..settings()
        };
        let mut arguments = site.arguments(&told);
        arguments.output = site.path(&format!("cycles/{cycle}"));
        prepare::execute(&arguments).expect("prepared");
        fs::write(arguments.output.join("output/model.gguf"), "weights").expect("written");
        fs::write(arguments.output.join("gate/scores.jsonl"), "{}\n").expect("written");
    }
    // Somebody's folder that a link leads to is not ours.
    fs::create_dir_all(site.path("elsewhere/data")).expect("a folder");
    fs::write(site.path("elsewhere/data/train.jsonl"), "theirs").expect("written");
    std::os::unix::fs::symlink(site.path("elsewhere"), site.path("cycles/link")).expect("a link");
    let before = everything(&site.path("cycles/unknown"));
    let ended = |id: &str, discard| EndedCycle {
        cycle_id: id.to_owned(),
        discard,
    };
    let told = PrepareSettings {
        ended: vec![
            ended("promoted", false),
            ended("rejected", true),
            ended("never-there", true),
            ended("link", true),
            // Never its own folder.
            ended("c1", true),
        ],
        ..settings()
    };
    let mut arguments = site.arguments(&told);
    arguments.output = site.path("cycles/c1");
    let result = prepare::execute(&arguments).expect("prepared");
    assert_eq!(result.outcome, Outcome::Succeeded, "{}", result.message);
    assert!(!result.message.contains("tidied"), "{}", result.message);
    let left: Vec<String> = everything(&site.path("cycles/promoted"))
        .into_keys()
        .map(|path| {
            let path = path.strip_prefix(site.path("cycles/promoted")).expect("below it");
            path.display().to_string()
        })
        .collect();
    assert_eq!(
        left,
        [
            "data/manifest.json",
            "drift/report.json",
            "gate/scores.jsonl",
            "output/model.gguf"
        ]
    );
    assert!(!site.path("cycles/rejected").exists());
    assert_eq!(everything(&site.path("cycles/unknown")), before);
    assert!(site.path("elsewhere/data/train.jsonl").exists());
    // Told again, nothing is left to delete and the result stands.
    assert_eq!(
        prepare::execute(&arguments).expect("again").manifest_digest,
        result.manifest_digest
    );
}

#[test]
fn ids_that_lead_elsewhere_are_refused() {
    let site = Site::filled(0..40);
    for id in ["", "..", "../else", "a/b", "/etc"] {
        let told = PrepareSettings {
            ended: vec![EndedCycle {
                cycle_id: id.to_owned(),
                discard: true,
            }],
            ..settings()
        };
        let error = site.prepare(&told).expect_err("refused");
        assert!(
            matches!(&error, PrepareError::Arguments(why) if why.contains("id of a cycle")),
            "{error}"
        );
    }
}
