//! Emissions that go wrong: nothing of them leaves, nobody waits for what was never sent, and nothing is acked that
//! was lost.

mod of_spouts;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use arrow::{
    array::{RecordBatch, RecordBatchOptions},
    datatypes::DataType,
};

use crate::kit::*;
use stratus_topology::*;

/// Sends everything to the first task, except what it refuses or panics at.
#[derive(Clone, Copy)]
struct Picky;

const REFUSED: i64 = 13;
const PANICS: i64 = 14;

impl CustomGrouping for Picky {
    fn choose_tasks(&mut self, rows: &RecordBatch, choice: &mut TaskChoice) -> Result<(), TaskError> {
        for (row, n) in values(rows).into_iter().enumerate() {
            match n {
                REFUSED => return Err("thirteen".into()),
                PANICS => panic!("fourteen"),
                _ => choice.send(row, 0),
            }
        }
        Ok(())
    }
}

fn picky() -> Grouping {
    Grouping::custom(|| Picky)
}

/// A spout, a bolt, and behind it a bolt that takes everything and one with a picky grouping.
fn builder<F>(feeder: &Feeder, make: F) -> (TopologyBuilder, Arc<Mutex<Vec<i64>>>)
where
    F: Fn() -> FnBolt + Send + Sync + 'static,
{
    let mut builder = TopologyBuilder::new();
    builder.set_spout("spout", feeder.spout(), 1);
    builder.set_bolt("bolt", make, 1).shuffle_grouping("spout");
    let (seen, seeing) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
    let see = |seen: &Arc<Mutex<Vec<i64>>>| {
        let seen = Arc::clone(seen);
        move || {
            let seen = Arc::clone(&seen);
            sink(move |input| seen.lock().unwrap().extend(values(input.rows())))
        }
    };
    builder.set_bolt("all", see(&seen), 1).shuffle_grouping("bolt");
    builder.set_bolt("picky", see(&seeing), 1).input("bolt", picky());
    (builder, seen)
}

/// Copies its input and takes no notice of errors.
fn careless() -> FnBolt {
    bolt(|input, out| {
        Box::pin(async move {
            let _ = out.emit(DEFAULT_STREAM, input.rows().clone(), Anchors::Same(&input)).await;
            out.ack(&input);
            Ok(())
        })
    })
}

#[tokio::test]
async fn what_could_not_be_emitted_is_no_part_of_the_tree() {
    let feeder = Feeder::new();
    let (builder, seen) = builder(&feeder, careless);
    let cluster = run(&builder);
    feeder.feed(REFUSED as u64);
    until("an ack", || feeder.told() == 1).await;
    assert_eq!(feeder.acks(), [13]);
    assert!(seen.lock().unwrap().is_empty(), "nothing of it was emitted");
    let output = &cluster.metrics(NAME).unwrap().components["bolt"].outputs[DEFAULT_STREAM];
    assert_eq!((output.emitted, output.transferred), (0, 0));
    end(&cluster).await;
}

#[tokio::test]
async fn a_large_batch_leaves_as_a_whole_or_not_at_all() {
    let feeder = Feeder::new();
    let (mut builder, seen) = builder(&feeder, careless);
    builder.config(TopologyConfig { batch_rows: 4, ..TopologyConfig::default() });
    let cluster = run(&builder);
    // The last of four pieces is refused; the spout's pieces come to the bolt one by one.
    feeder.feed_rows(numbers((0..10).chain([REFUSED])), MessageIds::From(0));
    until("acks", || feeder.told() == 11).await;
    assert_eq!(feeder.acks(), (0..11).collect::<Vec<_>>());
    settled(&cluster).await;
    assert_eq!(*seen.lock().unwrap(), (0..8).collect::<Vec<_>>());
    end(&cluster).await;
}

/// Emits single tuples, and something to another stream behind them, whose errors it takes for its own.
fn single(catching: bool) -> FnBolt {
    let emitting = bolt(move |input: Tuples, out| {
        Box::pin(async move {
            for tuple in input.iter() {
                out.emit_tuple(DEFAULT_STREAM, (tuple.get::<i64>(0)?,), &[tuple]).await?;
            }
            let sent = out.emit("other", input.rows().clone(), Anchors::Same(&input)).await;
            if !catching {
                sent?;
            }
            out.ack(&input);
            Ok(())
        })
    });
    emitting.stream("other", number())
}

#[tokio::test]
async fn a_single_tuple_that_is_lost_later_fails_what_it_comes_from() {
    for catching in [false, true] {
        let feeder = Feeder::new();
        let (builder, seen) = builder(&feeder, move || single(catching));
        let cluster = run(&builder);
        feeder.feed_rows(numbers([1, REFUSED]), MessageIds::From(12));
        until("an end", || feeder.told() == 2).await;
        let failures = feeder.failures();
        assert_eq!(
            failures.iter().map(|(id, _)| *id).collect::<Vec<_>>(),
            [12, 13],
            "both were in one batch"
        );
        assert!(failures[1].1.to_string().contains("thirteen"), "{}", failures[1].1);
        assert!(seen.lock().unwrap().is_empty());
        end(&cluster).await;
    }
}

/// Holds a tuple, emits for it at the end of a later call, and acks it after that.
#[tokio::test]
async fn a_lost_tuple_also_fails_an_anchor_of_an_earlier_call() {
    let feeder = Feeder::new();
    let (builder, _) = builder(&feeder, || {
        let mut held: Vec<Tuples> = Vec::new();
        bolt(move |input, out| {
            let n = values(input.rows())[0];
            let kept = std::mem::take(&mut held);
            match n {
                0 => held.push(input.clone()),
                1 => held.extend(kept.iter().cloned()),
                _ => {}
            }
            Box::pin(async move {
                for tuples in &kept {
                    match n {
                        1 => out.emit_tuple(DEFAULT_STREAM, (REFUSED,), &[tuples.tuple(0)]).await?,
                        _ => out.ack(tuples),
                    }
                }
                if n != 0 {
                    out.ack(&input);
                }
                Ok(())
            })
        })
    });
    let cluster = run(&builder);
    for n in 0..3 {
        feeder.feed(n);
        settled(&cluster).await;
    }
    let failed: Vec<MessageId> = feeder.failures().into_iter().map(|(id, _)| id).collect();
    assert_eq!(failed, [0, 1]);
    assert_eq!(feeder.acks(), [2]);
    end(&cluster).await;
}

#[tokio::test]
async fn a_grouping_that_panics_does_not_end_the_topology() {
    for by_batch in [true, false] {
        let feeder = Feeder::new();
        let (builder, _) = builder(&feeder, move || {
            bolt(move |input, out| {
                Box::pin(async move {
                    if by_batch {
                        out.emit(DEFAULT_STREAM, input.rows().clone(), Anchors::Same(&input)).await?;
                    } else {
                        for tuple in input.iter() {
                            out.emit_tuple(DEFAULT_STREAM, (tuple.get::<i64>(0)?,), &[tuple]).await?;
                        }
                    }
                    out.ack(&input);
                    Ok(())
                })
            })
        });
        let cluster = run(&builder);
        feeder.feed(PANICS as u64);
        until("a failure", || feeder.told() == 1).await;
        assert_eq!(feeder.failures(), [(14, because("bolt `bolt` panicked: fourteen"))]);
        feeder.feed(1);
        until("an ack", || feeder.told() == 1).await;
        assert_eq!(feeder.acks(), [1]);
        assert_eq!(cluster.metrics(NAME).unwrap().components["bolt"].panics, 1);
        end(&cluster).await;
    }
}

/// Emits each number to two streams, and to one more on every tick, before an error.
struct Two;

impl BasicBolt for Two {
    fn declare_output_fields(&self, declarer: &mut OutputFieldsDeclarer) {
        declarer.declare(number());
        declarer.declare_stream("second", number());
    }

    fn configuration(&self) -> ComponentConfig {
        ComponentConfig { tick: Some(Duration::from_secs(1)), ..ComponentConfig::default() }
    }

    fn execute(&mut self, tuple: Tuple<'_>, out: &mut BasicOutputCollector<'_>) -> Result<(), TaskError> {
        let n: i64 = tuple.get(0)?;
        out.emit((n,))?;
        out.emit_to("second", (n,))?;
        Ok(())
    }

    fn tick(&mut self, out: &mut BasicOutputCollector<'_>) -> Result<(), TaskError> {
        out.emit_to("second", (-1_i64,))?;
        Err("a bad tick".into())
    }
}

/// What a failed call leaves behind does not come out in the next one, anchored to other tuples.
#[tokio::test]
async fn a_basic_bolts_tuples_do_not_outlive_their_call() {
    let feeder = Feeder::new();
    let second: Arc<Mutex<Vec<i64>>> = Arc::default();
    let seeing = Arc::clone(&second);
    let mut builder = TopologyBuilder::new();
    builder.set_spout("spout", feeder.spout(), 1);
    builder.set_bolt("two", || PerTuple::new(Two), 1).shuffle_grouping("spout");
    builder.set_bolt("picky", || sink(|_| ()), 1).input("two", picky());
    let see = move || {
        let seeing = Arc::clone(&seeing);
        // Fails what it gets from a tick, which must reach nobody.
        bolt(move |input, out| {
            let seen = values(input.rows());
            seeing.lock().unwrap().extend(&seen);
            let bad: Vec<u32> = (0..seen.len() as u32).filter(|row| seen[*row as usize] < 0).collect();
            out.fail_rows(&input, &bad, "from a tick");
            out.ack(&input);
            Box::pin(async { Ok(()) })
        })
    };
    builder.set_bolt("see", see, 1).input_stream("two", "second", Grouping::Shuffle);
    let (cluster, hand) = run_by_hand(&builder);
    feeder.feed_rows(numbers([1, REFUSED, 3]), MessageIds::From(100));
    until("failures", || feeder.told() == 3).await;
    assert_eq!(feeder.failures().len(), 3);
    feeder.feed(5);
    until("an ack", || feeder.told() == 1).await;
    assert_eq!(feeder.acks(), [5]);
    assert_eq!(*second.lock().unwrap(), [5]);
    hand.advance(Duration::from_secs(2));
    until("a tick", || cluster.metrics(NAME).unwrap().components["two"].errors == 2).await;
    feeder.feed(6);
    until("an ack", || feeder.told() == 1).await;
    assert_eq!(feeder.acks(), [6]);
    assert_eq!(*second.lock().unwrap(), [5, -1, 6], "what a tick emitted before its error stays emitted");
    end(&cluster).await;
}

/// Signals: a stream whose tuples are all alike.
#[tokio::test]
async fn a_stream_may_have_no_fields() {
    let nothing = |rows: usize| {
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(fields([]), vec![], &options).unwrap()
    };
    let feeder = Feeder::of(fields([]));
    let (seen, seeing) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counting = Arc::clone(&seen);
    let mut builder = TopologyBuilder::new();
    builder.set_spout("spout", feeder.spout(), 1);
    let count = move || {
        let seen = Arc::clone(&counting);
        bolt(move |input, out| {
            seen.fetch_add(input.len(), SeqCst);
            let part = input.take(&[0]).unwrap();
            assert_eq!(part.len(), 1);
            out.ack(&part);
            out.ack(&input.compact().unwrap());
            Box::pin(async { Ok(()) })
        })
    };
    builder.set_bolt("count", count, 7).shuffle_grouping("spout");
    let other = move || {
        let seen = Arc::clone(&seeing);
        sink(move |input| {
            seen.fetch_add(input.len(), SeqCst);
        })
    };
    builder.set_bolt("global", other, 2).global_grouping("spout");
    let cluster = run(&builder);
    (0..5).for_each(|n| feeder.feed_rows(nothing(1), MessageIds::From(n)));
    feeder.feed_rows(nothing(1_000), MessageIds::From(5));
    until("acks", || feeder.told() == 1_005).await;
    assert_eq!(feeder.acks().len(), 1_005);
    assert_eq!(seen.load(SeqCst), 1_005);
    end(&cluster).await;
}

#[tokio::test]
async fn emissions_that_do_not_fit_are_refused_and_say_why() {
    let feeder = Feeder::new();
    let errors: Arc<Mutex<Vec<String>>> = Arc::default();
    let saying = Arc::clone(&errors);
    let mut builder = TopologyBuilder::new();
    builder.set_spout("spout", feeder.spout(), 1);
    let wrong = move || {
        let errors = Arc::clone(&saying);
        let wrong = bolt(move |input: Tuples, out| {
            let errors = Arc::clone(&errors);
            Box::pin(async move {
                let rows = input.rows().clone();
                let other = RecordBatch::new_empty(fields([("word", DataType::Utf8)]));
                let results = [
                    out.emit("nowhere", rows.clone(), Anchors::None).await,
                    out.emit(DEFAULT_STREAM, other, Anchors::None).await,
                    out.emit(DEFAULT_STREAM, rows.clone(), Anchors::Rows(&input, &[])).await,
                    out.emit("direct", rows.clone(), Anchors::None).await,
                    out.emit_direct(1, DEFAULT_STREAM, rows.clone(), Anchors::None).await,
                    out.emit_direct(99, "direct", rows, Anchors::None).await,
                    out.emit_tuple(DEFAULT_STREAM, ("a",), &[]).await,
                ];
                errors.lock().unwrap().extend(results.map(|result| result.unwrap_err().to_string()));
                out.ack(&input);
                Ok(())
            })
        });
        wrong.direct_stream("direct", number())
    };
    builder.set_bolt("bolt", wrong, 1).shuffle_grouping("spout");
    builder.set_bolt("end", || sink(|_| ()), 1).shuffle_grouping("bolt").direct_grouping("bolt", "direct");
    let cluster = run(&builder);
    feeder.feed(1);
    until("an ack", || feeder.told() == 1).await;
    assert_eq!(feeder.acks(), [1]);
    let expected = [
        "component `bolt` emits to stream `nowhere`, but declares only __system, default, direct",
        "rows for stream `bolt.default` have (word: Utf8), but (n: Int64) is declared",
        "1 rows for stream `bolt.default` came with 0 anchors: there must be one for each",
        "stream `bolt.direct` is direct: use emit_direct with the receiving task",
        "stream `bolt.default` is not direct: use emit",
        "task 99 does not listen to stream `bolt.direct`",
    ];
    let errors = errors.lock().unwrap().clone();
    assert_eq!(errors[..6], expected);
    assert!(errors[6].starts_with("a tuple for stream `bolt.default`: field `n`"), "{}", errors[6]);
    end(&cluster).await;
}

/// A bolt may give up an emission that takes too long. What had not left yet is lost, so its trees fail.
#[tokio::test]
async fn an_emission_that_is_given_up_fails_what_has_not_left() {
    let feeder = Feeder::new();
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let waiting = Arc::clone(&gate);
    let mut builder = TopologyBuilder::new();
    builder.config(TopologyConfig { queue_rows: 2, ..TopologyConfig::default() });
    builder.set_spout("spout", feeder.spout(), 1);
    let hasty = || {
        bolt(|input, out| {
            Box::pin(async move {
                let emission = out.emit(DEFAULT_STREAM, input.rows().clone(), Anchors::Same(&input));
                let _ = tokio::time::timeout(Duration::from_millis(20), emission).await;
                out.ack(&input);
                Ok(())
            })
        })
    };
    builder.set_bolt("hasty", hasty, 1).shuffle_grouping("spout");
    let gated = move || {
        let gate = Arc::clone(&waiting);
        bolt(move |input, out| {
            let gate = Arc::clone(&gate);
            Box::pin(async move {
                let _permit = gate.acquire().await?;
                out.ack(&input);
                Ok(())
            })
        })
    };
    builder.set_bolt("gated", gated, 1).shuffle_grouping("hasty");
    let cluster = run(&builder);
    (0..10).for_each(|n| feeder.feed(n));
    until("failures", || feeder.told() > 0).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    gate.add_permits(1);
    until("an end", || feeder.told() == 10).await;
    let failures = feeder.failures();
    assert!(failures.iter().all(|(_, reason)| *reason == FailReason::Dropped), "{failures:?}");
    assert_eq!(feeder.acks().len() + failures.len(), 10);
    end(&cluster).await;
}
