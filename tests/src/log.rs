//! The operators' log, kept in memory and shown for the namespace of a test that failed.

use std::collections::VecDeque;
use std::io::Write;
use std::sync::{Mutex, Once, PoisonError};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

const KEPT: usize = 50_000;
static LINES: Mutex<VecDeque<String>> = Mutex::new(VecDeque::new());

#[derive(Clone, Copy)]
struct Memory;

impl Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let mut lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
        lines.push_back(String::from_utf8_lossy(bytes).trim_end().to_owned());
        while lines.len() > KEPT {
            lines.pop_front();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Memory {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        Self
    }
}

/// Begins to keep the log. Later calls do nothing.
pub fn keep() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let filter = EnvFilter::try_from_default_env()
            .unwrap_or_else(|_| EnvFilter::new("warn,perennial_operator=debug,kube=warn"));
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_ansi(false)
            .with_writer(Memory);
        // Somebody else's subscriber is as good.
        let _ = subscriber.try_init();
    });
}

/// The last lines that speak of a namespace, or of none.
#[must_use]
pub fn of(namespace: &str, most: usize) -> Vec<String> {
    let lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
    let mut found: Vec<String> = lines
        .iter()
        .rev()
        .filter(|line| line.contains(namespace))
        .take(most)
        .cloned()
        .collect();
    found.reverse();
    found
}
