//! The flags that individual enrollments and groups share, and what they make of an enrollment.
//!
//! Every flag is optional, so that the same flags create an enrollment and change one: what is not given keeps its value,
//! and for a new one that is the service's default, except that new enrollments migrate.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::ambient::Entropy;
use crate::domain::{
    self, AllocationPolicy, AttestationDraft, Capabilities, EnrollmentDraft, EnrollmentId, HubId, InitialState,
    ReprovisionPolicy, TokenKey, UnreachableRule, WebhookPolicy, limits,
};

use super::advice::Advised;
use super::input;

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
    /// A new enrollment. Reads the files that the flags name.
    pub fn create(
        &self,
        id: EnrollmentId,
        attestation: AttestationDraft,
        enabled: bool,
    ) -> anyhow::Result<EnrollmentDraft> {
        let mut draft = EnrollmentDraft {
            id,
            attestation,
            enabled,
            device_id: None,
            initial: InitialState::default(),
            reprovision: Some(ReprovisionPolicy::Migrate),
            allocation: None,
            hubs: Vec::new(),
            unreachable: UnreachableRule::Wait { deadline: limits::UNREACHABLE_WAIT_DEFAULT },
            allow_late_writes: false,
            reset_on_same_hub: domain::ResetOnSameHub::Always,
            reassign_when_down: false,
            adopt_existing: false,
        };
        self.apply(&mut draft)?;
        Ok(draft)
    }

    /// Changes what the flags name and nothing else. Reads the files that they name.
    pub fn apply(&self, draft: &mut EnrollmentDraft) -> anyhow::Result<()> {
        if let Some(policy) = self.reprovision {
            draft.reprovision = match policy {
                Reprovision::None => None,
                Reprovision::Migrate => Some(ReprovisionPolicy::Migrate),
                Reprovision::Reset => Some(ReprovisionPolicy::Reset),
                Reprovision::Never => Some(ReprovisionPolicy::Never),
            };
        }
        if !self.hubs.is_empty() || self.any_hub {
            draft.hubs.clone_from(&self.hubs);
        }
        self.apply_allocation(draft)?;
        self.apply_initial(draft)?;
        self.apply_unreachable(draft)?;
        if let Some(when) = self.reset_on_same_hub {
            draft.reset_on_same_hub = match when {
                ResetOnSameHub::Always => domain::ResetOnSameHub::Always,
                ResetOnSameHub::WhenEnrollmentChanged => domain::ResetOnSameHub::WhenEnrollmentChanged,
                ResetOnSameHub::Off => domain::ResetOnSameHub::Off,
            };
        }
        draft.reassign_when_down = self.reassign_when_down.unwrap_or(draft.reassign_when_down);
        draft.adopt_existing = self.adopt_existing.unwrap_or(draft.adopt_existing);
        Ok(())
    }

    fn apply_allocation(&self, draft: &mut EnrollmentDraft) -> anyhow::Result<()> {
        draft.allocation = match (self.allocation, draft.allocation.take()) {
            (None, Some(AllocationPolicy::Custom(stored))) => {
                Some(AllocationPolicy::Custom(self.webhook(Some(stored))?))
            }
            (Some(Allocation::Custom), Some(AllocationPolicy::Custom(stored))) => {
                Some(AllocationPolicy::Custom(self.webhook(Some(stored))?))
            }
            (Some(Allocation::Custom), _) => Some(AllocationPolicy::Custom(self.webhook(None)?)),
            (None, stored) => stored,
            (Some(Allocation::Default), _) => None,
            (Some(Allocation::Static), _) => Some(AllocationPolicy::Static),
            (Some(Allocation::Hashed), _) => Some(AllocationPolicy::Hashed),
            (Some(Allocation::LowestLatency), _) => Some(AllocationPolicy::LowestLatency),
        };
        match &draft.allocation {
            Some(AllocationPolicy::Static) if draft.hubs.len() != 1 => Err(Advised::usage(
                format!("the allocation policy static needs exactly one hub, not {}", draft.hubs.len()),
                "name it with one --hub HUB",
            )
            .into()),
            Some(AllocationPolicy::Custom(_)) => Ok(()),
            None | Some(AllocationPolicy::Static | AllocationPolicy::Hashed | AllocationPolicy::LowestLatency) => {
                if self.webhook_url_file.is_none() && self.webhook_api_version.is_none() {
                    return Ok(());
                }
                let hint = "add --allocation custom, or leave the webhook out";
                Err(Advised::usage("only the allocation policy custom has a webhook", hint).into())
            }
        }
    }

    /// The webhook that is stored, changed as the flags say. The stored URL is masked; sent back, the service keeps it.
    fn webhook(&self, stored: Option<WebhookPolicy>) -> anyhow::Result<WebhookPolicy> {
        let (stored_url, stored_version) = stored.map(|hook| (hook.url, hook.api_version)).unzip();
        let named_url = self.webhook_url_file.as_deref().map(input::secret_line).transpose()?;
        match (named_url.or(stored_url), self.webhook_api_version.clone().or(stored_version)) {
            (Some(url), Some(api_version)) => Ok(WebhookPolicy { url, api_version }),
            (None, _) | (_, None) => Err(Advised::usage(
                "the allocation policy custom needs a webhook",
                "give --webhook-url-file FILE and --webhook-api-version VERSION",
            )
            .into()),
        }
    }

    fn apply_initial(&self, draft: &mut EnrollmentDraft) -> anyhow::Result<()> {
        if let Some(path) = &self.initial_twin {
            let twin = input::initial_twin(path)?;
            (draft.initial.tags, draft.initial.desired) = (twin.tags, twin.desired);
        }
        if let Some(iot_edge) = self.iot_edge {
            draft.initial.capabilities = Capabilities { iot_edge };
        }
        Ok(())
    }

    fn apply_unreachable(&self, draft: &mut EnrollmentDraft) -> anyhow::Result<()> {
        draft.allow_late_writes = self.allow_late_writes.unwrap_or(draft.allow_late_writes);
        let stored_deadline = match draft.unreachable {
            UnreachableRule::Wait { deadline } => deadline,
            UnreachableRule::LastKnown | UnreachableRule::Reset => limits::UNREACHABLE_WAIT_DEFAULT,
        };
        let deadline = self.wait_for.unwrap_or(stored_deadline);
        draft.unreachable = match (self.unreachable, draft.unreachable) {
            (Some(Unreachable::Wait), _) | (None, UnreachableRule::Wait { .. }) => UnreachableRule::Wait { deadline },
            (Some(Unreachable::LastKnown), _) | (None, UnreachableRule::LastKnown) => UnreachableRule::LastKnown,
            (Some(Unreachable::Reset), _) | (None, UnreachableRule::Reset) => UnreachableRule::Reset,
        };
        match draft.unreachable {
            UnreachableRule::Wait { .. } => Ok(()),
            UnreachableRule::LastKnown | UnreachableRule::Reset if self.wait_for.is_some() => {
                let hint = "leave --wait out, or use --unreachable wait";
                Err(Advised::usage("only the rule wait has a span", hint).into())
            }
            UnreachableRule::LastKnown | UnreachableRule::Reset if !draft.allow_late_writes => Err(Advised::usage(
                "this unreachable rule lets a cut-off hub take writes that only the history keeps",
                "accept that with --allow-late-writes, or use --unreachable wait",
            )
            .into()),
            UnreachableRule::LastKnown | UnreachableRule::Reset => Ok(()),
        }
    }

    /// Whether no flag was given.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
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

/// Which symmetric key of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum WhichKey {
    Primary,
    Secondary,
}

/// What is to be different about the symmetric keys of an enrollment.
#[derive(Debug, Default, PartialEq, Eq, Args)]
#[command(next_help_heading = "Symmetric keys")]
pub struct KeyChanges {
    /// A new primary key: base64 of 16 to 64 bytes on one line
    #[arg(long, value_name = "FILE")]
    pub primary_key: Option<PathBuf>,
    /// A new secondary key
    #[arg(long, value_name = "FILE")]
    pub secondary_key: Option<PathBuf>,
    /// Draw this key anew; `keys` shows it
    #[arg(long, value_enum, value_name = "WHICH", conflicts_with_all = ["primary_key", "secondary_key"])]
    pub new_key: Option<WhichKey>,
}

impl KeyChanges {
    pub fn apply(&self, attestation: &mut AttestationDraft, entropy: &dyn Entropy) -> anyhow::Result<()> {
        if self.is_empty() {
            return Ok(());
        }
        let AttestationDraft::SymmetricKey { primary, secondary } = attestation else {
            let (message, hint) =
                ("the enrollment is not proven by symmetric keys", "change what it is proven by instead");
            return Err(Advised::usage(message, hint).into());
        };
        let read = |file: &Option<PathBuf>| file.as_deref().map(input::key_file).transpose();
        // One that is not given stays as it is stored.
        (*primary, *secondary) = match self.new_key {
            None => (read(&self.primary_key)?, read(&self.secondary_key)?),
            Some(WhichKey::Primary) => (Some(drawn_key(entropy)?), None),
            Some(WhichKey::Secondary) => (None, Some(drawn_key(entropy)?)),
        };
        Ok(())
    }

    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

fn drawn_key(entropy: &dyn Entropy) -> anyhow::Result<TokenKey> {
    let mut bytes = zeroize::Zeroizing::new([0; limits::TOKEN_KEY_BYTES_MAX]);
    entropy.fill(bytes.as_mut_slice());
    Ok(TokenKey::new(bytes.as_slice())?)
}

impl CertificateChanges {
    pub fn apply(&self, attestation: &mut AttestationDraft) -> anyhow::Result<()> {
        if self.is_empty() {
            return Ok(());
        }
        let AttestationDraft::X509 { primary, secondary } = attestation else {
            let (message, hint) =
                ("the enrollment is not proven by certificate", "change what it is proven by instead");
            return Err(Advised::usage(message, hint).into());
        };
        if let Some(path) = &self.certificate {
            *primary = input::certificate(path)?;
        }
        if let Some(path) = &self.secondary {
            *secondary = Some(input::certificate(path)?);
        }
        if self.no_secondary {
            *secondary = None;
        }
        Ok(())
    }

    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use clap::Parser;

    use super::*;
    use crate::domain::GroupId;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        flags: SettingsFlags,
    }

    fn flags(line: &str) -> SettingsFlags {
        Line::try_parse_from(std::iter::once("x").chain(line.split_whitespace())).unwrap().flags
    }

    fn create(line: &str) -> anyhow::Result<EnrollmentDraft> {
        let id = EnrollmentId::Group(GroupId::parse("plant").unwrap());
        flags(line).create(id, AttestationDraft::X509 { primary: vec![1], secondary: None }, true)
    }

    fn created(line: &str) -> EnrollmentDraft {
        let draft = create(line).unwrap();
        draft.check().unwrap();
        draft
    }

    #[test]
    fn new_enrollments_migrate_unless_told_otherwise() {
        for (line, policy) in [
            ("", Some(ReprovisionPolicy::Migrate)),
            ("--reprovision none", None),
            ("--reprovision migrate", Some(ReprovisionPolicy::Migrate)),
            ("--reprovision reset", Some(ReprovisionPolicy::Reset)),
            ("--reprovision never", Some(ReprovisionPolicy::Never)),
        ] {
            assert_eq!(created(line).reprovision, policy, "{line}");
        }
    }

    #[test]
    fn each_flag_sets_its_field() {
        let plain = created("");
        let check = |line: &str, change: &dyn Fn(&mut EnrollmentDraft)| {
            let mut expected = plain.clone();
            change(&mut expected);
            assert_eq!(created(line), expected, "{line}");
        };
        let hub = |id: &str| HubId::parse(id).unwrap();
        check("--allocation static --hub a", &|draft| {
            draft.allocation = Some(AllocationPolicy::Static);
            draft.hubs = vec![hub("a")];
        });
        check("--hub a --hub b", &|draft| draft.hubs = vec![hub("a"), hub("b")]);
        check("--allocation hashed", &|draft| draft.allocation = Some(AllocationPolicy::Hashed));
        check("--allocation lowest-latency", &|draft| draft.allocation = Some(AllocationPolicy::LowestLatency));
        check("--allocation default", &|_| {});
        check("--wait 2h", &|draft| {
            draft.unreachable = UnreachableRule::Wait { deadline: Duration::from_secs(7_200) };
        });
        check("--unreachable last-known --allow-late-writes", &|draft| {
            draft.unreachable = UnreachableRule::LastKnown;
            draft.allow_late_writes = true;
        });
        check("--reset-on-same-hub off", &|draft| draft.reset_on_same_hub = domain::ResetOnSameHub::Off);
        check("--reassign-when-down", &|draft| draft.reassign_when_down = true);
        check("--adopt-existing=false", &|_| {});
        check("--adopt-existing", &|draft| draft.adopt_existing = true);
        check("--iot-edge", &|draft| draft.initial.capabilities = Capabilities { iot_edge: true });
    }

    #[test]
    fn flags_that_do_not_fit_together_are_refused_here() {
        for line in [
            "--allocation static",
            "--allocation static --hub a --hub b",
            "--allocation custom",
            "--allocation custom --webhook-api-version v1",
            "--webhook-api-version v1",
            "--unreachable reset",
            "--unreachable reset --allow-late-writes --wait 1m",
        ] {
            assert!(create(line).is_err(), "{line}");
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
        let before = created(&format!(
            "--allocation custom --webhook-url-file {} --webhook-api-version v1 --initial-twin {} --iot-edge --hub a",
            url.display(),
            twin.display()
        ));
        let webhook = |api_version: &str| {
            let url = "https://x.example/allocate?code=secret".to_owned();
            Some(AllocationPolicy::Custom(WebhookPolicy { url, api_version: api_version.to_owned() }))
        };
        assert_eq!(before.allocation, webhook("v1"));
        assert_eq!(before.initial.tags.to_text(), r#"{"site":"x"}"#);

        let mut after = before.clone();
        flags("").apply(&mut after).unwrap();
        assert_eq!(after, before);

        flags("--reprovision never --any-hub --iot-edge=false --webhook-api-version v2").apply(&mut after).unwrap();
        let mut expected = before;
        expected.reprovision = Some(ReprovisionPolicy::Never);
        expected.hubs.clear();
        expected.initial.capabilities = Capabilities { iot_edge: false };
        expected.allocation = webhook("v2");
        assert_eq!(after, expected);

        flags("--allocation hashed --unreachable wait --wait 1m").apply(&mut after).unwrap();
        assert_eq!(after.allocation, Some(AllocationPolicy::Hashed));
        assert_eq!(after.unreachable, UnreachableRule::Wait { deadline: Duration::from_secs(60) });
        flags("--adopt-existing").apply(&mut after).unwrap();
        assert_eq!(after.unreachable, UnreachableRule::Wait { deadline: Duration::from_secs(60) });
    }

    #[test]
    fn certificates_are_rolled_one_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new.der");
        let new: &[u8] = &[0x30, 0x82, 0, 0];
        fs::write(&path, new).unwrap();
        let check = |changes: CertificateChanges, expected: (&[u8], Option<&[u8]>)| {
            let mut stored = AttestationDraft::X509 { primary: vec![1], secondary: Some(vec![2]) };
            changes.apply(&mut stored).unwrap();
            let AttestationDraft::X509 { primary, secondary } = stored else { panic!("{stored:?}") };
            assert_eq!((primary.as_slice(), secondary.as_deref()), expected);
        };
        check(CertificateChanges::default(), (&[1], Some(&[2])));
        check(CertificateChanges { secondary: Some(path.clone()), ..Default::default() }, (&[1], Some(new)));
        check(CertificateChanges { certificate: Some(path), ..Default::default() }, (new, Some(&[2])));
        check(CertificateChanges { no_secondary: true, ..Default::default() }, (&[1], None));
    }
}
