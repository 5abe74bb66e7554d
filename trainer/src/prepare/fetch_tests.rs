use std::sync::Arc;

use object_store::path::Path as Key;

use super::*;
use crate::collect::fixture::{NOW, Unreliable, named};
use crate::collect::list;

async fn filled(store: &Arc<Unreliable>) -> Bucket {
    let bucket = Bucket::new(store.clone(), Key::from("records/tiny"), "archive");
    for (sequence, opened) in [(1, NOW - 3 * 86_400), (2, NOW - 86_400), (3, NOW)] {
        let put = bucket.put(named(sequence, opened), b"records\n".to_vec(), b"listing\n".to_vec());
        put.await.expect("put");
    }
    // One whose listing is not there yet.
    store.fail_from(1);
    let half = bucket.put(named(4, NOW), b"half".to_vec(), b"".to_vec());
    half.await.expect_err("half of it");
    store.works();
    bucket
}

#[tokio::test]
async fn what_is_finished_and_may_be_of_the_window_is_fetched() {
    let (store, directory) = (Arc::default(), tempfile::tempdir().expect("a directory"));
    let bucket = filled(&store).await;
    let path = directory.path().join("records");
    // What an earlier try left is not read.
    fs::create_dir_all(path.join("2020-01-01")).expect("a folder");
    fs::write(path.join("2020-01-01/000000-00000000.jsonl"), "old").expect("written");
    assert_eq!(fetch(&bucket, NOW, &path).await.expect("fetched"), 2);
    let mut names: Vec<u64> = list(&path)
        .expect("a listing")
        .iter()
        .map(|(name, _)| name.sequence)
        .collect();
    names.sort_unstable();
    assert_eq!(names, [2, 3]);
    let name = named(3, NOW);
    let listing = fs::read(path.join(name.day()).join(name.listing())).expect("a listing");
    assert_eq!(listing, b"listing\n");
}

#[tokio::test]
async fn a_bucket_that_is_away_is_not_one_without_records() {
    let (store, directory) = (Arc::default(), tempfile::tempdir().expect("a directory"));
    let bucket = filled(&store).await;
    for requests in 0..5 {
        store.fail_from(requests);
        let error = fetch(&bucket, NOW, directory.path()).await.expect_err("away");
        assert!(matches!(error, PrepareError::Bucket(_)), "{error}");
        store.works();
    }
    let nobody = Bucket::new(store, Key::from("records/other"), "archive");
    assert_eq!(fetch(&nobody, NOW, directory.path()).await.expect("nothing"), 0);
}
