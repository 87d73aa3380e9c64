//! `tidegate store …` as the operator runs it.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use tidegate::store::*;

use crate::support::*;

const ANNA: SessionKey = SessionKey(1);

/// Exit code, stdout and stderr.
fn run(arguments: &[&str], path: &Path, admin: Option<&str>) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.arg("store").args(arguments).arg("--path").arg(path).current_dir(std::env::temp_dir());
    if let Some(admin) = admin {
        command.env("TIDEGATE__ADMIN__BIND", admin);
    }
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn prepare(path: &Path) {
    let store = open(path);
    store.commit(&[Change::PutSession(ANNA, session("anna"))]).unwrap();
    for number in 1..=3 {
        store.commit(&message(ANNA, number)).unwrap();
    }
}

#[test]
fn a_sound_store_is_said_to_be_sound() {
    let folder = tempfile::tempdir().unwrap();
    prepare(folder.path());
    let (code, out, _) = run(&["check"], folder.path(), None);
    assert!(out.contains("1 sessions, 3 queued messages, 3 bodies") && out.ends_with("sound\n"), "{out}");
    assert_eq!(code, 0);
    let (code, out, _) = run(&["stats"], folder.path(), None);
    assert!(out.contains("queue of anna: 3 messages, 300 bytes"), "{out}");
    assert_eq!(code, 0);
}

#[test]
fn a_store_that_does_not_exist_is_not_made() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data");
    for command in ["check", "stats"] {
        let (code, _, err) = run(&[command], &path, None);
        assert_eq!((code, err), (1, format!("there is no store in {}\n", path.display())));
    }
    assert!(!path.exists());
}

#[test]
fn while_a_broker_runs_a_check_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    prepare(folder.path());
    let _broker = open(folder.path());
    let (code, _, err) = run(&["check"], folder.path(), None);
    assert_eq!(
        (code, err),
        (1, format!("the store in {} is in use by another process\n", folder.path().display()))
    );
}

#[test]
fn a_back_up_without_a_broker_is_made_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let (data, copy) = (folder.path().join("data"), folder.path().join("copy"));
    prepare(&data);
    let (code, _, err) = run(&["backup", copy.to_str().unwrap()], &data, None);
    assert_eq!((code, err), (0, String::new()));
    assert_eq!(contents(&open(&copy)).0.payloads(ANNA), ["1", "2", "3"]);
    let (code, _, err) = run(&["backup", copy.to_str().unwrap()], &data, None);
    assert_eq!((code, err), (1, format!("{}: a back-up needs an empty directory\n", copy.display())));
}

#[test]
fn a_broker_that_runs_is_asked_for_the_back_up() {
    let folder = tempfile::tempdir().unwrap();
    prepare(folder.path());
    let _broker = open(folder.path());
    for (answer, code, said) in [
        ("HTTP/1.1 200 OK\r\n\r\nok\n", 0, "the broker has made a back-up in copy 1\n"),
        ("HTTP/1.1 409 Conflict\r\n\r\nno room\n", 1, "made no back-up: 409 no room\n"),
        ("nonsense", 1, "made no back-up: it does not speak HTTP\n"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let admin = listener.local_addr().unwrap().to_string();
        let broker = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = vec![0; 1000];
            let len = stream.read(&mut request).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
            String::from_utf8(request[..len].to_vec()).unwrap()
        });
        let (found, out, err) = run(&["backup", "copy 1"], folder.path(), Some(&admin));
        let request = broker.join().unwrap();
        let directory = std::env::temp_dir().join("copy%201");
        assert!(
            request.starts_with(&format!("POST /store/backup?dir={} HTTP/1.1\r\n", directory.display())),
            "{request}"
        );
        assert!(format!("{out}{err}").ends_with(said), "{out}{err}");
        assert_eq!(found, code);
    }
}
