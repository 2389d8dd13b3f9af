//! The hot path: accept, plan, start, settle, ingest, effects.

use super::on_both;

on_both! {
    a_command_is_accepted_once
    many_callers_share_commits_and_lose_nothing
    a_plan_is_stored_once_with_its_sends
    a_command_that_brings_its_plan_is_stored_with_it
    a_plan_never_overtakes_an_earlier_command_of_its_card
    a_recipient_that_cannot_be_reached_fails_at_once
    a_send_begins_only_once
    nobody_settles_what_is_somebody_elses
    acceptance_asks_for_the_comment_and_answers_the_robot
    a_robot_that_waits_for_delivery_is_answered_on_delivery
    two_recipients_are_answered_together
    late_and_repeated_statuses_move_nothing_back
    a_status_that_overtakes_the_answer_is_not_lost
    a_foreign_channel_cannot_touch_a_message
    the_echo_settles_an_unclear_send
    the_echo_of_another_channel_settles_nothing
    an_inbound_message_is_stored_once_and_opens_the_window
    an_effect_asked_for_while_it_runs_is_run_again
    an_overdue_robot_is_answered_with_timeout
    a_command_planned_after_its_crm_was_answered_is_carried_out
    text_that_postgres_cannot_keep_is_kept_as_it_can_be
    a_time_far_in_the_future_is_not_the_newest
    a_removal_is_not_undone_by_an_older_installation
    a_dead_letter_lives_again_under_its_identity
    a_redriven_send_whose_echo_comes_is_not_sent
    a_letter_whose_message_was_delivered_is_not_redriven
    dead_letters_are_found_counted_and_redriven_by_filter
    waiting_sends_can_be_withdrawn_and_running_ones_not
    the_api_recognises_a_repeated_request
    a_bad_step_does_not_take_others_with_it
    a_waiting_message_says_why
}

mod promises {
    use super::super::World;
    use super::super::things::{command, furnished, heard, installation, me, message};
    use crate::domain::command::WaitFor;
    use crate::domain::event::{InboundContent, InboundMessage, StatusNews};
    use crate::domain::ids::{ChannelId, CrmCommentId, MessageId, ProviderMessageId, WorkerId};
    use crate::domain::job::{GivenUp, Job, JobKind, JobState, QueueKey};
    use crate::domain::outcome::{ErrorCode, Failure};
    use crate::domain::portal::PortalState;
    use crate::domain::status::MessageState;
    use crate::domain::time::Timestamp;
    use crate::storage::accept::Accept;
    use crate::storage::dead_letters::{DeadFilter, Redriven};
    use crate::storage::effects::EffectSettlement;
    use crate::storage::messages::{Attempt, Created, MessageNews};
    use crate::storage::plan::Plan;
    use crate::storage::settle::{Fate, Right, Settlement, Start};

    fn news(id: &MessageId, state: MessageState, at: i64) -> MessageNews {
        MessageNews::new(id.clone(), state, Timestamp(at))
    }

    fn settlement(id: &MessageId, fate: Fate, news: Option<MessageNews>) -> Settlement {
        let right = Right::Owner(me(), JobState::Ready);
        Settlement { job: format!("send:{id}"), right, fate, news, attempt: None }
    }

    fn keep(state: JobState) -> Fate {
        Fate::Keep { state, due: Timestamp(1_500_000), tries: 1, reason: Some("why".into()) }
    }

    fn status(id: &MessageId, state: MessageState, at: i64) -> StatusNews {
        StatusNews {
            provider_id: ProviderMessageId(format!("wamid.{id}")),
            message: Some(id.clone()),
            state,
            at: Timestamp(at),
            failure: None,
            vendor_code: String::new(),
        }
    }

    async fn tell(world: &World, channel: &ChannelId, statuses: Vec<StatusNews>) {
        world.clock.set(1_001_000);
        let ingest = heard(channel, statuses, vec![]);
        world.storage.ingest(ingest).await.unwrap();
    }

    async fn state(world: &World, id: &MessageId) -> MessageState {
        world.storage.find_message(id).await.unwrap().unwrap().record.state
    }

    /// A command with messages to these peers, planned; gives their ids.
    async fn planned(world: &World, key: &str, wait: WaitFor, peers: &[&str]) -> (ChannelId, Vec<MessageId>) {
        let (portal, channel) = furnished(world).await;
        let command = command(&portal, key, wait);
        world.storage.accept(command.clone()).await.unwrap();
        let messages: Vec<_> = peers.iter().map(|peer| message(&command, &channel, peer, None)).collect();
        let ids = messages.iter().map(|message| message.record.id.clone()).collect();
        let plan = Plan { command: command.id.clone(), waits: true, messages };
        assert!(world.storage.plan(plan).await.unwrap());
        world.own(&me(), &QueueKey::Channel(channel.clone())).await;
        world.own(&me(), &QueueKey::Crm(portal)).await;
        world.handed_over();
        (channel, ids)
    }

    async fn accept_by_provider(world: &World, id: &MessageId) {
        let mut accepted = news(id, MessageState::Accepted, 1_000_100);
        accepted.provider_id = Some(ProviderMessageId(format!("wamid.{id}")));
        world.storage.settle(vec![settlement(id, Fate::Done, Some(accepted))]).await.unwrap();
    }

    pub(super) async fn a_command_is_accepted_once(world: &World) {
        let (portal, _) = furnished(world).await;
        let first = command(&portal, "k1", WaitFor::Accepted);
        let mut again = first.clone();
        again.id = crate::domain::ids::CommandId::new("OTHER");
        assert_eq!(world.storage.accept(first).await.unwrap(), Accept::New);
        assert_eq!(world.storage.accept(again).await.unwrap(), Accept::Duplicate);
        let jobs = world.handed_over();
        assert_eq!(jobs.keys().collect::<Vec<_>>(), ["command:cmd_Ck1"]);
        assert_eq!(jobs["command:cmd_Ck1"].job.lane, "deal:134");
    }

    pub(super) async fn many_callers_share_commits_and_lose_nothing(world: &World) {
        let (portal, _) = furnished(world).await;
        let accepts = (0..700).map(|n| {
            // Every key comes twice.
            let mut command = command(&portal, &format!("k{}", n / 2), WaitFor::Accepted);
            command.id = crate::domain::ids::CommandId::new(&format!("N{n}"));
            world.storage.accept(command)
        });
        let answers = futures_util::future::join_all(accepts).await;
        let new = answers.iter().filter(|answer| matches!(answer, Ok(Accept::New))).count();
        let known = answers.iter().filter(|answer| matches!(answer, Ok(Accept::Duplicate))).count();
        assert_eq!((new, known), (350, 350));
        let queue = QueueKey::Intake(portal);
        let page = world.storage.load_jobs(&queue, 350, Timestamp(0)).await.unwrap();
        assert_eq!((page.jobs.len(), page.whole), (350, true));
        assert!(page.jobs.is_sorted_by(|one, other| one.seq < other.seq));
        // Too many: only heads that are due, and all are of one card.
        let first = page.jobs.into_iter().next();
        let page = world.storage.load_jobs(&queue, 349, Timestamp(i64::MAX)).await.unwrap();
        assert_eq!((page.jobs.first(), page.jobs.len(), page.whole), (first.as_ref(), 1, false));
        let page = world.storage.load_jobs(&queue, 349, Timestamp(0)).await.unwrap();
        assert_eq!((page.jobs.len(), page.whole), (0, false));
        assert_eq!(world.handed_over().len(), 350);
    }

    pub(super) async fn a_plan_is_stored_once_with_its_sends(world: &World) {
        let (portal, channel) = furnished(world).await;
        let command = command(&portal, "k1", WaitFor::Accepted);
        world.storage.accept(command.clone()).await.unwrap();
        world.handed_over();
        let message = message(&command, &channel, "79001234567", None);
        let plan = Plan { command: command.id.clone(), waits: true, messages: vec![message.clone()] };
        assert!(world.storage.plan(plan.clone()).await.unwrap());
        assert!(!world.storage.plan(plan).await.unwrap());
        let jobs = world.handed_over();
        let send = &jobs[&format!("send:{}", message.record.id)].job;
        assert_eq!((send.queue.clone(), send.lane.as_str()), (QueueKey::Channel(channel), "79001234567"));
        assert_eq!(send.not_after, Some(Timestamp(9_000_000)));
        assert_eq!(jobs.len(), 1);
        assert!(
            world.storage.load_jobs(&QueueKey::Intake(portal), 10, Timestamp(i64::MAX)).await.unwrap().jobs.is_empty()
        );
        let stored = world.storage.find_message(&message.record.id).await.unwrap().unwrap().record;
        assert_eq!(stored, message.record);
    }

    pub(super) async fn a_command_that_brings_its_plan_is_stored_with_it(world: &World) {
        let (portal, channel) = furnished(world).await;
        let command = command(&portal, "k1", WaitFor::Accepted);
        let message = message(&command, &channel, "79001234567", None);
        let plan = Plan { command: command.id.clone(), waits: true, messages: vec![message.clone()] };
        let answer = world.storage.accept_planned(command.clone(), plan.clone()).await.unwrap();
        assert_eq!(answer, Accept::New);
        let send = format!("send:{}", message.record.id);
        assert_eq!(world.handed_over().keys().collect::<Vec<_>>(), [&send]);
        // Neither the callback's repetition nor a later plan adds anything.
        let answer = world.storage.accept_planned(command.clone(), plan.clone()).await.unwrap();
        assert_eq!(answer, Accept::Duplicate);
        assert!(!world.storage.plan(plan).await.unwrap());
        assert!(world.handed_over().is_empty());
        let stored = world.storage.find_message(&message.record.id).await.unwrap().unwrap().record;
        assert_eq!(stored, message.record);
        world.own(&me(), &QueueKey::Channel(channel)).await;
        accept_by_provider(world, &message.record.id).await;
        assert!(world.handed_over().contains_key("reply:cmd_Ck1"), "the robot waits for its result");
    }

    pub(super) async fn a_plan_never_overtakes_an_earlier_command_of_its_card(world: &World) {
        let (portal, channel) = furnished(world).await;
        let (first, second, third) = (
            command(&portal, "k1", WaitFor::Accepted),
            command(&portal, "k2", WaitFor::Accepted),
            command(&portal, "k3", WaitFor::Accepted),
        );
        let mut elsewhere = command(&portal, "k4", WaitFor::Accepted);
        elsewhere.card = elsewhere.card.map(|card| crate::domain::portal::CardRef { id: 135, ..card });
        let plan = |command: &crate::domain::command::Command| Plan {
            command: command.id.clone(),
            waits: true,
            messages: vec![message(command, &channel, "79001234567", None)],
        };
        world.storage.accept(first.clone()).await.unwrap();
        world.storage.accept_planned(second.clone(), plan(&second)).await.unwrap();
        world.storage.accept_planned(elsewhere.clone(), plan(&elsewhere)).await.unwrap();
        let jobs = world.handed_over();
        assert_eq!(jobs.keys().collect::<Vec<_>>(), ["command:cmd_Ck1", "command:cmd_Ck2", "send:msg_k479001234567"]);
        assert!(jobs["command:cmd_Ck1"].job.seq < jobs["command:cmd_Ck2"].job.seq);
        assert!(world.storage.plan(plan(&first)).await.unwrap());
        assert!(world.storage.plan(plan(&second)).await.unwrap());
        world.handed_over();
        world.storage.accept_planned(third.clone(), plan(&third)).await.unwrap();
        assert_eq!(world.handed_over().keys().collect::<Vec<_>>(), ["send:msg_k379001234567"]);
    }

    pub(super) async fn a_recipient_that_cannot_be_reached_fails_at_once(world: &World) {
        let (portal, channel) = furnished(world).await;
        let command = command(&portal, "k1", WaitFor::Delivered);
        world.storage.accept(command.clone()).await.unwrap();
        world.handed_over();
        let failure = Failure::with(ErrorCode::BadPhone, "12");
        let message = message(&command, &channel, "12", Some(failure.clone()));
        let id = message.record.id.clone();
        let plan = Plan { command: command.id.clone(), waits: true, messages: vec![message] };
        world.storage.plan(plan).await.unwrap();
        let jobs = world.handed_over();
        assert_eq!(jobs.keys().collect::<Vec<_>>(), [&format!("comment:{id}"), "reply:cmd_Ck1"]);
        assert_eq!(jobs["reply:cmd_Ck1"].job.due, Timestamp(1_002_000));
        let stored = world.storage.find_message(&id).await.unwrap().unwrap().record;
        assert_eq!((stored.state, stored.failure), (MessageState::Failed, Some(failure)));
    }

    pub(super) async fn a_send_begins_only_once(world: &World) {
        let (_, ids) = planned(world, "k1", WaitFor::Accepted, &["7900"]).await;
        let job = format!("send:{}", ids[0]);
        let start = |worker: &WorkerId, run: &str, again| {
            let (worker, run) = (worker.clone(), run.to_owned());
            world.storage.start(Start { jobs: vec![job.clone()], worker, run, again })
        };
        let stranger = WorkerId::new("STRANGER");
        for again in [false, true] {
            assert!(start(&stranger, "s1", again).await.unwrap().is_empty(), "the queue is not its own");
        }
        assert_eq!(start(&me(), "m1", false).await.unwrap().len(), 1);
        assert!(start(&me(), "m2", false).await.unwrap().is_empty());
        assert_eq!(start(&me(), "m3", true).await.unwrap().len(), 1);
        let stored = world.storage.jobs_now(std::slice::from_ref(&job)).await.unwrap();
        assert_eq!((stored[0].state, stored[0].started), (JobState::Started, Some(Timestamp(1_000_000))));
    }

    pub(super) async fn nobody_settles_what_is_somebody_elses(world: &World) {
        let (channel, ids) = planned(world, "k1", WaitFor::Accepted, &["7900"]).await;
        let (queue, job) = (QueueKey::Channel(channel), format!("send:{}", ids[0]));
        let next = WorkerId::new("NEXT");
        let start = async |worker: &WorkerId, run: &str| {
            let start = Start { jobs: vec![job.clone()], worker: worker.clone(), run: run.into(), again: false };
            world.storage.start(start).await.unwrap().len()
        };
        let settle = async |right: Right, fate: Fate, news: MessageNews| {
            let settlement = Settlement { right, ..settlement(&ids[0], fate, Some(news)) };
            world.storage.settle(vec![settlement]).await.unwrap();
            let stored = world.storage.jobs_now(std::slice::from_ref(&job)).await.unwrap();
            (stored.first().map(|job| job.state), state(world, &ids[0]).await)
        };
        let failed = || news(&ids[0], MessageState::Failed, 1_000_100);
        let undecided = || news(&ids[0], MessageState::Undecided, 1_000_100);
        let owner = |worker: &WorkerId, seen| Right::Owner(worker.clone(), seen);
        assert_eq!(start(&me(), "m1").await, 1);
        // Its lease ends, and another takes the queue over.
        world.storage.worker_beat(&me(), crate::domain::time::Millis(-1)).await.unwrap();
        world.own(&next, &queue).await;
        let before = (Some(JobState::Started), MessageState::Queued);
        assert_eq!(
            settle(owner(&me(), JobState::Started), Fate::Done, failed()).await,
            before,
            "not the owner any more"
        );
        assert_eq!(settle(owner(&next, JobState::Ready), Fate::Done, failed()).await, before, "it was seen elsewhere");
        let unclear = (Some(JobState::Unclear), MessageState::Undecided);
        assert_eq!(settle(owner(&next, JobState::Started), keep(JobState::Unclear), undecided()).await, unclear);
        let ready = (Some(JobState::Ready), MessageState::Undecided);
        let late = news(&ids[0], MessageState::Undecided, 1_000_200);
        assert_eq!(settle(owner(&next, JobState::Unclear), keep(JobState::Ready), late.clone()).await, ready);
        // Whoever began it knows best, as long as nobody has begun it since.
        assert_eq!(settle(Right::Begun("m1".into()), keep(JobState::Unclear), late.clone()).await, unclear);
        assert_eq!(settle(owner(&next, JobState::Unclear), keep(JobState::Ready), late.clone()).await, ready);
        assert_eq!(start(&me(), "m2").await, 0);
        assert_eq!(start(&next, "n1").await, 1);
        let started = (Some(JobState::Started), MessageState::Undecided);
        assert_eq!(settle(Right::Begun("m1".into()), Fate::Done, failed()).await, started, "another has begun it");
        let accepted = news(&ids[0], MessageState::Accepted, 1_000_300);
        let done = (None, MessageState::Accepted);
        assert_eq!(settle(Right::Begun("n1".into()), Fate::Done, accepted).await, done);
    }

    pub(super) async fn acceptance_asks_for_the_comment_and_answers_the_robot(world: &World) {
        let (channel, ids) = planned(world, "k1", WaitFor::Accepted, &["7900"]).await;
        let mut accepted = settlement(&ids[0], Fate::Done, Some(news(&ids[0], MessageState::Accepted, 1_000_100)));
        accepted.attempt = Some(Attempt {
            job: accepted.job.clone(),
            message: Some(ids[0].clone()),
            at: Timestamp(1_000_050),
            duration: crate::domain::time::Millis(50),
            outcome: "ok".into(),
            failure_class: None,
            vendor_code: String::new(),
            raw: "x".repeat(5_000),
        });
        world.storage.settle(vec![accepted]).await.unwrap();
        let jobs = world.handed_over();
        assert_eq!(jobs.keys().collect::<Vec<_>>(), [&format!("comment:{}", ids[0]), "reply:cmd_Ck1"]);
        let attempts = world.storage.attempts(&ids[0]).await.unwrap();
        assert_eq!((attempts.len(), attempts[0].outcome.as_str(), attempts[0].raw.len()), (1, "ok", 2_000));
        assert!(
            world
                .storage
                .load_jobs(&QueueKey::Channel(channel), 10, Timestamp(i64::MAX))
                .await
                .unwrap()
                .jobs
                .is_empty()
        );
    }

    pub(super) async fn a_robot_that_waits_for_delivery_is_answered_on_delivery(world: &World) {
        let (channel, ids) = planned(world, "k1", WaitFor::Delivered, &["7900"]).await;
        accept_by_provider(world, &ids[0]).await;
        assert!(!world.handed_over().contains_key("reply:cmd_Ck1"));
        tell(world, &channel, vec![status(&ids[0], MessageState::Sent, 1_000_200)]).await;
        assert!(!world.handed_over().contains_key("reply:cmd_Ck1"));
        tell(world, &channel, vec![status(&ids[0], MessageState::Delivered, 1_000_300)]).await;
        assert!(world.handed_over().contains_key("reply:cmd_Ck1"));
        tell(world, &channel, vec![status(&ids[0], MessageState::Read, 1_000_400)]).await;
        assert!(!world.handed_over().contains_key("reply:cmd_Ck1"), "the robot is answered once");
        let commands = world.storage.load_commands(&[crate::domain::ids::CommandId::new("Ck1")]).await.unwrap();
        assert!(commands.values().next().unwrap().in_time);
    }

    pub(super) async fn two_recipients_are_answered_together(world: &World) {
        let (_, ids) = planned(world, "k1", WaitFor::Accepted, &["7900", "7901"]).await;
        accept_by_provider(world, &ids[0]).await;
        assert!(!world.handed_over().contains_key("reply:cmd_Ck1"));
        let mut failed = news(&ids[1], MessageState::Failed, 1_000_100);
        failed.failure = Some(Failure::new(ErrorCode::NotOnMessenger));
        world.storage.settle(vec![settlement(&ids[1], Fate::Done, Some(failed))]).await.unwrap();
        assert!(world.handed_over().contains_key("reply:cmd_Ck1"));
        let id = crate::domain::ids::CommandId::new("Ck1");
        let messages = world.storage.messages_of_commands(std::slice::from_ref(&id)).await.unwrap();
        let states: Vec<_> = messages[&id].iter().map(|record| record.state).collect();
        assert_eq!(states, [MessageState::Accepted, MessageState::Failed]);
    }

    pub(super) async fn late_and_repeated_statuses_move_nothing_back(world: &World) {
        let (channel, ids) = planned(world, "k1", WaitFor::Accepted, &["7900"]).await;
        accept_by_provider(world, &ids[0]).await;
        let read = status(&ids[0], MessageState::Read, 1_000_900);
        tell(world, &channel, vec![read.clone(), read.clone()]).await;
        world.handed_over();
        let late = vec![
            status(&ids[0], MessageState::Delivered, 1_000_800),
            status(&ids[0], MessageState::Sent, 1_000_700),
            status(&ids[0], MessageState::Failed, 1_000_950),
            read,
        ];
        tell(world, &channel, late).await;
        let record = world.storage.find_message(&ids[0]).await.unwrap().unwrap().record;
        assert_eq!(record.state, MessageState::Read);
        assert_eq!(record.times.delivered, Some(Timestamp(1_000_800)), "late news is kept, not applied");
        assert_eq!((record.times.sent, record.times.failed), (Some(Timestamp(1_000_700)), None));
        assert!(world.handed_over().is_empty(), "nothing new to tell the CRM");
    }

    pub(super) async fn a_status_that_overtakes_the_answer_is_not_lost(world: &World) {
        let (channel, ids) = planned(world, "k1", WaitFor::Delivered, &["7900"]).await;
        let jobs = vec![format!("send:{}", ids[0])];
        let start = Start { jobs, worker: me(), run: "r1".into(), again: false };
        assert_eq!(world.storage.start(start).await.unwrap().len(), 1);
        let both =
            vec![status(&ids[0], MessageState::Delivered, 1_000_300), status(&ids[0], MessageState::Sent, 1_000_200)];
        tell(world, &channel, both).await;
        let jobs = world.handed_over();
        assert!(jobs.contains_key("reply:cmd_Ck1") && jobs.contains_key(&format!("comment:{}", ids[0])));
        let mut accepted = news(&ids[0], MessageState::Accepted, 1_000_100);
        accepted.provider_id = Some(ProviderMessageId(format!("wamid.{}", ids[0])));
        let answer = settlement(&ids[0], Fate::Done, Some(accepted));
        world.storage.settle(vec![Settlement { right: Right::Begun("r1".into()), ..answer }]).await.unwrap();
        let record = world.storage.find_message(&ids[0]).await.unwrap().unwrap().record;
        assert_eq!(record.state, MessageState::Delivered);
        assert_eq!(
            (record.times.sent, record.times.accepted),
            (Some(Timestamp(1_000_200)), Some(Timestamp(1_000_100)))
        );
        assert_eq!(record.provider_id.unwrap().0, format!("wamid.{}", ids[0]));
    }

    /// A channel that the messages of the test do not belong to.
    async fn another_channel(world: &World) -> ChannelId {
        let line = world.storage.add_line("Other").await.unwrap();
        let other = crate::storage::channels::NewChannel {
            line: line.id,
            provider: "whatsapp_cloud".into(),
            name: "other".into(),
            credentials: std::collections::BTreeMap::new(),
            settings: crate::domain::channel::ChannelSettings::default(),
        };
        world.storage.add_channel(other).await.unwrap()
    }

    pub(super) async fn a_foreign_channel_cannot_touch_a_message(world: &World) {
        let (channel, ids) = planned(world, "k1", WaitFor::Accepted, &["7900"]).await;
        let other = another_channel(world).await;
        tell(world, &other, vec![status(&ids[0], MessageState::Read, 1_000_900)]).await;
        assert_eq!(state(world, &ids[0]).await, MessageState::Queued);
        let mut unknown = status(&ids[0], MessageState::Read, 1_000_900);
        unknown.message = None;
        tell(world, &channel, vec![unknown.clone()]).await;
        assert_eq!(state(world, &ids[0]).await, MessageState::Queued, "the vendor's id is not known yet");
        accept_by_provider(world, &ids[0]).await;
        tell(world, &other, vec![unknown.clone()]).await;
        assert_eq!(state(world, &ids[0]).await, MessageState::Accepted);
        tell(world, &channel, vec![unknown]).await;
        assert_eq!(state(world, &ids[0]).await, MessageState::Read);
    }

    pub(super) async fn the_echo_settles_an_unclear_send(world: &World) {
        let (channel, ids) = planned(world, "k1", WaitFor::Accepted, &["7900", "7901"]).await;
        for (id, kept) in [(&ids[0], JobState::Unclear), (&ids[1], JobState::Dead)] {
            let undecided = Some(news(id, MessageState::Undecided, 1_000_100));
            world.storage.settle(vec![settlement(id, keep(kept), undecided)]).await.unwrap();
            assert_eq!(state(world, id).await, MessageState::Undecided);
        }
        let queue = QueueKey::Channel(channel.clone());
        assert_eq!(
            world.storage.load_jobs(&queue, 10, Timestamp(i64::MAX)).await.unwrap().jobs.len(),
            1,
            "the dead are not run"
        );
        world.handed_over();
        let echo = ids.iter().map(|id| status(id, MessageState::Sent, 1_000_200)).collect();
        tell(world, &channel, echo).await;
        assert_eq!(state(world, &ids[0]).await, MessageState::Sent);
        assert_eq!(state(world, &ids[1]).await, MessageState::Sent);
        assert!(
            world.storage.jobs_now(&[format!("send:{}", ids[0]), format!("send:{}", ids[1])]).await.unwrap().is_empty()
        );
        assert_eq!(world.sink.gone.lock().unwrap().len(), 2);
        let jobs = world.handed_over();
        assert!(jobs.contains_key(&format!("comment:{}", ids[0])), "the comment takes the doubt back");
        assert!(jobs.contains_key("reply:cmd_Ck1"));
    }

    fn inbound(id: &str, at: i64, opens_window: bool) -> InboundMessage {
        InboundMessage {
            provider_id: ProviderMessageId(id.into()),
            peer: "7900".into(),
            name: "Ada".into(),
            at: Timestamp(at),
            opens_window,
            reply_to: None,
            content: InboundContent::Text { body: "Hello".into() },
        }
    }

    pub(super) async fn an_inbound_message_is_stored_once_and_opens_the_window(world: &World) {
        let (_, channel) = furnished(world).await;
        let pair = (channel.to_string(), "7900".to_owned());
        let last = async || world.storage.last_inbound(std::slice::from_ref(&pair)).await.unwrap().get(&pair).copied();
        let tell = async |messages: Vec<InboundMessage>| {
            let ingest = heard(&channel, vec![], messages);
            world.storage.ingest(ingest).await.unwrap();
        };
        tell(vec![inbound("w0", 999_500, false)]).await;
        assert_eq!(last().await, None, "a notice of the messenger opens nothing");
        tell(vec![inbound("w1", 999_000, true), inbound("w2", 998_000, true)]).await;
        tell(vec![inbound("w1", 999_000, true)]).await;
        assert_eq!(last().await, Some(Timestamp(999_000)));
        let filter =
            crate::storage::messages::MessageFilter { peer: Some("7900".into()), limit: 10, ..Default::default() };
        let history = world.storage.list_messages(&filter).await.unwrap();
        assert_eq!(history.len(), 3);
        assert!(history.iter().all(|entry| entry.inbound));
        tell(vec![inbound("w3", 5_000_000, true)]).await;
        assert_eq!(last().await, Some(Timestamp(1_000_000)), "a vendor's clock that runs ahead is not believed");
    }

    pub(super) async fn an_effect_asked_for_while_it_runs_is_run_again(world: &World) {
        let (channel, ids) = planned(world, "k1", WaitFor::Accepted, &["7900"]).await;
        accept_by_provider(world, &ids[0]).await;
        let job = format!("comment:{}", ids[0]);
        let before = world.handed_over()[&job].job.revision;
        tell(world, &channel, vec![status(&ids[0], MessageState::Delivered, 1_000_300)]).await;
        let after = world.handed_over()[&job].job.revision;
        assert!(after > before);
        let done = |revision| EffectSettlement {
            job: job.clone(),
            worker: me(),
            revision,
            fate: Fate::Done,
            comment: Some((ids[0].clone(), CrmCommentId("77".into()))),
            replied: None,
            shown: None,
        };
        world.storage.settle_effects(vec![done(before)]).await.unwrap();
        let again = world.handed_over();
        assert_eq!((again.len(), again[&job].job.state), (1, JobState::Ready));
        let record = world.storage.find_message(&ids[0]).await.unwrap().unwrap().record;
        assert_eq!(record.comment, Some(CrmCommentId("77".into())));
        world.storage.settle_effects(vec![done(after)]).await.unwrap();
        assert!(world.handed_over().is_empty());
        assert!(world.storage.jobs_now(&[job]).await.unwrap().is_empty());
    }

    pub(super) async fn the_echo_of_another_channel_settles_nothing(world: &World) {
        let (_, ids) = planned(world, "k1", WaitFor::Accepted, &["7900"]).await;
        let other = another_channel(world).await;
        let undecided = Some(news(&ids[0], MessageState::Undecided, 1_000_100));
        world.storage.settle(vec![settlement(&ids[0], keep(JobState::Unclear), undecided)]).await.unwrap();
        tell(world, &other, vec![status(&ids[0], MessageState::Sent, 1_000_900)]).await;
        assert_eq!(state(world, &ids[0]).await, MessageState::Undecided);
        assert_eq!(world.storage.jobs_now(&[format!("send:{}", ids[0])]).await.unwrap().len(), 1);
    }

    pub(super) async fn a_command_planned_after_its_crm_was_answered_is_carried_out(world: &World) {
        let (portal, channel) = furnished(world).await;
        let command = command(&portal, "k1", WaitFor::Accepted);
        world.storage.accept(command.clone()).await.unwrap();
        world.clock.set(2_000_001);
        assert_eq!(world.storage.answer_overdue().await.unwrap(), 1);
        assert!(world.handed_over().contains_key(&format!("reply:{}", command.id)));
        let message = message(&command, &channel, "7900", None);
        let id = message.record.id.clone();
        let plan = Plan { command: command.id.clone(), waits: true, messages: vec![message] };
        assert!(world.storage.plan(plan.clone()).await.unwrap());
        assert!(!world.storage.plan(plan).await.unwrap());
        assert_eq!(world.handed_over().keys().collect::<Vec<_>>(), [&format!("send:{id}")]);
        assert_eq!(state(world, &id).await, MessageState::Queued);
        assert_eq!(world.storage.answer_overdue().await.unwrap(), 0, "the robot is answered once");
    }

    pub(super) async fn text_that_postgres_cannot_keep_is_kept_as_it_can_be(world: &World) {
        let (portal, channel) = furnished(world).await;
        let command = command(&portal, "k1", WaitFor::Accepted);
        world.storage.accept(command.clone()).await.unwrap();
        let message = message(&command, &channel, "79\x0000", Some(Failure::with(ErrorCode::BadPhone, "79\x0000")));
        let id = message.record.id.clone();
        let plan = Plan { command: command.id.clone(), waits: true, messages: vec![message] };
        assert!(world.storage.plan(plan).await.unwrap());
        let stored = world.storage.find_message(&id).await.unwrap().unwrap().record;
        assert_eq!(stored.peer, "79\u{FFFD}00");
        let kind = crate::domain::portal::CrmKind::Bitrix24;
        assert!(world.storage.find_portal(kind, "main", "a\0b", true).await.unwrap().is_none());
    }

    pub(super) async fn a_time_far_in_the_future_is_not_the_newest(world: &World) {
        let (_, channel) = furnished(world).await;
        let far = inbound("wamid.far", 99_999_999_999_999_999, true);
        let list = vec![far.clone(), inbound("wamid.now", 1_000_000, true)];
        for list in [list, vec![far]] {
            let ingest = heard(&channel, vec![], list);
            world.storage.ingest(ingest).await.unwrap();
        }
        let filter = crate::storage::messages::MessageFilter { limit: 10, ..Default::default() };
        let found = world.storage.list_messages(&filter).await.unwrap();
        let ids: Vec<_> = found.iter().filter_map(|stored| stored.record.provider_id.as_ref()).collect();
        assert_eq!(ids.iter().map(|id| id.as_str()).collect::<Vec<_>>(), ["wamid.now", "wamid.far"]);
    }

    pub(super) async fn a_removal_is_not_undone_by_an_older_installation(world: &World) {
        let (portal, _) = furnished(world).await;
        let asked = Timestamp(1_000_000);
        world.clock.set(1_000_001);
        world.storage.uninstall_portal(&portal).await.unwrap();
        let again = async |since| world.storage.install_portal(&installation(), None, since).await;
        assert!(again(asked).await.is_err());
        let state = async || world.storage.portal(&portal).await.unwrap().unwrap().portal.state;
        assert_eq!(state().await, PortalState::Uninstalled);
        again(Timestamp(1_000_002)).await.unwrap();
        assert_eq!(state().await, PortalState::Installed);
    }

    pub(super) async fn an_overdue_robot_is_answered_with_timeout(world: &World) {
        let (_, _) = planned(world, "k1", WaitFor::Read, &["7900"]).await;
        assert_eq!(world.storage.answer_overdue().await.unwrap(), 0);
        world.clock.set(2_000_001);
        assert_eq!(world.storage.answer_overdue().await.unwrap(), 1);
        assert_eq!(world.handed_over().keys().collect::<Vec<_>>(), ["reply:cmd_Ck1"]);
        assert_eq!(world.storage.answer_overdue().await.unwrap(), 0);
        let commands = world.storage.load_commands(&[crate::domain::ids::CommandId::new("Ck1")]).await.unwrap();
        assert!(!commands.values().next().unwrap().in_time);
    }

    pub(super) async fn a_dead_letter_lives_again_under_its_identity(world: &World) {
        let (channel, ids) = planned(world, "k1", WaitFor::Accepted, &["7900"]).await;
        let mut expired = news(&ids[0], MessageState::Failed, 1_000_100);
        expired.failure = Some(Failure::new(ErrorCode::Expired));
        world.storage.settle(vec![settlement(&ids[0], keep(JobState::Dead), Some(expired))]).await.unwrap();
        let any = DeadFilter::default();
        let letters = world.storage.dead_letters(&any, Timestamp(i64::MAX), "", 10).await.unwrap();
        assert_eq!(letters.len(), 1);
        assert_eq!((letters[0].job.kind, letters[0].job.reason.as_deref()), (JobKind::Send, Some("why")));
        world.handed_over();
        let id = letters[0].job.id.clone();
        // Many hands at once: one of them does it.
        let hands = (0..8).map(|_| world.storage.redrive(&id, Timestamp(8_000_000)));
        let hands = futures_util::future::join_all(hands).await.into_iter().map(Result::unwrap).collect::<Vec<_>>();
        let count = |wanted: Redriven| hands.iter().filter(|redriven| **redriven == wanted).count();
        assert_eq!((count(Redriven::Queued), count(Redriven::Unknown)), (1, 7));
        let job = &world.handed_over()[&id].job;
        assert_eq!((job.state, job.tries, job.not_after), (JobState::Ready, 0, Some(Timestamp(8_000_000))));
        assert_eq!(state(world, &ids[0]).await, MessageState::Queued);
        assert_eq!(
            world.storage.load_jobs(&QueueKey::Channel(channel), 10, Timestamp(i64::MAX)).await.unwrap().jobs.len(),
            1
        );
    }

    /// The send was given up without its outcome being known, a person redrives it, and then its echo comes.
    pub(super) async fn a_redriven_send_whose_echo_comes_is_not_sent(world: &World) {
        let (channel, ids) = planned(world, "k1", WaitFor::Accepted, &["7900", "7901"]).await;
        let job = |id: &MessageId| format!("send:{id}");
        for id in &ids {
            let doubt = Some(news(id, MessageState::Undecided, 1_000_100));
            world.storage.settle(vec![settlement(id, keep(JobState::Dead), doubt)]).await.unwrap();
        }
        // Redriven first: what waits to be sent again is withdrawn, also where it waits in memory.
        assert_eq!(world.storage.redrive(&job(&ids[0]), Timestamp(8_000_000)).await.unwrap(), Redriven::Queued);
        tell(world, &channel, vec![status(&ids[0], MessageState::Sent, 1_000_500)]).await;
        let start = Start { jobs: vec![job(&ids[0])], worker: me(), run: "r1".into(), again: false };
        assert!(world.storage.start(start).await.unwrap().is_empty(), "it may not be begun");
        assert_eq!(*world.sink.gone.lock().unwrap(), [job(&ids[0])]);
        // The echo first: there is nothing to redrive.
        tell(world, &channel, vec![status(&ids[1], MessageState::Delivered, 1_000_500)]).await;
        assert_eq!(world.storage.redrive(&job(&ids[1]), Timestamp(8_000_000)).await.unwrap(), Redriven::Unknown);
        assert_eq!(
            (state(world, &ids[0]).await, state(world, &ids[1]).await),
            (MessageState::Sent, MessageState::Delivered)
        );
        // Begun first: it hears its own answer, and the echo does not take that away.
        let (channel, later) = planned(world, "k2", WaitFor::Accepted, &["7902"]).await;
        let start = Start { jobs: vec![job(&later[0])], worker: me(), run: "r1".into(), again: false };
        assert_eq!(world.storage.start(start).await.unwrap().len(), 1);
        tell(world, &channel, vec![status(&later[0], MessageState::Sent, 1_000_500)]).await;
        assert_eq!(state(world, &later[0]).await, MessageState::Sent);
        assert_eq!(world.storage.jobs_now(&[job(&later[0])]).await.unwrap()[0].state, JobState::Started);
    }

    /// A message that failed because its time was over turns out to have been delivered: nothing is sent again.
    pub(super) async fn a_letter_whose_message_was_delivered_is_not_redriven(world: &World) {
        let (channel, ids) = planned(world, "k1", WaitFor::Accepted, &["7900"]).await;
        let mut expired = news(&ids[0], MessageState::Failed, 1_000_100);
        expired.failure = Some(Failure::new(ErrorCode::Expired));
        world.storage.settle(vec![settlement(&ids[0], Fate::Done, Some(expired))]).await.unwrap();
        tell(world, &channel, vec![status(&ids[0], MessageState::Delivered, 1_000_500)]).await;
        // The letter comes back into the world by a foreign hand.
        let queue = QueueKey::Channel(channel);
        let job = Job::new(JobKind::Send, ids[0].as_str(), queue, "7900".into(), "01X".into(), Timestamp(0));
        world.storage.ask_job(job).await.unwrap();
        world.storage.settle(vec![settlement(&ids[0], keep(JobState::Dead), None)]).await.unwrap();
        world.handed_over();
        let id = format!("send:{}", ids[0]);
        assert_eq!(world.storage.redrive(&id, Timestamp(8_000_000)).await.unwrap(), Redriven::Settled);
        assert_eq!(state(world, &ids[0]).await, MessageState::Failed);
        assert!(world.handed_over().is_empty() && world.storage.jobs_now(&[id]).await.unwrap().is_empty());
    }

    pub(super) async fn dead_letters_are_found_counted_and_redriven_by_filter(world: &World) {
        let peers: Vec<String> = (0..450).map(|n| format!("79{n:03}")).collect();
        let peers: Vec<&str> = peers.iter().map(String::as_str).collect();
        let (channel, ids) = planned(world, "k1", WaitFor::Accepted, &peers).await;
        let die =
            |reason: String| Fate::Keep { state: JobState::Dead, due: Timestamp(0), tries: 1, reason: Some(reason) };
        for (index, id) in ids.iter().enumerate() {
            let (state, reason) = match index {
                0..10 => (MessageState::Undecided, GivenUp::NoAnswer),
                _ => (MessageState::Failed, GivenUp::Expired),
            };
            world.clock.set(2_000_000 + i64::try_from(index).unwrap());
            let particulars = if index % 2 == 0 { "the vendor is down" } else { "" };
            let fate = die(reason.with(particulars));
            world.storage.settle(vec![settlement(id, fate, Some(news(id, state, 2_000_000)))]).await.unwrap();
        }
        // The comments that were asked for are work of the same portal.
        let portal = world.storage.find_message(&ids[0]).await.unwrap().unwrap().record.portal.unwrap();
        let refused = EffectSettlement {
            job: format!("comment:{}", ids[0]),
            worker: me(),
            revision: 0,
            fate: die("ACCESS_DENIED (not_permitted): no".into()),
            comment: None,
            replied: None,
            shown: None,
        };
        world.storage.settle_effects(vec![refused]).await.unwrap();
        let count = async |filter: DeadFilter| world.storage.count_dead_letters(&filter).await.unwrap();
        let any = DeadFilter::default;
        assert_eq!(count(any()).await, 451);
        assert_eq!(count(DeadFilter { undecided: false, ..any() }).await, 441);
        assert_eq!(count(DeadFilter { kind: Some(JobKind::Send), ..any() }).await, 450);
        assert_eq!(count(DeadFilter { kind: Some(JobKind::Reply), ..any() }).await, 0);
        assert_eq!(count(DeadFilter { channel: Some(channel.clone()), ..any() }).await, 451);
        assert_eq!(count(DeadFilter { channel: Some(ChannelId::new("OTHER")), ..any() }).await, 0);
        assert_eq!(count(DeadFilter { portal: Some(portal), ..any() }).await, 451);
        assert_eq!(count(DeadFilter { portal: Some(crate::domain::ids::PortalId::new("OTHER")), ..any() }).await, 0);
        assert_eq!(count(DeadFilter { reason: "no answer".into(), ..any() }).await, 10);
        assert_eq!(count(DeadFilter { reason: "ACCESS_DENIED (".into(), ..any() }).await, 1);
        let (since, until) = (Timestamp(2_000_100), Timestamp(2_000_110));
        assert_eq!(count(DeadFilter { since, until, ..any() }).await, 10);

        // The comment is no send; 440 sends surely did not arrive, 10 may have.
        let sends = DeadFilter { kind: Some(JobKind::Send), undecided: false, ..any() };
        let deadline = Timestamp(9_000_000);
        let some = world.storage.redrive_matching(&sends, 250, deadline).await.unwrap();
        assert_eq!((some.matched, some.left_out, some.redriven, some.settled), (440, 10, 250, 0));
        let rest = world.storage.redrive_matching(&sends, 10_000, deadline).await.unwrap();
        assert_eq!((rest.matched, rest.left_out, rest.redriven), (190, 10, 190));
        assert_eq!(state(world, &ids[0]).await, MessageState::Undecided, "left out");
        assert_eq!(state(world, &ids[10]).await, MessageState::Queued);
        let jobs = world.handed_over();
        assert_eq!(jobs.values().filter(|queued| queued.job.kind == JobKind::Send).count(), 440, "each once");
        assert_eq!(count(any()).await, 11);
    }

    pub(super) async fn waiting_sends_can_be_withdrawn_and_running_ones_not(world: &World) {
        let (channel, ids) = planned(world, "k1", WaitFor::Accepted, &["7900", "7901", "7902"]).await;
        let running = Start { jobs: vec![format!("send:{}", ids[0])], worker: me(), run: "m1".into(), again: false };
        world.storage.start(running).await.unwrap();
        let queue = QueueKey::Channel(channel);
        assert_eq!(world.storage.cancel_sends(&queue, Timestamp(1_000_000)).await.unwrap(), 0, "none is that old");
        assert_eq!(world.storage.cancel_sends(&queue, Timestamp(1_000_001)).await.unwrap(), 2);
        assert_eq!(state(world, &ids[0]).await, MessageState::Queued);
        assert_eq!(state(world, &ids[1]).await, MessageState::Cancelled);
        assert!(world.handed_over().contains_key(&format!("comment:{}", ids[2])));
        assert_eq!(world.sink.gone.lock().unwrap().len(), 2);
    }

    pub(super) async fn the_api_recognises_a_repeated_request(world: &World) {
        let (portal, channel) = furnished(world).await;
        let command = command(&portal, "k1", WaitFor::Accepted);
        let new = |peer: &str| {
            let mut message = message(&command, &channel, peer, None);
            message.record.command = None;
            message.record.portal = None;
            message.record.card = None;
            message
        };
        let key = |print: &str| Some(("key-1".to_owned(), print.to_owned()));
        let first = world.storage.create_message(new("7900"), key("a")).await.unwrap();
        let Created::New(id) = first else { panic!("{first:?}") };
        assert_eq!(world.handed_over().len(), 1);
        assert_eq!(world.storage.create_message(new("7901"), key("a")).await.unwrap(), Created::Known(id));
        assert_eq!(world.storage.create_message(new("7901"), key("b")).await.unwrap(), Created::Conflict);
        assert!(world.handed_over().is_empty());
        assert!(matches!(world.storage.create_message(new("7902"), None).await.unwrap(), Created::New(_)));
    }

    pub(super) async fn a_bad_step_does_not_take_others_with_it(world: &World) {
        let (portal, _) = furnished(world).await;
        let mut accepts = Vec::new();
        for n in 0..20 {
            let mut command = command(&portal, &format!("k{n}"), WaitFor::Accepted);
            if n == 7 {
                // A portal that does not exist: refused by the database.
                command.portal = crate::domain::ids::PortalId::new("NOBODY");
            }
            accepts.push(world.storage.accept(command));
        }
        let answers = futures_util::future::join_all(accepts).await;
        let accepted = answers.iter().filter(|answer| answer.is_ok()).count();
        assert_eq!(accepted, 19);
        assert!(answers[7].is_err());
        assert_eq!(world.handed_over().len(), 19);
    }

    pub(super) async fn a_waiting_message_says_why(world: &World) {
        let (_, ids) = planned(world, "k1", WaitFor::Accepted, &["7900"]).await;
        let mut why = news(&ids[0], MessageState::Queued, 1_000_100);
        why.failure = Some(Failure::with(ErrorCode::Misconfigured, "token"));
        why.vendor_code = "190".into();
        world.storage.settle(vec![settlement(&ids[0], keep(JobState::Ready), Some(why))]).await.unwrap();
        let record = world.storage.find_message(&ids[0]).await.unwrap().unwrap().record;
        assert_eq!((record.state, record.failure.unwrap().code), (MessageState::Queued, ErrorCode::Misconfigured));
        assert!(world.handed_over().contains_key(&format!("comment:{}", ids[0])));
        accept_by_provider(world, &ids[0]).await;
        let record = world.storage.find_message(&ids[0]).await.unwrap().unwrap().record;
        assert_eq!((record.state, record.failure, record.vendor_code.as_str()), (MessageState::Accepted, None, ""));
    }
}
