//! Several processes on one database: they share the work, and whoever falls silent loses its queues without loss,
//! repetition or overtaking.

use std::time::Duration;

use sandbox::{Action, Fault};
use serde_json::json;

use crate::arena::{Arena, Trouble, ordeal, port_of};
use crate::proxy::{Flow, Proxy, fill};
use crate::world::{Service, Wish, World, free_port, postgres_server};

const LOAD: Duration = Duration::from_secs(12);

fn wish() -> Wish {
    Wish { postgres: true, no_bucket: true, ..Wish::default() }
}

async fn three(wish: Wish) -> Arena {
    Arena::new(3, rand::random(), wish, "1s", false).await
}

#[tokio::test(flavor = "multi_thread")]
async fn three_processes_share_the_work_and_keep_the_limits_in_sum() {
    let channel = json!({"messages_per_second": 20});
    let wish = Wish { channel, no_bucket: false, ..wish() };
    let mut arena = Arena::new(3, rand::random(), wish, "20s", false).await;
    // Refusals of the vendors are counted by them. Twice the pace: three processes that each kept it would send three times as
    // much, while a busy machine may hold up what has left, so that it arrives closer together.
    arena.world.number.set_throughput(40);
    ordeal(&mut arena, &[], LOAD).await;
    let refused: Vec<String> = arena.world.sandbox.refusals().iter().map(|refusal| format!("{refusal:?}")).collect();
    assert_eq!(refused, Vec::<String>::new(), "seed {}", arena.seed);
    assert_eq!(arena.world.sandbox.counter("graph.error.130429"), 0);
    assert_eq!(arena.world.sandbox.counter("rest.error.QUERY_LIMIT_EXCEEDED"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_process_loses_nothing() {
    let mut arena = three(wish()).await;
    ordeal(&mut arena, &[Trouble::Kill], LOAD).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_stood_still_repeats_nothing_when_it_wakes() {
    let mut arena = three(wish()).await;
    ordeal(&mut arena, &[Trouble::Pause], LOAD).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_cut_off_from_the_database_loses_and_repeats_nothing() {
    let mut arena = three(wish()).await;
    ordeal(&mut arena, &[Trouble::Stall, Trouble::Cut], LOAD).await;
}

/// What is written to a database that does not answer is given up long before it arrives there, and arrives all the same.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_given_up_and_is_carried_out_later_is_neither_lost_nor_done_twice() {
    let mut arena = three(Wish { answer_within: "200ms", ..wish() }).await;
    ordeal(&mut arena, &[Trouble::Stall], LOAD).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_are_restarted_in_turn_under_load() {
    let mut arena = three(wish()).await;
    ordeal(&mut arena, &[Trouble::Restart], LOAD).await;
}

const FIRST: &str = "79161110001";
const SECOND: &str = "79161110002";

fn short_lease() -> String {
    "[delivery]\nretry_schedule = [\"300ms\", \"500ms\"]\nunclear_wait = \"1500ms\"\nlease = \"1s\"\n".to_owned()
}

/// A world whose vendors find the service behind a wire.
async fn behind(wish: Wish) -> (World, Proxy) {
    let port = free_port();
    let front = Proxy::to(&[port]);
    (World::with(Wish { port: Some(port), front: Some(front.port), ..wish }).await, front)
}

/// Lets the vendors' calls go to another process, also on connections that stand.
async fn hand_over(front: &Proxy, to: &Service) {
    front.aim(&[to.port()]);
    front.set(Flow::Cut);
    // Long enough for every connection to see it.
    tokio::time::sleep(Duration::from_millis(50)).await;
    front.set(Flow::Open);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_was_about_to_leave_when_the_process_stood_still_does_not_leave_when_it_wakes() {
    let graph = Proxy::closed(&[], 1);
    let (world, front) = behind(Wish { graph: Some(graph.port), config: short_lease(), ..wish() }).await;
    for phone in [FIRST, SECOND] {
        world.open_window(phone).await;
    }
    let real = world.sandbox.addresses().graph;
    graph.aim(&[real.rsplit_once(':').unwrap().1.parse().unwrap()]);
    let waiting = fill(&graph).await;
    let submit = world.submitter();
    assert_eq!(submit.text(world.service.port(), FIRST, "once").await, 202);
    // It is begun, and its connection does not come about.
    tokio::time::sleep(Duration::from_millis(500)).await;
    world.service.signal("STOP");
    let change = (format!(":{}\"", graph.port), real.trim_start_matches("http://127.0.0.1").to_owned() + "\"");
    let other = world.replica(&[change]).await;
    hand_over(&front, &other).await;
    // Another takes over. Its later message proves that the way back works, so the first one is sent again.
    assert_eq!(submit.text(other.port(), SECOND, "proof").await, 202);
    world.within(Duration::from_secs(30), "the other has sent it", |w| w.messages(FIRST).len() == 1).await;
    graph.open();
    // The connection comes about while the process still stands.
    world.within(Duration::from_secs(40), "it is connected", |_| graph.accepted() > waiting.len()).await;
    world.service.signal("CONT");
    world.until("it has noticed", |w| w.log().contains("the lease was over for a while")).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(world.messages(FIRST).len(), 1, "sent again by a process that had lost it: {}", world.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_had_left_when_the_process_stood_still_is_not_repeated_by_whoever_takes_over() {
    let (world, front) = behind(Wish { config: short_lease(), ..wish() }).await;
    for phone in [FIRST, SECOND] {
        world.open_window(phone).await;
    }
    let submit = world.submitter();
    // The provider takes its time, but less than the echo is waited for.
    world.sandbox.add_fault(Fault::new("graph.messages", Action::Delay { ms: 1000 }).phone(FIRST));
    for text in ["1", "2"] {
        assert_eq!(submit.text(world.service.port(), FIRST, text).await, 202);
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    world.service.signal("STOP");
    let other = world.replica(&[]).await;
    hand_over(&front, &other).await;
    assert_eq!(submit.text(other.port(), SECOND, "proof").await, 202);
    world.within(Duration::from_secs(30), "the other goes on", |w| w.messages(SECOND).len() == 1).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    world.service.signal("CONT");
    world.within(Duration::from_secs(30), "both have left", |w| w.messages(FIRST).len() >= 2).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let texts: Vec<String> = world.messages(FIRST).into_iter().map(|message| message.shown.text).collect();
    assert_eq!(texts, ["1", "2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_echo_that_another_process_could_not_store_is_waited_for_until_it_comes_again() {
    let server = postgres_server();
    let wires: Vec<Proxy> = (0..2).map(|_| Proxy::to(&[port_of(&server)])).collect();
    let mut wish = Wish { config: short_lease(), database_port: Some(wires[0].port), ..wish() };
    wish.sandbox.graph.sent_ms = 600;
    let (world, front) = behind(wish).await;
    let other = world.replica(&[(format!(":{}/", wires[0].port), format!(":{}/", wires[1].port))]).await;
    for phone in [FIRST, SECOND] {
        world.open_window(phone).await;
    }
    let submit = world.submitter();
    let gateway = Action::Html { status: 502, after: true };
    world.sandbox.add_fault(Fault::new("graph.messages", gateway).phone(FIRST).times(1));
    assert_eq!(submit.text(world.service.port(), FIRST, "once").await, 202);
    let unclear = |log: String| log.contains("indeterminate");
    world.until("it is unclear", |w| unclear(w.log()) || unclear(other.log())).await;
    // Whoever has the queue hears all the time; the other one is cut off, and the vendor finds only that one.
    let sender = usize::from(unclear(other.log()));
    let deaf = 1 - sender;
    let services = [&world.service, &other];
    wires[deaf].set(Flow::Cut);
    hand_over(&front, services[deaf]).await;
    world.until("a status is refused", |w| w.sandbox.counter("webhook.retried") >= 4).await;
    // By then the vendor tries again only after 3.6 s.
    tokio::time::sleep(Duration::from_secs(2)).await;
    wires[deaf].set(Flow::Open);
    hand_over(&front, services[sender]).await;
    assert_eq!(submit.text(services[sender].port(), SECOND, "proof").await, 202);
    tokio::time::sleep(Duration::from_secs(7)).await;
    assert_eq!((world.messages(SECOND).len(), world.messages(FIRST).len()), (1, 1), "{}", world.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_comment_that_another_process_has_written_meanwhile_is_not_written_again() {
    let (world, front) = behind(Wish { config: short_lease(), ..wish() }).await;
    // The first try does nothing, so the next one looks whether it did, and is told only after the process stands still.
    let (add, list) = ("crm.timeline.comment.add", "crm.timeline.comment.list");
    world.sandbox.add_fault(Fault::new("rest.batch", Action::CutBefore).contains(add).times(1));
    world.sandbox.add_fault(Fault::new("rest.batch", Action::Delay { ms: 700 }).contains(list).times(1));
    let deal = world.deal(FIRST);
    world.fire(deal, &json!({"recipients": "main", "template": "greeting:ru"}));
    world.until("it is looked for", |w| w.sandbox.faults()[1].fired == 1).await;
    world.service.signal("STOP");
    let other = world.replica(&[]).await;
    hand_over(&front, &other).await;
    world.within(Duration::from_secs(30), "the other has written it", |w| w.comments(deal).len() == 1).await;
    world.service.signal("CONT");
    world.until("it has noticed", |w| w.log().contains("the lease was over for a while")).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(world.comments(deal).len(), 1, "{}", world.log());
}
