//! One door for `main`, the tests and the demo: build the service from its settings, run it until it is told to stop.
//!
//! Wall clock and randomness are read here and nowhere else.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use actix_web::middleware::{Condition, from_fn};
use actix_web::{App as WebApp, HttpServer, web};
use metrics_exporter_prometheus::PrometheusHandle;
use secrecy::ExposeSecret;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, ConfigError, Span};
use crate::crm::amocrm::{AmoKeys, Amocrm, ChatKeys, Settings as AmoSettings};
use crate::crm::bitrix24::{AppKeys, Bitrix24, Settings as BitrixSettings};
use crate::crm::{Crm, TokenStore};
use crate::domain::ids::IdSource;
use crate::domain::portal::CrmKind;
use crate::domain::time::{Clock, Millis, Timestamp};
use crate::http::peers::Peers;
use crate::http::{self, State};
use crate::outbound::Outbound;
use crate::pipeline::lost_calls::LostCallSettings;
use crate::pipeline::mailbox::{self, Mailbox};
use crate::pipeline::policy::RetryPlan;
use crate::pipeline::retention::{self, RetentionPlan};
use crate::pipeline::scheduler;
use crate::pipeline::watch::SilenceSettings;
use crate::pipeline::{Parts, Pipeline, PipelineSettings, upkeep};
use crate::providers::{Provider, REGISTRY, ResolvedSettings};
use crate::storage::db::Db;
use crate::storage::sealed::Sealer;
use crate::storage::sqlite::{make_folder_of, private_file};
use crate::storage::{Storage, StorageError, StorageOptions};

/// The system's clock.
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one place")]
    fn now(&self) -> Timestamp {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }
}

/// The wall clock without its jumps.
///
/// Somebody may set this machine's clock, and those of replicas disagree. Waits that decide whether something is sent
/// again, and times at which work falls due, must not jump with it. So time is counted by the steady clock, and the
/// true time (the database server's where processes share one, else the wall clock) is approached at half the pace: an
/// hour is made up for in two, and the time never goes back.
pub struct SteadyClock(Mutex<Reading>);

#[derive(Clone, Copy)]
struct Reading {
    at: Instant,
    time: Timestamp,
    /// True time minus `time`, at `at`.
    behind: Millis,
}

impl Reading {
    fn time_at(&self, now: Instant) -> Timestamp {
        let passed = now.saturating_duration_since(self.at).as_millis();
        let passed = i64::try_from(passed).unwrap_or(i64::MAX);
        self.time.plus(Millis(passed)).plus(Millis(self.behind.0.clamp(-passed / 2, passed / 2)))
    }

    fn follow(&mut self, now: Instant, truth: Timestamp) {
        let time = self.time_at(now);
        *self = Self { at: now, time, behind: truth.since(time) };
    }
}

impl SteadyClock {
    /// A clock that starts at this time.
    #[must_use]
    pub fn starting_at(time: Timestamp) -> Self {
        Self(Mutex::new(Reading { at: Instant::now(), time, behind: Millis(0) }))
    }

    /// Puts it to this time at once; to be called before anything runs.
    fn set(&self, time: Timestamp) {
        *self.lock() = Reading { at: Instant::now(), time, behind: Millis(0) };
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Reading> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for SteadyClock {
    fn default() -> Self {
        Self::starting_at(SystemClock.now())
    }
}

impl Clock for SteadyClock {
    fn now(&self) -> Timestamp {
        self.lock().time_at(Instant::now())
    }

    fn follow(&self, told: Option<Timestamp>) {
        let truth = told.unwrap_or_else(|| SystemClock.now());
        self.lock().follow(Instant::now(), truth);
    }
}

/// ULIDs, strictly increasing within this process. Between processes they are in order as far as their clocks agree.
pub struct Ulids {
    generator: Mutex<ulid::Generator>,
    clock: Arc<dyn Clock>,
}

impl Ulids {
    /// Ids that tell the time of this clock.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { generator: Mutex::new(ulid::Generator::new()), clock }
    }
}

impl IdSource for Ulids {
    fn ulid(&self) -> String {
        let now = std::time::UNIX_EPOCH + self.clock.now().since(Timestamp(0)).to_duration();
        let mut generator = self.generator.lock().unwrap_or_else(PoisonError::into_inner);
        // A generator runs over only after 2^80 ids within one millisecond; a fresh random id is as good then.
        generator.generate_from_datetime(now).unwrap_or_else(|_| ulid::Ulid::new()).to_string()
    }
}

/// Longest stop after SIGTERM, with room to the ten seconds that are promised.
const STOPPING: Duration = Duration::from_secs(9);
/// Longest wait for requests that are being read or answered when the stop begins, in seconds.
const REQUESTS_END: u64 = 5;

/// Why the service could not be built or run.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The settings are wrong.
    #[error("configuration: {0}")]
    Config(ConfigError),
    /// The store cannot be used.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// Something else the operator has to mend.
    #[error("{0}")]
    Setup(String),
    /// The address cannot be listened on.
    #[error("cannot listen on {0}: {1}")]
    Bind(SocketAddr, std::io::Error),
    /// A part has ended that nothing works without; the log says why.
    #[error(
        "a vital part of the service has ended; nothing was lost, and it goes on when the service is started again"
    )]
    Broken,
}

// Not by derive: that would name it as the source too, and its words would be printed twice.
impl From<ConfigError> for AppError {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}

/// The service, built and listening, not yet running.
pub struct App {
    server: actix_web::dev::Server,
    pipeline: Arc<Pipeline>,
    mailbox: Mailbox,
    storage: Arc<Storage>,
    retention: RetentionPlan,
    address: SocketAddr,
    stop: CancellationToken,
    _lock: Option<std::fs::File>,
}

impl App {
    /// Builds everything and listens.
    ///
    /// # Errors
    /// [`AppError`] in words that say what to do.
    pub async fn build(config: Config) -> Result<Self, AppError> {
        // A second call (tests build several services in one process) finds the provider installed.
        let _ = rustls::crypto::ring::default_provider().install_default();
        config.fit_to_serve()?;
        let metrics = metrics_handle()?;
        let sealer = sealer(&config)?;
        let lock = lock_database(config.database.url.expose_secret())?;
        let limit = config.database.answer_within.0.to_duration();
        let db = Db::open_within(config.database.url.expose_secret(), limit).await?;
        db.migrate().await?;
        let steady = Arc::new(SteadyClock::default());
        let clock = Arc::clone(&steady) as Arc<dyn Clock>;
        let ids: Arc<dyn IdSource> = Arc::new(Ulids::new(Arc::clone(&clock)));
        let (handle, mailbox) = mailbox::mailbox();
        let options = StorageOptions { reply_not_before: Millis::seconds(2) };
        let storage = Storage::new(db, sealer, Arc::clone(&ids), Arc::clone(&clock), Arc::new(handle.clone()), options);
        if let Some(time) = storage.server_time().await? {
            steady.set(time);
        }
        let storage = Arc::new(storage);
        settle_past(&storage).await?;
        let outbound = Arc::new(Outbound::new(config.network.allow_private.clone()).map_err(AppError::Setup)?);
        let bitrix24 = Arc::new(bitrix24(&config, &outbound, &storage, &clock)?);
        let amocrm = Arc::new(amocrm(&config, &outbound, &storage, &clock)?);
        let crms: HashMap<CrmKind, Arc<dyn Crm>> = HashMap::from([
            (CrmKind::Bitrix24, Arc::clone(&bitrix24) as Arc<dyn Crm>),
            (CrmKind::Amocrm, Arc::clone(&amocrm) as Arc<dyn Crm>),
        ]);
        let pipeline = Pipeline::new(Parts {
            storage: Arc::clone(&storage),
            crms,
            providers: providers(&config, &outbound),
            clock: Arc::clone(&clock),
            ids: Arc::clone(&ids),
            settings: pipeline_settings(&config),
            scheduler: handle,
        });
        let state = web::Data::new(State {
            pipeline: Arc::clone(&pipeline),
            storage: Arc::clone(&storage),
            bitrix24,
            amocrm,
            clock,
            ids,
            public_url: config.server.public_url.clone(),
            admin_token: config.security.admin_token.clone(),
            peers: Peers::new(config.server.trusted_proxies.clone()),
        });
        let (server, address) = listen(&config, state, metrics)?;
        let stop = CancellationToken::new();
        let retention = RetentionPlan { every: config.retention.every.0, keep: config.retention.keep() };
        Ok(Self { server, pipeline, mailbox, storage, retention, address, stop, _lock: lock })
    }

    /// Where we listen; the port is the real one when 0 was asked for.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends [`App::run_until_stopped`] when cancelled.
    #[must_use]
    pub fn stop_token(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Serves and works until SIGTERM, SIGINT or the token; then stops taking requests, lets running work end, hands
    /// queues back and closes the store.
    ///
    /// # Errors
    /// [`AppError::Setup`] when the server dies, [`AppError::Broken`] when a part has that nothing works without.
    pub async fn run_until_stopped(self) -> Result<(), AppError> {
        let Self { server, pipeline, mailbox, storage, retention, stop, .. } = self;
        let web = server.handle();
        let working = CancellationToken::new();
        let scheduler = scheduler::beside(&pipeline, scheduler::run(Arc::clone(&pipeline), mailbox, working.clone()));
        let tidying = scheduler::beside(&pipeline, retention::run(Arc::clone(&pipeline), retention, working.clone()));
        let living = CancellationToken::new();
        let beating = scheduler::beside(&pipeline, upkeep::beat(Arc::clone(&pipeline), living.clone()));
        let mut serving = tokio::spawn(server);
        let ended = tokio::select! {
            served = &mut serving => match served {
                Ok(Ok(())) => Ok(()),
                Ok(Err(error)) => Err(AppError::Setup(format!("server: {error}"))),
                Err(error) => Err(AppError::Setup(format!("server: {error}"))),
            },
            () = stop_signal() => Ok(()),
            () = stop.cancelled() => Ok(()),
            () = pipeline.scheduler.broken() => Err(AppError::Broken),
            () = storage.writer_ended() => Err(AppError::Broken),
        };
        tracing::info!("stopping");
        let deaf_from = pipeline.clock.now();
        let deadline = tokio::time::Instant::now() + STOPPING;
        // Both at once: each bounds its own stopping, and one after the other they would take too long.
        working.cancel();
        let (_, _, _) = tokio::join!(web.stop(true), scheduler, tidying);
        // Queues are handed back only now: a request that was still being read could store jobs until here.
        let rest = async {
            living.cancel();
            // It does not panic; if it did, the queues are handed back all the same.
            let _ = beating.await;
            upkeep::hand_back(&pipeline, deaf_from).await;
            storage.close().await;
        };
        if tokio::time::timeout_at(deadline, rest).await.is_err() {
            tracing::warn!("the store did not close in time; what was under way is settled at the next start");
        }
        ended
    }
}

fn listen(
    config: &Config,
    state: web::Data<State>,
    metrics: PrometheusHandle,
) -> Result<(actix_web::dev::Server, SocketAddr), AppError> {
    let (limit, spans) = (config.server.body_limit_bytes, config.log.spans);
    let metrics = web::Data::new(metrics);
    let gauges = web::Data::new(http::health::Gauges::default());
    let mut server = HttpServer::new(move || {
        WebApp::new()
            .app_data(state.clone())
            .app_data(metrics.clone())
            .app_data(gauges.clone())
            .app_data(web::PayloadConfig::new(limit))
            .wrap(http::refusals())
            .wrap(Condition::new(spans, from_fn(http::traced)))
            .configure(http::routes)
    })
    // A callback that takes longer than this to arrive is not one.
    .client_request_timeout(Duration::from_secs(10))
    .keep_alive(Duration::from_secs(75))
    .shutdown_timeout(REQUESTS_END)
    .disable_signals();
    if config.server.threads > 0 {
        server = server.workers(config.server.threads);
    }
    let bind = config.server.bind;
    let server = server.bind(bind).map_err(|e| AppError::Bind(bind, e))?;
    let address = server.addrs().first().copied().unwrap_or(bind);
    Ok((server.run(), address))
}

async fn stop_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// A database of the past is not worked on as if it were of today.
async fn settle_past(storage: &Storage) -> Result<(), AppError> {
    if let Some(to) = storage.moved_to().await? {
        return Err(AppError::Setup(format!(
            "this database was moved to {to}: set database.url to that one, or its queue would be sent twice. \
             To go on with this one all the same, run `mostik restore`: what was open then waits for you as dead letters"
        )));
    }
    let Some(taken) = storage.is_backup().await? else { return Ok(()) };
    let doubts = storage.doubt(taken).await?;
    tracing::warn!(
        taken_ms = taken.0,
        count = doubts,
        "this database is a backup: what was open then may have been done since and waits for a person as dead letters"
    );
    Ok(())
}

/// The recorder is one per process; later calls get the same one.
fn metrics_handle() -> Result<PrometheusHandle, AppError> {
    static HANDLE: Mutex<Option<PrometheusHandle>> = Mutex::new(None);
    let mut known = HANDLE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(handle) = &*known {
        return Ok(handle.clone());
    }
    let handle = crate::telemetry::install_metrics().map_err(|e| AppError::Setup(format!("metrics: {e}")))?;
    *known = Some(handle.clone());
    Ok(handle)
}

/// SQLite serves one process: a second one is refused in words instead of failing later in riddles. The lock lasts as
/// long as the file that is returned; other databases need none.
///
/// # Errors
/// [`AppError`]; another process has the lock, or the system refuses.
pub fn lock_database(url: &str) -> Result<Option<std::fs::File>, AppError> {
    let Some(database) = Db::sqlite_file(url)? else { return Ok(None) };
    let path = std::path::PathBuf::from(format!("{}.lock", database.display()));
    let failed = |e: std::io::Error| AppError::Setup(format!("{}: {e}", path.display()));
    make_folder_of(&path).map_err(failed)?;
    let file = private_file(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(std::fs::TryLockError::WouldBlock) => Err(AppError::Setup(format!(
            "another Mostik uses this SQLite database ({}); several processes need PostgreSQL",
            path.display()
        ))),
        Err(std::fs::TryLockError::Error(e)) => Err(failed(e)),
    }
}

/// The keys that seal secrets.
fn sealer(config: &Config) -> Result<Sealer, AppError> {
    let Some(master) = &config.security.master_key else {
        return Err(AppError::Config(ConfigError("security.master_key is missing".to_owned())));
    };
    let previous: Vec<String> =
        config.security.previous_keys.iter().map(|key| key.expose_secret().to_owned()).collect();
    Ok(Sealer::new(master.expose_secret(), &previous)?)
}

fn bitrix24(
    config: &Config,
    outbound: &Arc<Outbound>,
    storage: &Arc<Storage>,
    clock: &Arc<dyn Clock>,
) -> Result<Bitrix24, AppError> {
    let section = &config.bitrix24;
    let apps = section.apps.iter().map(|(name, app)| {
        let keys =
            AppKeys { client_id: app.client_id.clone(), client_secret: app.client_secret.clone().unwrap_or_default() };
        (name.clone(), keys)
    });
    let settings = BitrixSettings {
        apps: apps.collect(),
        oauth_hosts: section.oauth_hosts.clone(),
        insecure_http: section.insecure_http,
        public_url: config.server.public_url.clone(),
        requests_per_second: section.requests_per_second,
        burst: f64::from(section.burst),
        mask_phones: config.comments.mask_phones,
        time_zone: config.comments.time_zone.clone(),
    };
    let store = Arc::clone(storage) as Arc<dyn TokenStore>;
    Bitrix24::new(Arc::clone(outbound), store, Arc::clone(clock), settings).map_err(AppError::Setup)
}

fn amocrm(
    config: &Config,
    outbound: &Arc<Outbound>,
    storage: &Arc<Storage>,
    clock: &Arc<dyn Clock>,
) -> Result<Amocrm, AppError> {
    let section = &config.amocrm;
    let apps = section.apps.iter().map(|(name, app)| {
        let secrets = [&app.client_secret, &app.previous_client_secret].into_iter().flatten().cloned().collect();
        let chats = match (&app.chat_channel_id, &app.chat_channel_secret, &app.chat_bot_id) {
            (Some(channel), Some(secret), Some(bot)) => {
                Some(ChatKeys { channel_id: channel.clone(), secret: secret.clone(), bot_id: bot.clone() })
            }
            _ => None,
        };
        (name.clone(), AmoKeys { client_id: app.client_id.clone(), secrets, chats })
    });
    let settings = AmoSettings {
        apps: apps.collect(),
        account_url: section.account_url.clone(),
        account_hosts: section.account_hosts.clone(),
        chats_url: section.chats_url.clone(),
        public_url: config.server.public_url.clone(),
        requests_per_second: section.requests_per_second,
        mask_phones: config.comments.mask_phones,
        time_zone: config.comments.time_zone.clone(),
    };
    let store = Arc::clone(storage) as Arc<dyn TokenStore>;
    Amocrm::new(Arc::clone(outbound), store, Arc::clone(clock), settings).map_err(AppError::Setup)
}

fn providers(config: &Config, outbound: &Arc<Outbound>) -> HashMap<&'static str, Arc<dyn Provider>> {
    REGISTRY
        .iter()
        .map(|entry| {
            let section = config.providers.get(entry.spec.id);
            let pick = |value: Option<&String>, default: &str| value.cloned().unwrap_or_else(|| default.to_owned());
            let settings = ResolvedSettings {
                base_url: pick(section.and_then(|s| s.base_url.as_ref()), entry.defaults.base_url),
                api_version: pick(section.and_then(|s| s.api_version.as_ref()), entry.defaults.api_version),
            };
            (entry.spec.id, (entry.build)(Arc::clone(outbound), settings))
        })
        .collect()
}

fn pipeline_settings(config: &Config) -> PipelineSettings {
    let delivery = &config.delivery;
    // Zero is the provider's own rule.
    let given = |span: Span| Some(span.0).filter(|wait| wait.0 > 0);
    PipelineSettings {
        retries: RetryPlan { waits: delivery.retry_schedule.iter().map(|span| span.0).collect() },
        not_after: delivery.not_after.0,
        country: config.phones.country.clone(),
        time_zone: config.comments.time_zone.clone(),
        workers: delivery.workers,
        lease: delivery.lease.0,
        repeat_reply: config.bitrix24.repeat_result.0,
        unclear_wait: given(delivery.unclear_wait),
        silence: SilenceSettings {
            accepted: given(delivery.silence_accepted),
            sent: given(delivery.silence_sent),
            closed: given(delivery.silence_closed),
        },
        public_url: config.server.public_url.clone(),
        check_webhooks: delivery.check_webhooks.0,
        lost_calls: LostCallSettings {
            every: config.bitrix24.lost_calls_every.0,
            after: config.bitrix24.lost_calls_after.0,
        },
    }
}

/// What commands beside a running service need of it.
pub struct Probe {
    /// The store.
    pub storage: Arc<Storage>,
    /// Bitrix24.
    pub bitrix24: Bitrix24,
    /// amoCRM.
    pub amocrm: Amocrm,
    /// Providers by registry id.
    pub providers: HashMap<&'static str, Arc<dyn Provider>>,
}

impl Probe {
    /// Opens the store beside a service that may be running; runs nothing, makes nothing, migrates nothing and does not
    /// need the lock. `read_only` refuses writes to SQLite.
    ///
    /// # Errors
    /// [`AppError`]; the schema may have to be migrated first.
    pub async fn open(config: &Config, outbound: &Arc<Outbound>, read_only: bool) -> Result<Self, AppError> {
        config.fit_to_serve()?;
        let sealer = sealer(config)?;
        let db = Db::open_beside(config.database.url.expose_secret(), read_only).await?;
        let (handle, _mailbox) = mailbox::mailbox();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let options = StorageOptions { reply_not_before: Millis::seconds(2) };
        let ids: Arc<dyn IdSource> = Arc::new(Ulids::new(Arc::clone(&clock)));
        let storage = Arc::new(Storage::new(db, sealer, ids, Arc::clone(&clock), Arc::new(handle), options));
        let bitrix24 = bitrix24(config, outbound, &storage, &clock)?;
        let amocrm = amocrm(config, outbound, &storage, &clock)?;
        Ok(Self { storage, bitrix24, amocrm, providers: providers(config, outbound) })
    }
}

/// The way out, for a command that serves nothing.
///
/// # Errors
/// [`AppError::Setup`] when this machine has no certificates.
pub fn way_out(config: &Config) -> Result<Arc<Outbound>, AppError> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    Ok(Arc::new(Outbound::new(config.network.allow_private.clone()).map_err(AppError::Setup)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_set_is_approached_without_a_jump_and_without_going_back() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        for (jump, slowest, fastest) in [(3_600_000, 1_000, 1_500), (-3_600_000, 500, 1_000)] {
            let mut reading = Reading { at: start, time: Timestamp(0), behind: Millis(0) };
            let mut last = Timestamp(0);
            // It is told every three seconds, as with every sign of life.
            for second in 1..=3 * 3600 {
                let truth = Timestamp(i64::try_from(second).unwrap() * 1000 + jump);
                let now = reading.time_at(after(second));
                let step = now.since(last).0;
                assert!((slowest..=fastest).contains(&step), "{step} ms within second {second}");
                last = now;
                if second % 3 == 0 {
                    reading.follow(after(second), truth);
                }
            }
            let truth = Timestamp(3 * 3_600_000 + jump);
            assert!(last.since(truth).0.abs() <= 1, "{last:?} of {truth:?}");
        }
    }
}
