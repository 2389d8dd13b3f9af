//! From what an automation gave to an address at a messenger: phones where people are known by phones, chats where they are
//! known by chats.
//!
//! A chat cannot be written first, and nobody's phone leads to one but the phone its person has shared there. So a phone
//! without a known chat is refused here, before anything is sent, with words that say what helps.

use std::collections::HashMap;
use std::sync::Arc;

use super::Pipeline;
use crate::domain::address::Addressing;
use crate::domain::channel::Channel;
use crate::domain::ids::ChannelId;
use crate::domain::outcome::{ErrorCode, Failure};
use crate::domain::phone::Phone;
use crate::numbers;
use crate::storage::StorageError;

/// One way to reach a person, as it was given.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Given {
    /// Where phones stand. A text that can only be a chat is taken for one all the same.
    Phone(String),
    /// Where chats stand: a bare number is that of a chat, wherever people are known by chats.
    Chat(String),
}

impl Given {
    /// The text itself.
    pub(crate) fn text(&self) -> &str {
        match self {
            Self::Phone(text) | Self::Chat(text) => text,
        }
    }
}

/// What one way comes to on one channel.
enum Reading {
    /// An address.
    Peer(String),
    /// A phone that may lead to a chat.
    Phone(Phone),
    /// Neither.
    Not(Failure),
}

fn read(given: &Given, addressing: Addressing, country: &str) -> Reading {
    let text = given.text();
    let phone = || numbers::read(text, country).map_err(|_no_phone| Failure::with(ErrorCode::BadPhone, text));
    match (addressing, given) {
        (Addressing::Phones, _) if text.starts_with('@') => Reading::Not(Failure::with(ErrorCode::Unsupported, text)),
        (Addressing::Phones, Given::Phone(_) | Given::Chat(_)) => {
            phone().map_or_else(Reading::Not, |phone| Reading::Peer(phone.digits().to_owned()))
        }
        (Addressing::Chats { .. }, Given::Phone(_)) if !addressing.marks_chat(text) => {
            phone().map_or_else(Reading::Not, Reading::Phone)
        }
        (Addressing::Chats { .. }, Given::Phone(_) | Given::Chat(_)) => match addressing.read_chat(text) {
            Some(peer) => Reading::Peer(peer),
            // Somebody put a phone among the chats.
            None => phone().map_or_else(|_| Reading::Not(Failure::with(ErrorCode::NoRecipient, text)), Reading::Phone),
        },
    }
}

/// The addresses of people on channels: for each person, what each channel can reach them by, or the words a card or caller
/// is told. `people` are the ways to reach each, best first; of several the first that leads somewhere counts.
///
/// # Errors
/// [`StorageError`]; asked only where phones may lead to chats.
pub(crate) async fn resolve(
    pipeline: &Pipeline,
    people: &[&[Given]],
    channels: &[Arc<Channel>],
) -> Result<Vec<Vec<Result<String, Failure>>>, StorageError> {
    let addressing = |channel: &Channel| {
        pipeline.provider_of(channel).map_or(Addressing::Phones, |provider| provider.spec().addressing)
    };
    let readings: Vec<Vec<Vec<Reading>>> = people
        .iter()
        .map(|ways| {
            let on = |channel: &Arc<Channel>| {
                let country = channel.settings.country.as_deref().unwrap_or_else(|| pipeline.country());
                ways.iter().map(|given| read(given, addressing(channel), country)).collect()
            };
            channels.iter().map(on).collect()
        })
        .collect();
    let mut asked: Vec<(ChannelId, Phone)> = Vec::new();
    for person in &readings {
        for (ways, channel) in person.iter().zip(channels) {
            asked.extend(ways.iter().filter_map(|reading| match reading {
                Reading::Phone(phone) => Some((channel.id.clone(), phone.clone())),
                Reading::Peer(_) | Reading::Not(_) => None,
            }));
        }
    }
    let chats = if asked.is_empty() { HashMap::new() } else { pipeline.storage.chats_of(&asked).await? };
    let one = |ways: Vec<Reading>, channel: &Arc<Channel>| {
        let mut refusal = None;
        for reading in ways {
            let failure = match reading {
                Reading::Peer(peer) => return Ok(peer),
                Reading::Phone(phone) => match chats.get(&(channel.id.clone(), phone.clone())) {
                    Some(peer) => return Ok(peer.clone()),
                    None => Failure::with(ErrorCode::CannotWriteFirst, phone.international()),
                },
                Reading::Not(failure) => failure,
            };
            refusal.get_or_insert(failure);
        }
        Err(refusal.unwrap_or_else(|| Failure::new(ErrorCode::NoRecipient)))
    };
    let person = |ways: Vec<Vec<Reading>>| ways.into_iter().zip(channels).map(|(ways, on)| one(ways, on)).collect();
    Ok(readings.into_iter().map(person).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHATS: Addressing = Addressing::Chats { prefix: "tg." };

    fn peer(given: &Given, addressing: Addressing) -> Result<String, ErrorCode> {
        match read(given, addressing, "RU") {
            Reading::Peer(peer) => Ok(peer),
            Reading::Phone(phone) => Ok(format!("phone {}", phone.digits())),
            Reading::Not(failure) => Err(failure.code),
        }
    }

    #[test]
    fn a_number_is_a_chat_only_where_chats_stand_and_people_are_known_by_chats() {
        let (phone, chat) = (|text: &str| Given::Phone(text.into()), |text: &str| Given::Chat(text.into()));
        for (given, at_phones, at_chats) in [
            (phone("8 916 123-45-67"), Ok("79161234567"), Ok("phone 79161234567")),
            (chat("79161234567"), Ok("79161234567"), Ok("tg.79161234567")),
            (chat("+7 916 123-45-67"), Ok("79161234567"), Ok("phone 79161234567")),
            (phone("tg.512000111"), Err(ErrorCode::BadPhone), Ok("tg.512000111")),
            (phone("@Shop_News"), Err(ErrorCode::Unsupported), Ok("tg.@shop_news")),
            (chat("@Shop_News"), Err(ErrorCode::Unsupported), Ok("tg.@shop_news")),
            (chat("-1001987654321"), Err(ErrorCode::BadPhone), Ok("tg.-1001987654321")),
            (chat("nobody"), Err(ErrorCode::BadPhone), Err(ErrorCode::NoRecipient)),
            (phone("nobody"), Err(ErrorCode::BadPhone), Err(ErrorCode::BadPhone)),
        ] {
            let own = |result: Result<&str, ErrorCode>| result.map(str::to_owned);
            assert_eq!(peer(&given, Addressing::Phones), own(at_phones), "{given:?}");
            assert_eq!(peer(&given, CHATS), own(at_chats), "{given:?}");
        }
    }
}
