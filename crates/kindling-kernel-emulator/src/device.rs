//! A CUDA device on the CPU: host memory behind guard pages, launches run by the emulator, matrix
//! products by plain loops. Tests run the engine's whole device path over it: allocations, copies,
//! launches and products, in their order and on their addresses.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use kindling_core::cuda::Launch;
use kindling_core::cuda::{Driver, Factor, Product, Properties, Rows};
use kindling_core::dtype::Dtype;
use kindling_core::{Error, Result};

use crate::{Bf16, Element, Memory, Order, emulate};

/// The emulated device.
#[derive(Debug)]
pub struct EmulatedDevice {
    properties: Properties,
    order: Order,
    state: Mutex<State>,
}

/// Operations performed, for tests that count them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Work {
    /// Names of the kernels launched, in order.
    pub launches: Vec<&'static str>,
    /// Products, in order.
    pub products: Vec<Product>,
    /// Number of times the host waited for the device.
    pub waits: usize,
    /// Copies to the device.
    pub uploads: usize,
}

#[derive(Debug, Default)]
struct State {
    /// Allocations by address.
    memory: BTreeMap<u64, Held>,
    in_use: u64,
    work: Work,
}

#[derive(Debug)]
struct Held(Memory<u8>);

// SAFETY: the memory is accessed only under the device's lock.
unsafe impl Send for Held {}

/// Held while a kernel runs. All devices share it: the emulator has one set of fibers.
static RUNNING: Mutex<()> = Mutex::new(());

impl EmulatedDevice {
    /// Creates a device with `memory` bytes whose threads run in `order`.
    pub fn new(memory: u64, order: Order) -> Self {
        let properties = Properties {
            name: "emulated".to_owned(),
            memory,
            multiprocessors: 132,
            capability: (8, 0),
        };
        Self { properties, order, state: Mutex::default() }
    }

    /// Returns the operations since the last call.
    pub fn take_work(&self) -> Work {
        std::mem::take(&mut self.state().work)
    }

    /// Returns the bytes allocated and not released.
    pub fn bytes_in_use(&self) -> u64 {
        self.state().in_use
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Returns the host address of `bytes` at `pointer`, all within one allocation.
    fn place(&self, pointer: u64, bytes: usize) -> Result<*mut u8> {
        let inside = self.memory.range(..=pointer).next_back().is_some_and(|(start, held)| {
            pointer - start <= held.0.values().len() as u64
                && bytes as u64 <= held.0.values().len() as u64 - (pointer - start)
        });
        if inside {
            Ok(pointer as *mut u8)
        } else {
            Err(Error::Device(format!("{bytes} bytes at {pointer:#x} are in no allocation")))
        }
    }

    /// Reads one element of a matrix.
    fn element(&self, pointer: u64, dtype: Dtype, index: usize) -> Result<f32> {
        let place = self.place(pointer + (index * dtype.size()) as u64, dtype.size())?;
        Ok(match dtype {
            // SAFETY: `place` checked the element's bytes.
            Dtype::F32 => f32::from_ne_bytes(unsafe { place.cast::<[u8; 4]>().read() }),
            Dtype::Bf16 => {
                // SAFETY: as above.
                let bytes = unsafe { place.cast::<[u8; 2]>().read() };
                Bf16(u16::from_ne_bytes(bytes)).to_f32()
            }
        })
    }

    /// Reads an operand (rows, columns) as f32, row by row.
    fn operand(
        &self,
        factor: Factor,
        dtype: Dtype,
        [rows, columns]: [usize; 2],
    ) -> Result<Vec<f32>> {
        let Factor { pointer, transposed, leading } = factor;
        let width = if transposed { rows } else { columns };
        if leading < width {
            return Err(Error::Device(format!("a leading dimension of {leading}, width {width}")));
        }
        let place = |row, column| {
            if transposed { column * leading + row } else { row * leading + column }
        };
        (0..rows * columns)
            .map(|i| self.element(pointer, dtype, place(i / columns, i % columns)))
            .collect()
    }
}

impl Driver for EmulatedDevice {
    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn allocate(&self, bytes: usize) -> Result<u64> {
        let mut state = self.state();
        if state.in_use + bytes as u64 > self.properties.memory {
            return Err(Error::OutOfMemory { bytes: bytes as u64 });
        }
        let memory = Memory::poisoned(bytes, 0);
        let pointer = memory.address();
        state.in_use += bytes as u64;
        state.memory.insert(pointer, Held(memory));
        Ok(pointer)
    }

    fn release(&self, pointer: u64, bytes: usize) {
        let mut state = self.state();
        let held = state.memory.remove(&pointer);
        let held = held.expect("memory that was allocated");
        assert_eq!(held.0.values().len(), bytes, "the size it was allocated with");
        state.in_use -= bytes as u64;
    }

    fn clear(&self, pointer: u64, bytes: usize) -> Result<()> {
        let place = self.state().place(pointer, bytes)?;
        // SAFETY: `place` checked the bytes.
        unsafe { place.write_bytes(0, bytes) };
        Ok(())
    }

    fn upload(&self, pointer: u64, from: &[u8]) -> Result<()> {
        let mut state = self.state();
        state.work.uploads += 1;
        let place = state.place(pointer, from.len())?;
        // SAFETY: `place` checked the bytes, which do not belong to the caller.
        unsafe { place.copy_from_nonoverlapping(from.as_ptr(), from.len()) };
        Ok(())
    }

    fn download(&self, to: &mut [u8], pointer: u64) -> Result<()> {
        let mut state = self.state();
        state.work.waits += 1;
        let place = state.place(pointer, to.len())?;
        // SAFETY: as in `upload`.
        unsafe { place.copy_to_nonoverlapping(to.as_mut_ptr(), to.len()) };
        Ok(())
    }

    fn copy_rows(&self, to: Rows, from: Rows, bytes: usize, count: usize) -> Result<()> {
        let state = self.state();
        for row in 0..count {
            let to = state.place(to.pointer + (row * to.pitch) as u64, bytes)?;
            let from = state.place(from.pointer + (row * from.pitch) as u64, bytes)?;
            // SAFETY: `place` checked both ranges.
            unsafe { to.copy_from(from, bytes) };
        }
        Ok(())
    }

    fn launch(&self, launch: &Launch) -> Result<()> {
        self.state().work.launches.push(launch.kernel);
        let _running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        emulate(launch, self.order).map_err(Error::Device)
    }

    fn multiply(&self, product: &Product) -> Result<()> {
        let mut state = self.state();
        state.work.products.push(*product);
        let Product { m, k, n, operands, results, .. } = *product;
        let a = state.operand(product.a, operands, [m, k])?;
        let b = state.operand(product.b, operands, [k, n])?;
        if product.out_leading < n {
            return Err(Error::Device(format!("rows of {n} overlap: {product:?}")));
        }
        for row in 0..m {
            for column in 0..n {
                let sum: f64 = (0..k)
                    .map(|depth| f64::from(a[row * k + depth]) * f64::from(b[depth * n + column]))
                    .sum();
                let index = row * product.out_leading + column;
                let before = if product.accumulate {
                    state.element(product.out, results, index)?
                } else {
                    0.0
                };
                let sum = sum as f32 + before;
                let place =
                    state.place(product.out + (index * results.size()) as u64, results.size())?;
                match results {
                    // SAFETY: `place` checked the element's bytes.
                    Dtype::F32 => unsafe { place.cast::<[u8; 4]>().write(sum.to_ne_bytes()) },
                    // SAFETY: as above.
                    Dtype::Bf16 => unsafe {
                        place.cast::<[u8; 2]>().write(Bf16::from_f32(sum).0.to_ne_bytes());
                    },
                }
            }
        }
        Ok(())
    }

    fn synchronize(&self) -> Result<()> {
        self.state().work.waits += 1;
        Ok(())
    }
}
