//! HTTP to pods: no proxy, no redirect, not for long.

use std::net::IpAddr;
use std::time::Duration;

use perennial_crds::serving::METRICS_PORT;
use serde::de::DeserializeOwned;

/// A client that follows no redirect and no proxy, and gives up after this time.
///
/// # Errors
/// If the TLS library cannot be set up.
pub fn client(timeout: Duration) -> reqwest::Result<reqwest::Client> {
    reqwest::Client::builder()
        .timeout(timeout)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .build()
}

/// The address of a path on the metrics port of a pod.
#[must_use]
pub fn url(address: IpAddr, path: &str) -> String {
    match address {
        IpAddr::V4(address) => format!("http://{address}:{METRICS_PORT}{path}"),
        IpAddr::V6(address) => format!("http://[{address}]:{METRICS_PORT}{path}"),
    }
}

/// What a pod answers as JSON of at most `longest` bytes; nothing if it does not, or with something else.
pub async fn json<T: DeserializeOwned>(http: &reqwest::Client, url: String, longest: usize) -> Option<T> {
    let mut answer = http.get(url).send().await.ok()?;
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.ok()? {
        body.extend_from_slice(&chunk);
        if body.len() > longest {
            return None;
        }
    }
    serde_json::from_slice(&body).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_both_families() {
        let url = |address: &str| url(address.parse().expect("an address"), "/load");
        assert_eq!(url("10.1.2.3"), "http://10.1.2.3:9090/load");
        assert_eq!(url("fd00::1"), "http://[fd00::1]:9090/load");
    }
}
