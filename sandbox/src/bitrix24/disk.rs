//! Files of a portal: the Drive, file fields of cards, documents made of templates. Source: §8.2, §8.7.
//!
//! Addresses for machines carry a word that stands for the caller's token, and are over after an hour like one.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use hyper::header::CONTENT_DISPOSITION;

use super::{
    PortalCell,
    handle::Portal,
    rest::{Answer, Hit, RestError},
};
use crate::{
    clock::Millis,
    http::{Request, Response, form},
    php::{Key, Php},
    world::World,
};

/// How long an address for machines opens its file.
const ADDRESS_MS: Millis = 3_600_000;

struct Stored {
    name: String,
    bytes: Bytes,
    /// Served as this type; portals tell none of their own.
    content_type: String,
}

/// A document that the portal makes of a template.
struct Document {
    title: String,
    template_id: i64,
    type_id: i64,
    entity_id: i64,
    docx: i64,
    /// Made later, beside other work.
    pdf: Option<i64>,
    failed: bool,
}

/// What a portal keeps of files.
#[derive(Default)]
pub(crate) struct Disk {
    last: i64,
    files: BTreeMap<i64, Stored>,
    /// By type and number of the card, and name of the field.
    fields: BTreeMap<(i64, i64, String), Vec<i64>>,
    words: HashMap<String, (i64, Millis)>,
    documents: BTreeMap<i64, Document>,
}

impl Disk {
    fn add(&mut self, name: &str, content_type: &str, bytes: Bytes) -> i64 {
        self.last += 1;
        let id = 1200 + self.last;
        let stored = Stored { name: name.to_owned(), bytes, content_type: content_type.to_owned() };
        self.files.insert(id, stored);
        id
    }

    fn word(&mut self, id: i64, hit: &Hit<'_>) -> String {
        let word = hit.world.ids.letters(70);
        self.words.insert(word.clone(), (id, hit.now + ADDRESS_MS));
        word
    }
}

/// `disk.file.get`: every value is a string.
pub(crate) fn file_get(hit: &mut Hit<'_>, params: &Php) -> Result<Answer, RestError> {
    let id = params.get("id").and_then(Php::as_int).ok_or_else(|| RestError::missing("id"))?;
    let mut state = hit.portal.state.lock();
    let Some(file) = state.disk.files.get(&id) else {
        return Err(RestError::bad("ERROR_NOT_FOUND", format!("Could not find entity with id `{id}`.")));
    };
    let (name, size) = (file.name.clone(), file.bytes.len());
    let word = state.disk.word(id, hit);
    let address = format!("http://{}/rest/download.json?auth={word}&token=disk%7C{id}", hit.portal.domain());
    Ok(Answer::of(Php::map([
        ("ID", id.to_string().as_str().into()),
        ("NAME", name.as_str().into()),
        ("SIZE", size.to_string().as_str().into()),
        ("FILE_ID", (id + 5000).to_string().as_str().into()),
        ("DOWNLOAD_URL", address.as_str().into()),
    ])))
}

fn document_error() -> RestError {
    RestError::bad("0", "Document not found")
}

/// `crm.documentgenerator.document.get`.
pub(crate) fn document_get(hit: &mut Hit<'_>, params: &Php) -> Result<Answer, RestError> {
    let id = params.get("id").and_then(Php::as_int).ok_or_else(|| RestError::missing("id"))?;
    let mut state = hit.portal.state.lock();
    let document = state.disk.documents.get(&id).ok_or_else(document_error)?;
    let (docx, pdf) = (document.docx, document.pdf);
    let mut shown = vec![
        ("id", Php::Int(id)),
        ("title", document.title.as_str().into()),
        ("number", id.to_string().as_str().into()),
        ("templateId", document.template_id.to_string().as_str().into()),
        ("entityTypeId", Php::Int(document.type_id)),
        ("entityId", document.entity_id.to_string().as_str().into()),
        ("publicUrl", Php::Null),
        ("isTransformationError", Php::Bool(document.failed)),
    ];
    let mut place = |file: i64| {
        let word = state.disk.word(file, hit);
        format!(
            "http://{}/rest/documentgenerator.document.getFile/?auth={word}&token=doc%7C{file}",
            hit.portal.domain()
        )
    };
    shown.push(("downloadUrlMachine", place(docx).as_str().into()));
    if let Some(pdf) = pdf {
        shown.push(("pdfUrlMachine", place(pdf).as_str().into()));
    }
    Ok(Answer::of(Php::map([("document", Php::map(shown))])))
}

/// `crm.documentgenerator.document.list`: ids and titles of a card's documents.
pub(crate) fn document_list(hit: &mut Hit<'_>, params: &Php) -> Result<Answer, RestError> {
    let filter = params.get("filter").cloned().unwrap_or(Php::empty());
    let wanted = |key: &str| filter.get(key).and_then(Php::as_int);
    let (Some(type_id), Some(entity_id)) = (wanted("entityTypeId"), wanted("entityId")) else {
        return Err(RestError::missing("filter"));
    };
    let descending = params
        .get("order")
        .and_then(|order| order.get("id"))
        .is_some_and(|way| way.text().eq_ignore_ascii_case("desc"));
    let state = hit.portal.state.lock();
    let fits = |document: &Document| {
        document.type_id == type_id
            && document.entity_id == entity_id
            && wanted("templateId").is_none_or(|id| document.template_id == id)
    };
    let mut found: Vec<i64> =
        state.disk.documents.iter().filter(|(_, document)| fits(document)).map(|(id, _)| *id).collect();
    if descending {
        found.reverse();
    }
    let documents = found.into_iter().map(|id| Php::map([("id", id.to_string().as_str().into())]));
    Ok(Answer::of(Php::map([("documents", Php::list(documents))])))
}

/// Puts the files of a card's fields into what `crm.item.get` shows of it.
pub(crate) fn fill(hit: &Hit<'_>, disk: &mut Disk, type_id: i64, id: i64, shown: &mut Php) {
    let fields = disk.fields.iter().filter(|((of, card, _), _)| (*of, *card) == (type_id, id));
    let fields: Vec<_> = fields.map(|((_, _, key), files)| (key.clone(), files.clone())).collect();
    for (key, files) in fields {
        let one = |file: &i64| {
            let word = disk.word(*file, hit);
            let place = format!(
                "http://{}/rest/crm.controller.item.getFile/?auth={word}&token=crm%7C{file}",
                hit.portal.domain()
            );
            Php::map([
                ("id", Php::Int(*file)),
                ("url", "/bitrix/services/main/ajax.php".into()),
                ("urlMachine", place.as_str().into()),
            ])
        };
        let mut values: Vec<Php> = files.iter().map(one).collect();
        let value = if values.len() == 1 { values.remove(0) } else { Php::list(values) };
        *shown.entry(Key::from(key.as_str())) = value;
    }
}

/// Answers a download; `None` for other addresses.
pub(crate) fn download(world: &World, portal: &PortalCell, request: &Request) -> Option<Response> {
    let path = request.path.to_ascii_lowercase();
    let places =
        ["/rest/download.json", "/rest/crm.controller.item.getfile/", "/rest/documentgenerator.document.getfile/"];
    if !places.contains(&path.as_str()) {
        return None;
    }
    world.journal.count("file.download");
    let query = form::parse(&request.query);
    let word = query.get("auth").map(Php::text).unwrap_or_default();
    let now = world.now_ms();
    let state = portal.state.lock();
    let known = state.disk.words.get(&word).filter(|(_, until)| *until > now);
    let Some(file) = known.and_then(|(id, _)| state.disk.files.get(id)) else {
        return Some(Response::json(
            401,
            br#"{"error":"expired_token","error_description":"The access token provided has expired."}"#.to_vec(),
        ));
    };
    if request.header("user-agent").is_empty() || request.header("accept").is_empty() {
        return Some(Response::html(403, "<h1>403 Forbidden</h1>"));
    }
    let escaped: String = file.name.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let disposition = format!("attachment; filename=\"file\"; filename*=utf-8''{escaped}");
    let answer = Response::new(200, &file.content_type, file.bytes.clone());
    Some(answer.with_header(CONTENT_DISPOSITION, disposition))
}

impl Portal {
    /// Puts a file on the Drive; gives its number.
    pub fn add_disk_file(&self, name: &str, bytes: &[u8]) -> i64 {
        self.add_disk_file_as(name, "application/octet-stream", bytes)
    }

    /// The same, served as another type: a page where a file should be.
    pub fn add_disk_file_as(&self, name: &str, content_type: &str, bytes: &[u8]) -> i64 {
        self.cell.state.lock().disk.add(name, content_type, Bytes::copy_from_slice(bytes))
    }

    /// Removes a file from the Drive.
    pub fn remove_disk_file(&self, id: i64) -> bool {
        self.cell.state.lock().disk.files.remove(&id).is_some()
    }

    /// Makes a document of a template on a card; its PDF comes later. Gives its number.
    pub fn add_document(&self, type_id: i64, entity_id: i64, template_id: i64, title: &str) -> i64 {
        let mut state = self.cell.state.lock();
        let docx = state.disk.add(&format!("{title}.docx"), "application/octet-stream", Bytes::from_static(b"PK docx"));
        let title = title.to_owned();
        let document = Document { title, template_id, type_id, entity_id, docx, pdf: None, failed: false };
        state.disk.documents.insert(docx, document);
        docx
    }

    /// The PDF of a document is ready; without bytes, it could not be made.
    pub fn finish_document(&self, id: i64, pdf: Option<&[u8]>) {
        let mut state = self.cell.state.lock();
        let pdf = pdf.map(|bytes| state.disk.add("document.pdf", "application/pdf", Bytes::copy_from_slice(bytes)));
        if let Some(document) = state.disk.documents.get_mut(&id) {
            (document.pdf, document.failed) = (pdf, pdf.is_none());
        }
    }

    /// Puts files of the Drive into a field of a card.
    pub fn set_file_field(&self, type_id: i64, id: i64, key: &str, files: &[i64]) {
        self.cell.state.lock().disk.fields.insert((type_id, id, key.to_owned()), files.to_vec());
    }
}
