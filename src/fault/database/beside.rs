//! What a rival goes on doing while its fault lasts.

use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A task that ends when it is told to.
#[derive(Default)]
pub(super) struct Beside(Mutex<Option<Running>>);

struct Running {
    end: CancellationToken,
    task: JoinHandle<Result<(), String>>,
}

impl Beside {
    /// Starts `work`, which is given its end.
    pub(super) async fn start<F>(&self, work: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        let end = CancellationToken::new();
        let task = tokio::spawn(work(end.clone()));
        *self.0.lock().await = Some(Running { end, task });
    }

    /// Ends it; what went wrong in it is the error.
    pub(super) async fn stop(&self) -> Result<(), String> {
        let Some(running) = self.0.lock().await.take() else { return Ok(()) };
        running.end.cancel();
        running.task.await.map_err(|error| error.to_string())?
    }
}
