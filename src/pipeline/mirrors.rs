//! Messages that went to a person past the chat in which operators answer: what is shown of them there, and how they are
//! recognised when the CRM tells of them as if they had been written there (`docs/adr/0011`).

use std::collections::HashMap;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::Pipeline;
use crate::crm::{Crm, TokenStore as _};
use crate::domain::chat::{ChatPost, OperatorMessage};
use crate::domain::effect::{Applied, CrmEffect, CrmError};
use crate::domain::event::InboundContent;
use crate::domain::ids::{CrmUserId, MessageId};
use crate::domain::language::Language;
use crate::domain::message::{Content, Draft};
use crate::domain::portal::Portal;
use crate::domain::time::Timestamp;
use crate::i18n;
use crate::storage::StorageError;
use crate::storage::mirrors::{Mirror, MirrorCall};

/// What is to be shown of messages that went past their chats. `None` for those that nobody can be named the author of
/// yet, because the portal has no living token.
pub(super) async fn posts(
    pipeline: &Pipeline,
    portal: &Portal,
    messages: &[MessageId],
) -> Result<HashMap<MessageId, Option<ChatPost>>, StorageError> {
    let mirrors = pipeline.storage.mirrors(messages).await?;
    if mirrors.is_empty() {
        return Ok(HashMap::new());
    }
    let tokens = pipeline.storage.load_tokens(&portal.id).await.map_err(|down| StorageError::Unavailable(down.0))?;
    // What nobody in particular is responsible for is said by whoever installed the application.
    let ours: Vec<CrmUserId> = tokens.iter().map(|pair| CrmUserId(pair.user_id.clone())).collect();
    let post = |mirror: Mirror| {
        let shown = mirror.post.author.clone();
        let willing = mirror.responsible.iter().chain(&ours).find(|author| Some(*author) != mirror.refused.as_ref());
        // Where nobody is left, the one who was refused is asked for again, until that is given up.
        let author = shown.or_else(|| willing.cloned()).or_else(|| mirror.refused.clone());
        let words = words(portal.language, &mirror);
        let content = match mirror.draft.typed {
            Some(InboundContent::Media { media, id, mime, filename, .. }) => {
                InboundContent::Media { media, id, mime, filename, caption: words }
            }
            Some(
                InboundContent::Text { .. }
                | InboundContent::Location { .. }
                | InboundContent::Contacts { .. }
                | InboundContent::Reaction { .. }
                | InboundContent::Edited { .. }
                | InboundContent::Deleted { .. }
                | InboundContent::Other { .. },
            )
            | None => InboundContent::Text { body: words },
        };
        let id = mirror.post.message.clone();
        (id, author.map(|author| ChatPost { author: Some(author), content, ..mirror.post }))
    };
    Ok(mirrors.into_iter().map(post).collect())
}

/// What is shown of a message that did not come from the chat: who or what sent it, and its words.
fn words(language: Language, mirror: &Mirror) -> String {
    let Draft { content, typed, .. } = &mirror.draft;
    let text = match (typed, content) {
        (Some(InboundContent::Other { what }), _) => what.clone(),
        (_, Content::Text { body }) => body.clone(),
        (_, Content::Media { caption, filename, link, .. }) => {
            let name = if filename.is_empty() { link } else { filename };
            [name.as_str(), caption.as_str()].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("\n")
        }
        (_, Content::Template(call)) => {
            let label = call.template.label();
            i18n::text(
                language,
                "chat.template",
                &[("name", label.as_str()), ("values", call.params.join(", ").as_str())],
            )
        }
        // Nothing went to anybody.
        (_, Content::Deed(_)) => String::new(),
    };
    let key = match (typed, mirror.automatic) {
        (Some(_), _) => "chat.by_phone",
        (None, true) => "chat.by_robot",
        (None, false) => "chat.by_program",
    };
    i18n::text(language, key, &[("text", text.as_str())])
}

/// Puts first words of the messages beside the posts that answer, react to, change or take back one.
pub(super) async fn quote(
    pipeline: &Pipeline,
    posts: &mut HashMap<MessageId, Option<ChatPost>>,
) -> Result<(), StorageError> {
    let asked = posts.values().flatten().filter_map(|post| Some((post.chat.channel.clone(), post.of.clone()?)));
    let asked: Vec<_> = asked.collect();
    if asked.is_empty() {
        return Ok(());
    }
    let mut quotes = pipeline.storage.quotes(&asked).await?;
    for post in posts.values_mut().flatten() {
        let Some(of) = post.of.clone() else { continue };
        post.quote = quotes.remove(&(post.chat.channel.clone(), of));
    }
    Ok(())
}

/// Remembers, before the call, what is about to be shown of messages past their chats.
pub(super) async fn begin(
    pipeline: &Pipeline,
    crm: &Arc<dyn Crm>,
    portal: &Portal,
    effects: &[CrmEffect],
) -> Result<(), StorageError> {
    let Some(chats) = crm.chats() else { return Ok(()) };
    let call = |effect: &CrmEffect| {
        let CrmEffect::Post(post) = effect else { return None };
        let author = post.author.clone()?;
        Some(MirrorCall { message: post.message.clone(), author, print: print(&chats.heard(portal, post)) })
    };
    pipeline.storage.begin_mirrors(&effects.iter().filter_map(call).collect::<Vec<_>>()).await
}

/// Remembers whom the CRM did not take as an author: people leave, and what was sent in their name must be shown all the same.
pub(super) async fn note_refused(pipeline: &Pipeline, effects: &[CrmEffect], answers: &[Result<Applied, CrmError>]) {
    for (effect, answer) in effects.iter().zip(answers) {
        let (CrmEffect::Post(post), Err(error)) = (effect, answer) else { continue };
        if let Some(author) = post.author.as_ref().filter(|_| error.code == CrmError::AUTHOR_REFUSED) {
            tracing::info!(message.id = %post.message, "its author has left the CRM; another is named");
            if let Err(error) = pipeline.storage.refuse_author(&post.message, author).await {
                tracing::warn!(%error, message.id = %post.message, "a refused author was not written down; it is asked for again");
            }
        }
    }
}

/// The message of ours that an operator's message is only the echo of, if it is one.
pub(super) async fn recognise(
    pipeline: &Pipeline,
    portal: &Portal,
    answer: &OperatorMessage,
    raised: Timestamp,
) -> Result<Option<MessageId>, StorageError> {
    // What the line says by itself is nobody's, and is never an echo.
    let Some(author) = &answer.author else { return Ok(None) };
    let words = print(&answer.text.plain());
    let told = (answer.reference.message.as_str(), raised);
    pipeline.storage.claim_echo(&portal.id, &answer.chat, author, &words, told).await
}

/// A digest of words that survives how a portal changes a text: only letters and digits count, if there are any.
pub(super) fn print(words: &str) -> String {
    let letters: String = words.chars().filter(|sign| sign.is_alphanumeric()).flat_map(char::to_lowercase).collect();
    let kept = if letters.is_empty() { words.split_whitespace().collect() } else { letters };
    Sha256::digest(kept.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_known_again_though_the_portal_has_changed_its_look() {
        assert_eq!(print("Робот: Ваш заказ [1042]\nготов!"), print("робот:  Ваш заказ ［1042］ готов ! "));
        assert_ne!(print("Ваш заказ 1042 готов"), print("Ваш заказ 1043 готов"));
        assert_ne!(print("👍"), print("👎"));
        assert_ne!(print("👍"), print(""));
    }
}
