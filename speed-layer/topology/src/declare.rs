//! The streams that a component declares.

use std::{collections::BTreeMap, sync::Arc};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

/// The stream of a component that names none.
pub const DEFAULT_STREAM: &str = "default";
/// The source of tuples that the engine itself makes.
pub const SYSTEM_COMPONENT: &str = "__system";
/// Tick tuples, from [`SYSTEM_COMPONENT`].
pub const TICK_STREAM: &str = "__tick";
/// What befalls a component's tasks: each sends `startup` when it begins. Every component has this stream.
pub const SYSTEM_STREAM: &str = "__system";

/// One declared stream.
#[derive(Clone, Debug)]
pub struct StreamDeclaration {
    /// The stream's fields.
    pub schema: SchemaRef,
    /// Whether the emitter names the task that receives each tuple.
    pub direct: bool,
}

/// Takes a component's declarations of its output streams.
#[derive(Debug, Default)]
pub struct OutputFieldsDeclarer {
    pub(crate) streams: BTreeMap<String, StreamDeclaration>,
    pub(crate) twice: Vec<String>,
}

impl OutputFieldsDeclarer {
    /// Declares the default stream.
    pub fn declare(&mut self, schema: SchemaRef) {
        self.declare_stream(DEFAULT_STREAM, schema);
    }

    /// Declares a stream.
    pub fn declare_stream(&mut self, id: &str, schema: SchemaRef) {
        self.add(id, StreamDeclaration { schema, direct: false });
    }

    /// Declares a stream whose emitter names the receiving task.
    pub fn declare_direct_stream(&mut self, id: &str, schema: SchemaRef) {
        self.add(id, StreamDeclaration { schema, direct: true });
    }

    /// The fields of a stream that was declared.
    pub fn schema(&self, id: &str) -> Option<&SchemaRef> {
        self.streams.get(id).map(|declaration| &declaration.schema)
    }

    fn add(&mut self, id: &str, stream: StreamDeclaration) {
        if self.streams.insert(id.to_owned(), stream).is_some() {
            self.twice.push(id.to_owned());
        }
    }
}

/// A schema from names and types. All fields may be null.
///
/// ```
/// use arrow::datatypes::DataType;
/// let words = stratus_topology::fields([("word", DataType::Utf8), ("count", DataType::Int64)]);
/// assert_eq!(words.field(1).name(), "count");
/// ```
pub fn fields<'a>(fields: impl IntoIterator<Item = (&'a str, DataType)>) -> SchemaRef {
    let fields: Vec<Field> = fields.into_iter().map(|(name, kind)| Field::new(name, kind, true)).collect();
    Arc::new(Schema::new(fields))
}

pub(crate) fn system_schema() -> SchemaRef {
    fields([("event", DataType::Utf8)])
}

pub(crate) fn tick_schema() -> SchemaRef {
    fields([("interval_ms", DataType::Int64)])
}
