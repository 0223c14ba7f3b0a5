//! Nothing: the package is its list of features (see its Cargo.toml).
