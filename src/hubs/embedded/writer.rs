//! The writer of a hub: the one thread on which calls and twin writes meet, so that no write slips past a seal.
//!
//! A group of jobs is one transaction. Each job sees what those before it did; all are answered after the commit. When
//! the commit fails nobody knows what is on the disk, and the hub is broken until it is opened again.

use std::sync::Arc;

use redb::{Database, ReadableTable, ReadableTableMetadata, Table, WriteTransaction};
use tokio::sync::oneshot;

use super::Life;
use super::gate::Gate;
use super::records::{
    DepartedRow, ResidentRow, RowFault, decode, decode_resident, decode_state, encode, encode_resident, encode_state,
};
use super::tables::{self, Marks};
use crate::ambient::{Clock, FileSize};
use crate::domain::{
    CallFault, CallOutcome, Credential, DeviceId, Document, HubCall, HubEffect, HubRefusal, Incarnation, Order,
    Timestamp,
};
use crate::hubs::entry::{self, Entry, Outcome};
use crate::hubs::twins::{self, Presence, Written};
use crate::hubs::watch::{Notice, Watchers};
use crate::hubs::{Reinstated, Reinstatement, Resident, TwinCaller, TwinRefusal, TwinWrite};

/// Work for the writer and whom to tell.
pub enum Job {
    Call(CallJob),
    Twin(Box<TwinJob>),
    Reinstate(Box<ReinstateJob>),
    Readmit(ReadmitJob),
}

pub struct CallJob {
    pub incarnation: Option<Incarnation>,
    pub call: HubCall,
    pub asker: Asker<CallOutcome>,
}

pub struct TwinJob {
    pub device: DeviceId,
    pub ask: TwinAsk,
    pub asker: Asker<Result<Resident, TwinRefusal>>,
}

pub enum TwinAsk {
    Report {
        caller: TwinCaller,
        patch: Document,
    },
    Write {
        version: Option<u64>,
        write: TwinWrite,
    },
    /// The device has come in with a key that ends older ones.
    Use {
        caller: TwinCaller,
    },
}

/// One device of a restored hub is set right.
pub struct ReinstateJob {
    pub device: Reinstatement,
    pub asker: Asker<Result<(), CallFault>>,
}

/// A restored hub may take writes again.
pub struct ReadmitJob {
    pub incarnation: Incarnation,
    pub session: Order,
    pub asker: Asker<Result<(), CallFault>>,
}

/// Who waits for an answer, and the answer once it is known but not yet durable.
pub struct Asker<T> {
    to: oneshot::Sender<T>,
    answer: Option<T>,
}

/// Everything a group of jobs needs.
pub struct Writer {
    pub database: Arc<Database>,
    pub clock: Arc<dyn Clock>,
    pub watchers: Arc<Watchers>,
    pub gate: Arc<Gate>,
    pub life: Arc<Life>,
    /// The highest session that went through the hub's devices. Kept in memory: whoever sent a lower one lived in this
    /// very process and went with it.
    pub session: Order,
    pub marks: Marks,
    /// Devices it takes; `None` is no bound.
    pub devices_max: Option<u64>,
    pub synced: SyncObserver,
    /// Of the file: a large one is to be opened quickly after a kill.
    pub size: FileSize,
}

/// Is told of every group that was made durable.
pub type SyncObserver = Arc<dyn Fn() + Send + Sync>;

/// Why a transaction came to nothing.
#[derive(Debug, thiserror::Error)]
enum WriteFault {
    #[error(transparent)]
    Database(Box<redb::Error>),
    #[error(transparent)]
    Row(#[from] DeviceRowFault),
}

#[derive(Debug, thiserror::Error)]
#[error("the row of {device} is not understood: {fault}")]
struct DeviceRowFault {
    device: DeviceId,
    fault: RowFault,
}

/// How a group ended that was not made durable.
enum Failure {
    NotWritten(String),
    Unknown(String),
}

/// What watchers are told after the commit.
type Notices = Vec<(DeviceId, Notice)>;

impl<T> Asker<T> {
    pub fn new() -> (Self, oneshot::Receiver<T>) {
        let (to, answer) = oneshot::channel();
        (Self { to, answer: None }, answer)
    }

    fn tell(self, otherwise: impl FnOnce() -> T) {
        // Whoever has left does not need the answer.
        let _ = self.to.send(self.answer.unwrap_or_else(otherwise));
    }
}

impl Writer {
    /// Makes a group durable and answers everyone in it.
    pub fn write(&mut self, mut jobs: Vec<Job>) {
        let written = match self.gate.check() {
            Ok(()) => self.attempt(&mut jobs),
            Err(why) => Err(Failure::NotWritten(why)),
        };
        match written {
            Ok(notices) => {
                for (device, notice) in notices {
                    self.watchers.publish(&device, &notice);
                }
                jobs.into_iter().for_each(Job::answer);
            }
            Err(failure) => jobs.into_iter().for_each(|job| job.fail(&failure)),
        }
    }

    fn attempt(&mut self, jobs: &mut [Job]) -> Result<Notices, Failure> {
        let begun = self.database.begin_write();
        let mut transaction = begun.map_err(|fault| Failure::NotWritten(fault.to_string()))?;
        transaction.set_quick_repair(self.size.is_large());
        let now = self.clock.now();
        let Settled { changed, marks, readmitted, session, notices } =
            self.settle_all(&transaction, jobs, now).map_err(|fault| {
                self.break_down(&fault);
                Failure::NotWritten(fault.to_string())
            })?;
        if changed {
            transaction.commit().map_err(|fault| {
                self.break_down(&fault);
                Failure::Unknown(fault.to_string())
            })?;
            (self.synced)();
        }
        (self.marks, self.session) = (marks, session);
        self.life.advance(readmitted, marks);
        Ok(notices)
    }

    fn break_down(&self, why: &dyn std::error::Error) {
        tracing::error!(why = %why, "a hub takes no more writes until it is opened again");
        self.gate.break_down(why.to_string());
        self.watchers.end_all();
    }

    fn settle_all(
        &self,
        transaction: &WriteTransaction,
        jobs: &mut [Job],
        now: Timestamp,
    ) -> Result<Settled, Box<redb::Error>> {
        let mut rows = Rows::open(transaction, self.marks).map_err(Box::new)?;
        let life = self.life.identity();
        let (mut restored, mut session) = (life.restored, self.session);
        let mut notices = Vec::new();
        for job in jobs {
            match job {
                Job::Call(job) if restored => {
                    let refusal = HubRefusal::WrongIncarnation { current: life.incarnation };
                    job.asker.answer = Some(Err(CallFault::Refused(refusal)));
                }
                Job::Call(job) => {
                    let (answer, notice) = match self.obey(&mut rows, job, life.incarnation, now) {
                        Ok(done) => done,
                        // Found before anything was changed, and nobody else's trouble.
                        Err(WriteFault::Row(why)) => (Err(CallFault::Unavailable(why.to_string())), None),
                        Err(WriteFault::Database(fault)) => return Err(fault),
                    };
                    job.asker.answer = Some(answer);
                    notices.extend(notice.map(|notice| (job.call.device.clone(), notice)));
                }
                Job::Twin(job) if restored => job.asker.answer = Some(Err(TwinRefusal::Moving)),
                Job::Twin(job) => {
                    let (answer, notice) = match write_twin(&mut rows, job, now) {
                        Ok(done) => done,
                        Err(WriteFault::Row(why)) => {
                            tracing::error!(%why, "a device's row is not understood");
                            (Err(TwinRefusal::Unavailable), None)
                        }
                        Err(WriteFault::Database(fault)) => return Err(fault),
                    };
                    job.asker.answer = Some(answer);
                    notices.extend(notice.map(|notice| (job.device.clone(), notice)));
                }
                Job::Reinstate(job) if !restored => {
                    let refusal = HubRefusal::WrongIncarnation { current: life.incarnation };
                    job.asker.answer = Some(Err(CallFault::Refused(refusal)));
                }
                Job::Reinstate(job) => {
                    let Reinstatement { incarnation, session: asked, device, becomes } = &job.device;
                    let answer = match enter(&mut session, *asked, *incarnation, life.incarnation) {
                        Ok(()) => match reinstate(&mut rows, device, becomes) {
                            Ok(answer) => answer.map_err(CallFault::Refused),
                            Err(WriteFault::Row(why)) => Err(CallFault::Unavailable(why.to_string())),
                            Err(WriteFault::Database(fault)) => return Err(fault),
                        },
                        Err(refusal) => Err(CallFault::Refused(refusal)),
                    };
                    job.asker.answer = Some(answer);
                }
                Job::Readmit(job) => {
                    let entered = enter(&mut session, job.session, job.incarnation, life.incarnation);
                    if entered.is_ok() && restored {
                        tables::unmark_restored(transaction).map_err(Box::new)?;
                        rows.changed = true;
                        restored = false;
                    }
                    job.asker.answer = Some(entered.map_err(CallFault::Refused));
                }
            }
        }
        let (changed, marks) = (rows.changed, rows.marks);
        drop(rows);
        if marks != self.marks {
            tables::write_marks(transaction, marks).map_err(Box::new)?;
        }
        Ok(Settled { changed, marks, readmitted: life.restored && !restored, session, notices })
    }

    fn obey(
        &self,
        rows: &mut Rows<'_>,
        job: &CallJob,
        current: Incarnation,
        now: Timestamp,
    ) -> Result<(CallOutcome, Option<Notice>), WriteFault> {
        let refused = |refusal| Ok((Err(CallFault::Refused(refusal)), None));
        if job.incarnation.is_some_and(|known| known != current) {
            return refused(HubRefusal::WrongIncarnation { current });
        }
        let call = &job.call;
        let Found { entry, row } = rows.entry(&call.device)?;
        if self.is_full_for(rows, entry.as_ref(), call)? {
            return refused(HubRefusal::Full);
        }
        let verdict = entry::obey(entry.as_ref(), call, now);
        let notice = twins::notice_of(verdict.change, verdict.entry.as_ref());
        if let Some(next) = &verdict.entry {
            rows.keep(&call.device, entry.as_ref(), row, next)?;
        }
        Ok((verdict.answer.map_err(CallFault::Refused), notice))
    }

    /// A bound of this hub, not of the device: it is not remembered as the answer of the order, so that the same call
    /// may succeed when there is room.
    fn is_full_for(&self, rows: &Rows<'_>, entry: Option<&Entry>, call: &HubCall) -> Result<bool, WriteFault> {
        let (HubEffect::Create(_), Some(devices_max)) = (&call.effect, self.devices_max) else { return Ok(false) };
        let arrives = entry.is_none_or(|entry| entry.tenant.is_none() && call.order > entry.highest);
        Ok(arrives && rows.residents.len()? >= devices_max)
    }
}

/// Whether whoever goes through a restored hub is let in.
fn enter(session: &mut Order, asked: Order, named: Incarnation, current: Incarnation) -> Result<(), HubRefusal> {
    if named != current {
        return Err(HubRefusal::WrongIncarnation { current });
    }
    if asked < *session {
        return Err(HubRefusal::Stale { highest: *session });
    }
    *session = asked;
    Ok(())
}

fn reinstate(
    rows: &mut Rows<'_>,
    device: &DeviceId,
    becomes: &Reinstated,
) -> Result<Result<(), HubRefusal>, WriteFault> {
    let Found { entry, row } = match rows.entry(device) {
        Ok(found) => found,
        // What cannot be read is replaced by what the service knows. Its row has its place for ever: it is left out when it
        // is met.
        Err(WriteFault::Row(why)) => {
            tracing::error!(%why, "a device's row is not understood");
            Found { entry: None, row: rows.resident(device).unwrap_or_default() }
        }
        Err(fault @ WriteFault::Database(_)) => return Err(fault),
    };
    match entry::reinstate(entry.as_ref(), becomes) {
        Ok(Some(next)) => rows.keep(device, entry.as_ref(), row, &next).map(Ok),
        Ok(None) => Ok(Ok(())),
        Err(refusal) => Ok(Err(refusal)),
    }
}

fn write_twin(
    rows: &mut Rows<'_>,
    job: &mut TwinJob,
    now: Timestamp,
) -> Result<(Result<Resident, TwinRefusal>, Option<Notice>), WriteFault> {
    let row = rows.resident(&job.device)?;
    let fault = |fault| DeviceRowFault { device: job.device.clone(), fault };
    let tenant = row.as_ref().map(ResidentRow::tenant).transpose().map_err(fault)?;
    let departed = if row.is_none() { rows.departed_credential(&job.device)? } else { None };
    let presence = match &tenant {
        Some(tenant) => Presence::Here(tenant),
        None => Presence::Departed(departed.as_ref()),
    };
    let written = match &job.ask {
        TwinAsk::Report { caller, patch } => twins::admit_write(presence, caller)
            .and_then(|tenant| Ok((tenant, twins::report(tenant, patch.clone(), now)?))),
        TwinAsk::Write { version, write } => twins::admit_write(presence, &TwinCaller::BackEnd)
            .and_then(|tenant| Ok((tenant, twins::write(tenant, *version, write.clone(), now)?))),
        TwinAsk::Use { caller } => {
            twins::admit_write(presence, caller).map(|tenant| (tenant, Written::nothing(tenant)))
        }
    };
    match (written, row) {
        (Ok((tenant, written)), Some(row)) => {
            let left = match &job.ask {
                TwinAsk::Report { caller, .. } | TwinAsk::Use { caller } => twins::used_up(&tenant.credential, caller),
                TwinAsk::Write { .. } => None,
            };
            let resident =
                twins::resident(&job.device, &entry::Tenant { state: written.state.clone(), ..tenant.clone() });
            let before = row.changed();
            let (row, notice) = match &left {
                // Whoever watches by an older key must come back with a newer one.
                Some(left) => (row.with_credential(left), written.notice.or(Some(Notice::Ended))),
                None => (row, written.notice),
            };
            rows.put_resident(&job.device, row.with_state(&written.state), before)?;
            Ok((Ok(resident), notice))
        }
        (Ok(_), None) => Ok((Err(TwinRefusal::NotFound), None)),
        (Err(refusal), Some(_) | None) => Ok((Err(refusal), None)),
    }
}

/// The tables of one transaction.
struct Rows<'txn> {
    residents: Table<'txn, &'static str, &'static [u8]>,
    departed: Table<'txn, &'static str, &'static [u8]>,
    replaced: Table<'txn, &'static str, &'static [u8]>,
    changes: Table<'txn, u64, &'static str>,
    marks: Marks,
    changed: bool,
}

impl<'txn> Rows<'txn> {
    fn open(transaction: &'txn WriteTransaction, marks: Marks) -> Result<Self, redb::Error> {
        Ok(Self {
            residents: transaction.open_table(tables::RESIDENTS)?,
            departed: transaction.open_table(tables::DEPARTED)?,
            replaced: transaction.open_table(tables::REPLACED)?,
            changes: transaction.open_table(tables::CHANGES)?,
            marks,
            changed: false,
        })
    }

    fn resident(&self, device: &DeviceId) -> Result<Option<ResidentRow>, WriteFault> {
        let row = self.residents.get(device.as_str())?;
        let row = row.map(|row| decode_resident(row.value())).transpose();
        Ok(row.map_err(|fault| DeviceRowFault { device: device.clone(), fault })?)
    }

    fn departed(&self, device: &DeviceId) -> Result<Option<DepartedRow>, WriteFault> {
        let row = self.departed.get(device.as_str())?;
        let row = row.map(|row| decode(row.value())).transpose();
        Ok(row.map_err(|fault| DeviceRowFault { device: device.clone(), fault })?)
    }

    fn departed_credential(&self, device: &DeviceId) -> Result<Option<Credential>, WriteFault> {
        Ok(self.departed(device)?.and_then(|row| row.credential()))
    }

    fn entry(&self, device: &DeviceId) -> Result<Found, WriteFault> {
        let fault = |fault| DeviceRowFault { device: device.clone(), fault };
        let row = self.resident(device)?;
        let entry = match &row {
            Some(row) if row.has_replaced() => {
                let state = self.replaced.get(device.as_str())?;
                let state = state.map(|state| decode_state(state.value())).transpose().map_err(fault)?;
                Some(row.entry(state))
            }
            Some(row) => Some(row.entry(None)),
            None => self.departed(device)?.map(|row| row.entry()),
        };
        Ok(Found { entry: entry.transpose().map_err(fault)?, row })
    }

    /// Writes what is new. Everything is encoded before anything is changed. `row` is the one that stands there.
    fn keep(
        &mut self,
        device: &DeviceId,
        before: Option<&Entry>,
        row: Option<ResidentRow>,
        next: &Entry,
    ) -> Result<(), WriteFault> {
        let fault = |fault| DeviceRowFault { device: device.clone(), fault };
        let replaced = match &next.last.outcome {
            Outcome::Replaced(state) => Some(encode_state(state).map_err(fault)?),
            Outcome::Done | Outcome::Sealed | Outcome::Refused(_) => None,
        };
        let was_replaced = before.is_some_and(|before| match &before.last.outcome {
            Outcome::Replaced(_) => true,
            Outcome::Done | Outcome::Sealed | Outcome::Refused(_) => false,
        });
        self.marks.highest = self.marks.highest.max(next.highest);
        // Zero is no place in the change feed.
        let place = row.as_ref().map_or(0, ResidentRow::changed);
        match &next.tenant {
            Some(tenant) => {
                let had = before.and_then(|before| before.tenant.as_ref()).map(|had| &had.state);
                let row = match row {
                    // Most calls do not touch the state, whose text need not be made again.
                    Some(row) if had == Some(&tenant.state) => row.next(next.highest, &next.last, tenant),
                    Some(_) | None => ResidentRow::new(next.highest, &next.last, tenant),
                };
                self.put_resident(device, row, place)?;
                if before.is_some_and(|before| before.tenant.is_none()) {
                    self.departed.remove(device.as_str())?;
                }
            }
            None => {
                let row = DepartedRow::new(next.highest, &next.last, next.departed.as_ref());
                self.departed.insert(device.as_str(), encode(&row).map_err(fault)?.as_slice())?;
                if before.is_some_and(|before| before.tenant.is_some()) {
                    self.residents.remove(device.as_str())?;
                    self.changes.remove(place)?;
                }
            }
        }
        if let Some(state) = replaced {
            self.replaced.insert(device.as_str(), state.as_slice())?;
        } else if was_replaced {
            self.replaced.remove(device.as_str())?;
        }
        self.changed = true;
        Ok(())
    }

    /// Writes a device's row, at the end of the change feed from now on.
    fn put_resident(&mut self, device: &DeviceId, row: ResidentRow, before: u64) -> Result<(), WriteFault> {
        let position = self.marks.position + 1;
        let row = encode_resident(&row.at(position));
        let bytes = row.map_err(|fault| DeviceRowFault { device: device.clone(), fault })?;
        self.residents.insert(device.as_str(), bytes.as_slice())?;
        self.changes.remove(before)?;
        self.changes.insert(position, device.as_str())?;
        self.marks.position = position;
        self.changed = true;
        Ok(())
    }
}

/// What is written of a device.
struct Found {
    entry: Option<Entry>,
    /// As it stands, when the device is here.
    row: Option<ResidentRow>,
}

/// What a group of jobs comes to, once it is durable.
struct Settled {
    changed: bool,
    marks: Marks,
    readmitted: bool,
    session: Order,
    notices: Notices,
}

impl Job {
    fn answer(self) {
        let forgotten = || "the call was not looked at".to_owned();
        match self {
            Job::Call(job) => job.asker.tell(|| Err(CallFault::Unavailable(forgotten()))),
            Job::Twin(job) => job.asker.tell(|| Err(TwinRefusal::Unavailable)),
            Job::Reinstate(job) => job.asker.tell(|| Err(CallFault::Unavailable(forgotten()))),
            Job::Readmit(job) => job.asker.tell(|| Err(CallFault::Unavailable(forgotten()))),
        }
    }

    fn fail(self, failure: &Failure) {
        let (call, twin) = match failure {
            Failure::NotWritten(why) => (CallFault::Unavailable(why.clone()), TwinRefusal::Unavailable),
            Failure::Unknown(why) => (CallFault::Unknown(why.clone()), TwinRefusal::Unknown(why.clone())),
        };
        match self {
            Job::Call(job) => Asker { answer: None, ..job.asker }.tell(|| Err(call)),
            Job::Twin(job) => Asker { answer: None, ..job.asker }.tell(|| Err(twin)),
            Job::Reinstate(job) => Asker { answer: None, ..job.asker }.tell(|| Err(call)),
            Job::Readmit(job) => Asker { answer: None, ..job.asker }.tell(|| Err(call)),
        }
    }
}

/// Every error of redb is one to us: the transaction came to nothing.
impl<E: Into<redb::Error>> From<E> for WriteFault {
    fn from(fault: E) -> Self {
        WriteFault::Database(Box::new(fault.into()))
    }
}
