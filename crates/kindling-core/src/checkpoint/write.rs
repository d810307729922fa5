//! Writes the folder of a checkpoint, from a model and its optimizer or from a snapshot of them.

use std::path::Path;

use super::names::{MODEL, OPTIMIZER, PRODUCTS};
use super::state::{self, State};
use super::tensor_file::{self, FileRecord, Source};
use crate::buffer::Buffer;
use crate::checksum::WideChecksum;
use crate::model::Parameter;
use crate::progress::{Counted, Progress, f32_bytes};
use crate::staging::{StagedFolder, write_synced};
use crate::{Error, Result};

/// Everything that a checkpoint is written from.
pub(super) struct Contents<'a> {
    pub parameters: &'a [Parameter],
    /// The flat weights, f32.
    pub weights: &'a Buffer,
    /// The flat buffers of the optimizer, each with the prefix of its tensors' names.
    pub moments: Option<Vec<(&'static str, &'a Buffer)>>,
    /// The algorithms that a CUDA device has chosen.
    pub products: Option<&'a str>,
    /// The state, without `files` and `checksum`.
    pub state: State,
}

impl Contents<'_> {
    /// Writes the folder `path`, replacing an existing one.
    ///
    /// # Errors
    /// Returns `ERR_IO`, `ERR_DISK_FULL` or `ERR_NOT_WRITABLE` if the folder cannot be written, and
    /// errors of `progress`. Whatever was at `path` is then untouched.
    pub fn write(self, path: &Path, progress: &mut Progress<'_>) -> Result<()> {
        let name = path.file_name().ok_or_else(|| {
            Error::argument(format!("cannot save to {}; give the path of a folder", path.display()))
        })?;
        let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let staged = StagedFolder::new(parent, &name.to_string_lossy())?;
        self.write_files(staged.path(), progress)?;
        staged.commit(path)
    }

    fn write_files(self, folder: &Path, progress: &mut Progress<'_>) -> Result<()> {
        let Self { parameters, weights, moments, products, mut state } = self;
        let buffers = 1 + moments.as_ref().map_or(0, Vec::len);
        let elements: usize = parameters.iter().map(|parameter| parameter.range.len()).sum();
        let mut written = Counted::new(f32_bytes(buffers * elements), progress);
        let mut write = |name: &str, buffers: Vec<(&'static str, &Buffer)>| {
            let sources: Vec<_> = buffers
                .into_iter()
                .flat_map(|(prefix, flat)| {
                    parameters.iter().map(move |parameter| Source { prefix, parameter, flat })
                })
                .collect();
            let record = tensor_file::write(&folder.join(name), &sources, &mut written)?;
            state.files.insert(name.to_owned(), record);
            Ok::<_, Error>(())
        };
        write(MODEL, vec![("", weights)])?;
        if let Some(moments) = moments {
            write(OPTIMIZER, moments)?;
        }
        if let Some(products) = products {
            let bytes = products.as_bytes();
            write_synced(&folder.join(PRODUCTS), bytes)?;
            let (head, bytes) = (WideChecksum::of(bytes), bytes.len() as u64);
            let record = FileRecord { bytes, head, ..Default::default() };
            state.files.insert(PRODUCTS.to_owned(), record);
        }
        write_synced(&folder.join(state::FILE_NAME), state.text()?.as_bytes())
    }
}
