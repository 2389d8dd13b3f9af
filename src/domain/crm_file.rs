//! Files that a CRM keeps: how automations name them, and how a message names one until it is sent.

use std::fmt;

use super::ids::PortalId;
use super::portal::CardRef;

/// Before the number of a file of the CRM's Drive.
const DRIVE: &str = "disk:";
/// Before the name of a card's field.
const FIELD: &str = "field:";
/// Before the number of a document that the CRM made.
const DOCUMENT: &str = "doc:";
/// Instead of that number: the newest one.
const NEWEST: &str = "newest";

/// A file of a CRM, as an automation names it. Written `disk:12`, `field:UF_CRM_1`, `doc:12`, `doc:newest` or
/// `doc:newest.5`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum CrmFile {
    /// A file of the Drive, by its number.
    Drive(u64),
    /// What stands in a field of the card the automation runs on.
    Field {
        /// Name of the field.
        key: String,
        /// Which of its files; `None` is all of them.
        id: Option<u64>,
    },
    /// A document that the CRM made of a template, by its number.
    Document(u64),
    /// The newest document of the card.
    NewestDocument {
        /// Only of this template.
        template: Option<u64>,
    },
}

impl fmt::Display for CrmFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Drive(id) => write!(f, "{DRIVE}{id}"),
            Self::Field { key, id: None } => write!(f, "{FIELD}{key}"),
            Self::Field { key, id: Some(id) } => write!(f, "{FIELD}{key}.{id}"),
            Self::Document(id) => write!(f, "{DOCUMENT}{id}"),
            Self::NewestDocument { template: None } => write!(f, "{DOCUMENT}{NEWEST}"),
            Self::NewestDocument { template: Some(id) } => write!(f, "{DOCUMENT}{NEWEST}.{id}"),
        }
    }
}

impl CrmFile {
    /// Reads what `Display` wrote.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(id) = text.strip_prefix(DRIVE) {
            return id.parse().ok().map(Self::Drive);
        }
        if let Some(document) = text.strip_prefix(DOCUMENT) {
            return match document.strip_prefix(NEWEST) {
                None => document.parse().ok().map(Self::Document),
                Some("") => Some(Self::NewestDocument { template: None }),
                Some(rest) => {
                    let template = Some(rest.strip_prefix('.')?.parse().ok()?);
                    Some(Self::NewestDocument { template })
                }
            };
        }
        let field = text.strip_prefix(FIELD)?;
        let (key, id) = match field.split_once('.') {
            Some((key, id)) => (key, Some(id.parse().ok()?)),
            None => (field, None),
        };
        is_field(key).then(|| Self::Field { key: key.to_owned(), id })
    }

    /// Reads what people write: a number of the Drive (`disk:12`), or the name of a card's own field (`UF_CRM_1_CONTRACT`,
    /// `ufCrm_1_CONTRACT`). A bare number is none: a file field that was inserted as it is leaves the number of a file that is
    /// not the Drive's, and somebody else's file must not go out for it.
    #[must_use]
    pub fn of_person(text: &str) -> Option<Self> {
        if let Some(number) = text.strip_prefix(DRIVE) {
            return number.parse().ok().filter(|id| *id > 0).map(Self::Drive);
        }
        let plain: String = text.chars().filter(|sign| *sign != '_').flat_map(char::to_lowercase).collect();
        (plain.starts_with("ufcrm") && is_field(text)).then(|| Self::Field { key: text.to_owned(), id: None })
    }
}

impl CrmFile {
    /// Reads how people name a document: its number, `template:5` for the newest of a template, nothing for the newest.
    #[must_use]
    pub fn document_of_person(text: &str) -> Option<Self> {
        let positive = |text: &str| text.trim().parse::<u64>().ok().filter(|id| *id > 0);
        match text.split_once(':') {
            None if text.is_empty() => Some(Self::NewestDocument { template: None }),
            None => positive(text).map(Self::Document),
            Some((word, id)) if word.trim().eq_ignore_ascii_case("template") => {
                positive(id).map(|id| Self::NewestDocument { template: Some(id) })
            }
            Some(_) => None,
        }
    }

    /// True for what the CRM may still be making, so that it has to be waited for.
    #[must_use]
    pub fn may_take_long(&self) -> bool {
        match self {
            Self::Document(_) | Self::NewestDocument { .. } => true,
            Self::Drive(_) | Self::Field { .. } => false,
        }
    }
}

fn is_field(key: &str) -> bool {
    const KEY_MAX: usize = 60;
    (1..=KEY_MAX).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// A file found in a CRM.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FileInfo {
    /// Which one; fields name their file.
    pub file: CrmFile,
    /// Name with its ending.
    pub name: String,
    /// Length in bytes, where the CRM tells.
    pub size: Option<u64>,
}

/// Where a message finds a file of a CRM until it is sent: the address that the provider gets is made at that moment,
/// because it ends soon. Written `crm:prt_1:deal:134:disk:12/offer.pdf`, or `crm:prt_1:-:disk:12/offer.pdf` without a card.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FileLink {
    /// Whose file.
    pub portal: PortalId,
    /// The card it was asked for on.
    pub card: Option<CardRef>,
    /// Which one.
    pub file: CrmFile,
    /// Name with its ending, without slashes.
    pub name: String,
}

const LINK: &str = "crm:";

impl FileLink {
    /// The place of a file that was found. What a name cannot hold inside an address is replaced.
    #[must_use]
    pub fn new(portal: PortalId, card: Option<CardRef>, found: &FileInfo) -> Self {
        const NAME_MAX: usize = 150;
        let safe = |sign: char| if sign.is_control() || "/\\?#%\"<>".contains(sign) { '_' } else { sign };
        let name: String = found.name.trim().chars().map(safe).collect();
        // The ending tells the kind of file, so a long name loses its beginning.
        let name: String = name.chars().skip(name.chars().count().saturating_sub(NAME_MAX)).collect();
        let name = if name.is_empty() { "file".to_owned() } else { name };
        Self { portal, card, file: found.file.clone(), name }
    }

    /// Reads what `Display` wrote; `None` for addresses of the network.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (place, name) = text.strip_prefix(LINK)?.split_once('/')?;
        let (portal, rest) = place.split_once(':')?;
        let (card, file) = match rest.strip_prefix("-:") {
            Some(file) => (None, file),
            None => {
                let (kind, rest) = rest.split_once(':')?;
                let (id, file) = rest.split_once(':')?;
                (Some(CardRef::parse(&format!("{kind}:{id}"))?), file)
            }
        };
        Some(Self { portal: PortalId::parse(portal)?, card, file: CrmFile::parse(file)?, name: name.to_owned() })
    }
}

impl fmt::Display for FileLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let card = self.card.map_or_else(|| "-".to_owned(), |card| card.to_string());
        write!(f, "{LINK}{}:{card}:{}/{}", self.portal, self.file, self.name)
    }
}

/// MIME type by the ending of a name: CRMs tell none or a wrong one, and messengers judge files by it.
#[must_use]
pub fn mime_of(name: &str) -> &'static str {
    let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending).to_ascii_lowercase();
    match ending.as_str() {
        "pdf" => "application/pdf",
        "doc" => "application/msword",
        "docx" => "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        "xls" => "application/vnd.ms-excel",
        "xlsx" => "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        "ppt" => "application/vnd.ms-powerpoint",
        "pptx" => "application/vnd.openxmlformats-officedocument.presentationml.presentation",
        "txt" => "text/plain",
        "csv" => "text/csv",
        "zip" => "application/zip",
        "jpg" | "jpeg" => "image/jpeg",
        "png" => "image/png",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "mp4" => "video/mp4",
        "3gp" | "3gpp" => "video/3gpp",
        "mp3" => "audio/mpeg",
        "m4a" => "audio/mp4",
        "aac" => "audio/aac",
        "amr" => "audio/amr",
        "ogg" | "opus" => "audio/ogg",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named_as_people_do() {
        let field = |key: &str| CrmFile::Field { key: key.to_owned(), id: None };
        for (text, file) in [
            ("disk:12", Some(CrmFile::Drive(12))),
            ("12", None),
            ("disk:", None),
            ("UF_CRM_1_FILE", Some(field("UF_CRM_1_FILE"))),
            ("ufCrm1File", Some(field("ufCrm1File"))),
            ("disk:0", None),
            ("contract.pdf", None),
            ("ufCrm/../x", None),
            ("", None),
        ] {
            assert_eq!(CrmFile::of_person(text), file, "{text}");
            assert_eq!(file.as_ref().map(|file| CrmFile::parse(&file.to_string())), file.clone().map(Some));
        }
    }

    #[test]
    fn documents_are_named_as_people_do() {
        for (text, written) in [
            ("", Some("doc:newest")),
            ("12", Some("doc:12")),
            ("template:5", Some("doc:newest.5")),
            ("Template: 5", Some("doc:newest.5")),
            ("template:", None),
            ("contract", None),
            ("0", None),
        ] {
            let file = CrmFile::document_of_person(text);
            assert_eq!(file.as_ref().map(ToString::to_string).as_deref(), written, "{text}");
            assert_eq!(written.and_then(CrmFile::parse), file);
        }
    }

    #[test]
    fn links_read_back_and_names_cannot_leave_them() {
        let portal = PortalId::parse("prt_1").unwrap();
        let card = CardRef::parse("custom180:5");
        for (card, file) in [(card, "field:UF_CRM_1.1201"), (None, "disk:12")] {
            let info =
                FileInfo { file: CrmFile::parse(file).unwrap(), name: "a/../Счёт №1.pdf".to_owned(), size: None };
            let link = FileLink::new(portal.clone(), card, &info);
            assert_eq!(link.name, "a_.._Счёт №1.pdf");
            assert_eq!(FileLink::parse(&link.to_string()), Some(link));
        }
        for bad in ["https://x.example/a.pdf", "crm:", "crm:prt_1:-:disk:x/a", "crm:prt_1:deal:1/a"] {
            assert_eq!(FileLink::parse(bad), None, "{bad}");
        }
    }
}
