//! Waiting for a state, never for a time.

use std::fmt::{Debug, Display};
use std::panic::Location;
use std::time::Duration;

use tokio::time::Instant;

const STEP: Duration = Duration::from_millis(10);

/// Asks `probe` every 10 ms until it answers `Ok`, and gives that.
///
/// `Err` is what was seen instead; the last of them is in the panic that ends the waiting. A probe that hangs is cut
/// off at the deadline.
#[track_caller]
pub fn eventually<T, S: Debug>(
    timeout: Duration,
    what: impl Display,
    mut probe: impl AsyncFnMut() -> Result<T, S>,
) -> impl Future<Output = T> {
    let caller = Location::caller();
    let deadline = Instant::now() + timeout;
    async move {
        let mut seen = String::from("nothing: the probe did not answer");
        while let Ok(answer) = tokio::time::timeout_at(deadline, probe()).await {
            match answer {
                Ok(value) => return value,
                Err(other) => seen = format!("{other:?}"),
            }
            if Instant::now() >= deadline {
                break;
            }
            tokio::time::sleep(STEP).await;
        }
        panic!("waited {timeout:?} for {what} ({caller}); last seen: {seen}");
    }
}

/// `Ok` if it holds, else `Err` of what was seen: for use in a probe.
pub fn expect<S: Display>(holds: bool, seen: S) -> Result<(), String> {
    if holds { Ok(()) } else { Err(seen.to_string()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn gives_the_first_good_answer() {
        let mut asked = 0;
        let value = eventually(Duration::from_secs(5), "three", async || {
            asked += 1;
            if asked >= 3 { Ok(asked) } else { Err(asked) }
        })
        .await;
        assert_eq!(value, 3);
    }

    #[tokio::test]
    #[should_panic(expected = "last seen: \"red\"")]
    async fn says_what_it_saw_last() {
        eventually(Duration::from_millis(30), "green", async || expect(false, "red")).await;
    }

    #[tokio::test]
    #[should_panic(expected = "the probe did not answer")]
    async fn cuts_a_hanging_probe() {
        eventually(Duration::from_millis(30), "an answer", std::future::pending::<Result<(), ()>>).await;
    }
}
