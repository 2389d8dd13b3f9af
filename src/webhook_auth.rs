//! How a callback proves that it comes from the vendor, as the provider's specification demands.
//!
//! Pure: the HTTP layer hands in the raw bytes and a way to look up headers or query values, and gets an answer. The
//! comparison takes the same time whatever the difference, and a credential that was never entered proves nothing.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use crate::domain::capability::{Handshake, WebhookAuth};
use crate::domain::channel::Channel;

/// True when the callback's body was signed by whoever knows the channel's credential.
///
/// `header` looks a header up by name, ignoring case. `body` is the body as it arrived: the signature covers bytes, and
/// the same JSON written again by us has others.
#[must_use]
pub fn verify<'h>(
    auth: &WebhookAuth,
    channel: &Channel,
    header: impl Fn(&str) -> Option<&'h str>,
    body: &[u8],
) -> bool {
    match auth {
        WebhookAuth::HmacSha256 { header: name, prefix, credential } => {
            let key = channel.credential(credential);
            let given = header(name).and_then(|value| value.trim().strip_prefix(prefix)).and_then(read_hex);
            match given {
                Some(signature) if !key.is_empty() => has_signature(key, body, &signature),
                Some(_) | None => false,
            }
        }
        WebhookAuth::HeaderSecret { header: name, credential } => {
            let known = !channel.credential(credential).is_empty();
            let expected = header_secret(channel, credential);
            known && header(name).is_some_and(|given| bool::from(expected.as_bytes().ct_eq(given.trim().as_bytes())))
        }
    }
}

/// The secret that a vendor gets together with our address and puts into a header of every callback: 64 hex digits, made of
/// a credential and the channel's id. Nobody but us and whoever has the credential can make it, and no two channels share
/// it.
#[must_use]
pub fn header_secret(channel: &Channel, credential: &str) -> String {
    // HMAC takes keys of every length; the error exists for other algorithms of the same trait.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(channel.credential(credential).as_bytes()) else {
        return String::new();
    };
    mac.update(b"callbacks of ");
    mac.update(channel.id.as_str().as_bytes());
    mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The text to answer when the vendor checks the webhook address; `None` refuses.
///
/// `query` looks a decoded query value up by its literal name: the dots of `hub.mode` are part of it.
#[must_use]
pub fn handshake<'q>(
    handshake: &Handshake,
    channel: &Channel,
    query: impl Fn(&str) -> Option<&'q str>,
) -> Option<&'q str> {
    match handshake {
        Handshake::HubChallenge { credential } => {
            let expected = channel.credential(credential);
            let given = query("hub.verify_token").unwrap_or_default();
            let known = !expected.is_empty() && bool::from(expected.as_bytes().ct_eq(given.as_bytes()));
            let asked = query("hub.mode") == Some("subscribe");
            query("hub.challenge").filter(|challenge| known && asked && !challenge.is_empty())
        }
    }
}

fn has_signature(key: &str, body: &[u8], signature: &[u8]) -> bool {
    // HMAC takes keys of every length; the error exists for other algorithms of the same trait.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key.as_bytes()) else { return false };
    mac.update(body);
    mac.verify_slice(signature).is_ok()
}

/// Reads pairs of hex digits; `None` for anything else.
fn read_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|value| u8::try_from(value).ok());
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::channel::{ChannelSettings, ChannelState};
    use crate::domain::ids::{ChannelId, LineId};

    const SECRET: &str = "5f1c0d8e7a2b49c6b3e4a5d6c7f80912";
    const AUTH: WebhookAuth =
        WebhookAuth::HmacSha256 { header: "X-Hub-Signature-256", prefix: "sha256=", credential: "app_secret" };
    const HANDSHAKE: Handshake = Handshake::HubChallenge { credential: "verify_token" };
    /// Bodies whose signatures were computed with two other tools (`tests/fixtures/whatsapp_cloud/SOURCE.md`).
    const PLAIN: (&[u8], &str) = (
        include_bytes!("../tests/fixtures/whatsapp_cloud/signed_status.json"),
        "e333a822f55d7ebf019b2f73625d0ee48bc5a29f33e86dd9fcde36ee19260b8c",
    );
    const ESCAPED: (&[u8], &str) = (
        include_bytes!("../tests/fixtures/whatsapp_cloud/signed_escapes.json"),
        "efeac20f33a82a48c807d292b4618ab556fd35454913f21a2e77b26666532593",
    );

    fn channel(app_secret: &str, verify_token: &str) -> Channel {
        let credentials = [("app_secret", app_secret), ("verify_token", verify_token)];
        Channel {
            id: ChannelId::new("1"),
            line: LineId::new("1"),
            provider: "whatsapp_cloud".into(),
            name: String::new(),
            credentials: credentials.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            settings: ChannelSettings::default(),
            state: ChannelState::Active,
            ramp: None,
        }
    }

    fn verified(secret: &str, signature: &str, body: &[u8]) -> bool {
        let header = |name: &str| (name == "X-Hub-Signature-256").then_some(signature);
        verify(&AUTH, &channel(secret, "t"), header, body)
    }

    #[test]
    fn worked_examples_are_verified_over_the_raw_bytes() {
        for (body, hex) in [PLAIN, ESCAPED] {
            assert!(verified(SECRET, &format!("sha256={hex}"), body));
            assert!(verified(SECRET, &format!("sha256={}", hex.to_uppercase()), body));
        }
        let rewritten = r#"{"note":"Привет","url":"https://crm.example/a"}"#;
        assert!(!verified(SECRET, &format!("sha256={}", ESCAPED.1), rewritten.as_bytes()));
    }

    #[test]
    fn anything_else_is_refused() {
        let (body, hex) = PLAIN;
        let good = format!("sha256={hex}");
        assert!(!verified("another secret", &good, body));
        assert!(!verified("", &good, body));
        let mut changed = body.to_vec();
        changed[0] ^= 1;
        assert!(!verified(SECRET, &good, &changed));
        assert!(!verified(SECRET, &good, b""));
        let short = format!("sha256={}", hex.get(..62).unwrap());
        let odd = format!("sha256={}", hex.get(..63).unwrap());
        for bad in ["", "sha256=", "sha1=e333", hex, "sha256=zz", "sha256=ё", "sha256=+f", &short, &odd] {
            assert!(!verified(SECRET, bad, body), "{bad}");
        }
        assert!(!verify(&AUTH, &channel(SECRET, "t"), |_| None, body));
    }

    #[test]
    fn an_empty_key_never_verifies_even_its_own_signature() {
        let mut mac = Hmac::<Sha256>::new_from_slice(b"").unwrap();
        mac.update(b"{}");
        let hex: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(!verified("", &format!("sha256={hex}"), b"{}"));
    }

    #[test]
    fn a_header_secret_is_the_channels_own_and_says_nothing_of_the_credential() {
        let auth = WebhookAuth::HeaderSecret { header: "X-Secret", credential: "app_secret" };
        let own = channel(SECRET, "t");
        let secret = header_secret(&own, "app_secret");
        assert_eq!(secret.len(), 64);
        assert!(!secret.contains(SECRET));
        let checked = |channel: &Channel, given: &str| verify(&auth, channel, |_| Some(given), b"{}");
        assert!(checked(&own, &secret));
        let other = Channel { id: ChannelId::new("2"), ..channel(SECRET, "t") };
        for (channel, given) in [(&own, ""), (&own, &secret[..63]), (&own, SECRET), (&other, secret.as_str())] {
            assert!(!checked(channel, given), "{given}");
        }
        assert!(!verify(&auth, &own, |_| None, b"{}"));
        let bare = channel("", "t");
        assert!(!checked(&bare, &header_secret(&bare, "app_secret")), "an empty credential proves nothing");
    }

    fn challenged<'q>(token: &str, pairs: &[(&str, &'q str)]) -> Option<&'q str> {
        let query = |name: &str| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| *value);
        handshake(&HANDSHAKE, &channel(SECRET, token), query)
    }

    #[test]
    fn the_challenge_is_returned_to_whoever_knows_the_token() {
        let pairs = [("hub.mode", "subscribe"), ("hub.challenge", "1158201444"), ("hub.verify_token", "vt-77")];
        assert_eq!(challenged("vt-77", &pairs), Some("1158201444"));
        assert_eq!(challenged("vt-78", &pairs), None);
        assert_eq!(challenged("", &pairs), None);
        assert_eq!(challenged("", &[pairs[0], pairs[1], ("hub.verify_token", "")]), None);
        assert_eq!(challenged("vt-77", &pairs[1..]), None);
        assert_eq!(challenged("vt-77", &[("hub.mode", "unsubscribe"), pairs[1], pairs[2]]), None);
        assert_eq!(challenged("vt-77", &pairs[..2]), None);
        assert_eq!(challenged("vt-77", &[pairs[0], pairs[2]]), None);
    }
}
