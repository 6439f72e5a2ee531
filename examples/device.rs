//! A device: registers, reports at its hub, and goes along whenever it is moved.

use std::sync::Arc;

use rehome::ambient::{SystemClock, SystemEntropy};
use rehome::client::{Device, DeviceEvent, Identity, Target};
use rehome::domain::{ClientFacts, Document, RegistrationId};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let target = Target {
        address: "https://127.0.0.1:7443".to_owned(),
        server_name: None,
        roots_pem: std::fs::read("certs/server-ca.pem")?,
        identity: Some(Identity::from_pem(std::fs::read("certs/meter-17.pem")?, std::fs::read("certs/meter-17.key")?)),
    };
    let id = RegistrationId::parse("meter-17")?;
    let device = Device::connect(id, target, Arc::new(SystemClock), Arc::new(SystemEntropy::new())).await?;

    // Registers first, and again whenever the hub says that the device has moved. An error is one that waiting won't mend.
    let mut life = device.follow(ClientFacts::default());
    loop {
        match life.next().await? {
            DeviceEvent::Home(update) => {
                println!("home is {}", update.hub.map_or_else(String::new, |hub| hub.id.to_string()));
                life.report(&Document::from_text(r#"{"firmware": "2.1"}"#)?).await?;
            }
            DeviceEvent::Desired(change) => println!("{change:?}"),
            DeviceEvent::Away { why } => println!("away: {why}"),
        }
    }
}
