//! The runtime and image services behind one cheap handle.
//!
//! Every call has a deadline; the connection is made lazily and again after a
//! restart of the runtime, so a handle outlives it.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tonic::transport::{Channel, Endpoint, Uri};
use triarch_env::Env;

use crate::CriError;
use crate::v1::image_service_client::ImageServiceClient;
use crate::v1::runtime_service_client::RuntimeServiceClient;
use crate::v1::*;

/// Answers of the runtime that list everything on a node stay below this.
const MAX_MESSAGE: usize = 16 << 20;
const SHORT: Duration = Duration::from_secs(10);
/// Making a sandbox or a container waits for plugins and snapshotters.
const LONG: Duration = Duration::from_secs(240);
const PULL: Duration = Duration::from_secs(1200);

/// A client of one runtime; cheap to clone.
#[derive(Clone)]
pub struct Cri {
    env: Env,
    socket: PathBuf,
    channel: Channel,
    runtime: RuntimeServiceClient<Channel>,
    images: ImageServiceClient<Channel>,
}

impl std::fmt::Debug for Cri {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cri").field("socket", &self.socket).finish_non_exhaustive()
    }
}

impl Cri {
    /// A handle for the runtime on `socket` (with or without `unix://`).
    /// Connects at the first call; must be made inside a tokio runtime.
    pub fn new(env: Env, socket: &Path) -> Cri {
        let text = socket.to_string_lossy();
        let socket = PathBuf::from(text.strip_prefix("unix://").unwrap_or(&text));
        let path = socket.clone();
        let connector = tower::service_fn(move |_: Uri| {
            let path = path.clone();
            async move { Ok::<_, std::io::Error>(TokioIo::new(tokio::net::UnixStream::connect(path).await?)) }
        });
        let channel = Endpoint::from_static("http://localhost").connect_with_connector_lazy(connector);
        let runtime = RuntimeServiceClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE);
        let images = ImageServiceClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE);
        Cri { env, socket, channel, runtime, images }
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }

    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    async fn call<T>(
        &self,
        name: &'static str,
        limit: Duration,
        fut: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    ) -> Result<T, CriError> {
        match self.env.timeout(limit, fut).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(CriError::from_status(&self.socket.to_string_lossy(), name, status)),
            Err(_) => Err(CriError::DeadlineExceeded { call: name, seconds: limit.as_secs() }),
        }
    }

    pub async fn version(&self) -> Result<VersionResponse, CriError> {
        let request = VersionRequest { version: "v1".into() };
        self.call("Version", SHORT, self.runtime.clone().version(request)).await
    }

    pub async fn status(&self) -> Result<RuntimeStatus, CriError> {
        let response =
            self.call("Status", SHORT, self.runtime.clone().status(StatusRequest { verbose: false })).await?;
        Ok(response.status.unwrap_or_default())
    }

    pub async fn run_pod_sandbox(&self, config: PodSandboxConfig, handler: String) -> Result<String, CriError> {
        let request = RunPodSandboxRequest { config: Some(config), runtime_handler: handler };
        Ok(self.call("RunPodSandbox", LONG, self.runtime.clone().run_pod_sandbox(request)).await?.pod_sandbox_id)
    }

    pub async fn stop_pod_sandbox(&self, id: &str) -> Result<(), CriError> {
        let request = StopPodSandboxRequest { pod_sandbox_id: id.into() };
        self.call("StopPodSandbox", LONG, self.runtime.clone().stop_pod_sandbox(request)).await.map(drop)
    }

    pub async fn remove_pod_sandbox(&self, id: &str) -> Result<(), CriError> {
        let request = RemovePodSandboxRequest { pod_sandbox_id: id.into() };
        self.call("RemovePodSandbox", LONG, self.runtime.clone().remove_pod_sandbox(request)).await.map(drop)
    }

    pub async fn pod_sandbox_status(&self, id: &str) -> Result<PodSandboxStatus, CriError> {
        let request = PodSandboxStatusRequest { pod_sandbox_id: id.into(), verbose: false };
        let response = self.call("PodSandboxStatus", SHORT, self.runtime.clone().pod_sandbox_status(request)).await?;
        response.status.ok_or_else(|| CriError::NotFound { message: format!("sandbox {id} has no status") })
    }

    pub async fn list_pod_sandbox(&self, labels: &[(&str, &str)]) -> Result<Vec<PodSandbox>, CriError> {
        let filter = PodSandboxFilter { label_selector: owned(labels), ..Default::default() };
        let request = ListPodSandboxRequest { filter: Some(filter) };
        Ok(self.call("ListPodSandbox", SHORT, self.runtime.clone().list_pod_sandbox(request)).await?.items)
    }

    pub async fn create_container(
        &self,
        sandbox: &str,
        config: ContainerConfig,
        sandbox_config: PodSandboxConfig,
    ) -> Result<String, CriError> {
        let request = CreateContainerRequest {
            pod_sandbox_id: sandbox.into(),
            config: Some(config),
            sandbox_config: Some(sandbox_config),
        };
        Ok(self.call("CreateContainer", LONG, self.runtime.clone().create_container(request)).await?.container_id)
    }

    pub async fn start_container(&self, id: &str) -> Result<(), CriError> {
        let request = StartContainerRequest { container_id: id.into() };
        self.call("StartContainer", LONG, self.runtime.clone().start_container(request)).await.map(drop)
    }

    /// SIGTERM, then SIGKILL after `grace`.
    pub async fn stop_container(&self, id: &str, grace: Duration) -> Result<(), CriError> {
        let seconds = i64::try_from(grace.as_secs()).unwrap_or(i64::MAX);
        let request = StopContainerRequest { container_id: id.into(), timeout: seconds };
        let limit = grace.saturating_add(LONG);
        self.call("StopContainer", limit, self.runtime.clone().stop_container(request)).await.map(drop)
    }

    pub async fn remove_container(&self, id: &str) -> Result<(), CriError> {
        let request = RemoveContainerRequest { container_id: id.into() };
        self.call("RemoveContainer", LONG, self.runtime.clone().remove_container(request)).await.map(drop)
    }

    pub async fn list_containers(&self, labels: &[(&str, &str)]) -> Result<Vec<Container>, CriError> {
        let filter = ContainerFilter { label_selector: owned(labels), ..Default::default() };
        let request = ListContainersRequest { filter: Some(filter) };
        Ok(self.call("ListContainers", SHORT, self.runtime.clone().list_containers(request)).await?.containers)
    }

    pub async fn container_status(&self, id: &str) -> Result<ContainerStatus, CriError> {
        let request = ContainerStatusRequest { container_id: id.into(), verbose: false };
        let response = self.call("ContainerStatus", SHORT, self.runtime.clone().container_status(request)).await?;
        response.status.ok_or_else(|| CriError::NotFound { message: format!("container {id} has no status") })
    }

    pub async fn reopen_container_log(&self, id: &str) -> Result<(), CriError> {
        let request = ReopenContainerLogRequest { container_id: id.into() };
        self.call("ReopenContainerLog", SHORT, self.runtime.clone().reopen_container_log(request)).await.map(drop)
    }

    pub async fn exec_sync(&self, id: &str, cmd: &[String], limit: Duration) -> Result<ExecSyncResponse, CriError> {
        let timeout = i64::try_from(limit.as_secs().max(1)).unwrap_or(i64::MAX);
        let request = ExecSyncRequest { container_id: id.into(), cmd: cmd.to_vec(), timeout };
        self.call("ExecSync", limit + SHORT, self.runtime.clone().exec_sync(request)).await
    }

    /// A URL on the runtime's streaming server, good for one connection.
    pub async fn exec(&self, request: ExecRequest) -> Result<String, CriError> {
        Ok(self.call("Exec", SHORT, self.runtime.clone().exec(request)).await?.url)
    }

    pub async fn attach(&self, request: AttachRequest) -> Result<String, CriError> {
        Ok(self.call("Attach", SHORT, self.runtime.clone().attach(request)).await?.url)
    }

    pub async fn port_forward(&self, request: PortForwardRequest) -> Result<String, CriError> {
        Ok(self.call("PortForward", SHORT, self.runtime.clone().port_forward(request)).await?.url)
    }

    pub async fn list_images(&self) -> Result<Vec<Image>, CriError> {
        let request = ListImagesRequest { filter: None };
        Ok(self.call("ListImages", SHORT, self.images.clone().list_images(request)).await?.images)
    }

    /// `None` when the image is not on the node.
    pub async fn image_status(&self, image: &str) -> Result<Option<Image>, CriError> {
        let request = ImageStatusRequest { image: Some(image_spec(image)), verbose: false };
        Ok(self.call("ImageStatus", SHORT, self.images.clone().image_status(request)).await?.image)
    }

    /// Fetches from the registry, always; returns the image's reference.
    pub async fn pull_image(&self, image: &str, auth: Option<AuthConfig>) -> Result<String, CriError> {
        let request = PullImageRequest { image: Some(image_spec(image)), auth, sandbox_config: None };
        Ok(self.call("PullImage", PULL, self.images.clone().pull_image(request)).await?.image_ref)
    }

    pub async fn remove_image(&self, image: &str) -> Result<(), CriError> {
        let request = RemoveImageRequest { image: Some(image_spec(image)) };
        self.call("RemoveImage", LONG, self.images.clone().remove_image(request)).await.map(drop)
    }
}

fn image_spec(image: &str) -> ImageSpec {
    ImageSpec { image: image.into(), user_specified_image: image.into(), ..Default::default() }
}

fn owned(labels: &[(&str, &str)]) -> std::collections::HashMap<String, String> {
    labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}
