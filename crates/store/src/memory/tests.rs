use futures_util::{FutureExt, StreamExt};

use super::*;

fn key(id: &str) -> Key {
    Key::new(Kind::Routes, id)
}

#[tokio::test]
async fn passes_the_suite() {
    crate::suite::run(Arc::new(Memory::new())).await;
}

#[tokio::test]
async fn forgets_batches_beyond_its_history() {
    let store = Memory::with_history(3);
    let first = store.commit(Commit::put(key("1"), "{}")).await.unwrap();
    let mut slow = store.watch(first).await.unwrap();
    for _ in 0..4 {
        store.commit(Commit::put(key("1"), "{}")).await.unwrap();
    }
    crate::suite::forgets(&store, first).await;
    assert!(matches!(slow.next().await, Some(Err(Error::Compacted { oldest, .. })) if oldest == first + 1));
    assert!(slow.next().await.is_none(), "a stream ends with its error");
    let kept: Vec<u64> =
        store.watch(first + 1).await.unwrap().take(3).map(|batch| batch.unwrap().revision).collect().await;
    assert_eq!(kept, [first + 2, first + 3, first + 4]);
}

#[tokio::test]
async fn a_watch_does_not_outlive_its_store() {
    let store = Memory::new();
    let mut watch = store.watch(1).await.unwrap();
    assert!(watch.next().now_or_never().is_none());
    drop(store);
    assert!(matches!(watch.next().await, Some(Err(Error::Unavailable { .. }))));
    assert!(watch.next().await.is_none());
}
