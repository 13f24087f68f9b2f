//! Why a call has no answer.

use std::time::Duration;

use thiserror::Error;

/// Why a call has no answer.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum DrpcError {
    /// No topology answers calls of this function.
    #[error("no function `{function}` is known; there are: {known}")]
    Unknown {
        /// The function that was called.
        function: String,
        /// The functions that there are.
        known: String,
    },
    /// As many calls are under way as may be. This one was not begun.
    #[error(
        "function `{function}` has {calls} calls under way, with {bytes} bytes of arguments: try again later"
    )]
    Busy {
        /// The function.
        function: String,
        /// The calls that wait, and those that are being answered.
        calls: usize,
        /// The bytes of their arguments.
        bytes: usize,
    },
    /// The batch of the call failed. Calls are not tried again.
    #[error("function `{function}` failed: {why}")]
    Failed {
        /// The function.
        function: String,
        /// What went wrong.
        why: String,
    },
    /// The topology that was to answer has ended, or began anew.
    #[error("the topology that answers function `{function}` has ended")]
    Ended {
        /// The function.
        function: String,
    },
    /// No answer came in time.
    #[error("function `{function}` did not answer within {after:?}")]
    TimedOut {
        /// The function.
        function: String,
        /// The time-out.
        after: Duration,
    },
}
