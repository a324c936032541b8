//! When something is exported.

use super::*;

#[tokio::test]
async fn a_change_is_exported_by_itself() {
    let fixture = Fixture::new();
    let handle = fixture.start(fixture.config());
    handle.now().await;
    let revision = fixture.put("1", r#"{"id":"1","uri":"/1"}"#).await;
    let status = until(&handle, |status| status.backends[0].revision >= revision).await;
    assert_eq!(status.backends[0].sequence, 1);
}

#[tokio::test]
async fn steady_writing_does_not_starve_the_backup() {
    let fixture = Fixture::new();
    let debounce = Duration::from_millis(200);
    let handle = fixture.start(Config { debounce, ..fixture.config() });
    handle.now().await;
    let mut status = handle.subscribe();
    let writing = async {
        for id in 1.. {
            fixture.routes(id..=id).await;
            tokio::time::sleep(debounce / 4).await;
        }
    };
    // Never quiet, and yet.
    tokio::select! {
        () = writing => {}
        found = status.wait_for(|status| status.backends[0].sequence >= 1) => drop(found.unwrap()),
        () = tokio::time::sleep(debounce * 50) => panic!("starved"),
    }
}

#[tokio::test]
async fn a_quick_series_of_changes_is_one_publication() {
    let fixture = Fixture::new();
    let handle = fixture.start(Config { debounce: Duration::from_millis(300), ..fixture.config() });
    handle.now().await;
    fixture.routes(1..=20).await;
    until(&handle, |status| status.backends[0].sequence >= 1).await;
    assert_eq!(read(&fixture.buckets("a")).await.snapshot.len(), 20);
}

#[tokio::test]
async fn the_clock_exports_what_changes_did_not() {
    let fixture = Fixture::new();
    let cron = Some(CronSpec::parse("@every 1s").unwrap());
    let handle = fixture.start(Config { cron, on_change: false, ..fixture.config() });
    handle.now().await;
    let revision = fixture.put("1", r#"{"id":"1","uri":"/1"}"#).await;
    until(&handle, |status| status.backends[0].revision == revision).await;
}

#[tokio::test]
async fn stopping_exports_what_still_waits() {
    let fixture = Fixture::new();
    let handle = fixture.start(Config { debounce: Duration::from_secs(3600), ..fixture.config() });
    handle.now().await;
    fixture.routes(1..=2).await;
    until(&handle, |status| status.pending).await;
    handle.stop().await;
    assert_eq!(read(&fixture.buckets("a")).await.snapshot.len(), 2);
}
