//! The engine's error type: a stable code, and a message that says what was wrong and what to do.
//!
//! `docs/errors.md` lists the codes; `scripts/checks/errors-table.js` compares the two.

use std::fmt;
use std::io::{self, ErrorKind};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// The result of every fallible function of the engine.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of the engine. `code()` is stable across releases; the message is for people.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An argument is out of range, or two arguments contradict each other.
    #[error("{0}")]
    InvalidArgument(String),
    /// The sizes of a model contradict each other.
    #[error("{0}")]
    InvalidConfig(String),
    /// A buffer does not have the size of its shape.
    #[error("{op}: {what} has {actual} elements but needs {expected}")]
    ShapeMismatch { op: &'static str, what: &'static str, expected: usize, actual: usize },
    /// A file operation failed in the operating system.
    #[error("{action} {}: {source}", path.display())]
    Io { action: IoAction, path: PathBuf, source: io::Error },
    /// The disk has no room left for the file at `path`.
    #[error(
        "cannot write {}: the disk is full; free some space and run the command again",
        path.display()
    )]
    DiskFull { path: PathBuf },
    /// The file or folder at `path` is read-only.
    #[error(
        "cannot write {}: permission denied or read-only; choose another folder",
        path.display()
    )]
    NotWritable { path: PathBuf },
    /// A required file or folder is missing; `what` names its kind, for example "corpus".
    #[error("{what} {} does not exist; check the path", path.display())]
    NotFound { what: &'static str, path: PathBuf },
    /// The corpus holds no text.
    #[error("{} holds no text; use a file with content", path.display())]
    EmptyCorpus { path: PathBuf },
    /// A corpus file is damaged, or a line of JSON Lines holds no text.
    #[error("{0}")]
    InvalidCorpus(String),
    /// Tokenizer files cannot be read or do not belong together.
    #[error("{0}")]
    InvalidTokenizer(String),
    /// The vocabulary has no token for a character.
    #[error(
        "the tokenizer has no token for {character:?} (U+{:04X}); \
         train it on text with this character",
        u32::from(*character)
    )]
    UnknownCharacter { character: char },
    /// A token id is outside the vocabulary.
    #[error(
        "token id {id} at position {position} is outside the vocabulary of {vocab_size} tokens; \
         encode with this model's tokenizer or raise vocab_size"
    )]
    TokenOutOfRange { id: i64, position: u64, vocab_size: usize },
    /// A token id is negative.
    #[error("token id {id} at position {position} is negative; token ids start at 0")]
    NegativeTokenId { id: i32, position: u64 },
    /// A token store is damaged or has an unknown format.
    #[error("{0}")]
    InvalidStore(String),
    /// A token store has fewer tokens than `needed`: one window with its shifted target.
    #[error(
        "the token store holds {length} tokens but a window needs {needed}; \
         lower seq_length or use more text"
    )]
    StoreTooShort { length: u64, needed: u64 },
    /// The token range `start..end` is not within the store.
    #[error("range {start}..{end} is outside the store of {length} tokens; use a range within it")]
    RangeOutOfBounds { start: u64, end: u64, length: u64 },
    /// Weights or optimizer state do not fit the model; the message lists every difference.
    #[error("the checkpoint does not fit the model: {0}")]
    CheckpointMismatch(String),
    /// A checkpoint cannot be read.
    #[error("{0}")]
    InvalidCheckpoint(String),
    /// A model file of another program cannot be read.
    #[error("{0}")]
    InvalidModel(String),
    /// The loss or a gradient is NaN or infinite. The weights were not changed.
    #[error(
        "{what} is not finite at step {step}; lower the learning rate or clip gradients (max_norm)"
    )]
    NonFinite { what: &'static str, step: u64 },
    /// An op of a pass produced a NaN or an infinity. `output` names the op, `values` describes the
    /// values.
    #[error(
        "{output} is not finite ({values}), and is the first such result of the pass; \
         lower the learning rate or clip gradients (max_norm)"
    )]
    NonFiniteOutput { output: String, values: String },
    /// The requested device does not exist.
    #[error("{0}")]
    DeviceUnavailable(String),
    /// The engine does not support a combination of op, device and dtype, or a feature of a model
    /// file.
    #[error("{0}")]
    Unsupported(String),
    /// An allocation of `bytes` failed.
    #[error(
        "not enough memory for {}; lower batch_size, seq_length or the size of the model",
        format_bytes(*bytes)
    )]
    OutOfMemory { bytes: u64 },
    /// An allocation of `bytes` failed on a device, of whose `total` bytes this model holds
    /// `in_use`.
    #[error(
        "not enough device memory for {} (this model uses {} of {}); \
         lower batch_size or seq_length, add --recompute, or choose a smaller model",
        format_bytes(*bytes), format_bytes(*in_use), format_bytes(*total)
    )]
    OutOfDeviceMemory { bytes: u64, in_use: u64, total: u64 },
    /// A device failed while it worked.
    #[error("the CUDA device failed: {0}; restart from the last checkpoint")]
    Device(String),
    /// The object is in use by another call.
    #[error("{0} is busy with another call; await it first")]
    Busy(&'static str),
    /// The object was closed.
    #[error("{0} is closed; create a new one")]
    Closed(&'static str),
    /// The caller cancelled the call.
    #[error("cancelled")]
    Cancelled,
    /// A bug in Kindling.
    #[error("internal error: {0}; please report it")]
    Internal(String),
}

/// A file operation that can fail. It helps to choose the variant in `Error::io`, and starts the
/// message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IoAction {
    Read,
    Write,
    Create,
    Map,
    StartThread,
}

impl IoAction {
    /// Returns whether a denied permission means that the path is not writable.
    fn writes(self) -> bool {
        matches!(self, Self::Write | Self::Create)
    }
}

impl fmt::Display for IoAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "cannot read",
            Self::Write => "cannot write",
            Self::Create => "cannot create",
            Self::Map => "cannot map",
            Self::StartThread => "cannot start the thread",
        })
    }
}

impl Error {
    /// Returns the stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::InvalidArgument(_) => "ERR_INVALID_ARGUMENT",
            Self::InvalidConfig(_) => "ERR_INVALID_CONFIG",
            Self::ShapeMismatch { .. } => "ERR_SHAPE_MISMATCH",
            Self::Io { .. } => "ERR_IO",
            Self::DiskFull { .. } => "ERR_DISK_FULL",
            Self::NotWritable { .. } => "ERR_NOT_WRITABLE",
            Self::NotFound { .. } => "ERR_NOT_FOUND",
            Self::EmptyCorpus { .. } => "ERR_EMPTY_CORPUS",
            Self::InvalidCorpus(_) => "ERR_INVALID_CORPUS",
            Self::InvalidTokenizer(_) => "ERR_INVALID_TOKENIZER",
            Self::UnknownCharacter { .. } => "ERR_UNKNOWN_CHARACTER",
            Self::TokenOutOfRange { .. } | Self::NegativeTokenId { .. } => "ERR_TOKEN_OUT_OF_RANGE",
            Self::InvalidStore(_) => "ERR_INVALID_STORE",
            Self::StoreTooShort { .. } => "ERR_STORE_TOO_SHORT",
            Self::RangeOutOfBounds { .. } => "ERR_RANGE_OUT_OF_BOUNDS",
            Self::CheckpointMismatch(_) => "ERR_CHECKPOINT_MISMATCH",
            Self::InvalidCheckpoint(_) => "ERR_INVALID_CHECKPOINT",
            Self::InvalidModel(_) => "ERR_INVALID_MODEL",
            Self::NonFinite { .. } | Self::NonFiniteOutput { .. } => "ERR_NON_FINITE",
            Self::DeviceUnavailable(_) => "ERR_DEVICE_UNAVAILABLE",
            Self::Unsupported(_) => "ERR_UNSUPPORTED",
            Self::OutOfMemory { .. } | Self::OutOfDeviceMemory { .. } => "ERR_OUT_OF_MEMORY",
            Self::Device(_) => "ERR_DEVICE",
            Self::Busy(_) => "ERR_BUSY",
            Self::Closed(_) => "ERR_CLOSED",
            Self::Cancelled => "ERR_CANCELLED",
            Self::Internal(_) => "ERR_INTERNAL",
        }
    }

    /// Wraps a system error of a file operation. A full disk, a denied write and a missing file
    /// have variants, and so codes, of their own.
    pub fn io(action: IoAction, path: impl AsRef<Path>, source: io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        match source.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Self::DiskFull { path },
            ErrorKind::ReadOnlyFilesystem => Self::NotWritable { path },
            ErrorKind::PermissionDenied if action.writes() => Self::NotWritable { path },
            ErrorKind::NotFound if action == IoAction::Read => {
                Self::NotFound { what: "file", path }
            }
            _ => Self::Io { action, path, source },
        }
    }

    /// Runs `work` and converts a panic to an error: the one that the panic carries (a failed
    /// allocation, see `panic_out_of_memory`), or else an internal error that names `what`.
    pub(crate) fn catch<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
            match panic.downcast::<Self>() {
                Ok(error) => Err(*error),
                Err(_) => Err(Self::Internal(format!("{what} panicked"))),
            }
        })
    }

    /// Returns an `InvalidArgument` with this message.
    pub fn argument(message: impl Into<String>) -> Self {
        Self::InvalidArgument(message.into())
    }
}

fn format_bytes(bytes: u64) -> String {
    let mib = bytes as f64 / f64::from(1 << 20);
    if mib < 1024.0 { format!("{mib:.1} MiB") } else { format!("{:.1} GiB", mib / 1024.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_action_and_the_system_error_decide_the_code() {
        let code = |action, kind: ErrorKind| Error::io(action, "x", kind.into()).code();
        for (action, kind, expected) in [
            (IoAction::Write, ErrorKind::StorageFull, "ERR_DISK_FULL"),
            (IoAction::Create, ErrorKind::QuotaExceeded, "ERR_DISK_FULL"),
            (IoAction::Read, ErrorKind::ReadOnlyFilesystem, "ERR_NOT_WRITABLE"),
            (IoAction::Write, ErrorKind::PermissionDenied, "ERR_NOT_WRITABLE"),
            (IoAction::Create, ErrorKind::PermissionDenied, "ERR_NOT_WRITABLE"),
            (IoAction::Read, ErrorKind::PermissionDenied, "ERR_IO"),
            (IoAction::Map, ErrorKind::PermissionDenied, "ERR_IO"),
            (IoAction::Read, ErrorKind::NotFound, "ERR_NOT_FOUND"),
            (IoAction::Write, ErrorKind::NotFound, "ERR_IO"),
            (IoAction::StartThread, ErrorKind::WouldBlock, "ERR_IO"),
        ] {
            assert_eq!(code(action, kind), expected, "{action} {kind}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_has_its_own_code() {
        // Every write to this device fails as on a full disk.
        let mut full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let error = io::Write::write_all(&mut full, b"x").unwrap_err();
        assert_eq!(Error::io(IoAction::Write, "/dev/full", error).code(), "ERR_DISK_FULL");
    }
}
