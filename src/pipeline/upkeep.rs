//! What goes on beside the scheduler: the sign of life to other replicas, and what has to be looked after by the clock.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Pipeline, guards};
use crate::domain::job::QueueKey;
use crate::domain::time::{Millis, Timestamp};
use crate::storage::writer::JobSink as _;

/// Every so many sweeps, what guards no longer ask for is forgotten.
const FORGETTING: u64 = 3_600;
/// Every so many sweeps, PostgreSQL is asked for tables that have grown.
const LOOKING: u64 = 2;
/// Every so many sweeps, messages that wait beyond their deadline are given up.
const EXPIRING: u64 = 5;
/// How often the registrations of all portals are compared.
const COMPARING: Millis = Millis::hours(24);
/// Every so many sweeps (seconds), portals that wait for tokens are given those that came.
const REVIVING: u64 = 20;

/// Lets every queue go, so that another process (or the next one) takes it at once. To be called when nothing can store
/// jobs any more, and [`beat`] has ended. `deaf_from`: since when no callbacks were taken any more.
pub async fn hand_back(pipeline: &Pipeline, deaf_from: Timestamp) {
    // A run that did not end in time must not send once somebody else has its job.
    pipeline.lease.end();
    pipeline.was_deaf(deaf_from);
    if let Err(error) = pipeline.tell_deafness().await {
        tracing::warn!(%error, "others could not be told of missed callbacks");
    }
    if let Err(error) = pipeline.storage.worker_leave(&pipeline.worker).await {
        tracing::warn!(%error, "queues could not be handed back; they are taken over when the lease ends");
    }
}

/// Proves to the other replicas that this process lives, until `stop`: as long as anything runs or is taken in, or
/// others would take the queues over while their last runs end.
pub async fn beat(pipeline: Arc<Pipeline>, stop: CancellationToken) {
    let length = pipeline.settings.lease;
    let mut last: Option<Timestamp> = None;
    loop {
        // From before it was asked for: the others count from a later moment, so they keep off for longer than we believe.
        let from = std::time::Instant::now();
        let at = pipeline.clock.now();
        let told = async {
            match last {
                Some(_) => pipeline.storage.worker_beat(&pipeline.worker, length).await,
                None => pipeline.begin_hearing().await,
            }
        };
        match tokio::time::timeout(length.to_duration(), told).await {
            Ok(Ok(())) => {
                match pipeline.storage.server_time().await {
                    Ok(told) => pipeline.clock.follow(told),
                    Err(error) => tracing::warn!(%error, "the server's time could not be read"),
                }
                if pipeline.lease.renew(from, length) {
                    // Others may have taken our queues meanwhile; what is still ours is found again.
                    pipeline.scheduler.lost();
                    pipeline.was_deaf(last.unwrap_or(at));
                }
                if last.is_none() {
                    pipeline.scheduler.news();
                }
                last = Some(at);
                if let Err(error) = pipeline.tell_deafness().await {
                    tracing::warn!(%error, "others could not be told of missed callbacks");
                }
            }
            Ok(Err(error)) => tracing::warn!(%error, "the worker's sign of life was not written"),
            Err(_) => tracing::warn!("the worker's sign of life took longer than the lease"),
        }
        tokio::select! {
            () = tokio::time::sleep(Millis(length.0 / 3).to_duration()) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// Answers CRMs whose time is over, gives up messages whose deadline is, and gives portals the tokens that came for them.
pub(super) async fn sweep(pipeline: Arc<Pipeline>, stop: CancellationToken) {
    for round in 1_u64.. {
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
            () = stop.cancelled() => return,
        }
        match pipeline.storage.answer_overdue().await {
            Ok(0) => {}
            Ok(count) => tracing::info!(count, "waiting robots answered because their time was over"),
            Err(error) => tracing::warn!(%error, "overdue robots could not be looked up"),
        }
        if round.is_multiple_of(LOOKING) {
            match pipeline.storage.look_at_grown_tables().await {
                Ok(tables) if tables.is_empty() => {}
                Ok(tables) => tracing::debug!(?tables, "grown tables are planned anew"),
                // Some relatives of PostgreSQL cannot tell, and do not need to.
                Err(error) => tracing::debug!(%error, "grown tables could not be looked at"),
            }
        }
        if round.is_multiple_of(EXPIRING) {
            guards::expire_overdue(&pipeline).await;
        }
        if round.is_multiple_of(FORGETTING)
            && let Err(error) = pipeline.storage.forget_old_guards().await
        {
            tracing::warn!(%error, "old guards could not be forgotten");
        }
        if !round.is_multiple_of(REVIVING) {
            continue;
        }
        match pipeline.storage.revive_offered().await {
            Ok(portals) => portals.into_iter().for_each(|portal| pipeline.state_changed(QueueKey::Crm(portal))),
            Err(error) => tracing::warn!(%error, "portals without tokens could not be looked up"),
        }
    }
}

/// Compares the registrations of all portals at the start and every day.
pub(super) async fn compare(pipeline: Arc<Pipeline>, stop: CancellationToken) {
    loop {
        let wait = match pipeline.reconcile_all().await {
            Ok(()) => COMPARING,
            Err(error) => {
                tracing::warn!(%error, "portals could not be asked for their registrations");
                Millis::minutes(1)
            }
        };
        tokio::select! {
            () = tokio::time::sleep(wait.to_duration()) => {}
            () = stop.cancelled() => return,
        }
    }
}
