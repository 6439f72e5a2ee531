//! A service that cannot start says why in one readable line, and ends.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::serving::{Serving, refuses_to_start, serve};

/// A folder in which a service has run.
fn used() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let (said, ended) = Serving::start(folder.path(), &[]).stop();
    assert!(ended.success(), "{said}");
    folder
}

fn listening(folder: &Path, address: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rehome"));
    let options = ["serve", "--listen", address, "--metrics-listen", "off", "--set", "log.filter=error"];
    command.env_clear().current_dir(folder).args(options).stdin(Stdio::null()).stderr(Stdio::piped());
    command
}

/// Refused with one sentence and its causes, and nothing else.
fn check(command: Command, expected: &[&str]) {
    let shown = format!("{command:?}");
    let (said, ended) = refuses_to_start(command);
    assert_eq!(ended.code(), Some(1), "{shown}: {said}");
    let mut lines = said.lines().filter(|line| !line.is_empty());
    assert!(lines.next().is_some_and(|line| line.starts_with("error: ")), "{shown}: {said}");
    assert!(lines.all(|line| line.starts_with("  ")), "{shown}: {said}");
    assert!(!said.contains("panicked"), "{said}");
    for part in expected {
        assert!(said.contains(part), "{part:?} is missing: {said}");
    }
}

fn quiet(folder: &Path) -> Command {
    serve(folder, &["log.filter=error"])
}

#[test]
fn unknown_keys_are_refused_wherever_they_stand() {
    let folder = tempfile::tempdir().unwrap();
    check(serve(folder.path(), &["limits.conections_max=5"]), &["conections_max"]);
    let mut command = serve(folder.path(), &[]);
    command.env("REHOME_LISTEM", "127.0.0.1:0");
    check(command, &["REHOME_LISTEM"]);
    fs::write(folder.path().join("rehome.toml"), "[store]\ncash_bytes = 5\n").unwrap();
    check(serve(folder.path(), &[]), &["cash_bytes", "rehome.toml"]);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing was made");
}

#[test]
fn values_that_do_not_fit_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    check(serve(folder.path(), &["limits.connections_max=0"]), &["limits.connections_max"]);
    check(listening(folder.path(), "nowhere"), &["listen"]);
    check(serve(folder.path(), &["shutdown_grace=soon"]), &["shutdown_grace"]);
    // The development PKI's keys lie about: it is not for others to reach.
    check(listening(folder.path(), "0.0.0.0:0"), &["allow_development_pki_off_loopback"]);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing was made");
}

#[test]
fn a_truncated_store_is_refused_and_left_alone() {
    let folder = used();
    let path = folder.path().join("data/service.redb");
    let whole = fs::read(&path).unwrap();
    for length in [0, 9, 100, 5000, whole.len() / 2, whole.len() - 1] {
        let part = &whole[..length];
        fs::write(&path, part).unwrap();
        check(quiet(folder.path()), &["service.redb"]);
    }
    fs::write(&path, "this is no database, whatever its name says").unwrap();
    check(quiet(folder.path()), &["service.redb"]);
    // What was cut off was put back: it starts.
    fs::write(&path, whole).unwrap();
    Serving::start(folder.path(), &[]).kill();
}

#[test]
fn a_truncated_hub_is_refused() {
    let folder = used();
    let files: Vec<_> = fs::read_dir(folder.path().join("data")).unwrap().map(|entry| entry.unwrap().path()).collect();
    let hub = files.iter().find(|path| path.to_string_lossy().contains("hub-a")).expect("hub-a has a file");
    let whole = fs::read(hub).unwrap();
    fs::write(hub, &whole[..whole.len() / 2]).unwrap();
    check(quiet(folder.path()), &["hub-a"]);
}

#[test]
fn a_store_of_a_newer_format_is_refused_and_left_alone() {
    let folder = used();
    let path = folder.path().join("data/service.redb");
    {
        let database = redb::Database::open(&path).unwrap();
        let transaction = database.begin_write().unwrap();
        let table = redb::TableDefinition::<&[u8], &[u8]>::new("meta");
        let newer = 999_u64.to_be_bytes();
        transaction.open_table(table).unwrap().insert(&b"format"[..], &newer[..]).unwrap();
        transaction.commit().unwrap();
    }
    check(quiet(folder.path()), &["service.redb", "format 999", "newer version"]);
    check(quiet(folder.path()), &["format 999"]);
}

#[test]
fn a_store_that_another_process_holds_is_refused_and_that_process_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let serving = Serving::start(folder.path(), &[]);
    check(quiet(folder.path()), &["service.redb", "in use by another process"]);
    let (said, ended) = serving.stop();
    assert!(ended.success(), "{said}");
}

#[test]
fn an_address_that_is_taken_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    check(listening(folder.path(), &address.to_string()), &[&address.to_string(), "listened on"]);
}

#[test]
fn a_broken_certificate_folder_is_refused() {
    let folder = used();
    fs::remove_file(folder.path().join("certs/operator-ca.key")).unwrap();
    check(quiet(folder.path()), &["operator-ca.key"]);
}
