//! Targets that a scenario starts for itself: a container before the run, gone after it, whatever ends the run. What only a killed
//! process cannot do any more, the next run says.

mod engine;
mod handle;

use std::collections::{BTreeMap, HashMap};
use std::net::{Ipv4Addr, TcpListener};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail, ensure};
use testcontainers::bollard::Docker;
use testcontainers::bollard::models::{HostConfig, ImageInspect, PortBinding};
use testcontainers::core::IntoContainerPort as _;
use testcontainers::runners::AsyncRunner as _;
use testcontainers::{ContainerAsync, ContainerRequest, GenericImage, ImageExt as _};
use tokio::sync::Mutex;
use url::Url;

use crate::http::service::Service;
use crate::redact::redact;
use crate::report::ContainerSeen;
use crate::runner::{Options, say};
use crate::scenario::container::{Container as Config, login};
use crate::scenario::database_url::is_loopback;
use crate::scenario::fault::Family;
use crate::scenario::units::Time;
use crate::scenario::{Pool, Scenario, TargetConfig};
use crate::target::{self, Database};
pub(crate) use handle::Handle;

/// Longest wait for a container to be made and for its first process to be there.
const START: Duration = Duration::from_secs(120);
/// Longest wait for the removal of all containers when the program must end.
const REMOVAL: Duration = Duration::from_secs(10);
/// Before the run's id, the name of its container.
const PREFIX: &str = "batchsql-";
/// Between two questions whether a service is ready.
const AGAIN: Duration = Duration::from_millis(100);
/// Longest wait for the answer to one of them.
const ANSWER: Duration = Duration::from_secs(5);

/// The containers that end with this process. Locked while one is made, so that whoever removes them all overlooks none.
static RUNNING: Mutex<Vec<String>> = Mutex::const_new(Vec::new());

/// A container that was started for a run. Dropping it removes it too, e.g. in a panic.
pub(crate) struct Container {
    docker: Docker,
    guard: ContainerAsync<GenericImage>,
    keep: bool,
    facts: Facts,
    /// The scenario's, with the URL once that is known.
    target: TargetConfig,
    env: BTreeMap<String, String>,
}

/// What a run knows of its container.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) name: String,
    pub(crate) seen: ContainerSeen,
}

/// Starts the container that the scenario's target asks for and waits until the service in it answers. Its password becomes one of
/// the secrets.
pub(crate) async fn start(run_id: &str, scenario: &Scenario, options: &mut Options) -> anyhow::Result<Option<Container>> {
    let Some(config) = &scenario.target.container else { return Ok(None) };
    let host = engine::host(std::env::var("DOCKER_HOST").ok().as_deref());
    ensure!(
        is_loopback(&host) || scenario.target.allow_hosts.contains(&host),
        "the container engine is on host `{host}`, beyond loopback; if it may be put under load, add it to target.allow_hosts or give --allow-host {host}"
    );
    let docker = engine::connect().await?;
    engine::left_behind(&docker).await.iter().for_each(|line| say(&format!("batchsql: {line}")));
    let (name, tag) = config.image_parts().with_context(|| format!("target.container.image: {} has no tag", config.image))?;
    let pull = engine::image(&docker, &config.image, GenericImage::new(name, tag), &options.progress);
    let image = tokio::select! {
        image = pull => image?,
        () = options.stop.cancelled() => bail!("stopped while the image was pulled"),
    };
    let database = scenario.target.database();
    let password = random_password()?;
    let env = config.completed_env(database, &password);
    options.secrets.push(password);
    let host_port = host_port(scenario, config, &host)?;
    let plan = Plan { run_id, config, port: config.port_inside(database), host: &host, host_port, keep: options.keep_containers };
    let guard = plan.start(&docker, &env).await?;
    let facts = Facts { name: plan.name(), seen: ContainerSeen { image: config.image.clone(), digest: digest(&image) } };
    let mut container = Container { docker, guard, keep: plan.keep, facts, target: scenario.target.clone(), env };
    if let Err(error) = container.make_ready(&plan, scenario, options).await {
        container.keep = false;
        container.end().await;
        return Err(error);
    }
    Ok(Some(container))
}

/// The port that is asked for. The engine's own choice would be another one each time a fault has the container start again.
fn host_port(scenario: &Scenario, config: &Config, host: &str) -> anyhow::Result<Option<u16>> {
    let starts_again = scenario.faults.iter().any(|fault| fault.kind.family() == Family::Server);
    if config.host_port.is_some() || !starts_again {
        return Ok(config.host_port);
    }
    ensure!(
        is_loopback(host),
        "a fault has the container start again, and the engine is on another machine; name a port that is free there in target.container.host_port"
    );
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
    Ok(Some(free.context("no free port for the container")?.port()))
}

/// Nobody need know it, so nobody can guess it.
fn random_password() -> anyhow::Result<String> {
    let mut bytes = [0; 16];
    let filled = rustls::crypto::ring::default_provider().secure_random.fill(&mut bytes);
    filled.map_err(|_| anyhow!("the system gives no random numbers for a password; name one in target.container.env"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// What the image's name stood for.
fn digest(image: &ImageInspect) -> String {
    let at_registry = image.repo_digests.iter().flatten().find_map(|digest| digest.split_once('@'));
    at_registry.map(|(_, digest)| digest.to_owned()).or_else(|| image.id.clone()).unwrap_or_default()
}

/// The target of a finished run whose container was kept.
pub(crate) async fn kept(run_id: &str, scenario: &Scenario) -> anyhow::Result<TargetConfig> {
    let gone = || {
        anyhow!(
            "run {run_id} had its database in a container, which is gone; with --keep-containers a run leaves it, so that it can be \
             verified again"
        )
    };
    let (Some(config), Some(database)) = (&scenario.target.container, scenario.target.database()) else { return Err(gone()) };
    let docker = engine::connect().await?;
    let label = format!("{}={run_id}", engine::RUN);
    let found = engine::labelled(&docker, &label, false).await.context("the engine does not tell its containers")?;
    let id = found.into_iter().find_map(|container| container.id).ok_or_else(gone)?;
    let found = engine::inspect(&docker, &id).await.context("the run's container cannot be looked up")?;
    let port = engine::published(&found, config.port_inside(Some(database))).ok_or_else(gone)?;
    let env = found.config.and_then(|config| config.env).unwrap_or_default();
    let env = env.iter().filter_map(|pair| pair.split_once('=')).map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    let host = engine::host(std::env::var("DOCKER_HOST").ok().as_deref());
    Ok(reached(&scenario.target, &format!("{host}:{port}"), &env))
}

/// Removes every container of this process that is not to be kept: for an end that lets nothing else happen.
pub(crate) async fn remove_all() {
    let removal = async {
        let mut running = RUNNING.lock().await;
        if running.is_empty() {
            return;
        }
        let Ok(docker) = engine::connect().await else { return };
        for name in running.drain(..) {
            if let Err(error) = engine::remove(&docker, &name).await {
                not_removed(&name, &error.to_string());
            }
        }
    };
    if tokio::time::timeout(REMOVAL, removal).await.is_err() {
        say("batchsql: a container could not be removed in time; the next run with a container names it");
    }
}

fn not_removed(name: &str, found: &str) {
    say(&format!("batchsql: container {name} could not be removed ({found}); remove it with: docker rm -f -v {name}"));
}

/// `target` with the URL of the service at `address`.
fn reached(target: &TargetConfig, address: &str, env: &BTreeMap<String, String>) -> TargetConfig {
    let mut target = target.clone();
    if let Some(http) = &mut target.http {
        http.url = format!("http://{address}");
    }
    for (database, server) in [(Database::Postgres, &mut target.postgres), (Database::Mysql, &mut target.mysql)] {
        if let Some(server) = server {
            server.url = database_url(database, address, env);
        }
    }
    target
}

fn database_url(database: Database, address: &str, env: &BTreeMap<String, String>) -> String {
    let login = login(database, env);
    let base = format!("{}://{address}", database.as_str());
    let Ok(mut url) = Url::parse(&base) else { return base };
    // All three can be set on a URL that has a host.
    let _ = url.set_username(&login.user);
    let _ = url.set_password(Some(&login.password).filter(|password| !password.is_empty()).map(String::as_str));
    url.set_path(&login.database);
    url.into()
}

/// What is started, and how.
struct Plan<'a> {
    run_id: &'a str,
    config: &'a Config,
    /// Inside the container.
    port: u16,
    host: &'a str,
    /// Any that is free, if absent.
    host_port: Option<u16>,
    keep: bool,
}

impl Plan<'_> {
    fn name(&self) -> String {
        format!("{PREFIX}{}", self.run_id)
    }

    async fn start(&self, docker: &Docker, env: &BTreeMap<String, String>) -> anyhow::Result<ContainerAsync<GenericImage>> {
        let mut running = RUNNING.lock().await;
        match self.request(env).start().await {
            Ok(guard) => {
                running.extend((!self.keep).then(|| self.name()));
                Ok(guard)
            }
            Err(error) => {
                // It may have been made before it could not be started.
                let _ = engine::remove(docker, &self.name()).await;
                Err(self.refused(&error.to_string()))
            }
        }
    }

    fn request(&self, env: &BTreeMap<String, String>) -> ContainerRequest<GenericImage> {
        let (name, tag) = self.config.image_parts().unwrap_or((&self.config.image, "latest"));
        let mut labels = vec![(engine::RUN, self.run_id.to_owned())];
        labels.extend((!self.keep).then(|| (engine::OWNER, engine::owner())));
        let config = self.config.clone();
        let address = if is_loopback(self.host) { "127.0.0.1" } else { "0.0.0.0" };
        let binding = PortBinding {
            host_ip: Some(address.to_owned()),
            // An empty one is any that is free.
            host_port: Some(self.host_port.map(|port| port.to_string()).unwrap_or_default()),
        };
        let ports = HashMap::from([(format!("{}/tcp", self.port), Some(vec![binding]))]);
        let request = GenericImage::new(name, tag).with_exposed_port(self.port.tcp()).with_container_name(self.name());
        let request = request.with_cmd(self.config.args.clone()).with_labels(labels).with_startup_timeout(START);
        let request = request.with_host_config_modifier(move |host: &mut HostConfig| {
            host.publish_all_ports = Some(false);
            host.port_bindings = Some(ports.clone());
            host.memory = config.memory.map(|memory| memory.bytes.cast_signed());
            host.nano_cpus = config.cpus.map(|cpus| (cpus * 1e9) as i64);
            let folders = config.tmpfs.iter().map(|folder| folder.split_once(':').unwrap_or((folder, "")));
            host.tmpfs = Some(folders.map(|(folder, options)| (folder.to_owned(), options.to_owned())).collect());
        });
        env.iter().fold(request, |request, (key, value)| request.with_env_var(key, value))
    }

    /// Why it could not be started, with the mend.
    fn refused(&self, found: &str) -> anyhow::Error {
        let taken = ["port is already allocated", "address already in use"].iter().any(|word| found.contains(word));
        let mend = match self.config.host_port {
            Some(port) if taken => format!("port {port} is taken: end what listens there, or leave target.container.host_port out"),
            _ => "correct target.container".to_owned(),
        };
        anyhow!("the container of {} cannot be started ({found}); {mend}", self.config.image)
    }
}

impl Container {
    /// The target with its URL.
    pub(crate) fn target(&self) -> &TargetConfig {
        &self.target
    }

    pub(crate) fn facts(&self) -> Facts {
        self.facts.clone()
    }

    /// Waits until the service answers, or says why it never will.
    async fn make_ready(&mut self, plan: &Plan<'_>, scenario: &Scenario, options: &Options) -> anyhow::Result<()> {
        let limit = plan.config.ready_timeout;
        let began = Instant::now();
        let phase = options.progress.phase("start");
        let mut last = "nothing answered".to_owned();
        while began.elapsed() < limit.0 {
            phase.update(|| format!("{}, waiting for its first answer", plan.config.image));
            let found = engine::inspect(&self.docker, &self.facts.name).await.context("the container cannot be looked up")?;
            let state = found.state.as_ref();
            if let Some(state) = state.filter(|state| state.running == Some(false)) {
                let ended = if state.oom_killed == Some(true) { " for want of memory" } else { "" };
                let found = format!("ended with code {}{ended} before it answered", state.exit_code.unwrap_or_default());
                return Err(self.failed(&found, "correct target.container.args, env or memory", options).await);
            }
            if let Some(port) = engine::published(&found, plan.port) {
                self.target = reached(&scenario.target, &format!("{}:{port}", plan.host), &self.env);
                match answers(&self.target, plan, scenario, options).await {
                    Ok(()) => return Ok(()),
                    Err(error) => last = error,
                }
            }
            tokio::select! {
                () = tokio::time::sleep(AGAIN) => {}
                () = options.stop.cancelled() => bail!("stopped while the container started"),
            }
        }
        let found = format!("did not answer within {} ({last})", humantime::format_duration(limit.0));
        Err(self.failed(&found, "raise target.container.ready_timeout, or correct its port, args or env", options).await)
    }

    async fn failed(&self, found: &str, mend: &str, options: &Options) -> anyhow::Error {
        let lines = redact(&engine::last_lines(&self.docker, &self.facts.name).await, &options.secrets);
        anyhow!("the container of {} {found}; {mend}; {lines}", self.facts.seen.image)
    }

    /// Removes it, or says how it is reached if it is kept.
    pub(crate) async fn end(self) {
        if self.keep {
            say(&self.how_to_reach());
            // Its drop would remove the container.
            std::mem::forget(self.guard);
            return;
        }
        let mut running = RUNNING.lock().await;
        if let Err(error) = self.guard.rm().await {
            not_removed(&self.facts.name, &error.to_string());
        }
        running.retain(|name| *name != self.facts.name);
    }

    fn how_to_reach(&self) -> String {
        let name = &self.facts.name;
        let mut lines = vec![format!("batchsql: container {name} is kept")];
        match self.target.database() {
            Some(database) => {
                let login = login(database, &self.env);
                let server = self.target.postgres.as_ref().or(self.target.mysql.as_ref());
                let address = server.and_then(|server| Some(server.url.rsplit_once('@')?.1.split_once('/')?.0)).unwrap_or_default();
                lines.push(format!("  reach it   {address}, database {}, user {}", login.database, login.user));
                let variable = self.env.iter().find(|(_, value)| **value == login.password).map(|(name, _)| name);
                lines.extend(variable.map(|variable| format!("  password   docker exec {name} printenv {variable}")));
                lines.push(format!("  verify     batchsql verify {}", name.trim_start_matches(PREFIX)));
            }
            None => lines.extend(self.target.http.as_ref().map(|http| format!("  reach it   {}", http.url))),
        }
        lines.push(format!("  remove it  docker rm -f -v {name}"));
        lines.join("\n")
    }
}

/// Asks the service a real question.
async fn answers(target: &TargetConfig, plan: &Plan<'_>, scenario: &Scenario, options: &Options) -> Result<(), String> {
    if let Some(http) = &target.http {
        let service = Service::new("target.container", &http.url, "http://127.0.0.1:80").map_err(|error| error.to_string())?;
        let path = plan.config.ready.as_deref().unwrap_or("/");
        let answer = service.get(path, &[], ANSWER).await.map_err(|error| format!("{error:#}"))?;
        return if answer.status.as_u16() < 500 { Ok(()) } else { Err(format!("GET {path} was answered {}", answer.status)) };
    }
    let pool = Pool { size: Some(1), connect_timeout: Time(ANSWER), ..scenario.target.pool.clone() };
    let target = TargetConfig { pool, ..target.clone() };
    let context = target::Context {
        run_id: plan.run_id,
        scenario_name: &scenario.name,
        report_dir: &options.report_dir,
        concurrency: None,
        create: false,
    };
    target::connect(&target, &context).await.map(|_| ()).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use serde_json::json;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::runner::Progress;

    const POSTGRES: &str = "postgres:17-alpine";

    fn scenario() -> Scenario {
        let value = json!({
            "name": "t", "target": {"postgres": {}, "container": {"image": POSTGRES}},
            "workload": {"batch_insert": {"rows": 1}}, "load": {"executor": "shared-iterations"}
        });
        serde_json::from_value(value).unwrap()
    }

    fn options() -> Options {
        Options {
            report_dir: std::env::temp_dir(),
            metrics: None,
            exports: None,
            before_verify: None,
            no_verify: false,
            keep_containers: false,
            baseline: None,
            reproduce: String::new(),
            secrets: Vec::new(),
            progress: Progress::Off,
            stop: CancellationToken::new(),
            notes: Vec::new(),
        }
    }

    #[test]
    fn a_login_of_any_characters_fits_into_a_url() {
        let env = |pairs: &[(&str, &str)]| pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let env = env(&[("POSTGRES_USER", "a b"), ("POSTGRES_PASSWORD", "p@s/s:#"), ("POSTGRES_DB", "d?")]);
        let url = database_url(Database::Postgres, "127.0.0.1:49153", &env);
        assert_eq!(url, "postgres://a%20b:p%40s%2Fs%3A%23@127.0.0.1:49153/d%3F");
        let url = database_url(Database::Mysql, "127.0.0.1:49153", &BTreeMap::new());
        assert_eq!(url, "mysql://root@127.0.0.1:49153/batchsql");
    }

    /// As in `main`: the panic unwinds through the runtime.
    #[test]
    fn a_panic_in_mid_run_removes_the_container() {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let engine = runtime.block_on(async {
            let docker = engine::connect().await.ok()?;
            docker.inspect_image(POSTGRES).await.ok().map(|_| docker)
        });
        let Some(docker) = engine else { return println!("left out: no container engine, or no image {POSTGRES}") };
        let run_id = format!("panic-{}", std::process::id());
        let left = || runtime.block_on(engine::labelled(&docker, &format!("{}={run_id}", engine::RUN), true)).unwrap().len();
        let unwound = catch_unwind(AssertUnwindSafe(|| {
            runtime.block_on(async {
                let _container = start(&run_id, &scenario(), &mut options()).await.unwrap().unwrap();
                assert!(!engine::labelled(&docker, engine::OWNER, false).await.unwrap().is_empty());
                std::panic::panic_any("in mid-run");
            })
        }));
        assert_eq!(unwound.unwrap_err().downcast_ref(), Some(&"in mid-run"));
        assert_eq!(left(), 0);
    }
}
