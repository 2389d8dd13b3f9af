//! Every state ends: what is found, what becomes of it, and that it becomes so once.

use super::on_both;

on_both! {
    a_silence_is_told_once_and_taken_back_by_a_late_status
    an_outage_costs_a_portal_one_batch_a_look_and_hides_no_other
    a_message_whose_time_is_over_fails_with_its_job_in_whatever_state
    an_undecided_send_that_nobody_runs_is_given_to_a_person
    what_has_moved_meanwhile_is_left_alone
    the_oldest_living_worker_watches
    the_oldest_open_message_is_known_by_state
}

mod promises {
    use std::collections::BTreeMap;

    use super::super::World;
    use super::super::things::{command, furnished, heard, installation, me, message};
    use crate::domain::command::WaitFor;
    use crate::domain::event::StatusNews;
    use crate::domain::ids::{ChannelId, MessageId, PortalId, ProviderMessageId, WorkerId};
    use crate::domain::job::{GivenUp, Job, JobKind, JobState, QueueKey};
    use crate::domain::message::{MessageRecord, Silence};
    use crate::domain::outcome::ErrorCode;
    use crate::domain::status::MessageState;
    use crate::domain::time::{Millis, Timestamp};
    use crate::storage::dead_letters::DeadFilter;
    use crate::storage::messages::MessageNews;
    use crate::storage::plan::Plan;
    use crate::storage::portals::Installation;
    use crate::storage::settle::{Fate, Right, Settlement, Start};
    use crate::storage::watch::{Finding, Lookout, Verdict, Watched};

    const LATER: i64 = 20_000_000;

    async fn planned(world: &World, portal: &PortalId, channel: &ChannelId, key: &str, count: usize) -> Vec<MessageId> {
        let command = command(portal, key, WaitFor::Delivered);
        world.storage.accept(command.clone()).await.unwrap();
        let messages: Vec<_> = (0..count).map(|n| message(&command, channel, &format!("7900{n:04}"), None)).collect();
        let ids = messages.iter().map(|message| message.record.id.clone()).collect();
        world.storage.plan(Plan { command: command.id, waits: true, messages }).await.unwrap();
        world.handed_over();
        ids
    }

    async fn settle(world: &World, ids: &[MessageId], fate: Fate, state: Option<MessageState>) {
        let settlements = ids.iter().map(|id| Settlement {
            job: Job::id_of(JobKind::Send, id.as_str()),
            right: Right::Store,
            fate: fate.clone(),
            news: state.map(|state| MessageNews::new(id.clone(), state, Timestamp(1_000_100))),
            attempt: None,
        });
        world.storage.settle(settlements.collect()).await.unwrap();
        world.handed_over();
    }

    async fn hear(world: &World, channel: &ChannelId, id: &MessageId, state: MessageState) {
        let status = StatusNews {
            provider_id: ProviderMessageId(format!("wamid.{id}")),
            message: Some(id.clone()),
            state,
            at: Timestamp(1_000_200),
            failure: None,
            vendor_code: String::new(),
        };
        world.storage.ingest(heard(channel, vec![status], vec![])).await.unwrap();
    }

    fn lookout(state: MessageState, silence: Option<Silence>) -> Lookout {
        Lookout { provider: "whatsapp_cloud".into(), state, silence, before: Timestamp(LATER) }
    }

    async fn found(world: &World, state: MessageState, silence: Option<Silence>) -> Vec<Watched> {
        world.storage.watched(&[lookout(state, silence)]).await.unwrap()
    }

    async fn judge(world: &World, messages: Vec<Watched>, verdict: Verdict) {
        world.clock.set(LATER + 60_000);
        let finding = |message| Finding { message, verdict, begun_before: Timestamp(LATER) };
        world.storage.settle_watched(messages.into_iter().map(finding).collect()).await.unwrap();
    }

    async fn record(world: &World, id: &MessageId) -> MessageRecord {
        world.storage.find_message(id).await.unwrap().unwrap().record
    }

    fn comments(world: &World) -> BTreeMap<String, i64> {
        let jobs = world.handed_over().into_values().map(|queued| queued.job);
        jobs.filter(|job| job.kind == JobKind::Comment).map(|job| (job.id, job.revision)).collect()
    }

    pub(super) async fn a_silence_is_told_once_and_taken_back_by_a_late_status(world: &World) {
        let (portal, channel) = furnished(world).await;
        let ids = planned(world, &portal, &channel, "k1", 1).await;
        settle(world, &ids, Fate::Done, Some(MessageState::Accepted)).await;
        let silent = found(world, MessageState::Accepted, None).await;
        assert_eq!((silent.len(), silent[0].id.clone(), silent[0].since), (1, ids[0].clone(), Timestamp(1_000_000)));
        // Two replicas saw the same.
        judge(world, silent.clone(), Verdict::Silent).await;
        judge(world, silent, Verdict::Silent).await;
        assert_eq!(comments(world).into_values().collect::<Vec<_>>(), [1], "told once");
        let told = record(world, &ids[0]).await;
        assert_eq!((told.state, told.silence), (MessageState::Accepted, Some(Silence::Told)));
        assert_eq!(told.times.silent, Some(Timestamp(LATER + 60_000)));
        assert!(found(world, MessageState::Accepted, None).await.is_empty());
        // "Sent" alone is no news for a card, but here it takes the silence back.
        hear(world, &channel, &ids[0], MessageState::Sent).await;
        assert_eq!(comments(world).len(), 1);
        let sent = record(world, &ids[0]).await;
        assert_eq!(
            (sent.state, sent.silence, sent.times.entered),
            (MessageState::Sent, None, Timestamp(LATER + 60_000))
        );
        // The next step has a silence of its own, and an end.
        let lookouts = Lookout { before: Timestamp(LATER + 60_000), ..lookout(MessageState::Sent, None) };
        judge(world, world.storage.watched(&[lookouts]).await.unwrap(), Verdict::Silent).await;
        let told = Lookout { before: Timestamp(LATER + 60_000), ..lookout(MessageState::Sent, Some(Silence::Told)) };
        let told = world.storage.watched(std::slice::from_ref(&told)).await.unwrap();
        judge(world, told.clone(), Verdict::Closed).await;
        judge(world, told, Verdict::Silent).await;
        let closed = record(world, &ids[0]).await;
        assert_eq!(
            (closed.state, closed.silence),
            (MessageState::Sent, Some(Silence::Closed)),
            "closed is the last word"
        );
        assert!(world.storage.oldest_open().await.unwrap().is_empty());
        comments(world);
        hear(world, &channel, &ids[0], MessageState::Delivered).await;
        let late = record(world, &ids[0]).await;
        assert_eq!((late.state, late.silence), (MessageState::Delivered, None), "it counts all the same");
        assert_eq!(comments(world).len(), 1);
    }

    pub(super) async fn an_outage_costs_a_portal_one_batch_a_look_and_hides_no_other(world: &World) {
        let (portal, channel) = furnished(world).await;
        let many = planned(world, &portal, &channel, "k1", 330).await;
        settle(world, &many, Fate::Done, Some(MessageState::Accepted)).await;
        let other = Installation { member_id: "other".into(), ..installation() };
        let other = world.storage.install_portal(&other, None, Timestamp(i64::MAX)).await.unwrap().id;
        world.clock.set(1_000_500);
        let few = planned(world, &other, &channel, "k2", 3).await;
        settle(world, &few, Fate::Done, Some(MessageState::Accepted)).await;
        let mut told = 0;
        for look in 0..7 {
            let silent = found(world, MessageState::Accepted, None).await;
            judge(world, silent, Verdict::Silent).await;
            let comments = comments(world);
            let of_other = few.iter().filter(|id| comments.contains_key(&format!("comment:{id}"))).count();
            assert_eq!(of_other, if look == 0 { 3 } else { 0 }, "the other portal does not wait");
            assert!(comments.len() - of_other <= 50);
            told += comments.len();
        }
        assert_eq!(told, 333);
        assert!(found(world, MessageState::Accepted, None).await.is_empty());
    }

    pub(super) async fn a_message_whose_time_is_over_fails_with_its_job_in_whatever_state(world: &World) {
        let (portal, channel) = furnished(world).await;
        let ids = planned(world, &portal, &channel, "k1", 4).await;
        let job = |id: &MessageId| Job::id_of(JobKind::Send, id.as_str());
        // 0 waits in a paused channel, 1 lost its job, 2 was begun, 3 is dead although its message waits.
        settle(world, &ids[1..2], Fate::Done, None).await;
        world.own(&me(), &QueueKey::Channel(channel.clone())).await;
        let start = Start { jobs: vec![job(&ids[2])], worker: me(), run: "gone".into(), again: false };
        world.storage.start(start).await.unwrap();
        let dead =
            Fate::Keep { state: JobState::Dead, due: Timestamp(0), tries: 1, reason: Some(GivenUp::Expired.with("x")) };
        settle(world, &ids[3..], dead, None).await;
        // A deadline that has not come is kept, whatever the look thinks.
        let waiting = found(world, MessageState::Queued, None).await;
        assert_eq!(waiting.len(), 4);
        let early = Finding { message: waiting[0].clone(), verdict: Verdict::Late, begun_before: Timestamp(0) };
        world.clock.set(8_000_000);
        world.storage.settle_watched(vec![early]).await.unwrap();
        assert_eq!(record(world, &waiting[0].id).await.state, MessageState::Queued);

        judge(world, waiting, Verdict::Late).await;
        for (index, (state, code, reason)) in [
            (MessageState::Failed, ErrorCode::Expired, GivenUp::Expired),
            (MessageState::Failed, ErrorCode::Expired, GivenUp::Lost),
            (MessageState::Undecided, ErrorCode::Undecided, GivenUp::ProcessEnded),
            (MessageState::Failed, ErrorCode::Expired, GivenUp::Expired),
        ]
        .into_iter()
        .enumerate()
        {
            let message = record(world, &ids[index]).await;
            assert_eq!((message.state, message.failure.unwrap().code), (state, code), "{index}");
            let letter = world.storage.jobs_now(&[job(&ids[index])]).await.unwrap().remove(0);
            assert_eq!(letter.state, JobState::Dead, "{index}");
            assert_eq!(GivenUp::read(letter.reason.as_deref().unwrap()).0, reason, "{index}");
            assert_eq!((letter.lane, letter.subject), (message.peer, ids[index].to_string()));
        }
        assert_eq!(comments(world).len(), 4, "every card is told");
        let gone = world.sink.gone.lock().unwrap().clone();
        assert_eq!(gone, [job(&ids[0]), job(&ids[2])], "memory forgets what was waiting");
    }

    pub(super) async fn an_undecided_send_that_nobody_runs_is_given_to_a_person(world: &World) {
        let (portal, channel) = furnished(world).await;
        let ids = planned(world, &portal, &channel, "k1", 3).await;
        let keep = |state, reason: GivenUp| Fate::Keep {
            state,
            due: Timestamp(1_000_000),
            tries: 0,
            reason: Some(reason.stored().to_owned()),
        };
        let undecided = Some(MessageState::Undecided);
        settle(world, &ids[..1], keep(JobState::Unclear, GivenUp::NoAnswer), undecided).await;
        settle(world, &ids[1..2], Fate::Done, undecided).await;
        // Found never to have left; it waits to be sent again.
        settle(world, &ids[2..], keep(JobState::Ready, GivenUp::Gateway), undecided).await;
        judge(world, found(world, MessageState::Undecided, None).await, Verdict::Silent).await;
        let job = |id: &MessageId| Job::id_of(JobKind::Send, id.as_str());
        let letters = world.storage.dead_letters(&DeadFilter::default(), Timestamp(i64::MAX), "", 10).await.unwrap();
        let mut letters: Vec<_> =
            letters.into_iter().map(|letter| (letter.job.id, letter.job.reason.unwrap())).collect();
        letters.sort();
        let words = |reason: GivenUp| reason.stored().to_owned();
        assert_eq!(letters, [(job(&ids[0]), words(GivenUp::NoAnswer)), (job(&ids[1]), words(GivenUp::Lost))]);
        for id in &ids {
            let message = record(world, id).await;
            assert_eq!((message.state, message.silence), (MessageState::Undecided, Some(Silence::Told)));
        }
        let told = found(world, MessageState::Undecided, Some(Silence::Told)).await;
        judge(world, told, Verdict::Closed).await;
        let closed = record(world, &ids[0]).await;
        assert_eq!((closed.state, closed.silence), (MessageState::Undecided, Some(Silence::Closed)));
        // That one surely did not leave, and its deadline is over.
        assert_eq!(record(world, &ids[2]).await.failure.unwrap().code, ErrorCode::Expired);
        assert!(world.storage.oldest_open().await.unwrap().is_empty());
    }

    pub(super) async fn what_has_moved_meanwhile_is_left_alone(world: &World) {
        let (portal, channel) = furnished(world).await;
        let ids = planned(world, &portal, &channel, "k1", 2).await;
        let waiting = found(world, MessageState::Queued, None).await;
        settle(world, &ids[..1], Fate::Done, Some(MessageState::Accepted)).await;
        let silent = found(world, MessageState::Accepted, None).await;
        hear(world, &channel, &ids[0], MessageState::Delivered).await;
        comments(world);
        judge(world, silent, Verdict::Silent).await;
        world.own(&me(), &QueueKey::Channel(channel.clone())).await;
        let begun = Start {
            jobs: vec![Job::id_of(JobKind::Send, ids[1].as_str())],
            worker: me(),
            run: "r1".into(),
            again: false,
        };
        world.clock.set(LATER + 50_000);
        world.storage.start(begun).await.unwrap();
        judge(world, waiting.into_iter().filter(|message| message.id == ids[1]).collect(), Verdict::Late).await;
        assert!(comments(world).is_empty());
        let delivered = record(world, &ids[0]).await;
        assert_eq!((delivered.state, delivered.silence), (MessageState::Delivered, None));
        assert_eq!(record(world, &ids[1]).await.state, MessageState::Queued, "it is being sent right now");
    }

    pub(super) async fn the_oldest_living_worker_watches(world: &World) {
        let (first, second) = (WorkerId::new("A"), WorkerId::new("B"));
        assert!(!world.storage.is_first_worker(&first).await.unwrap());
        world.storage.worker_beat(&first, false, Millis(1_000)).await.unwrap();
        world.storage.worker_beat(&second, false, Millis(5_000)).await.unwrap();
        assert!(world.storage.is_first_worker(&first).await.unwrap());
        assert!(!world.storage.is_first_worker(&second).await.unwrap());
        // Its lease is over; replicas judge that by the server's clock, which no test can set.
        world.storage.worker_beat(&first, false, Millis(-1_000)).await.unwrap();
        assert!(world.storage.is_first_worker(&second).await.unwrap());
    }

    pub(super) async fn the_oldest_open_message_is_known_by_state(world: &World) {
        let (portal, channel) = furnished(world).await;
        let ids = planned(world, &portal, &channel, "k1", 3).await;
        world.clock.set(1_500_000);
        settle(world, &ids[..2], Fate::Done, Some(MessageState::Accepted)).await;
        hear(world, &channel, &ids[1], MessageState::Read).await;
        let mut oldest = world.storage.oldest_open().await.unwrap();
        oldest.sort();
        assert_eq!(
            oldest,
            [("accepted".to_owned(), Timestamp(1_500_000)), ("queued".to_owned(), Timestamp(1_000_000))]
        );
    }
}

/// SQLite decides by the text of a statement alone whether an index serves it.
#[tokio::test]
async fn the_look_reads_its_index_and_not_the_history() {
    let world = super::sqlite().await;
    let mut tx = world.db.begin().await.unwrap();
    let rows = super::expanded(super::sql::MESSAGES_WATCHED, 2, super::Dialect::Sqlite);
    for text in [rows, super::sql::MESSAGES_OLDEST_OPEN] {
        let explain: &'static str = Box::leak(format!("EXPLAIN QUERY PLAN {text}").into_boxed_str());
        let nulls = (0..8).take(if text == rows { 8 } else { 0 }).map(|_| super::Arg::MaybeText(None)).collect();
        let plan = tx.rows(explain, nulls).await.unwrap();
        let plan: Vec<String> = plan.iter().map(|row| row.text("detail").unwrap()).collect();
        assert!(plan.iter().any(|line| line.contains("messages_awaited")), "{plan:?}");
        assert!(!plan.iter().any(|line| line == "SCAN messages" || line == "SCAN m"), "{plan:?}");
    }
}
