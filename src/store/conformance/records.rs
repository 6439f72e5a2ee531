//! Every shape of record, so that one that forgets a field is found.

use super::*;

pub async fn records_come_back(store: Arc<dyn Store>) {
    let (a, b) = (hub_id("a"), hub_id("b"));
    let webhook = WebhookPolicy { url: "https://x/?code=1".to_owned(), api_version: "1".to_owned() };
    let allocations = [
        AllocationPolicy::Static,
        AllocationPolicy::Hashed,
        AllocationPolicy::LowestLatency,
        AllocationPolicy::Custom(webhook),
    ];
    let resets = [ResetOnSameHub::Always, ResetOnSameHub::WhenEnrollmentChanged, ResetOnSameHub::Off];
    for (number, allocation) in (0..).zip(allocations) {
        let id = EnrollmentId::Individual(reg_id(&format!("E-{number}")));
        let made = Enrollment {
            device_id: DeviceId::parse("Dev$1").ok(),
            enabled: false,
            reprovision: [None, Some(ReprovisionPolicy::Reset), Some(ReprovisionPolicy::Never)]
                [usize::from(number) % 3],
            allocation: Some(allocation),
            hubs: vec![b.clone(), a.clone()],
            unreachable: [UnreachableRule::Reset, UnreachableRule::LastKnown][usize::from(number) % 2],
            allow_late_writes: true,
            reset_on_same_hub: resets[usize::from(number) % 3],
            reassign_when_down: true,
            adopt_existing: true,
            updated_at: Timestamp(-5),
            ..enrollment(id.clone(), number)
        };
        commit(&store, [put_enrollment(made.clone())]).await.unwrap();
        let found = store.load_enrollment(&id).await.unwrap().unwrap();
        assert_eq!(*found, Enrollment { version: Version(1), ..made });
    }
    for (id, state) in [("a", HubState::Draining), ("b", HubState::Retired)] {
        let made = Hub {
            state,
            location: None,
            capacity: None,
            calls_per_second: Some(5),
            taken_down: true,
            incarnation: Some(Incarnation(7)),
            ..hub(id)
        };
        commit(&store, [put_hub(made.clone())]).await.unwrap();
        assert_eq!(store.load_hub(&made.id).await.unwrap(), Some(Hub { version: Version(1), ..made }));
    }
    let assigned = |sub_status, data_source| OperationStatus::Assigned { sub_status, data_source };
    for (number, status) in [
        OperationStatus::Assigning,
        OperationStatus::Disabled,
        failed(),
        assigned(SubStatus::DeviceDataMigrated, None),
        assigned(SubStatus::DeviceDataReset, Some(DataSource::Initial)),
        assigned(SubStatus::ReprovisionedToInitialAssignment, Some(DataSource::Sealed)),
    ]
    .into_iter()
    .enumerate()
    {
        let mut made = registration(&format!("R-{number}"), Some("a"));
        made.operation = Operation { status, request_id: None, ..made.operation };
        made.assignment = made.assignment.map(|assignment| Assignment { credential: None, ..assignment });
        made.pin = Some(Pin { expires_at: None, ..pin("b") });
        made.payload = None;
        commit(&store, [put_registration(made.clone())]).await.unwrap();
        let found = store.load_device(&made.id).await.unwrap().registration;
        assert_eq!(found, Some(Registration { version: Version(1), ..made }));
    }
    let plans = [
        assign_to("a"),
        Plan::Relocate { from: a.clone(), to: b.clone(), carry: Carry::Initial },
        Plan::Replant { from: a.clone(), to: b.clone(), source: Order(3) },
        Plan::TakeOver { to: a.clone(), adopt: true },
        Plan::Rehouse { from: a.clone(), to: b.clone() },
        Plan::ResetInPlace { at: a.clone(), credential: true },
        Plan::Refresh { at: a.clone() },
        Plan::Release { from: None },
    ];
    let state = || Some(Box::new(device_state()));
    let refusal = |refusal| JournalRecord::Stuck { effect: Effect::Unseal, hub: a.clone(), refusal };
    for (number, plan) in plans.into_iter().enumerate() {
        let id = reg_id(&format!("M-{number}"));
        let made = crate::moves::Intent {
            request_id: RequestId::parse("q").ok(),
            payload: Some("{}".to_owned()),
            pin: Some(pin("a")),
            planted: state(),
            policy: Some(ReprovisionPolicy::Reset),
            unreachable: UnreachableRule::Wait { deadline: std::time::Duration::from_nanos(1_000_000_001) },
            ..intent(&id, plan)
        };
        let first = JournalRecord::Intent(Box::new(made));
        let begin =
            Change::Journal { registration: id.clone(), generation: None, at: Timestamp(-1), record: first.clone() };
        let generation = commit(&store, [begin]).await.unwrap();
        let mut written = vec![first];
        for record in [
            JournalRecord::StepDone { effect: Effect::Create, state: None },
            JournalRecord::StepDone { effect: Effect::Seal, state: state() },
            JournalRecord::StepDone { effect: Effect::Withhold, state: None },
            JournalRecord::StepDone { effect: Effect::UpdateCredential, state: None },
            JournalRecord::Pivoted { data_source: None },
            aborted(),
            JournalRecord::Aborted { reason: Reason::Internal, message: String::new(), spare_current: true },
            JournalRecord::Collected { hub: b.clone(), state: state() },
            JournalRecord::Settled { effect: Effect::ReplaceTwin, hub: a.clone(), state: state() },
            settled(Effect::Activate, &b),
            settled(Effect::Collect, &a),
            refusal(HubRefusal::Stale { highest: Order(7) }),
            refusal(HubRefusal::Occupied),
            refusal(HubRefusal::NotStaged),
            refusal(HubRefusal::NoSuchDevice),
            refusal(HubRefusal::WrongIncarnation { current: Incarnation(u128::MAX) }),
            refusal(HubRefusal::Full),
            refusal(HubRefusal::StateInvalid("x".to_owned())),
            refusal(HubRefusal::OrderReused),
            dropped(Effect::Delete, &a),
        ] {
            commit(&store, [line(id.as_str(), generation, record.clone())]).await.unwrap();
            written.push(record);
        }
        let log = store.load_move(generation).await.unwrap().unwrap();
        assert_eq!(log.lines.into_iter().map(|line| line.record).collect::<Vec<_>>(), written);
    }
}
