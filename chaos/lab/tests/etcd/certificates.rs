//! Who may come in: the facade has an authority of its own.

use triarch_env::Secret;
use triarch_lab::{KubeClient, Kubeconfig, preflight};
use triarch_pki::ca::CertAndKey;

use crate::{MISSING, Outcome, World, etcdctl, text};

pub async fn apart(world: &mut World) -> Outcome {
    preflight::find("etcdctl").ok_or(format!("{MISSING}etcdctl"))?;
    let admin = Kubeconfig::read(&world.cluster.kubeconfig_path()).map_err(text)?;
    // A Kubernetes administrator's certificate: good there, nobody here.
    let write = |name: &str, content: &str| std::fs::write(world.pki.join(name), content).map_err(text);
    write("kube.crt", &admin.identity.certificate_pem)?;
    write("kube.key", admin.identity.key_pem.expose())?;
    let (cert, key) = (world.file("kube.crt"), world.file("kube.key"));
    let kube = format!("ETCDCTL_CERT={cert} ETCDCTL_KEY={key}");
    let none = "ETCDCTL_CERT= ETCDCTL_KEY=".to_owned();
    let plain = format!("ETCDCTL_CACERT= ETCDCTL_CERT= ETCDCTL_KEY= ETCDCTL_ENDPOINTS=http://{}", world.addresses[0]);
    for command in [kube, none, plain] {
        let command = format!("env {command} etcdctl put x 1 --dial-timeout=2s --command-timeout=3s");
        if let (true, said) = etcdctl::run(world, &command).await? {
            return Err(format!("{command}: let in: {said}"));
        }
    }
    match etcdctl::run(world, "etcdctl put x 1").await? {
        (true, _) => {}
        (false, said) => return Err(format!("the facade's own certificate was refused: {said}")),
    }
    println!("case certificates a Kubernetes administrator, nobody and plain text are refused ok");
    // And the other way: the facade's certificate at the Kubernetes API.
    let read = |name: &str| std::fs::read_to_string(world.pki.join(name)).map_err(text);
    let identity = CertAndKey { certificate_pem: read("client.crt")?, key_pem: Secret::new(read("client.key")?) };
    let client = KubeClient::new(Kubeconfig { identity, ..admin }).map_err(text)?;
    let (code, said) = client.raw(http::Method::GET, "/api", None, Default::default()).await.map_err(text)?;
    if code.as_u16() != 401 {
        return Err(format!("the Kubernetes API answers the facade's certificate with {code}: {said:?}"));
    }
    println!("case certificates the facade's own is 401 at the Kubernetes API ok");
    Ok(())
}
