//! A server with an encoder of its own: its panes are of another layout, and count how its prompts are embedded.

use std::sync::Arc;

use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use perennial_crds::serving::{PANES_PATH, PanesPage};
use perennial_drift::pane::Pane;
use perennial_drift::pane::layout::Layout;
use perennial_server::shared::{Shared, seconds_since_1970};
use serde_json::json;

use crate::encoder_files::Made;
use crate::support::{call, chat, eventually, object, probe, put, server};

async fn page(shared: &Arc<Shared>) -> PanesPage {
    let (status, text) = probe(shared, PANES_PATH).await;
    assert_eq!(status, StatusCode::OK, "{text}");
    serde_json::from_str(&text).expect("a page")
}

/// Requests, and how many of them have an embedding, of a server that is asked both of these; and the layout of its panes.
async fn counted(flags: &str, prompts: [&str; 2]) -> (u64, u64, u64) {
    let shared = server(flags).await;
    put(&shared, PANES_PATH, r#"{"paneSeconds": 1}"#).await;
    for prompt in prompts {
        let messages = json!([{"role": "user", "content": prompt}]);
        object(call(&shared, chat(json!({"messages": messages, "max_tokens": 2}))).await).await;
    }
    let observed = &shared.metrics.observation.observed;
    eventually("all are counted", || observed.get() >= 2).await;
    let second = seconds_since_1970();
    eventually("the pane is over", || seconds_since_1970() > second).await;
    let page = page(&shared).await;
    let fingerprint = u64::from_str_radix(&page.layout, 16).expect("a fingerprint");
    let (mut requests, mut embedded) = (0, 0);
    for record in &page.panes {
        let bytes = STANDARD.decode(&record.bytes).expect("base64");
        let pane = Pane::decode(&Layout::told(fingerprint), &bytes).expect("a pane of the layout that is told");
        requests += pane.requests();
        embedded += pane.embedded();
    }
    (requests, embedded, fingerprint)
}

#[tokio::test(flavor = "multi_thread")]
async fn panes_of_another_encoder_are_of_another_layout_and_count_what_it_knows() {
    let (made, same, other) = (Made::new(), Made::new(), Made::other());
    let flag = |made: &Made| format!("--encoder {}", made.path().display());
    let prompts = ["Why is the sky blue?", "xyzzy plugh"];
    let (requests, embedded, layout) = counted(&flag(&made), prompts).await;
    assert_eq!(
        (requests, embedded),
        (2, 1),
        "a prompt of unknown words has no embedding"
    );
    let (requests, embedded, n_grams) = counted("", prompts).await;
    assert_eq!((requests, embedded), (2, 2));
    assert_eq!(
        counted(&flag(&same), prompts).await.2,
        layout,
        "where the files lie is of no matter"
    );
    let another = counted(&flag(&other), prompts).await.2;
    assert!(layout != n_grams && layout != another && another != n_grams);
}
