//! What a hop costs: const-spout -> null-bolt, const-spout -> id-bolt -> null-bolt, the latter also with batches of 64 rows
//! and tuple by tuple (`basic`: a `BasicBolt`; `tuples`: `emit_tuple` in spout and bolt), and word count; acked and not,
//! with one, two and four executors; beside the same work in plain functions without queues and acks.
//!
//! ```text
//! cargo build --release -p stratus-topology --benches
//! taskset -c 0 <the bench> --bench            # one core: the goals are for one
//! TOPOLOGY_SECONDS=5 <the bench> --bench words
//! ```
//!
//! `words` is word count over lines of generated words, `text` over the prose of this repository. Then the latencies at a
//! tenth of the peak of one executor, acked, in microseconds from the moment at which each tuple was due.
//!
//! Prints one JSON line per case. `ratio` is the topology's time over that of the plain functions, which run in
//! `plain_threads` threads, as many as each bolt has executors; the topology has a spout, and an acker if it acks, besides.
//! `allocations` are per batch of `batch_rows` and hop, everything included; `allocations_ok` says that they are at most
//! 50, and fewer than one for each row.

#![allow(clippy::unwrap_used, missing_docs, unsafe_code)]

mod latency;
mod plain;
mod shapes;
mod text;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use shapes::{Shape, split};
use stratus_topology::LocalCluster;

/// Allocations of a batch and hop, at most.
const MOST_ALLOCATIONS: f64 = 50.0;

/// Counts allocations.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: everything is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        unsafe { System.realloc(memory, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Tuples a second at the end of the topology, and allocations for each of them.
fn measured(shape: Shape, acked: bool, executors: usize, time: Duration) -> (f64, f64) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(executors).enable_all().build().unwrap();
    runtime.block_on(async {
        let done = Arc::new(AtomicU64::new(0));
        let cluster = LocalCluster::new();
        cluster.submit("bench", shape.topology(acked, executors, &done)).unwrap();
        tokio::time::sleep(time / 4).await;
        let (began, from, allocated) = (Instant::now(), done.load(Relaxed), ALLOCATIONS.load(Relaxed));
        tokio::time::sleep(time).await;
        let (seconds, tuples) = (began.elapsed().as_secs_f64(), done.load(Relaxed) - from);
        let allocations = ALLOCATIONS.load(Relaxed) - allocated;
        cluster.kill("bench", Duration::ZERO).await.unwrap();
        (tuples as f64 / seconds, allocations as f64 / tuples as f64)
    })
}

fn main() {
    let asked: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let seconds =
        std::env::var("TOPOLOGY_SECONDS").ok().and_then(|seconds| seconds.parse().ok()).unwrap_or(2.0);
    let time = Duration::from_secs_f64(seconds);
    for (name, shape) in Shape::ALL {
        if !asked.is_empty() && !asked.iter().any(|asked| asked == name) {
            continue;
        }
        let rows = shape.rows();
        for executors in [1, 2, 4] {
            let bare = plain::measured(shape, executors, time / 2);
            for acked in [false, true] {
                let (rate, allocations) = measured(shape, acked, executors, time);
                let batch_rows = rows.num_rows();
                let allocations = allocations * batch_rows as f64 / shape.hops() as f64;
                let is_ok = allocations <= MOST_ALLOCATIONS && allocations < batch_rows as f64;
                println!(
                    "{{\"case\":\"{name}\",\"acked\":{acked},\"executors\":{executors},\
                     \"tuples_per_s\":{rate:.0},\"plain_per_s\":{bare:.0},\"plain_threads\":{executors},\
                     \"ratio\":{:.2},\"ns_per_tuple\":{:.1},\"batch_rows\":{batch_rows},\
                     \"allocations\":{allocations:.1},\"allocations_ok\":{is_ok}}}",
                    bare / rate,
                    1e9 / rate,
                );
            }
        }
        let (peak, _) = measured(shape, true, 1, time);
        // Word count counts words at its end, and its spout emits lines.
        let at_end = if shape.counts_words() { split(&rows).1.len() } else { rows.num_rows() };
        // A batch each millisecond, of no more than its rows.
        let of_spout = peak / 10.0 * rows.num_rows() as f64 / at_end as f64;
        let rate = of_spout.min(rows.num_rows() as f64 * 1_000.0);
        let latencies = latency::measured(shape, rate, time);
        println!(
            "{{\"case\":\"{name}\",\"spout_tuples_per_s\":{rate:.0},\"latency_p50_us\":{},\"latency_p99_us\":{},\
             \"latency_max_us\":{},\"tuples\":{}}}",
            latencies.value_at_quantile(0.5),
            latencies.value_at_quantile(0.99),
            latencies.max(),
            latencies.len(),
        );
    }
}
