//! Things to store in tests.

use std::collections::BTreeMap;

use super::World;
use crate::crm::TokenPair;
use crate::domain::channel::{ChannelSettings, Messenger};
use crate::domain::command::{Command, CommandBody, Reply, SendMessage, WaitFor};
use crate::domain::event::{InboundMessage, StatusNews};
use crate::domain::ids::{ChannelId, CommandId, MessageId, PortalId, ReplyToken};
use crate::domain::language::Language;
use crate::domain::message::{Content, Draft, MessageRecord, MessageTimes};
use crate::domain::outcome::Failure;
use crate::domain::portal::{CardKind, CardRef, CrmKind};
use crate::domain::status::MessageState;
use crate::domain::time::Timestamp;
use crate::storage::channels::NewChannel;
use crate::storage::guards::MessageGuards;
use crate::storage::ingest::Ingest;
use crate::storage::messages::NewMessage;
use crate::storage::portals::Installation;

pub(in crate::storage) fn installation() -> Installation {
    Installation {
        crm: CrmKind::Bitrix24,
        app: "main".into(),
        member_id: "d41f".into(),
        domain: "acme.example".into(),
        client_endpoint: "https://acme.example/rest/".into(),
        server_endpoint: "https://oauth.example/rest/".into(),
        application_token: Some("app-token".into()),
        language: Language::Ru,
    }
}

pub(in crate::storage) fn pair(user: &str, refresh: &str) -> TokenPair {
    TokenPair {
        user_id: user.into(),
        is_admin: true,
        access: format!("access-of-{refresh}"),
        refresh: refresh.into(),
        expires: Timestamp(5_000_000),
    }
}

/// A portal with a line and a channel bound to it.
pub(in crate::storage) async fn furnished(world: &World) -> (PortalId, ChannelId) {
    let storage = &world.storage;
    let portal = storage.install_portal(&installation(), Some(&pair("1", "r1")), Timestamp(i64::MAX)).await.unwrap().id;
    let line = storage.add_line("Sales").await.unwrap();
    let credentials = BTreeMap::from([("access_token".to_owned(), "top-secret".to_owned())]);
    let new = NewChannel {
        line: line.id.clone(),
        provider: "whatsapp_cloud".into(),
        name: "+7 495".into(),
        credentials,
        settings: ChannelSettings::default(),
    };
    let channel = storage.add_channel(new).await.unwrap();
    storage.bind_line(&portal, &line.id).await.unwrap();
    (portal, channel)
}

pub(in crate::storage) fn command(portal: &PortalId, key: &str, wait: WaitFor) -> Command {
    Command {
        id: CommandId::new(&format!("C{key}")),
        portal: portal.clone(),
        dedupe_key: key.into(),
        card: Some(CardRef { kind: CardKind::Deal, id: 134 }),
        reply: Some(Reply { token: ReplyToken(format!("token-{key}")), wait, answer_by: Timestamp(2_000_000) }),
        comment: true,
        responsible: None,
        received: Timestamp(1_000_000),
        robot: None,
        body: CommandBody::SendMessage(Box::new(SendMessage { text: "Hi".into(), ..SendMessage::default() })),
    }
}

pub(in crate::storage) fn message(
    command: &Command,
    channel: &ChannelId,
    peer: &str,
    failure: Option<Failure>,
) -> NewMessage {
    let state = if failure.is_some() { MessageState::Failed } else { MessageState::Queued };
    NewMessage {
        record: MessageRecord {
            id: MessageId::new(&format!("{}{peer}", command.dedupe_key)),
            channel: Some(channel.clone()),
            messenger: None,
            peer: peer.into(),
            portal: Some(command.portal.clone()),
            command: Some(command.id.clone()),
            card: command.card,
            draft: Draft::of(Content::Text { body: "Hi".into() }),
            used_fallback: false,
            state,
            provider_id: None,
            failure,
            vendor_code: String::new(),
            comment: None,
            responsible: None,
            silence: None,
            times: MessageTimes {
                created: Timestamp(1_000_000),
                entered: Timestamp(1_000_000),
                ..MessageTimes::default()
            },
        },
        comments: true,
        not_after: Some(Timestamp(9_000_000)),
        due: None,
        guards: MessageGuards::default(),
        answer: false,
    }
}

/// The worker of this process.
pub(super) fn me() -> crate::domain::ids::WorkerId {
    crate::domain::ids::WorkerId::new("ME")
}

/// What a WhatsApp channel was told in one callback.
pub(super) fn heard(channel: &ChannelId, statuses: Vec<StatusNews>, inbound: Vec<InboundMessage>) -> Ingest {
    let (phones, typed) = (Vec::new(), Vec::new());
    Ingest { channel: channel.clone(), messenger: Messenger::Whatsapp, statuses, inbound, phones, typed }
}
