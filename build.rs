//! Compiles `proto/` with a compiler written in Rust, so that building needs no `protoc`.

use std::error::Error;
use std::path::PathBuf;

use prost::Message as _;

const FILES: [&str; 12] = [
    "rehome/device/v1/registration.proto",
    "rehome/device/v1/tpm.proto",
    "rehome/hub/v1/twin.proto",
    "rehome/admin/v1/settings.proto",
    "rehome/admin/v1/tpm.proto",
    "rehome/admin/v1/symmetric_key.proto",
    "rehome/admin/v1/enrollment.proto",
    "rehome/admin/v1/group.proto",
    "rehome/admin/v1/hub.proto",
    "rehome/admin/v1/registration.proto",
    "rehome/admin/v1/audit.proto",
    "rehome/admin/v1/store.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"])?;
    // `compile_fds` does not write the descriptor set that reflection serves.
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("rehome.binpb"), descriptors.encode_to_vec())?;
    // A webhook's URL may hold a key, and keys are keys: `wire` writes their Debug by hand.
    let secrets =
        ["rehome.admin.v1.Webhook", "rehome.admin.v1.SymmetricKeyAttestation", "rehome.admin.v1.SymmetricKeys"];
    tonic_prost_build::configure().skip_debug(secrets).compile_fds(descriptors)?;
    Ok(())
}
