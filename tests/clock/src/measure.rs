//! Of what is counted, how often the store was asked lately.

#[path = "../../../src/measure/recent.rs"]
mod recent;

pub(crate) use recent::Recent;
