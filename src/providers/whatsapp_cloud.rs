//! WhatsApp.
use crate::providers::Entry;
pub static ENTRY: Entry = todo!();
