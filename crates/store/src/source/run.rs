//! Brings sources, [`super::failover`] and [`super::Apply`] together.

use std::sync::{Arc, Mutex};

use tokio::sync::mpsc;

use super::{
    Apply, Config, Handle, Status,
    status::{NothingHeld, Order, Shared},
};

pub(super) fn start(config: Config, _apply: Arc<dyn Apply>) -> Handle {
    let (orders, mut ordered) = mpsc::channel(4);
    let status = Status { group: config.group.clone(), ..Status::default() };
    let shared = Arc::new(Shared { status: Mutex::new(status), current: Mutex::new(config.resume) });
    tokio::spawn(async move {
        while let Some(order) = ordered.recv().await {
            match order {
                Order::Accept(answer) => drop(answer.send(Err(NothingHeld))),
                Order::Stop(done) => return drop(done.send(())),
            }
        }
    });
    Handle { shared, orders }
}
