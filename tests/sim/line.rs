//! The way to a hub for whoever goes through it, reads its feed or renews its lease: each call takes a turn, so that
//! anything may happen before it arrives, and none arrives while the way is cut.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use rehome::domain::{CallFault, CallOutcome, DeviceId, FeedToken, HubCall, Incarnation, Order};
use rehome::hubs::scripted::ScriptedHub;
use rehome::hubs::{
    Abilities, ChangePage, HubConnector, HubReport, LeaseRenewal, LeaseTicket, Reinstatement, Sighting, TwinHost,
};

/// Lets others go first, once.
pub async fn take_turns() {
    let mut waited = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut waited, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// See the module's documentation.
#[derive(Debug, Clone)]
pub struct Line {
    pub scripted: ScriptedHub,
    pub cut: Arc<AtomicBool>,
}

impl Line {
    async fn pass(&self) -> Result<(), CallFault> {
        take_turns().await;
        match self.cut.load(Ordering::Relaxed) {
            true => Err(CallFault::Unavailable("no way to it".to_owned())),
            false => Ok(()),
        }
    }
}

impl HubConnector for Line {
    fn abilities(&self) -> Abilities {
        self.scripted.abilities()
    }

    fn describe(&self) -> BoxFuture<'_, Result<HubReport, CallFault>> {
        async {
            self.pass().await?;
            self.scripted.describe().await
        }
        .boxed()
    }

    fn obey<'a>(&'a self, incarnation: Option<Incarnation>, call: &'a HubCall) -> BoxFuture<'a, CallOutcome> {
        async move {
            self.pass().await?;
            self.scripted.obey(incarnation, call).await
        }
        .boxed()
    }

    fn read<'a>(&'a self, device: &'a DeviceId) -> BoxFuture<'a, Result<Option<Sighting>, CallFault>> {
        async move {
            self.pass().await?;
            self.scripted.read(device).await
        }
        .boxed()
    }

    fn changes(&self, since: Option<FeedToken>, max: u32) -> BoxFuture<'_, Result<ChangePage, CallFault>> {
        async move {
            self.pass().await?;
            self.scripted.changes(since, max).await
        }
        .boxed()
    }

    fn renew_lease<'a>(&'a self, renewal: &'a LeaseRenewal) -> BoxFuture<'a, Result<LeaseTicket, CallFault>> {
        async move {
            self.pass().await?;
            self.scripted.renew_lease(renewal).await
        }
        .boxed()
    }

    fn reinstate<'a>(&'a self, device: &'a Reinstatement) -> BoxFuture<'a, Result<(), CallFault>> {
        async move {
            self.pass().await?;
            self.scripted.reinstate(device).await
        }
        .boxed()
    }

    fn readmit(&self, incarnation: Incarnation, session: Order) -> BoxFuture<'_, Result<(), CallFault>> {
        async move {
            self.pass().await?;
            self.scripted.readmit(incarnation, session).await
        }
        .boxed()
    }

    fn twins(&self) -> Option<Arc<dyn TwinHost>> {
        self.scripted.twins()
    }
}
