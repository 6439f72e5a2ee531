//! What a device's actor does with each message: hands it to the core, which decides and commits.

use actix::{AtomicResponse, Context, Handler};

use super::super::messages::{
    Allocated, Describe, ForceOut, ForgetLateTwin, ForgetStorageRootKey, LeaseEnded, ReadAgain, Register, Release,
    Report, Reprovision, Settle, StepFinished, TakeBack, Unpin, Wake,
};
use super::{After, Asker, Core, DeviceActor, Request};

impl Handler<Register> for DeviceActor {
    type Result = AtomicResponse<Self, ()>;

    fn handle(&mut self, message: Register, _: &mut Context<Self>) -> Self::Result {
        let Register { verified, enrollment, facts, request_id, blob, reply } = message;
        let updates = self.updates.subscribe();
        let request = Request::of_device(verified, enrollment, facts, request_id).with_blob(blob);
        self.atomically(|core| core.register(request, Asker { reply, updates }))
    }
}

impl Handler<Reprovision> for DeviceActor {
    type Result = AtomicResponse<Self, ()>;

    fn handle(&mut self, message: Reprovision, _: &mut Context<Self>) -> Self::Result {
        let Reprovision { enrollment, to, by, request_id, reply } = message;
        let updates = self.updates.subscribe();
        self.atomically(|core| core.reprovision(enrollment, to, by, request_id, Asker { reply, updates }))
    }
}

impl Handler<Release> for DeviceActor {
    type Result = AtomicResponse<Self, ()>;

    fn handle(&mut self, Release { by, why, seen, reply }: Release, _: &mut Context<Self>) -> Self::Result {
        let updates = self.updates.subscribe();
        self.atomically(|core| core.release_as_seen(by, why, seen, Asker { reply, updates }))
    }
}

impl Handler<Unpin> for DeviceActor {
    type Result = AtomicResponse<Self, ()>;

    fn handle(&mut self, Unpin { by, reply }: Unpin, _: &mut Context<Self>) -> Self::Result {
        let updates = self.updates.subscribe();
        self.atomically(|core| core.unpin(by, Asker { reply, updates }))
    }
}

impl Handler<ForgetStorageRootKey> for DeviceActor {
    type Result = AtomicResponse<Self, ()>;

    fn handle(&mut self, message: ForgetStorageRootKey, _: &mut Context<Self>) -> Self::Result {
        let ForgetStorageRootKey { by, reply } = message;
        let updates = self.updates.subscribe();
        self.atomically(|core| core.forget_storage_root_key(by, Asker { reply, updates }))
    }
}

impl Handler<TakeBack> for DeviceActor {
    type Result = AtomicResponse<Self, ()>;

    fn handle(&mut self, TakeBack { enrollment, wish, reply }: TakeBack, _: &mut Context<Self>) -> Self::Result {
        let updates = self.updates.subscribe();
        self.atomically(|core| core.undo(enrollment, wish, Asker { reply, updates }))
    }
}

impl Handler<Settle> for DeviceActor {
    type Result = AtomicResponse<Self, ()>;

    fn handle(&mut self, Settle { wish, reply }: Settle, _: &mut Context<Self>) -> Self::Result {
        let updates = self.updates.subscribe();
        self.atomically(|core| core.resolve(wish, Asker { reply, updates }))
    }
}

impl Handler<ForceOut> for DeviceActor {
    type Result = AtomicResponse<Self, ()>;

    fn handle(&mut self, ForceOut { hub, by, why, reply }: ForceOut, _: &mut Context<Self>) -> Self::Result {
        let updates = self.updates.subscribe();
        self.atomically(|core| core.force_out(hub, by, why, Asker { reply, updates }))
    }
}

impl Handler<ForgetLateTwin> for DeviceActor {
    type Result = AtomicResponse<Self, ()>;

    fn handle(
        &mut self,
        ForgetLateTwin { generation, by, reply }: ForgetLateTwin,
        _: &mut Context<Self>,
    ) -> Self::Result {
        let updates = self.updates.subscribe();
        self.atomically(|core| core.forget_late_twin(generation, by, Asker { reply, updates }))
    }
}

impl Handler<LeaseEnded> for DeviceActor {
    type Result = AtomicResponse<Self, ()>;

    fn handle(&mut self, LeaseEnded { generation, ended }: LeaseEnded, _: &mut Context<Self>) -> Self::Result {
        self.atomically(|core| core.lease_ended(generation, ended))
    }
}

impl Handler<Describe> for DeviceActor {
    type Result = AtomicResponse<Self, ()>;

    fn handle(&mut self, Describe { reply }: Describe, _: &mut Context<Self>) -> Self::Result {
        let updates = self.updates.subscribe();
        self.atomically(|core| async move {
            let report = Report { standing: core.standing(), tries: core.tries(), updates };
            // Whoever asked may have given up.
            let _ = reply.send(report);
            (core, Default::default())
        })
    }
}

impl Handler<Allocated> for DeviceActor {
    type Result = AtomicResponse<Self, ()>;

    fn handle(&mut self, Allocated { outcome }: Allocated, _: &mut Context<Self>) -> Self::Result {
        self.atomically(|core| core.allocated(outcome))
    }
}

impl Handler<StepFinished> for DeviceActor {
    type Result = AtomicResponse<Self, ()>;

    fn handle(&mut self, StepFinished { key, outcome }: StepFinished, _: &mut Context<Self>) -> Self::Result {
        // What is owed to a hub is done after its operation has ended.
        let generation = key.generation;
        let about = move |core: &Core| core.machine.open_move(generation).map(|open| open.intent.operation);
        self.atomically_about(about, |core| core.finished(key, outcome))
    }
}

impl Handler<ReadAgain> for DeviceActor {
    type Result = AtomicResponse<Self, ()>;

    fn handle(&mut self, _: ReadAgain, _: &mut Context<Self>) -> Self::Result {
        self.atomically(|core| async move { (core, After::stop()) })
    }
}

impl Handler<Wake> for DeviceActor {
    type Result = AtomicResponse<Self, ()>;

    fn handle(&mut self, _: Wake, _: &mut Context<Self>) -> Self::Result {
        // A nudge is not a use: it must not keep an idle device awake.
        let used_at = self.used_at;
        self.wakes_at = None;
        let response = self.atomically(|core| core.woken());
        self.used_at = used_at;
        response
    }
}
