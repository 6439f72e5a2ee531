//! Every bound of the service in one place, each with the argument for its number.

use std::time::Duration;

/// An encrypted key: 16 to 64 bytes, a nonce and a tag, and room for another cipher.
pub const SEALED_KEY_BYTES_MAX: usize = 256;
/// Keys delivered through a TPM that a hub lets in at once. Two do as long as answers arrive; the rest is for answers that
/// were lost one after the other.
pub const DELIVERED_KEYS_MAX: usize = 8;
/// What an activation blob can have at most: two secrets for RSA-4096, a wrapped key, its public area and a resource of
/// some 500 bytes; twice that.
pub const TPM_BLOB_BYTES_MAX: usize = 4096;

/// Registration and group ids (reference/dps.md §1.1).
pub const REGISTRATION_ID_CHARS_MAX: usize = 128;
/// Device ids in a hub (reference/dps.md §8.1).
pub const DEVICE_ID_CHARS_MAX: usize = 128;
/// A DNS label is at most 63; one more would break nothing, so the round number.
pub const HUB_ID_CHARS_MAX: usize = 64;
/// Room for a UUID with decoration.
pub const REQUEST_ID_CHARS_MAX: usize = 64;

/// One message on the wire; DPS allows 96 KB (reference/dps.md §9). A twin is at most 72 KiB, so everything fits.
pub const MESSAGE_BYTES_MAX: usize = 256 * 1024;
/// A device's custom payload, and the webhook's (DPS's message limit less room for the rest).
pub const PAYLOAD_BYTES_MAX: usize = 64 * 1024;

/// Certificates a caller may present: a leaf, four intermediates and a root.
pub const CHAIN_CERTIFICATES_MAX: usize = 6;
/// Intermediates between leaf and trust anchor (DESIGN 8).
pub const CHAIN_INTERMEDIATES_MAX: usize = 4;
/// One certificate's DER. Real device certificates are 0.5–2 KiB; RSA-8192 with many names stays below.
pub const CERTIFICATE_BYTES_MAX: usize = 16 * 1024;

/// One `TPM2B_PUBLIC`. An RSA-4096 endorsement key has 572 bytes; the round number above it.
pub const TPM_PUBLIC_BYTES_MAX: usize = 1024;
/// The model in an EK certificate; the longest known has some twenty characters.
pub const TPM_MODEL_BYTES_MAX: usize = 64;
/// What goes with a credential to the device in clear text for it: the name of its hub. A TPM's buffers hold 1024.
pub const TPM_USER_DATA_BYTES_MAX: usize = 512;
/// A `TPMS_ATTEST` with eight banks of registers has some 300 bytes; a signature by RSA-4096 has 518.
pub const TPM_QUOTE_BYTES_MAX: usize = 1024;
/// Makes of TPMs that a group accepts: the TCG's registry has some forty manufacturers, few of whom sell TPMs.
pub const TPM_MAKES_MAX: usize = 32;
/// A PC's TPM has 24 registers.
pub const PCR_INDEX_MAX: u8 = 23;
/// Values that a register may hold: a fleet in the middle of a firmware roll-out has a handful.
pub const PCR_VALUES_MAX: usize = 32;
/// A token in text: a host name of 253 and an id of 128 characters, each encoded as three, and room for the rest.
pub const TOKEN_BYTES_MAX: usize = 2048;
/// HMAC-SHA256 gains nothing from more than its block, and a TPM takes no more; less than 16 bytes can be guessed.
pub const TOKEN_KEY_BYTES_MIN: usize = 16;
pub const TOKEN_KEY_BYTES_MAX: usize = 64;
/// Groups that devices belong to by a key made of the group's: a token does not say which, so all of them are tried, two
/// keys each, some 2 microseconds a key (reference/dps.md §9).
pub const KEY_GROUPS_MAX: usize = 100;
/// A token for a registration by a symmetric key: the longest that known clients make is a day.
pub const KEY_TOKEN_LIFETIME_MAX: Duration = Duration::from_secs(24 * 3600);
/// A token for a hub is made once a day at most; one that was stolen is worth no longer than that.
pub const HUB_TOKEN_LIFETIME_MAX: Duration = Duration::from_secs(24 * 3600);
/// A token that answers a TPM's challenge: the longest that known clients with a TPM make is a day (reference/dps.md §5.1). The
/// challenge whose key signs it ends long before.
pub const TOKEN_LIFETIME_MAX: Duration = Duration::from_secs(24 * 3600);
/// A token of a shared access policy: SDKs make them for an hour, people who make one by hand for a day at most.
pub const POLICY_TOKEN_LIFETIME_MAX: Duration = Duration::from_secs(24 * 3600);
/// Policies of the service, and of hubs: one for each back end and its successor.
pub const POLICIES_MAX: usize = 64;
/// The file of the policies: each has some 300 bytes, and room for notes.
pub const POLICIES_BYTES_MAX: usize = 64 * 1024;
/// Entries of one bulk operation (reference/dps.md §9).
pub const BULK_MAX: usize = 10;
/// Devices of one bulk operation at a hub (reference/dps.md §8.1).
pub const BULK_DEVICES_MAX: usize = 100;
/// A page over HTTP, in bytes of JSON: a thousand rows of usual size.
pub const ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// Text of a query.
pub const QUERY_CHARS_MAX: usize = 8 * 1024;
/// How far a device's clock may run ahead; more is not drift but a clock that was never set.
pub const CLOCK_SKEW: Duration = Duration::from_secs(300);
/// How long a TPM challenge can be answered (DESIGN 8): a slow TPM with a slow link needs seconds.
pub const CHALLENGE_TTL: Duration = Duration::from_secs(120);

/// Twin sections, counted as reference/dps.md §8.4 does.
pub const TAGS_BYTES_MAX: usize = 8 * 1024;
pub const DESIRED_BYTES_MAX: usize = 32 * 1024;
pub const REPORTED_BYTES_MAX: usize = 32 * 1024;
/// Levels of objects (and arrays) below a section's root.
pub const TWIN_DEPTH_MAX: usize = 10;
pub const TWIN_KEY_BYTES_MAX: usize = 1024;
pub const TWIN_STRING_BYTES_MAX: usize = 4 * 1024;
/// Integers outside ±(2^52 − 1) lose digits in common JSON readers (reference/dps.md §8.4).
pub const TWIN_INTEGER_MAX: i64 = 4_503_599_627_370_495;
pub const TWIN_INTEGER_MIN: i64 = -4_503_599_627_370_496;

/// Hubs an enrollment may name, and hubs a service may link (reference/dps.md §9).
pub const HUBS_MAX: usize = 50;
pub const HUB_WEIGHT_MAX: u32 = 1000;
pub const HOST_NAME_CHARS_MAX: usize = 253;
/// Latencies a device may report: one for each linked hub.
pub const LATENCIES_MAX: usize = HUBS_MAX;

/// Rows on a page when the caller does not say, and at most.
pub const PAGE_SIZE_DEFAULT: u32 = 100;
pub const PAGE_SIZE_MAX: u32 = 1000;

/// Enrollments of one import: a commit's cost is its pages by then, and with a certificate each they fit a message.
pub const IMPORT_MAX: usize = 256;

/// Moves that a registration keeps in its history; late twins do not count (DESIGN 7).
pub const HISTORY_ENTRIES_MAX: usize = 32;
/// Free text of operators and hubs that is kept (pin reason, status reason), as in reference/dps.md §8.1.
pub const REASON_CHARS_MAX: usize = 128;

/// What a device may say of its SDK and version.
pub const SDK_NAME_CHARS_MAX: usize = 64;
pub const SDK_VERSION_CHARS_MAX: usize = 32;
pub const API_VERSION_CHARS_MAX: usize = 32;

/// How long `wait` waits for an old hub when the enrollment does not say.
pub const UNREACHABLE_WAIT_DEFAULT: Duration = Duration::from_secs(15 * 60);
/// The longest deadline an enrollment may ask for.
pub const UNREACHABLE_WAIT_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// The allocation webhook (DESIGN 3): one try, no redirects.
pub const WEBHOOK_TIMEOUT: Duration = Duration::from_secs(10);
pub const WEBHOOK_BYTES_MAX: usize = 64 * 1024;
pub const WEBHOOK_URL_CHARS_MAX: usize = 2048;

/// How long a target hub may keep a move (and with it the sealed twin) waiting before the move is given up. Short,
/// since the device is without a writable twin meanwhile, and its next registration chooses among the hubs that answer.
pub const TARGET_WAIT: Duration = Duration::from_secs(30);
/// When an old hub counts as away, unless the configuration says otherwise, and the rules `last_known` and `reset` pass it by: this many tries have failed, and
/// this long has passed since the move began. A hub that is restarted or a path that is switched is back within half a
/// minute, and passing it by may cost writes their place in the live twin; a device that waits longer is without a hub.
pub const BYPASS_TRIES_MIN: u32 = 3;
pub const BYPASS_AFTER: Duration = Duration::from_secs(30);
/// Bypassed homes that a device's history keeps beyond its bound. With as many left behind, nobody is looking after them:
/// the device waits for its hub then, until an operator has removed some.
pub const LATE_TWINS_MAX: usize = 32;
/// First and longest pause between two tries of a hub call.
pub const RETRY_FIRST: Duration = Duration::from_millis(200);
pub const RETRY_MAX: Duration = Duration::from_secs(30);
/// Audit entries that are kept; the oldest go first. At 200 bytes each a million are some 200 MB.
pub const AUDIT_ENTRIES_MAX: u64 = 1_000_000;

/// From this size on a file records with each group of commits what opening it after a kill needs. A smaller one is read
/// whole by then in less than half a second; a larger one would keep its service from starting for seconds.
pub const QUICK_REPAIR_FROM_BYTES: u64 = 256 * 1024 * 1024;

/// Rows on a page of a hub's change feed: with the largest twins some 10 MiB, with usual ones a quarter of one.
pub const FEED_ROWS_MAX: u32 = 128;
/// How often a hub's feed is asked when the configuration does not say (DESIGN 7).
pub const FEED_EVERY_DEFAULT: Duration = Duration::from_secs(60);
/// How long a hub accepts writes after it gave out the ticket of its last renewal (DESIGN 7).
pub const LEASE_FOR: Duration = Duration::from_secs(30);
/// How often a lease is renewed: two renewals may be lost before the hub stops.
pub const LEASE_RENEWED_EVERY: Duration = Duration::from_secs(10);
/// Waited beyond a lease before it counts as over: two clocks that drift apart by a thousandth differ by 30 ms in 30 s,
/// so this is generous.
pub const LEASE_MARGIN: Duration = Duration::from_secs(2);
/// Tickets a hub keeps in mind: those of renewals that may still be under way.
pub const LEASE_TICKETS_MAX: usize = 8;

/// Versions that a twin skips when writes of it may have been lost: a write a second for twelve days. What JSON readers
/// take exactly (2^53) holds a billion such skips.
pub const VERSIONS_SKIPPED: u64 = 1 << 20;
/// Devices of a restored hub that are set right at once: their commits share syncs, and each holds two states.
pub const RECONCILED_AT_ONCE: usize = 32;
