//! The life of a message as the store keeps it, under news that come shuffled, repeated and many at once: it ends where
//! [`MessageState::advance`] says that it ends, heard one after the other.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::World;
use super::things::{command, furnished, heard, message};
use crate::domain::command::WaitFor;
use crate::domain::event::StatusNews;
use crate::domain::ids::{ChannelId, PortalId, ProviderMessageId};
use crate::domain::outcome::{ErrorCode, Failure};
use crate::domain::status::MessageState;
use crate::domain::time::Timestamp;
use crate::storage::plan::Plan;

/// Callbacks in the order in which they come, each with several statuses.
fn callbacks() -> impl Strategy<Value = Vec<Vec<MessageState>>> {
    let told = [MessageState::Sent, MessageState::Delivered, MessageState::Read, MessageState::Failed];
    let callback = proptest::collection::vec(proptest::sample::select(told.to_vec()), 1..6);
    proptest::collection::vec(callback, 1..5)
}

fn failure(state: MessageState) -> Option<Failure> {
    (state == MessageState::Failed).then(|| Failure::new(ErrorCode::Rejected))
}

async fn play(world: &World, portal: &PortalId, channel: &ChannelId, case: usize, callbacks: &[Vec<MessageState>]) {
    let command = command(portal, &format!("case{case}"), WaitFor::Accepted);
    world.storage.accept(command.clone()).await.unwrap();
    let message = message(&command, channel, "7900", None);
    let id = message.record.id.clone();
    world.storage.plan(Plan { command: command.id.clone(), waits: true, messages: vec![message] }).await.unwrap();
    let mut expected = MessageState::Queued;
    for states in callbacks {
        let statuses = states.iter().map(|state| StatusNews {
            provider_id: ProviderMessageId(format!("wamid.{id}")),
            message: Some(id.clone()),
            state: *state,
            at: Timestamp(1_000_000),
            failure: failure(*state),
            vendor_code: String::new(),
        });
        let ingest = heard(channel, statuses.collect(), vec![]);
        world.storage.ingest(ingest).await.unwrap();
        expected = states.iter().fold(expected, |state, news| state.advance(*news));
        let record = world.storage.find_message(&id).await.unwrap().unwrap().record;
        assert_eq!(record.state, expected, "after {states:?} of {callbacks:?}");
        assert_eq!(record.failure.is_some(), expected == MessageState::Failed, "the reason belongs to the failure");
    }
}

fn games(world: impl Future<Output = Option<World>>, cases: u32) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let Some(world) = runtime.block_on(world) else { return };
    let (portal, channel) = runtime.block_on(furnished(&world));
    let case = std::cell::Cell::new(0);
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let played = runner.run(&callbacks(), |callbacks| {
        case.set(case.get() + 1);
        runtime.block_on(play(&world, &portal, &channel, case.get(), &callbacks));
        Ok(())
    });
    played.unwrap();
    runtime.block_on(world.storage.close());
}

#[test]
fn shuffled_and_repeated_statuses_end_where_the_rule_says_on_sqlite() {
    games(async { Some(super::sqlite().await) }, 200);
}

#[test]
fn shuffled_and_repeated_statuses_end_where_the_rule_says_on_postgres() {
    games(super::postgres(), 60);
}
