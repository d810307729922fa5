//! One error type for the engine: a stable code, what went wrong, and what to do about it.
//!
//! Codes are listed in `docs/errors.md`; a script holds that page against this file.

use std::path::{Path, PathBuf};

/// Result of every fallible function of the engine.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong. `code()` is stable across releases; the text is for people.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An argument is out of its range or two arguments disagree.
    #[error("{0}")]
    InvalidArgument(String),
    /// A model configuration that cannot be built.
    #[error("{0}")]
    InvalidConfig(String),
    /// A buffer has another size than its shape says.
    #[error("{op}: {what} has {actual} elements where {expected} are needed")]
    ShapeMismatch {
        /// The op that was called.
        op: &'static str,
        /// The buffer in question.
        what: &'static str,
        /// Elements its shape asks for.
        expected: usize,
        /// Elements it has.
        actual: usize,
    },
    /// The operating system refused a file operation.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was tried, as "cannot read".
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The disk has no room left.
    #[error("cannot write {}: the disk is full; free some space and run the command again", path.display())]
    DiskFull {
        /// The file being written.
        path: PathBuf,
    },
    /// The folder or file may not be written.
    #[error("cannot write {}: permission denied or read-only; choose another folder", path.display())]
    NotWritable {
        /// The file or folder.
        path: PathBuf,
    },
    /// A file or folder that is needed is not there.
    #[error("{what} {} does not exist; check the path", path.display())]
    NotFound {
        /// What it was to be, as "corpus".
        what: &'static str,
        /// The path looked at.
        path: PathBuf,
    },
    /// There is no text to work on.
    #[error("{} holds no text; give a file with content", path.display())]
    EmptyCorpus {
        /// The file.
        path: PathBuf,
    },
    /// Text files that cannot be read as what they are: damaged gzip or zstd, a line that is no JSON with a text.
    #[error("{0}")]
    InvalidCorpus(String),
    /// Tokenizer files that cannot be read or do not fit each other.
    #[error("{0}")]
    InvalidTokenizer(String),
    /// A character the vocabulary has no token for.
    #[error(
        "the tokenizer has no token for {character:?} (U+{:04X}); train it on text that has this character",
        u32::from(*character)
    )]
    UnknownCharacter {
        /// The character.
        character: char,
    },
    /// A token id outside the vocabulary.
    #[error(
        "token id {id} at position {position} is outside the vocabulary of {vocab_size} tokens; encode with this model's tokenizer or raise vocab_size"
    )]
    TokenOutOfRange {
        /// The id found.
        id: i64,
        /// Where it was found.
        position: u64,
        /// The vocabulary's size.
        vocab_size: usize,
    },
    /// A negative token id.
    #[error("token id {id} at position {position} is negative; token ids start at 0")]
    NegativeTokenId { id: i32, position: u64 },
    /// A token store that is damaged or of an unknown form.
    #[error("{0}")]
    InvalidStore(String),
    /// A token store with fewer tokens than one window needs.
    #[error(
        "the token store holds {length} tokens but a window needs {needed}; lower seq_length or use more text"
    )]
    StoreTooShort {
        /// Tokens in the store.
        length: u64,
        /// Tokens one window takes, the shifted target included.
        needed: u64,
    },
    /// A range outside the store.
    #[error("range {start}..{end} is outside the store of {length} tokens")]
    RangeOutOfBounds {
        /// First token asked for.
        start: u64,
        /// One past the last.
        end: u64,
        /// Tokens in the store.
        length: u64,
    },
    /// Weights or optimizer state that do not fit the model; every difference is named.
    #[error("the checkpoint does not fit the model: {0}")]
    CheckpointMismatch(String),
    /// A checkpoint that cannot be read.
    #[error("{0}")]
    InvalidCheckpoint(String),
    /// The loss or a gradient is NaN or infinite; the weights were not changed.
    #[error(
        "{what} is not finite at step {step}; lower the learning rate or clip gradients (max_norm)"
    )]
    NonFinite {
        /// What was not finite.
        what: &'static str,
        /// The step.
        step: u64,
    },
    /// The device asked for is not there.
    #[error("{0}")]
    DeviceUnavailable(String),
    /// This op, device and dtype are not supported together.
    #[error("{0}")]
    Unsupported(String),
    /// The system has not so much memory.
    #[error("cannot get {} of memory; lower batch_size, seq_length or the sizes of the model", amount(*bytes))]
    OutOfMemory {
        /// Bytes asked for in one piece.
        bytes: u64,
    },
    /// The device has not so much memory.
    #[error(
        "cannot get {} of device memory ({} of {} are in use by this model); lower batch_size or seq_length, add --recompute, or choose a smaller model",
        amount(*bytes), amount(*in_use), amount(*total)
    )]
    OutOfDeviceMemory {
        /// Bytes asked for in one piece.
        bytes: u64,
        /// Bytes this model holds already.
        in_use: u64,
        /// Bytes the device has.
        total: u64,
    },
    /// A device that was at work failed.
    #[error("the CUDA device failed: {0}; start again from the last checkpoint")]
    Device(String),
    /// The object is at work on another call.
    #[error("{0} is busy with another call; await it first")]
    Busy(&'static str),
    /// The object was closed.
    #[error("{0} is closed; make a new one")]
    Closed(&'static str),
    /// The caller asked to stop.
    #[error("cancelled")]
    Cancelled,
    /// A bug in Kindling itself.
    #[error("internal error: {0}; please report it")]
    Internal(String),
}

impl Error {
    /// The stable code of this error.
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
            Self::NonFinite { .. } => "ERR_NON_FINITE",
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

    /// Wraps a system error of an attempt on `path`, telling a full disk, a missing file and a refused write apart.
    pub fn io(action: &'static str, path: impl AsRef<Path>, source: std::io::Error) -> Self {
        use std::io::ErrorKind;
        let path = path.as_ref().to_path_buf();
        match source.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Self::DiskFull { path },
            ErrorKind::ReadOnlyFilesystem => Self::NotWritable { path },
            ErrorKind::PermissionDenied
                if action.contains("write") || action.contains("create") =>
            {
                Self::NotWritable { path }
            }
            ErrorKind::NotFound if action.contains("read") => Self::NotFound { what: "file", path },
            _ => Self::Io { action, path, source },
        }
    }

    /// An argument error from its message.
    pub fn argument(message: impl Into<String>) -> Self {
        Self::InvalidArgument(message.into())
    }
}

/// Bytes for people.
fn amount(bytes: u64) -> String {
    let mib = bytes as f64 / f64::from(1 << 20);
    if mib < 1024.0 { format!("{mib:.1} MiB") } else { format!("{:.1} GiB", mib / 1024.0) }
}
