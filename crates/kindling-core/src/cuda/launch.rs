//! A launch of a kernel: its name, how many blocks of how many threads, the arguments in order.

/// An argument of a kernel. Sizes are C's `int`: a launch's maker checks that they fit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Arg {
    /// An address in device memory (0: none).
    Pointer(u64),
    /// `int`.
    I32(i32),
    /// `long long`.
    I64(i64),
    /// `float`.
    F32(f32),
}

impl From<usize> for Arg {
    /// A size.
    ///
    /// # Panics
    /// Where it does not fit `int`.
    fn from(size: usize) -> Self {
        Self::I32(i32::try_from(size).expect("a size that fits an int"))
    }
}

impl From<f32> for Arg {
    fn from(value: f32) -> Self {
        Self::F32(value)
    }
}

/// A launch as plain data.
#[derive(Debug, Clone, PartialEq)]
pub struct Launch {
    /// Name of the kernel, as in the compiled module.
    pub kernel: &'static str,
    /// Blocks in x, y and z.
    pub grid: [u32; 3],
    /// Threads of a block, whole warps.
    pub block: u32,
    /// Dynamic shared memory of a block.
    pub shared_bytes: u32,
    /// The arguments in order.
    pub args: Vec<Arg>,
}

impl Launch {
    /// Whether it has nothing to do: a shape without rows. A device refuses an empty grid, so it is not to be run.
    pub fn is_empty(&self) -> bool {
        self.grid.contains(&0)
    }
}
