//! Bad luck: each kind is named in the status with what to do about it, and hurts nobody else.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::cluster::{Bed, REGISTRY, condition, model_reference, root, run};

/// Longest time for one.
pub const LIMIT: Duration = Duration::from_secs(180);

/// A misfortune: how it is asked for, the reason it must show, and words that must be in its message.
struct Case {
    name: &'static str,
    spec: Value,
    reason: &'static str,
    words: Vec<&'static str>,
}

/// The real model, on this machine.
pub fn model_file() -> PathBuf {
    root().join(".cache/models/SmolLM2-135M-Instruct.Q4_1.gguf")
}

/// Stores changed bytes of the real model in the registry and gives back the reference.
fn store(name: &str, change: impl FnOnce(Vec<u8>) -> Vec<u8>) -> String {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("model.gguf");
    let bytes = std::fs::read(model_file()).expect("the model was fetched");
    std::fs::write(&file, change(bytes)).expect("it can be written");
    let reference = format!("{REGISTRY}/models/{name}:1");
    run(
        "testcluster",
        &["artifact", "push", &reference, &file.to_string_lossy()],
    )
    .unwrap_or_else(|error| panic!("{error}"));
    reference
}

/// The same file with an architecture that nobody knows.
fn with_unknown_architecture(mut bytes: Vec<u8>) -> Vec<u8> {
    let key = b"general.architecture";
    let at = bytes
        .windows(key.len())
        .position(|window| window == key)
        .expect("GGUF names its architecture");
    // Key, u32 type, u64 length, text.
    let text = at + key.len() + 4 + 8;
    assert_eq!(&bytes[text..text + 5], b"llama");
    bytes[text..text + 5].copy_from_slice(b"zebra");
    bytes
}

async fn cases(broken_host: &str) -> Vec<Case> {
    let good = model_reference().await;
    let oci = |reference: &str| json!({"model": {"source": {"oci": {"reference": reference}}}, "resources": {"cpu": "100m", "memory": "512Mi"}});
    let with = |mut spec: Value, key: &str, value: Value| {
        spec[key] = value;
        spec
    };
    let wrong = format!("sha256:{}", "0".repeat(64));
    let mut wrong_digest =
        json!({"model": {"source": {"http": {"url": format!("http://{broken_host}/good.gguf")}}, "digest": wrong}});
    wrong_digest["resources"] = json!({"cpu": "100m", "memory": "512Mi"});
    vec![
        Case {
            name: "wrong-digest",
            spec: wrong_digest,
            reason: "DigestMismatch",
            words: vec!["sha256:0000"],
        },
        Case {
            name: "no-such-tag",
            spec: oci(&format!("{REGISTRY}/models/smollm2:nowhere")),
            reason: "ModelNotFound",
            words: vec!["nowhere"],
        },
        Case {
            name: "breaks-off",
            spec: json!({"model": {"source": {"http": {"url": format!("http://{broken_host}/truncated.gguf")}}, "digest": wrong}}),
            reason: "SourceUnreachable",
            words: vec!["truncated.gguf"],
        },
        Case {
            name: "nobody-there",
            spec: json!({"model": {"source": {"http": {"url": "http://198.18.0.1:1/model.gguf"}}, "digest": wrong}}),
            reason: "SourceUnreachable",
            words: vec!["198.18.0.1:1"],
        },
        Case {
            name: "unknown-architecture",
            spec: oci(&store("zebra", with_unknown_architecture)),
            reason: "UnsupportedModel",
            words: vec!["zebra"],
        },
        Case {
            name: "truncated-file",
            spec: oci(&store("truncated", |bytes| bytes[..2_000_000].to_vec())),
            reason: "InvalidModel",
            words: vec![],
        },
        Case {
            name: "no-secret",
            spec: json!({"model": {"source": {"oci": {"reference": good, "pullSecretRef": {"name": "nobody-made-it"}}}}}),
            reason: "SecretNotFound",
            words: vec!["nobody-made-it"],
        },
        Case {
            name: "no-claim",
            spec: json!({"model": {"source": {"persistentVolumeClaim": {"claimName": "nobody-made-it"}}, "digest": wrong}}),
            reason: "VolumeClaimNotFound",
            words: vec!["nobody-made-it"],
        },
        Case {
            name: "no-image",
            spec: with(
                oci(&good),
                "runtime",
                json!({"image": format!("{REGISTRY}/nowhere/server:1")}),
            ),
            reason: "ImagePullBackOff",
            words: vec!["spec.runtime.image"],
        },
        Case {
            name: "too-large",
            spec: with(oci(&good), "resources", json!({"cpu": "100m", "memory": "96Mi"})),
            reason: "InsufficientMemory",
            words: vec![],
        },
        Case {
            name: "disk-full",
            spec: with(
                oci(&good),
                "podTemplate",
                json!({"spec": {"volumes": [{"name": "scratch", "emptyDir": {"medium": "Memory", "sizeLimit": "32Mi"}}]}}),
            ),
            reason: "NoSpaceLeft",
            words: vec![],
        },
        Case {
            name: "no-gpu",
            spec: with(oci(&good), "accelerator", json!({"count": 3})),
            reason: "InsufficientAccelerator",
            words: vec!["nvidia.com/gpu"],
        },
        Case {
            name: "wrong-flag",
            spec: with(oci(&good), "runtime", json!({"extraArgs": ["--no-such-flag"]})),
            reason: "InvalidArguments",
            words: vec!["--no-such-flag"],
        },
    ]
}

#[tokio::test]
async fn each_misfortune_is_named_with_what_to_do() {
    let bed = Bed::new("misfortune").await;
    let host = FlakyHost::start(Behaviour::CutsOff).await;
    let mut wrong = Vec::new();
    // A few at a time, so that a small machine does not take them for one another.
    for group in cases(&host.address).await.chunks(4) {
        for case in group {
            bed.apply(case.name, case.spec.clone()).await;
        }
        for case in group {
            let object = bed
                .until(case.name, case.reason, LIMIT, |object| {
                    condition(object, "Ready")
                        .is_some_and(|(status, reason, _)| status == "False" && reason == case.reason)
                })
                .await;
            let message = condition(&object, "Ready")
                .map(|(_, _, message)| message.to_owned())
                .unwrap_or_default();
            println!("{:22} {:22} {message}", case.name, case.reason);
            if message.len() < 30 || !case.words.iter().all(|word| message.contains(word)) {
                wrong.push(format!("{}: {message}", case.name));
            }
            bed.llms()
                .delete(case.name, &Default::default())
                .await
                .expect("it can be deleted");
        }
    }
    assert!(wrong.is_empty(), "messages that do not say enough: {wrong:#?}");
    bed.remove().await;
}

#[tokio::test]
async fn a_download_that_breaks_off_goes_on_where_it_stopped() {
    let bed = Bed::new("resume").await;
    let bytes = std::fs::read(model_file()).expect("the model was fetched");
    let digest = "sha256:b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53";
    let host = FlakyHost::start(Behaviour::RefusesAfterHalf).await;
    bed.apply(
        "model",
        json!({
            "model": {"source": {"http": {"url": format!("http://{}/good.gguf", host.address)}}, "digest": digest},
            "resources": {"cpu": "500m", "memory": "1Gi"},
        }),
    )
    .await;
    // The host goes away in the middle, and comes back.
    super::cluster::eventually(LIMIT, || async { host.gone.load(Ordering::SeqCst).then_some(()) })
        .await
        .expect("it begins");
    tokio::time::sleep(Duration::from_secs(3)).await;
    host.back.store(true, Ordering::SeqCst);
    bed.settled("model", LIMIT).await;
    let (sent, size) = (host.sent.load(Ordering::SeqCst), bytes.len() as u64);
    println!("{sent} bytes were sent for a file of {size}");
    // Less than twice the file: the first half was not asked for again. What was in flight when it broke may be.
    assert!(
        sent >= size && sent < size * 3 / 2,
        "{sent} bytes were sent for a file of {size}"
    );
    bed.remove().await;
}

#[derive(Clone, Copy, PartialEq)]
enum Behaviour {
    /// `/truncated.gguf` ends early each time.
    CutsOff,
    /// After half of the file nobody answers until told.
    RefusesAfterHalf,
}

/// A web server on this machine that serves the model, badly.
struct FlakyHost {
    address: String,
    sent: Arc<AtomicU64>,
    gone: Arc<AtomicBool>,
    back: Arc<AtomicBool>,
}

impl FlakyHost {
    async fn start(behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind("198.18.0.1:0")
            .await
            .expect("the node's address is there");
        let host = Self {
            address: listener.local_addr().expect("bound").to_string(),
            sent: Arc::default(),
            gone: Arc::default(),
            back: Arc::default(),
        };
        let (sent, gone, back) = (Arc::clone(&host.sent), Arc::clone(&host.gone), Arc::clone(&host.back));
        let bytes = Arc::new(std::fs::read(model_file()).expect("the model was fetched"));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (sent, gone, back, bytes) = (
                    Arc::clone(&sent),
                    Arc::clone(&gone),
                    Arc::clone(&back),
                    Arc::clone(&bytes),
                );
                tokio::spawn(async move {
                    if gone.load(Ordering::SeqCst) && !back.load(Ordering::SeqCst) {
                        return;
                    }
                    let _ = serve(stream, behaviour, &bytes, &sent, &gone, &back).await;
                });
            }
        });
        host
    }
}

/// Answers requests with ranges until the connection ends or the host goes away.
async fn serve(
    mut stream: TcpStream,
    behaviour: Behaviour,
    bytes: &[u8],
    sent: &AtomicU64,
    gone: &AtomicBool,
    back: &AtomicBool,
) -> std::io::Result<()> {
    loop {
        let request = head(&mut stream).await?;
        if request.is_empty() {
            return Ok(());
        }
        let (first, last) = range(&request, bytes.len());
        let status = if request.contains("range: bytes=") {
            "206 Partial Content"
        } else {
            "200 OK"
        };
        let answer = format!(
            "HTTP/1.1 {status}\r\ncontent-length: {}\r\naccept-ranges: bytes\r\ncontent-range: bytes {first}-{last}/{}\r\netag: \"1\"\r\n\r\n",
            last + 1 - first,
            bytes.len()
        );
        stream.write_all(answer.as_bytes()).await?;
        if request.starts_with("head") {
            continue;
        }
        let truncated = behaviour == Behaviour::CutsOff && request.contains("truncated.gguf");
        for chunk in bytes[first..=last].chunks(256 * 1024) {
            if truncated && sent.load(Ordering::SeqCst) > 300_000 {
                return Ok(());
            }
            if behaviour == Behaviour::RefusesAfterHalf && !back.load(Ordering::SeqCst) {
                let half = sent.load(Ordering::SeqCst) > bytes.len() as u64 / 2;
                if half || gone.load(Ordering::SeqCst) {
                    gone.store(true, Ordering::SeqCst);
                    return Ok(());
                }
            }
            stream.write_all(chunk).await?;
            sent.fetch_add(chunk.len() as u64, Ordering::SeqCst);
        }
    }
}

async fn head(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if stream.read(&mut byte).await? == 0 {
            return Ok(String::new());
        }
        text.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&text).to_lowercase())
}

fn range(request: &str, size: usize) -> (usize, usize) {
    let whole = (0, size - 1);
    let Some(text) = request.lines().find_map(|line| line.strip_prefix("range: bytes=")) else {
        return whole;
    };
    let Some((first, last)) = text.trim().split_once('-') else {
        return whole;
    };
    (
        first.parse().unwrap_or(0),
        last.parse().unwrap_or(size - 1).min(size - 1),
    )
}
