//! Signatures of amoCRM: the tokens of Salesbot steps (HS512) and of browsers (HS256), and the word that an integration was
//! disabled (HMAC).
//!
//! The key of all is the integration's secret as text. Each algorithm is pinned to its use: a browser's token is no bot's,
//! and the other way round (protocol reference, sections 1.10, 2 and 3.3, read 2026-11).

use hmac::{Hmac, KeyInit, Mac};
use jsonwebtoken::crypto::{CryptoProvider, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{ErrorKind, new_error};
use jsonwebtoken::signature::{self, Verifier};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use sha2::{Sha256, Sha512};
use subtle::ConstantTimeEq as _;
use url::Url;

use super::Amocrm;
use super::salesbot::StepError;
use crate::domain::time::{Millis, Timestamp};
use crate::forms::{integer, member, text_at};

/// How far the clocks of amoCRM and this machine may disagree.
const LEEWAY: Millis = Millis::minutes(1);

/// The algorithms that are verified here. The crate's own providers bring RSA and C code that nothing needs.
static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: |_, _| Err(new_error(ErrorKind::InvalidAlgorithm)),
    verifier_factory: |algorithm, key| {
        let key = key.try_get_as_bytes()?.to_vec();
        [Signer::Bot, Signer::Browser]
            .into_iter()
            .find(|signer| signer.algorithm() == *algorithm)
            .map(|signer| Box::new(Hmacs(signer, key)) as Box<dyn JwtVerifier>)
            .ok_or_else(|| new_error(ErrorKind::InvalidAlgorithm))
    },
    key_utils: KeyUtils::new_unimplemented(),
};

/// On whose behalf amoCRM signs a token; each has an algorithm of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Signer {
    /// A step of a Salesbot.
    Bot,
    /// A widget in somebody's browser.
    Browser,
}

impl Signer {
    fn algorithm(self) -> Algorithm {
        match self {
            Self::Bot => Algorithm::HS512,
            Self::Browser => Algorithm::HS256,
        }
    }

    /// Longest life of a token from its making, however late its end is said to be; bots' have none of their own.
    fn lives(self) -> Option<Millis> {
        match self {
            Self::Bot => None,
            Self::Browser => Some(Millis::hours(1)),
        }
    }
}

struct Hmacs(Signer, Vec<u8>);

impl Verifier<Vec<u8>> for Hmacs {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), signature::Error> {
        match self.0 {
            Signer::Bot => fits::<Hmac<Sha512>>(&self.1, message, signature),
            Signer::Browser => fits::<Hmac<Sha256>>(&self.1, message, signature),
        }
    }
}

fn fits<M: Mac + KeyInit>(key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), signature::Error> {
    let mut mac = <M as KeyInit>::new_from_slice(key).map_err(signature::Error::from_source)?;
    mac.update(message);
    mac.verify_slice(signature).map_err(signature::Error::from_source)
}

impl JwtVerifier for Hmacs {
    fn algorithm(&self) -> Algorithm {
        self.0.algorithm()
    }
}

impl Amocrm {
    /// The claims of a token that amoCRM made for this integration and that is good now: signature, time, audience,
    /// integration and issuer are compared, in this order.
    ///
    /// # Errors
    /// [`StepError::Unproved`] with what did not fit, for the log.
    pub(super) fn believed(&self, app: &str, signer: Signer, token: &str) -> Result<Value, StepError> {
        let unproved = StepError::Unproved;
        let keys = self.oauth.keys(app).ok_or(unproved("unknown integration"))?;
        let claims = claims(signer, &keys.secrets, token).ok_or(unproved("signature"))?;
        let now = self.clock.now();
        let moment = |key: &str| member(&claims, key).and_then(integer).map(Timestamp::from_seconds);
        if moment("exp").is_none_or(|end| end.plus(LEEWAY) <= now) {
            return Err(unproved("time"));
        }
        if moment("nbf").is_some_and(|start| start > now.plus(LEEWAY)) {
            return Err(unproved("time"));
        }
        if let Some(lives) = signer.lives()
            && moment("iat").is_none_or(|made| made.plus(lives).plus(LEEWAY) <= now)
        {
            return Err(unproved("age"));
        }
        // Compared without the port, as the vendor's own library does.
        if !is_for_us(&text_at(&claims, &["aud"]), &self.settings.public_url) {
            return Err(unproved("audience"));
        }
        let client = ["client_uuid", "client_uid"].map(|key| text_at(&claims, &[key]));
        if !client.contains(&keys.client_id) {
            return Err(unproved("integration"));
        }
        let issuer = Url::parse(&text_at(&claims, &["iss"])).ok();
        let host = issuer.as_ref().filter(|url| url.scheme() == "https").and_then(Url::host_str);
        if host.is_none_or(|host| self.hosts.place(host).is_none()) {
            return Err(unproved("issuer"));
        }
        Ok(claims)
    }
}

/// Scheme and host agree; the port does not count.
fn is_for_us(audience: &str, public_url: &str) -> bool {
    let (Ok(theirs), Ok(ours)) = (Url::parse(audience), Url::parse(public_url)) else { return false };
    theirs.scheme() == ours.scheme() && theirs.host_str().is_some() && theirs.host_str() == ours.host_str()
}

/// The number of the account that a token is of.
///
/// # Errors
/// [`StepError::Unproved`]: it names none.
pub(super) fn account_of(claims: &Value) -> Result<String, StepError> {
    let account = text_at(claims, &["account_id"]);
    let is_number = !account.is_empty() && account.bytes().all(|b| b.is_ascii_digit());
    if is_number { Ok(account) } else { Err(StepError::Unproved("account")) }
}

/// The claims of a token that one of the secrets has signed for this use; times are not judged here.
fn claims(signer: Signer, secrets: &[SecretString], token: &str) -> Option<Value> {
    // A second call finds it installed.
    let _ = PROVIDER.install_default();
    let mut rules = Validation::new(signer.algorithm());
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
        let claims = claims(Signer::Bot, &secrets(&[SECRET]), BOT).unwrap();
        assert_eq!(claims["account_id"], 31_415_926);
        assert_eq!(claims["entity_type"], "2");
        assert!(super::claims(Signer::Bot, &secrets(&["new", SECRET]), BOT).is_some(), "the secret before the last");
    }

    #[test]
    fn anything_else_is_not() {
        let known = secrets(&[SECRET]);
        let (body, _) = BOT.rsplit_once('.').unwrap();
        let payload = BOT.split('.').nth(1).unwrap();
        let unsigned = format!("eyJ0eXAiOiJKV1QiLCJhbGciOiJub25lIn0.{payload}.");
        let forged = format!("{body}.{}", "A".repeat(86));
        for token in [BROWSER, &unsigned, &forged, body, &format!("{body}."), "", "..", "x"] {
            assert!(claims(Signer::Bot, &known, token).is_none(), "{token}");
        }
        assert!(claims(Signer::Bot, &secrets(&["other"]), BOT).is_none());
        assert!(claims(Signer::Bot, &secrets(&[""]), BOT).is_none());
        assert!(claims(Signer::Bot, &[], BOT).is_none());
    }

    #[test]
    fn the_published_browser_token_is_believed_as_a_browsers_only() {
        let known = secrets(&[SECRET]);
        let claims = super::claims(Signer::Browser, &known, BROWSER).unwrap();
        assert_eq!((&claims["user_id"], &claims["is_admin"]), (&2_718_281.into(), &true.into()));
        assert!(super::claims(Signer::Browser, &known, BOT).is_none(), "a bot's token is no browser's");
        let (body, _) = BROWSER.rsplit_once('.').unwrap();
        for token in [format!("{body}."), format!("{body}.{}", "A".repeat(43)), body.to_owned(), String::new()] {
            assert!(super::claims(Signer::Browser, &known, &token).is_none(), "{token}");
        }
        assert!(super::claims(Signer::Browser, &secrets(&["other"]), BROWSER).is_none());
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
