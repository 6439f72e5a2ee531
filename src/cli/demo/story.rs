//! The story of the demo, chapter by chapter: what is done, and what is claimed about it.

use crate::client::tpm::{EkKind, SecurityModule as _, Tpm};
use crate::client::{
    ClientFault, DesiredChange, Device, DeviceRecord, Patience, RegistrationRecord, RegistrationUpdate,
    ReprovisionCall, TwinTarget, UpdateStatus,
};
use crate::domain::{
    AllocationPolicy, ApiVersion, AttestationDraft, ClientFacts, DataSource, Document, EnrollmentDraft, EnrollmentId,
    GroupId, HubId, InitialState, Reason, RegistrationId, ReprovisionPolicy, ResetOnSameHub, SrkDraft, SubStatus,
    TpmPublic, TwinPatch, UnreachableRule, limits,
};
use crate::pki::Authority;

use super::claims::Claims;
use super::world::{HUBS, World};

/// The last protocol version from before native reprovisioning (DESIGN 6a).
const OLD_API_VERSION: ApiVersion = ApiVersion { date: 20_180_401, preview: false };

pub async fn tell(world: &mut World, claims: &mut Claims) -> anyhow::Result<()> {
    let makers = world.authority("demo device authority")?;
    start(world, claims).await?;
    let pump = individual(world, claims, &makers).await?;
    let sensor = group(world, claims, &makers).await?;
    refusal(world, claims).await?;
    twins(world, claims, &pump).await?;
    nothing_new(world, claims, &pump).await?;
    migrate(world, claims, &pump).await?;
    never(world, claims, &pump).await?;
    sticky(world, claims, &pump).await?;
    reset(world, claims, &sensor).await?;
    quarantine(world, claims, &pump).await?;
    by_tpm(world, claims).await?;
    outage(world, claims, &pump).await?;
    restart(world, claims, &pump).await?;
    past(world, claims, &pump).await
}

/// The chapters that need `swtpm`, each with its device and the kind of its endorsement key.
pub const TPMS: [(&str, &str, EkKind); 3] = [
    ("TPM, RSA-2048", "valve-1", EkKind::Rsa2048),
    ("TPM, P-256", "valve-2", EkKind::EccP256),
    ("TPM, P-384", "valve-3", EkKind::EccP384),
];

/// A device of the story, its enrollment, and what it says when it registers.
struct Actor {
    id: RegistrationId,
    enrollment: EnrollmentId,
    device: Device,
}

impl Actor {
    async fn register(&self, facts: &ClientFacts) -> Result<RegistrationUpdate, ClientFault> {
        self.device.register(facts, Patience::Tries(3), |_| ()).await
    }
}

fn hub(id: &str) -> anyhow::Result<HubId> {
    Ok(HubId::parse(id)?)
}

fn document(text: &str) -> anyhow::Result<Document> {
    Ok(Document::from_text(text)?)
}

fn sub_status(update: &RegistrationUpdate) -> Option<SubStatus> {
    match update.status {
        UpdateStatus::Assigned { sub_status, .. } => Some(sub_status),
        UpdateStatus::Assigning | UpdateStatus::Failed { .. } | UpdateStatus::Disabled => None,
    }
}

fn home_of(update: &RegistrationUpdate) -> Option<String> {
    update.hub.as_ref().map(|hub| hub.id.to_string())
}

fn hub_of(registration: &RegistrationRecord) -> Option<String> {
    registration.assignment.as_ref().map(|home| home.hub.to_string())
}

/// The device as the hub has it that the service says is its home.
async fn at_home(world: &World, id: &RegistrationId) -> anyhow::Result<DeviceRecord> {
    let registration = world.settled(id).await?;
    let Some(home) = registration.assignment else { anyhow::bail!("{id} has no home") };
    Ok(world.operator.twin(&TwinTarget { hub: home.hub, device: registration.device_id }).await?)
}

/// The hubs that have a device; one move at a time, there must never be two.
async fn hubs_that_have(world: &World, id: &RegistrationId) -> anyhow::Result<Vec<&'static str>> {
    let device = world.operator.registration(id).await?.device_id;
    let mut have = Vec::new();
    for name in HUBS {
        match world.operator.twin(&TwinTarget { hub: hub(name)?, device: device.clone() }).await {
            Ok(_) => have.push(name),
            Err(fault) if is_refused(&fault, Reason::TwinNotFound) => {}
            Err(fault) => return Err(fault.into()),
        }
    }
    Ok(have)
}

fn is_refused(fault: &ClientFault, reason: Reason) -> bool {
    fault.remote().and_then(|remote| remote.known_reason()) == Some(reason)
}

fn draft(id: EnrollmentId, certificate: &[u8], hubs: &[&str]) -> anyhow::Result<EnrollmentDraft> {
    Ok(EnrollmentDraft {
        id,
        attestation: AttestationDraft::X509 { primary: certificate.to_vec(), secondary: None },
        enabled: true,
        device_id: None,
        initial: InitialState {
            tags: document(r#"{"site":"berlin"}"#)?,
            desired: document(r#"{"interval":60}"#)?,
            ..InitialState::default()
        },
        reprovision: Some(ReprovisionPolicy::Migrate),
        allocation: Some(AllocationPolicy::Hashed),
        hubs: hubs.iter().map(|id| hub(id)).collect::<anyhow::Result<_>>()?,
        unreachable: UnreachableRule::Wait { deadline: limits::UNREACHABLE_WAIT_DEFAULT },
        allow_late_writes: false,
        reset_on_same_hub: ResetOnSameHub::Always,
        reassign_when_down: false,
        adopt_existing: false,
    })
}

/// Changes an enrollment: its policy, and the one hub it leads to.
async fn send_to(world: &World, id: &EnrollmentId, policy: Option<ReprovisionPolicy>, to: &str) -> anyhow::Result<()> {
    let mut record = world.operator.enrollment(id).await?;
    record.draft.reprovision = policy;
    record.draft.hubs = vec![hub(to)?];
    world.operator.update_enrollment(&record.draft, record.version).await?;
    Ok(())
}

async fn start(world: &World, claims: &mut Claims) -> anyhow::Result<()> {
    claims.chapter("start");
    let hubs: Vec<String> = world.operator.list_hubs().await?.iter().map(|hub| hub.draft.id.to_string()).collect();
    claims.same("the service runs over TLS with two hubs and a quarantine", &hubs, &HUBS.map(str::to_owned).to_vec());
    Ok(())
}

async fn individual(world: &World, claims: &mut Claims, makers: &Authority) -> anyhow::Result<Actor> {
    claims.chapter("individual enrollment");
    let id = RegistrationId::parse("pump-1")?;
    let issued = world.issue(makers, &id)?;
    let leaf = issued.chain().first().map(|leaf| leaf.to_vec()).unwrap_or_default();
    let enrollment = EnrollmentId::Individual(id.clone());
    world.operator.create_enrollment(&draft(enrollment.clone(), &leaf, &["hub-a"])?).await?;
    let actor = Actor { device: world.device(&id, &issued).await?, id, enrollment };
    let update = actor.register(&ClientFacts::default()).await?;
    claims.same(
        "pump-1 proves itself with its certificate and is assigned to hub-a",
        &home_of(&update),
        &Some("hub-a".to_owned()),
    );
    claims.same(
        "it is told that this is its initial assignment",
        &sub_status(&update),
        &Some(SubStatus::InitialAssignment),
    );
    let twin = actor.device.home(&update).await?.twin().await?;
    claims.same(
        "its desired properties are those of the enrollment",
        &twin.desired.properties,
        &document(r#"{"interval":60}"#)?,
    );
    Ok(actor)
}

async fn group(world: &World, claims: &mut Claims, makers: &Authority) -> anyhow::Result<Actor> {
    claims.chapter("enrollment group");
    let enrollment = EnrollmentId::Group(GroupId::parse("sensors")?);
    let created = draft(enrollment.clone(), makers.certificate(), &["hub-a"])?;
    world.operator.create_enrollment(&created).await?;
    let id = RegistrationId::parse("sensor-1")?;
    let issued = world.issue(makers, &id)?;
    let actor = Actor { device: world.device(&id, &issued).await?, id, enrollment };
    let update = actor.register(&ClientFacts::default()).await?;
    let registration = world.settled(&actor.id).await?;
    claims.same(
        "sensor-1, never heard of, is let in since its authority is enrolled",
        &registration.enrollment,
        &actor.enrollment,
    );
    claims.same("it is assigned to the group's hub", &home_of(&update), &Some("hub-a".to_owned()));
    Ok(actor)
}

async fn refusal(world: &World, claims: &mut Claims) -> anyhow::Result<()> {
    claims.chapter("refusal");
    let id = RegistrationId::parse("stranger-1")?;
    let stranger = world.device(&id, &world.issue(&world.authority("unknown authority")?, &id)?).await?;
    let refused = stranger.register(&ClientFacts::default(), Patience::Tries(1), |_| ()).await.err();
    let remote = refused.as_ref().and_then(ClientFault::remote);
    let reason = remote.and_then(|remote| remote.known_reason());
    claims.same(
        "a device of an unknown authority is refused without being told why",
        &reason,
        &Some(Reason::RegistrationRefused),
    );
    let tracking = remote.and_then(|remote| remote.metadata.get("tracking_id")).and_then(|id| id.parse().ok());
    let Some(tracking) = tracking else {
        claims.so("the refusal carries a tracking id", false, &refused);
        return Ok(());
    };
    let why = world.operator.audit_entry(tracking).await?.entry.detail;
    claims.so(format!("the operator finds why by the tracking id: {why}"), !why.is_empty(), &why);
    Ok(())
}

async fn twins(world: &World, claims: &mut Claims, pump: &Actor) -> anyhow::Result<()> {
    claims.chapter("twins");
    let home = pump.device.home(&pump.device.look_up().await?).await?;
    let mut watch = home.watch().await?;
    let first = watch.next().await?;
    claims.so("a watch opens with the whole document", matches!(first, Some(DesiredChange::Whole { .. })), &first);
    home.report(&document(r#"{"firmware":"1.0","flow":{"litres":12}}"#)?).await?;
    let target = TwinTarget { hub: home.hub().clone(), device: world.operator.registration(&pump.id).await?.device_id };
    let patch = TwinPatch {
        tags: Some(document(r#"{"floor":3}"#)?),
        desired: Some(document(r#"{"interval":30}"#)?),
        reported: None,
    };
    let written = world.operator.update_twin(&target, &patch, None).await?;
    let seen = watch.next().await?;
    let expected =
        DesiredChange::Patch { patch: document(r#"{"interval":30}"#)?, version: written.state.twin.desired.version };
    claims.same("a back end's change reaches the device's stream as a patch", &seen, &Some(expected));
    let read = world.operator.twin(&target).await?.state.twin;
    claims.same(
        "the back end reads what the device reported",
        &read.reported.properties,
        &document(r#"{"firmware":"1.0","flow":{"litres":12}}"#)?,
    );
    claims.same("tags are merged, not replaced", &read.tags, &document(r#"{"floor":3,"site":"berlin"}"#)?);
    Ok(())
}

async fn nothing_new(world: &World, claims: &mut Claims, pump: &Actor) -> anyhow::Result<()> {
    claims.chapter("nothing new");
    let before = world.settled(&pump.id).await?;
    let update = pump.register(&ClientFacts::default()).await?;
    let after = world.settled(&pump.id).await?;
    claims.same(
        "registering again with nothing changed answers with the same operation",
        &update.operation_id,
        &before.operation.id,
    );
    claims.same("and writes nothing", &after, &before);
    Ok(())
}

async fn migrate(world: &World, claims: &mut Claims, pump: &Actor) -> anyhow::Result<()> {
    claims.chapter("migrate");
    let before = at_home(world, &pump.id).await?;
    send_to(world, &pump.enrollment, Some(ReprovisionPolicy::Migrate), "hub-b").await?;
    let update = pump.register(&ClientFacts::default()).await?;
    claims.same("the enrollment leads to hub-b now: pump-1 moves there", &home_of(&update), &Some("hub-b".to_owned()));
    claims.same("it is told that its data came along", &sub_status(&update), &Some(SubStatus::DeviceDataMigrated));
    let after = at_home(world, &pump.id).await?;
    claims.same("tags, desired and reported, versions and times arrived unchanged", &after.state, &before.state);
    claims.same("only hub-b has it", &hubs_that_have(world, &pump.id).await?, &vec!["hub-b"]);
    Ok(())
}

async fn never(world: &World, claims: &mut Claims, pump: &Actor) -> anyhow::Result<()> {
    claims.chapter("never");
    let before = at_home(world, &pump.id).await?;
    send_to(world, &pump.enrollment, Some(ReprovisionPolicy::Never), "hub-a").await?;
    world.operator.drain_hub(&hub("hub-b")?, None).await?;
    let explained = world.operator.explain(&pump.id).await?;
    claims.so(
        "hub-b is drained: explain says that only the policy holds pump-1 there",
        explained.held_by_policy,
        &explained,
    );
    let update = pump.register(&ClientFacts::default()).await?;
    claims.same("under never pump-1 stays at hub-b", &home_of(&update), &Some("hub-b".to_owned()));
    claims.same("its twin was not touched", &at_home(world, &pump.id).await?.state, &before.state);
    world.operator.activate_hub(&hub("hub-b")?, None).await?;
    Ok(())
}

async fn sticky(world: &World, claims: &mut Claims, pump: &Actor) -> anyhow::Result<()> {
    claims.chapter("sticky");
    let before = at_home(world, &pump.id).await?;
    send_to(world, &pump.enrollment, None, "hub-a").await?;
    let stored = world.operator.enrollment(&pump.enrollment).await?.draft.reprovision;
    claims.same("no policy is stored and read back as none", &stored, &None);
    let old = ClientFacts { api_version: Some(OLD_API_VERSION), ..ClientFacts::default() };
    let update = pump.register(&old).await?;
    claims.same("a device with an old API version stays where it is", &home_of(&update), &Some("hub-b".to_owned()));
    claims.same("its twin was not touched", &at_home(world, &pump.id).await?.state, &before.state);
    let update = pump.register(&ClientFacts::default()).await?;
    claims.same("the same device with newer software moves", &home_of(&update), &Some("hub-a".to_owned()));
    claims.same("with its twin", &at_home(world, &pump.id).await?.state, &before.state);
    Ok(())
}

async fn reset(world: &World, claims: &mut Claims, sensor: &Actor) -> anyhow::Result<()> {
    claims.chapter("reset");
    let home = sensor.device.home(&sensor.device.look_up().await?).await?;
    home.report(&document(r#"{"owner":"the first customer"}"#)?).await?;
    send_to(world, &sensor.enrollment, Some(ReprovisionPolicy::Reset), "hub-b").await?;
    let update = sensor.register(&ClientFacts::default()).await?;
    claims.same("a new customer's hub: sensor-1 moves to hub-b", &home_of(&update), &Some("hub-b".to_owned()));
    claims.same("it is told that its data was reset", &sub_status(&update), &Some(SubStatus::DeviceDataReset));
    let twin = at_home(world, &sensor.id).await?.state.twin;
    claims.same("reported is empty", &twin.reported.properties, &Document::default());
    claims.same(
        "tags and desired are the initial ones",
        &(twin.tags, twin.desired.properties),
        &(document(r#"{"site":"berlin"}"#)?, document(r#"{"interval":60}"#)?),
    );
    let past = world.operator.history(&sensor.id).await?;
    let moved = past.first().map(|entry| entry.generation).unwrap_or_default();
    let kept = world.operator.history_twins(&sensor.id, moved).await?;
    let kept: Vec<Document> = kept.into_iter().map(|twin| twin.device.state.twin.reported.properties).collect();
    claims.same(
        "the history keeps what the first customer left",
        &kept,
        &vec![document(r#"{"owner":"the first customer"}"#)?],
    );
    Ok(())
}

async fn quarantine(world: &World, claims: &mut Claims, pump: &Actor) -> anyhow::Result<()> {
    claims.chapter("quarantine and return");
    send_to(world, &pump.enrollment, Some(ReprovisionPolicy::Migrate), "hub-a").await?;
    let before = at_home(world, &pump.id).await?;
    let call = |to: Option<HubId>, reason: &str| ReprovisionCall {
        registration: pump.id.clone(),
        to,
        pin_expires_at: None,
        reason: reason.to_owned(),
        request_id: None,
    };
    world.operator.reprovision(&call(Some(hub("quarantine")?), "it floods its hub")).await?;
    let isolated = world.settled(&pump.id).await?;
    claims.same("the operator sends pump-1 to quarantine", &hub_of(&isolated), &Some("quarantine".to_owned()));
    claims.same("with its twin", &at_home(world, &pump.id).await?.state, &before.state);
    let update = pump.register(&ClientFacts::default()).await?;
    claims.same("its pin keeps it there when it registers again", &home_of(&update), &Some("quarantine".to_owned()));
    let home = pump.device.home(&update).await?;
    let target = TwinTarget { hub: hub("quarantine")?, device: isolated.device_id };
    let mended = TwinPatch { desired: Some(document(r#"{"interval":600}"#)?), ..TwinPatch::default() };
    world.operator.update_twin(&target, &mended, None).await?;
    home.report(&document(r#"{"firmware":"1.1"}"#)?).await?;
    let mended = at_home(world, &pump.id).await?;
    world.operator.unpin(&pump.id, None).await?;
    world.operator.reprovision(&call(None, "")).await?;
    let returned = world.settled(&pump.id).await?;
    claims.same("unpinned, it returns to hub-a", &hub_of(&returned), &Some("hub-a".to_owned()));
    let after = at_home(world, &pump.id).await?;
    claims.same("with what was mended in quarantine", &after.state, &mended.state);
    claims.same("only hub-a has it", &hubs_that_have(world, &pump.id).await?, &vec!["hub-a"]);
    Ok(())
}

async fn by_tpm(world: &World, claims: &mut Claims) -> anyhow::Result<()> {
    for (chapter, name, kind) in TPMS {
        let Some(simulator) = world.software_tpm(name)? else { return Ok(()) };
        claims.chapter(chapter);
        world.until("the TPM is up", async |_| Ok(simulator.is_up().then_some(()))).await?;
        let id = RegistrationId::parse(name)?;
        by_one_tpm(world, claims, &id, simulator.tpm(kind)).await?;
        let stranger = world.device_by_tpm(&RegistrationId::parse("valve-9")?, simulator.tpm(kind)).await?;
        let refused = stranger.register(&ClientFacts::default(), Patience::Tries(1), |_| ()).await.err();
        let is_refusal = refused.as_ref().is_some_and(|fault| is_refused(fault, Reason::RegistrationRefused));
        claims.so("the same TPM under another id is refused", is_refusal, &refused);
    }
    Ok(())
}

async fn by_one_tpm(world: &World, claims: &mut Claims, id: &RegistrationId, tpm: Tpm) -> anyhow::Result<()> {
    let endorsement_key = TpmPublic::parse(&tpm.keys().await?.endorsement_key)?;
    let attestation = AttestationDraft::Tpm { endorsement_key, storage_root_key: SrkDraft::Any, pcrs: None };
    let individual = draft(EnrollmentId::Individual(id.clone()), &[], &["hub-a"])?;
    let enrollment = world.operator.create_enrollment(&EnrollmentDraft { attestation, ..individual }).await?.draft.id;
    let valve = Actor { id: id.clone(), enrollment, device: world.device_by_tpm(id, tpm).await? };
    let update = valve.register(&ClientFacts::default()).await?;
    claims.same(format!("{id} proves itself by its TPM and gets a home"), &home_of(&update), &Some("hub-a".to_owned()));
    let old_home = valve.device.home(&update).await?;
    old_home.report(&document(r#"{"open":true}"#)?).await?;
    let before = at_home(world, &valve.id).await?;
    claims.same(
        "hub-a lets it in by a token that the TPM signed",
        &before.state.twin.reported.properties,
        &document(r#"{"open":true}"#)?,
    );
    send_to(world, &valve.enrollment, Some(ReprovisionPolicy::Migrate), "hub-b").await?;
    let update = valve.register(&ClientFacts::default()).await?;
    claims.same("it moves to hub-b", &home_of(&update), &Some("hub-b".to_owned()));
    claims.same("with its twin", &at_home(world, &valve.id).await?.state, &before.state);
    valve.device.home(&update).await?.report(&document(r#"{"open":false}"#)?).await?;
    let after = at_home(world, &valve.id).await?.state.twin.reported.properties;
    claims.same(
        "hub-b lets it in by the credential that came through the TPM",
        &after,
        &document(r#"{"open":false}"#)?,
    );
    let refused = old_home.twin().await.err();
    claims.so("hub-a does not any more", refused.is_some(), &refused);
    Ok(())
}

/// Takes the hub down at which a device lives, and starts to move it to another one.
async fn start_stalled_move(world: &World, pump: &Actor, from: &str, to: &str) -> anyhow::Result<RegistrationRecord> {
    world.operator.take_down_hub(&hub(from)?).await?;
    send_to(world, &pump.enrollment, Some(ReprovisionPolicy::Migrate), to).await?;
    let call = ReprovisionCall {
        registration: pump.id.clone(),
        to: None,
        pin_expires_at: None,
        reason: String::new(),
        request_id: None,
    };
    world.operator.reprovision(&call).await?;
    world
        .until("the move waits for the hub that is down", async |operator| {
            let registration = operator.registration(&pump.id).await?;
            let tried = registration.running.as_ref().is_some_and(|running| running.attempts > 0);
            Ok(tried.then_some(registration))
        })
        .await
}

async fn outage(world: &World, claims: &mut Claims, pump: &Actor) -> anyhow::Result<()> {
    claims.chapter("outage");
    let before = at_home(world, &pump.id).await?;
    let stalled = start_stalled_move(world, pump, "hub-a", "hub-b").await?;
    claims.same("hub-a is down: the move to hub-b waits for it", &stalled.operation.status, &UpdateStatus::Assigning);
    let step = stalled.running.map(|running| (running.step, running.hub.to_string()));
    claims.same("and says which step it waits for", &step, &Some(("seal".to_owned(), "hub-a".to_owned())));
    world.operator.bring_up_hub(&hub("hub-a")?).await?;
    let moved = world.settled(&pump.id).await?;
    claims.same("hub-a is up again: the move ends at hub-b", &hub_of(&moved), &Some("hub-b".to_owned()));
    claims.same(
        "with its twin, sealed at hub-a",
        &(at_home(world, &pump.id).await?.state, source(&moved)),
        &(before.state, Some(DataSource::Sealed)),
    );
    Ok(())
}

fn source(registration: &RegistrationRecord) -> Option<DataSource> {
    match &registration.operation.status {
        UpdateStatus::Assigned { data_source, .. } => *data_source,
        UpdateStatus::Assigning | UpdateStatus::Failed { .. } | UpdateStatus::Disabled => None,
    }
}

async fn restart(world: &mut World, claims: &mut Claims, pump: &Actor) -> anyhow::Result<()> {
    claims.chapter("restart");
    let before = at_home(world, &pump.id).await?;
    let stalled = start_stalled_move(world, pump, "hub-b", "hub-a").await?;
    world.restart().await?;
    let resumed = world.operator.registration(&pump.id).await?;
    claims.same(
        "the service was restarted in the middle of a move: it goes on",
        &resumed.operation.id,
        &stalled.operation.id,
    );
    claims.same("still assigning", &resumed.operation.status, &UpdateStatus::Assigning);
    world.operator.bring_up_hub(&hub("hub-b")?).await?;
    let moved = world.settled(&pump.id).await?;
    claims.same("and ends at hub-a", &hub_of(&moved), &Some("hub-a".to_owned()));
    claims.same("with its twin", &at_home(world, &pump.id).await?.state, &before.state);
    claims.same("only hub-a has it", &hubs_that_have(world, &pump.id).await?, &vec!["hub-a"]);
    let update = pump.register(&ClientFacts::default()).await?;
    claims.same(
        "the device registers with the restarted service as before",
        &home_of(&update),
        &Some("hub-a".to_owned()),
    );
    Ok(())
}

async fn past(world: &World, claims: &mut Claims, pump: &Actor) -> anyhow::Result<()> {
    claims.chapter("history");
    let past = world.operator.history(&pump.id).await?;
    let mut way: Vec<String> = past.iter().filter_map(|entry| entry.to.as_ref().map(ToString::to_string)).collect();
    way.reverse();
    let expected = ["hub-a", "hub-b", "hub-a", "quarantine", "hub-a", "hub-b", "hub-a"].map(str::to_owned).to_vec();
    claims.same("the history tells every move of pump-1", &way, &expected);
    Ok(())
}
