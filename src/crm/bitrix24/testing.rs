//! What the tests of this room share: a portal, a store, a clock, and a server that answers what it is told.

use crate::domain::ids::PortalId;
use crate::domain::language::Language;
use crate::domain::portal::{CrmKind, Portal, PortalState};

pub(super) const MEMBER: &str = "d41f0c6a2b7e4c8f9a1b3c5d7e9f0a12";

/// A portal whose REST stands at `endpoint`.
pub(super) fn portal(endpoint: &str) -> Portal {
    Portal {
        id: PortalId::new("1"),
        crm: CrmKind::Bitrix24,
        app: "main".to_owned(),
        member_id: MEMBER.to_owned(),
        domain: "acme-demo.bitrix24.com".to_owned(),
        client_endpoint: endpoint.to_owned(),
        server_endpoint: endpoint.to_owned(),
        language: Language::En,
        state: PortalState::Installed,
        state_reason: String::new(),
    }
}
