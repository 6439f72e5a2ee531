//! Which enrollment decides about a device (DESIGN 6d, reference/dps.md §2.1).
//!
//! Nothing here is proof. A name in a certificate can be anyone's, so a candidate decides only once `attestation` has
//! verified the chain against its anchors.

use std::borrow::Borrow;
use std::collections::BTreeSet;

use crate::domain::{AnchorRef, Attestation, CertificateRef, Enrollment, Thumbprint};

/// What the store must be asked for before [`choose`]: groups with an anchor under any of these keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lookups {
    /// Anchors that may be presented themselves.
    pub thumbprints: Vec<Thumbprint>,
    /// Anchors that may have signed a presented certificate, by subject name.
    pub subjects: Vec<Thumbprint>,
}

/// How an entry refers to a certificate of the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reference {
    /// The anchor is the presented certificate.
    Presented,
    /// The anchor has the name that a presented certificate gives as its issuer. Several authorities may share a name.
    IssuerName,
}

/// A group that may decide.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate<'a> {
    pub group: &'a Enrollment,
    /// How far the anchor stands from the device: 0 is the leaf, 1 its issuer, and so on.
    pub distance: usize,
    pub by: Reference,
}

/// Who decides.
#[derive(Debug, Clone, PartialEq)]
pub enum Match<'a> {
    /// The individual enrollment, enabled or not; no group is considered.
    Individual(&'a Enrollment),
    /// At least one, nearest first.
    ///
    /// Verify the chain against each in turn. The first that verifies decides, enabled or not. A candidate *by issuer
    /// name* whose key did not sign the certificate is a namesake and not referred to: ask the next one. Any other
    /// refusal (expired, wrong usage, …) is final, or a blocked device could slip on to a farther group.
    Groups(Vec<Candidate<'a>>),
    /// Nobody knows the device.
    Nothing,
}

/// The keys under which groups can be found for a presented chain.
pub fn lookups(chain: &[AnchorRef]) -> Lookups {
    let unique = |keys: BTreeSet<Thumbprint>| keys.into_iter().collect();
    Lookups {
        thumbprints: unique(chain.iter().map(|certificate| certificate.thumbprint).collect()),
        subjects: unique(chain.iter().map(|certificate| certificate.issuer).collect()),
    }
}

/// Chooses among what the caller loaded: the individual enrollment of the registration id, and every group that
/// [`lookups`] found. `chain` is as presented, leaf first.
///
/// Groups are walked leaf → root. The walk ends at the first distance where a group's anchor is itself presented, since
/// that entry certainly refers to the certificate; groups reached by name only are candidates on the way there.
pub fn choose<'a, G: Borrow<Enrollment>>(
    individual: Option<&'a Enrollment>,
    chain: &[AnchorRef],
    groups: &'a [G],
) -> Match<'a> {
    if let Some(individual) = individual {
        return Match::Individual(individual);
    }
    walk(groups.iter().filter_map(|group| nearest(group.borrow(), chain)).collect())
}

/// As [`choose`], of the groups that accept endorsement keys by their certificates.
pub fn choose_fleet<'a, G: Borrow<Enrollment>>(chain: &[AnchorRef], groups: &'a [G]) -> Match<'a> {
    walk(groups.iter().filter_map(|group| nearest_fleet(group.borrow(), chain)).collect())
}

fn walk(mut candidates: Vec<Candidate<'_>>) -> Match<'_> {
    candidates.sort_by(|a, b| (a.distance, a.by).cmp(&(b.distance, b.by)).then_with(|| a.group.id.cmp(&b.group.id)));
    let certain = candidates
        .iter()
        .filter(|candidate| candidate.by == Reference::Presented)
        .map(|candidate| candidate.distance)
        .min();
    if let Some(last) = certain {
        candidates.retain(|candidate| candidate.distance <= last);
    }
    if candidates.is_empty() { Match::Nothing } else { Match::Groups(candidates) }
}

/// The nearest certificate that the group refers to.
fn nearest<'a>(group: &'a Enrollment, chain: &[AnchorRef]) -> Option<Candidate<'a>> {
    let anchors = match &group.attestation {
        Attestation::X509Ca(_) => group.attestation.certificates(),
        // Leaf certificates stand in individual enrollments, which are found by registration id; authorities of endorsement
        // keys vouch for no device's own certificate.
        Attestation::X509Leaf(_)
        | Attestation::Tpm(_)
        | Attestation::TpmFleet(_)
        | Attestation::SymmetricKey(_)
        | Attestation::MasterKey(_) => return None,
    };
    refers(group, anchors, chain)
}

fn nearest_fleet<'a>(group: &'a Enrollment, chain: &[AnchorRef]) -> Option<Candidate<'a>> {
    match &group.attestation {
        Attestation::TpmFleet(_) => refers(group, group.attestation.certificates(), chain),
        Attestation::X509Ca(_)
        | Attestation::X509Leaf(_)
        | Attestation::Tpm(_)
        | Attestation::SymmetricKey(_)
        | Attestation::MasterKey(_) => None,
    }
}

fn refers<'a>(
    group: &'a Enrollment,
    anchors: impl Iterator<Item = &'a CertificateRef>,
    chain: &[AnchorRef],
) -> Option<Candidate<'a>> {
    anchors
        .flat_map(|anchor| {
            chain.iter().enumerate().flat_map(move |(depth, certificate)| {
                let presented = (certificate.thumbprint == anchor.thumbprint).then_some((depth, Reference::Presented));
                let issuer = (certificate.issuer == anchor.subject).then_some((depth + 1, Reference::IssuerName));
                presented.into_iter().chain(issuer)
            })
        })
        .min()
        .map(|(distance, by)| Candidate { group, distance, by })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::samples;

    /// A certificate as `name:serial`, issued by the name after the arrow: `leaf:1<mid`.
    fn certificate(text: &str) -> AnchorRef {
        let (own, issuer) = text.split_once('<').unwrap();
        let (subject, _) = own.split_once(':').unwrap();
        AnchorRef {
            thumbprint: samples::thumbprint(own),
            subject: samples::thumbprint(subject),
            issuer: samples::thumbprint(issuer),
        }
    }

    fn chosen(individual: bool, chain: &[&str], groups: &[(&str, &[&str])]) -> String {
        let chain: Vec<AnchorRef> = chain.iter().map(|text| certificate(text)).collect();
        let groups: Vec<Enrollment> = groups.iter().map(|(id, anchors)| samples::group(id, anchors)).collect();
        let own = samples::individual("dev");
        match choose(individual.then_some(&own), &chain, &groups) {
            Match::Individual(_) => "individual".to_owned(),
            Match::Nothing => "nothing".to_owned(),
            Match::Groups(candidates) => candidates
                .iter()
                .map(|candidate| {
                    let how = match candidate.by {
                        Reference::Presented => '=',
                        Reference::IssuerName => '~',
                    };
                    format!("{}{how}{}", candidate.group.id, candidate.distance).replace("group ", "")
                })
                .collect::<Vec<_>>()
                .join(" "),
        }
    }

    #[test]
    fn the_nearest_entry_decides() {
        const CHAIN: &[&str] = &["leaf:1<mid", "mid:1<root", "root:1<root"];
        type Groups<'a> = &'a [(&'a str, &'a [&'a str])];
        let cases: &[(&str, &[&str], Groups<'_>, &str)] = &[
            ("nobody", CHAIN, &[], "nothing"),
            ("a stranger's anchor", CHAIN, &[("g", &["other:1"])], "nothing"),
            ("the intermediate beats the root", CHAIN, &[("root", &["root:1"]), ("mid", &["mid:1"])], "mid=1"),
            ("the root alone", CHAIN, &[("root", &["root:1"])], "root=2"),
            ("an issuer that is not presented", &["leaf:1<mid"], &[("mid", &["mid:1"])], "mid~1"),
            ("the secondary anchor counts", CHAIN, &[("g", &["other:1", "mid:1"])], "g=1"),
            ("one group, its nearest anchor", CHAIN, &[("g", &["root:1", "mid:1"])], "g=1"),
            (
                "namesakes: the presented one first, by name after it",
                CHAIN,
                &[("a-namesake", &["mid:2"]), ("mid", &["mid:1"])],
                "mid=1 a-namesake~1",
            ),
            (
                "two authorities of one name, neither presented",
                &["leaf:1<mid"],
                &[("b", &["mid:2"]), ("a", &["mid:1"])],
                "a~1 b~1",
            ),
            (
                "a namesake does not hide the farther entry that is meant",
                CHAIN,
                &[("namesake", &["mid:2"]), ("root", &["root:1"])],
                "namesake~1 root=2",
            ),
            ("no chain at all", &[], &[("g", &["root:1"])], "nothing"),
            ("the leaf itself enrolled as an anchor", CHAIN, &[("odd", &["leaf:1"]), ("mid", &["mid:1"])], "odd=0"),
        ];
        for (name, chain, groups, expected) in cases {
            assert_eq!(chosen(false, chain, groups), *expected, "{name}");
        }
    }

    #[test]
    fn an_individual_comes_before_any_group() {
        assert_eq!(chosen(true, &["leaf:1<mid"], &[("mid", &["mid:1"])]), "individual");
        let mut disabled = samples::individual("dev");
        disabled.enabled = false;
        assert_eq!(choose::<Enrollment>(Some(&disabled), &[], &[]), Match::Individual(&disabled));
    }

    #[test]
    fn the_store_is_asked_for_each_key_once() {
        let chain = [certificate("leaf:1<mid"), certificate("mid:1<root"), certificate("root:1<root")];
        let keys = lookups(&chain);
        assert_eq!((keys.thumbprints.len(), keys.subjects.len()), (3, 2));
        assert!(keys.subjects.contains(&samples::thumbprint("root")));
        assert_eq!(lookups(&[]), Lookups::default());
    }
}
