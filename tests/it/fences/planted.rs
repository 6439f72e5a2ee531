//! The fences tested on code that breaks them, and on code that only looks so.

use super::judge::judge;
use super::judge_tree;
use super::tables::{CONFINED, ROOMS};

/// Judges a snippet as the file and compares the rules that it breaks, in order of lines.
fn check(file: &str, snippet: &str, expected: &[&str]) {
    let violations = judge(file, snippet, false);
    let rules: Vec<&str> = violations.iter().map(|violation| violation.rule.as_str()).collect();
    assert_eq!(rules, expected, "{file}:\n{snippet}");
}

#[test]
fn imports_that_leave_a_room() {
    for (file, snippet, rule) in [
        ("domain/hub.rs", "use crate::policy::decide;", "`domain` may not use `policy::decide`"),
        ("policy/mod.rs", "use crate::moves;", "`policy` may not use `moves`"),
        ("attestation/x509.rs", "use crate::ambient::Clock;", "`attestation` may not use `ambient::Clock`"),
        ("moves/step.rs", "use crate::store::Store;", "`moves` may not use `store::Store`"),
        ("ambient/clock.rs", "use crate::telemetry;", "`ambient` may not use `telemetry`"),
        ("telemetry/mod.rs", "use crate::config::Config;", "`telemetry` may not use `config::Config`"),
        ("wire/mod.rs", "use crate::service::Service;", "`wire` may not use `service::Service`"),
        ("store/mod.rs", "use crate::hubs::HubConnector;", "`store` may not use `hubs::HubConnector`"),
        ("store/mod.rs", "use crate::ambient::Clock;", "`store` may not use `ambient::Clock`"),
        ("hubs/embedded/mod.rs", "use crate::wire::X;", "`hubs` may not use `wire::X`"),
        ("allocators/webhook.rs", "use crate::policy::X;", "`allocators` may not use `policy::X`"),
        ("pki/mod.rs", "use crate::attestation::X;", "`pki` may not use `attestation::X`"),
        ("actors/device/mod.rs", "use crate::service::X;", "`actors` may not use `service::X`"),
        ("actors/device/mod.rs", "use crate::attestation::verify;", "`actors` may not use `attestation::verify`"),
        ("actors/mod.rs", "use crate::attestation;", "`actors` may not use `attestation`"),
        ("service/mod.rs", "use crate::allocators::Webhook;", "`service` may not use `allocators::Webhook`"),
        ("service/mod.rs", "use crate::pki::Authority;", "`service` may not use `pki::Authority`"),
        ("api/grpc/mod.rs", "use crate::store::Store;", "`api` may not use `store::Store`"),
        ("client/mod.rs", "use crate::attestation::x509::X;", "`client` may not use `attestation::x509::X`"),
        ("config/mod.rs", "use crate::store::Store;", "`config` may not use `store::Store`"),
        ("cli/serve.rs", "use crate::service::Service;", "`cli` may not use `service::Service`"),
        ("compose.rs", "use crate::cli::run;", "`compose` may not use `cli::run`"),
        ("main.rs", "use rehome::service::Service;", "`main` may not use `service::Service`"),
    ] {
        check(file, snippet, &[rule]);
    }
}

#[test]
fn every_way_to_write_a_path() {
    const STORE: &str = "`policy` may not use `store::Store`";
    for snippet in [
        "use crate::{domain::Hub, store::{Store}};",
        "use crate::{domain::{Hub, hub}, store::{error::Fault as _, Store}};",
        "fn f() { crate::store::Store::open(); }",
        "fn f(s: &dyn crate::store::Store) {}",
        "fn f() -> Vec<crate::store::Store> { vec![] }",
        "pub use crate::store::Store;",
        "pub(crate) use crate::store::Store;",
        "use crate::store::Store as S;",
        "use super::store::Store;",
        "use rehome::store::Store;",
        "use ::rehome::store::Store;",
        "use crate :: store\n:: Store;",
        "use self::super::store::Store;",
        "mod inner { use super::super::store::Store; }",
        "mod inner { mod deeper { fn f() { super::super::super::store::Store::open() } } }",
        "macro_rules! m { () => { $crate::store::Store } }",
        "impl crate::store::Store for X {}",
        "#[cfg(test)] mod tests { use crate::store::Store; } fn f() { crate::store::Store }",
        "#[cfg(test)] use crate::store::Memory; use crate::store::Store;",
        "#[cfg(test)] fn helper() { crate::store::Memory } use crate::store::Store;",
        "#[cfg(not(test))] mod x { use crate::store::Store; }",
        "use crate::r#store::Store;",
        "fn f() { let x = '\"'; crate::store::Store }",
        "fn f<'a>() { crate::store::Store }",
        "/* /* */ */ use crate::store::Store;",
    ] {
        let violations = judge("policy/mod.rs", snippet, false);
        assert!(
            violations.iter().any(|violation| violation.rule.starts_with(&STORE[..30])),
            "{snippet}: {violations:?}"
        );
        assert!(!violations.iter().any(|violation| violation.rule.contains("Memory")), "{snippet}: {violations:?}");
    }
}

#[test]
fn the_crate_as_a_whole_hides_rooms() {
    const RULE: &str = "`policy` names the whole crate";
    for snippet in [
        "use crate::*;",
        "use super::*;",
        "use crate as root;",
        "use crate::{self as root};",
        "extern crate self as root;",
        "mod inner { use super::super::*; }",
    ] {
        check("policy/mod.rs", snippet, &[RULE]);
    }
}

#[test]
fn rooms_pass_on_only_what_the_table_says() {
    check("service/mod.rs", "pub use crate::store::Store;", &["`service` re-exports `store::Store` of another room"]);
    check("service/mod.rs", "pub use crate::store::{AuditFilter, PageRequest};", &[]);
    check("service/mod.rs", "pub use crate::store::*;", &["`service` re-exports `store` of another room"]);
    check("actors/mod.rs", "pub(crate) use crate::hubs::X;", &["`actors` re-exports `hubs::X` of another room"]);
    check("client/mod.rs", "pub use crate::domain::Twin;", &[]);
    check("client/mod.rs", "pub use crate::wire::{RemoteFault, convert::HubRecord};", &[]);
    check("api/mod.rs", "pub use crate::wire::X;", &["`api` re-exports `wire::X` of another room"]);
    check("service/mod.rs", "pub use self::registration::Register; pub use super::service::x;", &[]);
}

#[test]
fn an_unknown_room_asks_for_a_row() {
    check("gadgets/mod.rs", "", &["`gadgets` is not a room of the import table"]);
    check("gadgets.rs", "", &["`gadgets` is not a room of the import table"]);
    check(
        "policy/mod.rs",
        "use crate::gadgets::X;",
        &["`policy` uses `crate::gadgets`, which is not a room of the import table"],
    );
    check("cli/mod.rs", "use crate::Config;", &["`cli` uses `crate::Config`, which is not a room of the import table"]);
    assert!(judge("gadgets.rs", "", false)[0].advice.contains("add a row"));
}

#[test]
fn what_is_confined() {
    for (file, snippet, rule) in [
        ("service/mod.rs", "use actix::prelude::*;", "actix outside `actors`"),
        ("compose.rs", "fn f() { actix_rt::System::new(); }", "actix outside `actors`"),
        ("store/memory.rs", "use redb::Database;", "redb outside `store::redb`, `hubs::embedded`"),
        ("hubs/scripted.rs", "fn f(db: redb::Database) {}", "redb outside `store::redb`, `hubs::embedded`"),
        ("compose.rs", "use tonic::transport::Server;", "tonic outside `wire`, `api::grpc`, `client`, `hubs::grpc`"),
        ("cli/hub.rs", "fn f(s: tonic::Status) {}", "tonic outside `wire`, `api::grpc`, `client`, `hubs::grpc`"),
        ("api/peer.rs", "use tonic_types::X;", "tonic outside `wire`, `api::grpc`, `client`, `hubs::grpc`"),
        ("cli/pki.rs", "use rcgen::KeyPair;", "rcgen outside `pki`"),
        ("api/grpc/mod.rs", "use axum::Router;", "axum outside `api::rest`"),
        ("api/rest/mod.rs", "use mqtt_proto::Pid;", "the MQTT codec outside `api::mqtt`"),
        ("actors/mod.rs", "fn f() { std::time::SystemTime::now(); }", "the clock outside `ambient`"),
        ("actors/mod.rs", "use std::time::Instant; fn f() { Instant::now(); }", "the clock outside `ambient`"),
        ("hubs/mod.rs", "use tokio::time; fn f() { time::Instant::now() }", "the clock outside `ambient`"),
        ("pki/mod.rs", "fn f() { T::now() } use std::time::SystemTime as T;", "the clock outside `ambient`"),
        ("store/mod.rs", "fn f() { g(Instant::now) }", "the clock outside `ambient`"),
        ("domain/time.rs", "fn f() { jiff::Timestamp::now() }", "the clock outside `ambient`"),
        ("pki/mod.rs", "use aws_lc_rs::rand::SystemRandom;", "randomness outside `ambient`"),
        ("pki/mod.rs", "use aws_lc_rs::{digest, rand}; ", "randomness outside `ambient`"),
        ("hubs/mod.rs", "fn f() { rand::random::<u8>() }", "randomness outside `ambient`"),
        ("domain/ids.rs", "fn f() { uuid::Uuid::new_v4() }", "randomness outside `ambient`"),
        ("service/mod.rs", "fn f() { println!(\"x\"); }", "printing outside `cli::output`"),
        ("cli/serve.rs", "fn f() { std::eprintln!(\"x\"); }", "printing outside `cli::output`"),
        ("store/mod.rs", "fn f() { dbg!(1); }", "printing outside `cli::output`"),
        ("cli/hub.rs", "use std::io; fn f() { io::stdout(); }", "printing outside `cli::output`"),
        ("cli/hub.rs", "use std::io::stdout; fn f() { stdout(); }", "printing outside `cli::output`"),
        ("main.rs", "fn main() { print!(\"x\"); }", "printing outside `cli::output`"),
        ("cli/hub.rs", "fn f() { std::io::stderr(); }", "standard error outside `cli::output`, `telemetry`"),
        ("cli/serve.rs", "fn f() { std::env::var(\"X\"); }", "the environment outside `config`"),
        ("cli/serve.rs", "use std::env; fn f() { env::var(\"X\"); }", "the environment outside `config`"),
        ("cli/serve.rs", "struct A { #[arg(long, env = \"X\")] x: u8 }", "the environment outside `config`"),
        ("client/mod.rs", "use hyper::client::conn;", "an HTTP client outside `allocators`"),
        ("service/mod.rs", "fn f() { metrics::counter!(\"x\"); }", "the metrics and log back ends outside `telemetry`"),
        ("policy/mod.rs", "#[path = \"../store/mod.rs\"] mod store;", "a module from another place outside anything"),
    ] {
        let rules: Vec<String> = judge(file, snippet, false).into_iter().map(|violation| violation.rule).collect();
        assert!(!rules.is_empty() && rules.iter().all(|found| found == rule), "{file}: {snippet}\n{rules:?}");
    }
}

#[test]
fn what_only_looks_like_a_violation() {
    for (file, snippet) in [
        ("policy/mod.rs", "// use crate::store::Store;\n/// [`crate::store::Store`]\n/* crate::store */"),
        ("policy/mod.rs", "const X: &str = \"crate::store::Store\"; const Y: &str = r#\"println!(\"x\")\"#;"),
        ("policy/mod.rs", "use crate::domain::{Hub, hub::{HubState, HubEvent}}; use super::policy::x;"),
        ("policy/mod.rs", "mod allocation; pub use allocation::choose_hub; pub use self::allocation::x;"),
        ("policy/allocation/mod.rs", "use super::reprovision::decide; use super::super::domain::Hub;"),
        ("policy/mod.rs", "#[cfg(test)] mod tests { use super::*; use crate::store::Memory; fn f() { println!() } }"),
        ("policy/mod.rs", "#[cfg(test)]\n#[allow(dead_code)]\npub(crate) mod tests { use crate::pki::Ca; }"),
        ("policy/mod.rs", "#[cfg(any(test, feature = \"testing\"))]\npub mod suite { use crate::store::Memory; }"),
        ("policy/mod.rs", "pub(crate) fn f() {} pub(in crate::policy) fn g() {} pub(super) struct X(pub(crate) u8);"),
        ("policy/mod.rs", "fn store() {} fn f() { store(); let redb = 1; self.actix(); x.now(); }"),
        ("policy/mod.rs", "mod rand; fn f() { rand::pick() }"),
        ("policy/mod.rs", "mod metrics; use metrics::Table; fn f() { metrics::count() }"),
        ("policy/mod.rs", "fn f(now: SystemTime, clock: Instant) { clock.now(); print(); a != b; }"),
        ("policy/mod.rs", "use std::collections::BTreeMap as Map; fn f() { Map::new(); env!(\"X\"); }"),
        ("policy/mod.rs", "fn f() -> impl Fn() + use<'_> {}"),
        ("actors/device/mod.rs", "use actix::prelude::*; use crate::attestation::{Verified}; use crate::store::X;"),
        ("actors/mod.rs", "fn f(v: crate::attestation::verified::Verified) {}"),
        ("store/redb/tables.rs", "use redb::{Database, TableDefinition};"),
        ("store/redb.rs", "use redb::{Database, TableDefinition}; use crate::ambient::{GroupWriter, WriterClosed};"),
        ("hubs/embedded.rs", "use redb::Database;"),
        ("hubs/grpc/mod.rs", "use crate::wire::X; use tonic::Status;"),
        ("api/grpc/mod.rs", "use tonic::Status; use tonic_health::server; use crate::wire::X;"),
        ("client/tpm.rs", "use crate::attestation::tpm::structures::X;"),
        ("config/mod.rs", "use crate::telemetry::Config; use crate::domain::HubId; fn f() { std::env::vars_os(); }"),
        ("compose.rs", "use crate::{actors, api, config, hubs, pki, service, store, telemetry};"),
        ("cli/output.rs", "fn f() { println!(); std::io::stdout(); std::io::stderr(); }"),
        ("cli/output/table.rs", "fn f() { print!(\"x\"); }"),
        ("main.rs", "fn main() { rehome::cli::run(); }"),
        ("lib.rs", "pub mod domain; pub mod ambient;"),
        ("ambient/clock.rs", "use std::time::SystemTime; fn f() { SystemTime::now() }"),
        ("allocators/webhook.rs", "use hyper::client::conn;"),
        ("telemetry/endpoint.rs", "use hyper::server::conn::http1; use hyper_util::rt::TokioIo;"),
    ] {
        check(file, snippet, &[]);
    }
}

#[test]
fn tests_take_time_from_ambient_too() {
    check(
        "policy/mod.rs",
        "#[cfg(test)] mod tests { fn f() { std::time::Instant::now(); } }",
        &["the clock outside `ambient`"],
    );
    check("service/mod.rs", "#[cfg(test)] mod tests { fn f() { Uuid::new_v4(); } }", &["randomness outside `ambient`"]);
}

#[test]
fn a_file_that_only_tests_load_is_test_code() {
    let file = |path: &str, text: &str| (path.to_owned(), text.to_owned());
    let tree = [
        file("service/mod.rs", "#[cfg(test)]\nmod world;\nmod fleet;"),
        file("service/world.rs", "use crate::pki::Ca;"),
        file("service/world/parts.rs", "use crate::pki::Ca;"),
        file("service/fleet.rs", "use crate::pki::Ca;"),
        file("store/mod.rs", "#![cfg(test)]\nuse crate::hubs::Scripted;"),
    ];
    let files: Vec<String> = judge_tree(&tree).into_iter().map(|violation| violation.file).collect();
    assert_eq!(files, ["service/fleet.rs"]);
}

#[test]
fn a_message_says_where_what_and_what_to_do() {
    let violations = judge("policy/mod.rs", "//! Doc.\n\nuse crate::store::Store;\n", false);
    assert_eq!(
        violations[0].to_string(),
        "policy/mod.rs:3: `policy` may not use `store::Store`\n    \
         `policy` may import domain; pass the value in, or move the code"
    );
}

#[test]
fn every_row_and_every_fence_has_a_plant() {
    let plants = include_str!("planted.rs");
    for row in ROOMS.iter().filter(|row| row.room != "lib") {
        assert!(plants.contains(&format!("\"`{}` ", row.room)), "no violation is planted for `{}`", row.room);
    }
    for confined in CONFINED {
        assert!(plants.contains(&format!("\"{} outside", confined.what)), "nothing is planted for {}", confined.what);
    }
}
