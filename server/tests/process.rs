//! The program itself: signals, exit codes, last words.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a helper that fails is a failed test"
)]

#[path = "encoder/mod.rs"]
mod encoder;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use perennial_crds::serving::{FailureReason, Termination};
use perennial_server::observation::StaticEncoder;
use tempfile::TempDir;

use crate::encoder::Made;

const PROGRAM: &str = env!("CARGO_BIN_EXE_perennial-server");
const PATIENCE: Duration = Duration::from_secs(30);

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .expect("a port")
        .local_addr()
        .expect("an address")
        .port()
}

struct Server {
    child: Child,
    api: u16,
    metrics: u16,
}

impl Server {
    fn start(flags: &str) -> Self {
        Self::start_with(flags, |_| {})
    }

    fn start_with(flags: &str, change: impl FnOnce(&mut Command)) -> Self {
        let (api, metrics) = (free_port(), free_port());
        let line = format!(
            "serve --served-model-name m --engine simulated --api-address 127.0.0.1:{api} \
             --metrics-address 127.0.0.1:{metrics} {flags}"
        );
        let mut command = Command::new(PROGRAM);
        command.args(line.split_whitespace()).stderr(Stdio::null());
        change(&mut command);
        Self {
            child: command.spawn().expect("the program"),
            api,
            metrics,
        }
    }

    fn probe(&self, path: &str) -> String {
        request(
            self.metrics,
            &format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"),
        )
    }

    fn wait_until_ready(&self) {
        wait("ready", || self.probe("/readyz").starts_with("HTTP/1.1 200"));
    }

    fn chat(&self, options: &str) -> TcpStream {
        self.ask("Hi", options)
    }

    fn ask(&self, content: &str, options: &str) -> TcpStream {
        let messages = format!(r#"[{{"role":"user","content":"{content}"}}]"#);
        let body = format!(r#"{{"model":"m","messages":{messages},"ignore_eos":true,{options}}}"#);
        let mut stream = TcpStream::connect(("127.0.0.1", self.api)).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n";
        write!(stream, "{head}content-length: {}\r\n\r\n{body}", body.len()).expect("sent");
        stream
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .args([name, &self.child.id().to_string()])
            .status()
            .expect("kill");
        assert!(sent.success());
    }

    fn exit(mut self) -> Option<i32> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("a status") {
                return status.code();
            }
            assert!(Instant::now() < deadline, "the program does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The whole answer; empty if nothing listens yet.
fn request(port: u16, text: &str) -> String {
    let mut answer = String::new();
    if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) {
        stream.write_all(text.as_bytes()).expect("sent");
        stream.read_to_string(&mut answer).expect("an answer");
    }
    answer
}

fn wait(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut text = String::new();
    let mut bytes = [0; 4096];
    while !text.contains(end) {
        let count = stream.read(&mut bytes).expect("more");
        assert!(count > 0, "the stream ended before {end}: {text}");
        text.push_str(&String::from_utf8_lossy(&bytes[..count]));
    }
    text
}

#[test]
fn ports_answer_while_the_model_loads() {
    let server = Server::start("--simulated-cold-start-seconds 5");
    wait("loading", || {
        server.probe("/loading").contains("\"stage\":\"LoadingWeights\"")
    });
    assert!(server.probe("/readyz").starts_with("HTTP/1.1 503"));
    assert!(server.probe("/livez").starts_with("HTTP/1.1 200"));
    server.wait_until_ready();
    assert!(server.probe("/loading").contains("\"stage\":\"Ready\""));
}

#[test]
fn a_stream_outlives_sigterm_and_the_exit_is_clean() {
    let server = Server::start("--lame-duck-seconds 3 --drain-seconds 20 --simulated-decode-tokens-per-second 20");
    server.wait_until_ready();
    let mut stream = server.chat(r#""stream":true,"max_tokens":100"#);
    read_until(&mut stream, "data: ");
    server.signal("-TERM");
    wait("unready", || server.probe("/readyz").starts_with("HTTP/1.1 503"));
    let mut late = server.chat(r#""max_tokens":1"#);
    let answer = read_until(&mut late, "\"usage\"");
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.contains("connection: close"),
        "{answer}"
    );
    let rest = read_until(&mut stream, "data: [DONE]");
    assert!(rest.contains("\"finish_reason\":\"length\""), "{rest}");
    assert_eq!(server.exit(), Some(0));
}

#[test]
fn the_drain_period_ends_long_streams_with_an_error() {
    let server = Server::start("--lame-duck-seconds 0 --drain-seconds 1 --simulated-decode-tokens-per-second 20");
    server.wait_until_ready();
    let mut stream = server.chat(r#""stream":true,"max_tokens":3000"#);
    read_until(&mut stream, "data: ");
    server.signal("-TERM");
    let rest = read_until(&mut stream, "data: [DONE]");
    assert!(rest.contains("\"error\"") && rest.contains("drain period"), "{rest}");
    assert_eq!(server.exit(), Some(0));
}

/// Takes records for as long as the program lives, and gives what it got.
fn collector(token: &'static str) -> (u16, std::sync::mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let (got, bodies) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let got = got.clone();
            // Connections are kept, so there may be more than one batch on one.
            std::thread::spawn(move || receive(&mut stream.expect("a connection"), token, &got));
        }
    });
    (port, bodies)
}

fn receive(stream: &mut TcpStream, token: &str, got: &std::sync::mpsc::Sender<String>) -> Option<()> {
    let mut bytes = Vec::new();
    let mut part = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let head = head.to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "))?;
            if body.len() == length.parse::<usize>().ok()? {
                assert!(
                    head.starts_with("post /records http/1.1")
                        && head.contains(&format!("authorization: bearer {token}"))
                );
                // Before it is acknowledged, after which the program may end.
                got.send(body.to_owned()).ok()?;
                stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").ok()?;
                bytes.clear();
                continue;
            }
        }
        let count = stream.read(&mut part).ok().filter(|count| *count > 0)?;
        bytes.extend_from_slice(&part[..count]);
    }
}

#[test]
fn what_is_kept_arrives_before_the_end_and_is_in_no_log() {
    let directory = TempDir::new().expect("a directory");
    let (port, bodies) = collector("hunter2");
    let terms = directory.path().join("capture");
    let log = directory.path().join("log");
    let payload = format!(
        r#"{{"level": "Payload", "samplePerMille": 1000, "collector": "http://127.0.0.1:{port}", "token": "hunter2",
            "redact": ["Email"]}}"#
    );
    std::fs::write(&terms, &payload).expect("written");
    let flags = format!(
        "--lame-duck-seconds 0 --drain-seconds 20 --capture-buffer-bytes 2097152 --pod-directory {}",
        directory.path().display()
    );
    let server = Server::start_with(&flags, |command| {
        let log = std::fs::File::create(&log).expect("a file");
        command.env("RUST_LOG", "trace").stderr(Stdio::from(log));
    });
    server.wait_until_ready();
    let mut answer = server.ask("xylocanthomancy?", r#""max_tokens":3"#);
    assert!(read_until(&mut answer, "\"usage\"").starts_with("HTTP/1.1 200"));
    // Not understood, so that what is in force is kept, and told without what is in it.
    let refused = directory.path().join("refused");
    std::fs::write(&refused, payload.replace("\"hunter2\"", "[\"hunter2\"]")).expect("written");
    std::fs::rename(&refused, &terms).expect("in its place as a whole");
    wait("they are refused", || {
        server
            .probe("/metrics")
            .contains("perennial_capture_terms_refused_total{model_name=\"m\"} 1")
    });
    let mut answer = server.ask("Hi", r#""max_tokens":4,"user":"xylocanthomancy""#);
    assert!(read_until(&mut answer, "\"usage\"").starts_with("HTTP/1.1 200"));
    server.signal("-TERM");
    assert_eq!(server.exit(), Some(0));
    let arrived: String = bodies.try_iter().collect();
    assert_eq!(arrived.matches("\"kind\":\"Exchange\"").count(), 2, "{arrived}");
    assert_eq!(arrived.matches("xylocanthomancy").count(), 2);
    let log = std::fs::read_to_string(&log).expect("a log");
    assert!(log.contains("the terms of capture are refused"));
    for secret in ["hunter2", "xylocanthomancy"] {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
}

#[test]
fn a_second_signal_ends_at_once() {
    let server = Server::start("--lame-duck-seconds 60 --drain-seconds 60");
    server.wait_until_ready();
    server.signal("-TERM");
    wait("unready", || server.probe("/readyz").starts_with("HTTP/1.1 503"));
    server.signal("-INT");
    assert_eq!(server.exit(), Some(130));
}

#[test]
fn sigterm_while_loading_ends_cleanly() {
    let server = Server::start("--simulated-cold-start-seconds 600");
    wait("loading", || server.probe("/loading").contains("LoadingWeights"));
    server.signal("-TERM");
    assert_eq!(server.exit(), Some(0));
}

fn run(arguments: &[&str], termination: &Path) -> (Output, Option<Termination>) {
    let output = Command::new(PROGRAM)
        .args(arguments)
        .arg("--termination-path")
        .arg(termination)
        .output();
    let words = std::fs::read(termination)
        .ok()
        .and_then(|json| serde_json::from_slice(&json).ok());
    (output.expect("the program"), words)
}

#[test]
fn a_failed_start_leaves_its_reason() {
    let directory = TempDir::new().expect("a directory");
    let damaged = directory.path().join("model.gguf");
    std::fs::write(&damaged, b"GGUF, but not much of it").expect("written");
    let other = directory.path().join("readme.txt");
    std::fs::write(&other, b"hello").expect("written");
    let address = |path: &Path| format!("file://{}", path.display());
    for (source, reason) in [
        (address(&damaged), FailureReason::InvalidModel),
        (address(&other), FailureReason::UnsupportedModel),
        (address(&directory.path().join("absent")), FailureReason::ModelNotFound),
        ("nonsense".to_owned(), FailureReason::InvalidArguments),
    ] {
        let (api, metrics) = (
            format!("127.0.0.1:{}", free_port()),
            format!("127.0.0.1:{}", free_port()),
        );
        let arguments = [
            "serve",
            "--served-model-name",
            "m",
            "--source",
            &source,
            "--api-address",
            &api,
        ];
        let arguments = [&arguments[..], &["--metrics-address", &metrics]].concat();
        let (output, words) = run(&arguments, &directory.path().join("termination"));
        assert_eq!(output.status.code(), Some(1), "{source}");
        let words = words.expect("last words");
        assert_eq!(words.reason, reason, "{source}: {}", words.message);
        assert!(!words.message.contains('\n'));
    }
}

#[test]
fn an_encoder_that_is_not_the_pinned_one_or_none_stops_the_start() {
    let (made, other) = (Made::new(), Made::other());
    let directory = TempDir::new().expect("a directory");
    let address = format!("127.0.0.1:{}", free_port());
    let start = |encoder: &Path, pin: &str| {
        let line = format!(
            "serve --served-model-name m --engine simulated --api-address {address} --metrics-address {address} \
             --encoder {} --encoder-sha256 {pin}",
            encoder.display()
        );
        let arguments: Vec<&str> = line.split_whitespace().collect();
        let (output, words) = run(&arguments, &directory.path().join("termination"));
        assert_eq!(output.status.code(), Some(1), "{line}");
        let words = words.expect("last words");
        assert_eq!(words.reason, FailureReason::InvalidArguments, "{}", words.message);
        words.message
    };
    let message = start(made.path(), &"0".repeat(64));
    let found = StaticEncoder::load(made.path(), None)
        .expect("an encoder")
        .digest()
        .hex();
    assert!(
        message.contains(&found) && message.contains(&"0".repeat(64)),
        "{message}"
    );
    assert!(start(other.path(), &found).contains(&found));
    assert!(start(&made.file("absent"), &found).contains("there is no directory"));
}

#[test]
fn the_digest_of_an_encoder_is_logged_so_that_it_can_be_pinned() {
    let made = Made::new();
    let log = made.file("log");
    let flags = format!("--encoder {}", made.path().display());
    let server = Server::start_with(&flags, |command| {
        command.stderr(std::fs::File::create(&log).expect("a file"));
    });
    server.wait_until_ready();
    let found = StaticEncoder::load(made.path(), None)
        .expect("an encoder")
        .digest()
        .hex();
    let text = std::fs::read_to_string(&log).expect("a log");
    let line = text
        .lines()
        .find(|line| line.contains("encoder"))
        .expect("a line about it");
    let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
    assert_eq!((&line["sha256"], &line["pinned"]), (&found.into(), &false.into()));
    assert!(line["memory_bytes"].as_u64().is_some_and(|bytes| bytes > 0), "{line}");
}

#[test]
fn resolve_prints_and_leaves_the_same() {
    let directory = TempDir::new().expect("a directory");
    let model = directory.path().join("model.gguf");
    std::fs::write(&model, b"bytes").expect("written");
    let path = directory.path().join("termination");
    let source = format!("file://{}", model.display());
    let (output, _) = run(&["resolve", "--source", &source], &path);
    assert!(output.status.success());
    let printed: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let left: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).expect("left")).expect("JSON");
    assert_eq!(printed, left);
    assert_eq!(printed["sizeBytes"], 5);
    let (output, words) = run(&["resolve", "--source", &format!("{source}.absent")], &path);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(words.expect("last words").reason, FailureReason::ModelNotFound);
    assert!(String::from_utf8_lossy(&output.stderr).contains("was not found"));
}
