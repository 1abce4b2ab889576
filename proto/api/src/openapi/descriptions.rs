//! Descriptions of types and fields, taken from the generated API crate, only
//! for the groups that a document needs.

use std::collections::BTreeSet;

use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

/// Definition name to its generated schema. Only descriptions are read from it.
pub(super) struct Descriptions(Map<String, Value>);

macro_rules! kinds {
    ($g:ident, $m:path: $($t:ident)*) => {{
        use $m as module;
        $( let _ = $g.subschema_for::<module::$t>(); )*
    }};
}

impl Descriptions {
    /// For these groups and versions, and the machinery that all of them use.
    pub fn of(groups: &BTreeSet<(&str, &str)>) -> Descriptions {
        let mut g = SchemaSettings::openapi3().into_generator();
        kinds!(g, k8s_openapi::apimachinery::pkg::apis::meta::v1: ObjectMeta ListMeta Status DeleteOptions);
        for (group, version) in groups {
            register(&mut g, group, version);
        }
        Descriptions(g.take_definitions(false))
    }

    pub fn ty(&self, definition: &str) -> Option<&str> {
        self.0.get(definition)?.get("description")?.as_str()
    }

    pub fn field(&self, definition: &str, field: &str) -> Option<&str> {
        self.0.get(definition)?.get("properties")?.get(field)?.get("description")?.as_str()
    }
}

fn register(g: &mut SchemaGenerator, group: &str, version: &str) {
    match (group, version) {
        ("", "v1") => {
            kinds!(g, k8s_openapi::api::core::v1: Binding ComponentStatus ConfigMap Endpoints Event LimitRange
                Namespace Node PersistentVolume PersistentVolumeClaim Pod PodTemplate ReplicationController
                ResourceQuota Secret Service ServiceAccount);
            kinds!(g, k8s_openapi::api::policy::v1: Eviction);
            kinds!(g, k8s_openapi::api::autoscaling::v1: Scale);
            kinds!(g, k8s_openapi::api::authentication::v1: TokenRequest);
        }
        ("admissionregistration.k8s.io", "v1") => {
            kinds!(g, k8s_openapi::api::admissionregistration::v1: MutatingAdmissionPolicy
                MutatingAdmissionPolicyBinding MutatingWebhookConfiguration ValidatingAdmissionPolicy
                ValidatingAdmissionPolicyBinding ValidatingWebhookConfiguration);
        }
        ("apps", "v1") => {
            kinds!(g, k8s_openapi::api::apps::v1: ControllerRevision DaemonSet Deployment ReplicaSet StatefulSet);
            kinds!(g, k8s_openapi::api::autoscaling::v1: Scale);
        }
        ("authentication.k8s.io", "v1") => {
            kinds!(g, k8s_openapi::api::authentication::v1: SelfSubjectReview TokenRequest TokenReview);
        }
        ("authorization.k8s.io", "v1") => {
            kinds!(g, k8s_openapi::api::authorization::v1: LocalSubjectAccessReview SelfSubjectAccessReview
                SelfSubjectRulesReview SubjectAccessReview);
        }
        ("autoscaling", "v1") => {
            kinds!(g, k8s_openapi::api::autoscaling::v1: HorizontalPodAutoscaler Scale);
        }
        ("autoscaling", "v2") => {
            kinds!(g, k8s_openapi::api::autoscaling::v2: HorizontalPodAutoscaler);
        }
        ("batch", "v1") => {
            kinds!(g, k8s_openapi::api::batch::v1: CronJob Job);
        }
        ("certificates.k8s.io", "v1") => {
            kinds!(g, k8s_openapi::api::certificates::v1: CertificateSigningRequest ClusterTrustBundle
                PodCertificateRequest);
        }
        ("coordination.k8s.io", "v1") => {
            kinds!(g, k8s_openapi::api::coordination::v1: Lease);
        }
        ("discovery.k8s.io", "v1") => {
            kinds!(g, k8s_openapi::api::discovery::v1: EndpointSlice);
        }
        ("events.k8s.io", "v1") => {
            kinds!(g, k8s_openapi::api::events::v1: Event);
        }
        ("flowcontrol.apiserver.k8s.io", "v1") => {
            kinds!(g, k8s_openapi::api::flowcontrol::v1: FlowSchema PriorityLevelConfiguration);
        }
        ("networking.k8s.io", "v1") => {
            kinds!(g, k8s_openapi::api::networking::v1: IPAddress Ingress IngressClass NetworkPolicy ServiceCIDR);
        }
        ("node.k8s.io", "v1") => {
            kinds!(g, k8s_openapi::api::node::v1: RuntimeClass);
        }
        ("policy", "v1") => {
            kinds!(g, k8s_openapi::api::policy::v1: Eviction PodDisruptionBudget);
        }
        ("rbac.authorization.k8s.io", "v1") => {
            kinds!(g, k8s_openapi::api::rbac::v1: ClusterRole ClusterRoleBinding Role RoleBinding);
        }
        ("resource.k8s.io", "v1") => {
            kinds!(g, k8s_openapi::api::resource::v1: DeviceClass DeviceTaintRule ResourceClaim
                ResourceClaimTemplate ResourceSlice);
        }
        ("scheduling.k8s.io", "v1") => {
            kinds!(g, k8s_openapi::api::scheduling::v1: PriorityClass);
        }
        ("storage.k8s.io", "v1") => {
            kinds!(g, k8s_openapi::api::storage::v1: CSIDriver CSINode CSIStorageCapacity StorageClass
                VolumeAttachment VolumeAttributesClass);
        }
        ("storagemigration.k8s.io", "v1") => {
            kinds!(g, k8s_openapi::api::storagemigration::v1: StorageVersionMigration);
        }
        ("apiextensions.k8s.io", "v1") => {
            kinds!(g, k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1: CustomResourceDefinition);
        }
        ("apiregistration.k8s.io", "v1") => {
            kinds!(g, k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1: APIService);
        }
        // Custom resources bring their own.
        _ => {}
    }
}
