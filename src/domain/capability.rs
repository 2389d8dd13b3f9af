//! What a provider can do, as data with units: screens, refusals and documentation are made from it.

use super::address::{Addressing, is_group};
use super::channel::Messenger;
use super::time::Millis;

/// A kind of file as messengers tell them apart.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MediaKind {
    /// A picture shown in the chat.
    Image,
    /// A film shown in the chat.
    Video,
    /// Sound.
    Audio,
    /// Anything else, shown as a file with its name.
    Document,
}

impl MediaKind {
    /// Judges by the extension of a file name or address; whatever is not known is a document.
    #[must_use]
    pub fn of_name(name: &str) -> Self {
        let path = name.split(['?', '#']).next().unwrap_or_default();
        let extension = path.rsplit_once('.').map_or("", |(_, ext)| ext).to_ascii_lowercase();
        match extension.as_str() {
            "jpg" | "jpeg" | "png" => Self::Image,
            "mp4" | "3gp" | "3gpp" => Self::Video,
            "aac" | "amr" | "mp3" | "m4a" | "ogg" | "opus" => Self::Audio,
            _ => Self::Document,
        }
    }
}

/// Limits and abilities of one provider for one messenger.
#[derive(Clone, Copy, Debug)]
pub struct Capabilities {
    /// Longest text body, in units of `text_unit`.
    pub text_max: usize,
    /// How the messenger counts texts and captions.
    pub text_unit: TextUnit,
    /// Longest caption under an image, video or document, in units of `text_unit`.
    pub caption_max: usize,
    /// Kinds of files that may carry a caption.
    pub captions: &'static [MediaKind],
    /// Kinds of files that can be sent by link.
    pub media_by_link: &'static [MediaKind],
    /// Longest file that the vendor fetches by link, in bytes by kind.
    pub link_max: &'static [(MediaKind, u64)],
    /// True when groups can be written to.
    pub groups: bool,
    /// True when approved templates exist.
    pub templates: bool,
    /// True when the words of a sent message can be changed.
    pub edits: bool,
    /// So old may a message be that is taken back; `None` when none can be.
    pub withdraws: Option<Millis>,
    /// How long after a person's message free text is allowed; `None` when it always is.
    pub service_window: Option<Millis>,
    /// Sends per second of one sender, all recipients together.
    pub messages_per_second: f64,
    /// Sends to one recipient: sustained interval and how many may be borrowed at once.
    pub per_peer: Option<PeerPace>,
}

/// What a messenger counts a text's length in.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum TextUnit {
    /// Unicode characters.
    Characters,
    /// UTF-16 code units: most emoji count twice.
    Utf16,
}

impl TextUnit {
    /// The length of a text.
    #[must_use]
    pub fn length(self, text: &str) -> usize {
        match self {
            Self::Characters => text.chars().count(),
            Self::Utf16 => text.encode_utf16().count(),
        }
    }
}

/// The pace towards one recipient.
#[derive(Clone, Copy, Debug)]
pub struct PeerPace {
    /// One message per so long, sustained.
    pub interval: Millis,
    /// So many may leave at once, borrowed from the future.
    pub burst: u32,
    /// The same towards groups and channels, where those have a pace of their own.
    pub in_groups: Option<(Millis, u32)>,
}

impl PeerPace {
    /// Interval and burst that hold towards a recipient, who is named by their lane or address.
    #[must_use]
    pub fn towards(&self, recipient: &str) -> (Millis, u32) {
        let own = (self.interval, self.burst);
        if is_group(recipient) { self.in_groups.unwrap_or(own) } else { own }
    }
}

/// How an unclear send is settled when the provider's echo does not come (`docs/adr/0004`). Both are zero for a provider
/// without an echo: there is nothing to wait for, and a person decides at once.
#[derive(Clone, Copy, Debug)]
pub struct UnclearRule {
    /// How long the echo is waited for.
    pub wait: Millis,
    /// After so long without any sign the send is given up as `undecided`, and a person is told.
    pub give_up: Millis,
}

/// How long a provider may be silent about a message (`docs/adr/0009`).
#[derive(Clone, Copy, Debug)]
pub struct SilenceRule {
    /// A taken message is `sent` after this at the latest; longer silence is told on its card.
    pub accepted: Millis,
    /// The same from `sent` to `delivered`. Longer: a phone may be off, and that is nobody's fault.
    pub sent: Millis,
    /// After so long nothing is awaited any more: the vendor has stopped repeating callbacks that were missed.
    pub horizon: Millis,
}

/// One field of a channel's credentials, for forms and checks.
#[derive(Clone, Copy, Debug)]
pub struct CredentialField {
    /// Key in the API (`access_token`).
    pub name: &'static str,
    /// True when the channel cannot work without it.
    pub required: bool,
    /// True when it must never be shown again.
    pub secret: bool,
}

/// How the provider's callbacks prove themselves. There is no variant for "not at all".
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WebhookAuth {
    /// Header holds `prefix` + lower-case hex of HMAC-SHA256 over the raw body, keyed by the named credential.
    HmacSha256 {
        /// Name of the header.
        header: &'static str,
        /// Text before the hex digits.
        prefix: &'static str,
        /// Which credential is the key.
        credential: &'static str,
    },
    /// Header holds the secret that we gave the vendor together with our address. It is made of the named credential and
    /// the channel's id ([`crate::webhook_auth::header_secret`]), so nobody enters or keeps it.
    HeaderSecret {
        /// Name of the header.
        header: &'static str,
        /// Which credential it is made of.
        credential: &'static str,
    },
}

/// How a provider checks that the webhook address is ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Handshake {
    /// GET with `hub.mode=subscribe`, `hub.verify_token` equal to the named credential; answer is `hub.challenge`.
    HubChallenge {
        /// Which credential is the expected token.
        credential: &'static str,
    },
}

/// Everything that is fixed about a provider.
#[derive(Clone, Copy, Debug)]
pub struct ProviderSpec {
    /// Registry id: file name, configuration key, database value, route segment.
    pub id: &'static str,
    /// The vendor's product, for people.
    pub title: &'static str,
    /// The medium people see.
    pub messenger: Messenger,
    /// What its people are known by.
    pub addressing: Addressing,
    /// Limits and abilities.
    pub capabilities: Capabilities,
    /// What the administrator enters.
    pub credentials: &'static [CredentialField],
    /// How callbacks prove themselves.
    pub webhook_auth: WebhookAuth,
    /// How the vendor checks our address, if it does.
    pub handshake: Option<Handshake>,
    /// The rule for unclear sends.
    pub unclear: UnclearRule,
    /// The rule for confirmations that do not come. `None` where the vendor tells nothing after it took a message: taking
    /// it is the last step there is, and the message counts as sent.
    pub silence: Option<SilenceRule>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_emoji_is_one_character_and_two_units() {
        let text = "да 👍";
        assert_eq!((TextUnit::Characters.length(text), TextUnit::Utf16.length(text)), (4, 5));
    }

    #[test]
    fn kind_is_judged_by_extension() {
        assert_eq!(MediaKind::of_name("https://x.example/a/photo.JPG?sig=1.pdf"), MediaKind::Image);
        assert_eq!(MediaKind::of_name("offer.pdf"), MediaKind::Document);
        assert_eq!(MediaKind::of_name("noextension"), MediaKind::Document);
        assert_eq!(MediaKind::of_name("v.mp4#t=1"), MediaKind::Video);
    }
}
