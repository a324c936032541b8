//! Buffers for long bodies, used again while they are warm.
//!
//! The rule to know: the one given back last is taken first. A body of 100 KiB goes through memory that the caches still
//! hold from the body before, where an allocator would walk through all it has.

use std::cell::RefCell;

use bytes::Bytes;

/// Bytes of a buffer.
pub const SIZE: usize = 64 * 1024;
/// Buffers kept for later, per worker.
const KEPT: usize = 32;

thread_local! {
    static SPARE: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

/// A buffer that goes back to its worker when it is dropped, or when the [`Bytes`] made of it are.
pub struct Long {
    room: Box<[u8]>,
    filled: usize,
}

impl Long {
    pub fn take() -> Self {
        let spare = SPARE.with_borrow_mut(Vec::pop);
        Self { room: spare.unwrap_or_else(|| vec![0; SIZE].into()), filled: 0 }
    }

    /// Where to read to: at most so many bytes.
    pub fn room(&mut self, most: usize) -> &mut [u8] {
        &mut self.room[..most.min(SIZE)]
    }

    /// The first `filled` bytes.
    pub fn into_bytes(mut self, filled: usize) -> Bytes {
        self.filled = filled;
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Long {
    fn as_ref(&self) -> &[u8] {
        &self.room[..self.filled]
    }
}

impl Drop for Long {
    fn drop(&mut self) {
        let room = std::mem::take(&mut self.room);
        // At the end of a thread there is nothing to give it back to.
        let _ = SPARE.try_with(|spare| {
            let mut spare = spare.borrow_mut();
            if spare.len() < KEPT {
                spare.push(room);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_given_back_is_taken_again_and_only_so_many_are_kept() {
        let mut first = Long::take();
        first.room(3).copy_from_slice(b"abc");
        let place = first.room(1).as_ptr();
        let bytes = first.into_bytes(3);
        assert_eq!(&*bytes, b"abc");
        let half = bytes.slice(1..);
        drop(bytes);
        assert_ne!(Long::take().room(1).as_ptr(), place, "a slice of it is still read");
        drop(half);
        assert_eq!(Long::take().room(1).as_ptr(), place);
        drop((0..2 * KEPT).map(|_| Long::take()).collect::<Vec<_>>());
        assert_eq!(SPARE.with_borrow(Vec::len), KEPT);
    }
}
