//! Names of chats in open lines (protocol reference, section "unregister, activate, status, data, list, error, name", read
//! 2026-11).

use async_trait::async_trait;

use super::Bitrix24;
use super::batch::{BATCH_MAX, Batch};
use super::errors::own;
use super::reconcile::entry;
use crate::crm::ChatNames;
use crate::domain::chat::ChatName;
use crate::domain::effect::{CrmError, PortalTrouble};
use crate::domain::outcome::FailureClass;
use crate::domain::portal::Portal;
use crate::forms::{flag, member};

const SET: &str = "imconnector.chat.name.set";

#[async_trait]
impl ChatNames for Bitrix24 {
    async fn rename(&self, portal: &Portal, names: &[ChatName]) -> Vec<Result<(), CrmError>> {
        let mut answers = Vec::with_capacity(names.len());
        for chunk in names.chunks(BATCH_MAX) {
            let mut batch = Batch::default();
            for name in chunk {
                let chat = name.stands.chat.to_string();
                batch.push(
                    SET,
                    &[
                        ("CONNECTOR", self.connector_id(portal, name.stands.messenger).into()),
                        ("LINE", name.stands.place.as_str().into()),
                        ("CHAT_ID", chat.as_str().into()),
                        ("NAME", name.name.as_str().into()),
                        // A client and their chat have one name towards the portal.
                        ("USER_ID", chat.as_str().into()),
                    ],
                );
            }
            let answer = self.client.batch(portal, &batch).await.map_err(|failed| failed.error(true));
            answers.extend((0..chunk.len()).map(|at| {
                let value = entry(answer.as_ref().map_err(Clone::clone)?, at)?;
                match member(value, "SUCCESS").and_then(flag) {
                    Some(false) => Err(own(FailureClass::Rejected, PortalTrouble::None, "CHAT_RENAMING_FAILED", "")),
                    Some(true) | None => Ok(()),
                }
            }));
        }
        answers
    }
}
