//! The device's side of a TPM against a real implementation: keys, certificates, signatures, quotes, and that nothing is
//! left behind.

use std::process::Command;

use rehome::ambient::{Clock as _, SystemClock};
use rehome::client::tpm::{AuthValue, ChipFault, EkCertificate, EkKind, QuoteOrder, SecurityModule as _, SrkKind};
use serde_json::Value;
use tpm2_protocol::data::{
    Tpm2bAuth, Tpm2bMaxNvBuffer, Tpm2bNvPublic, TpmAlgId, TpmCap, TpmRh, TpmaNv, TpmsNvPublic, TpmuCapabilities,
};
use tpm2_protocol::frame::{
    TpmGetCapabilityCommand, TpmGetCapabilityResponse, TpmHierarchyChangeAuthCommand, TpmHierarchyChangeAuthResponse,
    TpmNvDefineSpaceCommand, TpmNvDefineSpaceResponse, TpmNvWriteCommand, TpmNvWriteResponse,
};

use crate::swtpm::Swtpm;

const OWNER: u32 = TpmRh::Owner as u32;

/// How many objects and sessions somebody left in the TPM.
fn left_behind(chip: &Swtpm) -> usize {
    // Transient objects, then loaded sessions of both kinds.
    [0x8000_0000_u32, 0x0200_0000, 0x0300_0000]
        .into_iter()
        .map(|first| {
            let ask = TpmGetCapabilityCommand {
                handles: [],
                cap: TpmCap::Handles,
                property: first.into(),
                property_count: 64.into(),
            };
            let answer: TpmGetCapabilityResponse = chip.execute(&ask, 0).unwrap();
            let TpmuCapabilities::Handles(handles) = answer.capability_data.data else { panic!("not handles") };
            handles.iter().filter(|handle| handle.value() >> 24 == first >> 24).count()
        })
        .sum()
}

/// Puts something where a manufacturer would.
fn write_nv(chip: &Swtpm, index: u32, content: &[u8]) {
    let public = TpmsNvPublic {
        nv_index: index.into(),
        name_alg: TpmAlgId::Sha256,
        attributes: TpmaNv::OWNERWRITE | TpmaNv::AUTHREAD | TpmaNv::OWNERREAD | TpmaNv::NO_DA,
        data_size: u16::try_from(content.len()).unwrap().into(),
        ..TpmsNvPublic::default()
    };
    let define = TpmNvDefineSpaceCommand {
        handles: [OWNER.into()],
        auth: Tpm2bAuth::default(),
        public_info: Tpm2bNvPublic { inner: public },
    };
    let _: TpmNvDefineSpaceResponse = chip.execute(&define, 1).unwrap();
    let mut offset = 0;
    for part in content.chunks(512) {
        let write = TpmNvWriteCommand {
            handles: [OWNER.into(), index.into()],
            data: Tpm2bMaxNvBuffer::try_from(part).unwrap(),
            offset: u16::try_from(offset).unwrap().into(),
        };
        let _: TpmNvWriteResponse = chip.execute(&write, 1).unwrap();
        offset += part.len();
    }
}

fn set_password(chip: &Swtpm, hierarchy: TpmRh, password: &[u8]) {
    let change = TpmHierarchyChangeAuthCommand {
        handles: [(hierarchy as u32).into()],
        new_auth: Tpm2bAuth::try_from(password).unwrap(),
    };
    let _: TpmHierarchyChangeAuthResponse = chip.execute(&change, 1).unwrap();
}

#[tokio::test]
async fn a_blank_tpm_is_looked_at_without_being_changed() {
    let Some(chip) = Swtpm::blank() else { return };
    let first = chip.tpm().summary().await.unwrap();
    assert_eq!((first.endorsement.kind, first.endorsement.is_persistent), (EkKind::Rsa2048, false));
    assert_eq!((first.certificates.len(), first.has_identity), (0, false));
    let keys = chip.tpm().keys().await.unwrap();
    assert_eq!(keys.endorsement_key, first.endorsement.public);
    let second = chip.tpm().summary().await.unwrap();
    assert!(second.endorsement.is_persistent);
    assert_eq!(chip.tpm().keys().await.unwrap(), keys);
}

#[tokio::test]
async fn keys_of_every_kind_are_made_and_found_again() {
    let Some(chip) = Swtpm::blank() else { return };
    for kind in EkKind::ALL {
        for (storage_root, handle) in [(SrkKind::Rsa2048, 0x8100_0001), (SrkKind::EccP256, 0x8100_0002)] {
            let tpm = chip.tpm_with(|settings| {
                settings.endorsement = Some(kind);
                settings.storage_root = Some(storage_root);
                settings.storage_root_handle = handle;
            });
            let keys = tpm.keys().await.unwrap();
            assert_eq!(tpm.keys().await.unwrap(), keys);
            let length = match storage_root {
                SrkKind::Rsa2048 => 284,
                SrkKind::EccP256 => 92,
            };
            assert_eq!(keys.storage_root_key.len(), length);
        }
    }
    let wrong = chip.tpm_with(|settings| {
        settings.endorsement = Some(EkKind::EccP256);
        settings.endorsement_handle = Some(0x8101_0001);
    });
    assert!(matches!(wrong.keys().await, Err(ChipFault::Occupied { handle: 0x8101_0001, .. })));
}

#[tokio::test]
async fn a_manufactured_tpm_has_certificates_for_its_keys() {
    let Some(chip) = Swtpm::manufactured() else { return };
    for kind in [EkKind::Rsa2048, EkKind::EccP384] {
        let tpm = chip.tpm_with(|settings| settings.endorsement = Some(kind));
        let summary = tpm.summary().await.unwrap();
        assert!(summary.endorsement.is_persistent, "{kind}");
        assert_eq!(summary.certificates.len(), 1, "{kind}");
        let read = |key: &[u8]| EkCertificate::read(&summary.certificates[0], key).unwrap();
        let certificate = read(&summary.endorsement.public);
        assert!(certificate.is_for_key && certificate.not_after > SystemClock.now(), "{certificate:?}");
        assert_eq!((certificate.subject.as_str(), certificate.model.as_deref()), ("CN=device", Some("swtpm")));
        assert_eq!(certificate.manufacturer.as_deref(), Some("id:00001014"));
        let other = chip.tpm().keys().await.unwrap().storage_root_key;
        assert!(!read(&other).is_for_key && !read(&[]).is_for_key);
        // The key that the manufacturer certified is the one that the templates give.
        let elsewhere = chip.tpm_with(|settings| {
            settings.endorsement = Some(kind);
            settings.endorsement_handle = Some(0x8101_00ff);
        });
        assert_eq!(elsewhere.summary().await.unwrap().endorsement.public, summary.endorsement.public, "{kind}");
    }
}

#[tokio::test]
async fn a_manufacturers_nonce_and_template_are_obeyed() {
    let Some(chip) = Swtpm::blank() else { return };
    let plain = chip.tpm().summary().await.unwrap().endorsement.public;
    write_nv(&chip, 0x01c0_0003, &[0x5a; 20]);
    let with_nonce = chip.tpm().summary().await.unwrap().endorsement.public;
    assert_ne!(with_nonce, plain);
    // The usual template, written down: it changes nothing.
    let mut template = plain[2..60].to_vec();
    template.extend_from_slice(&[0; 256]);
    write_nv(&chip, 0x01c0_0004, &template);
    assert_eq!(chip.tpm().summary().await.unwrap().endorsement.public, with_nonce);
    write_nv(&chip, 0x01c0_000b, &[1; 33]);
    let elliptic = chip.tpm_with(|settings| settings.endorsement = Some(EkKind::EccP256));
    assert!(matches!(elliptic.keys().await, Err(ChipFault::Answer { .. })), "a nonce that does not fit");
    // What stands there is what counts, also when it is broken: a key without the certificate would help nobody.
    let Some(other) = Swtpm::blank() else { return };
    write_nv(&other, 0x01c0_0004, &template[..30]);
    assert!(matches!(other.tpm().keys().await, Err(ChipFault::Answer { .. })), "a template that is broken");
}

#[tokio::test]
async fn certificates_of_the_authorities_above_are_read_and_padding_is_cut_off() {
    let Some(chip) = Swtpm::blank() else { return };
    let der = |length: usize, byte: u8| {
        let [high, low] = u16::try_from(length).unwrap().to_be_bytes();
        [&[0x30, 0x82, high, low][..], &vec![byte; length]].concat()
    };
    write_nv(&chip, 0x01c0_0002, &[der(900, 1), vec![0xff; 60]].concat());
    write_nv(&chip, 0x01c0_0100, &[der(700, 2), der(300, 3), vec![0; 9]].concat());
    write_nv(&chip, 0x01c0_0101, &der(600, 4));
    write_nv(&chip, 0x01c0_0200, &der(600, 5));
    let summary = chip.tpm().summary().await.unwrap();
    assert_eq!(summary.certificates, [der(900, 1), der(700, 2), der(300, 3), der(600, 4)]);
}

#[tokio::test]
async fn passwords_of_the_hierarchies_are_used_and_asked_for() {
    let Some(chip) = Swtpm::blank() else { return };
    set_password(&chip, TpmRh::Owner, b"owner");
    set_password(&chip, TpmRh::Endorsement, b"endorsement");
    for (owner, endorsement) in [("", ""), ("owner", ""), ("", "endorsement"), ("wrong", "endorsement")] {
        let tpm = chip.tpm_with(|settings| {
            settings.owner_auth = AuthValue::new(owner.into());
            settings.endorsement_auth = AuthValue::new(endorsement.into());
        });
        let refused = tpm.keys().await.unwrap_err();
        assert!(refused.to_string().contains("REHOME_TPM_OWNER_AUTH_FILE"), "{refused}");
        assert!(!format!("{tpm:?}").contains("wrong"), "{tpm:?}");
    }
    let tpm = chip.tpm_with(|settings| {
        settings.owner_auth = AuthValue::new(b"owner".to_vec());
        settings.endorsement_auth = AuthValue::new(b"endorsement".to_vec());
    });
    tpm.keys().await.unwrap();
    assert_eq!(left_behind(&chip), 0);
}

#[tokio::test]
async fn nothing_is_left_in_the_tpm_whatever_happens() {
    let Some(chip) = Swtpm::blank() else { return };
    let tpm = chip.tpm();
    tpm.keys().await.unwrap();
    let nonsense = [0, 2, 1, 1, 0, 2, 2, 2, 0, 2, 3, 3, 0, 2, 4, 4, 0, 2, 5, 5];
    // More often than a TPM has slots.
    for _ in 0..8 {
        assert!(tpm.sign_with(nonsense.to_vec(), b"x".to_vec()).await.is_err());
        assert!(tpm.keep(nonsense.to_vec()).await.is_err());
        let order = QuoteOrder { nonce: vec![7; 32], pcrs: vec![7], credential: nonsense[..8].to_vec() };
        assert!(tpm.quote(order).await.is_err());
        tpm.attestation_key().await.unwrap();
    }
    assert_eq!(tpm.sign(b"x".to_vec()).await, Err(ChipFault::NoIdentity { handle: 0x8100_0100 }));
    assert_eq!(left_behind(&chip), 0);
}

#[tokio::test]
async fn work_that_nobody_waits_for_runs_to_its_end() {
    let Some(chip) = Swtpm::blank() else { return };
    let tpm = chip.tpm();
    // Begun, and dropped before it is done.
    tokio::select! {
        biased;
        _ = tpm.keys() => panic!("making keys takes its time"),
        () = std::future::ready(()) => {}
    }
    assert!(tpm.summary().await.unwrap().endorsement.is_persistent);
    assert_eq!(left_behind(&chip), 0);
}

#[tokio::test]
async fn registers_are_read_in_as_many_parts_as_the_tpm_likes() {
    let Some(chip) = Swtpm::blank() else { return };
    let wanted: Vec<u8> = (0..24).rev().collect();
    let values = chip.tpm().pcrs(wanted).await.unwrap();
    assert_eq!(values.iter().map(|(index, _)| *index).collect::<Vec<_>>(), (0..24).collect::<Vec<_>>());
    // After a start the first ones are zero, and those of the dynamic root are not.
    assert_eq!((values[0].1.as_slice(), values[17].1.as_slice()), (&[0; 32][..], &[0xff; 32][..]));
    assert_eq!(chip.tpm().pcrs(vec![24]).await, Err(ChipFault::NoSuchPcr { index: 24 }));
}

/// `rehome tpm show` of a TPM, in a folder.
fn show(tpm: &str, folder: &std::path::Path, more: &[&str], password_file: Option<&str>) -> (bool, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rehome"));
    command.env_clear().current_dir(folder).args(["tpm", "show", "--tpm", tpm]).args(more);
    if let Some(file) = password_file {
        command.env("REHOME_TPM_ENDORSEMENT_AUTH_FILE", file);
    }
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

#[tokio::test]
async fn the_command_line_shows_a_tpm_and_writes_what_an_enrollment_takes() {
    let Some(chip) = Swtpm::manufactured() else { return };
    let tpm = chip.address().to_string();
    let folder = tempfile::tempdir().unwrap();
    let summary = chip.tpm().summary().await.unwrap();
    let id = summary.endorsement.hash().registration_id().to_string();

    let (shown, text, _) = show(&tpm, folder.path(), &[], None);
    assert!(shown && text.contains(&id) && text.contains("id:00001014"), "{text}");

    let (shown, text, _) = show(&tpm, folder.path(), &["--json", "--out", "enroll"], None);
    assert!(shown, "{text}");
    let view: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&view["registration_id"], &view["endorsement_key_kind"]), (&id.as_str().into(), &"rsa-2048".into()));
    assert_eq!(view["certificate"]["is_for_key"], true);
    let written = |name: String| std::fs::read_to_string(folder.path().join("enroll").join(name)).unwrap();
    let key = written(format!("{id}.ek"));
    assert_eq!(data_encoding::BASE64.decode(key.trim().as_bytes()).unwrap(), summary.endorsement.public);
    let certificate = written(format!("{id}.ek.pem"));
    let (_, pem) = x509_parser::pem::parse_x509_pem(certificate.as_bytes()).unwrap();
    assert_eq!(pem.contents, summary.certificates[0]);

    let (_, text, _) = show(&tpm, folder.path(), &["--tpm-key", "ecc-p256", "--json"], None);
    let view: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&view["is_persistent"], &view["certificate"]), (&false.into(), &Value::Null));

    set_password(&chip, TpmRh::Endorsement, b"very secret");
    std::fs::write(folder.path().join("password"), "very secret\n").unwrap();
    let (shown, _, error) = show(&tpm, folder.path(), &["--tpm-key", "ecc-p256"], None);
    assert!(!shown && error.contains("REHOME_TPM_ENDORSEMENT_AUTH_FILE"), "{error}");
    let (shown, _, error) = show(&tpm, folder.path(), &["--tpm-key", "ecc-p256"], Some("password"));
    assert!(shown, "{error}");
    let (shown, _, error) = show("nowhere", folder.path(), &[], None);
    assert!(!shown && error.contains("unix:PATH"), "{error}");
}
