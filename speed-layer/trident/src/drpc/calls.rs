//! The calls of one function: a pure record of who waits, who is being answered, and whether anybody is left to answer.

use std::collections::BTreeMap;

use tokio::sync::oneshot;

/// The rows of a call, or what went wrong.
pub(super) type Answer = Result<String, String>;

/// How many calls a function may have under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) calls: usize,
    /// Of all arguments together.
    pub(super) bytes: usize,
}

/// Why a call is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Busy { calls: usize, bytes: usize },
    Ended,
}

/// A call whose caller is there.
struct Call {
    /// Until they are emitted.
    arguments: Option<String>,
    bytes: usize,
    /// The attempt whose rows are its answer, once it is emitted. Transactions begin anew with each coordinator, and
    /// two topologies may answer one function; no two attempts of a process are the same.
    attempt: Option<u64>,
    answer: oneshot::Sender<Answer>,
}

/// The calls of one function, by number. A call is here exactly as long as somebody waits for its answer.
#[derive(Default)]
pub(super) struct Calls {
    last: u64,
    waiting: BTreeMap<u64, Call>,
    begun: BTreeMap<u64, Call>,
    bytes: usize,
    /// Coordinators and emitters at work.
    present: usize,
    /// There was a topology that answers, and nothing of it is left.
    ended: bool,
}

impl Calls {
    /// Takes a call, under a number of its own, if there is room for it.
    pub(super) fn enter(
        &mut self,
        arguments: &str,
        limits: Limits,
    ) -> Result<(u64, oneshot::Receiver<Answer>), Refusal> {
        if self.ended {
            return Err(Refusal::Ended);
        }
        let (calls, bytes) = (self.waiting.len() + self.begun.len(), self.bytes);
        // One call alone is never too large: to wait would not help it.
        if calls >= limits.calls || (bytes > 0 && bytes.saturating_add(arguments.len()) > limits.bytes) {
            return Err(Refusal::Busy { calls, bytes });
        }
        let (answer, answered) = oneshot::channel();
        self.last += 1;
        self.bytes += arguments.len();
        let call =
            Call { arguments: Some(arguments.to_owned()), bytes: arguments.len(), attempt: None, answer };
        self.waiting.insert(self.last, call);
        Ok((self.last, answered))
    }

    /// The next call to be answered.
    pub(super) fn begin(&mut self) -> Option<u64> {
        let (number, call) = self.waiting.pop_first()?;
        self.begun.insert(number, call);
        Some(number)
    }

    /// The arguments of a call that was begun; what comes of this attempt is its answer. None: its caller has gone.
    pub(super) fn emit(&mut self, number: u64, attempt: u64) -> Option<String> {
        let call = self.begun.get_mut(&number)?;
        call.attempt = Some(attempt);
        call.arguments.take()
    }

    /// The rows of an attempt. Nobody may wait for them any more.
    pub(super) fn answer(&mut self, attempt: u64, answer: Answer) {
        let mut begun = self.begun.iter();
        let number = begun.find(|(_, call)| call.attempt == Some(attempt)).map(|(number, _)| *number);
        if let Some(number) = number {
            self.settle(number, answer);
        }
    }

    /// Answers a call, unless it has been answered.
    pub(super) fn settle(&mut self, number: u64, answer: Answer) {
        if let Some(call) = self.leave(number) {
            // Whoever called may be about to leave.
            let _ = call.send(answer);
        }
    }

    /// A call is over: nothing of it stays. Whoever still waits is told that its topology has ended.
    pub(super) fn leave(&mut self, number: u64) -> Option<oneshot::Sender<Answer>> {
        let call = self.waiting.remove(&number).or_else(|| self.begun.remove(&number))?;
        self.bytes -= call.bytes;
        Some(call.answer)
    }

    /// A topology that answers is declared, and may be on its way.
    pub(super) fn declare(&mut self) {
        self.ended = false;
    }

    /// A coordinator or an emitter begins to work.
    pub(super) fn come(&mut self) {
        self.present += 1;
        self.ended = false;
    }

    /// A coordinator or an emitter has gone. After a panic another one comes in its place, and the others are still
    /// there; when the last one has gone its topology has ended, and nobody is left to answer.
    pub(super) fn go(&mut self) {
        self.present -= 1;
        if self.present == 0 {
            self.ended = true;
            self.waiting.clear();
            self.begun.clear();
            self.bytes = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { calls: 2, bytes: 10 };

    #[test]
    fn no_more_calls_are_taken_than_may_be_and_those_that_leave_make_room() {
        let mut calls = Calls::default();
        let (one, _one) = calls.enter("a", LIMITS).unwrap();
        let (two, _two) = calls.enter("bc", LIMITS).unwrap();
        assert_eq!(calls.enter("", LIMITS).unwrap_err(), Refusal::Busy { calls: 2, bytes: 3 });
        assert_eq!(calls.begin(), Some(one));
        assert!(calls.enter("", LIMITS).is_err(), "a call that is being answered counts, too");
        assert!(calls.leave(two).is_some());
        let (three, _three) = calls.enter("", LIMITS).unwrap();
        assert!(calls.leave(one).is_some() && calls.leave(one).is_none());
        assert_eq!(calls.begin(), Some(three), "the second one has left the queue");
        assert_eq!((calls.begin(), calls.bytes), (None, 0));
    }

    #[test]
    fn arguments_have_a_bound_together_and_one_call_alone_has_none() {
        let mut calls = Calls::default();
        let (large, _large) = calls.enter("more than ten bytes", LIMITS).unwrap();
        assert_eq!(calls.enter("x", LIMITS).unwrap_err(), Refusal::Busy { calls: 1, bytes: 19 });
        calls.leave(large);
        let _small = calls.enter("123456789", LIMITS).unwrap();
        assert!(calls.enter("12", LIMITS).is_err());
        assert!(calls.enter("1", LIMITS).is_ok());
    }

    #[test]
    fn a_function_has_ended_when_nobody_is_left_to_answer() {
        let mut calls = Calls::default();
        // Before its topology begins a call waits for it.
        let (_, mut early) = calls.enter("a", LIMITS).unwrap();
        calls.come();
        calls.come();
        calls.go();
        assert!(early.try_recv().is_err_and(|error| error == oneshot::error::TryRecvError::Empty));
        calls.come();
        calls.go();
        calls.go();
        assert!(early.try_recv().is_err_and(|error| error == oneshot::error::TryRecvError::Closed));
        assert_eq!(calls.enter("a", LIMITS).unwrap_err(), Refusal::Ended);
        calls.declare();
        assert!(calls.enter("a", LIMITS).is_ok(), "another topology is on its way");
    }
}
