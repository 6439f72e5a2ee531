//! Twins at the hubs that this service holds: for the devices they describe, and for back ends.
//!
//! Who may use a twin is the hub's to say (it knows what each device signs in with); here the caller is put in the hub's
//! words, and the hub's refusals in ours.

use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use futures_util::stream;
use tokio::sync::mpsc;

use crate::ambient::Clock;
use crate::attestation::sas::{self, Demand};
use crate::attestation::x509;
use crate::domain::token::{SasToken, hub_resource};
use crate::domain::{
    Credential, DeviceId, Document, Evidence, Fault, HubId, PresentedToken, Reason, SealedKey, Timestamp, limits,
};
use crate::hubs::{DesiredEvent, Resident, ResidentPage, SignedToken, TwinCaller, TwinHost, TwinRefusal, TwinWrite};

use super::{Service, fault};

/// When a twin that is being moved may be asked for again: the sealed window of a move is short.
const MOVING_RETRY: Duration = Duration::from_secs(1);
/// When a hub that is away may be asked again.
const AWAY_RETRY: Duration = Duration::from_secs(5);

/// A device that watches its desired properties.
#[derive(Debug)]
pub struct DesiredWatch {
    events: mpsc::Receiver<DesiredEvent>,
    /// When the token ends that the device came in with.
    ends_at: Option<Timestamp>,
    clock: Arc<dyn Clock>,
}

impl DesiredWatch {
    /// The next event, until the watch ends or what the device came in with does.
    pub async fn recv(&mut self) -> Option<DesiredEvent> {
        match self.ends_at {
            None => self.events.recv().await,
            Some(ends_at) => tokio::select! {
                event = self.events.recv() => event,
                () = self.clock.sleep_until(ends_at) => None,
            },
        }
    }

    /// The events one after the other.
    pub fn into_stream(self) -> impl Stream<Item = DesiredEvent> + Send {
        stream::unfold(self, |mut watch| async move { Some((watch.recv().await?, watch)) })
    }
}

impl Service {
    /// The device's own twin.
    pub async fn own_twin(&self, evidence: &Evidence, hub: &HubId, device: &DeviceId) -> Result<Resident, Fault> {
        let (caller, _) = self.device_caller(evidence, hub, device)?;
        let twins = self.twins(hub, Side::Device)?;
        twins.read(device, &caller).await.map_err(|refusal| refused(refusal, hub, device))
    }

    /// Merges a device's report into its reported properties.
    pub async fn report(
        &self,
        evidence: &Evidence,
        hub: &HubId,
        device: &DeviceId,
        patch: Document,
    ) -> Result<Resident, Fault> {
        let (caller, _) = self.device_caller(evidence, hub, device)?;
        let twins = self.twins(hub, Side::Device)?;
        twins.report(device, &caller, patch).await.map_err(|refusal| refused(refusal, hub, device))
    }

    /// The device's desired properties as they change; the whole document first. A watch by token ends with the token.
    pub async fn watch_desired(
        &self,
        evidence: &Evidence,
        hub: &HubId,
        device: &DeviceId,
    ) -> Result<DesiredWatch, Fault> {
        let (caller, ends_at) = self.device_caller(evidence, hub, device)?;
        let twins = self.twins(hub, Side::Device)?;
        let events = twins.watch(device, &caller).await.map_err(|refusal| refused(refusal, hub, device))?;
        Ok(DesiredWatch { events, ends_at, clock: self.inner.clock.clone() })
    }

    /// A device of a hub, for a back end.
    pub async fn twin(&self, hub: &HubId, device: &DeviceId) -> Result<Resident, Fault> {
        let twins = self.twins(hub, Side::BackEnd)?;
        twins.read(device, &TwinCaller::BackEnd).await.map_err(|refusal| refused(refusal, hub, device))
    }

    /// A back end's change; `version` is the twin version that must still hold.
    pub async fn write_twin(
        &self,
        hub: &HubId,
        device: &DeviceId,
        version: Option<u64>,
        write: TwinWrite,
    ) -> Result<Resident, Fault> {
        let twins = self.twins(hub, Side::BackEnd)?;
        twins.write(device, version, write).await.map_err(|refusal| refused(refusal, hub, device))
    }

    /// Devices of a hub by id.
    pub async fn list_twins(&self, hub: &HubId, size: u32, token: Option<&str>) -> Result<ResidentPage, Fault> {
        let twins = self.twins(hub, Side::BackEnd)?;
        twins.list(size, token).await.map_err(|refusal| match refusal {
            TwinRefusal::PageToken => Fault::new(Reason::InvalidPageToken, refusal.to_string()),
            TwinRefusal::Unavailable => away(hub),
            TwinRefusal::NotFound
            | TwinRefusal::NotLetIn
            | TwinRefusal::Moving
            | TwinRefusal::Moved
            | TwinRefusal::VersionMismatch
            | TwinRefusal::Invalid(_)
            | TwinRefusal::Unknown(_) => Fault::new(Reason::Internal, format!("hub {hub} cannot list: {refusal}")),
        })
    }

    /// Linked hubs and their host names.
    pub fn hub_host_names(&self) -> Vec<(HubId, String)> {
        self.inner.directory.fleet().berths().into_iter().map(|berth| (berth.hub.id, berth.hub.host_name)).collect()
    }

    /// The hub that is called by this host name (with a port, or without one) as devices know it.
    pub fn hub_named(&self, host: &str) -> Option<HubId> {
        let host = host.rsplit_once(':').map_or(host, |(name, _)| name);
        let berths = self.inner.directory.fleet().berths();
        berths.into_iter().find(|berth| berth.hub.host_name.eq_ignore_ascii_case(host)).map(|berth| berth.hub.id)
    }

    /// The caller as its hub knows it: by the certificate whose key the connection proved. A certificate that is out of
    /// date is none.
    fn device_caller(
        &self,
        evidence: &Evidence,
        hub: &HubId,
        device: &DeviceId,
    ) -> Result<(TwinCaller, Option<Timestamp>), Fault> {
        let leaf = match evidence {
            Evidence::None => None,
            Evidence::Token(token) => return self.token_caller(token, hub, device),
            Evidence::X509 { chain } => chain.first(),
        };
        let leaf = leaf.ok_or_else(not_let_in)?;
        let info = x509::describe(leaf).map_err(|_| not_let_in())?;
        let now = self.inner.clock.now();
        if now < info.not_before || now.as_secs() > info.not_after.as_secs() {
            return Err(not_let_in());
        }
        Ok((TwinCaller::Device(Credential::x509([info.thumbprint])), None))
    }

    /// The caller by a token that it signed. What the token is for and how long it holds is judged here, and whether one of
    /// the hub's keys signed it where the hub looks: the signature counts for nothing without the rest.
    fn token_caller(
        &self,
        presented: &PresentedToken,
        hub: &HubId,
        device: &DeviceId,
    ) -> Result<(TwinCaller, Option<Timestamp>), Fault> {
        let token = SasToken::parse(presented.text().as_bytes()).map_err(|_| not_let_in())?;
        let berth = self.inner.directory.fleet().berth(hub).ok_or_else(not_let_in)?;
        // Either name of the hub will do, with the port that it is reached at or without.
        let names = [hub_resource(&berth.hub.host_name, device), hub_resource(hub.as_str(), device)];
        let resource = token.resource();
        let meant = without_port(&resource);
        if !names.iter().any(|name| name.eq_ignore_ascii_case(&meant)) {
            return Err(not_let_in());
        }
        let (vault, now, ends_at) = (self.inner.vault.clone(), self.inner.clock.now(), token.expires_at());
        let is_signed_by = move |key: &SealedKey| {
            let demand = Demand { resource: &resource, lifetime_max: limits::HUB_TOKEN_LIFETIME_MAX };
            vault.open(key).is_some_and(|key| sas::verify(&token, [&key], demand, now).is_ok())
        };
        Ok((TwinCaller::Token(SignedToken::new(is_signed_by)), Some(ends_at)))
    }

    fn twins(&self, hub: &HubId, side: Side) -> Result<Arc<dyn TwinHost>, Fault> {
        match (self.inner.directory.fleet().berth(hub), side) {
            (Some(berth), _) => berth.twins().ok_or_else(|| away(hub)),
            (None, Side::BackEnd) => Err(fault::no_hub(hub)),
            // A stranger is not told which hubs there are.
            (None, Side::Device) => Err(not_let_in()),
        }
    }
}

/// A resource whose host comes without the port that some clients put behind it.
fn without_port(resource: &str) -> String {
    let (host, rest) = resource.split_once('/').unwrap_or((resource, ""));
    match host.rsplit_once(':') {
        Some((name, port)) if port.parse::<u16>().is_ok() => format!("{name}/{rest}"),
        Some(_) | None => resource.to_owned(),
    }
}

#[derive(Clone, Copy)]
enum Side {
    Device,
    BackEnd,
}

fn not_let_in() -> Fault {
    let message = "the device is not let in: present the certificate it was assigned with, or register again";
    Fault::new(Reason::CallerUnauthenticated, message)
}

fn away(hub: &HubId) -> Fault {
    Fault::new(Reason::HubUnavailable, format!("hub {hub} is down")).with("hub", hub.as_str()).retry_after(AWAY_RETRY)
}

fn refused(refusal: TwinRefusal, hub: &HubId, device: &DeviceId) -> Fault {
    let message = refusal.to_string();
    match refusal {
        TwinRefusal::NotFound => Fault::new(Reason::TwinNotFound, format!("hub {hub} has no device {device}")),
        TwinRefusal::NotLetIn => not_let_in(),
        TwinRefusal::Moving => Fault::new(Reason::DeviceMoving, message).retry_after(MOVING_RETRY),
        TwinRefusal::Moved => Fault::new(Reason::DeviceMoved, message),
        TwinRefusal::VersionMismatch => fault::etag_mismatch(format!("the twin of {device}")),
        TwinRefusal::Invalid(_) => Fault::new(Reason::TwinInvalid, message),
        TwinRefusal::PageToken => Fault::new(Reason::InvalidPageToken, message),
        TwinRefusal::Unavailable => away(hub),
        TwinRefusal::Unknown(why) => {
            tracing::warn!(hub = %hub, "a twin may have been written: {why}");
            let message = "it is not known whether the twin was written: read it again";
            Fault::new(Reason::HubUnavailable, message).with("hub", hub.as_str()).retry_after(AWAY_RETRY)
        }
    }
}
