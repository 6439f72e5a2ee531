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

pub async fn what_tpms_prove_comes_back(store: Arc<dyn Store>) {
    let pcrs = |mode| {
        let (zero, seven) = (PcrIndex::new(0).unwrap(), PcrIndex::new(23).unwrap());
        let allowed = [(zero, vec![PcrValue([1; 32])]), (seven, vec![PcrValue([2; 32]), PcrValue([3; 32])])];
        Some(PcrPolicy::new(mode, allowed.into()).unwrap())
    };
    let rules = [
        TpmRules::default(),
        TpmRules { storage_root_key: SrkRule::PinFirst, pcrs: pcrs(PcrMode::Audit) },
        TpmRules { storage_root_key: SrkRule::Pinned(tpm_name(4)), pcrs: pcrs(PcrMode::Enforce) },
    ];
    for (number, rules) in (0_u8..).zip(rules) {
        let (device, group) =
            (EnrollmentId::Individual(reg_id(&format!("d{number}"))), group_id(&format!("g{number}")));
        let model = TpmModel::parse("swtpm").ok();
        let makes = vec![TpmMake { manufacturer: TpmManufacturer(*b"INTC"), model }];
        let anchors =
            X509Anchors { primary: certificate(number * 2 + 1, 1), secondary: Some(certificate(number * 2 + 2, 2)) };
        let fleet = TpmFleet { anchors, makes, usage_may_be_absent: number == 1, rules: rules.clone() };
        let attestation = Attestation::Tpm(TpmDevice { rules, ..tpm_device(100 + number) });
        for made in [
            Enrollment { attestation, ..enrollment(device, 0) },
            Enrollment { attestation: Attestation::TpmFleet(fleet), ..enrollment(group, 0) },
        ] {
            commit(&store, [put_enrollment(made.clone())]).await.unwrap();
            let found = store.load_enrollment(&made.id).await.unwrap().unwrap();
            assert_eq!(*found, Enrollment { version: Version(1), ..made });
        }
    }

    for srk in [None, Some(tpm_name(1))] {
        let tpm = Some(TpmDelivery { ek: EkHash([7; 32]), srk, blob: vec![9; 800].into() });
        let credential = Credential::Delivered(DeliveredKeys::kept(vec![sealed_key(2), sealed_key(1)]));
        let id = format!("T{}", tpm.as_ref().and_then(|tpm| tpm.srk.as_ref()).map_or(0, |_| 1));
        let mut made = Registration { tpm: tpm.clone(), ..registration(&id, Some("a")) };
        made.assignment = made.assignment.map(|it| Assignment { credential: Some(credential.clone()), ..it });
        commit(&store, [put_registration(made.clone())]).await.unwrap();
        let found = store.load_device(&made.id).await.unwrap().registration.unwrap();
        assert_eq!(found.tpm, tpm);
        let Some(Credential::Delivered(keys)) = found.assignment.unwrap().credential else { panic!("other keys") };
        // Keys are the same by their fingerprints: what is kept must be whole, too.
        let kept: Vec<&[u8]> = keys.newest_first().iter().map(SealedKey::sealed).collect();
        assert_eq!(kept, [sealed_key(2).sealed(), sealed_key(1).sealed()]);

        let made = crate::moves::Intent { tpm, credential, ..intent(&reg_id(&format!("I{id}")), assign_to("a")) };
        let record = JournalRecord::Intent(Box::new(made.clone()));
        let begin =
            Change::Journal { registration: made.registration, generation: None, at: NOW, record: record.clone() };
        let generation = commit(&store, [begin]).await.unwrap();
        let log = store.load_move(generation).await.unwrap().unwrap();
        assert_eq!(log.lines[0].record, record);
    }
}

pub async fn symmetric_keys_come_back(store: Arc<dyn Store>) {
    // Keys are the same by their fingerprints: what is kept must be whole, too.
    let whole = |keys: &KeyPair<SealedKey>| keys.both().map(|key| key.sealed().to_vec());
    let keys = KeyPair { primary: sealed_key(1), secondary: sealed_key(2) };
    let own = EnrollmentId::Individual(reg_id("own"));
    for made in [
        Enrollment { attestation: Attestation::SymmetricKey(keys.clone()), ..enrollment(own, 0) },
        key_group(group_id("g"), [1, 2], 0),
    ] {
        commit(&store, [put_enrollment(made.clone())]).await.unwrap();
        let found = store.load_enrollment(&made.id).await.unwrap().unwrap();
        assert_eq!(*found, Enrollment { version: Version(1), ..made });
        assert_eq!(whole(found.attestation.keys().unwrap()), whole(&keys));
    }
    let credential = Credential::Shared(keys.clone());
    let mut made = registration("own", Some("a"));
    made.assignment = made.assignment.map(|it| Assignment { credential: Some(credential.clone()), ..it });
    commit(&store, [put_registration(made.clone())]).await.unwrap();
    let found = store.load_device(&made.id).await.unwrap().registration.unwrap();
    let Some(Credential::Shared(found)) = found.assignment.unwrap().credential else { panic!("other keys") };
    assert_eq!(whole(&found), whole(&keys));

    let made = crate::moves::Intent { credential, ..intent(&reg_id("moved"), assign_to("a")) };
    let record = JournalRecord::Intent(Box::new(made.clone()));
    let begin = Change::Journal { registration: made.registration, generation: None, at: NOW, record: record.clone() };
    let generation = commit(&store, [begin]).await.unwrap();
    assert_eq!(store.load_move(generation).await.unwrap().unwrap().lines[0].record, record);
}
