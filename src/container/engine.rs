//! The container engine: where it is, what it says, and the containers that runs left on it.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use futures::StreamExt as _;
use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use testcontainers::bollard::Docker;
use testcontainers::bollard::errors::Error;
use testcontainers::bollard::models::{ContainerInspectResponse, ContainerSummary, ImageInspect};
use testcontainers::bollard::query_parameters::{
    CreateImageOptionsBuilder, InspectContainerOptions, ListContainersOptionsBuilder, LogsOptionsBuilder, RemoveContainerOptionsBuilder,
};
use testcontainers::runners::AsyncRunner as _;
use testcontainers::{GenericImage, core::client::docker_client_instance};
use tokio::time::timeout;
use url::Url;

use crate::runner::Progress;

/// Label of every container of a run: its id.
pub(super) const RUN: &str = "batchsql.run";
/// Label of those that end with their run: `<process id>@<host name>` of who removes them.
pub(super) const OWNER: &str = "batchsql.owner";
/// Longest wait for an answer that needs no work.
const PROMPT: Duration = Duration::from_secs(10);
/// Longest silence of a pull.
const STALL: Duration = Duration::from_secs(120);
/// Pulls that take longer are shown.
const SHORT_PULL: Duration = Duration::from_secs(1);
/// Lines of a container's log that are shown when it failed.
const LAST_LINES: &str = "12";

/// The engine, once it has answered.
pub(super) async fn connect() -> anyhow::Result<Docker> {
    let place = std::env::var("DOCKER_HOST").unwrap_or_else(|_| "its usual socket, /var/run/docker.sock".to_owned());
    let mend = "start Docker (or Podman with its Docker socket), name its place in DOCKER_HOST, or drive a target that runs already: \
                --database-url or --target-url";
    let answered = async {
        let docker = docker_client_instance().await?;
        docker.ping().await?;
        anyhow::Ok(docker)
    };
    match timeout(PROMPT, answered).await {
        Ok(Ok(docker)) => Ok(docker),
        Ok(Err(error)) => bail!("no container engine answers at {place} ({error:#}); {mend}"),
        Err(_) => bail!("no container engine answers at {place} within {} s; {mend}", PROMPT.as_secs()),
    }
}

/// Where published ports are reached: on this machine, unless the engine is on another.
pub(super) fn host(docker_host: Option<&str>) -> String {
    let url = docker_host.and_then(|place| Url::parse(place).ok()).filter(|url| matches!(url.scheme(), "tcp" | "http" | "https"));
    url.and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_else(|| "127.0.0.1".to_owned())
}

/// The image, pulled if it is not there.
pub(super) async fn image(docker: &Docker, name: &str, request: GenericImage, progress: &Progress) -> anyhow::Result<ImageInspect> {
    match docker.inspect_image(name).await {
        Err(Error::DockerResponseServerError { status_code: 404, .. }) => {}
        found => return found.with_context(|| format!("target.container.image: {name} cannot be looked up")),
    }
    let mut pulled = pull(docker, name, progress).await;
    // testcontainers knows the user's logins at registries.
    if pulled.as_ref().is_err_and(|error| ["denied", "unauthorized", "authentication"].iter().any(|word| error.contains(word))) {
        pulled = request.pull_image().await.map(|_| ()).map_err(|error| error.to_string());
    }
    pulled.map_err(|found| {
        anyhow!(
            "target.container.image: {name} is not on this machine and cannot be pulled ({found}); correct the name, log in with `docker \
             login`, or bring it here by `docker pull` or `docker load`"
        )
    })?;
    docker.inspect_image(name).await.with_context(|| format!("target.container.image: {name} was pulled and cannot be found"))
}

async fn pull(docker: &Docker, name: &str, progress: &Progress) -> Result<(), String> {
    let phase = progress.phase("pull");
    let began = Instant::now();
    // Bytes had and bytes in all of each layer that says so.
    let mut layers: HashMap<String, (i64, i64)> = HashMap::new();
    let mut stream = docker.create_image(Some(CreateImageOptionsBuilder::new().from_image(name).build()), None, None);
    let stalled = |_| format!("nothing came for {} s", STALL.as_secs());
    while let Some(step) = timeout(STALL, stream.next()).await.map_err(stalled)? {
        let step = step.map_err(|error| error.to_string())?;
        let amount = step.progress_detail.and_then(|detail| Some((detail.current?, detail.total?)));
        if let (Some(layer), Some(amount), Some("Downloading")) = (step.id, amount, step.status.as_deref()) {
            layers.insert(layer, amount);
        }
        if began.elapsed() >= SHORT_PULL {
            let (had, all) = layers.values().fold((0, 0), |(had, all), layer| (had + layer.0, all + layer.1));
            phase.update(|| format!("{name}: {} of {} MB, {} layers", had / 1_000_000, all / 1_000_000, layers.len()));
        }
    }
    Ok(())
}

/// The last lines of a container's log.
pub(super) async fn last_lines(docker: &Docker, id: &str) -> String {
    let options = LogsOptionsBuilder::new().stdout(true).stderr(true).tail(LAST_LINES).build();
    let lines: Vec<_> = docker.logs(id, Some(options)).filter_map(|line| async { line.ok() }).collect().await;
    let text: String = lines.iter().map(ToString::to_string).collect();
    if text.trim().is_empty() { "its log is empty".to_owned() } else { format!("its log ends:\n{}", text.trim_end()) }
}

pub(super) async fn inspect(docker: &Docker, id: &str) -> Result<ContainerInspectResponse, Error> {
    docker.inspect_container(id, None::<InspectContainerOptions>).await
}

/// The port of the engine's machine that leads to `port` inside.
pub(super) fn published(found: &ContainerInspectResponse, port: u16) -> Option<u16> {
    let ports = found.network_settings.as_ref()?.ports.as_ref()?;
    ports.get(&format!("{port}/tcp"))?.as_ref()?.iter().find_map(|binding| binding.host_port.as_ref()?.parse().ok())
}

/// Stops and removes a container with its data; one that is gone already is no failure.
pub(super) async fn remove(docker: &Docker, id: &str) -> Result<(), Error> {
    let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
    match docker.remove_container(id, Some(options)).await {
        Err(Error::DockerResponseServerError { status_code: 404 | 409, .. }) => Ok(()),
        other => other,
    }
}

/// Every container, or every running one, that carries `label` (`key` or `key=value`).
pub(super) async fn labelled(docker: &Docker, label: &str, all: bool) -> Result<Vec<ContainerSummary>, Error> {
    let filters = HashMap::from([("label", vec![label])]);
    docker.list_containers(Some(ListContainersOptionsBuilder::new().all(all).filters(&filters).build())).await
}

/// Who removes a container: this process on this machine.
pub(super) fn owner() -> String {
    format!("{}@{}", std::process::id(), sysinfo::System::host_name().unwrap_or_default())
}

/// What is said of containers that were to end with runs of this machine which were killed.
pub(super) async fn left_behind(docker: &Docker) -> Vec<String> {
    const MOST: usize = 10;
    let here = sysinfo::System::host_name().unwrap_or_default();
    let is_orphan = |container: &ContainerSummary| {
        let owner = container.labels.as_ref().and_then(|labels| labels.get(OWNER)?.split_once('@'));
        owner.is_some_and(|(pid, host)| host == here && pid.parse().is_ok_and(|pid| kill(Pid::from_raw(pid), None) == Err(Errno::ESRCH)))
    };
    let found = labelled(docker, OWNER, true).await.unwrap_or_default();
    let names = found.iter().filter(|container| is_orphan(container)).take(MOST).filter_map(|container| container.names.as_ref()?.first());
    names
        .map(|name| {
            let name = name.trim_start_matches('/');
            format!("container {name} was left by a run that was killed; remove it with: docker rm -f -v {name}")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_on_this_machine_unless_the_engine_is_elsewhere() {
        for here in [None, Some("unix:///var/run/docker.sock"), Some("tcp://127.0.0.1:2375"), Some("nonsense")] {
            assert_eq!(host(here), "127.0.0.1", "{here:?}");
        }
        assert_eq!(host(Some("tcp://engine.lan:2376")), "engine.lan");
    }
}
