//! Portals (Bitrix24) and accounts (amoCRM), and the cards inside them.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::ids::PortalId;
use super::language::Language;

/// Which CRM a portal belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CrmKind {
    /// Bitrix24.
    Bitrix24,
    /// amoCRM or Kommo.
    Amocrm,
}

impl CrmKind {
    /// The word in the database and the API.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Bitrix24 => "bitrix24",
            Self::Amocrm => "amocrm",
        }
    }

    /// True when its chats show operators that a message was delivered and read, and not only that it left.
    #[must_use]
    pub fn shows_receipts(self) -> bool {
        match self {
            Self::Bitrix24 => false,
            Self::Amocrm => true,
        }
    }

    /// Reads the word back.
    #[must_use]
    pub fn find(code: &str) -> Option<Self> {
        [Self::Bitrix24, Self::Amocrm].into_iter().find(|kind| kind.code() == code)
    }
}

/// Whether a portal can be talked to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PortalState {
    /// Works.
    Installed,
    /// Its tokens are dead; an administrator has to open the application once.
    NeedsAuth,
    /// Plan, payment or rights forbid calls; an administrator has to act in the CRM.
    Blocked,
    /// The application was removed.
    Uninstalled,
}

impl PortalState {
    /// The word in the database and the API.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Installed => "installed",
            Self::NeedsAuth => "needs_auth",
            Self::Blocked => "blocked",
            Self::Uninstalled => "uninstalled",
        }
    }

    /// Reads the word back.
    #[must_use]
    pub fn find(code: &str) -> Option<Self> {
        [Self::Installed, Self::NeedsAuth, Self::Blocked, Self::Uninstalled].into_iter().find(|s| s.code() == code)
    }
}

/// One portal, without its tokens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Portal {
    /// Ours.
    pub id: PortalId,
    /// Which CRM.
    pub crm: CrmKind,
    /// Which of our configured applications is installed there (`{app}` of the routes).
    pub app: String,
    /// The CRM's stable id of the portal (`member_id`, account id).
    pub member_id: String,
    /// Host as people know it; changes when the portal is renamed.
    pub domain: String,
    /// Base of REST calls, ends with `/`.
    pub client_endpoint: String,
    /// Base of the authorization server's REST, ends with `/`.
    pub server_endpoint: String,
    /// What people there read.
    pub language: Language,
    /// Whether it can be talked to.
    pub state: PortalState,
    /// Why not, for people; empty when it can.
    pub state_reason: String,
}

/// Kinds of cards, in words both CRMs share.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CardKind {
    /// A lead (Bitrix24 sense).
    Lead,
    /// A deal (Bitrix24) or lead (amoCRM).
    Deal,
    /// A person.
    Contact,
    /// A company.
    Company,
    /// A quote.
    Quote,
    /// An invoice.
    Invoice,
    /// An order.
    Order,
    /// A customer (amoCRM).
    Customer,
    /// An item of a type the customer defined, by the CRM's type number.
    Custom(u32),
}

/// One card of a portal. Written `deal:134` or `custom180:5`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct CardRef {
    /// What it is.
    pub kind: CardKind,
    /// Its number in the CRM.
    pub id: u64,
}

impl fmt::Display for CardKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lead => f.write_str("lead"),
            Self::Deal => f.write_str("deal"),
            Self::Contact => f.write_str("contact"),
            Self::Company => f.write_str("company"),
            Self::Quote => f.write_str("quote"),
            Self::Invoice => f.write_str("invoice"),
            Self::Order => f.write_str("order"),
            Self::Customer => f.write_str("customer"),
            Self::Custom(number) => write!(f, "custom{number}"),
        }
    }
}

impl CardKind {
    /// Reads what `Display` wrote.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "lead" => Self::Lead,
            "deal" => Self::Deal,
            "contact" => Self::Contact,
            "company" => Self::Company,
            "quote" => Self::Quote,
            "invoice" => Self::Invoice,
            "order" => Self::Order,
            "customer" => Self::Customer,
            other => Self::Custom(other.strip_prefix("custom")?.parse().ok()?),
        })
    }
}

impl fmt::Display for CardRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind, self.id)
    }
}

impl CardRef {
    /// Reads what `Display` wrote.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, id) = text.split_once(':')?;
        Some(Self { kind: CardKind::parse(kind)?, id: id.parse().ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_reads_back() {
        for text in ["lead:1", "deal:134", "custom180:5", "invoice:9", "customer:2"] {
            assert_eq!(CardRef::parse(text).unwrap().to_string(), text);
        }
        assert!(CardRef::parse("deal:").is_none());
        assert!(CardRef::parse("meal:1").is_none());
    }
}
