//! Owned device memory, and a count of the bytes in use.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::driver::Driver;
use super::plain::{bytes_of, bytes_of_mut};
use crate::{Error, Result};

/// Bytes in use now, and their peak.
#[derive(Debug, Default)]
pub(super) struct Usage {
    now: AtomicU64,
    pub(super) peak: AtomicU64,
}

/// Memory of a device, given back when dropped.
#[derive(Debug)]
pub struct DeviceMemory {
    driver: Arc<dyn Driver>,
    usage: Arc<Usage>,
    pointer: u64,
    bytes: usize,
}

impl DeviceMemory {
    pub(super) fn new(driver: &Arc<dyn Driver>, usage: &Arc<Usage>, bytes: usize) -> Result<Self> {
        let in_use = usage.now.load(Ordering::Relaxed);
        let pointer = driver.allocate(bytes.max(1)).map_err(|error| match error {
            Error::OutOfMemory { bytes } => {
                Error::OutOfDeviceMemory { bytes, in_use, total: driver.properties().memory }
            }
            other => other,
        })?;
        let now = usage.now.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64;
        usage.peak.fetch_max(now, Ordering::Relaxed);
        Ok(Self { driver: Arc::clone(driver), usage: Arc::clone(usage), pointer, bytes })
    }

    pub fn pointer(&self) -> u64 {
        self.pointer
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Copies `from` to the start of this memory.
    pub(crate) fn upload(&self, from: &[u8]) -> Result<()> {
        if from.is_empty() { Ok(()) } else { self.driver.upload(self.pointer, from) }
    }

    /// Copies `from` to the floats of this memory from index `start` on.
    pub(crate) fn upload_floats(&self, start: usize, from: &[f32]) -> Result<()> {
        let pointer = self.pointer + (start * size_of::<f32>()) as u64;
        if from.is_empty() { Ok(()) } else { self.driver.upload(pointer, bytes_of(from)) }
    }

    /// Copies the floats of this memory from index `start` on to the host. Waits for queued work.
    pub(crate) fn download_floats(&self, to: &mut [f32], start: usize) -> Result<()> {
        let pointer = self.pointer + (start * size_of::<f32>()) as u64;
        if to.is_empty() { Ok(()) } else { self.driver.download(bytes_of_mut(to), pointer) }
    }

    /// Copies the start of this memory to the host. Waits for queued work.
    pub(crate) fn download(&self, to: &mut [u8]) -> Result<()> {
        if to.is_empty() { Ok(()) } else { self.driver.download(to, self.pointer) }
    }
}

impl Drop for DeviceMemory {
    fn drop(&mut self) {
        self.usage.now.fetch_sub(self.bytes as u64, Ordering::Relaxed);
        self.driver.release(self.pointer, self.bytes.max(1));
    }
}
