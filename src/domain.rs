//! Pure words of the product: what the rooms of the house say to each other.
//!
//! Architecture invariant: nothing in here knows a database, an HTTP library, a clock, the environment or a random
//! source; only `std` and `serde` are imported (held by `tests/it/house.rs`).

#![deny(clippy::wildcard_enum_match_arm)]

pub mod action;
pub mod address;
pub mod capability;
pub mod channel;
pub mod chat;
pub mod command;
pub mod crm_file;
pub mod deed;
pub mod dialog;
pub mod effect;
pub mod event;
pub mod file;
pub mod guards;
pub mod hearing;
pub mod ids;
pub mod job;
pub mod language;
pub mod markup;
pub mod message;
pub mod outcome;
pub mod phone;
pub mod portal;
pub mod sms;
pub mod stage;
pub mod status;
pub mod template;
pub mod text;
pub mod time;
