//! `.ci/readme-blocks` on READMEs that are right and wrong, with a stand-in for the binary.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// Prints a table, fails when asked to, and otherwise waits to be ended.
const STAND_IN: &str = r#"#!/usr/bin/env bash
case ${1-} in
  list) printf 'ID     SINCE\nhub-a  2026-01-01T00:00:00Z\n\nhub-b  2026-01-02T00:00:00Z\n' ;;
  fail) echo 'error: no such hub' >&2; exit 3 ;;
  variables) compgen -e | grep -c '^REHOME_' || true ;;
esac
"#;

/// Runs the script on a README; gives its exit code's verdict and what it printed.
fn run(readme: &str) -> (bool, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let stand_in = folder.path().join("bin/rehome");
    fs::create_dir(folder.path().join("bin")).expect("bin");
    fs::write(&stand_in, STAND_IN).expect("the stand-in");
    fs::set_permissions(&stand_in, fs::Permissions::from_mode(0o755)).expect("executable");
    fs::write(folder.path().join("README.md"), readme).expect("the README");
    let output = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join(".ci/readme-blocks"))
        .arg("--bin")
        .arg(folder.path().join("bin"))
        .arg("--work")
        .arg(folder.path().join("work"))
        .arg(folder.path().join("README.md"))
        .env("REHOME_LISTEN", "must not reach a block")
        .output()
        .expect("bash runs the script");
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
}

fn check(readme: &str, last_line: &str, told: &str) {
    let (succeeded, printed) = run(readme);
    assert_eq!(printed.lines().last(), Some(last_line), "{readme}\n---\n{printed}");
    assert_eq!(succeeded, last_line.ends_with(" 0 failed"), "{readme}\n---\n{printed}");
    assert!(printed.contains(told), "{readme}\n---\n{printed}");
}

#[test]
fn blocks_that_hold() {
    for readme in [
        "```sh\nrehome list\n```",
        "```sh\nrehome list\n```\n\nIt prints:\n\n```text\nID SINCE\nhub-a <time>\nhub-b …\n```",
        "```sh\nrehome list\n```\n```text\n…\nhub-b 2026-01-02T00:00:00Z\n```",
        "```sh\nrehome list\n```\n```text\nID   SINCE\n…\n```",
        "```sh\nX=1 timeout 5 rehome list | grep hub-a # which one\n```\n```text\nhub-a <since>T<time>\n```",
        "```sh fails\nrehome fail\n```\n```text\nerror: no such hub\n```",
        "```sh\nrehome variables\n```\n```text\n0\n```",
        "```sh\necho kept >file\nrehome list\n```\n```sh\nrehome list >/dev/null && cat file\n```\n```text\n…\n```",
    ] {
        let blocks = readme.matches("```sh").count();
        check(readme, &format!("{blocks} passed, 0 failed"), "ok");
    }
}

#[test]
fn blocks_that_do_not_hold() {
    for (readme, told) in [
        ("```sh\nrehome list\n```\n```text\nID SINCE\nhub-c <time>\n```", "expected: hub-c <time>"),
        ("```sh\nrehome list\n```\n```text\nID SINCE\n```", "expected: (the end)"),
        ("```sh\nrehome list\n```\n```text\n…\nhub-b <time>\nhub-c\n```", "got:      (the end)"),
        ("```sh\nrehome list\n```\n```text\n…\nhub-b\n```", "prints something else"),
        ("```sh\nrehome fail\n```", "exit code 3"),
        ("```sh\nrehome fail\nrehome list\n```", "exit code 3"),
        ("```sh\nrehome fail | grep hub\n```", "exit code"),
        ("```sh fails\nrehome list\n```", "should have failed"),
        ("```sh quietly\nrehome list\n```", "unknown flag quietly"),
        ("```console\n$ rehome list\n```", "never run"),
        ("```bash\nrehome list\n```", "never run"),
        ("```\nfor x in 1; do :; done; ./target/release/rehome list\n```", "never run"),
        ("```shell\ngrpcurl localhost:1 list\n```", "never run"),
        ("```text\nrehome list\n```", "never run"),
        ("```sh\nrehome list\n```\n# Heading\n```text\nrehome list\n```", "never run"),
        ("```console\n$ cargo run --release -- demo\n```", "never run"),
        ("```sh\nrehome list\n", "does not end"),
        ("# Nothing to run\n\n```sh\ncargo test\n```\n```toml\n# rehome reads this\n```", "no command block"),
    ] {
        let (succeeded, printed) = run(readme);
        assert!(!succeeded, "{readme}\n---\n{printed}");
        assert!(printed.contains(told), "{readme}\n---\n{printed}");
        assert!(printed.lines().last().is_some_and(|line| line.ends_with(" 1 failed")), "{readme}\n---\n{printed}");
    }
}

#[test]
fn a_server_needs_its_port_to_itself() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("bound").port();
    check(&format!("```sh server={port}\nrehome list\n```"), "0 passed, 1 failed", "taken by something else");
    drop(taken);
    check(&format!("```sh server={port}\nrehome fail\n```"), "0 passed, 1 failed", "does not answer");
}
