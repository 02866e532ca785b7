//! How much memory a piece of work holds at once, counted thread by thread by an allocator that a test binary
//! installs.
//!
//! ```text
//! #[global_allocator]
//! static ALLOCATOR: skiff_fuzz::memory::Counting = skiff_fuzz::memory::Counting;
//! ```
#![expect(unsafe_code, reason = "an allocator is a contract that the compiler cannot check")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The system's allocator, counting.
pub struct Counting;

thread_local! {
    /// Bytes that this thread has allocated and not freed; others may free them, so that it may be negative.
    static HELD: Cell<isize> = const { Cell::new(0) };
    static MOST: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    // A thread that ends has no counters any more.
    let _ = HELD.try_with(|held| {
        held.set(held.get() + bytes);
        let _ = MOST.try_with(|most| most.set(most.get().max(held.get())));
    });
}

// SAFETY: every call is passed on unchanged to the system's allocator; counting neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size().cast_signed());
        // SAFETY: the caller's promises are those that are asked for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        count(-layout.size().cast_signed());
        // SAFETY: as above.
        unsafe { System.dealloc(place, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size().cast_signed());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size.cast_signed() - layout.size().cast_signed());
        // SAFETY: as above.
        unsafe { System.realloc(place, layout, size) }
    }
}

/// What `work` yields, and the most bytes it held at once on this thread beyond what was held before. Zero where
/// [`Counting`] is not the allocator.
pub fn peak<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = HELD.with(Cell::get);
    MOST.with(|most| most.set(before));
    let yielded = work();
    let most = MOST.with(Cell::get) - before;
    (yielded, usize::try_from(most).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[global_allocator]
    static ALLOCATOR: Counting = Counting;

    #[test]
    fn the_most_is_seen_though_it_is_freed() {
        let (left, most) = peak(|| {
            drop(vec![1_u8; 1 << 20]);
            vec![1_u8; 1 << 10]
        });
        assert!((1 << 20..1 << 21).contains(&most), "{most}");
        drop(left);
        assert!(peak(|| ()).1 < 1 << 10);
    }
}
