//! Files that a portal keeps: on its Drive, in fields of cards, and those that operators attach to what they write.
//!
//! The addresses a portal gives carry a token and end with it, so they are asked for anew each time a file is opened, and
//! never leave this room (protocol reference, sections "Reading" and "Files and documents", read 2026-11).

use async_trait::async_trait;
use percent_encoding::percent_decode_str;
use serde_json::Value;
use url::Url;

use super::Bitrix24;
use super::batch::{BATCH_MAX, Batch, Param};
use super::cards::{GET, entity_type_id, no_such_card};
use super::errors::own;
use super::oauth::same_origin;
use super::reconcile::entry;
use crate::crm::{FileQuery, Files};
use crate::domain::crm_file::{CrmFile, FileInfo};
use crate::domain::effect::{CrmError, PortalTrouble};
use crate::domain::outcome::FailureClass;
use crate::domain::portal::Portal;
use crate::domain::time::Millis;
use crate::forms::{flag, integer, items, member, text_at};
use crate::outbound::download::Download;
use crate::outbound::{Call, CallError};

const DRIVE: &str = "disk.file.get";
const DOCUMENT: &str = "crm.documentgenerator.document.get";
const DOCUMENTS: &str = "crm.documentgenerator.document.list";
/// A PDF is asked for again after this: the portal makes it beside its other work.
const PDF_LOOK: Millis = Millis::seconds(30);
/// Most entries that one file takes.
const PER_FILE: usize = 2;
/// A download may be sent on from server to server so often.
const TURNS: usize = 5;

/// Where the way to a file may lead.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Path {
    /// Only to the portal itself.
    Stays,
    /// From the portal to wherever it sends on.
    MayLeave,
}

/// A file and where the portal gives it now. Secret: the address carries a token.
struct Source {
    file: CrmFile,
    /// Name and length, where the portal tells.
    name: String,
    size: Option<u64>,
    address: String,
}

#[async_trait]
impl Files for Bitrix24 {
    async fn find_files(&self, portal: &Portal, asked: &[FileQuery]) -> Vec<Result<Vec<FileInfo>, CrmError>> {
        let mut found = Vec::with_capacity(asked.len());
        for sources in self.sources(portal, asked).await {
            found.push(match sources {
                Ok(sources) => self.described(portal, sources).await,
                Err(error) => Err(error),
            });
        }
        found
    }

    async fn open_file(&self, portal: &Portal, query: &FileQuery) -> Result<Download, CrmError> {
        let sources = self.sources(portal, std::slice::from_ref(query)).await.pop();
        let source = sources.unwrap_or_else(|| Ok(Vec::new()))?.into_iter().next();
        let source = source.ok_or_else(|| gone("the card's field holds no such file"))?;
        self.download(portal, &source).await
    }
}

impl Bitrix24 {
    async fn sources(&self, portal: &Portal, asked: &[FileQuery]) -> Vec<Result<Vec<Source>, CrmError>> {
        let mut found = Vec::with_capacity(asked.len());
        for chunk in asked.chunks(BATCH_MAX / PER_FILE) {
            let mut batch = Batch::default();
            let places: Vec<Result<usize, CrmError>> = chunk
                .iter()
                .map(|query| match &query.file {
                    CrmFile::Drive(id) => Ok(batch.push(DRIVE, &[("id", (*id).into())])),
                    CrmFile::Field { .. } => {
                        let (kind, id) = card_of(query)?;
                        Ok(batch.push(GET, &[("entityTypeId", kind.into()), ("id", id.into())]))
                    }
                    CrmFile::Document(id) => Ok(batch.push(DOCUMENT, &[("id", (*id).into())])),
                    CrmFile::NewestDocument { template } => {
                        let (kind, id) = card_of(query)?;
                        let mut filter =
                            vec![("entityTypeId".to_owned(), kind.into()), ("entityId".to_owned(), id.into())];
                        filter.extend(template.map(|id| ("templateId".to_owned(), id.into())));
                        let order = Param::map([("id", "desc".into())]);
                        let newest = batch.push(DOCUMENTS, &[("filter", Param::Map(filter)), ("order", order)]);
                        let id = Param::of_answer(newest, &["documents", "0", "id"]);
                        Ok(batch.push(DOCUMENT, &[("id", id)]))
                    }
                })
                .collect();
            let answer = if batch.is_empty() { Ok(Vec::new()) } else { self.client.batch(portal, &batch).await };
            let answer = answer.map_err(|failed| failed.error(true));
            found.extend(chunk.iter().zip(places).map(|(query, place)| {
                let value = entry(answer.as_ref().map_err(Clone::clone)?, place?)?;
                read(query, value)
            }));
        }
        found
    }

    /// What is told of files that a portal gives; where it tells no name, the download does.
    async fn described(&self, portal: &Portal, sources: Vec<Source>) -> Result<Vec<FileInfo>, CrmError> {
        let mut found = Vec::with_capacity(sources.len());
        for mut source in sources {
            if source.name.is_empty() {
                let download = self.download(portal, &source).await?;
                source.name = name_of(download.header("content-disposition").unwrap_or_default());
                source.size = download.size();
            }
            found.push(FileInfo { file: source.file, name: source.name, size: source.size });
        }
        Ok(found)
    }

    /// Opens a file of the Drive or of a card. It may lie at a store of the portal's maker.
    async fn download(&self, portal: &Portal, source: &Source) -> Result<Download, CrmError> {
        let download = self.fetch(portal, &source.address, Path::MayLeave).await?;
        sound(download, source)
    }

    /// Opens what an operator attached, by the public link of its message (protocol reference, section "Outgoing events").
    pub(super) async fn open_link(&self, portal: &Portal, link: &str) -> Result<Download, CrmError> {
        self.fetch(portal, link, Path::Stays).await
    }

    /// The portal itself must be where the address begins: an event could name any address.
    async fn fetch(&self, portal: &Portal, address: &str, path: Path) -> Result<Download, CrmError> {
        let base =
            Url::parse(&self.client.tokens.endpoint(portal)).map_err(|_no_url| gone("the portal has no address"))?;
        let begins = Some(address.trim()).filter(|text| !text.is_empty());
        let mut address =
            begins.and_then(|text| base.join(text).ok()).ok_or_else(|| gone("the file's address is none"))?;
        let mut must_be_portals = true;
        for _ in 0..TURNS {
            if must_be_portals && !same_origin(&base, &address) {
                return Err(gone("the file's address is not the portal's"));
            }
            let answer = self.client.outbound().open(Call::get(address.as_str()).header("accept", "*/*")).await;
            let download = answer.map_err(|error| not_given(&error))?;
            match download.status {
                200 => return Ok(download),
                301 | 302 | 303 | 307 | 308 => {
                    let next = download.header("location").and_then(|place| address.join(place).ok());
                    address = next.ok_or_else(|| gone("the file was sent on to nowhere"))?;
                    must_be_portals = path == Path::Stays;
                }
                status @ (408 | 429 | 500..=599) => {
                    let text = format!("the portal answered {status} instead of the file");
                    return Err(own(FailureClass::Unavailable, PortalTrouble::None, "no_download", text));
                }
                status => return Err(gone(&format!("the portal answered {status} instead of the file"))),
            }
        }
        Err(gone("the file was sent on and on"))
    }
}

/// A page instead of a file means that somebody should have signed in.
fn sound(download: Download, source: &Source) -> Result<Download, CrmError> {
    let kind = download.header("content-type").unwrap_or_default().to_ascii_lowercase();
    let name = source.name.to_ascii_lowercase();
    let is_page = kind.starts_with("text/html") && !(name.ends_with(".html") || name.ends_with(".htm"));
    if is_page { Err(gone("the portal gave a page instead of the file")) } else { Ok(download) }
}

/// Type and number of the card of a query.
fn card_of(query: &FileQuery) -> Result<(u64, u64), CrmError> {
    let card = query.card.ok_or_else(|| gone("there is no card to take it from"))?;
    let kind = entity_type_id(card.kind).ok_or_else(|| no_such_card(card))?;
    Ok((kind.into(), card.id))
}

fn gone(text: &str) -> CrmError {
    own(FailureClass::Rejected, PortalTrouble::None, "no_file", text)
}

/// Reading may always be repeated.
fn not_given(error: &CallError) -> CrmError {
    match error {
        CallError::Refused(text) => gone(text),
        CallError::NotConnected(text) | CallError::NoAnswer(text) => {
            own(FailureClass::Unavailable, PortalTrouble::None, "no_download", text.as_str())
        }
    }
}

fn read(query: &FileQuery, value: &Value) -> Result<Vec<Source>, CrmError> {
    let file = &query.file;
    match file {
        CrmFile::Drive(_) => {
            let size = member(value, "SIZE").and_then(integer).and_then(|size| u64::try_from(size).ok());
            let (name, address) = (text_at(value, &["NAME"]), text_at(value, &["DOWNLOAD_URL"]));
            if name.is_empty() || address.is_empty() {
                return Err(gone("the Drive names no such file"));
            }
            Ok(vec![Source { file: file.clone(), name, size, address }])
        }
        CrmFile::Document(_) | CrmFile::NewestDocument { .. } => read_document(query, value).map(|source| vec![source]),
        CrmFile::Field { key, id } => {
            let item = member(value, "item").unwrap_or(value);
            let fields = item.as_object().into_iter().flatten();
            let field = fields.filter(|(name, _)| plain(name) == plain(key)).map(|(_, value)| value).next();
            let held = match field {
                Some(one) if member(one, "urlMachine").is_some() => vec![one],
                Some(many) => items(many),
                None => return Err(gone(&format!("the card has no field {key}"))),
            };
            let read = |value: &Value| {
                let number = member(value, "id").and_then(integer).and_then(|id| u64::try_from(id).ok())?;
                let file = CrmFile::Field { key: key.clone(), id: Some(number) };
                let address = text_at(value, &["urlMachine"]);
                let fits = !address.is_empty() && id.is_none_or(|id| id == number);
                fits.then(|| Source { file, name: String::new(), size: None, address })
            };
            let sources: Vec<Source> = held.into_iter().filter_map(read).collect();
            if sources.is_empty() { Err(gone(&format!("the field {key} holds no file"))) } else { Ok(sources) }
        }
    }
}

/// The PDF of a document, or the document itself where the portal could not make one of it.
fn read_document(query: &FileQuery, value: &Value) -> Result<Source, CrmError> {
    let document = member(value, "document").unwrap_or(value);
    let number = member(document, "id").and_then(integer).and_then(|id| u64::try_from(id).ok());
    let number = number.ok_or_else(|| gone("the card has no such document"))?;
    // A reference that led nowhere may give some other document: only the one that was meant counts.
    let is_meant = match (&query.file, card_of(query)) {
        (CrmFile::Document(id), _) => *id == number,
        (_, Ok((kind, id))) => {
            let told = |key: &str| member(document, key).and_then(integer).and_then(|told| u64::try_from(told).ok());
            told("entityTypeId") == Some(kind) && told("entityId") == Some(id)
        }
        (_, Err(error)) => return Err(error),
    };
    if !is_meant {
        return Err(gone("the card has no such document"));
    }
    let said = |key: &str| text_at(document, &[key]);
    let failed = member(document, "isTransformationError").and_then(flag).unwrap_or(false);
    let (address, ending) = match (said("pdfUrlMachine"), failed) {
        (pdf, _) if !pdf.is_empty() => (pdf, "pdf"),
        (_, true) => (said("downloadUrlMachine"), "docx"),
        (_, false) => {
            let waits = own(FailureClass::Throttled, PortalTrouble::None, "pdf_not_ready", "the PDF is being made");
            return Err(CrmError { retry_after: Some(PDF_LOOK), ..waits });
        }
    };
    if address.is_empty() {
        return Err(gone("the portal could not make the document"));
    }
    let title = said("title");
    let title = if title.trim().is_empty() { number.to_string() } else { title.trim().to_owned() };
    Ok(Source { file: CrmFile::Document(number), name: format!("{title}.{ending}"), size: None, address })
}

/// Names of fields are written in capitals with underscores, or in humps.
fn plain(name: &str) -> String {
    name.chars().filter(|sign| *sign != '_').flat_map(char::to_lowercase).collect()
}

/// The name in a `Content-Disposition`; empty when there is none. The extended form counts more (RFC 6266).
fn name_of(disposition: &str) -> String {
    let parts = || disposition.split(';').skip(1).filter_map(|part| part.trim().split_once('='));
    let of = |key: &str| parts().find(|(name, _)| name.trim().eq_ignore_ascii_case(key)).map(|(_, value)| value.trim());
    if let Some((_, name)) = of("filename*").and_then(|value| value.split_once("''")) {
        return percent_decode_str(name).decode_utf8_lossy().into_owned();
    }
    of("filename").map(|name| name.trim_matches('"').to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::portal::CardRef;

    fn field(key: &str, id: Option<u64>) -> CrmFile {
        CrmFile::Field { key: key.to_owned(), id }
    }

    #[test]
    fn a_field_gives_one_file_or_several() {
        let file = |id: u64| json!({"id": id, "url": "/x", "urlMachine": format!("https://p.example/rest/f?id={id}")});
        let item =
            json!({"item": {"id": 2, "ufCrm_1_ONE": file(5), "ufCrm1Many": [file(6), file(7)], "ufCrmNone": []}});
        let ids = |key: &str, id: Option<u64>| {
            read(&FileQuery { card: None, file: field(key, id) }, &item)
                .map(|found| found.into_iter().map(|source| source.file).collect::<Vec<_>>())
        };
        assert_eq!(ids("UF_CRM_1_ONE", None).unwrap(), [field("UF_CRM_1_ONE", Some(5))]);
        assert_eq!(ids("UF_CRM_1_MANY", None).unwrap().len(), 2);
        assert_eq!(ids("UF_CRM_1_MANY", Some(7)).unwrap(), [field("UF_CRM_1_MANY", Some(7))]);
        for (key, id) in [("UF_CRM_NONE", None), ("UF_CRM_ABSENT", None), ("UF_CRM_1_ONE", Some(9))] {
            assert_eq!(ids(key, id).unwrap_err().code, "no_file", "{key}");
        }
    }

    #[test]
    fn a_document_is_waited_for_and_never_confused_with_another() {
        let card = CardRef::parse("deal:2");
        let answer = |change: Value| {
            let mut document = json!({"id": 9, "title": "Offer", "entityTypeId": "2", "entityId": "2"});
            document.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
            json!({"document": document})
        };
        let ask = |file: CrmFile, change: Value| {
            let found = read(&FileQuery { card, file }, &answer(change));
            found.map(|found| found[0].name.clone()).map_err(|error| error.code)
        };
        let pdf = json!({"pdfUrlMachine": "https://p.example/rest/pdf"});
        let newest = || CrmFile::NewestDocument { template: None };
        assert_eq!(ask(CrmFile::Document(9), pdf.clone()).unwrap(), "Offer.pdf");
        assert_eq!(ask(newest(), pdf.clone()).unwrap(), "Offer.pdf");
        assert_eq!(ask(CrmFile::Document(8), pdf).unwrap_err(), "no_file");
        assert_eq!(ask(newest(), json!({"entityId": 3})).unwrap_err(), "no_file");
        assert_eq!(ask(newest(), json!({"pdfUrlMachine": null})).unwrap_err(), "pdf_not_ready");
        let broken = json!({"isTransformationError": true, "downloadUrlMachine": "https://p.example/rest/docx"});
        assert_eq!(ask(newest(), broken).unwrap(), "Offer.docx");
        assert_eq!(ask(newest(), json!({"isTransformationError": true})).unwrap_err(), "no_file");
    }

    #[test]
    fn names_come_from_either_form() {
        for (header, name) in [
            ("attachment; filename=\"bill.pdf\"; filename*=UTF-8''%D0%A1%D1%87%D1%91%D1%82.pdf", "Счёт.pdf"),
            ("attachment; filename=\"bill.pdf\"", "bill.pdf"),
            ("attachment", ""),
            ("", ""),
        ] {
            assert_eq!(name_of(header), name, "{header}");
        }
    }
}
