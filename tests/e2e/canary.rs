//! A word that was in every prompt is found nowhere but where its owner wanted it.

use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::ListParams;

use super::cluster::{Bed, SYSTEM, kubectl, run};

/// Looks for the word in everything that the cluster keeps, logs and tells: etcd's files, logs of all components and
/// containers, objects and their events, metrics. Panics where it is found.
pub async fn is_nowhere(bed: &Bed, canary: &str) {
    let mut said = Vec::new();
    for kinds in [
        "configmaps,events,drift,llm",
        "pods,deployments,controllerrevisions,jobs,services",
    ] {
        said.push((
            kinds.to_owned(),
            kubectl(&["-n", &bed.namespace, "get", kinds, "-o", "json"]),
        ));
    }
    // Bytes in ConfigMaps are base64, which would hide it.
    let maps: Api<ConfigMap> = Api::namespaced(bed.client.clone(), &bed.namespace);
    for map in maps.list(&ListParams::default()).await.expect("they can be listed") {
        let binary = map.binary_data.into_iter().flatten();
        said.extend(binary.map(|(key, bytes)| (key, String::from_utf8_lossy(&bytes.0).into_owned())));
    }
    for (namespace, label) in [
        (bed.namespace.as_str(), "perennial.dev/name"),
        (bed.namespace.as_str(), "perennial.dev/drift-cycle"),
        (SYSTEM, "app.kubernetes.io/name=perennial"),
    ] {
        let arguments = ["-n", namespace, "logs", "--all-containers", "--tail=-1", "-l", label];
        // Of a pod that is going there is no log.
        said.push((
            format!("logs of {label}"),
            run("kubectl", &arguments).unwrap_or_default(),
        ));
    }
    for pod in bed
        .pods()
        .list(&ListParams::default())
        .await
        .expect("they can be listed")
    {
        let Some(address) = pod.status.and_then(|status| status.pod_ip) else {
            continue;
        };
        // Servers, and collectors.
        for place in ["9090/metrics", "9090/load", "9090/drift/panes", "9091/metrics"] {
            let Ok(answer) = reqwest::get(format!("http://{address}:{place}")).await else {
                continue;
            };
            said.push((place.to_owned(), answer.text().await.expect("a text")));
        }
    }
    assert!(
        said.iter()
            .any(|(place, text)| place == "9090/metrics" && !text.is_empty()),
        "no metrics were read"
    );
    let found: Vec<&String> = said
        .iter()
        .filter(|(_, text)| text.contains(canary))
        .map(|(place, _)| place)
        .collect();
    assert!(found.is_empty(), "a prompt got out: {found:?}");
    let files = in_files(canary);
    assert!(files.is_empty(), "a prompt got out: {files:?}");
}

/// Files of the cluster's own parts that hold the word: etcd's data as it lies on the disk, and all logs.
fn in_files(canary: &str) -> Vec<PathBuf> {
    let state = std::env::var("TESTCLUSTER_STATE").unwrap_or_else(|_| "/var/lib/testcluster".to_owned());
    let mut found = Vec::new();
    for part in ["etcd", "logs", "pod-logs"] {
        let (mut left, mut bytes) = (vec![Path::new(&state).join(part)], 0);
        while let Some(path) = left.pop() {
            if let Ok(entries) = std::fs::read_dir(&path) {
                left.extend(entries.flatten().map(|entry| entry.path()));
            } else if let Ok(content) = std::fs::read(&path) {
                bytes += content.len();
                if contains(&content, canary.as_bytes()) {
                    found.push(path);
                }
            }
        }
        assert!(bytes > 1_000, "only {bytes} bytes of {part} were looked through");
    }
    found
}

fn contains(content: &[u8], word: &[u8]) -> bool {
    // The first byte first: most windows are let go at once.
    let first = word[0];
    let mut rest = content;
    while let Some(at) = rest.iter().position(|byte| *byte == first) {
        if rest[at..].starts_with(word) {
            return true;
        }
        rest = &rest[at + 1..];
    }
    false
}

#[test]
fn a_word_is_found_in_bytes() {
    assert!(contains(b"a quetz quetzal", b"quetzal"));
    assert!(!contains(b"a quetz quetza", b"quetzal"));
}
