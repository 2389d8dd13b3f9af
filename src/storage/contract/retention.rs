//! What is old enough is forgotten, what is open is not, and nobody waits for it.

use super::on_both;

on_both! {
    old_messages_lose_their_people_first_and_their_rows_later
    what_is_open_or_given_up_is_kept_whatever_its_age
    the_silent_are_forgotten_on_every_channel_at_once
    one_process_makes_each_pass
    lanes_go_on_while_a_hundred_thousand_old_rows_go
}

#[test]
fn every_table_has_a_rule_or_does_not_grow() {
    use crate::storage::retention::{Growth, TABLES};
    let listed: std::collections::BTreeSet<String> = TABLES.iter().map(|(table, _)| (*table).to_owned()).collect();
    assert_eq!(listed.len(), TABLES.len(), "a table is listed twice");
    assert_eq!(listed, super::tables_of_the_schema());
    for (table, growth) in TABLES {
        match growth {
            Growth::Grows(rules) => assert!(!rules.is_empty() && rules.iter().all(|rule| rule.table == *table)),
            Growth::Bounded(why) => assert!(why.split_whitespace().count() >= 3, "{table}: {why}"),
        }
    }
}

mod promises {
    use std::time::{Duration, Instant};

    use super::super::World;
    use super::super::things::{command, furnished, heard, me, message};
    use crate::domain::command::{Command, WaitFor};
    use crate::domain::event::{InboundContent, InboundMessage, StatusNews};
    use crate::domain::ids::{ChannelId, CommandId, MessageId, PortalId, ProviderMessageId};
    use crate::domain::job::{Job, JobKind, JobState};
    use crate::domain::message::Content;
    use crate::domain::status::MessageState;
    use crate::domain::time::{Millis, Timestamp};
    use crate::storage::db::args;
    use crate::storage::effects::EffectSettlement;
    use crate::storage::messages::{Attempt, MessageFilter, MessageNews};
    use crate::storage::plan::Plan;
    use crate::storage::retention::{Act, Growth, Rule, TABLES};
    use crate::storage::settle::{Fate, Right, Settlement};
    use crate::storage::sql;

    const LATER: Timestamp = Timestamp(i64::MAX / 2);

    fn rules(table: &str) -> impl Iterator<Item = &'static Rule> + use<'_> {
        let rules = TABLES.iter().filter_map(|(_, growth)| match growth {
            Growth::Grows(rules) => Some(*rules),
            Growth::Bounded(_) => None,
        });
        rules.flatten().filter(move |rule| rule.table == table)
    }

    fn rule(table: &str, act: Act) -> &'static Rule {
        rules(table).find(|rule| rule.act == act).unwrap()
    }

    /// Carries a rule out to its end; gives the number of rows.
    async fn purge(world: &World, rule: &Rule, before: Timestamp) -> u64 {
        let (mut after, mut rows) = (String::new(), 0);
        loop {
            let purged = world.storage.purge(rule, &after, before).await.unwrap();
            rows += purged.rows;
            match purged.next {
                Some(next) => after = next,
                None => return rows,
            }
        }
    }

    async fn sent(world: &World, portal: &PortalId, channel: &ChannelId, key: &str) -> (Command, MessageId) {
        let command = command(portal, key, WaitFor::Accepted);
        world.storage.accept(command.clone()).await.unwrap();
        let new = message(&command, channel, "79001234567", None);
        let id = new.record.id.clone();
        let plan = Plan { command: command.id.clone(), waits: true, messages: vec![new] };
        world.storage.plan(plan).await.unwrap();
        let news = MessageNews {
            provider_id: Some(ProviderMessageId(format!("wamid.{key}"))),
            ..MessageNews::new(id.clone(), MessageState::Accepted, Timestamp(1_000_000))
        };
        let attempt = Attempt {
            job: Job::id_of(JobKind::Send, id.as_str()),
            message: Some(id.clone()),
            at: Timestamp(1_000_000),
            duration: Millis(5),
            outcome: "ok".into(),
            failure_class: None,
            vendor_code: String::new(),
            raw: String::new(),
        };
        let job = Job::id_of(JobKind::Send, id.as_str());
        let done = Settlement { job, right: Right::Store, fate: Fate::Done, news: Some(news), attempt: Some(attempt) };
        world.storage.settle(vec![done]).await.unwrap();
        (command, id)
    }

    /// The comment is written and the robot has its result.
    async fn told(world: &World, command: &CommandId, message: &MessageId) {
        let effect = |job: String, replied: Option<CommandId>| EffectSettlement {
            job,
            worker: me(),
            revision: 0,
            fate: Fate::Done,
            comment: None,
            replied,
            shown: None,
        };
        let comment = effect(Job::id_of(JobKind::Comment, message.as_str()), None);
        let reply = effect(Job::id_of(JobKind::Reply, command.as_str()), Some(command.clone()));
        world.storage.settle_effects(vec![comment, reply]).await.unwrap();
    }

    pub(super) async fn old_messages_lose_their_people_first_and_their_rows_later(world: &World) {
        let (portal, channel) = furnished(world).await;
        let (command, id) = sent(world, &portal, &channel, "k1").await;
        let (blank, delete) = (rule("messages", Act::Blank), rule("messages", Act::Delete));
        assert_eq!(purge(world, blank, LATER).await, 0, "its comment is not written yet");
        told(world, &command.id, &id).await;
        assert_eq!(purge(world, blank, Timestamp(1_000_000)).await, 0, "not old yet");
        assert_eq!(purge(world, rule("commands", Act::Blank), Timestamp(1_000_000)).await, 0);
        assert_eq!(purge(world, blank, Timestamp(1_000_001)).await, 1);
        assert_eq!(purge(world, blank, Timestamp(1_000_001)).await, 0, "once is enough");
        let seen = world.storage.find_message(&id).await.unwrap().unwrap();
        assert_eq!(seen.record.draft.content, Content::Text { body: String::new() });
        assert_eq!((seen.record.peer.as_str(), seen.record.provider_id, seen.record.card), ("", None, command.card));
        assert_eq!(
            (seen.record.state, seen.record.times.accepted),
            (MessageState::Accepted, Some(Timestamp(1_000_000)))
        );

        // Late news still counts, but the card keeps its comment as it is.
        world.handed_over();
        let read = StatusNews {
            provider_id: ProviderMessageId("wamid.late".into()),
            message: Some(id.clone()),
            state: MessageState::Read,
            at: Timestamp(1_000_000),
            failure: None,
            vendor_code: String::new(),
        };
        let late = heard(&channel, vec![read], vec![]);
        world.storage.ingest(late).await.unwrap();
        assert_eq!(world.storage.find_message(&id).await.unwrap().unwrap().record.state, MessageState::Read);
        assert!(world.handed_over().is_empty(), "no comment about nobody");

        assert_eq!(purge(world, rule("commands", Act::Blank), LATER).await, 1);
        let stored = world.storage.load_commands(std::slice::from_ref(&command.id)).await.unwrap();
        assert!(stored[&command.id].command.is_err(), "what was asked for is gone");
        let again = crate::storage::accept::Accept::Duplicate;
        assert_eq!(world.storage.accept(command.clone()).await.unwrap(), again, "the shield against repeats stays");

        assert_eq!(purge(world, rule("commands", Act::Delete), LATER).await, 0, "its message is still there");
        assert_eq!(purge(world, rule("attempts", Act::Delete), LATER).await, 1);
        assert_eq!(purge(world, delete, LATER).await, 1);
        assert_eq!(purge(world, rule("commands", Act::Delete), LATER).await, 1);
        assert!(world.storage.find_message(&id).await.unwrap().is_none());
        assert!(world.storage.load_commands(&[command.id]).await.unwrap().is_empty());
    }

    pub(super) async fn what_is_open_or_given_up_is_kept_whatever_its_age(world: &World) {
        let (portal, channel) = furnished(world).await;
        let open = command(&portal, "k1", WaitFor::Accepted);
        world.storage.accept(open.clone()).await.unwrap();
        let new = command(&portal, "k2", WaitFor::Accepted);
        world.storage.accept(new.clone()).await.unwrap();
        let messages: Vec<_> =
            ["79000000001", "79000000002"].into_iter().map(|peer| message(&open, &channel, peer, None)).collect();
        let ids: Vec<_> = messages.iter().map(|message| message.record.id.clone()).collect();
        world.storage.plan(Plan { command: open.id.clone(), waits: true, messages }).await.unwrap();
        let dead = Job::id_of(JobKind::Send, ids[0].as_str());
        let fate = Fate::Keep { state: JobState::Dead, due: Timestamp(1), tries: 1, reason: Some("no answer".into()) };
        let buried = Settlement { job: dead.clone(), right: Right::Store, fate, news: None, attempt: None };
        world.storage.settle(vec![buried]).await.unwrap();
        for table in ["messages", "commands"] {
            for rule in rules(table) {
                assert_eq!(purge(world, rule, LATER).await, 0, "{table}: {:?}", rule.act);
            }
        }
        let letters = rule("jobs", Act::Delete);
        assert_eq!(purge(world, letters, Timestamp(1_000_000)).await, 0);
        assert_eq!(purge(world, letters, LATER).await, 1, "the dead letter alone");
        assert!(world.storage.jobs_now(&[dead]).await.unwrap().is_empty());
        let alive = Job::id_of(JobKind::Send, ids[1].as_str());
        assert_eq!(world.storage.jobs_now(&[alive]).await.unwrap().len(), 1);
        assert_eq!(purge(world, rule("messages", Act::Blank), LATER).await, 1, "nothing will become of it any more");
        assert_eq!(world.storage.load_messages(&ids).await.unwrap().len(), 2);
    }

    pub(super) async fn the_silent_are_forgotten_on_every_channel_at_once(world: &World) {
        let (_, channel) = furnished(world).await;
        let inbound = |peer: &str, id: &str| InboundMessage {
            provider_id: ProviderMessageId(id.into()),
            peer: peer.into(),
            name: "Anna".into(),
            at: Timestamp(1_000_000),
            reply_to: None,
            content: InboundContent::Text { body: "Hi".into() },
            opens_window: true,
        };
        let ingest = |list| heard(&channel, Vec::new(), list);
        world.storage.ingest(ingest(vec![inbound("79000000001", "a"), inbound("79000000002", "b")])).await.unwrap();
        world.clock.set(1_500_000);
        world.storage.ingest(ingest(vec![inbound("79000000002", "c")])).await.unwrap();
        let people: Vec<_> =
            ["79000000001", "79000000002"].map(|peer| (channel.to_string(), peer.to_owned())).into_iter().collect();
        assert_eq!(world.storage.last_inbound(&people).await.unwrap().len(), 2);
        assert_eq!(purge(world, rule("dialogs", Act::Delete), Timestamp(1_200_000)).await, 1);
        let left = world.storage.last_inbound(&people).await.unwrap();
        assert_eq!(left.keys().map(|(_, peer)| peer.as_str()).collect::<Vec<_>>(), ["79000000002"]);

        assert_eq!(purge(world, rule("messages", Act::Blank), LATER).await, 3, "what people wrote is forgotten too");
        let filter = MessageFilter { limit: 10, ..MessageFilter::default() };
        let known = world.storage.list_messages(&filter);
        for seen in known.await.unwrap() {
            assert_eq!(seen.record.peer, "");
            let content: InboundContent = serde_json::from_str(&seen.inbound_content.unwrap()).unwrap();
            assert_eq!(content, InboundContent::Text { body: String::new() });
        }
        world.storage.ingest(ingest(vec![inbound("79000000001", "a")])).await.unwrap();
        let all = world.storage.list_messages(&filter);
        assert_eq!(all.await.unwrap().len(), 3, "a repeated callback meets its own row");
    }

    pub(super) async fn one_process_makes_each_pass(world: &World) {
        let every = Millis::seconds(100);
        assert!(world.storage.claim_purge("a", every).await.unwrap());
        assert!(!world.storage.claim_purge("b", every).await.unwrap());
        world.clock.set(1_099_999);
        assert!(!world.storage.claim_purge("a", every).await.unwrap());
        world.clock.set(1_100_000);
        assert!(world.storage.claim_purge("b", every).await.unwrap());
        assert!(!world.storage.claim_purge("a", every).await.unwrap());
    }

    pub(super) async fn lanes_go_on_while_a_hundred_thousand_old_rows_go(world: &World) {
        const ROWS: usize = 100_000;
        let (portal, channel) = furnished(world).await;
        for first in (0..ROWS).step_by(2560) {
            let rows = (first..ROWS.min(first + 2560))
                .map(|n| {
                    let id = format!("att_{n:026}");
                    let raw = Some("the vendor's words".to_owned());
                    args![id, "send:x", None::<String>, 1_i64, 5_i64, "ok", None::<String>, None::<String>, raw]
                })
                .collect();
            let mut tx = world.db.begin().await.unwrap();
            tx.batch(sql::ATTEMPTS_ADD, rows).await.unwrap();
            tx.commit().await.unwrap();
        }
        let rule = rule("attempts", Act::Delete);
        let purging = async {
            let (mut after, mut rows) = (String::new(), 0);
            loop {
                let began = Instant::now();
                let purged = world.storage.purge(rule, &after, Timestamp(1_000_000)).await.unwrap();
                assert!(purged.rows <= 256, "a transaction of {} rows", purged.rows);
                rows += purged.rows;
                match purged.next {
                    Some(next) => after = next,
                    None => return rows,
                }
                // As the service does, but hurrying.
                tokio::time::sleep(began.elapsed().min(Duration::from_millis(5))).await;
            }
        };
        let (done, longest) = (std::cell::Cell::new(0_usize), std::cell::Cell::new(Duration::ZERO));
        let lane = async {
            loop {
                let began = Instant::now();
                sent(world, &portal, &channel, &format!("w{}", done.get())).await;
                longest.set(longest.get().max(began.elapsed()));
                done.set(done.get() + 1);
            }
        };
        let rows = tokio::select! {
            rows = purging => rows,
            () = lane => 0,
        };
        assert_eq!(rows, ROWS as u64);
        assert!(done.get() > 50, "only {} messages were accepted, planned and settled meanwhile", done.get());
        assert!(longest.get() < Duration::from_secs(2), "a message waited {:?}", longest.get());
        let kept = world.storage.attempts(&MessageId::new("w079001234567")).await.unwrap();
        assert_eq!(kept.len(), 1, "young rows stay");
    }
}
