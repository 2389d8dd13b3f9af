//! Black-box tests: the real program as a child process, the simulated vendors in this one.
//!
//! Nothing here looks inside the service; what is asserted is what a person sees on the card, on the phone and in the
//! API, and what the vendors were asked.
#![expect(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod amocrm;
mod amocrm_kill;
mod api;
mod arena;
mod bad_input;
mod browser;
mod chats;
mod demo;
mod deploy;
mod force;
mod guards;
mod happy;
mod house;
mod isolation;
mod kill;
mod life;
mod operate;
mod proxy;
mod recover;
mod replicas;
mod robots;
mod seen;
mod telegram;
mod trouble;
mod unclear;
mod watch;
mod world;
