//! Mostik: a self-hosted connector between CRMs (Bitrix24, amoCRM) and messaging providers' official APIs.
//!
//! # The flow
//!
//! ```text
//!  robot call, event ─► http (verified) ─► pipeline::accept ─► OUTBOX ─► lanes ─► provider
//!                                             one commit       rows              │ outcome
//!  comment, robot result ◄── crm ◄── lanes ◄── OUTBOX ◄── effects, one commit ◄──┤
//!                                                                                │
//!  status, inbound webhook ─► http (verified) ─► pipeline::ingest ───────────────┘
//! ```
//!
//! One engine, two directions: a call to a CRM is as fallible and as limited as a call to a provider, so both are jobs
//! in lanes.
//!
//! # Invariants
//!
//! 1. [`domain`] imports nothing but `std` and `serde`.
//! 2. [`providers`] and [`crm`] see neither the storage nor each other.
//! 3. SQL stands in `storage/sql.rs` and below it only; no transaction leaves `storage`.
//! 4. There is one HTTP client: [`outbound`].
//! 5. Wall clock, environment and randomness are read in `app` and `config` only.
//! 6. Nothing enters the pipeline unverified.
//! 7. Matches on our own enums in `crm`, `pipeline` and `domain` name every variant.
//! 8. No secret, phone or text is logged.
//! 9. Every file under `providers/` is in the registry; every action has a robot file and texts in each language.

pub mod app;
pub mod commands;
pub mod config;
pub mod crm;
pub mod domain;
pub mod forms;
pub mod http;
pub mod i18n;
pub mod lease;
pub mod manifests;
pub mod numbers;
pub mod outbound;
pub mod pipeline;
pub mod providers;
pub mod robots;
pub mod storage;
pub mod telemetry;
pub mod ui;
pub mod webhook_auth;
pub mod zones;
