//! Identifiers. Ours are a prefix and a ULID; foreign ones are opaque text that nobody parses.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Makes one identifier type of ours: `prefix_` followed by a ULID, sortable by time of creation.
macro_rules! own_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// The prefix every value of this type starts with.
            pub const PREFIX: &'static str = concat!($prefix, "_");

            /// Builds the id from a fresh ULID in its text form.
            #[must_use]
            pub fn new(ulid: &str) -> Self {
                Self(format!("{}{ulid}", Self::PREFIX))
            }

            /// Reads an id that came from outside; `None` unless it has our prefix and a plausible body.
            #[must_use]
            pub fn parse(text: &str) -> Option<Self> {
                let body = text.strip_prefix(Self::PREFIX)?;
                let plausible = (1..=40).contains(&body.len()) && body.bytes().all(|b| b.is_ascii_alphanumeric());
                plausible.then(|| Self(text.to_owned()))
            }

            /// Takes a value back that this program wrote itself (a database column).
            #[must_use]
            pub fn stored(text: String) -> Self {
                Self(text)
            }

            /// The whole id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

/// Makes one type for identifiers that somebody else issues.
macro_rules! foreign_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub String);

        impl $name {
            /// The id as the other side wrote it.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

own_id!(
    /// One business purpose that joins channels.
    LineId,
    "line"
);
own_id!(
    /// One connected sender at a provider.
    ChannelId,
    "chan"
);
own_id!(
    /// One Bitrix24 portal or amoCRM account.
    PortalId,
    "prt"
);
own_id!(
    /// One request of a CRM (a robot call, a Salesbot step).
    CommandId,
    "cmd"
);
own_id!(
    /// One message to or from one recipient.
    MessageId,
    "msg"
);
own_id!(
    /// One try to run a job.
    AttemptId,
    "att"
);
own_id!(
    /// One process that runs jobs.
    WorkerId,
    "wrk"
);

foreign_id!(
    /// The id a provider gave a message. Unique per provider and channel.
    ProviderMessageId
);
foreign_id!(
    /// The id of a comment or note in the CRM. Unique per portal.
    CrmCommentId
);
foreign_id!(
    /// A user of the portal, as the CRM numbers them.
    CrmUserId
);
foreign_id!(
    /// What the CRM wants back to continue a waiting robot or Salesbot. Secret for outsiders, opaque for us.
    ReplyToken
);

impl MessageId {
    /// Six characters that let a person and the reconciler recognise a message on one card.
    ///
    /// Taken from the random end of the ULID (30 bits), so two messages of one card do not share it in practice.
    #[must_use]
    pub fn short(&self) -> &str {
        let text = self.as_str();
        text.get(text.len().saturating_sub(6)..).unwrap_or(text)
    }
}

/// Source of fresh ids. Injected, because randomness and time are decided in `app.rs` only.
pub trait IdSource: Send + Sync {
    /// A new ULID in text form; strictly increasing within one process.
    fn ulid(&self) -> String;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_is_not_taken_for_our_id() {
        assert!(LineId::parse("line_01J8").is_some());
        assert!(LineId::parse("chan_01J8").is_none());
        assert!(LineId::parse("line_").is_none());
        assert!(LineId::parse("line_../../etc").is_none());
        assert!(LineId::parse(&format!("line_{}", "A".repeat(41))).is_none());
    }

    #[test]
    fn short_form_is_the_end_of_the_id() {
        assert_eq!(MessageId::new("01JABCDEFGHJKMNPQRSTVWXYZ0").short(), "VWXYZ0");
    }
}
