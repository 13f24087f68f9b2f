//! Marks on rows, and what a bolt has sent.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use arrow::{array::AsArray, datatypes::Int64Type};

use crate::kit::*;
use stratus_topology::*;

/// Emits each number with its remainder by three as the label; zeroes have none. Half of them as single tuples.
fn labelling(sent: Arc<Mutex<BTreeMap<TaskId, u64>>>) -> FnBolt {
    bolt(move |input, out| {
        let sent = Arc::clone(&sent);
        Box::pin(async move {
            for tuple in input.iter() {
                let number: i64 = tuple.get(0)?;
                let label = number as u64 % 3;
                out.label((label > 0).then_some((label, 7))).await?;
                match number % 2 {
                    0 => out.emit_tuple(DEFAULT_STREAM, (number,), &[tuple]).await?,
                    _ => out.emit(DEFAULT_STREAM, numbers([number]), Anchors::None).await?,
                }
            }
            out.label(None).await?;
            let mut all = sent.lock().unwrap();
            for (task, rows) in out.take_sent() {
                *all.entry(task).or_default() += rows;
            }
            out.ack(&input);
            Ok(())
        })
    })
}

#[tokio::test]
async fn rows_of_different_labels_never_come_in_one_batch() {
    let (feeder, seen) = (Feeder::new(), Arc::new(Mutex::new(Vec::new())));
    let sent = Arc::new(Mutex::new(BTreeMap::new()));
    let mut builder = TopologyBuilder::new();
    builder.set_spout("spout", feeder.spout(), 1);
    let counting = Arc::clone(&sent);
    builder.set_bolt("bolt", move || labelling(Arc::clone(&counting)), 1).shuffle_grouping("spout");
    let listening = Arc::clone(&seen);
    let end_bolt = move || {
        let seen = Arc::clone(&listening);
        bolt(move |input: Tuples, out| {
            let numbers = input.rows().column(0).as_primitive::<Int64Type>().values().to_vec();
            seen.lock().unwrap().push((input.label(), numbers));
            out.ack(&input);
            Box::pin(async { Ok(()) })
        })
    };
    builder.set_bolt("end", end_bolt, 2).fields_grouping("bolt", &["n"]);
    let cluster = run(&builder);
    feeder.feed_rows(numbers(0..300), MessageIds::From(0));
    until("acks", || feeder.look().acked.len() == 300).await;
    let arrived = || seen.lock().unwrap().iter().map(|(_, numbers)| numbers.len()).sum::<usize>();
    until("all rows", || arrived() == 300).await;
    for (label, numbers) in seen.lock().unwrap().iter() {
        for number in numbers {
            let own = (number % 3 > 0).then_some((*number as u64 % 3, 7));
            assert_eq!(*label, own, "{number} in {numbers:?}");
        }
    }
    // What was sent is what the tasks have received.
    let received: u64 = sent.lock().unwrap().values().sum();
    assert_eq!((received, sent.lock().unwrap().len()), (300, 2));
    end(&cluster).await;
}
