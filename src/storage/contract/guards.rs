//! Guards: replaced messages, texts that must not come twice, deadlines of what waits.

use super::on_both;

on_both! {
    a_newer_command_replaces_the_one_that_waits
    what_has_begun_is_never_replaced
    replaced_in_the_commit_that_made_it
    a_text_comes_once_within_its_window
    two_at_once_cannot_both_have_a_text
    a_held_text_is_released_by_redrive
    what_waits_beyond_its_deadline_is_given_up
    a_planned_send_is_due_later_and_its_card_is_told
    old_marks_are_forgotten
    settings_of_a_line_are_kept
}

mod promises {
    use super::super::World;
    use super::super::things::{command, furnished, me, message};
    use crate::domain::command::WaitFor;
    use crate::domain::guards::LineSettings;
    use crate::domain::ids::{ChannelId, MessageId, PortalId};
    use crate::domain::job::{JobState, QueueKey};
    use crate::domain::outcome::ErrorCode;
    use crate::domain::status::MessageState;
    use crate::domain::time::{Millis, Timestamp};
    use crate::storage::dead_letters::{DeadFilter, Redriven};
    use crate::storage::guards::TextGuard;
    use crate::storage::messages::{MessageNews, NewMessage};
    use crate::storage::plan::Plan;
    use crate::storage::settle::{Fate, Right, Settlement, Start};

    const PEER: &str = "79001234567";

    /// Plans a command with messages to one person; gives their ids.
    async fn give(
        world: &World,
        place: &(PortalId, ChannelId),
        key: &str,
        parts: usize,
        with: impl Fn(&mut NewMessage),
    ) -> Vec<MessageId> {
        let command = command(&place.0, key, WaitFor::Accepted);
        world.storage.accept(command.clone()).await.unwrap();
        let mut messages = Vec::new();
        for part in 0..parts {
            let mut new = message(&command, &place.1, PEER, None);
            new.record.id = MessageId::new(&format!("{key}P{part}"));
            with(&mut new);
            messages.push(new);
        }
        let ids = messages.iter().map(|new| new.record.id.clone()).collect();
        assert!(world.storage.plan(Plan { command: command.id, waits: true, messages }).await.unwrap());
        ids
    }

    async fn told(world: &World, id: &MessageId) -> (MessageState, Option<ErrorCode>) {
        let record = world.storage.find_message(id).await.unwrap().unwrap().record;
        (record.state, record.failure.map(|failure| failure.code))
    }

    fn turn(message: &mut NewMessage) {
        message.guards.turn = Some("turn".into());
    }

    fn text(hold: bool) -> impl Fn(&mut NewMessage) {
        move |message| {
            message.guards.text = Some(TextGuard { mark: "mark".into(), window: Millis::hours(1), hold });
        }
    }

    pub(super) async fn a_newer_command_replaces_the_one_that_waits(world: &World) {
        let place = furnished(world).await;
        let old = give(world, &place, "k1", 2, turn).await;
        let other = give(world, &place, "k2", 1, |message| message.guards.turn = Some("another".into())).await;
        world.handed_over();
        let new = give(world, &place, "k3", 1, turn).await;
        for id in &old {
            assert_eq!(told(world, id).await, (MessageState::Cancelled, Some(ErrorCode::Superseded)));
        }
        assert_eq!(told(world, &other[0]).await, (MessageState::Queued, None), "another robot's message stays");
        assert_eq!(told(world, &new[0]).await, (MessageState::Queued, None));
        let jobs = world.handed_over();
        assert!(jobs.contains_key("reply:cmd_Ck1"), "the older robot is answered");
        assert!(jobs.contains_key(&format!("comment:{}", old[0])), "and its card is told");
        assert_eq!(world.sink.gone.lock().unwrap().len(), 2);
        let living = world.storage.load_jobs(&QueueKey::Channel(place.1), 10, Timestamp(i64::MAX)).await.unwrap().jobs;
        assert_eq!(living.len(), 2);
    }

    pub(super) async fn what_has_begun_is_never_replaced(world: &World) {
        let place = furnished(world).await;
        let old = give(world, &place, "k1", 2, turn).await;
        world.own(&me(), &QueueKey::Channel(place.1.clone())).await;
        let start = Start { jobs: vec![format!("send:{}", old[0])], worker: me(), run: "r1".into(), again: false };
        assert_eq!(world.storage.start(start).await.unwrap().len(), 1);
        give(world, &place, "k2", 1, turn).await;
        for id in &old {
            assert_eq!(told(world, id).await, (MessageState::Queued, None), "half a message is worse than an old one");
        }
        let accepted = MessageNews::new(old[0].clone(), MessageState::Accepted, Timestamp(1_000_100));
        let done = Settlement {
            job: format!("send:{}", old[0]),
            right: Right::Begun("r1".into()),
            fate: Fate::Done,
            news: Some(accepted),
            attempt: None,
        };
        world.storage.settle(vec![done]).await.unwrap();
        assert_eq!(told(world, &old[0]).await, (MessageState::Accepted, None));
    }

    pub(super) async fn replaced_in_the_commit_that_made_it(world: &World) {
        let place = furnished(world).await;
        let keys: Vec<String> = (0..12).map(|n| format!("k{n}")).collect();
        let plans = keys.iter().map(|key| give(world, &place, key, 1, turn));
        let ids: Vec<MessageId> = futures_util::future::join_all(plans).await.into_iter().flatten().collect();
        let mut waiting = Vec::new();
        for id in &ids {
            match told(world, id).await {
                (MessageState::Queued, None) => waiting.push(format!("send:{id}")),
                other => assert_eq!(other, (MessageState::Cancelled, Some(ErrorCode::Superseded))),
            }
        }
        assert_eq!(waiting.len(), 1, "{waiting:?}");
        let gone = world.sink.gone.lock().unwrap().clone();
        let handed: Vec<String> = world.handed_over().into_keys().filter(|id| id.starts_with("send:")).collect();
        let left: Vec<String> = handed.into_iter().filter(|id| !gone.contains(id)).collect();
        assert_eq!(left, waiting, "what was handed over and not called back is what waits");
    }

    pub(super) async fn a_text_comes_once_within_its_window(world: &World) {
        let place = furnished(world).await;
        let first = give(world, &place, "k1", 2, text(false)).await;
        for id in &first {
            assert_eq!(told(world, id).await, (MessageState::Queued, None), "parts of one message are no duplicates");
        }
        world.handed_over();
        let again = give(world, &place, "k2", 2, text(false)).await;
        for id in &again {
            assert_eq!(told(world, id).await, (MessageState::Failed, Some(ErrorCode::DuplicateText)));
        }
        let jobs = world.handed_over();
        assert!(jobs.contains_key("reply:cmd_Ck2") && !jobs.keys().any(|id| id.starts_with("send:")), "{jobs:?}");
        let record = world.storage.find_message(&again[0]).await.unwrap().unwrap().record;
        assert_eq!(record.failure.unwrap().detail, format!("№{}", first[0].short()), "says which came before");
        // What did not arrive may come again …
        let failed = MessageNews::new(first[0].clone(), MessageState::Failed, Timestamp(1_000_100));
        let end = Settlement {
            job: format!("send:{}", first[0]),
            right: Right::Store,
            fate: Fate::Done,
            news: Some(failed),
            attempt: None,
        };
        world.storage.settle(vec![end]).await.unwrap();
        let third = give(world, &place, "k3", 1, text(false)).await;
        assert_eq!(told(world, &third[0]).await, (MessageState::Queued, None));
        // … and so may anything once the time is over.
        world.clock.set(1_000_000 + Millis::hours(1).0 - 1);
        let fourth = give(world, &place, "k4", 1, text(false)).await;
        assert_eq!(told(world, &fourth[0]).await.1, Some(ErrorCode::DuplicateText));
        world.clock.set(1_000_000 + Millis::hours(1).0);
        let fifth = give(world, &place, "k5", 1, text(false)).await;
        assert_eq!(told(world, &fifth[0]).await, (MessageState::Queued, None));
    }

    pub(super) async fn two_at_once_cannot_both_have_a_text(world: &World) {
        let place = furnished(world).await;
        let keys: Vec<String> = (0..20).map(|n| format!("k{n}")).collect();
        let plans = keys.iter().map(|key| give(world, &place, key, 1, text(false)));
        let ids: Vec<MessageId> = futures_util::future::join_all(plans).await.into_iter().flatten().collect();
        let mut queued = 0;
        for id in &ids {
            queued += usize::from(told(world, id).await == (MessageState::Queued, None));
        }
        assert_eq!(queued, 1);
    }

    pub(super) async fn a_held_text_is_released_by_redrive(world: &World) {
        let place = furnished(world).await;
        give(world, &place, "k1", 1, text(true)).await;
        let held = give(world, &place, "k2", 1, text(true)).await;
        assert_eq!(told(world, &held[0]).await, (MessageState::Failed, Some(ErrorCode::DuplicateHeld)));
        let letters = world.storage.dead_letters(&DeadFilter::default(), Timestamp(i64::MAX), "", 10).await.unwrap();
        assert_eq!(letters.len(), 1);
        let letter = &letters[0].job;
        assert_eq!(letter.message(), Some(held[0].clone()));
        assert!(letter.reason.as_deref().unwrap().starts_with("the person had just got the same text: №"));
        world.handed_over();
        assert_eq!(world.storage.redrive(&letter.id, Timestamp(8_000_000)).await.unwrap(), Redriven::Queued);
        assert_eq!(world.handed_over()[&letter.id].job.state, JobState::Ready);
        assert_eq!(told(world, &held[0]).await, (MessageState::Queued, None));
    }

    pub(super) async fn what_waits_beyond_its_deadline_is_given_up(world: &World) {
        let place = furnished(world).await;
        let late = give(world, &place, "k1", 2, |message| message.not_after = Some(Timestamp(1_500_000))).await;
        let good = give(world, &place, "k2", 1, |message| message.not_after = Some(Timestamp(1_700_000))).await;
        world.own(&me(), &QueueKey::Channel(place.1.clone())).await;
        let start = Start { jobs: vec![format!("send:{}", late[0])], worker: me(), run: "r1".into(), again: false };
        world.storage.start(start).await.unwrap();
        let queue = QueueKey::Channel(place.1.clone());
        world.clock.set(1_500_000);
        assert_eq!(world.storage.expire_sends(&queue).await.unwrap(), 0, "not yet");
        world.handed_over();
        world.clock.set(1_500_001);
        assert_eq!(world.storage.expire_sends(&queue).await.unwrap(), 1);
        assert_eq!(told(world, &late[0]).await, (MessageState::Queued, None), "one that has begun is not touched");
        assert_eq!(told(world, &late[1]).await, (MessageState::Failed, Some(ErrorCode::Expired)));
        assert_eq!(told(world, &good[0]).await, (MessageState::Queued, None));
        assert!(world.handed_over().contains_key(&format!("comment:{}", late[1])));
        assert_eq!(*world.sink.gone.lock().unwrap(), [format!("send:{}", late[1])]);
        let letters = world.storage.dead_letters(&DeadFilter::default(), Timestamp(i64::MAX), "", 10).await.unwrap();
        assert_eq!(letters[0].job.reason.as_deref(), Some("not sent in time"));
        // Somebody who still holds an older copy of the job cannot make the dead letter vanish.
        let done = Settlement {
            job: letters[0].job.id.clone(),
            right: Right::Owner(me(), JobState::Ready),
            fate: Fate::Done,
            news: None,
            attempt: None,
        };
        world.storage.settle(vec![done]).await.unwrap();
        assert_eq!(world.storage.redrive(&letters[0].job.id, Timestamp(8_000_000)).await.unwrap(), Redriven::Queued);
    }

    pub(super) async fn a_planned_send_is_due_later_and_its_card_is_told(world: &World) {
        let place = furnished(world).await;
        let planned = give(world, &place, "k1", 1, |message| message.due = Some(Timestamp(3_000_000))).await;
        let behind = give(world, &place, "k2", 1, |_| ()).await;
        let jobs = world.handed_over();
        let (first, second) = (&jobs[&format!("send:{}", planned[0])].job, &jobs[&format!("send:{}", behind[0])].job);
        assert_eq!((first.due, second.due), (Timestamp(3_000_000), Timestamp(1_000_000)));
        assert!(first.lane == second.lane && first.seq < second.seq, "it holds its place in the dialog");
        assert!(jobs.contains_key(&format!("comment:{}", planned[0])));
        assert!(!jobs.contains_key(&format!("comment:{}", behind[0])));
    }

    pub(super) async fn old_marks_are_forgotten(world: &World) {
        let place = furnished(world).await;
        let days = |days: i64| Millis::hours(24 * days).0;
        let wide = |message: &mut NewMessage| {
            text(false)(message);
            message.guards.text.as_mut().unwrap().window = Millis(days(90));
        };
        let other = |message: &mut NewMessage| message.guards.turn = Some("other".into());
        give(world, &place, "k1", 1, wide).await;
        let (first, second) = (give(world, &place, "k2", 1, turn).await, give(world, &place, "k3", 1, other).await);
        world.clock.set(days(29));
        world.storage.forget_old_guards().await.unwrap();
        let again = give(world, &place, "k4", 1, wide).await;
        assert_eq!(told(world, &again[0]).await.1, Some(ErrorCode::DuplicateText));
        give(world, &place, "k5", 1, turn).await;
        assert_eq!(told(world, &first[0]).await.1, Some(ErrorCode::Superseded));
        world.clock.set(days(31));
        world.storage.forget_old_guards().await.unwrap();
        let again = give(world, &place, "k6", 1, wide).await;
        assert_eq!(told(world, &again[0]).await, (MessageState::Queued, None));
        give(world, &place, "k7", 1, other).await;
        assert_eq!(told(world, &second[0]).await, (MessageState::Queued, None));
    }

    pub(super) async fn settings_of_a_line_are_kept(world: &World) {
        let (portal, _) = furnished(world).await;
        let line = world.storage.lines_of_portal(&portal).await.unwrap()[0].clone();
        assert_eq!(line.settings, LineSettings::default());
        let settings = LineSettings { not_after_minutes: Some(5), supersede: true, ..LineSettings::default() };
        world.storage.set_line_settings(&line.id, &settings).await.unwrap();
        assert_eq!(world.storage.lines_of_portal(&portal).await.unwrap()[0].settings, settings);
        assert_eq!(world.storage.find_line(&line.id).await.unwrap().unwrap().settings, settings);
        assert_eq!(world.storage.lines(None, 1).await.unwrap()[0].settings, settings);
    }
}
