//! `lhsmtool-s3`: the copytool that joins Lustre HSM to S3.
//!
//! Data goes from left to right, and a stage knows the one to its right, never the one to its left:
//! [`lustre`] > `intake` > `queue` > `worker` > `transfer` > `store`.

pub mod action;
pub mod lustre;
pub mod types;
