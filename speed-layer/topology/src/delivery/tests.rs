use std::collections::BTreeMap;

use fastrand::Rng;
use tokio::sync::mpsc;

use super::*;
use crate::{
    acker::AckMessage,
    anchors::{Anchors, Origin, lineage},
    grouping::Selection,
    lineage::LineageChain,
    tuples::Tuples,
};

/// What the ackers were told of each root, in order: acks with their values, and failures.
type Told = BTreeMap<(u64, u32), Vec<Option<u64>>>;

struct Batch {
    delivery: Delivery,
    messages: mpsc::UnboundedReceiver<AckMessage>,
}

/// A batch of one row of each of so many root batches; the edge of row n is n + 1.
fn received(rows: usize) -> Batch {
    let mut chain = LineageChain::default();
    for row in 0..rows {
        let batches = Arc::from([RootBatch { task: 0, number: row as u64 }]);
        let edges = vec![Edge { batch: 0, root: 5, id: row as u64 + 1 }];
        chain.push(&Lineage { batches, edges, starts: None }, 1);
    }
    let (sender, messages) = mpsc::unbounded_channel();
    let stream = Arc::new(StreamRef { component: "a".to_owned(), stream: "b".to_owned() });
    let (ackers, senders) = (Ackers::new(vec![sender]), vec![(rows, 7)]);
    let delivery = Delivery::new(stream, senders, rows, chain.finish(), None, ackers, Arc::default());
    Batch { delivery, messages }
}

impl Batch {
    fn ack(delivery: &Delivery, positions: Option<&[u32]>) {
        let mut acks = ByBatch::default();
        delivery.ack(positions, &mut acks);
        delivery.received.ackers.ack(acks);
    }

    fn told(messages: &mut mpsc::UnboundedReceiver<AckMessage>) -> Told {
        let mut told = Told::new();
        while let Ok(message) = messages.try_recv() {
            match message {
                AckMessage::Ack { batch, values } => {
                    for (row, value) in values {
                        told.entry((batch.number, row)).or_default().push(Some(value));
                    }
                }
                AckMessage::Fail { batch, rows, .. } => {
                    rows.iter().for_each(|row| told.entry((batch.number, *row)).or_default().push(None));
                }
                other => panic!("{other:?}"),
            }
        }
        told
    }
}

/// Random claims that come and go, beside a simple account of them.
#[test]
fn each_row_is_settled_once_and_fails_with_its_last_claim() {
    for seed in 0..300 {
        let mut rng = Rng::with_seed(seed);
        let rows = rng.usize(1..120);
        let Batch { delivery, mut messages } = received(rows);
        let mut claims: Vec<(Delivery, Vec<u32>)> = vec![(delivery, (0..rows as u32).collect())];
        let mut emitted = vec![0_u64; rows];
        let mut expected = Told::new();
        let settled = |told: &Told, row: u32| told.contains_key(&(u64::from(row), 5));
        while !claims.is_empty() {
            let at = rng.usize(0..claims.len());
            let (claim, its_rows) = &claims[at];
            let some: Vec<u32> = (0..its_rows.len() as u32).filter(|_| rng.u8(0..4) == 0).collect();
            match rng.u8(0..8) {
                0 | 1 if claims.len() < 12 => {
                    let part = claim.part(&some);
                    let of_part = some.iter().map(|position| its_rows[*position as usize]).collect();
                    claims.push((part, of_part));
                }
                2 | 3 => {
                    for position in &some {
                        let row = its_rows[*position as usize];
                        let id = rng.u64(1_000..);
                        let (given, edges) = {
                            let mut anchors = claim.anchors();
                            let (given, edges) = anchors.grow(*position as usize, || id);
                            (given, edges.to_vec())
                        };
                        assert_eq!(
                            (given, edges.len(), edges[0].id),
                            (id, 1, u64::from(row) + 1),
                            "seed {seed}"
                        );
                        emitted[row as usize] ^= id;
                    }
                }
                4 => {
                    Batch::ack(claim, Some(&some));
                    for row in some.iter().map(|position| its_rows[*position as usize]) {
                        if !settled(&expected, row) {
                            let value = (u64::from(row) + 1) ^ emitted[row as usize];
                            expected.insert((u64::from(row), 5), vec![Some(value)]);
                        }
                    }
                }
                5 => {
                    claim.fail(Some(&some), &FailReason::TimedOut);
                    for row in some.iter().map(|position| its_rows[*position as usize]) {
                        expected.entry((u64::from(row), 5)).or_insert_with(|| vec![None]);
                    }
                }
                6 | 7 => {
                    let (_, its_rows) = claims.swap_remove(at);
                    for row in its_rows {
                        if !claims.iter().any(|(_, rows)| rows.contains(&row)) {
                            expected.entry((u64::from(row), 5)).or_insert_with(|| vec![None]);
                        }
                    }
                }
                _ => {}
            }
            // What was said is expected to be never said again.
            for (root, what) in Batch::told(&mut messages) {
                assert_eq!(expected.insert(root, Vec::new()), Some(what), "seed {seed}: {root:?}");
            }
            assert!(expected.values().all(Vec::is_empty), "seed {seed}: something was not said");
        }
        assert_eq!(expected.len(), rows, "seed {seed}");
    }
}

#[test]
fn what_is_emitted_lists_only_the_root_batches_that_it_comes_from() {
    let Batch { delivery, .. } = received(4_096);
    let rows = arrow::array::RecordBatch::new_empty(crate::declare::fields([]));
    let tuples = Tuples::new(Arc::new(delivery), rows);
    let mut ids = Rng::with_seed(1);
    let chosen = Selection::Rows(vec![4_000, 17, 17, 300].into());
    let from: Vec<u32> = (0..4_096).collect();
    let mut origin = Origin::Anchors(Anchors::Rows(&tuples, &from));
    let found = lineage(&mut origin, 0, 4_096, &chosen, &mut ids);
    let numbers: Vec<u64> = found.batches.iter().map(|batch| batch.number).collect();
    assert_eq!(numbers, [4_000, 17, 300]);
    let roots: Vec<u64> = (0..4).map(|row| numbers[found.of_row(row)[0].batch as usize]).collect();
    assert_eq!(roots, [4_000, 17, 17, 300]);
}

#[test]
fn a_part_knows_who_sent_its_rows_and_keeps_no_others() {
    let Batch { mut delivery, .. } = received(1_000);
    delivery.senders = vec![(10, 1), (20, 2), (1_000, 3)];
    let part = delivery.part(&[19, 9, 500, 3]);
    assert_eq!((0..4).map(|row| part.sender(row)).collect::<Vec<_>>(), [2, 1, 3, 1]);
    let before = part.received.lock().lineage().bytes();
    drop(delivery);
    let after = part.received.lock().lineage().bytes();
    assert!(before > 30_000 && after < 300, "{before} and {after}");
    // Parts of a part, too, when most of it is gone.
    assert_eq!(part.part(&[2]).sender(0), 3);
}
