//! Lines that CRMs offer as senders of short messages, and the proof that their calls carry.

use super::db::args;
use super::{Storage, StorageError, sql};
use crate::domain::channel::Messenger;
use crate::domain::ids::{LineId, PortalId};
use crate::domain::sms::SmsSender;
use crate::domain::template::TemplateRef;

/// What a proof is sealed for; a value sealed for any other place does not open as one.
const PROOF: &str = "sms.handler";
/// Longest proof that is looked at, in bytes.
const PROOF_MAX: usize = 1_000;

impl Storage {
    /// Senders of a portal with the names of their lines; none whose line the portal may no longer use.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn sms_senders(&self, portal: &PortalId) -> Result<Vec<(SmsSender, String)>, StorageError> {
        let rows = self.db.rows(sql::SMS_SENDERS, args![portal.as_str()]).await?;
        rows.iter()
            .map(|row| {
                let word = row.text("messenger")?;
                let unknown = || StorageError::Broken(format!("sms_senders.messenger: {word}"));
                let sender = SmsSender {
                    messenger: Messenger::find(&word).ok_or_else(unknown)?,
                    line: LineId::stored(row.text("line_id")?),
                    template: TemplateRef::parse(&row.text("template")?),
                };
                Ok((sender, row.text("name")?))
            })
            .collect()
    }

    /// Makes a line a sender of a portal, or changes its template.
    ///
    /// # Errors
    /// [`StorageError`]; nothing was changed.
    pub async fn put_sms_sender(&self, portal: &PortalId, sender: &SmsSender) -> Result<(), StorageError> {
        let template = sender.template.as_ref().map(TemplateRef::label).unwrap_or_default();
        let (messenger, line) = (sender.messenger.code(), sender.line.as_str());
        let args = args![portal.as_str(), messenger, line, template, self.clock.now().0];
        self.db.write(sql::SMS_SENDER_PUT, args).await?;
        Ok(())
    }

    /// Makes a line no sender any more; false when it was none.
    ///
    /// # Errors
    /// [`StorageError`]; nothing was changed.
    pub async fn drop_sms_sender(
        &self,
        portal: &PortalId,
        messenger: Messenger,
        line: &LineId,
    ) -> Result<bool, StorageError> {
        let args = args![portal.as_str(), messenger.code(), line.as_str()];
        Ok(self.db.write(sql::SMS_SENDER_DROP, args).await? > 0)
    }

    /// The proof that a portal's calls of one sender carry in their address: some of them carry nothing else.
    ///
    /// # Errors
    /// [`StorageError::Config`] without a master key.
    pub fn seal_sms_proof(&self, portal: &PortalId, code: &str) -> Result<String, StorageError> {
        self.sealer.seal(PROOF, &format!("{portal} {code}"))
    }

    /// The portal whose calls of this sender carry the proof; `None` for any other text.
    #[must_use]
    pub fn open_sms_proof(&self, proof: &str, code: &str) -> Option<PortalId> {
        let text = Some(proof).filter(|proof| proof.len() <= PROOF_MAX)?;
        let opened = self.sealer.open(PROOF, text).ok()?;
        let (portal, of) = opened.split_once(' ')?;
        PortalId::parse(portal).filter(|_| of == code)
    }
}
