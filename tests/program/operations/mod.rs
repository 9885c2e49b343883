//! What stands around the runs, with the real parts of the stack: serve, doctor, backup and restore.

mod backup;
mod doctor;
mod parts;
mod serve;
