//! The operator's HTTP listener: health, readiness, the Prometheus page, back-ups of the store. Knows no client.

mod backup;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tokio::net::TcpListener;
use tokio::time::Instant;

pub use self::backup::Backup;
use crate::metrics::{CONTENT_TYPE, Metrics};

/// Where the broker is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// The store is being read, or not all listeners are bound yet: alive, not ready.
    Starting = 0,
    /// Alive and ready.
    Serving = 1,
    /// `shutdown.readiness_grace`: still serving, and not ready any more.
    Leaving = 2,
    /// Connections are being ended: neither.
    Draining = 3,
}

/// The phase, shared by the server that sets it and the listener that tells it.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<AtomicU8>);

/// What the routes need.
#[derive(Clone)]
pub struct AdminState {
    /// The phase.
    pub health: Health,
    /// `None`: there is no `/metrics` (`admin.metrics = false`).
    pub metrics: Option<Arc<Metrics>>,
    /// Brings the gauges up to date before the page is written.
    pub observe: Arc<dyn Fn() + Send + Sync>,
    /// `None`: there is no store to copy.
    pub backup: Option<Backup>,
}

impl Health {
    /// Enters a phase.
    pub fn set(&self, phase: Phase) {
        self.0.store(phase as u8, Ordering::Relaxed);
    }

    /// The phase; [`Phase::Starting`] until it is set.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match self.0.load(Ordering::Relaxed) {
            0 => Phase::Starting,
            1 => Phase::Serving,
            2 => Phase::Leaving,
            _ => Phase::Draining,
        }
    }
}

/// Answers until `shutdown`, then finishes the requests that are under way. May be dropped at any time.
pub async fn serve(
    listener: TcpListener,
    state: AdminState,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    axum::serve(listener, router(state)).with_graceful_shutdown(shutdown).await
}

fn router(state: AdminState) -> Router {
    let mut router = Router::new().route("/healthz", get(healthz)).route("/readyz", get(readyz));
    if state.metrics.is_some() {
        router = router.route("/metrics", get(metrics));
    }
    if state.backup.is_some() {
        router = router.route("/store/backup", post(backup::backup));
    }
    router.fallback(not_found).with_state(state)
}

async fn healthz(State(state): State<AdminState>) -> Response {
    match state.health.phase() {
        Phase::Starting | Phase::Serving | Phase::Leaving => (StatusCode::OK, "ok\n").into_response(),
        Phase::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining\n").into_response(),
    }
}

async fn readyz(State(state): State<AdminState>) -> Response {
    match state.health.phase() {
        Phase::Serving => (StatusCode::OK, "ready\n").into_response(),
        Phase::Starting => (StatusCode::SERVICE_UNAVAILABLE, "starting\n").into_response(),
        Phase::Leaving => (StatusCode::SERVICE_UNAVAILABLE, "leaving\n").into_response(),
        Phase::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining\n").into_response(),
    }
}

async fn metrics(State(state): State<AdminState>) -> Response {
    (state.observe)();
    match state.metrics.as_ref().map(|metrics| metrics.encode(Instant::now().into_std())) {
        Some(Ok(page)) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], page).into_response(),
        Some(Err(_)) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        None => not_found(State(state)).await,
    }
}

async fn not_found(State(state): State<AdminState>) -> Response {
    let metrics = if state.metrics.is_some() { " /metrics" } else { "" };
    let backup = if state.backup.is_some() { ", and POST /store/backup?dir=" } else { "" };
    let body = format!("there are /healthz /readyz{metrics}{backup}\n");
    (StatusCode::NOT_FOUND, body).into_response()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    async fn check(phase: Phase, with_metrics: bool, path: &str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let health = Health::default();
        health.set(phase);
        let metrics = with_metrics.then(|| Metrics::new(std::time::Instant::now()));
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let state = AdminState { health, metrics, observe: Arc::new(|| ()), backup: None };
        let server = tokio::spawn(serve(listener, state, async move { _ = stopped.await }));
        let mut client = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        client.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        stop.send(()).unwrap();
        server.await.unwrap().unwrap();
        answer
    }

    #[tokio::test]
    async fn health_and_readiness_follow_the_phase() {
        for (phase, health, ready) in [
            (Phase::Starting, "200", "503"),
            (Phase::Serving, "200", "200"),
            (Phase::Leaving, "200", "503"),
            (Phase::Draining, "503", "503"),
        ] {
            for (path, status) in [("/healthz", health), ("/readyz", ready)] {
                let answer = check(phase, true, path).await;
                assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{phase:?} {path}: {answer}");
            }
        }
    }

    #[tokio::test]
    async fn the_page_has_the_type_that_prometheus_expects() {
        let answer = check(Phase::Serving, true, "/metrics").await;
        assert!(answer.contains(CONTENT_TYPE) && answer.contains("tidegate_uptime_seconds"), "{answer}");
    }

    #[tokio::test]
    async fn without_metrics_there_is_no_page() {
        let answer = check(Phase::Serving, false, "/metrics").await;
        assert!(answer.starts_with("HTTP/1.1 404 ") && !answer.contains("/metrics"), "{answer}");
    }

    #[tokio::test]
    async fn an_unknown_path_lists_the_known_ones() {
        let answer = check(Phase::Serving, true, "/clients").await;
        assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
        assert!(answer.contains("/healthz /readyz /metrics"), "{answer}");
    }
}
