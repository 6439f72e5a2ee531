//! Values that the tests of this room share.

use std::time::Duration;

use crate::domain::{
    AllocationPolicy, Attestation, Capabilities, CertificateRef, Document, Enrollment, EnrollmentId, HubId,
    InitialState, ResetOnSameHub, Thumbprint, Timestamp, UnreachableRule, Version, WebhookPolicy, X509Leaves,
};

use super::{AllocationQuestion, HubHost};

/// A question about the new device dev-1, with hub-a and hub-b to choose from.
pub fn question(url: &str) -> AllocationQuestion {
    let webhook = WebhookPolicy { url: url.to_owned(), api_version: "2021-10-01".to_owned() };
    let leaf =
        CertificateRef { der: b"certificate".to_vec(), thumbprint: Thumbprint([1; 32]), subject: Thumbprint([2; 32]) };
    let offered =
        ["hub-a", "hub-b"].map(|id| HubHost { hub: HubId::parse(id).unwrap(), host_name: format!("{id}.example.net") });
    AllocationQuestion {
        enrollment: Enrollment {
            id: EnrollmentId::Individual("dev-1".parse().unwrap()),
            attestation: Attestation::X509Leaf(X509Leaves { primary: leaf, secondary: None }),
            enabled: true,
            device_id: None,
            initial: InitialState {
                tags: Document::default(),
                desired: Document::from_text(r#"{"rate":5}"#).unwrap(),
                capabilities: Capabilities::default(),
            },
            reprovision: None,
            allocation: Some(AllocationPolicy::Custom(webhook.clone())),
            hubs: vec![HubId::parse("hub-a").unwrap()],
            unreachable: UnreachableRule::Wait { deadline: Duration::from_secs(900) },
            allow_late_writes: false,
            reset_on_same_hub: ResetOnSameHub::Always,
            reassign_when_down: false,
            adopt_existing: false,
            created_at: Timestamp(0),
            updated_at: Timestamp(0),
            version: Version(3),
        },
        webhook,
        enrollment_host_names: vec!["hub-a.example.net".to_owned()],
        registration_id: "dev-1".parse().unwrap(),
        current: None,
        certificate: None,
        payload: None,
        offered: offered.to_vec(),
    }
}
