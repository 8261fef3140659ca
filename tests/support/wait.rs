//! Waiting for what has no event of its own: ask again at every tick, under a deadline.

use std::time::Duration;

/// How long anything may take before the test fails: far above what it takes on a busy machine.
pub(crate) const LONG: Duration = Duration::from_secs(60);
const TICK: Duration = Duration::from_millis(10);

/// Asks until there is an answer.
pub(crate) async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let mut ticks = tokio::time::interval(TICK);
    let asking = async {
        loop {
            ticks.tick().await;
            if let Some(answer) = ask().await {
                return answer;
            }
        }
    };
    match tokio::time::timeout(LONG, asking).await {
        Ok(answer) => answer,
        Err(_) => panic!("waited too long for {what}"),
    }
}
