//! Being asked to stop.

use tokio::signal::unix::{SignalKind, signal};

/// Ready at the first SIGINT, SIGTERM or SIGHUP. A second one ends the process at once.
pub async fn asked_to_stop() {
    let mut signals: Vec<_> =
        [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].into_iter().filter_map(|kind| signal(kind).ok()).collect();
    std::future::poll_fn(|context| {
        let ready = signals.iter_mut().any(|signal| signal.poll_recv(context).is_ready());
        if ready { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}
