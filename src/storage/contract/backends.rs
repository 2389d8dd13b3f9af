//! Portals, channels, workers: what is not on the hot path.

use super::on_both;

on_both! {
    a_portal_is_installed_once_and_kept_up_to_date
    tokens_are_sealed_replaced_and_dropped
    an_uninstalled_portal_keeps_no_secret
    a_channel_keeps_its_credentials_sealed
    a_queue_has_one_owner
    a_silent_worker_loses_its_queues
    workers_tell_what_they_may_not_have_heard
    who_begins_takes_over_what_was_missed_before
    a_sign_of_life_that_comes_late_undoes_no_later_one
    registrations_are_remembered
    a_cleaned_portal_leaves_nothing_of_its_people
}

mod promises {
    use super::super::World;
    use super::super::things::{furnished, installation, pair};
    use crate::crm::TokenStore;
    use crate::domain::channel::{ChannelState, Ramp};
    use crate::domain::hearing::Deaf;
    use crate::domain::ids::WorkerId;
    use crate::domain::job::{Job, JobKind, QueueKey};
    use crate::domain::portal::{CrmKind, PortalState};
    use crate::domain::time::{Millis, Timestamp};
    use crate::storage::db::{Db, args};
    use crate::storage::sql;
    use crate::storage::workers::Hearing;

    pub(super) async fn a_portal_is_installed_once_and_kept_up_to_date(world: &World) {
        let storage = &world.storage;
        let first = storage.install_portal(&installation(), None, Timestamp(i64::MAX)).await.unwrap();
        let mut renamed = installation();
        renamed.domain = "new.example".into();
        renamed.application_token = None;
        let second = storage.install_portal(&renamed, None, Timestamp(i64::MAX)).await.unwrap();
        assert_eq!((first.id.clone(), second.domain.as_str()), (second.id, "new.example"));
        let known = storage.find_portal(CrmKind::Bitrix24, "main", "d41f", false).await.unwrap().unwrap();
        assert_eq!(known.application_token.as_deref(), Some("app-token"), "a token not told again is kept");
        assert!(storage.find_portal(CrmKind::Bitrix24, "other", "d41f", false).await.unwrap().is_none());
        storage.set_portal_state(&first.id, PortalState::Blocked, "plan").await.unwrap();
        assert_eq!(storage.portal(&first.id).await.unwrap().unwrap().portal.state, PortalState::Blocked);
        assert_eq!(storage.list_portals(None, 10).await.unwrap().len(), 1);
        assert!(storage.list_portals(Some(&first.id), 10).await.unwrap().is_empty());
    }

    pub(super) async fn tokens_are_sealed_replaced_and_dropped(world: &World) {
        let storage = &world.storage;
        let portal =
            storage.install_portal(&installation(), Some(&pair("1", "r1")), Timestamp(i64::MAX)).await.unwrap().id;
        storage.save_tokens(&portal, &pair("1", "r2")).await.unwrap();
        let mut other = pair("2", "r3");
        other.is_admin = false;
        storage.save_tokens(&portal, &other).await.unwrap();
        let tokens = storage.load_tokens(&portal).await.unwrap();
        assert_eq!(tokens, [pair("1", "r2"), other.clone()]);
        storage.drop_tokens(&portal, &pair("1", "r1")).await.unwrap();
        assert_eq!(storage.load_tokens(&portal).await.unwrap().len(), 2, "a replaced pair is not dropped");
        storage.drop_tokens(&portal, &pair("1", "r2")).await.unwrap();
        assert_eq!(storage.load_tokens(&portal).await.unwrap(), [other.clone()]);
        storage.offer_tokens(&portal, pair("3", "r4")).await;
        assert_eq!(storage.load_tokens(&portal).await.unwrap(), [other.clone()], "an offer waits until it is needed");
        storage.drop_tokens(&portal, &other).await.unwrap();
        assert_eq!(storage.load_tokens(&portal).await.unwrap(), [pair("3", "r4")]);
        assert_eq!(storage.load_tokens(&portal).await.unwrap(), [pair("3", "r4")], "it is stored now");
        assert_secret_is_not_on_disk(world, "access-of-r2").await;
    }

    pub(super) async fn an_uninstalled_portal_keeps_no_secret(world: &World) {
        let storage = &world.storage;
        let portal =
            storage.install_portal(&installation(), Some(&pair("1", "r1")), Timestamp(i64::MAX)).await.unwrap().id;
        storage.uninstall_portal(&portal).await.unwrap();
        let known = storage.portal(&portal).await.unwrap().unwrap();
        assert_eq!((known.portal.state, known.application_token.clone()), (PortalState::Uninstalled, None));
        assert!(storage.load_tokens(&portal).await.unwrap().is_empty());
        let again = storage.install_portal(&installation(), None, Timestamp(i64::MAX)).await.unwrap();
        assert_eq!((again.id, again.state), (portal, PortalState::Installed), "history survives a reinstallation");
    }

    pub(super) async fn a_channel_keeps_its_credentials_sealed(world: &World) {
        let (portal, id) = furnished(world).await;
        let channel = world.storage.find_channel(&id).await.unwrap().unwrap();
        assert_eq!(channel.credential("access_token"), "top-secret");
        assert_eq!(channel.credential("unknown"), "");
        assert_secret_is_not_on_disk(world, "top-secret").await;
        let paused = ChannelState::Paused("190".into());
        world.storage.set_channel_state(&id, &paused, None).await.unwrap();
        assert_eq!(world.storage.find_channel(&id).await.unwrap().unwrap().state, paused);
        let ramp = Some(Ramp { began: Timestamp(7), start_percent: 10, double_every: Millis::minutes(1) });
        for ramp in [ramp, None] {
            world.storage.set_channel_state(&id, &ChannelState::Active, ramp).await.unwrap();
            let resumed = world.storage.find_channel(&id).await.unwrap().unwrap();
            assert_eq!((&resumed.state, resumed.ramp), (&ChannelState::Active, ramp));
        }
        let lines = world.storage.lines_of_portal(&portal).await.unwrap();
        assert_eq!(lines.len(), 1);
        assert_eq!(world.storage.channels_of_line(&lines[0].id).await.unwrap().len(), 1);
        assert!(world.storage.unbind_line(&portal, &lines[0].id).await.unwrap());
        assert!(!world.storage.unbind_line(&portal, &lines[0].id).await.unwrap());
        assert!(world.storage.lines_of_portal(&portal).await.unwrap().is_empty());
    }

    async fn assert_secret_is_not_on_disk(world: &World, secret: &str) {
        if let Db::Sqlite { readers, .. } = &world.db {
            let file = readers.file().to_path_buf();
            for name in [file.clone(), file.with_extension("db-wal")] {
                let bytes = std::fs::read(&name).unwrap_or_default();
                assert!(!String::from_utf8_lossy(&bytes).contains(secret), "{}", name.display());
            }
        }
    }

    fn job(portal: &crate::domain::ids::PortalId) -> Job {
        let queue = QueueKey::Crm(portal.clone());
        Job::new(JobKind::Reconcile, portal.as_str(), queue, "reconcile".into(), "01".into(), Timestamp(1_000_000))
    }

    pub(super) async fn a_queue_has_one_owner(world: &World) {
        let (portal, _) = furnished(world).await;
        let storage = &world.storage;
        let (one, two) = (WorkerId::new("1"), WorkerId::new("2"));
        let lease = Millis::seconds(10);
        storage.worker_beat(&one, lease).await.unwrap();
        storage.worker_beat(&two, lease).await.unwrap();
        storage.tell_queues(&[job(&portal)]).await.unwrap();
        let queue = QueueKey::Crm(portal.clone());
        assert_eq!(storage.queues_to_look_at(&one, false).await.unwrap().queues, *std::slice::from_ref(&queue));
        assert!(!storage.queues_take(&one, std::slice::from_ref(&queue)).await.unwrap().is_empty());
        assert!(
            !storage.queues_take(&one, std::slice::from_ref(&queue)).await.unwrap().is_empty(),
            "taking what is ours changes nothing"
        );
        assert!(storage.queues_take(&two, std::slice::from_ref(&queue)).await.unwrap().is_empty());
        assert!(storage.queues_to_look_at(&two, true).await.unwrap().queues.is_empty());
        storage.tell_queues(&[job(&portal)]).await.unwrap();
        assert_eq!(
            storage.queues_to_look_at(&one, false).await.unwrap().queues,
            *std::slice::from_ref(&queue),
            "news for the owner"
        );
        assert!(storage.queues_to_look_at(&two, true).await.unwrap().queues.is_empty());
        storage.queues_take(&one, std::slice::from_ref(&queue)).await.unwrap();
        storage.queue_release(&one, &queue, Some(Timestamp(1_000_500))).await.unwrap();
        assert!(storage.queues_to_look_at(&two, false).await.unwrap().queues.is_empty());
        world.clock.set(1_000_600);
        assert_eq!(storage.queues_to_look_at(&two, false).await.unwrap().queues, *std::slice::from_ref(&queue));
        assert!(!storage.queues_take(&two, std::slice::from_ref(&queue)).await.unwrap().is_empty());
        storage.worker_leave(&two).await.unwrap();
        assert_eq!(storage.queues_to_look_at(&one, false).await.unwrap().queues, [queue]);
    }

    pub(super) async fn a_silent_worker_loses_its_queues(world: &World) {
        let (portal, _) = furnished(world).await;
        let storage = &world.storage;
        let (one, two) = (WorkerId::new("1"), WorkerId::new("2"));
        storage.worker_beat(&one, Millis::seconds(10)).await.unwrap();
        storage.worker_beat(&two, Millis::seconds(10)).await.unwrap();
        let queue = QueueKey::Crm(portal.clone());
        storage.tell_queues(&[job(&portal)]).await.unwrap();
        storage.queues_take(&one, std::slice::from_ref(&queue)).await.unwrap();
        assert!(storage.queues_take(&two, std::slice::from_ref(&queue)).await.unwrap().is_empty());
        assert_eq!(storage.queues_owned(&one).await.unwrap(), *std::slice::from_ref(&queue));
        assert!(storage.queues_owned(&two).await.unwrap().is_empty());
        // Leases are judged by the server's clock on PostgreSQL, which no test can set: the last sign of life is old.
        storage.worker_beat(&one, Millis(-1000)).await.unwrap();
        storage.worker_beat(&two, Millis::seconds(10)).await.unwrap();
        assert_eq!(storage.queues_to_look_at(&two, true).await.unwrap().queues, *std::slice::from_ref(&queue));
        assert!(!storage.queues_take(&two, std::slice::from_ref(&queue)).await.unwrap().is_empty());
        assert!(storage.queues_take(&one, std::slice::from_ref(&queue)).await.unwrap().is_empty());
        let straggling = async |after: &str| storage.queues_straggling(Millis::seconds(1), after).await.unwrap();
        assert!(straggling("").await.queues.is_empty());
        world.clock.set(1_011_000);
        storage.ask_job(job(&portal)).await.unwrap();
        assert!(straggling(&queue.to_string()).await.queues.is_empty(), "only those behind it");
        let found = straggling("").await;
        assert_eq!((found.queues, found.full), (vec![queue], false));
    }

    pub(super) async fn workers_tell_what_they_may_not_have_heard(world: &World) {
        let storage = &world.storage;
        let (one, two) = (WorkerId::new("1"), WorkerId::new("2"));
        for worker in [&one, &two] {
            storage.worker_beat(worker, Millis::seconds(10)).await.unwrap();
        }
        let deaf = Deaf { from: Timestamp(1_000_600), until: Timestamp(1_000_700) };
        let heard = |deaf: &[Deaf], silent| Hearing { deaf: deaf.to_vec(), silent };
        let patience = Millis::minutes(1);
        assert_eq!(storage.others_hearing(&one, patience).await.unwrap(), heard(&[], false));
        storage.worker_deaf(&two, deaf).await.unwrap();
        storage.worker_beat(&two, Millis(-1000)).await.unwrap();
        let told = match world.db {
            Db::Sqlite { .. } => heard(&[], false),
            Db::Postgres(_) => heard(&[deaf], true),
        };
        assert_eq!(storage.others_hearing(&one, patience).await.unwrap(), told, "one process has no others on SQLite");
        // Silent for longer: it is gone, and what it told still counts.
        let gone = Hearing { silent: false, ..told };
        assert_eq!(storage.others_hearing(&one, Millis(10)).await.unwrap(), gone);
        assert_eq!(storage.others_hearing(&two, patience).await.unwrap(), heard(&[], false), "itself is not asked");
        // It leaves in order: nobody waits for it, and what it told outlives it.
        storage.worker_beat(&two, Millis::seconds(10)).await.unwrap();
        storage.worker_leave(&two).await.unwrap();
        assert_eq!(storage.others_hearing(&one, patience).await.unwrap(), gone);
    }

    pub(super) async fn who_begins_takes_over_what_was_missed_before(world: &World) {
        let storage = &world.storage;
        let (one, two, three) = (WorkerId::new("1"), WorkerId::new("2"), WorkerId::new("3"));
        let (lease, patience, least) = (Millis::seconds(10), Millis::seconds(40), Millis::seconds(60));
        let begin = async |worker: &WorkerId| {
            let deaf = storage.worker_begin(worker, lease, patience, least).await.unwrap();
            (deaf.from.0, deaf.until.0)
        };
        assert_eq!(begin(&one).await, (0, 1_000_000), "nothing is known of what was before");
        world.clock.set(100_000_000);
        storage.worker_deaf(&one, Deaf { from: Timestamp(99_000_000), until: Timestamp(99_900_000) }).await.unwrap();
        storage.worker_leave(&one).await.unwrap();
        world.clock.set(100_005_000);
        assert_eq!(begin(&two).await, (99_000_000, 100_005_000), "a try may have met both");
        world.clock.set(200_000_000);
        storage.worker_beat(&two, lease).await.unwrap();
        world.clock.set(200_003_000);
        assert_eq!(begin(&three).await, (200_000_000, 200_003_000), "all that was missed before has come meanwhile");
    }

    pub(super) async fn a_sign_of_life_that_comes_late_undoes_no_later_one(world: &World) {
        let (storage, one) = (&world.storage, WorkerId::new("1"));
        storage.worker_beat(&one, Millis::minutes(10)).await.unwrap();
        storage.worker_beat(&one, Millis::minutes(10)).await.unwrap();
        let living = storage.living_worker().await.unwrap();
        // The first one, on its way until now.
        world.db.write(sql::WORKER_BEAT, args!["1", 1, 2, 1, 1]).await.unwrap();
        assert_eq!(storage.living_worker().await.unwrap(), living);
    }

    pub(super) async fn a_cleaned_portal_leaves_nothing_of_its_people(world: &World) {
        use super::super::things::{command, message};
        let (portal, channel) = furnished(world).await;
        let command = command(&portal, "k1", crate::domain::command::WaitFor::Accepted);
        world.storage.accept(command.clone()).await.unwrap();
        let messages = vec![message(&command, &channel, "79001234567", None)];
        let id = messages[0].record.id.clone();
        let plan = crate::storage::plan::Plan { command: command.id.clone(), waits: true, messages };
        world.storage.plan(plan).await.unwrap();
        world.storage.uninstall_portal(&portal).await.unwrap();
        world.storage.clean_portal(&portal).await.unwrap();
        assert!(world.storage.find_message(&id).await.unwrap().is_none());
        assert!(world.storage.load_commands(&[command.id]).await.unwrap().is_empty());
        assert!(world.storage.count_jobs().await.unwrap().is_empty());
        assert_eq!(world.storage.lines_of_portal(&portal).await.unwrap().len(), 1);
    }

    pub(super) async fn registrations_are_remembered(world: &World) {
        let storage = &world.storage;
        let portal = storage.install_portal(&installation(), None, Timestamp(i64::MAX)).await.unwrap().id;
        storage.save_registration(&portal, "robot:send_message", Some("f1")).await.unwrap();
        storage.save_registration(&portal, "robot:send_message", Some("f2")).await.unwrap();
        storage.save_registration(&portal, "event:ONAPPUPDATE", Some("f3")).await.unwrap();
        storage.save_registration(&portal, "event:ONAPPUPDATE", None).await.unwrap();
        let known = storage.load_registrations(&portal).await.unwrap();
        assert_eq!(known, [("robot:send_message".to_owned(), "f2".to_owned())]);
        storage.forget_registrations(&portal).await.unwrap();
        assert!(storage.load_registrations(&portal).await.unwrap().is_empty());
        storage.save_endpoint(&portal, "new.example", "https://new.example/rest/").await.unwrap();
        let known = storage.portal(&portal).await.unwrap().unwrap();
        assert_eq!(known.portal.client_endpoint, "https://new.example/rest/");
    }
}
