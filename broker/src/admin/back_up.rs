//! `POST /store/backup?dir=DIRECTORY`: a consistent copy of the store while the broker runs. The directory is one of the
//! broker's machine, absolute, percent-encoded, and empty or not there.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::AdminState;
use crate::store::StoreError;

/// Copies the store. Waits for the disk.
pub type BackUp = Arc<dyn Fn(&Path) -> Result<(), StoreError> + Send + Sync>;

/// Where it is asked for.
pub(super) const PATH: &str = "/store/backup";

pub(super) async fn back_up(
    State(state): State<AdminState>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Response {
    // There is no login, and a page in the operator's browser must not make us write files: browsers always say whose
    // page a POST comes from.
    if headers.contains_key(header::ORIGIN) {
        return (StatusCode::FORBIDDEN, "not from a web page\n").into_response();
    }
    let Some(back_up) = state.back_up else { return StatusCode::NOT_FOUND.into_response() };
    let Some(directory) = query.as_deref().and_then(directory) else {
        let usage = "POST /store/backup?dir=DIRECTORY, absolute and percent-encoded\n";
        return (StatusCode::BAD_REQUEST, usage).into_response();
    };
    let copied = tokio::task::spawn_blocking(move || back_up(&directory)).await;
    match copied {
        Ok(Ok(())) => (StatusCode::OK, "copied\n").into_response(),
        Ok(Err(error)) => (status(&error), format!("{error}\n")).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

fn status(error: &StoreError) -> StatusCode {
    match error {
        StoreError::Directory { .. } | StoreError::Locked { .. } | StoreError::Newer { .. } => {
            StatusCode::CONFLICT
        }
        StoreError::Closed | StoreError::Failing | StoreError::Full => StatusCode::SERVICE_UNAVAILABLE,
        StoreError::Io { .. } | StoreError::Damaged { .. } => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// The one parameter that there is.
fn directory(query: &str) -> Option<PathBuf> {
    let bytes = percent_decoded(query.strip_prefix("dir=")?)?;
    let directory = PathBuf::from(OsString::from_vec(bytes));
    directory.is_absolute().then_some(directory)
}

/// RFC 3986 §2.1. `None`: malformed.
fn percent_decoded(text: &str) -> Option<Vec<u8>> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => hex(bytes.next()?)? << 4 | hex(bytes.next()?)?,
            b'&' | 0 => return None,
            byte => byte,
        });
    }
    Some(decoded)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::super::Phase;
    use super::super::tests::ask;
    use super::*;

    async fn check(
        request: &str,
        outcome: Result<(), StoreError>,
        status: &str,
        copied_to: Option<&str>,
    ) {
        let asked: Arc<Mutex<Option<PathBuf>>> = Arc::default();
        let seen = Arc::clone(&asked);
        let back_up: BackUp = Arc::new(move |directory| {
            *seen.lock() = Some(directory.to_owned());
            outcome.clone()
        });
        let head = format!("{request}Host: x\r\n");
        let answer = ask(Phase::Serving, None, Some(back_up), &head).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request:?}: {answer}");
        assert_eq!(asked.lock().as_deref(), copied_to.map(Path::new), "{request:?}");
    }

    #[tokio::test]
    async fn the_copy_goes_where_the_operator_says() {
        let post = |target: &str| format!("POST /store/backup{target} HTTP/1.1\r\n");
        check(&post("?dir=/b/1"), Ok(()), "200", Some("/b/1")).await;
        check(&post("?dir=%2Fa%20b%2f+"), Ok(()), "200", Some("/a b/+")).await;
        check(&post("?dir=b"), Ok(()), "400", None).await;
        check(&post("?dir=/b%2"), Ok(()), "400", None).await;
        check(&post("?dir=/b&x=1"), Ok(()), "400", None).await;
        check(&post(""), Ok(()), "400", None).await;
        check("GET /store/backup?dir=/b HTTP/1.1\r\n", Ok(()), "405", None).await;
    }

    #[tokio::test]
    async fn what_is_wrong_is_told() {
        let post = "POST /store/backup?dir=/b HTTP/1.1\r\n";
        let taken = StoreError::Directory { path: "/b".into(), reason: "taken".to_owned() };
        check(post, Err(taken), "409", Some("/b")).await;
        check(post, Err(StoreError::Closed), "503", Some("/b")).await;
    }

    #[tokio::test]
    async fn no_web_page_makes_a_copy() {
        check("POST /store/backup?dir=/b HTTP/1.1\r\nOrigin: https://x\r\n", Ok(()), "403", None).await;
    }

    #[tokio::test]
    async fn without_a_store_there_is_nothing_to_copy() {
        let head = "POST /store/backup?dir=/b HTTP/1.1\r\nHost: x\r\n";
        let answer = ask(Phase::Serving, None, None, head).await;
        assert!(answer.starts_with("HTTP/1.1 404 ") && !answer.contains("backup"), "{answer}");
    }
}
