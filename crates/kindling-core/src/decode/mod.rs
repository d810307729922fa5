//! To be filled by its own commits.
