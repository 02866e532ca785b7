//! Objects of single kinds that say what their kinds do not allow.

use super::{Case, DEPLOYMENTS, PODS, SERVICES, post};

pub(super) fn wrong_workloads() -> Vec<Case> {
    let pod = |spec: &str| post(PODS, &format!(r#"{{"metadata":{{"name":"p"}},"spec":{spec}}}"#));
    let container =
        |rest: &str| pod(&format!(r#"{{"containers":[{{"name":"c","image":"i"{rest}}}]}}"#));
    let deployment =
        |spec: &str| post(DEPLOYMENTS, &format!(r#"{{"metadata":{{"name":"w"}},"spec":{spec}}}"#));
    let template = r#""template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i"}]}}"#;
    vec![
        pod(r#"{"containers":[]}"#).invalid(
            "Pod \"p\" is invalid: spec.containers: Required value",
            &["FieldValueRequired spec.containers"],
        ),
        pod(r#"{"containers":[{"name":"c"}]}"#).invalid(
            "Pod \"p\" is invalid: spec.containers[0].image: Required value",
            &["FieldValueRequired spec.containers[0].image"],
        ),
        pod(r#"{"containers":[{"image":"i"}]}"#).invalid(
            "Pod \"p\" is invalid: spec.containers[0].name: Required value",
            &["FieldValueRequired spec.containers[0].name"],
        ),
        pod(r#"{"containers":[{"name":"c","image":"i"},{"name":"c","image":"i"}]}"#).invalid(
            "Pod \"p\" is invalid: spec.containers[1].name: Duplicate value: \"c\"",
            &["FieldValueDuplicate spec.containers[1].name"],
        ),
        pod(r#"{"restartPolicy":"Sometimes","containers":[{"name":"c","image":"i"}]}"#).invalid(
            "Pod \"p\" is invalid: spec.restartPolicy: Unsupported value: \"Sometimes\": supported \
             values: \"Always\", \"OnFailure\", \"Never\"",
            &["FieldValueNotSupported spec.restartPolicy"],
        ),
        container(r#","imagePullPolicy":"Often""#).invalid(
            "Pod \"p\" is invalid: spec.containers[0].imagePullPolicy: Unsupported value: \
             \"Often\": supported values: \"Always\", \"IfNotPresent\", \"Never\"",
            &["FieldValueNotSupported spec.containers[0].imagePullPolicy"],
        ),
        container(r#","ports":[{"containerPort":70000}]"#).invalid(
            "Pod \"p\" is invalid: spec.containers[0].ports[0].containerPort: Invalid value: \
             70000: must be between 1 and 65535, inclusive",
            &["FieldValueInvalid spec.containers[0].ports[0].containerPort"],
        ),
        container(r#","resources":{"requests":{"cpu":"2"},"limits":{"cpu":"1"}}"#).invalid(
            "Pod \"p\" is invalid: spec.containers[0].resources.requests: Invalid value: \"2\": \
             must be less than or equal to cpu limit of 1",
            &["FieldValueInvalid spec.containers[0].resources.requests"],
        ),
        container(r#","volumeMounts":[{"name":"v","mountPath":"/v"}]"#).invalid(
            "Pod \"p\" is invalid: spec.containers[0].volumeMounts[0].name: Not found: \"v\"",
            &["FieldValueNotFound spec.containers[0].volumeMounts[0].name"],
        ),
        container(r#","livenessProbe":{}"#).invalid(
            "Pod \"p\" is invalid: spec.containers[0].livenessProbe: Required value: must specify \
             a handler type",
            &["FieldValueRequired spec.containers[0].livenessProbe"],
        ),
        deployment(&format!("{{{template}}}")).invalid(
            "Deployment.apps \"w\" is invalid: [spec.selector: Required value, \
             spec.template.metadata.labels: Invalid value: {\"a\":\"b\"}: `selector` does not \
             match template `labels`]",
            &["FieldValueRequired spec.selector", "FieldValueInvalid spec.template.metadata.labels"],
        ),
        deployment(&format!(r#"{{"selector":{{"matchLabels":{{"a":"c"}}}},{template}}}"#)).invalid(
            "Deployment.apps \"w\" is invalid: spec.template.metadata.labels: Invalid value: \
             {\"a\":\"b\"}: `selector` does not match template `labels`",
            &["FieldValueInvalid spec.template.metadata.labels"],
        ),
        deployment(&format!(
            r#"{{"replicas":-1,"selector":{{"matchLabels":{{"a":"b"}}}},{template}}}"#
        ))
        .invalid(
            "Deployment.apps \"w\" is invalid: spec.replicas: Invalid value: -1: must be greater \
             than or equal to 0",
            &["FieldValueInvalid spec.replicas"],
        ),
        deployment(&format!(
            r#"{{"strategy":{{"rollingUpdate":{{"maxSurge":0,"maxUnavailable":0}}}},"selector":{{"matchLabels":{{"a":"b"}}}},{template}}}"#
        ))
        .invalid(
            "Deployment.apps \"w\" is invalid: spec.strategy.rollingUpdate.maxUnavailable: Invalid \
             value: 0: may not be 0 when `maxSurge` is 0",
            &["FieldValueInvalid spec.strategy.rollingUpdate.maxUnavailable"],
        ),
    ]
}

pub(super) fn wrong_services() -> Vec<Case> {
    let service =
        |spec: &str| post(SERVICES, &format!(r#"{{"metadata":{{"name":"s"}},"spec":{spec}}}"#));
    vec![
        service("{}").invalid(
            "Service \"s\" is invalid: spec.ports: Required value",
            &["FieldValueRequired spec.ports"],
        ),
        service(r#"{"ports":[{"port":0}]}"#).invalid(
            "Service \"s\" is invalid: [spec.ports[0].port: Invalid value: 0: must be between 1 \
             and 65535, inclusive, spec.ports[0].targetPort: Invalid value: 0: must be between 1 and \
             65535, inclusive]",
            &[],
        ),
        service(r#"{"type":"Public","ports":[{"port":80}]}"#).invalid(
            "Service \"s\" is invalid: spec.type: Unsupported value: \"Public\": supported values: \
             \"ClusterIP\", \"ExternalName\", \"LoadBalancer\", \"NodePort\"",
            &["FieldValueNotSupported spec.type"],
        ),
        service(r#"{"type":"NodePort","ports":[{"port":80,"nodePort":80}]}"#).invalid(
            "Service \"s\" is invalid: spec.ports[0].nodePort: Invalid value: 80: provided port is \
             not in the valid range. The range of valid ports is 30000-32767",
            &["FieldValueInvalid spec.ports[0].nodePort"],
        ),
        service(r#"{"clusterIP":"10.96.0.1","ports":[{"port":80}]}"#).invalid(
            "Service \"s\" is invalid: spec.clusterIPs: Invalid value: [\"10.96.0.1\"]: failed to \
             allocate IP 10.96.0.1: provided IP is already allocated",
            &["FieldValueInvalid spec.clusterIPs"],
        ),
        service(r#"{"clusterIP":"192.168.1.1","ports":[{"port":80}]}"#).invalid(
            "Service \"s\" is invalid: spec.clusterIPs: Invalid value: [\"192.168.1.1\"]: failed \
             to allocate IP 192.168.1.1: the provided network does not match the current range",
            &["FieldValueInvalid spec.clusterIPs"],
        ),
        service(r#"{"ports":[{"port":80},{"port":81}]}"#).invalid(
            "Service \"s\" is invalid: [spec.ports[0].name: Required value, spec.ports[1].name: \
             Required value]",
            &["FieldValueRequired spec.ports[0].name", "FieldValueRequired spec.ports[1].name"],
        ),
    ]
}
