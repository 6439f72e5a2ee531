//! What everybody shares: where the service is, how the calls go, and who is at what.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;

use rehome::client::ClientFault;
use rehome::domain::Reason;
use tokio::sync::watch;

use super::{DEVICES, name};
use crate::world::{DEADLINE, Site, registration_id};

/// What everybody shares.
pub struct Stage {
    /// Where the service listens in its current life, and which life that is.
    pub lives: watch::Receiver<Life>,
    pub pace: watch::Sender<Pace>,
    /// Who is at what, for the case that nothing goes on.
    pub doing: Mutex<BTreeMap<String, &'static str>>,
    pub kills: u64,
    pub moves: AtomicU64,
    pub undone: AtomicU64,
    pub resolved: AtomicU64,
    pub resets: [AtomicU64; DEVICES],
    pub refreshes: AtomicU64,
    pub outages: AtomicU64,
    /// The highest versions that were acknowledged.
    pub acknowledged: [Acknowledged; DEVICES],
}

/// What everybody waits by.
#[derive(Debug, Default)]
pub struct Pace {
    /// Calls that the service answered, be it with a refusal. While a hub is down every device may be in a move that waits for
    /// it, and then nothing but refusals is left to be counted.
    pub calls: u64,
    /// Devices that have left a hub which did not answer.
    pub passed: u64,
    pub over: bool,
}

/// The highest versions of a device that its two sides were told.
#[derive(Debug, Default)]
pub struct Acknowledged {
    pub reported: AtomicU64,
    pub tags: AtomicU64,
}

#[derive(Clone)]
pub struct Life {
    pub number: u64,
    pub site: Site,
}

impl Stage {
    pub fn note_call(&self) {
        self.pace.send_modify(|pace| pace.calls += 1);
    }

    pub fn is_over(&self) -> bool {
        self.pace.borrow().over
    }

    /// Counted in calls, so that what waits comes in the midst of them and not after some time. Sooner when all is over.
    pub async fn calls_go_by(&self, count: u64) {
        let mut pace = self.pace.subscribe();
        let until = pace.borrow().calls + count;
        pace.wait_for(|pace| pace.calls >= until || pace.over).await.expect("the stage has the sender");
    }

    pub fn does(&self, who: &str, what: &'static str) {
        self.doing.lock().unwrap().insert(who.to_owned(), what);
    }

    /// Waits for something that the test cannot go on without; where it does not come, everything that is known is said.
    pub async fn in_time<T>(&self, what: &str, awaited: impl Future<Output = T>) -> T {
        if let Ok(came) = tokio::time::timeout(DEADLINE, awaited).await {
            return came;
        }
        let Life { number, site } = self.lives.borrow().clone();
        let fleet = match tokio::time::timeout(DEADLINE, fleet(&site)).await {
            Ok(Ok(lines)) => lines,
            Ok(Err(fault)) => format!("the service: {fault}"),
            Err(_) => "the service does not answer".to_owned(),
        };
        let (calls, doing) = (self.pace.borrow().calls, self.doing.lock().unwrap());
        panic!("no {what} within {DEADLINE:?}, in life {number}, after {calls} calls:\n{doing:#?}\n{fleet}");
    }

    /// Where to go on after a failure: a service that answered is there, one that did not comes again. `None` at the end.
    pub async fn after(&self, who: &str, fault: &ClientFault, life: &Life) -> Option<Life> {
        if answered(fault) {
            self.note_call();
            return Some(life.clone());
        }
        self.does(who, "waits for the next life");
        let mut lives = self.lives.clone();
        lives.wait_for(|next| next.number > life.number).await.ok().map(|next| next.clone())
    }
}

/// Hubs and devices as an operator sees them, a line each.
async fn fleet(site: &Site) -> Result<String, ClientFault> {
    let operator = site.connect_operator().await?;
    let mut lines = Vec::new();
    for hub in operator.list_hubs().await? {
        lines.push(format!("{}: {hub:?}", hub.draft.id));
    }
    for number in 0..DEVICES {
        let record = operator.registration(&registration_id(&name(number))).await?;
        let home = record.assignment.map(|assignment| assignment.hub);
        let (status, running, owed) = (record.operation.status, record.running, record.obligations);
        lines.push(format!("{}: at {home:?}, {status:?}, {running:?}, owes {owed:?}", name(number)));
    }
    Ok(lines.join("\n"))
}

/// Whether it was the service that said no, and not the connection.
fn answered(fault: &ClientFault) -> bool {
    if matches!(fault, ClientFault::NotAssigned { .. }) {
        return true;
    }
    let reason = fault.remote().and_then(|remote| remote.known_reason());
    assert_ne!(reason, Some(Reason::Internal), "{fault}");
    reason.is_some()
}
