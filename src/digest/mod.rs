//! `batchsql report`: what past runs say together (a month), and one run as an incident. Markdown, made of what is known; what only
//! people know is left to be filled in.

mod alerts;
pub(crate) mod command;
mod incident;
mod monthly;
