//! An allocator that counts.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

static CALLS: AtomicUsize = AtomicUsize::new(0);
static ALIVE: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static FREED: Cell<usize> = const { Cell::new(0) };
}

fn grown(bytes: usize) {
    CALLS.fetch_add(1, SeqCst);
    let alive = ALIVE.fetch_add(bytes, SeqCst) + bytes;
    MOST.fetch_max(alive, SeqCst);
}

// SAFETY: everything is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grown(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        ALIVE.fetch_sub(layout.size(), SeqCst);
        FREED.with(|freed| freed.set(freed.get() + layout.size()));
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // As if both were there while one is copied to the other.
        grown(size);
        let moved = unsafe { System.realloc(memory, layout, size) };
        ALIVE.fetch_sub(layout.size(), SeqCst);
        moved
    }
}

/// How often memory was asked for so far.
pub(crate) fn calls() -> usize {
    CALLS.load(SeqCst)
}

/// How many bytes are allocated.
pub(crate) fn alive() -> usize {
    ALIVE.load(SeqCst)
}

/// How many bytes this thread has freed: other threads that work meanwhile do not count.
pub(crate) fn freed_here() -> usize {
    FREED.with(Cell::get)
}

/// Begins to look for the most that is allocated at once; returns what is allocated now.
pub(crate) fn watch() -> usize {
    let now = alive();
    MOST.store(now, SeqCst);
    now
}

/// The most that was allocated at once since then.
pub(crate) fn most() -> usize {
    MOST.load(SeqCst)
}

/// Lets one test count at a time.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}
