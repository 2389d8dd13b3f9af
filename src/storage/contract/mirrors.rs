//! Messages that went past their chats: asked to be shown once, and recognised when the CRM tells of them.

use super::on_both;

on_both! {
    what_left_past_a_chat_is_asked_to_be_shown_once
    an_echo_is_recognised_as_often_as_it_was_caused
    what_was_typed_on_the_phone_is_kept_once
}

mod promises {
    use super::super::World;
    use super::super::things::{command, furnished, heard, me, message};
    use crate::domain::channel::Messenger;
    use crate::domain::chat::{ChatKey, ChatLine};
    use crate::domain::command::WaitFor;
    use crate::domain::event::{InboundContent, InboundMessage, StatusNews, TypedMessage};
    use crate::domain::ids::{ChannelId, CrmUserId, MessageId, PortalId, ProviderMessageId};
    use crate::domain::job::{Job, JobKind, QueueKey};
    use crate::domain::status::MessageState;
    use crate::domain::time::{Clock as _, Millis, Timestamp};
    use crate::storage::ingest::Ingest;
    use crate::storage::mirrors::MirrorCall;
    use crate::storage::plan::Plan;

    const PEER: &str = "79001234567";

    /// A portal whose open line has the channel's chats, and in it the chat of one client.
    async fn with_chat(world: &World) -> (PortalId, ChannelId) {
        let (portal, channel) = furnished(world).await;
        let line = world.storage.find_channel(&channel).await.unwrap().unwrap().line.clone();
        let place = ChatLine { portal: portal.clone(), messenger: Messenger::Whatsapp, place: "7".into(), line };
        world.storage.connect_chats(&place).await.unwrap();
        world.own(&me(), &QueueKey::Crm(portal.clone())).await;
        world.own(&me(), &QueueKey::Channel(channel.clone())).await;
        let wrote = InboundMessage {
            provider_id: ProviderMessageId("in".into()),
            peer: PEER.into(),
            name: "Ada".into(),
            at: Timestamp(900_000),
            opens_window: true,
            reply_to: None,
            content: InboundContent::Text { body: "Hi".into() },
        };
        world.storage.ingest(heard(&channel, vec![], vec![wrote])).await.unwrap();
        (portal, channel)
    }

    /// A message of a command with this key, sent and heard of by its echo.
    async fn sent(world: &World, portal: &PortalId, channel: &ChannelId, key: &str, peer: &str) -> MessageId {
        let command = command(portal, key, WaitFor::Accepted);
        let new = message(&command, channel, peer, None);
        let id = new.record.id.clone();
        let plan = Plan { command: command.id.clone(), waits: true, messages: vec![new] };
        world.storage.accept_planned(command, plan).await.unwrap();
        for state in [MessageState::Sent, MessageState::Delivered] {
            let status = StatusNews {
                provider_id: ProviderMessageId(format!("out-{key}")),
                message: Some(id.clone()),
                state,
                at: world.clock.now(),
                failure: None,
                vendor_code: String::new(),
            };
            world.storage.ingest(heard(channel, vec![status], vec![])).await.unwrap();
        }
        id
    }

    async fn asked(world: &World, portal: &PortalId) -> Vec<MessageId> {
        let queue = QueueKey::Crm(portal.clone());
        let jobs = world.storage.load_jobs(&queue, 50, world.clock.now()).await.unwrap().jobs;
        jobs.iter().filter(|job| job.kind == JobKind::Chat).filter_map(Job::message).collect()
    }

    pub(super) async fn what_left_past_a_chat_is_asked_to_be_shown_once(world: &World) {
        let (portal, channel) = with_chat(world).await;
        let robots = sent(world, &portal, &channel, "k1", PEER).await;
        sent(world, &portal, &channel, "k2", "79000000000").await;
        sent(world, &portal, &channel, "chat:86497", PEER).await;
        let jobs = asked(world, &portal).await;
        assert_eq!(jobs.len(), 2, "the client's words and the robot's: {jobs:?}");
        assert_eq!(jobs[1], robots);
        let found = world.storage.mirrors(&jobs).await.unwrap();
        assert_eq!(found.len(), 1);
        let mirror = &found[0];
        assert!(mirror.automatic && mirror.post.author.is_none());
        assert_eq!((mirror.post.place.as_str(), mirror.post.provider_id.as_str()), ("7", "out-k1"));
        world.storage.clean_portal(&portal).await.unwrap();
        assert!(world.storage.mirrors(&jobs).await.unwrap().is_empty());
    }

    pub(super) async fn an_echo_is_recognised_as_often_as_it_was_caused(world: &World) {
        let (portal, channel) = with_chat(world).await;
        let message = sent(world, &portal, &channel, "k1", PEER).await;
        let chat = ChatKey { channel, peer: PEER.into() };
        let (author, other) = (CrmUserId("1".into()), CrmUserId("2".into()));
        let now = world.clock.now();
        let claim = async |author: &CrmUserId, print: &str, number: &str, at: Timestamp| {
            world.storage.claim_echo(&portal, &chat, author, print, (number, at)).await.unwrap()
        };
        assert_eq!(claim(&author, "p", "1", now).await, None, "nothing was shown yet");
        let call = MirrorCall { message: message.clone(), author: author.clone(), print: "p".into() };
        world.storage.begin_mirrors(std::slice::from_ref(&call)).await.unwrap();
        assert_eq!(claim(&other, "p", "1", now).await, None, "somebody else wrote it");
        assert_eq!(claim(&author, "q", "1", now).await, None, "other words");
        assert_eq!(claim(&author, "p", "1", now.plus(Millis::minutes(3))).await, None, "too late");
        for _ in 0..2 {
            assert_eq!(claim(&author, "p", "1", now).await.as_ref(), Some(&message), "also when it comes again");
        }
        assert_eq!(claim(&author, "p", "2", now).await, None, "the operator wrote the same himself");
        world.storage.begin_mirrors(&[call]).await.unwrap();
        assert_eq!(claim(&author, "p", "3", now).await.as_ref(), Some(&message), "it was shown a second time");
        assert_eq!(claim(&author, "p", "4", now).await, None);
    }

    pub(super) async fn what_was_typed_on_the_phone_is_kept_once(world: &World) {
        let (portal, channel) = with_chat(world).await;
        let ours = sent(world, &portal, &channel, "k1", "79000000000").await;
        let typed = |id: &str| TypedMessage {
            provider_id: ProviderMessageId(id.into()),
            peer: PEER.into(),
            at: world.clock.now(),
            content: InboundContent::Text { body: "Wait".into() },
        };
        let told = vec![typed("t1"), typed("t1"), typed("out-k1")];
        for _ in 0..2 {
            let ingest = Ingest { typed: told.clone(), ..heard(&channel, vec![], vec![]) };
            world.storage.ingest(ingest).await.unwrap();
        }
        let jobs = asked(world, &portal).await;
        assert_eq!(jobs.len(), 2, "the client's words and what was typed: {jobs:?}");
        assert!(!jobs.contains(&ours), "what we sent ourselves was typed by nobody");
        let mirror = world.storage.mirrors(&jobs).await.unwrap().remove(0);
        assert!(mirror.draft.typed.is_some() && !mirror.automatic);
    }
}
