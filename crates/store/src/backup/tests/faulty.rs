//! Writers that die between any two steps, and servers that lose answers.

use std::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result,
};

use super::*;

/// How a write fails once the allowance is used up.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    /// It is not done.
    Before,
    /// It is done, but the answer is lost.
    After,
}

/// Shared by both buckets: so many more writes succeed.
#[derive(Debug)]
struct Allowance {
    writes: AtomicUsize,
    fault: Mutex<Fault>,
}

#[derive(Debug)]
struct Faulty {
    inner: InMemory,
    allowance: Arc<Allowance>,
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("faulty")
    }
}

fn lost() -> object_store::Error {
    object_store::Error::Generic { store: "faulty", source: "the connection was lost".into() }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let left =
            self.allowance.writes.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        if left.is_ok() {
            return self.inner.put_opts(location, payload, opts).await;
        }
        if *self.allowance.fault.lock().unwrap() == Fault::After {
            let _ = self.inner.put_opts(location, payload, opts).await;
        }
        Err(lost())
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(at, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

const ALL: usize = usize::MAX;

fn faulty() -> (Fixture, Arc<Allowance>) {
    let allowance = Arc::new(Allowance { writes: ALL.into(), fault: Mutex::new(Fault::Before) });
    let store = || Arc::new(Faulty { inner: InMemory::new(), allowance: allowance.clone() });
    (Fixture::over(store(), store()), allowance)
}

/// A publication writes six objects: two parts, history, two mirrors, manifest.
#[tokio::test]
async fn a_crash_between_any_two_steps_leaves_a_readable_backup() {
    for fault in [Fault::Before, Fault::After] {
        for steps in 0..6 {
            let (fixture, allowance) = faulty();
            fixture.publish(&snapshot(1, 2)).await;
            let known = fixture.newest().await.known();
            *allowance.fault.lock().unwrap() = fault;
            allowance.writes.store(steps, Ordering::SeqCst);
            let (second, instance) = (snapshot(2, 2), Instance::default());
            publish(&fixture.buckets, &publication(&second, &instance)).await.unwrap_err();
            allowance.writes.store(ALL, Ordering::SeqCst);

            let read = fixture.newest().await;
            assert!([1, 2].contains(&read.snapshot.revision), "{fault:?} {steps}");
            assert_eq!(read.fallen_back, None, "{fault:?} {steps}");
            fixture.read(&known).await.unwrap();

            // Whoever comes next finishes it, or starts from where it is.
            let third = if steps % 2 == 0 {
                renew(&fixture.buckets, "default", chrono::Utc::now(), None).await.unwrap();
                let committed = head(&fixture.buckets, "default").await.unwrap();
                assert!(committed.is_complete(), "{fault:?} {steps}");
                let read = fixture.newest().await;
                assert_eq!(read.manifest.unwrap().sequence, committed.sequence);
                committed.sequence + 1
            } else {
                head(&fixture.buckets, "default").await.unwrap().sequence + 1
            };
            assert_eq!(fixture.publish(&snapshot(3, 2)).await.sequence, third);
            assert_eq!(revision_of(&fixture.read(&known).await.unwrap()), Some(3));
        }
    }
}

#[tokio::test]
async fn a_first_publication_cut_short_after_its_commit_is_found() {
    let (fixture, allowance) = faulty();
    allowance.writes.store(3, Ordering::SeqCst);
    let (first, instance) = (snapshot(1, 2), Instance::default());
    publish(&fixture.buckets, &publication(&first, &instance)).await.unwrap_err();
    let read = fixture.newest().await;
    assert_eq!(read.snapshot.revision, 1);
    assert!(read.fallen_back.is_some());
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_recognised() {
    let (fixture, allowance) = faulty();
    *allowance.fault.lock().unwrap() = Fault::After;
    allowance.writes.store(2, Ordering::SeqCst);
    let (first, instance) = (snapshot(1, 2), Instance::default());
    // The history entry is written and known to be ours; the mirrors then fail.
    publish(&fixture.buckets, &publication(&first, &instance)).await.unwrap_err();
    allowance.writes.store(ALL, Ordering::SeqCst);
    renew(&fixture.buckets, "default", chrono::Utc::now(), None).await.unwrap();
    assert_eq!(head(&fixture.buckets, "default").await.unwrap().sequence, 1);
    assert_eq!(fixture.newest().await.fallen_back, None);
}
