//! A server that is large before the bench begins: its devices were registered by the service itself, in this process,
//! without connections. What lies on the disk afterwards is what a service leaves that has registered them one by one.
//!
//! Certificates and keys are kept beside the data, in one file, so that a later run can use any of the devices.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail, ensure};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

use crate::ambient::SystemEntropy;
use crate::cli::output::Output;
use crate::client::Server;
use crate::compose::Running;
use crate::config::Config;
use crate::domain::{Document, EnrollmentId, GroupId, RegistrationId, ReprovisionPolicy};
use crate::pki::{Authority, Issued};

use super::devices::{self, BenchDevice, Hubs};

/// Devices whose certificates are made in one go while the ones before them register.
const PART: usize = 4_000;
/// Registrations under way at once: four groups of the store's writer.
const AT_ONCE: usize = 1_024;
/// Certificates and keys of the devices, in the folder of the bench's own server.
const FILE: &str = "filled.devices";
const GROUP: &str = "filled";

/// Devices that a server has.
#[derive(Clone)]
pub struct Filled {
    bytes: Arc<Zeroizing<Vec<u8>>>,
    /// Where each device's certificate begins.
    places: Arc<Vec<usize>>,
}

impl std::fmt::Debug for Filled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Filled({} devices)", self.places.len())
    }
}

/// Names that do not follow the order in which the devices come, as those of a fleet don't.
fn name(number: usize) -> String {
    // An odd factor: no two of 2^32 numbers come to the same.
    format!("{GROUP}-{:08x}", u32::try_from(number).unwrap_or(u32::MAX).wrapping_mul(0x9e37_79b1))
}

/// Half of the devices live at each hub.
fn is_at_second(number: usize) -> bool {
    !number.is_multiple_of(2)
}

/// Registers so many devices in the folder of a server that does not run, or finds those that are there.
pub async fn fill(folder: &Path, count: usize, output: Output) -> anyhow::Result<Filled> {
    let path = folder.join(FILE);
    if path.exists() {
        let filled = Filled::read(&path)?;
        ensure!(filled.places.len() == count, "{} has {} devices", folder.display(), filled.places.len());
        return Ok(filled);
    }
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut config = Config::defaults()?;
    (config.data_dir, config.certs_dir) = (folder.join("data"), folder.join("certs"));
    (config.listen, config.metrics_listen) = (([127, 0, 0, 1], 0).into(), None);
    let [first, second] = config.hubs.initial.as_slice() else { bail!("the devices live at two hubs") };
    let hubs = Hubs { first: first.id.clone(), second: second.id.clone() };
    let running = Running::start(&config).await?;
    let made = register_all(&running, &hubs, &path, count, output).await;
    running.stop().await.context("the service that registered the devices did not stop")?;
    made?;
    Filled::read(&path)
}

async fn register_all(running: &Running, hubs: &Hubs, path: &Path, count: usize, output: Output) -> anyhow::Result<()> {
    let authority = Arc::new(devices::authority(GROUP)?);
    let id = EnrollmentId::Group(GroupId::parse(GROUP)?);
    let certificate = authority.certificate().to_vec();
    let draft = devices::draft(id, certificate, ReprovisionPolicy::Migrate, Document::default(), hubs);
    running.enroll(draft).await?;
    // Named when it is whole.
    let unfinished = path.with_extension("unfinished");
    let mut file = BufWriter::new(private(&unfinished)?);
    let mut progress = output.progress();
    let mut made = issue(&authority, 0..PART.min(count)).await?;
    let mut registered = 0;
    while registered < count {
        let (begin, end) = (registered + made.len(), (registered + made.len() + PART).min(count));
        let next = issue(&authority, begin..end);
        for (_, issued) in &made {
            write(&mut file, issued)?;
        }
        let parts = made.iter().enumerate().map(|(place, (id, issued))| {
            let chain = issued.chain().iter().map(|der| der.to_vec()).collect();
            running.register(id.clone(), chain, hubs.facts(is_at_second(registered + place)))
        });
        let register = stream::iter(parts).buffer_unordered(AT_ONCE).try_collect::<()>();
        let (next, done) = tokio::join!(next, register);
        done?;
        registered += made.len();
        made = next?;
        progress.update(&format!("filling the server: {registered} of {count} devices"));
    }
    file.into_inner().context("cannot write the devices' keys")?.sync_all()?;
    std::fs::rename(&unfinished, path).with_context(|| format!("cannot make {}", path.display()))
}

/// Certificates with their keys, made on all cores.
async fn issue(
    authority: &Arc<Authority>,
    numbers: std::ops::Range<usize>,
) -> anyhow::Result<Vec<(RegistrationId, Issued)>> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let each = numbers.len().div_ceil(threads).max(1);
    let all: Vec<usize> = numbers.collect();
    let parts = all.chunks(each).map(|numbers| {
        let (authority, numbers) = (authority.clone(), numbers.to_vec());
        tokio::task::spawn_blocking(move || {
            let entropy = SystemEntropy::new();
            let issue = |number: usize| devices::issue(&name(number), &authority, &entropy);
            numbers.into_iter().map(issue).collect::<anyhow::Result<Vec<_>>>()
        })
    });
    let parts: Vec<_> = parts.collect();
    let mut made = Vec::with_capacity(all.len());
    for part in parts {
        made.extend(part.await.context("making certificates broke off")??);
    }
    Ok(made)
}

fn private(path: &PathBuf) -> anyhow::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(path).with_context(|| format!("cannot make {}", path.display()))
}

/// A certificate and a key, each behind its length.
fn write(file: &mut impl std::io::Write, issued: &Issued) -> anyhow::Result<()> {
    let leaf = issued.chain().first().context("there is no certificate")?;
    let key = issued.key();
    for part in [leaf.as_ref(), key.secret_der()] {
        file.write_all(&u16::try_from(part.len()).context("it is too long")?.to_be_bytes())?;
        file.write_all(part)?;
    }
    Ok(())
}

impl Filled {
    fn read(path: &Path) -> anyhow::Result<Self> {
        let mut bytes = Zeroizing::new(Vec::new());
        let mut file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        file.read_to_end(&mut bytes).with_context(|| format!("cannot read {}", path.display()))?;
        let (mut places, mut at) = (Vec::new(), 0);
        while at < bytes.len() {
            places.push(at);
            let (_, key) = part(&bytes, at).context("a device's certificate is cut off")?;
            (_, at) = part(&bytes, key).context("a device's key is cut off")?;
        }
        Ok(Self { bytes: Arc::new(bytes), places: Arc::new(places) })
    }

    /// So many of them, spread evenly, ready to connect to the server.
    pub fn some(&self, count: usize, server: &Server, output: Output) -> anyhow::Result<Vec<Arc<BenchDevice>>> {
        let count = count.min(self.places.len());
        let mut progress = output.progress();
        let device = |number: usize| {
            let (leaf, key) =
                self.places.get(number).and_then(|at| part(&self.bytes, *at)).context("no certificate")?;
            let (key, _) = part(&self.bytes, key).context("no key")?;
            let key = || PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.to_vec()));
            let id = RegistrationId::parse(&name(number))?;
            let device = BenchDevice::new(id, vec![CertificateDer::from(leaf.to_vec())], &key, server)?;
            device.lives_at_second(is_at_second(number));
            Ok::<_, anyhow::Error>(Arc::new(device))
        };
        let mut some = Vec::with_capacity(count);
        for place in 0..count {
            some.push(device(spread(place, count, self.places.len()))?);
            if some.len().is_multiple_of(1_000) {
                progress.update(&format!("reading devices: {} of {count}", some.len()));
            }
        }
        Ok(some)
    }
}

/// The number of the device at a place, when `count` are spread over `all`.
fn spread(place: usize, count: usize, all: usize) -> usize {
    // Neither of them has more than seven digits.
    place * all / count.max(1)
}

/// The bytes behind the length at a place, and the place after them.
fn part(bytes: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let length = usize::from(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?));
    let begin = at.checked_add(2)?;
    let end = begin.checked_add(length)?;
    Some((bytes.get(begin..end)?, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_found_behind_their_lengths() {
        let bytes = [0, 2, 7, 8, 0, 0, 0, 1, 9];
        for (at, expected) in [
            (0, Some((&[7, 8][..], 4))),
            (4, Some((&[][..], 6))),
            (6, Some((&[9][..], 9))),
            (7, None),
            (8, None),
            (9, None),
            (100, None),
        ] {
            assert_eq!(part(&bytes, at), expected, "{at}");
        }
    }

    #[test]
    fn devices_are_spread_over_all() {
        let some = |count, all| (0..count).map(|place| spread(place, count, all)).collect::<Vec<_>>();
        assert_eq!(some(4, 8), [0, 2, 4, 6]);
        assert_eq!(some(3, 10), [0, 3, 6]);
        assert_eq!(some(3, 3), [0, 1, 2]);
        assert_eq!(some(1, 9_999_999), [0]);
    }
}
