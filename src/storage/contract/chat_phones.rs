//! Messengers that know people by chats: phones that lead to them, and messages of which nothing more is heard.

use super::on_both;

on_both! {
    a_phone_leads_to_the_chat_its_person_named_last
    a_robot_does_not_wait_for_what_is_never_told
    a_phone_is_forgotten_with_its_person
}

mod promises {
    use super::super::World;
    use super::super::things::{command, furnished, me, message};
    use crate::domain::channel::Messenger;
    use crate::domain::command::WaitFor;
    use crate::domain::event::{InboundContent, InboundMessage, SharedPhone};
    use crate::domain::ids::{ChannelId, ProviderMessageId};
    use crate::domain::job::{JobState, QueueKey};
    use crate::domain::message::Silence;
    use crate::domain::phone::Phone;
    use crate::domain::status::MessageState;
    use crate::domain::time::Timestamp;
    use crate::storage::ingest::Ingest;
    use crate::storage::messages::MessageNews;
    use crate::storage::plan::Plan;
    use crate::storage::retention::{Growth, TABLES};
    use crate::storage::settle::{Fate, Right, Settlement};

    fn phone(digits: &str) -> Phone {
        Phone::from_digits(digits).unwrap()
    }

    async fn shared(world: &World, channel: &ChannelId, told: &[(&str, &str)]) {
        let phones = told.iter().map(|(digits, peer)| SharedPhone { peer: (*peer).into(), phone: phone(digits) });
        let ingest = Ingest {
            channel: channel.clone(),
            messenger: Messenger::Telegram,
            statuses: vec![],
            inbound: vec![],
            phones: phones.collect(),
            typed: vec![],
        };
        world.storage.ingest(ingest).await.unwrap();
    }

    pub(super) async fn a_phone_leads_to_the_chat_its_person_named_last(world: &World) {
        let (_, channel) = furnished(world).await;
        let other = ChannelId::new("OTHER");
        shared(world, &channel, &[("79161234567", "tg.1"), ("79160000001", "tg.2"), ("79161234567", "tg.3")]).await;
        let asked: Vec<_> = [&channel, &other]
            .into_iter()
            .flat_map(|channel| ["79161234567", "79160000001", "79160000009"].map(|own| (channel.clone(), phone(own))))
            .collect();
        let found = world.storage.chats_of(&asked).await.unwrap();
        let of = |digits: &str| found.get(&(channel.clone(), phone(digits))).map(String::as_str);
        assert_eq!((of("79161234567"), of("79160000001"), of("79160000009")), (Some("tg.3"), Some("tg.2"), None));
        assert_eq!(found.len(), 2, "another channel's chats are its own");
        shared(world, &channel, &[("79160000001", "tg.3")]).await;
        let found = world.storage.chats_of(&asked).await.unwrap();
        assert_eq!(found[&(channel.clone(), phone("79160000001"))], "tg.3");
    }

    pub(super) async fn a_robot_does_not_wait_for_what_is_never_told(world: &World) {
        let (portal, channel) = furnished(world).await;
        let command = command(&portal, "k1", WaitFor::Read);
        world.storage.accept(command.clone()).await.unwrap();
        let message = message(&command, &channel, "tg.1", None);
        let id = message.record.id.clone();
        world.storage.plan(Plan { command: command.id.clone(), waits: true, messages: vec![message] }).await.unwrap();
        world.own(&me(), &QueueKey::Channel(channel.clone())).await;
        world.handed_over();
        let news = MessageNews {
            provider_id: Some(ProviderMessageId("1:1".into())),
            last: true,
            ..MessageNews::new(id.clone(), MessageState::Sent, Timestamp(1_000_000))
        };
        let right = Right::Owner(me(), JobState::Ready);
        let job = format!("send:{id}");
        let settlement = Settlement { job, right, fate: Fate::Done, news: Some(news), attempt: None };
        world.storage.settle(vec![settlement]).await.unwrap();
        let record = world.storage.find_message(&id).await.unwrap().unwrap().record;
        assert_eq!((record.state, record.silence), (MessageState::Sent, Some(Silence::Closed)));
        assert_eq!(record.times.silent, None, "no silence was waited for");
        let handed = world.handed_over();
        assert!(handed.contains_key(&format!("reply:{}", command.id)), "{:?}", handed.keys());
        assert!(handed.contains_key(&format!("comment:{id}")));
        assert_eq!(world.storage.oldest_open().await.unwrap(), [], "nothing is awaited");
    }

    pub(super) async fn a_phone_is_forgotten_with_its_person(world: &World) {
        const LATER: Timestamp = Timestamp(2_000_000);
        let (_, channel) = furnished(world).await;
        let wrote = |peer: &str| InboundMessage {
            provider_id: ProviderMessageId(format!("{peer}:1")),
            peer: peer.into(),
            name: String::new(),
            at: Timestamp(1_000_000),
            opens_window: true,
            reply_to: None,
            content: InboundContent::Text { body: "Hi".into() },
        };
        let told = SharedPhone { peer: "tg.1".into(), phone: phone("79161234567") };
        let inbound = vec![wrote("tg.1")];
        let ingest = Ingest {
            channel: channel.clone(),
            messenger: Messenger::Telegram,
            statuses: vec![],
            inbound,
            phones: vec![told],
            typed: vec![],
        };
        world.storage.ingest(ingest).await.unwrap();
        let rule = |table: &str| match TABLES.iter().find(|(name, _)| *name == table).unwrap().1 {
            Growth::Grows(rules) => &rules[0],
            Growth::Bounded(why) => panic!("{table}: {why}"),
        };
        let purged = async |table: &str| world.storage.purge(rule(table), "", LATER).await.unwrap().rows;
        assert_eq!(purged("chat_phones").await, 0, "the person is still known");
        assert_eq!(purged("dialogs").await, 1);
        assert_eq!(purged("chat_phones").await, 1);
        let asked = [(channel, phone("79161234567"))];
        assert!(world.storage.chats_of(&asked).await.unwrap().is_empty());
    }
}
