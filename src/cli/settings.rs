//! The flags that individual enrollments and groups share, and what they make of an enrollment.
//!
//! Every flag is optional, so that the same flags create an enrollment and change one: what is not given keeps its value,
//! and for a new one that is the service's default, except that new enrollments migrate.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::domain::HubId;

use super::advice::Advised;
use super::api::admin;
use super::{input, value};

/// What happens to hub and twin when a device registers again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Reprovision {
    /// Store no policy: devices from before native reprovisioning stay, all others migrate
    None,
    /// Move, and carry the twin over
    Migrate,
    /// Move, and set the twin back to the initial one
    Reset,
    /// Stay
    Never,
}

/// How a hub is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Allocation {
    /// Store no policy: the service's default, which is hashed
    Default,
    /// The one hub that --hub names
    Static,
    /// By weight and registration id
    Hashed,
    /// By the device's latencies or location
    LowestLatency,
    /// Ask the webhook in --webhook-url-file
    Custom,
}

/// What to do when the old hub of a moving device does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Unreachable {
    /// Try again until --wait has passed, then give the move up
    Wait,
    /// Carry the newest twin that the service has seen (needs --allow-late-writes)
    LastKnown,
    /// Carry the initial twin (needs --allow-late-writes)
    Reset,
}

/// When the policy *reset* sets back a device whose hub does not change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ResetOnSameHub {
    Always,
    /// Only when the enrollment changed since the device was last assigned or reset
    WhenEnrollmentChanged,
    Off,
}

/// The rules of an enrollment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
#[command(next_help_heading = "Rules")]
pub struct SettingsFlags {
    /// What happens when a device registers again [new enrollments: migrate]
    #[arg(long, value_enum, value_name = "POLICY")]
    pub reprovision: Option<Reprovision>,
    /// How a hub is chosen [new enrollments: hashed]
    #[arg(long, value_enum, value_name = "POLICY")]
    pub allocation: Option<Allocation>,
    /// A hub to choose among; repeat it for more [new enrollments: every linked hub]
    #[arg(long = "hub", value_name = "HUB")]
    pub hubs: Vec<HubId>,
    /// Choose among every linked hub
    #[arg(long, conflicts_with = "hubs")]
    pub any_hub: bool,
    /// A file with the webhook's https URL on one line (it may hold a key, so it is not taken from the command line)
    #[arg(long, value_name = "FILE")]
    pub webhook_url_file: Option<PathBuf>,
    /// The version of the contract with the webhook, as in 2021-10-01
    #[arg(long, value_name = "VERSION")]
    pub webhook_api_version: Option<String>,
    /// A JSON file {"tags": {…}, "desired": {…}}: what a device starts with and is set back to
    #[arg(long, value_name = "FILE")]
    pub initial_twin: Option<PathBuf>,
    /// Whether devices are made IoT Edge capable
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub iot_edge: Option<bool>,
    /// What to do when a device's old hub does not answer [new enrollments: wait]
    #[arg(long, value_enum, value_name = "RULE")]
    pub unreachable: Option<Unreachable>,
    /// How long the rule wait waits, at most 7d [new enrollments: 15m]
    #[arg(long = "wait", value_name = "SPAN", value_parser = input::span)]
    pub wait_for: Option<Duration>,
    /// Accept that a cut-off old hub may take writes that only the history keeps
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub allow_late_writes: Option<bool>,
    /// When the policy reset sets back a device whose hub does not change [new enrollments: always]
    #[arg(long, value_enum, value_name = "WHEN")]
    pub reset_on_same_hub: Option<ResetOnSameHub>,
    /// Move a device away when its hub is down
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub reassign_when_down: Option<bool>,
    /// Adopt a device that a hub has and the service does not know
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub adopt_existing: Option<bool>,
}

impl SettingsFlags {
    /// The settings of a new enrollment. Reads the files that the flags name.
    pub fn create(&self, enabled: bool) -> anyhow::Result<admin::EnrollmentSettings> {
        let mut settings = admin::EnrollmentSettings { enabled: Some(enabled), ..Default::default() };
        settings.set_reprovision_policy(admin::ReprovisionPolicy::Migrate);
        self.apply(&mut settings)?;
        Ok(settings)
    }

    /// Changes what the flags name and nothing else. Reads the files that they name.
    pub fn apply(&self, settings: &mut admin::EnrollmentSettings) -> anyhow::Result<()> {
        if let Some(policy) = self.reprovision {
            settings.set_reprovision_policy(match policy {
                Reprovision::None => admin::ReprovisionPolicy::Unspecified,
                Reprovision::Migrate => admin::ReprovisionPolicy::Migrate,
                Reprovision::Reset => admin::ReprovisionPolicy::Reset,
                Reprovision::Never => admin::ReprovisionPolicy::Never,
            });
        }
        if !self.hubs.is_empty() || self.any_hub {
            settings.hub_ids = self.hubs.iter().map(ToString::to_string).collect();
        }
        self.apply_allocation(settings)?;
        self.apply_initial(settings)?;
        self.apply_unreachable(settings)?;
        if let Some(when) = self.reset_on_same_hub {
            settings.set_reset_on_same_hub(match when {
                ResetOnSameHub::Always => admin::ResetOnSameHub::Always,
                ResetOnSameHub::WhenEnrollmentChanged => admin::ResetOnSameHub::WhenEnrollmentChanged,
                ResetOnSameHub::Off => admin::ResetOnSameHub::Off,
            });
        }
        settings.reassign_when_down = self.reassign_when_down.unwrap_or(settings.reassign_when_down);
        settings.adopt_existing = self.adopt_existing.unwrap_or(settings.adopt_existing);
        Ok(())
    }

    fn apply_allocation(&self, settings: &mut admin::EnrollmentSettings) -> anyhow::Result<()> {
        if let Some(policy) = self.allocation {
            settings.set_allocation_policy(match policy {
                Allocation::Default => admin::AllocationPolicy::Unspecified,
                Allocation::Static => admin::AllocationPolicy::Static,
                Allocation::Hashed => admin::AllocationPolicy::Hashed,
                Allocation::LowestLatency => admin::AllocationPolicy::LowestLatency,
                Allocation::Custom => admin::AllocationPolicy::Custom,
            });
        }
        match settings.allocation_policy() {
            admin::AllocationPolicy::Custom => {
                let mut webhook = settings.webhook.take().unwrap_or_default();
                if let Some(path) = &self.webhook_url_file {
                    webhook.url = input::secret_line(path)?;
                }
                if let Some(version) = &self.webhook_api_version {
                    webhook.api_version.clone_from(version);
                }
                if webhook.url.is_empty() || webhook.api_version.is_empty() {
                    return Err(Advised::usage(
                        "the allocation policy custom needs a webhook",
                        "give --webhook-url-file FILE and --webhook-api-version VERSION",
                    )
                    .into());
                }
                settings.webhook = Some(webhook);
            }
            admin::AllocationPolicy::Unspecified
            | admin::AllocationPolicy::Static
            | admin::AllocationPolicy::Hashed
            | admin::AllocationPolicy::LowestLatency => {
                if self.webhook_url_file.is_some() || self.webhook_api_version.is_some() {
                    return Err(Advised::usage(
                        "only the allocation policy custom has a webhook",
                        "add --allocation custom, or leave the webhook out",
                    )
                    .into());
                }
                settings.webhook = None;
            }
        }
        let is_static = settings.allocation_policy() == admin::AllocationPolicy::Static;
        if is_static && settings.hub_ids.len() != 1 {
            return Err(Advised::usage(
                format!("the allocation policy static needs exactly one hub, not {}", settings.hub_ids.len()),
                "name it with one --hub HUB",
            )
            .into());
        }
        Ok(())
    }

    fn apply_initial(&self, settings: &mut admin::EnrollmentSettings) -> anyhow::Result<()> {
        if self.initial_twin.is_none() && self.iot_edge.is_none() {
            return Ok(());
        }
        let mut initial = settings.initial.take().unwrap_or_default();
        if let Some(path) = &self.initial_twin {
            let twin = input::initial_twin(path)?;
            initial.tags = Some(value::wire_object(&twin.tags));
            initial.desired = Some(value::wire_object(&twin.desired));
        }
        initial.iot_edge = self.iot_edge.unwrap_or(initial.iot_edge);
        settings.initial = Some(initial);
        Ok(())
    }

    fn apply_unreachable(&self, settings: &mut admin::EnrollmentSettings) -> anyhow::Result<()> {
        if let Some(rule) = self.unreachable {
            settings.set_unreachable_rule(match rule {
                Unreachable::Wait => admin::UnreachableRule::Wait,
                Unreachable::LastKnown => admin::UnreachableRule::LastKnown,
                Unreachable::Reset => admin::UnreachableRule::Reset,
            });
        }
        settings.allow_late_writes = self.allow_late_writes.unwrap_or(settings.allow_late_writes);
        if let Some(span) = self.wait_for {
            settings.unreachable_wait_for = Some(value::wire_span(span));
        }
        match settings.unreachable_rule() {
            admin::UnreachableRule::Unspecified | admin::UnreachableRule::Wait => Ok(()),
            admin::UnreachableRule::LastKnown | admin::UnreachableRule::Reset if self.wait_for.is_some() => {
                Err(Advised::usage("only the rule wait has a span", "leave --wait out, or use --unreachable wait")
                    .into())
            }
            admin::UnreachableRule::LastKnown | admin::UnreachableRule::Reset => {
                settings.unreachable_wait_for = None;
                Ok(())
            }
        }
    }

    /// Whether no flag was given.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The certificates of a new enrollment.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
#[command(next_help_heading = "Certificates")]
pub struct CertificateFlags {
    /// The certificate that devices prove themselves with: PEM or DER
    #[arg(long, value_name = "FILE")]
    pub certificate: PathBuf,
    /// A second one, so that certificates can be rolled
    #[arg(long, value_name = "FILE")]
    pub secondary: Option<PathBuf>,
}

impl CertificateFlags {
    pub fn read(&self) -> anyhow::Result<admin::X509Attestation> {
        Ok(admin::X509Attestation {
            primary: Some(read(&self.certificate)?),
            secondary: self.secondary.as_ref().map(read).transpose()?,
        })
    }
}

/// Changes of certificates.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
#[command(next_help_heading = "Certificates")]
pub struct CertificateChanges {
    /// A new primary certificate: PEM or DER
    #[arg(long, value_name = "FILE")]
    pub certificate: Option<PathBuf>,
    /// A new second certificate
    #[arg(long, value_name = "FILE")]
    pub secondary: Option<PathBuf>,
    /// Take the second certificate away
    #[arg(long, conflicts_with = "secondary")]
    pub no_secondary: bool,
}

impl CertificateChanges {
    pub fn apply(&self, attestation: &mut Option<admin::X509Attestation>) -> anyhow::Result<()> {
        if self.is_empty() {
            return Ok(());
        }
        let mut x509 = attestation.take().unwrap_or_default();
        if let Some(path) = &self.certificate {
            x509.primary = Some(read(path)?);
        }
        if let Some(path) = &self.secondary {
            x509.secondary = Some(read(path)?);
        }
        if self.no_secondary {
            x509.secondary = None;
        }
        *attestation = Some(x509);
        Ok(())
    }

    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

fn read(path: &PathBuf) -> anyhow::Result<admin::Certificate> {
    Ok(admin::Certificate { der: input::certificate(path)?, thumbprint: String::new() })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        flags: SettingsFlags,
    }

    fn flags(line: &str) -> SettingsFlags {
        Line::try_parse_from(std::iter::once("x").chain(line.split_whitespace())).unwrap().flags
    }

    fn created(line: &str) -> admin::EnrollmentSettings {
        flags(line).create(true).unwrap()
    }

    #[test]
    fn new_enrollments_migrate_unless_told_otherwise() {
        for (line, policy) in [
            ("", admin::ReprovisionPolicy::Migrate),
            ("--reprovision none", admin::ReprovisionPolicy::Unspecified),
            ("--reprovision migrate", admin::ReprovisionPolicy::Migrate),
            ("--reprovision reset", admin::ReprovisionPolicy::Reset),
            ("--reprovision never", admin::ReprovisionPolicy::Never),
        ] {
            assert_eq!(created(line).reprovision_policy(), policy, "{line}");
        }
    }

    #[test]
    fn each_flag_sets_its_field() {
        let check = |line: &str, field: &dyn Fn(&admin::EnrollmentSettings) -> String, expected: &str| {
            assert_eq!(field(&created(line)), expected, "{line}");
        };
        check(
            "--allocation static --hub hub-a",
            &|s| format!("{:?} {:?}", s.allocation_policy(), s.hub_ids),
            "Static [\"hub-a\"]",
        );
        check("--hub a --hub b", &|s| s.hub_ids.join(" "), "a b");
        check("--allocation lowest-latency", &|s| format!("{:?}", s.allocation_policy()), "LowestLatency");
        check("", &|s| format!("{:?}", s.allocation_policy()), "Unspecified");
        check(
            "--unreachable wait --wait 2h",
            &|s| format!("{:?}", value::seconds(s.unreachable_wait_for.as_ref())),
            "Some(7200)",
        );
        check(
            "--unreachable last-known --allow-late-writes",
            &|s| format!("{:?} {}", s.unreachable_rule(), s.allow_late_writes),
            "LastKnown true",
        );
        check("--reset-on-same-hub off", &|s| format!("{:?}", s.reset_on_same_hub()), "Off");
        check("--reassign-when-down", &|s| s.reassign_when_down.to_string(), "true");
        check("--adopt-existing=false", &|s| s.adopt_existing.to_string(), "false");
        check("--iot-edge", &|s| format!("{:?}", s.initial.as_ref().map(|i| i.iot_edge)), "Some(true)");
        check("", &|s| format!("{:?} {:?}", s.enabled, s.initial), "Some(true) None");
    }

    #[test]
    fn flags_that_do_not_fit_together_are_refused_here() {
        for line in [
            "--allocation static",
            "--allocation static --hub a --hub b",
            "--allocation custom",
            "--allocation custom --webhook-api-version v1",
            "--webhook-api-version v1",
            "--unreachable reset --allow-late-writes --wait 1m",
        ] {
            assert!(flags(line).create(true).is_err(), "{line}");
        }
        for line in ["--hub Hub", "--wait 15", "--reprovision move", "--hub a --any-hub", "--iot-edge=maybe"] {
            let parsed = Line::try_parse_from(std::iter::once("x").chain(line.split_whitespace()));
            assert!(parsed.is_err(), "{line}");
        }
    }

    #[test]
    fn a_change_keeps_what_it_does_not_name() {
        let folder = tempfile::tempdir().unwrap();
        let (url, twin) = (folder.path().join("url"), folder.path().join("twin.json"));
        fs::write(&url, "https://x.example/allocate?code=secret\n").unwrap();
        fs::write(&twin, r#"{"tags":{"site":"x"}}"#).unwrap();
        let line = format!(
            "--allocation custom --webhook-url-file {} --webhook-api-version v1 --initial-twin {} --iot-edge --hub a",
            url.display(),
            twin.display()
        );
        let before = created(&line);
        assert_eq!(
            before.webhook.as_ref().map(|hook| hook.url.as_str()),
            Some("https://x.example/allocate?code=secret")
        );

        let mut after = before.clone();
        flags("").apply(&mut after).unwrap();
        assert_eq!(after, before);

        flags("--reprovision never --any-hub --iot-edge=false --webhook-api-version v2").apply(&mut after).unwrap();
        let initial = after.initial.clone().unwrap();
        assert_eq!((after.reprovision_policy(), after.hub_ids.len()), (admin::ReprovisionPolicy::Never, 0));
        assert_eq!((initial.iot_edge, initial.tags), (false, before.initial.clone().unwrap().tags));
        assert_eq!(after.webhook.as_ref().map(|hook| hook.api_version.as_str()), Some("v2"));

        flags("--allocation hashed").apply(&mut after).unwrap();
        assert_eq!(after.webhook, None, "a policy without a webhook sends none");
    }

    #[test]
    fn certificates_are_rolled_one_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new.der");
        fs::write(&path, [0x30, 0x82, 0, 0]).unwrap();
        let certificate = |byte: u8| admin::Certificate { der: vec![byte], thumbprint: "t".to_owned() };
        let stored = Some(admin::X509Attestation { primary: Some(certificate(1)), secondary: Some(certificate(2)) });
        let check = |changes: CertificateChanges, expected: (&[u8], Option<&[u8]>)| {
            let mut x509 = stored.clone();
            changes.apply(&mut x509).unwrap();
            let x509 = x509.unwrap();
            let secondary = x509.secondary.map(|c| c.der);
            assert_eq!((x509.primary.unwrap().der.as_slice(), secondary.as_deref()), expected);
        };
        let new: &[u8] = &[0x30, 0x82, 0, 0];
        check(CertificateChanges::default(), (&[1], Some(&[2])));
        check(CertificateChanges { secondary: Some(path.clone()), ..Default::default() }, (&[1], Some(new)));
        check(CertificateChanges { certificate: Some(path), ..Default::default() }, (new, Some(&[2])));
        check(CertificateChanges { no_secondary: true, ..Default::default() }, (&[1], None));
    }
}
