//! What a crash, a bad disk or a stranger may leave in the files: reported, never a panic (SEC-4).

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tidegate::store::disk::{DiskSettings, DiskStore, FORMAT};
use tidegate::store::*;

use crate::support::*;

const ANNA: SessionKey = SessionKey(1);

/// A store with one session and this many messages, each its own commit; closed.
fn prepare(path: &Path, messages: u64) {
    let store = open(path);
    store.commit(&[Change::PutSession(ANNA, session("anna"))]).unwrap();
    for number in 1..=messages {
        store.commit(&message(ANNA, number)).unwrap();
    }
}

fn journal(path: &Path) -> PathBuf {
    path.join("db/0.jnl")
}

/// Bytes of the journal that are written.
fn written(path: &Path) -> (Vec<u8>, usize) {
    let bytes = fs::read(journal(path)).unwrap();
    let end = written_len(&bytes);
    (bytes, end)
}

#[test]
fn a_second_process_is_refused_with_a_clear_error() {
    let folder = tempfile::tempdir().unwrap();
    let first = open(folder.path());
    let error = DiskStore::open(folder.path(), DiskSettings::default()).err().unwrap();
    assert_eq!(error, StoreError::Locked { path: folder.path().to_owned() });
    drop(first);
    open(folder.path());
}

#[test]
fn a_newer_format_is_refused_with_a_clear_error() {
    let folder = tempfile::tempdir().unwrap();
    prepare(folder.path(), 1);
    fs::write(folder.path().join("format"), "200\n").unwrap();
    let error = DiskStore::open(folder.path(), DiskSettings::default()).err().unwrap();
    assert_eq!(error, StoreError::Newer { path: folder.path().to_owned(), found: 200, known: FORMAT });
}

#[test]
fn files_are_for_their_user_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a/data");
    prepare(&path, 3);
    let mut folders = vec![path];
    while let Some(folder) = folders.pop() {
        assert_eq!(
            fs::metadata(&folder).unwrap().permissions().mode() & 0o777,
            0o700,
            "{}",
            folder.display()
        );
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                assert_eq!(
                    fs::metadata(&path).unwrap().permissions().mode() & 0o777,
                    0o600,
                    "{}",
                    path.display()
                );
            }
        }
    }
}

#[test]
fn files_that_others_could_read_are_protected() {
    let folder = tempfile::tempdir().unwrap();
    prepare(folder.path(), 1);
    fs::set_permissions(journal(folder.path()), fs::Permissions::from_mode(0o644)).unwrap();
    open(folder.path());
    assert_eq!(fs::metadata(journal(folder.path())).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_crash_while_it_was_made_leaves_a_store_that_opens() {
    let folder = tempfile::tempdir().unwrap();
    for cut in ["db/version", "format"] {
        let path = folder.path().join(cut.replace('/', "-"));
        drop(open(&path));
        fs::write(path.join(cut), "").unwrap();
        if cut == "format" {
            fs::remove_dir_all(path.join("db")).unwrap();
        }
        prepare(&path, 1);
        assert_eq!(contents(&open(&path)).0.payloads(ANNA), ["1"]);
    }
}

#[test]
fn a_torn_end_is_cut_off_and_reported() {
    let folder = tempfile::tempdir().unwrap();
    prepare(folder.path(), 3);
    let (mut bytes, end) = written(folder.path());
    let torn_byte = end - 20;
    bytes[torn_byte] ^= 0xff;
    fs::write(journal(folder.path()), &bytes).unwrap();
    let (found, recovery) = contents(&open(folder.path()));
    assert_eq!(found.payloads(ANNA), ["1", "2"]);
    assert!(recovery.torn_bytes > 0);
    assert_eq!(recovery.missing_commits, 0);
    assert_eq!(fs::metadata(folder.path().join("torn")).unwrap().len(), recovery.torn_bytes);
}

#[test]
fn a_missing_commit_is_reported() {
    // Two journals of one history: the second one's last commit on top of the first one's second last.
    let folder = tempfile::tempdir().unwrap();
    let (short, middle, long) =
        (folder.path().join("short"), folder.path().join("middle"), folder.path().join("long"));
    let store = open(&long);
    store.commit(&[Change::PutSession(ANNA, session("anna"))]).unwrap();
    store.commit(&message(ANNA, 1)).unwrap();
    copy(&long, &short);
    store.commit(&message(ANNA, 2)).unwrap();
    copy(&long, &middle);
    store.commit(&message(ANNA, 3)).unwrap();
    let (short_bytes, hole) = written(&short);
    let (_, hole_end) = written(&middle);
    let (long_bytes, end) = written(&long);
    let bytes = [&short_bytes[..hole], &long_bytes[hole_end..end]].concat();
    fs::write(journal(&short), bytes).unwrap();
    let (found, recovery) = contents(&open(&short));
    assert_eq!(found.payloads(ANNA), ["1", "3"]);
    assert_eq!(recovery.missing_commits, 1);
}

#[test]
fn damage_anywhere_in_the_journal_never_panics_and_keeps_what_was_before() {
    let folder = tempfile::tempdir().unwrap();
    let sound = folder.path().join("sound");
    prepare(&sound, 4);
    let (bytes, end) = written(&sound);
    for at in (0..end).step_by(end / 20) {
        let path = folder.path().join(at.to_string());
        copy(&sound, &path);
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x55;
        fs::write(journal(&path), damaged).unwrap();
        // Without its first commits a database has not even its keyspaces: then it says so.
        if let Ok(store) = DiskStore::open(&path, DiskSettings::default()) {
            let (found, recovery) = contents(&store);
            let payloads = found.payloads(ANNA);
            // fjall's checksum does not cover the number of a batch.
            assert!(recovery.torn_bytes > 0 || payloads.len() == 4, "byte {at}");
            assert!(
                ["1", "2", "3", "4"].starts_with(&payloads.iter().map(String::as_str).collect::<Vec<_>>())
            );
        }
    }
}

#[test]
fn a_file_that_is_gone_is_an_error_and_no_panic() {
    let folder = tempfile::tempdir().unwrap();
    prepare(folder.path(), 1);
    for entry in fs::read_dir(folder.path().join("db/keyspaces")).unwrap() {
        fs::write(entry.unwrap().path().join("current"), "nothing").unwrap();
    }
    assert!(DiskStore::open(folder.path(), DiskSettings::default()).is_err());
}
