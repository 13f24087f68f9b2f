//! Which task takes which tuples.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use arrow::datatypes::DataType;
use stratus_topology::{TaskContext, TaskError, fields};
use stratus_trident::{Function, Stream, TridentCollector, TridentTuple};

use crate::pairs::{SOME, of_pairs};

/// Puts the task behind each tuple.
#[derive(Clone, Default)]
struct Place(i64);

impl Function for Place {
    fn prepare(&mut self, context: &TaskContext) -> Result<(), TaskError> {
        self.0 = context.task_index() as i64;
        Ok(())
    }

    fn execute(&mut self, _tuple: TridentTuple<'_>, out: &mut TridentCollector) -> Result<(), TaskError> {
        out.emit((self.0,))
    }
}

fn placed(stream: &Stream) -> Stream {
    stream.each(&[], Place::default(), fields([("task", DataType::Int64)]))
}

/// The tasks of three that take tuples, and the tuples without them.
async fn tasks(
    batches: &[&[(&str, i64)]],
    repartition: impl Fn(&Stream) -> Stream,
) -> (BTreeSet<String>, Vec<String>) {
    let rows = of_pairs(batches, |stream| placed(&repartition(&stream)).parallelism_hint(3)).await;
    let split = rows.iter().map(|row| row.rsplit_once(',').unwrap());
    let (mut tasks, mut tuples) = (BTreeSet::new(), Vec::new());
    for (tuple, task) in split {
        tasks.insert(task.to_owned());
        tuples.push(tuple.to_owned());
    }
    (tasks, tuples)
}

fn texts<const N: usize>(texts: [&str; N]) -> BTreeSet<String> {
    texts.map(str::to_owned).into_iter().collect()
}

#[tokio::test]
async fn shuffling_reaches_every_task_and_loses_nothing() {
    let many: Vec<(&str, i64)> = (0..60).map(|number| ("k", number)).collect();
    let mut all: Vec<String> = many.iter().map(|(key, number)| format!("{key},{number}")).collect();
    all.sort();
    for local in [false, true] {
        let shuffled = |stream: &Stream| if local { stream.local_or_shuffle() } else { stream.shuffle() };
        // What is small travels as a whole, so that it takes several batches to reach everybody.
        let batches: Vec<&[(&str, i64)]> = many.chunks(5).collect();
        let (tasks, mut tuples) = tasks(&batches, shuffled).await;
        tuples.sort();
        assert_eq!((tasks, tuples), (texts(["0", "1", "2"]), all.clone()), "local: {local}");
    }
}

#[tokio::test]
async fn a_batch_as_a_whole_is_on_one_task_and_batches_take_turns() {
    let rows = |rows: Vec<String>| rows;
    let by_batch = |stream: Stream| placed(&stream.parallelism_hint(2).batch_global()).parallelism_hint(3);
    let one = rows(of_pairs(&[SOME], by_batch).await);
    assert_eq!(one, ["a,3,1", "a,5,1", "b,1,1", "b,9,1", "c,2,1"]);
    let (all, tuples) = tasks(&[SOME, SOME, SOME], Stream::batch_global).await;
    assert_eq!((all, tuples.len()), (texts(["0", "1", "2"]), 15));
    let (all, tuples) = tasks(&[SOME, SOME, SOME], Stream::global).await;
    assert_eq!((all, tuples.len()), (texts(["0"]), 15), "all batches are on one task");
}

#[tokio::test]
async fn equal_keys_meet_and_everybody_gets_what_is_broadcast() {
    let by_key = |stream: Stream| placed(&stream.partition_by(&["key"])).parallelism_hint(3);
    let rows = of_pairs(&[SOME, SOME], by_key).await;
    let places: BTreeSet<(&str, &str)> =
        rows.iter().map(|row| (&row[..1], row.rsplit_once(',').unwrap().1)).collect();
    assert_eq!((rows.len(), places.len()), (10, 3), "{places:?}");
    let everywhere = |stream: Stream| placed(&stream.broadcast()).parallelism_hint(3);
    assert_eq!(of_pairs(&[&SOME[..1]], everywhere).await, ["a,3,0", "a,3,1", "a,3,2"]);
}

#[tokio::test]
async fn a_look_sees_every_tuple_and_changes_none() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let looked = Arc::clone(&seen);
    let peeked = |stream: Stream| {
        let looked = Arc::clone(&looked);
        stream.parallelism_hint(2).peek(move |tuple| {
            let pair = (tuple.get::<String>(0).unwrap(), tuple.get_by_name::<i64>("number").unwrap());
            looked.lock().unwrap().push(pair);
        })
    };
    assert_eq!(of_pairs(&[SOME], peeked).await, ["a,3", "a,5", "b,1", "b,9", "c,2"]);
    let mut seen = std::mem::take(&mut *seen.lock().unwrap());
    seen.sort();
    assert_eq!(seen, [("a", 3), ("a", 5), ("b", 1), ("b", 9), ("c", 2)].map(|(k, n)| (k.to_owned(), n)));
}

#[tokio::test]
async fn a_tuple_is_mapped_to_another() {
    let mapped = |stream: Stream| {
        let swapped = |tuple: TridentTuple<'_>, out: &mut TridentCollector| {
            out.emit((tuple.get::<i64>(1)? + 1, tuple.get::<&str>(0)?))
        };
        let schema = fields([("more", DataType::Int64), ("name", DataType::Utf8)]);
        stream.parallelism_hint(2).shuffle().map(swapped, schema).parallelism_hint(2)
    };
    assert_eq!(of_pairs(&[SOME], mapped).await, ["10,b", "2,b", "3,c", "4,a", "6,a"]);
}
