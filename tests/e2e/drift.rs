//! A DriftPolicy on real pods: what is normal is learned, a change is found and named, and nothing of a prompt gets out.

use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use perennial_crds::drift_policy::Phase;
use perennial_tests::seed::Random;
use serde_json::json;

use super::canary;
use super::cluster::{Bed, eventually, kill_operators, kubectl, simulated};
use super::policy::{phase, policies, says, told, until};
use super::talk::{Talk, Turn};

const MINUTE: Duration = Duration::from_secs(60);
/// A word in every prompt that must be found nowhere else.
const CANARY: &str = "quetzalcoatlus7";
/// Requests per second of all clients.
pub const RATE: u64 = 50;

const ENGLISH: [&[&str]; 3] = [
    &[
        "My old neighbour",
        "The captain of the ship",
        "A young teacher",
        "Our little garden",
        "The whole committee",
        "Nobody in the village",
    ],
    &[
        "has never really understood",
        "would like to know more about",
        "is going to write something about",
        "was very happy with",
        "often talks about",
    ],
    &[
        "the weather in the mountains.",
        "how bread is made at home.",
        "the history of this bridge.",
        "what children should read.",
        "the price of good tools.",
    ],
];
const GERMAN: [&[&str]; 3] = [
    &[
        "Mein alter Nachbar",
        "Der Kapitän des Schiffes",
        "Eine junge Lehrerin",
        "Unser kleiner Garten",
        "Der ganze Ausschuss",
        "Niemand im Dorf",
    ],
    &[
        "hat nie wirklich verstanden,",
        "möchte gerne mehr wissen über",
        "wird bald etwas schreiben über",
        "war sehr zufrieden mit",
        "spricht häufig über",
    ],
    &[
        "das Wetter in den Bergen.",
        "wie man zu Hause Brot backt.",
        "die Geschichte dieser Brücke.",
        "was Kinder lesen sollten.",
        "den Preis guter Werkzeuge.",
    ],
];

/// A chat in one of the two languages.
pub fn chat(client: u64, german: bool, random: &mut Random) -> Turn {
    let words = if german { GERMAN } else { ENGLISH };
    Turn {
        path: "/v1/chat/completions",
        body: json!({
            "model": "model", "max_tokens": 4 + random.below(8), "user": format!("{CANARY}-{client}"),
            "messages": [{"role": "user", "content": prompt(&words, random)}],
        }),
        corrected: None,
    }
}

fn prompt(words: &[&[&str]; 3], random: &mut Random) -> String {
    let sentences: Vec<String> = (0..3).map(|_| words.map(|list| *random.pick(list)).join(" ")).collect();
    format!("{} {CANARY}", sentences.join(" "))
}

/// A policy that learns for a minute, with panes so short.
pub async fn apply(bed: &Bed, name: &str, pane_seconds: u32) {
    let object = json!({
        "apiVersion": "perennial.dev/v1alpha1", "kind": "DriftPolicy", "metadata": {"name": name},
        "spec": {
            "targetRef": {"name": "model"},
            "observation": {"paneSeconds": pane_seconds, "minSamples": 25, "maxPaneSeconds": 30},
            "baseline": {"learned": {"seconds": 60, "minSamples": 1500, "season": "None"}},
            "confirmSeconds": 6,
        },
    });
    let parameters = PatchParams::apply("e2e").force();
    policies(bed)
        .patch(name, &parameters, &Patch::Apply(&object))
        .await
        .expect("the policy is accepted");
}

/// Two replicas of a quick model that answer.
pub async fn talkative(bed: &Bed) {
    let mut spec = simulated(2).await;
    spec["runtime"]["extraArgs"] = json!(["--engine=simulated", "--simulated-decode-tokens-per-second=400"]);
    bed.apply("model", spec).await;
    bed.settled("model", 2 * MINUTE).await;
}

/// Waits until the policy has learned what is normal.
pub async fn learned(bed: &Bed) {
    until(bed, "watch", "watching", 3 * MINUTE, |policy| {
        phase(policy) == Some(Phase::Watching)
    })
    .await;
}

/// UIDs and starts of the pods: what was not restarted has the same.
async fn lives(bed: &Bed) -> Vec<(Option<String>, i32)> {
    let pods = bed
        .pods()
        .list(&ListParams::default())
        .await
        .expect("pods can be listed")
        .items;
    let restarts = |pod: &k8s_openapi::api::core::v1::Pod| {
        let statuses = pod
            .status
            .iter()
            .flat_map(|status| status.container_statuses.iter().flatten());
        statuses.map(|container| container.restart_count).sum()
    };
    let mut lives: Vec<_> = pods
        .iter()
        .filter(|pod| pod.labels().contains_key("perennial.dev/revision"))
        .map(|pod| (pod.uid(), restarts(pod)))
        .collect();
    lives.sort();
    lives
}

#[tokio::test]
async fn a_change_of_language_is_found_named_and_over_and_no_prompt_gets_out() {
    let bed = Bed::new("drift").await;
    talkative(&bed).await;
    let before = lives(&bed).await;
    let talk = Talk::start(&bed.url("model").await, RATE, chat);
    apply(&bed, "watch", 2).await;
    until(&bed, "watch", "learning", MINUTE, |policy| {
        let baseline = policy.status.as_ref().and_then(|status| status.baseline.as_ref());
        baseline.is_some_and(|baseline| baseline.learned_percent > 20) && says(policy, "Observing", "True", "PanesRead")
    })
    .await;
    apply(&bed, "second", 2).await;
    until(&bed, "second", "turned away", MINUTE, |policy| {
        says(policy, "Stalled", "True", "TargetTaken")
    })
    .await;
    // An operator that ends between a status and its event does not tell it any more.
    told(&bed, "TargetTaken").await;
    // What was learned so far survives the operators.
    kill_operators();
    let watching = until(&bed, "watch", "watching", 3 * MINUTE, |policy| {
        phase(policy) == Some(Phase::Watching)
    })
    .await;
    let baseline = watching.status.and_then(|status| status.baseline).expect("a baseline");
    println!(
        "learned from {} requests; not watched: {:?}",
        baseline.samples, baseline.unarmed
    );
    // Half a minute of the same is no change.
    for _ in 0..15 {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let now = policies(&bed).get("watch").await.expect("it is there");
        assert_eq!(phase(&now), Some(Phase::Watching), "{:?}", now.status);
    }
    talk.speak_german(40);
    let began = jiff::Timestamp::now();
    let drifted = until(&bed, "watch", "drifted", 2 * MINUTE, |policy| {
        says(policy, "Drifted", "True", "InputDrift")
    })
    .await;
    println!(
        "found after {} s",
        jiff::Timestamp::now().duration_since(began).as_secs()
    );
    println!("{}", kubectl(&["-n", &bed.namespace, "get", "drift", "-o", "wide"]));
    let status = drifted.status.expect("a status");
    let language = status
        .signals
        .iter()
        .find(|signal| signal.name == "Language")
        .expect("it is watched");
    assert!(language.moved && language.matters, "{language:?}");
    // A change of shape is dated in blocks of up to 64 panes, here of two seconds.
    let since = language.since.as_ref().expect("a time").0;
    let early = began.duration_since(since).as_secs();
    assert!((-20..=130).contains(&early), "since {since}, began {began}");
    told(&bed, "DriftConfirmed").await;
    // An operator that takes over says the same, and counts nothing twice.
    kill_operators();
    talk.speak_german(0);
    let over = until(&bed, "watch", "watching again", 3 * MINUTE, |policy| {
        phase(policy) == Some(Phase::Watching)
    })
    .await;
    let observation = over
        .status
        .and_then(|status| status.observation)
        .expect("it was observed");
    let answered = talk.end().await;
    let (seen, sent) = (observation.requests, i64::try_from(answered).expect("few"));
    println!("{seen} of {sent} requests were observed; {observation:?}");
    assert!(seen <= sent && seen * 10 >= sent * 7, "{seen} of {sent}");
    assert_eq!(lives(&bed).await, before, "a policy restarts no pod");
    for reason in ["BaselineLearned", "DriftConfirmed", "DriftOver", "TargetTaken"] {
        told(&bed, reason).await;
    }
    canary::is_nowhere(&bed, CANARY).await;
    // All that it remembered goes with it.
    kubectl(&["-n", &bed.namespace, "delete", "drift", "--all"]);
    let maps: Api<ConfigMap> = Api::namespaced(bed.client.clone(), &bed.namespace);
    let gone = eventually(MINUTE, || async {
        let labels = ListParams::default().labels("perennial.dev/drift-policy");
        let left = maps.list(&labels).await.ok()?;
        left.items.is_empty().then_some(())
    });
    assert!(gone.await.is_some(), "ConfigMaps stay behind");
    bed.remove().await;
}
