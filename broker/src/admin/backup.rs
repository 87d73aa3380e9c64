//! `POST /store/backup?dir=DIR`: a copy of the store while it is used. `tidegate store backup` asks for it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};

use super::AdminState;

/// Copies the store into a directory that is empty or does not exist; says what is wrong.
pub type Backup = Arc<dyn Fn(&Path) -> Result<(), String> + Send + Sync>;

/// Waits for the copy on a thread of its own.
pub(super) async fn backup(
    State(state): State<AdminState>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    // A web page that somebody looks at may post to the loopback address too, and then its origin stands here.
    if headers.contains_key(header::ORIGIN) {
        return (StatusCode::FORBIDDEN, "not for web pages\n").into_response();
    }
    let Some(directory) = query.as_deref().and_then(directory) else {
        return (StatusCode::BAD_REQUEST, "?dir= is a whole path\n").into_response();
    };
    let Some(backup) = state.backup else { return StatusCode::NOT_FOUND.into_response() };
    match tokio::task::spawn_blocking(move || backup(&directory)).await {
        Ok(Ok(())) => (StatusCode::OK, "ok\n").into_response(),
        Ok(Err(reason)) => (StatusCode::CONFLICT, format!("{reason}\n")).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// The value of `dir`, with its escapes undone (RFC 3986 §2.1).
fn directory(query: &str) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStringExt as _;
    let text = query.split('&').find_map(|pair| pair.strip_prefix("dir="))?;
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        let byte = match byte {
            b'%' => {
                let (digits, after) = rest.split_first_chunk::<2>()?;
                rest = after;
                if !digits.iter().all(u8::is_ascii_hexdigit) {
                    return None;
                }
                u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()?
            }
            byte => *byte,
        };
        bytes.push(byte);
    }
    let path = PathBuf::from(std::ffi::OsString::from_vec(bytes));
    path.is_absolute().then_some(path)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::admin::{Health, serve};

    /// The status and the body of the answer from a broker that says this.
    async fn check(outcome: Result<(), &'static str>, request_line: &str, headers: &str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let backup: Backup = Arc::new(move |path: &Path| {
            assert_eq!(path, Path::new("/copy"));
            outcome.map_err(str::to_owned)
        });
        let state = AdminState {
            health: Health::default(),
            metrics: None,
            observe: Arc::new(|| ()),
            backup: Some(backup),
        };
        tokio::spawn(serve(listener, state, std::future::pending()));
        let request = format!("{request_line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n");
        client.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        format!("{} {}", head.split(' ').nth(1).unwrap(), body.trim())
    }

    #[tokio::test]
    async fn a_back_up_is_made_or_the_reason_is_told() {
        const LINE: &str = "POST /store/backup?dir=/copy";
        assert_eq!(check(Ok(()), LINE, "").await, "200 ok");
        assert_eq!(check(Err("the disk"), LINE, "").await, "409 the disk");
        assert_eq!(check(Ok(()), "POST /store/backup?dir=copy", "").await, "400 ?dir= is a whole path");
        assert_eq!(check(Ok(()), "GET /store/backup?dir=/copy", "").await, "405 ");
    }

    #[tokio::test]
    async fn a_web_page_makes_no_back_up() {
        let answer = check(Ok(()), "POST /store/backup?dir=/copy", "Origin: http://evil.example\r\n").await;
        assert_eq!(answer, "403 not for web pages");
    }

    #[test]
    fn a_directory_is_a_whole_path_with_its_escapes_undone() {
        for (query, path) in [
            ("dir=/a/b", Some("/a/b")),
            ("x=1&dir=/a%20b%26c", Some("/a b&c")),
            ("dir=/%c3%BC", Some("/ü")),
            ("dir=a", None),
            ("dir=/%4", None),
            ("dir=/%zz", None),
            ("dir=/%+1", None),
            ("directory=/a", None),
            ("", None),
        ] {
            assert_eq!(directory(query).as_deref(), path.map(Path::new), "{query}");
        }
    }
}
