//! Power cuts while bots call: afterwards every parked bot has gone on exactly once, with one message and one note.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sandbox::BotState;

use crate::amocrm::{Amo, template};

const BOTS: usize = 60;
const KILLS: usize = 4;

async fn ordeal(postgres: bool) {
    let seed: u64 = rand::random();
    let mut dice = StdRng::seed_from_u64(seed);
    let config = "[delivery]\nretry_schedule = [\"200ms\", \"500ms\"]\nunclear_wait = \"2s\"\nlease = \"1s\"\n";
    let mut amo = Amo::connected(postgres, config).await;
    let leads: Vec<i64> = (0..BOTS).map(|n| amo.lead(&format!("7917{n:07}"))).collect();
    let mut bots = Vec::new();
    for (round, chunk) in leads.chunks(BOTS.div_ceil(KILLS)).enumerate() {
        let new: Vec<i64> = chunk.iter().map(|lead| amo.bot(*lead, template())).collect();
        // A moment in the work, not in time: some of the calls have been answered, the rest is cut.
        let wanted = dice.random_range(chunk.len() / 4..=chunk.len());
        let deadline = Instant::now() + Duration::from_secs(20);
        let answered = |amo: &Amo| new.iter().filter(|bot| amo.run(**bot).call_status == Some(200)).count();
        while answered(&amo) < wanted && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        bots.extend(new);
        if round + 1 < KILLS {
            tokio::time::sleep(Duration::from_millis(dice.random_range(0..2_000))).await;
            amo.world.kill();
            amo.world.restart().await;
        }
    }
    // Messages that never left are told from those that did by later ones of the same channel.
    let late = amo.lead("79179999999");
    amo.bot(late, template());
    let settled = |amo: &Amo, lead: i64, bot: i64| match amo.run(bot).state {
        BotState::Parked | BotState::Calling => false,
        BotState::Continued => amo.note(lead).is_some_and(|note| note.text.contains("Прочитано")),
        // Its call was cut: it may have been stored or not.
        BotState::NotTaken => true,
    };
    let deadline = Instant::now() + Duration::from_secs(180);
    while !leads.iter().zip(&bots).all(|(lead, bot)| settled(&amo, *lead, *bot)) {
        assert!(Instant::now() < deadline, "seed {seed}: {:?}\n{}", amo.account.bots(), amo.world.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut answered = 0;
    for (n, (lead, bot)) in leads.iter().zip(&bots).enumerate() {
        let (run, sent) = (amo.run(*bot), amo.world.messages(&format!("7917{n:07}")).len());
        let notes = amo.account.notes(*lead).len();
        if run.call_status == Some(200) {
            answered += 1;
            assert_eq!((run.exit().is_some(), sent, notes), (true, 1, 1), "seed {seed}: {run:?}");
        } else {
            assert!(sent <= 1 && notes <= 1, "seed {seed}: {run:?}: {sent} messages, {notes} notes");
        }
    }
    assert_eq!(amo.world.sandbox.ledger().repeated(), 0, "seed {seed}");
    assert!(answered >= BOTS / 3, "seed {seed}: only {answered} calls were answered");
    eprintln!("seed {seed}: {KILLS} rounds, {answered} of {BOTS} calls answered, 0 lost, 0 doubled");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_parked_bot_goes_on_once_when_the_process_is_killed_on_sqlite() {
    ordeal(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_parked_bot_goes_on_once_when_the_process_is_killed_on_postgres() {
    ordeal(true).await;
}
