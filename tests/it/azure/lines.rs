//! `rehome connection-string`: what it prints opens what it says.

use std::process::{Command, Output};

use data_encoding::BASE64;
use rehome::domain::TokenKey;
use serde_json::{Value, json};

use super::backend::{Backend, HUB_OWNER, HUB_VERSION, OWNER, VERSION, in_an_hour, token, world};
use crate::world::{World, group};

fn run(world: &World, arguments: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rehome"));
    command.current_dir(world.folder());
    command.args(["--server", &format!("https://{}", world.site.address), "--certs"]).arg(world.certs());
    command.arg("connection-string").args(arguments.split_whitespace()).arg("--data-dir").arg(world.data());
    command.output().unwrap()
}

fn printed(world: &World, arguments: &str) -> Value {
    let output = run(world, &format!("{arguments} --json"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The parts of a line by their names.
fn part<'l>(line: &'l Value, name: &str) -> &'l str {
    let parts = line["connection_string"].as_str().unwrap().split(';');
    parts.filter_map(|part| part.split_once('=')).find(|(known, _)| *known == name).unwrap().1
}

/// A back end that has nothing but the line.
fn backend<'w>(world: &'w World, line: &Value) -> Backend<'w> {
    let host = part(line, "HostName").to_owned();
    let key = BASE64.decode(part(line, "SharedAccessKey").as_bytes()).unwrap();
    let name = part(line, "SharedAccessKeyName");
    let token = token(&host, in_an_hour(), &TokenKey::new(&key).unwrap(), name);
    Backend { world, host, token: Some(token) }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_printed_opens_what_it_says() {
    let world = world().await;
    world.enroll(&group("plant", &world.site.device_ca())).await;
    world.registered("meter-1").await;

    let line = printed(&world, "service --reveal");
    assert_eq!(part(&line, "SharedAccessKeyName"), OWNER);
    let groups = format!("/enrollmentGroups/query?{VERSION}");
    assert_eq!(backend(&world, &line).post(&groups, &Value::Null).await.status, 200);
    let secondary = printed(&world, "service --secondary --reveal");
    assert_ne!(part(&secondary, "SharedAccessKey"), part(&line, "SharedAccessKey"));
    assert_eq!(backend(&world, &secondary).post(&groups, &Value::Null).await.status, 200);

    let line = printed(&world, "hub hub-a --reveal");
    assert_eq!((part(&line, "HostName"), part(&line, "SharedAccessKeyName")), ("hub-a.localhost", HUB_OWNER));
    let devices = format!("/devices?{HUB_VERSION}");
    assert_eq!(backend(&world, &line).get(&devices).await.status, 200);
    let reader = printed(&world, "hub hub-a --policy registryRead --reveal");
    assert_eq!(reader["permissions"], json!(["RegistryRead"]));
    assert_eq!(backend(&world, &reader).get(&devices).await.status, 200);
    assert_eq!(backend(&world, &reader).post(&devices, &json!([])).await.status, 401);
    let elsewhere = Backend { host: "hub-b.localhost".to_owned(), ..backend(&world, &line) };
    assert_eq!(elsewhere.get(&devices).await.status, 401);

    let device = printed(&world, "device meter-1");
    assert_eq!(device["connection_string"], "HostName=hub-a.localhost;DeviceId=meter-1;x509=true");
    assert_eq!((&device["provisioning_host"], &device["id_scope"]), (&json!("localhost"), &json!("0ne00REHOME")));

    let by_key =
        json!({ "attestation": { "type": "symmetricKey" }, "allocationPolicy": "static", "iotHubs": ["hub-b"] });
    let made = Backend::owner(&world).put(&format!("/enrollmentGroups/lamps?{VERSION}"), &by_key).await;
    let master = made.body["attestation"]["symmetricKey"]["primaryKey"].as_str().unwrap().to_owned();
    let master = TokenKey::new(&BASE64.decode(master.as_bytes()).unwrap()).unwrap();
    let own = rehome::client::device_key(&master, "lamp-1");
    let lamp = world.site.caller_as("lamp-1", None).await.by_key(own.clone());
    crate::world::in_time(lamp.register(&Default::default(), rehome::client::Patience::Tries(1), |_| ()))
        .await
        .unwrap();
    let device = printed(&world, "device lamp-1 --reveal");
    assert_eq!(part(&device, "SharedAccessKey"), BASE64.encode(own.secret()));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_shown_to_who_asks_for_it() {
    let world = world().await;
    let line = printed(&world, "service --reveal");
    let key = part(&line, "SharedAccessKey").to_owned();
    for arguments in
        ["service", "service --json", "hub hub-a", "service --policy nobody", "hub hub-x", "device meter-9"]
    {
        let output = run(&world, arguments);
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert!(!said.contains(&key), "{arguments}: {said}");
        assert_eq!(
            output.status.success(),
            !arguments.contains("nobody") && !arguments.contains("-x") && !arguments.contains("-9")
        );
    }
    assert_eq!(part(&printed(&world, "service"), "SharedAccessKey"), "****");

    // Others than its owner may not be able to read the file.
    let file = world.data().join("policies.toml");
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let output = run(&world, "service --reveal");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("chmod 600"), "{said}");
    world.stop().await;
}
