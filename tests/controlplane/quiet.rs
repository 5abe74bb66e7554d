//! At rest nothing is written; figures are told.

use std::time::Duration;

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Event;
use kube::ResourceExt;
use kube::api::ListParams;
use perennial_crds::{LLMDeployment, NAME_LABEL};
use perennial_tests::operator::Settings;
use perennial_tests::waiting::{throughout, until};
use perennial_tests::world::model;
use perennial_tests::{Ledger, Play, Wire, run};
use serde_json::json;

/// Time of the rest.
const REST: Duration = Duration::from_secs(60);

#[test]
fn at_rest_nothing_is_written() -> Result<()> {
    run("quiet", async |world| {
        world
            .player
            .script(&world.namespace, |pod| {
                match pod.labels().get(NAME_LABEL).map(String::as_str) {
                    Some("starting") => Play::Running(None),
                    Some("broken") => Play::CrashLoop(1, "no".to_owned()),
                    _ => Play::ready(),
                }
            })
            .await;
        let ledger = Ledger::default();
        let _operator = world
            .operator_with(&Settings::of(&world.namespace), Wire::new(ledger.clone()))
            .await?;
        for (name, spec) in [
            ("serving", json!({"replicas": 2})),
            ("asleep", json!({"suspend": true})),
            ("held", json!({"rollout": {"paused": true}})),
            ("starting", json!({})),
            ("broken", json!({})),
            ("wrong", json!({"podTemplate": {"spec": 1}})),
            (
                "refused",
                json!({"podTemplate": {"spec": {"restartPolicy": "Sometimes"}}}),
            ),
            ("no-room", json!({"accelerator": {"count": 1}})),
        ] {
            world.serve(name, &spec).await?;
        }
        world.settled("serving").await?;
        world.settled("held").await?;
        world.merge::<LLMDeployment>("held", &model('b')).await?;
        for (name, kind, reason) in [
            ("asleep", "Ready", "Suspended"),
            ("held", "Progressing", "Paused"),
            ("starting", "Ready", "StartingPods"),
            ("broken", "Ready", "CrashLoopBackOff"),
            ("wrong", "Ready", "InvalidSpec"),
            ("refused", "Ready", "InvalidSpec"),
            ("no-room", "Ready", "InsufficientAccelerator"),
        ] {
            world.condition(name, kind, "False", reason).await?;
        }
        until(30, "writes have ceased for 5 s", async || {
            ensure!(ledger.quiet_for() > Duration::from_secs(5));
            Ok(())
        })
        .await?;
        let before = ledger.writes().len();
        world.stays_untouched(REST).await?;
        let written: Vec<String> = ledger.writes()[before..]
            .iter()
            .map(|write| format!("{write:?}"))
            .collect();
        ensure!(written.is_empty(), "{}", written.join("\n"));
        Ok(())
    })
}

#[test]
fn figures_carry_the_names_of_controller_runtime() -> Result<()> {
    run("metrics", async |world| {
        let address = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let settings = Settings {
            admin: address.to_string(),
            ..Settings::of(&world.namespace)
        };
        let _operator = world.operator_with(&settings, Wire::new(Ledger::default())).await?;
        world.serve("tiny", &json!({})).await?;
        world.settled("tiny").await?;
        let get = async |path: &str| -> Result<(u16, String)> {
            let answer = reqwest::get(format!("http://{address}{path}")).await?;
            Ok((answer.status().as_u16(), answer.text().await?))
        };
        ensure!(get("/livez").await? == (200, "ok".to_owned()) && get("/readyz").await? == (200, "ok".to_owned()));
        // The last look writes the status and counts afterwards.
        let text = until(30, "all figures are told", async || {
            let (_, text) = get("/metrics").await?;
            for name in [
                "controller_runtime_reconcile_total{controller=\"llmdeployment\",result=\"success\"}",
                "controller_runtime_reconcile_errors_total{controller=\"llmdeployment\"}",
                "controller_runtime_reconcile_time_seconds_bucket",
                "controller_runtime_active_workers",
                "controller_runtime_max_concurrent_reconciles",
                "leader_election_master_status",
                "rest_client_requests_total{code=\"200\",method=\"PATCH\"}",
                "perennial_llmdeployments{reason=\"Routable\"} 1",
                "process_resident_memory_bytes",
            ] {
                ensure!(text.contains(name), "{name} is missing in\n{text}");
            }
            Ok(text)
        })
        .await?;
        ensure!(!text.contains("tiny"), "the name of an object is a label");
        world.delete::<LLMDeployment>("tiny").await?;
        until(30, "the deleted object counts no more", async || {
            let (_, text) = get("/metrics").await?;
            ensure!(text.contains("perennial_llmdeployments{reason=\"Routable\"} 0"));
            Ok(())
        })
        .await
    })
}

#[test]
fn events_are_told_once() -> Result<()> {
    run("events", async |world| {
        let _operator = world.operator().await?;
        world.serve("tiny", &json!({})).await?;
        world.settled("tiny").await?;
        world.merge::<LLMDeployment>("tiny", &model('b')).await?;
        world.alone("tiny").await?;
        let told_once = async || {
            let events = world
                .api::<Event>()
                .list(&ListParams::default().fields("involvedObject.kind=LLMDeployment"))
                .await?;
            let mut told: Vec<_> = events.iter().filter_map(|event| event.reason.as_deref()).collect();
            told.sort_unstable();
            ensure!(
                told == ["BecameReady", "RolloutCompleted", "RolloutStarted"],
                "{told:?}"
            );
            Ok(())
        };
        // They are told after the status is written.
        world.until("all is told", told_once).await?;
        throughout(Duration::from_secs(3), "all is told once", told_once).await
    })
}
