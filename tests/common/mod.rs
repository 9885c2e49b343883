//! What the test files share: where the servers are.

/// The URL of a server for tests, e.g. of `BATCHSQL_TEST_POSTGRES`; without it says that the test is left out.
/// `scripts/servers start DIR` starts servers and prints the variables.
pub(crate) fn server_url(variable: &str) -> Option<String> {
    let url = std::env::var(variable).ok().filter(|url| !url.is_empty());
    if url.is_none() {
        println!("left out: {variable} is not set");
    }
    url
}
