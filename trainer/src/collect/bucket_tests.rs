use object_store::memory::InMemory;

use super::*;
use crate::collect::fixture::{NOW, Unreliable, named};

fn bucket(store: Arc<dyn ObjectStore>) -> Bucket {
    Bucket::new(store, Path::from("team/tiny"), "records")
}

#[tokio::test]
async fn the_key_is_made_once_and_stays() {
    let store = Arc::new(InMemory::new());
    let first = bucket(store.clone()).requester_key([1; KEY_BYTES]).await;
    assert_eq!(first.expect("a key"), [1; KEY_BYTES]);
    // The collector moved to another node.
    let again = bucket(store.clone()).requester_key([2; KEY_BYTES]).await;
    assert_eq!(again.expect("a key"), [1; KEY_BYTES]);
    let damaged = Path::from("team/tiny/.requester-key");
    store.put(&damaged, "short".into()).await.expect("put");
    let error = bucket(store).requester_key([3; KEY_BYTES]).await.expect_err("refused");
    let error = error.to_string();
    assert!(
        error.contains("damaged") && error.contains("team/tiny/.requester-key"),
        "{error}"
    );
}

#[tokio::test]
async fn a_store_without_conditions_keeps_a_key_too() {
    let store = Arc::new(Unreliable::default());
    store.knows_no_conditions();
    let first = bucket(store.clone()).requester_key([1; KEY_BYTES]).await;
    assert_eq!(first.expect("a key"), [1; KEY_BYTES]);
    let again = bucket(store).requester_key([2; KEY_BYTES]).await;
    assert_eq!(again.expect("a key"), [1; KEY_BYTES]);
}

#[tokio::test]
async fn another_prefix_is_another_model() {
    let store = Arc::new(InMemory::new());
    let own = bucket(store.clone());
    own.put(named(1, NOW), b"a".to_vec(), b"b".to_vec()).await.expect("put");
    let other = Bucket::new(store.clone(), Path::from("team/tiny-2"), "records");
    assert_eq!(other.list().await.expect("a list"), []);
    let same = bucket(store).list().await.expect("a list");
    assert!(same.len() == 1 && same[0].is_finished());
}

#[tokio::test]
async fn nothing_looks_finished_of_which_a_part_is_missing() {
    let store = Arc::new(Unreliable::default());
    let (bucket, name) = (bucket(store.clone()), named(1, NOW));
    let finished = async || bucket.list().await.expect("a list").iter().any(Stored::is_finished);
    store.fail_from(1);
    let put = bucket.put(name, b"a".to_vec(), b"b".to_vec()).await;
    put.expect_err("the listing is not there");
    store.works();
    assert!(!finished().await);
    bucket.put(name, b"a".to_vec(), b"b".to_vec()).await.expect("put");
    assert!(finished().await);
    store.fail_from(1);
    bucket.delete(name).await.expect_err("half deleted");
    store.works();
    assert!(!finished().await);
    bucket.delete(name).await.expect("deleted");
    assert_eq!(bucket.list().await.expect("a list"), []);
    bucket.delete(name).await.expect("it is not there already");
}

fn refused(status: &str, body: &str) -> Error {
    Error::Generic {
        store: "S3",
        source: format!("Error performing PUT http://x/y - Server returned non-2xx status code: {status}: {body}")
            .into(),
    }
}

#[test]
fn a_stores_answer_is_not_quoted() {
    let body = "<Error><Code>SlowDown</Code><AWSAccessKeyId>AKIASECRET</AWSAccessKeyId></Error>";
    assert_eq!(
        words(&refused("503 Service Unavailable", body)),
        "the store answers 503 (SlowDown)"
    );
    let forbidden = Error::PermissionDenied {
        path: "team/tiny/x".to_owned(),
        source: "status code: 403: <Code>InvalidAccessKeyId</Code> AKIASECRET".into(),
    };
    let said = words(&forbidden);
    assert!(
        said.contains("(InvalidAccessKeyId)") && said.contains("put, delete and list"),
        "{said}"
    );
    assert!(!said.contains("AKIASECRET"), "{said}");
    let missing = refused("404 Not Found", "<Code>NoSuchBucket</Code>");
    assert_eq!(words(&missing), "it is not there: make it, or correct its name");
    let odd = refused("500", "<Code>what only the user knows</Code>");
    assert_eq!(words(&odd), "the store answers 500");
    let none = Error::Generic {
        store: "S3",
        source: "what only the user knows".into(),
    };
    assert_eq!(words(&none), "the store failed");
}
