//! EK certificates: real ones of a manufacturing tool, and ones made at test time with each quirk and each fault.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CustomExtension, DistinguishedName, DnType, IsCa, KeyPair,
    KeyUsagePurpose, SigningKey, SubjectPublicKeyInfo,
};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::super::ek_certificate::EkChain;
use super::super::{CertificateFault, EkFacts, EndorsementKey, check_authority};
use super::{NOW, endorsement_key, stand_in, vector};
use crate::attestation::x509::{Refusal, certificate_ref};
use crate::attestation::{Matched, Slot};
use crate::domain::{Timestamp, TpmFleet, TpmMake, TpmModel, TpmRules, X509Anchors};

pub(super) type Ca = CertifiedIssuer<'static, KeyPair>;
pub(super) type Change<'a> = &'a dyn Fn(&mut CertificateParams);

const ALTERNATIVE_NAME: &[u64] = &[2, 5, 29, 17];
const EXTENDED_KEY_USAGE: &[u64] = &[2, 5, 29, 37];
const MANUFACTURER: &[u8] = &[0x67, 0x81, 0x05, 0x02, 0x01];
const MODEL: &[u8] = &[0x67, 0x81, 0x05, 0x02, 0x02];
const VERSION: &[u8] = &[0x67, 0x81, 0x05, 0x02, 0x03];
const EK_USAGE: &[u8] = &[0x67, 0x81, 0x05, 0x08, 0x01];
const CLIENT_USAGE: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x02];

pub(super) fn fleet(anchors: &[Vec<u8>]) -> TpmFleet {
    let mut anchors = anchors.iter().map(|der| certificate_ref(der).unwrap());
    let anchors = X509Anchors { primary: anchors.next().unwrap(), secondary: anchors.next() };
    TpmFleet { anchors, makes: Vec::new(), usage_may_be_absent: false, rules: TpmRules::default() }
}

fn verdict(
    key: &EndorsementKey,
    chain: &[Vec<u8>],
    fleet: &TpmFleet,
    now: Timestamp,
) -> Result<(Matched, EkFacts), CertificateFault> {
    EkChain::parse(chain).map_err(CertificateFault::Chain)?.verify(key, fleet, now)
}

fn refusal(key: &EndorsementKey, chain: &[Vec<u8>], fleet: &TpmFleet) -> Result<(), CertificateFault> {
    verdict(key, chain, fleet, NOW).map(|_| ())
}

fn make(manufacturer: &str, model: Option<&str>) -> TpmMake {
    let model = model.map(|model| TpmModel::parse(model).unwrap());
    TpmMake { manufacturer: manufacturer.parse().unwrap(), model }
}

// --- Of a manufacturing tool.

#[test]
fn certificates_of_a_manufacturing_tool() {
    let (root, intermediate) = (vector("root.der"), vector("intermediate.der"));
    for (key, certificate) in [("ek-rsa.pub", "ek-rsa-cert.der"), ("ek-p384.pub", "ek-p384-cert.der")] {
        let key = endorsement_key(&vector(key));
        let chain = [vector(certificate), intermediate.clone()];
        let trusted = fleet(std::slice::from_ref(&root));
        let (matched, facts) = verdict(&key, &chain, &trusted, NOW).unwrap();
        let anchor = trusted.anchors.primary.thumbprint;
        assert_eq!(matched, Matched::Anchor { slot: Slot::Primary, anchor });
        assert_eq!(facts.thumbprint, certificate_ref(&chain[0]).unwrap().thumbprint);
        assert_eq!(facts.manufacturer.map(|it| it.to_string()).as_deref(), Some("id:00001014"));
        assert_eq!(facts.model, Some(TpmModel::parse("swtpm").unwrap()));
        assert_eq!(facts.version.as_deref(), Some("id:20191023"));
        // The end of the year 9999: no end.
        assert_eq!(facts.not_after, Timestamp::from_secs(253_402_300_799));

        // The root may come along, the anchor may be the intermediate, and the second anchor counts as the first does.
        let with_root = [&chain[..], std::slice::from_ref(&root)].concat();
        assert_eq!(refusal(&key, &with_root, &trusted), Ok(()));
        assert_eq!(refusal(&key, &chain[..1], &fleet(std::slice::from_ref(&intermediate))), Ok(()));
        let (matched, _) = verdict(&key, &chain, &fleet(&[stranger().der().to_vec(), root.clone()]), NOW).unwrap();
        assert_eq!(matched, Matched::Anchor { slot: Slot::Secondary, anchor });

        // Out of the TPM's memory, padded to the end.
        for padding in [0x00, 0xff] {
            let padded = [chain[0].as_slice(), &vec![padding; 700]].concat();
            assert_eq!(refusal(&key, &[padded, intermediate.clone()], &trusted), Ok(()));
        }
        let padded = [chain[0].as_slice(), &[0x00, 0xff]].concat();
        let trailing = Err(CertificateFault::Chain(Refusal::TrailingBytes));
        assert_eq!(refusal(&key, &[padded, intermediate.clone()], &trusted), trailing);

        let untrusted = Err(CertificateFault::Chain(Refusal::UntrustedIssuer));
        assert_eq!(refusal(&key, &chain[..1], &trusted), untrusted);
        assert_eq!(refusal(&key, &chain, &fleet(&[stranger().der().to_vec()])), untrusted);
        let early = Timestamp::from_secs(1_700_000_000);
        let not_yet = CertificateFault::Chain(Refusal::LeafNotYetValid);
        assert_eq!(verdict(&key, &chain, &trusted, early).map(|_| ()), Err(not_yet));
        assert_eq!(check_authority(&trusted.anchors.primary), Ok(()));
    }
}

#[test]
fn a_certificate_is_of_one_key() {
    let chain = [vector("ek-rsa-cert.der"), vector("intermediate.der")];
    for other in ["ek-p256.pub", "ek-p384.pub", "software-ek-rsa.pub"] {
        let key = endorsement_key(&vector(other));
        assert_eq!(refusal(&key, &chain, &fleet(&[vector("root.der")])), Err(CertificateFault::KeyMismatch), "{other}");
    }
}

#[test]
fn fleets_choose_makes() {
    let key = endorsement_key(&vector("ek-rsa.pub"));
    let chain = [vector("ek-rsa-cert.der"), vector("intermediate.der")];
    let check = |makes: Vec<TpmMake>, expected: Result<(), CertificateFault>| {
        assert_eq!(refusal(&key, &chain, &TpmFleet { makes, ..fleet(&[vector("root.der")]) }), expected);
    };
    let refused = Err(CertificateFault::MakeNotAllowed);
    check(vec![], Ok(()));
    check(vec![make("id:00001014", None)], Ok(()));
    check(vec![make("id:00001014", Some("swtpm"))], Ok(()));
    check(vec![make("INTC", None), make("id:00001014", None)], Ok(()));
    check(vec![make("INTC", None)], refused);
    check(vec![make("id:00001014", Some("swtpm2"))], refused);
    check(vec![make("id:00001014", Some("SWTPM"))], refused);
    check(vec![make("INTC", Some("swtpm"))], refused);
}

// --- Made at test time, for the P-256 key of the stand-in.

fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u8::try_from(content.len()).unwrap();
    let long = if length < 0x80 { vec![length] } else { vec![0x81, length] };
    [&[tag], long.as_slice(), content].concat()
}

/// A name with one attribute after the other.
fn directory(attributes: &[(&[u8], &str)]) -> Vec<u8> {
    let attribute =
        |(oid, text): &(&[u8], &str)| tlv(0x31, &tlv(0x30, &[tlv(0x06, oid), tlv(0x0c, text.as_bytes())].concat()));
    let name = tlv(0x30, &attributes.iter().flat_map(attribute).collect::<Vec<u8>>());
    tlv(0x30, &tlv(0xa4, &name))
}

fn extension(oid: &[u64], content: Vec<u8>, critical: bool) -> CustomExtension {
    let mut extension = CustomExtension::from_oid_content(oid, content);
    extension.set_criticality(critical);
    extension
}

const USUAL_MAKE: &[(&[u8], &str)] =
    &[(MANUFACTURER, "id:494E5443"), (MODEL, "Spruce Point"), (VERSION, "id:0002\u{7}")];

fn usages(oids: &[&[u8]]) -> CustomExtension {
    let content = tlv(0x30, &oids.iter().flat_map(|oid| tlv(0x06, oid)).collect::<Vec<u8>>());
    extension(EXTENDED_KEY_USAGE, content, false)
}

fn names(attributes: &[(&[u8], &str)]) -> CustomExtension {
    extension(ALTERNATIVE_NAME, directory(attributes), true)
}

fn dated(params: &mut CertificateParams, from_days: i64, until_days: i64) {
    let day = |days: i64| {
        let seconds = u64::try_from(NOW.as_secs() + days * 24 * 3600).unwrap();
        rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds)
    };
    (params.not_before, params.not_after) = (day(from_days), day(until_days));
}

/// As manufacturers make them: no subject, a critical name, not an authority's and saying so.
fn usual() -> CertificateParams {
    let mut params = CertificateParams::default();
    dated(&mut params, -1, 30);
    params.distinguished_name = DistinguishedName::new();
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::KeyAgreement];
    params.custom_extensions = vec![names(USUAL_MAKE), usages(&[EK_USAGE])];
    params
}

fn authority(name: &str, change: Change<'_>) -> CertificateParams {
    let mut params = CertificateParams::default();
    dated(&mut params, -1, 30);
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    change(&mut params);
    params
}

pub(super) fn root(change: Change<'_>) -> Ca {
    CertifiedIssuer::self_signed(authority("maker", change), KeyPair::generate().unwrap()).unwrap()
}

fn stranger() -> Ca {
    CertifiedIssuer::self_signed(authority("stranger", &|_| {}), KeyPair::generate().unwrap()).unwrap()
}

/// The stand-in's key, and as a SubjectPublicKeyInfo.
fn subject() -> (EndorsementKey, SubjectPublicKeyInfo) {
    const P256: &str = "3059301306072a8648ce3d020106082a8648ce3d030107034200";
    let tpm = stand_in("p256");
    let public = tpm.endorsement_key().as_bytes();
    let (x, y) = (&public[58..90], &public[92..124]);
    let spki = [data_encoding::HEXLOWER.decode(P256.as_bytes()).unwrap().as_slice(), &[4], x, y].concat();
    (endorsement_key(public), SubjectPublicKeyInfo::from_der(&spki).unwrap())
}

pub(super) fn issue(by: &Ca, change: Change<'_>) -> Vec<u8> {
    let mut params = usual();
    change(&mut params);
    params.signed_by(&subject().1, by).unwrap().der().to_vec()
}

fn check(change: Change<'_>, choose: &dyn Fn(&mut TpmFleet), expected: Result<(), CertificateFault>) {
    let by = root(&|_| {});
    let mut fleet = fleet(&[by.der().to_vec()]);
    choose(&mut fleet);
    assert_eq!(refusal(&subject().0, &[issue(&by, change)], &fleet), expected);
}

fn any(_: &mut TpmFleet) {}

fn chain(refusal: Refusal) -> Result<(), CertificateFault> {
    Err(CertificateFault::Chain(refusal))
}

#[test]
fn quirks_are_taken() {
    check(&|_| {}, &any, Ok(()));
    check(&|it| it.is_ca = IsCa::NoCa, &any, Ok(()));
    check(&|it| it.key_usages.clear(), &any, Ok(()));
    check(&|it| it.key_usages = vec![KeyUsagePurpose::KeyEncipherment], &any, Ok(()));
    check(&|it| it.custom_extensions[1] = usages(&[CLIENT_USAGE, EK_USAGE]), &any, Ok(()));
    check(&|it| it.custom_extensions.truncate(1), &|it| it.usage_may_be_absent = true, Ok(()));
    // Nobody asks for the make, so it need not be there.
    check(&|it| drop(it.custom_extensions.remove(0)), &any, Ok(()));
    check(&|it| it.custom_extensions[0] = names(&[(MODEL, "only")]), &any, Ok(()));
}

#[test]
fn faults_are_refused() {
    let chosen = |fleet: &mut TpmFleet| fleet.makes = vec![make("INTC", None)];
    check(&|_| {}, &chosen, Ok(()));
    check(&|it| it.is_ca = IsCa::Ca(BasicConstraints::Unconstrained), &any, chain(Refusal::LeafIsCa));
    check(&|it| dated(it, -9, -1), &any, chain(Refusal::LeafExpired));
    check(&|it| dated(it, 1, 9), &any, chain(Refusal::LeafNotYetValid));
    check(&|it| it.custom_extensions.truncate(1), &any, Err(CertificateFault::UsageNotAllowed));
    let client = |it: &mut CertificateParams| it.custom_extensions[1] = usages(&[CLIENT_USAGE]);
    check(&client, &any, Err(CertificateFault::UsageNotAllowed));
    // There, and not what it must be: whether it may be absent does not matter.
    check(&client, &|it| it.usage_may_be_absent = true, Err(CertificateFault::UsageNotAllowed));
    let unknown = |it: &mut CertificateParams| it.custom_extensions.push(extension(&[1, 2, 3, 4], vec![5, 0], true));
    check(&unknown, &any, chain(Refusal::CriticalExtensionUnknown));
    let set = |attributes: &'static [(&[u8], &str)]| {
        move |it: &mut CertificateParams| it.custom_extensions[0] = names(attributes)
    };
    check(&|it| drop(it.custom_extensions.remove(0)), &chosen, Err(CertificateFault::MakeMissing));
    check(&set(&[(MODEL, "only")]), &chosen, Err(CertificateFault::MakeMissing));
    check(&set(&[(MANUFACTURER, "id:49465800")]), &chosen, Err(CertificateFault::MakeNotAllowed));
    let malformed = Err(CertificateFault::MakeMalformed);
    check(&set(&[(MANUFACTURER, "id:49465")]), &any, malformed);
    check(&set(&[(MANUFACTURER, "")]), &any, malformed);
    check(&set(&[(MANUFACTURER, "INTC"), (MODEL, "")]), &any, malformed);
    check(&set(&[(MANUFACTURER, "INTC"), (MANUFACTURER, "IFX")]), &any, malformed);
}

#[test]
fn texts_of_a_certificate_have_no_control_characters() {
    let by = root(&|_| {});
    let (_, facts) = verdict(&subject().0, &[issue(&by, &|_| {})], &fleet(&[by.der().to_vec()]), NOW).unwrap();
    assert_eq!(facts.version.as_deref(), Some("id:0002\u{fffd}"));
    assert_eq!(facts.model.as_ref().map(TpmModel::as_str), Some("Spruce Point"));
}

#[test]
fn authorities_are_judged() {
    let (key, _) = subject();
    let by = |change: Change<'_>| {
        let root = root(change);
        refusal(&key, &[issue(&root, &|_| {})], &fleet(&[root.der().to_vec()]))
    };
    assert_eq!(by(&|_| {}), Ok(()));
    // A manufacturer's authority may be limited to EK certificates; devices sign in with nothing of it.
    assert_eq!(by(&|it| it.custom_extensions = vec![usages(&[EK_USAGE])]), Ok(()));
    assert_eq!(by(&|it| dated(it, -9, -1)), chain(Refusal::AnchorExpired));
    assert_eq!(by(&|it| it.key_usages = vec![KeyUsagePurpose::CrlSign]), chain(Refusal::KeyUsageNotAllowed));
    let root = root(&|_| {});
    let below = |change: Change<'_>| {
        let issuer = authority("below", change);
        let issuer = CertifiedIssuer::signed_by(issuer, KeyPair::generate().unwrap(), &root).unwrap();
        refusal(&key, &[issue(&issuer, &|_| {}), issuer.der().to_vec()], &fleet(&[root.der().to_vec()]))
    };
    assert_eq!(below(&|_| {}), Ok(()));
    assert_eq!(below(&|it| it.custom_extensions = vec![usages(&[EK_USAGE])]), Ok(()));
    assert_eq!(
        below(&|it| it.custom_extensions = vec![usages(&[CLIENT_USAGE])]),
        chain(Refusal::ExtendedKeyUsageNotAllowed)
    );
    assert_eq!(below(&|it| dated(it, -9, -1)), chain(Refusal::IntermediateExpired));
    assert_eq!(below(&|it| it.is_ca = IsCa::ExplicitNoCa), chain(Refusal::NotACa));
    let leaf = certificate_ref(&issue(&root, &|_| {})).unwrap();
    assert_eq!(check_authority(&leaf), Err(Refusal::NotACa));
}

/// Old certificates mark an RSA key as one for OAEP. No library here makes such, so one is changed and signed again.
#[test]
fn a_key_marked_for_oaep_is_taken() {
    const RSA: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
    let by = root(&|_| {});
    let real = vector("ek-rsa-cert.der");
    let (_, real) = X509Certificate::from_der(&real).unwrap();
    let spki = SubjectPublicKeyInfo::from_der(real.public_key().raw).unwrap();
    let der = usual().signed_by(&spki, &by).unwrap().der().to_vec();
    let (_, certificate) = X509Certificate::from_der(&der).unwrap();
    let key = endorsement_key(&vector("ek-rsa.pub"));
    assert_eq!(refusal(&key, std::slice::from_ref(&der), &fleet(&[by.der().to_vec()])), Ok(()));

    let mut signed = certificate.tbs_certificate.as_ref().to_vec();
    let at = signed.windows(RSA.len()).position(|window| window == RSA).unwrap();
    signed[at + RSA.len() - 1] = 0x07;
    let signature = by.key().sign(&signed).unwrap();
    let algorithm = tlv(0x30, &tlv(0x06, &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02]));
    let body = [signed, algorithm, tlv(0x03, &[&[0], signature.as_slice()].concat())].concat();
    let length = u16::try_from(body.len()).unwrap().to_be_bytes();
    let oaep = [&[0x30, 0x82], length.as_slice(), &body].concat();
    assert_eq!(refusal(&key, &[oaep], &fleet(&[by.der().to_vec()])), Ok(()));
}
