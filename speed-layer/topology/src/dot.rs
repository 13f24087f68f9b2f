//! Topologies as drawings in the DOT language of Graphviz.

use std::fmt::Write;

use crate::{declare::DEFAULT_STREAM, topology::Topology};

impl Topology {
    /// A drawing for Graphviz: components with their executors and tasks, streams with their groupings.
    pub fn to_dot(&self) -> String {
        let mut dot = String::from("digraph topology {\n  rankdir=LR;\n  node [fontname=\"Helvetica\"];\n");
        for (id, component) in &self.components {
            let shape = if component.is_spout() { "house" } else { "box" };
            let tasks = component.tasks.len();
            let mut size = format!("{}", component.executors);
            if tasks != component.executors {
                let _ = write!(size, " of {tasks} tasks");
            }
            let id = quoted(id);
            let _ = writeln!(
                dot,
                "  {id} [shape={shape}, label={}];",
                quoted(&format!("{}\\n{size}", unquoted(&id)))
            );
        }
        for (id, component) in &self.components {
            for input in &component.inputs {
                let mut label = format!("{:?}", input.grouping);
                if input.source.stream != DEFAULT_STREAM {
                    label = format!("{}: {label}", input.source.stream);
                }
                let (from, to) = (quoted(&input.source.component), quoted(id));
                let _ = writeln!(dot, "  {from} -> {to} [label={}];", quoted(&label));
            }
        }
        dot.push_str("}\n");
        dot
    }
}

/// A DOT string. `\n` stays a line break.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\\\""))
}

fn unquoted(text: &str) -> &str {
    text.trim_matches('"')
}
