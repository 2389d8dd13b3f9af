//! Answers that never came whole: the connection is cut at every kind of place, on the way to the provider and on the
//! way to the CRM. Nobody gets a message or a comment twice, and nothing is lost: what cannot be known is told to a person.

use std::time::{Duration, Instant};

use sandbox::{Action, CutFrom, Fault, Shape};
use serde_json::json;

use crate::world::{Wish, World, text};

/// Where a call is cut.
#[derive(Clone, Copy, Debug)]
enum Cut {
    /// Nobody listens on the port.
    NoConnection,
    /// So many bytes of the request have arrived.
    Request(usize),
    /// After the request, before it was processed or after, as this action says.
    By(&'static str),
}

/// How it must end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    /// Without a person: repeated because it surely did not arrive, or settled by the echo.
    ByItself,
    /// Nobody can know: given to a person, who sends it again.
    ByAPerson,
}

/// Every kind of place. A request of ours to either side has more than 400 bytes, more than 150 of them headers.
const CUTS: &[(Cut, End)] = &[
    (Cut::NoConnection, End::ByItself),
    (Cut::Request(0), End::ByAPerson),
    (Cut::Request(10), End::ByAPerson),
    (Cut::Request(120), End::ByAPerson),
    (Cut::Request(300), End::ByAPerson),
    (Cut::By("not processed"), End::ByAPerson),
    (Cut::By("no byte of the answer"), End::ByItself),
    (Cut::By("status line"), End::ByItself),
    (Cut::By("headers"), End::ByItself),
    (Cut::By("between headers and body"), End::ByItself),
    (Cut::By("body"), End::ByItself),
    (Cut::By("after the body"), End::ByItself),
    (Cut::By("length too large"), End::ByItself),
    (Cut::By("length too small"), End::ByItself),
    (Cut::By("chunk"), End::ByItself),
    (Cut::By("whole chunk"), End::ByItself),
    (Cut::By("body until the end of the connection"), End::ByItself),
    (Cut::By("never answered"), End::ByItself),
    (Cut::By("gateway after processing"), End::ByItself),
];

fn action(name: &str) -> Action {
    let answer = |at| Action::CutAnswer { at, from: CutFrom::Answer };
    let body = |at| Action::CutAnswer { at, from: CutFrom::Body };
    match name {
        "not processed" => Action::CutBefore,
        "no byte of the answer" => Action::CutAfter,
        "status line" => answer(7),
        "headers" => answer(30),
        "between headers and body" => body(0),
        "body" => body(25),
        "after the body" => Action::Misshape { shape: Shape::Length { by: 0 }, at: None },
        "length too large" => Action::Misshape { shape: Shape::Length { by: 9 }, at: None },
        "length too small" => Action::Misshape { shape: Shape::Length { by: -9 }, at: None },
        "chunk" => Action::Misshape { shape: Shape::Chunked, at: Some(25) },
        "whole chunk" => Action::Misshape { shape: Shape::Chunked, at: None },
        "body until the end of the connection" => Action::Misshape { shape: Shape::UntilClose, at: Some(25) },
        "never answered" => Action::DropAnswer { hold_ms: 700 },
        "gateway after processing" => Action::Html { status: 502, after: true },
        other => panic!("no such cut: {other}"),
    }
}

async fn world() -> World {
    let config = "[delivery]\nretry_schedule = [\"300ms\", \"500ms\"]\nunclear_wait = \"1200ms\"\n".to_owned();
    World::with(Wish { config, no_bucket: true, ..Wish::default() }).await
}

/// The id of the only dead letter, once there is one.
async fn dead_letter(world: &World) -> Option<String> {
    let (_, letters) = world.get("/api/v1/dead-letters").await;
    letters["items"][0]["id"].as_str().map(str::to_owned)
}

/// Waits until the card says that the message was read; sends it again for a person if it was given to one.
async fn read(world: &World, deal: i64, what: Cut) -> End {
    let mut end = End::ByItself;
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if world.comment(deal).contains("Прочитано") {
            return end;
        }
        if let Some(letter) = dead_letter(world).await {
            assert!(world.comment(deal).contains("Проверьте переписку"), "{what:?}: {}", world.comment(deal));
            let (status, answer) = world.post(&format!("/api/v1/dead-letters/{letter}/redrive"), json!({})).await;
            assert!((200..300).contains(&status), "{what:?}: {status} {answer}");
            end = End::ByAPerson;
        }
        assert!(Instant::now() < deadline, "{what:?} is not settled: {:?}\n{}", world.comment(deal), world.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_send_that_is_cut_anywhere_is_neither_lost_nor_doubled() {
    let world = world().await;
    for (index, (cut, expected)) in CUTS.iter().enumerate() {
        let phone = format!("7916000{index:04}");
        world.open_window(&phone).await;
        world.sandbox.clear_faults();
        match cut {
            Cut::NoConnection => world.sandbox.set_graph_up(false),
            Cut::Request(at) => {
                world.sandbox.add_fault(Fault::new("wire.graph", Action::CutRequest { at: *at }).times(1));
            }
            Cut::By(name) => {
                world.sandbox.add_fault(Fault::new("graph.messages", action(name)).times(1));
            }
        }
        let deal = world.deal(&phone);
        world.fire(deal, &json!({"recipients": "main", "text": "Один раз", "wait_minutes": "1"}));
        if matches!(cut, Cut::NoConnection) {
            tokio::time::sleep(Duration::from_millis(600)).await;
            world.sandbox.set_graph_up(true);
        } else {
            world.until("the call was cut", |w| w.sandbox.faults()[0].fired == 1).await;
        }
        assert_eq!(read(&world, deal, *cut).await, *expected, "{cut:?}");
        assert_eq!(world.messages(&phone).len(), 1, "{cut:?}");
        assert_eq!(world.comments(deal).len(), 1, "{cut:?}");
    }
    // Long enough for a blind repetition to show.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let ledger = world.sandbox.ledger();
    assert_eq!((ledger.repeated(), ledger.accepted()), (0, CUTS.len() as u64));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_to_the_crm_that_is_cut_anywhere_is_neither_lost_nor_doubled() {
    let world = world().await;
    for (index, (cut, _)) in CUTS.iter().enumerate() {
        let phone = format!("7916000{index:04}");
        world.sandbox.clear_faults();
        match cut {
            Cut::NoConnection => {}
            Cut::Request(at) => {
                world.sandbox.add_fault(Fault::new("wire.portal", Action::CutRequest { at: *at }).times(1));
            }
            Cut::By(name) => {
                let fault = Fault::new("rest.batch", action(name)).contains("crm.timeline.comment.add").times(1);
                world.sandbox.add_fault(fault);
            }
        }
        let deal = world.deal(&phone);
        world.fire(deal, &json!({"recipients": "given", "phones": [phone], "template": "greeting:ru"}));
        if matches!(cut, Cut::NoConnection) {
            world.until("the callback was answered", |w| w.run_of(deal).callback_status == Some(200)).await;
            world.portal.set_up(false);
            tokio::time::sleep(Duration::from_millis(600)).await;
            world.portal.set_up(true);
        } else {
            world.until("the call was cut", |w| w.sandbox.faults()[0].fired == 1).await;
        }
        world.until(&format!("the comment says read: {cut:?}"), |w| w.comment(deal).contains("Прочитано")).await;
        assert_eq!(text(&world.result_of(deal).await, "status"), "Y", "{cut:?}");
        assert_eq!((world.messages(&phone).len(), world.comments(deal).len()), (1, 1), "{cut:?}");
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    for deal in world.portal.items(crate::world::DEAL, 100) {
        assert_eq!(world.comments(deal.id).len(), 1, "deal {}", deal.id);
    }
}
