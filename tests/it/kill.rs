//! Power cuts: SIGKILL at random moments while callbacks pour in. Afterwards every deal whose callback was answered
//! has exactly one message and one comment in its final state; nothing is lost, nothing doubled.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;

use crate::world::{DEAL, Wish, World};

const DEALS: usize = 500;
const KILLS: usize = 10;

async fn ordeal(postgres: bool) {
    let seed: u64 = rand::random();
    let mut dice = StdRng::seed_from_u64(seed);
    let config = "[delivery]\nretry_schedule = [\"200ms\", \"500ms\"]\nunclear_wait = \"5s\"\nlease = \"1s\"\n";
    let mut world = World::with(Wish { postgres, config: config.into(), ..Wish::default() }).await;
    let stage = world
        .robot(&json!({"recipients": "main", "template": "order_update:ru", "params": ["Анна", "{=Document:ID}"]}));
    let deals: Vec<i64> = (0..DEALS).map(|n| world.deal(&format!("7916{n:07}"))).collect();
    for (index, chunk) in deals.chunks(DEALS.div_ceil(KILLS)).enumerate() {
        world.portal.move_items(DEAL, chunk, &stage).unwrap();
        if index + 1 < KILLS {
            // A moment in the work, not in time: on a slow machine it comes later.
            let answers = dice.random_range(chunk.len() / 4..=chunk.len());
            until_answered(&world, chunk, answers).await;
            tokio::time::sleep(Duration::from_millis(dice.random_range(0..50))).await;
            world.kill();
            world.restart().await;
        }
    }
    // Life goes on: later messages prove that the way back works, so that what never left can be told from what did.
    let late = world.deal("79169999999");
    world.portal.move_item(DEAL, late, &stage).unwrap();
    let deadline = Instant::now() + Duration::from_secs(150);
    loop {
        let unsettled = deals.iter().filter(|deal| !settled(&world, **deal)).count();
        if unsettled == 0 {
            break;
        }
        if Instant::now() > deadline {
            let left: Vec<String> = deals
                .iter()
                .filter(|deal| !settled(&world, **deal))
                .take(5)
                .map(|deal| describe(&world, *deal))
                .collect();
            panic!("seed {seed}: {unsettled} deals are not settled: {left:#?}");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (mut answered, mut unanswered) = (0, 0);
    for deal in &deals {
        let sent = world.messages(&phone(&world, *deal)).len();
        let comments = world.comments(*deal);
        if world.run_of(*deal).callback_status == Some(200) {
            answered += 1;
            assert_eq!((sent, comments.len()), (1, 1), "seed {seed}: {}", describe(&world, *deal));
            assert!(comments[0].text.contains("Прочитано"), "seed {seed}: {}", describe(&world, *deal));
        } else {
            unanswered += 1;
            assert!(sent <= 1 && comments.len() <= 1, "seed {seed}: {}", describe(&world, *deal));
        }
    }
    assert_eq!(world.sandbox.ledger().repeated(), 0, "seed {seed}: {:?}", world.sandbox.ledger().repeated_opaques());
    assert!(answered >= DEALS / 2, "seed {seed}: only {answered} callbacks were answered, {unanswered} were not");
    eprintln!("seed {seed}: {KILLS} kills, {answered} callbacks answered, {unanswered} not, 0 lost, 0 doubled");
}

/// Waits until so many of the deals' callbacks have been answered.
async fn until_answered(world: &World, deals: &[i64], wanted: usize) {
    let deadline = Instant::now() + Duration::from_secs(10);
    let answered = || deals.iter().filter(|deal| world.run_of(**deal).callback_status == Some(200)).count();
    while answered() < wanted && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn phone(world: &World, deal: i64) -> String {
    let index = world.portal.item(DEAL, deal).map_or(0, |item| item.contact_ids.first().copied().unwrap_or(0));
    let contact = world.portal.item(sandbox::entity::CONTACT, index).unwrap();
    contact.fm.first().map(|entry| entry.value.clone()).unwrap_or_default()
}

/// Nothing more is expected to happen to the deal.
fn settled(world: &World, deal: i64) -> bool {
    let run = world.run_of(deal);
    let read = world.comments(deal).iter().any(|comment| comment.text.contains("Прочитано"));
    match run.callback_status {
        Some(200) => read && run.finished_ms.is_some(),
        // The callback was cut: it may have been stored or not.
        Some(_) => world.messages(&phone(world, deal)).is_empty() || read,
        None => false,
    }
}

fn describe(world: &World, deal: i64) -> String {
    let run = world.run_of(deal);
    let comments: Vec<String> = world.comments(deal).into_iter().map(|comment| comment.text).collect();
    let messages: Vec<_> = world.messages(&phone(world, deal)).into_iter().map(|m| (m.opaque, m.statuses)).collect();
    format!(
        "deal {deal}: callback {:?}, finished {:?}, {comments:?} {messages:?}",
        run.callback_status, run.finished_ms
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_doubled_when_the_process_is_killed_on_sqlite() {
    ordeal(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_doubled_when_the_process_is_killed_on_postgres() {
    ordeal(true).await;
}
