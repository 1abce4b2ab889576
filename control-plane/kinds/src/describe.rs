//! What Table columns say of themselves: upstream's descriptions, most of them
//! of the API field that a cell shows.
//!
//! Some are of field versions that are no longer served; clients get these.

pub const NAME: &str = "\
    Name must be unique within a namespace. Is required when creating resources, although some resources may \
    allow a client to request the generation of an appropriate name automatically. Name is primarily intended \
    for creation idempotence and configuration definition. Cannot be updated. More info: \
    https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names";
pub const CREATION_TIMESTAMP: &str = "\
    CreationTimestamp is a timestamp representing the server time when this object was created. It is not \
    guaranteed to be set in happens-before order across separate operations. Clients may not set this value. It \
    is represented in RFC3339 form and is in UTC.\n\nPopulated by the system. Read-only. Null for lists. More \
    info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";
pub const POD_IP: &str = "\
    podIP address allocated to the pod. Routable at least within the cluster. Empty if not yet allocated.";
pub const POD_NODE: &str = "\
    NodeName indicates in which node this pod is scheduled. If empty, this pod is a candidate for scheduling by \
    the scheduler defined in schedulerName. Once this field is set, the kubelet for this node becomes \
    responsible for the lifecycle of this pod. This field should not be used to express a desire for the pod to \
    be scheduled on a specific node. \
    https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/#nodename";
pub const POD_NOMINATED_NODE: &str = "\
    nominatedNodeName is set only when this pod preempts other pods on the node, but it cannot be scheduled \
    right away as preemption victims receive their graceful termination periods. This field does not guarantee \
    that the pod will be scheduled on this node. Scheduler may decide to place the pod elsewhere if other nodes \
    become available sooner. Scheduler may also decide to give the resources on this node to a higher priority \
    pod that is created after preemption. As a result, this field may be different than PodSpec.nodeName when \
    the pod is scheduled.";
pub const POD_READINESS_GATES: &str = "\
    If specified, all readiness gates will be evaluated for pod readiness. A pod is ready when all its \
    containers are ready AND all conditions specified in the readiness gates have status equal to \"True\" More \
    info: https://git.k8s.io/enhancements/keps/sig-network/580-pod-readiness-gates";
pub const SERVICE_TYPE: &str = "\
    type determines how the Service is exposed. Defaults to ClusterIP. Valid options are ExternalName, \
    ClusterIP, NodePort, and LoadBalancer. \"ClusterIP\" allocates a cluster-internal IP address for \
    load-balancing to endpoints. Endpoints are determined by the selector or if that is not specified, by \
    manual construction of an Endpoints object or EndpointSlice objects. If clusterIP is \"None\", no virtual \
    IP is allocated and the endpoints are published as a set of endpoints rather than a virtual IP. \
    \"NodePort\" builds on ClusterIP and allocates a port on every node which routes to the same endpoints as \
    the clusterIP. \"LoadBalancer\" builds on NodePort and creates an external load-balancer (if supported in \
    the current cloud) which routes to the same endpoints as the clusterIP. \"ExternalName\" aliases this \
    service to the specified externalName. Several other fields do not apply to ExternalName services. More \
    info: https://kubernetes.io/docs/concepts/services-networking/service/#publishing-services-service-types";
pub const SERVICE_CLUSTER_IP: &str = "\
    clusterIP is the IP address of the service and is usually assigned randomly. If an address is specified \
    manually, is in-range (as per system configuration), and is not in use, it will be allocated to the \
    service; otherwise creation of the service will fail. This field may not be changed through updates unless \
    the type field is also being changed to ExternalName (which requires this field to be blank) or the type \
    field is being changed from ExternalName (in which case this field may optionally be specified, as describe \
    above).  Valid values are \"None\", empty string (\"\"), or a valid IP address. Setting this to \"None\" \
    makes a \"headless service\" (no virtual IP), which is useful when direct endpoint connections are \
    preferred and proxying is not required.  Only applies to types ClusterIP, NodePort, and LoadBalancer. If \
    this field is specified when creating a Service of type ExternalName, creation will fail. This field will \
    be wiped when updating a Service to type ExternalName. More info: \
    https://kubernetes.io/docs/concepts/services-networking/service/#virtual-ips-and-service-proxies";
pub const SERVICE_EXTERNAL_IPS: &str = "\
    externalIPs is a list of IP addresses for which nodes in the cluster will also accept traffic for this \
    service.  These IPs are not managed by Kubernetes.  The user is responsible for ensuring that traffic \
    arrives at a node with this IP.  A common example is external load-balancers that are not part of the \
    Kubernetes system.";
pub const SERVICE_PORTS: &str = "\
    The list of ports that are exposed by this service. More info: \
    https://kubernetes.io/docs/concepts/services-networking/service/#virtual-ips-and-service-proxies";
pub const SERVICE_SELECTOR: &str = "\
    Route service traffic to pods with label keys and values matching this selector. If empty or not present, \
    the service is assumed to have an external process managing its endpoints, which Kubernetes will not \
    modify. Only applies to types ClusterIP, NodePort, and LoadBalancer. Ignored if type is ExternalName. More \
    info: https://kubernetes.io/docs/concepts/services-networking/service/";
pub const ENDPOINTS_SUBSETS: &str = "\
    The set of all endpoints is the union of all subsets. Addresses are placed into subsets according to the \
    IPs they share. A single address with multiple ports, some of which are ready and some of which are not \
    (because they come from different containers) will result in the address being displayed in different \
    subsets for the different ports. No address will appear in both Addresses and NotReadyAddresses in the same \
    subset. Sets of addresses and ports that comprise a service.";
pub const NODE_KUBELET_VERSION: &str = "Kubelet Version reported by the node.";
pub const NODE_ADDRESSES: &str = "\
    List of addresses reachable to the node. Queried from cloud provider, if available. More info: \
    https://kubernetes.io/docs/reference/node/node-status/#addresses Note: This field is declared as mergeable, \
    but the merge key is not sufficiently unique, which can cause data corruption when it is merged. Callers \
    should instead use a full-replacement patch. See https://pr.k8s.io/79391 for an example. Consumers should \
    assume that addresses can change during the lifetime of a Node. However, there are some exceptions where \
    this may not be possible, such as Pods that inherit a Node's address in its own status or consumers of the \
    downward API (status.hostIP).";
pub const NODE_OS_IMAGE: &str = "\
    OS Image reported by the node from /etc/os-release (e.g. Debian GNU/Linux 7 (wheezy)).";
pub const NODE_KERNEL_VERSION: &str = "\
    Kernel Version reported by the node from 'uname -r' (e.g. 3.16.0-0.bpo.4-amd64).";
pub const NODE_CONTAINER_RUNTIME: &str = "\
    ContainerRuntime Version reported by the node through runtime remote API (e.g. containerd://1.4.2).";
pub const EVENT_LAST_TIMESTAMP: &str = "The time at which the most recent occurrence of this event was recorded.";
pub const EVENT_TYPE: &str = "Type of this event (Normal, Warning), new types could be added in the future";
pub const EVENT_REASON: &str = "\
    This should be a short, machine understandable string that gives the reason for the transition into the \
    object's current status.";
pub const EVENT_OBJECT: &str = "The object that this event is about.";
pub const EVENT_FIELD_PATH: &str = "\
    If referring to a piece of an object instead of an entire object, this string should contain a valid \
    JSON/Go field access statement, such as desiredState.manifest.containers[2]. For example, if the object \
    reference is to a container within a pod, this would take on a value like: \"spec.containers{name}\" (where \
    \"name\" refers to the name of the container that triggered the event) or if no container name is specified \
    \"spec.containers[2]\" (container with index 2 in this pod). This syntax is chosen only to have some \
    well-defined way of referencing a part of an object.";
pub const EVENT_SOURCE: &str = "The component reporting this event. Should be a short machine understandable string.";
pub const EVENT_MESSAGE: &str = "A human-readable description of the status of this operation.";
pub const EVENT_FIRST_TIMESTAMP: &str = "\
    The time at which the event was first recorded. (Time of server receipt is in TypeMeta.)";
pub const EVENT_COUNT: &str = "The number of times this event has occurred.";
pub const SECRET_TYPE: &str = "\
    Used to facilitate programmatic handling of secret data. More info: \
    https://kubernetes.io/docs/concepts/configuration/secret/#secret-types";
pub const SECRET_DATA: &str = "\
    Data contains the secret data. Each key must consist of alphanumeric characters, '-', '_' or '.'. The \
    serialized form of the secret data is a base64 encoded string, representing the arbitrary (possibly \
    non-string) data value here. Described in https://tools.ietf.org/html/rfc4648#section-4";
pub const SERVICE_ACCOUNT_SECRETS: &str = "\
    Secrets is a list of the secrets in the same namespace that pods running using this ServiceAccount are \
    allowed to use. Pods are only limited to this list if this service account has a \
    \"kubernetes.io/enforce-mountable-secrets\" annotation set to \"true\". The \
    \"kubernetes.io/enforce-mountable-secrets\" annotation is deprecated since v1.32. Prefer separate \
    namespaces to isolate access to mounted secrets. This field should not be used to find auto-generated \
    service account token secrets for use outside of pods. Instead, tokens can be requested directly using the \
    TokenRequest API, or service account token secrets can be manually created. More info: \
    https://kubernetes.io/docs/concepts/configuration/secret";
pub const CONFIG_MAP_DATA: &str = "\
    Data contains the configuration data. Each key must consist of alphanumeric characters, '-', '_' or '.'. \
    Values with non-UTF-8 byte sequences must use the BinaryData field. The keys stored in Data must not \
    overlap with the keys in the BinaryData field, this is enforced during validation process.";
pub const DEPLOYMENT_UPDATED: &str = "\
    Total number of non-terminating pods targeted by this deployment that have the desired template spec.";
pub const DEPLOYMENT_AVAILABLE: &str = "\
    Total number of available non-terminating pods (ready for at least minReadySeconds) targeted by this \
    deployment.";
pub const DEPLOYMENT_SELECTOR: &str = "\
    Label selector for pods. Existing ReplicaSets whose pods are selected by this will be the ones affected by \
    this deployment.";
pub const REPLICA_SET_DESIRED: &str = "\
    Replicas is the number of desired pods. This is a pointer to distinguish between explicit zero and \
    unspecified. Defaults to 1. More info: https://kubernetes.io/docs/concepts/workloads/controllers/replicaset";
pub const REPLICA_SET_CURRENT: &str = "\
    Replicas is the most recently observed number of non-terminating pods. More info: \
    https://kubernetes.io/docs/concepts/workloads/controllers/replicaset";
pub const REPLICA_SET_READY: &str = "\
    The number of non-terminating pods targeted by this ReplicaSet with a Ready Condition.";
pub const REPLICA_SET_SELECTOR: &str = "\
    Selector is a label query over pods that should match the replica count. If the selector is empty, it is \
    defaulted to the labels present on the pod template. Label keys and values that must match in order to be \
    controlled by this replica set. More info: \
    https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors";
pub const ROLE_BINDING_ROLE: &str = "\
    RoleRef can reference a Role in the current namespace or a ClusterRole in the global namespace. If the \
    RoleRef cannot be resolved, the Authorizer must return an error.";
pub const CLUSTER_ROLE_BINDING_ROLE: &str = "\
    RoleRef can only reference a ClusterRole in the global namespace. If the RoleRef cannot be resolved, the \
    Authorizer must return an error.";
pub const CSR_SIGNER_NAME: &str = "\
    Requested signer for the request. It is a qualified name in the form: `scope-hostname.io/name`. If empty, \
    it will be defaulted:\n 1. If it's a kubelet client certificate, it is assigned\n    \
    \"kubernetes.io/kube-apiserver-client-kubelet\".\n 2. If it's a kubelet serving certificate, it is \
    assigned\n    \"kubernetes.io/kubelet-serving\".\n 3. Otherwise, it is assigned \
    \"kubernetes.io/legacy-unknown\".\nDistribution of trust for signers happens out of band. You can select on \
    this field using `spec.signerName`.";
pub const CSR_REQUEST: &str = "Base64-encoded PKCS#10 CSR data";
pub const CSR_EXPIRATION: &str = "\
    expirationSeconds is the requested duration of validity of the issued certificate. The certificate signer \
    may issue a certificate with a different validity duration so a client must check the delta between the \
    notBefore and and notAfter fields in the issued certificate to determine the actual duration.\n\nThe v1.22+ \
    in-tree implementations of the well-known Kubernetes signers will honor this field as long as the requested \
    duration is not greater than the maximum duration they will honor per the --cluster-signing-duration CLI \
    flag to the Kubernetes controller manager.\n\nCertificate signers may not honor this field for various \
    reasons:\n\n  1. Old signer that is unaware of the field (such as the in-tree\n     implementations prior \
    to v1.22)\n  2. Signer whose configured maximum is shorter than the requested duration\n  3. Signer whose \
    configured minimum is longer than the requested duration\n\nThe minimum valid value for expirationSeconds \
    is 600, i.e. 10 minutes.";
pub const CSR_CONDITIONS: &str = "Conditions applied to the request, such as approval or denial.";
pub const LEASE_HOLDER: &str = "\
    holderIdentity contains the identity of the holder of a current lease. If Coordinated Leader Election is \
    used, the holder identity must be equal to the elected LeaseCandidate.metadata.name field.";
pub const SLICE_ADDRESS_TYPE: &str = "\
    addressType specifies the type of address carried by this EndpointSlice. All addresses in this slice must \
    be the same type. This field is immutable after creation. The following address types are currently \
    supported: * IPv4: Represents an IPv4 Address. * IPv6: Represents an IPv6 Address. * FQDN: Represents a \
    Fully Qualified Domain Name.";
pub const SLICE_PORTS: &str = "\
    ports specifies the list of network ports exposed by each endpoint in this slice. Each port must have a \
    unique name. When ports is empty, it indicates that there are no defined ports. When a port is defined with \
    a nil port value, it indicates \"all ports\". Each slice may include a maximum of 100 ports.";
pub const SLICE_ENDPOINTS: &str = "\
    endpoints is a list of unique endpoints in this slice. Each slice may include a maximum of 1000 endpoints.";
