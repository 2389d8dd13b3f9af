//! Lines that a CRM offers as senders of its short messages: kept in line like everything that is registered there.

use std::sync::Arc;

use super::Pipeline;
use crate::crm::Crm;
use crate::domain::channel::Messenger;
use crate::domain::effect::CrmError;
use crate::domain::ids::LineId;
use crate::domain::outcome::FailureClass;
use crate::domain::portal::Portal;
use crate::domain::sms::{SmsPlace, SmsSender};
use crate::storage::StorageError;

/// Path of the calls below our public address, with `{app}` and `{code}` to be filled in.
const HANDLER: &str = "/bitrix24/{app}/sms/{code}";

impl Pipeline {
    /// Makes a line a sender of a portal's short messages; the portal shows it in a moment.
    ///
    /// # Errors
    /// [`StorageError`]; may be repeated.
    pub async fn make_sender(&self, portal: &Portal, sender: &SmsSender) -> Result<(), StorageError> {
        self.storage.put_sms_sender(&portal.id, sender).await?;
        tracing::info!(portal.id = %portal.id, line.id = %sender.line, "the line sends short messages of the portal");
        self.ask_reconcile(portal).await
    }

    /// Makes it none any more; false when it was none.
    ///
    /// # Errors
    /// [`StorageError`]; may be repeated.
    pub async fn unmake_sender(
        &self,
        portal: &Portal,
        messenger: Messenger,
        line: &LineId,
    ) -> Result<bool, StorageError> {
        let was = self.storage.drop_sms_sender(&portal.id, messenger, line).await?;
        if was {
            tracing::info!(portal.id = %portal.id, line.id = %line, "the line no longer sends short messages");
            self.ask_reconcile(portal).await?;
        }
        Ok(was)
    }
}

/// Brings the senders of a portal in line with what is wanted there.
pub(super) async fn reconcile(
    pipeline: &Pipeline,
    crm: &Arc<dyn Crm>,
    portal: &Portal,
) -> Result<Result<(), CrmError>, StorageError> {
    let Some(senders) = crm.sms_senders() else { return Ok(Ok(())) };
    let mut places = Vec::new();
    for (sender, line) in pipeline.storage.sms_senders(&portal.id).await? {
        let code = sender.code();
        let path = HANDLER.replace("{app}", &portal.app).replace("{code}", &code);
        let address = format!("{}{path}", pipeline.settings.public_url.trim_end_matches('/'));
        let proof = pipeline.storage.seal_sms_proof(&portal.id, &code)?;
        let name = format!("{}: {line}", sender.messenger.title());
        let print = format!("{name} {address}");
        let key: String = form_urlencoded::byte_serialize(proof.as_bytes()).collect();
        places.push(SmsPlace { code, name, handler: format!("{address}?key={key}"), print });
    }
    Ok(match senders.reconcile_senders(portal, &places).await {
        // The right is asked for where senders are switched on; without it everything else stands.
        Err(error) if error.class == FailureClass::NotPermitted => {
            tracing::warn!(portal.id = %portal.id, vendor.code = error.code, "SMS senders are not offered by the portal");
            Ok(())
        }
        other => other,
    })
}
