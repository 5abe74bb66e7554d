//! What Jobs say when they end: the truth, and what a bad image or an unlucky node makes of it.

use perennial_operator::cycle::ledger::{Cycle, Kind, Model};
use perennial_operator::cycle::step::{End, State};
use serde_json::json;

use crate::world::{CANARY, REPOSITORY, World, digest, model};

impl World {
    /// What becomes of the Job that asks for the tag.
    pub fn asked(&mut self, state: State) -> State {
        match state {
            State::Waiting(_) => State::Running(self.now),
            State::Ended(end) => State::Ended(end),
            State::Running(_) => State::Ended(match (self.trouble(6), &self.tag) {
                (0, _) => failed("SourceUnreachable"),
                (1, _) => said(format!("{CANARY} is no JSON")),
                (2, Some((model, base))) => said(restored(&model.digest, &model_of(&digest(94)), base)),
                (3, _) => End {
                    message: Some(json!({"schema": "restore/v1", "outcome": "Untrusted", "message": "no"}).to_string()),
                    ..failed("Error")
                },
                (_, Some((model, base))) => said(restored(&model.digest, model, base)),
                (_, None) => said(json!({"schema": "restore/v1", "outcome": "Succeeded"}).to_string()),
            }),
        }
    }

    /// Below `end` when something bad happens, and `end` itself when not.
    pub fn trouble(&mut self, end: u64) -> u64 {
        if self.dice.one_in(self.peace) {
            self.dice.below(end)
        } else {
            end
        }
    }

    pub fn end(&mut self, kind: Kind, cycle: &Cycle) -> End {
        match self.trouble(12) {
            0 => return failed("Error"),
            1 => return said(format!("{CANARY} is no JSON")),
            2 => {
                return said(format!(
                    "{{\"schema\": \"other/v1\", \"outcome\": \"Succeeded\", \"x\": \"{CANARY}\"}}"
                ));
            }
            3 => return said(CANARY.repeat(1000)),
            4 => {
                return End {
                    succeeded: true,
                    ..End::default()
                };
            }
            _ => {}
        }
        match kind {
            Kind::Prepare => said(if self.trouble(5) == 0 {
                json!({"schema": "prepare/v1", "outcome": "DataRejected", "message": "too few"}).to_string()
            } else {
                let items = if self.trouble(6) == 0 { 10 } else { 80 };
                json!({"schema": "prepare/v1", "outcome": "Succeeded", "manifestDigest": digest(7), "suitesDigest": digest(8),
                    "records": 500, "items": {"recent": items}})
                .to_string()
            }),
            Kind::Retrain => self.trained(cycle),
            Kind::Gate => self.judged(cycle),
            Kind::Publish => self.published(cycle),
        }
    }

    fn trained(&mut self, cycle: &Cycle) -> End {
        self.made += 1;
        let (mut made, mut base, mut manifest) = (digest(self.made), cycle.base.digest.clone(), digest(7));
        let (mut uri, mut kind) = (None, "Merged");
        // Truth: better, the same, or worse.
        let quality =
            self.quality.get(&cycle.champion.digest).copied().unwrap_or(0.5) + self.dice.of(&[-0.1, 0.0, 0.1, 0.1]);
        let outcome = match self.trouble(14) {
            0 => "NoImprovement",
            1 => "DataRejected",
            2 => {
                base = digest(99);
                "Succeeded"
            }
            3 => {
                manifest = digest(98);
                "Succeeded"
            }
            4 => {
                let wrong = [
                    "file:///mnt/model/../other",
                    "oci://registry.example/models/other@sha256:0",
                ];
                uri = Some(self.dice.of(&wrong).to_owned());
                "Succeeded"
            }
            5 => {
                kind = "Adapter";
                "Succeeded"
            }
            6 => {
                made = self.ledger.rejected.back().cloned().unwrap_or(made);
                "Succeeded"
            }
            7 => {
                made = "sha256:XYZ".to_owned();
                "Succeeded"
            }
            8 => "Retryable",
            _ => "Succeeded",
        };
        self.quality.entry(made.clone()).or_insert(quality);
        let right = match &cycle.repository {
            Some(repository) => format!("oci://{repository}@{made}"),
            None => "file:///mnt/model/model.gguf".to_owned(),
        };
        let uri = uri.unwrap_or(right);
        said(
            json!({"schema": "retrain/v1", "outcome": outcome, "model": {"uri": uri, "digest": made, "baseDigest": base, "kind": kind},
                "data": {"manifestDigest": manifest}})
            .to_string(),
        )
    }

    fn published(&mut self, cycle: &Cycle) -> End {
        if self.trouble(3) == 0 {
            return failed("Error");
        }
        let candidate = cycle.candidate.clone().expect("a candidate");
        self.tag = Some((candidate, cycle.base.digest.clone()));
        said(json!({"schema": "publish/v1", "outcome": "Succeeded", "digest": digest(6)}).to_string())
    }

    fn judged(&mut self, cycle: &Cycle) -> End {
        let candidate = cycle
            .candidate
            .as_ref()
            .map(|candidate| candidate.digest.clone())
            .unwrap_or_default();
        let mut checked = candidate.clone();
        let mut outcome = "Succeeded";
        match self.trouble(10) {
            0 => checked = digest(97),
            1 => outcome = "Untrusted",
            _ => {}
        }
        let verification =
            json!({"schema": "verify/v1", "outcome": outcome, "digest": checked, "sizeBytes": 1}).to_string();
        if outcome == "Untrusted" {
            return End {
                verification: Some(verification),
                ..failed("Error")
            };
        }
        let truth = |digest: &String| self.quality.get(digest).copied().unwrap_or(0.5).clamp(0.0, 1.0);
        let (champion, mine) = (truth(&cycle.champion.digest), truth(&candidate));
        let difference = mine - champion;
        let (mut judged_candidate, mut judged_champion) = (candidate.clone(), cycle.champion.digest.clone());
        let mut items = 80;
        match self.trouble(12) {
            0 => judged_candidate = digest(96),
            1 => judged_champion = digest(95),
            2 => items = 3,
            _ => {}
        }
        let honest = judged_candidate == candidate
            && judged_champion == cycle.champion.digest
            && items == 80
            && checked == candidate
            && difference > 0.05;
        if honest {
            self.log.passed.insert((candidate, judged_champion.clone()));
        }
        let words = json!({"schema": "gate/v1", "outcome": "Succeeded", "championDigest": judged_champion,
            "candidateDigest": judged_candidate, "suites": [{"name": "recent", "items": items, "championMean": champion,
            "candidateMean": mine, "differenceMean": difference, "differenceSquaresMean": difference * difference + 0.001}]});
        End {
            verification: Some(verification),
            ..said(words.to_string())
        }
    }
}

fn model_of(digest: &str) -> Model {
    Model {
        uri: format!("oci://{REPOSITORY}@{digest}"),
        digest: digest.to_owned(),
        ..model(1)
    }
}

fn restored(digest: &str, model: &Model, base: &str) -> String {
    let base = Model {
        digest: base.to_owned(),
        ..self::model(1)
    };
    json!({"schema": "restore/v1", "outcome": "Succeeded", "digest": digest, "lineage": {"model": model, "base": base,
        "championDigest": "", "cycleId": "0", "policy": "watch", "policyUid": "another", "manifestDigest": "", "gate": []}})
    .to_string()
}

fn said(message: String) -> End {
    End {
        succeeded: true,
        message: Some(message),
        ..End::default()
    }
}

pub fn failed(why: &str) -> End {
    End {
        why: why.to_owned(),
        ..End::default()
    }
}
