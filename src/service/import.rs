//! Many individual enrollments in one commit. Each is judged by itself; what cannot be made keeps out nothing else.

use std::collections::HashSet;

use crate::domain::{
    AuditAction, AuditEntry, Enrollment, EnrollmentDraft, EnrollmentId, Fault, Kind, Reason, Thumbprint, Version,
    limits,
};
use crate::store::{Change, Commit, CommitFault};

use super::{Service, fault};

/// What came of one enrollment of an import.
#[derive(Debug, Clone, PartialEq)]
pub enum Imported {
    Created,
    /// It was there before and was not changed; `differs` when it is not as the draft says.
    Exists {
        differs: bool,
    },
    Refused(Fault),
}

/// One that may be made, with its place in the import.
struct Candidate {
    place: usize,
    enrollment: Enrollment,
}

impl Service {
    /// Makes new individual enrollments: those that can be are made in one commit. Answers one outcome for each draft, in
    /// order. At most [`limits::IMPORT_MAX`], at least one.
    pub async fn import_enrollments(
        &self,
        drafts: Vec<Result<EnrollmentDraft, Fault>>,
        skip_existing: bool,
        by: &str,
    ) -> Result<Vec<Imported>, Fault> {
        if drafts.is_empty() || drafts.len() > limits::IMPORT_MAX {
            return Err(Fault::invalid("enrollments", format!("must be 1 to {}", limits::IMPORT_MAX)));
        }
        let mut outcomes = Vec::with_capacity(drafts.len());
        let mut candidates = Vec::with_capacity(drafts.len());
        let mut seen = Seen::default();
        for (place, draft) in drafts.into_iter().enumerate() {
            let outcome = match draft {
                Ok(draft) => self.judge_import(draft, skip_existing, &mut seen).await?,
                Err(fault) => Judged::Known(Imported::Refused(fault)),
            };
            outcomes.push(match outcome {
                Judged::Known(outcome) => outcome,
                Judged::Candidate(enrollment) => {
                    candidates.push(Candidate { place, enrollment: *enrollment });
                    Imported::Created
                }
            });
        }
        for (place, refused) in self.put_candidates(candidates, by).await? {
            outcomes[place] = Imported::Refused(refused);
        }
        Ok(outcomes)
    }

    async fn judge_import(
        &self,
        draft: EnrollmentDraft,
        skip_existing: bool,
        seen: &mut Seen,
    ) -> Result<Judged, Fault> {
        let refused = |fault| Ok(Judged::Known(Imported::Refused(fault)));
        if let EnrollmentId::Group(_) = draft.id {
            return refused(Fault::invalid("registration_id", "groups are not imported"));
        }
        let (now, id) = (self.inner.clock.now(), draft.id.clone());
        let stored = self.inner.store.load_enrollment(&id).await.map_err(fault::of_store)?;
        let kept = stored.as_ref().map(|stored| &stored.attestation);
        let attestation = match draft.check().and_then(|()| self.read_attestation(&draft, kept)) {
            Ok(attestation) => attestation,
            Err(fault) => return refused(fault),
        };
        if let Some(stored) = stored {
            if !skip_existing {
                return refused(Fault::new(Reason::AlreadyExists, format!("{id} exists already")));
            }
            let asked = draft.into_enrollment(attestation, stored.created_at, stored.updated_at, stored.version);
            return Ok(Judged::Known(Imported::Exists { differs: asked != *stored }));
        }
        let checked = match self.check_references(&draft).await {
            Ok(()) => self.check_keys(&attestation, &draft.id).await,
            Err(fault) => Err(fault),
        };
        if let Err(fault) = checked {
            return match fault.reason.kind() {
                // Not the draft's fault: nothing is known of the others either.
                Kind::Unavailable | Kind::Internal | Kind::Exhausted => Err(fault),
                Kind::Invalid | Kind::Unauthenticated | Kind::Denied | Kind::NotFound | Kind::Conflict => {
                    refused(fault)
                }
            };
        }
        let enrollment = draft.into_enrollment(attestation, now, now, Version::ABSENT);
        match seen.take(&enrollment) {
            Ok(()) => Ok(Judged::Candidate(Box::new(enrollment))),
            Err(fault) => refused(fault),
        }
    }

    /// Commits all at once; where one of them stands in the way of that, one by one. Answers those that were refused.
    async fn put_candidates(&self, candidates: Vec<Candidate>, by: &str) -> Result<Vec<(usize, Fault)>, Fault> {
        if candidates.is_empty() {
            return Ok(Vec::new());
        }
        let commit = candidates.iter().fold(Commit::default(), |mut commit, candidate| {
            let audit = self.import_entry(&candidate.enrollment, by);
            commit.changes.push(Change::PutEnrollment(Box::new(candidate.enrollment.clone())));
            commit.audit.push(audit);
            commit
        });
        match self.inner.store.commit(commit).await {
            Ok(_) => return Ok(Vec::new()),
            Err(CommitFault::Unexpected(_)) => {}
            Err(fault @ (CommitFault::NotWritten(_) | CommitFault::Unknown(_))) => return Err(fault::of_commit(fault)),
        }
        let mut refused = Vec::new();
        for Candidate { place, enrollment } in candidates {
            let commit = Commit {
                audit: vec![self.import_entry(&enrollment, by)],
                changes: vec![Change::PutEnrollment(Box::new(enrollment))],
                ..Commit::default()
            };
            match self.inner.store.commit(commit).await {
                Ok(_) => {}
                Err(fault @ CommitFault::Unexpected(_)) => refused.push((place, fault::of_commit(fault))),
                Err(fault @ (CommitFault::NotWritten(_) | CommitFault::Unknown(_))) => {
                    return Err(fault::of_commit(fault));
                }
            }
        }
        Ok(refused)
    }

    fn import_entry(&self, enrollment: &Enrollment, by: &str) -> AuditEntry {
        let (now, detail) = (self.inner.clock.now(), format!("{} was created by an import", enrollment.id));
        AuditEntry {
            enrollment: Some(enrollment.id.clone()),
            ..AuditEntry::new(now, by, AuditAction::EnrollmentCreated, detail)
        }
    }
}

enum Judged {
    Known(Imported),
    Candidate(Box<Enrollment>),
}

/// What earlier enrollments of the same import take.
#[derive(Default)]
struct Seen {
    ids: HashSet<EnrollmentId>,
    certificates: HashSet<Thumbprint>,
}

impl Seen {
    fn take(&mut self, enrollment: &Enrollment) -> Result<(), Fault> {
        let twice = |what: &str| format!("{}: {what} stands in this import twice", enrollment.id);
        if self.ids.contains(&enrollment.id) {
            return Err(Fault::new(Reason::AlreadyExists, twice("it")));
        }
        let mut certificates = enrollment.attestation.certificates().map(|certificate| certificate.thumbprint);
        if certificates.any(|thumbprint| self.certificates.contains(&thumbprint)) {
            return Err(Fault::new(Reason::CertificateInUse, twice("a certificate of it")));
        }
        self.ids.insert(enrollment.id.clone());
        self.certificates.extend(enrollment.attestation.certificates().map(|certificate| certificate.thumbprint));
        Ok(())
    }
}
