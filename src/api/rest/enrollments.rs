//! Enrollments and groups over HTTPS, as existing service SDKs manage them (reference/dps.md §7).

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Extension, Path, RawQuery, State};
use axum::http::{HeaderMap, Response};
use bytes::Bytes;
use serde_json::{Map, Value, json};

use crate::api::azure::bulk::{self, Bulk, Mode};
use crate::api::azure::enrollment::{self, EnrollmentKind, attestation};
use crate::api::azure::etag::{self, Condition};
use crate::api::azure::fault::Refusal;
use crate::api::azure::members::{self, Members};
use crate::api::azure::query::Query;
use crate::api::azure::registration;
use crate::domain::{
    ApiVersion, Enrollment, EnrollmentId, Fault, GroupId, IdFault, KeyPair, Kind, Permission, Reason, RegistrationId,
    TokenKey,
};
use crate::service::{EnrollmentListing, Peer};

use super::Edge;
use super::answer::json;
use super::call::{Call, answered, condition, gone};
use super::paging::{self, Shown};

/// How often a write without a precondition is tried again because another one came between.
const TRIES_MAX: u32 = 3;

fn id_of(kind: EnrollmentKind, text: &str) -> Result<EnrollmentId, Refusal> {
    let invalid = |fault: IdFault| Refusal::new(400_004, fault.to_string());
    Ok(match kind {
        EnrollmentKind::Individual => EnrollmentId::Individual(RegistrationId::parse(text).map_err(invalid)?),
        EnrollmentKind::Group => EnrollmentId::Group(GroupId::parse(text).map_err(invalid)?),
    })
}

fn changed(id: &EnrollmentId) -> Refusal {
    Refusal::new(412_001, format!("{id} changed since it was read: read it again"))
}

/// What must be there for a write, and what must not.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Wanted {
    /// Either, as far as the condition allows.
    Put(Condition),
    Create,
    Replace(Condition),
}

impl Wanted {
    fn admit(&self, id: &EnrollmentId, stored: Option<&Enrollment>) -> Result<(), Refusal> {
        match (self, stored) {
            (Wanted::Put(Condition::None) | Wanted::Create, None) => Ok(()),
            (Wanted::Put(_), None) => Err(changed(id)),
            (Wanted::Replace(_), None) => Err(missing(id)),
            (Wanted::Create, Some(_)) => Err(Refusal::new(409_201, format!("{id} exists already"))),
            (Wanted::Put(condition) | Wanted::Replace(condition), Some(stored)) => check(id, condition, stored),
        }
    }

    /// Whether it holds again once somebody else's write came between.
    fn is_repeated(&self) -> bool {
        match self {
            Wanted::Put(condition) | Wanted::Replace(condition) => condition.is_open(),
            Wanted::Create => false,
        }
    }
}

fn check(id: &EnrollmentId, condition: &Condition, stored: &Enrollment) -> Result<(), Refusal> {
    let etag = etag::of(stored.version, stored.created_at);
    if condition.holds(&etag) { Ok(()) } else { Err(changed(id)) }
}

fn missing(id: &EnrollmentId) -> Refusal {
    let number = match id {
        EnrollmentId::Individual(_) => 404_201,
        EnrollmentId::Group(_) => 404_202,
    };
    Refusal::new(number, format!("there is no enrollment {id}"))
}

impl Edge {
    async fn stored(&self, id: &EnrollmentId) -> Result<Option<Arc<Enrollment>>, Fault> {
        match self.service.enrollment(id).await {
            Ok(stored) => Ok(Some(stored)),
            Err(fault) if fault.kind() == Kind::NotFound => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    async fn write(
        &self,
        id: &EnrollmentId,
        given: &Members<'_>,
        wanted: &Wanted,
        by: &str,
    ) -> Result<Arc<Enrollment>, Refusal> {
        let names = self.names();
        let mut tries = 1;
        loop {
            let stored = self.stored(id).await?;
            wanted.admit(id, stored.as_deref())?;
            // The first casing stays.
            let id = stored.as_ref().map_or(id, |stored| &stored.id);
            let draft = enrollment::draft(id, given, stored.as_deref(), &names)?;
            let written = match &stored {
                Some(stored) => self.service.update_enrollment(draft, stored.version, by).await,
                None => self.service.create_enrollment(draft, by).await,
            };
            match written {
                Err(fault) if came_between(&fault) && wanted.is_repeated() && tries < TRIES_MAX => tries += 1,
                written => return Ok(written?),
            }
        }
    }

    async fn remove(&self, id: &EnrollmentId, condition: &Condition, by: &str) -> Result<(), Refusal> {
        let version = match condition.is_open() {
            true => None,
            false => {
                let stored = self.service.enrollment(id).await?;
                check(id, condition, &stored)?;
                Some(stored.version)
            }
        };
        Ok(self.service.delete_enrollment(id, version, by).await?)
    }

    /// As it is listed: a device's with how it stands.
    async fn shown(
        &self,
        enrollment: &Enrollment,
        version: ApiVersion,
        keys: Option<&KeyPair<TokenKey>>,
    ) -> Result<Map<String, Value>, Fault> {
        let mut body = enrollment::shown(enrollment, &self.names(), keys);
        if let EnrollmentId::Individual(id) = &enrollment.id {
            let state = match self.service.registration_state(id).await? {
                Some(view) => registration::state(&view, version),
                None => json!({ "registrationId": id.as_str(), "status": "unassigned" }),
            };
            body.insert("registrationState".to_owned(), state);
        }
        Ok(body)
    }

    /// The keys of an enrollment, for who may see them; that they were shown stands in the audit log.
    async fn enrollment_keys(&self, enrollment: &Enrollment, call: &Call) -> Result<Option<KeyPair<TokenKey>>, Fault> {
        match enrollment.attestation.keys() {
            Some(_) if call.caller.sees_keys => {
                self.service.enrollment_keys(&enrollment.id, &call.caller.by).await.map(Some)
            }
            Some(_) | None => Ok(None),
        }
    }

    async fn entry(&self, kind: EnrollmentKind, mode: Mode, entry: &Value, by: &str) -> Result<(), Refusal> {
        let given = Members::of(entry)?;
        let id = enrollment::id_of(kind, &given)?;
        let condition = Condition::read(given.text("etag")?);
        let wanted = match (mode, condition) {
            (Mode::Delete, condition) => return self.remove(&id, &condition, by).await,
            (Mode::Create, _) => Wanted::Create,
            (Mode::UpdateIfMatch, Condition::None) => return Err(Refusal::new(400_004, "etag is missing")),
            // As it was recorded: what is written over another one without having read it would make it anew.
            (Mode::Update, Condition::None) => match self.stored(&id).await? {
                Some(_) => return Err(Refusal::new(409_201, format!("{id} exists already: its etag is missing"))),
                None => return Err(missing(&id)),
            },
            (Mode::Update | Mode::UpdateIfMatch, condition) => Wanted::Replace(condition),
        };
        self.write(&id, &given, &wanted, by).await.map(drop)
    }
}

/// Somebody else's write happened since the record was read.
fn came_between(fault: &Fault) -> bool {
    matches!(
        fault.reason,
        Reason::EtagMismatch | Reason::AlreadyExists | Reason::EnrollmentNotFound | Reason::GroupNotFound
    )
}

/// `GET /enrollments/{id}`
pub async fn get(
    State(edge): State<Edge>,
    Extension(kind): Extension<EnrollmentKind>,
    Extension(peer): Extension<Arc<Peer>>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response<Body> {
    let asked = async {
        let call = Call::begin(&edge, &peer, &headers, query.as_deref(), Permission::EnrollmentRead)?;
        let found = edge.service.enrollment(&id_of(kind, &id)?).await?;
        Ok(json(200, &Value::Object(edge.shown(&found, call.version, None).await?)))
    };
    answered(&edge, asked.await)
}

/// `PUT /enrollments/{id}`
pub async fn put(
    State(edge): State<Edge>,
    Extension(kind): Extension<EnrollmentKind>,
    Extension(peer): Extension<Arc<Peer>>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let asked = async {
        let call = Call::begin(&edge, &peer, &headers, query.as_deref(), Permission::EnrollmentWrite)?;
        let (id, body) = (id_of(kind, &id)?, members::json(&body)?);
        let written = edge.write(&id, &Members::of(&body)?, &Wanted::Put(condition(&headers)), &call.caller.by).await?;
        // The answer to whoever writes has the keys, so that those that were drawn are known. What was written stands,
        // whether they can be shown or not.
        let keys = edge.enrollment_keys(&written, &call).await.ok().flatten();
        Ok(json(200, &Value::Object(edge.shown(&written, call.version, keys.as_ref()).await?)))
    };
    answered(&edge, asked.await)
}

/// `DELETE /enrollments/{id}`
pub async fn delete(
    State(edge): State<Edge>,
    Extension(kind): Extension<EnrollmentKind>,
    Extension(peer): Extension<Arc<Peer>>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response<Body> {
    let asked = async {
        let call = Call::begin(&edge, &peer, &headers, query.as_deref(), Permission::EnrollmentWrite)?;
        edge.remove(&id_of(kind, &id)?, &condition(&headers), &call.caller.by).await?;
        Ok(gone())
    };
    answered(&edge, asked.await)
}

/// `POST /enrollments/{id}/attestationmechanism`
pub async fn attestation_mechanism(
    State(edge): State<Edge>,
    Extension(kind): Extension<EnrollmentKind>,
    Extension(peer): Extension<Arc<Peer>>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response<Body> {
    let asked = async {
        // Whoever reads keys may act as the device: that is no reader's.
        let call = Call::begin(&edge, &peer, &headers, query.as_deref(), Permission::EnrollmentWrite)?;
        let found = edge.service.enrollment(&id_of(kind, &id)?).await?;
        let keys = edge.enrollment_keys(&found, &call).await?;
        Ok(json(200, &attestation::shown(&found.attestation, &edge.names(), keys.as_ref())))
    };
    answered(&edge, asked.await)
}

/// `POST /enrollments/query`
pub async fn list(
    State(edge): State<Edge>,
    Extension(kind): Extension<EnrollmentKind>,
    Extension(peer): Extension<Arc<Peer>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let asked = async {
        let call = Call::begin(&edge, &peer, &headers, query.as_deref(), Permission::EnrollmentRead)?;
        let query = Query::of_body(&body, kind.bulk_member())?;
        let listing = match kind {
            EnrollmentKind::Individual => EnrollmentListing::Individuals,
            EnrollmentKind::Group => EnrollmentListing::Groups,
        };
        let (edge, call) = (&edge, &call);
        let page = paging::found(paging::asked(&headers)?, &query, async |page| {
            let found = edge.service.enrollments(listing, &page).await?;
            let mut rows = Vec::with_capacity(found.rows.len());
            for row in &found.rows {
                rows.push(Value::Object(edge.shown(row, call.version, None).await?));
            }
            Ok(Shown { rows, next: found.next })
        });
        Ok(paging::answer(page.await?, kind.item_type()))
    };
    answered(&edge, asked.await)
}

/// `POST /enrollments`: each entry by itself; what fails keeps out nothing else.
pub async fn run_bulk(
    State(edge): State<Edge>,
    Extension(kind): Extension<EnrollmentKind>,
    Extension(peer): Extension<Arc<Peer>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let asked = async {
        let call = Call::begin(&edge, &peer, &headers, query.as_deref(), Permission::EnrollmentWrite)?;
        let Bulk { mode, entries } = Bulk::read(kind, members::json(&body)?)?;
        let mut errors = Vec::new();
        for entry in &entries {
            if let Err(refusal) = edge.entry(kind, mode, entry, &call.caller.by).await {
                errors.push(bulk::failed(kind, entry, &refusal));
            }
        }
        Ok(json(200, &bulk::outcome(errors)))
    };
    answered(&edge, asked.await)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Attestation, CertificateRef, Thumbprint, Timestamp, Version, X509Leaves};

    #[test]
    fn what_must_be_there_and_what_must_not() {
        let id = id_of(EnrollmentKind::Individual, "dev-1").unwrap();
        let pair = json!({ "clientCertificates": { "primary": { "certificate": "AQID" } } });
        let body = json!({ "attestation": { "type": "x509", "x509": pair } });
        let draft = enrollment::draft(&id, &Members::of(&body).unwrap(), None, &Default::default()).unwrap();
        let primary = CertificateRef { der: Vec::new(), thumbprint: Thumbprint([1; 32]), subject: Thumbprint([2; 32]) };
        let leaves = Attestation::X509Leaf(X509Leaves { primary, secondary: None });
        let stored = draft.into_enrollment(leaves, Timestamp(5), Timestamp(6), Version(7));
        let at = |version: u64, created: i64| Condition::Etag(etag::of(Version(version), Timestamp(created)));
        for (wanted, absent, there) in [
            (Wanted::Put(Condition::None), Ok(()), Ok(())),
            (Wanted::Put(Condition::Any), Err(412_001), Ok(())),
            (Wanted::Put(at(7, 5)), Err(412_001), Ok(())),
            (Wanted::Put(at(6, 5)), Err(412_001), Err(412_001)),
            (Wanted::Put(at(7, 4)), Err(412_001), Err(412_001)),
            (Wanted::Create, Ok(()), Err(409_201)),
            (Wanted::Replace(Condition::None), Err(404_201), Ok(())),
            (Wanted::Replace(at(7, 5)), Err(404_201), Ok(())),
            (Wanted::Replace(at(8, 5)), Err(404_201), Err(412_001)),
        ] {
            let judged = |stored| wanted.admit(&id, stored).map_err(|refusal| refusal.code.code);
            assert_eq!(judged(None), absent, "{wanted:?}");
            assert_eq!(judged(Some(&stored)), there, "{wanted:?}");
        }
    }
}
