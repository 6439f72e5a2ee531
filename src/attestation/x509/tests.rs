//! Chains made at test time under a fixed clock, each with its verdict.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CustomExtension, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, KeyPair, KeyUsagePurpose, NameConstraints, SanType,
    SignatureAlgorithm,
};

use super::*;
use crate::attestation::{Matched, Slot, Verified};
use crate::domain::{
    Attestation, CertificateRef, Credential, Enrollment, EnrollmentId, GroupId, InitialState, RegistrationId,
    ResetOnSameHub, Timestamp, UnreachableRule, Version, X509Anchors, X509Leaves, limits,
};

const NOW: Timestamp = Timestamp(1_800_000_000_000);
const DAY: Duration = Duration::from_secs(24 * 3600);
const COMMON_NAME: &[u64] = &[2, 5, 4, 3];
/// Made outside, since the issuing library does not make such keys. Public certificates of `dev-1`, valid until 2109.
const RSA_1024: &[u8] = include_bytes!("../../../tests/data/x509/rsa-1024.pem");
const SECP256K1: &[u8] = include_bytes!("../../../tests/data/x509/secp256k1.pem");

type Ca = CertifiedIssuer<'static, KeyPair>;
type Change<'a> = &'a dyn Fn(&mut CertificateParams);

fn same(_: &mut CertificateParams) {}

/// Valid from a day ago for 30 days.
fn params(common_name: &str, change: Change<'_>) -> CertificateParams {
    let mut params = CertificateParams::default();
    dated(&mut params, -1, 30);
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    change(&mut params);
    params
}

/// From and until so many days from now.
fn dated(params: &mut CertificateParams, from: i64, until: i64) {
    let day = |days: i64| {
        let seconds = NOW.as_secs() + days * 24 * 3600;
        rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds.try_into().unwrap())
    };
    (params.not_before, params.not_after) = (day(from), day(until));
}

fn authority(params: &mut CertificateParams) {
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
}

fn path_length(length: u8) -> impl Fn(&mut CertificateParams) {
    move |params| params.is_ca = IsCa::Ca(BasicConstraints::Constrained(length))
}

fn key() -> KeyPair {
    KeyPair::generate().unwrap()
}

fn root(name: &str, change: Change<'_>) -> Ca {
    root_with(name, key(), change)
}

fn root_with(name: &str, key: KeyPair, change: Change<'_>) -> Ca {
    let params = params(name, &|params| {
        authority(params);
        change(params);
    });
    CertifiedIssuer::self_signed(params, key).unwrap()
}

fn intermediate(name: &str, by: &Ca, change: Change<'_>) -> Ca {
    let params = params(name, &|params| {
        authority(params);
        change(params);
    });
    CertifiedIssuer::signed_by(params, key(), by).unwrap()
}

/// Intermediates one below the other; the last one issues.
fn ladder(top: &Ca, length: usize) -> Vec<Ca> {
    (0..length).fold(Vec::new(), |mut rungs: Vec<Ca>, rung| {
        let next = intermediate(&format!("rung {rung}"), rungs.last().unwrap_or(top), &same);
        rungs.push(next);
        rungs
    })
}

fn leaf(common_name: &str, by: &Ca, change: Change<'_>) -> Vec<u8> {
    leaf_with(common_name, &rcgen::PKCS_ECDSA_P256_SHA256, by, change)
}

fn leaf_with(common_name: &str, algorithm: &'static SignatureAlgorithm, by: &Ca, change: Change<'_>) -> Vec<u8> {
    let key = KeyPair::generate_for(algorithm).unwrap();
    params(common_name, change).signed_by(&key, by).unwrap().der().to_vec()
}

fn self_signed(common_name: &str, change: Change<'_>) -> Vec<u8> {
    params(common_name, change).self_signed(&key()).unwrap().der().to_vec()
}

/// The presented chain: the leaf, then each issuer.
fn chain<'a>(leaf: Vec<u8>, issuers: impl IntoIterator<Item = &'a Ca>) -> Vec<Vec<u8>> {
    std::iter::once(leaf).chain(issuers.into_iter().map(|issuer| issuer.der().to_vec())).collect()
}

fn id(text: &str) -> RegistrationId {
    RegistrationId::parse(text).unwrap()
}

fn enrollment(id: EnrollmentId, attestation: Attestation) -> Enrollment {
    Enrollment {
        id,
        attestation,
        enabled: true,
        device_id: None,
        initial: InitialState::default(),
        reprovision: None,
        allocation: None,
        hubs: Vec::new(),
        unreachable: UnreachableRule::LastKnown,
        allow_late_writes: false,
        reset_on_same_hub: ResetOnSameHub::Always,
        reassign_when_down: false,
        adopt_existing: false,
        created_at: NOW,
        updated_at: NOW,
        version: Version(7),
    }
}

fn group(anchors: &[&Ca]) -> Enrollment {
    let mut anchors = anchors.iter().map(|anchor| certificate_ref(anchor.der()).unwrap());
    let anchors = X509Anchors { primary: anchors.next().unwrap(), secondary: anchors.next() };
    enrollment(EnrollmentId::Group(GroupId::parse("fleet").unwrap()), Attestation::X509Ca(anchors))
}

fn individual(registration_id: &str, leaves: &[&[u8]]) -> Enrollment {
    let mut leaves = leaves.iter().map(|leaf| certificate_ref(leaf).unwrap());
    let leaves = X509Leaves { primary: leaves.next().unwrap(), secondary: leaves.next() };
    enrollment(EnrollmentId::Individual(id(registration_id)), Attestation::X509Leaf(leaves))
}

/// The whole way of evidence for the device `dev-1`, now.
fn verdict(chain: &[Vec<u8>], enrollment: &Enrollment) -> Result<Verified, Refusal> {
    verify(&Presented::parse(chain)?, enrollment, &id("dev-1"), NOW)
}

fn check(case: &str, chain: Vec<Vec<u8>>, enrollment: &Enrollment, expected: Result<Slot, Refusal>) {
    let slot = verdict(&chain, enrollment).map(|verified| match verified.matched() {
        Matched::Leaf(slot) | Matched::Anchor { slot, .. } => slot,
        Matched::EndorsementKey(_) | Matched::Key(_) => panic!("no certificate"),
    });
    assert_eq!(slot, expected, "{case}");
}

fn thumbprint(der: &[u8]) -> crate::domain::Thumbprint {
    certificate_ref(der).unwrap().thumbprint
}

#[test]
fn what_is_presented_is_bounded_and_well_formed() {
    let ca = root("fleet ca", &same);
    let enrolled = group(&[&ca]);
    let good = || leaf("dev-1", &ca, &same);
    let mut trailing = good();
    trailing.push(0);
    let mut cut = good();
    cut.pop();
    let two_names = |params: &mut CertificateParams| {
        params.distinguished_name.push(DnType::CustomDnType(COMMON_NAME.to_vec()), "dev-1");
    };
    let no_name = |params: &mut CertificateParams| {
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "dev-1");
    };
    let odd_form = |params: &mut CertificateParams| {
        let name = rcgen::DnValue::BmpString("dev-1".try_into().unwrap());
        params.distinguished_name.push(DnType::CommonName, name);
    };
    for (case, chain, refusal) in [
        ("nothing", vec![], Refusal::NothingPresented),
        ("seven certificates", vec![good(); limits::CHAIN_CERTIFICATES_MAX + 1], Refusal::ChainTooLong),
        ("an oversize leaf", vec![vec![0x30; limits::CERTIFICATE_BYTES_MAX + 1]], Refusal::CertificateTooLarge),
        (
            "oversize behind a leaf",
            vec![good(), vec![0; limits::CERTIFICATE_BYTES_MAX + 1]],
            Refusal::CertificateTooLarge,
        ),
        ("an empty certificate", vec![vec![]], Refusal::Malformed),
        ("garbage", vec![vec![0xff; 64]], Refusal::Malformed),
        ("garbage behind a leaf", vec![good(), vec![0x30, 0x03, 1, 1, 1]], Refusal::Malformed),
        ("a cut leaf", vec![cut], Refusal::Malformed),
        ("PEM instead of DER", vec![ca.pem().into_bytes()], Refusal::Malformed),
        ("trailing bytes", vec![trailing.clone()], Refusal::TrailingBytes),
        ("trailing bytes behind a leaf", vec![good(), trailing], Refusal::TrailingBytes),
        ("no common name", vec![leaf("", &ca, &no_name)], Refusal::CommonNameMissing),
        ("two common names", vec![leaf("dev-1", &ca, &two_names)], Refusal::CommonNameRepeated),
        ("an empty common name", vec![leaf("", &ca, &same)], Refusal::CommonNameInvalid),
        ("a common name that is no id", vec![leaf("dev 1", &ca, &same)], Refusal::CommonNameInvalid),
        ("a zero byte in the common name", vec![leaf("dev-1\0x", &ca, &same)], Refusal::CommonNameInvalid),
        ("a common name in UTF-16", vec![leaf("dev-1", &ca, &odd_form)], Refusal::CommonNameInvalid),
    ] {
        check(case, chain, &enrolled, Err(refusal));
    }
}

#[test]
fn every_cut_of_a_certificate_is_refused() {
    let whole = self_signed("dev-1", &same);
    for length in 0..whole.len() {
        assert!(Presented::parse(&[whole[..length].to_vec()]).is_err(), "{length}");
    }
    assert!(Presented::parse(&[whole]).is_ok());
}

#[test]
fn references_follow_the_chain() {
    let ca = root("fleet ca", &same);
    let presented = Presented::parse(&chain(leaf("Dev-1", &ca, &same), [&ca])).unwrap();
    let [leaf, anchor] = presented.references() else { panic!("two certificates were presented") };
    assert_eq!((leaf.issuer, anchor.issuer), (anchor.subject, anchor.subject));
    assert_ne!(leaf.subject, anchor.subject);
    assert_eq!(anchor.thumbprint, thumbprint(ca.der()));
    assert_eq!(anchor.subject, certificate_ref(ca.der()).unwrap().subject);
    assert_eq!(presented.common_name().as_str(), "Dev-1");
}

#[test]
fn individuals_present_an_enrolled_leaf() {
    let ca = root("some ca", &same);
    let (first, second, stranger) =
        (self_signed("dev-1", &same), leaf("DEV-1", &ca, &same), self_signed("dev-1", &same));
    let expired = self_signed("dev-1", &|params| dated(params, -30, -1));
    let early = self_signed("dev-1", &|params| dated(params, 1, 30));
    let other = self_signed("dev-2", &same);
    let selfish = self_signed("dev-1", &authority);
    let p521 = leaf_with("dev-1", &rcgen::PKCS_ECDSA_P521_SHA256, &ca, &same);
    let ml_dsa = leaf_with("dev-1", &rcgen::PKCS_ML_DSA_44, &ca, &same);
    let rsa_1024 = certificate_ref(RSA_1024).unwrap().der;
    let secp256k1 = certificate_ref(SECP256K1).unwrap().der;
    let only = |leaf: &[u8]| individual("dev-1", &[leaf]);
    let both = individual("dev-1", &[&first, &second]);

    check("primary", vec![first.clone()], &both, Ok(Slot::Primary));
    check("secondary, other casing", vec![second.clone()], &both, Ok(Slot::Secondary));
    check("an issuer beside it is not asked", chain(second.clone(), [&ca]), &both, Ok(Slot::Secondary));
    check("self-signed as an authority", vec![selfish.clone()], &only(&selfish), Ok(Slot::Primary));
    check("not enrolled", vec![stranger.clone()], &both, Err(Refusal::LeafNotEnrolled));
    check("enrolled behind the leaf", vec![stranger, first.clone()], &both, Err(Refusal::LeafNotEnrolled));
    check("no longer secondary", vec![second], &only(&first), Err(Refusal::LeafNotEnrolled));
    check("expired", vec![expired.clone()], &only(&expired), Err(Refusal::LeafExpired));
    check("not yet valid", vec![early.clone()], &only(&early), Err(Refusal::LeafNotYetValid));
    check("another device's name", vec![other.clone()], &only(&other), Err(Refusal::CommonNameMismatch));
    check("P-521", vec![p521.clone()], &only(&p521), Err(Refusal::KeyNotAllowed));
    check("ML-DSA", vec![ml_dsa.clone()], &only(&ml_dsa), Err(Refusal::KeyNotAllowed));
    check("RSA 1024", vec![rsa_1024.clone()], &only(&rsa_1024), Err(Refusal::KeyNotAllowed));
    check("secp256k1", vec![secp256k1.clone()], &only(&secp256k1), Err(Refusal::KeyNotAllowed));
    let elsewhere = individual("dev-2", &[&first]);
    check("enrollment of another id", vec![first.clone()], &elsewhere, Err(Refusal::EnrollmentMismatch));
    let as_group = group(&[&ca]);
    check("self-signed at a group", vec![first], &as_group, Err(Refusal::UntrustedIssuer));
}

#[test]
fn groups_accept_a_path_to_either_anchor() {
    let (old, new) = (root("old ca", &same), root("new ca", &same));
    let both = group(&[&old, &new]);
    let middle = intermediate("middle", &old, &same);
    let four = ladder(&old, limits::CHAIN_INTERMEDIATES_MAX);
    let usages = |params: &mut CertificateParams| {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    };
    let explicit = |params: &mut CertificateParams| params.is_ca = IsCa::ExplicitNoCa;
    let exact = path_length(1);
    let narrow = root("narrow ca", &exact);
    let below = intermediate("below narrow", &narrow, &path_length(0));

    check("leaf alone", chain(leaf("dev-1", &old, &same), []), &both, Ok(Slot::Primary));
    check("other casing", chain(leaf("DEV-1", &old, &same), []), &both, Ok(Slot::Primary));
    check("usages that fit", chain(leaf("dev-1", &old, &usages), []), &both, Ok(Slot::Primary));
    check("CA:FALSE spelled out", chain(leaf("dev-1", &old, &explicit), []), &both, Ok(Slot::Primary));
    check("secondary anchor", chain(leaf("dev-1", &new, &same), []), &both, Ok(Slot::Secondary));
    check("anchor presented too", chain(leaf("dev-1", &old, &same), [&old]), &both, Ok(Slot::Primary));
    check("an intermediate", chain(leaf("dev-1", &middle, &same), [&middle]), &both, Ok(Slot::Primary));
    check("and the root", chain(leaf("dev-1", &middle, &same), [&middle, &old]), &both, Ok(Slot::Primary));
    check("in any order", chain(leaf("dev-1", &middle, &same), [&old, &middle]), &both, Ok(Slot::Primary));
    check("a stray beside it", chain(leaf("dev-1", &old, &same), [&new]), &both, Ok(Slot::Primary));
    check("intermediate as anchor", chain(leaf("dev-1", &middle, &same), []), &group(&[&middle]), Ok(Slot::Primary));
    let with_root = chain(leaf("dev-1", &middle, &same), [&middle, &old]);
    check("intermediate as anchor, all presented", with_root, &group(&[&middle]), Ok(Slot::Primary));
    check("four intermediates", chain(leaf("dev-1", &four[3], &same), four.iter().rev()), &both, Ok(Slot::Primary));
    let fits = chain(leaf("dev-1", &below, &same), [&below]);
    check("path lengths just kept", fits, &group(&[&narrow]), Ok(Slot::Primary));
    for (case, algorithm) in [
        ("P-384", &rcgen::PKCS_ECDSA_P384_SHA384),
        ("Ed25519", &rcgen::PKCS_ED25519),
        ("RSA 2048", &rcgen::PKCS_RSA_SHA256),
    ] {
        let ca = root_with("strong ca", KeyPair::generate_for(algorithm).unwrap(), &same);
        check(case, chain(leaf_with("dev-1", algorithm, &ca, &same), []), &group(&[&ca]), Ok(Slot::Primary));
    }
}

#[test]
fn groups_refuse_a_path_that_no_anchor_vouches_for() {
    let ca = root("fleet ca", &same);
    let enrolled = group(&[&ca]);
    let (stranger, double) = (root("other ca", &same), root("fleet ca", &same));
    let middle = intermediate("middle", &ca, &same);
    let false_middle = intermediate("middle", &double, &same);
    let five = ladder(&ca, limits::CHAIN_INTERMEDIATES_MAX + 1);
    let ed25519 = root_with("fleet ca", KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap(), &same);
    let no_ca = |params: &mut CertificateParams| params.is_ca = IsCa::NoCa;
    let no_signing = |params: &mut CertificateParams| params.key_usages = vec![KeyUsagePurpose::CrlSign];
    let for_servers =
        |params: &mut CertificateParams| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let encipher_only = |params: &mut CertificateParams| params.key_usages = vec![KeyUsagePurpose::KeyEncipherment];
    let strange = |params: &mut CertificateParams| {
        let mut extension = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 55555, 1], vec![5, 0]);
        extension.set_criticality(true);
        params.custom_extensions.push(extension);
    };
    let one_domain = |params: &mut CertificateParams| {
        params.name_constraints = Some(NameConstraints {
            permitted_subtrees: vec![GeneralSubtree::DnsName("a.example".to_owned())],
            excluded_subtrees: Vec::new(),
        });
    };
    let elsewhere = |params: &mut CertificateParams| {
        params.subject_alt_names = vec![SanType::DnsName("dev-1.b.example".try_into().unwrap())];
    };
    let (leafy, mute, serverly) = (
        intermediate("leafy", &ca, &no_ca),
        intermediate("mute", &ca, &no_signing),
        intermediate("serverly", &ca, &for_servers),
    );
    let domain = intermediate("domain", &ca, &one_domain);
    let ends_here = root("ends here", &path_length(0));
    let too_low = intermediate("too low", &ends_here, &same);
    let upper = intermediate("upper", &ca, &path_length(0));
    let lower = intermediate("lower", &upper, &same);
    let weak = {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA256).unwrap();
        CertifiedIssuer::signed_by(params("weak", &authority), key, &ca).unwrap()
    };
    let named = |by: &Ca| leaf("dev-1", by, &same);

    for (case, chain, refusal) in [
        ("a stranger's leaf", chain(named(&stranger), []), Refusal::UntrustedIssuer),
        ("with the stranger presented", chain(named(&stranger), [&stranger]), Refusal::UntrustedIssuer),
        ("with the anchor beside it", chain(named(&stranger), [&ca]), Refusal::UntrustedIssuer),
        ("an intermediate not presented", chain(named(&middle), []), Refusal::UntrustedIssuer),
        ("same name, other key", chain(named(&double), []), Refusal::SignatureInvalid),
        ("same name, other key, presented", chain(named(&double), [&double]), Refusal::SignatureInvalid),
        ("same name, other kind of key", chain(named(&ed25519), []), Refusal::SignatureAlgorithmNotAllowed),
        ("an intermediate of the same name", chain(named(&false_middle), [&middle]), Refusal::SignatureInvalid),
        ("an intermediate by a false anchor", chain(named(&false_middle), [&false_middle]), Refusal::SignatureInvalid),
        ("five intermediates", chain(named(&five[4]), five.iter().rev()), Refusal::TooManyIntermediates),
        ("an intermediate that is no authority", chain(named(&leafy), [&leafy]), Refusal::NotACa),
        ("an intermediate that may not sign", chain(named(&mute), [&mute]), Refusal::KeyUsageNotAllowed),
        ("an intermediate for servers", chain(named(&serverly), [&serverly]), Refusal::ExtendedKeyUsageNotAllowed),
        ("an intermediate's path length", chain(named(&lower), [&lower, &upper]), Refusal::PathLengthExceeded),
        ("an intermediate of P-521", chain(named(&weak), [&weak]), Refusal::KeyNotAllowed),
        (
            "a name outside the constraints",
            chain(leaf("dev-1", &domain, &elsewhere), [&domain]),
            Refusal::NameNotPermitted,
        ),
        (
            "a leaf of P-521",
            chain(leaf_with("dev-1", &rcgen::PKCS_ECDSA_P521_SHA256, &ca, &same), []),
            Refusal::KeyNotAllowed,
        ),
        ("a stray of P-521", chain(named(&ca), [&weak]), Refusal::KeyNotAllowed),
        ("CA:TRUE leaf", chain(leaf("dev-1", &ca, &authority), []), Refusal::LeafIsCa),
        ("a leaf for servers only", chain(leaf("dev-1", &ca, &for_servers), []), Refusal::ExtendedKeyUsageNotAllowed),
        ("a leaf that may not sign", chain(leaf("dev-1", &ca, &encipher_only), []), Refusal::KeyUsageNotAllowed),
        ("an unknown critical extension", chain(leaf("dev-1", &ca, &strange), []), Refusal::CriticalExtensionUnknown),
        ("another device's leaf", chain(leaf("dev-2", &ca, &same), []), Refusal::CommonNameMismatch),
        ("a longer name", chain(leaf("dev-10", &ca, &same), []), Refusal::CommonNameMismatch),
    ] {
        check(case, chain, &enrolled, Err(refusal));
    }
    let too_long = chain(named(&too_low), [&too_low]);
    check("the anchor's path length", too_long, &group(&[&ends_here]), Err(Refusal::PathLengthExceeded));
    let mut changed = named(&ca);
    *changed.last_mut().unwrap() ^= 1;
    let result = verdict(&[changed], &enrolled).map(|_| ());
    assert!(matches!(result, Err(Refusal::SignatureInvalid | Refusal::Malformed)), "a changed signature: {result:?}");
    // The anchor itself, as if it were a device.
    let named_anchor = root("dev-1", &same);
    check(
        "the anchor as leaf",
        chain(named_anchor.der().to_vec(), []),
        &group(&[&named_anchor]),
        Err(Refusal::LeafIsCa),
    );
}

#[test]
fn every_certificate_of_a_path_must_be_in_date() {
    let gone = |params: &mut CertificateParams| dated(params, -30, -1);
    let ahead = |params: &mut CertificateParams| dated(params, 1, 30);
    let ca = root("fleet ca", &same);
    let enrolled = group(&[&ca]);
    for (case, change, [at_leaf, at_intermediate, at_anchor]) in [
        ("expired", &gone as Change<'_>, [Refusal::LeafExpired, Refusal::IntermediateExpired, Refusal::AnchorExpired]),
        (
            "not yet valid",
            &ahead as Change<'_>,
            [Refusal::LeafNotYetValid, Refusal::IntermediateNotYetValid, Refusal::AnchorNotYetValid],
        ),
    ] {
        check(case, chain(leaf("dev-1", &ca, change), []), &enrolled, Err(at_leaf));
        let middle = intermediate("middle", &ca, change);
        check(case, chain(leaf("dev-1", &middle, &same), [&middle]), &enrolled, Err(at_intermediate));
        let anchor = root("dated ca", change);
        check(case, chain(leaf("dev-1", &anchor, &same), []), &group(&[&anchor]), Err(at_anchor));
        let stranger = root("other ca", &same);
        let both = group(&[&anchor, &stranger]);
        check(case, chain(leaf("dev-1", &anchor, &same), []), &both, Err(at_anchor));
    }
}

#[test]
fn a_renewed_anchor_of_the_same_name_and_key_takes_over() {
    let key = key();
    let copy = |key: &KeyPair| KeyPair::try_from(key.serialized_der()).unwrap();
    let old = root_with("fleet ca", copy(&key), &|params| dated(params, -30, -1));
    let renewed = root_with("fleet ca", key, &same);
    let of_old = chain(leaf("dev-1", &old, &same), []);
    check("only the old one", of_old.clone(), &group(&[&old]), Err(Refusal::AnchorExpired));
    check("the renewed one second", of_old.clone(), &group(&[&old, &renewed]), Ok(Slot::Secondary));
    check("the renewed one first", of_old, &group(&[&renewed, &old]), Ok(Slot::Primary));
}

#[test]
fn a_certificate_is_valid_through_its_last_second() {
    let device = self_signed("dev-1", &same);
    let enrolled = individual("dev-1", &[&device]);
    let presented = Presented::parse(&[device]).unwrap();
    let proof = verify_chain(&presented, &enrolled, NOW).unwrap();
    let at = |now: Timestamp| judge(&proof, &presented, &enrolled, &id("dev-1"), now).map(|_| ());
    let (first, last) = (Timestamp(NOW.0 - 86_400_000), NOW.plus(30 * DAY));
    assert_eq!(at(Timestamp(first.0 - 1)), Err(Refusal::LeafNotYetValid));
    assert_eq!(at(first), Ok(()));
    assert_eq!(at(Timestamp(last.0 + 999)), Ok(()));
    assert_eq!(at(Timestamp(last.0 + 1000)), Err(Refusal::LeafExpired));
}

#[test]
fn a_kept_proof_is_judged_at_every_call() {
    let ca = root("fleet ca", &|params| dated(params, -1, 10));
    let middle = intermediate("middle", &ca, &|params| dated(params, -1, 5));
    let enrolled = group(&[&ca]);
    let presented = Presented::parse(&chain(leaf("dev-1", &middle, &same), [&middle])).unwrap();
    let other = Presented::parse(&chain(leaf("dev-1", &ca, &same), [])).unwrap();
    let proof = verify_chain(&presented, &enrolled, NOW).unwrap();
    let changed = Enrollment { version: enrolled.version.next(), ..enrolled.clone() };
    let renamed = Enrollment { id: EnrollmentId::Group(GroupId::parse("other").unwrap()), ..enrolled.clone() };
    for (case, presented, enrolled, device, days, expected) in [
        ("as proven", &presented, &enrolled, "dev-1", 0, Ok(())),
        ("days later", &presented, &enrolled, "dev-1", 4, Ok(())),
        ("the intermediate ended", &presented, &enrolled, "dev-1", 6, Err(Refusal::IntermediateExpired)),
        ("the leaf ended", &presented, &enrolled, "dev-1", 31, Err(Refusal::LeafExpired)),
        ("another device", &presented, &enrolled, "dev-2", 0, Err(Refusal::CommonNameMismatch)),
        ("the enrollment changed", &presented, &changed, "dev-1", 0, Err(Refusal::ProofOutdated)),
        ("another enrollment", &presented, &renamed, "dev-1", 0, Err(Refusal::ProofOutdated)),
        ("another chain", &other, &enrolled, "dev-1", 0, Err(Refusal::ProofOutdated)),
    ] {
        let verdict = judge(&proof, presented, enrolled, &id(device), NOW.plus(days * DAY));
        assert_eq!(verdict.map(|_| ()), expected, "{case}");
    }
}

/// Deleted and made again, an enrollment has the id and the version that it had before.
#[test]
fn a_kept_proof_is_outdated_once_its_match_is_no_longer_enrolled() {
    let (ca, namesake, other) = (root("fleet ca", &same), root("fleet ca", &same), root("other ca", &same));
    let (first, second, third) =
        (self_signed("dev-1", &same), self_signed("dev-1", &same), self_signed("dev-1", &same));
    let of_ca = leaf("dev-1", &ca, &same);
    let both = [thumbprint(&first), thumbprint(&second)];
    let as_individual = Enrollment { id: group(&[&ca]).id, ..individual("dev-1", &[&of_ca]) };
    let as_group = Enrollment { id: individual("dev-1", &[&first]).id, ..group(&[&ca]) };
    let outdated = Err(Refusal::ProofOutdated);
    for (case, leaf, before, after, expected) in [
        ("the same anchor", &of_ca, group(&[&ca]), group(&[&ca]), Ok(vec![thumbprint(&of_ca)])),
        ("another anchor beside", &of_ca, group(&[&ca]), group(&[&ca, &other]), Ok(vec![thumbprint(&of_ca)])),
        ("a namesake", &of_ca, group(&[&ca]), group(&[&namesake]), outdated.clone()),
        ("in the other slot", &of_ca, group(&[&ca]), group(&[&namesake, &ca]), outdated.clone()),
        ("no longer secondary", &of_ca, group(&[&other, &ca]), group(&[&other]), outdated.clone()),
        ("a leaf, not an anchor", &of_ca, group(&[&ca]), as_individual, outdated.clone()),
        (
            "the same leaves",
            &second,
            individual("dev-1", &[&first, &second]),
            individual("dev-1", &[&first, &second]),
            Ok(both.to_vec()),
        ),
        (
            "another leaf beside",
            &first,
            individual("dev-1", &[&first, &third]),
            individual("dev-1", &[&first, &second]),
            Ok(both.to_vec()),
        ),
        (
            "none beside",
            &first,
            individual("dev-1", &[&first, &second]),
            individual("dev-1", &[&first]),
            Ok(vec![both[0]]),
        ),
        ("another leaf", &first, individual("dev-1", &[&first]), individual("dev-1", &[&second]), outdated.clone()),
        (
            "the leaf in the other slot",
            &first,
            individual("dev-1", &[&first]),
            individual("dev-1", &[&second, &first]),
            outdated.clone(),
        ),
        ("an anchor, not a leaf", &first, individual("dev-1", &[&first]), as_group, outdated),
    ] {
        let presented = Presented::parse(std::slice::from_ref(leaf)).unwrap();
        let proof = verify_chain(&presented, &before, NOW).unwrap();
        assert_eq!((&before.id, before.version), (&after.id, after.version), "{case}");
        let verdict = judge(&proof, &presented, &after, &id("dev-1"), NOW);
        let credential = verdict.map(|verified| verified.credential().clone());
        assert_eq!(credential, expected.map(Credential::x509), "{case}");
    }
}

#[test]
fn the_witness_says_what_was_proven() {
    let ca = root("fleet ca", &same);
    let device = leaf("dev-1", &ca, &same);
    let verified =
        verify(&Presented::parse(std::slice::from_ref(&device)).unwrap(), &group(&[&ca]), &id("DEV-1"), NOW).unwrap();
    assert_eq!(verified.registration_id().as_str(), "DEV-1");
    assert_eq!(verified.enrollment_id(), &EnrollmentId::Group(GroupId::parse("fleet").unwrap()));
    assert_eq!(verified.enrollment_version(), Version(7));
    assert_eq!(verified.credential(), &Credential::x509([thumbprint(&device)]));
    assert_eq!(verified.matched(), Matched::Anchor { slot: Slot::Primary, anchor: thumbprint(ca.der()) });
    assert_eq!(verified.leaf_not_after(), Some(NOW.plus(30 * DAY)));

    let (first, second) = (self_signed("dev-1", &same), self_signed("dev-1", &same));
    let verified = verdict(std::slice::from_ref(&second), &individual("dev-1", &[&first, &second])).unwrap();
    assert_eq!(verified.credential(), &Credential::x509([thumbprint(&first), thumbprint(&second)]));
    assert_eq!(verified.matched(), Matched::Leaf(Slot::Secondary));
}

#[test]
fn certificates_are_enrolled_from_der_or_pem() {
    let ca = root("fleet ca", &same);
    let (der, pem) = (ca.der().to_vec(), ca.pem());
    let with_key = format!("{}{}", pem, key().serialize_pem());
    let mut trailing = der.clone();
    trailing.extend_from_slice(&[0, 0]);
    let oversize = format!("-----BEGIN CERTIFICATE-----\n{}\n", "A".repeat(5 * limits::CERTIFICATE_BYTES_MAX));
    for (case, input, expected) in [
        ("DER", der.clone(), Ok(())),
        ("PEM", pem.clone().into_bytes(), Ok(())),
        ("PEM behind a text", format!("Certificate:\n    Data:\n{pem}").into_bytes(), Ok(())),
        ("nothing", vec![], Err(Refusal::Malformed)),
        ("text", b"certificate".to_vec(), Err(Refusal::Malformed)),
        ("DER and more", trailing, Err(Refusal::TrailingBytes)),
        ("oversize DER", vec![0x30; limits::CERTIFICATE_BYTES_MAX + 1], Err(Refusal::CertificateTooLarge)),
        ("oversize PEM", oversize.into_bytes(), Err(Refusal::CertificateTooLarge)),
        ("two in one", format!("{pem}{pem}").into_bytes(), Err(Refusal::NotOneCertificate)),
        ("a key beside it", with_key.into_bytes(), Err(Refusal::NotOneCertificate)),
        ("a key alone", key().serialize_pem().into_bytes(), Err(Refusal::NotOneCertificate)),
        ("broken base64", pem.replace("MII", "M*I").into_bytes(), Err(Refusal::Malformed)),
        ("an end that is missing", pem.replace("-----END", "").into_bytes(), Err(Refusal::Malformed)),
    ] {
        let result = certificate_ref(&input);
        if let Ok(certificate) = &result {
            assert_eq!(certificate.der, der, "{case}");
        }
        assert_eq!(result.map(|_| ()), expected, "{case}");
    }
}

#[test]
fn anchors_and_leaves_are_judged_at_enrollment() {
    fn anchor(expected: Result<(), Refusal>, change: Change<'_>) {
        assert_eq!(check_anchor(&certificate_ref(root("ca", change).der()).unwrap()), expected);
    }
    anchor(Ok(()), &same);
    anchor(Ok(()), &|params| params.key_usages = Vec::new());
    anchor(Ok(()), &|params| dated(params, -30, -1));
    anchor(Err(Refusal::NotACa), &|params| params.is_ca = IsCa::NoCa);
    anchor(Err(Refusal::NotACa), &|params| params.is_ca = IsCa::ExplicitNoCa);
    anchor(Err(Refusal::KeyUsageNotAllowed), &|params| params.key_usages = vec![KeyUsagePurpose::DigitalSignature]);
    anchor(Err(Refusal::ExtendedKeyUsageNotAllowed), &|params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    });
    for (pem, expected) in [(RSA_1024, Err(Refusal::KeyNotAllowed)), (SECP256K1, Err(Refusal::KeyNotAllowed))] {
        let certificate: CertificateRef = certificate_ref(pem).unwrap();
        assert_eq!((check_leaf(&certificate), check_anchor(&certificate)), (expected, expected));
    }
    assert_eq!(check_leaf(&certificate_ref(&self_signed("dev-1", &same)).unwrap()), Ok(()));
}

#[test]
fn authorities_are_the_same_by_key_or_by_name() {
    let (one, other) = (root("one", &same), root("other", &same));
    let copy = KeyPair::try_from(one.key().serialized_der()).unwrap();
    let same_key = root_with("renamed", copy, &same);
    let same_name = root("one", &same);
    assert_eq!(shares_authority(one.der(), one.der()), Ok(true));
    assert_eq!(shares_authority(one.der(), same_key.der()), Ok(true));
    assert_eq!(shares_authority(one.der(), same_name.der()), Ok(true));
    assert_eq!(shares_authority(one.der(), other.der()), Ok(false));
    assert_eq!(shares_authority(one.der(), b"x"), Err(Refusal::Malformed));
}

#[test]
fn listings_show_a_certificate_without_its_control_characters() {
    let ca = root("fleet ca", &same);
    let device = leaf("dev\u{1b}[31m", &ca, &|params| params.serial_number = Some(vec![1, 0xab].into()));
    let info = describe(&device).unwrap();
    assert_eq!(info.subject, "CN=dev\u{fffd}[31m");
    assert_eq!(info.issuer, "CN=fleet ca");
    assert_eq!(info.common_name.as_deref(), Some("dev\u{fffd}[31m"));
    assert_eq!(info.serial_hex, "01ab");
    assert_eq!((info.not_before, info.not_after), (Timestamp(NOW.0 - 86_400_000), NOW.plus(30 * DAY)));
    assert_eq!(info.thumbprint, thumbprint(&device));
    assert_eq!(describe(b"x"), Err(Refusal::Malformed));
}

#[test]
fn operators_have_the_roles_that_their_authority_wrote() {
    let (ca, stranger) = (root("operator ca", &same), root("device ca", &same));
    let uris = |uris: &'static [&'static str]| {
        move |params: &mut CertificateParams| {
            let names = uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap()));
            params.subject_alt_names = names.collect();
        }
    };
    let gone = |params: &mut CertificateParams| dated(params, -30, -1);
    let granted =
        leaf("Ann Operator", &ca, &uris(&["https://a.example", "rehome:role:backend:hub-a", "rehome:role:reader"]));
    for (case, chain, expected) in [
        ("two roles", chain(granted, []), Ok(&["rehome:role:backend:hub-a", "rehome:role:reader"][..])),
        ("no role", chain(leaf("ann", &ca, &same), []), Ok(&[][..])),
        ("a misspelt role", chain(leaf("ann", &ca, &uris(&["rehome:role:root"])), []), Err(Refusal::RoleInvalid)),
        ("nothing", vec![], Err(Refusal::NothingPresented)),
        ("a device", chain(leaf("dev-1", &stranger, &same), [&stranger]), Err(Refusal::UntrustedIssuer)),
        ("self-signed", vec![self_signed("ann", &uris(&["rehome:role:operator"]))], Err(Refusal::UntrustedIssuer)),
        ("expired", chain(leaf("ann", &ca, &gone), []), Err(Refusal::LeafExpired)),
        ("the authority itself", chain(ca.der().to_vec(), []), Err(Refusal::LeafIsCa)),
    ] {
        let result = verify_operator(&chain, &[certificate_ref(ca.der()).unwrap()], NOW);
        let grants = result.map(|operator| operator.grants().iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(grants, expected.map(|grants| grants.iter().map(ToString::to_string).collect()), "{case}");
    }
    let operator = leaf("Ann\nOperator", &ca, &same);
    assert_eq!(
        verify_operator(std::slice::from_ref(&operator), &[], NOW),
        Err(Refusal::UntrustedIssuer),
        "no authority"
    );
    let operator = verify_operator(&[operator], &[certificate_ref(ca.der()).unwrap()], NOW).unwrap();
    assert_eq!(operator.name(), "Ann\u{fffd}Operator");
}
