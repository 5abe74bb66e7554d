//! Reads `/load` of one pod over a connection that stays open.
//!
//! A few hundred bytes every two seconds from up to ten thousand pods: a buffer that is lent, a request that never changes,
//! `httparse` for the head, and nothing allocated for an answer. Whatever is not exactly what our server says (a redirect, a
//! longer answer, another version) is an error of that pod alone.

use std::net::SocketAddr;
use std::time::Duration;

use perennial_crds::serving::{LOAD_VERSION, Load};
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// One question and its answer may take so long, the connection included.
pub const TIMEOUT: Duration = Duration::from_secs(1);
/// Longest answer with its head, in bytes; ours has some 600.
pub const LONGEST_ANSWER: usize = 8 * 1024;
const REQUEST: &[u8] =
    b"GET /load HTTP/1.1\r\nhost: pod\r\nuser-agent: perennial-operator\r\naccept: application/json\r\n\r\n";
const HEADERS: usize = 32;

/// Why a pod's load is not known.
#[derive(Debug, Error)]
pub enum Error {
    /// It took longer than [`TIMEOUT`].
    #[error("no answer within {TIMEOUT:?}")]
    TimedOut,
    /// The connection could not be made or broke.
    #[error("the connection failed: {0}")]
    Connection(#[from] std::io::Error),
    /// The answer is no HTTP, or HTTP that our server does not speak.
    #[error("the answer is not what a server says: {0}")]
    Protocol(&'static str),
    /// Not 200.
    #[error("answered with status {0}")]
    Status(u16),
    /// The body is no load.
    #[error("the answer is not a load: {0}")]
    Unreadable(#[from] serde_json::Error),
    /// A load of a version that this operator does not know.
    #[error("the load has version {0}; this operator knows {LOAD_VERSION}")]
    Version(u32),
}

impl Error {
    /// Word for the metric.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::TimedOut => "timeout",
            Self::Connection(_) => "connection",
            Self::Protocol(_) => "protocol",
            Self::Status(_) => "status",
            Self::Unreadable(_) => "unreadable",
            Self::Version(_) => "version",
        }
    }
}

/// A pod that can be asked.
#[derive(Debug)]
pub struct LoadClient {
    address: SocketAddr,
    stream: Option<TcpStream>,
}

impl LoadClient {
    /// For a pod that tells its load at this address; no connection is made yet.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        Self { address, stream: None }
    }

    /// Where it asks.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Asks once. `buffer` is scratch space of [`LONGEST_ANSWER`] bytes.
    ///
    /// # Errors
    /// [`Error`]; the next question is asked on a new connection.
    pub async fn ask(&mut self, buffer: &mut [u8]) -> Result<Load, Error> {
        let answer = tokio::time::timeout(TIMEOUT, self.exchange(buffer)).await;
        let outcome = answer.unwrap_or(Err(Error::TimedOut));
        if outcome.is_err() {
            self.stream = None;
        }
        outcome
    }

    async fn exchange(&mut self, buffer: &mut [u8]) -> Result<Load, Error> {
        if let Some(stream) = &mut self.stream {
            // The server may have closed a connection at rest; that is no failure, and shows before any answer.
            match talk(stream, buffer).await {
                Err(Error::Connection(_)) => self.stream = None,
                Ok((load, keep)) => {
                    if !keep {
                        self.stream = None;
                    }
                    return Ok(load);
                }
                Err(error) => return Err(error),
            }
        }
        let mut stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let (load, keep) = talk(&mut stream, buffer).await?;
        self.stream = keep.then_some(stream);
        Ok(load)
    }
}

/// Asks, and says whether the connection can be used again.
async fn talk(stream: &mut TcpStream, buffer: &mut [u8]) -> Result<(Load, bool), Error> {
    stream.write_all(REQUEST).await?;
    let mut filled = 0;
    let head = loop {
        filled += more(stream, buffer, filled).await?;
        if let Some(head) = head(&buffer[..filled])? {
            break head;
        }
    };
    let end = head.length + head.body;
    if end > buffer.len() {
        return Err(Error::Protocol("it is too long"));
    }
    while filled < end {
        filled += more(stream, buffer, filled).await?;
    }
    let load: Load = serde_json::from_slice(&buffer[head.length..end])?;
    if load.version != LOAD_VERSION {
        return Err(Error::Version(load.version));
    }
    Ok((load, head.keep && filled == end))
}

async fn more(stream: &mut TcpStream, buffer: &mut [u8], filled: usize) -> Result<usize, Error> {
    let room = buffer.get_mut(filled..).filter(|room| !room.is_empty());
    let room = room.ok_or(Error::Protocol("it is too long"))?;
    match stream.read(room).await? {
        0 => Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into()),
        read => Ok(read),
    }
}

/// What matters of an answer's head.
#[derive(Debug, PartialEq, Eq)]
struct Head {
    /// Bytes of the head.
    length: usize,
    /// Bytes of the body.
    body: usize,
    /// Whether the connection stays open.
    keep: bool,
}

/// The head of an answer, once it is complete.
fn head(bytes: &[u8]) -> Result<Option<Head>, Error> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let length = match response.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(Error::Protocol("it is no HTTP")),
    };
    match response.code {
        Some(200) => {}
        Some(code) => return Err(Error::Status(code)),
        None => return Err(Error::Protocol("it has no status")),
    }
    let value = |name: &str| {
        let header = response
            .headers
            .iter()
            .find(|header| header.name.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(header.value).ok()
    };
    let body = value("content-length").and_then(|length| length.trim().parse().ok());
    Ok(Some(Head {
        length,
        body: body
            .filter(|body| *body <= LONGEST_ANSWER)
            .ok_or(Error::Protocol("it does not say how long it is, or is too long"))?,
        keep: response.version == Some(1)
            && !value("connection").is_some_and(|value| value.eq_ignore_ascii_case("close")),
    }))
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// A server that gives each connection's questions these answers, one after the other.
    async fn served(answers: Vec<Vec<u8>>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move {
            let mut answers = answers.into_iter();
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 512];
                while let Ok(1..) = stream.read(&mut request).await {
                    let Some(answer) = answers.next() else { break };
                    let close = answer.is_empty();
                    for part in answer.chunks(7) {
                        let _ = stream.write_all(part).await;
                    }
                    if close {
                        break;
                    }
                }
            }
        });
        address
    }

    fn answer(body: &str) -> Vec<u8> {
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
    }

    fn load(version: u32) -> String {
        let load = Load {
            version,
            running: 3,
            ..Load::default()
        };
        serde_json::to_string(&load).expect("json")
    }

    #[tokio::test]
    async fn a_connection_is_used_again_and_made_again_when_it_was_closed() {
        let good = answer(&load(LOAD_VERSION));
        let address = served(vec![good.clone(), good.clone(), Vec::new(), good.clone()]).await;
        let mut client = LoadClient::new(address);
        let mut buffer = vec![0; LONGEST_ANSWER];
        for _ in 0..3 {
            assert_eq!(client.ask(&mut buffer).await.expect("a load").running, 3);
        }
    }

    #[tokio::test]
    async fn whatever_is_no_load_is_an_error_and_the_next_answer_counts_again() {
        let huge = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 1_u64 << 40).into_bytes();
        let endless = format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(2 * LONGEST_ANSWER)).into_bytes();
        let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n".to_vec();
        let redirect = b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n".to_vec();
        for (wrong, label) in [
            (huge, "protocol"),
            (endless, "protocol"),
            (chunked, "protocol"),
            (redirect, "status"),
            (b"SSH-2.0-OpenSSH_9.6\r\n".to_vec(), "protocol"),
            (answer("<html>"), "unreadable"),
            (answer(&load(2)), "version"),
            (answer(&load(1).replace(":3,", ":-3,")), "unreadable"),
        ] {
            let said = String::from_utf8_lossy(&wrong).into_owned();
            let address = served(vec![wrong, answer(&load(LOAD_VERSION))]).await;
            let mut client = LoadClient::new(address);
            let mut buffer = vec![0; LONGEST_ANSWER];
            let error = client.ask(&mut buffer).await.expect_err("no load");
            assert_eq!(error.label(), label, "{error} for {}", said.get(..60).unwrap_or(&said));
            assert!(client.ask(&mut buffer).await.is_ok());
        }
    }

    #[tokio::test]
    async fn a_pod_that_says_nothing_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let mut client = LoadClient::new(listener.local_addr().expect("an address"));
        let error = client.ask(&mut vec![0; LONGEST_ANSWER]).await.expect_err("silence");
        assert_eq!(error.label(), "timeout");
    }
}
