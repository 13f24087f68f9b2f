//! Which task receives which tuple.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use arrow::{
    array::{
        ArrayRef, AsArray, BinaryArray, DictionaryArray, Int32Array, RecordBatch, StringArray,
        StringViewArray,
    },
    datatypes::{DataType, Int32Type},
};
use async_trait::async_trait;

use crate::kit::*;
use stratus_topology::*;

/// What each task of a bolt received, in order: by the task's place.
type Received<T> = Arc<Mutex<BTreeMap<usize, Vec<T>>>>;

/// A bolt that writes down what each of its tasks receives.
struct Recorder<T> {
    read: fn(&Tuples) -> Vec<T>,
    received: Received<T>,
    task: usize,
}

#[async_trait]
impl<T: Send + 'static> Bolt for Recorder<T> {
    async fn prepare(&mut self, context: &TaskContext) -> Result<(), TaskError> {
        self.task = context.task_index();
        Ok(())
    }

    async fn execute(&mut self, input: Tuples, out: &mut OutputCollector) -> Result<(), TaskError> {
        let rows = (self.read)(&input);
        self.received.lock().unwrap().entry(self.task).or_default().extend(rows);
        out.ack(&input);
        Ok(())
    }
}

fn recorder<T: Send + 'static>(
    received: &Received<T>,
    read: fn(&Tuples) -> Vec<T>,
) -> impl Fn() -> Recorder<T> + Send + Sync + 'static {
    let received = Arc::clone(received);
    move || Recorder { read, received: Arc::clone(&received), task: 0 }
}

/// Runs batches of numbers through a grouping to so many tasks and executors.
async fn received_by(
    grouping: Grouping,
    (executors, tasks): (usize, usize),
    batches: impl IntoIterator<Item = RecordBatch>,
) -> BTreeMap<usize, Vec<i64>> {
    let (feeder, received) = (Feeder::new(), Received::default());
    let mut rows = 0;
    for batch in batches {
        let ids = MessageIds::From(rows as u64);
        rows += batch.num_rows();
        feeder.feed_rows(batch, ids);
    }
    let mut builder = TopologyBuilder::new();
    builder.set_spout("spout", feeder.spout(), 1);
    let read = recorder(&received, |input| values(input.rows()));
    builder.set_bolt("bolt", read, executors).set_num_tasks(tasks).input("spout", grouping);
    let cluster = run(&builder);
    until("acks", || feeder.told() == rows).await;
    assert!(feeder.failures().is_empty());
    end(&cluster).await;
    received.lock().unwrap().clone()
}

/// Storm's `GroupingIntegrationTest.testShuffle`, and more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shuffle_is_even() {
    let sizes: [&dyn Fn(usize) -> usize; 4] = [&|_| 1, &|_| 4_096, &|n| 1 + n * 7919 % 200, &|_| 100_000];
    for grouping in [Grouping::Shuffle, Grouping::LocalOrShuffle, Grouping::None] {
        // These two are the same here, by other names.
        let ways = if matches!(grouping, Grouping::Shuffle) { &sizes[..] } else { &sizes[2..3] };
        for (way, size) in ways.iter().enumerate() {
            let (mut batches, mut rows) = (Vec::new(), 0);
            while rows < 100_000 {
                let size = size(batches.len()).min(100_000 - rows);
                batches.push(numbers((rows..rows + size).map(|n| n as i64)));
                rows += size;
            }
            let received = received_by(grouping.clone(), (2, 2), batches).await;
            let counts: Vec<usize> = received.values().map(Vec::len).collect();
            assert_eq!(counts.iter().sum::<usize>(), 100_000);
            assert!(
                counts.iter().all(|count| (49_000..=51_000).contains(count)),
                "{grouping:?} of {way}: {counts:?}"
            );
            let all: BTreeSet<i64> = received.into_values().flatten().collect();
            assert_eq!(all.len(), 100_000, "each once");
        }
    }
}

/// Storm's `GroupingIntegrationTest.testFieldsGrouping`: on byte arrays, whose values count and not their identity.
#[tokio::test]
async fn fields_grouping_goes_by_the_bytes_of_a_value() {
    let schema = fields([("word", DataType::Binary)]);
    let words: Vec<Vec<u8>> = (0..50_u8).map(|n| vec![n, 0, n.wrapping_mul(31), 255]).collect();
    let feeder = Feeder::of(Arc::clone(&schema));
    for round in 0..24_u64 {
        let column: ArrayRef = Arc::new(BinaryArray::from_iter_values(&words));
        let rows = RecordBatch::try_new(Arc::clone(&schema), vec![column]).unwrap();
        feeder.feed_rows(rows, MessageIds::From(round * 50));
    }
    let counts: Received<(Vec<u8>, u64)> = Received::default();
    let mut builder = TopologyBuilder::new();
    builder.set_spout("spout", feeder.spout(), 1);
    // Each task counts by itself: a word that came to two tasks would have two first ones.
    let counting = {
        let counts = Arc::clone(&counts);
        move || {
            let (counts, mut own) = (Arc::clone(&counts), BTreeMap::<Vec<u8>, u64>::new());
            sink(move |input| {
                for word in input.rows().column(0).as_binary::<i32>().iter().flatten() {
                    let count = own.entry(word.to_vec()).or_default();
                    *count += 1;
                    counts.lock().unwrap().entry(0).or_default().push((word.to_vec(), *count));
                }
            })
        }
    };
    builder.set_bolt("count", counting, 6).fields_grouping("spout", &["word"]);
    let cluster = run(&builder);
    until("acks", || feeder.told() == 24 * 50).await;
    end(&cluster).await;
    let mut by_word: BTreeMap<Vec<u8>, Vec<u64>> = BTreeMap::new();
    for (word, count) in counts.lock().unwrap().remove(&0).unwrap() {
        by_word.entry(word).or_default().push(count);
    }
    assert_eq!(by_word.len(), 50);
    for counts in by_word.values() {
        assert_eq!(*counts, (1..=24).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn equal_keys_of_two_streams_meet_whatever_their_encoding() {
    let words: Vec<String> =
        (0..200).map(|n| format!("word {n}, which is longer than twelve bytes")).collect();
    let dictionary = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    let columns: [(&str, DataType, ArrayRef); 3] = [
        ("plain", DataType::Utf8, Arc::new(StringArray::from_iter_values(&words))),
        ("view", DataType::Utf8View, Arc::new(StringViewArray::from_iter_values(&words))),
        ("dictionary", dictionary, {
            let reversed: ArrayRef = Arc::new(StringArray::from_iter_values(words.iter().rev()));
            let keys = Int32Array::from_iter_values((0..200).rev());
            Arc::new(DictionaryArray::<Int32Type>::new(keys, reversed))
        }),
    ];
    let received: Received<String> = Received::default();
    let read = recorder(&received, |input| {
        let column = input.rows().column(0);
        let words = arrow::compute::cast(column, &DataType::Utf8).unwrap();
        words.as_string::<i32>().iter().flatten().map(str::to_owned).collect()
    });
    let mut builder = TopologyBuilder::new();
    let mut feeders = Vec::new();
    for (name, kind, column) in columns {
        let schema = fields([("word", kind)]);
        let feeder = Feeder::of(Arc::clone(&schema));
        feeder.feed_rows(RecordBatch::try_new(schema, vec![column]).unwrap(), MessageIds::From(0));
        builder.set_spout(name, feeder.spout(), 1);
        feeders.push(feeder);
    }
    let bolt = builder.set_bolt("bolt", read, 5);
    let bolt = bolt.fields_grouping("plain", &["word"]).fields_grouping("view", &["word"]);
    bolt.fields_grouping("dictionary", &["word"]);
    let cluster = run(&builder);
    until("acks", || feeders.iter().all(|feeder| feeder.told() == 200)).await;
    end(&cluster).await;
    let received = received.lock().unwrap();
    assert_eq!(received.len(), 5, "every task has some");
    let mut task_of: BTreeMap<&String, usize> = BTreeMap::new();
    for (task, words) in received.iter() {
        for word in words {
            assert_eq!(task_of.insert(word, *task).unwrap_or(*task), *task, "{word}");
        }
    }
    assert_eq!(task_of.len(), 200);
    assert_eq!(received.values().map(Vec::len).sum::<usize>(), 600);
}

/// Storm's `testMultiTasksPerCluster`.
#[tokio::test]
async fn an_all_grouping_reaches_every_task_of_every_executor() {
    let received = received_by(Grouping::All, (3, 6), [numbers(0..100), numbers([100])]).await;
    assert_eq!(received.keys().copied().collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5]);
    assert!(received.values().all(|values| *values == (0..101).collect::<Vec<_>>()));
}

#[tokio::test]
async fn a_global_grouping_reaches_the_lowest_task_alone() {
    let received = received_by(Grouping::Global, (3, 6), [numbers(0..100), numbers([100])]).await;
    assert_eq!(received, BTreeMap::from([(0, (0..101).collect())]));
}

#[tokio::test]
async fn partial_keys_go_to_two_tasks_each_and_evenly() {
    // One key is half of everything: by fields grouping, one task of eight would have half.
    let key = |n: i64| if n % 2 == 0 { 0 } else { n % 97 };
    let batches: Vec<RecordBatch> =
        (0..100).map(|batch| numbers((0..100).map(|row| key(batch * 100 + row)))).collect();
    let received = received_by(Grouping::partial_key(&["n"]), (4, 8), batches).await;
    let mut tasks_of: BTreeMap<i64, BTreeMap<usize, usize>> = BTreeMap::new();
    for (task, values) in &received {
        for value in values {
            *tasks_of.entry(*value).or_default().entry(*task).or_default() += 1;
        }
    }
    assert!(tasks_of.values().all(|tasks| tasks.len() <= 2), "{tasks_of:?}");
    let heavy = &tasks_of[&0];
    assert!(heavy.len() == 2 && heavy.values().all(|count| (2_300..2_800).contains(count)), "{heavy:?}");
    assert_eq!(received.values().map(Vec::len).sum::<usize>(), 10_000);
    assert!(tasks_of.values().filter(|tasks| tasks.len() == 2).count() > 10);
}

/// Storm's `NGrouping`: everything to the first n tasks.
struct First(usize);

impl CustomGrouping for First {
    fn prepare(&mut self, context: &GroupingContext) {
        assert_eq!(context.stream.to_string(), "spout.default");
        assert_eq!(context.targets.len(), 4);
        assert!(context.from > 0 && !context.targets.contains(&context.from));
    }

    fn choose_tasks(&mut self, rows: &RecordBatch, choice: &mut TaskChoice) -> Result<(), TaskError> {
        for row in 0..rows.num_rows() {
            (0..self.0).for_each(|target| choice.send(row, target));
        }
        Ok(())
    }
}

#[tokio::test]
async fn a_custom_grouping_sends_a_tuple_to_several_tasks() {
    for fan_out in [2, 3] {
        let received =
            received_by(Grouping::custom(move || First(fan_out)), (2, 4), [numbers(0..50), numbers([50])])
                .await;
        assert_eq!(received.keys().copied().collect::<Vec<_>>(), (0..fan_out).collect::<Vec<_>>());
        assert!(received.values().all(|values| *values == (0..51).collect::<Vec<_>>()));
    }
    // To nobody: done at once.
    assert_eq!(received_by(Grouping::custom(|| First(0)), (1, 4), [numbers(0..50)]).await, BTreeMap::new());
}

/// Sends each number to the task that it names, on a direct stream.
struct Sorter {
    targets: Vec<TaskId>,
}

#[async_trait]
impl Bolt for Sorter {
    fn declare_output_fields(&self, declarer: &mut OutputFieldsDeclarer) {
        declarer.declare_direct_stream("sorted", number());
    }

    async fn prepare(&mut self, context: &TaskContext) -> Result<(), TaskError> {
        self.targets = context.component_tasks("bolt").to_vec();
        Ok(())
    }

    async fn execute(&mut self, input: Tuples, out: &mut OutputCollector) -> Result<(), TaskError> {
        for (row, n) in values(input.rows()).into_iter().enumerate() {
            let task = self.targets[n as usize % self.targets.len()];
            let rows = [row as u32];
            out.emit_direct(task, "sorted", numbers([n]), Anchors::Rows(&input, &rows)).await?;
        }
        out.ack(&input);
        Ok(())
    }
}

#[tokio::test]
async fn a_direct_grouping_goes_where_the_emitter_says() {
    let (feeder, received) = (Feeder::new(), Received::default());
    let mut builder = TopologyBuilder::new();
    builder.set_spout("spout", feeder.spout(), 1);
    builder.set_bolt("sort", || Sorter { targets: Vec::new() }, 2).shuffle_grouping("spout");
    let read = recorder(&received, |input| values(input.rows()));
    builder.set_bolt("bolt", read, 3).direct_grouping("sort", "sorted");
    let cluster = run(&builder);
    feeder.feed_rows(numbers(0..300), MessageIds::From(0));
    until("acks", || feeder.told() == 300).await;
    end(&cluster).await;
    for (task, values) in received.lock().unwrap().iter() {
        assert_eq!(values.len(), 100);
        assert!(values.iter().all(|n| *n as usize % 3 == *task));
    }
}
