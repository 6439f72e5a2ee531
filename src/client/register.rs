//! One registration, from the question to *assigned*: by stream, by polling where the stream breaks, again where it failed.

use std::time::Duration;

use tonic::{Code, Request};

use super::device::Device;
use super::fault::ClientFault;
use super::proof::Proof;
use super::retry::{NextStep, Patience, next_step, pause};
use super::{RegistrationUpdate, UpdateStatus};
use crate::domain::{ClientFacts, OperationId, Reason, RequestId};
use crate::wire::RemoteFault;
use crate::wire::convert::field::required;
use crate::wire::convert::registration::RegisterCall;
use crate::wire::device::v1;

/// Between two polls when the service does not say, and at most.
const POLL_DEFAULT: Duration = Duration::from_secs(2);
const POLL_MAX: Duration = Duration::from_secs(60);
/// New proofs in a row for one that the service does not know any more: it was started again, or its enrollment changes.
const FRESH_PROOFS_MAX: u32 = 5;
/// However short the service's hint, no busy loop.
const POLL_MIN: Duration = Duration::from_millis(100);

pub(super) async fn register(
    device: &Device,
    facts: &ClientFacts,
    patience: Patience,
    mut told: impl FnMut(&RegistrationUpdate) + Send,
) -> Result<RegistrationUpdate, ClientFault> {
    let mut request_id = draw_request_id(device)?;
    let mut proof = None;
    let (mut tries, mut fresh_proofs) = (0_u32, 0_u32);
    loop {
        let call = RegisterCall {
            registration_id: device.id.clone(),
            facts: facts.clone(),
            request_id: Some(request_id.clone()),
            tpm: None,
        };
        tries = tries.saturating_add(1);
        let mut was_let_in = proof.is_some();
        let mut tell = |update: &RegistrationUpdate| {
            was_let_in = true;
            told(update);
        };
        let fault = match attempt(device, &call, &mut proof, &mut tell).await.and_then(judge) {
            Ok(update) => return Ok(update),
            Err(fault) => fault,
        };
        if device.prover.is_some() && is_outdated(&fault, was_let_in) && fresh_proofs < FRESH_PROOFS_MAX {
            // With a new proof the call joins what runs, or is answered as before.
            proof = None;
            if fresh_proofs > 0 {
                device.clock.sleep(pause(fresh_proofs, None, device.draw())).await;
            }
            fresh_proofs += 1;
            continue;
        }
        fresh_proofs = 0;
        let hint = match next_step(&fault) {
            NextStep::Again { hint } | NextStep::RegisterAgain { hint } if patience.allows_more(tries) => hint,
            NextStep::Again { .. } | NextStep::RegisterAgain { .. } | NextStep::GiveUp => return Err(fault),
        };
        if matches!(fault, ClientFault::NotAssigned { .. }) {
            // That operation is over: under the same id it would only be told again.
            request_id = draw_request_id(device)?;
            proof = None;
        }
        device.clock.sleep(pause(tries, hint, device.draw())).await;
    }
}

/// Whether it is the proof that is no good any more, and not the device: its challenge ran out, was forgotten when the
/// service started again, or was overtaken by a change of the enrollment; or its operation was followed by another one. A
/// device that was let in before is not told so in as many words.
fn is_outdated(fault: &ClientFault, was_let_in: bool) -> bool {
    match fault.remote().and_then(RemoteFault::known_reason) {
        Some(Reason::TpmChallengeOutdated) => true,
        Some(Reason::RegistrationRefused | Reason::OperationNotFound) => was_let_in,
        Some(_) | None => false,
    }
}

/// One try, with the proof that the device has or a new one.
async fn attempt(
    device: &Device,
    call: &RegisterCall,
    proof: &mut Option<Proof>,
    told: &mut (impl FnMut(&RegistrationUpdate) + Send),
) -> Result<RegistrationUpdate, ClientFault> {
    if let (Some(prover), None) = (&device.prover, &proof) {
        *proof = Some(prover.prove(device).await?);
    }
    once(device, call, proof.as_ref(), told).await
}

fn draw_request_id(device: &Device) -> Result<RequestId, ClientFault> {
    let text = format!("{:032x}", device.entropy.draw_u128());
    RequestId::parse(&text).map_err(|fault| crate::wire::WireFault::new("request_id", fault).into())
}

/// A final update, judged: anything but *assigned* is a fault.
fn judge(update: RegistrationUpdate) -> Result<RegistrationUpdate, ClientFault> {
    match update.status {
        UpdateStatus::Assigned { .. } => Ok(update),
        UpdateStatus::Assigning | UpdateStatus::Failed { .. } | UpdateStatus::Disabled => {
            Err(ClientFault::NotAssigned { status: update.status, retry_after: update.retry_after })
        }
    }
}

/// How to go on when a stream has ended, cleanly or not, with what was last told.
#[derive(Debug, PartialEq)]
enum Afterwards {
    Done(Box<RegistrationUpdate>),
    /// Ask for the operation that is known to run.
    Poll(Box<RegistrationUpdate>),
    /// The service has no stream: ask by the polling pair from the start.
    StartPolling,
    Fail(ClientFault),
}

fn afterwards(last: Option<RegistrationUpdate>, fault: Option<ClientFault>) -> Afterwards {
    match (last, fault) {
        (Some(last), _) if last.status.is_final() => Afterwards::Done(Box::new(last)),
        (Some(last), None) => Afterwards::Poll(Box::new(last)),
        (Some(last), Some(fault)) => match next_step(&fault) {
            NextStep::Again { .. } => Afterwards::Poll(Box::new(last)),
            NextStep::RegisterAgain { .. } | NextStep::GiveUp => Afterwards::Fail(fault),
        },
        (None, Some(fault)) if is_unimplemented(&fault) => Afterwards::StartPolling,
        (None, Some(fault)) => Afterwards::Fail(fault),
        (None, None) => Afterwards::StartPolling,
    }
}

fn is_unimplemented(fault: &ClientFault) -> bool {
    fault.remote().is_some_and(|remote| remote.code == Code::Unimplemented)
}

/// One try: the final update of one operation.
async fn once(
    device: &Device,
    call: &RegisterCall,
    proof: Option<&Proof>,
    told: &mut (impl FnMut(&RegistrationUpdate) + Send),
) -> Result<RegistrationUpdate, ClientFault> {
    let mut last = None;
    let fault = stream(device, call, proof, told, &mut last).await.err();
    match afterwards(last, fault) {
        Afterwards::Done(update) => Ok(*update),
        Afterwards::Poll(update) => poll(device, *update, told).await,
        Afterwards::StartPolling => {
            let request = v1::StartRegistrationRequest::from(v1::RegisterRequest::from(call));
            let request = proof.map_or_else(|| Request::new(request.clone()), |proof| proof.start(request.clone()));
            let answer = device.service.clone().start_registration(request).await?.into_inner();
            let update = take(device, answer.update).await?;
            told(&update);
            poll(device, update, told).await
        }
        Afterwards::Fail(fault) => Err(fault),
    }
}

/// Follows the stream to its end; `last` holds what was told last, however it ended.
async fn stream(
    device: &Device,
    call: &RegisterCall,
    proof: Option<&Proof>,
    told: &mut (impl FnMut(&RegistrationUpdate) + Send),
    last: &mut Option<RegistrationUpdate>,
) -> Result<(), ClientFault> {
    let request = v1::RegisterRequest::from(call);
    let request = proof.map_or_else(|| Request::new(request.clone()), |proof| proof.register(request.clone()));
    let mut updates = device.service.clone().register(request).await?.into_inner();
    while let Some(message) = updates.message().await? {
        let update = take(device, message.update).await?;
        told(&update);
        let is_final = update.status.is_final();
        *last = Some(update);
        if is_final {
            break;
        }
    }
    Ok(())
}

/// Asks until the operation is over.
async fn poll(
    device: &Device,
    mut update: RegistrationUpdate,
    told: &mut (impl FnMut(&RegistrationUpdate) + Send),
) -> Result<RegistrationUpdate, ClientFault> {
    while !update.status.is_final() {
        device.clock.sleep(poll_pause(update.retry_after)).await;
        let next = ask(device, update.operation_id).await?;
        if next != update {
            told(&next);
        }
        update = next;
    }
    Ok(update)
}

async fn ask(device: &Device, operation_id: OperationId) -> Result<RegistrationUpdate, ClientFault> {
    let request =
        v1::GetOperationRequest { registration_id: device.id.to_string(), operation_id: operation_id.to_string() };
    let answer = device.service.clone().get_operation(device.reading(request)?).await?.into_inner();
    take(device, answer.update).await
}

/// Reads an update. A credential that comes with it is in the TPM before anybody hears of the assignment.
async fn take(device: &Device, update: Option<v1::RegistrationUpdate>) -> Result<RegistrationUpdate, ClientFault> {
    let mut message = required("update", update)?;
    let credential = message.tpm.take();
    let update = RegistrationUpdate::try_from(message)?;
    if let (Some(prover), Some(credential)) = (&device.prover, credential) {
        prover.keep(credential).await?;
    }
    Ok(update)
}

fn poll_pause(hint: Option<Duration>) -> Duration {
    hint.unwrap_or(POLL_DEFAULT).clamp(POLL_MIN, POLL_MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::{Arc, Mutex};

    use futures_util::future::BoxFuture;
    use hyper_util::rt::TokioIo;
    use tonic::{Response, Status};

    use super::*;
    use crate::ambient::{Clock, SeededEntropy};
    use crate::client::Target;
    use crate::client::proof::Prover;
    use crate::client::tpm::{ChipFault, Quote, QuoteOrder, SecurityModule, TpmKeys};
    use crate::domain::{DeviceId, Fault, RegistrationId, SubStatus, Timestamp};
    use crate::wire::device::v1::registration_service_client::RegistrationServiceClient;
    use crate::wire::device::v1::registration_service_server::{RegistrationService, RegistrationServiceServer};

    fn update(status: UpdateStatus) -> RegistrationUpdate {
        RegistrationUpdate {
            registration_id: RegistrationId::parse("dev").unwrap(),
            operation_id: OperationId(1),
            status,
            device_id: DeviceId::parse("dev").unwrap(),
            hub: None,
            generation: 0,
            payload: None,
            retry_after: Some(Duration::from_secs(1)),
            tpm: None,
            created_at: Timestamp(0),
            updated_at: Timestamp(0),
        }
    }

    fn assigned() -> UpdateStatus {
        UpdateStatus::Assigned { sub_status: SubStatus::InitialAssignment, data_source: None }
    }

    #[test]
    fn a_stream_that_ends_early_is_followed_by_polling() {
        let (running, done) = (update(UpdateStatus::Assigning), update(assigned()));
        let broken = || Some(ClientFault::from(Status::unavailable("gone")));
        let refused = || ClientFault::from(Status::from(Fault::new(Reason::RegistrationRefused, "no")));
        let poll = |update: &RegistrationUpdate| Afterwards::Poll(Box::new(update.clone()));
        for (last, fault, expected) in [
            (Some(done.clone()), None, Afterwards::Done(Box::new(done.clone()))),
            (Some(done.clone()), broken(), Afterwards::Done(Box::new(done))),
            (Some(running.clone()), None, poll(&running)),
            (Some(running.clone()), broken(), poll(&running)),
            (Some(running), Some(refused()), Afterwards::Fail(refused())),
            (None, Some(refused()), Afterwards::Fail(refused())),
            (None, Some(Status::unimplemented("x").into()), Afterwards::StartPolling),
            (None, None, Afterwards::StartPolling),
        ] {
            assert_eq!(afterwards(last, fault), expected);
        }
        assert!(matches!(afterwards(None, broken()), Afterwards::Fail(_)));
    }

    #[test]
    fn only_assigned_is_a_success() {
        assert!(judge(update(assigned())).is_ok());
        let failed = UpdateStatus::Failed { reason: "NO_HUB_AVAILABLE".to_owned(), message: "none is left".to_owned() };
        let fault = judge(update(failed)).unwrap_err();
        assert_eq!(fault.to_string(), "the registration ended as failed: none is left (NO_HUB_AVAILABLE)");
        assert!(judge(update(UpdateStatus::Disabled)).is_err());
    }

    #[test]
    fn polls_keep_a_distance() {
        for (hint, expected) in [(None, 2_000), (Some(0), 100), (Some(700), 700), (Some(1_000_000), 60_000)] {
            assert_eq!(poll_pause(hint.map(Duration::from_millis)), Duration::from_millis(expected));
        }
    }

    /// What the scripted service does with the next call, in order.
    #[derive(Debug)]
    enum Answer {
        /// A stream of these updates, then an error or a clean end.
        Stream(Vec<RegistrationUpdate>, Option<Status>),
        Refuse(Status),
        Start(RegistrationUpdate),
        Operation(RegistrationUpdate),
    }

    /// A registration service that follows a script and keeps what it was asked.
    #[derive(Debug, Clone, Default)]
    struct Scripted {
        script: Arc<Mutex<VecDeque<Answer>>>,
        /// The method and, where there is one, the request id.
        asked: Arc<Mutex<Vec<(&'static str, String)>>>,
    }

    impl Scripted {
        fn next(&self, method: &'static str, request_id: &str) -> Answer {
            self.asked.lock().unwrap().push((method, request_id.to_owned()));
            let answer = self.script.lock().unwrap().pop_front();
            answer.unwrap_or_else(|| {
                Answer::Refuse(Status::failed_precondition(format!("{method} is not in the script")))
            })
        }

        fn one(&self, method: &'static str, request_id: &str) -> Result<Option<v1::RegistrationUpdate>, Status> {
            match self.next(method, request_id) {
                Answer::Start(update) | Answer::Operation(update) => Ok(Some((&update).into())),
                Answer::Refuse(status) => Err(status),
                Answer::Stream(..) => Err(Status::failed_precondition("the script has a stream here")),
            }
        }
    }

    #[tonic::async_trait]
    impl RegistrationService for Scripted {
        type RegisterStream = futures_util::stream::Iter<std::vec::IntoIter<Result<v1::RegisterResponse, Status>>>;

        async fn register(
            &self,
            request: Request<v1::RegisterRequest>,
        ) -> Result<Response<Self::RegisterStream>, Status> {
            match self.next("register", &request.into_inner().request_id) {
                Answer::Stream(updates, end) => {
                    let updates = updates.iter().map(|update| Ok(v1::RegisterResponse { update: Some(update.into()) }));
                    let parts: Vec<_> = updates.chain(end.map(Err)).collect();
                    Ok(Response::new(futures_util::stream::iter(parts)))
                }
                Answer::Refuse(status) => Err(status),
                Answer::Start(_) | Answer::Operation(_) => Err(Status::failed_precondition("no stream here")),
            }
        }

        async fn begin_tpm_attestation(
            &self,
            _request: Request<v1::BeginTpmAttestationRequest>,
        ) -> Result<Response<v1::BeginTpmAttestationResponse>, Status> {
            self.asked.lock().unwrap().push(("begin", String::new()));
            Ok(Response::new(v1::BeginTpmAttestationResponse {
                challenge_id: "c".to_owned(),
                key_name: "registration".to_owned(),
                expires_at: Some(prost_types::Timestamp { seconds: 120, nanos: 0 }),
                ..v1::BeginTpmAttestationResponse::default()
            }))
        }

        async fn start_registration(
            &self,
            request: Request<v1::StartRegistrationRequest>,
        ) -> Result<Response<v1::StartRegistrationResponse>, Status> {
            let update = self.one("start", &request.into_inner().request_id)?;
            Ok(Response::new(v1::StartRegistrationResponse { update }))
        }

        async fn get_operation(
            &self,
            _: Request<v1::GetOperationRequest>,
        ) -> Result<Response<v1::GetOperationResponse>, Status> {
            Ok(Response::new(v1::GetOperationResponse { update: self.one("operation", "")? }))
        }

        async fn look_up_registration(
            &self,
            _: Request<v1::LookUpRegistrationRequest>,
        ) -> Result<Response<v1::LookUpRegistrationResponse>, Status> {
            Ok(Response::new(v1::LookUpRegistrationResponse { update: self.one("look up", "")? }))
        }
    }

    /// A TPM that does whatever it is asked to.
    #[derive(Debug)]
    struct Willing;

    impl SecurityModule for Willing {
        fn keys(&self) -> BoxFuture<'_, Result<TpmKeys, ChipFault>> {
            let keys = TpmKeys { endorsement_key: vec![1], storage_root_key: vec![2], certificates: Vec::new() };
            Box::pin(async { Ok(keys) })
        }

        fn attestation_key(&self) -> BoxFuture<'_, Result<Vec<u8>, ChipFault>> {
            Box::pin(async { Ok(vec![3]) })
        }

        fn sign_with(&self, _: Vec<u8>, _: Vec<u8>) -> BoxFuture<'_, Result<Vec<u8>, ChipFault>> {
            Box::pin(async { Ok(vec![4; 32]) })
        }

        fn quote(&self, _: QuoteOrder) -> BoxFuture<'_, Result<Quote, ChipFault>> {
            Box::pin(async { Err(ChipFault::Answer { why: "nobody asks for a quote here" }) })
        }

        fn keep(&self, _: Vec<u8>) -> BoxFuture<'_, Result<(), ChipFault>> {
            Box::pin(async { Ok(()) })
        }

        fn sign(&self, _: Vec<u8>) -> BoxFuture<'_, Result<Vec<u8>, ChipFault>> {
            Box::pin(async { Ok(vec![5; 32]) })
        }
    }

    /// A clock on which every wait is over at once and is written down.
    #[derive(Debug, Default)]
    struct Waits(Mutex<Vec<Duration>>);

    impl Clock for Waits {
        fn monotonic(&self) -> Duration {
            Duration::ZERO
        }

        fn now(&self) -> Timestamp {
            Timestamp(0)
        }

        fn sleep_until(&self, at: Timestamp) -> BoxFuture<'static, ()> {
            self.0.lock().unwrap().push(at.since(Timestamp(0)));
            Box::pin(std::future::ready(()))
        }
    }

    struct Outcome {
        result: Result<RegistrationUpdate, ClientFault>,
        told: Vec<&'static str>,
        asked: Vec<(&'static str, String)>,
        waits: Vec<Duration>,
    }

    impl Outcome {
        fn methods(&self) -> Vec<&'static str> {
            self.asked.iter().map(|(method, _)| *method).collect()
        }
    }

    /// Registers against a script, over HTTP/2 in memory.
    async fn play(script: Vec<Answer>, patience: Patience) -> Outcome {
        play_as(None, script, patience).await
    }

    /// As above, by a device with a TPM.
    async fn play_by_tpm(script: Vec<Answer>) -> Outcome {
        play_as(Some(Prover::by_tpm(Arc::new(Willing))), script, Patience::Tries(1)).await
    }

    async fn play_as(prover: Option<Prover>, script: Vec<Answer>, patience: Patience) -> Outcome {
        let scripted = Scripted { script: Arc::new(Mutex::new(script.into())), ..Scripted::default() };
        let (near, far) = tokio::io::duplex(64 * 1024);
        let server = RegistrationServiceServer::new(scripted.clone());
        let connections = futures_util::stream::iter([Ok::<_, std::io::Error>(far)]);
        let serving = tokio::spawn(tonic::transport::Server::builder().serve_with_incoming(server, connections));
        let mut near = Some(TokioIo::new(near));
        let connector = tower::service_fn(move |_| {
            let near = near.take().ok_or(std::io::ErrorKind::NotConnected);
            async move { near.map_err(std::io::Error::from) }
        });
        let channel = tonic::transport::Endpoint::from_static("http://in.memory")
            .connect_with_connector(connector)
            .await
            .unwrap();
        let waits = Arc::new(Waits::default());
        let device = Device {
            id: RegistrationId::parse("dev").unwrap(),
            target: Target {
                address: "https://in.memory".to_owned(),
                server_name: None,
                roots_pem: Vec::new(),
                identity: None,
            },
            service: RegistrationServiceClient::new(channel),
            clock: waits.clone(),
            entropy: Arc::new(SeededEntropy::new(7)),
            prover,
        };
        let mut told = Vec::new();
        let facts = ClientFacts::default();
        let result = device.register(&facts, patience, |update| told.push(update.status.as_str())).await;
        serving.abort();
        let asked = std::mem::take(&mut *scripted.asked.lock().unwrap());
        let waits = std::mem::take(&mut *waits.0.lock().unwrap());
        Outcome { result, told, asked, waits }
    }

    fn running() -> RegistrationUpdate {
        update(UpdateStatus::Assigning)
    }

    fn refusal(reason: Reason) -> Status {
        Fault::new(reason, "x").into()
    }

    #[tokio::test]
    async fn a_stream_is_followed_to_its_end() {
        let script = vec![Answer::Stream(vec![running(), update(assigned())], None)];
        let outcome = play(script, Patience::Forever).await;
        assert_eq!(outcome.result, Ok(update(assigned())));
        assert_eq!((outcome.told, outcome.waits), (vec!["assigning", "assigned"], vec![]));
    }

    #[tokio::test]
    async fn a_broken_stream_is_followed_by_polling_the_same_operation() {
        let script = vec![
            Answer::Stream(vec![running()], Some(Status::unavailable("cut off"))),
            Answer::Operation(running()),
            Answer::Operation(update(assigned())),
        ];
        let outcome = play(script, Patience::Tries(1)).await;
        assert_eq!(outcome.methods(), ["register", "operation", "operation"]);
        assert_eq!(outcome.result, Ok(update(assigned())));
        assert_eq!(outcome.told, ["assigning", "assigned"]);
        assert_eq!(outcome.waits, [Duration::from_secs(1); 2]);
    }

    #[tokio::test]
    async fn a_service_without_streams_is_polled() {
        let script = vec![
            Answer::Refuse(Status::unimplemented("no streams")),
            Answer::Start(running()),
            Answer::Operation(update(assigned())),
        ];
        let outcome = play(script, Patience::Tries(1)).await;
        assert_eq!(outcome.methods(), ["register", "start", "operation"]);
        assert!(outcome.result.is_ok());
        assert_eq!(outcome.asked[0].1, outcome.asked[1].1);
    }

    #[tokio::test]
    async fn a_hint_is_honoured_and_the_request_id_kept() {
        let busy = Fault::new(Reason::Overloaded, "x").retry_after(Duration::from_secs(3));
        let script = vec![Answer::Refuse(busy.into()), Answer::Stream(vec![update(assigned())], None)];
        let outcome = play(script, Patience::Forever).await;
        assert!(outcome.result.is_ok());
        assert!(outcome.waits.len() == 1 && outcome.waits[0] >= Duration::from_secs(3), "{:?}", outcome.waits);
        assert_eq!(outcome.asked[0], outcome.asked[1]);
        assert!(!outcome.asked[0].1.is_empty());
    }

    #[tokio::test]
    async fn a_failed_operation_is_tried_again_under_a_new_request_id() {
        let failed = UpdateStatus::Failed { reason: "ALLOCATION_FAILED".to_owned(), message: "x".to_owned() };
        let script = vec![Answer::Stream(vec![update(failed)], None), Answer::Stream(vec![update(assigned())], None)];
        let outcome = play(script, Patience::Forever).await;
        assert!(outcome.result.is_ok());
        assert_ne!(outcome.asked[0].1, outcome.asked[1].1);
    }

    #[tokio::test]
    async fn a_refusal_that_stays_is_told_at_once() {
        let outcome = play(vec![Answer::Refuse(refusal(Reason::RegistrationRefused))], Patience::Forever).await;
        let reason = outcome.result.unwrap_err().remote().and_then(RemoteFault::known_reason);
        assert_eq!(reason, Some(Reason::RegistrationRefused));
        assert_eq!((outcome.asked.len(), outcome.waits.len()), (1, 0));
    }

    #[tokio::test]
    async fn a_challenge_that_the_service_has_forgotten_is_asked_for_anew() {
        let outdated = || Answer::Refuse(refusal(Reason::TpmChallengeOutdated));
        let outcome = play_by_tpm(vec![outdated(), outdated(), Answer::Stream(vec![update(assigned())], None)]).await;
        assert!(outcome.result.is_ok());
        assert_eq!(outcome.methods(), ["begin", "register", "begin", "register", "begin", "register"]);
        assert_eq!(outcome.asked[1], outcome.asked[5], "it is the same request");
        assert_eq!(outcome.waits.len(), 1, "the first time at once, then with pauses");

        let outcome = play_by_tpm((0..10).map(|_| outdated()).collect()).await;
        assert!(outcome.result.is_err(), "not for ever");
    }

    #[tokio::test]
    async fn a_token_that_is_refused_after_it_was_good_is_made_anew() {
        let broken = || Some(Status::unavailable("started again"));
        for reason in [Reason::RegistrationRefused, Reason::OperationNotFound] {
            let script = vec![
                Answer::Stream(vec![running()], broken()),
                Answer::Refuse(refusal(reason)),
                Answer::Stream(vec![running(), update(assigned())], None),
            ];
            let outcome = play_by_tpm(script).await;
            assert!(outcome.result.is_ok(), "{reason}");
            assert_eq!(outcome.methods(), ["begin", "register", "operation", "begin", "register"], "{reason}");
        }
        let outcome = play_by_tpm(vec![Answer::Refuse(refusal(Reason::RegistrationRefused))]).await;
        assert!(outcome.result.is_err(), "whoever was never let in is not");
        assert_eq!(outcome.methods(), ["begin", "register"]);
    }

    #[tokio::test]
    async fn patience_ends_with_the_last_refusal() {
        let busy = || Answer::Refuse(refusal(Reason::RateLimited));
        let outcome = play(vec![busy(), busy(), busy()], Patience::Tries(2)).await;
        assert!(outcome.result.is_err_and(|fault| fault.may_pass()));
        assert_eq!((outcome.asked.len(), outcome.waits.len()), (2, 1));
    }
}
