//! The pipeline with a CRM that does what the test says.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::crm::{Budget, CrmSpec};
use crate::domain::effect::{Applied, CardPerson, CrmEffect, CrmError, PortalTrouble, Reach, RecipientQuery};
use crate::domain::ids::PortalId;
use crate::domain::job::QueueKey;
use crate::domain::language::Language;
use crate::domain::outcome::FailureClass;
use crate::domain::portal::Portal;
use crate::storage::StorageOptions;
use crate::storage::db::Db;
use crate::storage::portals::Installation;
use crate::storage::sealed::Sealer;

/// Runs as clocks do, and can be put forward.
struct TestClock {
    started: Instant,
    skipped: AtomicI64,
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        let run = Millis(i64::try_from(self.started.elapsed().as_millis()).unwrap());
        Timestamp(1_763_766_000_000).plus(run).plus(Millis(self.skipped.load(Ordering::SeqCst)))
    }
}

#[derive(Default)]
struct Counted(AtomicU64);

impl IdSource for Counted {
    fn ulid(&self) -> String {
        format!("{:026}", self.0.fetch_add(1, Ordering::SeqCst) + 1)
    }
}

/// How the CRM answers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mood {
    /// It does not listen to our address.
    Deaf,
    /// It takes its time, and then all is well.
    Slow,
    /// All is well.
    Well,
    /// It finds a mistake of ours.
    Panics,
}

struct FakeCrm {
    mood: Mutex<Mood>,
    calls: Mutex<Vec<PortalId>>,
    go_on: Notify,
}

static SPEC: CrmSpec =
    CrmSpec { kind: CrmKind::Bitrix24, batch_max: 50, reply_not_before: Millis(0), loses_replies: true };

impl FakeCrm {
    fn calls(&self) -> usize {
        self.calls.lock().unwrap().len()
    }

    fn called(&self) -> BTreeSet<PortalId> {
        self.calls.lock().unwrap().iter().cloned().collect()
    }
}

#[async_trait]
impl Crm for FakeCrm {
    fn spec(&self) -> &'static CrmSpec {
        &SPEC
    }

    async fn apply(&self, _: &Portal, effects: &[CrmEffect]) -> Vec<Result<Applied, CrmError>> {
        effects.iter().map(|_| Ok(Applied::Done)).collect()
    }

    async fn people(&self, _: &Portal, queries: &[RecipientQuery]) -> Vec<Result<Vec<CardPerson>, CrmError>> {
        queries.iter().map(|_| Ok(Vec::new())).collect()
    }

    async fn reconcile(&self, portal: &Portal, _: &[(String, String)]) -> Result<(), CrmError> {
        self.calls.lock().unwrap().push(portal.id.clone());
        let mood = *self.mood.lock().unwrap();
        match mood {
            Mood::Well => Ok(()),
            Mood::Panics => panic!("a mistake of ours"),
            Mood::Slow => {
                self.go_on.notified().await;
                Ok(())
            }
            Mood::Deaf => Err(CrmError {
                class: FailureClass::Throttled,
                portal: PortalTrouble::None,
                code: "http_403".to_owned(),
                text: "403 Forbidden".to_owned(),
                retry_after: Some(Millis::minutes(5)),
                reach: Reach::Address,
            }),
        }
    }

    fn budget(&self, _: &Portal, _: Timestamp) -> Budget {
        Budget { calls: 50.0, burst: 50.0, per_second: 2.0, blocked_until: None }
    }
}

struct House {
    pipeline: Arc<Pipeline>,
    crm: Arc<FakeCrm>,
    clock: Arc<TestClock>,
    portals: Vec<Portal>,
    stop: CancellationToken,
    _folder: tempfile::TempDir,
}

impl House {
    async fn new(portals: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let db = Db::open(&format!("sqlite://{}", folder.path().join("test.db").display())).await.unwrap();
        db.migrate().await.unwrap();
        let clock = Arc::new(TestClock { started: Instant::now(), skipped: AtomicI64::new(0) });
        let ids: Arc<dyn IdSource> = Arc::new(Counted::default());
        let (scheduler, mailbox) = mailbox::mailbox();
        let storage = Arc::new(Storage::new(
            db,
            Sealer::new("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", &[]).unwrap(),
            Arc::clone(&ids),
            Arc::clone(&clock) as Arc<dyn Clock>,
            Arc::new(scheduler.clone()),
            StorageOptions { reply_not_before: Millis(0) },
        ));
        let crm = Arc::new(FakeCrm { mood: Mutex::new(Mood::Well), calls: Mutex::default(), go_on: Notify::new() });
        let pipeline = Pipeline::new(Parts {
            storage: Arc::clone(&storage),
            crms: HashMap::from([(CrmKind::Bitrix24, Arc::clone(&crm) as Arc<dyn Crm>)]),
            providers: HashMap::new(),
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            ids,
            settings: PipelineSettings::for_tests(Millis::hours(24)),
            scheduler,
        });
        let stop = CancellationToken::new();
        tokio::spawn(scheduler::run(Arc::clone(&pipeline), mailbox, stop.clone()));
        tokio::spawn(super::upkeep::beat(Arc::clone(&pipeline), stop.clone()));
        let mut installed = Vec::new();
        for n in 0..portals {
            let installation = Installation {
                crm: CrmKind::Bitrix24,
                app: "main".to_owned(),
                member_id: format!("member{n}"),
                domain: format!("p{n}.example"),
                client_endpoint: format!("https://p{n}.example/rest/"),
                server_endpoint: "https://oauth.example/rest/".to_owned(),
                application_token: None,
                language: Language::En,
            };
            installed.push(storage.install_portal(&installation, None, clock.now()).await.unwrap());
        }
        // The comparison at the start may have met some of them.
        tokio::time::sleep(Duration::from_millis(300)).await;
        crm.calls.lock().unwrap().clear();
        Self { pipeline, crm, clock, portals: installed, stop, _folder: folder }
    }

    fn set(&self, mood: Mood) {
        *self.crm.mood.lock().unwrap() = mood;
    }

    /// Time passes, and everybody looks again.
    fn later(&self, by: Millis) {
        self.clock.skipped.fetch_add(by.0, Ordering::SeqCst);
        for portal in &self.portals {
            self.pipeline.state_changed(QueueKey::Crm(portal.id.clone()));
        }
    }

    async fn until(&self, what: &str, condition: impl Fn(&FakeCrm) -> bool) {
        for _ in 0..1000 {
            if condition(&self.crm) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("never: {what}; calls: {:?}", self.crm.calls.lock().unwrap());
    }

    /// Whatever would happen at once has happened after this.
    async fn quiet(&self) {
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

#[tokio::test]
async fn a_crm_that_no_longer_listens_to_our_address_is_left_alone_and_asked_by_one_call() {
    let house = House::new(5).await;
    house.set(Mood::Deaf);
    house.pipeline.ask_reconcile(&house.portals[0]).await.unwrap();
    house.until("the first portal is called", |crm| crm.calls() == 1).await;
    house.quiet().await;
    for portal in &house.portals {
        house.pipeline.ask_reconcile(portal).await.unwrap();
    }
    house.quiet().await;
    house.later(Millis::minutes(4));
    house.quiet().await;
    assert_eq!(house.crm.calls(), 1, "no portal is called while the CRM is deaf to our address");

    house.later(Millis::minutes(2));
    house.until("one portal asks", |crm| crm.calls() == 2).await;
    house.quiet().await;
    house.later(Millis::minutes(1));
    house.quiet().await;
    assert_eq!(house.crm.calls(), 2, "it was refused again, and everybody waits again");

    house.set(Mood::Slow);
    house.later(Millis::minutes(5));
    house.until("one portal asks again", |crm| crm.calls() == 3).await;
    house.later(Millis::seconds(2));
    house.quiet().await;
    assert_eq!(house.crm.calls(), 3, "the others wait for its answer");

    house.set(Mood::Well);
    house.crm.go_on.notify_waiters();
    house.quiet().await;
    house.later(Millis::minutes(1));
    house.until("all portals are called", |crm| crm.called().len() == 5).await;
    house.stop.cancel();
}

#[tokio::test]
async fn a_run_that_panics_ends_the_process_instead_of_holding_its_queue() {
    let house = House::new(1).await;
    let told = |within| tokio::time::timeout(within, house.pipeline.scheduler.broken());
    house.pipeline.ask_reconcile(&house.portals[0]).await.unwrap();
    house.until("the portal is called", |crm| crm.calls() == 1).await;
    assert!(told(Duration::from_millis(300)).await.is_err(), "a run that ends well breaks nothing");
    house.set(Mood::Panics);
    house.pipeline.ask_reconcile(&house.portals[0]).await.unwrap();
    assert!(told(Duration::from_secs(10)).await.is_ok());
    house.stop.cancel();
}
