//! A store of the past.

use super::on_both;

on_both! {
    what_was_open_in_a_backup_waits_for_a_person
}

mod promises {
    use super::super::World;
    use super::super::things::{command, furnished, me, message};
    use crate::domain::command::WaitFor;
    use crate::domain::ids::ProviderMessageId;
    use crate::domain::job::{Job, JobKind, JobState};
    use crate::domain::status::MessageState;
    use crate::domain::time::Timestamp;
    use crate::storage::dead_letters::Redriven;
    use crate::storage::messages::MessageNews;
    use crate::storage::plan::Plan;
    use crate::storage::settle::{Fate, Right, Settlement, Start};

    pub(super) async fn what_was_open_in_a_backup_waits_for_a_person(world: &World) {
        let (portal, channel) = furnished(world).await;
        let storage = &world.storage;
        let open = command(&portal, "k1", WaitFor::Accepted);
        let unplanned = command(&portal, "k2", WaitFor::Accepted);
        storage.accept(open.clone()).await.unwrap();
        storage.accept(unplanned.clone()).await.unwrap();
        let messages: Vec<_> = ["79000000001", "79000000002", "79000000003"]
            .into_iter()
            .map(|peer| message(&open, &channel, peer, None))
            .collect();
        let ids: Vec<_> = messages.iter().map(|message| message.record.id.clone()).collect();
        storage.plan(Plan { command: open.id.clone(), waits: true, messages }).await.unwrap();
        let send = |index: usize| Job::id_of(JobKind::Send, ids[index].as_str());
        world.own(&me(), &crate::domain::job::QueueKey::Channel(channel.clone())).await;
        storage.start(Start { jobs: vec![send(0)], worker: me(), run: "r1".into(), again: false }).await.unwrap();
        let done = Settlement {
            job: send(2),
            right: Right::Store,
            fate: Fate::Done,
            news: Some(MessageNews {
                provider_id: Some(ProviderMessageId("wamid.3".into())),
                ..MessageNews::new(ids[2].clone(), MessageState::Accepted, Timestamp(1_000_000))
            }),
            attempt: None,
        };
        storage.settle(vec![done]).await.unwrap();

        let taken = storage.call_backup().await.unwrap();
        world.clock.set(1_500_000);
        assert_eq!(storage.call_backup().await.unwrap(), taken, "the first note stays");
        assert_eq!(storage.is_backup().await.unwrap(), Some(taken));
        let after = command(&portal, "k3", WaitFor::Accepted);
        storage.accept(after.clone()).await.unwrap();
        assert_eq!(storage.doubt(taken).await.unwrap(), 3, "two sends and a command");
        assert_eq!(storage.is_backup().await.unwrap(), None);

        let mut jobs = vec![send(0), send(1), Job::id_of(JobKind::Command, unplanned.id.as_str())];
        for job in storage.jobs_now(&jobs).await.unwrap() {
            assert_eq!(job.state, JobState::Dead, "{}", job.id);
            assert!(job.reason.unwrap().contains("restored from a backup: 1970-01-01T00:16:40Z"));
        }
        let states = storage.load_messages(&ids).await.unwrap();
        let state = |index: usize| states.iter().find(|record| record.id == ids[index]).unwrap().state;
        let (doubtful, known) = (MessageState::Undecided, MessageState::Accepted);
        assert_eq!((state(0), state(1), state(2)), (doubtful, doubtful, known));
        jobs.clear();
        for (index, expected) in [(0, JobState::Unclear), (1, JobState::Unclear), (2, JobState::Unclear)] {
            let comment = Job::id_of(JobKind::Comment, ids[index].as_str());
            let found = storage.jobs_now(&[comment]).await.unwrap();
            assert_eq!(found[0].state, expected, "a comment is looked for before it is written");
        }
        let newer = Job::id_of(JobKind::Command, after.id.as_str());
        assert_eq!(storage.jobs_now(&[newer]).await.unwrap()[0].state, JobState::Ready, "it came after the backup");
        assert_eq!(storage.redrive(&send(0), Timestamp(9_000_000)).await.unwrap(), Redriven::Queued);
        assert_eq!(storage.jobs_now(&[send(0)]).await.unwrap()[0].state, JobState::Ready);
    }
}
