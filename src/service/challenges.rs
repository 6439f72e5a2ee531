//! The challenges that are out, and what became of those that were answered. In memory: after a restart devices begin
//! again.
//!
//! A challenge is used up by the first registration that verifies; what it was used for stays known until its token
//! expires, so that the same token can ask how that registration went, and repeat it.
//!
//! Everything is bounded, and what has to go for that is chosen so that who asks for much loses first: of the challenges
//! of one device, and of all of them, the oldest goes of the address that has most. Addresses are counted by what one
//! subscriber is given (one address of IPv4, a network of 56 bits of IPv6). Against one stranger, or a handful, a device
//! so keeps its own challenge; a stranger with more addresses than [`PER_DEVICE_MAX`], who knows the device's endorsement
//! key and id, can still push it out between its two calls, and the device then has to begin again.
//!
//! Whoever begins takes nothing away that was used: those are counted apart, and go only for others that are used.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_lc_rs::digest;
use subtle::ConstantTimeEq;

use crate::attestation::tpm::Challenge;
use crate::domain::{Credential, EnrollmentId, OperationId, RegistrationId, RequestId, SasToken, Timestamp, Version};

use super::throttle::subnet;

/// Challenges of one device that are out for one address: one that is answered, and one that was asked for again.
const PER_PEER_MAX: usize = 2;
/// Challenges of one device that are out: so many strangers, each with an address of his own, it takes to push out the
/// device's own one. Each costs some two kilobytes, and a device is looked through at each call that begins.
const PER_DEVICE_MAX: usize = 64;
/// Challenges that one device used and whose token still reads: only a device that is proven adds to them.
const USED_PER_DEVICE_MAX: usize = 8;

/// A token, so far that it is known again.
#[derive(Clone, Copy)]
pub struct TokenDigest([u8; 32]);

impl TokenDigest {
    pub fn of(text: &str) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest::digest(&digest::SHA256, text.as_bytes()).as_ref());
        Self(bytes)
    }

    /// An id for the request that the token came with, where its protocol has none: the same token is the same request.
    pub fn request_id(self) -> Option<RequestId> {
        RequestId::parse(&format!("token-{}", data_encoding::HEXLOWER.encode(&self.0[..16]))).ok()
    }

    fn is(self, other: TokenDigest) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

/// What a registration is to give the device; the same for every repeat of it.
#[derive(Clone)]
pub struct Delivery {
    pub credential: Credential,
    pub blob: Arc<[u8]>,
}

/// How a challenge was used.
#[derive(Clone)]
pub struct Used {
    token: TokenDigest,
    token_expires_at: Timestamp,
    request_id: Option<RequestId>,
    pub delivery: Delivery,
    /// What came of it, once that is known.
    pub operation: Option<OperationId>,
}

impl Used {
    pub fn new(
        token: TokenDigest,
        token_expires_at: Timestamp,
        request_id: Option<RequestId>,
        delivery: Delivery,
    ) -> Self {
        Self { token, token_expires_at, request_id, delivery, operation: None }
    }

    /// Whether this is the same registration again, while its token lasts: without an id of its own none is.
    pub fn is_repeated_by(&self, token: TokenDigest, request_id: Option<&RequestId>, now: Timestamp) -> bool {
        let lasts = self.token_expires_at > now;
        lasts && self.token.is(token) && self.request_id.is_some() && self.request_id.as_ref() == request_id
    }
}

/// A challenge as it was found.
#[derive(Clone)]
pub struct Found {
    pub challenge: Arc<Challenge>,
    /// The enrollment that it was made by.
    pub enrollment: (EnrollmentId, Version),
    pub used: Option<Used>,
}

struct Entry {
    device: RegistrationId,
    peer: IpAddr,
    challenge: Arc<Challenge>,
    enrollment: (EnrollmentId, Version),
    used: Option<Used>,
}

impl Entry {
    fn ends_at(&self) -> Timestamp {
        self.used.as_ref().map_or(self.challenge.expires_at(), |used| used.token_expires_at)
    }
}

#[derive(Default)]
struct Table {
    next: u64,
    /// By age.
    entries: BTreeMap<u64, Entry>,
    by_id: HashMap<u128, u64>,
    ids: HashMap<u64, u128>,
    by_device: HashMap<RegistrationId, Vec<u64>>,
    /// Those that are out, by the address that asked for them.
    out: HashMap<IpAddr, BTreeSet<u64>>,
    /// Every address of `out`, the one that has most last, of several the one with the oldest.
    greed: BTreeSet<(usize, Reverse<u64>, IpAddr)>,
    used: BTreeSet<u64>,
}

/// See the module's documentation.
pub struct Challenges {
    table: Mutex<Table>,
    challenges_max: usize,
}

impl std::fmt::Debug for Challenges {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Challenges({})", self.lock().entries.len())
    }
}

impl Challenges {
    pub fn new(challenges_max: usize) -> Self {
        Self { table: Mutex::default(), challenges_max: challenges_max.max(1) }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a challenge that was made for a caller.
    pub fn keep(
        &self,
        id: u128,
        peer: IpAddr,
        challenge: Challenge,
        enrollment: (EnrollmentId, Version),
        now: Timestamp,
    ) {
        let (device, peer) = (challenge.registration_id().clone(), subnet(peer));
        let mut table = self.lock();
        table.drop_ended(&device, now);
        while let Some(place) = table.surplus_of(&device, peer) {
            table.remove(place);
        }
        if table.out() >= self.challenges_max {
            table.drop_all_ended(now);
        }
        while table.out() >= self.challenges_max {
            let Some((_, Reverse(oldest), _)) = table.greed.last().copied() else { break };
            table.remove(oldest);
        }
        let place = table.next;
        table.next += 1;
        table.by_device.entry(device.clone()).or_default().push(place);
        table.by_id.insert(id, place);
        table.ids.insert(place, id);
        let challenge = Arc::new(challenge);
        table.entries.insert(place, Entry { device, peer, challenge, enrollment, used: None });
        table.change_out(peer, |places| places.insert(place));
    }

    pub fn find(&self, id: u128) -> Option<Found> {
        let table = self.lock();
        let entry = table.entries.get(table.by_id.get(&id)?)?;
        let (challenge, enrollment) = (entry.challenge.clone(), entry.enrollment.clone());
        Some(Found { challenge, enrollment, used: entry.used.clone() })
    }

    /// Uses a challenge up. False when somebody else was faster, or it was given up.
    pub fn use_up(&self, id: u128, used: Used) -> bool {
        let mut table = self.lock();
        let Some(place) = table.by_id.get(&id).copied() else { return false };
        let Some(entry) = table.entries.get_mut(&place).filter(|entry| entry.used.is_none()) else { return false };
        entry.used = Some(used);
        let (device, peer) = (entry.device.clone(), entry.peer);
        table.change_out(peer, |places| places.remove(&place));
        table.used.insert(place);
        let of_device: Vec<u64> =
            table.by_device.get(&device).into_iter().flatten().filter(|it| table.used.contains(it)).copied().collect();
        let surplus = of_device.len().saturating_sub(USED_PER_DEVICE_MAX);
        of_device.iter().take(surplus).for_each(|place| table.remove(*place));
        while table.used.len() > self.challenges_max {
            let Some(oldest) = table.used.first().copied() else { break };
            table.remove(oldest);
        }
        true
    }

    /// The challenge that a token answers, or answered before, of a caller whose protocol does not name it.
    pub fn meant_by(&self, device: &RegistrationId, text: &str, token: &SasToken, now: Timestamp) -> Option<u128> {
        let digest = TokenDigest::of(text);
        let mut open = Vec::new();
        let mut used = None;
        {
            let table = self.lock();
            for place in table.by_device.get(device).into_iter().flatten() {
                let (Some(entry), Some(id)) = (table.entries.get(place), table.ids.get(place)) else { continue };
                match &entry.used {
                    Some(it) if it.token.is(digest) && it.token_expires_at > now => used = Some(*id),
                    Some(_) => {}
                    None if entry.ends_at() > now => open.push((*id, entry.challenge.clone())),
                    None => {}
                }
            }
        }
        used.or_else(|| open.into_iter().find(|(_, challenge)| challenge.is_meant_by(token)).map(|(id, _)| id))
    }

    /// What came of a challenge that was used up.
    pub fn note(&self, id: u128, operation: OperationId) {
        let mut table = self.lock();
        let Some(place) = table.by_id.get(&id).copied() else { return };
        if let Some(used) = table.entries.get_mut(&place).and_then(|entry| entry.used.as_mut()) {
            used.operation = Some(operation);
        }
    }

    /// The operation that this token may ask after.
    pub fn operation_of(&self, device: &RegistrationId, token: TokenDigest, now: Timestamp) -> Option<OperationId> {
        let table = self.lock();
        let used = table.by_device.get(device)?.iter().filter_map(|place| table.entries.get(place)?.used.as_ref());
        // All of them are looked at, whichever fits.
        let fits = |used: &Used| used.token.is(token) && used.token_expires_at > now;
        used.fold(None, |found, used| if fits(used) { used.operation } else { found })
    }
}

impl Table {
    /// How many are out.
    fn out(&self) -> usize {
        self.entries.len() - self.used.len()
    }

    /// The one that goes before another of this device is made for this address.
    fn surplus_of(&self, device: &RegistrationId, peer: IpAddr) -> Option<u64> {
        let places = self.by_device.get(device)?;
        // By age, as the device's places are.
        let mut by_peer: HashMap<IpAddr, Vec<u64>> = HashMap::new();
        let mut count = 0;
        for place in places {
            if let Some(entry) = self.entries.get(place).filter(|entry| entry.used.is_none()) {
                by_peer.entry(entry.peer).or_default().push(*place);
                count += 1;
            }
        }
        if let Some(mine) = by_peer.get(&peer).filter(|mine| mine.len() >= PER_PEER_MAX) {
            return mine.first().copied();
        }
        if count < PER_DEVICE_MAX {
            return None;
        }
        let oldest = |places: &Vec<u64>| places.first().copied().unwrap_or(u64::MAX);
        let greediest = by_peer.values().max_by_key(|places| (places.len(), Reverse(oldest(places))))?;
        greediest.first().copied()
    }

    /// Changes which challenges are out for an address.
    fn change_out(&mut self, peer: IpAddr, change: impl FnOnce(&mut BTreeSet<u64>) -> bool) {
        let rank = |places: &BTreeSet<u64>| places.first().map(|oldest| (places.len(), Reverse(*oldest), peer));
        let places = self.out.entry(peer).or_default();
        if let Some(before) = rank(places) {
            self.greed.remove(&before);
        }
        change(places);
        match rank(places) {
            Some(after) => {
                self.greed.insert(after);
            }
            None => {
                self.out.remove(&peer);
            }
        }
    }

    fn drop_ended(&mut self, device: &RegistrationId, now: Timestamp) {
        let ended = |place: &&u64| self.entries.get(place).is_some_and(|entry| entry.ends_at() <= now);
        let ended: Vec<u64> = self.by_device.get(device).into_iter().flatten().filter(ended).copied().collect();
        ended.into_iter().for_each(|place| self.remove(place));
    }

    fn drop_all_ended(&mut self, now: Timestamp) {
        let ended: Vec<u64> =
            self.entries.iter().filter(|(_, entry)| entry.ends_at() <= now).map(|(place, _)| *place).collect();
        ended.into_iter().for_each(|place| self.remove(place));
    }

    fn remove(&mut self, place: u64) {
        if let Some(id) = self.ids.remove(&place) {
            self.by_id.remove(&id);
        }
        let Some(entry) = self.entries.remove(&place) else { return };
        if !self.used.remove(&place) {
            self.change_out(entry.peer, |places| places.remove(&place));
        }
        if let Some(places) = self.by_device.get_mut(&entry.device) {
            places.retain(|it| *it != place);
            if places.is_empty() {
                self.by_device.remove(&entry.device);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::attestation::tpm::software::SoftwareTpm;
    use crate::attestation::tpm::{Draw, Enrolled, Presented, PublicArea, Rule, begin};
    use crate::domain::{DeliveredKeys, KeyFingerprint, SealedKey, TpmDevice, TpmRules, limits};

    const NOW: Timestamp = Timestamp(1_800_000_000_000);

    fn device(number: u8) -> RegistrationId {
        RegistrationId::parse(&format!("d{number}")).unwrap()
    }

    fn peer(number: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, number])
    }

    /// Keeps a challenge of a device for an address.
    fn keep(challenges: &Challenges, id: u128, device_number: u8, peer_number: u8, now: Timestamp) {
        let tpm = SoftwareTpm::of(&Draw::new([device_number + 1; 64])).unwrap();
        let key = tpm.endorsement_key();
        let presented = Presented::parse(key.as_bytes(), tpm.storage_root_key().as_bytes(), None, &[]).unwrap();
        let ek_hash = PublicArea::of(key.clone()).unwrap().ek_hash();
        let enrolled_device = TpmDevice { endorsement_key: key.clone(), ek_hash, rules: TpmRules::default() };
        let (device, version) = (device(device_number), Version(1));
        let of = EnrollmentId::Individual(device.clone());
        let enrolled = Enrolled { id: &of, version, rule: Rule::Device(&enrolled_device) };
        let (challenge, _) = begin(presented, enrolled, &device, b"", &Draw::new([9; 64]), now).unwrap();
        challenges.keep(id, peer(peer_number), challenge, (of, version), now);
    }

    fn kept(challenges: &Challenges, ids: impl IntoIterator<Item = u128>) -> Vec<u128> {
        ids.into_iter().filter(|id| challenges.find(*id).is_some()).collect()
    }

    fn used(request_id: &str) -> Used {
        let key = SealedKey::new(KeyFingerprint([1; 32]), vec![1]).unwrap();
        let credential = Credential::Delivered(DeliveredKeys::one(key));
        let delivery = Delivery { credential, blob: Arc::from([7]) };
        let until = NOW.plus(Duration::from_secs(3600));
        Used::new(TokenDigest::of("t"), until, RequestId::parse(request_id).ok(), delivery)
    }

    #[test]
    fn who_asks_for_many_takes_away_his_own() {
        let challenges = Challenges::new(1000);
        keep(&challenges, 1, 1, 1, NOW);
        for id in 2..=9 {
            keep(&challenges, id, 1, 2, NOW);
        }
        assert_eq!(kept(&challenges, 1..=9), [1, 8, 9], "the stranger's own ones went");
        keep(&challenges, 10, 2, 1, NOW);
        assert_eq!(kept(&challenges, [10]), [10], "another device is not touched");
    }

    /// What a device waits for stays, however often a handful of strangers asks for challenges of it.
    #[test]
    fn strangers_push_out_each_other() {
        let challenges = Challenges::new(1000);
        keep(&challenges, 1, 1, 1, NOW);
        keep(&challenges, 2, 1, 2, NOW);
        assert!(challenges.use_up(2, used("a")));
        let strangers = u8::try_from(PER_DEVICE_MAX).unwrap() - 2;
        for id in 0..u128::from(strangers) * 4 {
            keep(&challenges, 100 + id, 1, 10 + u8::try_from(id % u128::from(strangers)).unwrap(), NOW);
        }
        assert_eq!(kept(&challenges, [1, 2]), [1, 2], "the device's own, and one that was used");
        assert_eq!(kept(&challenges, 100..1000).len(), PER_DEVICE_MAX - 1);
        // So many that each has one: then age decides, but never among those that were used.
        for id in 0..150 {
            keep(&challenges, 2000 + id, 1, 100 + u8::try_from(id).unwrap(), NOW);
        }
        assert_eq!(kept(&challenges, [1, 2]), [2]);
        assert_eq!(kept(&challenges, 100..3000).len(), PER_DEVICE_MAX);
    }

    /// The same for all devices together.
    #[test]
    fn a_full_table_takes_from_who_has_most() {
        let challenges = Challenges::new(8);
        keep(&challenges, 1, 1, 1, NOW);
        keep(&challenges, 2, 2, 1, NOW);
        keep(&challenges, 3, 3, 2, NOW);
        assert!(challenges.use_up(3, used("a")));
        for id in 10..30 {
            keep(&challenges, id, u8::try_from(id).unwrap(), 3, NOW);
        }
        assert_eq!(kept(&challenges, 1..30), [1, 2, 3, 24, 25, 26, 27, 28, 29]);
        let table = challenges.lock();
        assert_eq!((table.out(), table.used.len(), table.entries.len()), (8, 1, 9));
        assert_eq!(table.out.values().map(BTreeSet::len).sum::<usize>(), 8);
        assert_eq!(table.greed.len(), table.out.len());
    }

    #[test]
    fn what_was_used_is_bounded_by_what_is_used() {
        let challenges = Challenges::new(20);
        for id in 0..12 {
            keep(&challenges, id, 1, 1, NOW);
            assert!(challenges.use_up(id, used("a")));
        }
        assert_eq!(kept(&challenges, 0..12), [4, 5, 6, 7, 8, 9, 10, 11], "the newest of one device");
        for id in 20..40 {
            keep(&challenges, id, u8::try_from(id).unwrap(), 1, NOW);
            assert!(challenges.use_up(id, used("a")));
        }
        assert_eq!(kept(&challenges, 0..40), (20..40).collect::<Vec<u128>>(), "the newest of all");
    }

    #[test]
    fn the_table_is_bounded_and_what_has_ended_goes_first() {
        let challenges = Challenges::new(3);
        keep(&challenges, 1, 1, 1, NOW);
        let later = NOW.plus(limits::CHALLENGE_TTL);
        (2..=3).for_each(|id| keep(&challenges, id, u8::try_from(id).unwrap(), 1, later));
        keep(&challenges, 4, 4, 1, later);
        assert_eq!(kept(&challenges, 1..=4), [2, 3, 4], "the first had ended");
        keep(&challenges, 5, 5, 1, later);
        assert_eq!(kept(&challenges, 1..=5), [3, 4, 5], "then the oldest");
    }

    #[test]
    fn a_challenge_is_used_once_and_its_token_reads_until_it_ends() {
        let challenges = Challenges::new(10);
        keep(&challenges, 1, 1, 1, NOW);
        assert!(
            challenges.use_up(1, used("a")) && !challenges.use_up(1, used("b")) && !challenges.use_up(2, used("a"))
        );
        let found = challenges.find(1).unwrap().used.unwrap();
        let (token, other) = (TokenDigest::of("t"), TokenDigest::of("u"));
        let id = RequestId::parse("a").ok();
        assert!(found.is_repeated_by(token, id.as_ref(), NOW));
        assert!(!found.is_repeated_by(other, id.as_ref(), NOW) && !found.is_repeated_by(token, None, NOW));
        assert!(
            !found.is_repeated_by(token, id.as_ref(), found.token_expires_at),
            "a token that has ended is worth nothing"
        );
        assert_eq!(challenges.operation_of(&device(1), token, NOW), None);
        challenges.note(1, OperationId(5));
        assert_eq!(challenges.operation_of(&device(1), token, NOW), Some(OperationId(5)));
        assert_eq!(challenges.operation_of(&device(1), other, NOW), None);
        assert_eq!(challenges.operation_of(&device(2), token, NOW), None);
        assert_eq!(challenges.operation_of(&device(1), token, NOW.plus(Duration::from_secs(3600))), None);
    }
}
