//! What the daemon needs of a store, against a real one.
//!
//! | variable | store |
//! |---|---|
//! | none | the embedded one |
//! | `LHSM_MINIO=/path/to/minio` | a MinIO of its own for each test; a missing one is a failure |
//! | `LHSM_STORE=http://KEY:SECRET@HOST:PORT/BUCKET` | one that runs; the bucket is empty and the tests' own |

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its setup too")]

mod cases;
mod proxy;
mod report;
mod sizes;
mod store;
mod world;
