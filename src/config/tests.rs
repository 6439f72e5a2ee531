//! Tables: what is taken, what is refused with which line, and which layer wins.

use super::*;

fn variables(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
}

fn load(file: &str, environment: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<Config, ConfigFault> {
    let flags = flags.iter().fold(Flags::default(), |flags, (key, text)| flags.set(*key, *text));
    Config::from_layers(Some(("rehome.toml", file)), &variables(environment), &flags.values)
}

fn refusal(result: Result<Config, ConfigFault>) -> String {
    let line = result.expect_err("a refusal").to_string();
    assert_eq!(line.lines().count(), 1, "{line}");
    line
}

#[test]
fn no_configuration_is_a_configuration() {
    let config = Config::defaults().unwrap();
    assert_eq!(config.listen.to_string(), "127.0.0.1:7443");
    assert_eq!(config.metrics_listen.unwrap().to_string(), "127.0.0.1:9464");
    assert_eq!((config.data_dir, config.certs_dir), ("rehome-data".into(), "certs".into()));
    assert_eq!(config.tls, Tls::DevelopmentPki);
    assert_eq!(config.client.server, "https://127.0.0.1:7443");
    let hubs: Vec<String> = config.hubs.initial.iter().map(|hub| format!("{} {}", hub.id, hub.host_name)).collect();
    assert_eq!(hubs, ["hub-a hub-a.localhost", "hub-b hub-b.localhost"]);
    assert_eq!((config.actors.arbiters, config.actors.passivate_after), (None, Duration::from_secs(60)));
}

#[test]
fn the_later_layer_wins() {
    let file =
        "listen = \"127.0.0.1:1\"\n[limits]\nconnections_max = 11\ndevice_queue_max = 12\nkeepalive_every = \"1m\"";
    let environment = [("REHOME_LIMITS_CONNECTIONS_MAX", "21"), ("REHOME_LIMITS_DEVICE_QUEUE_MAX", "22")];
    let config = load(file, &environment, &[("limits.connections_max", "31")]).unwrap();
    assert_eq!(config.limits.connections_max, 31, "the flag");
    assert_eq!(config.limits.device_queue_max, 22, "the variable");
    assert_eq!(config.limits.keepalive_every, Duration::from_secs(60), "the file");
    assert_eq!(config.listen.port(), 1, "the file");
    assert_eq!(config.limits.store_group_max, 256, "the default");
}

#[test]
fn what_a_file_may_say() {
    let file = r#"
        data_dir = "/var/lib/rehome"
        listen = "0.0.0.0:443"
        metrics_listen = "off"
        [tls]
        cert = "server.pem"
        key = "server.key"
        operator_ca = "operators.pem"
        [log]
        format = "json"
        [hubs]
        initial = ["eu=eu.hubs.example", "us=us.hubs.example"]
        [actors]
        arbiters = 3
        passivate_after = "1h 30m"
        [webhook]
        allow_loopback_http = true
    "#;
    let config = load(file, &[], &[]).unwrap();
    assert_eq!(config.metrics_listen, None);
    assert!(matches!(config.tls, Tls::Own { .. }));
    assert_eq!(config.log.format, LogFormat::Json);
    assert_eq!(config.hubs.initial[1].host_name, "us.hubs.example");
    assert_eq!(config.actors.arbiters, NonZeroUsize::new(3));
    assert_eq!(config.actors.passivate_after, Duration::from_secs(5400));
    assert!(config.webhook.allow_loopback_http);
    assert_eq!(config.client.server, "https://127.0.0.1:443");
}

#[test]
fn variables_and_flags_are_read_as_text() {
    let environment = [
        ("REHOME_DATA_DIR", "42"),
        ("REHOME_LOG_FILTER", "info,rehome::actors=debug"),
        ("REHOME_HUBS_INITIAL", "eu=eu.example, us=us.example,"),
        ("REHOME_WEBHOOK_ALLOW_LOOPBACK_HTTP", "true"),
        ("REHOME_TLS_CERT", ""),
        ("REHOME_SIM_SEED", "7"),
        ("REHOME_KILLS", "100"),
        ("REHOME_REQUIRE_SWTPM", "1"),
        ("HOME", "/root"),
    ];
    let flags =
        [("store.cache_bytes", "1_048_576"), ("allow_development_pki_off_loopback", "true"), ("listen", "[::]:1")];
    let config = load("", &environment, &flags).unwrap();
    assert_eq!(config.data_dir, PathBuf::from("42"));
    assert_eq!(config.log.filter, "info,rehome::actors=debug");
    assert_eq!(config.hubs.initial.len(), 2);
    assert_eq!(config.store.cache_bytes, 1 << 20);
    assert_eq!(config.tls, Tls::DevelopmentPki, "an empty variable counts as not set");
    assert_eq!(config.client.server, "https://[::1]:1");
}

#[test]
fn unknown_keys_are_named() {
    for (file, line) in [
        ("colour = 1", "unknown key colour in rehome.toml"),
        ("listem = \"x\"", "unknown key listem in rehome.toml, did you mean listen?"),
        ("[log]\nformta = \"json\"", "unknown key log.formta in rehome.toml, did you mean log.format?"),
        ("[limits]\nnope_nope_nope = 1", "unknown key limits.nope_nope_nope in rehome.toml"),
        ("[limit]\nconnections_max = 1", "unknown key limit in rehome.toml"),
        ("[log.format]\nkind = 1", "log.format in rehome.toml is not a text: a table"),
        ("[listen]\nport = 1", "listen in rehome.toml is not a text: a table"),
        ("log = \"json\"", "unknown key log in rehome.toml"),
        ("config = \"x\"", "unknown key config in rehome.toml"),
    ] {
        assert_eq!(refusal(load(file, &[], &[])), line, "{file}");
    }
    for (name, line) in [
        ("REHOME_LISTEN_", "unknown key REHOME_LISTEN_ in the environment, did you mean REHOME_LISTEN?"),
        ("REHOME_PORT_OF_CALL", "unknown key REHOME_PORT_OF_CALL in the environment"),
        ("REHOME_LOG__FORMAT", "unknown key REHOME_LOG__FORMAT in the environment, did you mean REHOME_LOG_FORMAT?"),
        ("REHOME_KILL", "unknown key REHOME_KILL in the environment"),
    ] {
        assert_eq!(refusal(load("", &[(name, "x")], &[])), line);
    }
    assert_eq!(refusal(load("", &[], &[("log.levle", "x")])), "unknown key log.levle in the command line");
}

#[test]
fn bad_values_are_refused_with_what_would_be_right() {
    for (file, line) in [
        (
            "[limits]\nconnections_max = 0",
            "limits.connections_max in rehome.toml is not a whole number from 1 to 1000000: 0",
        ),
        (
            "[limits]\nconnections_max = -1",
            "limits.connections_max in rehome.toml is not a whole number from 1 to 1000000: -1",
        ),
        (
            "[limits]\nconnections_max = 1.5",
            "limits.connections_max in rehome.toml is not a whole number from 1 to 1000000: 1.5",
        ),
        (
            "[limits]\nconnections_max = \"9\"",
            "limits.connections_max in rehome.toml is not a whole number from 1 to 1000000: \"9\"",
        ),
        (
            "[limits]\nkeepalive_every = 30",
            "limits.keepalive_every in rehome.toml is not a span as \"30s\" or \"1h 30m\", from 1s to 1d: 30",
        ),
        (
            "[limits]\nkeepalive_every = \"2d\"",
            "limits.keepalive_every in rehome.toml is not a span as \"30s\" or \"1h 30m\", from 1s to 1d: \"2d\"",
        ),
        (
            "webhook.allow_loopback_http = \"yes\"",
            "webhook.allow_loopback_http in rehome.toml is not true or false: \"yes\"",
        ),
        ("hubs.initial = [1]", "hubs.initial in rehome.toml is not a list of texts: an array"),
        ("hubs.initial = []", "hubs.initial is empty: at least one hub is needed"),
        ("hubs.initial = [\"a\"]", "hubs.initial holds \"a\", which is not id=host name"),
        ("hubs.initial = [\"a=a b\"]", "hubs.initial holds \"a=a b\": \"a b\" is not a host name"),
        ("hubs.initial = [\"a=a\", \"a=b\"]", "hubs.initial names a twice"),
        ("azure.host_name = \"a b\"", "azure.host_name is not a host name: \"a b\""),
        ("azure.authorities = [\"root\"]", "azure.authorities holds \"root\", which is not name=file"),
        ("azure.authorities = [\"a=x\", \"a=y\"]", "azure.authorities names a twice"),
        ("listen = \"localhost\"", "listen is not an address with a port, as 127.0.0.1:7443: \"localhost\""),
        ("listen = 7443", "listen in rehome.toml is not a text: 7443"),
        ("log.format = \"xml\"", "log.format is neither human nor json: \"xml\""),
        ("data_dir = \"\"", "data_dir is empty"),
        ("tls.cert = \"a\"", "tls.cert, tls.key and tls.operator_ca go together: set all three or none"),
        ("client.key = \"a\"", "client.cert and client.key go together: set both or none"),
        ("client.server = \"http://x\"", "client.server is not https://host:port: \"http://x\""),
        (
            "metrics_listen = \"0.0.0.0:9464\"",
            "metrics_listen is 0.0.0.0:9464: metrics are served without TLS and so on loopback only, or off",
        ),
        (
            "tpm.identity_handle = \"81000100\"",
            "tpm.identity_handle is not a persistent handle, as 0x81000100: \"81000100\"",
        ),
        (
            "tpm.endorsement_handle = \"0x80000000\"",
            "tpm.endorsement_handle is not a persistent handle, as 0x81000100: \"0x80000000\"",
        ),
        ("tpm.identity_handle = \"0x81000101\"", "the handles of tpm must differ from each other"),
    ] {
        assert_eq!(refusal(load(file, &[], &[])), line, "{file}");
    }
    assert_eq!(
        refusal(load("", &[("REHOME_LIMITS_DEVICE_QUEUE_MAX", "many")], &[])),
        "REHOME_LIMITS_DEVICE_QUEUE_MAX in the environment is not a whole number from 1 to 10000: \"many\""
    );
    assert_eq!(
        refusal(load("", &[], &[("webhook.allow_loopback_http", "on")])),
        "webhook.allow_loopback_http in the command line is not true or false: \"on\""
    );
}

#[test]
fn the_development_pki_stays_on_loopback() {
    let line = refusal(load("listen = \"0.0.0.0:7443\"", &[], &[]));
    assert!(line.starts_with("listen is 0.0.0.0:7443, which others can reach"), "{line}");
    for allowed in ["listen = \"[::1]:7443\"", "listen = \"0.0.0.0:7443\"\nallow_development_pki_off_loopback = true"] {
        assert!(load(allowed, &[], &[]).is_ok(), "{allowed}");
    }
}

#[test]
fn a_broken_file_is_named_with_its_line() {
    for (file, start) in [
        ("listen = \"127.0.0.1:1\"\nlisten =", "rehome.toml, line 2: "),
        ("a = 1\na = 2", "rehome.toml, line 2: "),
        ("[log", "rehome.toml, line 1: "),
    ] {
        let line = refusal(load(file, &[], &[]));
        assert!(line.starts_with(start) && line.len() > start.len(), "{line}");
    }
}

#[test]
fn a_named_file_must_exist() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rehome.toml");
    let flags = Flags { file: Some(file.clone()), ..Flags::default() };
    let line = refusal(Config::load(&flags));
    assert_eq!(line, format!("cannot read the configuration file {}", file.display()));
    std::fs::write(&file, "log.filter = \"warn\"").unwrap();
    assert_eq!(Config::load(&flags).unwrap().log.filter, "warn");
}

#[test]
fn the_draft_and_the_table_name_the_same_settings() {
    // Every setting set: a key that only the table has is refused by the draft; one that only the draft has was missing
    // from the defaults already.
    let flags: Vec<(String, String)> = SETTINGS
        .iter()
        .map(|setting| match (setting.default, setting.key) {
            ("", "client.server") => "https://localhost:1",
            ("", "tpm.endorsement_handle") => "0x81010002",
            ("", "azure.authorities") => "root=ca.pem",
            ("", _) => "file.pem",
            (default, _) => default,
        })
        .zip(SETTINGS)
        .map(|(text, setting)| (setting.key.to_owned(), text.to_owned()))
        .collect();
    let config = Config::from_layers(None, &BTreeMap::new(), &flags).unwrap();
    assert!(matches!(config.tls, Tls::Own { .. }));
    assert!(config.client.identity.is_some() && config.client.ca.is_some() && config.webhook.extra_ca.is_some());
    assert_eq!((config.tpm.endorsement_handle, config.tpm.identity_handle), (Some(0x8101_0002), 0x8100_0100));
    assert!(config.tpm.owner_auth_file.is_some() && config.tpm.endorsement_auth_file.is_some());
}
