//! Rules of our own for the manifests: what keeps a cluster safe from them, and logs from being lost.

use std::fs;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Container, PodSpec, Probe};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use serde_json::Value;

use super::manifests::{self, Workload, yaml};

const WORKLOADS: [&str; 3] = ["indexer", "sidecar", "node"];

#[test]
fn every_manifest_is_what_kubernetes_understands_and_is_used() -> Result<()> {
    let kustomizations = manifests::kustomizations()?;
    for (folder, kustomization) in &kustomizations {
        for resource in &kustomization.resources {
            let path = folder.join(resource);
            ensure!(path.exists(), "{} names {}", folder.display(), resource.display());
            if path.is_file() {
                manifests::check(&path)?;
            }
        }
        let files = kustomization.config_map_generator.iter().flat_map(|map| &map.files);
        files.into_iter().try_for_each(|file| {
            ensure!(folder.join(file).is_file(), "{}: no {}", folder.display(), file.display());
            Ok(())
        })?;
    }
    for file in manifests::files()? {
        let folder = file.parent().context("a file")?;
        let name = file.file_name().context("a file")?;
        let used = kustomizations.iter().filter(|(at, _)| at == folder).any(|(_, kustomization)| {
            let maps = kustomization.config_map_generator.iter().flat_map(|map| &map.files);
            let patches = kustomization.patches.iter().filter_map(|patch| patch["path"].as_str());
            kustomization.resources.iter().chain(maps).any(|used| used.as_os_str() == name)
                || patches.into_iter().any(|used| used == name)
                || name == "kustomization.yaml"
        });
        ensure!(used, "{} is in no kustomization", file.display());
    }
    Ok(())
}

#[test]
fn a_key_that_kubernetes_does_not_know_is_found() -> Result<()> {
    let path = millrace_tests::scratch::dir("manifest")?.join("service.yaml");
    fs::write(
        &path,
        "{ apiVersion: v1, kind: Service, metadata: { name: a }, spec: { publishNotReadyAdresses: true } }",
    )?;
    let fault = manifests::check(&path).err().context("it was taken")?;
    ensure!(format!("{fault:#}").contains("publishNotReadyAdresses"), "{fault:#}");
    Ok(())
}

fn pod(workload: &Workload) -> Result<&PodSpec> {
    workload.template.spec.as_ref().context("no pod")
}

/// The containers of ours, with their settings.
fn ours(workload: &Workload) -> Result<Vec<(&Container, Value)>> {
    let pod = pod(workload)?;
    let all = pod.containers.iter().chain(pod.init_containers.iter().flatten());
    all.filter(|container| container.image.as_deref() == Some("millrace"))
        .map(|container| {
            let program = container.args.iter().flatten().next().context("no arguments")?;
            Ok((container, yaml(&workload.folder.join(format!("{program}.yaml")))?))
        })
        .collect()
}

fn mib(text: &str) -> Result<u64> {
    let text = text.strip_suffix('B').unwrap_or(text);
    text.strip_suffix("Mi").and_then(|text| text.parse().ok()).with_context(|| format!("{text} is not in Mi"))
}

fn seconds(setting: &Value) -> Result<i64> {
    let text = setting.as_str().context("no duration")?;
    text.strip_suffix('s').and_then(|text| text.parse().ok()).with_context(|| format!("{text} is not in s"))
}

fn checks_live(probe: Option<&Probe>) -> bool {
    probe.and_then(|probe| probe.http_get.as_ref()).is_some_and(|get| get.path.as_deref() == Some("/livez"))
}

#[test]
fn pods_may_do_nothing_that_they_need_not() -> Result<()> {
    for folder in WORKLOADS {
        let workload = Workload::load(folder)?;
        let pod = pod(&workload)?;
        assert_eq!(pod.automount_service_account_token, Some(false), "{folder}");
        let context = pod.security_context.as_ref().context("no security context")?;
        assert_eq!(
            context.seccomp_profile.as_ref().map(|profile| profile.type_.as_str()),
            Some("RuntimeDefault"),
            "{folder}"
        );
        // Only the kubelet's files need root, and that one has no capability.
        assert_eq!(context.run_as_non_root == Some(true), folder != "node", "{folder}");
        for container in pod.containers.iter().chain(pod.init_containers.iter().flatten()) {
            let name = format!("{folder}: {}", container.name);
            let context = container.security_context.as_ref().context("no security context")?;
            assert_eq!(context.allow_privilege_escalation, Some(false), "{name}");
            assert_eq!(context.read_only_root_filesystem, Some(true), "{name}");
            let dropped = context.capabilities.as_ref().and_then(|capabilities| capabilities.drop.as_deref());
            assert_eq!(dropped, Some(&["ALL".to_owned()][..]), "{name}");
            let resources = container.resources.as_ref().context("no resources")?;
            let has = |set: &Option<std::collections::BTreeMap<String, _>>, what| {
                set.as_ref().is_some_and(|set| set.contains_key(what))
            };
            assert!(has(&resources.requests, "cpu") && has(&resources.requests, "memory"), "{name}");
            assert!(
                has(&resources.limits, "memory") && !has(&resources.limits, "cpu"),
                "{name}: a throttled reader falls behind"
            );
        }
    }
    Ok(())
}

#[test]
fn pods_agree_with_the_settings_they_are_given() -> Result<()> {
    for folder in WORKLOADS {
        let workload = Workload::load(folder)?;
        let pod = pod(&workload)?;
        let volumes: Vec<_> = pod.volumes.iter().flatten().map(|volume| volume.name.as_str()).collect();
        let ours = ours(&workload)?;
        assert_eq!(ours.len(), 1, "{folder}");
        for (container, settings) in ours {
            let limit =
                container.resources.as_ref().and_then(|resources| resources.limits.as_ref()?.get("memory").cloned());
            let (limit, own) =
                (mib(&limit.context("no limit")?.0)?, mib(settings["limits"]["memory"].as_str().context("no limit")?)?);
            assert!(own * 3 / 2 <= limit, "{folder}: {own} MiB of {limit}");
            // 25s is what `shutdown.deadline` is by default.
            let deadline = settings["shutdown"].get("deadline").map_or(Ok(25), seconds)?;
            assert!(pod.termination_grace_period_seconds.context("no grace")? > deadline + 10, "{folder}");
            let port = container.ports.iter().flatten().next().context("no port")?.container_port;
            assert!(
                settings["admin"]["listen"].as_str().is_some_and(|listen| listen.ends_with(&format!(":{port}"))),
                "{folder}"
            );
            for mount in container.volume_mounts.iter().flatten() {
                assert!(volumes.contains(&mount.name.as_str()), "{folder}: no volume {}", mount.name);
            }
            let text = fs::read_to_string(
                workload.folder.join(format!("{}.yaml", container.args.as_ref().context("no arguments")?[0])),
            )?;
            let text: String = text.lines().filter(|line| !line.trim_start().starts_with('#')).collect();
            for name in text.split("${").skip(1).filter_map(|rest| rest.split(['}', ':']).next()) {
                let is_given = container.env.iter().flatten().any(|env| env.name == name);
                assert!(is_given, "{folder}: {name} is not in the environment");
            }
        }
    }
    Ok(())
}

#[test]
fn an_application_never_waits_for_its_shipper_and_the_last_line_counts() -> Result<()> {
    let workload = Workload::load("sidecar")?;
    let pod = pod(&workload)?;
    let shipper = pod.init_containers.iter().flatten().next().context("no sidecar")?;
    assert_eq!(shipper.restart_policy.as_deref(), Some("Always"), "it is started first and stopped last");
    for folder in ["sidecar", "node"] {
        let workload = Workload::load(folder)?;
        let ours = ours(&workload)?;
        let (shipper, _) = ours.first().context("no shipper")?;
        assert!(shipper.readiness_probe.is_none() && shipper.startup_probe.is_none(), "{folder}");
        assert!(checks_live(shipper.liveness_probe.as_ref()), "{folder}");
        let reads_logs = |mount: &&k8s_openapi::api::core::v1::VolumeMount| mount.mount_path.starts_with("/var/log");
        assert!(
            shipper.volume_mounts.iter().flatten().filter(reads_logs).all(|mount| mount.read_only == Some(true)),
            "{folder}"
        );
    }
    Ok(())
}

#[test]
fn the_indexer_is_drained_pinged_and_scaled_rightly() -> Result<()> {
    let workload = Workload::load("indexer")?;
    let ours = ours(&workload)?;
    let (indexer, settings) = ours.first().context("no indexer")?;
    assert!(checks_live(indexer.liveness_probe.as_ref()));
    let ready =
        indexer.readiness_probe.as_ref().and_then(|probe| probe.http_get.as_ref()).and_then(|get| get.path.as_deref());
    assert_eq!(ready, Some("/readyz"));
    let root = manifests::root();
    let budget: PodDisruptionBudget = manifests::resource(&root.join("indexer/disruption.yaml"))?;
    assert_eq!(budget.spec.context("no spec")?.unhealthy_pod_eviction_policy.as_deref(), Some("AlwaysAllow"));
    let service: k8s_openapi::api::core::v1::Service = manifests::resource(&root.join("indexer/service.yaml"))?;
    assert_eq!(service.spec.context("no spec")?.publish_not_ready_addresses, Some(true));
    let scaled: Value = yaml(&root.join("overlays/keda/scaledobject.yaml"))?;
    let trigger = &scaled["spec"]["triggers"][0];
    assert_eq!(
        (&trigger["type"], &scaled["spec"]["scaleTargetRef"]["name"]),
        (&"kafka".into(), &workload.name.clone().into())
    );
    let trigger = &trigger["metadata"];
    assert_eq!(trigger["bootstrapServers"], settings["kafka"]["brokers"][0]);
    assert_eq!(
        (&trigger["consumerGroup"], &trigger["topic"]),
        (&settings["kafka"]["group"], &settings["kafka"]["topics"][0])
    );
    // KEDA takes only strings here.
    assert!(trigger.as_object().context("no metadata")?.values().all(Value::is_string), "{trigger}");
    let monitor: Value = yaml(&root.join("overlays/monitoring/podmonitor.yaml"))?;
    let ports: Vec<_> = monitor["spec"]["podMetricsEndpoints"]
        .as_array()
        .context("no endpoints")?
        .iter()
        .filter_map(|end| end["port"].as_str())
        .collect();
    let rules: Value = yaml(&root.join("overlays/monitoring/rules.yaml"))?;
    let alerts: Value = yaml(&root.join("../monitoring/prometheus/alerts.yml"))?;
    assert_eq!(rules["spec"]["groups"], alerts["groups"], "the operator's rules are not those of alerts.yml");
    for folder in WORKLOADS {
        let workload = Workload::load(folder)?;
        for (container, _) in self::ours(&workload)? {
            let port =
                container.ports.iter().flatten().next().and_then(|port| port.name.as_deref()).context("no port")?;
            assert!(ports.contains(&port), "{folder}: nobody scrapes {port}");
        }
        let part = workload.labels.get("app.kubernetes.io/part-of").map(String::as_str);
        assert_eq!(monitor["spec"]["selector"]["matchLabels"]["app.kubernetes.io/part-of"].as_str(), part, "{folder}");
    }
    Ok(())
}
