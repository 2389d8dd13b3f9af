//! The load program: figures of `docs/PERFORMANCE.md` and `docs/SCALING.md`, each by one command.
//!
//! ```text
//! cargo bench --bench load -- accepts [--postgres]     durable accepts per second beside a bare handler
//! cargo bench --bench load -- statuses [--postgres]    3,000 signed callbacks of the vendor a second, none lost
//! cargo bench --bench load -- claims [--postgres]      jobs taken and settled per second, and how queues share them
//! cargo bench --bench load -- deals N [--postgres] [--bucket] [--rate R]
//!                                                      N deals moved at once, through the whole pipeline
//! cargo bench --bench load -- growth [ROWS] [--postgres]
//!                                                      the same beside a history of up to 3,000,000 rows (or ROWS)
//! cargo bench --bench load -- portals [N] [--postgres] N (100,000) portals, one in a hundred active
//! cargo bench --bench load -- start [--postgres]       time from start to ready, memory at rest
//! ```
//!
//! The real service and the simulated vendors share the machine's cores with this program. `steal` of `/proc/stat` is
//! printed with every run: above 0.10 of a core the run says more about the neighbours than about us.
#![expect(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a load program fails by panicking")]
#![expect(clippy::print_stdout, reason = "it prints its figures")]

#[path = "../../tests/it/world.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod world;

/// As in the service: the simulated vendors should not be what is measured.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

mod accepts;
mod claims;
mod client;
mod deals;
mod fill;
mod growth;
mod measure;
mod portals;
mod start;
mod statuses;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if let ["bare", port] = words.as_slice() {
        return accepts::bare(port.parse().unwrap());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let postgres = words.contains(&"--postgres");
    let number = words.get(1).and_then(|word| word.parse::<usize>().ok());
    let value = |name: &str| {
        let at = words.iter().position(|word| *word == name)?;
        words.get(at + 1)?.parse::<f64>().ok()
    };
    match words.first() {
        Some(&"accepts") => runtime.block_on(accepts::accepts(postgres)),
        Some(&"statuses") => runtime.block_on(statuses::statuses(postgres)),
        Some(&"claims") => runtime.block_on(claims::claims(postgres)),
        Some(&"deals") => {
            let (count, rate) = (number.expect("deals N"), value("--rate"));
            runtime.block_on(deals::deals(count, postgres, words.contains(&"--bucket"), rate));
        }
        Some(&"growth") => {
            let most = number.map(|rows| u64::try_from(rows).unwrap());
            runtime.block_on(growth::growth(postgres, most));
        }
        Some(&"portals") => runtime.block_on(portals::portals(number.unwrap_or(100_000), postgres)),
        Some(&"start") => runtime.block_on(start::start(postgres)),
        _ => {
            println!("load: accepts | statuses | claims | deals N | growth | portals | start; see benches/load/main.rs")
        }
    }
}
