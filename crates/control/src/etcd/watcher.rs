//! One watch of one data plane: a cursor over the mirror's history.

use std::sync::Arc;

use model::Change;
use store::{
    Batch, Error,
    etcd::proto::{
        Event, KeyValue, WatchCreateRequest, WatchResponse, event::EventType,
        watch_create_request::FilterType,
    },
};
use tokio::{sync::mpsc, time::Duration};

use super::{
    api::Api,
    keyspace::{self, Span, signed},
};

/// How many changes one answer carries at most; a data plane far behind gets several.
const CHANGES_AT_ONCE: usize = 1_000;
/// A watch that asked for it hears of the newest revision this often, as etcd does.
const PROGRESS: Duration = Duration::from_secs(600);

/// Serves one watch until the client is gone, the watch is cancelled, or history no longer reaches back.
pub async fn run(api: Arc<Api>, id: i64, request: WatchCreateRequest, out: mpsc::Sender<WatchResponse>) {
    let mut revisions = api.mirror.revisions();
    // A control plane that has just started may not have read its store yet.
    if revisions.wait_for(|revision| *revision > 0).await.is_err() {
        return;
    }
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
    loop {
        match api.mirror.after(cursor, CHANGES_AT_ONCE) {
            Ok(batches) => {
                if let Some(last) = batches.last() {
                    cursor = last.revision;
                    let events = events(&api, &batches, &span, &request);
                    if !events.is_empty() && out.send(answer(&api, id, cursor, events)).await.is_err() {
                        return;
                    }
                    continue;
                }
            }
            Err(error) => {
                let _ = out.send(cancelled(&api, id, &error)).await;
                return;
            }
        }
        tokio::select! {
            changed = revisions.changed() => if changed.is_err() { return },
            () = out.closed() => return,
            () = tokio::time::sleep(PROGRESS), if request.progress_notify => {
                if out.send(answer(&api, id, cursor, Vec::new())).await.is_err() {
                    return;
                }
            }
        }
    }
}

fn answer(api: &Api, id: i64, revision: u64, events: Vec<Event>) -> WatchResponse {
    WatchResponse { header: Some(api.header_at(revision)), watch_id: id, events, ..Default::default() }
}

fn cancelled(api: &Api, id: i64, error: &Error) -> WatchResponse {
    let compact_revision = match error {
        Error::Compacted { oldest, .. } => signed(*oldest),
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
