//! The server as its clients see it.

mod conditions;
mod faults;
mod lists;
mod objects;
mod uploads;
mod versions;
