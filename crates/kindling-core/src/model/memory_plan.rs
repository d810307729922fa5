//! The memory that training takes, computed from the sizes of the model and the batch without
//! allocating anything.
//!
//! Activations are counted by the code that allocates them, with an allocator that only adds up.
//! The sizes of scratch memory come from the ops that use it. The plan counts what the engine
//! itself holds after a step of AdamW. It does not count the program, Node.js, or the memory of
//! CUDA's own libraries.

use std::cell::Cell;

use super::activations::{ActivationDtypes, Activations, Choices, GradientActivations, Saved};
use super::params::Layout;
use super::pass::{Pass, Shapes};
use crate::config::ModelConfig;
use crate::cpu::MatmulBackend;
use crate::cuda::{Cuda, scratch_bytes};
use crate::device::Device;
use crate::dtype::Dtype;
use crate::ops::{
    adamw, attention, embedding, grad_norm, head_norm, linear, output_loss, rms_norm,
};
use crate::{Error, Result, available_memory};

/// Largest multiple to which attention kernels round up positions and the size of a head.
const KERNEL_TILE: usize = 128;

/// A device to plan for; it need not exist on this machine.
#[derive(Debug, Clone, Copy)]
pub enum PlannedDevice {
    Cpu { matmul: MatmulBackend, threads: usize },
    Cuda { dtype: Dtype, memory: u64, multiprocessors: usize },
}

impl PlannedDevice {
    /// Plans for a device that exists.
    pub fn of(gpu: &Cuda) -> Self {
        let properties = gpu.properties();
        Self::Cuda {
            dtype: gpu.arithmetic.dtype,
            memory: properties.memory,
            multiprocessors: properties.multiprocessors,
        }
    }

    fn activation_dtypes(self) -> ActivationDtypes {
        match self {
            Self::Cpu { matmul, .. } => ActivationDtypes {
                activation: Dtype::F32,
                matmul: matmul.dtype(),
                separate_dqkv: false,
            },
            Self::Cuda { dtype, .. } => {
                ActivationDtypes { activation: dtype, matmul: dtype, separate_dqkv: true }
            }
        }
    }
}

/// Bytes that training takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlannedMemory {
    /// The weights, and on a bf16 device their bf16 copy.
    pub parameters: u64,
    pub gradients: u64,
    /// The two moments of AdamW.
    pub optimizer: u64,
    /// Activations of all sequences of the batch, and their gradients.
    pub activations: u64,
    /// A block of logits, rotation tables, and scratch memory of the ops.
    pub workspace: u64,
}

impl PlannedMemory {
    /// Returns the sum of all parts.
    pub fn total(&self) -> u64 {
        self.parameters + self.gradients + self.optimizer + self.activations + self.workspace
    }
}

/// Computes the memory that a model takes in training.
#[derive(Debug)]
pub struct MemoryPlan {
    config: ModelConfig,
    device: PlannedDevice,
    recompute: bool,
    num_parameters: usize,
}

impl MemoryPlan {
    /// Plans for training a model on `device`, with or without recomputing blocks in the backward
    /// pass.
    ///
    /// # Errors
    /// Returns `ERR_INVALID_CONFIG` if the sizes are invalid.
    pub fn new(config: ModelConfig, device: PlannedDevice, recompute: bool) -> Result<Self> {
        config.validate()?;
        let num_parameters = Layout::new(&config).len;
        Ok(Self { config, device, recompute, num_parameters })
    }

    /// Returns the memory for batches of `batch` sequences of `positions` tokens.
    ///
    /// # Errors
    /// Returns `ERR_INVALID_ARGUMENT` if the batch is too large for any memory.
    pub fn memory(&self, batch: usize, positions: usize) -> Result<PlannedMemory> {
        let keep_hidden = self.keeps_hidden(batch, positions)?;
        self.memory_of(batch, positions, keep_hidden)
    }

    /// Returns whether the device has enough memory to keep `Activations::hidden` of every block.
    ///
    /// # Errors
    /// As `memory`.
    pub(super) fn keeps_hidden(&self, batch: usize, positions: usize) -> Result<bool> {
        let total = || Ok(self.memory_of(batch, positions, true)?.total());
        match self.device {
            PlannedDevice::Cpu { .. } => Ok(false),
            PlannedDevice::Cuda { memory, .. } => Ok(total()? <= memory / 10 * 9),
        }
    }

    fn memory_of(
        &self,
        batch: usize,
        positions: usize,
        keep_hidden: bool,
    ) -> Result<PlannedMemory> {
        self.check(batch, positions)?;
        let weights = bytes(self.num_parameters, Dtype::F32);
        let copy = match self.device {
            PlannedDevice::Cuda { dtype, .. } if dtype != Dtype::F32 => {
                bytes(self.num_parameters, dtype)
            }
            _ => 0,
        };
        Ok(PlannedMemory {
            parameters: weights + copy,
            gradients: weights,
            optimizer: 2 * weights,
            activations: self.activations(batch * positions, self.saved(), keep_hidden)?,
            workspace: self.workspace(Pass { batch, positions }),
        })
    }

    /// Returns the largest batch of sequences of `positions` tokens that fits into `available`
    /// bytes, 0 if none does.
    ///
    /// # Errors
    /// As `memory`.
    pub fn largest_batch(&self, positions: usize, available: u64) -> Result<usize> {
        self.check(1, positions)?;
        // `low` fits. `high` does not: its activations alone take more.
        let sequence = self.activations(positions, self.saved(), false)?;
        let (mut low, mut high) = (0, (available / sequence) as usize + 1);
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            let fits = |memory: PlannedMemory| memory.total() <= available;
            if self.memory(middle, positions).is_ok_and(fits) {
                low = middle;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    /// Checks that the host has enough memory for a pass on the CPU, before any of it is touched.
    /// On a GPU the allocation itself fails.
    ///
    /// # Errors
    /// Returns `ERR_OUT_OF_MEMORY`, and as `memory`.
    pub(super) fn require(
        device: &Device,
        config: &ModelConfig,
        pass: Pass,
        saved: Saved,
    ) -> Result<()> {
        let Device::Cpu(cpu) = device else { return Ok(()) };
        let planned = PlannedDevice::Cpu { matmul: cpu.matmul, threads: cpu.pool.threads() };
        let plan = Self::new(config.clone(), planned, saved == Saved::Residuals)?;
        plan.check(pass.batch, pass.positions)?;
        available_memory::require(plan.activations(pass.rows(), saved, false)?)
    }

    fn saved(&self) -> Saved {
        if self.recompute { Saved::Residuals } else { Saved::Blocks }
    }

    /// Checks that no size of a pass overflows 64 bits.
    fn check(&self, batch: usize, positions: usize) -> Result<()> {
        let config = &self.config;
        let heads = KERNEL_TILE * config.num_heads;
        let widest = config.qkv_width().max(2 * config.d_ff).max(config.vocab_size).max(heads);
        let rows = positions.max(KERNEL_TILE);
        // 128: at most 16 buffers per block, 4 bytes per element, and as much again for padding.
        let bytes = [batch, rows, widest, config.num_layers + 4, 128]
            .into_iter()
            .fold(1, |product: u128, factor| product.saturating_mul(factor as u128));
        if bytes <= u128::from(u64::MAX) {
            return Ok(());
        }
        Err(Error::argument(format!(
            "a batch of {batch} sequences of {positions} tokens is too large for any memory; lower \
             batch_size or seq_length"
        )))
    }

    /// Returns the bytes of the activations of `rows` tokens, and of their gradients.
    fn activations(&self, rows: usize, saved: Saved, keep_hidden: bool) -> Result<u64> {
        let total = Cell::new(0);
        let count = |len, dtype| {
            total.set(total.get() + bytes(len, dtype));
            Ok(())
        };
        let choices = Choices { dtypes: self.device.activation_dtypes(), keep_hidden };
        let config = &self.config;
        Activations::with(choices, config, rows, saved, count)?;
        if saved != Saved::Nothing {
            GradientActivations::with(choices, config, rows, count)?;
        }
        Ok(total.get())
    }

    fn workspace(&self, pass: Pass) -> u64 {
        let table = bytes(self.config.max_seq_length * self.config.head_size(), Dtype::F32);
        let shapes = Shapes::new(&self.config, pass);
        let cpu_dtype = self.device.activation_dtypes().matmul;
        let (cuda, scratch) = match self.device {
            PlannedDevice::Cpu { matmul, threads } => (None, cpu_scratch(&shapes, matmul, threads)),
            PlannedDevice::Cuda { dtype, memory, multiprocessors } => {
                let gpu = output_loss::Gpu { dtype, memory, multiprocessors };
                (Some(gpu), self.cuda_scratch(&shapes, dtype))
            }
        };
        let logits = output_loss::scratch_buffers(shapes.output_loss, cuda, cpu_dtype);
        let logits: u64 = logits.into_iter().map(|(len, dtype)| bytes(len, dtype)).sum();
        2 * table + logits + scratch
    }

    /// Returns the bytes of scratch memory on a CUDA device, which the ops use one after the other,
    /// and of attention's counters and the state of the gradients' norm.
    fn cuda_scratch(&self, shapes: &Shapes, dtype: Dtype) -> u64 {
        const F32: usize = size_of::<f32>();
        let rows = shapes.rows();
        // Hopper's kernels need less.
        let dq = attention::cuda::dq_len(dtype, shapes.attention, false);
        let attention = [shapes.lse_len(), dq];
        let attention = attention.map(|len| scratch_bytes(F32 * len)).into_iter().sum();
        let counters =
            size_of::<i32>() * attention::cuda::turns_len(dtype, shapes.attention, false);
        let bias = if self.config.qkv_bias { linear::cuda::partial_len(shapes.qkv) } else { 0 };
        let heads =
            if self.config.qk_norm { head_norm::cuda::partial_len(shapes.head_norm) } else { 0 };
        let largest = [
            F32 * embedding::cuda::Groups::len_of(rows),
            attention,
            F32 * rms_norm::cuda::partial_len(shapes.norm),
            F32 * bias,
            F32 * heads,
            F32 * adamw::cuda::SETTINGS,
            size_of::<f64>() * grad_norm::cuda::partial_len(self.num_parameters),
        ];
        let largest = largest.into_iter().max().unwrap_or(0);
        let state = grad_norm::cuda::STATE * size_of::<f64>();
        (scratch_bytes(largest) + counters + state) as u64
    }
}

/// Returns the bytes of scratch memory on the CPU: what the ops share, and what each thread has.
fn cpu_scratch(shapes: &Shapes, matmul: MatmulBackend, threads: usize) -> u64 {
    let output = output_loss::cpu_block(shapes.output_loss, matmul.dtype());
    let layers = [shapes.qkv, shapes.o, shapes.w13, shapes.w2, output];
    let shared = layers.map(|shape| linear::device_scratch_len(matmul, threads, shape));
    let shared = shared.into_iter().max().unwrap_or(0);
    bytes(shared + threads * shapes.attention.cpu_scratch_len(matmul), Dtype::F32)
}

/// Returns the bytes of a buffer, rounded up to whole 32-bit words.
fn bytes(len: usize, dtype: Dtype) -> u64 {
    (len as u64 * dtype.size() as u64).next_multiple_of(size_of::<f32>() as u64)
}
