//! Files on their way between messengers and CRMs. They pass through in pieces, under addresses of ours that end; nothing
//! is kept, and nothing is called that an outsider chose.

use std::collections::HashMap;
use std::pin::Pin;

use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::{Stream, StreamExt as _};

use super::Pipeline;
use crate::crm::FileQuery;
use crate::domain::chat::{ChatFile, ChatPost, OperatorMessage, PostFile};
use crate::domain::command::{Command, CommandBody};
use crate::domain::crm_file::{FileLink, mime_of};
use crate::domain::effect::CrmError;
use crate::domain::event::InboundContent;
use crate::domain::file::{FILE_MAX, FileRef, is_page, name_of};
use crate::domain::ids::{ChannelId, CommandId, MessageId};
use crate::domain::outcome::{ErrorCode, Failure};
use crate::domain::portal::{Portal, PortalState};
use crate::domain::time::{Millis, Timestamp};
use crate::outbound::download::Download;
use crate::storage::StorageError;

/// How long a CRM may fetch what it was given: it does so within the call, and portals are slow.
const FOR_CRM: Millis = Millis::minutes(60);
/// A vendor may fetch so long after the last moment at which the message may leave.
const FOR_VENDOR: Millis = Millis::hours(1);
/// A file that cannot be fetched yet holds its chat up for no longer than this.
const PATIENCE: Millis = Millis::minutes(10);
/// So many bytes go to a CRM in one call: it fetches them while we wait. One file goes whatever its size.
const CALL_MAX: u64 = 20 * 1024 * 1024;
/// What a file of unknown size counts for.
const USUAL: u64 = 5 * 1024 * 1024;

/// A file that is being handed over.
pub struct OpenFile {
    /// MIME type, lower case, without parameters.
    pub mime: String,
    /// Its name.
    pub name: String,
    /// Bytes, where that is known before the end.
    pub size: Option<u64>,
    /// The pieces as they come, no more than [`FILE_MAX`] bytes; an error ends them.
    pub chunks: Pin<Box<dyn Stream<Item = Result<Bytes, FileTrouble>> + Send>>,
}

/// Why there is no file.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FileTrouble {
    /// There is none, or none that is passed on.
    #[error("{}: {}", .0.code.code(), .0.detail)]
    Refused(Failure),
    /// It may be there later.
    #[error("unavailable: {0}")]
    Unavailable(String),
}

impl From<StorageError> for FileTrouble {
    fn from(error: StorageError) -> Self {
        Self::Unavailable(error.to_string())
    }
}

fn refused(code: ErrorCode, detail: &str) -> FileTrouble {
    FileTrouble::Refused(Failure::with(code, detail))
}

impl Pipeline {
    /// Opens a file that one of our addresses stands for.
    ///
    /// # Errors
    /// [`FileTrouble`]; nothing of it was read that would be missed by the next try.
    pub async fn open_file(&self, file: &FileRef) -> Result<OpenFile, FileTrouble> {
        match file {
            FileRef::Message(id) => {
                let known = self.storage.find_message(id).await?;
                let known = known.ok_or_else(|| refused(ErrorCode::NoContent, "message"))?;
                let told = match (&known.inbound_content, known.record.draft.typed) {
                    (Some(stored), _) => serde_json::from_str(stored).ok(),
                    (None, typed) => typed,
                };
                let told = told.ok_or_else(|| refused(ErrorCode::NoContent, "content"))?;
                let channel = known.record.channel.ok_or_else(|| refused(ErrorCode::NoChannel, ""))?;
                self.open_told(&channel, &told).await
            }
            FileRef::Answer(command, place) => {
                let known = self.storage.load_commands(std::slice::from_ref(command)).await?.remove(command);
                let Some(Ok(Command { portal, body: CommandBody::Answer(answer), .. })) = known.map(|k| k.command)
                else {
                    return Err(refused(ErrorCode::NoContent, "command"));
                };
                let file = answer.files.get(*place).ok_or_else(|| refused(ErrorCode::NoContent, "file"))?;
                let known = self.storage.portal(&portal).await?;
                let known = known.ok_or_else(|| refused(ErrorCode::NoContent, "portal"))?;
                self.open_answered(&known.portal, file).await
            }
            FileRef::Kept(link) => {
                let link = FileLink::parse(link).ok_or_else(|| refused(ErrorCode::FileNotFound, "file"))?;
                self.open_kept(link).await
            }
        }
    }

    /// Opens what a CRM keeps on its Drive, in a card, or as a document.
    async fn open_kept(&self, link: FileLink) -> Result<OpenFile, FileTrouble> {
        let gone = || refused(ErrorCode::FileNotFound, &link.name);
        let known = self.storage.portal(&link.portal).await?.ok_or_else(gone)?;
        if known.portal.state == PortalState::Uninstalled {
            return Err(gone());
        }
        let files = self.crm(known.portal.crm).and_then(|crm| crm.files()).ok_or_else(gone)?;
        let query = FileQuery { card: link.card, file: link.file.clone() };
        let download = files.open_file(&known.portal, &query).await.map_err(|error| of_crm(error, &link.name))?;
        // What CRMs say of a file's kind is often wrong, and messengers judge by it.
        opened(download, mime_of(&link.name).to_owned(), &link.name).await
    }

    /// Opens what a provider told us of.
    async fn open_told(&self, channel: &ChannelId, told: &InboundContent) -> Result<OpenFile, FileTrouble> {
        let InboundContent::Media { media, id, mime, filename, .. } = told else {
            return Err(refused(ErrorCode::NoContent, "media"));
        };
        let channel = self.storage.find_channel(channel).await?.ok_or_else(|| refused(ErrorCode::NoChannel, ""))?;
        let files = self.provider_of(&channel).and_then(|provider| provider.media());
        let files = files.ok_or_else(|| refused(ErrorCode::Unsupported, media))?;
        let stream = files.open(&channel, id).await.map_err(|error| match error.class.is_final() {
            true => FileTrouble::Refused(error.failure),
            false => FileTrouble::Unavailable(error.failure.detail),
        })?;
        let named = if stream.mime.is_empty() { mime.clone() } else { stream.mime };
        let mime = named.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let names = [filename.clone(), stream.filename, name_of(media, &mime)];
        let name = names.into_iter().find(|name| !name.is_empty()).unwrap_or_default();
        let chunks = stream.chunks.map(|chunk| chunk.map_err(|error| FileTrouble::Unavailable(error.failure.detail)));
        checked(OpenFile { mime, name, size: stream.size, chunks: Box::pin(chunks) }).await
    }

    /// Opens what an operator attached.
    ///
    /// # Errors
    /// [`FileTrouble`].
    pub(super) async fn open_answered(&self, portal: &Portal, file: &ChatFile) -> Result<OpenFile, FileTrouble> {
        let crm = self.crm(portal.crm).and_then(|crm| crm.chats());
        let crm = crm.ok_or_else(|| refused(ErrorCode::Unsupported, &file.name))?;
        let download = crm.open(portal, &file.link).await.map_err(|error| of_crm(error, &file.name))?;
        let mime = download.mime();
        opened(download, mime, &file.name).await
    }

    /// The address under which a file is handed out until `until`.
    pub(super) fn address_of(&self, file: &FileRef, name: &str, until: Timestamp) -> Result<String, StorageError> {
        const NAME_MAX: usize = 50;
        let last: Vec<char> = name.chars().rev().take(NAME_MAX).collect();
        let name: String = last.into_iter().rev().collect();
        let name = percent_encoding::utf8_percent_encode(&name, percent_encoding::NON_ALPHANUMERIC).to_string();
        // An ending must stay one for vendors that judge by it.
        let name = name.replace("%2E", ".");
        let word = self.storage.file_word(file, until)?;
        Ok(format!("{}/files/{word}/{name}", self.settings.public_url))
    }
}

fn of_crm(error: CrmError, name: &str) -> FileTrouble {
    if error.class.is_final() {
        refused(ErrorCode::FileType, if error.text.is_empty() { name } else { &error.text })
    } else {
        FileTrouble::Unavailable(error.text)
    }
}

async fn opened(download: Download, mime: String, name: &str) -> Result<OpenFile, FileTrouble> {
    let size = download.size();
    let chunks = download.chunks.map(|chunk| chunk.map_err(|error| FileTrouble::Unavailable(error.to_string())));
    checked(OpenFile { mime, name: name.to_owned(), size, chunks: Box::pin(chunks) }).await
}

/// A file that is passed on: no page in a file's place, not empty, not too large, and cut off where it turns out to be.
async fn checked(file: OpenFile) -> Result<OpenFile, FileTrouble> {
    let OpenFile { mime, name, size, mut chunks } = file;
    if size.is_some_and(|size| size > FILE_MAX) {
        return Err(refused(ErrorCode::FileTooLarge, &name));
    }
    let mut first = Bytes::new();
    while first.is_empty() {
        match chunks.next().await {
            Some(chunk) => first = chunk?,
            None => return Err(refused(ErrorCode::NoContent, &name)),
        }
    }
    if is_page(&mime, &first) {
        return Err(refused(ErrorCode::FileType, &name));
    }
    let too_large = refused(ErrorCode::FileTooLarge, &name);
    let whole = futures_util::stream::iter([Ok(first)]).chain(chunks);
    let bounded = whole.scan(Some(0_u64), move |read, chunk| {
        let Some(before) = *read else { return std::future::ready(None) };
        let now = chunk.as_ref().map_or(before, |chunk| before + chunk.len() as u64);
        *read = Some(now).filter(|now| *now <= FILE_MAX && chunk.is_ok());
        std::future::ready(Some(if now > FILE_MAX { Err(too_large.clone()) } else { chunk }))
    });
    Ok(OpenFile { mime, name, size, chunks: Box::pin(bounded) })
}

/// What is known of a client's file before the CRM is told of it.
struct Looked {
    message: MessageId,
    file: Option<PostFile>,
    /// Bytes that the CRM would fetch.
    size: u64,
}

/// Looks at the files of posts and gives them their addresses; what cannot be passed on is told in words. Gives those that
/// go with a later call: their file cannot be fetched yet, or this call is full.
pub(super) async fn attach(
    pipeline: &Pipeline,
    posts: &mut HashMap<MessageId, Option<ChatPost>>,
    tries: &HashMap<MessageId, u32>,
) -> Result<Vec<MessageId>, StorageError> {
    /// From this try on a file that the CRM does not take is told in words.
    const TRIES: u32 = 3;
    let now = pipeline.clock.now();
    let with_files = posts.values().flatten().filter(|post| matches!(post.content, InboundContent::Media { .. }));
    let looks = with_files.map(|post| async move {
        let refuse = |failure| Some(PostFile::Refused(failure));
        let (file, size) = if tries.get(&post.message).is_some_and(|tries| *tries >= TRIES) {
            (refuse(Failure::with(ErrorCode::CrmUnavailable, "")), 0)
        } else {
            match pipeline.open_told(&post.chat.channel, &post.content).await {
                Ok(found) => {
                    let reference = FileRef::Message(post.message.clone());
                    let url = pipeline.address_of(&reference, &found.name, now.plus(FOR_CRM))?;
                    (Some(PostFile::At { url, name: found.name, size: found.size }), found.size.unwrap_or(USUAL))
                }
                Err(FileTrouble::Refused(failure)) => (refuse(failure), 0),
                Err(FileTrouble::Unavailable(why)) if now.since(post.at) > PATIENCE => {
                    tracing::warn!(message.id = %post.message, why, "a client's file could not be fetched");
                    (refuse(Failure::with(ErrorCode::FileType, "")), 0)
                }
                Err(FileTrouble::Unavailable(_)) => (None, 0),
            }
        };
        Ok::<_, StorageError>(Looked { message: post.message.clone(), file, size })
    });
    let mut later = Vec::new();
    let mut total = 0_u64;
    let looked = join_all(looks).await;
    for looked in looked {
        let Looked { message, file, size } = looked?;
        let full = total > 0 && total + size > CALL_MAX;
        match (file, posts.get_mut(&message)) {
            (Some(file), Some(Some(post))) if !full => {
                total += size;
                post.file = Some(file);
            }
            _ => later.push(message),
        }
    }
    Ok(later)
}

/// An operator's message with addresses of ours in place of its files' own; `Err` says which file is none that can be
/// sent.
pub(super) async fn hand_out(
    pipeline: &Pipeline,
    portal: &Portal,
    command: &CommandId,
    answer: &OperatorMessage,
    not_after: Timestamp,
) -> Result<Result<OperatorMessage, Failure>, StorageError> {
    let mut files = Vec::new();
    for (place, file) in answer.files.iter().enumerate() {
        match pipeline.open_answered(portal, file).await {
            Ok(_found) => {}
            Err(FileTrouble::Refused(failure)) => return Ok(Err(failure)),
            Err(FileTrouble::Unavailable(why)) => return Ok(Err(Failure::with(ErrorCode::CrmUnavailable, why))),
        }
        let reference = FileRef::Answer(command.clone(), place);
        let link = pipeline.address_of(&reference, &file.name, not_after.plus(FOR_VENDOR))?;
        files.push(ChatFile { link, ..file.clone() });
    }
    Ok(Ok(OperatorMessage { files, ..answer.clone() }))
}
