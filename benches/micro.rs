//! The parts that a registration passes, one by one, and two figures beside them: what a TPM challenge costs over its bare
//! cryptography, and what a device's actor takes in memory.
//!
//! `cargo bench --bench micro`; with a word only what has it in its name.

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use aws_lc_rs::agreement::{self, ECDH_P256, ECDH_P384, PrivateKey, UnparsedPublicKey};
use aws_lc_rs::rsa::{OAEP_SHA256_MGF1SHA256, OaepPublicEncryptingKey, PublicEncryptingKey, PublicKeyComponents};
use divan::{Bencher, black_box};
use rehome::actors::{self, Directory, Fleet, Surroundings};
use rehome::allocators::{AllocationAnswer, AllocationQuestion, Allocator, AllocatorFault};
use rehome::ambient::{Entropy as _, SeededEntropy, SystemClock};
use rehome::attestation::tpm::{self, Draw, Enrolled, Rule};
use rehome::attestation::x509::{self, Presented};
use rehome::domain::*;
use rehome::moves::JournalLine;
use rehome::pki::{Authority, Issued, Purpose, Terms};
use rehome::policy::matching::choose;
use rehome::policy::{self, HubView, Snapshot, WebhookOutcome};
use rehome::store::redb::{Config, Hooks, RedbStore, journal_line, journal_line_bytes};
use rehome::store::{Change, Commit, MemoryStore, Store, samples};
use tokio::runtime::Runtime;

const NOW: Timestamp = Timestamp(1_800_000_000_000);
const INDIVIDUALS: usize = 100_000;
const GROUPS: usize = 100;
const PER_COMMIT: usize = 1_000;
/// Actors whose memory is measured together.
const ACTORS: usize = 50_000;
/// Measurements of each side of a ratio.
const TURNS: usize = 30;

fn main() {
    divan::main();
    if !std::env::args().any(|word| word == "--list" || word == "--test") {
        let within = challenge_ratios();
        actor_memory();
        if !within {
            println!("a challenge costs more than twice its public-key operations");
            std::process::exit(1);
        }
    }
}

fn terms() -> Terms {
    Terms::starting(NOW, Duration::from_secs(30 * 24 * 3600))
}

/// An authority with one below it, and what each enrolls and issues.
struct Chains {
    anchor: CertificateRef,
    plain: Issued,
    below: Issued,
}

static CHAINS: LazyLock<Chains> = LazyLock::new(|| {
    let entropy = SeededEntropy::new(1);
    let authority = Authority::create("plant", Purpose::Device, terms(), &entropy).unwrap();
    let line = authority.issue_intermediate("line", terms(), &entropy).unwrap();
    let id = samples::reg_id("dev-1");
    Chains {
        anchor: x509::certificate_ref(authority.certificate()).unwrap(),
        plain: authority.issue_device(&id, terms(), &entropy).unwrap(),
        below: line.issue_device(&id, terms(), &entropy).unwrap(),
    }
});

fn chain_of(issued: &Issued) -> Vec<Vec<u8>> {
    issued.chain().iter().map(|der| der.to_vec()).collect()
}

fn group(anchor: &CertificateRef) -> Enrollment {
    let attestation = Attestation::X509Ca(X509Anchors { primary: anchor.clone(), secondary: None });
    Enrollment { attestation, version: Version(1), ..samples::enrollment(samples::group_id("plant"), 1) }
}

#[divan::bench]
fn chain_is_parsed(bencher: Bencher) {
    let chain = chain_of(&CHAINS.plain);
    bencher.bench(|| Presented::parse(black_box(&chain)).unwrap());
}

#[divan::bench(args = ["leaf", "leaf and intermediate"])]
fn chain_is_verified(bencher: Bencher, which: &str) {
    let issued = if which == "leaf" { &CHAINS.plain } else { &CHAINS.below };
    let presented = Presented::parse(&chain_of(issued)).unwrap();
    let (enrollment, id) = (group(&CHAINS.anchor), samples::reg_id("dev-1"));
    bencher.bench(|| x509::verify(black_box(&presented), &enrollment, &id, NOW).unwrap());
}

#[divan::bench]
fn chain_that_was_verified_is_judged(bencher: Bencher) {
    let presented = Presented::parse(&chain_of(&CHAINS.plain)).unwrap();
    let (enrollment, id) = (group(&CHAINS.anchor), samples::reg_id("dev-1"));
    let proof = x509::verify_chain(&presented, &enrollment, NOW).unwrap();
    bencher.bench(|| x509::judge(black_box(&proof), &presented, &enrollment, &id, NOW).unwrap());
}

/// A store of many enrollments, as large as a fleet's.
struct Filled {
    _folder: tempfile::TempDir,
    runtime: Runtime,
    store: RedbStore,
}

fn numbered(number: usize, kind: u8) -> CertificateRef {
    let mut thumbprint = [kind; 32];
    thumbprint[..8].copy_from_slice(&(number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    CertificateRef { der: vec![kind; 450], thumbprint: Thumbprint(thumbprint), subject: Thumbprint(thumbprint) }
}

static FILLED: LazyLock<Filled> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let store = runtime.block_on(async {
        let store = RedbStore::open(Config::at(folder.path().join("store.redb")), Hooks::default()).unwrap();
        let individuals = (0..INDIVIDUALS).map(|number| {
            let id = EnrollmentId::Individual(samples::reg_id(&format!("dev-{number}")));
            let attestation = Attestation::X509Leaf(X509Leaves { primary: numbered(number, 1), secondary: None });
            Enrollment { attestation, ..samples::enrollment(id, 1) }
        });
        let groups = (0..GROUPS).map(|number| {
            let id = samples::group_id(&format!("group-{number}"));
            let primary = if number == 50 { CHAINS.anchor.clone() } else { numbered(number, 2) };
            let attestation = Attestation::X509Ca(X509Anchors { primary, secondary: None });
            Enrollment { attestation, ..samples::enrollment(id, 1) }
        });
        let all: Vec<Enrollment> = individuals.chain(groups).collect();
        for some in all.chunks(PER_COMMIT) {
            let changes = some.iter().map(|it| Change::PutEnrollment(Box::new(it.clone()))).collect();
            store.commit(Commit { changes, ..Commit::default() }).await.unwrap();
        }
        store
    });
    Filled { _folder: folder, runtime, store }
});

#[divan::bench]
fn individual_enrollment_is_matched_among_100_000(bencher: Bencher) {
    let Filled { runtime, store, .. } = &*FILLED;
    let mut number = 0_usize;
    bencher.bench_local(|| {
        number = (number + 7_919) % INDIVIDUALS;
        let id = EnrollmentId::Individual(samples::reg_id(&format!("dev-{number}")));
        runtime.block_on(store.load_enrollment(&id)).unwrap().unwrap()
    });
}

#[divan::bench]
fn group_is_matched_among_100_000_and_100(bencher: Bencher) {
    let Filled { runtime, store, .. } = &*FILLED;
    let presented = Presented::parse(&chain_of(&CHAINS.plain)).unwrap();
    let id = EnrollmentId::Individual(samples::reg_id("none-of-them"));
    bencher.bench_local(|| {
        runtime.block_on(async {
            let individual = store.load_enrollment(&id).await.unwrap();
            let groups = store.find_groups(presented.references()).await.unwrap();
            assert_eq!(groups.len(), 1);
            black_box(choose(individual.as_deref(), presented.references(), &groups));
        });
    });
}

#[divan::bench(args = [2, 50])]
fn decision_among_hubs(bencher: Bencher, count: usize) {
    let view = |number: usize| HubView { hub: samples::hub(&format!("hub-{number}")), occupied: 5, reachable: true };
    let hubs: Vec<HubView> = (0..count).map(view).collect();
    let id = samples::reg_id("dev-1");
    let allocation = Some(AllocationPolicy::LowestLatency);
    let enrollment = Enrollment { allocation, ..samples::enrollment(EnrollmentId::Individual(id.clone()), 1) };
    let latency = |view: &HubView| Latency { hub: view.hub.id.clone(), milliseconds: 5 };
    let facts = ClientFacts { latencies: hubs.iter().map(latency).collect(), ..ClientFacts::default() };
    let snapshot = Snapshot {
        registration_id: &id,
        enrollment: &enrollment,
        facts: &facts,
        current: Some(&hubs[0].hub.id),
        never_opened: false,
        pin: None,
        hubs: &hubs,
        webhook: &WebhookOutcome::NotAsked,
        enrollment_changed: false,
    };
    bencher.bench(|| policy::evaluate(black_box(&snapshot)));
}

/// A twin of about 2 KiB.
fn twin() -> Twin {
    let text = |name: &str| {
        let properties: Vec<String> =
            (0..20).map(|number| format!(r#""{name}-{number:03}":"0123456789abcdef0123456789abcdef""#)).collect();
        Document::from_text(&format!("{{{}}}", properties.join(","))).unwrap()
    };
    let initial = InitialState { desired: text("desired"), ..InitialState::default() };
    let patch = TwinPatch { reported: Some(text("reported")), ..TwinPatch::default() };
    Twin::initial(&initial, NOW).patched(&patch, NOW).unwrap()
}

#[divan::bench]
fn twin_of_2_kib_is_patched(bencher: Bencher) {
    let twin = twin();
    let patch = TwinPatch {
        reported: Some(Document::from_text(r#"{"reported-005":"changed"}"#).unwrap()),
        ..TwinPatch::default()
    };
    bencher.bench(|| black_box(&twin).patched(&patch, NOW).unwrap());
}

/// The largest line: an intent with what it plants.
fn line() -> JournalLine {
    let id = samples::reg_id("dev-1");
    let intent = samples::intent(&id, samples::assign_to("hub-a"));
    JournalLine { order: Order(7), at: NOW, record: rehome::moves::JournalRecord::Intent(Box::new(intent)) }
}

#[divan::bench]
fn journal_line_is_encoded(bencher: Bencher) {
    let line = line();
    bencher.bench(|| journal_line_bytes(black_box(&line)).unwrap());
}

#[divan::bench]
fn journal_line_is_decoded(bencher: Bencher) {
    let bytes = journal_line_bytes(&line()).unwrap();
    bencher.bench(|| journal_line(black_box(&bytes)).unwrap());
}

/// Nobody is asked outside.
#[derive(Debug)]
struct NoAllocator;

impl Allocator for NoAllocator {
    fn ask(
        &self,
        _: AllocationQuestion,
    ) -> futures_util::future::BoxFuture<'_, Result<AllocationAnswer, AllocatorFault>> {
        Box::pin(std::future::pending())
    }
}

/// Actors over a store in memory that holds so many registrations.
fn directory(registrations: usize, passivate_after: Duration) -> (Runtime, Directory) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let store = Arc::new(MemoryStore::new());
    let directory = runtime.block_on(async {
        let all: Vec<usize> = (0..registrations).collect();
        for some in all.chunks(PER_COMMIT) {
            let put = |number: &usize| samples::put_registration(samples::registration(&name(*number), None));
            let changes = some.iter().map(put).collect();
            store.commit(Commit { changes, ..Commit::default() }).await.unwrap();
        }
        let surroundings = Surroundings {
            store,
            clock: Arc::new(SystemClock),
            entropy: Arc::new(SeededEntropy::new(3)),
            allocator: Arc::new(NoAllocator),
            fleet: Arc::new(Fleet::default()),
        };
        Directory::start(actors::Config { passivate_after, ..actors::Config::default() }, surroundings).unwrap()
    });
    (runtime, directory)
}

fn name(number: usize) -> String {
    format!("dev-{number}")
}

#[divan::bench]
fn device_that_is_awake_is_found_and_asked(bencher: Bencher) {
    let (runtime, directory) = directory(1, Duration::from_secs(600));
    let id = samples::reg_id(&name(0));
    bencher.bench_local(|| runtime.block_on(directory.describe(&id)).unwrap().standing.unwrap());
}

#[divan::bench]
fn device_is_woken_asked_and_passivated(bencher: Bencher) {
    let (runtime, directory) = directory(1, Duration::ZERO);
    let id = samples::reg_id(&name(0));
    bencher.bench_local(|| runtime.block_on(directory.describe(&id)).unwrap().standing.unwrap());
}

/// Two keys of a TPM, and the public-key operations that a challenge for them is made of.
struct Kind {
    name: &'static str,
    endorsement_key: &'static [u8],
    storage_root_key: &'static [u8],
    bare: [Bare; 2],
}

/// One key's share of a challenge, and nothing else.
#[derive(Clone, Copy)]
enum Bare {
    /// OAEP with a key of 256 bytes.
    Oaep,
    /// An ephemeral key and an agreement.
    Agree(&'static agreement::Algorithm, usize),
}

const KINDS: [Kind; 3] = [
    Kind {
        name: "RSA-2048, RSA-2048",
        endorsement_key: include_bytes!("../tests/data/tpm/ek-rsa.pub"),
        storage_root_key: include_bytes!("../tests/data/tpm/srk-rsa.pub"),
        bare: [Bare::Oaep, Bare::Oaep],
    },
    Kind {
        name: "P-256, P-256",
        endorsement_key: include_bytes!("../tests/data/tpm/ek-p256.pub"),
        storage_root_key: include_bytes!("../tests/data/tpm/srk-p256.pub"),
        bare: [Bare::Agree(&ECDH_P256, 32), Bare::Agree(&ECDH_P256, 32)],
    },
    Kind {
        name: "P-384, P-256",
        endorsement_key: include_bytes!("../tests/data/tpm/ek-p384.pub"),
        storage_root_key: include_bytes!("../tests/data/tpm/srk-p256.pub"),
        bare: [Bare::Agree(&ECDH_P384, 48), Bare::Agree(&ECDH_P256, 32)],
    },
];

impl Kind {
    fn presented(&self) -> tpm::Presented {
        tpm::Presented::parse(self.endorsement_key, self.storage_root_key, None, &[]).unwrap()
    }

    fn enrolled(&self) -> TpmDevice {
        TpmDevice {
            endorsement_key: TpmPublic::parse(self.endorsement_key).unwrap(),
            ek_hash: self.presented().ek_hash(),
            rules: TpmRules::default(),
        }
    }

    /// From the bytes that a device sends to those that it is sent.
    fn challenge(&self, device: &TpmDevice, number: u64) -> Vec<u8> {
        let mut bytes = [3; Draw::BYTES];
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        let presented = self.presented();
        let id = presented.registration_id();
        let enrollment = EnrollmentId::Individual(id.clone());
        let enrolled = Enrolled { id: &enrollment, version: Version(1), rule: Rule::Device(device) };
        tpm::begin(presented, enrolled, &id, b"", &Draw::new(bytes), NOW).unwrap().1.blob
    }

    /// The public-key operations of that alone. The key of a device has to be read for it, as it comes.
    fn bare(&self, entropy: &SeededEntropy) {
        for (bare, public) in self.bare.iter().zip([self.endorsement_key, self.storage_root_key]) {
            match bare {
                Bare::Oaep => {
                    let modulus = &public[public.len() - 256..];
                    let key = PublicKeyComponents { n: modulus, e: [1_u8, 0, 1].as_slice() };
                    let key: PublicEncryptingKey = key.try_into().unwrap();
                    let key = OaepPublicEncryptingKey::new(key).unwrap();
                    let mut text = vec![0; key.ciphertext_size()];
                    black_box(key.encrypt(&OAEP_SHA256_MGF1SHA256, &[7; 32], &mut text, Some(b"IDENTITY\0")).unwrap());
                }
                Bare::Agree(algorithm, size) => {
                    let mut scalar = vec![0; *size];
                    entropy.fill(&mut scalar);
                    // Below the curve's order.
                    scalar[0] = 1;
                    let ephemeral = PrivateKey::from_private_key(algorithm, &scalar).unwrap();
                    black_box(ephemeral.compute_public_key().unwrap());
                    // Both coordinates stand at the end of the area, each behind its size.
                    let (x, y) = (public.len() - 2 * size - 2, public.len() - size);
                    let point = [&[4], &public[x..x + size], &public[y..]].concat();
                    let point = UnparsedPublicKey::new(algorithm, point);
                    agreement::agree(&ephemeral, point, "no key", |secret| {
                        black_box(secret);
                        Ok(())
                    })
                    .unwrap();
                }
            }
        }
    }
}

#[divan::bench(args = [0, 1, 2])]
fn tpm_challenge_is_made(bencher: Bencher, kind: usize) {
    let device = KINDS[kind].enrolled();
    let mut number = 0;
    bencher.bench_local(|| {
        number += 1;
        KINDS[kind].challenge(&device, number)
    });
}

#[divan::bench(args = [0, 1, 2])]
fn tpm_challenge_bare_cryptography(bencher: Bencher, kind: usize) {
    let entropy = SeededEntropy::new(5);
    bencher.bench_local(|| KINDS[kind].bare(&entropy));
}

fn median(mut numbers: Vec<f64>) -> (f64, f64, f64) {
    numbers.sort_by(f64::total_cmp);
    (numbers[numbers.len() / 2], numbers[0], numbers[numbers.len() - 1])
}

/// Both sides in turns, so that a machine that grows slower slows both. Answers whether all stay within twice the bare
/// cryptography.
fn challenge_ratios() -> bool {
    const EACH: u64 = 200;
    let mut within = true;
    println!();
    for kind in &KINDS {
        let (device, entropy) = (kind.enrolled(), SeededEntropy::new(5));
        let (mut ratios, mut whole, mut bare) = (Vec::new(), Vec::new(), Vec::new());
        for turn in 0..TURNS as u64 {
            let began = Instant::now();
            for number in 0..EACH {
                black_box(kind.challenge(&device, turn * EACH + number));
            }
            let challenges = began.elapsed().as_secs_f64() / EACH as f64;
            let began = Instant::now();
            for _ in 0..EACH {
                kind.bare(&entropy);
            }
            let cryptography = began.elapsed().as_secs_f64() / EACH as f64;
            ratios.push(challenges / cryptography);
            whole.push(challenges * 1e6);
            bare.push(cryptography * 1e6);
        }
        let (ratio, least, most) = median(ratios);
        println!(
            "a TPM challenge ({}): {:.1} µs; its public-key operations alone: {:.1} µs; ratio {ratio:.2} ({least:.2}-{most:.2}, {TURNS} turns)",
            kind.name,
            median(whole).0,
            median(bare).0,
        );
        within &= ratio <= 2.0;
    }
    within
}

fn resident_bytes() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let kib =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse::<f64>().ok());
    kib.map(|kib| kib * 1024.0)
}

fn actor_memory() {
    let (runtime, directory) = directory(ACTORS, Duration::from_secs(600));
    let before = resident_bytes();
    runtime.block_on(async {
        for number in 0..ACTORS {
            directory.describe(&samples::reg_id(&name(number))).await.unwrap();
        }
    });
    let after = resident_bytes();
    match before.zip(after) {
        Some((before, after)) => println!(
            "{} actors awake: {:.0} bytes of memory each, registration included",
            directory.awake(),
            (after - before) / ACTORS as f64
        ),
        None => println!("this system does not tell how much memory is in use"),
    }
}
