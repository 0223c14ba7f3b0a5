//! The server as its clients see it.

mod conditions;
mod dialects;
mod dialects_cold;
mod dialects_lists;
mod dialects_objects;
mod faults;
mod lists;
mod objects;
mod uploads;
mod versions;
