//! The runtime on which fakes, fault proxies and load run: never the test's own, so that a test that blocks, or that
//! has paused its clock, does not stop the world around it.

use std::future::Future;
use std::sync::OnceLock;
use std::time::Duration;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::JoinHandle;

/// The runtime of this process, started by whoever comes first and never stopped.
pub fn handle() -> &'static Handle {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME
        .get_or_init(|| {
            Builder::new_multi_thread()
                .worker_threads(2)
                .thread_name("testkit")
                .enable_all()
                .build()
                .expect("a runtime for the test's surroundings")
        })
        .handle()
}

/// A task that ends with this value.
#[derive(Debug)]
pub struct Task(JoinHandle<()>);

impl Task {
    pub fn spawn(future: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(handle().spawn(future))
    }
}

impl Task {
    /// Whether it has ended.
    pub fn is_finished(&self) -> bool {
        self.0.is_finished()
    }

    /// Ends it, and returns when what it held (a listener, say) is let go of.
    pub fn stop(self) {
        self.0.abort();
        while !self.0.is_finished() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}
