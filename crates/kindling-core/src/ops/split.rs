//! Cuts the outputs of an op into the parts that its tasks write.
//!
//! `split_rows` hands each task its rows of up to three outputs:
//!
//! ```text
//! let outputs = (RowsMut::new(out, width), RowsMut::new(rstd, 1));
//! split_rows(pool, Tasks::of_rows(rows, width), outputs, |rows, (out, rstd)| { .. });
//! ```
//!
//! `PerTask` is an output with an entry per task, for partial sums. `split_grid` cuts by rows and
//! by columns at once, for outputs that are `BlocksMut`.
//!
//! All tasks hold their parts at the same time, which safe code cannot express. The `unsafe` code
//! that makes it possible is in this file, and rests on three facts:
//!
//! 1. `Pool::run` runs each task once.
//! 2. `Tasks::range` returns disjoint ranges for different tasks (`tasks_cover_every_unit_once`).
//! 3. Each implementation of `Outputs` maps disjoint ranges to disjoint memory, inside its bounds.

use std::marker::PhantomData;
use std::ops::Range;

use super::tasks::Tasks;
use crate::pool::Pool;

/// Runs `work(rows, parts)` for each task, where `parts` are the task's rows of each output.
///
/// # Panics
/// Panics if an output does not have the rows that `tasks` cuts.
pub(crate) fn split_rows<O: Outputs>(
    pool: &Pool,
    tasks: Tasks,
    outputs: O,
    work: impl Fn(Range<usize>, O::Part) + Sync,
) {
    // A single task spans all columns, as one unit.
    split_grid(pool, tasks, Tasks::exactly(1, 1), outputs, |rows, _, parts| work(rows, parts));
}

/// Runs `work(rows, columns, parts)` for each cell of a grid of `down.count` by `across.count`
/// tasks.
///
/// # Panics
/// Panics if an output does not have the rows and columns that the grid cuts.
#[expect(clippy::needless_pass_by_value, reason = "parts would alias if outputs were used again")]
pub(crate) fn split_grid<O: Outputs>(
    pool: &Pool,
    down: Tasks,
    across: Tasks,
    outputs: O,
    work: impl Fn(Range<usize>, Range<usize>, O::Part) + Sync,
) {
    // Overflow in `Tasks::range` would make ranges overlap.
    assert!(down.total.checked_mul(down.count).is_some());
    assert!(across.total.checked_mul(across.count).is_some());
    outputs.check(&down, &across);
    pool.run(down.count * across.count, |index| {
        let (rows, columns) =
            (down.range(index / across.count), across.range(index % across.count));
        let task = Task { index, rows: rows.clone(), columns: columns.clone() };
        // SAFETY: the pool runs each index once, and cells of the grid are disjoint.
        let parts = unsafe { outputs.part(&task) };
        work(rows, columns, parts);
    });
}

/// One task of a grid: its index, and its rows and columns in the units of `Tasks`.
pub(crate) struct Task {
    index: usize,
    rows: Range<usize>,
    columns: Range<usize>,
}

/// One output of an op, or a tuple of two or three, that tasks write at the same time.
///
/// # Safety
/// Parts of tasks that differ in their index and in their rows or columns must not overlap.
pub(crate) unsafe trait Outputs: Sync {
    /// The part of one task.
    type Part;

    /// Panics unless the output has exactly the rows and columns that are cut.
    fn check(&self, down: &Tasks, across: &Tasks);

    /// Returns the part of one task.
    ///
    /// # Safety
    /// `check` has passed for the grid of `task`, and each task's part is taken at most once.
    unsafe fn part(&self, task: &Task) -> Self::Part;
}

/// A borrowed slice whose parts are borrowed by several tasks.
struct Shared<'a, T> {
    start: *mut T,
    len: usize,
    borrow: PhantomData<&'a mut [T]>,
}

// SAFETY: a unique borrow of Send elements, of which each thread gets parts of its own.
unsafe impl<T: Send> Sync for Shared<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Send for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    fn new(slice: &'a mut [T]) -> Self {
        Self { start: slice.as_mut_ptr(), len: slice.len(), borrow: PhantomData }
    }

    /// # Safety
    /// No two parts overlap.
    unsafe fn part(&self, range: Range<usize>) -> &'a mut [T] {
        assert!(range.start <= range.end && range.end <= self.len);
        // SAFETY: inside the slice (asserted), unique by the caller's promise, borrowed for 'a.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }
}

/// An output of rows of `width` elements. A task gets its rows as one slice.
pub(crate) struct RowsMut<'a, T> {
    data: Shared<'a, T>,
    width: usize,
}

impl<'a, T> RowsMut<'a, T> {
    pub(crate) fn new(data: &'a mut [T], width: usize) -> Self {
        Self { data: Shared::new(data), width }
    }
}

// SAFETY: disjoint rows are disjoint memory.
unsafe impl<'a, T: Send> Outputs for RowsMut<'a, T> {
    type Part = &'a mut [T];

    fn check(&self, down: &Tasks, across: &Tasks) {
        assert!(across.count == 1, "rows are not cut by columns");
        assert!(
            down.total.checked_mul(self.width) == Some(self.data.len),
            "rows do not match the tasks"
        );
    }

    unsafe fn part(&self, task: &Task) -> &'a mut [T] {
        let range = task.rows.start * self.width..task.rows.end * self.width;
        // SAFETY: by the caller's promise.
        unsafe { self.data.part(range) }
    }
}

/// An output of `width` elements per task, such as partial sums. It may be longer than needed.
pub(crate) struct PerTask<'a, T> {
    data: Shared<'a, T>,
    width: usize,
}

impl<'a, T> PerTask<'a, T> {
    pub(crate) fn new(data: &'a mut [T], width: usize) -> Self {
        Self { data: Shared::new(data), width }
    }
}

// SAFETY: tasks with different indices get different runs.
unsafe impl<'a, T: Send> Outputs for PerTask<'a, T> {
    type Part = &'a mut [T];

    fn check(&self, down: &Tasks, across: &Tasks) {
        let needed = (down.count * across.count).checked_mul(self.width);
        assert!(needed.is_some_and(|needed| needed <= self.data.len), "fewer entries than tasks");
    }

    unsafe fn part(&self, task: &Task) -> &'a mut [T] {
        // SAFETY: by the caller's promise.
        unsafe { self.data.part(task.index * self.width..(task.index + 1) * self.width) }
    }
}

/// A matrix output, or some of its columns, cut both ways. A task gets a `BlockMut`.
///
/// A unit of `Tasks` is `height` rows or `width` columns; the last ones may be cut short.
pub(crate) struct BlocksMut<'a, T> {
    data: Shared<'a, T>,
    stride: usize,
    rows: usize,
    /// Columns of the matrix that belong to this output.
    columns: Range<usize>,
    height: usize,
    width: usize,
}

impl<'a, T> BlocksMut<'a, T> {
    /// Takes a matrix of rows of `stride` elements, to be cut at any row and column.
    ///
    /// # Panics
    /// Panics if `data` does not consist of whole rows.
    pub(crate) fn new(data: &'a mut [T], stride: usize) -> Self {
        let rows = data.len() / stride.max(1);
        assert!(rows * stride == data.len(), "not whole rows");
        Self { data: Shared::new(data), stride, rows, columns: 0..stride, height: 1, width: 1 }
    }

    /// Sets the rows and columns in a unit of `Tasks`.
    #[must_use]
    pub(crate) fn in_units(self, height: usize, width: usize) -> Self {
        Self { height: height.max(1), width: width.max(1), ..self }
    }

    /// Splits the columns into two outputs, the second starting at column `at` of this one.
    ///
    /// # Panics
    /// Panics if there are fewer columns.
    #[must_use]
    pub(crate) fn split_columns(self, at: usize) -> (Self, Self) {
        let middle = self.columns.start + at;
        assert!(middle <= self.columns.end);
        let data = Shared { start: self.data.start, len: self.data.len, borrow: PhantomData };
        (
            Self { columns: self.columns.start..middle, data, ..self },
            Self { columns: middle..self.columns.end, ..self },
        )
    }
}

// SAFETY: cells of a grid differ in their rows or in their columns.
unsafe impl<'a, T: Send> Outputs for BlocksMut<'a, T> {
    type Part = BlockMut<'a, T>;

    fn check(&self, down: &Tasks, across: &Tasks) {
        assert!(down.total == self.rows.div_ceil(self.height), "rows do not match the tasks");
        let columns = self.columns.len().div_ceil(self.width);
        assert!(across.total == columns, "columns do not match the tasks");
    }

    unsafe fn part(&self, task: &Task) -> BlockMut<'a, T> {
        let row = |unit: usize| (unit * self.height).min(self.rows);
        let column = |unit: usize| (unit * self.width).min(self.columns.len());
        let (top, left) = (row(task.rows.start), column(task.columns.start));
        let first = top * self.stride + self.columns.start + left;
        BlockMut {
            start: self.data.start.wrapping_add(first),
            rows: row(task.rows.end) - top,
            columns: column(task.columns.end) - left,
            stride: self.stride,
            borrow: PhantomData,
        }
    }
}

/// A block of a matrix that belongs to one task: rows of `columns()` elements, a stride apart.
pub(crate) struct BlockMut<'a, T> {
    start: *mut T,
    rows: usize,
    columns: usize,
    stride: usize,
    borrow: PhantomData<&'a mut [T]>,
}

impl<T> BlockMut<'_, T> {
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    pub(crate) fn stride(&self) -> usize {
        self.stride
    }

    /// Returns row `row`, to read.
    ///
    /// # Panics
    /// Panics if there is no such row.
    #[inline(always)]
    pub(crate) fn row(&self, row: usize) -> &[T] {
        assert!(row < self.rows);
        // SAFETY: inside the block (asserted), which is borrowed from this task's part.
        unsafe { std::slice::from_raw_parts(self.start.add(row * self.stride), self.columns) }
    }

    /// Returns row `row`, to write.
    ///
    /// # Panics
    /// Panics if there is no such row.
    #[inline(always)]
    pub(crate) fn row_mut(&mut self, row: usize) -> &mut [T] {
        assert!(row < self.rows);
        // SAFETY: inside the block (asserted), which is borrowed uniquely.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(row * self.stride), self.columns) }
    }

    /// Returns some columns of the block.
    ///
    /// # Panics
    /// Panics if there are fewer columns.
    pub(crate) fn columns_mut(&mut self, columns: Range<usize>) -> BlockMut<'_, T> {
        assert!(columns.start <= columns.end && columns.end <= self.columns);
        BlockMut {
            start: self.start.wrapping_add(columns.start),
            columns: columns.len(),
            rows: self.rows,
            stride: self.stride,
            borrow: PhantomData,
        }
    }

    /// Returns the address of the first element, for a kernel that reads with strides.
    pub(crate) fn as_ptr(&self) -> *const T {
        self.start
    }

    /// Returns the address of the first element, for a kernel that writes with strides.
    pub(crate) fn as_mut_ptr(&mut self) -> *mut T {
        self.start
    }
}

macro_rules! tuple_outputs {
    ($($name:ident: $index:tt),+) => {
        // SAFETY: as for each of its outputs, which borrow different memory.
        unsafe impl<$($name: Outputs),+> Outputs for ($($name,)+) {
            type Part = ($($name::Part,)+);

            fn check(&self, down: &Tasks, across: &Tasks) {
                $(self.$index.check(down, across);)+
            }

            unsafe fn part(&self, task: &Task) -> Self::Part {
                // SAFETY: by the caller's promise.
                unsafe { ($(self.$index.part(task),)+) }
            }
        }
    };
}
tuple_outputs!(A: 0, B: 1);
tuple_outputs!(A: 0, B: 1, C: 2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_task_writes_its_rows_of_every_output() {
        let pool = Pool::new(3);
        for (rows, width) in [(0, 4), (1, 3), (37, 5), (1000, 1)] {
            let (mut out, mut first, mut sums) = (vec![0; rows * width], vec![0; rows], [0; 8]);
            let tasks = Tasks::at_most(rows, 2, 8);
            let outputs = (
                RowsMut::new(&mut out, width),
                RowsMut::new(&mut first, 1),
                PerTask::new(&mut sums, 1),
            );
            split_rows(&pool, tasks, outputs, |rows, (out, first, sum)| {
                sum[0] = rows.len();
                for ((row, out), first) in rows.zip(out.chunks_exact_mut(width)).zip(first) {
                    out.fill(row + 1);
                    *first = row + 1;
                }
            });
            assert!((0..rows * width).all(|at| out[at] == at / width + 1));
            assert!((0..rows).all(|row| first[row] == row + 1));
            assert_eq!(sums.iter().sum::<usize>(), rows);
        }
    }

    #[test]
    fn a_grid_covers_each_output_by_blocks_that_may_be_cut_short() {
        let pool = Pool::new(3);
        for (rows, columns, height, width) in
            [(1, 1, 1, 1), (13, 10, 6, 4), (12, 8, 6, 4), (5, 9, 8, 2)]
        {
            let stride = 2 * columns;
            let mut data = vec![0; rows * stride];
            let matrix = BlocksMut::new(&mut data, stride).in_units(height, width);
            let down = Tasks::exactly(rows.div_ceil(height), 2);
            let across = Tasks::exactly(columns.div_ceil(width), 3);
            split_grid(&pool, down, across, matrix.split_columns(columns), |_, _, (a, b)| {
                for (mut block, step) in [(a, 1), (b, 2)] {
                    for row in 0..block.rows() {
                        block.row_mut(row).iter_mut().for_each(|value| *value += step);
                    }
                }
            });
            let expected = |at: usize| if at % stride < columns { 1 } else { 2 };
            assert!((0..data.len()).all(|at| data[at] == expected(at)));
        }
    }

    #[test]
    #[should_panic(expected = "rows do not match")]
    fn an_output_of_another_size_is_refused() {
        let mut out = [0.0; 9];
        split_rows(&Pool::new(1), Tasks::of_rows(5, 2), RowsMut::new(&mut out, 2), |_, _| ());
    }
}
