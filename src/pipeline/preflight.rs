//! Before a message leaves: is it allowed, and what exactly is sent. Refuses early and in words.

use std::sync::Arc;
use std::time::Duration;

use moka::future::Cache;

use super::{Pipeline, changes, sources};
use crate::domain::channel::Channel;
use crate::domain::dialog::ServiceWindow;
use crate::domain::ids::{ChannelId, PortalId};
use crate::domain::message::{Content, MessageRecord, OutboundContent, OutboundMessage, TemplateCall};
use crate::domain::outcome::{ErrorCode, Failure, FailureClass, SendError};
use crate::domain::template::{self, FilledTemplate, TemplateDef};
use crate::domain::time::{Millis, Timestamp};
use crate::providers::Provider;

/// A list of templates that did not hold what was looked for is asked for again after this.
const ASK_AGAIN: Millis = Millis::seconds(15);

/// What a vendor said of a template of one name, and when.
struct Known {
    templates: Vec<TemplateDef>,
    asked: Timestamp,
}

/// Templates as the vendors last described them.
pub(super) struct TemplateCache {
    known: Cache<(ChannelId, String), Arc<Known>>,
    /// Everything a channel has, for people to choose from.
    lists: Cache<ChannelId, Arc<Vec<TemplateDef>>>,
}

impl TemplateCache {
    pub(super) fn new(fresh: Duration) -> Self {
        Self {
            known: Cache::builder().max_capacity(2_000).time_to_live(fresh).build(),
            lists: Cache::builder().max_capacity(500).time_to_live(ASK_AGAIN.to_duration()).build(),
        }
    }

    /// The vendor says that templates have changed.
    pub(super) fn forget(&self) {
        self.known.invalidate_all();
        self.lists.invalidate_all();
    }
}

impl Pipeline {
    /// Every template of a channel in the order of their names, some seconds old at most: whoever looks has often just made
    /// one. None where the vendor has no templates. Pages ask this, so many ask at once and the vendor is asked once.
    ///
    /// # Errors
    /// [`SendError`] of the vendor.
    pub async fn templates_of(&self, channel: &Channel) -> Result<Arc<Vec<TemplateDef>>, Arc<SendError>> {
        let Some(templates) = self.provider_of(channel).and_then(|provider| provider.templates()) else {
            return Ok(Arc::default());
        };
        let ask = async {
            let mut found = templates.list(channel).await?;
            found.sort_by_key(|one| one.id.label());
            Ok::<_, SendError>(Arc::new(found))
        };
        self.templates.lists.try_get_with(channel.id.clone(), ask).await
    }
}

/// Why a message does not leave now.
#[derive(Debug)]
pub(super) enum Refusal {
    /// It will not leave at all.
    Failed(Failure),
    /// The provider had to be asked and did not answer well.
    Provider(Box<SendError>),
}

/// A message that may leave.
#[derive(Debug)]
pub(super) struct Ready {
    /// What is sent.
    pub(super) message: OutboundMessage,
    /// True when the fallback template stands in for the content.
    pub(super) used_fallback: bool,
}

/// Decides what of a message leaves at `now`.
pub(super) async fn prepare(
    pipeline: &Pipeline,
    channel: &Channel,
    provider: &Arc<dyn Provider>,
    record: &MessageRecord,
    last_inbound: Option<Timestamp>,
    now: Timestamp,
) -> Result<Ready, Refusal> {
    let window = ServiceWindow::judge(provider.spec().capabilities.service_window, last_inbound, now);
    let closed = record.draft.content.needs_window() && !window.is_open(now);
    let ready = |content, used_fallback| Ready {
        message: OutboundMessage { id: record.id.clone(), to: record.peer.clone(), content },
        used_fallback,
    };
    if let Some(change) = &record.draft.change {
        return Ok(ready(changes::prepare(pipeline, provider, record, change, now).await?, false));
    }
    if closed {
        let Some(fallback) = &record.draft.fallback else {
            return Err(Refusal::Failed(Failure::new(ErrorCode::WindowClosed)));
        };
        let filled = fill(pipeline, channel, provider, record.portal.as_ref(), fallback, now).await?;
        return Ok(ready(OutboundContent::Template(filled), true));
    }
    let content = match &record.draft.content {
        Content::Text { body } => OutboundContent::Text(body.clone()),
        Content::Media { media, link, caption, filename } => OutboundContent::Media {
            media: *media,
            link: sources::address_of(pipeline, record.portal.as_ref(), link, now).map_err(Refusal::Failed)?,
            caption: caption.clone(),
            filename: filename.clone(),
        },
        Content::Template(call) => {
            OutboundContent::Template(fill(pipeline, channel, provider, record.portal.as_ref(), call, now).await?)
        }
        // Deeds have no send.
        Content::Deed(deed) => return Err(Refusal::Failed(Failure::with(ErrorCode::Unsupported, deed.code()))),
    };
    Ok(ready(content, false))
}

/// Finds the template at the vendor and puts the values in; `owner` is the portal whose message it is.
pub(super) async fn fill(
    pipeline: &Pipeline,
    channel: &Channel,
    provider: &Arc<dyn Provider>,
    owner: Option<&PortalId>,
    call: &TemplateCall,
    now: Timestamp,
) -> Result<FilledTemplate, Refusal> {
    let first = find(pipeline, channel, provider, &call.template.name, now).await?;
    let chosen = match template::choose(&first.templates, &call.template) {
        Ok(def) => def.clone(),
        Err(failure) if now.since(first.asked) < ASK_AGAIN => return Err(Refusal::Failed(failure)),
        Err(_) => {
            // It may have been approved since.
            pipeline.templates.known.invalidate(&(channel.id.clone(), call.template.name.clone())).await;
            let again = find(pipeline, channel, provider, &call.template.name, now).await?;
            template::choose(&again.templates, &call.template).map_err(Refusal::Failed)?.clone()
        }
    };
    let files: Result<Vec<String>, Failure> =
        call.files.iter().map(|link| sources::address_of(pipeline, owner, link, now)).collect();
    template::fill(&chosen, &call.params, &files.map_err(Refusal::Failed)?).map_err(Refusal::Failed)
}

/// Many messages may ask for one template at once; the vendor is asked once.
async fn find(
    pipeline: &Pipeline,
    channel: &Channel,
    provider: &Arc<dyn Provider>,
    name: &str,
    now: Timestamp,
) -> Result<Arc<Known>, Refusal> {
    let Some(templates) = provider.templates() else {
        return Err(Refusal::Failed(Failure::with(ErrorCode::Unsupported, name)));
    };
    let key = (channel.id.clone(), name.to_owned());
    let ask = async {
        let found = templates.find(channel, name).await?;
        Ok::<_, SendError>(Arc::new(Known { templates: found, asked: now }))
    };
    pipeline.templates.known.try_get_with(key, ask).await.map_err(|error: Arc<SendError>| {
        let mut error = (*error).clone();
        // Asking sends nothing: an unclear answer to a question may simply be asked for again.
        if error.class == FailureClass::Indeterminate {
            error.class = FailureClass::Unavailable;
        }
        Refusal::Provider(Box::new(error))
    })
}
