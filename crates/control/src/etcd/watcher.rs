//! One watch of one data plane: a cursor over the mirror's history.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use model::Change;
use store::{
    Batch, Error,
    etcd::proto::{
        Event, KeyValue, WatchCreateRequest, WatchResponse, event::EventType,
        watch_create_request::FilterType,
    },
};
use tokio::{
    sync::mpsc,
    time::{Duration, Instant},
};

use super::{
    api::Api,
    keyspace::{self, Span, signed},
};

/// Events in one answer to a watch that asked for fragments.
const FRAGMENT: usize = 1_000;
/// A watch that asked for it hears of the newest revision this often, as etcd does.
const PROGRESS: Duration = Duration::from_secs(600);

/// One watch: what was asked, and where the answers go.
pub struct Watcher {
    pub id: i64,
    pub request: WatchCreateRequest,
    pub out: mpsc::Sender<WatchResponse>,
    /// Everything up to this revision has been sent; 0 before the beginning.
    pub told: Arc<AtomicU64>,
}

/// Serves one watch until the client is gone, the watch is cancelled, or history no longer reaches back.
pub async fn run(api: Arc<Api>, watcher: Watcher) {
    let Watcher { id, request, out, told } = watcher;
    let mut revisions = api.mirror.revisions();
    // A control plane that has just started may not have read its store yet; a client need not wait for that.
    let read = tokio::select! {
        read = revisions.wait_for(|revision| *revision > 0) => read.is_ok(),
        () = out.closed() => false,
    };
    if !read {
        return;
    }
    let lineage = api.mirror.lineage();
    let created =
        WatchResponse { header: Some(api.header()), watch_id: id, created: true, ..Default::default() };
    let current = *revisions.borrow_and_update();
    if out.send(created).await.is_err() {
        return;
    }
    let mut cursor = match u64::try_from(request.start_revision).unwrap_or(0) {
        0 => current,
        start => start - 1,
    };
    let span = Span::new(&request.key, &request.range_end);
    let mut spoke = Instant::now();
    loop {
        match api.mirror.after(cursor, lineage) {
            Ok(batches) => {
                if let Some(last) = batches.last() {
                    cursor = last.revision;
                    for answer in answers(&api, id, &batches, &span, &request) {
                        spoke = Instant::now();
                        if out.send(answer).await.is_err() {
                            return;
                        }
                    }
                    told.store(cursor, Ordering::Release);
                    continue;
                }
                told.store(cursor, Ordering::Release);
            }
            Err(error) => {
                let _ = out.send(cancelled(&api, id, &error)).await;
                return;
            }
        }
        tokio::select! {
            changed = revisions.changed() => if changed.is_err() { return },
            () = out.closed() => return,
            () = tokio::time::sleep_until(spoke + PROGRESS), if request.progress_notify => {
                spoke = Instant::now();
                // A watch of the future has been told of nothing yet.
                let revision = cursor.min(*revisions.borrow());
                if out.send(answer(&api, id, revision, Vec::new())).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// One answer for all of the batches, or several parts of it where the client wants it so.
fn answers(
    api: &Api,
    id: i64,
    batches: &[Arc<Batch>],
    span: &Span,
    request: &WatchCreateRequest,
) -> Vec<WatchResponse> {
    let revision = batches.last().map_or(0, |last| last.revision);
    let mut rest = events(api, batches, span, request);
    let mut answers = Vec::new();
    while request.fragment && rest.len() > FRAGMENT {
        let after = rest.split_off(FRAGMENT);
        let part = std::mem::replace(&mut rest, after);
        answers.push(WatchResponse { fragment: true, ..answer(api, id, revision, part) });
    }
    if !rest.is_empty() {
        answers.push(answer(api, id, revision, rest));
    }
    answers
}

fn answer(api: &Api, id: i64, revision: u64, events: Vec<Event>) -> WatchResponse {
    WatchResponse { header: Some(api.header_at(revision)), watch_id: id, events, ..Default::default() }
}

fn cancelled(api: &Api, id: i64, error: &Error) -> WatchResponse {
    let compact_revision = match error {
        // The first revision that can be watched from: APISIX comes back with just that one, at once.
        Error::Compacted { oldest, .. } => signed(*oldest).saturating_add(1),
        _ => 0,
    };
    WatchResponse {
        header: Some(api.header()),
        watch_id: id,
        canceled: true,
        compact_revision,
        cancel_reason: super::api::status(error).message().to_owned(),
        ..Default::default()
    }
}

fn events(api: &Api, batches: &[Arc<Batch>], span: &Span, request: &WatchCreateRequest) -> Vec<Event> {
    let without = |filter: FilterType| request.filters.contains(&(filter as i32));
    let mut events = Vec::new();
    for batch in batches {
        let before = request.prev_kv.then(|| api.mirror.at(batch.revision.saturating_sub(1)).ok()).flatten();
        for change in &batch.changes {
            let (kind, key, kv) = match change {
                Change::Put(resource) => {
                    let path = keyspace::path(&api.prefix, &resource.key);
                    (EventType::Put, &resource.key, keyspace::resource_kv(&path, resource, false))
                }
                Change::Delete(key) => {
                    let kv = KeyValue {
                        key: keyspace::path(&api.prefix, key).into(),
                        mod_revision: signed(batch.revision),
                        ..KeyValue::default()
                    };
                    (EventType::Delete, key, kv)
                }
            };
            let unwanted = match kind {
                EventType::Put => without(FilterType::Noput),
                EventType::Delete => without(FilterType::Nodelete),
            };
            if unwanted || !span.contains(&kv.key) {
                continue;
            }
            let prev_kv = before
                .as_ref()
                .and_then(|snapshot| snapshot.get(key))
                .map(|resource| keyspace::resource_kv(&keyspace::path(&api.prefix, key), resource, false));
            events.push(Event { r#type: kind as i32, kv: Some(kv), prev_kv });
        }
    }
    events
}

#[cfg(test)]
mod tests {
    use store::memory::Memory;

    use super::*;
    use crate::etcd::{Access, instances::Instances, mirror::Mirror};

    #[tokio::test]
    async fn a_client_that_goes_before_the_store_was_read_leaves_nothing_behind() {
        let api = Api {
            prefix: "/apisix".into(),
            mirror: Arc::new(Mirror::unread()),
            instances: Arc::new(Instances::default()),
            store: Arc::new(Memory::new()),
            access: Access::ReadOnly,
            cluster: 1,
            turns: tokio::sync::Semaphore::new(1),
        };
        let (out, answers) = mpsc::channel(1);
        let watcher = Watcher { id: 0, request: WatchCreateRequest::default(), out, told: Arc::default() };
        let running = tokio::spawn(run(Arc::new(api), watcher));
        drop(answers);
        tokio::time::timeout(Duration::from_secs(10), running).await.expect("it ends").unwrap();
    }
}
