//! Who the devices are: certificates made once for all runs, three for each device, so that they can be rolled.

use std::sync::{Arc, OnceLock};

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use rehome::attestation::{Verified, x509};
use rehome::domain::{CertificateRef, Enrollment, RegistrationId, Timestamp};

/// Devices that a run has at most.
pub const DEVICES_MAX: usize = 4;
/// Certificates that each of them may present.
pub const LEAVES: usize = 3;

#[derive(Debug)]
pub struct Leaf {
    pub reference: CertificateRef,
    presented: x509::Presented,
}

#[derive(Debug)]
pub struct Identity {
    pub id: RegistrationId,
    pub leaves: Vec<Leaf>,
}

/// The device of that number.
pub fn identity(device: usize) -> &'static Identity {
    static ALL: OnceLock<Vec<Identity>> = OnceLock::new();
    &ALL.get_or_init(|| (0..DEVICES_MAX).map(make).collect())[device]
}

fn make(device: usize) -> Identity {
    let id = RegistrationId::parse(&format!("dev-{device}")).unwrap();
    let leaves = (0..LEAVES).map(|_| {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, id.as_str());
        params.not_before = rcgen::date_time_ymd(2000, 1, 1);
        params.not_after = rcgen::date_time_ymd(2200, 1, 1);
        let der = params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec();
        Leaf { reference: x509::certificate_ref(&der).unwrap(), presented: x509::Presented::parse(&[der]).unwrap() }
    });
    Identity { leaves: leaves.collect(), id }
}

/// The device proves itself with a leaf; `None` when the enrollment does not let it in.
pub fn prove(device: usize, leaf: usize, enrollment: &Arc<Enrollment>, now: Timestamp) -> Option<Verified> {
    let identity = identity(device);
    x509::verify(&identity.leaves[leaf].presented, enrollment, &identity.id, now).ok()
}
