//! What a post says in a chat, in the language of the portal; shared by every CRM that has chats.

use crate::domain::chat::{ChatPost, PostFile};
use crate::domain::event::InboundContent;
use crate::domain::language::Language;
use crate::i18n;

/// A client's words as a chat shows them. `plain` takes marks out of words that are not ours; a quoted message stands in a
/// line of its own behind `quote_mark`.
pub(super) fn of_post(language: Language, post: &ChatPost, plain: fn(&str) -> String, quote_mark: &str) -> String {
    let say = |key: &str, values: &[(&str, &str)]| i18n::text(language, &format!("chat.{key}"), values);
    let quote = post.quote.as_deref().filter(|words| !words.is_empty()).map(plain).unwrap_or_default();
    let words = match &post.content {
        InboundContent::Text { body } => plain(body),
        InboundContent::Location { latitude, longitude, name } => {
            let name = plain(name);
            say("location", &[("name", &name), ("latitude", latitude), ("longitude", longitude)])
        }
        InboundContent::Contacts { cards } => say("contacts", &[("cards", &plain(&cards.join("\n")))]),
        InboundContent::Reaction { emoji, .. } if emoji.is_empty() => say("reaction_gone", &[]),
        InboundContent::Reaction { emoji, .. } => say("reaction", &[("emoji", &plain(emoji))]),
        // It takes the place of the words it changes.
        InboundContent::Edited { body, .. } if post.quote.is_some() => return plain(body),
        InboundContent::Edited { body, .. } => say("edited", &[("text", &plain(body))]),
        InboundContent::Deleted { .. } => say("deleted", &[]),
        InboundContent::Media { caption, .. } if post.is_with_file() => plain(caption),
        InboundContent::Media { media, caption, filename, .. } => {
            let kind = i18n::file_kind(language, media);
            let kind = if filename.is_empty() { kind } else { format!("{kind} {}", plain(filename)) };
            let why = match &post.file {
                Some(PostFile::Refused(failure)) => {
                    let reason = i18n::error(language, failure.code, &failure.detail);
                    say("file_refused", &[("reason", &plain(&reason))])
                }
                Some(PostFile::At { .. }) | None => String::new(),
            };
            let parts = [kind, why, plain(caption)];
            parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("\n")
        }
        InboundContent::Other { what } => say("other", &[("what", &plain(what))]),
    };
    if quote.is_empty() { words } else { format!("{quote_mark}{quote}\n{words}") }
}
