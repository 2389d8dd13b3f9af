//! Addresses of files: what they stand for is sealed into them together with their end, so that nobody can make one up,
//! change one, or tell anything from one.

use super::{Storage, StorageError};
use crate::domain::file::FileRef;
use crate::domain::time::Timestamp;

/// Where such a seal is good.
const PLACE: &str = "addresses.file";

impl Storage {
    /// The word of an address under which a file is handed out until `until`. Safe in a path.
    ///
    /// # Errors
    /// [`StorageError::Broken`] when it cannot be sealed.
    pub fn file_word(&self, file: &FileRef, until: Timestamp) -> Result<String, StorageError> {
        let text = serde_json::to_string(&(file, until.0)).map_err(|e| StorageError::Broken(e.to_string()))?;
        Ok(self.sealer.seal(PLACE, &text)?.replace('/', "_").replace('+', "-"))
    }

    /// The file that such a word stands for; `None` once it has ended, and for what is none.
    #[must_use]
    pub fn read_file_word(&self, word: &str) -> Option<FileRef> {
        let text = self.sealer.open(PLACE, &word.replace('_', "/").replace('-', "+")).ok()?;
        let (file, until): (FileRef, i64) = serde_json::from_str(&text).ok()?;
        (self.clock.now().0 < until).then_some(file)
    }
}
