//! The same work in plain functions, without queues and acks: as many threads as the topology has executors of a bolt, each
//! with all of the work on batches of its own.

use std::{
    collections::HashMap,
    hint::black_box,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use arrow::{
    array::{AsArray, RecordBatch, UInt32Array},
    compute::take_record_batch,
};
use stratus_topology::{RowBuilder, hash_rows};

use crate::shapes::{Shape, count, split};

/// Tuples a second of all threads.
pub(crate) fn measured(shape: Shape, executors: usize, time: Duration) -> f64 {
    let rows = shape.rows();
    thread::scope(|scope| {
        let threads: Vec<_> =
            (0..executors).map(|_| scope.spawn(|| one_thread(shape, &rows, executors, time))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    })
}

fn one_thread(shape: Shape, rows: &RecordBatch, executors: usize, time: Duration) -> f64 {
    let (mut counts, mut hashes) = (vec![HashMap::new(); executors], Vec::new());
    let (began, mut tuples) = (Instant::now(), 0_u64);
    while began.elapsed() < time {
        tuples += match shape {
            Shape::Null => black_box(rows.clone()).num_rows() as u64,
            Shape::Id | Shape::Small => black_box(black_box(rows.clone()).clone()).num_rows() as u64,
            Shape::Basic => black_box(rebuilt(rows)).num_rows() as u64,
            // The spout builds them, and the bolt builds them again.
            Shape::Tuples => black_box(rebuilt(&black_box(rebuilt(rows)))).num_rows() as u64,
            Shape::Words | Shape::Text => {
                let (words, from) = split(rows);
                black_box(from);
                match &mut counts[..] {
                    // To a single task everything goes as it is: neither here nor there is anything hashed or copied.
                    [counts] => count(counts, &words),
                    counts => spread(&words, &mut hashes, counts),
                }
                words.num_rows() as u64
            }
        };
    }
    tuples as f64 / began.elapsed().as_secs_f64()
}

/// Each tuple read and written on its own.
fn rebuilt(rows: &RecordBatch) -> RecordBatch {
    let mut built = RowBuilder::new(Arc::clone(rows.schema_ref()), 1_024).unwrap();
    for text in rows.column(0).as_string::<i32>().iter().flatten() {
        built.append((text,)).unwrap();
    }
    built.finish()
}

/// Hashes words, copies each to its part, and counts the parts.
fn spread(words: &RecordBatch, hashes: &mut Vec<u64>, counts: &mut [HashMap<String, u64>]) {
    hash_rows(words.columns(), hashes).unwrap();
    let targets = counts.len();
    let mut parts: Vec<Vec<u32>> = vec![Vec::with_capacity(hashes.len() / targets + 64); targets];
    for (row, hash) in hashes.iter().enumerate() {
        parts[((u128::from(*hash) * targets as u128) >> 64) as usize].push(row as u32);
    }
    for (part, counts) in parts.into_iter().zip(counts) {
        count(counts, &take_record_batch(words, &UInt32Array::from(part)).unwrap());
    }
}
