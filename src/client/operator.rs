//! The operator's client: one method for each call of the admin services and of the back end's twin service.
//!
//! It translates and nothing else; every method fails with the service's own refusal ([`ClientFault::Refused`]).

use tonic::Streaming;
use tonic::transport::Channel;

use super::backup::Backup;
use super::fault::ClientFault;
use super::target::Target;
use super::{
    DeviceRecord, EnrollmentRecord, Explanation, HistoryRecord, HistoryTwin, HubRecord, RegistrationRecord,
    ReprovisionCall, StatusQuery, TwinTarget,
};
use crate::domain::{
    AuditAction, Document, EnrollmentDraft, EnrollmentId, GroupId, HubDraft, HubId, HubStatus, KeyPair, Order,
    RegistrationId, ReprovisionPolicy, StoredAudit, TokenKey, TrackingId, TwinPatch, Version,
};
use crate::wire::WireFault;
use crate::wire::admin::v1;
use crate::wire::admin::v1::audit_service_client::AuditServiceClient;
use crate::wire::admin::v1::enrollment_group_service_client::EnrollmentGroupServiceClient;
use crate::wire::admin::v1::enrollment_service_client::EnrollmentServiceClient;
use crate::wire::admin::v1::hub_service_client::HubServiceClient;
use crate::wire::admin::v1::registration_service_client::RegistrationServiceClient;
use crate::wire::admin::v1::store_service_client::StoreServiceClient;
use crate::wire::convert::enrollment::{EnrollmentMessage, wire_draft};
use crate::wire::convert::field::{enrollment_id, required};
use crate::wire::convert::hub::wire_draft as wire_hub_draft;
use crate::wire::convert::json::wire_document;
use crate::wire::convert::reconcile::ReconcileNews;
use crate::wire::convert::registration_admin::{ResolveCall, UndoCall, wire_applied_policy};
use crate::wire::device::v1::RegistrationStatus;
use crate::wire::hub::v1 as twins;
use crate::wire::hub::v1::twin_admin_service_client::TwinAdminServiceClient;

/// A connection with an operator's (or back end's) certificate.
#[derive(Debug, Clone)]
pub struct Operator {
    enrollments: EnrollmentServiceClient<Channel>,
    groups: EnrollmentGroupServiceClient<Channel>,
    hubs: HubServiceClient<Channel>,
    registrations: RegistrationServiceClient<Channel>,
    audit: AuditServiceClient<Channel>,
    store: StoreServiceClient<Channel>,
    twins: TwinAdminServiceClient<Channel>,
}

/// Which page of a listing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PageChoice {
    /// 0 is the service's default.
    pub size: u32,
    pub token: Option<String>,
}

/// One page, and where the next begins.
#[derive(Debug, Clone, PartialEq)]
pub struct Page<T> {
    pub rows: Vec<T>,
    /// Absent on the last page.
    pub next: Option<String>,
}

impl<T> Page<T> {
    fn of<'a, M: 'a>(
        messages: &'a [M],
        next: String,
        read: impl Fn(&'a M) -> Result<T, crate::wire::WireFault>,
    ) -> Result<Self, ClientFault> {
        let rows = messages.iter().map(read).collect::<Result<_, _>>()?;
        Ok(Self { rows, next: (!next.is_empty()).then_some(next) })
    }
}

/// Reads page after page and hands over every row. `fetch` is given the token of the page to read.
pub async fn every_row<T>(
    mut fetch: impl AsyncFnMut(Option<String>) -> Result<Page<T>, ClientFault>,
    mut row: impl FnMut(T),
) -> Result<(), ClientFault> {
    let mut token = None;
    loop {
        let page = fetch(token).await?;
        page.rows.into_iter().for_each(&mut row);
        match page.next {
            Some(next) => token = Some(next),
            None => return Ok(()),
        }
    }
}

/// Individual enrollments, or groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EnrollmentKind {
    Individual,
    Group,
}

/// Which registrations; all given filters must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RegistrationChoice {
    pub hub: Option<HubId>,
    pub group: Option<GroupId>,
    pub status: Option<StatusQuery>,
    /// `Some(None)` is sticky.
    pub policy: Option<Option<ReprovisionPolicy>>,
    pub pinned: Option<bool>,
}

/// What came of one enrollment of an import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImportOutcome {
    Created,
    /// It was there before and was not changed; `differs` when it is not as the draft says.
    Exists {
        differs: bool,
    },
    /// With the reason that creating it alone would have been refused with.
    Refused {
        reason: String,
        message: String,
    },
}

impl TryFrom<v1::ImportOutcome> for ImportOutcome {
    type Error = WireFault;

    fn try_from(outcome: v1::ImportOutcome) -> Result<Self, WireFault> {
        match v1::ImportStatus::try_from(outcome.status) {
            Ok(v1::ImportStatus::Created) => Ok(ImportOutcome::Created),
            Ok(v1::ImportStatus::Exists) => Ok(ImportOutcome::Exists { differs: outcome.differs }),
            Ok(v1::ImportStatus::Refused) => {
                Ok(ImportOutcome::Refused { reason: outcome.reason, message: outcome.message })
            }
            Ok(v1::ImportStatus::Unspecified) | Err(_) => {
                Err(WireFault::new("outcomes.status", "is missing or not known here"))
            }
        }
    }
}

/// What a revocation came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Revoked {
    /// The enrollment that is disabled now.
    pub enrollment: EnrollmentId,
    /// The registration on its way out; absent when it was gone at once.
    pub registration: Option<RegistrationRecord>,
}

fn etag(version: Option<Version>) -> String {
    version.map(Version::etag).unwrap_or_default()
}

fn individual(message: Option<v1::Enrollment>) -> Result<EnrollmentRecord, ClientFault> {
    Ok(EnrollmentRecord::try_from(&EnrollmentMessage::Individual(required("enrollment", message)?))?)
}

fn group(message: Option<v1::EnrollmentGroup>) -> Result<EnrollmentRecord, ClientFault> {
    Ok(EnrollmentRecord::try_from(&EnrollmentMessage::Group(required("enrollment_group", message)?))?)
}

/// The news of a reconcile.
#[derive(Debug)]
pub struct Reconcile {
    news: Streaming<v1::ReconcileResponse>,
}

impl Reconcile {
    /// What has happened next; `None` once all is done.
    pub async fn next(&mut self) -> Result<Option<ReconcileNews>, ClientFault> {
        match self.news.message().await? {
            Some(message) => Ok(Some(ReconcileNews::try_from(message)?)),
            None => Ok(None),
        }
    }
}

fn hub(message: Option<v1::Hub>) -> Result<HubRecord, ClientFault> {
    Ok(HubRecord::try_from(&required("hub", message)?)?)
}

fn registration(message: Option<v1::Registration>) -> Result<RegistrationRecord, ClientFault> {
    Ok(RegistrationRecord::try_from(&required("registration", message)?)?)
}

fn device(message: Option<twins::Device>) -> Result<DeviceRecord, ClientFault> {
    Ok(DeviceRecord::try_from(&required("device", message)?)?)
}

impl Operator {
    /// Connects with the target's identity, which names the role.
    pub async fn connect(target: &Target) -> Result<Self, ClientFault> {
        let channel = target.connect().await?;
        Ok(Self {
            enrollments: EnrollmentServiceClient::new(channel.clone()),
            groups: EnrollmentGroupServiceClient::new(channel.clone()),
            hubs: HubServiceClient::new(channel.clone()),
            registrations: RegistrationServiceClient::new(channel.clone()),
            audit: AuditServiceClient::new(channel.clone()),
            store: StoreServiceClient::new(channel.clone()),
            twins: TwinAdminServiceClient::new(channel),
        })
    }
}

/// Enrollments, individual and of groups.
impl Operator {
    pub async fn create_enrollment(&self, draft: &EnrollmentDraft) -> Result<EnrollmentRecord, ClientFault> {
        match wire_draft(draft) {
            EnrollmentMessage::Individual(message) => {
                let request = v1::CreateEnrollmentRequest { enrollment: Some(message) };
                individual(self.enrollments.clone().create_enrollment(request).await?.into_inner().enrollment)
            }
            EnrollmentMessage::Group(message) => {
                let request = v1::CreateEnrollmentGroupRequest { enrollment_group: Some(message) };
                group(self.groups.clone().create_enrollment_group(request).await?.into_inner().enrollment_group)
            }
        }
    }

    /// Makes many new individual enrollments (at most [`limits::IMPORT_MAX`]): those that can be made are. One outcome for
    /// each, in order. With `skip_existing` one that exists is no refusal.
    pub async fn import_enrollments(
        &self,
        drafts: &[EnrollmentDraft],
        skip_existing: bool,
    ) -> Result<Vec<ImportOutcome>, ClientFault> {
        let individual = |draft| match wire_draft(draft) {
            EnrollmentMessage::Individual(message) => Ok(message),
            EnrollmentMessage::Group(_) => Err(WireFault::new("enrollments", "groups are not imported")),
        };
        let enrollments = drafts.iter().map(individual).collect::<Result<_, _>>()?;
        let request = v1::ImportEnrollmentsRequest { enrollments, skip_existing };
        let answer = self.enrollments.clone().import_enrollments(request).await?.into_inner();
        if answer.outcomes.len() != drafts.len() {
            return Err(WireFault::new("outcomes", "are not as many as were asked for").into());
        }
        Ok(answer.outcomes.into_iter().map(ImportOutcome::try_from).collect::<Result<_, _>>()?)
    }

    pub async fn enrollment(&self, id: &EnrollmentId) -> Result<EnrollmentRecord, ClientFault> {
        match id {
            EnrollmentId::Individual(id) => {
                let request = v1::GetEnrollmentRequest { registration_id: id.to_string() };
                individual(self.enrollments.clone().get_enrollment(request).await?.into_inner().enrollment)
            }
            EnrollmentId::Group(id) => {
                let request = v1::GetEnrollmentGroupRequest { group_id: id.to_string() };
                group(self.groups.clone().get_enrollment_group(request).await?.into_inner().enrollment_group)
            }
        }
    }

    /// The keys of an enrollment by symmetric keys, in the clear. That they were asked for stands in the audit log.
    pub async fn enrollment_keys(&self, id: &EnrollmentId) -> Result<KeyPair<TokenKey>, ClientFault> {
        let keys = match id {
            EnrollmentId::Individual(id) => {
                let request = v1::GetEnrollmentKeysRequest { registration_id: id.to_string() };
                self.enrollments.clone().get_enrollment_keys(request).await?.into_inner().keys
            }
            EnrollmentId::Group(id) => {
                let request = v1::GetEnrollmentGroupKeysRequest { group_id: id.to_string() };
                self.groups.clone().get_enrollment_group_keys(request).await?.into_inner().keys
            }
        };
        let keys = required("keys", keys.as_ref())?;
        Ok(KeyPair::try_from(keys)?)
    }

    pub async fn list_enrollments(
        &self,
        kind: EnrollmentKind,
        page: PageChoice,
    ) -> Result<Page<EnrollmentRecord>, ClientFault> {
        let (page_size, page_token) = (page.size, page.token.unwrap_or_default());
        match kind {
            EnrollmentKind::Individual => {
                let request = v1::ListEnrollmentsRequest { page_size, page_token };
                let answer = self.enrollments.clone().list_enrollments(request).await?.into_inner();
                let messages: Vec<_> = answer.enrollments.into_iter().map(EnrollmentMessage::Individual).collect();
                Page::of(&messages, answer.next_page_token, EnrollmentRecord::try_from)
            }
            EnrollmentKind::Group => {
                let request = v1::ListEnrollmentGroupsRequest { page_size, page_token };
                let answer = self.groups.clone().list_enrollment_groups(request).await?.into_inner();
                let messages: Vec<_> = answer.enrollment_groups.into_iter().map(EnrollmentMessage::Group).collect();
                Page::of(&messages, answer.next_page_token, EnrollmentRecord::try_from)
            }
        }
    }

    /// Replaces every field; `version` is the one that was read.
    pub async fn update_enrollment(
        &self,
        draft: &EnrollmentDraft,
        version: Version,
    ) -> Result<EnrollmentRecord, ClientFault> {
        match wire_draft(draft) {
            EnrollmentMessage::Individual(message) => {
                let message = v1::Enrollment { etag: version.etag(), ..message };
                let request = v1::UpdateEnrollmentRequest { enrollment: Some(message) };
                individual(self.enrollments.clone().update_enrollment(request).await?.into_inner().enrollment)
            }
            EnrollmentMessage::Group(message) => {
                let message = v1::EnrollmentGroup { etag: version.etag(), ..message };
                let request = v1::UpdateEnrollmentGroupRequest { enrollment_group: Some(message) };
                group(self.groups.clone().update_enrollment_group(request).await?.into_inner().enrollment_group)
            }
        }
    }

    pub async fn enable_enrollment(
        &self,
        id: &EnrollmentId,
        version: Option<Version>,
    ) -> Result<EnrollmentRecord, ClientFault> {
        let etag = etag(version);
        match id {
            EnrollmentId::Individual(id) => {
                let request = v1::EnableEnrollmentRequest { registration_id: id.to_string(), etag };
                individual(self.enrollments.clone().enable_enrollment(request).await?.into_inner().enrollment)
            }
            EnrollmentId::Group(id) => {
                let request = v1::EnableEnrollmentGroupRequest { group_id: id.to_string(), etag };
                group(self.groups.clone().enable_enrollment_group(request).await?.into_inner().enrollment_group)
            }
        }
    }

    pub async fn disable_enrollment(
        &self,
        id: &EnrollmentId,
        version: Option<Version>,
    ) -> Result<EnrollmentRecord, ClientFault> {
        let etag = etag(version);
        match id {
            EnrollmentId::Individual(id) => {
                let request = v1::DisableEnrollmentRequest { registration_id: id.to_string(), etag };
                individual(self.enrollments.clone().disable_enrollment(request).await?.into_inner().enrollment)
            }
            EnrollmentId::Group(id) => {
                let request = v1::DisableEnrollmentGroupRequest { group_id: id.to_string(), etag };
                group(self.groups.clone().disable_enrollment_group(request).await?.into_inner().enrollment_group)
            }
        }
    }

    pub async fn delete_enrollment(&self, id: &EnrollmentId, version: Option<Version>) -> Result<(), ClientFault> {
        let etag = etag(version);
        match id {
            EnrollmentId::Individual(id) => {
                let request = v1::DeleteEnrollmentRequest { registration_id: id.to_string(), etag };
                self.enrollments.clone().delete_enrollment(request).await?;
            }
            EnrollmentId::Group(id) => {
                let request = v1::DeleteEnrollmentGroupRequest { group_id: id.to_string(), etag };
                self.groups.clone().delete_enrollment_group(request).await?;
            }
        }
        Ok(())
    }
}

/// Hubs.
impl Operator {
    pub async fn link_hub(&self, draft: &HubDraft) -> Result<HubRecord, ClientFault> {
        let request = v1::LinkHubRequest { hub: Some(wire_hub_draft(draft)) };
        hub(self.hubs.clone().link_hub(request).await?.into_inner().hub)
    }

    pub async fn hub(&self, id: &HubId) -> Result<HubRecord, ClientFault> {
        let request = v1::GetHubRequest { hub_id: id.to_string() };
        hub(self.hubs.clone().get_hub(request).await?.into_inner().hub)
    }

    pub async fn list_hubs(&self) -> Result<Vec<HubRecord>, ClientFault> {
        let answer = self.hubs.clone().list_hubs(v1::ListHubsRequest {}).await?.into_inner();
        Ok(answer.hubs.iter().map(HubRecord::try_from).collect::<Result<_, _>>()?)
    }

    /// Replaces every setting; `version` is the one that was read.
    pub async fn update_hub(&self, draft: &HubDraft, version: Version) -> Result<HubRecord, ClientFault> {
        let message = v1::Hub { etag: version.etag(), ..wire_hub_draft(draft) };
        hub(self.hubs.clone().update_hub(v1::UpdateHubRequest { hub: Some(message) }).await?.into_inner().hub)
    }

    pub async fn drain_hub(&self, id: &HubId, version: Option<Version>) -> Result<HubRecord, ClientFault> {
        let request = v1::DrainHubRequest { hub_id: id.to_string(), etag: etag(version) };
        hub(self.hubs.clone().drain_hub(request).await?.into_inner().hub)
    }

    pub async fn activate_hub(&self, id: &HubId, version: Option<Version>) -> Result<HubRecord, ClientFault> {
        let request = v1::ActivateHubRequest { hub_id: id.to_string(), etag: etag(version) };
        hub(self.hubs.clone().activate_hub(request).await?.into_inner().hub)
    }

    pub async fn retire_hub(&self, id: &HubId, version: Option<Version>) -> Result<HubRecord, ClientFault> {
        let request = v1::RetireHubRequest { hub_id: id.to_string(), etag: etag(version) };
        hub(self.hubs.clone().retire_hub(request).await?.into_inner().hub)
    }

    /// `force` states that the hub accepts no writes: what is owed to it is abandoned.
    pub async fn unlink_hub(&self, id: &HubId, version: Option<Version>, force: bool) -> Result<(), ClientFault> {
        let request = v1::UnlinkHubRequest { hub_id: id.to_string(), etag: etag(version), force };
        self.hubs.clone().unlink_hub(request).await?;
        Ok(())
    }

    pub async fn take_down_hub(&self, id: &HubId) -> Result<HubRecord, ClientFault> {
        let request = v1::TakeDownHubRequest { hub_id: id.to_string() };
        hub(self.hubs.clone().take_down_hub(request).await?.into_inner().hub)
    }

    /// Reads what is new in a hub's change feed; how many devices had changed.
    pub async fn sync_hub(&self, id: &HubId) -> Result<u64, ClientFault> {
        let request = v1::SyncHubRequest { hub_id: id.to_string() };
        Ok(self.hubs.clone().sync_hub(request).await?.into_inner().devices)
    }

    /// Goes through what was restored, or tells what would be done. Dropping the news ends it; it can be run again.
    pub async fn reconcile(&self, only: Option<&HubId>, dry_run: bool) -> Result<Reconcile, ClientFault> {
        let request = v1::ReconcileRequest { hub_id: only.map(ToString::to_string).unwrap_or_default(), dry_run };
        Ok(Reconcile { news: self.hubs.clone().reconcile(request).await?.into_inner() })
    }

    pub async fn bring_up_hub(&self, id: &HubId) -> Result<HubRecord, ClientFault> {
        let request = v1::BringUpHubRequest { hub_id: id.to_string() };
        hub(self.hubs.clone().bring_up_hub(request).await?.into_inner().hub)
    }
}

/// Registrations.
impl Operator {
    pub async fn list_registrations(
        &self,
        choice: &RegistrationChoice,
        page: PageChoice,
    ) -> Result<Page<RegistrationRecord>, ClientFault> {
        let status = match choice.status {
            None => RegistrationStatus::Unspecified,
            Some(StatusQuery::Assigning) => RegistrationStatus::Assigning,
            Some(StatusQuery::Assigned) => RegistrationStatus::Assigned,
            Some(StatusQuery::Failed) => RegistrationStatus::Failed,
            Some(StatusQuery::Disabled) => RegistrationStatus::Disabled,
        };
        let request = v1::ListRegistrationsRequest {
            page_size: page.size,
            page_token: page.token.unwrap_or_default(),
            hub_id: choice.hub.as_ref().map(HubId::to_string).unwrap_or_default(),
            group_id: choice.group.as_ref().map(GroupId::to_string).unwrap_or_default(),
            status: status.into(),
            policy: choice.policy.map_or(v1::AppliedPolicy::Unspecified, wire_applied_policy).into(),
            pinned: choice.pinned,
        };
        let answer = self.registrations.clone().list_registrations(request).await?.into_inner();
        Page::of(&answer.registrations, answer.next_page_token, RegistrationRecord::try_from)
    }

    pub async fn registration(&self, id: &RegistrationId) -> Result<RegistrationRecord, ClientFault> {
        let request = v1::GetRegistrationRequest { registration_id: id.to_string() };
        registration(self.registrations.clone().get_registration(request).await?.into_inner().registration)
    }

    /// Newest first.
    pub async fn history(&self, id: &RegistrationId) -> Result<Vec<HistoryRecord>, ClientFault> {
        let request = v1::ListHistoryRequest { registration_id: id.to_string() };
        let answer = self.registrations.clone().list_history(request).await?.into_inner();
        Ok(answer.entries.iter().map(HistoryRecord::try_from).collect::<Result<_, _>>()?)
    }

    /// The device states that the history keeps of one move, oldest first.
    pub async fn history_twins(&self, id: &RegistrationId, generation: Order) -> Result<Vec<HistoryTwin>, ClientFault> {
        let request = v1::GetHistoryTwinsRequest { registration_id: id.to_string(), generation: generation.0 };
        let answer = self.registrations.clone().get_history_twins(request).await?.into_inner();
        Ok(answer.twins.iter().map(HistoryTwin::try_from).collect::<Result<_, _>>()?)
    }

    pub async fn explain(&self, id: &RegistrationId) -> Result<Explanation, ClientFault> {
        let request = v1::ExplainRequest { registration_id: id.to_string() };
        Ok(Explanation::try_from(&self.registrations.clone().explain(request).await?.into_inner())?)
    }

    /// The registration with the operation that was started.
    pub async fn reprovision(&self, call: &ReprovisionCall) -> Result<RegistrationRecord, ClientFault> {
        let request = v1::ReprovisionRequest::from(call);
        registration(self.registrations.clone().reprovision(request).await?.into_inner().registration)
    }

    /// The registration with the move that was started.
    pub async fn undo(&self, call: &UndoCall) -> Result<RegistrationRecord, ClientFault> {
        let request = v1::UndoMoveRequest::from(call);
        registration(self.registrations.clone().undo_move(request).await?.into_inner().registration)
    }

    pub async fn resolve(&self, call: &ResolveCall) -> Result<RegistrationRecord, ClientFault> {
        let request = v1::ResolveMoveRequest::from(call);
        registration(self.registrations.clone().resolve_move(request).await?.into_inner().registration)
    }

    pub async fn forget_late_twin(&self, id: &RegistrationId, generation: Order) -> Result<(), ClientFault> {
        let request = v1::ForgetLateTwinRequest { registration_id: id.to_string(), generation: generation.0 };
        self.registrations.clone().forget_late_twin(request).await?;
        Ok(())
    }

    pub async fn unpin(
        &self,
        id: &RegistrationId,
        version: Option<Version>,
    ) -> Result<RegistrationRecord, ClientFault> {
        let request = v1::UnpinRequest { registration_id: id.to_string(), etag: etag(version) };
        registration(self.registrations.clone().unpin(request).await?.into_inner().registration)
    }

    /// Has the storage root key forgotten that a device is held to.
    pub async fn reset_storage_root_key(
        &self,
        id: &RegistrationId,
        version: Option<Version>,
    ) -> Result<RegistrationRecord, ClientFault> {
        let request = v1::ResetStorageRootKeyRequest { registration_id: id.to_string(), etag: etag(version) };
        registration(self.registrations.clone().reset_storage_root_key(request).await?.into_inner().registration)
    }

    pub async fn revoke(&self, id: &RegistrationId, reason: &str) -> Result<Revoked, ClientFault> {
        let request = v1::RevokeRequest { registration_id: id.to_string(), reason: reason.to_owned() };
        let answer = self.registrations.clone().revoke(request).await?.into_inner();
        let leaving = answer.registration.as_ref().map(RegistrationRecord::try_from).transpose()?;
        Ok(Revoked { enrollment: enrollment_id("enrollment", answer.enrollment.as_ref())?, registration: leaving })
    }

    /// The registration on its way out; `None` when it was gone at once.
    pub async fn delete_registration(
        &self,
        id: &RegistrationId,
        version: Option<Version>,
    ) -> Result<Option<RegistrationRecord>, ClientFault> {
        let request = v1::DeleteRegistrationRequest { registration_id: id.to_string(), etag: etag(version) };
        let answer = self.registrations.clone().delete_registration(request).await?.into_inner();
        Ok(answer.registration.as_ref().map(RegistrationRecord::try_from).transpose()?)
    }
}

/// The audit log and the store.
impl Operator {
    /// Newest first.
    pub async fn list_audit(
        &self,
        action: Option<AuditAction>,
        registration: Option<&RegistrationId>,
        page: PageChoice,
    ) -> Result<Page<StoredAudit>, ClientFault> {
        let request = v1::ListAuditEntriesRequest {
            page_size: page.size,
            page_token: page.token.unwrap_or_default(),
            action: action.map(|action| action.as_str().to_owned()).unwrap_or_default(),
            registration_id: registration.map(RegistrationId::to_string).unwrap_or_default(),
        };
        let answer = self.audit.clone().list_audit_entries(request).await?.into_inner();
        Page::of(&answer.entries, answer.next_page_token, StoredAudit::try_from)
    }

    /// Why an unproven caller was refused.
    pub async fn audit_entry(&self, tracking: TrackingId) -> Result<StoredAudit, ClientFault> {
        let request = v1::GetAuditEntryRequest { tracking_id: tracking.to_string() };
        let answer = self.audit.clone().get_audit_entry(request).await?.into_inner();
        Ok(StoredAudit::try_from(&required("entry", answer.entry)?)?)
    }

    /// A consistent copy of the store, checked while it passes.
    pub async fn backup(&self) -> Result<Backup, ClientFault> {
        Ok(Backup::new(self.store.clone().backup(v1::BackupRequest {}).await?.into_inner()))
    }
}

/// Twins, as back ends see them.
impl Operator {
    pub async fn twin(&self, target: &TwinTarget) -> Result<DeviceRecord, ClientFault> {
        let (hub_id, device_id) = (target.hub.to_string(), target.device.to_string());
        let request = twins::TwinAdminServiceGetTwinRequest { hub_id, device_id };
        device(self.twins.clone().get_twin(request).await?.into_inner().device)
    }

    /// Merges into tags and desired properties; `version` is the twin version that must still hold.
    pub async fn update_twin(
        &self,
        target: &TwinTarget,
        patch: &TwinPatch,
        version: Option<Version>,
    ) -> Result<DeviceRecord, ClientFault> {
        let request = twins::UpdateTwinRequest {
            hub_id: target.hub.to_string(),
            device_id: target.device.to_string(),
            tags: patch.tags.as_ref().map(wire_document),
            desired: patch.desired.as_ref().map(wire_document),
            etag: etag(version),
        };
        device(self.twins.clone().update_twin(request).await?.into_inner().device)
    }

    /// Replaces tags and desired properties as far as they are given.
    pub async fn replace_twin(
        &self,
        target: &TwinTarget,
        tags: Option<&Document>,
        desired: Option<&Document>,
        version: Option<Version>,
    ) -> Result<DeviceRecord, ClientFault> {
        let request = twins::ReplaceTwinRequest {
            hub_id: target.hub.to_string(),
            device_id: target.device.to_string(),
            tags: tags.map(wire_document),
            desired: desired.map(wire_document),
            etag: etag(version),
        };
        device(self.twins.clone().replace_twin(request).await?.into_inner().device)
    }

    pub async fn list_twins(&self, hub: &HubId, page: PageChoice) -> Result<Page<DeviceRecord>, ClientFault> {
        let request = twins::ListTwinsRequest {
            hub_id: hub.to_string(),
            page_size: page.size,
            page_token: page.token.unwrap_or_default(),
        };
        let answer = self.twins.clone().list_twins(request).await?.into_inner();
        Page::of(&answer.devices, answer.next_page_token, DeviceRecord::try_from)
    }

    /// Lets the device in or keeps it out.
    pub async fn update_device_status(
        &self,
        target: &TwinTarget,
        status: &HubStatus,
        version: Option<Version>,
    ) -> Result<DeviceRecord, ClientFault> {
        let (status, reason) = match status {
            HubStatus::Enabled => (twins::DeviceStatus::Enabled, String::new()),
            HubStatus::Disabled { reason } => (twins::DeviceStatus::Disabled, reason.clone()),
        };
        let request = twins::UpdateDeviceStatusRequest {
            hub_id: target.hub.to_string(),
            device_id: target.device.to_string(),
            status: status.into(),
            reason,
            etag: etag(version),
        };
        device(self.twins.clone().update_device_status(request).await?.into_inner().device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_page_is_read_once_and_a_fault_ends_it() {
        let mut asked = Vec::new();
        let mut rows = Vec::new();
        let fetch = async |token: Option<String>| {
            asked.push(token.clone());
            Ok(match token.as_deref() {
                None => Page { rows: vec![1, 2], next: Some("a".to_owned()) },
                Some("a") => Page { rows: vec![], next: Some("b".to_owned()) },
                Some(_) => Page { rows: vec![3], next: None },
            })
        };
        every_row(fetch, |row| rows.push(row)).await.unwrap();
        assert_eq!(rows, [1, 2, 3]);
        assert_eq!(asked, [None, Some("a".to_owned()), Some("b".to_owned())]);

        let failing = async |_: Option<String>| Err::<Page<i32>, _>(ClientFault::NoHub);
        assert_eq!(every_row(failing, |_| ()).await, Err(ClientFault::NoHub));
    }
}
