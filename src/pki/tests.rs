//! Files, modes, renewals and refusals; what was issued is judged with webpki, as a peer would.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use webpki::{EndEntityCert, KeyUsage};

use super::*;
use crate::ambient::{Clock, ManualClock, SeededEntropy};
use crate::domain::{HubId, RegistrationId, Role, RoleGrant, Timestamp};

const NOW: Timestamp = Timestamp(1_800_000_000_000);
const DAY: Duration = Duration::from_secs(24 * 3600);

fn terms() -> Terms {
    Terms::starting(NOW, 30 * DAY)
}

fn entropy() -> SeededEntropy {
    SeededEntropy::new(1)
}

fn authority(purpose: Purpose) -> Authority {
    Authority::create("test ca", purpose, terms(), &entropy()).unwrap()
}

fn hosts() -> Vec<String> {
    vec!["localhost".to_owned(), "127.0.0.1".to_owned()]
}

fn chain_in(path: &Path) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(&fs::read(path).unwrap()).map(Result::unwrap).collect()
}

fn verifies(chain: &[CertificateDer<'_>], anchor: &CertificateDer<'_>, usage: KeyUsage, now: Timestamp) -> bool {
    let now = UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs().try_into().unwrap()));
    let anchors = [webpki::anchor_from_trusted_cert(anchor).unwrap()];
    EndEntityCert::try_from(&chain[0])
        .unwrap()
        .verify_for_usage(webpki::ALL_VERIFICATION_ALGS, &anchors, &chain[1..], now, usage, None, None)
        .is_ok()
}

/// A folder with a development PKI in it, and the clock it was made by.
struct Folder {
    folder: tempfile::TempDir,
    clock: ManualClock,
}

impl Folder {
    fn empty() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), clock: ManualClock::at(NOW) }
    }

    fn complete() -> Self {
        let folder = Self::empty();
        folder.ensure().unwrap();
        folder
    }

    fn ensure(&self) -> Result<Development, PkiFault> {
        self.ensure_for(&hosts())
    }

    fn ensure_for(&self, host_names: &[String]) -> Result<Development, PkiFault> {
        // The seed differs from call to call, as the system's randomness does.
        let entropy = SeededEntropy::new(self.content().len() as u64 + 7);
        Development::ensure(self.folder.path(), &self.clock, &entropy, host_names)
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.path(name)).unwrap();
    }

    fn copy(&self, from: &str, to: &str) {
        fs::copy(self.path(from), self.path(to)).unwrap();
    }

    fn content(&self) -> BTreeMap<String, Vec<u8>> {
        let entries = fs::read_dir(self.folder.path()).unwrap().map(Result::unwrap);
        entries.map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())).collect()
    }

    /// The names of what the next start writes.
    fn renewals(&self) -> Vec<String> {
        names(&self.ensure().unwrap())
    }
}

fn names(made: &Development) -> Vec<String> {
    made.written.iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect()
}

#[test]
fn a_first_start_makes_everything_and_later_ones_nothing() {
    let folder = Folder::empty();
    let made = folder.ensure().unwrap();
    assert_eq!(
        names(&made),
        [
            "server-ca.pem",
            "server.pem",
            "operator-ca.pem",
            "operator.pem",
            "reader.pem",
            "enroller.pem",
            "backend.pem",
            "device-ca.pem",
        ]
    );
    let before = folder.content();
    assert_eq!(before.len(), 17, "eight pairs and the lock: {:?}", before.keys());
    assert!(folder.renewals().is_empty());
    assert_eq!(folder.content(), before);

    let anchor = |pair: &Pair| chain_in(&pair.certificate).remove(0);
    let (server_ca, operator_ca) = (anchor(&made.paths.server_ca), anchor(&made.paths.operator_ca));
    let server = chain_in(&made.paths.server.certificate);
    assert!(verifies(&server, &server_ca, KeyUsage::server_auth(), NOW));
    assert!(!verifies(&server, &server_ca, KeyUsage::client_auth(), NOW));
    for name in hosts() {
        let name = ServerName::try_from(name.as_str()).unwrap();
        EndEntityCert::try_from(&server[0]).unwrap().verify_is_valid_for_subject_name(&name).unwrap();
    }
    for (pair, role) in [
        (&made.paths.operator, Role::Operator),
        (&made.paths.reader, Role::Reader),
        (&made.paths.enroller, Role::Enroller),
        (&made.paths.backend, Role::Backend),
    ] {
        let chain = chain_in(&pair.certificate);
        assert!(verifies(&chain, &operator_ca, KeyUsage::client_auth(), NOW), "{role}");
        assert!(!verifies(&chain, &server_ca, KeyUsage::client_auth(), NOW), "{role}");
        let certificate = EndEntityCert::try_from(&chain[0]).unwrap();
        let grants: Vec<RoleGrant> = certificate.valid_uri_names().map(|uri| uri.parse().unwrap()).collect();
        assert_eq!(grants, [RoleGrant::everywhere(role)]);
    }
    let device_ca = Authority::load(&made.paths.device_ca).unwrap();
    let device = device_ca.issue_device(&RegistrationId::parse("dev-1").unwrap(), terms(), &entropy()).unwrap();
    assert!(verifies(device.chain(), device_ca.certificate(), KeyUsage::client_auth(), NOW));
    assert!(!verifies(device.chain(), &operator_ca, KeyUsage::client_auth(), NOW));
}

#[cfg(unix)]
#[test]
fn private_keys_are_for_their_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::complete();
    let mode = |name: &str| fs::metadata(folder.path(name)).unwrap().permissions().mode() & 0o777;
    for name in folder.content().keys().filter(|name| name.ends_with(".key")) {
        assert_eq!(mode(name), 0o600, "{name}");
    }
    folder.remove("server.pem");
    folder.ensure().unwrap();
    assert_eq!(mode("server.key"), 0o600, "replaced");
}

#[test]
fn what_is_missing_is_completed() {
    for (removed, made) in [
        (&["server.pem", "server.key"][..], &["server.pem"][..]),
        (&["reader.pem"], &["reader.pem"]),
        (&["reader.key"], &["reader.pem"]),
        (&["backend.pem", "backend.key", "enroller.key"], &["enroller.pem", "backend.pem"]),
        (&["device-ca.pem", "device-ca.key"], &["device-ca.pem"]),
        (&[".lock"], &[]),
    ] {
        let folder = Folder::complete();
        removed.iter().for_each(|name| folder.remove(name));
        assert_eq!(folder.renewals(), made, "{removed:?}");
        assert!(folder.renewals().is_empty(), "{removed:?}");
    }
}

#[test]
fn a_key_of_another_certificate_is_replaced_with_its_certificate() {
    let folder = Folder::complete();
    folder.copy("reader.key", "server.key");
    assert_eq!(folder.renewals(), ["server.pem"]);
}

#[test]
fn leaves_are_renewed_before_they_end() {
    let folder = Folder::complete();
    folder.clock.advance(366 * DAY);
    assert!(folder.renewals().is_empty());
    folder.clock.advance(2 * DAY);
    assert_eq!(folder.renewals(), ["server.pem", "operator.pem", "reader.pem", "enroller.pem", "backend.pem"]);
    let server_ca = chain_in(&folder.path("server-ca.pem")).remove(0);
    let server = chain_in(&folder.path("server.pem"));
    assert!(verifies(&server, &server_ca, KeyUsage::server_auth(), folder.clock.now().plus(300 * DAY)));
    folder.clock.advance(500 * DAY);
    assert_eq!(folder.renewals().len(), 5, "after they ended, too");
}

#[test]
fn a_new_host_name_renews_the_server_certificate_only() {
    let folder = Folder::complete();
    let more = vec!["localhost".to_owned(), "rehome.example".to_owned(), "::1".to_owned()];
    assert_eq!(names(&folder.ensure_for(&more).unwrap()), ["server.pem"]);
    assert!(folder.ensure_for(&more).unwrap().written.is_empty());
    assert!(folder.ensure_for(&["localhost".to_owned()]).unwrap().written.is_empty(), "fewer names fit");
}

#[test]
fn what_cannot_be_completed_is_refused_and_left_alone() {
    type Spoil = fn(&Folder);
    let cases: [(&str, Spoil, &str); 11] = [
        ("an authority without its key", |folder| folder.remove("device-ca.key"), "device-ca.key is not"),
        ("a key without its authority", |folder| folder.remove("operator-ca.pem"), "operator-ca.pem is not"),
        (
            "leaves without their authority",
            |folder| ["server-ca.pem", "server-ca.key"].iter().for_each(|name| folder.remove(name)),
            "the authority that issued it is missing",
        ),
        (
            "a server certificate of another origin",
            |folder| {
                let foreign = Authority::create("foreign", Purpose::Server, terms(), &entropy()).unwrap();
                let issued = foreign.issue_server(&hosts(), terms(), &entropy()).unwrap();
                issued.save(&Pair::named(folder.folder.path(), "server"), Existing::Replace, &entropy()).unwrap();
            },
            "it was not issued by the authority beside it",
        ),
        (
            "an operator certificate as the server's",
            |folder| folder.copy("operator.pem", "server.pem"),
            "it was not issued by the authority beside it",
        ),
        ("garbage as a leaf", |folder| fs::write(folder.path("reader.pem"), "x").unwrap(), "no readable certificate"),
        (
            "garbage as an authority",
            |folder| fs::write(folder.path("device-ca.pem"), "x").unwrap(),
            "no readable certificate",
        ),
        (
            "garbage as its key",
            |folder| fs::write(folder.path("device-ca.key"), "x").unwrap(),
            "no readable private key",
        ),
        (
            "another authority's key",
            |folder| folder.copy("server-ca.key", "device-ca.key"),
            "belongs to another certificate",
        ),
        (
            "an authority for another purpose",
            |folder| {
                for end in ["pem", "key"] {
                    folder.copy(&format!("operator-ca.{end}"), &format!("device-ca.{end}"));
                }
            },
            "for another purpose",
        ),
        ("an authority that ended", |folder| folder.clock.advance(3651 * DAY), "is not valid now"),
    ];
    for (case, spoil, expected) in cases {
        let folder = Folder::complete();
        spoil(&folder);
        let before = folder.content();
        let fault = folder.ensure().unwrap_err().to_string();
        assert!(fault.contains(expected), "{case}: {fault}");
        assert_eq!(folder.content(), before, "{case}");
    }
    let folder = Folder::empty();
    fs::write(folder.path("certs"), "a file where the folder should be").unwrap();
    let fault = Development::ensure(&folder.path("certs"), &folder.clock, &entropy(), &hosts()).unwrap_err();
    assert!(matches!(&fault, PkiFault::Io { action: "create", .. }), "{fault}");
    for (host_names, expected) in [
        (vec![], "needs a host name"),
        (vec!["not a host".to_owned()], "neither a host name nor an address"),
        (vec!["localhost".to_owned(), String::new()], "neither a host name nor an address"),
    ] {
        let fault = Folder::empty().ensure_for(&host_names).unwrap_err().to_string();
        assert!(fault.contains(expected), "{host_names:?}: {fault}");
    }
}

#[test]
fn authorities_keep_to_their_purpose() {
    let device_id = RegistrationId::parse("dev-1").unwrap();
    let grants = [RoleGrant::everywhere(Role::Reader)];
    for purpose in Purpose::ALL {
        let authority = authority(*purpose);
        let issues = |needed: Purpose| match needed {
            Purpose::Server => authority.issue_server(&hosts(), terms(), &entropy()).map(drop),
            Purpose::Operator => authority.issue_operator("ann", &grants, terms(), &entropy()).map(drop),
            Purpose::Device => authority.issue_device(&device_id, terms(), &entropy()).map(drop),
        };
        for needed in Purpose::ALL {
            match issues(*needed) {
                Ok(()) => assert_eq!(needed, purpose),
                Err(PkiFault::WrongPurpose { needed: named, found }) => {
                    assert_eq!((named, found), (*needed, *purpose));
                    assert_ne!(needed, purpose);
                }
                Err(fault) => panic!("{purpose} for {needed}: {fault}"),
            }
        }
    }
}

#[test]
fn authorities_are_saved_and_loaded_whatever_their_key() {
    let folder = tempfile::tempdir().unwrap();
    let device_id = RegistrationId::parse("dev-1").unwrap();
    for key in KeyType::ALL {
        let pair = Pair::named(folder.path(), key.as_str());
        let terms = Terms { key: *key, ..terms() };
        let made = Authority::create("fleet ca", Purpose::Device, terms, &entropy()).unwrap();
        made.save(&pair, Existing::Refuse, &entropy()).unwrap();
        let loaded = Authority::load(&pair).unwrap();
        assert_eq!((loaded.name(), loaded.purpose(), loaded.validity()), ("fleet ca", Purpose::Device, terms.validity));
        let device = loaded.issue_device(&device_id, terms, &entropy()).unwrap();
        assert!(verifies(device.chain(), made.certificate(), KeyUsage::client_auth(), NOW), "{key}");
        assert_eq!(key.as_str().parse(), Ok(*key));
    }
}

#[test]
fn intermediates_travel_with_what_they_issue() {
    let folder = tempfile::tempdir().unwrap();
    let root = authority(Purpose::Device);
    let upper = root.issue_intermediate("upper", terms(), &entropy()).unwrap();
    let lower = upper.issue_intermediate("lower", terms(), &entropy()).unwrap();
    let pair = Pair::named(folder.path(), "lower");
    lower.save(&pair, Existing::Refuse, &entropy()).unwrap();
    let device_id = RegistrationId::parse("dev-1").unwrap();
    for authority in [lower, Authority::load(&pair).unwrap()] {
        let device = authority.issue_device(&device_id, terms(), &entropy()).unwrap();
        assert_eq!(device.chain().len(), 3, "the leaf, lower and upper");
        assert!(verifies(device.chain(), root.certificate(), KeyUsage::client_auth(), NOW));
        assert!(verifies(&device.chain()[..1], authority.certificate(), KeyUsage::client_auth(), NOW));
    }
}

#[test]
fn nothing_outlives_its_authority() {
    let root = authority(Purpose::Device);
    let device_id = RegistrationId::parse("dev-1").unwrap();
    let long = Terms::starting(NOW, 3000 * DAY);
    let device = root.issue_device(&device_id, long, &entropy()).unwrap();
    assert!(verifies(device.chain(), root.certificate(), KeyUsage::client_auth(), NOW.plus(29 * DAY)));
    assert!(!verifies(device.chain(), root.certificate(), KeyUsage::client_auth(), NOW.plus(31 * DAY)));
    assert_eq!(root.issue_intermediate("below", long, &entropy()).unwrap().validity(), root.validity());
    for terms in [
        Terms::starting(NOW.plus(31 * DAY), DAY),
        Terms::starting(Timestamp(0), DAY),
        Terms::starting(Timestamp(i64::MAX), DAY),
    ] {
        let fault = root.issue_device(&device_id, terms, &entropy()).unwrap_err();
        assert!(matches!(fault, PkiFault::Validity), "{fault}");
    }
    for now in [Timestamp(i64::MIN), Timestamp(-1), Timestamp(i64::MAX)] {
        let fault = Authority::create("ca", Purpose::Device, Terms::starting(now, DAY), &entropy()).unwrap_err();
        assert!(matches!(fault, PkiFault::Validity), "{fault}");
    }
}

#[test]
fn names_and_roles_are_checked() {
    let operator_ca = authority(Purpose::Operator);
    let grants = [RoleGrant { role: Role::Backend, hub: Some(HubId::parse("hub-a").unwrap()) }];
    let issued = operator_ca.issue_operator("back end of hub-a", &grants, terms(), &entropy()).unwrap();
    let certificate = EndEntityCert::try_from(&issued.chain()[0]).unwrap();
    assert_eq!(certificate.valid_uri_names().collect::<Vec<_>>(), ["rehome:role:backend:hub-a"]);
    let long = "x".repeat(65);
    for name in ["", "a\nb", long.as_str()] {
        let fault = operator_ca.issue_operator(name, &grants, terms(), &entropy()).unwrap_err();
        assert!(matches!(fault, PkiFault::Name { .. }), "{name:?}");
        let fault = Authority::create(name, Purpose::Device, terms(), &entropy()).unwrap_err();
        assert!(matches!(fault, PkiFault::Name { .. }), "{name:?}");
    }
    let fault = operator_ca.issue_operator("ann", &[], terms(), &entropy()).unwrap_err();
    assert!(matches!(fault, PkiFault::NoRole));
}

#[test]
fn files_that_exist_are_not_overwritten_unless_asked() {
    let folder = tempfile::tempdir().unwrap();
    let ca = authority(Purpose::Device);
    let issued = ca.issue_device(&RegistrationId::parse("dev-1").unwrap(), terms(), &entropy()).unwrap();
    for present in ["dev.pem", "dev.key"] {
        let pair = Pair::named(folder.path(), "dev");
        fs::write(folder.path().join(present), "precious").unwrap();
        let fault = issued.save(&pair, Existing::Refuse, &entropy()).unwrap_err();
        assert!(matches!(&fault, PkiFault::Exists { path } if path.ends_with(present)), "{fault}");
        let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, [present], "nothing is left behind");
        issued.save(&pair, Existing::Replace, &entropy()).unwrap();
        assert_eq!(fs::read_to_string(&pair.certificate).unwrap(), issued.certificate_pem());
        assert_eq!(fs::read_to_string(&pair.key).unwrap(), issued.key_pem());
        fs::remove_file(&pair.certificate).unwrap();
        fs::remove_file(&pair.key).unwrap();
    }
    let nowhere = Pair::named(&folder.path().join("missing"), "dev");
    let fault = issued.save(&nowhere, Existing::Replace, &entropy()).unwrap_err();
    assert!(matches!(fault, PkiFault::Io { .. }), "{fault}");
}

#[test]
fn secrets_are_not_shown() {
    let ca = authority(Purpose::Device);
    let issued = ca.issue_device(&RegistrationId::parse("dev-1").unwrap(), terms(), &entropy()).unwrap();
    assert_eq!(format!("{ca:?}"), r#"Authority("test ca", device)"#);
    assert_eq!(format!("{issued:?}"), "Issued(1 certificates)");
}
