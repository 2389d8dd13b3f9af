//! Several processes on one database, load upon them, and trouble with them. Afterwards everything that was promised must
//! have been kept, once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;

use crate::proxy::{Flow, Proxy};
use crate::world::{DEAL, Service, Wish, World, free_port, postgres_server};

/// Most texts of one dialog: the vendor takes 45 to one person in a rush.
const TEXTS_MAX: usize = 40;
/// Time for everything to end when no process was ever away.
const SETTLE: Duration = Duration::from_secs(60);
/// What befalls a process, or what it depends on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Trouble {
    /// It ends without a word and is started again.
    Kill,
    /// It stands still for longer than its lease.
    Pause,
    /// It is told to stop, and is started again when it has.
    Restart,
    /// The database does not answer it for a while.
    Stall,
    /// It is cut off from the database for a while.
    Cut,
    /// The provider is not there for a while.
    NoProvider,
    /// The portal is not there for a while.
    NoPortal,
    /// The database server ends without a word and is started again.
    DatabaseEnds,
    /// The disk is full for a while.
    DiskFull,
}

impl Trouble {
    /// Answers of the provider are cut, so some sends can only be settled by a person (`docs/adr/0004`).
    fn cuts_answers(self) -> bool {
        self == Self::NoProvider
    }
}

/// What the load was.
#[derive(Default)]
pub(crate) struct Load {
    /// Deals moved to a stage with a robot.
    pub(crate) deals: Vec<(i64, String)>,
    /// Texts of each dialog in the order in which they were taken over.
    pub(crate) dialogs: BTreeMap<String, Vec<String>>,
}

/// How it ended.
#[derive(Default, Debug)]
pub(crate) struct Count {
    pub(crate) callbacks: usize,
    pub(crate) unanswered: usize,
    pub(crate) api: usize,
    pub(crate) messages: u64,
    /// Sends that were given to a person, who had them sent again.
    pub(crate) given: usize,
    pub(crate) troubles: BTreeMap<Trouble, usize>,
}

pub(crate) struct Arena {
    pub(crate) world: World,
    /// Processes beside the first one, which is the world's.
    others: Vec<Service>,
    wires: Vec<Proxy>,
    front: Proxy,
    stage: String,
    dice: StdRng,
    pub(crate) seed: u64,
    deals: usize,
    pub(crate) count: Count,
    database: Option<OwnPostgres>,
}

/// A server that may be ended.
pub(crate) struct OwnPostgres {
    folder: tempfile::TempDir,
    pub(crate) url: String,
}

impl OwnPostgres {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = Self::tool(&["start", folder.path().to_str().unwrap()]);
        Self { folder, url }
    }

    fn tool(args: &[&str]) -> String {
        let tool = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tools/postgres");
        let done = std::process::Command::new(tool).args(args).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap().trim().to_owned()
    }

    fn stop(&self) {
        Self::tool(&["stop", self.folder.path().to_str().unwrap()]);
    }

    /// Starts it again, on another port perhaps.
    fn again(&mut self) -> u16 {
        self.url = Self::tool(&["start", self.folder.path().to_str().unwrap()]);
        port_of(&self.url)
    }
}

impl Drop for OwnPostgres {
    fn drop(&mut self) {
        self.stop();
    }
}

pub(crate) fn port_of(url: &str) -> u16 {
    url.rsplit_once(':').unwrap().1.split('/').next().unwrap().parse().unwrap()
}

impl Arena {
    /// `replicas` processes on PostgreSQL behind one address; with one, on SQLite if `sqlite`.
    pub(crate) async fn new(replicas: usize, seed: u64, wish: Wish, lease: &str, own_server: bool) -> Self {
        let database = own_server.then(OwnPostgres::start);
        let server = database.as_ref().map(|own| own.url.clone());
        let port = free_port();
        let front = Proxy::to(&[port]);
        let config = format!(
            "[delivery]\nretry_schedule = [\"200ms\", \"500ms\"]\nunclear_wait = \"4s\"\nlease = \"{lease}\"\n{}",
            wish.config
        );
        let mut wires = Vec::new();
        if wish.postgres {
            let at = port_of(server.as_deref().unwrap_or(&postgres_server()));
            wires = (0..replicas).map(|_| Proxy::to(&[at])).collect();
        }
        let wish = Wish {
            port: Some(port),
            front: Some(front.port),
            database_port: wires.first().map(|wire| wire.port),
            server,
            config,
            ..wish
        };
        let world = World::with(wish).await;
        let mut others = Vec::new();
        for wire in wires.iter().skip(1) {
            let change = (format!(":{}/", wires[0].port), format!(":{}/", wire.port));
            others.push(world.replica(&[change]).await);
        }
        // Calls to a process that stands still are given up soon. As with the real vendor, a status that met one of them
        // comes again long before its absence means anything (`unclear_wait` above).
        world.sandbox.set_queue_knobs(|knobs| knobs.timeout_ms = 3000);
        world.sandbox.set_webhook_knobs(|knobs| knobs.timeout_ms = 1000);
        let stage = world
            .robot(&json!({"recipients": "main", "template": "order_update:ru", "params": ["Анна", "{=Document:ID}"]}));
        let dice = StdRng::seed_from_u64(seed);
        let count = Count::default();
        let arena = Self { world, others, wires, front, stage, dice, seed, deals: 0, count, database };
        arena.aim(None);
        arena
    }

    pub(crate) fn ports(&self) -> Vec<u16> {
        (0..=self.others.len()).map(|which| self.service(which).port()).collect()
    }

    fn service(&self, which: usize) -> &Service {
        if which == 0 { &self.world.service } else { &self.others[which - 1] }
    }

    fn service_mut(&mut self, which: usize) -> &mut Service {
        if which == 0 { &mut self.world.service } else { &mut self.others[which - 1] }
    }

    /// Portals and providers find every process but this one, if there are others.
    fn aim(&self, without: Option<usize>) {
        let ports = self.ports();
        let some: Vec<u16> =
            ports.iter().enumerate().filter(|(which, _)| Some(*which) != without).map(|(_, port)| *port).collect();
        self.front.aim(if some.is_empty() { &ports } else { &some });
    }

    /// Moves so many new deals to the stage with the robot.
    pub(crate) fn move_deals(&mut self, load: &mut Load, count: usize) {
        let mut ids = Vec::new();
        for _ in 0..count {
            let phone = format!("7916{:07}", self.deals);
            self.deals += 1;
            let deal = self.world.deal(&phone);
            ids.push(deal);
            load.deals.push((deal, phone));
        }
        self.world.portal.move_items(DEAL, &ids, &self.stage).unwrap();
    }

    /// Lets one of these befall somebody, and ends it again.
    pub(crate) async fn trouble(&mut self, kinds: &[Trouble]) {
        let kind = kinds[self.dice.random_range(0..kinds.len())];
        let which = self.dice.random_range(0..=self.others.len());
        self.befall(kind, which).await;
    }

    pub(crate) async fn befall(&mut self, kind: Trouble, which: usize) {
        *self.count.troubles.entry(kind).or_default() += 1;
        let span = Duration::from_millis(self.dice.random_range(300..1500));
        let past_the_lease = Duration::from_millis(self.dice.random_range(1200..4000));
        let http = self.world.http.clone();
        match kind {
            Trouble::Kill => {
                self.service_mut(which).kill();
                self.service_mut(which).start();
                self.service_mut(which).until_ready(&http).await;
            }
            Trouble::Pause => {
                self.aim(Some(which));
                self.service(which).signal("STOP");
                tokio::time::sleep(past_the_lease).await;
                self.service(which).signal("CONT");
                self.aim(None);
            }
            Trouble::Restart => {
                self.aim(Some(which));
                self.service(which).signal("TERM");
                let service = self.service_mut(which);
                let ended = tokio::task::block_in_place(|| service.wait());
                assert_eq!(ended, Some(0), "{}", self.service(which).log());
                self.service_mut(which).start();
                self.service_mut(which).until_ready(&http).await;
                self.aim(None);
            }
            Trouble::Stall | Trouble::Cut => {
                self.aim(Some(which));
                self.wires[which].set(if kind == Trouble::Stall { Flow::Stalled } else { Flow::Cut });
                tokio::time::sleep(past_the_lease).await;
                self.wires[which].set(Flow::Open);
                self.aim(None);
            }
            Trouble::NoProvider => {
                self.world.sandbox.set_graph_up(false);
                tokio::time::sleep(span).await;
                self.world.sandbox.set_graph_up(true);
            }
            Trouble::NoPortal => {
                self.world.portal.set_up(false);
                tokio::time::sleep(span).await;
                self.world.portal.set_up(true);
            }
            Trouble::DatabaseEnds => {
                let own = self.database.as_mut().unwrap();
                own.stop();
                let port = own.again();
                self.wires.iter().for_each(|wire| wire.aim(&[port]));
            }
            Trouble::DiskFull => {
                self.service(which).limit_files(Some(64 * 1024));
                tokio::time::sleep(past_the_lease).await;
                self.service(which).limit_files(None);
            }
        }
    }

    /// Puts texts into dialogs, one after the other in each and each time at another process, until `over`.
    pub(crate) fn talk(&self, phones: &[String], over: &Arc<AtomicBool>) -> Vec<tokio::task::JoinHandle<Vec<String>>> {
        let talks = phones.iter().enumerate().map(|(index, phone)| {
            let (ports, phone, over) = (self.ports(), phone.clone(), Arc::clone(over));
            let submit = self.world.submitter();
            tokio::spawn(async move {
                let mut taken = Vec::new();
                for nth in 0..TEXTS_MAX {
                    let text = format!("{nth:04}");
                    let mut at = index + nth;
                    // The same key again, until somebody has it.
                    while !matches!(submit.text(ports[at % ports.len()], &phone, &text).await, 200..=299) {
                        at += 1;
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                    taken.push(text);
                    if over.load(Ordering::SeqCst) {
                        break;
                    }
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                taken
            })
        });
        talks.collect()
    }

    /// Waits until nothing more is expected, and holds everything to what was promised.
    pub(crate) async fn verify(&mut self, load: &mut Load, within: Duration) {
        let deadline = Instant::now() + within;
        let mut proof = Instant::now();
        loop {
            let open: Vec<String> = self.unsettled(load);
            if open.is_empty() {
                break;
            }
            if Instant::now() > deadline {
                let told = self.all_about(load).await;
                panic!("seed {}: {} are open: {:#?}\n{told}", self.seed, open.len(), &open[..open.len().min(5)]);
            }
            if proof.elapsed() > Duration::from_secs(2) {
                self.act_as_a_person().await;
                // Life goes on: later messages prove that the way back works.
                let mut late = Load::default();
                self.move_deals(&mut late, 1);
                proof = Instant::now();
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        // Long enough for a repetition to show.
        tokio::time::sleep(Duration::from_secs(2)).await;
        for (deal, phone) in &load.deals {
            let (sent, comments) = (self.world.messages(phone).len(), self.world.comments(*deal));
            let told = format!("seed {}: deal {deal}, {phone}: {sent} messages, {comments:?}", self.seed);
            if self.world.run_of(*deal).callback_status == Some(200) {
                self.count.callbacks += 1;
                assert_eq!((sent, comments.len()), (1, 1), "{told}");
            } else {
                self.count.unanswered += 1;
                assert!(sent <= 1 && comments.len() <= 1, "{told}");
            }
        }
        for (phone, texts) in &load.dialogs {
            self.count.api += texts.len();
            let mut shown: Vec<String> =
                self.world.messages(phone).into_iter().map(|message| message.shown.text).collect();
            if self.count.given > 0 {
                // What a person sends again comes late.
                shown.sort_unstable();
            }
            assert_eq!(&shown, texts, "seed {}: {phone}: once each, in order", self.seed);
        }
        let cut = self.count.troubles.keys().any(|kind| kind.cuts_answers());
        assert!(cut || self.count.given == 0, "seed {}: {} were given up", self.seed, self.count.given);
        let ledger = self.world.sandbox.ledger();
        assert_eq!(ledger.repeated(), 0, "seed {}: {:?}", self.seed, ledger.repeated_opaques());
        self.count.messages = ledger.accepted();
        eprintln!(
            "seed {}: {} callbacks answered, {} not, {} texts by API, {} messages at the provider, {} given to a person, \
             {:?}, 0 duplicates, 0 lost",
            self.seed,
            self.count.callbacks,
            self.count.unanswered,
            self.count.api,
            self.count.messages,
            self.count.given,
            self.count.troubles
        );
    }

    /// Has everything sent again that was given to a person.
    async fn act_as_a_person(&mut self) {
        let (_, letters) = self.world.get("/api/v1/dead-letters").await;
        for letter in letters["items"].as_array().into_iter().flatten() {
            let path = format!("/api/v1/dead-letters/{}/redrive", letter["id"].as_str().unwrap());
            if (200..300).contains(&self.world.post(&path, json!({})).await.0) {
                self.count.given += 1;
            }
        }
    }

    /// What the service, the provider and the logs know of the first open deal.
    async fn all_about(&self, load: &Load) -> String {
        let open = |(deal, _): &&(i64, String)| {
            self.world.run_of(*deal).callback_status == Some(200)
                && !self.world.comments(*deal).iter().any(|comment| comment.text.contains("Прочитано"))
        };
        let deal = load.deals.iter().find(open).map(|(_, phone)| phone);
        let silent = |(phone, texts): &(&String, &Vec<String>)| self.world.messages(phone).len() < texts.len();
        let dialog = load.dialogs.iter().find(silent).map(|(phone, _)| phone);
        let Some(phone) = deal.or(dialog) else { return String::new() };
        let (_, listed) = self.world.get(&format!("/api/v1/messages?peer=%2B{phone}&limit=5")).await;
        let (_, letters) = self.world.get("/api/v1/dead-letters").await;
        let mut told = format!("listed: {listed}\nletters: {letters}\n");
        for id in listed["items"].as_array().into_iter().flatten().filter_map(|message| message["id"].as_str()) {
            let (_, message) = self.world.get(&format!("/api/v1/messages/{id}")).await;
            told += &format!("message: {message}\n");
            for which in 0..=self.others.len() {
                let log = self.service(which).log();
                for line in
                    log.lines().filter(|line| line.contains(id) || line.contains("WARN") || line.contains("ERROR"))
                {
                    told += &format!("{which}: {line}\n");
                }
            }
        }
        let sent: Vec<_> =
            self.world.messages(phone).into_iter().map(|message| (message.opaque, message.statuses)).collect();
        told + &format!("at the provider: {sent:?}")
    }

    fn unsettled(&self, load: &Load) -> Vec<String> {
        let world = &self.world;
        let deal_is_open = |deal: i64, phone: &str| {
            let run = world.run_of(deal);
            let read = world.comments(deal).iter().any(|comment| comment.text.contains("Прочитано"));
            match run.callback_status {
                Some(200) => !read || run.finished_ms.is_none(),
                Some(_) => !world.messages(phone).is_empty() && !read,
                None => true,
            }
        };
        let deals = load.deals.iter().filter(|(deal, phone)| deal_is_open(*deal, phone)).map(|(deal, phone)| {
            let comments: Vec<String> = world.comments(*deal).into_iter().map(|comment| comment.text).collect();
            format!("deal {deal} {phone}: {:?} {comments:?}", world.run_of(*deal).callback_status)
        });
        let dialogs = load.dialogs.iter().filter(|(phone, texts)| world.messages(phone).len() < texts.len());
        let dialogs =
            dialogs.map(|(phone, texts)| format!("dialog {phone}: {} of {}", world.messages(phone).len(), texts.len()));
        deals.chain(dialogs).collect()
    }
}

/// Load upon all processes and trouble of these kinds for so long; then the reckoning.
pub(crate) async fn ordeal(arena: &mut Arena, kinds: &[Trouble], load_for: Duration) {
    let began = Instant::now();
    let mut load = Load::default();
    let phones: Vec<String> = (0..6).map(|n| format!("7999000000{n}")).collect();
    for phone in &phones {
        arena.world.open_window(phone).await;
    }
    let over = Arc::new(AtomicBool::new(false));
    let talks = arena.talk(&phones, &over);
    let end = Instant::now() + load_for;
    while Instant::now() < end {
        let some = arena.dice.random_range(5..25);
        arena.move_deals(&mut load, some);
        let pause = arena.dice.random_range(0..300);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        if kinds.is_empty() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        } else {
            arena.trouble(kinds).await;
        }
    }
    over.store(true, Ordering::SeqCst);
    for (phone, talk) in phones.into_iter().zip(talks) {
        load.dialogs.insert(phone, talk.await.unwrap());
    }
    // An unclear send waits for its echo six times as long as its process may have been away (`docs/adr/0004`); on a busy
    // machine the last trouble ends long after the load was to end.
    let settle = SETTLE + began.elapsed() * 7;
    arena.verify(&mut load, settle).await;
}
