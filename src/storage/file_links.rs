//! Words that open one file of a CRM for a while: whoever has one needs nothing else, so they are sealed and end soon.

use serde::{Deserialize, Serialize};

use super::{Storage, StorageError};
use crate::domain::file::FileLink;
use crate::domain::time::Timestamp;

/// Where sealed words of this kind live: in addresses.
const PLACE: &str = "files";

#[derive(Serialize, Deserialize)]
struct Word {
    link: String,
    until_ms: i64,
}

impl Storage {
    /// A word that opens this file until a moment. It fits into one segment of an address.
    ///
    /// # Errors
    /// [`StorageError::Config`] or [`StorageError::Broken`]: nothing can be sealed.
    pub fn seal_file(&self, link: &FileLink, until: Timestamp) -> Result<String, StorageError> {
        let word = Word { link: link.to_string(), until_ms: until.0 };
        let text = serde_json::to_string(&word).map_err(|e| StorageError::Broken(e.to_string()))?;
        Ok(self.sealer.seal(PLACE, &text)?.replace('+', "-").replace('/', "_"))
    }

    /// The file a word opens now; `None` for a word that is over, or that is none of ours.
    #[must_use]
    pub fn unseal_file(&self, word: &str) -> Option<FileLink> {
        let text = self.sealer.open(PLACE, &word.replace('-', "+").replace('_', "/")).ok()?;
        let word: Word = serde_json::from_str(&text).ok()?;
        let link = FileLink::parse(&word.link)?;
        (Timestamp(word.until_ms) > self.clock.now()).then_some(link)
    }
}
