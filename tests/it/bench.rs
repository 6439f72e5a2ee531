//! The load generator: every scenario runs against a server of its own, and nothing fails.

use std::process::{Command, Stdio};

use serde_json::Value;

#[tokio::test]
async fn every_scenario_is_played() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_rehome"));
    command.env_clear().current_dir(folder.path()).stdin(Stdio::null());
    command.args(["bench", "--devices", "12", "--in-flight", "3", "--for", "1s", "--dir", "bench", "--json"]);
    let scenarios = ["first", "warm", "cold", "move-migrate", "tpm", "twin-push", "mix", "storm-move", "restart"];
    command.args(scenarios).args(["--share", "0.5"]);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert!(output.status.success(), "{output:?}");
    let rows: Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows = rows.as_array().unwrap();
    assert!(rows.len() >= 13, "{rows:?}");
    for row in rows {
        assert!(row["operations"].as_u64() > Some(0), "{row}");
        assert_eq!(row["failed"].as_object().map(serde_json::Map::len), Some(0), "{row}");
        let name = row["scenario"].as_str().unwrap();
        if name.starts_with("cold") || name.starts_with("storm") {
            assert_eq!(
                (&row["full_handshakes"], row["resumed_handshakes"].as_u64()),
                (&row["operations"], Some(0)),
                "{row}"
            );
        }
        if name.starts_with("move") && cfg!(target_os = "linux") {
            assert!(row["syncs"].as_f64() > Some(0.0) && row["written_bytes"].as_f64() > Some(0.0), "{row}");
        }
    }
    assert!(!folder.path().join("bench").exists(), "what was made is removed");
}
