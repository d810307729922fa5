//! A kernel launch as plain data: name, grid, block, shared memory, arguments.

/// A kernel argument. Sizes are C `int`s; the code that builds a launch checks that they fit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Arg {
    /// An address in device memory, 0 for none.
    Pointer(u64),
    /// `int`.
    I32(i32),
    /// `long long`.
    I64(i64),
    /// `float`.
    F32(f32),
}

impl From<usize> for Arg {
    /// Converts a size.
    ///
    /// # Panics
    /// Panics if the size does not fit a C `int`.
    fn from(size: usize) -> Self {
        Self::I32(i32::try_from(size).expect("a size that fits an int"))
    }
}

impl From<f32> for Arg {
    fn from(value: f32) -> Self {
        Self::F32(value)
    }
}

/// A launch of one kernel.
#[derive(Debug, Clone, PartialEq)]
pub struct Launch {
    /// Name of the kernel in the compiled module.
    pub kernel: &'static str,
    /// Blocks in x, y and z.
    pub grid: [u32; 3],
    /// Threads per block, a multiple of 32.
    pub block: u32,
    /// Dynamic shared memory per block.
    pub shared_bytes: u32,
    pub args: Vec<Arg>,
}

impl Launch {
    /// Returns whether the grid is empty, as for a shape without rows. A device rejects such a
    /// launch.
    pub fn is_empty(&self) -> bool {
        self.grid.contains(&0)
    }
}
