//! Trees of tuples: done when everything in them is done, and only then.

use std::sync::{Arc, Mutex};

use crate::kit::*;
use stratus_topology::*;

/// Emits every tuple so many times over, anchored to it.
fn branching(branches: usize) -> FnBolt {
    bolt(move |input, out| {
        Box::pin(async move {
            for _ in 0..branches {
                out.emit(DEFAULT_STREAM, input.rows().clone(), Anchors::Same(&input)).await?;
            }
            out.ack(&input);
            Ok(())
        })
    })
}

/// How a bolt says what its output comes from.
#[derive(Clone, Copy, Debug)]
enum Way {
    Every,
    Lists,
    Tuple,
}

/// Holds tuples until it has so many, emits one that comes from all of them, and acks them.
fn aggregating(count: usize, way: Way) -> FnBolt {
    let mut held: Vec<Tuples> = Vec::new();
    bolt(move |input, out| {
        let mut groups = Vec::new();
        for row in 0..input.len() as u32 {
            held.push(input.take(&[row]).unwrap());
            if held.len() == count {
                groups.push(std::mem::take(&mut held));
            }
        }
        Box::pin(async move {
            for group in groups {
                let one = numbers([group.len() as i64]);
                let tuples: Vec<Tuple<'_>> = group.iter().map(|tuples| tuples.tuple(0)).collect();
                match way {
                    Way::Every => {
                        let every: Vec<&Tuples> = group.iter().collect();
                        out.emit(DEFAULT_STREAM, one, Anchors::Every(&every)).await?;
                    }
                    Way::Lists => out.emit(DEFAULT_STREAM, one, Anchors::Lists(&[tuples])).await?,
                    Way::Tuple => out.emit_tuple(DEFAULT_STREAM, (group.len() as i64,), &tuples).await?,
                }
                group.iter().for_each(|tuples| out.ack(tuples));
            }
            Ok(())
        })
    })
}

fn acking() -> FnBolt {
    sink(|_| ())
}

/// Storm's `TopologyIntegrationTest.testAcking`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_graph_with_several_roots_acks_each_when_all_that_came_of_it_is_done() {
    for way in [Way::Every, Way::Lists, Way::Tuple] {
        let feeders = [Feeder::new(), Feeder::new(), Feeder::new()];
        let mut builder = TopologyBuilder::new();
        for (feeder, (spout, branch, branches)) in
            feeders.iter().zip([("1", "4", 2), ("2", "5", 4), ("3", "6", 1)])
        {
            builder.set_spout(spout, feeder.spout(), 1);
            builder.set_bolt(branch, move || branching(branches), 1).shuffle_grouping(spout);
        }
        builder
            .set_bolt("7", move || aggregating(3, way), 1)
            .shuffle_grouping("4")
            .shuffle_grouping("5")
            .shuffle_grouping("6");
        builder.set_bolt("8", || branching(2), 1).shuffle_grouping("7");
        builder.set_bolt("9", acking, 1).shuffle_grouping("8");
        let cluster = run(&builder);
        let steps =
            [(0, [0, 0, 0]), (1, [1, 1, 0]), (0, [0, 0, 0]), (0, [1, 0, 0]), (2, [0, 0, 0]), (1, [1, 1, 1])];
        for (number, (feeder, expected)) in steps.into_iter().enumerate() {
            feeders[feeder].feed(number as u64);
            let acked = || feeders.each_ref().map(|feeder| feeder.look().acked.len());
            until("acks", || acked().iter().zip(expected).all(|(acked, expected)| *acked >= expected)).await;
            settled(&cluster).await;
            let acks = feeders.each_ref().map(|feeder| feeder.acks().len());
            assert_eq!(acks, expected, "{way:?}, step {number}");
        }
        assert!(feeders.iter().all(|feeder| feeder.failures().is_empty()));
        end(&cluster).await;
    }
}

/// Storm's `testAckBranching`.
#[tokio::test]
async fn a_diamond_acks_when_both_its_sides_are_done() {
    let feeder = Feeder::new();
    let mut builder = TopologyBuilder::new();
    builder.set_spout("1", feeder.spout(), 1);
    builder.set_bolt("2", || branching(1), 1).shuffle_grouping("1");
    builder.set_bolt("3", || branching(1), 1).shuffle_grouping("1");
    builder.set_bolt("4", || aggregating(4, Way::Every), 1).shuffle_grouping("2").shuffle_grouping("3");
    let cluster = run(&builder);
    feeder.feed(1);
    settled(&cluster).await;
    assert_eq!(feeder.acks(), NOTHING);
    feeder.feed(2);
    settled(&cluster).await;
    assert_eq!(feeder.acks(), [1, 2]);
    end(&cluster).await;
}

/// Storm's `testAckingSelfAnchor`.
#[tokio::test]
async fn anchoring_twice_to_one_tuple_acks_it_once() {
    let dup = |way: Way| {
        bolt(move |input: Tuples, out| {
            Box::pin(async move {
                for row in 0..input.len() as u32 {
                    let one = input.take(&[row])?;
                    let (rows, tuple) = (one.rows().clone(), input.tuple(row as usize));
                    match way {
                        Way::Every => out.emit(DEFAULT_STREAM, rows, Anchors::Every(&[&one, &one])).await?,
                        Way::Lists => {
                            out.emit(DEFAULT_STREAM, rows, Anchors::Lists(&[vec![tuple, tuple]])).await?
                        }
                        Way::Tuple => out.emit_tuple(DEFAULT_STREAM, (1_i64,), &[tuple, tuple]).await?,
                    }
                }
                out.ack(&input);
                Ok(())
            })
        })
    };
    for way in [Way::Every, Way::Lists, Way::Tuple] {
        let feeder = Feeder::new();
        let mut builder = TopologyBuilder::new();
        builder.set_spout("1", feeder.spout(), 1);
        builder.set_bolt("2", move || dup(way), 1).shuffle_grouping("1");
        // Two edges of one tree meet again in one row here.
        builder.set_bolt("3", move || dup(way), 1).shuffle_grouping("2");
        builder.set_bolt("4", acking, 1).shuffle_grouping("3");
        let cluster = run(&builder);
        feeder.feed(1);
        settled(&cluster).await;
        assert_eq!(feeder.acks(), [1], "{way:?}");
        (2..5).for_each(|n| feeder.feed(n));
        settled(&cluster).await;
        assert_eq!(feeder.acks(), [2, 3, 4], "{way:?}");
        end(&cluster).await;
    }
}

/// A spout with a bolt that does something with its tuples, and a bolt behind that acks.
fn pipeline<F>(feeder: &Feeder, make: F) -> TopologyBuilder
where
    F: Fn() -> FnBolt + Send + Sync + 'static,
{
    let mut builder = TopologyBuilder::new();
    builder.set_spout("spout", feeder.spout(), 1);
    builder.set_bolt("bolt", make, 1).shuffle_grouping("spout");
    builder.set_bolt("end", acking, 1).shuffle_grouping("bolt");
    builder
}

#[tokio::test]
async fn what_is_not_anchored_does_not_matter_to_the_tree() {
    let feeder = Feeder::new();
    let mut builder = pipeline(&feeder, || {
        bolt(|input, out| {
            Box::pin(async move {
                out.emit(DEFAULT_STREAM, input.rows().clone(), Anchors::None).await?;
                out.emit_tuple(DEFAULT_STREAM, (1_i64,), &[]).await?;
                out.ack(&input);
                Ok(())
            })
        })
    });
    let failing = || {
        bolt(|input, out| {
            out.fail(&input, "no");
            Box::pin(async { Ok(()) })
        })
    };
    builder.set_bolt("failing", failing, 1).shuffle_grouping("bolt");
    let cluster = run(&builder);
    feeder.feed_rows(numbers(0..10), MessageIds::From(0));
    settled(&cluster).await;
    assert_eq!(feeder.acks(), (0..10).collect::<Vec<_>>());
    assert_eq!(feeder.failures(), []);
    end(&cluster).await;
}

#[tokio::test]
async fn tuples_without_ids_are_not_followed() {
    let feeder = Feeder::new();
    let cluster = run(&pipeline(&feeder, || branching(2)));
    feeder.feed_rows(numbers(0..10), MessageIds::None);
    settled(&cluster).await;
    assert_eq!(feeder.acks(), NOTHING);
    let metrics = cluster.metrics(NAME).unwrap();
    assert_eq!(metrics.components["spout"].pending, 0);
    assert_eq!(metrics.components["end"].inputs[&("bolt".to_owned(), "default".to_owned())].acked, 20);
    end(&cluster).await;
}

#[tokio::test]
async fn without_ackers_tuples_are_acked_as_soon_as_they_are_emitted() {
    let feeder = Feeder::new();
    let failing = || {
        bolt(|input, out| {
            out.fail(&input, "no");
            Box::pin(async { Ok(()) })
        })
    };
    let mut builder = pipeline(&feeder, failing);
    builder.config(TopologyConfig { ackers: 0, ..TopologyConfig::default() });
    let cluster = run(&builder);
    feeder.feed_rows(numbers(0..10), MessageIds::From(5));
    until("acks", || feeder.look().acked.len() == 10).await;
    assert_eq!(feeder.acks(), (5..15).collect::<Vec<_>>());
    assert_eq!(feeder.failures(), []);
    assert_eq!(cluster.metrics(NAME).unwrap().components["spout"].outputs["default"].acked, 10);
    end(&cluster).await;
}

#[tokio::test]
async fn many_ackers_share_the_trees() {
    let feeder = Feeder::new();
    let mut builder = pipeline(&feeder, || branching(3));
    builder.config(TopologyConfig { ackers: 4, ..TopologyConfig::default() });
    let cluster = run(&builder);
    for first in (0..1_000).step_by(10) {
        feeder.feed_rows(numbers(first..first + 10), MessageIds::From(first as u64));
    }
    until("acks", || feeder.look().acked.len() == 1_000).await;
    assert_eq!(feeder.acks(), (0..1_000).collect::<Vec<_>>());
    end(&cluster).await;
}

#[tokio::test]
async fn tuples_that_nobody_listens_to_are_acked_at_once() {
    let feeder = Feeder::new();
    let mut builder = TopologyBuilder::new();
    builder.set_spout("spout", feeder.spout(), 1);
    let cluster = run(&builder);
    feeder.feed(7);
    until("an ack", || feeder.look().acked == [7]).await;
    end(&cluster).await;
}

#[tokio::test]
async fn a_tuple_that_is_let_go_fails_at_once() {
    let feeder = Feeder::new();
    // Acks the even ones and forgets the others.
    let cluster = run(&pipeline(&feeder, || {
        bolt(|input, out| {
            let even: Vec<u32> = (0..input.len() as u32).filter(|row| row % 2 == 0).collect();
            out.ack_rows(&input, &even);
            Box::pin(async { Ok(()) })
        })
    }));
    feeder.feed_rows(numbers(0..6), MessageIds::From(0));
    until("failures", || feeder.look().failed.len() == 3).await;
    until("acks", || feeder.look().acked.len() == 3).await;
    assert_eq!(feeder.acks(), [0, 2, 4]);
    let dropped = FailReason::Dropped;
    assert_eq!(feeder.failures(), [(1, dropped.clone()), (3, dropped.clone()), (5, dropped)]);
    end(&cluster).await;
}

#[tokio::test]
async fn the_first_word_about_a_tuple_counts() {
    let feeder = Feeder::new();
    let cluster = run(&pipeline(&feeder, || {
        bolt(|input, out| {
            // Row 0 twice acked, row 1 acked and failed, row 2 failed and acked, row 3 both by their parts.
            out.ack_rows(&input, &[0, 0, 1, 3]);
            out.fail_rows(&input, &[1, 2], "too late, or not");
            out.ack(&input);
            out.ack_tuple(input.tuple(3));
            out.fail(&input, "too late");
            Box::pin(async { Ok(()) })
        })
    }));
    feeder.feed_rows(numbers(0..4), MessageIds::From(0));
    until("an end", || feeder.told() == 4).await;
    assert_eq!(feeder.acks(), [0, 1, 3]);
    assert_eq!(feeder.failures(), [(2, because("too late, or not"))]);
    let metrics = cluster.metrics(NAME).unwrap();
    let input = &metrics.components["bolt"].inputs[&("spout".to_owned(), "default".to_owned())];
    assert_eq!((input.acked, input.failed), (3, 1));
    end(&cluster).await;
}

#[tokio::test]
async fn held_tuples_are_acked_in_a_later_call() {
    let feeder = Feeder::new();
    let held: Arc<Mutex<Vec<Tuples>>> = Arc::default();
    let holding = Arc::clone(&held);
    // Holds everything until a tuple of 100 or more comes.
    let cluster = run(&pipeline(&feeder, move || {
        let held = Arc::clone(&holding);
        bolt(move |input, out| {
            let last = values(input.rows()).iter().any(|n| *n >= 100);
            let mut held = held.lock().unwrap();
            // Held once as a compact copy and once by its rows, which must not count twice.
            held.push(input.take(&[0]).unwrap());
            held.push(input.compact().unwrap());
            if last {
                held.drain(..).for_each(|tuples| out.ack(&tuples));
            }
            Box::pin(async { Ok(()) })
        })
    }));
    feeder.feed_rows(numbers(0..5), MessageIds::From(0));
    settled(&cluster).await;
    feeder.feed_rows(numbers(5..7), MessageIds::From(5));
    settled(&cluster).await;
    assert_eq!(feeder.acks(), NOTHING);
    feeder.feed(100);
    until("acks", || feeder.look().acked.len() == 8).await;
    assert_eq!(feeder.acks(), [0, 1, 2, 3, 4, 5, 6, 100]);
    assert_eq!(feeder.failures(), []);
    end(&cluster).await;
}

#[tokio::test]
async fn a_part_that_was_taken_is_settled_by_itself() {
    let feeder = Feeder::new();
    let cluster = run(&pipeline(&feeder, || {
        bolt(|input, out| {
            let part = input.take(&[3, 1]).unwrap();
            assert_eq!(values(part.rows()), [3, 1]);
            let part_of_part = part.take(&[1]).unwrap();
            assert_eq!(values(part_of_part.rows()), [1]);
            out.fail(&part_of_part, "by itself");
            out.ack_rows(&part, &[0]);
            out.ack_rows(&input, &[0, 2]);
            Box::pin(async { Ok(()) })
        })
    }));
    feeder.feed_rows(numbers(0..4), MessageIds::From(0));
    until("an end", || feeder.told() == 4).await;
    assert_eq!(feeder.acks(), [0, 2, 3]);
    assert_eq!(feeder.failures(), [(1, because("by itself"))]);
    end(&cluster).await;
}

#[tokio::test]
async fn a_failure_reaches_the_spout_of_each_root_and_only_those() {
    let feeders = [Feeder::new(), Feeder::new()];
    let mut builder = TopologyBuilder::new();
    builder.set_spout("a", feeders[0].spout(), 1);
    builder.set_spout("b", feeders[1].spout(), 1);
    builder.set_bolt("join", || aggregating(2, Way::Every), 1).shuffle_grouping("a").shuffle_grouping("b");
    let failing = || {
        bolt(|input, out| {
            out.fail(&input, "no");
            Box::pin(async { Ok(()) })
        })
    };
    builder.set_bolt("failing", failing, 1).shuffle_grouping("join");
    let cluster = run(&builder);
    feeders[0].feed(1);
    settled(&cluster).await;
    feeders[1].feed(2);
    settled(&cluster).await;
    feeders[1].feed(3);
    settled(&cluster).await;
    assert_eq!(feeders[0].failures(), [(1, because("no"))]);
    assert_eq!(feeders[1].failures(), [(2, because("no"))]);
    feeders[0].feed(4);
    settled(&cluster).await;
    assert_eq!(feeders[0].failures(), [(4, because("no"))]);
    assert_eq!(feeders[1].failures(), [(3, because("no"))]);
    assert!(feeders.iter().all(|feeder| feeder.acks().is_empty()));
    end(&cluster).await;
}
