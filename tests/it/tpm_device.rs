//! The device's side of a TPM against a real implementation: keys, certificates, signatures, quotes, and that nothing is
//! left behind.

use std::path::PathBuf;
use std::process::Command;

use aws_lc_rs::hmac;

use rehome::ambient::{Clock as _, SystemClock};
use rehome::attestation::tpm::{Draw, EndorsementKey, PublicArea, StorageKey, activation_blob};
use rehome::client::tpm::{AuthValue, ChipFault, EkCertificate, EkKind, QuoteOrder, SecurityModule as _, SrkKind};
use rehome::client::tpm::{Tpm, TpmKeys};
use rehome::domain::TokenKey;
use serde_json::Value;
use tpm2_protocol::data::{
    Tpm2bAuth, Tpm2bData, Tpm2bMaxNvBuffer, Tpm2bNvPublic, TpmAlgId, TpmCap, TpmRh, TpmaNv, TpmsNvPublic,
    TpmtSymDefObject, TpmuCapabilities,
};
use tpm2_protocol::frame::{
    TpmDuplicateCommand, TpmDuplicateResponse, TpmGetCapabilityCommand, TpmGetCapabilityResponse,
    TpmHierarchyChangeAuthCommand, TpmHierarchyChangeAuthResponse, TpmNvDefineSpaceCommand, TpmNvDefineSpaceResponse,
    TpmNvWriteCommand, TpmNvWriteResponse, TpmReadPublicCommand, TpmReadPublicResponse,
};

use rehome::client::registration_id_of;

use crate::swtpm::{Swtpm, is_required, skipped};

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

/// A service's blob for a TPM with these keys.
fn blob(keys: &TpmKeys, key: &[u8; 32]) -> Vec<u8> {
    let area = |bytes: &[u8]| PublicArea::parse(bytes).unwrap();
    let endorsement = EndorsementKey::validate(area(&keys.endorsement_key)).unwrap();
    let storage = StorageKey::validate(area(&keys.storage_root_key)).unwrap();
    let key = TokenKey::new(key).unwrap();
    activation_blob(&endorsement, &storage, &key, b"hub-a.localhost", &Draw::new([key.secret()[0]; 64])).unwrap()
}

fn signed(key: &[u8; 32], message: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message).as_ref().to_vec()
}

#[track_caller]
fn check_identity(found: Result<Vec<u8>, ChipFault>, key: &[u8; 32]) {
    assert_eq!(found.unwrap(), signed(key, b"message"));
}

#[tokio::test]
async fn a_blob_is_activated_by_endorsement_keys_of_every_kind() {
    let Some(chip) = Swtpm::blank() else { return };
    for endorsement in EkKind::ALL {
        for (storage_root, handle) in [(SrkKind::Rsa2048, 0x8100_0001), (SrkKind::EccP256, 0x8100_0002)] {
            let tpm = chip.tpm_with(|settings| {
                settings.endorsement = Some(endorsement);
                settings.storage_root = Some(storage_root);
                settings.storage_root_handle = handle;
            });
            let keys = tpm.keys().await.unwrap();
            // Messages as long as one command takes, and longer.
            for length in [0, 1, 1024, 1025, 5000] {
                let message = vec![0xa5; length];
                let signature = tpm.sign_with(blob(&keys, &[7; 32]), message.clone()).await.unwrap();
                assert_eq!(signature, signed(&[7; 32], &message), "{endorsement} {storage_root:?} {length}");
            }
            assert!(matches!(tpm.sign(vec![1]).await, Err(ChipFault::NoIdentity { .. })), "it was not kept");
            assert_eq!(left_behind(&chip), 0);
        }
    }
}

#[tokio::test]
async fn a_blob_that_was_changed_or_is_for_another_tpm_is_refused() {
    let (Some(chip), Some(other)) = (Swtpm::blank(), Swtpm::blank()) else { return };
    let elliptic = |chip: &Swtpm| {
        chip.tpm_with(|settings| {
            settings.endorsement = Some(EkKind::EccP256);
            settings.storage_root = Some(SrkKind::EccP256);
        })
    };
    let (tpm, keys) = (elliptic(&chip), elliptic(&chip).keys().await.unwrap());
    let good = blob(&keys, &[1; 32]);
    tpm.keep(good.clone()).await.unwrap();
    let refused = elliptic(&other).sign_with(good.clone(), b"x".to_vec()).await;
    assert!(matches!(refused, Err(ChipFault::Refused { .. })), "{refused:?}");
    // A bit in every part; the user data at the end is no business of the TPM's.
    for at in [2, 20, 60, 130, 160, 280, 300, 330, 345] {
        let mut bad = good.clone();
        bad[at] ^= 4;
        let refused = tpm.keep(bad).await;
        assert!(refused.is_err(), "bit {at}");
        check_identity(tpm.sign(b"message".to_vec()).await, &[1; 32]);
    }
    assert_eq!(left_behind(&chip), 0);
}

/// Makes a key from a blob persistent at one handle and nowhere else: an exchange that was cut off.
async fn place(chip: &Swtpm, keys: &TpmKeys, key: &[u8; 32], handle: u32) {
    let aside = chip.tpm_with(|settings| (settings.identity_handle, settings.exchange_handle) = (handle, 0x8100_01ff));
    aside.keep(blob(keys, key)).await.unwrap();
}

#[tokio::test]
async fn the_identity_key_is_exchanged_without_a_moment_in_which_there_is_none() {
    const HOME: u32 = 0x8100_0100;
    const EXCHANGE: u32 = 0x8100_0101;
    let (old, newer, newest) = ([1; 32], [2; 32], [3; 32]);
    // What a power cut can leave at home and in exchange, what is taken then, and that the next exchange works from there.
    for (at_home, in_exchange, taken) in [
        (None, None, None),
        (Some(&old), None, Some(&old)),
        (Some(&old), Some(&newer), Some(&newer)),
        (None, Some(&newer), Some(&newer)),
        (Some(&newer), Some(&newer), Some(&newer)),
    ] {
        let Some(chip) = Swtpm::blank() else { return };
        let tpm: Tpm = chip.tpm_with(|settings| settings.endorsement = Some(EkKind::EccP256));
        let keys = tpm.keys().await.unwrap();
        for (key, handle) in [(at_home, HOME), (in_exchange, EXCHANGE)] {
            if let Some(key) = key {
                let settings = |settings: &mut rehome::client::tpm::TpmSettings| {
                    settings.endorsement = Some(EkKind::EccP256);
                    (settings.identity_handle, settings.exchange_handle) = (handle, 0x8100_01ff);
                };
                chip.tpm_with(settings).keep(blob(&keys, key)).await.unwrap();
            }
        }
        match taken {
            Some(key) => check_identity(tpm.sign(b"message".to_vec()).await, key),
            None => assert_eq!(tpm.sign(vec![1]).await, Err(ChipFault::NoIdentity { handle: HOME })),
        }
        tpm.keep(blob(&keys, &newest)).await.unwrap();
        check_identity(tpm.sign(b"message".to_vec()).await, &newest);
        let exchange: Result<TpmReadPublicResponse, u32> =
            chip.execute(&TpmReadPublicCommand { handles: [EXCHANGE.into()] }, 0);
        assert_eq!(exchange, Err(0x18b), "the exchange is free again");
    }
}

#[tokio::test]
async fn the_identity_key_cannot_be_taken_out_of_the_tpm() {
    let Some(chip) = Swtpm::blank() else { return };
    let keys = chip.tpm().keys().await.unwrap();
    place(&chip, &keys, &[9; 32], 0x8100_0100).await;
    let duplicate = TpmDuplicateCommand {
        handles: [0x8100_0100_u32.into(), (TpmRh::Null as u32).into()],
        encryption_key_in: Tpm2bData::default(),
        symmetric_alg: TpmtSymDefObject::default(),
    };
    // By its password: duplication is the key's policy's to allow, and it has none.
    let taken: Result<TpmDuplicateResponse, u32> = chip.execute(&duplicate, 1);
    assert!(taken.is_err(), "{taken:?}");
}

#[tokio::test]
async fn device_code_of_the_field_activates_our_blob_and_signs_with_it() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/interop");
    if !folder.join("node_modules").is_dir() {
        assert!(!is_required(), "tests/interop is not installed: npm ci --ignore-scripts --prefix tests/interop");
        skipped("npm packages are not installed: npm ci --ignore-scripts --prefix tests/interop");
        return;
    }
    let Some(chip) = Swtpm::blank() else { return };
    // The field's device code takes the keys that are there.
    let keys = chip.tpm().keys().await.unwrap();
    let (key, message) = ([0x42; 32], "rehome/registrations/dev-1\n1700000000");
    let output = Command::new("node")
        .current_dir(folder)
        .args([
            "activate.js",
            chip.socket().to_str().unwrap(),
            &data_encoding::BASE64.encode(&blob(&keys, &key)),
            message,
        ])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["endorsementKey"], data_encoding::BASE64.encode(&keys.endorsement_key));
    assert_eq!(answer["registrationId"], registration_id_of(&keys).to_string());
    assert_eq!(answer["signature"], data_encoding::BASE64.encode(&signed(&key, message.as_bytes())));
    // And ours goes on from what it left.
    let ours = chip.tpm().sign(message.as_bytes().to_vec()).await.unwrap();
    assert_eq!(ours, signed(&key, message.as_bytes()));
}
