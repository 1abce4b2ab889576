//! Service-account tokens at the door: good ones name their user, all others
//! get the one answer that tells nothing.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::*;
use http::Method;
use serde_json::json;
use triarch_auth::authn::Authn;
use triarch_env::Wall;
use triarch_pki::ca::{AltNames, Ca, Usage};
use triarch_pki::identity::Identity;
use triarch_pki::jwt::{Claims, KubernetesClaims, Ref, ServiceAccountKey};
use triarch_pki::tls::{EXPIRED, FOREIGN};
use triarch_registry::{Authenticator, AuthnError, Credentials};

const ISSUER: &str = "https://kubernetes.default.svc";

#[tokio::test]
async fn expired_foreign_and_orphaned_tokens_and_certificates_are_401_and_nothing_more() {
    let mut p = parts();
    let key = Arc::new(ServiceAccountKey::generate().unwrap());
    let authenticator = Arc::new(Authn {
        db: p.registry.db().clone(),
        env: p.registry.env().clone(),
        service_accounts: key.clone(),
        issuer: ISSUER.into(),
        audiences: vec![ISSUER.into()],
        front_proxy_ca: None,
    });
    p.authenticator = authenticator.clone();
    p.authorizer = Arc::new(triarch_registry::AlwaysAllow);
    let client = p.registry.client(triarch_registry::RequestContext::component("admin", None));
    let account =
        json!({"kind": "ServiceAccount", "apiVersion": "v1", "metadata": {"name": "a", "namespace": "default"}});
    let account = client.create(account).await.unwrap();
    let now = p.registry.env().wall();
    let (ca, me) = (Ca::generate("ca", now).unwrap(), Identity::new("me", &[]));
    let f = start(p);
    let claims = || Claims {
        aud: vec![ISSUER.into()],
        exp: (now + Duration::from_secs(600)).secs(),
        iat: now.secs(),
        iss: ISSUER.into(),
        jti: "1".into(),
        kubernetes: KubernetesClaims {
            namespace: "default".into(),
            serviceaccount: Ref { name: "a".into(), uid: account["metadata"]["uid"].as_str().unwrap().into() },
            ..KubernetesClaims::default()
        },
        nbf: now.secs(),
        sub: "system:serviceaccount:default:a".into(),
    };
    let ask = async |token: &str| {
        let authorization = format!("Bearer {token}");
        let path = "/api/v1/namespaces/default/configmaps";
        f.json(request(Method::GET, path, &[("authorization", &authorization)], "")).await
    };
    let good = key.sign(&claims()).unwrap();
    assert_eq!(ask(good.expose()).await.0, 200);
    let signed = |change: fn(&mut Claims)| {
        let mut c = claims();
        change(&mut c);
        key.sign(&c).unwrap().expose().to_owned()
    };
    let foreign = ServiceAccountKey::generate().unwrap().sign(&claims()).unwrap().expose().to_owned();
    let unauthorized = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "Unauthorized", "reason": "Unauthorized", "code": 401,
    });
    for (what, token) in [
        ("expired", signed(|c| (c.iat, c.nbf, c.exp) = (c.iat - 7200, c.nbf - 7200, c.iat - 3600))),
        ("not yet valid", signed(|c| c.nbf += 3600)),
        ("of another issuer", signed(|c| c.iss = "https://elsewhere".into())),
        ("for another audience", signed(|c| c.aud = vec!["vault".into()])),
        ("of an account that was made again", signed(|c| c.kubernetes.serviceaccount.uid = "old".into())),
        ("of a pod that is gone", signed(|c| c.kubernetes.pod = Some(Ref { name: "p".into(), uid: "1".into() }))),
        ("of another subject", signed(|c| c.sub = "system:serviceaccount:default:root".into())),
        ("of a foreign key", foreign),
        ("cut short", good.expose()[..good.expose().len() - 4].to_owned()),
        ("not a token", "nonsense".to_owned()),
        ("an unknown bootstrap token", "abcdef.0123456789abcdef".to_owned()),
    ] {
        assert_eq!(ask(&token).await, (401, unauthorized.clone()), "{what}");
    }
    // A certificate that does not count leaves it to the token.
    let shown = |at: i64, refused: Option<&str>, token: Option<&str>| {
        let pair = ca.issue(&me, &AltNames::default(), Usage::Client, Wall::from_secs(at), Duration::from_secs(3600));
        let leaf = triarch_pki::tls::certificates(&pair.unwrap().certificate_pem).unwrap()[0].to_vec();
        let credentials = Credentials {
            authorization: token.map(|t| format!("Bearer {t}")),
            peer_certificates: if refused.is_some() { vec![] } else { vec![leaf] },
            refused_certificate: refused.map(str::to_owned),
            ..Credentials::default()
        };
        let authenticator = &authenticator;
        async move { authenticator.authenticate(&credentials).await.map(|user| user.map(|u| u.name)) }
    };
    let account = "system:serviceaccount:default:a".to_owned();
    let (fresh, over) = (now.secs(), now.secs() - 3 * 3600);
    assert_eq!(shown(fresh, None, None).await, Ok(Some("me".into())));
    assert_eq!(shown(fresh, Some(FOREIGN), Some(good.expose())).await, Ok(Some(account.clone())));
    assert_eq!(shown(fresh, Some(FOREIGN), None).await, Err(AuthnError::Invalid(FOREIGN.into())));
    // One that was good when its connection was made.
    assert_eq!(shown(over, None, None).await, Err(AuthnError::Invalid(format!("x509: {EXPIRED}"))));
    assert_eq!(shown(over, None, Some(good.expose())).await, Ok(Some(account)));
}
