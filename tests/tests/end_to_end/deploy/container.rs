//! Runs a container without a container engine: in a mount namespace of its own with a root folder that has what the image has,
//! the volumes where they are to be mounted, the user, no capabilities and a read-only root.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::{Container, EnvVar, PodSpec, Volume};
use millrace_tests::process::{Launch, built};

use super::manifests::Workload;

/// What Kubernetes would know.
pub struct Surroundings {
    /// Folders that volumes and host paths live in.
    pub dir: PathBuf,
    /// Addresses of names in the cluster.
    pub hosts: Vec<(&'static str, String)>,
    /// Ports of settings, and those that are used in their place: the machine is shared.
    pub ports: Vec<(u16, u16)>,
}

/// `root user group`, then the program; the files it makes in the root folder come from standard environment variables.
const SCRIPT: &str = r#"
set -eu
root=$1 user=$2 group=$3
shift 3
mount -t tmpfs -o mode=755 tmpfs "$root"
mkdir "$root/usr" "$root/proc" "$root/dev" "$root/tmp" "$root/etc" "$root/opt"
for link in bin lib lib64; do
    if [ -L "/$link" ]; then ln -s "usr/$link" "$root/$link"; elif [ -e "/$link" ]; then mkdir "$root/$link"; mount --bind -o ro "/$link" "$root/$link"; fi
done
mount --bind /usr "$root/usr"
mount --rbind /proc "$root/proc"
mount --rbind /dev "$root/dev"
cp /etc/nsswitch.conf /etc/passwd /etc/group "$root/etc/"
printf '%s\n' "127.0.0.1 localhost" "$HOSTS" >"$root/etc/hosts"
printf '%s\n' "$MOUNTS" | while IFS='|' read -r source target mode; do
    if [ -d "$source" ]; then mkdir -p "$root$target"; else mkdir -p "$(dirname "$root$target")"; : >"$root$target"; fi
    mount --bind "$source" "$root$target"
    if [ "$mode" = ro ]; then mount -o remount,bind,ro "$root$target"; fi
done
mount -o remount,ro "$root"
unset HOSTS MOUNTS
chroot=$(command -v chroot)
export PATH=/opt:/usr/bin:/bin
if [ -n "${CONTAINER:-}" ]; then hostname "$CONTAINER"; fi
exec "$chroot" "$root" setpriv --reuid "$user" --regid "$group" --clear-groups --no-new-privs --inh-caps=-all --bounding-set=-all "$@"
"#;

/// How to start a container of a workload.
pub fn launch(workload: &Workload, container: &Container, surroundings: &Surroundings) -> Result<Launch> {
    let pod = workload.template.spec.as_ref().context("no pod")?;
    let context = pod.security_context.as_ref().context("no security context")?;
    let (user, group) = (context.run_as_user.context("no user")?, context.run_as_group.context("no group")?);
    let templates = workload.folder.join("../../templates").canonicalize()?;
    let mut mounts = vec![format!("{}|/etc/millrace/templates|ro", templates.display())];
    for mount in container.volume_mounts.iter().flatten() {
        let source = volume(workload, pod, &mount.name, surroundings)?;
        let mode = if mount.read_only == Some(true) { "ro" } else { "rw" };
        mounts.push(format!("{}|{}|{mode}", source.display(), mount.mount_path));
    }
    let name = format!("{}-{}", workload.name, container.name);
    let mut launch = contain(&name, &surroundings.dir, &surroundings.hosts, (user, group), mounts)?
        .args(container.command.iter().flatten())
        .args(container.args.iter().flatten());
    for variable in container.env.iter().flatten() {
        launch = launch.env(&variable.name, value(workload, variable)?);
    }
    Ok(launch)
}

/// A container with the programs in it; the command is to follow. `mounts` are `source|target|mode`. Its host name is that of
/// the variable `CONTAINER`.
pub fn contain(
    name: &str,
    dir: &Path,
    hosts: &[(&'static str, String)],
    (user, group): (i64, i64),
    mut mounts: Vec<String>,
) -> Result<Launch> {
    let root = dir.join(format!("root-{name}"));
    fs::create_dir_all(&root)?;
    for program in ["shipper", "indexer"] {
        mounts.push(format!("{}|/opt/{program}|ro", built(program)?.display()));
    }
    let hosts: Vec<_> = hosts.iter().map(|(name, address)| format!("{address} {name}")).collect();
    Ok(Launch::program(name, "unshare", &dir.join(format!("{name}.log")))
        .args(["--mount", "--uts", "sh", "-c", SCRIPT, "sh"])
        .arg(&root)
        .args([user.to_string(), group.to_string()])
        .env("HOSTS", hosts.join("\n"))
        .env("MOUNTS", mounts.join("\n")))
}

/// The folder of a volume, made as Kubernetes would.
fn volume(workload: &Workload, pod: &PodSpec, name: &str, surroundings: &Surroundings) -> Result<PathBuf> {
    let volume =
        pod.volumes.iter().flatten().find(|volume| volume.name == name).with_context(|| format!("no volume {name}"))?;
    let dir = surroundings.dir.join(format!("{}-{name}", workload.name));
    match volume {
        Volume { config_map: Some(map), .. } => {
            fs::create_dir_all(&dir)?;
            for file in workload.config_map(&map.name)? {
                let mut text = fs::read_to_string(file)?;
                for (from, to) in &surroundings.ports {
                    text = text.replace(&format!(":{from}\""), &format!(":{to}\""));
                }
                fs::write(dir.join(file.file_name().context("a file")?), text)?;
            }
            Ok(dir)
        }
        Volume { empty_dir: Some(_), .. } => {
            fs::create_dir_all(&dir)?;
            let group = pod.security_context.as_ref().and_then(|context| context.fs_group);
            std::os::unix::fs::chown(&dir, None, group.map(|group| group as u32))?;
            fs::set_permissions(&dir, std::os::unix::fs::PermissionsExt::from_mode(0o2775))?;
            Ok(dir)
        }
        Volume { host_path: Some(path), .. } => {
            let path = host_path(&surroundings.dir, &path.path);
            fs::create_dir_all(&path)?;
            Ok(path)
        }
        _ => bail!("volume {name} is of a kind that is not expected"),
    }
}

/// Where a path of the host is in the test.
pub fn host_path(dir: &Path, path: &str) -> PathBuf {
    dir.join("host").join(path.trim_start_matches('/'))
}

/// What the downward API says.
fn value(workload: &Workload, variable: &EnvVar) -> Result<String> {
    if let Some(value) = &variable.value {
        return Ok(value.clone());
    }
    let path =
        variable.value_from.as_ref().and_then(|from| from.field_ref.as_ref()).map(|field| field.field_path.as_str());
    let known = BTreeMap::from([
        ("metadata.uid", "0f2c2c1e-6d5b-4c53-9d0c-2b8f0c6f7f11"),
        ("metadata.name", "pod-1"),
        ("metadata.namespace", "logging"),
        ("spec.nodeName", "node-1"),
    ]);
    let path = path.with_context(|| format!("{} has no value", variable.name))?;
    let label = path.strip_prefix("metadata.labels['").and_then(|rest| rest.strip_suffix("']"));
    match label {
        Some(label) => workload.labels.get(label).cloned().with_context(|| format!("no label {label}")),
        None => known.get(path).map(|&value| value.to_owned()).with_context(|| format!("{path} is not known")),
    }
}
