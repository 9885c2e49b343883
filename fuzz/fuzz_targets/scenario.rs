//! Scenario files. What no bytes may do stands in the library's `fuzz` modules.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| batchsql::fuzz::scenario(bytes));
