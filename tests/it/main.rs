//! Black-box tests: the real program as a child process, the simulated vendors in this one.
//!
//! Nothing here looks inside the service; what is asserted is what a person sees on the card, on the phone and in the
//! API, and what the vendors were asked.
#![expect(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod amocrm;
mod amocrm_browser;
mod amocrm_chats;
mod amocrm_kill;
mod amocrm_map;
mod amocrm_widget;
mod api;
mod arena;
mod bad_input;
mod bitrix_manual;
mod browser;
mod browser_pages;
mod browser_portal;
mod chat_changes;
mod chat_troubles;
mod chats;
mod demo;
mod deploy;
mod echoes;
mod files;
mod force;
mod gestures;
mod guards;
mod happy;
mod house;
mod isolation;
mod kill;
mod life;
mod lost_calls;
mod operate;
mod pages;
mod proxy;
mod recover;
mod replicas;
mod robots;
mod seen;
mod sms;
mod telegram;
mod trouble;
mod unclear;
mod watch;
mod world;
