//! The lake over real folders, over memory, and over a store that fails where it is told to.
#![allow(clippy::unwrap_used)]

#[path = "lake/backed_log.rs"]
mod backed_log;
#[path = "lake/checkpoints.rs"]
mod checkpoints;
#[path = "lake/crashes.rs"]
mod crashes;
#[path = "lake/dimensions.rs"]
mod dimensions;
#[path = "lake/faults.rs"]
mod faults;
#[path = "lake/forgetful.rs"]
mod forgetful;
#[path = "lake/kills.rs"]
mod kills;
#[path = "lake/master.rs"]
mod master;
#[path = "lake/runs.rs"]
mod runs;
#[path = "lake/samples.rs"]
mod samples;
#[path = "lake/versions.rs"]
mod versions;
#[path = "lake/writers.rs"]
mod writers;
