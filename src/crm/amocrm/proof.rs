//! Signatures of amoCRM: the token of a Salesbot step (HS512) and the word that an integration was disabled (HMAC).
//!
//! The key of both is the integration's secret as text. The algorithm is pinned: amoCRM signs the tokens of browsers with
//! the same key and HS256, and such a token is no bot's (protocol reference, sections 1.10 and 3.3, read 2026-11).

use hmac::{Hmac, KeyInit as _, Mac as _};
use jsonwebtoken::crypto::{CryptoProvider, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{ErrorKind, new_error};
use jsonwebtoken::signature::{self, Verifier};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use sha2::{Sha256, Sha512};
use subtle::ConstantTimeEq as _;

/// The one algorithm that is verified here. The crate's own providers bring RSA and C code that nothing needs.
static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: |_, _| Err(new_error(ErrorKind::InvalidAlgorithm)),
    verifier_factory: |algorithm, key| {
        if *algorithm != Algorithm::HS512 {
            return Err(new_error(ErrorKind::InvalidAlgorithm));
        }
        Ok(Box::new(Hs512(key.try_get_as_bytes()?.to_vec())))
    },
    key_utils: KeyUtils::new_unimplemented(),
};

struct Hs512(Vec<u8>);

impl Verifier<Vec<u8>> for Hs512 {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), signature::Error> {
        let mut mac = Hmac::<Sha512>::new_from_slice(&self.0).map_err(signature::Error::from_source)?;
        mac.update(message);
        mac.verify_slice(signature).map_err(signature::Error::from_source)
    }
}

impl JwtVerifier for Hs512 {
    fn algorithm(&self) -> Algorithm {
        Algorithm::HS512
    }
}

/// The claims of a token that one of the secrets has signed with HS512; times are not judged here.
pub(super) fn claims(secrets: &[SecretString], token: &str) -> Option<Value> {
    // A second call finds it installed.
    let _ = PROVIDER.install_default();
    let mut rules = Validation::new(Algorithm::HS512);
    rules.required_spec_claims.clear();
    // By our clock, and by the caller.
    rules.validate_exp = false;
    rules.validate_aud = false;
    let signed = |secret: &SecretString| {
        let key = DecodingKey::from_secret(secret.expose_secret().as_bytes());
        jsonwebtoken::decode::<Value>(token, &key, &rules).ok().map(|token| token.claims)
    };
    secrets.iter().filter(|secret| !secret.expose_secret().is_empty()).find_map(signed)
}

/// True when one of the secrets signed that the integration was disabled in the account.
pub(super) fn signs_removal(secrets: &[SecretString], client_id: &str, account_id: &str, signature: &str) -> bool {
    let text = format!("{client_id}|{account_id}");
    let expected = |secret: &SecretString| {
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose_secret().as_bytes()).ok()?;
        mac.update(text.as_bytes());
        Some(mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect::<String>())
    };
    let fits = |secret: &SecretString| {
        expected(secret).is_some_and(|expected| bool::from(expected.as_bytes().ct_eq(signature.as_bytes())))
    };
    secrets.iter().filter(|secret| !secret.expose_secret().is_empty()).any(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: &str = "1f2e3d4c-5b6a-4798-8a9b-0c1d2e3f4a5b";
    const SECRET: &str = "Zk3vQ9rT1xWmY7pL5sN8dB2hJ6gF4cA0eU1iO9tR7yK3mV5nX8bC2zD4wS6qP0la";
    /// The vectors of the protocol reference, sections 2 and 3.3.
    const BOT: &str = "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzUxMiJ9.eyJpc3MiOiJodHRwczovL2FjbWUuYW1vY3JtLnJ1IiwiYXVkIjoiaHR0cHM6Ly9jb25uZWN0b3IuZXhhbXBsZSIsImlhdCI6MTc3MDExMDAwMCwibmJmIjoxNzcwMTEwMDAwLCJleHAiOjE3NzAxMTAzMDAsImFjY291bnRfaWQiOjMxNDE1OTI2LCJzdWJkb21haW4iOiJhY21lIiwiY2xpZW50X3V1aWQiOiIxZjJlM2Q0Yy01YjZhLTQ3OTgtOGE5Yi0wYzFkMmUzZjRhNWIiLCJib3RfdHlwZSI6InNhbGVzYm90IiwiZW50aXR5X3R5cGUiOiIyIiwiZW50aXR5X2lkIjo0MDQwMTYzNX0.MkC8jOMoDvJPdnA3ftPvCch-hFSYx9tFRBh4aGCqlc_JNvVlb3uEDJcUf47ti9fB36BPQSnrHFQuB445NngZXQ";
    const BROWSER: &str = "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJodHRwczovL2FjbWUuYW1vY3JtLnJ1IiwiYXVkIjoiaHR0cHM6Ly9jb25uZWN0b3IuZXhhbXBsZSIsImp0aSI6IjhkN2M2YjVhLTRmM2UtNGQyYy05YjFhLTBmMWUyZDNjNGI1YSIsImlhdCI6MTc3MDExMDAwMCwibmJmIjoxNzcwMTEwMDAwLCJleHAiOjE3NzAxMTE4MDAsImFjY291bnRfaWQiOjMxNDE1OTI2LCJzdWJkb21haW4iOiJhY21lIiwiY2xpZW50X3V1aWQiOiIxZjJlM2Q0Yy01YjZhLTQ3OTgtOGE5Yi0wYzFkMmUzZjRhNWIiLCJ1c2VyX2lkIjoyNzE4MjgxLCJpc19hZG1pbiI6dHJ1ZX0.iJepvm-noWwrzwPk8CGX4ESIMthASFNoCQh1wCJT1OM";

    fn secrets(texts: &[&str]) -> Vec<SecretString> {
        texts.iter().map(|text| SecretString::from((*text).to_owned())).collect()
    }

    #[test]
    fn the_published_bot_token_is_believed() {
        let claims = claims(&secrets(&[SECRET]), BOT).unwrap();
        assert_eq!(claims["account_id"], 31_415_926);
        assert_eq!(claims["entity_type"], "2");
        assert!(super::claims(&secrets(&["new", SECRET]), BOT).is_some(), "the secret before the last");
    }

    #[test]
    fn anything_else_is_not() {
        let known = secrets(&[SECRET]);
        let (body, _) = BOT.rsplit_once('.').unwrap();
        let payload = BOT.split('.').nth(1).unwrap();
        let unsigned = format!("eyJ0eXAiOiJKV1QiLCJhbGciOiJub25lIn0.{payload}.");
        let forged = format!("{body}.{}", "A".repeat(86));
        for token in [BROWSER, &unsigned, &forged, body, &format!("{body}."), "", "..", "x"] {
            assert!(claims(&known, token).is_none(), "{token}");
        }
        assert!(claims(&secrets(&["other"]), BOT).is_none());
        assert!(claims(&secrets(&[""]), BOT).is_none());
        assert!(claims(&[], BOT).is_none());
    }

    #[test]
    fn the_published_removal_is_believed() {
        let good = "4e1f15eed92496cde83df9e8acf352b9b4bf70e7925c20358a74954c092f45dd";
        let known = secrets(&[SECRET]);
        assert!(signs_removal(&known, CLIENT, "31415926", good));
        assert!(!signs_removal(&known, CLIENT, "31415927", good));
        let without_bar = "3c14461f98211fec6cd66c55f99f2f4204be8323d6eed87ced450a266887fbe3";
        for bad in [without_bar, "", "4E1F", &good.to_uppercase(), good.get(..63).unwrap()] {
            assert!(!signs_removal(&known, CLIENT, "31415926", bad), "{bad}");
        }
        assert!(!signs_removal(&secrets(&[""]), CLIENT, "31415926", good));
    }
}
