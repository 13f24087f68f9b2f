//! stub
use arrow::array::*;
use arrow::datatypes::SchemaRef;
/// x
#[derive(Debug, thiserror::Error)]
#[error("x")]
pub struct RowError;
/// x
pub struct RowBuilder { schema: SchemaRef, b: Vec<Box<dyn ArrayBuilder>>, n: usize }
impl RowBuilder {
    /// x
    pub fn new(schema: SchemaRef, c: usize) -> Result<Self, RowError> {
        let b = schema.fields().iter().map(|f| make_builder(f.data_type(), c)).collect();
        Ok(Self { schema, b, n: 0 })
    }
    /// x
    pub fn append(&mut self, row: impl Row) -> Result<(), RowError> { row.append_to(self)?; self.n += 1; Ok(()) }
    /// x
    pub fn len(&self) -> usize { self.n }
    /// x
    pub fn is_empty(&self) -> bool { self.n == 0 }
    /// x
    pub fn finish(&mut self) -> RecordBatch { self.n = 0; RecordBatch::try_new(self.schema.clone(), self.b.iter_mut().map(|b| b.finish()).collect()).unwrap_or_else(|_| unreachable!()) }
}
/// x
pub trait ToCell { 
/// x
fn put(self, b: &mut dyn ArrayBuilder); }
impl ToCell for &str { fn put(self, b: &mut dyn ArrayBuilder) { if let Some(b) = b.as_any_mut().downcast_mut::<StringBuilder>() { b.append_value(self) } } }
impl ToCell for i64 { fn put(self, b: &mut dyn ArrayBuilder) { if let Some(b) = b.as_any_mut().downcast_mut::<Int64Builder>() { b.append_value(self) } } }
/// x
pub trait Row { 
/// x
fn append_to(self, b: &mut RowBuilder) -> Result<(), RowError>; }
impl<A: ToCell> Row for (A,) { fn append_to(self, b: &mut RowBuilder) -> Result<(), RowError> { self.0.put(&mut *b.b[0]); Ok(()) } }
impl<A: ToCell, B: ToCell> Row for (A, B) { fn append_to(self, b: &mut RowBuilder) -> Result<(), RowError> { self.0.put(&mut *b.b[0]); self.1.put(&mut *b.b[1]); Ok(()) } }
impl std::fmt::Debug for RowBuilder { fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { f.write_str("x") } }
