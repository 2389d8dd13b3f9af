//! Where chats stand, what is asked to be shown in them, and in what order operators are heard.

use super::on_both;

on_both! {
    the_chats_of_a_line_stand_in_one_place_of_one_portal
    what_a_client_writes_is_asked_to_be_shown_once
    operators_are_heard_in_the_order_of_the_portals_numbers
    chats_of_the_silent_are_forgotten
}

mod promises {
    use super::super::World;
    use super::super::things::{command, furnished, installation, me};
    use crate::domain::channel::Messenger;
    use crate::domain::chat::{ChatKey, ChatLine, ChatReference, OperatorMessage};
    use crate::domain::command::{Command, CommandBody, WaitFor};
    use crate::domain::event::{InboundContent, InboundMessage};
    use crate::domain::ids::{ChannelId, LineId, PortalId, ProviderMessageId};
    use crate::domain::job::{Job, JobKind, QueueKey};
    use crate::domain::markup::Markup;
    use crate::domain::time::{Clock as _, Millis, Timestamp};
    use crate::storage::accept::Accept;
    use crate::storage::chats::Connected;
    use crate::storage::effects::EffectSettlement;
    use crate::storage::ingest::Ingest;
    use crate::storage::portals::Installation;
    use crate::storage::retention::{Growth, TABLES};
    use crate::storage::settle::Fate;

    async fn line_of(world: &World, channel: &ChannelId) -> LineId {
        world.storage.find_channel(channel).await.unwrap().unwrap().line.clone()
    }

    async fn place(world: &World, portal: &PortalId, channel: &ChannelId, place: &str) -> ChatLine {
        let line = line_of(world, channel).await;
        ChatLine { portal: portal.clone(), messenger: Messenger::Whatsapp, place: place.into(), line }
    }

    fn wrote(id: &str, text: &str) -> InboundMessage {
        InboundMessage {
            provider_id: ProviderMessageId(id.into()),
            peer: "79001234567".into(),
            name: "Ada".into(),
            at: Timestamp(900_000),
            opens_window: true,
            reply_to: None,
            content: InboundContent::Text { body: text.into() },
        }
    }

    fn ingest(channel: &ChannelId, inbound: Vec<InboundMessage>) -> Ingest {
        Ingest {
            channel: channel.clone(),
            messenger: Messenger::Whatsapp,
            statuses: Vec::new(),
            inbound,
            phones: Vec::new(),
            typed: Vec::new(),
        }
    }

    pub(super) async fn the_chats_of_a_line_stand_in_one_place_of_one_portal(world: &World) {
        let (portal, channel) = furnished(world).await;
        let storage = &world.storage;
        let seven = place(world, &portal, &channel, "7").await;
        assert_eq!(storage.connect_chats(&seven).await.unwrap(), Connected::Yes);
        assert_eq!(storage.connect_chats(&seven).await.unwrap(), Connected::Yes);
        let nine = place(world, &portal, &channel, "9").await;
        assert_eq!(storage.connect_chats(&nine).await.unwrap(), Connected::Yes);
        assert_eq!(storage.chat_lines(&portal).await.unwrap(), std::slice::from_ref(&nine), "it moved");

        let other = Installation { member_id: "e52a".into(), ..installation() };
        let other = storage.install_portal(&other, None, Timestamp(i64::MAX)).await.unwrap().id;
        let theirs = ChatLine { portal: other.clone(), ..seven };
        assert_eq!(storage.connect_chats(&theirs).await.unwrap(), Connected::Elsewhere);
        assert_eq!(storage.chat_line_of(&nine.line, Messenger::Whatsapp).await.unwrap(), Some(nine.clone()));
        assert_eq!(storage.chat_line_of(&nine.line, Messenger::Telegram).await.unwrap(), None);
        storage.uninstall_portal(&portal).await.unwrap();
        assert_eq!(storage.chat_line_of(&nine.line, Messenger::Whatsapp).await.unwrap(), None, "nobody hears there");
        assert_eq!(storage.chat_lines(&portal).await.unwrap(), [nine], "a new installation finds it");
        assert_eq!(storage.connect_chats(&theirs).await.unwrap(), Connected::Yes);
        assert!(storage.chat_lines(&portal).await.unwrap().is_empty());

        assert_eq!(storage.forget_place(&other, "8").await.unwrap(), 0);
        assert_eq!(storage.forget_place(&other, "7").await.unwrap(), 1);
        assert!(!storage.disconnect_chats(&other, Messenger::Whatsapp, "7").await.unwrap());
    }

    pub(super) async fn what_a_client_writes_is_asked_to_be_shown_once(world: &World) {
        let (portal, channel) = furnished(world).await;
        let storage = &world.storage;
        let (queue, me) = (QueueKey::Crm(portal.clone()), me());
        world.own(&me, &queue).await;
        storage.ingest(ingest(&channel, vec![wrote("w0", "nobody hears")])).await.unwrap();
        assert!(world.handed_over().is_empty());

        storage.connect_chats(&place(world, &portal, &channel, "7").await).await.unwrap();
        let both = vec![wrote("w1", "one"), wrote("w2", "two"), wrote("w1", "one")];
        storage.ingest(ingest(&channel, both.clone())).await.unwrap();
        storage.ingest(ingest(&channel, both)).await.unwrap();
        let jobs = storage.load_jobs(&queue, 10, world.clock.now()).await.unwrap().jobs;
        assert_eq!(jobs.len(), 2, "{jobs:?}");
        assert!(jobs.iter().all(|job| job.kind == JobKind::Chat && job.lane == jobs[0].lane));
        let ids: Vec<_> = jobs.iter().filter_map(Job::message).collect();
        let posts = storage.chat_posts(&ids).await.unwrap();
        let words: Vec<_> = ids.iter().map(|id| posts[id].content.clone()).collect();
        let text = |body: &str| InboundContent::Text { body: body.into() };
        assert_eq!(words, [text("one"), text("two")], "in the order they came");
        let post = &posts[&ids[0]];
        assert_eq!((post.place.as_str(), post.name.as_str(), post.crm_chat.clone()), ("7", "Ada", None));
        assert_eq!((post.provider_id.as_str(), post.at), ("w1", Timestamp(900_000)));
        assert_eq!(post.phone().as_deref(), Some("+79001234567"));

        let shown = Some((post.chat.clone(), "1767".to_owned()));
        let done = EffectSettlement {
            job: jobs[0].id.clone(),
            worker: me.clone(),
            revision: 0,
            fate: Fate::Done,
            comment: None,
            replied: None,
            shown,
        };
        storage.settle_effects(vec![done]).await.unwrap();
        let known =
            |posts: &std::collections::HashMap<_, crate::domain::chat::ChatPost>| posts[&ids[1]].crm_chat.clone();
        assert_eq!(known(&storage.chat_posts(&ids).await.unwrap()).as_deref(), Some("1767"));
        // A chat that moves to another place has another number there.
        storage.connect_chats(&place(world, &portal, &channel, "9").await).await.unwrap();
        storage.ingest(ingest(&channel, vec![wrote("w3", "three")])).await.unwrap();
        assert_eq!(known(&storage.chat_posts(&ids).await.unwrap()), None);

        storage.clean_portal(&portal).await.unwrap();
        assert!(storage.chat_posts(&ids).await.unwrap().is_empty());
        assert!(storage.chat_lines(&portal).await.unwrap().is_empty());
    }

    pub(super) async fn operators_are_heard_in_the_order_of_the_portals_numbers(world: &World) {
        let (portal, channel) = furnished(world).await;
        let chat = ChatKey { channel, peer: "79001234567".into() };
        let answer = |number: &str, id: &str| {
            let reference = ChatReference { chat: "1767".into(), message: number.into() };
            let answer = OperatorMessage {
                written: None,
                chat: chat.clone(),
                messenger: Messenger::Whatsapp,
                place: "7".into(),
                reference,
                author: None,
                text: Markup::default(),
                files: Vec::new(),
                echo_of: None,
                change: None,
            };
            let key = format!("chat:{number}");
            let plain = command(&portal, id, WaitFor::Accepted);
            Command { dedupe_key: key, card: None, body: CommandBody::Answer(Box::new(answer)), ..plain }
        };
        for (number, id, expected) in [
            ("100", "A", Accept::New),
            ("99", "B", Accept::New),
            ("100", "C", Accept::Duplicate),
            ("101", "D", Accept::New),
        ] {
            assert_eq!(world.storage.accept(answer(number, id)).await.unwrap(), expected);
        }
        let now = world.clock.now();
        let jobs = world.storage.load_jobs(&QueueKey::Intake(portal), 10, now).await.unwrap().jobs;
        let order: Vec<_> = jobs.iter().map(|job| job.subject.as_str()).collect();
        assert_eq!(order, ["cmd_CB", "cmd_CA", "cmd_CD"]);
        assert!(jobs.iter().all(|job| job.lane == jobs[0].lane && job.due > now), "they wait for late ones");
    }

    pub(super) async fn chats_of_the_silent_are_forgotten(world: &World) {
        let (portal, channel) = furnished(world).await;
        world.storage.connect_chats(&place(world, &portal, &channel, "7").await).await.unwrap();
        world.storage.ingest(ingest(&channel, vec![wrote("w1", "one")])).await.unwrap();
        let (_, growth) = TABLES.iter().find(|(table, _)| *table == "chats").unwrap();
        let Growth::Grows([rule]) = growth else { panic!("chats grow") };
        let now = world.clock.now();
        assert_eq!(world.storage.purge(rule, "", now).await.unwrap().rows, 0);
        assert_eq!(world.storage.purge(rule, "", now.plus(Millis(1))).await.unwrap().rows, 1);
    }
}
