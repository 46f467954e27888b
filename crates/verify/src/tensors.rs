//! Every tensor against the source.
