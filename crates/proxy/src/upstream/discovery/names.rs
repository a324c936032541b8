//! Keeps the names that are followed resolved: one task each.
//!
//! The rule to know: a name is asked for again before its answer runs out, so no request ever sees it run out.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::sync::Semaphore;

use super::{Answer, Heard, Inner, Kind, resolver::Failure};

/// Names asked for at the same time.
static AT_ONCE: Semaphore = Semaphore::const_new(64);
/// Between two questions for one name, at least.
const LEAST: Duration = Duration::from_millis(900);
/// Between two questions for a name that nobody answers for.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(15));

/// Resolves a name for as long as somebody holds its answer.
pub(super) async fn follow(directory: Weak<Inner>, answer: Weak<Answer>) {
    let Some(mut resolvers) = directory.upgrade().map(|directory| directory.resolvers.subscribe()) else {
        return;
    };
    let mut retry = RETRY.0;
    loop {
        resolvers.mark_unchanged();
        let (Some(directory), Some(answer)) = (directory.upgrade(), answer.upgrade()) else { return };
        let pause = match ask(&directory, &answer).await {
            Ok(ttl) => {
                retry = RETRY.0;
                before(ttl)
            }
            Err(failure) => {
                tell(&answer, &failure, retry == RETRY.0);
                let pause = retry;
                retry = (retry * 2).min(RETRY.1);
                pause
            }
        };
        drop((directory, answer));
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            gone = resolvers.changed() => if gone.is_err() { return },
        }
    }
}

/// How long its answer holds.
async fn ask(directory: &Inner, answer: &Answer) -> Result<Duration, Failure> {
    let _permit = AT_ONCE.acquire().await;
    let resolver = directory.resolver.load_full();
    let Some(resolver) = &*resolver else {
        answer.give_up();
        return Err(Failure::Unheard("DNS is not configured yet".to_owned()));
    };
    match resolver.ask(&answer.query).await {
        Ok(found) => {
            if answer.publish(found.endpoints.into()) {
                directory.kept.wake();
            }
            Ok(found.ttl)
        }
        Err(failure) => {
            match failure {
                Failure::NoSuchName => {
                    if answer.publish(Arc::default()) {
                        directory.kept.wake();
                    }
                }
                Failure::Unheard(_) => answer.give_up(),
            }
            Err(failure)
        }
    }
}

fn tell(answer: &Answer, failure: &Failure, first: bool) {
    let (kind, name) = (answer.query.kind.name(), &*answer.query.name);
    let kept = answer.state().endpoints.len();
    if first {
        tracing::warn!(kind, name, error = %failure, kept, "a name can't be resolved");
    } else {
        tracing::debug!(kind, name, error = %failure, kept, "a name can't be resolved");
    }
}

/// A while before the answer runs out, not for all names at once.
fn before(ttl: Duration) -> Duration {
    ttl.mul_f64(rand::random_range(0.8..0.95)).max(LEAST)
}

/// What became of the names, in sum.
pub(super) fn heard(directory: &Inner) -> Vec<Heard> {
    let of = |kind| {
        let followed = directory.followed_of(kind);
        let without = followed.iter().find(|answer| answer.state().endpoints.is_empty());
        let last_error = without.map(|answer| format!("{} has no address", answer.query.name));
        (!followed.is_empty()).then_some(Heard {
            kind,
            services: followed.len(),
            last_answer: None,
            last_error,
        })
    };
    [Kind::Host, Kind::Dns].into_iter().filter_map(of).collect()
}
