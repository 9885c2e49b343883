//! `batchsql doctor`.
use crate::cli::DoctorArgs;

pub(crate) async fn doctor(_args: DoctorArgs) -> u8 {
    0
}
