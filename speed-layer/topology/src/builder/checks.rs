//! What must hold of a topology before it may run.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::new_empty_array;

use super::TopologyError;
use crate::{
    config::{ComponentConfig, TopologyConfig},
    grouping::Grouping,
    hash::hash_rows,
    topology::{Component, Subscription},
};

pub(super) fn check_component_config(config: &ComponentConfig) -> Result<(), TopologyError> {
    let counts = [
        ("max_spout_pending", config.max_spout_pending),
        ("queue_rows", config.queue_rows),
        ("queue_bytes", config.queue_bytes),
    ];
    if let Some((name, _)) = counts.iter().find(|(_, count)| *count == Some(0)) {
        return Err(TopologyError::Zero(name));
    }
    // Nothing but ticks would ever come.
    if config.tick.is_some_and(|tick| tick.is_zero()) {
        return Err(TopologyError::NoTime("tick"));
    }
    Ok(())
}

pub(super) fn check_config(config: &TopologyConfig) -> Result<(), TopologyError> {
    if config.message_timeout.is_zero() {
        return Err(TopologyError::NoTime("message_timeout"));
    }
    let counts = [
        ("max_spout_pending", config.max_spout_pending),
        ("batch_rows", config.batch_rows),
        ("queue_rows", config.queue_rows),
        ("queue_bytes", config.queue_bytes),
    ];
    match counts.iter().find(|(_, count)| *count == 0) {
        Some((name, _)) => Err(TopologyError::Zero(name)),
        None => Ok(()),
    }
}

pub(super) fn check_id(what: &'static str, id: &str) -> Result<(), TopologyError> {
    if id.is_empty() || id.starts_with("__") {
        return Err(TopologyError::Reserved { what, id: id.to_owned() });
    }
    Ok(())
}

pub(super) fn check_input(
    components: &BTreeMap<String, Component>,
    bolt: &str,
    input: &Subscription,
) -> Result<(), TopologyError> {
    let source = &input.source;
    let bolt = bolt.to_owned();
    let Some(component) = components.get(&source.component) else {
        return Err(TopologyError::UnknownComponent { bolt, component: source.component.clone() });
    };
    let Some(stream) = component.streams.get(&source.stream) else {
        let declared: Vec<&str> = component.streams.keys().map(String::as_str).collect();
        return Err(TopologyError::UnknownStream {
            bolt,
            component: source.component.clone(),
            stream: source.stream.clone(),
            declared: declared.join(", "),
        });
    };
    if stream.direct != matches!(input.grouping, Grouping::Direct) {
        let declared = if stream.direct { "direct" } else { "not direct" };
        return Err(TopologyError::Direct {
            bolt,
            stream: source.clone(),
            grouping: input.grouping.name(),
            declared,
        });
    }
    let Some(fields) = input.grouping.key() else { return Ok(()) };
    if fields.is_empty() {
        return Err(TopologyError::NoField { bolt, stream: source.clone() });
    }
    for field in fields {
        let Ok(declared) = stream.schema.field_with_name(field) else {
            let declared: Vec<&str> =
                stream.schema.fields().iter().map(|field| field.name().as_str()).collect();
            let declared = declared.join(", ");
            return Err(TopologyError::UnknownField {
                bolt,
                stream: source.clone(),
                field: field.clone(),
                declared,
            });
        };
        if hash_rows(&[new_empty_array(declared.data_type())], &mut Vec::new()).is_err() {
            let kind = declared.data_type().to_string();
            return Err(TopologyError::UnhashableField {
                bolt,
                stream: source.clone(),
                field: field.clone(),
                kind,
            });
        }
    }
    Ok(())
}

/// Takes away, again and again, who listens only to what is already gone, and whom nobody listens to who is left: what
/// stays is on a cycle, or between two.
pub(super) fn check_cycles(components: &BTreeMap<String, Component>) -> Result<(), TopologyError> {
    let mut left: BTreeSet<&str> = components.keys().map(String::as_str).collect();
    loop {
        let waits = |id: &&str| {
            components[*id].inputs.iter().any(|input| left.contains(input.source.component.as_str()))
        };
        let delays = |id: &&str| {
            let delayed =
                |other: &&str| components[*other].inputs.iter().any(|input| input.source.component == *id);
            left.iter().any(delayed)
        };
        let waiting: BTreeSet<&str> = left.iter().copied().filter(|id| waits(id) && delays(id)).collect();
        if waiting.len() == left.len() {
            break;
        }
        left = waiting;
    }
    if left.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = left.iter().map(|id| format!("`{id}`")).collect();
    Err(TopologyError::Cycle(names.join(", ")))
}
