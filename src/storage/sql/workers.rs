//! Statements about who runs what, and what they have heard.

use super::Batch;

statements! {
    /// A worker lives. An older sign of life that comes late changes nothing.
    WORKER_BEAT = "INSERT INTO workers (id, started_ms, lease_until_ms, beats, seen_ms) VALUES ($1, $2, $3, $4, $5)
        ON CONFLICT (id) DO UPDATE SET lease_until_ms = excluded.lease_until_ms, beats = excluded.beats,
            seen_ms = excluded.seen_ms, left_ms = NULL
        WHERE workers.beats < excluded.beats";
    /// When a worker may have left callbacks unheard.
    WORKER_DEAF = "UPDATE workers SET deaf_from_ms = $2, deaf_ms = $3 WHERE id = $1 AND deaf_ms <= $3";
    /// What the other workers may have left unheard, and until when they were last known to live.
    WORKERS_HEARING = "SELECT deaf_from_ms, deaf_ms, lease_until_ms, seen_ms, left_ms FROM workers WHERE id <> $1";
    /// A worker left in order.
    WORKER_LEAVE = "UPDATE workers SET lease_until_ms = $2, left_ms = $3 WHERE id = $1";
}

batches! {
    /// Queues become the worker's if they are free, their owner is gone, or they are its own already.
    QUEUES_TAKE["tti"] = "WITH v(key, worker, alive_ms) AS (VALUES {rows})
        UPDATE queues SET owner = v.worker, next_due_ms = NULL FROM v
        WHERE queues.key = v.key AND (queues.owner IS NULL OR queues.owner = v.worker
            OR NOT EXISTS (SELECT 1 FROM workers w WHERE w.id = queues.owner AND w.lease_until_ms >= v.alive_ms))
        RETURNING queues.key";
}
