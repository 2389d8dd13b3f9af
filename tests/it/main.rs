//! Black-box tests: the real program as a child process, the simulated vendors in this one.
//!
//! Nothing here looks inside the service; what is asserted is what a person sees on the card, on the phone and in the
//! API, and what the vendors were asked.
#![expect(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod api;
mod bad_input;
mod browser;
mod demo;
mod deploy;
mod happy;
mod house;
mod kill;
mod life;
mod operate;
mod trouble;
mod watch;
mod world;
