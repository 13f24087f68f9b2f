//! The trees as the rows themselves tell of them.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use super::plan::Plan;

/// An attempt at a spout's tuple.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Root {
    pub(super) spout: usize,
    pub(super) tuple: u32,
    pub(super) attempt: u32,
}

/// Roots as text, for a column.
pub(super) fn written(roots: &[Root]) -> String {
    let each = roots.iter().map(|root| format!("{}/{}/{}", root.spout, root.tuple, root.attempt));
    each.collect::<Vec<_>>().join(" ")
}

/// What [`written`] wrote.
pub(super) fn read(text: &str) -> Vec<Root> {
    let number = |part: Option<&str>| part.unwrap().parse::<u32>().unwrap();
    let root = |text: &str| {
        let mut parts = text.split('/');
        let spout = number(parts.next()) as usize;
        Root { spout, tuple: number(parts.next()), attempt: number(parts.next()) }
    };
    text.split_whitespace().map(root).collect()
}

pub(super) struct Trees {
    state: Mutex<State>,
    mishaps_left: AtomicUsize,
}

struct State {
    spouts: Vec<Tuples>,
    /// Rows of each attempt that are to be received or acked.
    open: HashMap<Root, i64>,
    done: HashSet<Root>,
    failures: usize,
    wrong: Option<String>,
}

struct Tuples {
    waiting: VecDeque<u32>,
    /// By tuple: the task that emitted it, and the attempt.
    under_way: HashMap<u32, (usize, u32)>,
    attempts: Vec<u32>,
    done: usize,
}

impl Trees {
    pub(super) fn new(plan: &Plan) -> Self {
        let tuples = || Tuples {
            waiting: (0..plan.tuples).collect(),
            under_way: HashMap::new(),
            attempts: vec![0; plan.tuples as usize],
            done: 0,
        };
        let state = State {
            spouts: plan.spouts.iter().map(|_| tuples()).collect(),
            open: HashMap::new(),
            done: HashSet::new(),
            failures: 0,
            wrong: None,
        };
        Self { state: Mutex::new(state), mishaps_left: AtomicUsize::new(plan.mishaps) }
    }

    /// Whether there is to be one more mishap.
    pub(super) fn mishap(&self) -> bool {
        self.mishaps_left.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok()
    }

    /// A spout task begins: what the one before it had under way is to be emitted again.
    pub(super) fn opened_spout(&self, spout: usize, task: usize) {
        let mut state = self.lock();
        let tuples = &mut state.spouts[spout];
        let lost: Vec<u32> =
            tuples.under_way.iter().filter(|(_, (of, _))| *of == task).map(|(tuple, _)| *tuple).collect();
        for tuple in lost {
            tuples.under_way.remove(&tuple);
            tuples.waiting.push_back(tuple);
        }
    }

    /// New attempts at up to so many tuples, each to be received by so many tasks.
    pub(super) fn attempt(&self, spout: usize, task: usize, most: usize, receivers: usize) -> Vec<Root> {
        let mut state = self.lock();
        let tuples = &mut state.spouts[spout];
        let count = most.min(tuples.waiting.len());
        let chosen: Vec<u32> = tuples.waiting.drain(..count).collect();
        let mut roots = Vec::new();
        for tuple in chosen {
            let attempt = tuples.attempts[tuple as usize];
            tuples.attempts[tuple as usize] += 1;
            tuples.under_way.insert(tuple, (task, attempt));
            roots.push(Root { spout, tuple, attempt });
        }
        roots.iter().for_each(|root| *state.open.entry(*root).or_default() += receivers as i64);
        roots
    }

    /// A row with these roots is about to be sent to so many tasks.
    pub(super) fn send(&self, roots: &[Root], receivers: usize) {
        let mut state = self.lock();
        for root in roots {
            if state.done.contains(root) {
                state.wrong(format!("{root:?} grows after it was done"));
            }
            *state.open.entry(*root).or_default() += receivers as i64;
        }
    }

    /// A row with these roots is about to be acked.
    pub(super) fn ack(&self, roots: &[Root]) {
        let mut state = self.lock();
        for root in roots {
            let open = state.open.entry(*root).or_default();
            *open -= 1;
            if *open < 0 {
                state.wrong(format!("{root:?} was received more often than sent"));
            }
        }
    }

    /// A spout was told the end of an attempt.
    pub(super) fn told(&self, root: Root, done: bool) {
        let mut state = self.lock();
        let open = state.open.get(&root).copied().unwrap_or_default();
        let under_way = state.spouts[root.spout].under_way.remove(&root.tuple);
        if under_way.is_none_or(|(_, attempt)| attempt != root.attempt) {
            state.wrong(format!("{root:?} is not under way: {under_way:?}"));
        } else if !done {
            state.failures += 1;
            state.spouts[root.spout].waiting.push_back(root.tuple);
        } else {
            if open != 0 {
                state.wrong(format!("{root:?} is acked with {open} rows open"));
            }
            state.done.insert(root);
            state.spouts[root.spout].done += 1;
        }
    }

    pub(super) fn all_done(&self) -> bool {
        self.lock().spouts.iter().all(|tuples| tuples.done == tuples.attempts.len())
    }

    pub(super) fn failures(&self) -> usize {
        self.lock().failures
    }

    pub(super) fn wrong(&self) -> Option<String> {
        self.lock().wrong.clone()
    }

    /// What is not done, for people.
    pub(super) fn open(&self) -> String {
        let state = self.lock();
        let mut text = String::new();
        for (number, tuples) in state.spouts.iter().enumerate() {
            let waiting = tuples.waiting.len();
            text.push_str(&format!("spout {number}: {} done, {waiting} waiting, under way:\n", tuples.done));
            for (tuple, (task, attempt)) in tuples.under_way.iter().take(10) {
                let root = Root { spout: number, tuple: *tuple, attempt: *attempt };
                text.push_str(&format!("  {root:?} of task {task}: {:?} open\n", state.open.get(&root)));
            }
        }
        text
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

impl State {
    fn wrong(&mut self, what: String) {
        self.wrong.get_or_insert(what);
    }
}
