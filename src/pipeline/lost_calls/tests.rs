//! What a look concludes from entries and calls.

use super::*;

const MINUTE: i64 = 60_000;

fn card(id: u64) -> CardRef {
    CardRef { kind: CardKind::Deal, id }
}

fn entry(id: i64, deal: u64, stage: &str, minute: i64) -> StageEntry {
    StageEntry { id, card: card(deal), stage: stage.to_owned(), entered: Timestamp(minute * MINUTE) }
}

fn call(deal: u64, robot: &str, minute: i64, print: &str) -> KnownCall {
    KnownCall {
        command: CommandId::stored(format!("cmd_{deal}_{minute}")),
        card: card(deal),
        robot: robot.to_owned(),
        received: Timestamp(minute * MINUTE + 2_000),
        print: print.to_owned(),
    }
}

fn look(calls: &[KnownCall]) -> Look {
    Look::new(Timestamp(1_000 * MINUTE), Millis::minutes(15), calls, BTreeMap::new())
}

fn lost_of(calls: &[KnownCall], old: &[StageEntry]) -> (Vec<StageRobot>, Vec<(u64, bool)>) {
    let (robots, lost) = look(calls).judge(old, &[]);
    (robots, lost.into_iter().map(|lost| (lost.card.id, lost.sure)).collect())
}

#[test]
fn a_stage_is_known_after_three_calls_and_a_missing_one_is_lost() {
    let mut old: Vec<StageEntry> = (1..=4).map(|n| entry(n, n.unsigned_abs(), "A", n * 20)).collect();
    let calls: Vec<KnownCall> = (1..=3).map(|n| call(n, "r", i64::try_from(n).unwrap() * 20, "same")).collect();
    let (robots, lost) = lost_of(&calls, &old);
    assert_eq!((robots.len(), lost), (1, vec![(4, true)]));
    assert!(!robots[0].is_constant() && robots[0].is_steady(), "three cards of one work prove little");
    assert_eq!((robots[0].seen, robots[0].skipped, robots[0].same), (3, 0, 3), "nobody was heard when it was missed");
    // Twice is not enough, another stage expects nobody.
    assert_eq!(lost_of(&calls[..2], &old).1, []);
    old[3].stage = "B".to_owned();
    assert_eq!(lost_of(&calls, &old).1, []);
}

#[test]
fn a_robot_with_a_condition_is_not_surely_lost() {
    let old: Vec<StageEntry> = (1..=9).map(|n| entry(n, n.unsigned_abs(), "A", n)).collect();
    // It calls for three cards of nine, while another robot calls for all of them.
    let calls: Vec<KnownCall> = (1..=9_u64)
        .flat_map(|n| {
            let minute = i64::try_from(n).unwrap();
            let picky = (n <= 3).then(|| call(n, "picky", minute, "p"));
            picky.into_iter().chain([call(n, "steady", minute, "s")])
        })
        .collect();
    let (robots, lost) = lost_of(&calls, &old);
    assert_eq!(robots.len(), 2);
    let picky = robots.iter().find(|robot| robot.robot == "picky").unwrap();
    assert_eq!((picky.seen, picky.skipped, picky.is_steady()), (3, 6, false));
    assert_eq!(lost.len(), 6);
    assert!(lost.iter().all(|(_, sure)| !sure), "the other was heard each time: {lost:?}");
}

#[test]
fn what_a_robot_fills_in_from_the_card_is_not_the_same_for_all() {
    let old: Vec<StageEntry> = (1..=3).map(|n| entry(n, n.unsigned_abs(), "A", n)).collect();
    let calls = [call(1, "r", 1, "Anna"), call(2, "r", 2, "Boris"), call(3, "r", 3, "Vera")];
    assert!(!lost_of(&calls, &old).0[0].is_constant());
    // The same card twice proves nothing.
    let again = [entry(1, 1, "A", 1), entry(2, 1, "A", 30)];
    let calls = [call(1, "r", 1, "Anna"), call(1, "r", 30, "Anna")];
    assert!(!lost_of(&calls, &again).0[0].is_constant());
}

#[test]
fn a_call_after_the_card_went_on_belongs_to_the_next_stage_and_is_not_lost_to_the_first() {
    let old = [entry(1, 1, "A", 1), entry(2, 1, "B", 3)];
    let (robots, _) = lost_of(&[call(1, "r", 5, "p")], &old);
    assert_eq!(robots.iter().map(|robot| robot.stage.as_str()).collect::<Vec<_>>(), ["B"]);
    let known =
        (1..=3).map(|n| entry(n, n.unsigned_abs() + 10, "A", n)).chain([entry(4, 1, "A", 10), entry(5, 1, "B", 11)]);
    let calls: Vec<KnownCall> =
        (11..=13).map(|n| call(n, "r", i64::try_from(n).unwrap() - 10, "p")).chain([call(1, "r", 14, "p")]).collect();
    assert_eq!(lost_of(&calls, &known.collect::<Vec<_>>()).1, [], "late, but it came");
}
