//! Bitrix24.

#![deny(clippy::wildcard_enum_match_arm)]

pub mod command;
pub mod wire;

#[cfg(test)]
mod testing;

use sha2::{Digest, Sha256};

/// SHA-256 as lower-case hex: for keys and fingerprints, where equality is all that counts.
fn sha256_hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
