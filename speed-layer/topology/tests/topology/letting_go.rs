//! Tuples that are let go: each fails at once, whatever becomes of those that came with it.

use std::sync::{Arc, Mutex};

use crate::kit::*;
use stratus_topology::*;

fn one_bolt<F>(feeder: &Feeder, make: F) -> TopologyBuilder
where
    F: Fn() -> FnBolt + Send + Sync + 'static,
{
    let mut builder = TopologyBuilder::new();
    builder.set_spout("spout", feeder.spout(), 1);
    builder.set_bolt("bolt", make, 1).shuffle_grouping("spout");
    builder
}

fn dropped(ids: impl IntoIterator<Item = u64>) -> Vec<(MessageId, FailReason)> {
    ids.into_iter().map(|id| (id, FailReason::Dropped)).collect()
}

/// The clock stands still: nothing here is a time-out.
#[tokio::test]
async fn what_is_forgotten_beside_what_is_held_fails_at_once() {
    let feeder = Feeder::new();
    let held: Arc<Mutex<Vec<Tuples>>> = Arc::default();
    let holding = Arc::clone(&held);
    // Of three tuples it holds the first, forgets the second and acks the third. A large one releases what is held.
    let make = move || {
        let held = Arc::clone(&holding);
        bolt(move |input, out| {
            let mut held = held.lock().unwrap();
            for (row, n) in values(input.rows()).into_iter().enumerate() {
                match n % 3 {
                    0 => held.push(input.take(&[row as u32]).unwrap()),
                    1 => {}
                    _ => out.ack_tuple(input.tuple(row)),
                }
                if n >= 1_000 {
                    held.drain(..).for_each(|tuples| out.ack(&tuples));
                }
            }
            Box::pin(async { Ok(()) })
        })
    };
    let (cluster, _hand) = run_by_hand(&one_bolt(&feeder, make));
    feeder.feed_rows(numbers(0..99), MessageIds::From(0));
    until("66 of 99", || feeder.told() == 66).await;
    assert_eq!(feeder.failures(), dropped((0..99).filter(|n| n % 3 == 1)));
    assert_eq!(feeder.acks(), (0..99).filter(|n| n % 3 == 2).collect::<Vec<_>>());
    // Single tuples come together to the bolt or not.
    (99..200).for_each(|n| feeder.feed(n));
    until("67 of 101", || feeder.told() == 67).await;
    assert_eq!(feeder.failures(), dropped((99..200).filter(|n| n % 3 == 1)));
    feeder.acks();
    assert_eq!(held.lock().unwrap().len(), 67);
    feeder.feed(1_001);
    until("the held ones", || feeder.told() == 68).await;
    assert_eq!(feeder.acks().len(), 68);
    end(&cluster).await;
}

#[tokio::test]
async fn a_tuple_fails_when_the_last_claim_to_it_goes_and_not_before() {
    let feeder = Feeder::new();
    let held: Arc<Mutex<Vec<Tuples>>> = Arc::default();
    let holding = Arc::clone(&held);
    let make = move || {
        let held = Arc::clone(&holding);
        bolt(move |input, out| {
            let mut held = held.lock().unwrap();
            // Taken and dropped before it is acked: that was only a look.
            drop(input.take(&[0, 1]).unwrap());
            out.ack_rows(&input, &[0]);
            let part = input.take(&[1, 2, 2]).unwrap();
            held.push(part.take(&[0, 1]).unwrap());
            held.push(part);
            Box::pin(async { Ok(()) })
        })
    };
    let (cluster, _hand) = run_by_hand(&one_bolt(&feeder, make));
    feeder.feed_rows(numbers(0..40), MessageIds::From(0));
    until("all but two", || feeder.told() == 38).await;
    assert_eq!(feeder.acks(), [0]);
    assert_eq!(feeder.failures(), dropped(3..40));
    drop(held.lock().unwrap().remove(0));
    settled(&cluster).await;
    assert_eq!(feeder.told(), 0);
    // By another thread than the executor's.
    std::thread::spawn(move || held.lock().unwrap().clear()).join().unwrap();
    until("the last two", || feeder.told() == 2).await;
    assert_eq!(feeder.failures(), dropped([1, 2]));
    end(&cluster).await;
}

/// What is said of other rows of the same batch must not get lost by it.
#[tokio::test]
async fn settling_a_row_that_does_not_exist_fails_all_tuples_at_once() {
    for acks in [true, false] {
        for whole in [true, false] {
            let feeder = Feeder::new();
            let make = move || {
                bolt(move |input, out| {
                    if input.len() < 4 {
                        out.ack(&input);
                    } else {
                        let part = input.take(&[0, 1]).unwrap();
                        let tuples = if whole { &input } else { &part };
                        match acks {
                            true => out.ack_rows(tuples, &[0, 99]),
                            false => out.fail_rows(tuples, &[0, 99], "so be it"),
                        }
                    }
                    Box::pin(async { Ok(()) })
                })
            };
            let (cluster, _hand) = run_by_hand(&one_bolt(&feeder, make));
            feeder.feed_rows(numbers(0..4), MessageIds::From(0));
            until("failures", || feeder.told() == 4).await;
            let failures = feeder.failures();
            assert_eq!(failures.len(), 4);
            let count = if whole { 4 } else { 2 };
            for (_, reason) in failures {
                let FailReason::Failed(why) = reason else { panic!("{reason}") };
                assert!(why.contains(&format!("row 99 of {count} tuples of")), "{why}");
            }
            feeder.feed(7);
            until("an ack", || feeder.told() == 1).await;
            assert_eq!(feeder.acks(), [7]);
            end(&cluster).await;
        }
    }
}

#[tokio::test]
async fn anchoring_to_a_row_that_does_not_exist_is_refused() {
    let feeder = Feeder::new();
    let errors: Arc<Mutex<Vec<String>>> = Arc::default();
    let saying = Arc::clone(&errors);
    let make = move || {
        let errors = Arc::clone(&saying);
        bolt(move |input, out| {
            let errors = Arc::clone(&errors);
            Box::pin(async move {
                let anchors = Anchors::Rows(&input, &[0, 5]);
                let error = out.emit(DEFAULT_STREAM, numbers([1, 2]), anchors).await.unwrap_err();
                errors.lock().unwrap().push(error.to_string());
                out.ack(&input);
                Ok(())
            })
        })
    };
    let mut builder = one_bolt(&feeder, make);
    builder.set_bolt("end", || sink(|_| ()), 1).shuffle_grouping("bolt");
    let (cluster, _hand) = run_by_hand(&builder);
    feeder.feed_rows(numbers(0..2), MessageIds::From(0));
    until("acks", || feeder.told() == 2).await;
    assert_eq!(feeder.acks(), [0, 1]);
    let said = errors.lock().unwrap().join("\n");
    assert!(said.ends_with("are anchored to row 5 of 2 tuples"), "{said}");
    end(&cluster).await;
}
