//! Probes' dials, made from this process: the agent lives in the node's network
//! namespace, so what answers is the node's own pod and nobody else's.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::net::TcpStream;
use triarch_env::Env;
use triarch_kubelet::probe::{Dialer, HttpRequest, Outcome, host_port};

const MAX_BODY: usize = 10 * 1024;

pub struct NodeDialer {
    env: Env,
    tls: Arc<ClientConfig>,
}

impl NodeDialer {
    pub fn new(env: Env) -> NodeDialer {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .expect("ring offers the default versions")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
            .with_no_client_auth();
        NodeDialer { env, tls: Arc::new(tls) }
    }

    async fn request(&self, r: &HttpRequest) -> Result<u16, String> {
        let address = host_port(&r.host, r.port);
        let stream = TcpStream::connect((r.host.as_str(), r.port)).await.map_err(|e| dial_error(&address, &e))?;
        if r.scheme == "https" {
            let name = ServerName::try_from(r.host.clone()).map_err(|e| e.to_string())?;
            let stream = tokio_rustls::TlsConnector::from(self.tls.clone()).connect(name, stream).await;
            return exchange(stream.map_err(|e| e.to_string())?, r, &address).await;
        }
        exchange(stream, r, &address).await
    }
}

/// `dial tcp 10.0.0.1:80: connect: connection refused`.
fn dial_error(address: &str, e: &std::io::Error) -> String {
    let reason = match e.kind() {
        std::io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
        std::io::ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
        std::io::ErrorKind::NetworkUnreachable => "connect: network is unreachable".to_owned(),
        std::io::ErrorKind::TimedOut => "i/o timeout".to_owned(),
        _ => e.to_string(),
    };
    format!("dial tcp {address}: {reason}")
}

async fn exchange<S>(stream: S, r: &HttpRequest, address: &str) -> Result<u16, String>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let text = |e: hyper::Error| e.to_string();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(text)?;
    let mut request = hyper::Request::get(&r.path);
    let defaults = [("host", address), ("user-agent", "kube-probe/1.37"), ("accept", "*/*"), ("connection", "close")];
    for (name, value) in defaults.iter().filter(|(n, _)| !r.headers.contains_key(*n)) {
        request = request.header(*name, *value);
    }
    for (name, value) in &r.headers {
        request = request.header(name, value);
    }
    let request = request.body(Empty::<bytes::Bytes>::new()).map_err(|e| e.to_string())?;
    let asking = async {
        let response = sender.send_request(request).await.map_err(text)?;
        let status = response.status().as_u16();
        // The body is read so that the server sees a client that listens.
        let _ = Limited::new(response.into_body(), MAX_BODY).collect().await;
        Ok(status)
    };
    let asking = std::pin::pin!(asking);
    let connection = std::pin::pin!(connection);
    match futures::future::select(asking, connection).await {
        futures::future::Either::Left((status, _)) => status,
        futures::future::Either::Right((ended, asking)) => match ended {
            Ok(()) => asking.await,
            Err(e) => Err(text(e)),
        },
    }
}

#[async_trait]
impl Dialer for NodeDialer {
    async fn http(&self, r: &HttpRequest, limit: Duration) -> Outcome {
        let url = format!("{}://{}{}", r.scheme, host_port(&r.host, r.port), r.path);
        match self.env.timeout(limit, self.request(r)).await {
            Ok(Ok(status)) if (200..400).contains(&status) => Outcome::Success,
            Ok(Ok(status)) => Outcome::Failure(format!("HTTP probe failed with statuscode: {status}")),
            Ok(Err(e)) => Outcome::Failure(format!("Get \"{url}\": {e}")),
            Err(_) => {
                let text = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)";
                Outcome::Failure(format!("Get \"{url}\": {text}"))
            }
        }
    }

    async fn tcp(&self, host: &str, port: u16, limit: Duration) -> Outcome {
        let address = host_port(host, port);
        match self.env.timeout(limit, TcpStream::connect((host, port))).await {
            Ok(Ok(_)) => Outcome::Success,
            Ok(Err(e)) => Outcome::Failure(dial_error(&address, &e)),
            Err(_) => Outcome::Failure(format!("dial tcp {address}: i/o timeout")),
        }
    }

    async fn grpc(&self, host: &str, port: u16, service: &str, limit: Duration) -> Outcome {
        let address = host_port(host, port);
        let late = || {
            let seconds = limit.as_secs();
            Outcome::Failure(format!(
                "timeout: failed to connect service \"{address}\" within {seconds}s: context deadline exceeded"
            ))
        };
        match self.env.timeout(limit, health(&address, service)).await {
            Ok(Ok(1)) => Outcome::Success,
            Ok(Ok(status)) => {
                let name = match status {
                    0 => "UNKNOWN",
                    2 => "NOT_SERVING",
                    _ => "SERVICE_UNKNOWN",
                };
                Outcome::Failure(format!("service unhealthy (responded with \"{name}\")"))
            }
            Ok(Err(status)) if status.code() == tonic::Code::Unimplemented => {
                let text = "error: this server does not implement the grpc health protocol (grpc.health.v1.Health)";
                Outcome::Failure(format!("{text}: {}", status.message()))
            }
            Ok(Err(status)) if status.code() == tonic::Code::Unavailable => late(),
            Ok(Err(status)) => Outcome::Failure(format!("error: health rpc probe failed: {}", status.message())),
            Err(_) => late(),
        }
    }
}

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

async fn health(address: &str, service: &str) -> Result<i32, tonic::Status> {
    let unavailable = |e: &dyn std::fmt::Display| tonic::Status::unavailable(e.to_string());
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}")).map_err(|e| unavailable(&e))?;
    let channel = endpoint.connect().await.map_err(|e| unavailable(&e))?;
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.map_err(|e| unavailable(&e))?;
    let path = tonic::codegen::http::uri::PathAndQuery::from_static("/grpc.health.v1.Health/Check");
    let request = tonic::Request::new(HealthCheckRequest { service: service.to_owned() });
    let codec = tonic_prost::ProstCodec::<HealthCheckRequest, HealthCheckResponse>::default();
    Ok(client.unary(request, path, codec).await?.into_inner().status)
}

/// A probe asks whether something answers, not who it is (as upstream).
#[derive(Debug)]
struct AnyCertificate(Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }
    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use triarch_env::TokioRuntime;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);

    async fn server(answer: &'static str) -> u16 {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let port = listener.local_addr().expect("bound").port();
        tokio::spawn(async move {
            while let Ok((mut s, _)) = listener.accept().await {
                let _ = s.read(&mut [0; 1024]).await;
                let _ = s.write_all(answer.as_bytes()).await;
            }
        });
        port
    }

    fn dialer() -> NodeDialer {
        NodeDialer::new(Env::new(TokioRuntime::current()))
    }

    fn get(port: u16) -> HttpRequest {
        HttpRequest {
            scheme: "http".into(),
            host: "127.0.0.1".into(),
            port,
            path: "/x".into(),
            headers: Default::default(),
        }
    }

    #[tokio::test]
    async fn http_answers_decide_by_their_status() {
        let good = server("HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n").await;
        assert_eq!(dialer().http(&get(good), LIMIT).await, Outcome::Success);
        let bad = server("HTTP/1.1 503 Nope\r\ncontent-length: 0\r\n\r\n").await;
        let expected = Outcome::Failure("HTTP probe failed with statuscode: 503".into());
        assert_eq!(dialer().http(&get(bad), LIMIT).await, expected);
    }

    #[tokio::test]
    async fn a_refused_connection_is_a_failure_in_upstreams_words() {
        let port = {
            let l = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
            l.local_addr().expect("bound").port()
        };
        let text = format!("dial tcp 127.0.0.1:{port}: connect: connection refused");
        assert_eq!(dialer().tcp("127.0.0.1", port, LIMIT).await, Outcome::Failure(text.clone()));
        let http = format!("Get \"http://127.0.0.1:{port}/x\": {text}");
        assert_eq!(dialer().http(&get(port), LIMIT).await, Outcome::Failure(http));
        assert!(matches!(dialer().grpc("127.0.0.1", port, "", LIMIT).await, Outcome::Failure(_)));
    }
}
