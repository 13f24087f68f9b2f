//! stub
use arrow::array::*;
/// x
#[derive(Debug, thiserror::Error)]
#[error("x")]
pub struct CellError;
/// x
pub trait FromCell<'a>: Sized {
    /// x
    fn from_cell(array: &'a dyn Array, row: usize) -> Result<Self, CellError>;
}
impl<'a> FromCell<'a> for &'a str {
    fn from_cell(array: &'a dyn Array, row: usize) -> Result<Self, CellError> {
        array.as_any().downcast_ref::<StringArray>().map(|a| a.value(row)).ok_or(CellError)
    }
}
impl<'a> FromCell<'a> for i64 {
    fn from_cell(array: &'a dyn Array, row: usize) -> Result<Self, CellError> {
        array.as_any().downcast_ref::<Int64Array>().map(|a| a.value(row)).ok_or(CellError)
    }
}
