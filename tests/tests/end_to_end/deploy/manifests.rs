//! The files of `k8s/`, as Kubernetes would take them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{PodTemplateSpec, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../k8s")
}

/// Reads YAML, with its anchors.
pub fn yaml<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    serde_saphyr::from_str(&text).with_context(|| path.display().to_string())
}

/// What of a kustomization this project uses. A key that is not here is a typing error.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Kustomization {
    #[serde(rename = "apiVersion")]
    pub _api_version: String,
    #[serde(rename = "kind")]
    pub _kind: String,
    #[serde(rename = "namespace")]
    pub _namespace: Option<String>,
    pub resources: Vec<PathBuf>,
    #[serde(default)]
    pub config_map_generator: Vec<ConfigMap>,
    #[serde(default)]
    pub labels: Vec<Labels>,
    #[serde(default)]
    pub patches: Vec<Value>,
    #[serde(rename = "images", default)]
    pub _images: Vec<Value>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigMap {
    pub name: String,
    #[serde(rename = "behavior")]
    pub _behavior: Option<String>,
    pub files: Vec<PathBuf>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Labels {
    pub pairs: BTreeMap<String, String>,
    #[serde(rename = "includeSelectors")]
    pub _include_selectors: bool,
}

/// All kustomizations, by folder.
pub fn kustomizations() -> Result<Vec<(PathBuf, Kustomization)>> {
    let files = files()?.into_iter().filter(|file| file.ends_with("kustomization.yaml"));
    files.map(|file| Ok((file.parent().context("a file")?.to_owned(), yaml(&file)?))).collect()
}

/// All YAML files.
pub fn files() -> Result<Vec<PathBuf>> {
    let mut folders = vec![root()];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            match path.is_dir() {
                true => folders.push(path),
                false if path.extension().is_some_and(|extension| extension == "yaml") => files.push(path),
                false => {}
            }
        }
    }
    files.sort();
    Ok(files)
}

/// Reads a resource as its type. A key that the type does not have is an error: Kubernetes would drop it in silence.
pub fn resource<T: DeserializeOwned + Serialize>(path: &Path) -> Result<T> {
    let raw: Value = yaml(path)?;
    let typed: T = serde_json::from_value(raw.clone()).with_context(|| path.display().to_string())?;
    contains(&serde_json::to_value(&typed)?, &raw, "").with_context(|| path.display().to_string())?;
    Ok(typed)
}

fn contains(whole: &Value, part: &Value, at: &str) -> Result<()> {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => part.iter().try_for_each(|(key, value)| {
            let found = whole.get(key).with_context(|| format!("`{at}.{key}` is nothing that Kubernetes knows"))?;
            contains(found, value, &format!("{at}.{key}"))
        }),
        (Value::Array(whole), Value::Array(part)) => whole
            .iter()
            .zip(part)
            .enumerate()
            .try_for_each(|(i, (whole, part))| contains(whole, part, &format!("{at}[{i}]"))),
        _ if whole == part => Ok(()),
        _ => bail!("`{at}` is {part}, and was read as {whole}"),
    }
}

/// Reads any file of `k8s/` that is a resource of Kubernetes itself. False for what belongs to an extension.
pub fn check(path: &Path) -> Result<bool> {
    let raw: Value = yaml(path)?;
    match raw["kind"].as_str() {
        Some("Deployment") => _ = resource::<Deployment>(path)?,
        Some("DaemonSet") => _ = resource::<DaemonSet>(path)?,
        Some("Service") => _ = resource::<Service>(path)?,
        Some("NetworkPolicy") => _ = resource::<NetworkPolicy>(path)?,
        Some("PodDisruptionBudget") => _ = resource::<PodDisruptionBudget>(path)?,
        Some("HorizontalPodAutoscaler") => _ = resource::<HorizontalPodAutoscaler>(path)?,
        Some("ScaledObject" | "PodMonitor" | "PrometheusRule") => return Ok(false),
        other => bail!("{}: kind {other:?}", path.display()),
    }
    Ok(true)
}

/// A workload with the folder and the labels it gets its parts from.
pub struct Workload {
    pub folder: PathBuf,
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub template: PodTemplateSpec,
    config_maps: BTreeMap<String, Vec<PathBuf>>,
}

impl Workload {
    /// The workload of a folder of `k8s/`.
    pub fn load(folder: &str) -> Result<Self> {
        let folder = root().join(folder);
        let kustomization: Kustomization = yaml(&folder.join("kustomization.yaml"))?;
        let (name, template) = match folder.join("daemonset.yaml") {
            path if path.exists() => {
                let set: DaemonSet = resource(&path)?;
                (set.metadata.name, set.spec.context("no spec")?.template)
            }
            _ => {
                let deployment: Deployment = resource(&folder.join("deployment.yaml"))?;
                (deployment.metadata.name, deployment.spec.context("no spec")?.template)
            }
        };
        let maps = kustomization.config_map_generator.into_iter();
        let config_maps =
            maps.map(|map| (map.name, map.files.iter().map(|file| folder.join(file)).collect())).collect();
        let labels = kustomization.labels.into_iter().flat_map(|labels| labels.pairs).collect();
        Ok(Self { name: name.context("no name")?, folder, labels, template, config_maps })
    }

    pub fn config_map(&self, name: &str) -> Result<&[PathBuf]> {
        let files = self.config_maps.get(name);
        let files = files.with_context(|| format!("{}: no config map `{name}`", self.folder.display()))?;
        ensure!(files.iter().all(|file| file.is_file()), "{}: a file of `{name}` is missing", self.folder.display());
        Ok(files)
    }
}
