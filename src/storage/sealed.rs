//! Encryption at rest: AES-256-GCM, a fresh random nonce per value, and the id of the key in front, so that keys can
//! be changed row by row.
//!
//! Shape of a sealed value: `s1.<key id>.<base64 of nonce and ciphertext>`. The place where the value lives (table,
//! column, row) is authenticated with it, so that a sealed value copied to another row does not open there.

use aes_gcm::aead::{Aead, Generate, Payload};
use aes_gcm::{Aes256Gcm, KeyInit, Nonce};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::StorageError;

/// Length of the nonce in bytes.
const NONCE: usize = 12;

/// Seals and opens values. Has no `Debug`: it holds keys.
#[derive(Clone)]
pub struct Sealer {
    /// The first key seals; all of them open.
    keys: Vec<(String, Aes256Gcm)>,
}

impl Sealer {
    /// Takes the master key and the ones before it, each base64 of 32 bytes.
    ///
    /// # Errors
    /// [`StorageError::Config`] when a key is not base64 of exactly 32 bytes.
    pub fn new(master: &str, previous: &[String]) -> Result<Self, StorageError> {
        let mut keys = Vec::new();
        for text in std::iter::once(master).chain(previous.iter().map(String::as_str)) {
            let Some((bytes, cipher)) = cipher(text) else {
                return Err(StorageError::Config(
                    "security.master_key must be base64 of 32 bytes (make one with: openssl rand -base64 32)"
                        .to_owned(),
                ));
            };
            keys.push((key_id(&bytes), cipher));
        }
        Ok(Self { keys })
    }

    /// True for what [`Sealer::new`] takes as a key.
    #[must_use]
    pub fn is_key(text: &str) -> bool {
        cipher(text).is_some()
    }

    /// Seals a text that will live at `place` (`table.column:row`).
    pub fn seal(&self, place: &str, text: &str) -> Result<String, StorageError> {
        let (id, cipher) = self.keys.first().ok_or_else(|| StorageError::Config("no master key".to_owned()))?;
        let nonce = Nonce::generate();
        let payload = Payload { msg: text.as_bytes(), aad: place.as_bytes() };
        let sealed = cipher.encrypt(&nonce, payload).map_err(|e| StorageError::Broken(format!("sealing: {e}")))?;
        let mut bytes = nonce.to_vec();
        bytes.extend(sealed);
        Ok(format!("s1.{id}.{}", STANDARD_NO_PAD.encode(bytes)))
    }

    /// Opens what [`Sealer::seal`] made for the same place.
    pub(super) fn open(&self, place: &str, sealed: &str) -> Result<String, StorageError> {
        let broken = |what: &str| StorageError::Broken(format!("{place}: {what}"));
        let mut parts = sealed.splitn(3, '.');
        let (Some("s1"), Some(id), Some(body)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(broken("not a sealed value"));
        };
        let Some((_, cipher)) = self.keys.iter().find(|(known, _)| known == id) else {
            return Err(broken("sealed with a key that is not configured (security.previous_keys)"));
        };
        let bytes = STANDARD_NO_PAD.decode(body).map_err(|_damaged| broken("damaged"))?;
        let (nonce, ciphertext) = bytes.split_at_checked(NONCE).ok_or_else(|| broken("damaged"))?;
        let nonce: [u8; NONCE] = nonce.try_into().map_err(|_never| broken("damaged"))?;
        let payload = Payload { msg: ciphertext, aad: place.as_bytes() };
        let plain = cipher.decrypt(&nonce.into(), payload).map_err(|_forged| broken("does not open here"))?;
        String::from_utf8(plain).map_err(|_damaged| broken("damaged"))
    }
}

fn cipher(text: &str) -> Option<(Zeroizing<Vec<u8>>, Aes256Gcm)> {
    let bytes = Zeroizing::new(STANDARD.decode(text.trim()).ok()?);
    let cipher = Aes256Gcm::new_from_slice(&bytes).ok()?;
    Some((bytes, cipher))
}

/// Names a key without telling anything of it: eight hex digits of a hash with a prefix of its own.
fn key_id(key: &[u8]) -> String {
    let digest = Sha256::new().chain_update(b"mostik key id").chain_update(key).finalize();
    digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    const NEW: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";

    #[test]
    fn a_value_opens_only_where_it_was_sealed() {
        let sealer = Sealer::new(OLD, &[]).unwrap();
        let sealed = sealer.seal("channels.credentials:chan_1", "secret").unwrap();
        assert!(!sealed.contains("secret"));
        assert_ne!(sealed, sealer.seal("channels.credentials:chan_1", "secret").unwrap());
        assert_eq!(sealer.open("channels.credentials:chan_1", &sealed).unwrap(), "secret");
        assert!(sealer.open("channels.credentials:chan_2", &sealed).is_err());
    }

    #[test]
    fn values_of_the_previous_key_still_open() {
        let sealed = Sealer::new(OLD, &[]).unwrap().seal("p", "secret").unwrap();
        assert_eq!(Sealer::new(NEW, &[OLD.to_owned()]).unwrap().open("p", &sealed).unwrap(), "secret");
        assert!(Sealer::new(NEW, &[]).unwrap().open("p", &sealed).is_err());
    }

    #[test]
    fn damage_is_an_error_not_a_panic() {
        let sealer = Sealer::new(OLD, &[]).unwrap();
        let sealed = sealer.seal("p", "secret").unwrap();
        for bad in ["", "s1", "s1.x.y", "plain text", sealed.get(..sealed.len() - 4).unwrap()] {
            assert!(sealer.open("p", bad).is_err(), "{bad}");
        }
        assert!(Sealer::new("c2hvcnQ=", &[]).is_err());
        assert!(Sealer::new("not base64 at all", &[]).is_err());
    }
}
