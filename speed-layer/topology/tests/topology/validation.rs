//! Topologies that cannot work are refused, and the text says what is wrong and where.

use std::{sync::Arc, time::Duration};

use arrow::datatypes::{DataType, Field, SchemaRef, UnionFields, UnionMode};
use async_trait::async_trait;

use crate::kit::*;
use stratus_topology::*;

/// A spout "spout" of fields n and list, and a direct stream, and what a test adds.
#[allow(clippy::result_large_err)]
fn built(add: impl FnOnce(&mut TopologyBuilder)) -> Result<Topology, TopologyError> {
    let mut builder = TopologyBuilder::new();
    builder.set_spout("spout", || Declaring(vec![("default", schema(), false), ("to", schema(), true)]), 1);
    add(&mut builder);
    builder.build()
}

fn refusal(add: impl FnOnce(&mut TopologyBuilder)) -> String {
    built(add).unwrap_err().to_string()
}

fn schema() -> SchemaRef {
    let kinds = [Field::new("number", DataType::Int64, true), Field::new("word", DataType::Utf8, true)];
    let unhashable = DataType::Union(UnionFields::from_fields(kinds), UnionMode::Dense);
    fields([("n", DataType::Int64), ("odd", unhashable)])
}

/// Declares these streams.
struct Declaring(Vec<(&'static str, SchemaRef, bool)>);

impl Declaring {
    fn declare(&self, declarer: &mut OutputFieldsDeclarer) {
        for (id, schema, direct) in &self.0 {
            match direct {
                true => declarer.declare_direct_stream(id, Arc::clone(schema)),
                false => declarer.declare_stream(id, Arc::clone(schema)),
            }
        }
    }
}

#[async_trait]
impl Spout for Declaring {
    fn declare_output_fields(&self, declarer: &mut OutputFieldsDeclarer) {
        self.declare(declarer);
    }

    async fn next(&mut self, _: &mut SpoutOutputCollector) -> Result<Next, TaskError> {
        Ok(Next::Idle)
    }
}

fn idle() -> FnBolt {
    sink(|_| ())
}

#[test]
fn a_topology_that_can_work_is_accepted() {
    let topology = built(|builder| {
        builder.set_bolt("one", idle, 2).set_num_tasks(5).shuffle_grouping("spout");
        builder.set_bolt("two", idle, 1).fields_grouping("spout", &["n"]).direct_grouping("spout", "to");
        builder.set_bolt("three", idle, 1).all_grouping("one").global_grouping("two");
        builder.set_bolt("alone", idle, 1);
        builder.set_bolt("system", idle, 1).input_stream("three", SYSTEM_STREAM, Grouping::None);
    });
    let topology = topology.unwrap();
    let tasks: Vec<TaskId> =
        topology.components().values().flat_map(|part| part.tasks().iter().copied()).collect();
    assert_eq!(tasks, (1..=10).collect::<Vec<_>>());
}

#[test]
fn ids_occur_once_and_are_not_the_engines() {
    let twice = refusal(|builder| {
        builder.set_bolt("spout", idle, 1);
    });
    assert_eq!(twice, "component `spout` is declared twice");
    let twice = refusal(|builder| {
        builder.set_bolt("bolt", || idle().stream("default", number()), 1);
    });
    assert_eq!(twice, "stream `bolt.default` is declared twice");
    for (id, shown) in [("", "``"), ("__acker", "`__acker`")] {
        let end = "cannot be named so: an id is not empty and does not begin with `__`";
        let reserved = refusal(|builder| {
            builder.set_bolt(id, idle, 1);
        });
        assert_eq!(reserved, format!("component {shown} {end}"));
        let reserved = refusal(|builder| {
            builder.set_bolt("bolt", move || idle().stream(id, number()), 1);
        });
        assert!(reserved.starts_with("stream `") && reserved.ends_with(end), "{reserved}");
    }
}

/// As in Storm, a name says which field is meant.
#[test]
fn a_stream_has_no_two_fields_of_one_name() {
    let twice = refusal(|builder| {
        let schema = fields([("a", DataType::Utf8), ("b", DataType::Utf8), ("a", DataType::Int64)]);
        builder.set_bolt("bolt", move || idle().stream("other", Arc::clone(&schema)), 1);
    });
    assert_eq!(twice, "field `bolt.other.a` is declared twice");
}

#[test]
fn every_executor_has_a_task() {
    for (executors, tasks) in [(0, 0), (0, 3), (3, 2)] {
        let error = refusal(|builder| {
            builder.set_bolt("bolt", idle, executors).set_num_tasks(tasks);
        });
        let expected = format!(
            "component `bolt` has {executors} executors for {tasks} tasks: at least one of each, and no executor \
             without a task"
        );
        assert_eq!(error, expected);
    }
}

#[test]
fn a_topology_has_a_spout() {
    let mut builder = TopologyBuilder::new();
    assert_eq!(builder.build().unwrap_err(), TopologyError::NoSpout);
    builder.set_bolt("bolt", idle, 1);
    let error = builder.build().unwrap_err();
    assert_eq!(error.to_string(), "the topology has no spout: add one with set_spout");
}

/// Storm's `testValidateTopologystructure`.
#[test]
fn who_listens_names_what_there_is() {
    let unknown = refusal(|builder| {
        builder.set_bolt("bolt", idle, 1).shuffle_grouping("spuot");
    });
    assert_eq!(unknown, "bolt `bolt` listens to component `spuot`, which does not exist");
    let unknown = refusal(|builder| {
        builder.set_bolt("bolt", idle, 1).input_stream("spout", "defualt", Grouping::Shuffle);
    });
    let expected = "bolt `bolt` listens to stream `defualt` of component `spout`, which declares only __system, \
                    default, to";
    assert_eq!(unknown, expected);
    for grouping in [Grouping::fields(&["n", "m"]), Grouping::partial_key(&["m"])] {
        let unknown = refusal(|builder| {
            builder.set_bolt("bolt", idle, 1).input("spout", grouping);
        });
        let expected = "bolt `bolt` groups stream `spout.default` by field `m`, which it does not have: its fields \
                        are n, odd";
        assert_eq!(unknown, expected);
    }
}

#[test]
fn a_key_has_fields_that_can_be_hashed() {
    let none = refusal(|builder| {
        builder.set_bolt("bolt", idle, 1).fields_grouping("spout", &[]);
    });
    let expected = "bolt `bolt` groups stream `spout.default` by no field: name at least one, or use the global \
                    grouping";
    assert_eq!(none, expected);
    let unhashable = refusal(|builder| {
        builder.set_bolt("bolt", idle, 1).fields_grouping("spout", &["odd"]);
    });
    assert!(unhashable.starts_with("bolt `bolt` groups stream `spout.default` by field `odd` of type "));
    assert!(unhashable.ends_with(", which cannot be hashed"), "{unhashable}");
}

#[test]
fn direct_streams_take_the_direct_grouping_and_no_others() {
    let direct = refusal(|builder| {
        builder.set_bolt("bolt", idle, 1).direct_grouping("spout", "default");
    });
    let expected = "bolt `bolt` listens to stream `spout.default` by the direct grouping, but the stream is not \
                    direct";
    assert_eq!(direct, expected);
    let direct = refusal(|builder| {
        builder.set_bolt("bolt", idle, 1).input_stream("spout", "to", Grouping::fields(&["n"]));
    });
    let expected =
        "bolt `bolt` listens to stream `spout.to` by the fields grouping, but the stream is direct";
    assert_eq!(direct, expected);
}

#[test]
fn bolts_do_not_wait_for_each_other_in_a_circle() {
    let itself = refusal(|builder| {
        builder.set_bolt("bolt", idle, 1).shuffle_grouping("bolt");
    });
    assert_eq!(itself, "the bolts `bolt` form a cycle, which could wait for its own room for ever");
    let cycle = refusal(|builder| {
        builder.set_bolt("before", idle, 1).shuffle_grouping("spout");
        builder.set_bolt("a", idle, 1).shuffle_grouping("before").shuffle_grouping("c");
        builder.set_bolt("b", idle, 1).shuffle_grouping("a");
        builder.set_bolt("c", idle, 1).shuffle_grouping("b");
        builder.set_bolt("behind", idle, 1).shuffle_grouping("c");
        builder.set_bolt("further behind", idle, 1).shuffle_grouping("behind");
    });
    assert_eq!(cycle, "the bolts `a`, `b`, `c` form a cycle, which could wait for its own room for ever");
}

#[test]
fn numbers_of_the_configuration_are_not_zero() {
    let good = TopologyConfig::default();
    let bad = [
        ("max_spout_pending", TopologyConfig { max_spout_pending: 0, ..good.clone() }),
        ("batch_rows", TopologyConfig { batch_rows: 0, ..good.clone() }),
        ("queue_rows", TopologyConfig { queue_rows: 0, ..good.clone() }),
        ("queue_bytes", TopologyConfig { queue_bytes: 0, ..good.clone() }),
        ("message_timeout", TopologyConfig { message_timeout: Duration::ZERO, ..good }),
    ];
    for (name, config) in bad {
        let error = refusal(|builder| {
            builder.config(config);
        });
        let more = if name == "message_timeout" { "more than zero" } else { "at least 1" };
        assert_eq!(error, format!("{name} must be {more}"));
    }
    let none = ComponentConfig::default();
    let bad = [
        ("max_spout_pending", ComponentConfig { max_spout_pending: Some(0), ..none.clone() }),
        ("queue_rows", ComponentConfig { queue_rows: Some(0), ..none.clone() }),
        ("queue_bytes", ComponentConfig { queue_bytes: Some(0), ..none.clone() }),
        ("tick", ComponentConfig { tick: Some(Duration::ZERO), ..none }),
    ];
    for (name, config) in bad {
        let error = refusal(|builder| {
            builder.set_bolt("bolt", idle, 1).config(config);
        });
        let more = if name == "tick" { "more than zero" } else { "at least 1" };
        assert_eq!(error, format!("{name} of component `bolt` must be {more}"));
    }
}

/// In Storm the second subscription takes the place of the first; here it would double the deliveries.
#[test]
fn a_bolt_listens_to_a_stream_once() {
    for grouping in [Grouping::Shuffle, Grouping::Global] {
        let again = refusal(|builder| {
            builder.set_bolt("one", idle, 2).shuffle_grouping("spout");
            let bolt = builder.set_bolt("two", idle, 1).shuffle_grouping("spout").all_grouping("one");
            bolt.input("spout", grouping);
        });
        let expected = "bolt `two` listens to stream `spout.default` twice: one subscription, one grouping";
        assert_eq!(again, expected);
    }
}
