//! What an action does about one person that is no message. It is kept like a message, so that its card, its result and
//! its history come the same way.

use serde::{Deserialize, Serialize};

use super::time::Timestamp;

/// What was done.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "deed", rename_all = "snake_case")]
pub enum Deed {
    /// It was looked up whether a phone has an account of the messenger.
    CheckPhone(PhoneEvidence),
    /// Tags were put on the dialog, or taken off.
    TagDialog {
        /// Put on.
        add: Vec<String>,
        /// Taken off.
        remove: Vec<String>,
        /// What it has now.
        tags: Vec<String>,
    },
    /// The client's chat in the CRM got another name.
    RenameChat {
        /// The name.
        name: String,
    },
}

impl Deed {
    /// The word in the API and in the keys of texts.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::CheckPhone(_) => "check_phone",
            Self::TagDialog { .. } => "tag_dialog",
            Self::RenameChat { .. } => "rename_chat",
        }
    }
}

/// Whether a phone has an account of a messenger.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Exists {
    /// It has one.
    Yes,
    /// It has none.
    No,
    /// Nothing that was seen tells.
    Unknown,
}

impl Exists {
    /// The letter in results of actions.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Yes => "Y",
            Self::No => "N",
            Self::Unknown => "U",
        }
    }
}

/// What earlier traffic with a phone says. Nobody is ever written to only to find out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct PhoneEvidence {
    /// What is known best.
    pub sign: PhoneSign,
    /// When it was seen; `None` when there is nothing, or the moment is not kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
}

/// A closed list of what tells whether a phone has an account; better ones are greater.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PhoneSign {
    /// There was no traffic, or none that tells.
    #[default]
    Nothing,
    /// The messenger could not deliver: probably no account, but an old application or terms that were not accepted look
    /// the same.
    NotReached,
    /// The messenger told that the person has left this number.
    NumberLeft,
    /// The person shared this phone in a chat.
    PhoneShared,
    /// A message of ours was delivered.
    Delivered,
    /// The person wrote.
    Wrote,
}

impl PhoneSign {
    /// The whole list; a test asks for texts in every language.
    pub const ALL: [Self; 6] =
        [Self::Nothing, Self::NotReached, Self::NumberLeft, Self::PhoneShared, Self::Delivered, Self::Wrote];

    /// What it says.
    #[must_use]
    pub fn exists(self) -> Exists {
        match self {
            Self::Nothing | Self::NotReached => Exists::Unknown,
            Self::NumberLeft => Exists::No,
            Self::PhoneShared | Self::Delivered | Self::Wrote => Exists::Yes,
        }
    }

    /// The word in the keys of texts.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::NotReached => "not_reached",
            Self::NumberLeft => "number_left",
            Self::PhoneShared => "phone_shared",
            Self::Delivered => "delivered",
            Self::Wrote => "wrote",
        }
    }
}

/// What a sender of ours has seen of one address, each with its last moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PhoneTraffic {
    /// The person wrote.
    pub wrote: Option<Timestamp>,
    /// A message of ours was delivered or read.
    pub delivered: Option<Timestamp>,
    /// The messenger did not reach the number.
    pub not_reached: Option<Timestamp>,
    /// The person left the number.
    pub left: Option<Timestamp>,
}

impl PhoneTraffic {
    /// The best sign of an account. A number that was left counts as gone until somebody is seen there again; a failed
    /// delivery says nothing against somebody who was there.
    #[must_use]
    pub fn evidence(&self) -> PhoneEvidence {
        let known = |sign: PhoneSign, at: Option<Timestamp>| at.map(|at| PhoneEvidence { sign, at: Some(at) });
        let seen = [known(PhoneSign::Delivered, self.delivered), known(PhoneSign::Wrote, self.wrote)];
        let seen = seen.into_iter().flatten().max_by_key(|evidence| evidence.at);
        let left =
            known(PhoneSign::NumberLeft, self.left).filter(|left| seen.as_ref().is_none_or(|seen| left.at >= seen.at));
        left.or(seen).or(known(PhoneSign::NotReached, self.not_reached)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: fn(i64) -> Option<Timestamp> = |at| Some(Timestamp(at));

    #[test]
    fn evidence_is_the_newest_sign_of_life() {
        let none = PhoneTraffic::default();
        let rows = [
            (none, PhoneSign::Nothing, None),
            (PhoneTraffic { not_reached: AT(5), ..none }, PhoneSign::NotReached, AT(5)),
            (PhoneTraffic { wrote: AT(1), not_reached: AT(5), ..none }, PhoneSign::Wrote, AT(1)),
            (PhoneTraffic { wrote: AT(1), delivered: AT(2), ..none }, PhoneSign::Delivered, AT(2)),
            (PhoneTraffic { wrote: AT(1), left: AT(2), ..none }, PhoneSign::NumberLeft, AT(2)),
            (PhoneTraffic { wrote: AT(3), left: AT(2), ..none }, PhoneSign::Wrote, AT(3)),
        ];
        for (traffic, sign, at) in rows {
            assert_eq!(traffic.evidence(), PhoneEvidence { sign, at }, "{traffic:?}");
        }
    }

    #[test]
    fn only_what_was_seen_is_an_answer() {
        let answers = PhoneSign::ALL.map(|sign| sign.exists().code());
        assert_eq!(answers, ["U", "U", "N", "Y", "Y", "Y"]);
    }
}
