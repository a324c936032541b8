//! What looks like a loss is held.

use super::*;

/// A backup of four routes, and a fresh store beside it.
async fn with_backup() -> Fixture {
    let mut fixture = Fixture::new();
    fixture.routes(1..=4).await;
    let handle = fixture.start(fixture.config());
    handle.now().await;
    handle.stop().await;
    fixture.store = Arc::new(Memory::new());
    fixture
}

#[tokio::test]
async fn a_store_that_comes_back_empty_is_held_until_accepted() {
    let fixture = with_backup().await;
    let handle = fixture.start(fixture.config());
    let status = handle.now().await;
    let held = status.backends[0].held.clone().unwrap();
    assert_eq!(held.reason, "the store is empty, the backup has 4 resources");
    assert_eq!((held.offered.resources, held.current.resources), (0, 4));
    assert_eq!(read(&fixture.buckets("a")).await.snapshot.len(), 4);
    assert_eq!(handle.now().await.backends[0].held.as_ref().map(|held| held.since), Some(held.since));

    let status = handle.accept().await;
    assert_eq!((status.backends[0].held.clone(), status.backends[0].sequence), (None, 2));
    assert_eq!(read(&fixture.buckets("a")).await.snapshot.len(), 0);
    // What is accepted is this, not everything to come.
    fixture.routes(1..=4).await;
    handle.now().await;
    for id in ["1", "2", "3"] {
        fixture.delete(id).await;
    }
    assert!(handle.now().await.backends[0].held.is_some());
}

#[tokio::test]
async fn a_foreign_store_is_held() {
    let fixture = with_backup().await;
    fixture.routes(1..=9).await;
    let handle = fixture.start(fixture.config());
    let held = handle.now().await.backends[0].held.clone().unwrap();
    assert!(held.reason.contains("the backup comes from"), "{}", held.reason);
    assert_eq!(handle.accept().await.backends[0].sequence, 2);
}

#[tokio::test]
async fn a_shrunken_store_is_held_and_released_when_it_grows_back() {
    let fixture = Fixture::new();
    fixture.routes(1..=5).await;
    let handle = fixture.start(Config { on_change: false, ..fixture.config() });
    handle.now().await;
    for id in ["1", "2", "3"] {
        fixture.delete(id).await;
    }
    let held = handle.now().await.backends[0].held.clone().unwrap();
    assert_eq!(held.reason, "the store has 2 resources, the backup has 5: more than 50% are gone");
    fixture.routes(3..=3).await;
    let status = handle.now().await;
    assert_eq!((status.backends[0].held.clone(), status.backends[0].sequence), (None, 2));
}

#[tokio::test]
async fn single_deletions_are_not_held() {
    let fixture = Fixture::new();
    fixture.routes(1..=3).await;
    let handle = fixture.start(fixture.config());
    handle.now().await;
    for id in ["1", "2"] {
        fixture.delete(id).await;
        assert_eq!(handle.now().await.backends[0].held, None);
    }
    fixture.delete("3").await;
    assert!(handle.now().await.backends[0].held.is_some());
}

#[tokio::test]
async fn empty_may_be_allowed() {
    let fixture = Fixture::new();
    fixture.routes(1..=3).await;
    let guard = Guard { allow_empty: true, ..Guard::default() };
    let handle = fixture.start(Config { guard, on_change: false, ..fixture.config() });
    handle.now().await;
    for id in ["1", "2", "3"] {
        fixture.delete(id).await;
    }
    assert_eq!(handle.now().await.backends[0].held, None);
    assert_eq!(read(&fixture.buckets("a")).await.snapshot.len(), 0);
}

#[tokio::test]
async fn an_empty_store_without_a_backup_is_nothing_to_speak_of() {
    let fixture = Fixture::new();
    let handle = fixture.start(fixture.config());
    let status = handle.now().await;
    assert_eq!((status.backends[0].held.clone(), status.backends[0].sequence), (None, 0));
    assert_eq!(status.backends[0].last_error, None);
}
