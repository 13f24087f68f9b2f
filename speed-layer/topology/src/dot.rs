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
            let _ = writeln!(dot, "  {} [shape={shape}, label=\"{}\\n{size}\"];", name(id), escaped(id));
        }
        for (id, component) in &self.components {
            for input in &component.inputs {
                let mut label = format!("{:?}", input.grouping);
                if input.source.stream != DEFAULT_STREAM {
                    label = format!("{}: {label}", input.source.stream);
                }
                let (from, to) = (name(&input.source.component), name(id));
                let _ = writeln!(dot, "  {from} -> {to} [label=\"{}\"];", escaped(&label));
            }
        }
        dot.push_str("}\n");
        dot
    }
}

/// A component as the name of a node. A backslash is doubled, or one at the end would make the closing quote a part of
/// the name; names stay different by that.
fn name(id: &str) -> String {
    format!("\"{}\"", id.replace('\\', "\\\\").replace('"', "\\\""))
}

/// Text within the quotes of a label, in which Graphviz reads backslashes, and entities as HTML has them.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
