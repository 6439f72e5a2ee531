//! The devices that put load on: each with its own key and certificate, made on all cores and used by every scenario.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::ambient::{Clock as _, SystemClock, SystemEntropy};
use crate::cli::output::Output;
use crate::client::{Caller, Server, Tickets};
use crate::domain::{
    AllocationPolicy, AttestationDraft, Capabilities, ClientFacts, DeviceId, Document, EnrollmentDraft, EnrollmentId,
    HubId, InitialState, Latency, RegistrationId, ReprovisionPolicy, ResetOnSameHub, UnreachableRule, limits,
};
use crate::pki::{Authority, Issued, Purpose, Terms};

/// Longer than any bench.
const LIFETIME: Duration = Duration::from_secs(30 * 24 * 3600);
/// How often it is said how many are made.
const SHOWN_EVERY: usize = 256;

/// The two hubs that devices live at and move between.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hubs {
    pub first: HubId,
    pub second: HubId,
}

impl Hubs {
    pub fn of(&self, second: bool) -> &HubId {
        if second { &self.second } else { &self.first }
    }

    /// What a device says of itself that is near to one of them.
    pub fn facts(&self, second: bool) -> ClientFacts {
        let latency = |hub: &HubId, near| Latency { hub: hub.clone(), milliseconds: if near { 1 } else { 90 } };
        ClientFacts {
            latencies: vec![latency(&self.first, !second), latency(&self.second, second)],
            ..ClientFacts::default()
        }
    }
}

/// One device.
pub struct BenchDevice {
    pub id: RegistrationId,
    pub device: DeviceId,
    /// Leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// Every connection proves itself anew.
    pub caller: Caller,
    /// Connections resume the ones before.
    pub resuming: Caller,
    /// Where it is near to, and so lives once it has registered.
    at_second: AtomicBool,
}

impl fmt::Debug for BenchDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BenchDevice({})", self.id)
    }
}

impl BenchDevice {
    pub fn new(
        id: RegistrationId,
        chain: Vec<CertificateDer<'static>>,
        key: &dyn Fn() -> PrivateKeyDer<'static>,
        server: &Server,
    ) -> anyhow::Result<Self> {
        let caller = |tickets| server.caller(chain.clone(), key(), tickets);
        Ok(Self {
            device: DeviceId::from(&id),
            caller: caller(Tickets::Refused)?,
            resuming: caller(Tickets::Kept)?,
            chain,
            id,
            at_second: AtomicBool::new(false),
        })
    }

    pub fn is_at_second(&self) -> bool {
        self.at_second.load(Ordering::Relaxed)
    }

    /// It was told that it lives there now.
    pub fn lives_at_second(&self, second: bool) {
        self.at_second.store(second, Ordering::Relaxed);
    }
}

/// The enrollment of devices that live where they say that they are near.
pub fn draft(
    id: EnrollmentId,
    certificate: Vec<u8>,
    policy: ReprovisionPolicy,
    desired: Document,
    hubs: &Hubs,
) -> EnrollmentDraft {
    EnrollmentDraft {
        id,
        attestation: AttestationDraft::X509 { primary: certificate, secondary: None },
        enabled: true,
        device_id: None,
        initial: InitialState { tags: Document::default(), desired, capabilities: Capabilities::default() },
        reprovision: Some(policy),
        allocation: Some(AllocationPolicy::LowestLatency),
        hubs: vec![hubs.first.clone(), hubs.second.clone()],
        unreachable: UnreachableRule::Wait { deadline: limits::UNREACHABLE_WAIT_DEFAULT },
        allow_late_writes: false,
        reset_on_same_hub: ResetOnSameHub::Off,
        reassign_when_down: false,
        adopt_existing: false,
    }
}

/// A new authority for devices.
pub fn authority(name: &str) -> anyhow::Result<Authority> {
    let terms = Terms::starting(SystemClock.now(), LIFETIME);
    Ok(Authority::create(name, Purpose::Device, terms, &SystemEntropy::new())?)
}

/// Makes devices whose certificates come from an authority, on all cores.
pub fn make(
    count: usize,
    prefix: &str,
    authority: &Authority,
    server: &Server,
    output: Output,
) -> anyhow::Result<Vec<BenchDevice>> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let made = AtomicUsize::new(0);
    let part = |thread: usize| {
        let mut progress = output.progress();
        let entropy = SystemEntropy::new();
        let mut devices = Vec::with_capacity(count / threads + 1);
        for number in (thread..count).step_by(threads) {
            devices.push(one(&format!("{prefix}-{number:07}"), authority, server, &entropy)?);
            let so_far = made.fetch_add(1, Ordering::Relaxed) + 1;
            if so_far.is_multiple_of(SHOWN_EVERY) {
                progress.update(&format!("making keys and certificates: {so_far} of {count}"));
            }
        }
        Ok::<_, anyhow::Error>(devices)
    };
    let mut all = Vec::with_capacity(count);
    std::thread::scope(|scope| {
        let parts: Vec<_> = (0..threads).map(|thread| scope.spawn(move || part(thread))).collect();
        for part in parts {
            match part.join() {
                Ok(devices) => all.extend(devices?),
                Err(_) => bail!("a thread that makes certificates broke off"),
            }
        }
        Ok(())
    })?;
    Ok(all)
}

/// A device's certificate with its key, from an authority that issues for its name.
pub fn issue(name: &str, authority: &Authority, entropy: &SystemEntropy) -> anyhow::Result<(RegistrationId, Issued)> {
    let id = RegistrationId::parse(name).with_context(|| format!("{name} is no registration id"))?;
    let issued = authority.issue_device(&id, Terms::starting(SystemClock.now(), LIFETIME), entropy)?;
    Ok((id, issued))
}

fn one(name: &str, authority: &Authority, server: &Server, entropy: &SystemEntropy) -> anyhow::Result<BenchDevice> {
    let (id, issued) = issue(name, authority, entropy)?;
    BenchDevice::new(id, issued.chain().to_vec(), &|| issued.key(), server)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_near_to_one_hub_at_a_time() {
        let hub = |id: &str| HubId::parse(id).unwrap();
        let hubs = Hubs { first: hub("hub-a"), second: hub("hub-b") };
        for (second, near, far) in [(false, "hub-a", "hub-b"), (true, "hub-b", "hub-a")] {
            let facts = hubs.facts(second);
            let milliseconds = |id: &str| facts.latencies.iter().find(|it| it.hub == hub(id)).unwrap().milliseconds;
            assert!(milliseconds(near) < milliseconds(far), "{second}");
            assert_eq!(*hubs.of(second), hub(near));
        }
    }
}
