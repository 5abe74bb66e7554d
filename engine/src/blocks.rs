//! Which blocks of the key-value cache are free.

/// A stack of free blocks.
#[derive(Debug)]
pub(crate) struct BlockPool {
    free: Vec<u32>,
    total: usize,
}

impl BlockPool {
    pub(crate) fn new(total: usize) -> Self {
        Self {
            free: (0..total as u32).rev().collect(),
            total,
        }
    }

    pub(crate) fn used(&self) -> usize {
        self.total - self.free.len()
    }

    /// Grows `table` to `wanted` blocks; false, and nothing taken, if there are not enough.
    pub(crate) fn grow(&mut self, table: &mut Vec<u32>, wanted: usize) -> bool {
        let missing = wanted.saturating_sub(table.len());
        if missing > self.free.len() {
            return false;
        }
        table.extend(self.free.drain(self.free.len() - missing..).rev());
        true
    }

    pub(crate) fn release(&mut self, table: &mut Vec<u32>) {
        self.free.extend(table.drain(..).rev());
    }
}
