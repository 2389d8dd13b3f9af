//! Calls of robots that never came, on the application's page (`docs/adr/0018`).

use super::app::{EXACT, SHOWN, shown};
use crate::domain::ids::PortalId;
use crate::domain::language::Language;
use crate::domain::portal::{CardKind, CardRef};
use crate::domain::stage::{LostCall, LostState};
use crate::http::State;
use crate::i18n;
use crate::pipeline::lost_calls::ReplayEnd;
use crate::storage::StorageError;
use crate::ui::{Fact, FrameLost};

/// Most lost calls the page shows.
const SHOWN_MAX: u32 = 20;
/// Most that one press of a button decides about.
const DECIDED_MAX: u32 = 200;

/// What the page tells of a portal's lost calls.
pub(super) struct Lost {
    open: i64,
    calls: Vec<LostCall>,
    /// The portal's code when it does not tell its history.
    pub(super) trouble: Option<String>,
}

/// Asks the store.
pub(super) async fn known(state: &State, portal: &PortalId) -> Result<Lost, StorageError> {
    let looks = state.storage.stage_looks(portal).await?;
    Ok(Lost {
        open: state.storage.lost_calls_open(portal).await?,
        calls: state.storage.lost_calls(portal, Some(LostState::Open), "", SHOWN_MAX).await?,
        trouble: looks.into_iter().map(|look| look.trouble).find(|code| !code.is_empty()),
    })
}

impl Lost {
    /// How many there are.
    pub(super) fn fact(&self, language: Language) -> Fact {
        let label = i18n::text(language, "page.fact_lost", &[]);
        Fact { label, value: self.open.to_string(), at: None, good: Some(self.open == 0 && self.trouble.is_none()) }
    }

    /// The first few.
    pub(super) fn rows(&self, language: Language) -> Vec<FrameLost> {
        let row = |call: &LostCall| FrameLost {
            card: name_of(call.card, language),
            stage: call.stage.clone(),
            shown: shown(call.entered, SHOWN),
            at: shown(call.entered, EXACT),
            sure: call.sure,
        };
        self.calls.iter().map(row).collect()
    }
}

/// Makes up for what was surely lost; gives the key of what is said about it.
pub(super) async fn replay(state: &State, portal: &PortalId) -> Result<&'static str, StorageError> {
    let mut calls = state.storage.lost_calls(portal, Some(LostState::Open), "", DECIDED_MAX).await?;
    calls.retain(|call| call.sure);
    let ends = state.pipeline.replay(portal, calls, None).await?;
    let left = |end: &ReplayEnd| matches!(end, ReplayEnd::WorkUnknown | ReplayEnd::NotAsked);
    Ok(if ends.is_empty() || ends.iter().any(|(_, end)| left(end)) { "lost_some" } else { "lost_done" })
}

/// Says that nothing is to be done about those that are shown; gives the key of what is said about it.
pub(super) async fn dismiss(state: &State, portal: &PortalId) -> Result<&'static str, StorageError> {
    for call in state.storage.lost_calls(portal, Some(LostState::Open), "", DECIDED_MAX).await? {
        state.storage.decide_lost_call(portal, &call.id, LostState::Dismissed).await?;
    }
    Ok("lost_dismissed")
}

/// A card in the person's language.
fn name_of(card: CardRef, language: Language) -> String {
    let key = match card.kind {
        CardKind::Lead => "card_lead",
        CardKind::Deal => "card_deal",
        CardKind::Contact => "card_contact",
        CardKind::Company => "card_company",
        CardKind::Quote => "card_quote",
        CardKind::Invoice => "card_invoice",
        CardKind::Order => "card_order",
        CardKind::Customer => "card_customer",
        CardKind::Custom(_) => "card_custom",
    };
    i18n::text(language, &format!("page.{key}"), &[("id", &card.id.to_string())])
}
