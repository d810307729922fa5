//! A device that counts the work it is given and does none of it. Counting a step of a large model
//! is quick, since its launches depend on sizes alone.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use kindling_core::Result;
use kindling_core::cuda::{Driver, Launch, Product, Properties, Rows};

use crate::traffic::{self, Traffic};

/// Calls and bytes of one kind of work.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    pub calls: u64,
    pub traffic: Traffic,
}

impl Count {
    fn add(&mut self, traffic: Traffic) {
        self.calls += 1;
        self.traffic += traffic;
    }
}

/// The work of a device since the counts were last taken.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Counts {
    /// Kernels, by their name without dtype and sizes.
    pub kernels: BTreeMap<String, Count>,
    pub products: Count,
    /// Floating-point operations of the products.
    pub product_flops: f64,
    /// Copies within the device, and memory set to zero.
    pub copies: Count,
    /// Copies to the device.
    pub uploads: u64,
    /// Number of times the host waited.
    pub waits: u64,
}

impl Counts {
    /// Returns the sum over the kernels.
    pub fn all_kernels(&self) -> Count {
        let mut all = Count::default();
        for count in self.kernels.values() {
            all.calls += count.calls;
            all.traffic += count.traffic;
        }
        all
    }
}

/// The counting device. Reading from it gives zeros.
#[derive(Debug)]
pub struct CountingDevice {
    properties: Properties,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Bytes handed out so far, which is also the address of the last allocation.
    allocated: u64,
    counts: Counts,
}

impl CountingDevice {
    /// Creates a device that reports `memory` bytes, and never runs out of them.
    pub fn new(memory: u64) -> Self {
        let properties = Properties {
            name: "counting".to_owned(),
            memory,
            multiprocessors: 132,
            capability: (8, 0),
        };
        Self { properties, state: Mutex::default() }
    }

    /// Returns the work since the last call.
    pub fn take_counts(&self) -> Counts {
        std::mem::take(&mut self.state().counts)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Driver for CountingDevice {
    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn allocate(&self, bytes: usize) -> Result<u64> {
        let mut state = self.state();
        state.allocated += (bytes as u64).next_multiple_of(256);
        Ok(state.allocated)
    }

    fn release(&self, _pointer: u64, _bytes: usize) {}

    fn clear(&self, _pointer: u64, bytes: usize) -> Result<()> {
        self.state().counts.copies.add(Traffic { read: 0, written: bytes as u64 });
        Ok(())
    }

    fn upload(&self, _pointer: u64, _from: &[u8]) -> Result<()> {
        self.state().counts.uploads += 1;
        Ok(())
    }

    fn download(&self, to: &mut [u8], _pointer: u64) -> Result<()> {
        to.fill(0);
        self.state().counts.waits += 1;
        Ok(())
    }

    fn copy_rows(&self, _to: Rows, _from: Rows, bytes: usize, count: usize) -> Result<()> {
        let bytes = (bytes * count) as u64;
        self.state().counts.copies.add(Traffic { read: bytes, written: bytes });
        Ok(())
    }

    fn launch(&self, launch: &Launch) -> Result<()> {
        let traffic = traffic::of_launch(launch);
        let family = traffic::family(launch.kernel);
        self.state().counts.kernels.entry(family).or_default().add(traffic);
        Ok(())
    }

    fn multiply(&self, product: &Product) -> Result<()> {
        let counts = &mut self.state().counts;
        counts.products.add(traffic::of_product(product));
        counts.product_flops += 2.0 * product.m as f64 * product.k as f64 * product.n as f64;
        Ok(())
    }

    fn synchronize(&self) -> Result<()> {
        self.state().counts.waits += 1;
        Ok(())
    }
}
