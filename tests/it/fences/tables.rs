//! The two tables, as data. A new room is a new row; a new fence is a new line.

/// One room that another may import.
#[derive(Debug, Clone, Copy)]
pub struct Import {
    pub room: &'static str,
    pub part: Part,
    /// Empty, or the only part of the importing room that may.
    pub from: &'static [&'static str],
}

/// How much of the room.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Part {
    All,
    /// Paths that name this item.
    Item(&'static str),
    /// Paths that start with this module.
    Module(&'static str),
}

/// What one room may import.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    pub room: &'static str,
    pub may: May,
}

#[derive(Debug, Clone, Copy)]
pub enum May {
    These(&'static [Import]),
    AllBut(&'static [&'static str]),
    /// Of `whole` everything, of every other room the item.
    OnlyItem {
        item: &'static str,
        whole: &'static [&'static str],
    },
}

const fn all(room: &'static str) -> Import {
    Import { room, part: Part::All, from: &[] }
}

const fn item(room: &'static str, item: &'static str) -> Import {
    Import { room, part: Part::Item(item), from: &[] }
}

const fn module(room: &'static str, module: &'static str) -> Import {
    Import { room, part: Part::Module(module), from: &[] }
}

const fn only_from(room: &'static str, from: &'static [&'static str]) -> Import {
    Import { room, part: Part::All, from }
}

const fn row(room: &'static str, may: &'static [Import]) -> Row {
    Row { room, may: May::These(may) }
}

/// The import table. `lib.rs` lists the rooms and holds nothing else.
pub const ROOMS: &[Row] = &[
    row("domain", &[]),
    row("policy", &[all("domain")]),
    row("attestation", &[all("domain")]),
    row("moves", &[all("domain")]),
    row("ambient", &[all("domain")]),
    row("telemetry", &[all("domain")]),
    row("wire", &[all("domain")]),
    row(
        "store",
        &[
            all("domain"),
            all("moves"),
            item("ambient", "FileSize"),
            item("ambient", "GroupWriter"),
            item("ambient", "WriterClosed"),
        ],
    ),
    row("hubs", &[all("domain"), all("ambient"), only_from("wire", &["hubs", "grpc"])]),
    row("allocators", &[all("domain"), all("ambient"), all("wire")]),
    row("pki", &[all("domain"), all("ambient")]),
    row(
        "actors",
        &[
            all("domain"),
            all("policy"),
            item("attestation", "Verified"),
            all("moves"),
            all("store"),
            all("hubs"),
            all("allocators"),
            all("ambient"),
            all("telemetry"),
        ],
    ),
    row(
        "service",
        &[
            all("domain"),
            all("policy"),
            all("attestation"),
            all("moves"),
            all("store"),
            all("hubs"),
            all("actors"),
            all("ambient"),
            all("telemetry"),
        ],
    ),
    row("api", &[all("domain"), all("service"), all("wire"), all("telemetry")]),
    row("client", &[all("domain"), all("wire"), all("ambient"), module("attestation", "tpm")]),
    Row { room: "config", may: May::OnlyItem { item: "Config", whole: &["domain"] } },
    row("cli", &[all("client"), all("config"), all("compose"), all("pki"), all("domain"), all("ambient")]),
    Row { room: "compose", may: May::AllBut(&["cli"]) },
    row("main", &[all("cli")]),
    row("lib", &[]),
];

/// Something that may be used in some places only.
#[derive(Debug, Clone, Copy)]
pub struct Confinement {
    /// How a message calls it.
    pub what: &'static str,
    pub uses: &'static [Use],
    /// Modules, with all that is below them.
    pub places: &'static [&'static [&'static str]],
    /// Whether `#[cfg(test)]` code is held to it, too.
    pub in_tests: bool,
    pub instead: &'static str,
}

/// How a use looks.
#[derive(Debug, Clone, Copy)]
pub enum Use {
    /// A path that starts with these segments, after local renames are undone.
    Starts(&'static [&'static str]),
    /// A path that holds these segments in a row.
    Holds(&'static [&'static str]),
    /// A macro called by this name.
    Macro(&'static str),
    /// An attribute by one of the names, with this word in it.
    Attribute { names: &'static [&'static str], word: &'static str },
}

use Use::{Attribute, Holds, Macro, Starts};

/// The confinement table.
pub const CONFINED: &[Confinement] = &[
    Confinement {
        what: "actix",
        uses: &[Starts(&["actix"]), Starts(&["actix_rt"])],
        places: &[&["actors"]],
        in_tests: false,
        instead: "put the actor into `actors` and talk to its typed front",
    },
    Confinement {
        what: "redb",
        uses: &[Starts(&["redb"])],
        places: &[&["store", "redb"], &["hubs", "embedded"]],
        in_tests: false,
        instead: "use the store's port",
    },
    Confinement {
        what: "tonic",
        uses: &[
            Starts(&["tonic"]),
            Starts(&["tonic_health"]),
            Starts(&["tonic_prost"]),
            Starts(&["tonic_reflection"]),
            Starts(&["tonic_types"]),
        ],
        places: &[&["wire"], &["api", "grpc"], &["client"], &["hubs", "grpc"]],
        in_tests: false,
        instead: "build servers in `api::grpc` and calls in `client`, and hand domain types over",
    },
    Confinement {
        what: "axum",
        uses: &[Starts(&["axum"])],
        places: &[&["api", "rest"]],
        in_tests: false,
        instead: "serve HTTP to existing SDKs in `api::rest`",
    },
    Confinement {
        what: "the MQTT codec",
        uses: &[Starts(&["mqtt_proto"])],
        places: &[&["api", "mqtt"]],
        in_tests: false,
        instead: "speak MQTT in `api::mqtt`",
    },
    Confinement {
        what: "rcgen",
        uses: &[Starts(&["rcgen"])],
        places: &[&["pki"]],
        in_tests: false,
        instead: "have `pki` make the certificate",
    },
    Confinement {
        what: "the clock",
        uses: &[
            Holds(&["SystemTime", "now"]),
            Holds(&["Instant", "now"]),
            Holds(&["jiff", "Timestamp", "now"]),
            Holds(&["Zoned", "now"]),
        ],
        places: &[&["ambient"]],
        in_tests: true,
        instead: "take an `ambient::Clock`, or the time as an argument",
    },
    Confinement {
        what: "randomness",
        uses: &[
            Holds(&["aws_lc_rs", "rand"]),
            Starts(&["rand"]),
            Starts(&["getrandom"]),
            Starts(&["fastrand"]),
            Holds(&["Uuid", "new_v4"]),
            Holds(&["Uuid", "now_v7"]),
        ],
        places: &[&["ambient"]],
        in_tests: true,
        instead: "take an `ambient::Entropy`",
    },
    Confinement {
        what: "printing",
        uses: &[
            Macro("println"),
            Macro("print"),
            Macro("eprintln"),
            Macro("eprint"),
            Macro("dbg"),
            Holds(&["io", "stdout"]),
        ],
        places: &[&["cli", "output"]],
        in_tests: false,
        instead: "return the text to `cli::output`, or log through `tracing`",
    },
    Confinement {
        what: "standard error",
        uses: &[Holds(&["io", "stderr"])],
        places: &[&["cli", "output"], &["telemetry"]],
        in_tests: false,
        instead: "log through `tracing`",
    },
    Confinement {
        what: "the environment",
        uses: &[Starts(&["std", "env"]), Attribute { names: &["arg", "clap", "command"], word: "env" }],
        places: &[&["config"]],
        in_tests: false,
        instead: "make it a setting of `config`",
    },
    Confinement {
        what: "an HTTP client",
        uses: &[Starts(&["hyper", "client"]), Starts(&["hyper_util", "client"]), Starts(&["reqwest"])],
        places: &[&["allocators"]],
        in_tests: false,
        instead: "ask through the port of `allocators`",
    },
    Confinement {
        what: "the metrics and log back ends",
        uses: &[Starts(&["metrics"]), Starts(&["metrics_exporter_prometheus"]), Starts(&["tracing_subscriber"])],
        places: &[&["telemetry"]],
        in_tests: false,
        instead: "call (or add) a typed function of `telemetry`",
    },
    Confinement {
        what: "a module from another place",
        uses: &[Attribute { names: &["path"], word: "path" }],
        places: &[],
        in_tests: true,
        instead: "let the file stand where its module is, so that its room can be seen",
    },
];

/// Which items of a room.
#[derive(Debug, Clone, Copy)]
pub enum Items {
    All,
    These(&'static [&'static str]),
}

/// Whose items a room may re-export, beside `domain`'s (which everybody may use, so that opens no door).
pub const PASSED_ON: &[(&str, &str, Items)] = &[
    // The answers of the SDK are `wire`'s records; who uses the SDK must be able to name them.
    ("client", "wire", Items::All),
    // What the service is asked with and answers, as values: edges must be able to name them, and see no port.
    ("service", "attestation", Items::These(&["CertificateInfo", "Operator"])),
    ("service", "hubs", Items::These(&["DesiredEvent", "Resident", "TwinWrite"])),
    ("service", "actors", Items::These(&["UndoWish"])),
    ("service", "moves", Items::These(&["CallKey", "Effect", "Episode", "Resolve", "Tries", "Way"])),
    ("service", "policy", Items::These(&["Outcome"])),
    (
        "service",
        "store",
        Items::These(&["AuditFilter", "EnrollmentListing", "PageRequest", "RegistrationFilter", "StatusFilter"]),
    ),
];
