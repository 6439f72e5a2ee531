//! Command lines and what they mean.

use clap::CommandFactory as _;

use super::*;

fn parsed(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(std::iter::once("rehome").chain(line.split_whitespace()))
}

#[test]
fn the_definition_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn command_lines_are_understood() {
    for line in [
        "serve",
        "demo",
        "demo --dir d --keep --json",
        "serve --listen 127.0.0.1:9443 --data-dir d --metrics-listen off --set log.format=json --certs pki",
        "connection-string service",
        "connection-string service --policy reader --secondary --reveal --json",
        "connection-string hub hub-a --data-dir d --config rehome.toml --reveal",
        "connection-string device dev-1",
        "hub list",
        "hub list --json",
        "--json hub list",
        "hub link hub-c --weight 3 --location -33.9,18.4 --capacity 10 --calls-per-second 5",
        "hub update hub-a --no-capacity --etag v3",
        "hub drain hub-a",
        "hub activate hub-a --etag v1",
        "hub retire hub-a",
        "hub unlink hub-a --force",
        "hub take-down hub-a",
        "hub bring-up hub-a",
        "enroll create dev-1 --certificate a.pem",
        "enroll create dev-1 --certificate a.pem --secondary b.pem --reprovision none --device-id pump --disabled",
        "enroll list --limit 5",
        "enroll import devices.csv",
        "enroll import - --format csv --reprovision reset --hub hub-a --skip-existing --faults 5 --json",
        "enroll export",
        "enroll update dev-1 --no-secondary --any-hub",
        "enroll disable dev-1 --etag v2",
        "group create plant --certificate ca.pem --allocation lowest-latency --hub a --hub b",
        "group delete plant",
        "enroll create pump-1 --endorsement-key pump-1.ek --storage-root-key pin-first",
        "enroll create pump-1 --endorsement-key pump-1.ek --pcr 7=0000000000000000000000000000000000000000000000000000000000000000 --pcr-mode audit",
        "group create tpms --endorsement-ca maker.pem --make INTC --make id:49465800/SLB9670",
        "device reset-storage-root-key pump-1",
        "device list --hub hub-a --status failed --group plant --policy sticky --pinned --limit 3",
        "device list --pinned=false",
        "device show dev-1",
        "device history dev-1 --generation 7",
        "device explain dev-1",
        "device reprovision dev-1",
        "device reprovision dev-1 --to hub-b --expires 7d --reason floods --wait",
        "device undo dev-1",
        "device undo dev-1 --move 7 --restore-twin --expires 7d --reason floods --wait",
        "device history dev-1 --state 7",
        "device resolve dev-1 --move 7 retry --reason mended",
        "device resolve dev-1 --move 7 --effect delete --hub hub-a abandon --reason gone",
        "device forget-late-twin dev-1 --move 7",
        "device unpin dev-1",
        "device revoke dev-1 --reason stolen",
        "device delete dev-1 --yes",
        "twin get dev-1",
        "twin get pump --hub hub-a",
        "twin list --hub hub-a",
        "twin patch dev-1 --desired {} --tags @tags.json --replace --etag v1",
        "twin patch dev-1 --as-device --reported @-",
        "twin watch dev-1 --cert a.pem --key a.key",
        "twin disable dev-1 --reason floods",
        "register --id dev-1 --cert a.pem --key a.key --sdk c/1.2.8 --latency hub-a=3 --api-version 2018-04-01",
        "register --tpm /dev/tpmrm0",
        "register --tpm unix:s --tpm-key ecc-p256 --id dev-1",
        "tpm show",
        "tpm show --tpm /dev/tpmrm0 --tpm-key ecc-p384 --out enroll --json",
        "tpm show --tpm tcp:localhost:2321",
        "audit list --action hub_linked --registration dev-1",
        "audit show 0123456789abcdef0123456789abcdef",
        "store backup out",
        "store check rehome-data",
        "store compact rehome-data/service.redb",
        "pki ca plant-ca --days 30 --key-type ed25519",
        "pki ca below --below certs/plant-ca",
        "pki device dev-1 --authority certs/plant-ca --out .",
        "pki operator ada --role reader --role backend --hub hub-a",
        "pki server localhost 127.0.0.1",
        "hub list --server https://rehome.example:7443 --certs pki --ca other.pem",
        "bench",
        "bench warm cold move-reset --devices 5 --in-flight 2 --for 1s --rounds 3 --share 0.7 --twin-bytes 100 --json",
        "bench storm --rate 100.5 --dir d --keep --set actors.arbiters=1",
        "bench mix --running --server-process 7 --server-metrics 127.0.0.1:9464 --server https://x:1",
    ] {
        assert!(parsed(line).is_ok(), "{line}: {}", parsed(line).unwrap_err());
    }
}

#[test]
fn command_lines_that_mean_nothing_are_refused() {
    for line in [
        "",
        "serve --set x",
        "enroll create pump-1",
        "enroll create pump-1 --certificate a.pem --endorsement-key pump-1.ek",
        "enroll create pump-1 --endorsement-key pump-1.ek --pcr 7=00",
        "group create tpms --certificate a.pem --make INTC",
        "register",
        "register --tpm elsewhere",
        "register --tpm /dev/tpm0 --tpm-key rsa",
        "serve somewhere",
        "hub",
        "hub show",
        "hub show Hub-A",
        "hub link hub-c --weight 0",
        "hub link hub-c --weight 1001",
        "hub link hub-c --location 91,0",
        "hub link hub-c --calls-per-second 0",
        "hub update hub-a --capacity 1 --no-capacity",
        "enroll create dev-1",
        "enroll create -dev- --certificate a.pem",
        "enroll create dev-1 --certificate a.pem --reprovision move",
        "enroll update dev-1 --secondary a.pem --no-secondary",
        "enroll list --limit 0",
        "enroll import",
        "enroll import x --format yaml",
        "enroll export x",
        "bench everything",
        "bench --devices 0",
        "bench --rate 0",
        "bench --share 1.1",
        "bench --share 0.7 --rate 5",
        "bench --running --dir d",
        "bench --server-process 7",
        "group create plant --certificate ca.pem --device-id x",
        "device list --status moved",
        "device reprovision dev-1 --expires 7d",
        "device reprovision dev-1 --to hub-b --expires soon",
        "twin list",
        "twin get dev-1 --hub hub-a --as-device",
        "enroll enable dev-1 --etag 3",
        "twin patch dev-1 --reported {}",
        "twin patch dev-1 --as-device --desired {}",
        "register --cert a.pem --key a.key",
        "register --id dev-1 --cert a.pem",
        "register --id dev-1 --api-version 2018",
        "register --id dev-1 --sdk c",
        "audit show abc",
        "audit list --limit 0",
        "pki operator ada",
        "pki operator ada --role root",
        "pki ca x --purpose people",
        "pki ca x --below certs/a --purpose device",
        "pki device dev-1 --days 0",
        "pki server",
        "store backup",
        "store check",
        "teleport",
    ] {
        assert!(parsed(line).is_err(), "{line}");
    }
}

#[test]
fn values_reach_their_fields() {
    let Command::Device(device::DeviceCommand::Reprovision(reprovision)) =
        parsed("device reprovision dev-1 --to hub-b --expires 90s").unwrap().command
    else {
        panic!("another command");
    };
    assert_eq!(reprovision.to.map(|hub| hub.to_string()).as_deref(), Some("hub-b"));
    assert_eq!(reprovision.expires, Some("90s".parse().unwrap()));
    assert!(!reprovision.wait);

    let cli = parsed("twin get dev-1 --as-device --cert a.pem --key a.key --json --server https://x:1").unwrap();
    assert_eq!((cli.globals.json, cli.globals.server.as_deref()), (true, Some("https://x:1")));
    let place = twin::Place { id: "dev-1".to_owned(), hub: None };
    assert_eq!(cli.command, Command::Twin(twin::TwinCommand::Get(twin::Which { place, as_device: true })));
}

#[test]
fn every_command_explains_itself() {
    fn walk(command: &clap::Command) {
        let name = command.get_name();
        assert!(command.get_about().is_some(), "{name} has no description");
        for argument in command.get_arguments().filter(|argument| !argument.is_positional()) {
            let id = argument.get_id();
            assert!(argument.get_help().is_some() || id == "hub", "{name} --{id} has no help");
        }
        command.get_subcommands().for_each(walk);
    }
    walk(&Cli::command());
}

#[test]
fn a_service_that_is_not_there_is_said_so() {
    let folder = tempfile::tempdir().unwrap();
    let certs = folder.path().display();
    let missing = parsed(&format!("hub list --certs {certs}")).unwrap().outcome().unwrap_err();
    assert!(format!("{missing:#}").contains("server-ca.pem"), "{missing:#}");
    // A port that was free a moment ago: nobody listens there.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for line in
        ["ca server-ca --purpose server", "ca operator-ca --purpose operator", "operator operator --role operator"]
    {
        parsed(&format!("pki {line} --certs {certs} --json")).unwrap().outcome().unwrap();
    }
    let line = format!("hub list --certs {certs} --server https://127.0.0.1:{port}");
    let refused = parsed(&line).unwrap().outcome().unwrap_err();
    let hint = advice::of(&refused).and_then(|advised| advised.hint).unwrap_or_default();
    assert!(hint.contains("rehome serve"), "{refused:#}: {hint}");
}
