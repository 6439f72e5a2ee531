//! `rehome pki`: make authorities and certificates, for development and small fleets.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde::Serialize;

use crate::ambient::{Clock as _, SystemEntropy};
use crate::domain::{HubId, RegistrationId, Role, RoleGrant};
use crate::pki::{Authority, Existing, KeyType, Pair, Purpose, Terms, Validity};

use super::context::Context;
use super::output::Shown;

#[derive(Debug, PartialEq, Subcommand)]
pub enum PkiCommand {
    /// Make an authority: NAME.pem and NAME.key
    #[command(
        after_help = "Examples:\n  rehome pki ca plant-ca\n  rehome pki ca plant-ca-2 --below certs/plant-ca --days 365\n\n\
                            Enroll a device authority with `rehome group create … --certificate NAME.pem`."
    )]
    Ca(MakeCa),
    /// Issue a device's certificate; its common name is the registration id
    #[command(after_help = "Example:\n  rehome pki device dev-1 --authority certs/device-ca --out .")]
    Device(IssueDevice),
    /// Issue an operator's or a back end's certificate with a role
    #[command(
        after_help = "Examples:\n  rehome pki operator ada --role operator\n  rehome pki operator billing --role backend --hub hub-a"
    )]
    Operator(IssueOperator),
    /// Issue a server's certificate
    #[command(after_help = "Example:\n  rehome pki server rehome.example 10.0.0.7")]
    Server(IssueServer),
}

/// Where the files go and how long they are valid.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
#[command(next_help_heading = "Certificate")]
pub struct Making {
    /// The folder to write to [default: the folder of --certs]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// How long it is valid, and never longer than its authority
    #[arg(long, value_name = "NUMBER", default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=36_500))]
    pub days: u32,
    /// The kind of key: p256, p384, ed25519 or rsa3072
    #[arg(long = "key-type", value_name = "KIND", default_value_t = KeyType::P256)]
    pub key_type: KeyType,
    /// Replace files that are there
    #[arg(long)]
    pub replace: bool,
}

#[derive(Debug, PartialEq, Args)]
pub struct MakeCa {
    /// The authority's name, and that of its files
    pub name: String,
    /// Whom it vouches for: device, operator or server
    #[arg(long, default_value_t = Purpose::Device)]
    pub purpose: Purpose,
    /// Make it below another authority, whose files are PATH.pem and PATH.key; it has that one's purpose
    #[arg(long, value_name = "PATH", conflicts_with = "purpose")]
    pub below: Option<PathBuf>,
    #[command(flatten)]
    pub making: Making,
}

#[derive(Debug, PartialEq, Args)]
pub struct IssueDevice {
    pub id: RegistrationId,
    /// The authority's files, PATH.pem and PATH.key [default: device-ca in the folder of --certs]
    #[arg(long, value_name = "PATH")]
    pub authority: Option<PathBuf>,
    #[command(flatten)]
    pub making: Making,
}

#[derive(Debug, PartialEq, Args)]
pub struct IssueOperator {
    /// The operator's name, as the audit log will show it
    pub name: String,
    /// What the operator may do: reader, enroller, operator or backend; repeat it for more
    #[arg(long = "role", value_name = "ROLE", required = true)]
    pub roles: Vec<Role>,
    /// Grant the roles at this hub only
    #[arg(long)]
    pub hub: Option<HubId>,
    /// The authority's files, PATH.pem and PATH.key [default: operator-ca in the folder of --certs]
    #[arg(long, value_name = "PATH")]
    pub authority: Option<PathBuf>,
    #[command(flatten)]
    pub making: Making,
}

#[derive(Debug, PartialEq, Args)]
pub struct IssueServer {
    /// The names and addresses that clients connect to; the first names the files
    #[arg(required = true, value_name = "HOST")]
    pub hosts: Vec<String>,
    /// The authority's files, PATH.pem and PATH.key [default: server-ca in the folder of --certs]
    #[arg(long, value_name = "PATH")]
    pub authority: Option<PathBuf>,
    #[command(flatten)]
    pub making: Making,
}

/// The files that were written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct WrittenView {
    certificate: String,
    key: String,
    valid_until: String,
}

impl Shown for WrittenView {
    fn facts(&self) -> Vec<(&'static str, String)> {
        vec![
            ("certificate", self.certificate.clone()),
            ("key (keep it secret)", self.key.clone()),
            ("valid until", self.valid_until.clone()),
        ]
    }
}

impl Making {
    fn terms(&self, context: &Context) -> Terms {
        let lifetime = Duration::from_secs(u64::from(self.days) * 24 * 3600);
        Terms { key: self.key_type, validity: Validity::starting(context.clock.now(), lifetime) }
    }

    /// Where the files go; the folder is made if it is not there.
    fn pair(&self, name: &str, context: &Context) -> anyhow::Result<Pair> {
        let folder = self.out.clone().unwrap_or_else(|| context.config.certs_dir.clone());
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
        Ok(Pair::named(&folder, &file_name(name)))
    }

    fn existing(&self) -> Existing {
        if self.replace { Existing::Replace } else { Existing::Refuse }
    }

    /// Says what was written. A certificate outlives neither its terms nor its authority.
    fn report(&self, pair: &Pair, valid_until: crate::domain::Timestamp, context: &Context) -> anyhow::Result<()> {
        let view = WrittenView {
            certificate: pair.certificate.display().to_string(),
            key: pair.key.display().to_string(),
            valid_until: valid_until.to_string(),
        };
        Ok(context.output.item(&view)?)
    }
}

/// A name as part of a path: whatever could leave the folder or trouble a file system becomes `_`.
fn file_name(name: &str) -> String {
    let safe: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() || "-._".contains(c) { c } else { '_' }).collect();
    if safe.starts_with('.') { format!("_{safe}") } else { safe }
}

/// `PATH.pem` and `PATH.key`; a path that ends in `.pem` is taken as the certificate's.
fn authority_pair(named: Option<&Path>, default: &str, context: &Context) -> Pair {
    let path = named.map_or_else(|| context.config.certs_dir.join(default), Path::to_owned);
    let stem = match path.extension() {
        Some(extension) if extension == "pem" => path.with_extension(""),
        Some(_) | None => path,
    };
    let with = |ending: &str| {
        let mut whole = stem.clone().into_os_string();
        whole.push(ending);
        PathBuf::from(whole)
    };
    Pair { certificate: with(".pem"), key: with(".key") }
}

impl PkiCommand {
    pub fn run(self, context: &Context) -> anyhow::Result<()> {
        let entropy = SystemEntropy::new();
        let (issued, authority, name, making) = match self {
            PkiCommand::Ca(MakeCa { name, purpose, below, making }) => {
                let terms = making.terms(context);
                let authority = match below {
                    None => Authority::create(&name, purpose, terms, &entropy)?,
                    Some(path) => Authority::load(&authority_pair(Some(&path), "", context))?
                        .issue_intermediate(&name, terms, &entropy)?,
                };
                let pair = making.pair(&name, context)?;
                authority.save(&pair, making.existing(), &entropy)?;
                return making.report(&pair, authority.validity().not_after, context);
            }
            PkiCommand::Device(IssueDevice { id, authority, making }) => {
                let authority = Authority::load(&authority_pair(authority.as_deref(), "device-ca", context))?;
                let issued = authority.issue_device(&id, making.terms(context), &entropy)?;
                (issued, authority, id.to_string(), making)
            }
            PkiCommand::Operator(IssueOperator { name, roles, hub, authority, making }) => {
                let authority = Authority::load(&authority_pair(authority.as_deref(), "operator-ca", context))?;
                let grants: Vec<RoleGrant> =
                    roles.into_iter().map(|role| RoleGrant { role, hub: hub.clone() }).collect();
                let issued = authority.issue_operator(&name, &grants, making.terms(context), &entropy)?;
                (issued, authority, name, making)
            }
            PkiCommand::Server(IssueServer { hosts, authority, making }) => {
                let authority = Authority::load(&authority_pair(authority.as_deref(), "server-ca", context))?;
                let issued = authority.issue_server(&hosts, making.terms(context), &entropy)?;
                let name = hosts.into_iter().next().unwrap_or_default();
                (issued, authority, name, making)
            }
        };
        let pair = making.pair(&name, context)?;
        issued.save(&pair, making.existing(), &entropy)?;
        let valid_until = making.terms(context).validity.not_after.min(authority.validity().not_after);
        making.report(&pair, valid_until, context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::context::Globals;

    fn context(folder: &Path) -> Context {
        Context::load(Globals { certs: Some(folder.to_owned()), json: true, ..Globals::default() }).unwrap()
    }

    fn making() -> Making {
        Making { out: None, days: 30, key_type: KeyType::P256, replace: false }
    }

    #[test]
    fn an_authority_issues_what_it_is_for_and_overwrites_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let context = context(folder.path());
        let ca = || MakeCa { name: "device-ca".to_owned(), purpose: Purpose::Device, below: None, making: making() };
        PkiCommand::Ca(ca()).run(&context).unwrap();
        assert!(PkiCommand::Ca(ca()).run(&context).is_err(), "what is there is not overwritten");

        let id = RegistrationId::parse("Dev:1").unwrap();
        PkiCommand::Device(IssueDevice { id, authority: None, making: making() }).run(&context).unwrap();
        assert!(folder.path().join("Dev_1.pem").exists() && folder.path().join("Dev_1.key").exists());

        let named = folder.path().join("device-ca.pem");
        let operator = IssueOperator {
            name: "ada".to_owned(),
            roles: vec![Role::Operator],
            hub: None,
            authority: Some(named),
            making: making(),
        };
        let refused = PkiCommand::Operator(operator).run(&context).unwrap_err();
        assert_eq!(refused.to_string(), "a device authority does not issue operator certificates");
    }

    #[test]
    fn names_stay_in_their_folder() {
        for (name, file) in
            [("dev-1", "dev-1"), ("../x", "_.._x"), ("a/b:c", "a_b_c"), ("Ada Lovelace", "Ada_Lovelace"), (".", "_.")]
        {
            assert_eq!(file_name(name), file);
        }
    }
}
