//! Tasks: how the work of an op is cut for the pool.
//!
//! The bounds of a task depend on sizes alone, never on the number of threads, and so does the
//! order in which partial sums are added: results are the same bits on any machine.

use std::ops::Range;

/// Maximum number of tasks of an op cut by `Tasks::new` or `Tasks::of_rows`: enough to balance
/// sixteen threads, few enough to hand out quickly.
pub(crate) const MAX_TASKS: usize = 32;

/// `total` units (rows, columns, elements) cut into `count` tasks of nearly equal size.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tasks {
    pub(super) total: usize,
    pub(crate) count: usize,
}

impl Tasks {
    /// Cuts `total` units into tasks of at least `smallest` units. The count is 1 or even.
    pub(crate) fn new(total: usize, smallest: usize) -> Self {
        Self::at_most(total, smallest, MAX_TASKS)
    }

    /// Like `new`, with at most `max` tasks.
    pub(crate) fn at_most(total: usize, smallest: usize, max: usize) -> Self {
        let count = (total / smallest.max(1)).clamp(1, max);
        Self { total, count: if count > 1 { count / 2 * 2 } else { 1 } }
    }

    /// Cuts `total` units into exactly `count` tasks, some of which may be empty.
    pub(crate) fn exactly(total: usize, count: usize) -> Self {
        Self { total, count: count.max(1) }
    }

    /// Cuts rows of `width` elements into tasks that are each worth waking a thread for.
    pub(crate) fn of_rows(rows: usize, width: usize) -> Self {
        const ELEMENTS: usize = 8 * 1024;
        Self::new(rows, ELEMENTS.div_ceil(width.max(1)))
    }

    /// Returns the units of a task.
    pub(crate) fn range(&self, task: usize) -> Range<usize> {
        self.total * task / self.count..self.total * (task + 1) / self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_cover_every_unit_once() {
        for total in [0, 1, 5, 17, 768, 8192, 10_007] {
            for smallest in [1, 16, 100] {
                let tasks = Tasks::new(total, smallest);
                let mut next = 0;
                for task in 0..tasks.count {
                    assert_eq!(tasks.range(task).start, next);
                    next = tasks.range(task).end;
                }
                assert_eq!(next, total);
            }
        }
    }
}
